//! The store of installed Manifests: `<sha256>.yaml` each, with `current` and `in-progress` naming one. The last two
//! are kept.

use std::fs;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use crate::core::document::Document;
use crate::core::store::{self, StoreError};

const MANIFEST_LIMIT: u64 = 1024 * 1024;
const KEPT: usize = 2;

/// The store.
#[derive(Debug, Clone)]
pub struct ManifestStore {
    directory: PathBuf,
}

impl ManifestStore {
    /// The store in this directory, which is made when something is stored.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// A deployment of this Manifest begins.
    pub fn begin(&self, digest: &str, text: &str) -> Result<(), StoreError> {
        store::make_directory(&self.directory)?;
        store::replace(&self.file(digest), text.as_bytes())?;
        store::replace(&self.directory.join("in-progress"), digest.as_bytes())
    }

    /// The deployment succeeded.
    pub fn commit(&self, digest: &str) -> Result<(), StoreError> {
        store::replace(&self.directory.join("current"), digest.as_bytes())?;
        self.end()
    }

    /// The deployment is over without success.
    pub fn end(&self) -> Result<(), StoreError> {
        store::remove_file(&self.directory.join("in-progress"))?;
        self.purge()
    }

    /// Name of the Manifest that was installed last; empty if none was or it cannot be read.
    pub fn current_name(&self) -> String {
        let digest = store::read(&self.directory.join("current"), 64).ok().flatten().unwrap_or_default();
        let digest = String::from_utf8(digest).unwrap_or_default();
        let text = store::read(&self.file(&digest), MANIFEST_LIMIT).ok().flatten().unwrap_or_default();
        let document = Document::new("manifest", String::from_utf8(text).unwrap_or_default());
        Manifest::parse(&document).map(|manifest| manifest.name).unwrap_or_default()
    }

    fn file(&self, digest: &str) -> PathBuf {
        self.directory.join(format!("{digest}.yaml"))
    }

    /// Removes all Manifests but the named ones and the newest.
    fn purge(&self) -> Result<(), StoreError> {
        let current = store::read(&self.directory.join("current"), 64)?.unwrap_or_default();
        let current = format!("{}.yaml", String::from_utf8_lossy(&current));
        // An error means that nothing was ever stored.
        let Ok(entries) = fs::read_dir(&self.directory) else { return Ok(()) };
        let entries: Vec<_> = entries.filter_map(Result::ok).collect();
        // Left behind by a crash in the middle of a write.
        let drafts = entries.iter().map(fs::DirEntry::path);
        drafts
            .filter(|path| path.extension().is_some_and(|extension| extension == "new"))
            .try_for_each(|path| store::remove_file(&path))?;
        let mut others: Vec<_> = entries
            .into_iter()
            .filter(|entry| {
                let name = entry.file_name();
                Path::new(&name).extension().is_some_and(|extension| extension == "yaml") && name != *current
            })
            .collect();
        others.sort_by_key(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok());
        let surplus = others.len().saturating_sub(KEPT - 1);
        others.iter().take(surplus).try_for_each(|entry| store::remove_file(&entry.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "api_version: mender/v1\nkind: manifest\nname: NAME\nsystem_types_compatible: [s]\n\
                        component_types: {t: {artifact_name: a, update_strategy: {order: 1}}}\n";

    #[test]
    fn the_current_one_is_named_and_two_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let manifests = ManifestStore::new(&directory.path().join("manifests"));
        assert_eq!(manifests.current_name(), "");
        for name in ["one", "two", "three", "four"] {
            manifests.begin(name, &TEXT.replace("NAME", name)).unwrap();
            if name == "four" {
                manifests.end().unwrap();
            } else {
                manifests.commit(name).unwrap();
            }
        }
        assert_eq!(manifests.current_name(), "three");
        let mut names: Vec<_> = fs::read_dir(directory.path().join("manifests"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["current", "four.yaml", "three.yaml"]);
    }
}
