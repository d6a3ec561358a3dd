//! Files that survive a crash or power cut at any instant.
//!
//! Small documents are replaced whole ([`replace`], or [`Generations`] if they would be missed); what grows is appended to a
//! [`Journal`]. All are on the medium when the call returns.

mod generations;
mod journal;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

pub use generations::{Generations, Loaded};
pub use journal::{Entries, Journal, Tail};

use super::error::{Error, Kind};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action} \"{}\": {source}.", path.display())]
pub struct StoreError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl StoreError {
    /// What the operating system said.
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    pub(crate) fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::new(Kind::Storage, error.to_string())
    }
}

/// Replaces the file at `path`: afterwards, and after a crash at any instant, it holds the old bytes or the new ones.
/// Its mode becomes 0600.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    if let Err(error) = written {
        // Best effort: what stays of it is overwritten next time, and never read.
        drop(fs::remove_file(&temporary));
        return Err(StoreError::of("write", &temporary)(error));
    }
    fs::rename(&temporary, path).map_err(StoreError::of("replace", path))?;
    sync_parent(path)
}

/// Writes a new file, mode 0600. Its bytes are on the medium on return; its name is only after [`sync_directory`].
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(StoreError::of("write", path))
}

/// Reads a file of at most `limit` bytes; `None` if there is none.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::of("open", path)(error)),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit + 1), &mut bytes).map_err(StoreError::of("read", path))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes"));
        return Err(StoreError::of("read", path)(error));
    }
    Ok(Some(bytes))
}

/// Makes a directory and its parents, mode 0700, unless it stands already.
pub fn make_directory(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::of("create directory", path))
}

/// Gives a directory its name, replacing nothing, durably.
pub fn rename_directory(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::of("rename", from))?;
    sync_parent(to)
}

/// Removes a directory with everything in it; it is fine if there is none.
pub fn remove_directory(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::of("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a file; it is fine if there is none.
pub fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::of("remove", path)(error)),
        Ok(()) => sync_parent(path),
    }
}

/// Puts a directory's entries on the medium: a new name is durable only after this.
pub fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(StoreError::of("sync", path))
}

/// Keeps other daemons out of a directory as long as it lives, and no longer than this process does.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "the lock is held by being there")] Flock<File>);

impl DirectoryLock {
    /// Takes the lock; `None` if another process holds it. The directory is made if need be.
    pub fn take(directory: &Path) -> Result<Option<Self>, StoreError> {
        make_directory(directory)?;
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::of("open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(StoreError::of("lock", &path)(error.into())),
        }
    }
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_leaves_one_file_with_the_new_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last.json");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replace_keeps_the_old_bytes_and_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last.json");
        replace(&path, b"old").unwrap();
        fs::create_dir(directory.path().join("last.json.new")).unwrap();
        let message = replace(&path, b"new").unwrap_err().to_string();
        assert!(message.contains("last.json.new\""), "{message}");
        assert_eq!(read(&path, 10).unwrap().unwrap(), b"old");
    }

    #[test]
    fn a_directory_is_locked_by_one_and_free_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path()).unwrap();
        assert!(lock.is_some());
        assert!(DirectoryLock::take(directory.path()).unwrap().is_none());
        drop(lock);
        assert!(DirectoryLock::take(directory.path()).unwrap().is_some());
    }

    #[test]
    fn reading_is_bounded_and_absence_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        assert!(read(&path, 3).unwrap().is_none());
        fs::write(&path, b"1234").unwrap();
        assert!(read(&path, 3).unwrap_err().to_string().contains("longer than 3 bytes"));
        assert_eq!(read(&path, 4).unwrap().unwrap(), b"1234");
    }
}
