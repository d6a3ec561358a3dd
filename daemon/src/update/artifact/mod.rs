//! The Mender Artifact format, version 3.
//!
//! [`open`] reads an Artifact from any [`std::io::Read`] (a file, a download, a byte slice), as a stream and in bounded
//! memory; all bounds are constants of [`mod@format`]. [`verify()`] reads a whole file, [`read_header`] only its beginning.
//! [`write()`] makes one. Everything here blocks: call it from a blocking thread.
//!
//! The rules are those of Mender's document "artifact-format-v3" and of its readers; where these are silent or disagree,
//! `docs/protocol-decisions.md` says what holds here.

mod ahead;
pub mod compression;
mod der;
pub mod error;
pub mod format;
pub mod header;
mod json;
pub mod manifest;
pub mod reader;
pub mod signature;
mod tarball;
#[cfg(test)]
mod tests;
mod verify;
pub mod writer;

pub use ahead::{Piece, Pieces};
pub use compression::Compression;
pub use error::ArtifactError;
pub use header::Header;
pub use manifest::Checksums;
pub use reader::{Artifact, PayloadFile, open};
pub use signature::{SigningKey, VerifyKeys};
pub use verify::{FileSummary, Summary, read_header, verify};
pub use writer::{ArtifactSpec, write};
