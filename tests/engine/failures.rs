//! What goes wrong with vPLCs: crashes, bad input, names that are taken.

use orchestratord_dbus::Options;
use serde_json::json;

use crate::rig::{Host, NIC, RUNS, becomes, spec, until};

#[tokio::test]
async fn a_vplc_that_crashes_too_often_is_left_alone_until_it_is_reset() {
    let Some(mut host) = Host::start("a_vplc_that_crashes_too_often_is_left_alone_until_it_is_reset").await else {
        return;
    };
    // It runs as long as the file is there.
    let program = "touch /data/on; echo begins; while test -e /data/on; do sleep 0.1; done; echo last words; exit 7";
    let vplc = host.run(&spec(program, "data: {path: /data}\nrestart: {limit: 2, window: 600, delay: 0}\n")).await;
    // Not through /proc: the process may be another one by then.
    let file = format!("{}/on", mountpoint(&host));
    std::fs::remove_file(&file).unwrap();
    until("it is started again", async || (vplc.restarts().await.unwrap() == 1).then_some(())).await;
    becomes(&vplc, "running").await;
    until("it runs", async || std::fs::remove_file(&file).ok()).await;
    becomes(&vplc, "failed").await;
    let (name, message) = vplc.last_error().await.unwrap();
    assert_eq!(name, "org.orchestratord1.Error.VplcFailed");
    assert_eq!(
        message,
        "The vPLC \"press1\" ended by itself 2 times, last with exit code 7; it is not started again until it is reset. Its \
         last line was: last words"
    );
    // Also after a restart of the daemon.
    host.kill_daemon();
    host.start_daemon().await;
    let vplc = host.vplc("press1").await;
    becomes(&vplc, "failed").await;
    assert_eq!(host.ctl("vplc reset press1").await.0, 0);
    becomes(&vplc, "running").await;
    assert_eq!(vplc.last_error().await.unwrap(), (String::new(), String::new()));
    // A single end is no reason to stay away, and no operator has to be called.
    host.engine.api("POST", "/containers/vplc.press1/kill", None).unwrap();
    until("it is started again", async || (vplc.restarts().await.unwrap() == 1).then_some(())).await;
    becomes(&vplc, "running").await;
    host.engine.api("POST", "/containers/vplc.press1/kill", None).unwrap();
    becomes(&vplc, "failed").await;
    host.delete().await;
}

fn mountpoint(host: &Host) -> String {
    host.engine.inspect("vplc.press1").unwrap()["Mounts"][0]["Source"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_vplc_that_cannot_start_leaves_nothing_behind() {
    let Some(host) = Host::start("a_vplc_that_cannot_start_leaves_nothing_behind").await else { return };
    let before = host.residue();
    let data = "data: {path: /data}\n";
    for (spec, expected) in [
        // No image; no program; a NIC that cannot be made; a runtime that ends at once, and again.
        (spec(RUNS, data).replace("plc:1", "plc:9"), "ImageUnavailable"),
        (spec(RUNS, data).replace("command: [sh,", "command: [no-such-program,"), "EngineFailed"),
        (spec(RUNS, &format!("{NIC}{data}")).replace("lan0", "lan9"), "UnknownLink"),
        (spec("exit 3", &format!("{NIC}{data}restart: {{limit: 2, delay: 0}}\n")), "VplcFailed"),
        (spec(RUNS, &format!("{data}cpuset: \"4000\"\n")), "EngineFailed"),
    ] {
        let (result, kind, message) = host.apply(&spec).await;
        assert_eq!((result.as_str(), kind.as_str()), ("failed", expected), "{message}");
        assert_eq!(host.residue(), before, "{spec}");
    }
    // A change that cannot be made is taken back, and one that fails early does not touch what runs.
    host.run(&spec(RUNS, NIC)).await;
    let runtime = host.engine.pid("vplc.press1");
    let (result, kind, _) = host.apply(&spec(RUNS, NIC).replace("plc:1", "plc:9")).await;
    assert_eq!((result.as_str(), kind.as_str()), ("failed", "ImageUnavailable"));
    assert_eq!(host.engine.pid("vplc.press1"), runtime);
    let (result, kind, _) = host.apply(&spec(RUNS, NIC).replace("command: [sh,", "command: [no-such-program,")).await;
    assert_eq!((result.as_str(), kind.as_str()), ("rolled-back", "EngineFailed"));
    let vplc = host.vplc("press1").await;
    assert_eq!((vplc.container().await.unwrap(), vplc.spec().await.unwrap()), ("running".into(), spec(RUNS, NIC)));
    host.delete().await;
    assert_eq!(host.residue(), before);
}

#[tokio::test]
async fn what_is_not_ours_is_never_touched() {
    let Some(host) = Host::start("what_is_not_ours_is_never_touched").await else { return };
    let foreign = json!({ "Image": "plc:1", "Cmd": ["sleep", "1000"], "HostConfig": { "NetworkMode": "none" } });
    for name in ["other", "vplc.press1"] {
        host.engine.post(&format!("/containers/create?name={name}"), &foreign).unwrap();
        host.engine.api("POST", &format!("/containers/{name}/start"), None).unwrap();
    }
    let before = (host.engine.inspect("other"), host.engine.inspect("vplc.press1"), host.residue());
    let (kind, message) = host.refused(&spec(RUNS, "")).await;
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("NameInUse", "The container engine has a container \"vplc.press1\" already, which is not ours.")
    );
    // One whose name is free is made and removed beside them.
    let second = spec(RUNS, "").replace("press1", "press2");
    assert_eq!(host.apply(&second).await.0, "done");
    let job = host.vplcs().await.delete("press2", Options::new()).await.unwrap();
    assert_eq!(host.end_of(job).await.0, "done");
    assert_eq!((host.engine.inspect("other"), host.engine.inspect("vplc.press1"), host.residue()), before);
}

#[tokio::test]
async fn bad_specifications_are_refused_with_the_place() {
    let Some(host) = Host::start("bad_specifications_are_refused_with_the_place").await else { return };
    for (more, expected) in [
        ("stop_grace: 10\n", "vplc:8:13: \"stop_grace\" must be an integer from 30 to 3600, but it is 10."),
        (
            "nics:\n  - name: eth0\n    parent: lan0\n    addresses: [192.0.2.0/24]\n",
            "vplc:11:17: \"nics[0].addresses[0]\" is the address of the network itself or its broadcast address.",
        ),
        (
            "nics:\n  - name: eth0\n    parent: lan0\n    pid: 1\n    addresses: [192.0.2.7/24]\n",
            "vplc:11:5: \"nics[0].pid\" has no place in a NIC of a vPLC.",
        ),
        ("memorry: 1G\n", "vplc:8:1: \"memorry\" is not a known key."),
    ] {
        let (kind, message) = host.refused(&spec(RUNS, more)).await;
        assert_eq!((kind.as_str(), message.as_str()), ("InvalidVplc", expected));
    }
    assert_eq!(host.files(), Vec::<String>::new());
    // Nobody looked for an engine so far.
    assert_eq!(host.vplcs().await.engine().await.unwrap(), "");
}

#[tokio::test]
async fn an_archive_that_does_not_have_the_image_is_refused_even_if_the_name_is_known() {
    let test = "an_archive_that_does_not_have_the_image_is_refused_even_if_the_name_is_known";
    let Some(host) = Host::start(test).await else { return };
    host.engine.import_runtime();
    let archive = host.path("plc.tar");
    host.engine.take_out("plc:1", &archive);
    let before = host.residue();
    let file = host.file("other.yaml", &spec(RUNS, "").replace("plc:1", "runtime:1"));
    let (code, _, told) = host.ctl(&format!("vplc apply --image {} {file}", archive.display())).await;
    assert_eq!(code, 44, "{told}");
    assert!(told.contains("the archive has \"plc:1\""), "{told}");
    assert_eq!(host.residue(), before);
    // The archive for which it is meant.
    let file = host.file("press1.yaml", &spec(RUNS, ""));
    let (code, _, told) = host.ctl(&format!("vplc apply --image {} {file}", archive.display())).await;
    assert_eq!(code, 0, "{told}");
    host.delete().await;
}
