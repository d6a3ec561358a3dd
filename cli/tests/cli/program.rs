//! Runs the real program.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::play::Bus;

/// Path of the program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_orchestratorctl");
/// A hanging program must not hang the tests.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The exit code; a panic of the program is a failure of the test.
    pub fn code(&self) -> i32 {
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }
}

/// `orchestratorctl` on this bus.
pub fn orchestratorctl(bus: &Bus) -> Command {
    on_bus(Command::new(PROGRAM), &bus.address)
}

/// `mender-orchestrator` on this bus, through a link as it is installed.
pub fn mender_orchestrator(bus: &Bus) -> Command {
    let link = bus.directory.path().join("mender-orchestrator");
    if !link.exists() {
        std::os::unix::fs::symlink(PROGRAM, &link).unwrap();
    }
    on_bus(Command::new(link), &bus.address)
}

/// Any program on this bus.
pub fn on_bus(mut command: Command, address: &str) -> Command {
    command
        .env("DBUS_SYSTEM_BUS_ADDRESS", address)
        .env_remove("TERM")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a program to its end.
pub async fn run(command: &mut Command, arguments: &[&str]) -> Output {
    finish(command.args(arguments).spawn().unwrap()).await
}

/// Waits for the end of a program.
pub async fn finish(child: Child) -> Output {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("the program hangs").unwrap();
    Output {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A program that runs while the test looks on.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    seen: String,
}

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command, arguments: &[&str]) -> Self {
        let mut child = command.args(arguments).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, seen: String::new() }
    }

    /// Reads standard error up to a line that has this in it.
    pub async fn says(&mut self, text: &str) {
        let search = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.seen.push_str(&line);
                self.seen.push('\n');
                if line.contains(text) {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(PATIENCE, search).await.unwrap_or(false);
        assert!(found, "not said: {text}; but: {}", self.seen);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// Waits for the end.
    pub async fn end(mut self) -> Output {
        let mut rest = String::new();
        let reading = self.lines.get_mut().read_to_string(&mut rest);
        tokio::time::timeout(PATIENCE, reading).await.expect("the program hangs").unwrap();
        let mut output = finish(self.child).await;
        output.stderr = self.seen + &rest;
        output
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
