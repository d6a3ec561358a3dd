//! The programs of one vPLC in versions, and the deployment that is open.
//!
//! ```text
//! programs.json, programs.json.previous   what there is (see [`crate::core::store::Generations`])
//! NUMBER.zip                              the archive of a version
//! incoming-N.zip                          an archive that is just coming in
//! ```
//!
//! An archive is on the medium before the document names it, and is removed after the document has forgotten it. Its hash is
//! compared each time before it is used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::archive::{self, ARCHIVE_LIMIT, ArchiveError};
use super::machine::Deployment;
use crate::core::error::{Error, Kind};
use crate::core::store::{self, Generations, StoreError};

/// Versions that are kept, unless told otherwise.
pub const KEEP: usize = 5;
const DOCUMENT_LIMIT: u64 = 1 << 20;
/// Bytes of the name of whoever deploys.
const WHO_LIMIT: usize = 200;

/// A version of the program of a vPLC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Counts up from 1 and is never given twice.
    pub number: u32,
    /// SHA-256 of the archive, in hexadecimal digits.
    pub sha256: String,
    /// Bytes of the archive.
    pub size: u64,
    /// When it came, in seconds since 1970.
    pub added: u64,
    /// Who brought it.
    pub by: String,
    /// When it last proved to run, in seconds since 1970; `None` if it never did.
    pub proven: Option<u64>,
}

/// What the document holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Document {
    last: u32,
    versions: Vec<Version>,
    active: Option<u32>,
    deployment: Option<Deployment>,
}

/// The programs of one vPLC. Only one of these may be open for a directory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    file: Generations,
    document: Document,
    keep: usize,
    incoming: u32,
}

impl Store {
    /// Opens the store, or makes it; `keep` versions are kept at least, not counting those that are needed.
    pub fn open(directory: PathBuf, keep: usize) -> Result<Self, StoreError> {
        store::make_directory(&directory)?;
        let file = Generations::new(directory.join("programs.json"), DOCUMENT_LIMIT);
        let document: Document = file.load()?.map(|loaded| loaded.document).unwrap_or_default();
        let mut store = Self { directory, file, document, keep: keep.max(2), incoming: 0 };
        store.reconcile()?;
        Ok(store)
    }

    /// After a crash, or a fall back to an older document, files and document may differ.
    fn reconcile(&mut self) -> Result<(), StoreError> {
        let entries = fs::read_dir(&self.directory).map_err(StoreError::of("list", &self.directory))?;
        for entry in entries {
            let path = entry.map_err(StoreError::of("list", &self.directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(stem) = name.strip_suffix(".zip") else { continue };
            match stem.parse::<u32>() {
                Ok(number) if self.version(number).is_some() => {}
                // A version that an older document does not know: its number must not be given to another archive.
                Ok(number) if number > self.document.last => {
                    self.document.last = number;
                    store::remove_file(&path)?;
                }
                _ => store::remove_file(&path)?,
            }
        }
        Ok(())
    }

    fn path(&self, number: u32) -> PathBuf {
        self.directory.join(format!("{number}.zip"))
    }

    /// All versions, the oldest first.
    pub fn versions(&self) -> &[Version] {
        &self.document.versions
    }

    /// One version.
    pub fn version(&self, number: u32) -> Option<&Version> {
        self.document.versions.iter().find(|version| version.number == number)
    }

    /// The version that is on the runtime, as far as deployments have come to an end.
    pub fn active(&self) -> Option<&Version> {
        self.document.active.and_then(|number| self.version(number))
    }

    /// The deployment that is open.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.document.deployment.as_ref()
    }

    /// Where the next archive may come in, for [`take`]. No two of these are the same.
    pub fn incoming(&mut self) -> PathBuf {
        self.incoming += 1;
        self.directory.join(format!("incoming-{}.zip", self.incoming))
    }

    /// Keeps an archive that has come in as a new version.
    pub fn adopt(&mut self, taken: Taken, by: &str) -> Result<Version, StoreError> {
        let Taken { path: incoming, sha256, size } = taken;
        let number = self.document.last + 1;
        let path = self.path(number);
        fs::rename(&incoming, &path).map_err(StoreError::of("rename", &incoming))?;
        store::sync_directory(&self.directory)?;
        let version =
            Version { number, sha256, size, added: now(), by: by.chars().take(WHO_LIMIT).collect(), proven: None };
        self.change(|document| {
            document.last = number;
            document.versions.push(version.clone());
        })?;
        Ok(version)
    }

    /// Opens the archive of a version, after a look at whether it is still what it was.
    pub fn archive(&self, number: u32) -> Result<(File, Version), Error> {
        let Some(version) = self.version(number) else {
            return Err(Error::new(Kind::InvalidArgs, format!("There is no version \"{number}\" of the program.")));
        };
        let path = self.path(number);
        let damaged = |reason: &str| {
            let text = format!("Version \"{number}\" of the program cannot be used: \"{}\" {reason}.", path.display());
            Error::new(Kind::Storage, text)
        };
        let mut file = File::open(&path).map_err(|error| damaged(&format!("cannot be opened: {error}")))?;
        let hashed = sha256(&mut file).map_err(|error| damaged(&format!("cannot be read: {error}")))?;
        if hashed != (version.sha256.clone(), version.size) {
            return Err(damaged("is not what it was when it was kept"));
        }
        file.rewind().map_err(|error| damaged(&format!("cannot be read: {error}")))?;
        Ok((file, version.clone()))
    }

    /// The newest version that has proved to run and is undamaged, of those below this one if there is one.
    pub fn before(&self, number: Option<u32>) -> Option<u32> {
        let older =
            self.document.versions.iter().rev().filter(|version| number.is_none_or(|than| version.number < than));
        let mut proven = older.filter(|version| version.proven.is_some()).map(|version| version.number);
        proven.find(|number| self.is_sound(*number))
    }

    /// What a deployment of this version goes back to: the active version, or if there is none or it is damaged the last one that
    /// proved to run.
    pub fn fallback(&self, new: u32) -> Option<u32> {
        let active = self.active().map(|version| version.number);
        let found = active.filter(|active| self.is_sound(*active)).or_else(|| self.before(active));
        found.filter(|found| *found != new)
    }

    fn is_sound(&self, number: u32) -> bool {
        self.archive(number).inspect_err(|error| tracing::error!("{error}")).is_ok()
    }

    /// Puts the state of the open deployment on the medium.
    pub fn record(&mut self, deployment: &Deployment) -> Result<(), StoreError> {
        self.change(|document| document.deployment = Some(deployment.clone()))
    }

    /// Ends the open deployment: this version is on the runtime now, proven or not; `None` if none is.
    pub fn conclude(&mut self, active: Option<u32>, proven: bool) -> Result<(), StoreError> {
        self.change(|document| {
            document.deployment = None;
            document.active = active;
            for version in document.versions.iter_mut().filter(|version| proven && Some(version.number) == active) {
                version.proven = Some(now());
            }
        })?;
        self.prune()
    }

    /// Forgets a version that was never put on the runtime.
    pub fn forget(&mut self, number: u32) -> Result<(), StoreError> {
        self.change(|document| document.versions.retain(|version| version.number != number))?;
        store::remove_file(&self.path(number))
    }

    fn prune(&mut self) -> Result<(), StoreError> {
        let active = self.document.active;
        let needed = [active, active.and_then(|number| self.before(Some(number)))];
        let old = self.document.versions.len().saturating_sub(self.keep);
        let mut gone: Vec<u32> = self.document.versions.iter().map(|version| version.number).collect();
        gone.retain(|number| !needed.contains(&Some(*number)));
        gone.truncate(old);
        if gone.is_empty() {
            return Ok(());
        }
        self.change(|document| document.versions.retain(|version| !gone.contains(&version.number)))?;
        gone.into_iter().try_for_each(|number| store::remove_file(&self.path(number)))
    }

    /// What is on the medium and what is in memory change together or not at all.
    fn change(&mut self, change: impl FnOnce(&mut Document)) -> Result<(), StoreError> {
        let mut document = self.document.clone();
        change(&mut document);
        self.file.save(&document)?;
        self.document = document;
        Ok(())
    }
}

/// An archive that has come in, is sound, and is on the medium.
#[derive(Debug)]
pub struct Taken {
    path: PathBuf,
    sha256: String,
    size: u64,
}

/// Takes an archive into this file, and checks it. It is read to its end, but no further than the limit allows. What is refused
/// leaves nothing behind.
pub fn take(source: &mut dyn Read, path: &Path) -> Result<Taken, Error> {
    // The error of the archive is what matters; what stays is removed at the next start.
    written(source, path).inspect_err(|_| drop(fs::remove_file(path)))
}

fn written(source: &mut dyn Read, path: &Path) -> Result<Taken, Error> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = options.map_err(StoreError::of("write", path))?;
    let mut hash = Context::new(&SHA256);
    let mut failed = None;
    let copied = copy(&mut source.take(ARCHIVE_LIMIT + 1), |bytes| {
        hash.update(bytes);
        file.write_all(bytes).map_err(|error| {
            let kind = error.kind();
            failed = Some(error);
            kind.into()
        })
    });
    if let Some(error) = failed {
        return Err(StoreError::of("write", path)(error).into());
    }
    let size = copied.map_err(ArchiveError::Read)?;
    if size > ARCHIVE_LIMIT {
        return Err(ArchiveError::TooLarge.into());
    }
    archive::check(io::BufReader::new(&file))?;
    file.sync_all().map_err(StoreError::of("write", path))?;
    Ok(Taken { path: path.to_owned(), sha256: hex(hash.finish().as_ref()), size })
}

/// SHA-256 of what is left to read, in hexadecimal digits, and how many bytes that is.
pub fn sha256(source: &mut impl Read) -> io::Result<(String, u64)> {
    let mut hash = Context::new(&SHA256);
    let size = copy(source, |bytes| {
        hash.update(bytes);
        Ok(())
    })?;
    Ok((hex(hash.finish().as_ref()), size))
}

fn copy(source: &mut impl Read, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let (mut buffer, mut size) = (vec![0; 64 * 1024], 0);
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(read) => {
                sink(&buffer[..read])?;
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
