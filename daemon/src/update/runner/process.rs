//! Runs calls as plain processes, where there is no systemd to hold them.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::children::{self, Own};
use super::kin::Kin;
use super::lines::Output;
use super::{ANSWER_LIMIT, Call, Ended, Exit, KILL_GRACE, Lines, Runner, RunnerError, Stdout, Stream, TAG_VARIABLE};

/// Time to read what is left in the pipes when all processes have ended. Only a process that was lost (see
/// [`Kin`]) can hold a pipe open that long.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// How often starting a program is tried that somebody holds open for writing, and the time between.
const BUSY_TRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Bytes read from a pipe at once.
const BUFFER_SIZE: usize = 8192;
/// What the init system tells the daemon and nobody else: a script that answered for the daemon would do harm.
const PRIVATE_VARIABLES: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "MALLOC_MMAP_THRESHOLD_",
];

/// Runs each call as a child of the daemon, in a process group of its own.
#[derive(Debug, Clone)]
pub struct ProcessRunner {
    grace: Duration,
}

impl ProcessRunner {
    /// Leaves [`KILL_GRACE`] between SIGTERM and SIGKILL.
    pub fn new() -> Self {
        Self::with_grace(KILL_GRACE)
    }

    /// Leaves this time between SIGTERM and SIGKILL.
    pub fn with_grace(grace: Duration) -> Self {
        children::adopt_orphans();
        Self { grace }
    }

    async fn make(&self, call: &Call, lines: &dyn Lines, cancel: &CancellationToken) -> Result<Ended, RunnerError> {
        let mut running = Running::start(call).await?;
        lines.started();
        let begun = running.watch(call, lines, cancel).await;
        let kin = running.kin.clone();
        let ended = tokio::select! {
            ended = kin.end(self.grace) => ended,
            // A script that is told to end may have something to say, and must not block on a full pipe.
            never = running.pipes.pump_on(lines) => match never {},
        };
        // An error means that a lost process holds a pipe; what it prints is nobody's answer any more.
        drop(timeout(DRAIN_LIMIT, running.pipes.pump_out(lines)).await);
        running.pipes.finish(lines);
        if let Err(left) = ended {
            running.ended = true;
            let reason = format!("{left} of its processes cannot be ended");
            return Err(RunnerError::Lost { program: call.program.clone(), reason });
        }
        let status = running.reap().await;
        let lost = |reason: String| RunnerError::Lost { program: call.program.clone(), reason };
        let exit = match begun {
            Begun::Lost(reason) => return Err(lost(reason)),
            Begun::TimedOut => Exit::TimedOut,
            Begun::Cancelled => Exit::Cancelled,
            Begun::Over if running.pipes.too_long() => {
                return Err(RunnerError::AnswerTooLong { program: call.program.clone() });
            }
            Begun::Over => exit_of(status.map_err(|error| lost(error.to_string()))?),
        };
        Ok(Ended { exit, answer: std::mem::take(&mut running.pipes.answer) })
    }
}

impl Default for ProcessRunner {
    fn default() -> Self {
        Self::new()
    }
}

impl Runner for ProcessRunner {
    fn run<'a>(
        &'a self,
        call: &'a Call,
        lines: &'a dyn Lines,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Ended, RunnerError>> {
        Box::pin(self.make(call, lines, cancel))
    }

    /// Nothing is known of a plain process whose parent is gone, so what is left of it is ended.
    fn adopt<'a>(
        &'a self,
        call: &'a Call,
        _lines: &'a dyn Lines,
        _cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Ended>, RunnerError>> {
        Box::pin(async move {
            match Kin::new(&call.tag, None).end(self.grace).await {
                Ok(()) => Ok(None),
                Err(left) => Err(RunnerError::Lost {
                    program: call.program.clone(),
                    reason: format!("{left} of its processes cannot be ended"),
                }),
            }
        })
    }

    fn kill<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(left) = Kin::new(tag, None).end(self.grace).await {
                tracing::warn!(tag, left, "Processes of an earlier call cannot be ended.");
            }
        })
    }
}

/// Why the time of a call is over.
enum Begun {
    /// It exited, or answers too much.
    Over,
    TimedOut,
    Cancelled,
    Lost(String),
}

/// A call between start and end. Dropped early, it takes its processes with it.
struct Running {
    child: Child,
    leader: Pid,
    kin: Kin,
    pipes: Pipes,
    ended: bool,
    /// Dropped after it was reaped.
    own: Option<Own>,
}

impl Running {
    async fn start(call: &Call) -> Result<Self, RunnerError> {
        let refused = |reason: String| RunnerError::Start { program: call.program.clone(), reason };
        let mut command = command(call);
        let mut tries = 1;
        let mut child = loop {
            match command.spawn() {
                Ok(child) => break child,
                // A package manager is replacing the program, or any process was forked while it was being written.
                Err(error)
                    if Errno::from_raw(error.raw_os_error().unwrap_or(0)) == Errno::ETXTBSY && tries < BUSY_TRIES =>
                {
                    tries += 1;
                    sleep(BUSY_PAUSE).await;
                }
                Err(error) => return Err(refused(start_failure(call, &error))),
            }
        };
        let id = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| refused("it has no number".into()))?;
        let leader = Pid::from_raw(id);
        let own = Some(Own::new(leader));
        let pipes = Pipes {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            stdout_buffer: vec![0; BUFFER_SIZE],
            stderr_buffer: vec![0; BUFFER_SIZE],
            wants_answer: call.stdout == Stdout::Answer,
            answer: Vec::new(),
            output: Output::new(),
        };
        Ok(Self { child, leader, kin: Kin::new(&call.tag, Some(leader)), pipes, ended: false, own })
    }

    /// Reads what the call prints until it exits or its time is over.
    async fn watch(&mut self, call: &Call, lines: &dyn Lines, cancel: &CancellationToken) -> Begun {
        tokio::select! {
            biased;
            exited = exited(self.leader) => match exited {
                Ok(()) => Begun::Over,
                Err(error) => Begun::Lost(error.to_string()),
            },
            () = cancel.cancelled() => Begun::Cancelled,
            () = sleep(call.timeout) => Begun::TimedOut,
            () = self.pipes.pump_until_too_long(lines) => Begun::Over,
        }
    }

    async fn reap(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.ended = true;
        self.own = None;
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.kin.signal(Signal::SIGKILL);
        }
    }
}

fn command(call: &Call) -> Command {
    let mut command = Command::new(&call.program);
    command
        .args(&call.arguments)
        .current_dir(&call.directory)
        .env(TAG_VARIABLE, &call.tag)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    for variable in PRIVATE_VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// Waits until the process has ended and leaves it to be reaped later.
async fn exited(process: Pid) -> std::io::Result<()> {
    // It becomes readable at the end of this process. A signal would wake up the followers of all calls at the end of each.
    if let Some(process) = rustix::process::Pid::from_raw(process.as_raw())
        && let Ok(descriptor) = pidfd_open(process, PidfdFlags::NONBLOCK)
    {
        #[expect(deprecated, reason = "its replacement is unsafe; an owned descriptor is closed by nobody else")]
        let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
        return descriptor.readable().await.map(drop);
    }
    // Listening comes first, so that an end between the look and the wait is not missed.
    let mut children = signal(SignalKind::child())?;
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    while waitid(Id::Pid(process), flags)? == WaitStatus::StillAlive {
        children.recv().await;
    }
    Ok(())
}

fn exit_of(status: ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    match status.code() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.signal().unwrap_or(0)),
    }
}

/// Says what "No such file or directory" is about: the kernel uses it for three different things.
fn start_failure(call: &Call, error: &std::io::Error) -> String {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    if missing && !call.directory.is_dir() {
        format!("its working directory \"{}\" does not exist", call.directory.display())
    } else if missing && Path::new(&call.program).exists() {
        "the interpreter that its first line names does not exist".to_owned()
    } else if Errno::from_raw(error.raw_os_error().unwrap_or(0)) == Errno::ENOEXEC {
        "it is neither a program for this machine nor does its first line name an interpreter".to_owned()
    } else {
        error.to_string()
    }
}

/// What a call prints.
struct Pipes {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    stdout_buffer: Vec<u8>,
    stderr_buffer: Vec<u8>,
    wants_answer: bool,
    answer: Vec<u8>,
    output: Output,
}

impl Pipes {
    /// Reads a bit of what comes first. `false` if both ends are closed. May be dropped at any time without loss.
    async fn pump(&mut self, lines: &dyn Lines) -> bool {
        if self.stdout.is_none() && self.stderr.is_none() {
            return false;
        }
        let (stream, bytes) = tokio::select! {
            count = read(&mut self.stdout, &mut self.stdout_buffer) => (Stream::Stdout, &self.stdout_buffer[..count]),
            count = read(&mut self.stderr, &mut self.stderr_buffer) => (Stream::Stderr, &self.stderr_buffer[..count]),
        };
        if stream == Stream::Stdout && self.wants_answer {
            // One byte too many is kept as the sign that there was too much.
            let room = (ANSWER_LIMIT + 1).saturating_sub(self.answer.len());
            self.answer.extend_from_slice(&bytes[..bytes.len().min(room)]);
        } else {
            self.output.push(stream, bytes, lines);
        }
        true
    }

    async fn pump_on(&mut self, lines: &dyn Lines) -> std::convert::Infallible {
        self.pump_out(lines).await;
        std::future::pending().await
    }

    async fn pump_until_too_long(&mut self, lines: &dyn Lines) {
        while !self.too_long() {
            if !self.pump(lines).await {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn pump_out(&mut self, lines: &dyn Lines) {
        while self.pump(lines).await {}
    }

    fn too_long(&self) -> bool {
        self.answer.len() > ANSWER_LIMIT
    }

    fn finish(&mut self, lines: &dyn Lines) {
        std::mem::take(&mut self.output).finish(lines);
    }
}

/// Reads from an open pipe, and closes it at its end; waits for ever on a closed one.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe.as_mut() else { return std::future::pending().await };
    // Reading a pipe fails only when something is wrong with the pipe itself; nothing more will come then either.
    let count = open.read(buffer).await.unwrap_or(0);
    if count == 0 {
        *pipe = None;
    }
    count
}

#[cfg(test)]
mod tests;
