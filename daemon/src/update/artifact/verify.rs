//! Artifacts in files: the header alone, or all of it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::compression::Compression;
use super::error::ArtifactError;
use super::format::Sha256;
use super::header::Header;
use super::reader::open;
use super::signature::VerifyKeys;

/// What a sound Artifact holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its header.
    pub header: Header,
    /// Its payload files in their order.
    pub files: Vec<FileSummary>,
    /// How the payload is compressed.
    pub data_compression: Compression,
    /// Size of the whole Artifact in bytes.
    pub size: u64,
}

/// One payload file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum.
    pub sha256: Sha256,
}

/// Reads only the header of an Artifact, for choosing between several: the header and the size of the file in bytes.
///
/// The payload may still turn out to be damaged or missing.
pub fn read_header(path: &Path, keys: &VerifyKeys) -> Result<(Header, u64), ArtifactError> {
    let (file, size) = open_file(path)?;
    let artifact = open(file, keys).map_err(|error| error.in_file(path))?;
    Ok((artifact.into_header(), size))
}

/// Reads a whole Artifact and checks everything that can be checked.
pub fn verify(path: &Path, keys: &VerifyKeys) -> Result<Summary, ArtifactError> {
    let (file, size) = open_file(path)?;
    let read = || -> Result<Summary, ArtifactError> {
        let mut artifact = open(file, keys)?;
        let mut files = Vec::new();
        // Going on to the next file reads and checks the one before.
        while let Some(file) = artifact.next_file()? {
            files.push((file.name().to_owned(), file.size()));
        }
        let header = artifact.header().clone();
        let data_compression = artifact.data_compression().unwrap_or(Compression::None);
        artifact.finish()?;
        let files = files.into_iter().filter_map(|(name, size)| {
            let sha256 = *header.checksums.file(&name)?;
            Some(FileSummary { name, size, sha256 })
        });
        Ok(Summary { files: files.collect(), header, data_compression, size })
    };
    read().map_err(|error| error.in_file(path))
}

fn open_file(path: &Path) -> Result<(File, u64), ArtifactError> {
    let open = || {
        // Opening a FIFO would wait for a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    open().map_err(|source| ArtifactError::Open { path: path.to_owned(), source })
}
