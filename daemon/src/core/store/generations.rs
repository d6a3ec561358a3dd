//! A small document in two generations: if the newer one is damaged, the older one is read.
//!
//! ```text
//! NAME            the document as JSON in one line, and a line with the CRC-32 of the first one
//! NAME.previous   the same, one generation older
//! ```
//!
//! [`super::replace`] survives a crash, but not a medium that loses what was written long ago. For what would be missed
//! more than a change that is forgotten, there are generations.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{StoreError, read, replace};

/// A document that is kept in two generations.
#[derive(Debug, Clone)]
pub struct Generations {
    path: PathBuf,
    limit: u64,
}

/// A document as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<T> {
    /// The document.
    pub document: T,
    /// What is wrong with the newer generation, if the older one had to do.
    pub damage: Option<String>,
}

impl Generations {
    /// The document at this path, of at most `limit` bytes.
    pub fn new(path: PathBuf, limit: u64) -> Self {
        Self { path, limit }
    }

    fn previous(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".previous");
        self.path.with_file_name(name)
    }

    /// Writes a new generation. Afterwards, and after a crash at any instant, [`Generations::load`] has this one or the one before.
    pub fn save<T: Serialize>(&self, document: &T) -> Result<(), StoreError> {
        let invalid = |error: serde_json::Error| StoreError::of("write", &self.path)(error.into());
        let text = serde_json::to_string(document).map_err(invalid)?;
        let text = format!("{text}\n{:08x}\n", crc32fast::hash(text.as_bytes()));
        // A damaged generation must not take the place of a sound one.
        if sound(&self.path, self.limit)?.is_some_and(|found| found.is_ok()) {
            fs::rename(&self.path, self.previous()).map_err(StoreError::of("rename", &self.path))?;
        }
        replace(&self.path, text.as_bytes())
    }

    /// Reads the document; `None` if there is none. If neither generation is sound, an error that names the file.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Option<Loaded<T>>, StoreError> {
        let newer = match self.read_as(&self.path)? {
            Some(Ok(document)) => return Ok(Some(Loaded { document, damage: None })),
            Some(Err(damage)) => Some(damage),
            None => None,
        };
        match (self.read_as(&self.previous())?, newer) {
            (Some(Ok(document)), Some(damage)) => {
                tracing::error!(
                    "The file \"{}\" is damaged: {damage}. The generation before it is used.",
                    self.path.display()
                );
                Ok(Some(Loaded { document, damage: Some(damage) }))
            }
            // A crash between the two renames: the older generation is what there is.
            (Some(Ok(document)), None) => Ok(Some(Loaded { document, damage: None })),
            (_, Some(damage)) | (Some(Err(damage)), None) => {
                let error = std::io::Error::new(std::io::ErrorKind::InvalidData, damage);
                Err(StoreError::of("read", &self.path)(error))
            }
            (None, None) => Ok(None),
        }
    }

    fn read_as<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<Result<T, String>>, StoreError> {
        let Some(found) = sound(path, self.limit)? else { return Ok(None) };
        Ok(Some(found.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()))))
    }
}

/// The bytes of the document, or what is wrong with them; `None` if there is no file.
fn sound(path: &Path, limit: u64) -> Result<Option<Result<Vec<u8>, String>>, StoreError> {
    // The second line has nine bytes.
    let Some(mut text) = read(path, limit.saturating_add(10))? else { return Ok(None) };
    let Some(rest) = text.strip_suffix(b"\n").and_then(|text| text.len().checked_sub(9)) else {
        return Ok(Some(Err("its end is missing".to_owned())));
    };
    let sum = format!("\n{:08x}\n", crc32fast::hash(&text[..rest]));
    if text[rest..] != *sum.as_bytes() {
        return Ok(Some(Err("its checksum does not match".to_owned())));
    }
    text.truncate(rest);
    Ok(Some(Ok(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> (tempfile::TempDir, Generations) {
        let directory = tempfile::tempdir().unwrap();
        let generations = Generations::new(directory.path().join("state.json"), 1024);
        (directory, generations)
    }

    #[test]
    fn the_newest_is_read_and_absence_is_no_error() {
        let (_directory, document) = document();
        assert_eq!(document.load::<u32>().unwrap(), None);
        for value in [1, 2, 3] {
            document.save(&value).unwrap();
            assert_eq!(document.load().unwrap(), Some(Loaded { document: value, damage: None }));
        }
    }

    #[test]
    fn damage_anywhere_leads_to_the_generation_before() {
        let (_directory, document) = document();
        document.save(&"old").unwrap();
        document.save(&"new").unwrap();
        let whole = fs::read(&document.path).unwrap();
        for length in 0..whole.len() {
            fs::write(&document.path, &whole[..length]).unwrap();
            let loaded = document.load::<String>().unwrap().unwrap();
            assert_eq!(loaded.document, "old", "cut at {length}");
            assert!(loaded.damage.is_some());
        }
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&document.path, &bytes).unwrap();
            assert_eq!(document.load::<String>().unwrap().unwrap().document, "old", "byte {place}");
        }
        // What is saved over damage does not lose the sound generation.
        document.save(&"newer").unwrap();
        fs::write(&document.path, "").unwrap();
        assert_eq!(document.load::<String>().unwrap().unwrap().document, "old");
    }

    #[test]
    fn a_crash_between_the_renames_leaves_the_generation_before() {
        let (_directory, document) = document();
        document.save(&"old").unwrap();
        fs::rename(&document.path, document.previous()).unwrap();
        assert_eq!(document.load().unwrap(), Some(Loaded { document: "old".to_owned(), damage: None }));
    }

    #[test]
    fn two_damaged_generations_are_an_error_that_names_the_file() {
        let (_directory, document) = document();
        document.save(&"old").unwrap();
        document.save(&"new").unwrap();
        fs::write(&document.path, "x").unwrap();
        fs::write(document.previous(), "y").unwrap();
        let message = document.load::<String>().unwrap_err().to_string();
        assert!(message.contains("state.json\"") && message.contains("its end is missing"), "{message}");
    }
}
