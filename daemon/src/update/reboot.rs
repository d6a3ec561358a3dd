//! Reboots the host, and tells whether it was rebooted.
//!
//! [`Host`] is the edge: [`CommandHost`] runs a configured command, [`crate::systemd`] holds the one that asks logind.
//! That a reboot was accepted says nothing about whether it happens; only a boot id that differs from the one noted
//! before says so.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use nix::unistd::Pid;

use super::runner::children::Own;
use crate::core::error::{Error, Kind};

/// Where the kernel tells its boot id.
pub const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";
/// A boot id is a UUID; a file that holds more than this many bytes is something else.
const BOOT_ID_LIMIT: u64 = 128;
/// A reboot command that has neither ended nor failed after this time counts as accepted: it may well stay until the
/// shutdown ends it, and ending it could break the shutdown that it drives.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(30);

/// The machine the daemon runs on.
pub trait Host: Send + Sync + fmt::Debug {
    /// A word that differs after each boot of the host.
    fn boot_id(&self) -> Result<String, RebootError>;

    /// Asks for a reboot and returns once it was accepted; it does not wait for it.
    fn reboot(&self) -> BoxFuture<'_, Result<(), RebootError>>;
}

/// The host cannot be rebooted, or cannot tell whether it was.
#[derive(Debug, thiserror::Error)]
pub enum RebootError {
    /// The boot id cannot be read.
    #[error("Cannot read the boot id from \"{}\": {source}.", path.display())]
    BootId {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no boot id.
    #[error("\"{}\" holds no boot id: expected one line of 1 to {BOOT_ID_LIMIT} bytes.", path.display())]
    NoBootId {
        /// The file.
        path: PathBuf,
    },
    /// The list of words of the reboot command is empty.
    #[error("The configured reboot command \"RebootCommand\" is empty.")]
    NoCommand,
    /// The reboot command could not be started.
    #[error("Cannot start the reboot command \"{command}\": {source}.")]
    Start {
        /// The command, its words separated by spaces.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The reboot command failed.
    #[error("The reboot command \"{command}\" failed: {status}.")]
    Command {
        /// The command, its words separated by spaces.
        command: String,
        /// How it ended.
        status: String,
    },
    /// A system service refused the reboot.
    #[error("\"{service}\" refused to reboot the host: {reason}.")]
    Refused {
        /// The service that was asked.
        service: String,
        /// What it said.
        reason: String,
    },
}

impl From<RebootError> for Error {
    fn from(error: RebootError) -> Self {
        Self::new(Kind::RebootFailed, error.to_string())
    }
}

/// Reads a boot id: one line of text. The path is an argument so that a private instance can be told of a reboot that
/// did not happen; everywhere else it is [`BOOT_ID_PATH`].
pub fn read_boot_id(path: &Path) -> Result<String, RebootError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(BOOT_ID_LIMIT + 1).read_to_string(&mut text))
        .map_err(|source| RebootError::BootId { path: path.to_owned(), source })?;
    let id = text.trim();
    if id.is_empty() || text.len() as u64 > BOOT_ID_LIMIT || id.contains(char::is_whitespace) {
        return Err(RebootError::NoBootId { path: path.to_owned() });
    }
    Ok(id.to_owned())
}

/// A host that is rebooted by a configured command.
#[derive(Debug, Clone)]
pub struct CommandHost {
    command: Vec<String>,
    boot_id: PathBuf,
    patience: Duration,
}

impl CommandHost {
    /// A host that `command` (a program and its arguments, no shell) reboots and whose boot id is in the file `boot_id`,
    /// usually [`BOOT_ID_PATH`].
    pub fn new(command: Vec<String>, boot_id: impl Into<PathBuf>) -> Self {
        Self { command, boot_id: boot_id.into(), patience: COMMAND_PATIENCE }
    }

    async fn run(&self) -> Result<(), RebootError> {
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(RebootError::NoCommand);
        };
        let name = || self.command.join(" ");
        // Its output goes where the daemon's goes. A group of its own, so that a signal meant for the daemon's group
        // (Ctrl-C on a terminal) does not end a shutdown half way.
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| RebootError::Start { command: name(), source })?;
        let _own = child.id().and_then(|id| i32::try_from(id).ok()).map(|id| Own::new(Pid::from_raw(id)));
        match tokio::time::timeout(self.patience, child.wait()).await {
            // Left alone, not killed; the runtime reaps it if it ends before the host does.
            Err(_elapsed) => Ok(()),
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(RebootError::Command { command: name(), status: status.to_string() }),
            Ok(Err(error)) => Err(RebootError::Command { command: name(), status: error.to_string() }),
        }
    }
}

impl Host for CommandHost {
    fn boot_id(&self) -> Result<String, RebootError> {
        read_boot_id(&self.boot_id)
    }

    fn reboot(&self) -> BoxFuture<'_, Result<(), RebootError>> {
        Box::pin(self.run())
    }
}

#[cfg(test)]
mod tests;
