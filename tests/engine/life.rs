//! The life of a vPLC: made, changed, stopped, adopted, removed.

use orchestratord_dbus::Options;
use serde_json::Value;

use crate::rig::{Host, NIC, RUNS, becomes, spec, until};

#[tokio::test]
async fn a_vplc_is_applied_shown_stopped_started_and_deleted() {
    let Some(host) = Host::start("a_vplc_is_applied_shown_stopped_started_and_deleted").await else { return };
    let before = host.residue();
    // What the runtime sees first is what was there before it.
    let program = format!("ip -o address >/data/seen; {RUNS}");
    let file = host.file("plc.yaml", &spec(&program, &format!("{NIC}data: {{path: /data}}\n")));
    let (code, _, told) = host.ctl(&format!("vplc apply {file}")).await;
    assert_eq!(code, 0, "{told}");
    let (_, text, _) = host.ctl("--json vplc show press1").await;
    let shown: Value = serde_json::from_str(&text).unwrap();
    let shown = &shown["vplc"];
    assert_eq!((&shown["container"], &shown["desired"]), (&"running".into(), &"running".into()), "{text}");
    assert!(shown["image"].as_str().unwrap().starts_with("plc:1 sha256:"), "{text}");
    let (_, text, _) = host.ctl("vplc list").await;
    assert!(text.lines().any(|line| line.starts_with("press1  running  running")), "{text}");
    assert!(host.ip_in("vplc.press1", "address show dev eth0").contains("192.0.2.7/24"));
    let (_, logs, _) = host.ctl("vplc logs press1").await;
    assert_eq!(logs, "runs\n");
    // The runtime and its holder are in one network namespace, and its NIC was there before the first instruction.
    let seen = std::fs::read_to_string(format!("/proc/{}/root/data/seen", host.engine.pid("vplc.press1"))).unwrap();
    assert!(seen.contains("eth0") && seen.contains("192.0.2.7/24"), "{seen}");

    // A restart of the runtime leaves the holder alone, and with it the NIC.
    let (holder, runtime) = (host.engine.pid("vplc-net.press1"), host.engine.pid("vplc.press1"));
    assert_eq!(host.ctl("vplc restart press1").await.0, 0);
    assert_eq!(host.engine.pid("vplc-net.press1"), holder);
    assert_ne!(host.engine.pid("vplc.press1"), runtime);

    assert_eq!(host.ctl("vplc stop press1").await.0, 0);
    let stopped = host.vplc("press1").await;
    assert_eq!(
        (stopped.container().await.unwrap(), stopped.desired().await.unwrap()),
        ("stopped".into(), "stopped".into())
    );
    assert_eq!(host.engine.inspect("vplc-net.press1").unwrap()["State"]["Running"], false);
    assert_eq!(host.ctl("vplc start press1").await.0, 0);
    assert!(host.ip_in("vplc.press1", "address show dev eth0").contains("192.0.2.7/24"));

    assert_eq!(host.ctl("vplc delete press1").await.0, 0);
    assert_eq!(host.residue(), before);
    let (code, _, told) = host.ctl("vplc show press1").await;
    assert_eq!((code, told.as_str()), (41, "orchestratorctl: There is no vPLC \"press1\".\n"));
}

#[tokio::test]
async fn a_vplc_outlives_the_daemon_and_is_adopted_as_it_runs() {
    let Some(mut host) = Host::start("a_vplc_outlives_the_daemon_and_is_adopted_as_it_runs").await else { return };
    host.run(&spec(RUNS, NIC)).await;
    let before = (host.engine.inspect("vplc.press1").unwrap(), host.engine.inspect("vplc-net.press1").unwrap());
    let address = host.ip_in("vplc.press1", "address show dev eth0");
    for _ in 0..2 {
        host.kill_daemon();
        host.start_daemon().await;
        becomes(&host.vplc("press1").await, "running").await;
    }
    let after = (host.engine.inspect("vplc.press1").unwrap(), host.engine.inspect("vplc-net.press1").unwrap());
    assert_eq!(before, after);
    assert_eq!(host.ip_in("vplc.press1", "address show dev eth0"), address);
    // What it did while nobody looked is made good.
    host.kill_daemon();
    host.engine.api("POST", "/containers/vplc.press1/kill", None).unwrap();
    host.start_daemon().await;
    becomes(&host.vplc("press1").await, "running").await;
    // What an operator stopped stays so.
    let job = host.vplc("press1").await.stop(Options::new()).await.unwrap();
    assert_eq!(host.end_of(job).await.0, "done");
    host.kill_daemon();
    host.start_daemon().await;
    becomes(&host.vplc("press1").await, "stopped").await;
    assert_eq!(host.engine.inspect("vplc.press1").unwrap()["State"]["Running"], false);
    host.delete().await;
}

#[tokio::test]
async fn the_engine_may_go_and_come() {
    let Some(mut host) = Host::start("the_engine_may_go_and_come").await else { return };
    let vplc = host.run(&spec(RUNS, "")).await;
    let runtime = host.engine.pid("vplc.press1");
    assert_eq!(host.vplcs().await.engine().await.unwrap(), "docker");
    host.engine.end();
    until("the engine is missed", async || host.vplcs().await.engine().await.unwrap().is_empty().then_some(())).await;
    let (kind, message) = host.refused(&spec(RUNS, "")).await;
    assert_eq!(kind, "EngineUnavailable", "{message}");
    host.engine.launch().unwrap();
    until("the engine is found", async || (!host.vplcs().await.engine().await.unwrap().is_empty()).then_some(())).await;
    becomes(&vplc, "running").await;
    assert_eq!(host.engine.pid("vplc.press1"), runtime, "a restart of the engine is none of the vPLC");
    // Its events are heard again.
    host.engine.api("POST", "/containers/vplc.press1/kill", None).unwrap();
    until("it is started again", async || (vplc.restarts().await.unwrap() == 1).then_some(())).await;
    becomes(&vplc, "running").await;
    host.delete().await;
}

#[tokio::test]
async fn changes_are_made_where_they_are_needed_and_nowhere_else() {
    let Some(host) = Host::start("changes_are_made_where_they_are_needed_and_nowhere_else").await else { return };
    host.run(&spec(RUNS, NIC)).await;
    let runtime = host.engine.pid("vplc.press1");
    // Nothing, what only the daemon goes by, and NICs: the PLC runs on.
    let other = NIC.replace("192.0.2.7", "192.0.2.8");
    for more in [NIC.to_owned(), format!("{NIC}restart: {{limit: 7}}\nstop_grace: 40\n"), other.clone()] {
        host.run(&spec(RUNS, &more)).await;
        assert_eq!(host.engine.pid("vplc.press1"), runtime, "{more}");
    }
    assert!(host.ip_in("vplc.press1", "address show dev eth0").contains("192.0.2.8/24"));
    // What it would be is shown first.
    let file = host.file("plc.yaml", &spec(RUNS, &format!("{other}environment: {{MODE: fast}}\n")));
    let (code, text, _) = host.ctl(&format!("vplc apply --dry-run {file}")).await;
    assert_eq!((code, text.as_str()), (0, "+ environment.MODE: \"fast\"\n"));
    assert_eq!(host.engine.pid("vplc.press1"), runtime);
    assert_eq!(host.ctl(&format!("vplc apply {file}")).await.0, 0);
    assert_ne!(host.engine.pid("vplc.press1"), runtime);
    let environment = host.engine.inspect("vplc.press1").unwrap()["Config"]["Env"].to_string();
    assert!(environment.contains("MODE=fast"), "{environment}");
    host.delete().await;
}

#[tokio::test]
async fn the_limits_of_the_specification_are_those_of_the_container() {
    let Some(host) = Host::start("the_limits_of_the_specification_are_those_of_the_container").await else { return };
    let more = "memory: 64M\npids: 32\nread_only_root: true\ncapabilities: [NET_RAW]\nlogs: {size: 128K, files: 3}\n\
                data: {path: /data}\nhealth: {command: [sh, -c, \"exit 0\"], interval: 1}\n";
    let vplc = host.run(&spec(RUNS, more)).await;
    let found = host.engine.inspect("vplc.press1").unwrap();
    let limits = &found["HostConfig"];
    assert_eq!(limits["Memory"], 64 << 20);
    assert_eq!(limits["PidsLimit"], 32);
    assert_eq!(limits["ReadonlyRootfs"], true);
    assert_eq!(limits["CapDrop"], serde_json::json!(["ALL"]));
    assert_eq!(limits["CapAdd"], serde_json::json!(["NET_RAW"]));
    assert_eq!(limits["SecurityOpt"], serde_json::json!(["no-new-privileges"]));
    assert_eq!(limits["RestartPolicy"]["Name"], "no");
    assert_eq!(limits["LogConfig"]["Config"], serde_json::json!({ "max-size": "131072", "max-file": "3" }));
    assert_eq!(found["Config"]["StopTimeout"], 30);
    assert_eq!(vplc.runtime().await.unwrap(), "healthy");
    assert_eq!(host.engine.volumes(), ["vplc-data.press1"]);
    // Data outlives the vPLC if somebody says so.
    let job = host.vplcs().await.delete("press1", Options::from([("keep-data", true.into())])).await.unwrap();
    assert_eq!(host.end_of(job).await.0, "done");
    assert_eq!(host.engine.volumes(), ["vplc-data.press1"]);
    host.run(&spec(RUNS, more)).await;
    host.delete().await;
    assert_eq!(host.engine.volumes(), Vec::<String>::new());
}
