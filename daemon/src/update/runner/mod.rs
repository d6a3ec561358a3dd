//! Runs the programs behind Interfaces, outside the daemon.
//!
//! [`Runner`] is the edge: one implementation starts plain processes, one (in [`crate::systemd`]) transient units that
//! survive a restart of the daemon. Both end the whole process tree of a call, in time or out of it.

pub mod children;
mod kin;
pub mod lines;
pub mod process;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

/// How much of an answer is read; more is an error.
pub const ANSWER_LIMIT: usize = 64 * 1024;
/// A longer line of output is cut into lines of this many bytes.
pub const LINE_LIMIT: usize = 4096;
/// Of one call at most this many lines are logged; then one line says how many were dropped.
pub const LINES_LIMIT: usize = 10_000;
/// Time between SIGTERM and SIGKILL.
pub const KILL_GRACE: Duration = Duration::from_secs(10);
/// Name of the environment variable that marks every process of a call; its value is the tag.
pub const TAG_VARIABLE: &str = "ORCHESTRATORD_CALL";

/// One call of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Names the call for good, across restarts of the daemon: `A-Z a-z 0-9 . _ -`, at most 128 bytes.
    pub tag: String,
    /// The state or query, for logs and journal fields.
    pub word: String,
    /// The Component, for logs and journal fields.
    pub component: String,
    /// The program; absolute.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its working directory; absolute.
    pub directory: PathBuf,
    /// Afterwards the whole process tree is ended.
    pub timeout: Duration,
    /// What becomes of its standard output. Standard error is always logged.
    pub stdout: Stdout,
}

/// What becomes of the standard output of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdout {
    /// Logged line by line.
    Log,
    /// Returned as the answer.
    Answer,
}

/// Where a line of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes the output of a call.
pub trait Lines: Send + Sync + fmt::Debug {
    /// One line without its newline, at most [`LINE_LIMIT`] bytes, invalid UTF-8 replaced.
    fn line(&self, stream: Stream, line: &str);

    /// The program of the call runs now. Not told of a call that was taken over.
    fn started(&self) {}
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited by itself.
    Code(i32),
    /// A signal ended it that we did not send.
    Signal(i32),
    /// It ran out of time and was ended.
    TimedOut,
    /// The caller cancelled it and it was ended.
    Cancelled,
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exited with status {code}"),
            Self::Signal(signal) => write!(formatter, "was ended by signal {signal}"),
            Self::TimedOut => write!(formatter, "ran out of time"),
            Self::Cancelled => write!(formatter, "was cancelled"),
        }
    }
}

/// A call that is over; nothing of its process tree runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// Standard output, if it was asked for.
    pub answer: Vec<u8>,
}

/// A call that could not be made or not be followed to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The program could not be started.
    #[error("Cannot start \"{}\": {reason}.", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        reason: String,
    },
    /// More than [`ANSWER_LIMIT`] bytes on standard output.
    #[error("\"{}\" answered more than {ANSWER_LIMIT} bytes.", program.display())]
    AnswerTooLong {
        /// The program.
        program: PathBuf,
    },
    /// The call was started, but how it ended cannot be told.
    #[error("Lost track of \"{}\": {reason}.", program.display())]
    Lost {
        /// The program.
        program: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Runs calls.
pub trait Runner: Send + Sync + fmt::Debug {
    /// Makes the call and waits for its end. Cancelling ends the process tree and gives [`Exit::Cancelled`].
    fn run<'a>(
        &'a self,
        call: &'a Call,
        lines: &'a dyn Lines,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Ended, RunnerError>>;

    /// Takes over the call with this tag that an earlier daemon made: waits for its end and tells it. `None` if nothing
    /// is known of it any more; then nothing of it runs any more either.
    fn adopt<'a>(
        &'a self,
        call: &'a Call,
        lines: &'a dyn Lines,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Ended>, RunnerError>>;

    /// Ends whatever still runs of the call with this tag, made by an earlier daemon.
    fn kill<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, ()>;

    /// Tags of all calls of earlier daemons that nobody has seen the end of, as far as they can be told from the calls of
    /// strangers. To be asked before the first call is made.
    fn left_behind(&self) -> Vec<String> {
        Vec::new()
    }
}
