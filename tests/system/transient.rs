//! Calls as transient units of a booted systemd.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use orchestrator_tests::booted::{Bench, Booted};
use orchestratord::systemd::transient::TransientRunner;
use orchestratord::update::runner::process::ProcessRunner;
use orchestratord::update::runner::{Call, Ended, Exit, LINES_LIMIT, Lines, Runner, RunnerError, Stdout, Stream};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_mins(5);
/// How many calls at once.
const MANY: usize = 200;

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(Stream, String)>>);

impl Seen {
    fn of(&self, stream: Stream) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|(from, _)| *from == stream).map(|(_, line)| line.clone()).collect()
    }
}

impl Lines for Seen {
    fn line(&self, stream: Stream, line: &str) {
        self.0.lock().unwrap().push((stream, line.to_owned()));
    }
}

/// A machine, and a runner for its systemd.
struct Machine {
    booted: Booted,
    spool: TempDir,
    runner: TransientRunner,
    seen: Seen,
    cancel: CancellationToken,
}

async fn runner(booted: &Booted, spool: &TempDir) -> TransientRunner {
    let connection = zbus::connection::Builder::address(booted.bus_address().as_str()).build().await.unwrap();
    TransientRunner::new(connection, spool.path().join("calls")).await.unwrap()
}

impl Machine {
    async fn new(bench: Bench) -> Self {
        let booted = bench.boot();
        let spool = TempDir::new().unwrap();
        let runner = runner(&booted, &spool).await;
        Self { booted, spool, runner, seen: Seen::default(), cancel: CancellationToken::new() }
    }

    async fn run(&self, call: &Call) -> Result<Ended, RunnerError> {
        self.runner.run(call, &self.seen, &self.cancel).await
    }

    async fn exit(&self, call: &Call) -> Exit {
        self.run(call).await.unwrap().exit
    }

    async fn adopt(&self, call: &Call) -> Result<Option<Ended>, RunnerError> {
        self.runner.adopt(call, &self.seen, &self.cancel).await
    }

    /// Makes a call in another process, the "former daemon".
    fn elsewhere(&self, call: &Call) -> Elsewhere {
        let mut child = Command::new(env!("CARGO_BIN_EXE_transient-call"))
            .args([self.booted.bus_address().as_str(), self.spool.path().join("calls").to_str().unwrap(), "run"])
            .args([&call.tag, &call.timeout.as_millis().to_string()])
            .arg(if call.stdout == Stdout::Answer { "answer" } else { "log" })
            .args([&call.directory, &call.program])
            .args(&call.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Elsewhere { child, lines }
    }

    /// Nothing is left, neither on the machine nor in the spool.
    fn assert_clean(&self) {
        let units = self.booted.ask("systemctl list-units --all --plain --no-legend 'orchestrator-call-*'");
        assert_eq!(units, "");
        let procs = self.booted.ask("cat $(find /sys/fs/cgroup -path '*orchestrator-call*' -name cgroup.procs)");
        assert_eq!(procs, "");
        let left: Vec<_> = self.spool.path().join("calls").read_dir().unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        // What systemd itself keeps of a unit is in memory, and has to go with it.
        assert_eq!(self.booted.ask("ls -l /run/systemd/units | grep orchestrator-call || true"), "");
        // A refused update is no defect of the machine.
        assert_eq!(self.booted.ask("systemctl is-system-running"), "running");
    }
}

struct Elsewhere {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Elsewhere {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// It gets no chance to say good-bye.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn call(tag: &str, words: &[&str]) -> Call {
    Call {
        tag: tag.to_owned(),
        word: "ArtifactInstall".to_owned(),
        component: "gateway.R1".to_owned(),
        program: words[0].into(),
        arguments: words[1..].iter().map(ToString::to_string).collect(),
        directory: "/var/tmp".into(),
        timeout: LONG,
        stdout: Stdout::Log,
    }
}

fn shell(tag: &str, script: &str) -> Call {
    call(tag, &["/bin/sh", "-c", script])
}

fn question(tag: &str, script: &str) -> Call {
    Call { stdout: Stdout::Answer, ..shell(tag, script) }
}

#[tokio::test]
async fn every_end_is_told_as_it_was() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench.file("/opt/data", 0o644, "no program")).await;
    assert_eq!(machine.exit(&call("ok", &["/bin/true"])).await, Exit::Code(0));
    for status in [1, 7, 199, 246, 255] {
        assert_eq!(machine.exit(&shell("status", &format!("exit {status}"))).await, Exit::Code(status));
    }
    // Statuses that systemd uses itself are the program's own all the same.
    for status in [200, 203, 245] {
        assert_eq!(machine.exit(&shell("status", &format!("sleep 0.2; exit {status}"))).await, Exit::Code(status));
    }
    for (name, number) in [("KILL", 9), ("SEGV", 11), ("TERM", 15), ("PIPE", 13), ("RTMAX", 64)] {
        assert_eq!(machine.exit(&shell("signal", &format!("kill -{name} $$"))).await, Exit::Signal(number), "{name}");
    }
    for words in [&["/opt/missing"][..], &["/opt/data"], &["/opt"]] {
        let error = machine.run(&call("start", words)).await.unwrap_err();
        assert!(matches!(error, RunnerError::Start { .. }), "{error}");
        assert!(error.to_string().contains(&format!("\"{}\"", words[0])), "{error}");
    }
    let error = machine.run(&Call { directory: "/missing".into(), ..call("cwd", &["/bin/true"]) }).await.unwrap_err();
    assert!(matches!(error, RunnerError::Start { .. }), "{error}");
    machine.assert_clean();
}

#[tokio::test]
async fn a_program_gets_its_words_its_place_and_the_environment() {
    let Some(bench) = Bench::new() else { return };
    let machine =
        Machine::new(bench.script("/opt/show words", "for word; do printf '<%s>\\n' \"$word\"; done; pwd")).await;
    let odd =
        ["", " ", "$HOME", "${PATH}", "$$", "%n", "%%", "\"quoted\"", "it's", "a\\b", "a\tb", "ü→", ";", "-", "@x"];
    let mut words = vec!["/opt/show words"];
    words.extend(odd);
    let show = Call { stdout: Stdout::Answer, ..call("words", &words) };
    let mut expected = odd.iter().fold(String::new(), |mut text, word| {
        writeln!(text, "<{word}>").unwrap();
        text
    });
    expected.push_str("/var/tmp\n");
    assert_eq!(String::from_utf8(machine.run(&show).await.unwrap().answer).unwrap(), expected);

    let answer = machine.run(&question("env", "env; cat; readlink /proc/self/fd/0")).await.unwrap().answer;
    let answer = String::from_utf8(answer).unwrap();
    let lines: HashSet<&str> = answer.lines().collect();
    // This process plays the daemon.
    assert!(lines.contains(format!("PATH={}", std::env::var("PATH").unwrap()).as_str()), "{answer}");
    assert!(lines.contains("ORCHESTRATORD_CALL=env"), "{answer}");
    assert!(lines.contains("/dev/null"), "{answer}");
    machine.assert_clean();
}

#[tokio::test]
async fn output_comes_line_by_line_and_answers_as_a_whole() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    let ended =
        machine.run(&shell("log", "echo one; echo two >&2; printf three; printf 'fo\\377r' >&2")).await.unwrap();
    assert_eq!(ended, Ended { exit: Exit::Code(0), answer: Vec::new() });
    assert_eq!(machine.seen.of(Stream::Stdout), ["one", "three"]);
    assert_eq!(machine.seen.of(Stream::Stderr), ["two", "fo\u{fffd}r"]);

    let ended = machine.run(&question("answer", "printf 'a\\0b'; echo hint >&2; exit 3")).await.unwrap();
    assert_eq!(ended, Ended { exit: Exit::Code(3), answer: b"a\0b".to_vec() });
    assert_eq!(machine.seen.of(Stream::Stderr)[2], "hint");
    let ended = machine.run(&question("fits", "head -c 65536 /dev/zero")).await.unwrap();
    assert_eq!(ended.answer.len(), 65536);
    for script in ["head -c 65537 /dev/zero", "head -c 65537 /dev/zero; sleep 1000", "cat /dev/zero"] {
        let error = machine.run(&question("long", script)).await.unwrap_err();
        assert!(matches!(error, RunnerError::AnswerTooLong { .. }), "{error}");
    }
    // A reader that goes away ends the writer, as in every shell.
    assert_eq!(machine.exit(&shell("pipe", "yes | head -n 1 >/dev/null")).await, Exit::Code(0));

    let seen = Seen::default();
    let flood = shell("flood", "seq 1 50000");
    machine.runner.run(&flood, &seen, &machine.cancel).await.unwrap();
    let (lines, hints) = (seen.of(Stream::Stdout), seen.of(Stream::Stderr));
    assert_eq!(lines.len(), LINES_LIMIT);
    assert!(hints[0].starts_with("40000 more lines"), "{hints:?}");
    machine.assert_clean();
}

#[tokio::test]
async fn the_journal_knows_the_component_and_the_state() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    // journald looks the sender up when it reads the line, so the sender stays until it is there.
    let of_unit = "journalctl --quiet --output=cat --unit=orchestrator-call-fields";
    let say =
        format!("{{ echo 'from the program'; until {of_unit} | grep -q from; do sleep 0.1; done; }} | systemd-cat");
    let call = Call { timeout: Duration::from_secs(30), ..shell("fields", &say) };
    assert_eq!(machine.exit(&call).await, Exit::Code(0));
    let said = machine.booted.ask(of_unit);
    // What the program writes there itself, between what systemd says about the unit.
    assert!(said.contains("\nfrom the program\n"), "{said}");
    assert!(said.contains("Started orchestrator-call-fields.service - ArtifactInstall of gateway.R1."), "{said}");
    machine.assert_clean();
}

/// A program with a child that left its session, and a grandchild; both would outlive it.
const FAMILY: &str = "setsid sh -c 'sleep 1000 & sleep 1001' & sleep 1002";

#[tokio::test]
async fn a_time_out_ends_the_whole_family() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    let short = Duration::from_millis(500);
    assert_eq!(machine.exit(&Call { timeout: short, ..shell("family", FAMILY) }).await, Exit::TimedOut);
    assert_eq!(machine.booted.ask("ps -e -o args= 2>/dev/null | grep '[s]leep 100' || true"), "");
    // Neither a program that ends well when told, nor one that does not listen.
    let polite = shell("polite", "trap 'echo sorry; exit 0' TERM; while :; do sleep 0.1; done");
    assert_eq!(machine.exit(&Call { timeout: short, ..polite }).await, Exit::TimedOut);
    assert_eq!(machine.seen.of(Stream::Stdout), ["sorry"]);
    let deaf = shell("deaf", "trap '' TERM; while :; do sleep 0.1; done");
    assert_eq!(machine.exit(&Call { timeout: short, ..deaf }).await, Exit::TimedOut);
    machine.assert_clean();
}

#[tokio::test]
async fn what_a_program_leaves_running_is_ended() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    let leaves =
        "setsid sh -c \"trap 'echo told; exit' TERM; echo up; while :; do sleep 0.1; done\" & sleep 0.5; exit 4";
    assert_eq!(machine.exit(&shell("leaves", leaves)).await, Exit::Code(4));
    assert_eq!(machine.seen.of(Stream::Stdout), ["up", "told"]);
    machine.assert_clean();
}

#[tokio::test]
async fn a_cancelled_call_ends() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    let cancel = CancellationToken::new();
    let call = shell("cancel", &format!("echo up; {FAMILY}"));
    let run = machine.runner.run(&call, &machine.seen, &cancel);
    let (ended, ()) = tokio::join!(run, async {
        while machine.seen.of(Stream::Stdout).is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    assert_eq!(ended.unwrap().exit, Exit::Cancelled);
    machine.assert_clean();
    // Before it began, too.
    assert_eq!(machine.runner.run(&call, &machine.seen, &cancel).await.unwrap().exit, Exit::Cancelled);
    machine.assert_clean();
}

#[tokio::test]
async fn an_administrator_who_stops_the_unit_is_a_signal() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    let call = shell("stopped", "sleep 1000");
    let stop = "until systemctl is-active --quiet orchestrator-call-stopped; do :; done; systemctl stop orchestrator-call-stopped";
    let mut administrator = machine.booted.command("sh").args(["-c", stop]).spawn().unwrap();
    assert_eq!(machine.exit(&call).await, Exit::Signal(15));
    assert!(administrator.wait().unwrap().success());
    machine.assert_clean();
}

#[tokio::test]
async fn a_running_call_is_adopted_after_its_daemon_was_killed() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    machine.booted.ask("mkfifo /var/tmp/go");
    for (script, exit) in [("exit 0", Exit::Code(0)), ("exit 6", Exit::Code(6)), ("kill -9 $$", Exit::Signal(9))] {
        let call = shell("adopt", &format!("echo before; read go </var/tmp/go; echo $go; echo bad >&2; {script}"));
        let mut former = machine.elsewhere(&call);
        assert_eq!(former.line(), "stdout: before");
        former.kill();
        let seen = Seen::default();
        let go = async { machine.booted.ask("echo after >/var/tmp/go") };
        let adopt = machine.runner.adopt(&call, &seen, &machine.cancel);
        let (ended, _) = tokio::join!(adopt, go);
        assert_eq!(ended.unwrap(), Some(Ended { exit, answer: Vec::new() }));
        assert_eq!(seen.of(Stream::Stdout), ["after"]);
        assert_eq!(seen.of(Stream::Stderr), ["bad"]);
        machine.assert_clean();
    }
    // Its time goes on.
    let call = Call { timeout: Duration::from_secs(2), ..shell("time", "echo up; sleep 1000") };
    let mut former = machine.elsewhere(&call);
    assert_eq!(former.line(), "stdout: up");
    former.kill();
    assert_eq!(machine.adopt(&call).await.unwrap().unwrap().exit, Exit::TimedOut);
    // Cancelling is for adopted calls, too.
    let call = shell("cancel", "echo up; sleep 1000");
    let mut former = machine.elsewhere(&call);
    assert_eq!(former.line(), "stdout: up");
    former.kill();
    machine.cancel.cancel();
    assert_eq!(machine.adopt(&call).await.unwrap().unwrap().exit, Exit::Cancelled);
    machine.assert_clean();
}

#[tokio::test]
async fn a_call_that_ended_while_nobody_looked_is_not_lost() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    machine.booted.ask("mkfifo /var/tmp/go");
    let ends = [
        ("exit 0", LONG, "exited", Exit::Code(0)),
        ("exit 9", LONG, "exited", Exit::Code(9)),
        ("kill -SEGV $$", LONG, "exited", Exit::Signal(11)),
        ("sleep 1000", Duration::from_secs(1), "failed", Exit::TimedOut),
    ];
    for (script, timeout, state, exit) in ends {
        let call =
            Call { timeout, ..shell("unseen", &format!("echo 1; read go </var/tmp/go; echo 2; echo 3 >&2; {script}")) };
        let mut former = machine.elsewhere(&call);
        assert_eq!(former.line(), "stdout: 1");
        former.kill();
        machine.booted.ask("echo go >/var/tmp/go");
        let over = format!("systemctl show --property=SubState orchestrator-call-unseen | grep -x SubState={state}");
        machine.booted.wait_for(&over);
        // Nor by what PID 1 does to itself meanwhile.
        machine.booted.ask("systemctl daemon-reload; systemctl daemon-reexec");
        let seen = Seen::default();
        let ended = machine.runner.adopt(&call, &seen, &machine.cancel).await.unwrap();
        assert_eq!(ended, Some(Ended { exit, answer: Vec::new() }));
        if state == "exited" {
            assert_eq!(seen.of(Stream::Stdout), ["2"]);
            assert_eq!(seen.of(Stream::Stderr), ["3"]);
        }
        machine.assert_clean();
    }
}

#[tokio::test]
async fn a_question_is_asked_again() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    let call = question("question", "echo half; echo up >&2; sleep 1000");
    let mut former = machine.elsewhere(&call);
    assert_eq!(former.line(), "stderr: up");
    former.kill();
    assert_eq!(machine.adopt(&call).await.unwrap(), None);
    machine.assert_clean();
    let ended = machine.run(&question("question", "echo whole")).await.unwrap();
    assert_eq!(ended.answer, b"whole\n");
}

#[tokio::test]
async fn nothing_is_known_of_what_never_was_or_was_stopped() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    assert_eq!(machine.adopt(&shell("never", "exit 0")).await.unwrap(), None);
    let call = shell("stopped", "echo up; sleep 1000");
    let mut former = machine.elsewhere(&call);
    assert_eq!(former.line(), "stdout: up");
    former.kill();
    machine.booted.ask("systemctl stop orchestrator-call-stopped");
    assert_eq!(machine.adopt(&call).await.unwrap(), None);
    machine.assert_clean();
}

#[tokio::test]
async fn calls_nobody_wants_any_more_are_ended() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    let calls = ["kill", "sweep", "keep", "again"].map(|tag| shell(tag, &format!("echo up; {FAMILY}")));
    for call in &calls {
        let mut former = machine.elsewhere(call);
        assert_eq!(former.line(), "stdout: up");
        former.kill();
    }
    machine.runner.kill("kill").await;
    machine.runner.kill("kill").await;
    machine.runner.kill("never").await;
    // The same call anew: what is left of the former one does not count.
    assert_eq!(machine.exit(&shell("again", "exit 2")).await, Exit::Code(2));
    let mut left = machine.runner.left_behind();
    left.sort();
    assert_eq!(left, ["keep", "sweep"]);
    machine.runner.kill("sweep").await;
    let units =
        machine.booted.ask("systemctl list-units --all --plain --no-legend 'orchestrator-call-*' | cut -d' ' -f1");
    assert_eq!(units, "orchestrator-call-keep.service");
    machine.runner.kill("keep").await;
    assert!(machine.runner.left_behind().is_empty());
    machine.assert_clean();
}

#[tokio::test]
async fn a_flood_without_a_reader_waits_and_fills_nothing() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    machine.booted.ask("mkfifo /var/tmp/go");
    // More than the pipe takes, fewer lines than the log takes.
    let flood = "echo up; read go </var/tmp/go; seq --format=%0200g 1 4000 >&2; echo done";
    let call = shell("flood", &format!("{flood}; exit 8"));
    let mut former = machine.elsewhere(&call);
    assert_eq!(former.line(), "stdout: up");
    former.kill();
    machine.booted.ask("echo go >/var/tmp/go");
    // It waits in a write to the pipe, for ever if need be.
    let waits = "grep -l pipe_write /proc/[0-9]*/wchan | grep -q .";
    machine.booted.wait_for(waits);
    assert_eq!(machine.adopt(&call).await.unwrap().unwrap().exit, Exit::Code(8));
    assert_eq!(machine.seen.of(Stream::Stdout), ["done"]);
    assert_eq!(machine.seen.of(Stream::Stderr).len(), 4000);
    machine.assert_clean();
}

#[tokio::test]
async fn an_upgrade_of_systemd_in_the_middle_of_a_call_does_no_harm() {
    let Some(mut bench) = Bench::new() else { return };
    let upgrades = ["daemon-reload", "daemon-reexec"];
    for upgrade in upgrades {
        let body = format!("systemctl {upgrade}; echo $1; systemctl {upgrade} & sleep 0.3; wait; exit 5");
        bench = bench.script(&format!("/opt/{upgrade}"), &body);
    }
    let machine = Machine::new(bench.script("/opt/brief", "kill -TERM 1; exit $1")).await;
    for upgrade in upgrades {
        // Plain words: see `literal` for what an old systemd makes of others when it reloads just before it starts them.
        let program = format!("/opt/{upgrade}");
        let calls = ["a", "b", "c"].map(|tag| call(tag, &[&program, "plain-word"]));
        let ended = join_all(calls.iter().map(|call| machine.run(call))).await;
        for ended in ended {
            assert_eq!(ended.unwrap().exit, Exit::Code(5));
        }
    }
    assert_eq!(machine.seen.of(Stream::Stdout), ["plain-word"; 6]);
    // What systemd writes down about the units, it can read again.
    let refused =
        "journalctl --quiet --output=cat --unit='orchestrator-call-*' | grep -E 'Unknown key|Refusing' || true";
    assert_eq!(machine.booted.ask(refused), "");
    // The end of the program and the absence of PID 1 from the bus coincide.
    for round in 0..10 {
        let brief = call("brief", &["/opt/brief", &round.to_string()]);
        assert_eq!(machine.exit(&brief).await, Exit::Code(round));
    }
    machine.assert_clean();
}

#[tokio::test]
async fn a_lost_bus_is_no_failure_of_the_call() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    machine.booted.ask("mkfifo /var/tmp/go");
    let call = shell("bus", "echo up; read go </var/tmp/go; exit 4");
    {
        let mut run = machine.runner.run(&call, &machine.seen, &machine.cancel);
        let mut lost = Box::pin(async {
            while machine.seen.of(Stream::Stdout).is_empty() {
                tokio::task::yield_now().await;
            }
            machine.booted.ask("systemctl stop dbus.service dbus.socket");
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
        tokio::select! {
            ended = &mut run => panic!("{ended:?}"),
            () = &mut lost => {}
        }
        // Only who does not want to know any more is told that nothing is known.
        machine.cancel.cancel();
        let error = run.await.unwrap_err();
        assert!(matches!(error, RunnerError::Lost { .. }), "{error}");
    }
    machine.booted.ask("systemctl start dbus.socket dbus.service");
    machine.booted.wait_for("busctl status org.freedesktop.systemd1");
    let (next, cancel) = (runner(&machine.booted, &machine.spool).await, CancellationToken::new());
    let adopt = next.adopt(&call, &machine.seen, &cancel);
    let (ended, _) = tokio::join!(adopt, async { machine.booted.ask("echo go >/var/tmp/go") });
    assert_eq!(ended.unwrap().unwrap().exit, Exit::Code(4));
    machine.assert_clean();
}

#[tokio::test]
async fn a_call_is_not_refused_because_the_host_shuts_down() {
    let Some(bench) = Bench::new() else { return };
    // It holds the shutdown up, and the bus with it.
    let slow =
        "[Unit]\nAfter=dbus.service\n[Service]\nExecStart=sleep infinity\nExecStop=sh -c 'read go </var/tmp/go'\n";
    let mut machine = Machine::new(bench.file("/etc/systemd/system/slow.service", 0o644, slow)).await;
    machine.booted.ask("mkfifo /var/tmp/go; systemctl start slow");
    let before = machine.booted.boot_id();
    machine.booted.ask("systemctl reboot --no-block");
    machine.booted.wait_for("systemctl is-system-running | grep -x stopping");
    let call = shell("late", "exit 0");
    let run = tokio::time::timeout(Duration::from_secs(1), machine.run(&call));
    assert!(run.await.is_err(), "the call neither runs nor fails");
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    assert_eq!(machine.runner.run(&call, &machine.seen, &cancelled).await.unwrap().exit, Exit::Cancelled);
    // In a process of its own: the machine goes off as soon as it has read.
    machine.booted.command("sh").args(["-c", "echo go >/var/tmp/go"]).spawn().unwrap().wait().unwrap();
    machine.booted.wait_for_boot_after(&before);
    // The next boot starts afresh.
    let next = runner(&machine.booted, &machine.spool).await;
    assert_eq!(next.adopt(&call, &machine.seen, &machine.cancel).await.unwrap(), None);
    assert_eq!(next.run(&call, &machine.seen, &machine.cancel).await.unwrap().exit, Exit::Code(0));
}

#[tokio::test]
async fn hundreds_of_calls_run_at_once() {
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    machine.booted.ask("mkdir /var/tmp/up; mkfifo /var/tmp/gate");
    // The gate opens when all of them are before it, so all of them do run at once.
    let script = "touch /var/tmp/up/$1; read open </var/tmp/gate; echo $1; exit $1";
    let calls: Vec<Call> = (0..MANY)
        .map(|number| call(&format!("many-{number}"), &["/bin/sh", "-c", script, "sh", &number.to_string()]))
        .collect();
    let open = format!("until [ $(ls /var/tmp/up | wc -l) = {MANY} ]; do sleep 0.1; done; : >/var/tmp/gate");
    let mut gate = machine.booted.command("sh").args(["-c", &open]).spawn().unwrap();
    let ended = join_all(calls.iter().map(|call| machine.run(call))).await;
    assert!(gate.wait().unwrap().success());
    for (number, ended) in ended.into_iter().enumerate() {
        assert_eq!(ended.unwrap().exit, Exit::Code(i32::try_from(number).unwrap()), "{number}");
    }
    let numbers: HashSet<String> = machine.seen.of(Stream::Stdout).into_iter().collect();
    assert_eq!(numbers.len(), MANY);
    machine.assert_clean();
}

/// Prints what a call costs more than a plain process; what is asserted is only that all of them succeed.
#[tokio::test]
async fn what_a_call_costs() {
    const CALLS: u32 = 30;
    let Some(bench) = Bench::new() else { return };
    let machine = Machine::new(bench).await;
    let nothing = call("cost", &["/bin/true"]);
    let plain = ProcessRunner::new();
    let mut costs = Vec::new();
    for runner in [&machine.runner as &dyn Runner, &plain] {
        let begun = Instant::now();
        for _ in 0..CALLS {
            let ended = runner.run(&nothing, &machine.seen, &machine.cancel).await.unwrap();
            assert_eq!(ended.exit, Exit::Code(0));
        }
        costs.push(begun.elapsed() / CALLS);
    }
    // What systemd's own program for this takes, that is what no caller can do without.
    let begun = Instant::now();
    machine
        .booted
        .ask(&format!("for _ in $(seq {CALLS}); do systemd-run --quiet --wait --collect /bin/true || exit; done"));
    costs.push(begun.elapsed() / CALLS);
    eprintln!(
        "a call as a transient unit takes {:?}, as a plain process {:?}, with systemd-run {:?}",
        costs[0], costs[1], costs[2]
    );
    machine.assert_clean();
}
