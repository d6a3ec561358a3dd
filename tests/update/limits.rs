//! Calls that take too long, and what they print.

use std::num::NonZero;

use futures_util::StreamExt;
use orchestrator_tests::system::System;
use orchestratord_dbus::Options;
use zbus::MatchRule;
use zbus::message::Type;

/// Every process of the call is ended, also one that ignores SIGTERM, and one that it put into the background.
#[tokio::test]
async fn a_state_that_runs_out_of_time_is_ended_with_its_whole_process_tree() {
    let mut system = System::new(&[("rtos", "R1", 1)]).await;
    system.configure("InterfaceTimeoutSeconds", 1);
    system.start_daemon().await;
    for word in ["Download", "ArtifactInstall", "ArtifactCommit"] {
        system.forget_calls();
        system.set("R1", &format!("{word}.hang"), "");
        let outcome = system.install(2, Options::new()).await.unwrap();
        let result = if word == "Download" { "failed" } else { "rolled-back" };
        let message = outcome.faulty(result, "InterfaceFailed");
        assert!(message.contains(word) && message.contains("ran out of time after 1 s"), "{message}");
        assert_eq!(system.programs(), [0; 0]);
        system.unset("R1", &format!("{word}.hang"));
        system.assert_all_at(1);
        system.assert_cleaned_up();
    }
}

/// SIGKILL comes ten seconds after SIGTERM, and the deployment goes on then.
#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed() {
    let mut system = System::new(&[("rtos", "R1", 1)]).await;
    system.configure("InterfaceTimeoutSeconds", 1);
    system.start_daemon().await;
    system.set("R1", "ArtifactInstall.hang", "stubborn");
    let outcome = system.install(2, Options::new()).await.unwrap();
    let message = outcome.faulty("rolled-back", "InterfaceFailed");
    assert!(message.contains("ran out of time"), "{message}");
    assert_eq!(system.programs(), [0; 0]);
    system.assert_all_at(1);
}

/// A hanging rollback must not keep the others from going back, nor `Cleanup` from being called.
#[tokio::test]
async fn states_of_the_way_back_run_out_of_time_too() {
    let mut system = System::new(&[("gateway", "G13", 10), ("rtos", "R456", 20)]).await;
    system.configure("InterfaceTimeoutSeconds", 1);
    system.start_daemon().await;
    system.set("R456", "ArtifactInstall.fail", "");
    for word in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
        system.set("R456", &format!("{word}.hang"), "");
    }
    let outcome = system.install(2, Options::new()).await.unwrap();
    outcome.faulty("inconsistent", "Inconsistent");
    assert_eq!(
        system.trace()[4..],
        [
            "ArtifactRollback R456",
            "ArtifactFailure R456",
            "ArtifactRollback G13",
            "ArtifactFailure G13",
            "Cleanup G13",
            "Cleanup R456"
        ]
    );
    system.assert_release("G13", 1);
    assert!(!system.tree("rtos", "R456").exists());
}

/// Lines of both streams of a state, and standard error of a query, as the protocol words them.
#[tokio::test]
async fn output_goes_line_by_line_into_the_log_of_the_job_and_of_the_daemon() {
    let system = System::start(&[("rtos", "R1", 1)]).await;
    system.set("R1", "ArtifactInstall.stdout", "first\n  second \n\nlast");
    system.set("R1", "ArtifactInstall.stderr", "odd: \u{fc} \u{1b}[31m\n");
    system.set("R1", "NeedsArtifactReboot.stderr", "thinking\n");
    let rule =
        MatchRule::builder().msg_type(Type::Signal).interface("org.orchestratord1.Job").member("Log").build().unwrap();
    let mut logs = zbus::MessageStream::for_match_rule(rule, system.connection(), NonZero::new(1024)).await.unwrap();
    system.install(2, Options::new()).await.unwrap().clean("done");

    let mut lines: Vec<(String, String, String)> = Vec::new();
    while lines.last().is_none_or(|(_, _, message)| !message.contains("is over: done")) {
        let message = tokio::time::timeout(orchestrator_tests::system::PATIENCE, logs.next()).await;
        lines.push(message.expect("a line in time").unwrap().unwrap().body().deserialize().unwrap());
    }
    let output: Vec<&str> = lines
        .iter()
        .filter(|(severity, component, _)| severity == "info" && component == "rtos.R1")
        .filter_map(|(_, _, message)| message.strip_prefix("Update Interface output "))
        .collect();
    let stdout: Vec<&str> = output.iter().filter_map(|line| line.strip_prefix("(stdout): ")).collect();
    assert_eq!(stdout, ["first", "  second ", "", "last"]);
    let stderr: Vec<&str> = output.iter().filter_map(|line| line.strip_prefix("(stderr): ")).collect();
    assert_eq!(stderr.len(), 2, "{stderr:?}");
    assert!(stderr[0].starts_with("odd: \u{fc} "), "{stderr:?}");
    assert_eq!(stderr[1], "thinking");

    let log = system.log();
    for line in ["(stdout): first", "(stdout):   second ", "(stdout): last", "(stderr): thinking"] {
        let wanted = format!("Update Interface output {line}");
        assert!(log.lines().any(|found| found.contains(&wanted) && found.contains("rtos.R1")), "{line}: {log}");
    }
    assert!(!log.contains("(stdout): No"), "the answer to a query is no line of log");
    assert!(!log.contains('\u{1b}'), "no escape sequence gets to a terminal");
}

/// A program that prints without end fills no disk and no memory, and gets to its end all the same.
#[tokio::test]
async fn endless_output_is_bounded() {
    let system = System::start(&[("rtos", "R1", 1)]).await;
    system.set("R1", "ArtifactInstall.stdout", &"x\n".repeat(12_000));
    system.set("R1", "ArtifactCommit.stdout", &"y".repeat(100_000));
    system.install(2, Options::new()).await.unwrap().clean("done");
    let log = system.log();
    let lines = log.lines().filter(|line| line.contains("(stdout): x")).count();
    assert_eq!(lines, 10_000);
    assert!(log.contains("2000 more lines were dropped"), "the rest is counted");
    let widths = log.lines().filter(|line| line.contains("(stdout): yyy")).map(|line| line.matches('y').count());
    let widest = widths.max();
    assert!(widest.is_some_and(|width| width <= 4_100), "{widest:?}");
    system.assert_all_at(2);
}
