//! What can go wrong with an Interface.

use std::path::PathBuf;

use super::tree::TreeError;
use crate::core::error::{Error, Kind};
use crate::update::answers::AnswerError;
use crate::update::artifact::ArtifactError;
use crate::update::runner::{Exit, RunnerError};

/// An Interface that cannot be used, or a call of one that failed.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// A name that cannot be that of an Interface.
    #[error("\"{0}\" cannot be the name of an Interface: it has to be a plain file name.")]
    Name(String),
    /// There is no such Interface.
    #[error("The Interface \"{name}\" cannot be used: \"{}\" {reason}.", path.display())]
    Unusable {
        /// Its name.
        name: String,
        /// Where its program has to be.
        path: PathBuf,
        /// What is wrong there.
        reason: String,
    },
    /// A call failed.
    #[error("{word} of Component \"{component}\" failed: {cause}")]
    Call {
        /// The state or query.
        word: String,
        /// Type and id.
        component: String,
        /// Why.
        #[source]
        cause: Box<CallError>,
    },
    /// The caller cancelled.
    #[error("{word} of Component \"{component}\" was cancelled.")]
    Cancelled {
        /// The state or query.
        word: String,
        /// Type and id.
        component: String,
    },
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The program could not be run.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// The program says so, or was ended.
    #[error("\"{}\" {exit}.", program.display())]
    Exit {
        /// The program.
        program: PathBuf,
        /// How it ended.
        exit: Exit,
    },
    /// The program took longer than it may.
    #[error("\"{}\" ran out of time after {seconds} s and was ended.", program.display())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// Time it had.
        seconds: u64,
    },
    /// The answer to a query is refused.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The File API tree cannot be used.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The Artifact is refused or cannot be read.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The Artifact is not the one that is wanted.
    #[error(transparent)]
    Unwanted(Error),
    /// The program left a stream before its end.
    #[error("\"{}\" ended without having read all of \"{stream}\".", program.display())]
    StoppedReading {
        /// The program.
        program: PathBuf,
        /// The entry of the tree.
        stream: String,
    },
    /// The program read some streams, but not up to the empty entry that ends them.
    #[error("\"{}\" ended before it had read \"stream-next\" to the empty entry that ends it.", program.display())]
    Unfinished {
        /// The program.
        program: PathBuf,
    },
    /// The program wants the size of an Artifact whose source does not tell it.
    #[error("\"{}\" wants the size of the whole Artifact, but its source does not tell the size.", program.display())]
    SizeUnknown {
        /// The program.
        program: PathBuf,
    },
    /// `Download` was asked for without an Artifact, or the thread that feeds the streams is gone.
    #[error("There is no Artifact to hand over.")]
    NoArtifact,
    /// The system refuses a resource the daemon needs.
    #[error("The streams cannot be set up: {0}.")]
    System(std::io::Error),
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let kind = match error {
            CallError::Runner(_)
            | CallError::Exit { .. }
            | CallError::TimedOut { .. }
            | CallError::Answer(_)
            | CallError::StoppedReading { .. }
            | CallError::Unfinished { .. }
            | CallError::SizeUnknown { .. } => Kind::InterfaceFailed,
            CallError::Tree(error) => return error.into(),
            CallError::Artifact(error) => return error.into(),
            CallError::Unwanted(error) => return error,
            CallError::NoArtifact | CallError::System(_) => Kind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<InterfaceError> for Error {
    fn from(error: InterfaceError) -> Self {
        let message = error.to_string();
        let kind = match error {
            InterfaceError::Name(_) | InterfaceError::Unusable { .. } => Kind::InterfaceFailed,
            InterfaceError::Call { cause, .. } => Self::from(*cause).kind,
            InterfaceError::Cancelled { .. } => Kind::Cancelled,
        };
        Self::new(kind, message)
    }
}
