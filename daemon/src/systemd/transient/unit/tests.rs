use super::*;

fn outcome(result: &str, code: i32, status: i32, ran: bool) -> Outcome {
    Outcome { result: result.to_owned(), code, status, ran }
}

#[test]
fn names_follow_the_tag() {
    let unit = Unit::of("d1_gateway.R1-7");
    assert_eq!(unit.name, "orchestrator-call-d1_gateway.R1-7.service");
    assert_eq!(unit.path, "/org/freedesktop/systemd1/unit/orchestrator_2dcall_2dd1_5fgateway_2eR1_2d7_2eservice");
    // systemd takes names of at most 255 bytes.
    assert!(Unit::of(&"x".repeat(128)).name.len() <= 255);
}

#[test]
fn programs_do_not_inherit_what_systemd_tells_the_daemon_alone() {
    let given = [
        ("PATH", "/usr/bin"),
        ("MENDER_ORCHESTRATOR_DATA_DIR", "/data"),
        ("http_proxy", "http://proxy"),
        ("_2", "two\nlines"),
        ("NOTIFY_SOCKET", "/run/systemd/notify"),
        ("WATCHDOG_USEC", "1"),
        ("INVOCATION_ID", "0"),
        ("RUNTIME_DIRECTORY", "/run/orchestrator"),
        (TAG_VARIABLE, "somebody else's"),
        ("BASH_FUNC_which%%", "() { :; }"),
        ("1ST", "no"),
        ("", "no"),
        ("BELL", "\u{7}"),
    ];
    let left = environment(given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    assert_eq!(
        left,
        ["PATH=/usr/bin", "MENDER_ORCHESTRATOR_DATA_DIR=/data", "http_proxy=http://proxy", "_2=two\nlines"]
    );
}

#[test]
fn a_limit_is_never_no_limit() {
    assert_eq!(microseconds(Duration::ZERO), 1);
    assert_eq!(microseconds(Duration::from_secs(2)), 2_000_000);
    assert!(microseconds(Duration::MAX) < u64::MAX);
}

#[test]
fn ends_are_told_apart() {
    assert_eq!(outcome("success", 1, 0, true).exit(), Ok(Exit::Code(0)));
    assert_eq!(outcome("success", 1, 7, true).exit(), Ok(Exit::Code(7)));
    assert_eq!(outcome("exit-code", 1, 203, true).exit(), Ok(Exit::Code(203)));
    assert_eq!(outcome("success", 2, 9, true).exit(), Ok(Exit::Signal(9)));
    assert_eq!(outcome("success", 3, 11, true).exit(), Ok(Exit::Signal(11)));
    assert_eq!(outcome("oom-kill", 2, 9, true).exit(), Ok(Exit::Signal(9)));
    // Even if it took the hint and ended well.
    assert_eq!(outcome("timeout", 1, 0, true).exit(), Ok(Exit::TimedOut));
    assert_eq!(outcome("timeout", 2, 15, false).exit(), Ok(Exit::TimedOut));
}

#[test]
fn a_program_that_never_ran_is_no_exit_status() {
    assert!(outcome("exit-code", 1, 203, false).exit().unwrap_err().contains("203/EXEC"));
    assert!(outcome("exit-code", 1, 200, false).exit().unwrap_err().contains("200/CHDIR"));
    assert!(outcome("resources", 0, 0, false).exit().unwrap_err().contains("\"resources\""));
    // A brief program may end before systemd has seen it run; this status is none of systemd's.
    assert_eq!(outcome("success", 1, 3, false).exit(), Ok(Exit::Code(3)));
}

#[test]
fn states_of_a_service_are_told_apart() {
    assert_eq!(Phase::of("dead"), Phase::Gone);
    assert_eq!(Phase::of("exited"), Phase::Exited);
    assert_eq!(Phase::of("failed"), Phase::Failed);
    for state in ["start", "running", "stop-sigterm", "stop-sigkill", "final-sigterm"] {
        assert_eq!(Phase::of(state), Phase::Alive, "{state}");
    }
}
