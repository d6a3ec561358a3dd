//! Artifacts in local files, named by path or lying in a directory under their name.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Offer, Source, Wanted, quoted};
use crate::core::error::{Error, Kind};
use crate::update::artifact::{self, VerifyKeys};
use crate::update::interface::ArtifactInput;

/// What the Artifact in a local file has to offer.
pub(super) fn look_into(path: &Path, keys: &VerifyKeys) -> Result<Offer, Error> {
    let (header, size) = artifact::read_header(path, keys)?;
    Ok(Offer::of_header(path.into(), &header, size))
}

/// Opens a local file.
pub(super) fn open(path: &Path) -> Result<LocalArtifact, Error> {
    let opened = || -> io::Result<LocalArtifact> {
        // Opening a FIFO would wait for a writer.
        if !path.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(LocalArtifact { file, size })
    };
    opened().map_err(|error| {
        let text = format!("Cannot open the Artifact \"{}\": {error}.", path.display());
        Error::new(Kind::NoSuitableArtifact, text)
    })
}

/// An Artifact in a local file.
#[derive(Debug)]
pub(super) struct LocalArtifact {
    file: File,
    size: u64,
}

impl Read for LocalArtifact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl ArtifactInput for LocalArtifact {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }
}

/// A directory of Artifacts, such as a USB stick: `<directory>/<name>.mender`.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Source for Directory {
    fn find(&self, wanted: &Wanted<'_>) -> Result<Vec<Offer>, Error> {
        // A name with a slash could lead out of the directory.
        if wanted.name.contains('/') {
            tracing::debug!(name = wanted.name, "no file name, so not looked for in the directory");
            return Ok(Vec::new());
        }
        let path = self.0.join(format!("{}.mender", wanted.name));
        match path.try_exists() {
            Ok(true) => look_into(&path, wanted.keys).map(|offer| vec![offer]),
            Ok(false) => Ok(Vec::new()),
            Err(error) => {
                let text = format!("Cannot look for the Artifact \"{}\": {error}.", path.display());
                Err(Error::new(Kind::DownloadFailed, text))
            }
        }
    }

    fn name(&self) -> String {
        format!("the directory {}", quoted(&self.0.display().to_string()))
    }
}
