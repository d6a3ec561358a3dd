//! The program under the name `mender-orchestrator`.

use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::play::{Act, Bus, Daemon, MANIFEST, Script, manifest};
use crate::program::{PROGRAM, Running, mender_orchestrator, on_bus, run, text};

fn shortened(stderr: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, line) in stderr.lines().enumerate() {
        let start = format!("record_id={} severity=", number + 1);
        let rest = line.strip_prefix(&start).unwrap_or_else(|| panic!("{start} in {line}"));
        let (severity, rest) = rest.split_once(" time=\"").unwrap();
        let (time, rest) = rest.split_once("\" ").unwrap();
        // 2025-Oct-15 11:08:51.593812
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert!(shape.starts_with("9999-") && shape.ends_with("-99 99:99:99.999999"), "{time}");
        lines.push(format!("{severity} {rest}"));
    }
    lines
}

#[tokio::test]
async fn the_deployment_log_shows_what_happened() {
    let bus = Bus::start().await;
    let script = Script {
        acts: vec![
            Act::Step(0.5, "Order group 10: ArtifactCommit"),
            Act::Component("52:54", "ArtifactCommit", 0.5),
            Act::Log("info", "rtos.52:54", "Update Interface output (stdout): say \"hi\""),
            Act::Log("error", "rtos.52:54", "Process returned non-zero exit status: ArtifactCommit"),
            Act::ComponentError("52:54", "Process returned non-zero exit status: ArtifactCommit"),
            Act::End("rolled-back", "org.orchestratord1.Error.InterfaceFailed", "It broke."),
        ],
        ..Script::default()
    };
    let _daemon = Daemon::start(&bus, script).await;
    let output = run(&mut mender_orchestrator(&bus), &["install", text(&manifest(&bus))]).await;
    assert_eq!((output.code(), output.stdout.as_str()), (1, ""), "{output:?}");
    assert_eq!(
        shortened(&output.stderr),
        [
            &format!("info name=\"Global\" msg=\"Running mender-orchestrator {}\"", env!("CARGO_PKG_VERSION")),
            "info name=\"Global\" msg=\"Order group 10: ArtifactCommit\"",
            "info name=\"component\" id=\"52:54\" msg=\"Update Interface output (stdout): say \\\"hi\\\"\"",
            "error name=\"component\" id=\"52:54\" msg=\"Process returned non-zero exit status: ArtifactCommit\"",
            "error name=\"Global\" msg=\"It broke.\"",
            "info name=\"Global\" msg=\"The System is back in its former state.\"",
        ]
    );
}

#[tokio::test]
async fn requests_are_those_of_the_update_module() {
    let bus = Bus::start().await;
    let daemon = Daemon::start(&bus, Script { acts: vec![Act::End("done", "", "")], ..Script::default() }).await;
    let file = manifest(&bus);
    let components = bus.file("c.yaml", "components: []\n");
    let stops = ["--stop-before", "ArtifactCommit", "--stop-before", "ArtifactRollback", "--stop-before", "Cleanup"];
    for line in [
        [&["install"], &stops[..], &["--exit-on-reboot", text(&file)]].concat(),
        [&["install", text(&file)], &stops[..], &["--exit-on-reboot"]].concat(),
        vec!["--topology-components", text(&components), "--log-level", "warning", "install", text(&file)],
        vec!["resume", "--stop-before", "ArtifactRollback", "--stop-before", "Cleanup"],
        vec!["rollback", "--stop-before", "Cleanup", "--exit-on-reboot"],
        vec!["resume", "--exit-on-reboot"],
    ] {
        let output = run(&mut mender_orchestrator(&bus), &line).await;
        assert_eq!((output.code(), output.stdout.as_str()), (0, ""), "{line:?}: {output:?}");
    }
    let calls: Vec<_> = daemon
        .calls()
        .into_iter()
        .map(|call| {
            assert_eq!(call.manifest == MANIFEST, call.member == "Install");
            let option = |key: &str| call.options.get(key).cloned().unwrap_or_default();
            (call.member, option("stop-before"), option("reboot"), call.options.len())
        })
        .collect();
    let all = "[\"ArtifactCommit\", \"ArtifactRollback\", \"Cleanup\"]";
    let row = |member, stops: &str, reboot: &str, options| (member, stops.to_owned(), reboot.to_owned(), options);
    assert_eq!(
        calls,
        [
            row("Install", all, "\"defer\"", 3),
            row("Install", all, "\"defer\"", 3),
            row("Install", "", "\"auto\"", 3),
            row("Resume", "[\"ArtifactRollback\", \"Cleanup\"]", "\"auto\"", 2),
            row("Rollback", "[\"Cleanup\"]", "\"defer\"", 2),
            row("Resume", "", "\"defer\"", 1),
        ]
    );
}

#[tokio::test]
async fn wrong_arguments_are_refused_before_anything_is_done() {
    let bus = Bus::start().await;
    let daemon = Daemon::start(&bus, Script::default()).await;
    let file = manifest(&bus);
    let file = text(&file);
    for (line, said) in [
        (&["install", file, "--stop-before", "Download"][..], "Download"),
        (&["install", file, "--stop-before", "artifactcommit"], "artifactcommit"),
        (&["install"], "MANIFEST"),
        (&["install", file, file], "unexpected"),
        (&["install", "/nonexistent/m.yaml"], "/nonexistent/m.yaml"),
        (&["commit"], "commit"),
        (&[], "No command"),
        (&["--log-level", "loud", "resume"], "loud"),
        (&["-t", "/nonexistent/c.yaml", "install", file], "/nonexistent/c.yaml"),
        (&["-L", "/nonexistent/log", "install", file], "/nonexistent/log"),
        (&["-c", "/etc/x", "install", file], "MENDER_ORCHESTRATOR_CONF_DIR"),
        (&["--config=/etc/x", "show-provides"], "MENDER_ORCHESTRATOR_CONF_DIR"),
        (&["-b", "/etc/x", "resume"], "MENDER_ORCHESTRATOR_DATASTORE_DIR"),
        (&["-d", "/x", "resume"], "MENDER_ORCHESTRATOR_DATASTORE_DIR"),
        (&["--data", "/x", "resume"], "MENDER_ORCHESTRATOR_DATASTORE_DIR"),
        (&["--datastore", "/x", "resume"], "MENDER_ORCHESTRATOR_DATASTORE_DIR"),
        (&["resume", "-E", "/x"], "ServerCertificate"),
        (&["--trusted-certs", "/x", "resume"], "ServerCertificate"),
        (&["--skipverify", "resume"], "always verified"),
    ] {
        let output = run(&mut mender_orchestrator(&bus), line).await;
        assert_eq!((output.code(), output.stdout.as_str()), (1, ""), "{line:?}: {output:?}");
        assert!(output.stderr.contains(said), "{line:?}: {output:?}");
    }
    assert_eq!(daemon.calls(), []);
}

#[tokio::test]
async fn version_and_help_need_no_bus() {
    let link = tempfile::tempdir().unwrap();
    let name = link.path().join("mender-orchestrator");
    std::os::unix::fs::symlink(PROGRAM, &name).unwrap();
    for option in ["--version", "-v"] {
        let output = run(&mut on_bus(Command::new(&name), "unix:path=/nonexistent"), &[option]).await;
        assert_eq!((output.code(), output.stdout), (0, format!("{}\n", env!("CARGO_PKG_VERSION"))));
    }
    for option in ["--help", "-h"] {
        let output = run(&mut on_bus(Command::new(&name), "unix:path=/nonexistent"), &[option]).await;
        assert_eq!(output.code(), 0, "{output:?}");
        for word in ["install", "resume", "rollback", "show-provides", "show-inventory", "--topology-components"] {
            assert!(output.stdout.contains(word), "{word} in {output:?}");
        }
    }
}

#[tokio::test]
async fn inventory_is_nothing_but_sorted_lines() {
    let bus = Bus::start().await;
    let script = Script {
        entries: vec![
            ("rtos/R123", "rootfs-image.rtos-interface.version", "v1"),
            ("rtos/52:54:00", "b", "with = sign"),
            ("gateway/G13", "list", "2"),
            ("gateway/G13", "list", "1"),
        ],
        ..Script::default()
    };
    let daemon = Daemon::start(&bus, script).await;
    for command in ["show-provides", "show-inventory"] {
        let output = run(&mut mender_orchestrator(&bus), &[command]).await;
        assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output:?}");
        assert_eq!(
            output.stdout,
            "gateway.G13.list=1\ngateway.G13.list=2\nrtos.52:54:00.b=with = sign\n\
             rtos.R123.rootfs-image.rtos-interface.version=v1\n"
        );
    }
    let scopes: Vec<_> = daemon.calls().into_iter().map(|call| call.options["scope"].clone()).collect();
    assert_eq!(scopes, ["\"provides\"", "\"all\""]);
}

#[tokio::test]
async fn a_silent_component_fails_provides_but_not_the_inventory() {
    let error = "The Component \"rtos.R1\" did not answer.";
    for (entries, provides, inventory) in [(vec![("gateway/G13", "key", "value")], 1, 0), (Vec::new(), 1, 1)] {
        let bus = Bus::start().await;
        let expected = if entries.is_empty() { "" } else { "gateway.G13.key=value\n" };
        let _daemon = Daemon::start(&bus, Script { entries, errors: vec![error], ..Script::default() }).await;
        for (command, code) in [("show-provides", provides), ("show-inventory", inventory)] {
            let output = run(&mut mender_orchestrator(&bus), &[command]).await;
            assert_eq!((output.code(), output.stdout.as_str()), (code, expected), "{command}: {output:?}");
            assert_eq!(
                shortened(&output.stderr),
                ["error name=\"Global\" msg=\"The Component \\\"rtos.R1\\\" did not answer.\""]
            );
        }
    }
}

#[tokio::test]
async fn records_can_go_to_a_file() {
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, Script { acts: vec![Act::End("done", "", "")], ..Script::default() }).await;
    let log = bus.file("log", "old\n");
    let file = manifest(&bus);
    let line = ["--log-file", text(&log), "--log-level", "debug", "install", text(&file)];
    let output = run(&mut mender_orchestrator(&bus), &line).await;
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output:?}");
    let records = shortened(&std::fs::read_to_string(&log).unwrap());
    assert!(records.iter().any(|record| record.contains("Job 7 of orchestratord: install")), "{records:?}");
    assert!(records.last().unwrap().contains("Installed"), "{records:?}");
}

#[tokio::test]
async fn an_unused_topology_is_mentioned() {
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, Script { acts: vec![Act::End("done", "", "")], ..Script::default() }).await;
    let components = bus.file("c.yaml", "components: []\n");
    let output = run(&mut mender_orchestrator(&bus), &["-t", text(&components), "resume"]).await;
    assert_eq!(output.code(), 0, "{output:?}");
    assert!(output.stderr.contains("severity=warning"), "{output:?}");
}

#[tokio::test]
async fn a_daemon_that_leaves_is_a_failure() {
    let bus = Bus::start().await;
    let _daemon = Daemon::start(&bus, Script { acts: vec![Act::Die], ..Script::default() }).await;
    let output = run(&mut mender_orchestrator(&bus), &["install", text(&manifest(&bus))]).await;
    assert_eq!(output.code(), 1, "{output:?}");
    let records = shortened(&output.stderr);
    assert!(records.last().unwrap().contains("orchestratord left the bus while Job 7 (install)"), "{records:?}");
}

#[tokio::test]
async fn without_a_daemon_it_fails() {
    let bus = Bus::start().await;
    for line in [&["install", text(&manifest(&bus))][..], &["resume"], &["show-provides"], &["show-inventory"]] {
        let output = run(&mut mender_orchestrator(&bus), line).await;
        assert_eq!((output.code(), output.stdout.as_str()), (1, ""), "{output:?}");
        assert!(shortened(&output.stderr).last().unwrap().contains("orchestratord.service"), "{output:?}");
    }
}

#[tokio::test]
async fn an_interruption_leaves_the_deployment_alone() {
    let bus = Bus::start().await;
    let script = Script { acts: vec![Act::Step(0.5, "half"), Act::Hold], ..Script::default() };
    let daemon = Daemon::start(&bus, script).await;
    let mut running = Running::start(&mut mender_orchestrator(&bus), &["install", text(&manifest(&bus))]);
    running.says("half").await;
    running.signal(Signal::SIGTERM);
    let output = running.end().await;
    assert_eq!(output.code(), 143, "{output:?}");
    assert!(output.stderr.contains("Job 7 goes on"), "{output:?}");
    assert_eq!(daemon.calls().len(), 1);
}
