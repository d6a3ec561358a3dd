//! The File API tree: the directory through which an Interface sees the Artifact and hands out its own notes.
//!
//! It is made beside its place and moved there when all of it is on disk, and moved away before it is taken apart. So
//! after a crash at any instant it is either complete or not there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::fifo::Fifo;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::core::error::{Error, Kind};
use crate::core::name::file_escape;
use crate::update::artifact::Header;
use crate::update::component::ComponentKey;

/// Version of the Interface protocol, as it stands in the entry `version`.
pub const PROTOCOL_VERSION: u32 = 1;

/// A tree that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It is not there, or it is the remains of one.
    #[error("The working directory \"{}\" of the deployment does not exist.", .0.display())]
    Missing(PathBuf),
    /// The file system refuses.
    #[error("Cannot {action} \"{}\": {reason}.", path.display())]
    Refused {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
}

impl From<TreeError> for Error {
    fn from(error: TreeError) -> Self {
        Self::new(Kind::Storage, error.to_string())
    }
}

/// What the Component is and has now, as its Provides said when the deployment began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeContext {
    /// Value of `artifact_name`.
    pub artifact_name: Option<String>,
    /// Value of `artifact_group`.
    pub artifact_group: Option<String>,
    /// Type of the Component; stands in `current_device_type`.
    pub component_type: String,
}

/// A tree on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Where the tree of a Component lies: `<datastore>/work/<type>/<id>/tree`, both names escaped.
    pub fn path(datastore: &Path, key: &ComponentKey) -> PathBuf {
        Self::all(datastore).join(file_escape(&key.component_type)).join(file_escape(&key.id)).join("tree")
    }

    /// What holds the trees of all Components: `<datastore>/work`.
    pub fn all(datastore: &Path) -> PathBuf {
        datastore.join("work")
    }

    /// Where the directory for queries outside a deployment lies: `<datastore>/queries/<name>`, escaped. The id of a
    /// Component is not known before its `Identity` has answered, so `name` is up to the caller.
    pub fn queries_path(datastore: &Path, name: &str) -> PathBuf {
        datastore.join("queries").join(file_escape(name))
    }

    /// Makes the tree afresh, for one deployment; whatever is there already goes. On disk when this returns.
    pub fn create(root: &Path, context: &TreeContext, header: &Header) -> Result<Self, TreeError> {
        let fresh = root.with_added_extension("new");
        if let Some(parent) = root.parent() {
            make_path(parent)?;
        }
        remove_all(&fresh)?;
        make_directory(&fresh)?;
        let mut files = Vec::new();
        let line = |value: Option<&str>| value.map(|value| format!("{value}\n")).unwrap_or_default();
        files.push(write(&fresh.join("version"), format!("{PROTOCOL_VERSION}\n").as_bytes())?);
        files.push(write(&fresh.join("current_artifact_name"), line(context.artifact_name.as_deref()).as_bytes())?);
        files.push(write(&fresh.join("current_artifact_group"), line(context.artifact_group.as_deref()).as_bytes())?);
        files.push(write(&fresh.join("current_device_type"), line(Some(&context.component_type)).as_bytes())?);
        make_directory(&fresh.join("tmp"))?;

        let header_directory = fresh.join("header");
        make_directory(&header_directory)?;
        files.push(write(&header_directory.join("artifact_name"), header.artifact_name.as_bytes())?);
        files.push(write(
            &header_directory.join("artifact_group"),
            header.artifact_group.as_deref().unwrap_or("").as_bytes(),
        )?);
        files.push(write(&header_directory.join("payload_type"), header.payload_type.as_bytes())?);
        files.push(write(&header_directory.join("header-info"), &header.raw_header_info)?);
        files.push(write(&header_directory.join("type-info"), &header.raw_type_info)?);
        files.push(write(&header_directory.join("meta-data"), &header.raw_meta_data)?);

        for file in &files {
            file.sync_all().map_err(refused("write", &fresh))?;
        }
        for directory in [&header_directory, &fresh.join("tmp"), &fresh] {
            sync(directory)?;
        }
        let tree = Self { root: root.to_owned() };
        tree.remove()?;
        rename(&fresh, root)?;
        Ok(tree)
    }

    /// The tree that an earlier call of [`Tree::create`] made here.
    pub fn open(root: &Path) -> Result<Self, TreeError> {
        if root.join("header").is_dir() && root.join("tmp").is_dir() {
            Ok(Self { root: root.to_owned() })
        } else {
            Err(TreeError::Missing(root.to_owned()))
        }
    }

    /// The tree at this place, whatever is there.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A directory for queries outside a deployment: it holds `tmp/` and lasts.
    pub fn queries_only(root: &Path) -> Result<Self, TreeError> {
        let tmp = root.join("tmp");
        DirBuilder::new().recursive(true).mode(0o700).create(&tmp).map_err(refused("create", &tmp))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes the tree with everything inside; fine if it is not there.
    pub fn remove(&self) -> Result<(), TreeError> {
        let old = self.root.with_added_extension("old");
        remove_all(&old)?;
        match std::fs::rename(&self.root, &old) {
            Ok(()) => {
                sync_parent(&self.root)?;
                remove_all(&old)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(refused("remove", &self.root)(error)),
        }
    }

    /// Removes the tree and the directories of its Component that become empty by that.
    pub fn clear(&self) -> Result<(), TreeError> {
        self.remove()?;
        // Id, type, and all of them; one that is still in use is not empty.
        for directory in self.root.ancestors().skip(1).take(3) {
            if std::fs::remove_dir(directory).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Where files go that the Interface did not take from the streams.
    pub(super) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// Where they are collected until all of them are complete and verified.
    pub(super) fn partial_files(&self) -> PathBuf {
        self.root.join("files.partial")
    }

    /// Makes an empty `streams/` and `stream-next`, which is returned.
    pub(super) fn open_streams(&self) -> Result<Fifo, TreeError> {
        self.close_streams()?;
        make_directory(&self.root.join("streams"))?;
        Fifo::create(&self.root.join("stream-next"))
    }

    /// Removes `stream-next` and `streams/`.
    pub(super) fn close_streams(&self) -> Result<(), TreeError> {
        remove_all(&self.root.join("stream-next"))?;
        remove_all(&self.root.join("streams"))
    }

    /// Makes an empty directory for files that are not complete.
    pub(super) fn open_partial_files(&self) -> Result<(), TreeError> {
        self.discard_partial_files()?;
        make_directory(&self.partial_files())
    }

    /// Gives complete files their place. On disk when this returns.
    pub(super) fn keep_partial_files(&self) -> Result<(), TreeError> {
        sync(&self.partial_files())?;
        remove_all(&self.files())?;
        rename(&self.partial_files(), &self.files())
    }

    /// Removes files that are not complete.
    pub(super) fn discard_partial_files(&self) -> Result<(), TreeError> {
        remove_all(&self.partial_files())
    }
}

/// An empty new file that only we may use.
pub(super) fn new_file(path: &Path) -> Result<File, TreeError> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(refused("create", path))
}

/// Turns an error of the file system into one that names the path.
pub(super) fn refused(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TreeError {
    let path = path.to_owned();
    move |reason| TreeError::Refused { action, path, reason }
}

/// Writes a new file; to be synced later, together with others.
fn write(path: &Path, content: &[u8]) -> Result<File, TreeError> {
    let mut file = new_file(path)?;
    file.write_all(content).map_err(refused("write", path))?;
    begin_to_write_back(&file, 0);
    Ok(file)
}

/// Has the system begin to write what stands from here on in the file to the medium, so that a sync later finds less to do.
pub(super) fn begin_to_write_back(file: &File, from: i64) {
    // The advice not to keep it has Linux write it back first, and what is not written back yet it keeps. Elsewhere it means
    // nothing, which does no harm either.
    let _ = posix_fadvise(file, from, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

fn make_directory(path: &Path) -> Result<(), TreeError> {
    DirBuilder::new().mode(0o700).create(path).map_err(refused("create", path))
}

/// Makes a directory and those above it that are missing, each on disk before the next.
fn make_path(path: &Path) -> Result<(), TreeError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_path(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        // Another Component of the same type may have been quicker.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(refused("create", path)(error)),
        Ok(()) => sync_parent(path),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), TreeError> {
    std::fs::rename(from, to).map_err(refused("create", to))?;
    sync_parent(to)
}

fn sync(directory: &Path) -> Result<(), TreeError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(refused("write", directory))
}

fn sync_parent(path: &Path) -> Result<(), TreeError> {
    path.parent().map_or(Ok(()), sync)
}

/// Removes a file or a directory with everything inside; follows no symbolic link.
fn remove_all(path: &Path) -> Result<(), TreeError> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(refused("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
