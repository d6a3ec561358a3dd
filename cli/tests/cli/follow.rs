//! `install`, `resume`, `rollback`: what is sent, shown and returned.

use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::play::{Act, Bus, Daemon, MANIFEST, Script, directory, manifest};
use crate::program::{PROGRAM, Running, finish, on_bus, orchestratorctl, run, text};

fn good_run() -> Script {
    Script {
        // Before the reply: nobody may miss these.
        early: vec![Act::Step(0.0, "Asking the Components"), Act::Component("R123", "selected", 0.0)],
        acts: vec![
            Act::Step(0.25, "Order group 10: Download"),
            Act::Component("R123", "Download", 0.1),
            Act::Component("R123", "Download", 0.5),
            Act::Log("info", "rtos.R123", "Update Interface output (stdout): quiet"),
            Act::Log("warning", "rtos.R123", "slow \u{1b}[31mflash"),
            Act::Step(0.75, "Order group 10: ArtifactInstall"),
            Act::Component("R123", "ArtifactInstall", 0.8),
            Act::Component("R123", "idle", 0.0),
            Act::End("done", "", ""),
        ],
        ..Script::default()
    }
}

const GOOD_RUN: &str = "\
Job 7: install
  0 % Asking the Components
 25 % Order group 10: Download
rtos.R123: Download
rtos.R123: warning: slow \\u{1b}[31mflash
 75 % Order group 10: ArtifactInstall
rtos.R123: ArtifactInstall
";

#[tokio::test]
async fn progress_without_a_terminal_is_plain_lines() {
    let bus = Bus::start().await;
    let daemon = Daemon::start(&bus, good_run()).await;
    let manifest = manifest(&bus);
    let output = run(&mut orchestratorctl(&bus), &["install", text(&manifest)]).await;
    assert_eq!(output.code(), 0, "{output:?}");
    assert_eq!(output.stderr, GOOD_RUN);
    assert_eq!(output.stdout, "Installed \"system-core-v2\".\n");
    let calls = daemon.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!((calls[0].member, calls[0].manifest.as_str()), ("Install", MANIFEST));
    let directory = format!("\"{}\"", directory(&manifest));
    let expected = [("base-directory", directory.as_str()), ("reboot", "\"auto\"")];
    let options: Vec<_> = calls[0].options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(options, expected);
}

#[tokio::test]
async fn verbose_shows_the_whole_log() {
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, good_run()).await;
    let output = run(&mut orchestratorctl(&bus), &["install", "-v", text(&manifest(&bus))]).await;
    assert!(output.stderr.contains("rtos.R123: Update Interface output (stdout): quiet\n"), "{output:?}");
}

#[tokio::test]
async fn progress_on_a_terminal_is_bars() {
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, good_run()).await;
    for (terminal, bars) in [("xterm", true), ("dumb", false)] {
        let mut script = on_bus(Command::new("script"), &bus.address);
        let line = format!("{PROGRAM} install {}", text(&manifest(&bus)));
        let log = bus.directory.path().join("typescript");
        script.env("TERM", terminal).args(["-q", "-e", "-c", &line, text(&log)]);
        let output = finish(script.spawn().expect("script of util-linux has to be installed")).await;
        assert_eq!(output.code(), 0, "{output:?}");
        let screen = output.stdout;
        assert_eq!(screen.contains("\u{1b}["), bars, "{screen:?}");
        assert_eq!(screen.contains("System               ["), bars, "{screen:?}");
        assert_eq!(screen.contains("rtos.R123            ["), bars, "{screen:?}");
        assert_eq!(screen.contains("] "), bars, "{screen:?}");
        // What a script prints must not reach the terminal raw.
        assert!(!screen.contains("\u{1b}[31m"), "{screen:?}");
        assert!(screen.contains("slow \\u{1b}[31mflash"), "{screen:?}");
        assert!(screen.contains("Installed \"system-core-v2\"."), "{screen:?}");
    }
}

#[tokio::test]
async fn options_reach_the_daemon() {
    let bus = Bus::start().await;
    let script = Script { acts: vec![Act::End("stopped", "", "")], ..Script::default() };
    let daemon = Daemon::start(&bus, script).await;
    daemon.update(&[("StoppedBefore", "ArtifactCommit".into())]).await;
    let file = manifest(&bus);
    let components = bus.file("components.yaml", "components: []\n");
    let stop = ["--stop-before", "ArtifactCommit", "--stop-before", "Cleanup", "--defer-reboot"];
    let install = [&["install", text(&file), "-t", text(&components)], &stop[..]].concat();
    let output = run(&mut orchestratorctl(&bus), &install).await;
    assert_eq!(output.code(), 0, "{output:?}");
    assert_eq!(output.stdout, "Stopped before ArtifactCommit; the deployment can be resumed or rolled back.\n");
    for line in [&["resume"][..], &["rollback"], &["rollback", "--force"]] {
        let output = run(&mut orchestratorctl(&bus), &[line, &stop[..]].concat()).await;
        assert_eq!(output.code(), 0, "{output:?}");
    }
    let stops = ("stop-before".to_owned(), "[\"ArtifactCommit\", \"Cleanup\"]".to_owned());
    let defer = ("reboot".to_owned(), "\"defer\"".to_owned());
    let force = ("force".to_owned(), "true".to_owned());
    let base = ("base-directory".to_owned(), format!("\"{}\"", directory(&file)));
    let topology = ("topology-components".to_owned(), "\"components: []\\n\"".to_owned());
    let calls = daemon.calls();
    let received: Vec<_> = calls.iter().map(|call| (call.member, call.options.clone())).collect();
    let expected = [
        ("Install", vec![base, topology, stops.clone(), defer.clone()]),
        ("Resume", vec![stops.clone(), defer.clone()]),
        ("Rollback", vec![stops.clone(), defer.clone()]),
        ("Rollback", vec![stops, defer, force]),
    ];
    let expected = expected.map(|(member, options)| (member, options.into_iter().collect()));
    // The newline may be shown escaped or not, so that value is compared by itself.
    assert_eq!(received.len(), 4);
    for ((member, mut options), (expected_member, mut expected_options)) in received.into_iter().zip(expected) {
        let shown = options.remove("topology-components");
        let wanted: Option<String> = std::collections::BTreeMap::remove(&mut expected_options, "topology-components");
        assert_eq!(shown.map(|text| text.replace('\n', "\\n")), wanted);
        assert_eq!((member, options), (expected_member, expected_options));
    }
}

#[tokio::test]
async fn a_manifest_may_come_from_standard_input() {
    let bus = Bus::start().await;
    let daemon = Daemon::start(&bus, Script { acts: vec![Act::End("done", "", "")], ..Script::default() }).await;
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(MANIFEST.as_bytes()).unwrap();
    drop(writer);
    let mut command = orchestratorctl(&bus);
    command.stdin(reader).current_dir(bus.directory.path());
    let output = run(&mut command, &["install", "-"]).await;
    assert_eq!(output.code(), 0, "{output:?}");
    let calls = daemon.calls();
    assert_eq!(calls[0].manifest, MANIFEST);
    let here = bus.directory.path().canonicalize().unwrap();
    assert_eq!(calls[0].options["base-directory"], format!("\"{}\"", here.display()));
}

#[tokio::test]
async fn a_failure_says_what_failed_where() {
    let bus = Bus::start().await;
    let script = Script {
        acts: vec![
            Act::Component("52:54", "ArtifactInstall", 0.5),
            Act::Log("error", "rtos.52:54", "ArtifactInstall of \"rtos.52:54\" exited with 1."),
            Act::ComponentError("52:54", "ArtifactInstall of \"rtos.52:54\" exited with 1."),
            Act::Step(0.6, "Rolling back"),
            // The property comes first or the line of the log; it is one error either way.
            Act::ComponentError("R123", "ArtifactRollback of \"rtos.R123\" exited with 1."),
            Act::Log("error", "rtos.R123", "ArtifactRollback of \"rtos.R123\" exited with 1."),
            // This one happens again.
            Act::Log("error", "rtos.R123", "ArtifactRollback of \"rtos.R123\" exited with 1."),
            Act::End(
                "rolled-back",
                "org.orchestratord1.Error.InterfaceFailed",
                "The Component \"rtos.52:54\" failed in ArtifactInstall.",
            ),
        ],
        ..Script::default()
    };
    let _daemon = Daemon::start(&bus, script).await;
    let output = run(&mut orchestratorctl(&bus), &["install", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 15, "{output:?}");
    assert_eq!(
        output.stderr,
        "Job 7: install\n\
         rtos.52:54: ArtifactInstall\n\
         rtos.52:54: error: ArtifactInstall of \"rtos.52:54\" exited with 1.\n\
         \x2060 % Rolling back\n\
         rtos.R123: error: ArtifactRollback of \"rtos.R123\" exited with 1.\n\
         rtos.R123: error: ArtifactRollback of \"rtos.R123\" exited with 1.\n\
         orchestratorctl: The Component \"rtos.52:54\" failed in ArtifactInstall.\n"
    );
    assert_eq!(output.stdout, "The System is back in its former state.\n");
}

#[tokio::test]
async fn json_is_the_result_and_nothing_else() {
    let bus = Bus::start().await;
    let script = Script {
        acts: vec![
            Act::ComponentError("R123", "It broke."),
            Act::End("failed", "org.orchestratord1.Error.InterfaceFailed", "The whole broke."),
        ],
        ..Script::default()
    };
    let _daemon = Daemon::start(&bus, script).await;
    let output = run(&mut orchestratorctl(&bus), &["--json", "install", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 15, "{output:?}");
    let result: Value = serde_json::from_str(&output.stdout).unwrap();
    let error = |message: &str| json!({ "name": "org.orchestratord1.Error.InterfaceFailed", "message": message });
    assert_eq!(
        result["job"],
        json!({
            "id": 7, "path": "/org/orchestratord1/job/7", "kind": "install", "started_by": 0,
            "started": "2025-10-15T11:08:51Z", "state": "done", "progress": 1.0, "step": "", "result": "failed",
            "error": error("The whole broke."),
        })
    );
    assert_eq!(result["exit_code"], 15);
    assert_eq!(result["component_errors"], json!({ "rtos.R123": error("It broke.") }));
    assert_eq!(result["update"]["system_type"], "system-core-v1");
    assert_eq!(result["components"].as_array().unwrap().len(), 3);
    // The same again changes no property of the Component, and is told all the same.
    let output = run(&mut orchestratorctl(&bus), &["--json", "resume"]).await;
    let result: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(result["component_errors"], json!({ "rtos.R123": error("It broke.") }));
}

#[tokio::test]
async fn a_chatty_job_loses_no_line() {
    // More than any queue on the way holds, before the reply and after it.
    let bus = Bus::start().await;
    let lines = |count: usize| vec![Act::Log("warning", "rtos.R123", "line"); count];
    let mut acts = lines(700);
    acts.push(Act::End("done", "", ""));
    let _daemon = Daemon::start(&bus, Script { early: lines(700), acts, ..Script::default() }).await;
    let output = run(&mut orchestratorctl(&bus), &["install", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 0, "{output:?}");
    assert_eq!(output.stderr.matches("rtos.R123: warning: line\n").count(), 1400);
}

#[tokio::test]
async fn nothing_to_do_is_said() {
    let bus = Bus::start().await;
    let mut acts: Vec<Act> = ["G13", "R123", "52:54"].map(|id| Act::Component(id, "unchanged", 1.0)).into();
    acts.extend(["G13", "R123", "52:54"].map(|id| Act::Component(id, "idle", 0.0)));
    acts.push(Act::End("done", "", ""));
    let _daemon = Daemon::start(&bus, Script { acts, ..Script::default() }).await;
    let output = run(&mut orchestratorctl(&bus), &["install", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 0, "{output:?}");
    assert_eq!(output.stdout, "Nothing to do: the System already is what \"system-core-v2\" describes.\n");
}

#[tokio::test]
async fn every_end_is_put_into_words() {
    let error = "org.orchestratord1.Error.Failed";
    for (result, name, said) in [
        ("stopped", "", "Stopped.\n"),
        ("rolled-back", "", "The System is back in its former state.\n"),
        ("failed", "", "The failed deployment is closed.\n"),
        ("failed", error, "The rollback failed.\n"),
        ("cancelled", error, "The deployment was cancelled.\n"),
        ("inconsistent", error, "The System is inconsistent: neither in its former state nor in the new one.\n"),
        ("reboot-required", "", "orchestratord reboots the host; the deployment goes on by itself afterwards.\n"),
        ("done", "", "The rollback is done.\n"),
        ("something-new", "", "Job 7 ended with the result \"something-new\".\n"),
    ] {
        let bus = Bus::start().await;
        let message = if name.is_empty() { "" } else { "It broke." };
        let script = Script { acts: vec![Act::End(result, name, message)], ..Script::default() };
        let _daemon = Daemon::start(&bus, script).await;
        let output = run(&mut orchestratorctl(&bus), &["rollback"]).await;
        assert_eq!(output.stdout, said, "{output:?}");
    }
}

#[tokio::test]
async fn detached_requests_return_at_once() {
    let bus = Bus::start().await;
    // The Job never ends.
    let daemon = Daemon::start(&bus, Script { acts: vec![Act::Hold], ..Script::default() }).await;
    let output = run(&mut orchestratorctl(&bus), &["install", "--detach", text(&manifest(&bus))]).await;
    assert_eq!((output.code(), output.stdout.as_str()), (0, "/org/orchestratord1/job/7\n"));
    let _ = daemon;
    let output = run(&mut orchestratorctl(&bus), &["--json", "resume", "--detach"]).await;
    let result: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(result, json!({ "id": 7, "path": "/org/orchestratord1/job/7" }));
}

#[tokio::test]
async fn an_interruption_leaves_the_deployment_alone() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let bus = Bus::start().await;
        let script = Script { acts: vec![Act::Step(0.5, "half"), Act::Hold], ..Script::default() };
        let daemon = Daemon::start(&bus, script).await;
        let mut running = Running::start(&mut orchestratorctl(&bus), &["install", text(&manifest(&bus))]);
        running.says("half").await;
        running.signal(signal);
        let output = running.end().await;
        assert_eq!(output.code(), code, "{output:?}");
        assert!(output.stderr.contains("Job 7 goes on in orchestratord"), "{output:?}");
        assert!(output.stderr.contains("orchestratorctl watch"), "{output:?}");
        assert_eq!(output.stdout, "");
        let members: Vec<_> = daemon.calls().into_iter().map(|call| call.member).collect();
        assert_eq!(members, ["Install"], "nothing may be cancelled");
    }
}

#[tokio::test]
async fn a_signal_ignored_by_the_parent_stays_ignored() {
    let bus = Bus::start().await;
    let script =
        Script { acts: vec![Act::Step(0.5, "half"), Act::Hold, Act::End("done", "", "")], ..Script::default() };
    let daemon = Daemon::start(&bus, script).await;
    let mut shell = on_bus(Command::new("sh"), &bus.address);
    let line = format!("trap '' INT; exec {PROGRAM} install {}", text(&manifest(&bus)));
    let mut running = Running::start(&mut shell, &["-c", &line]);
    running.says("half").await;
    running.signal(Signal::SIGINT);
    daemon.go_on();
    let output = running.end().await;
    assert_eq!(output.code(), 0, "{output:?}");
}

#[tokio::test]
async fn a_daemon_that_leaves_is_a_failure_with_a_reason() {
    let bus = Bus::start().await;
    let script = Script { acts: vec![Act::Step(0.5, "half"), Act::Die], ..Script::default() };
    let _daemon = Daemon::start(&bus, script).await;
    let output = run(&mut orchestratorctl(&bus), &["install", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 1, "{output:?}");
    assert_eq!(
        output.stderr,
        "Job 7: install\n 50 % half\n\
         orchestratord left the bus while Job 7 (install) was running; waiting for it to come back.\n\
         orchestratorctl: orchestratord left the bus while Job 7 (install) was running. The deployment is recorded on disk \
         and goes on when orchestratord starts again; \"orchestratorctl status\" shows how it stands.\n"
    );
}

#[tokio::test]
async fn a_daemon_that_leaves_before_it_answers_is_a_failure() {
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, Script { early: vec![Act::Die], ..Script::default() }).await;
    let output = run(&mut orchestratorctl(&bus), &["install", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 1, "{output:?}");
    assert!(output.stderr.contains("before it answered"), "{output:?}");
    assert!(output.stderr.contains("whether it has begun"), "{output:?}");
}

#[tokio::test]
async fn a_daemon_that_leaves_after_the_end_changes_nothing() {
    // As after an update of the daemon itself.
    let error = "org.orchestratord1.Error.InterfaceFailed";
    for (result, name, code) in
        [("done", "", 0), ("stopped", "", 0), ("stopped", error, 15), ("rolled-back", error, 15)]
    {
        let bus = Bus::start().await;
        let script = Script { acts: vec![Act::End(result, name, name)], dies_after_wait: true, ..Script::default() };
        let _daemon = Daemon::start(&bus, script).await;
        let output = run(&mut orchestratorctl(&bus), &["install", text(&manifest(&bus))]).await;
        assert_eq!(output.code(), code, "{result}: {output:?}");
        assert!(!output.stderr.contains("left the bus"), "{result}: {output:?}");
    }
}

#[tokio::test]
async fn a_deferred_reboot_is_left_to_the_caller() {
    let bus = Bus::start().await;
    let script = Script { acts: vec![Act::End("reboot-required", "", "")], ..Script::default() };
    let _daemon = Daemon::start(&bus, script).await;
    let output = run(&mut orchestratorctl(&bus), &["install", "--defer-reboot", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 4, "{output:?}");
    assert_eq!(output.stdout, "The host has to be rebooted; resume the deployment afterwards.\n");
}

#[tokio::test]
async fn without_a_daemon_the_unit_is_named() {
    let bus = Bus::start().await;
    let file = manifest(&bus);
    for line in [&["install", text(&file)][..], &["status"], &["watch"], &["provides"]] {
        let output = run(&mut orchestratorctl(&bus), line).await;
        assert_eq!(output.code(), 1, "{output:?}");
        assert!(output.stderr.contains("orchestratord does not run"), "{output:?}");
        assert!(output.stderr.contains("orchestratord.service"), "{output:?}");
        assert!(output.stderr.contains(&bus.address[..20]), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
}

#[tokio::test]
async fn without_a_bus_the_bus_is_named() {
    let place = tempfile::tempdir().unwrap();
    let address = format!("unix:path={}/none", place.path().display());
    let output = run(&mut on_bus(Command::new(PROGRAM), &address), &["status"]).await;
    assert_eq!(output.code(), 1, "{output:?}");
    assert!(output.stderr.contains(&format!("Cannot connect to the bus \"{address}\"")), "{output:?}");
}

#[tokio::test]
async fn a_lost_reader_of_the_result_does_not_change_the_exit_code() {
    let bus = Bus::start().await;
    let acts = vec![Act::End("rolled-back", "org.orchestratord1.Error.InterfaceFailed", "It broke.")];
    let _daemon = Daemon::start(&bus, Script { acts, ..Script::default() }).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = orchestratorctl(&bus);
    command.stdout(Stdio::from(writer));
    let output = run(&mut command, &["install", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 15, "{output:?}");
}
