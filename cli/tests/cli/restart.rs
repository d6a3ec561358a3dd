//! The daemon leaves in the middle of a deployment, as it does when the deployment updates the daemon itself, and comes
//! back, or does not.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;
use zbus::Variant;

use crate::play::{Act, Bus, Daemon, Script, manifest};
use crate::program::{Output, Running, mender_orchestrator, orchestratorctl, text};

const FAILED: &str = "org.orchestratord1.Error.Failed";
const INTERFACE: &str = "org.orchestratord1.Error.InterfaceFailed";
const NOTHING: (&str, &str) =
    ("org.orchestratord1.Error.NothingInProgress", "There is nothing to resume: no deployment is open.");
const AWAY: &str = "orchestratord left the bus while Job 7 (install) was running; waiting for it to come back.\n";

/// Half way, and gone without a word.
fn crash() -> Script {
    Script { acts: vec![Act::Step(0.5, "half"), Act::Die], ..Script::default() }
}

/// Half way, and told to stop.
fn stop() -> Script {
    let end = Act::End("stopped", FAILED, "orchestratord stops; it goes on with the deployment at its next start.");
    Script { acts: vec![Act::Step(0.5, "half"), Act::Manager("stopping"), end, Act::Die], ..Script::default() }
}

/// The daemon that comes back.
fn back(acts: Vec<Act>) -> Script {
    Script { job: Some(1), manager: Some("starting"), acts, ..Script::default() }
}

fn error(name: &str, message: &str) -> Variant<'static> {
    Variant::from((name.to_owned(), message.to_owned()))
}

/// A program that has sent its request to a daemon that left.
struct Left {
    bus: Bus,
    program: Running,
    _first: Daemon,
}

impl Left {
    async fn new(bus: Bus, first: Script, mut command: Command, arguments: &[&str]) -> Self {
        let daemon = Daemon::start(&bus, first).await;
        let mut program = Running::start(&mut command, arguments);
        program.says("left the bus").await;
        Self { bus, program, _first: daemon }
    }

    async fn install(first: Script) -> Self {
        let bus = Bus::start().await;
        let (command, file) = (orchestratorctl(&bus), manifest(&bus));
        Self::new(bus, first, command, &["install", text(&file)]).await
    }

    /// A daemon that comes back with this in `Update`, and no Job.
    async fn meets(self, script: Script, update: &[(&'static str, Variant<'static>)]) -> (Daemon, Output) {
        let daemon = Daemon::start(&self.bus, script).await;
        daemon.update(update).await;
        daemon.play(&[Act::Manager("idle")]).await;
        (daemon, self.program.end().await)
    }
}

#[tokio::test]
async fn the_job_of_the_daemon_that_comes_back_decides() {
    for first in [crash(), stop()] {
        for (result, name, code, said) in [
            ("done", "", 0, "Installed \"system-core-v2\".\n"),
            ("rolled-back", INTERFACE, 15, "The System is back in its former state.\n"),
            (
                "inconsistent",
                "org.orchestratord1.Error.Inconsistent",
                20,
                "The System is inconsistent: neither in its former state nor in the new one.\n",
            ),
            ("failed", FAILED, 1, "The install failed.\n"),
        ] {
            let mut left = Left::install(first.clone()).await;
            let message = if name.is_empty() { "" } else { "It broke." };
            let daemon = Daemon::start(
                &left.bus,
                back(vec![
                    // Said before anybody can have asked for anything.
                    Act::Log("warning", "rtos.R123", "ArtifactInstall was cut short."),
                    Act::Component("R123", "ArtifactVerifyReboot", 0.8),
                    Act::Manager("busy"),
                    Act::Hold,
                    Act::Step(0.9, "nearly"),
                    Act::End(result, name, message),
                ]),
            )
            .await;
            let playing = tokio::spawn({
                let daemon = daemon.clone();
                async move { daemon.take_up().await }
            });
            left.program.says("ArtifactVerifyReboot").await;
            daemon.go_on();
            let output = left.program.end().await;
            playing.await.unwrap();
            let complaint = if message.is_empty() { String::new() } else { format!("orchestratorctl: {message}\n") };
            assert_eq!(
                output.stderr,
                format!(
                    "Job 7: install\n 50 % half\n{AWAY}\
                     orchestratord is back and goes on with the deployment.\n\
                     Job 1: resume\n\
                     rtos.R123: warning: ArtifactInstall was cut short.\n\
                     rtos.R123: ArtifactVerifyReboot\n \
                     90 % nearly\n{complaint}"
                )
            );
            assert_eq!((output.code(), output.stdout.as_str()), (code, said), "{output:?}");
            assert_eq!(daemon.calls(), []);
        }
    }
}

#[tokio::test]
async fn a_job_that_is_done_already_decides_too() {
    for (result, name, code) in [("done", "", 0), ("stopped", INTERFACE, 15), ("rolled-back", INTERFACE, 15)] {
        let left = Left::install(stop()).await;
        let daemon = Daemon::start(&left.bus, back(vec![Act::End(result, name, name), Act::Manager("idle")])).await;
        daemon.take_up().await;
        let output = left.program.end().await;
        assert_eq!(output.code(), code, "{output:?}");
        assert!(output.stderr.contains("Job 1: resume\n"), "{output:?}");
        assert_eq!(daemon.calls(), []);
    }
}

#[tokio::test]
async fn the_result_is_that_of_the_last_job() {
    let bus = Bus::start().await;
    let (command, file) = (orchestratorctl(&bus), manifest(&bus));
    let left = Left::new(bus, crash(), command, &["--json", "install", text(&file)]).await;
    let acts = vec![Act::ComponentError("R123", "It broke."), Act::End("rolled-back", INTERFACE, "The whole broke.")];
    let daemon = Daemon::start(&left.bus, Script { manager: None, ..back(acts) }).await;
    daemon.take_up().await;
    let output = left.program.end().await;
    let result: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (&result["job"]["id"], &result["job"]["kind"], &result["exit_code"]),
        (&1.into(), &"resume".into(), &15.into())
    );
    assert_eq!(result["component_errors"]["rtos.R123"]["message"], "It broke.");
}

#[tokio::test]
async fn a_deployment_that_rests_is_a_stop() {
    for (state, point, message, code, said) in [
        (
            "waiting",
            "ArtifactCommit",
            "",
            0,
            "Stopped before ArtifactCommit; the deployment can be resumed or rolled back.\n",
        ),
        (
            "waiting",
            "ArtifactRollback",
            "It broke.",
            15,
            "Stopped before ArtifactRollback; the deployment can be resumed or rolled back.\n",
        ),
        (
            "reboot-required",
            "",
            "",
            4,
            "orchestratord reboots the host; the deployment goes on by itself afterwards.\n",
        ),
    ] {
        let name = if message.is_empty() { "" } else { INTERFACE };
        let update = [("State", state.into()), ("StoppedBefore", point.into()), ("LastError", error(name, message))];
        let (daemon, output) = Left::install(crash()).await.meets(back(Vec::new()), &update).await;
        assert_eq!((output.code(), output.stdout.as_str()), (code, said), "{output:?}");
        assert!(output.stderr.contains("orchestratord is back; the deployment is open and waits.\n"), "{output:?}");
        assert_eq!(output.stderr.contains("orchestratorctl: It broke.\n"), !message.is_empty(), "{output:?}");
        assert_eq!(daemon.calls(), []);
    }
}

#[tokio::test]
async fn an_error_from_before_the_request_is_no_failure_of_it() {
    for (message, code) in [("It broke.", 0), ("Something else broke.", 15)] {
        let bus = Bus::start().await;
        let command = mender_orchestrator(&bus);
        let first = Daemon::start(&bus, crash()).await;
        first.update(&[("State", "waiting".into()), ("LastError", error(INTERFACE, "It broke."))]).await;
        let mut program = Running::start(&mut { command }, &["rollback", "--stop-before", "Cleanup"]);
        program.says("left the bus").await;
        let left = Left { bus, program, _first: first };
        let update = [
            ("State", "waiting".into()),
            ("StoppedBefore", "Cleanup".into()),
            ("LastError", error(INTERFACE, message)),
        ];
        let (_, output) = left.meets(back(Vec::new()), &update).await;
        assert_eq!(output.code(), i32::from(code != 0), "{output:?}");
    }
}

#[tokio::test]
async fn an_end_that_nobody_heard_is_asked_for() {
    for (result, name, code) in [("done", "", 0), ("rolled-back", INTERFACE, 15)] {
        let script = Script { untold: Some((result, name, name)), ..back(Vec::new()) };
        let (daemon, output) = Left::install(crash()).await.meets(script, &[]).await;
        assert_eq!(output.code(), code, "{output:?}");
        assert!(
            output.stderr.contains("orchestratord is back; the deployment is over.\nJob 1: resume\n"),
            "{output:?}"
        );
        let members: Vec<_> = daemon.calls().into_iter().map(|call| call.member).collect();
        assert_eq!(members, ["Resume"]);
    }
}

#[tokio::test]
async fn an_end_that_was_told_is_worked_out() {
    let unknown = "it does not tell how Job 7 (install) ended";
    for (manifest, message, code, said) in [
        ("system-core-v2", "", 0, "the deployment is over"),
        ("system-core-v2", "It broke.", 15, "orchestratorctl: It broke.\n"),
        // Neither the new Manifest nor an error: a daemon that knows nothing.
        ("", "", 1, unknown),
    ] {
        let name = if message.is_empty() { "" } else { INTERFACE };
        let update = [("Manifest", manifest.into()), ("LastError", error(name, message))];
        let script = Script { refusal: Some(NOTHING), ..back(Vec::new()) };
        let (_, output) = Left::install(crash()).await.meets(script, &update).await;
        assert_eq!(output.code(), code, "{output:?}");
        assert!(output.stderr.contains(said), "{output:?}");
    }
    // Somebody else has begun another deployment.
    let refusal = Some(("org.orchestratord1.Error.Busy", "A deployment is open."));
    let (_, output) = Left::install(crash()).await.meets(Script { refusal, ..back(Vec::new()) }, &[]).await;
    assert_eq!(output.code(), 1, "{output:?}");
    assert!(output.stderr.contains(unknown), "{output:?}");
}

#[tokio::test]
async fn a_second_restart_is_followed_too() {
    let mut left = Left::install(crash()).await;
    let second =
        Daemon::start(&left.bus, Script { manager: None, ..back(vec![Act::Step(0.6, "more"), Act::Hold]) }).await;
    let playing = tokio::spawn({
        let second = second.clone();
        async move { second.take_up().await }
    });
    left.program.says("more").await;
    second.die().await;
    left.program.says("while Job 1 (resume) was running; waiting").await;
    playing.abort();
    let acts = vec![Act::Step(0.7, "still more"), Act::End("done", "", "")];
    let third = Daemon::start(&left.bus, Script { manager: None, ..back(acts) }).await;
    third.take_up().await;
    let output = left.program.end().await;
    assert_eq!((output.code(), output.stdout.as_str()), (0, "Installed \"system-core-v2\".\n"), "{output:?}");
    assert!(output.stderr.ends_with("Job 1: resume\n 70 % still more\n"), "{output:?}");
}

#[tokio::test]
async fn a_daemon_that_cannot_stay_is_given_up() {
    let mut left = Left::install(crash()).await;
    for _ in 0..10 {
        let daemon = Daemon::start(&left.bus, Script { manager: None, ..back(vec![Act::Hold]) }).await;
        let playing = tokio::spawn({
            let daemon = daemon.clone();
            async move { daemon.take_up().await }
        });
        left.program.says("Job 1: resume").await;
        daemon.die().await;
        playing.abort();
    }
    let output = left.program.end().await;
    assert_eq!(output.code(), 1, "{output:?}");
    assert!(output.stderr.ends_with("\"orchestratorctl status\" shows how it stands.\n"), "{output:?}");
}

#[tokio::test]
async fn the_bus_is_asked_to_start_a_daemon_that_does_not_come_back() {
    // The played daemon is no program, so the one that the bus starts only says that it was.
    let place = tempfile::tempdir().unwrap();
    let (program, asked): (PathBuf, PathBuf) = (place.path().join("start"), place.path().join("asked"));
    std::fs::write(&program, format!("#!/bin/sh\nexec sleep 60 >{}\n", asked.display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bus = Bus::with_service(Some(text(&program))).await;
    let (command, file) = (orchestratorctl(&bus), manifest(&bus));
    let left = Left::new(bus, crash(), command, &["install", text(&file)]).await;
    let begun = std::time::Instant::now();
    while !asked.exists() {
        assert!(begun.elapsed() < crate::program::PATIENCE, "nobody asks for the daemon");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let daemon = Daemon::start(&left.bus, back(vec![Act::Manager("idle"), Act::End("done", "", "")])).await;
    daemon.take_up().await;
    let output = left.program.end().await;
    assert_eq!(output.code(), 0, "{output:?}");
}

#[tokio::test]
async fn the_update_module_sees_one_good_update() {
    let bus = Bus::start().await;
    let (command, file) = (mender_orchestrator(&bus), manifest(&bus));
    let left = Left::new(bus, stop(), command, &["install", "--exit-on-reboot", text(&file)]).await;
    let acts = vec![Act::Log("info", "rtos.R123", "flashed"), Act::End("done", "", ""), Act::Manager("idle")];
    let daemon = Daemon::start(&left.bus, back(acts)).await;
    daemon.take_up().await;
    let output = left.program.end().await;
    assert_eq!((output.code(), output.stdout.as_str()), (0, ""), "{output:?}");
    let records: Vec<_> = output.stderr.lines().collect();
    for (record, said) in records.iter().zip(["Running", "half", "left the bus", "is back", "flashed", "Installed"]) {
        assert!(record.contains(said), "{said} in {record}");
    }
    assert_eq!(records.len(), 6, "{records:?}");
    assert!(!output.stderr.contains("severity=error"), "{output:?}");
}

#[tokio::test]
async fn an_interruption_meanwhile_says_so() {
    let left = Left::install(crash()).await;
    left.program.signal(Signal::SIGINT);
    let output = left.program.end().await;
    assert_eq!(output.code(), 130, "{output:?}");
    assert!(output.stderr.contains("Interrupted while orchestratord was away."), "{output:?}");
}

#[tokio::test]
async fn the_update_module_is_kept_waiting_for_a_reboot() {
    let reboots = || Script { acts: vec![Act::End("reboot-required", "", ""), Act::Die], ..Script::default() };
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, reboots()).await;
    let mut program = Running::start(&mut mender_orchestrator(&bus), &["resume"]);
    program.says("orchestratord reboots the host").await;
    program.signal(Signal::SIGTERM);
    let output = program.end().await;
    assert_eq!(output.code(), 143, "{output:?}");
    assert!(output.stderr.contains("The deployment goes on by itself afterwards"), "{output:?}");

    // If it was but a restart of the daemon, it is followed.
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, reboots()).await;
    let mut program = Running::start(&mut mender_orchestrator(&bus), &["resume"]);
    program.says("orchestratord reboots the host").await;
    let daemon = Daemon::start(&bus, back(vec![Act::Manager("idle"), Act::End("done", "", "")])).await;
    daemon.take_up().await;
    let output = program.end().await;
    assert_eq!(output.code(), 0, "{output:?}");
}
