//! A command that somebody runs in a vPLC beside its PLC.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::AsyncWrite;

use super::EngineError;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A terminal that a command has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// What it is, for the variable `TERM`.
    pub kind: String,
    /// How large it is at first.
    pub size: Size,
}

/// A command, and what it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its terminal; none for three streams.
    pub terminal: Option<Terminal>,
}

/// What a command has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// To its standard output, or to its terminal.
    Output(Bytes),
    /// To its standard error.
    Errors(Bytes),
}

/// A command that runs.
pub struct Attached {
    /// What the engine calls it.
    pub id: String,
    /// What it reads.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes; ends with it.
    pub output: BoxStream<'static, Result<Piece, EngineError>>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Attached").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It runs as this process.
    Runs(i32),
    /// It has ended with this exit code.
    Ended(i64),
}
