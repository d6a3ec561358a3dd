//! `busctl` as the caller: no client of ours, nothing but what everybody has.

use std::process::Stdio;
use std::time::Instant;

use orchestrator_tests::system::{PATIENCE, System, pause};
use tokio::io::{AsyncBufReadExt, BufReader};

const NAME: &str = "org.orchestratord1";
const ROOT: &str = "/org/orchestratord1";
const UPDATE: &str = "org.orchestratord1.Update";
const JOB: &str = "org.orchestratord1.Job";
const COMPONENT: &str = "org.orchestratord1.Component";
const R456: &str = "/org/orchestratord1/component/rtos/R456";

/// What `busctl` prints, or its error message.
async fn busctl(system: &System, arguments: &[&str]) -> Result<String, String> {
    let output = system.bus().busctl().args(arguments).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("busctl ends");
    let output = output.expect("\"busctl\" (Debian: systemd)");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

async fn call(system: &System, arguments: &[&str]) -> Result<String, String> {
    busctl(system, &[&["call", NAME, ROOT, UPDATE], arguments].concat()).await
}

async fn property(system: &System, path: &str, interface: &str, name: &str) -> String {
    busctl(system, &["get-property", NAME, path, interface, name]).await.unwrap()
}

/// The path in the reply of `Install`.
fn path(reply: &str) -> &str {
    reply.strip_prefix("o \"").and_then(|rest| rest.strip_suffix('"')).unwrap_or_else(|| panic!("{reply}"))
}

/// `busctl call ... Install sa{sv} "$(cat manifest.yaml)" 0`, then looking at the Job until it is done.
#[tokio::test]
async fn busctl_installs_a_manifest_and_follows_its_progress() {
    let system = System::demo().await;
    let manifest = system.manifest(2);
    for instance in ["G13", "R456", "R998"] {
        system.set(instance, "streams", "slow");
    }
    // The progress as signals, for those who do not poll.
    let mut monitor = system
        .bus()
        .busctl()
        .args(["monitor", "--match=type='signal',interface='org.freedesktop.DBus.Properties'"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    // It says so, on standard error, when it listens.
    let mut said = BufReader::new(monitor.stderr.take().unwrap()).lines();
    let said = tokio::time::timeout(PATIENCE, said.next_line()).await.expect("busctl listens").unwrap();
    assert!(said.as_deref().is_some_and(|line| line.contains("Monitoring")), "{said:?}");

    let reply = call(&system, &["Install", "sa{sv}", &manifest, "0"]).await.unwrap();
    let job = path(&reply);
    let mut seen: Vec<f64> = Vec::new();
    let begun = Instant::now();
    loop {
        let progress = property(&system, job, JOB, "Progress").await;
        seen.push(progress.strip_prefix("d ").unwrap().parse().unwrap());
        if property(&system, job, JOB, "State").await == "s \"done\"" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{seen:?}");
        pause().await;
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(property(&system, job, JOB, "Progress").await, "d 1");
    assert_eq!(property(&system, job, JOB, "Result").await, "s \"done\"");
    assert_eq!(busctl(&system, &["call", NAME, job, JOB, "Wait"]).await.unwrap(), "s \"done\"");
    assert_eq!(property(&system, R456, COMPONENT, "Version").await, "s \"rtos-2\"");
    system.assert_all_at(2);

    let mut signalled = 0;
    while signalled < 3 {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a signal in time").unwrap();
        signalled += usize::from(line.expect("busctl goes on").contains("\"Progress\""));
    }
    monitor.kill().await.unwrap();
}

/// It prints nothing but the message of an error, so the message has to say everything.
#[tokio::test]
async fn busctl_shows_what_is_wrong() {
    let system = System::demo().await;
    let manifest = system.manifest(2).replace("order: 20", "order: 200");
    let message = call(&system, &["Install", "sa{sv}", &manifest, "0"]).await.unwrap_err();
    assert!(message.contains("manifest:13:14: \"component_types.rtos.update_strategy.order\""), "{message}");
    let message = call(&system, &["Resume", "a{sv}", "0"]).await.unwrap_err();
    assert!(message.contains("nothing to resume"), "{message}");
    let message = call(&system, &["Install", "sa{sv}", "", "1", "colour", "s", "red"]).await.unwrap_err();
    assert!(message.contains("colour"), "{message}");

    // A Job that fails tells it in its properties.
    system.set("R456", "ArtifactInstall.fail", "");
    let good = system.manifest(2);
    let options = ["Install", "sa{sv}", &good, "1", "stop-before", "as", "1", "Cleanup"];
    let reply = call(&system, &options).await.unwrap();
    let job = path(&reply);
    assert_eq!(busctl(&system, &["call", "--timeout=170", NAME, job, JOB, "Wait"]).await.unwrap(), "s \"stopped\"");
    let error = property(&system, job, JOB, "Error").await;
    assert!(
        error.starts_with("(ss) \"org.orchestratord1.Error.InterfaceFailed\" \"ArtifactInstall of Component"),
        "{error}"
    );
    assert_eq!(property(&system, ROOT, UPDATE, "StoppedBefore").await, "s \"Cleanup\"");
    let error = property(&system, R456, COMPONENT, "LastError").await;
    assert!(error.contains("InterfaceFailed"), "{error}");
    call(&system, &["Resume", "a{sv}", "0"]).await.unwrap();
    assert_eq!(system.wait_for_rest().await, "idle");
    system.assert_all_at(1);
}
