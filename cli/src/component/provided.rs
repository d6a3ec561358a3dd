//! What programs and images provide, kept by what they are.

use std::path::{Path, PathBuf};

use orchestratord::core::store;

use super::{Call, storage};
use crate::failure::Failure;
use crate::provides;

/// Programs and images that are remembered: more than are kept of any, so that none that can be taken back is forgotten.
const REMEMBERED: usize = 256;
/// Bytes of what is provided.
const LIMIT: u64 = 1 << 20;

/// The directory. The environment is that of the daemon.
fn directory() -> PathBuf {
    let datastore = std::env::var_os("MENDER_ORCHESTRATOR_DATASTORE_DIR").filter(|path| !path.is_empty());
    Path::new(&datastore.unwrap_or_else(|| "/var/lib/mender-orchestrator".into())).join("vplc-provides")
}

fn file(call: &Call, hash: &str) -> PathBuf {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    directory().join(format!("{}.{}", call.interface, hash.chars().map(plain).collect::<String>()))
}

/// What is provided by what has this hash, as lines; its hash if it did not come in an Artifact.
pub(super) fn lines(call: &Call, hash: Option<&str>) -> Result<String, Failure> {
    let Some(hash) = hash else { return Ok(version(call, "none")) };
    let known = store::read(&file(call, hash), LIMIT).map_err(storage)?;
    Ok(known.and_then(|known| String::from_utf8(known).ok()).unwrap_or_else(|| version(call, hash)))
}

fn version(call: &Call, version: &str) -> String {
    format!("rootfs-image.{}.version={version}\n", call.interface)
}

/// Remembers what the Artifact of this call provides, where `now` is provided before it, for what has this hash.
pub(super) fn remember(call: &Call, now: &str, hash: &str) -> Result<(), Failure> {
    let lines = provides::of(&call.tree, now.as_bytes())?;
    store::make_directory(&directory()).map_err(storage)?;
    store::replace(&file(call, hash), lines.as_bytes()).map_err(storage)?;
    forget_old(&directory());
    Ok(())
}

/// Best effort: files that are too many do no harm.
fn forget_old(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let dated = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
    });
    let mut files: Vec<_> = dated.collect();
    files.sort();
    for (_, path) in files.iter().take(files.len().saturating_sub(REMEMBERED)) {
        drop(std::fs::remove_file(path));
    }
}
