//! The order of calls when all goes well (Interface protocol, "normal ordering").

use std::fs;

use orchestrator_tests::system::{System, stop_before};
use orchestratord_dbus::Options;

#[tokio::test]
async fn groups_ascend_with_a_barrier_after_each_state_and_commit_and_clean_up_at_the_end() {
    let system = System::demo().await;
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(
        system.full_trace(),
        [
            "Download G13",
            "ArtifactInstall G13",
            "NeedsArtifactReboot G13",
            "Download R456 R998",
            "ArtifactInstall R456 R998",
            "NeedsArtifactReboot R456 R998",
            "ArtifactCommit G13",
            "ArtifactCommit R456 R998",
            "Cleanup G13",
            "Cleanup R456 R998",
        ]
    );
    system.assert_all_at(2);
    system.assert_cleaned_up();
    let update = system.update().await;
    assert_eq!(update.manifest().await.unwrap(), "release-2");
    assert_eq!(update.state().await.unwrap(), "idle");
    assert_eq!(update.last_error().await.unwrap(), (String::new(), String::new()));
}

/// Each of the two ends only when both have begun, so a serial daemon would never get past this.
#[tokio::test]
async fn the_components_of_a_group_run_side_by_side_in_every_state() {
    let system = System::demo().await;
    system.observe("rtos");
    let states = ["Download", "ArtifactInstall", "NeedsArtifactReboot", "ArtifactReboot", "ArtifactVerifyReboot"];
    for state in states.into_iter().chain(["ArtifactCommit", "Cleanup", "NeedsUnpackedArtifact"]) {
        system.set("R456", &format!("{state}.meet"), "R998\n");
        system.set("R998", &format!("{state}.meet"), "R456\n");
    }
    for controller in ["R456", "R998"] {
        system.set(controller, "needs-reboot", "Yes");
    }
    system.install(2, Options::new()).await.unwrap().clean("done");
    system.assert_all_at(2);
}

/// The log of calls shows it too: both have begun before one has ended.
#[tokio::test]
async fn calls_of_a_group_overlap_in_the_log_of_calls() {
    let system = System::demo().await;
    for controller in ["R456", "R998"] {
        system.set(controller, "ArtifactInstall.sleep", "2");
    }
    system.install(2, Options::new()).await.unwrap().clean("done");
    let lines = system.lines();
    let place = |begin: &str| lines.iter().position(|line| line.starts_with(begin)).unwrap();
    for controller in ["R456", "R998"] {
        let begun = place(&format!("begin {controller} ArtifactInstall "));
        for end in ["end R456 ArtifactInstall", "end R998 ArtifactInstall"] {
            assert!(begun < place(end), "{lines:#?}");
        }
    }
}

#[tokio::test]
async fn max_parallel_of_one_runs_one_interface_at_a_time() {
    let mut system = System::new(&[("rtos", "R1", 1), ("rtos", "R2", 1), ("rtos", "R3", 1)]).await;
    system.configure("MaxParallel", 1);
    system.start_daemon().await;
    system.install(2, Options::new()).await.unwrap().clean("done");
    let lines = system.lines();
    for pair in lines.chunks(2) {
        let of =
            |line: &str, mark: &str| line.strip_prefix(mark).map(|rest| rest.split(' ').take(2).collect::<String>());
        assert_eq!(of(&pair[0], "begin "), pair.get(1).and_then(|end| of(end, "end ")), "{lines:#?}");
        assert!(pair[0].starts_with("begin "), "{lines:#?}");
    }
    system.assert_all_at(2);
}

#[tokio::test]
async fn every_component_is_asked_before_the_first_download() {
    let system = System::demo().await;
    system.forget_calls();
    system.install(2, Options::new()).await.unwrap().clean("done");
    let lines = system.lines();
    let first = lines.iter().position(|line| line.contains(" Download ")).unwrap();
    for instance in ["G13", "R456", "R998"] {
        for query in ["Identity", "Provides"] {
            let end = format!("end {instance} {query} 0");
            assert!(lines[..first].contains(&end), "{end} is missing before Download: {lines:#?}");
        }
    }
}

#[tokio::test]
async fn unchanged_components_run_no_states() {
    let system = System::demo().await;
    system.manifest(2);
    system.set("R456", "provides", "rootfs-image.demo-rtos.version=rtos-2\nnote=kept\n");
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert!(system.trace().iter().all(|step| !step.contains("R456")), "{:?}", system.trace());
    for word in ["NeedsUnpackedArtifact", "NeedsArtifactReboot", "SupportsRollback", "ProvidePayloadFileSizes"] {
        assert_eq!(system.count("R456", word), 0, "{word}");
    }
    system.assert_release("G13", 2);
    system.assert_release("R998", 2);
    assert!(!system.home("R456").join("payload").exists());
}

#[tokio::test]
async fn a_second_install_of_the_same_manifest_finds_nothing_to_do() {
    let system = System::demo().await;
    system.install(2, Options::new()).await.unwrap().clean("done");
    system.forget_calls();
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(system.full_trace(), [""; 0]);
    assert_eq!(system.update().await.state().await.unwrap(), "idle");
    system.assert_cleaned_up();
}

#[tokio::test]
async fn a_plan_touches_nothing_and_tells_groups_actions_and_versions() {
    let system = System::demo().await;
    system.set("R998", "provides", "rootfs-image.demo-rtos.version=rtos-2\n");
    let manifest = system.manifest(2);
    let steps = system.update().await.plan(&manifest, Options::new()).await.unwrap();
    let text = |step: &orchestratord_dbus::PlanStep, key: &str| String::try_from(step[key].clone()).unwrap();
    let told: Vec<String> = steps
        .iter()
        .map(|step| {
            let order = u32::try_from(step["order"].clone()).unwrap();
            format!("{order} {} {} {}", text(step, "id"), text(step, "action"), text(step, "to-version"))
        })
        .collect();
    assert_eq!(told, ["10 G13 install gateway-2", "20 R456 install rtos-2", "20 R998 unchanged rtos-2"]);
    assert_eq!(system.full_trace(), [""; 0]);
    assert!(!system.path("state/deployment").exists());
}

/// Manifest and Topology are read once: what the caller does with them afterwards changes nothing.
#[tokio::test]
async fn a_deployment_keeps_the_manifest_and_topology_it_began_with() {
    let mut system = System::demo().await;
    let options = stop_before(&["ArtifactCommit"]);
    system.install(2, options).await.unwrap().clean("stopped");
    fs::remove_file(system.manifest_file(2)).unwrap();
    fs::write(system.path("etc/topology.yaml"), "api_version: mender/v1\nkind: topology\nsystem_type: other\n")
        .unwrap();
    assert!(system.stop_daemon().await.success());
    system.start_daemon().await;
    assert_eq!(system.update().await.system_type().await.unwrap(), "test-system");
    system.resume(Options::new()).await.unwrap().clean("done");
    assert_eq!(
        system.trace()[4..],
        ["ArtifactCommit G13", "ArtifactCommit R456 R998", "Cleanup G13", "Cleanup R456 R998"]
    );
    system.assert_all_at(2);
}

#[tokio::test]
async fn relative_artifacts_start_at_the_base_directory_and_need_one() {
    let system = System::demo().await;
    let releases = format!("{}/", system.path("releases").display());
    let manifest = system.manifest(2).replace(&releases, "");
    system.forget_calls();
    let (name, message) = system.begin_text(&manifest, Options::new()).await.unwrap_err();
    assert_eq!(name, "org.orchestratord1.Error.NoSuitableArtifact");
    assert!(
        message.contains("component_types.gateway.artifact_path") && message.contains("base-directory"),
        "{message}"
    );
    assert_eq!(system.full_trace(), [""; 0]);

    // An Artifact of the same name where the daemon works must not be taken for it.
    let options = || Options::from([("base-directory", releases.as_str().into())]);
    let job = system.begin_text(&manifest, options()).await.unwrap();
    orchestrator_tests::system::outcome(&job).await.clean("done");
    system.assert_all_at(2);
}

#[tokio::test]
async fn ten_components_in_five_groups_keep_their_order() {
    let types: Vec<(String, String, u32)> =
        (0..10).map(|number| (format!("t{number}"), format!("I{number}"), 100 - number / 2 * 10)).collect();
    let components: Vec<(&str, &str, u32)> =
        types.iter().map(|(name, instance, order)| (name.as_str(), instance.as_str(), *order)).collect();
    let system = System::start(&components).await;
    system.install(2, Options::new()).await.unwrap().clean("done");
    let groups = ["I8 I9", "I6 I7", "I4 I5", "I2 I3", "I0 I1"];
    let mut expected = Vec::new();
    expected.extend(groups.iter().flat_map(|group| [format!("Download {group}"), format!("ArtifactInstall {group}")]));
    expected.extend(groups.iter().map(|group| format!("ArtifactCommit {group}")));
    expected.extend(groups.iter().map(|group| format!("Cleanup {group}")));
    assert_eq!(system.trace(), expected);
    system.assert_all_at(2);
}
