//! What the audit log says of the calls on the bus.

use std::fs;
use std::path::Path;
use std::time::Duration;

use orchestrator_tests::bus::Bus;
use orchestrator_tests::scripted::{Daemon, system, vplc};
use orchestratord::core::job::JobResult;
use serde_json::Value;

fn lines(daemon: &Daemon) -> Vec<Value> {
    let text = fs::read_to_string(daemon.directory.path().join("audit.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn call(bus: &Bus, object: &str, method: &[&str]) -> bool {
    let mut busctl = bus.busctl();
    busctl.args(["call", "org.orchestratord1", object]).args(method).output().await.unwrap().status.success()
}

#[tokio::test]
async fn calls_that_change_something_are_written_down_with_their_end() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let uid = nix::unistd::Uid::effective().as_raw();
    let root = "/org/orchestratord1";
    let update = "org.orchestratord1.Update";
    let resume = [update, "Resume", "a{sv}", "0"];
    let (done, reporter) = tokio::join!(call(&bus, root, &resume), daemon.domain.accept());
    assert!(done);
    assert!(!call(&bus, root, &[update, "Resume", "a{sv}", "1", "typo", "s", "x"]).await);
    let detach = ["org.orchestratord1.Network", "DetachNic", "sa{sv}", "plc0", "0"];
    assert!(call(&bus, root, &detach).await);
    // Reading is nobody's business.
    assert!(call(&bus, root, &["org.freedesktop.DBus.Properties", "Get", "ss", update, "State"]).await);
    daemon.domain.finish(&reporter, JobResult::RolledBack);

    let job = async {
        while lines(&daemon).len() < 7 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), job).await.expect("the end of the Job is written down");
    let lines = lines(&daemon);
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["call", "end", "call", "end", "call", "end", "job"]);
    assert_eq!((&lines[0]["method"], &lines[0]["object"]), (&"org.orchestratord1.Update.Resume".into(), &root.into()));
    assert_eq!(lines[0]["uid"], uid);
    assert!(lines[0]["pid"].as_u64() > Some(0), "{}", lines[0]);
    assert_eq!((&lines[1]["result"], &lines[1]["made"]), (&"ok".into(), &"/org/orchestratord1/job/1".into()));
    assert_eq!(lines[3]["result"], "org.freedesktop.DBus.Error.InvalidArgs");
    assert!(lines[3]["message"].as_str().unwrap().contains("no option \"typo\""), "{}", lines[3]);
    assert_eq!(
        (&lines[4]["method"], &lines[5]["result"]),
        (&"org.orchestratord1.Network.DetachNic".into(), &"ok".into())
    );
    for pair in [0, 2, 4] {
        assert_eq!(lines[pair]["call"], lines[pair + 1]["call"]);
    }
    assert_eq!(
        (&lines[6]["job"], &lines[6]["result"], &lines[6]["uid"]),
        (&1.into(), &"rolled-back".into(), &uid.into())
    );
}

#[tokio::test]
async fn refused_calls_are_written_down_too() {
    let test = "refused_calls_are_written_down_too";
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    let Some(mut caller) = bus.as_nobody(Path::new(env!("CARGO_BIN_EXE_bus-caller")), test) else { return };
    let call = ["/org/orchestratord1", "org.orchestratord1.Update", "Reload", "a{sv}", "silent"];
    assert!(caller.arg(bus.address()).args(call).output().await.unwrap().status.success());
    let lines = lines(&daemon);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["event"], &lines[0]["uid"]), (&"denied".into(), &orchestrator_tests::bus::NOBODY.into()));
    assert_eq!(lines[0]["result"], "org.freedesktop.DBus.Error.AccessDenied");
    assert_eq!(lines[0]["method"], "org.orchestratord1.Update.Reload");
}

#[tokio::test]
async fn who_reads_a_secret_is_written_down() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    daemon.vplcs.status.send_modify(|status| drop(status.vplcs.insert("press1".to_owned(), vplc("press1"))));
    daemon.flush().await;
    let object = "/org/orchestratord1/vplc/press1";
    for method in ["Credentials", "Export"] {
        // The script has no secrets, so it says no.
        assert!(!call(&bus, object, &["org.orchestratord1.Vplc", method, "a{sv}", "0"]).await);
    }
    let lines = lines(&daemon);
    let methods: Vec<_> = lines.iter().filter_map(|line| line["method"].as_str()).collect();
    assert_eq!(methods, ["org.orchestratord1.Vplc.Credentials", "org.orchestratord1.Vplc.Export"], "{lines:?}");
    assert_eq!((lines.len(), &lines[0]["object"]), (4, &object.into()));
}
