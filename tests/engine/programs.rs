//! PLC programs of a vPLC, as a Modbus client in the plant sees them.

use std::fs::{self, File};
use std::time::Duration;

use orchestrator_tests::plant::Plant;
use orchestrator_tests::runtime::program;
use orchestratord_dbus::{Options, error_reply};
use serde_json::Value;

use crate::rig::{Host, NIC, becomes, until};

/// A vPLC with the stub of the runtime, and these further lines.
fn spec(more: &str) -> String {
    format!(
        "api_version: orchestrator/v1\nkind: vplc\nname: press1\nimage:\n  reference: runtime:1\n  pull: never\n\
         command: [/usr/bin/stub-runtime]\ndata: {{path: /var/run/runtime}}\nprogram: {{}}\n{NIC}{more}"
    )
}

/// Deploys a program with this number and behaviour: exit code of the command, result of the Job, and what was said.
pub async fn deploy(host: &Host, number: u16, behaviour: &str) -> (i32, String, String) {
    let path = host.file("program.zip", "");
    fs::write(&path, program(number, behaviour)).unwrap();
    let (code, text, told) = host.ctl(&format!("--json vplc deploy press1 {path}")).await;
    let job = serde_json::from_str::<Value>(&text).map(|shown| shown["job"]["result"].clone());
    (code, job.ok().and_then(|result| result.as_str().map(ToOwned::to_owned)).unwrap_or_default(), told)
}

/// The vPLC as `orchestratorctl` shows it.
pub async fn shown(host: &Host) -> Value {
    let (_, text, _) = host.ctl("--json vplc show press1").await;
    serde_json::from_str::<Value>(&text).unwrap()["vplc"].clone()
}

pub async fn runs(plant: &Plant, number: u16) {
    until(&format!("program {number} runs"), async || (plant.program(7) == Some(number)).then_some(())).await;
}

fn done() -> (i32, String) {
    (0, "done".to_owned())
}

#[tokio::test]
async fn programs_are_deployed_taken_back_and_outlive_the_daemon() {
    let Some(mut host) = Host::start("programs_are_deployed_taken_back_and_outlive_the_daemon").await else { return };
    host.engine.import_runtime();
    let plant = Plant::at("plant0", &host.net);
    let before = host.residue();

    // As long as the runtime cannot be claimed, it is on no network.
    let faulty = spec("environment: {STUB_FAULT: reset}\n");
    let job = host.vplcs().await.apply(&faulty, Options::new()).await.unwrap();
    until("the runtime runs", async || {
        let found = host.engine.inspect("vplc.press1");
        found.is_some_and(|found| found["State"]["Running"] == true).then_some(())
    })
    .await;
    for _ in 0..20 {
        assert!(!host.ip_in("vplc.press1", "-brief link").contains("eth0"), "a NIC before the claim");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let work = format!("/proc/{}/root/workdir/fault", host.engine.pid("vplc.press1"));
    fs::write(work, "none").unwrap();
    assert_eq!(host.end_of(job).await.0, "done");
    assert!(host.ip_in("vplc.press1", "address show dev eth0").contains("192.0.2.7/24"));
    let users = format!("/proc/{}/root/var/run/runtime/restapi.json", host.engine.pid("vplc.press1"));
    assert!(fs::read_to_string(users).unwrap().contains("orchestratord"), "the daemon owns the runtime");

    let vplc = host.vplc("press1").await;
    assert!(vplc.program().await.unwrap().is_empty());
    assert_eq!(plant.program(7), None);
    let (code, result, told) = deploy(&host, 11, "good").await;
    assert_eq!((code, result), done(), "{told}");
    assert_eq!(plant.program(7), Some(11));
    let first = shown(&host).await;
    assert_eq!((&first["plc"], &first["program"]["number"]), (&"running".into(), &1.into()), "{first}");
    assert_eq!(first["program"]["by"], "user 0", "{first}");

    let (code, result, told) = deploy(&host, 12, "compile-error").await;
    assert_ne!(code, 0);
    assert_eq!(result, "rolled-back", "{told}");
    assert!(told.contains("The program that was there before is back."), "{told}");
    assert_eq!(plant.program(7), Some(11));
    let back = shown(&host).await["program"].clone();
    assert_eq!((&back["number"], &back["sha256"]), (&first["program"]["number"], &first["program"]["sha256"]));
    // It was proved once more (RFC 3339, so later is larger).
    assert!(back["proven"].as_str() > first["program"]["proven"].as_str(), "{back}");

    let (code, result, told) = deploy(&host, 13, "good").await;
    assert_eq!((code, result), done(), "{told}");
    assert_eq!(plant.program(7), Some(13));
    let (code, _, told) = host.ctl("vplc rollback press1").await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(plant.program(7), Some(11));
    assert_eq!(shown(&host).await["program"]["number"], 1);

    // Who polls does not notice that the daemon ends and starts.
    let runtime = host.engine.pid("vplc.press1");
    let poll = plant.poll(7);
    for _ in 0..2 {
        host.kill_daemon();
        tokio::time::sleep(Duration::from_millis(300)).await;
        host.start_daemon().await;
        becomes(&host.vplc("press1").await, "running").await;
        until("the PLC is asked", async || (vplc.plc().await.unwrap() == "running").then_some(())).await;
    }
    let polls = poll.end();
    assert!(polls.good > 0 && polls.failed == 0, "{polls:?}");
    assert_eq!(host.engine.pid("vplc.press1"), runtime);

    // A deployment that the end of the daemon interrupts goes on.
    let path = host.file("program.zip", "");
    fs::write(&path, program(14, "good")).unwrap();
    let archive = File::open(&path).unwrap();
    vplc.deploy((&archive).into(), Options::new()).await.unwrap();
    runs(&plant, 14).await;
    host.kill_daemon();
    host.start_daemon().await;
    until("the deployment ends", async || (shown(&host).await["program"]["number"] == 4).then_some(())).await;
    assert_eq!(plant.program(7), Some(14));

    // Another container gets the program before it is on the network.
    let (result, kind, message) = host.apply(&spec("environment: {STUB_VERSION: 4.2.0}\n")).await;
    assert_eq!(result, "done", "{kind}: {message}");
    assert_ne!(host.engine.pid("vplc.press1"), runtime);
    runs(&plant, 14).await;

    assert_eq!(host.ctl("vplc stop press1").await.0, 0);
    let (_, _, told) = deploy(&host, 15, "good").await;
    assert!(told.contains("is stopped; a program can be deployed while it is running"), "{told}");
    let error = vplc.deploy((&File::open("/proc").unwrap()).into(), Options::new()).await.unwrap_err();
    assert!(error_reply(&error).unwrap().1.contains("\"program\" of Deploy is not a regular file"));

    host.delete().await;
    assert_eq!(host.residue(), before);
}
