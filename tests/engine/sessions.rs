//! Commands in a vPLC, and its output as it comes.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::rig::{Host, becomes, spec, until};

/// Says when it begins, then each line that somebody puts into a file.
const TALKS: &str =
    "trap 'exit 0' TERM; echo begins; while :; do cat /tmp/say 2>/dev/null && rm /tmp/say; sleep 0.1; done";

#[tokio::test]
async fn commands_run_in_a_vplc_with_their_streams_and_their_exit_code() {
    let Some(host) = Host::start("commands_run_in_a_vplc_with_their_streams_and_their_exit_code").await else { return };
    let vplc = host.run(&spec(TALKS, "")).await;
    let shell = |words: &[&str]| {
        let mut command = host.ctl_command();
        command.args(["vplc", "shell", "press1"]).args(words).stdin(Stdio::null());
        command
    };
    let said = shell(&["sh", "-c", "echo out; echo err >&2; exit 7"]).output().unwrap();
    assert_eq!(said.status.code(), Some(7), "{said:?}");
    assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let said = shell(&["no-such-program"]).output().unwrap();
    assert!(matches!(said.status.code(), Some(126 | 127)), "{said:?}");

    // More than any buffer holds, there and back.
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let mut cat = shell(&["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, sent) = (cat.stdin.take().unwrap(), bytes.clone());
    let writer = std::thread::spawn(move || input.write_all(&sent).unwrap());
    let mut back = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    assert!(cat.wait().unwrap().success() && back == bytes, "{} of {} bytes came back", back.len(), bytes.len());

    // A command does not outlive its caller.
    let mut sleeper = shell(&["sleep", "4711"]).spawn().unwrap();
    let sleeps = || {
        let found = shell(&["sh", "-c", "grep -l 4711 /proc/[0-9]*/cmdline"]).output().unwrap();
        found.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() > 1
    };
    until("it sleeps", async || sleeps().then_some(())).await;
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    until("it is gone", async || (!sleeps()).then_some(())).await;

    let audit: Vec<Value> = host.audit();
    let calls = audit.iter().filter(|line| line["method"] == "org.orchestratord1.Vplc.Shell");
    assert!(calls.clone().count() >= 4 && calls.clone().all(|line| line["uid"] == 0), "{audit:?}");

    assert_eq!(host.ctl("vplc stop press1").await.0, 0);
    becomes(&vplc, "stopped").await;
    let said = shell(&["true"]).output().unwrap();
    let text = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(6), "{text}");
    assert!(text.contains("The vPLC \"press1\" is stopped; a command can be run in it while it is running."), "{text}");
    host.delete().await;
}

#[tokio::test]
async fn a_terminal_is_as_large_as_that_of_the_caller() {
    let Some(host) = Host::start("a_terminal_is_as_large_as_that_of_the_caller").await else { return };
    host.run(&spec(TALKS, "")).await;
    // `script` makes the terminal of the caller, whose size changes while the command runs. Engines give the terminal its size when the
    // command runs already, so it is waited for.
    let inner = "for size in \"40 100\" \"50 132\"; do until busybox stty size 2>/dev/null | grep -q \"$size\"; do sleep 0.1; done; \
                 echo $size; done; echo $TERM; exit 9";
    let program = orchestrator_tests::binary("orchestratorctl");
    let outer = format!(
        "stty rows 40 cols 100; (sleep 2; stty rows 50 cols 132 </dev/tty) & {} vplc shell press1 sh -c '{inner}'",
        program.display()
    );
    let mut script = host.ctl_command_of("script");
    script.args(["--quiet", "--return", "--flush", "--command", &outer, "/dev/null"]).env("TERM", "vt220");
    let script = tokio::task::spawn_blocking(move || script.stdin(Stdio::null()).output().unwrap());
    let said = tokio::time::timeout(Duration::from_mins(1), script).await.expect("it sees the new size").unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.status.code(), Some(9), "{text}");
    assert_eq!(text.lines().map(str::trim).collect::<Vec<_>>(), ["40 100", "50 132", "vt220"]);
    host.delete().await;
}

#[tokio::test]
async fn output_is_followed_until_the_runtime_ends() {
    let Some(host) = Host::start("output_is_followed_until_the_runtime_ends").await else { return };
    host.run(&spec(TALKS, "")).await;
    let mut command = host.ctl_command();
    let mut follow = command.args(["vplc", "logs", "--follow", "press1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(follow.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "begins\n");
    let words = format!("/proc/{}/root/tmp/say", host.engine.pid("vplc.press1"));
    std::fs::write(words, "more\n").unwrap();
    line.clear();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "more\n");
    assert_eq!(host.ctl("vplc stop press1").await.0, 0);
    line.clear();
    output.read_to_string(&mut line).unwrap();
    assert_eq!((line.as_str(), follow.wait().unwrap().code()), ("", Some(0)));
    host.delete().await;
}
