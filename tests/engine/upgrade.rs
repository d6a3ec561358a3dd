//! Other images for a vPLC: what works stays, and everything else leads back.

use std::fs;

use orchestrator_tests::runtime::program;
use orchestratord_dbus::{JobProxy, Options, VplcProxy};

use crate::programs::{deploy, shown};
use crate::rig::{Host, NIC, becomes, until};
use orchestrator_tests::plant::Plant;

/// A vPLC with the stub of the runtime, whose health is a matter of its image.
fn spec() -> String {
    format!(
        "api_version: orchestrator/v1\nkind: vplc\nname: press1\n# plc: runtime:1\nimage:\n  reference: runtime:1\n  pull: never\n\
         command: [/usr/bin/stub-runtime]\ndata: {{path: /var/run/runtime}}\nprogram: {{}}\n\
         health: {{command: [sh, -c, 'test -z \"$ILL\"'], interval: 1, retries: 2}}\n{NIC}"
    )
}

/// What has to be the same after an upgrade that failed.
type State = (String, String, u64, (Vec<String>, Vec<String>, Vec<String>, usize));

async fn state(host: &Host, vplc: &VplcProxy<'_>) -> State {
    let number = shown(host).await["program"]["number"].as_u64().unwrap();
    let mut residue = host.residue();
    // The record before the newest one comes with the first change.
    residue.2.retain(|file| file != "press1.older");
    (vplc.spec().await.unwrap(), vplc.image().await.unwrap(), number, residue)
}

fn marker(host: &Host) -> String {
    format!("/proc/{}/root/var/run/runtime/marker", host.engine.pid("vplc.press1"))
}

/// Waits until the PLC is seen to run.
async fn runs(vplc: &VplcProxy<'_>) {
    until("the PLC runs", async || (vplc.plc().await.unwrap() == "running").then_some(())).await;
}

#[tokio::test]
async fn an_image_that_does_not_work_leads_back_to_the_former_one_and_its_program() {
    let test = "an_image_that_does_not_work_leads_back_to_the_former_one_and_its_program";
    let Some(host) = Host::start(test).await else { return };
    host.engine.import_runtimes(&[
        ("1", ""),
        ("2", "STUB_VERSION=4.2.0"),
        ("ends", "STUB_EXIT=0:7"),
        ("ends-later", "STUB_EXIT=6:7"),
        ("ill", "ILL=yes"),
        ("compiles-nothing", "STUB_COMPILE=fail"),
    ]);
    let plant = Plant::at("plant0", &host.net);
    let vplc = host.run(&spec()).await;
    assert_eq!(deploy(&host, 11, "good").await.1, "done");
    fs::write(marker(&host), "data").unwrap();
    let before = state(&host, &vplc).await;
    for (tag, kind, words) in [
        ("ends", "VplcFailed", "ended by itself with exit code 7 after it was changed"),
        ("ends-later", "VplcFailed", "ended by itself with exit code 7 after it was changed"),
        ("ill", "VplcFailed", "it is not healthy"),
        ("compiles-nothing", "ProgramFailed", "does not compile"),
        ("missing", "ImageUnavailable", "runtime:missing"),
    ] {
        let runtime = host.engine.pid("vplc.press1");
        let job = vplc.upgrade(&format!("runtime:{tag}"), Options::new()).await.unwrap();
        let (result, error, message) = host.end_of(job).await;
        let expected = if tag == "missing" { "failed" } else { "rolled-back" };
        assert_eq!((result.as_str(), error.as_str()), (expected, kind), "{tag}: {message}");
        assert!(message.contains(words), "{tag}: {message}");
        // As soon as the Job has ended, the former program runs, whoever is asked.
        assert_eq!(plant.program(7), Some(11), "{tag}");
        assert_eq!(state(&host, &vplc).await, before, "{tag}");
        assert_eq!(fs::read_to_string(marker(&host)).unwrap(), "data", "{tag}");
        assert_eq!(host.engine.pid("vplc.press1") == runtime, tag == "missing", "{tag}");
        becomes(&vplc, "running").await;
        runs(&vplc).await;
        assert_eq!(vplc.last_error().await.unwrap(), (String::new(), String::new()), "{tag}");
    }

    // One that works stays, with program and data; what else stands in the specification is as it was.
    let (code, _, told) = host.ctl("vplc upgrade press1 runtime:2").await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(plant.program(7), Some(11));
    let image = vplc.image().await.unwrap();
    assert!(image.starts_with("runtime:2 sha256:") && image[10..] != before.1[10..], "{image}");
    assert_eq!(vplc.spec().await.unwrap(), spec().replace("reference: runtime:1", "reference: runtime:2"));
    assert_eq!(fs::read_to_string(marker(&host)).unwrap(), "data");
    assert_eq!(vplc.runtime().await.unwrap(), "healthy");
    // And back to the digest, whatever the tag means by then.
    let digest = before.1.split(' ').nth(1).unwrap();
    assert_eq!(host.ctl(&format!("vplc upgrade press1 runtime:1 --pin {digest}")).await.0, 0);
    assert_eq!(state(&host, &vplc).await, before);

    // A way back that cannot be gone to its end is told, and goes on to be told.
    fs::write(host.path("state/vplc-programs/press1/programs/1.zip"), "damaged").unwrap();
    let job = vplc.upgrade("runtime:ends", Options::new()).await.unwrap();
    let (result, error, message) = host.end_of(job).await;
    assert_eq!((result.as_str(), error.as_str()), ("inconsistent", "Inconsistent"), "{message}");
    assert!(message.contains("exit code 7") && message.contains("could not be taken back: Version \"1\""), "{message}");
    assert_eq!((vplc.container().await.unwrap(), plant.program(7)), ("running".into(), None));
    assert!(vplc.last_error().await.unwrap().1.contains("Version \"1\" of the program cannot be used"));
    assert_eq!(deploy(&host, 12, "good").await.1, "done");
    assert_eq!(vplc.last_error().await.unwrap(), (String::new(), String::new()));
    assert_eq!(plant.program(7), Some(12));
    host.delete().await;
}

#[tokio::test]
async fn a_daemon_that_ends_in_the_middle_of_an_upgrade_returns_to_the_former_image() {
    let test = "a_daemon_that_ends_in_the_middle_of_an_upgrade_returns_to_the_former_image";
    let Some(mut host) = Host::start(test).await else { return };
    host.engine.import_runtimes(&[("1", ""), ("deaf", "STUB_FAULT=reset")]);
    let plant = Plant::at("plant0", &host.net);
    let vplc = host.run(&spec()).await;
    assert_eq!(deploy(&host, 11, "good").await.1, "done");
    let before = state(&host, &vplc).await;
    let old = host.engine.inspect("vplc.press1").unwrap()["Image"].clone();
    // Between stop and start, and between start and claim: the runtime of that image is never claimed.
    for running in [false, true] {
        vplc.upgrade("runtime:deaf", Options::new()).await.unwrap();
        until("the former runtime has ended", async || {
            let found = host.engine.inspect("vplc.press1");
            let up = found.as_ref().is_some_and(|found| found["State"]["Running"] == true);
            let new = found.is_some_and(|found| found["Image"] != old);
            (if running { new && up } else { !up }).then_some(())
        })
        .await;
        host.kill_daemon();
        assert_eq!(plant.program(7), None);
        host.start_daemon().await;
        let job = JobProxy::builder(&host.client).path("/org/orchestratord1/job/1").build().await.unwrap();
        assert_eq!(job.kind().await.unwrap(), "apply");
        let (result, error, message) = host.end_of(job.inner().path().to_owned().into()).await;
        assert_eq!((result.as_str(), error.as_str()), ("rolled-back", "Failed"), "{message}");
        assert!(message.contains("orchestratord ended while the vPLC \"press1\" was changed"), "{message}");
        assert_eq!(plant.program(7), Some(11));
        assert_eq!(state(&host, &vplc).await, before);
        assert_eq!(host.engine.inspect("vplc.press1").unwrap()["Image"], old);
        runs(&vplc).await;
    }
    // Nothing is left to take back: the next daemon finds a vPLC as any other.
    let runtime = host.engine.pid("vplc.press1");
    host.kill_daemon();
    host.start_daemon().await;
    becomes(&vplc, "running").await;
    assert_eq!(host.engine.pid("vplc.press1"), runtime);
    host.delete().await;
}

#[tokio::test]
async fn programs_are_listed_exported_and_put_back_and_the_runtime_can_be_reached() {
    let test = "programs_are_listed_exported_and_put_back_and_the_runtime_can_be_reached";
    let Some(host) = Host::start(test).await else { return };
    host.engine.import_runtime();
    let plant = Plant::at("plant0", &host.net);
    host.run(&spec()).await;
    let (_, printed, _) = host.ctl("--json vplc show press1").await;
    assert!(printed.contains("\"versions\": []"), "{printed}");
    let nothing = host.path("nothing.zip");
    let (code, _, told) = host.ctl(&format!("vplc export press1 {}", nothing.display())).await;
    assert_eq!((code, nothing.exists()), (6, false), "{told}");
    for number in [11, 12, 13] {
        assert_eq!(deploy(&host, number, "good").await.1, "done");
    }
    let versions = shown(&host).await["versions"].clone();
    let numbers: Vec<_> = versions.as_array().unwrap().iter().map(|version| version["number"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    for version in versions.as_array().unwrap() {
        assert!(version["proven"].is_string() && version["by"] == "user 0", "{version}");
        assert_eq!((version["sha256"].as_str().unwrap().len(), version["size"].as_u64() > Some(0)), (64, true));
    }
    let (_, printed, _) = host.ctl("vplc show press1").await;
    assert!(printed.lines().any(|line| line.starts_with("3 * ")), "{printed}");
    // What comes out is what went in.
    for (words, number) in [("", 13), ("2 ", 12)] {
        let file = host.path(&format!("{number}.zip"));
        let (code, _, told) = host.ctl(&format!("vplc export press1 {words}{}", file.display())).await;
        assert_eq!(code, 0, "{told}");
        assert_eq!(fs::read(&file).unwrap(), program(number, "good"));
        let (code, _, told) = host.ctl(&format!("vplc export press1 {words}{}", file.display())).await;
        assert!(code == 1 && told.contains("File exists"), "what is there is not written over: {told}");
    }
    let (code, _, told) = host.ctl("vplc rollback press1 9").await;
    assert!(code == 2 && told.contains("no version \"9\""), "{told}");
    assert_eq!(host.ctl("vplc rollback press1 1").await.0, 0);
    assert_eq!((plant.program(7), shown(&host).await["program"]["number"].as_u64()), (Some(11), Some(1)));

    let (code, printed, _) = host.ctl("--json vplc credentials press1").await;
    assert_eq!(code, 0);
    let told: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let user = told["user"].as_str().unwrap();
    let word = serde_json::json!({ "username": user, "password": told["password"] }).to_string();
    let net = format!("--net=/proc/{}/ns/net", host.engine.pid("vplc.press1"));
    let login = std::process::Command::new("nsenter")
        .args([&net, "--", "curl", "--silent", "--insecure", "--max-time", "30", "--data", &word])
        .args(["--header", "Content-Type: application/json", "https://127.0.0.1:8443/api/login"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&login.stdout).contains("access_token"), "{login:?}");
    assert_eq!(told["certificate"].as_str().unwrap().len(), 64);
    host.delete().await;
}
