//! What can be wrong with an Artifact, with the keys that verify it, and with writing one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::hex;
use crate::core::error::{Error, Kind};

/// Why an Artifact was refused, or could not be read or written.
///
/// `place` names the member, quoted: `"header-info" in "header.tar.gz"`.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The input failed while it was read; the Artifact itself may be sound.
    #[error("Cannot read the Artifact: {0}.")]
    Input(#[source] io::Error),
    /// The place the input comes from says itself what is wrong.
    #[error("{0}")]
    Source(Error),
    /// The file cannot be opened.
    #[error("Cannot open the Artifact \"{}\": {source}.", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The error of an Artifact whose file is known.
    #[error("In \"{}\": {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: Box<ArtifactError>,
    },
    /// The error of an Artifact that is read for several Components at once.
    #[error(transparent)]
    Shared(Arc<ArtifactError>),
    /// An earlier error left the reader in the middle of the Artifact.
    #[error("The Artifact cannot be read any further, because an earlier read failed.")]
    Unusable,
    /// The input does not begin like a tar file.
    #[error("The input is not an Artifact: it does not begin with a tar member.")]
    NotTar,
    /// The input ends too early.
    #[error("The Artifact is truncated: it ends inside {place}.")]
    Truncated {
        /// The member or the part of the tar file where it ends.
        place: String,
    },
    /// Not version 3; versions 1 and 2 are not read.
    #[error("The Artifact has format version {version}; only version 3 is supported.")]
    UnsupportedVersion {
        /// What `version` says.
        version: String,
    },
    /// A member breaks a rule of the format.
    #[error("The Artifact is malformed: {place} {rule}.")]
    Malformed {
        /// The member.
        place: String,
        /// The rule, as the end of a sentence that begins with the place.
        rule: String,
    },
    /// A member at a place where another one has to be.
    #[error("The Artifact is malformed: {place} found where {expected} is expected.")]
    Unexpected {
        /// The member.
        place: String,
        /// What the order of members asks for.
        expected: &'static str,
    },
    /// Augmented Artifacts are not supported, by today's Mender client neither.
    #[error("The Artifact has the member {place}; augmented Artifacts are not supported.")]
    Augmented {
        /// The member.
        place: String,
    },
    /// A member that has to be there is not.
    #[error("The Artifact is incomplete: it has no {place}.")]
    Missing {
        /// The member.
        place: String,
    },
    /// A member is larger than its bound.
    #[error("The Artifact is refused: {place} is larger than the limit of {limit} bytes.")]
    TooLarge {
        /// The member.
        place: String,
        /// The bound in bytes.
        limit: u64,
    },
    /// There is more of something than its bound.
    #[error("The Artifact is refused: {place} holds more than {limit} {things}.")]
    TooMany {
        /// The member.
        place: String,
        /// The bound.
        limit: usize,
        /// Of what.
        things: &'static str,
    },
    /// Damaged compressed bytes, or more memory needed to decompress them than allowed.
    #[error("The Artifact is damaged: {place} cannot be decompressed: {reason}.")]
    Decompress {
        /// The compressed member.
        place: String,
        /// Why.
        reason: String,
    },
    /// A checksum does not match the one in the manifest.
    #[error("The Artifact is damaged: {place} has SHA-256 {}, but the manifest says {}.", hex(.actual), hex(.expected))]
    Checksum {
        /// The member.
        place: String,
        /// As the manifest says.
        expected: [u8; 32],
        /// As read.
        actual: [u8; 32],
    },
    /// Keys are configured and the Artifact has no signature.
    #[error(
        "The Artifact has no \"manifest.sig\", but verification keys are configured: only signed Artifacts are accepted."
    )]
    NotSigned,
    /// Keys are configured and the signature belongs to none of them.
    #[error("The signature in \"manifest.sig\" is not accepted: {reason}.")]
    Signature {
        /// What each key said.
        reason: String,
    },
    /// An Artifact without a payload type has no Interface to run.
    #[error(
        "The Artifact \"{name}\" has an empty payload (its type in \"header-info\" is null); it only sets provides of a Mender client and cannot be installed on a Component."
    )]
    EmptyPayload {
        /// The Artifact's name.
        name: String,
    },
    /// A key file cannot be used.
    #[error("Cannot use the key \"{}\": {reason}.", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Keys are configured, and not one of them can be used.
    #[error("None of the verification keys can be used: {reason}.")]
    NoUsableKey {
        /// What is wrong with each of them.
        reason: String,
    },
    /// The description of the Artifact to write breaks a rule of the format.
    #[error("Cannot write the Artifact: {0}.")]
    Description(String),
    /// A file cannot be read or written while an Artifact is made.
    #[error("Cannot {action} \"{}\" to make the Artifact: {source}.", path.display())]
    Write {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ArtifactError {
    /// Takes the error back out of what [`super::PayloadFile`] returned as [`io::Error`]. Any other error becomes
    /// [`ArtifactError::Input`].
    pub fn from_io(error: io::Error) -> Self {
        match error.downcast::<Self>().map_err(io::Error::downcast::<Error>) {
            Ok(inner) => inner,
            Err(Ok(source)) => Self::Source(source),
            Err(Err(other)) => Self::Input(other),
        }
    }

    /// The error as [`io::Error`]; [`ArtifactError::from_io`] gives it back.
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Input(source) => source.kind(),
            Self::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }

    /// Names the file the Artifact is in.
    #[must_use]
    pub fn in_file(self, path: impl Into<PathBuf>) -> Self {
        // It names it.
        match &self {
            Self::Source(_) => return self,
            Self::Shared(shared) if matches!(**shared, Self::Source(_)) => return self,
            _ => {}
        }
        Self::InFile { path: path.into(), error: Box::new(self) }
    }

    pub(super) fn malformed(place: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Malformed { place: place.into(), rule: rule.into() }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::InFile { error, .. } => error.kind(),
            Self::Source(error) => error.kind,
            Self::Shared(error) => error.kind(),
            Self::Input(_) | Self::Open { .. } | Self::Unusable | Self::Write { .. } => Kind::Failed,
            Self::UnsupportedVersion { .. } => Kind::NotSupported,
            Self::Key { .. } | Self::NoUsableKey { .. } => Kind::InvalidConfiguration,
            Self::Description(_) => Kind::InvalidArgs,
            _ => Kind::InvalidArtifact,
        }
    }
}

impl From<ArtifactError> for Error {
    fn from(error: ArtifactError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
