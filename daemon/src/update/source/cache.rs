//! Artifacts that were downloaded, kept for Components that want them later in the deployment or in the next one.
//!
//! ```text
//! <directory>/<key>.<SHA-256>.mender     a whole one: the name says what its bytes must be
//! <directory>/<key>.partial              one that is being written
//! ```
//!
//! The key stands for the place and the content that were selected: the id on the server, or the address, together with the
//! digest of the header, which covers every payload file. A file gets its name when it is whole. Its bytes are compared with
//! the name before it is used, so nothing is lost if a power cut takes some of them; it is downloaded anew. Whatever else is in
//! the directory is not touched.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::sys::statvfs::statvfs;
use ring::digest::{Context, SHA256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::local::{self, LocalArtifact};
use super::location::Location;
use crate::core::error::{Error, Kind};
use crate::core::settings::ArtifactsCache;
use crate::update::artifact::format::hex;
use crate::update::interface::ArtifactInput;

const WHOLE: &str = "mender";
const PARTIAL: &str = "partial";
const BUFFER: usize = 128 * 1024;

/// The key of an Artifact in the cache.
pub(super) fn key(location: &Location, digest: &str, size: u64) -> Option<String> {
    let place = match location {
        Location::File(_) => return None,
        Location::Url { url } => ("url", url),
        Location::Release { id, .. } => ("release", id),
    };
    let mut context = Context::new(&SHA256);
    for part in [place.0, place.1, digest, &size.to_string()] {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let mut key = hex(context.finish().as_ref());
    key.truncate(32);
    Some(key)
}

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    settings: ArtifactsCache,
    /// What is being written, by key.
    writing: Mutex<HashMap<String, Writing>>,
}

#[derive(Debug)]
struct Writing {
    size: u64,
    /// Closed at the end of the writing. Its receivers are those who wait.
    end: watch::Sender<()>,
}

/// What there is for a key.
pub(super) enum Found {
    /// All of it, checked.
    Whole(LocalArtifact),
    /// Somebody is writing it; this ends with the writing.
    Awaited(watch::Receiver<()>),
    /// Nothing: whoever asked is the one to write it.
    Nothing(Ticket),
}

/// The right to write an Artifact; others who want it wait as long as it lives.
#[derive(Debug)]
pub(super) struct Ticket {
    cache: Arc<Cache>,
    key: String,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cache.lock().remove(&self.key);
    }
}

/// A whole Artifact in the directory.
struct Entry {
    path: PathBuf,
    key: String,
    size: u64,
    written: SystemTime,
}

impl Cache {
    pub(super) fn new(settings: ArtifactsCache) -> Arc<Self> {
        Arc::new(Self { settings, writing: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Writing>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure at the begin of a deployment that the directory is there, and removes what was left half written. No
    /// download may be going on.
    pub(super) fn begin(&self) -> Result<(), Error> {
        let path = &self.settings.path;
        let unusable = |reason: String| {
            let text =
                format!("The directory \"{}\" of \"ArtifactsCache.Path\" cannot be used: {reason}.", path.display());
            Error::new(Kind::InvalidConfiguration, text)
        };
        if !path.is_dir() {
            return Err(unusable("it does not exist, and is never created".to_owned()));
        }
        self.remove_partial().map_err(|error| unusable(error.to_string()))
    }

    /// Removes what an earlier daemon left half written.
    pub(super) fn remove_partial(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.settings.path)? {
            let path = entry?.path();
            if parts(&path).is_some_and(|(_, sum)| sum.is_none()) {
                tracing::info!("Removing \"{}\", which was not downloaded to its end.", path.display());
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Removes what is not among these keys.
    pub(super) fn keep(&self, keys: &[String]) {
        let unused = self.entries().into_iter().filter(|entry| !keys.contains(&entry.key));
        for entry in unused {
            tracing::info!("Removing \"{}\" from the cache: the deployment did not use it.", entry.path.display());
            remove(&entry.path);
        }
    }

    /// Removes what is there for a key.
    pub(super) fn forget(&self, key: &str) {
        for entry in self.entries().into_iter().filter(|entry| entry.key == key) {
            remove(&entry.path);
        }
    }

    /// Looks for an Artifact. Reads all of it if it is there.
    pub(super) fn look_for(self: &Arc<Self>, key: &str, size: u64) -> Found {
        {
            let mut writing = self.lock();
            if let Some(writing) = writing.get(key) {
                return Found::Awaited(writing.end.subscribe());
            }
            if !self.entries().iter().any(|entry| entry.key == key) {
                writing.insert(key.to_owned(), Writing { size, end: watch::Sender::new(()) });
                return Found::Nothing(Ticket { cache: self.clone(), key: key.to_owned() });
            }
        }
        for entry in self.entries().into_iter().filter(|entry| entry.key == key) {
            match Self::check(&entry) {
                Ok(artifact) => return Found::Whole(artifact),
                Err(reason) => {
                    tracing::warn!("\"{}\" in the cache is not used: {reason}.", entry.path.display());
                    remove(&entry.path);
                }
            }
        }
        // What was there is gone.
        self.look_for_again(key, size)
    }

    fn look_for_again(self: &Arc<Self>, key: &str, size: u64) -> Found {
        let mut writing = self.lock();
        if let Some(writing) = writing.get(key) {
            return Found::Awaited(writing.end.subscribe());
        }
        writing.insert(key.to_owned(), Writing { size, end: watch::Sender::new(()) });
        Found::Nothing(Ticket { cache: self.clone(), key: key.to_owned() })
    }

    /// Compares the bytes of an entry with its name.
    fn check(entry: &Entry) -> Result<LocalArtifact, String> {
        let expected = parts(&entry.path).and_then(|(_, sum)| sum).unwrap_or_default();
        let sum = || -> io::Result<String> {
            let (mut file, mut context, mut buffer) =
                (File::open(&entry.path)?, Context::new(&SHA256), vec![0; BUFFER]);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(hex(context.finish().as_ref())),
                    count => context.update(&buffer[..count]),
                }
            }
        };
        match sum() {
            Ok(sum) if sum == expected => local::open(&entry.path).map_err(|error| error.message),
            Ok(sum) => Err(format!("its SHA-256 is {sum}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The input, which from now on is written into the cache while it is read. If it cannot be, it passes unwritten, or is
    /// refused if the settings are strict.
    pub(super) fn write(
        self: &Arc<Self>,
        ticket: Ticket,
        input: Box<dyn ArtifactInput>,
        size: u64,
    ) -> Result<Box<dyn ArtifactInput>, Error> {
        let begun = self.make_room(size).and_then(|()| {
            let path = self.settings.path.join(format!("{}.{PARTIAL}", ticket.key));
            let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
            opened.map(|file| (path, file)).map_err(|error| error.to_string())
        });
        match begun {
            Ok((path, file)) => {
                let writer = Writer { ticket, path, file, hash: Context::new(&SHA256), written: 0, whole: false };
                Ok(Box::new(Cached { input, size, writer: Some(writer) }))
            }
            Err(reason) if self.settings.strict => Err(self.failed(&reason)),
            Err(reason) => {
                tracing::warn!("The Artifact is not put into the cache: {reason}.");
                Ok(input)
            }
        }
    }

    fn failed(&self, reason: &str) -> Error {
        let text = format!("The Artifact cannot be put into the cache \"{}\": {reason}.", self.settings.path.display());
        Error::new(Kind::Storage, text)
    }

    /// Makes room for an Artifact by removing the oldest ones.
    fn make_room(&self, size: u64) -> Result<(), String> {
        let most = match self.settings.max_size {
            0 => u64::MAX,
            most => most,
        };
        // Those that are being written count as if they were whole. This one is among them.
        let claimed: u64 = self.lock().values().map(|writing| writing.size).sum();
        let mut entries = self.entries();
        entries.sort_by_key(|entry| entry.written);
        let mut kept: u64 = entries.iter().map(|entry| entry.size).sum();
        let mut free = free(&self.settings.path).map_err(|error| error.to_string())?;
        if claimed > most {
            return Err(format!("it has {size} bytes, and \"ArtifactsCache.MaxSizeBytes\" is {most}"));
        }
        if free.saturating_add(kept) < size {
            return Err(format!("it has {size} bytes, and \"{}\" has {free} left", self.settings.path.display()));
        }
        let mut oldest = entries.into_iter();
        while kept.saturating_add(claimed) > most || free < size {
            let Some(entry) = oldest.next() else {
                return Err(format!("\"{}\" has no room for {size} bytes", self.settings.path.display()));
            };
            tracing::info!("Removing \"{}\" from the cache to make room.", entry.path.display());
            remove(&entry.path);
            kept -= entry.size;
            free = free.saturating_add(entry.size);
        }
        Ok(())
    }

    /// What is whole. A directory that cannot be read has nothing.
    fn entries(&self) -> Vec<Entry> {
        let found = fs::read_dir(&self.settings.path).into_iter().flatten().flatten().filter_map(|entry| {
            let path = entry.path();
            let (key, sum) = parts(&path)?;
            sum?;
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some(Entry { path, key, size: metadata.len(), written: metadata.modified().ok()? })
        });
        found.collect()
    }
}

/// Key and checksum in the name of a file of ours; no checksum for a partial one.
fn parts(path: &Path) -> Option<(String, Option<String>)> {
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = path.file_name()?.to_str()?;
    let words: Vec<&str> = name.split('.').collect();
    match words[..] {
        [key, PARTIAL] if is_hex(key, 32) => Some((key.to_owned(), None)),
        [key, sum, WHOLE] if is_hex(key, 32) && is_hex(sum, 64) => Some((key.to_owned(), Some(sum.to_owned()))),
        _ => None,
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("\"{}\" stays in the cache: {error}.", path.display());
        }
        _ => {}
    }
}

#[allow(clippy::useless_conversion, reason = "the figures of a file system are narrower on 32-bit machines")]
fn free(path: &Path) -> io::Result<u64> {
    let system = statvfs(path)?;
    let fragments: u64 = system.blocks_available().into();
    Ok(fragments.saturating_mul(system.fragment_size().into()))
}

/// Input that goes into the cache as well.
struct Cached {
    input: Box<dyn ArtifactInput>,
    size: u64,
    /// `None` when it has all, or has given up.
    writer: Option<Writer>,
}

struct Writer {
    ticket: Ticket,
    path: PathBuf,
    file: File,
    hash: Context,
    written: u64,
    whole: bool,
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its name.
    fn finish(mut self) -> io::Result<()> {
        let name = format!("{}.{}.{WHOLE}", self.ticket.key, hex(self.hash.clone().finish().as_ref()));
        fs::rename(&self.path, self.path.with_file_name(name))?;
        self.whole = true;
        Ok(())
    }

    fn is_awaited(&self) -> bool {
        self.ticket.cache.lock().get(&self.ticket.key).is_some_and(|writing| writing.end.receiver_count() > 0)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.whole {
            remove(&self.path);
        }
    }
}

impl Read for Cached {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let Some(mut writer) = self.writer.take() else { return Ok(count) };
        let written = match writer.write(&buffer[..count]) {
            Ok(()) if writer.written < self.size => {
                self.writer = Some(writer);
                return Ok(count);
            }
            Ok(()) => {
                let awaited = writer.is_awaited();
                let cache = writer.ticket.cache.clone();
                writer.finish().map_err(|error| (error, awaited, cache))
            }
            Err(error) => Err((error, writer.is_awaited(), writer.ticket.cache.clone())),
        };
        match written {
            Ok(()) => Ok(count),
            Err((error, awaited, cache)) if awaited || cache.settings.strict => {
                Err(io::Error::other(cache.failed(&error.to_string())))
            }
            Err((error, ..)) => {
                tracing::warn!("The Artifact is not put into the cache any further: {error}.");
                Ok(count)
            }
        }
    }
}

impl ArtifactInput for Cached {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn stop_with(&mut self, stop: &CancellationToken) {
        self.input.stop_with(stop);
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
