use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::update::runner::{LINE_LIMIT, LINES_LIMIT};

const LONG: Duration = Duration::from_mins(1);

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

/// A directory with one script, a tag of its own, and what it printed.
struct Bench {
    directory: TempDir,
    tag: String,
    seen: Seen,
    cancel: CancellationToken,
    grace: Duration,
    timeout: Duration,
    stdout: Stdout,
}

impl Bench {
    fn new(name: &str) -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            tag: format!("test-{}-{name}", std::process::id()),
            seen: Seen::default(),
            cancel: CancellationToken::new(),
            grace: LONG,
            timeout: LONG,
            stdout: Stdout::Log,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn call(&self, body: &str) -> Call {
        let program = self.path("script");
        std::fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        Call {
            tag: self.tag.clone(),
            word: "ArtifactInstall".to_owned(),
            component: "gateway.R1".to_owned(),
            program,
            arguments: vec!["ArtifactInstall".to_owned(), "two words".to_owned()],
            directory: self.directory.path().to_owned(),
            timeout: self.timeout,
            stdout: self.stdout,
        }
    }

    async fn make(&self, call: &Call) -> Result<Ended, RunnerError> {
        ProcessRunner::with_grace(self.grace).run(call, &self.seen, &self.cancel).await
    }

    async fn run(&self, body: &str) -> Result<Ended, RunnerError> {
        self.make(&self.call(body)).await
    }

    async fn exit(&self, body: &str) -> Exit {
        self.run(body).await.unwrap().exit
    }

    /// Runs a script that has time until shortly after it has said that it is ready.
    async fn time_out(&mut self, body: &str) -> Exit {
        for seconds in [1, 5, 25] {
            self.timeout = Duration::from_secs(seconds);
            let exit = self.exit(body).await;
            if self.path("ready").exists() {
                return exit;
            }
        }
        panic!("the script does not get ready");
    }

    /// Waits until the script has said that it is ready.
    async fn ready(&self) {
        while !self.path("ready").exists() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The processes that wrote their number into a file of this name; each must have been there and be gone.
    fn assert_gone(&self, names: &[&str]) {
        for name in names {
            let text = std::fs::read_to_string(self.path(name)).unwrap();
            let id: i32 = text.trim().parse().unwrap();
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
            assert!(matches!(state, None | Some('Z' | 'X')), "\"{name}\" still runs: {stat}");
        }
        assert_eq!(Kin::new(&self.tag, None).signal(Signal::SIGKILL), 0, "a process with the tag still runs");
    }
}

/// Leaves a child, a grandchild, one that left the group, and an orphan that left the group; then says it is ready.
const FAMILY: &str = "sleep 1000 & echo $! > child
sh -c 'sleep 1000 & echo $! > grandchild; wait' &
setsid sh -c 'echo $$ > outsider; sleep 1000' &
setsid sh -c '(echo $$ > orphan.parent; exec sh -c \"echo \\$\\$ > orphan; exec sleep 1000\") &' &
while ! [ -s child ] || ! [ -s grandchild ] || ! [ -s outsider ] || ! [ -s orphan ]; do sleep 0.01; done
echo $$ > leader
: > ready";
const FAMILY_NAMES: [&str; 5] = ["leader", "child", "grandchild", "outsider", "orphan"];

#[tokio::test]
async fn the_exit_code_and_both_streams_come_back() {
    let bench = Bench::new("code");
    assert_eq!(bench.exit("echo \"$1|$2\"; pwd; echo problem >&2; printf end; exit 7").await, Exit::Code(7));
    let directory = bench.directory.path().canonicalize().unwrap();
    assert_eq!(bench.seen.of(Stream::Stdout), ["ArtifactInstall|two words", directory.to_str().unwrap(), "end"]);
    assert_eq!(bench.seen.of(Stream::Stderr), ["problem"]);
}

#[tokio::test]
async fn a_signal_is_told_apart() {
    assert_eq!(Bench::new("signal").exit("kill -KILL $$").await, Exit::Signal(9));
}

#[tokio::test]
async fn the_environment_is_ours_plus_the_tag_and_standard_input_is_empty() {
    let bench = Bench::new("environment");
    let body = format!("echo \"${TAG_VARIABLE}\"; echo \"$PATH\"; wc -c; readlink /proc/self/fd/0");
    assert_eq!(bench.exit(&body).await, Exit::Code(0));
    let path = std::env::var("PATH").unwrap();
    assert_eq!(bench.seen.of(Stream::Stdout), [bench.tag.as_str(), &path, "0", "/dev/null"]);
}

#[tokio::test]
async fn what_the_init_system_tells_the_daemon_is_kept_from_scripts() {
    let command = command(&Bench::new("private").call("exit 0"));
    let removed: Vec<_> =
        command.as_std().get_envs().filter(|(_, value)| value.is_none()).map(|(key, _)| key).collect();
    assert_eq!(removed.len(), PRIVATE_VARIABLES.len());
    assert!(removed.contains(&std::ffi::OsStr::new("NOTIFY_SOCKET")));
}

#[tokio::test]
async fn an_answer_is_returned_and_not_logged() {
    let mut bench = Bench::new("answer");
    bench.stdout = Stdout::Answer;
    let ended = bench.run("printf 'id=R1\\n'; echo note >&2").await.unwrap();
    assert_eq!(ended, Ended { exit: Exit::Code(0), answer: b"id=R1\n".to_vec() });
    assert_eq!(bench.seen.of(Stream::Stdout), [""; 0]);
    assert_eq!(bench.seen.of(Stream::Stderr), ["note"]);
}

#[tokio::test]
async fn an_answer_of_the_limit_passes_and_one_byte_more_does_not() {
    let mut bench = Bench::new("limit");
    bench.stdout = Stdout::Answer;
    let ended = bench.run(&format!("head -c {ANSWER_LIMIT} /dev/zero")).await.unwrap();
    assert_eq!(ended.answer.len(), ANSWER_LIMIT);
    let error = bench.run(&format!("head -c {} /dev/zero", ANSWER_LIMIT + 1)).await.unwrap_err();
    assert!(matches!(error, RunnerError::AnswerTooLong { .. }), "{error}");
}

#[tokio::test]
async fn an_endless_answer_ends_the_call() {
    let mut bench = Bench::new("endless");
    bench.stdout = Stdout::Answer;
    let error = bench.run("echo $$ > leader; cat /dev/zero").await.unwrap_err();
    assert!(matches!(error, RunnerError::AnswerTooLong { .. }), "{error}");
    bench.assert_gone(&["leader"]);
}

#[tokio::test]
async fn a_flood_of_output_is_bounded() {
    let bench = Bench::new("flood");
    let body = format!("yes | head -n {}; head -c {} /dev/zero | tr '\\0' x >&2", 3 * LINES_LIMIT, 2 * LINE_LIMIT);
    assert_eq!(bench.exit(&body).await, Exit::Code(0));
    assert_eq!(bench.seen.0.lock().unwrap().len(), LINES_LIMIT + 1);
    let last = bench.seen.of(Stream::Stderr).pop().unwrap();
    assert!(last.ends_with("more lines were dropped, only 10000 are logged."), "{last}");
}

#[tokio::test]
async fn a_timeout_ends_the_whole_family() {
    let mut bench = Bench::new("timeout");
    assert_eq!(bench.time_out(&format!("{FAMILY}; wait")).await, Exit::TimedOut);
    bench.assert_gone(&FAMILY_NAMES);
}

#[tokio::test]
async fn a_child_without_tag_and_group_is_found_by_descent() {
    let mut bench = Bench::new("descent");
    let body = "env -i setsid /bin/sh -c 'echo $$ > stripped; : > ready; /bin/sleep 1000; :' & wait";
    assert_eq!(bench.time_out(body).await, Exit::TimedOut);
    bench.assert_gone(&["stripped"]);
}

#[tokio::test]
async fn a_script_may_tidy_up_and_speak_when_its_time_is_over() {
    let mut bench = Bench::new("trap");
    let body = "trap 'echo tidying; sleep 0.1; : > tidied; exit 3' TERM; : > ready; while :; do sleep 0.05; done";
    assert_eq!(bench.time_out(body).await, Exit::TimedOut);
    assert!(bench.path("tidied").exists());
    assert_eq!(bench.seen.of(Stream::Stdout), ["tidying"]);
}

#[tokio::test]
async fn who_ignores_sigterm_gets_sigkill() {
    let mut bench = Bench::new("stubborn");
    bench.grace = Duration::from_millis(100);
    let body = "trap '' TERM; echo $$ > leader; setsid sh -c 'echo $$ > outsider; while :; do sleep 1; done' &
while ! [ -s outsider ]; do sleep 0.01; done; : > ready; while :; do sleep 1; done";
    assert_eq!(bench.time_out(body).await, Exit::TimedOut);
    bench.assert_gone(&["leader", "outsider"]);
}

#[tokio::test]
async fn a_stopped_process_is_ended_without_waiting_for_sigkill() {
    let bench = Bench::new("stopped");
    let call = bench.call("trap 'exit 0' TERM; echo $$ > leader; : > ready; kill -STOP $$; sleep 1000");
    let stop = async {
        bench.ready().await;
        bench.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(bench.make(&call), stop);
    assert_eq!(ended.unwrap().exit, Exit::Cancelled);
    bench.assert_gone(&["leader"]);
}

#[tokio::test]
async fn cancelling_ends_the_whole_family() {
    let bench = Bench::new("cancel");
    let call = bench.call(&format!("{FAMILY}; wait"));
    let stop = async {
        bench.ready().await;
        bench.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(bench.make(&call), stop);
    assert_eq!(ended.unwrap().exit, Exit::Cancelled);
    bench.assert_gone(&FAMILY_NAMES);
}

#[tokio::test]
async fn leftovers_are_ended_after_a_normal_exit() {
    let bench = Bench::new("leftover");
    assert_eq!(bench.exit(&format!("{FAMILY}; echo done; exit 4")).await, Exit::Code(4));
    bench.assert_gone(&FAMILY_NAMES);
    assert_eq!(bench.seen.of(Stream::Stdout), ["done"]);
}

#[tokio::test]
async fn a_pipe_held_by_a_lost_process_does_not_hang_us() {
    let bench = Bench::new("lost");
    // Its environment is empty, it left the group, and its parent is gone: nothing tells whose it was.
    let body = "env -i setsid /bin/sh -c '(echo $$ > lost.parent; exec /bin/sh -c \"echo \\$\\$ > lost; exec /bin/sleep 600\") &'
while ! [ -s lost ]; do sleep 0.01; done; echo done";
    let begun = Instant::now();
    assert_eq!(bench.exit(body).await, Exit::Code(0));
    // Not a question of speed: without the bound this takes the ten minutes that the lost process sleeps.
    assert!(begun.elapsed() < Duration::from_mins(5));
    assert_eq!(bench.seen.of(Stream::Stdout), ["done"]);
    let lost = std::fs::read_to_string(bench.path("lost")).unwrap();
    nix::sys::signal::kill(Pid::from_raw(lost.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn dropping_the_call_ends_its_family() {
    let bench = Bench::new("drop");
    let call = bench.call(&format!("{FAMILY}; wait"));
    tokio::select! {
        ended = bench.make(&call) => panic!("{ended:?}"),
        () = bench.ready() => {}
    }
    // The signal is sent when the call is dropped; dying takes a moment.
    while Kin::new(&bench.tag, None).signal(Signal::SIGKILL) > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    bench.assert_gone(&FAMILY_NAMES);
}

async fn refusal(bench: &Bench, call: &Call) -> String {
    let error = bench.make(call).await.unwrap_err();
    assert!(matches!(error, RunnerError::Start { .. }), "{error}");
    error.to_string().replace(bench.directory.path().to_str().unwrap(), "DIR")
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let bench = Bench::new("start");
    let good = bench.call("exit 0");

    let missing = Call { program: bench.path("missing"), ..good.clone() };
    assert_eq!(
        refusal(&bench, &missing).await,
        "Cannot start \"DIR/missing\": No such file or directory (os error 2)."
    );

    let nowhere = Call { directory: bench.path("nowhere"), ..good.clone() };
    let reason = refusal(&bench, &nowhere).await;
    assert_eq!(reason, "Cannot start \"DIR/script\": its working directory \"DIR/nowhere\" does not exist.");

    std::fs::write(bench.path("orphan"), "#!/no/such/shell\n").unwrap();
    std::fs::set_permissions(bench.path("orphan"), Permissions::from_mode(0o755)).unwrap();
    let orphan = Call { program: bench.path("orphan"), ..good.clone() };
    let reason = refusal(&bench, &orphan).await;
    assert_eq!(reason, "Cannot start \"DIR/orphan\": the interpreter that its first line names does not exist.");

    std::fs::set_permissions(&good.program, Permissions::from_mode(0o644)).unwrap();
    let reason = refusal(&bench, &good).await;
    assert_eq!(reason, "Cannot start \"DIR/script\": Permission denied (os error 13).");
}

#[tokio::test]
async fn a_program_that_is_being_written_is_tried_again() {
    let bench = Bench::new("busy");
    let call = bench.call("exit 5");
    let writer = std::fs::OpenOptions::new().append(true).open(&call.program).unwrap();
    let release = async {
        sleep(BUSY_PAUSE / 2).await;
        drop(writer);
    };
    let (ended, ()) = tokio::join!(bench.make(&call), release);
    assert_eq!(ended.unwrap().exit, Exit::Code(5));
}

#[tokio::test]
async fn adopting_ends_what_an_earlier_daemon_left() {
    let bench = Bench::new("adopt");
    let call = bench.call(FAMILY);
    // Nobody waits for it, as after a crash of the daemon; its parent is gone.
    let status = std::process::Command::new("sh")
        .args(["-c", "setsid ./script > /dev/null 2>&1 & echo $! > starter"])
        .current_dir(bench.directory.path())
        .env(TAG_VARIABLE, &bench.tag)
        .status()
        .unwrap();
    assert!(status.success());
    bench.ready().await;
    let runner = ProcessRunner::with_grace(LONG);
    let adopted = runner.adopt(&call, &bench.seen, &bench.cancel).await.unwrap();
    assert_eq!(adopted, None);
    bench.assert_gone(&FAMILY_NAMES);
}

#[tokio::test]
async fn killing_ends_only_the_call_with_the_tag() {
    let bench = Bench::new("kill");
    let other = Bench::new("kill-other");
    let (call, stay) = (bench.call(&format!("{FAMILY}; wait")), other.call(": > ready; sleep 1000"));
    let kill = async {
        bench.ready().await;
        other.ready().await;
        ProcessRunner::with_grace(LONG).kill(&bench.tag).await;
    };
    let ended = tokio::select! {
        (ended, ()) = async { tokio::join!(bench.make(&call), kill) } => ended,
        ended = other.make(&stay) => panic!("the other call ended too: {ended:?}"),
    };
    assert_eq!(ended.unwrap().exit, Exit::Signal(15));
    bench.assert_gone(&FAMILY_NAMES);
}
