//! Interface protocol, version 1: how the daemon talks to the programs that know the Components.
//!
//! `docs/interface-protocol.md` describes the protocol for those who write such programs.

#[cfg(test)]
mod bench;
mod download;
mod error;
#[cfg(test)]
mod example;
mod feeder;
mod fifo;
pub mod pass;
mod query;
mod state;
pub mod tree;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use tokio_util::sync::CancellationToken;

pub use self::download::{ArtifactInput, DownloadRequest, HeaderCheck};
pub use self::error::{CallError, InterfaceError};
pub use self::state::State;
pub use self::tree::{Tree, TreeContext, TreeError};
use crate::core::job::{LogLine, Severity};
use crate::update::component::ComponentKey;
use crate::update::runner::{Call, Ended, Exit, Lines, Runner, Stdout, Stream};

/// Time a call may take, unless the configuration says otherwise (`InterfaceTimeoutSeconds`).
pub const DEFAULT_TIMEOUT: Duration = Duration::from_hours(4);

/// Takes the lines of log that a Job shows to who waits for it.
#[derive(Clone)]
pub struct LogSink(Arc<dyn Fn(LogLine) + Send + Sync>);

impl LogSink {
    /// Passes every line to this function.
    pub fn new(take: impl Fn(LogLine) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Nobody waits.
    pub fn none() -> Self {
        Self::new(drop)
    }
}

impl fmt::Debug for LogSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LogSink")
    }
}

/// Is told once the program of a call runs; by default nobody is.
#[derive(Clone, Default)]
pub struct StartSink(Option<Arc<dyn Fn() + Send + Sync>>);

impl StartSink {
    /// Calls this.
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }
}

impl fmt::Debug for StartSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StartSink")
    }
}

/// The Interface of one Component.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its name, as the Topology says.
    pub name: String,
    /// Its program, from [`Interface::locate`].
    pub program: PathBuf,
    /// The Component. The id is empty as long as `Identity` was not asked.
    pub component: ComponentKey,
    /// `interface_args` of the Topology.
    pub arguments: Vec<String>,
    /// Root of the File API tree, or of the directory for queries; absolute.
    pub root: PathBuf,
    /// Runs the program.
    pub runner: Arc<dyn Runner>,
    /// Time for each call.
    pub timeout: Duration,
    /// Time a program has to end by itself after it stopped reading a stream; [`crate::update::runner::KILL_GRACE`] in
    /// the daemon.
    pub patience: Duration,
    /// Where its output goes besides the log.
    pub log: LogSink,
}

impl Interface {
    /// Finds the program of an Interface: `<data directory>/interfaces/v1/<name>`.
    ///
    /// The name has to be a plain file name, so that the path stays in that directory. The entry may be a symbolic link
    /// to wherever the administrator likes; what it leads to has to be a regular file that we may execute.
    pub fn locate(data_directory: &Path, name: &str) -> Result<PathBuf, InterfaceError> {
        if matches!(name, "" | "." | "..")
            || name.contains(|character: char| character == '/' || character.is_control())
        {
            return Err(InterfaceError::Name(name.to_owned()));
        }
        let path = data_directory.join("interfaces/v1").join(name);
        let reason = match path.metadata() {
            Ok(found) if !found.is_file() => "is not a regular file".to_owned(),
            Ok(_) if access(&path, AccessFlags::X_OK).is_err() => "is not executable".to_owned(),
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
            Err(error) => format!("cannot be examined: {error}"),
        };
        Err(InterfaceError::Unusable { name: name.to_owned(), path, reason })
    }

    /// The same Interface with this time for each call.
    #[must_use]
    pub fn limited(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Runs a state other than `Download`, which has [`Interface::download`]. Without a tree, `Cleanup` has nothing to do
    /// and every other state fails.
    pub async fn run_state(&self, state: State, tag: &str, cancel: &CancellationToken) -> Result<(), InterfaceError> {
        self.run_state_telling(state, tag, StartSink::default(), cancel).await
    }

    /// The same, and tells when the program runs.
    pub async fn run_state_telling(
        &self,
        state: State,
        tag: &str,
        started: StartSink,
        cancel: &CancellationToken,
    ) -> Result<(), InterfaceError> {
        if state == State::Download {
            return Err(self.failed(state.as_str(), CallError::NoArtifact));
        }
        if let Err(error) = Tree::open(&self.root) {
            if state == State::Cleanup {
                return Ok(());
            }
            return Err(self.failed(state.as_str(), error.into()));
        }
        let call = self.call(state.as_str(), tag, Stdout::Log);
        let printer = Printer { started, ..self.printer(&call.word) };
        let ended = self.runner.run(&call, &printer, cancel).await;
        let ended = ended.map_err(|error| self.failed(&call.word, error.into()))?;
        self.succeeded(&call, &ended)
    }

    /// Takes over a state that an earlier daemon began. `None` if nothing is known of it any more; then nothing of it runs
    /// any more either.
    pub async fn adopt_state(
        &self,
        state: State,
        tag: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<()>, InterfaceError> {
        let call = self.call(state.as_str(), tag, Stdout::Log);
        let adopted = self.runner.adopt(&call, &self.printer(state.as_str()), cancel).await;
        match adopted.map_err(|error| self.failed(state.as_str(), error.into()))? {
            Some(ended) => self.succeeded(&call, &ended).map(Some),
            None => Ok(None),
        }
    }

    /// Ends what an earlier daemon left running of a state.
    pub async fn end_state(&self, state: State, tag: &str) {
        self.runner.kill(tag).await;
        if state == State::Download {
            for tag in [download::unpacked_tag(tag), download::sizes_tag(tag)] {
                self.runner.kill(&tag).await;
            }
        }
    }

    fn call(&self, word: &str, tag: &str, stdout: Stdout) -> Call {
        let mut arguments =
            vec![word.to_owned(), self.root.to_string_lossy().into_owned(), self.component.component_type.clone()];
        arguments.extend_from_slice(&self.arguments);
        Call {
            tag: tag.to_owned(),
            word: word.to_owned(),
            component: self.label(),
            program: self.program.clone(),
            arguments,
            directory: self.root.clone(),
            timeout: self.timeout,
            stdout,
        }
    }

    async fn make(&self, call: &Call, cancel: &CancellationToken) -> Result<Ended, InterfaceError> {
        let ended = self.runner.run(call, &self.printer(&call.word), cancel).await;
        ended.map_err(|error| self.failed(&call.word, error.into()))
    }

    fn succeeded(&self, call: &Call, ended: &Ended) -> Result<(), InterfaceError> {
        let program = || call.program.clone();
        match ended.exit {
            Exit::Code(0) => Ok(()),
            Exit::Cancelled => Err(self.cancelled(&call.word)),
            Exit::TimedOut => {
                let seconds = call.timeout.as_secs();
                Err(self.failed(&call.word, CallError::TimedOut { program: program(), seconds }))
            }
            exit => Err(self.failed(&call.word, CallError::Exit { program: program(), exit })),
        }
    }

    fn failed(&self, word: &str, cause: CallError) -> InterfaceError {
        InterfaceError::Call { word: word.to_owned(), component: self.label(), cause: Box::new(cause) }
    }

    fn cancelled(&self, word: &str) -> InterfaceError {
        InterfaceError::Cancelled { word: word.to_owned(), component: self.label() }
    }

    fn label(&self) -> String {
        if self.component.id.is_empty() { self.component.component_type.clone() } else { self.component.to_string() }
    }

    fn printer(&self, word: &str) -> Printer {
        Printer {
            component: self.label(),
            state: word.to_owned(),
            log: self.log.clone(),
            started: StartSink::default(),
        }
    }
}

/// Brings what a program prints into the logs.
#[derive(Debug)]
struct Printer {
    component: String,
    state: String,
    log: LogSink,
    started: StartSink,
}

impl Lines for Printer {
    fn line(&self, stream: Stream, line: &str) {
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let message = format!("Update Interface output ({stream}): {line}");
        tracing::info!(component = %self.component, state = %self.state, "{message}");
        self.log.0(LogLine { severity: Severity::Info, component: self.component.clone(), message });
    }

    fn started(&self) {
        if let Some(tell) = &self.started.0 {
            tell();
        }
    }
}

#[cfg(test)]
mod tests;
