//! Podman in the place of Docker: the same life of a vPLC.

use crate::engine::Engine;
use crate::rig::{Host, NIC, RUNS, becomes, spec, until};

#[tokio::test]
async fn podman_keeps_a_vplc_as_docker_does() {
    let test = "podman_keeps_a_vplc_as_docker_does";
    let Some(engine) = Engine::start_podman(test) else { return };
    let mut host = Host::with(engine, false).await;
    let before = host.residue();
    let program = format!("ip -o address >/data/seen; {RUNS}");
    let more = format!("{NIC}data: {{path: /data}}\nmemory: 64M\nread_only_root: true\n");
    let vplc = host.run(&spec(&program, &more)).await;
    assert_eq!(host.vplcs().await.engine().await.unwrap(), "podman");
    assert!(!host.vplcs().await.engine_version().await.unwrap().is_empty());
    let seen = std::fs::read_to_string(format!("/proc/{}/root/data/seen", host.engine.pid("vplc.press1"))).unwrap();
    assert!(seen.contains("eth0") && seen.contains("192.0.2.7/24"), "{seen}");
    until("it has printed", async || (host.ctl("vplc logs press1").await.1 == "runs\n").then_some(())).await;
    assert_eq!(host.ctl("vplc shell press1 sh -c echo").await.0, 0);

    // Adopted by another daemon, started again after a crash, stopped and started by an operator.
    let (holder, runtime) = (host.engine.pid("vplc-net.press1"), host.engine.pid("vplc.press1"));
    host.kill_daemon();
    host.start_daemon().await;
    let adopted = host.vplc("press1").await;
    becomes(&adopted, "running").await;
    assert_eq!((host.engine.pid("vplc-net.press1"), host.engine.pid("vplc.press1")), (holder, runtime));
    host.engine.api("POST", "/containers/vplc.press1/kill", None).unwrap();
    until("it is started again", async || (adopted.restarts().await.unwrap() == 1).then_some(())).await;
    becomes(&vplc, "running").await;
    assert_eq!(host.engine.pid("vplc-net.press1"), holder);
    assert_eq!(host.ctl("vplc stop press1").await.0, 0);
    assert_eq!(host.engine.inspect("vplc-net.press1").unwrap()["State"]["Running"], false);
    assert_eq!(host.ctl("vplc start press1").await.0, 0);
    assert!(host.ip_in("vplc.press1", "address show dev eth0").contains("192.0.2.7/24"));

    // Its service may go and come; a change that fails is taken back; nothing is left.
    host.engine.end();
    until("the engine is missed", async || host.vplcs().await.engine().await.unwrap().is_empty().then_some(())).await;
    host.engine.launch().unwrap();
    until("the engine is found", async || (!host.vplcs().await.engine().await.unwrap().is_empty()).then_some(())).await;
    becomes(&vplc, "running").await;
    let (result, kind, _) =
        host.apply(&spec(&program, &more).replace("command: [sh,", "command: [no-such-program,")).await;
    assert_eq!((result.as_str(), kind.as_str()), ("rolled-back", "EngineFailed"));
    becomes(&vplc, "running").await;
    host.delete().await;
    assert_eq!(host.residue(), before);
}
