//! `show-provides` and `show-inventory`: lines, order, exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use orchestrator_tests::system::{System, stop_before};
use orchestratord_dbus::Options;

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn show_provides_prints_one_sorted_line_per_key() {
    let system = System::demo().await;
    system.set("R456", "id", "52:54:00:1d:94:82");
    system.set("G13", "provides", "z=1=2\nrootfs-image.demo-gateway.version=gateway-1\nartifact_name=g 1\n");
    let output = system.mender(&["show-provides"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        lines(&output),
        [
            "gateway.G13.artifact_name=g 1",
            "gateway.G13.rootfs-image.demo-gateway.version=gateway-1",
            "gateway.G13.z=1=2",
            "rtos.52:54:00:1d:94:82.rootfs-image.demo-rtos.version=rtos-1",
            "rtos.R998.rootfs-image.demo-rtos.version=rtos-1",
        ]
    );
}

#[tokio::test]
async fn show_inventory_merges_provides_and_inventory_and_repeats_keys_of_lists() {
    let system = System::demo().await;
    system.set("G13", "inventory", "mac=2\nmac=1\ncolour=red\nrootfs-image.demo-gateway.version=gateway-1\n");
    let output = system.mender(&["show-inventory"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        lines(&output)[..4],
        [
            "gateway.G13.colour=red",
            "gateway.G13.mac=1",
            "gateway.G13.mac=2",
            "gateway.G13.rootfs-image.demo-gateway.version=gateway-1",
        ]
    );
    assert_eq!(system.full_trace(), [""; 0]);
}

#[tokio::test]
async fn a_component_that_does_not_answer_fails_provides_but_not_inventory() {
    let system = System::demo().await;
    for (file, content) in [("Provides.fail", ""), ("provides", "a=b\n"), ("Identity.fail", "")] {
        system.set("R456", file, content);
        for (word, expected) in [("show-provides", 1), ("show-inventory", 0)] {
            let output = system.mender(&[word]).await;
            assert_eq!(output.status.code(), Some(expected), "{word} {file}");
            let lines = lines(&output);
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(lines.iter().all(|line| !line.contains("R456")), "{lines:?}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("rtos"), "{said}");
        }
        if file == "provides" {
            system.set("R456", "provides", "rootfs-image.demo-rtos.version=rtos-1\n");
        } else {
            system.unset("R456", file);
        }
    }
}

#[tokio::test]
async fn show_inventory_fails_if_nobody_answers() {
    let system = System::demo().await;
    for instance in ["G13", "R456", "R998"] {
        system.set(instance, "Provides.fail", "");
    }
    let output = system.mender(&["show-inventory"]).await;
    assert_eq!((output.status.code(), lines(&output).len()), (Some(1), 0));
}

/// The Mender client gives an inventory script ten seconds.
#[tokio::test]
async fn components_are_asked_side_by_side_and_a_hanging_one_only_costs_its_own_time() {
    let mut system = System::new(&[("rtos", "R1", 1), ("rtos", "R2", 1), ("rtos", "R3", 1)]).await;
    system.configure("QueryTimeoutSeconds", 1);
    system.observe("rtos");
    system.start_daemon().await;
    // These two end only when both have begun.
    system.set("R1", "Inventory.meet", "R2\n");
    system.set("R2", "Inventory.meet", "R1\n");
    system.set("R3", "Inventory.hang", "");
    let output = system.mender(&["show-inventory"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines(&output).len(), 2);
    assert_eq!(system.programs(), [0; 0]);
}

/// Also the first and the last of them are asked at the same time.
#[tokio::test]
async fn fifty_components_are_asked_side_by_side() {
    let names: Vec<_> = (1..=50).map(|number| format!("R{number}")).collect();
    let components: Vec<_> = names.iter().map(|name| ("rtos", name.as_str(), 1)).collect();
    let mut system = System::new(&components).await;
    system.configure("QueryTimeoutSeconds", 120);
    system.observe("rtos");
    system.start_daemon().await;
    system.set("R1", "Inventory.meet", "R50\n");
    system.set("R50", "Inventory.meet", "R1\n");
    let output = system.mender(&["show-inventory"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut expected: Vec<_> =
        names.iter().map(|name| format!("rtos.{name}.rootfs-image.demo-rtos.version=rtos-1")).collect();
    expected.sort();
    assert_eq!(lines(&output), expected);
}

/// The limit is one for all that a Component is asked, or three slow answers would cost the client the inventory of all. One that does not
/// end when it is told to is not waited for either.
#[tokio::test]
async fn the_inventory_does_not_wait_for_a_component_beyond_the_limit_for_all_its_queries() {
    let mut system = System::new(&[("quick", "Q", 1), ("slow", "S", 1), ("deaf", "D", 1)]).await;
    system.configure("QueryTimeoutSeconds", 8);
    system.start_daemon().await;
    for query in ["Provides", "Inventory"] {
        system.set("S", &format!("{query}.sleep"), "5\n");
    }
    let (program, late) = (system.program("deaf"), system.path("late"));
    fs::remove_file(&program).unwrap();
    // SIGKILL would come ten seconds after SIGTERM.
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\nfor _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do sleep 1; done\n: >'{}'\n",
        late.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let output = system.mender(&["show-inventory"]).await;
    assert!(!late.exists(), "it was waited for");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(lines(&output), ["quick.Q.rootfs-image.demo-quick.version=quick-1"], "{said}");
    assert!(said.contains("Inventory of Component \\\"slow.S") && said.contains("type \\\"deaf"), "{said}");
}

/// They need no lock: while a deployment rests they ask, while a Job works they tell what is known.
#[tokio::test]
async fn both_work_while_a_deployment_is_open_and_while_a_job_works() {
    let system = System::demo().await;
    system.install(2, stop_before(&["ArtifactCommit"])).await.unwrap().clean("stopped");
    let output = system.mender(&["show-provides"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(lines(&output)[0], "gateway.G13.artifact_name=gateway-2");
    system.resume(Options::new()).await.unwrap().clean("done");

    system.observe("gateway");
    system.set("G13", "Download.wait", "");
    let job = system.begin(3, Options::new()).await.unwrap();
    system.forget_calls();
    let output = system.mender(&["show-inventory"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(lines(&output).contains(&"gateway.G13.rootfs-image.demo-gateway.version=gateway-2".to_owned()));
    assert!(!system.lines().iter().any(|line| line.contains("Provides") || line.contains("Inventory")));
    system.unset("G13", "Download.wait");
    orchestrator_tests::system::outcome(&job).await.clean("done");
}

#[tokio::test]
async fn a_split_topology_comes_from_the_option_the_environment_or_the_configuration() {
    let mut system = System::new(&[("gateway", "G13", 10), ("rtos", "R456", 20)]).await;
    let whole = fs::read_to_string(system.path("etc/topology.yaml")).unwrap();
    let (main, components) = whole.split_once("components:").unwrap();
    fs::write(system.path("etc/topology.yaml"), main).unwrap();
    let (gateway, rtos) = components.split_at(components.find("  - component_type: rtos").unwrap());
    fs::write(system.path("etc/both.yaml"), format!("components:{components}")).unwrap();
    fs::write(system.path("etc/gateway.yaml"), format!("components:{gateway}")).unwrap();
    fs::write(system.path("etc/rtos.yaml"), format!("components:\n{rtos}")).unwrap();
    system.configure("TopologyComponents", system.path("etc/both.yaml").display().to_string());
    system.start_daemon().await;
    let firsts = |output: &Output| -> Vec<String> {
        lines(output).iter().map(|line| line.split('.').next().unwrap().to_owned()).collect()
    };
    assert_eq!(firsts(&system.mender(&["show-provides"]).await), ["gateway", "rtos"]);
    for arguments in
        [["-t", "../etc/rtos.yaml", "show-provides"], ["--topology-components", "../etc/rtos.yaml", "show-provides"]]
    {
        assert_eq!(firsts(&system.mender(&arguments).await), ["rtos"]);
    }
    // An install with the option touches only what the file names.
    system.manifest(2);
    let output = system.mender(&["-t", "../etc/rtos.yaml", "install", "manifest-2.yaml"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    system.assert_release("R456", 2);
    system.assert_release("G13", 1);

    system.set_variable(
        "MENDER_ORCHESTRATOR_TOPOLOGY_COMPONENTS_FILE",
        &system.path("etc/gateway.yaml").display().to_string(),
    );
    assert!(system.stop_daemon().await.success());
    system.start_daemon().await;
    assert_eq!(firsts(&system.mender(&["show-provides"]).await), ["gateway"], "the environment wins over the file");
}
