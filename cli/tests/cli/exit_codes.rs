//! Every result and every error has its exit code. The table is written out here on purpose: scripts depend on it.

use crate::play::{Act, Bus, Daemon, Script, manifest};
use crate::program::{mender_orchestrator, orchestratorctl, run, text};

const ERRORS: [(&str, i32); 19] = [
    ("org.freedesktop.DBus.Error.InvalidArgs", 2),
    ("org.freedesktop.DBus.Error.AccessDenied", 5),
    ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", 5),
    ("org.freedesktop.DBus.Error.NotSupported", 6),
    ("org.orchestratord1.Error.Busy", 7),
    ("org.orchestratord1.Error.NothingInProgress", 8),
    ("org.orchestratord1.Error.InvalidConfiguration", 10),
    ("org.orchestratord1.Error.InvalidManifest", 11),
    ("org.orchestratord1.Error.InvalidTopology", 12),
    ("org.orchestratord1.Error.InvalidArtifact", 13),
    ("org.orchestratord1.Error.NoSuitableArtifact", 14),
    ("org.orchestratord1.Error.DownloadFailed", 21),
    ("org.orchestratord1.Error.InterfaceFailed", 15),
    ("org.orchestratord1.Error.RollbackNotSupported", 16),
    ("org.orchestratord1.Error.RebootFailed", 17),
    ("org.orchestratord1.Error.Storage", 18),
    ("org.orchestratord1.Error.Cancelled", 19),
    ("org.orchestratord1.Error.Inconsistent", 20),
    ("org.orchestratord1.Error.Failed", 1),
];

const MESSAGE: &str = "The thing \"x\" at \"y\" broke: nothing to resume.";

/// Runs both programs against the script.
async fn both(script: Script, expected: i32, expected_of_mender: i32, said: bool, what: &str) {
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, script).await;
    let file = manifest(&bus);
    let output = run(&mut orchestratorctl(&bus), &["install", text(&file)]).await;
    assert_eq!(output.code(), expected, "{what}: {output:?}");
    assert_eq!(output.stderr.ends_with(&format!("orchestratorctl: {MESSAGE}\n")), said, "{what}: {output:?}");
    // Without the option, a reboot is waited for.
    let output = run(&mut mender_orchestrator(&bus), &["install", "--exit-on-reboot", text(&file)]).await;
    assert_eq!(output.code(), expected_of_mender, "{what}: {output:?}");
    assert_eq!(output.stdout, "", "{what}: {output:?}");
    let record = MESSAGE.replace('"', "\\\"");
    let errors = output.stderr.lines().filter(|line| line.contains("severity=error")).collect::<Vec<_>>();
    assert_eq!(errors.len(), usize::from(said), "{what}: {output:?}");
    assert!(errors.iter().all(|line| line.contains(&record)), "{what}: {output:?}");
}

#[tokio::test]
async fn refused_requests() {
    for (name, code) in ERRORS {
        let script = Script { refusal: Some((name, MESSAGE)), ..Script::default() };
        both(script, code, 1, true, name).await;
    }
}

#[tokio::test]
async fn jobs_with_an_error() {
    for (name, code) in ERRORS {
        let script = Script { acts: vec![Act::End("rolled-back", name, MESSAGE)], ..Script::default() };
        both(script, code, 1, true, name).await;
    }
}

#[tokio::test]
async fn a_stop_with_an_error_is_a_failure() {
    let acts = vec![Act::End("stopped", "org.orchestratord1.Error.InterfaceFailed", MESSAGE)];
    both(Script { acts, ..Script::default() }, 15, 1, true, "stopped before ArtifactRollback").await;
}

#[tokio::test]
async fn jobs_without_an_error() {
    for (result, code, of_mender) in [
        ("done", 0, 0),
        ("stopped", 0, 0),
        ("rolled-back", 0, 0),
        ("failed", 0, 0),
        ("reboot-required", 4, 4),
        ("inconsistent", 20, 1),
        ("cancelled", 0, 0),
        ("", 1, 1),
    ] {
        let script = Script { acts: vec![Act::End(result, "", "")], ..Script::default() };
        both(script, code, of_mender, false, result).await;
    }
}

#[tokio::test]
async fn a_foreign_error_is_a_plain_failure() {
    let script = Script { refusal: Some(("org.example.Odd", "odd")), ..Script::default() };
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, script).await;
    let output = run(&mut orchestratorctl(&bus), &["resume"]).await;
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("org.example.Odd: odd"), "{output:?}");
}
