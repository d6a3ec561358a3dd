//! The payload of an Artifact, as the streams of the File API directory give it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use orchestratord::core::error::Kind;

use super::Call;
use crate::failure::Failure;

/// Bytes of an entry of `stream-next`.
const ENTRY_LIMIT: u64 = 4096;

/// Stores the payload file, if there is one, and returns whether there is; of at most so many bytes. More than one is an error.
pub(super) fn store(call: &Call, limit: u64) -> Result<bool, Failure> {
    let target = call.file("payload");
    let mut stored = false;
    loop {
        let entry = next(&call.tree)?;
        if entry.is_empty() {
            break;
        }
        if stored {
            let message = format!("The Artifact for the vPLC \"{}\" has more than one payload file.", call.vplc);
            return Err(Failure::new(Kind::InvalidArtifact, message));
        }
        let written = copy(&call.tree.join(&entry), &target, limit).map_err(|error| failed("store", &entry, &error))?;
        if written > limit {
            let message = format!("The payload file \"{entry}\" is larger than {limit} bytes.");
            return Err(Failure::new(Kind::InvalidArtifact, message));
        }
        stored = true;
    }
    orchestratord::core::store::sync_directory(&call.tree.join("tmp")).map_err(super::storage)?;
    Ok(stored)
}

/// The stored payload file; none if the Artifact had none.
pub(super) fn open(call: &Call) -> Result<Option<File>, Failure> {
    match File::open(call.file("payload")) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", "payload", &error)),
    }
}

fn next(tree: &Path) -> Result<String, Failure> {
    let mut entry = String::new();
    let read = File::open(tree.join("stream-next")).and_then(|fifo| fifo.take(ENTRY_LIMIT).read_to_string(&mut entry));
    read.map_err(|error| failed("read", "stream-next", &error))?;
    Ok(entry.trim_end_matches('\n').to_owned())
}

fn copy(from: &Path, to: &Path, limit: u64) -> io::Result<u64> {
    // Left by nobody: a Download is not called again in one tree. If it were, the new one counts.
    drop(fs::remove_file(to));
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let written = io::copy(&mut File::open(from)?.take(limit.saturating_add(1)), &mut target)?;
    target.sync_all()?;
    Ok(written)
}

fn failed(what: &str, which: &str, error: &io::Error) -> Failure {
    Failure::new(Kind::Failed, format!("Cannot {what} \"{which}\": {error}."))
}
