//! The daemon restarts in the middle of a deployment, and the command line stays with the deployment to its end.

use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use orchestrator_tests::system::{System, stop_before};
use orchestratord_dbus::Options;
use tokio::process::Child;

const AWAY: &str = "orchestratord left the bus while Job 1 (install) was running; waiting for it to come back.\n";
const BACK: &str = "orchestratord is back and goes on with the deployment.\nJob 1: resume\n";

/// Begins to install release 2 under this name of the program.
fn begin(system: &System, name: &str, options: &[&str]) -> Child {
    system.manifest(2);
    let manifest = system.manifest_file(2);
    let arguments = [&["install", manifest.to_str().unwrap()], options].concat();
    system.ctl(name, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Its exit code, standard output and standard error.
async fn end(program: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } = program.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Which of these is where in the text; each has to be there, once, after the one before.
#[track_caller]
fn assert_story(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        assert_eq!(text.matches(part).count(), 1, "\"{part}\" in:\n{text}");
        rest = rest.split_once(part).unwrap_or_else(|| panic!("\"{part}\" comes too early in:\n{text}")).1;
    }
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_script_ends_in_a_rollback_that_is_told() {
    let mut system = System::demo().await;
    system.set("R456", "ArtifactInstall.hang", "");
    let program = begin(&system, "orchestratorctl", &[]);
    system.wait_for_call("R456", "ArtifactInstall").await;
    system.kill_daemon();
    system.unset("R456", "ArtifactInstall.hang");
    system.start_daemon().await;

    let (code, stdout, stderr) = end(program).await;
    assert_eq!((code, stdout.as_str()), (15, "The System is back in its former state.\n"), "{stderr}");
    let reason = "orchestratorctl: \"ArtifactInstall\" was cut short because orchestratord or the host ended.\n";
    assert_story(
        &stderr,
        &[
            "Job 1: install\n",
            "rtos.R456: ArtifactInstall\n",
            AWAY,
            BACK,
            "rtos.R456: warning: ArtifactInstall was cut short by the end of orchestratord or the host.\n",
            "rtos.R456: ArtifactRollback\n",
            "gateway.G13: ArtifactRollback\n",
            reason,
        ],
    );
    assert!(stderr.ends_with(reason), "{stderr}");
    system.assert_all_at(1);
    system.assert_cleaned_up();
}

#[tokio::test]
async fn a_restart_that_does_no_harm_is_a_success() {
    for (name, options, said) in [
        ("orchestratorctl", &[][..], "Installed \"release-2\".\n"),
        // As the update module calls it.
        (
            "mender-orchestrator",
            &["--stop-before", "ArtifactCommit", "--stop-before", "ArtifactRollback", "--exit-on-reboot"],
            "",
        ),
    ] {
        let mut system = System::demo().await;
        for controller in ["R456", "R998"] {
            system.set(controller, "needs-reboot", "Yes");
        }
        // A Component that is in its reboot may be left alone; whether it went well is asked afterwards.
        system.set("R456", "ArtifactReboot.hang", "");
        let program = begin(&system, name, options);
        system.wait_for_call("R456", "ArtifactReboot").await;
        assert!(system.stop_daemon().await.success());
        system.unset("R456", "ArtifactReboot.hang");
        system.start_daemon().await;

        let (code, stdout, stderr) = end(program).await;
        assert_eq!((code, stdout.as_str()), (0, said), "{stderr}");
        assert!(!stderr.contains("error"), "{stderr}");
        system.assert_all_at(2);
    }
}

#[tokio::test]
async fn a_failure_after_a_restart_is_the_failure_of_the_request() {
    let mut system = System::demo().await;
    system.set("R456", "needs-reboot", "Yes");
    system.set("R456", "ArtifactReboot.hang", "");
    system.set("R456", "ArtifactVerifyReboot.fail", "");
    let program = begin(&system, "mender-orchestrator", &["--stop-before", "ArtifactRollback"]);
    system.wait_for_call("R456", "ArtifactReboot").await;
    system.signal_daemon(Signal::SIGTERM);
    system.wait_for_end().await;
    system.start_daemon().await;

    let (code, _, stderr) = end(program).await;
    assert_eq!(code, 1, "{stderr}");
    assert_story(
        &stderr,
        &["left the bus", "is back", "ArtifactVerifyReboot of Component", "Stopped before ArtifactRollback"],
    );
    // The next call of the update module finds the deployment where it was left.
    let output = system.mender(&["rollback"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    system.assert_all_at(1);
}

#[tokio::test]
async fn a_reboot_by_the_daemon_is_announced() {
    for (name, code) in [("orchestratorctl", 4), ("mender-orchestrator", 0)] {
        let mut system = System::demo().await;
        system.set("G13", "needs-reboot", "Automatic");
        let program = begin(&system, name, &[]);
        system.wait_for_reboot_request(1).await;
        // Only the daemon is really ended; the update module's program is still there when it is back.
        system.reboot().await;
        let (found, stdout, stderr) = end(program).await;
        assert_eq!(found, code, "{stderr}");
        let said = if code == 0 { &stderr } else { &stdout };
        assert!(said.contains("orchestratord reboots the host"), "{stdout}{stderr}");
        system.wait_for_rest().await;
        system.assert_all_at(2);
    }
}

#[tokio::test]
async fn the_error_of_an_open_deployment_outlives_the_daemon() {
    let mut system = System::demo().await;
    system.set("R456", "ArtifactInstall.fail", "");
    let outcome = system.install(2, stop_before(&["ArtifactRollback"])).await.unwrap();
    let message = outcome.faulty("stopped", "InterfaceFailed").to_owned();
    assert!(system.stop_daemon().await.success());
    system.start_daemon().await;
    let update = system.update().await;
    assert_eq!(update.stopped_before().await.unwrap(), "ArtifactRollback");
    assert_eq!(update.last_error().await.unwrap().1, message);
    // It ends with a rollback that goes well.
    system.resume(Options::new()).await.unwrap().clean("rolled-back");
    assert_eq!(update.last_error().await.unwrap().1, "");
}
