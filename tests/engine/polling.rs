//! Who asks a PLC over Modbus notices nothing of what goes on around it.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestrator_tests::plant::Plant;

use crate::rig::{Host, NIC, PATIENCE, becomes, until};

#[tokio::test]
async fn polls_go_on_while_the_daemon_and_the_engine_end_and_start() {
    let Some(mut host) = Host::start("polls_go_on_while_the_daemon_and_the_engine_end_and_start").await else { return };
    host.engine.import_runtime();
    let plant = Plant::at("plant0", &host.net);
    let before = host.residue();
    host.run(&format!(
        "api_version: orchestrator/v1\nkind: vplc\nname: press1\nimage:\n  reference: runtime:1\n  pull: never\n\
         environment: {{STUB_MODBUS_ALWAYS: \"1\"}}\ncommand: [/usr/bin/stub-runtime]\n{NIC}"
    ))
    .await;
    let runtime = host.engine.pid("vplc.press1");
    let (one, each) = (plant.poll(7), plant.poll_anew(7));
    for pause in [0, 40, 80, 120, 160, 200, 400, 800] {
        host.kill_daemon();
        tokio::time::sleep(Duration::from_millis(60)).await;
        // Killed again at another point of its start, and then left to find everything.
        host.spawn_daemon();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        host.kill_daemon();
        host.start_daemon().await;
        becomes(&host.vplc("press1").await, "running").await;
    }
    host.engine.end();
    host.engine.launch().unwrap();
    host.engine.kill();
    host.engine.launch().unwrap();
    until("the engine is found", async || (!host.vplcs().await.engine().await.unwrap().is_empty()).then_some(())).await;
    becomes(&host.vplc("press1").await, "running").await;
    let (one, each) = (one.end(), each.end());
    eprintln!("over one connection: {one:?}; each over its own: {each:?}");
    for polls in [one, each] {
        assert!(polls.good > 100 && polls.failed == 0, "{polls:?}");
    }
    assert_eq!(host.engine.pid("vplc.press1"), runtime);
    host.delete().await;
    assert_eq!(host.residue(), before);
}

/// `-- --nocapture answers_again` prints how long it takes.
#[tokio::test]
async fn a_runtime_that_crashes_answers_again() {
    let Some(host) = Host::start("a_runtime_that_crashes_answers_again").await else { return };
    host.engine.import_runtime();
    let plant = Plant::at("plant0", &host.net);
    for delay in [3, 0] {
        host.run(&format!(
            "api_version: orchestrator/v1\nkind: vplc\nname: press1\nimage:\n  reference: runtime:1\n  pull: never\n\
             environment: {{STUB_MODBUS_ALWAYS: \"1\"}}\ncommand: [/usr/bin/stub-runtime]\n\
             restart: {{delay: {delay}, limit: 20}}\n{NIC}"
        ))
        .await;
        plant.await_answer(7, PATIENCE);
        let link = host.ip_in("vplc-net.press1", "-oneline link show dev eth0");
        for _ in 0..3 {
            let pid = Pid::from_raw(i32::try_from(host.engine.pid("vplc.press1")).unwrap());
            let begun = Instant::now();
            kill(pid, Signal::SIGKILL).unwrap();
            until("it has ended", async || plant.connect(7).is_none().then_some(())).await;
            plant.await_answer(7, PATIENCE);
            let after = begun.elapsed();
            eprintln!("with a pause of {delay} s: Modbus answers {after:.2?} after the crash");
            becomes(&host.vplc("press1").await, "running").await;
        }
        // Nobody has touched its NIC.
        assert_eq!(host.ip_in("vplc-net.press1", "-oneline link show dev eth0"), link);
    }
    host.delete().await;
}
