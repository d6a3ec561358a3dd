//! What of a vPLC outlives the daemon: its specification and what was wanted of it, one file each and the file before it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::core::error::{Error, Kind};
use crate::core::name::file_escape;
use crate::core::store;

/// Bytes that such a file may have; the specification itself is bounded by the bus.
const SIZE_LIMIT: u64 = 4 << 20;

/// What is wanted of a vPLC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// It runs.
    Running,
    /// It stands still until somebody starts it, also after a restart of the host.
    Stopped,
    /// It goes, and so does its data, unless that is kept.
    Gone {
        /// Whether the volume stays.
        keep_data: bool,
    },
}

/// Why a vPLC is not started any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    /// Exit code of the last end.
    pub exit_code: i64,
    /// Whether the kernel ended it because memory ran out.
    pub out_of_memory: bool,
    /// How often it ended by itself within the window.
    pub ends: u32,
    /// The last lines of its output.
    pub lines: Vec<String>,
}

/// An image that was found for a specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// What the engine calls it: a digest of its content.
    pub id: String,
    /// Where it can be had again: `<name>@sha256:<digest>`; empty if it did not come from a registry.
    pub digest: String,
}

/// A change that needs new containers and has not proved itself yet. While it is on record, so is the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What was before.
    pub before: Box<Record>,
    /// Whether the PLC has to run for the change to be good: it did before, as far as was known.
    pub plc: bool,
}

/// A vPLC as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The text of its specification.
    pub spec: String,
    /// Differs from change to change that needs new containers; the containers carry it as a label.
    pub generation: u64,
    /// The highest generation that was ever given. That of a change that was taken back is not given again, because a container of
    /// it may still be there.
    #[serde(default)]
    pub newest: u64,
    /// What is wanted.
    pub wanted: Wanted,
    /// The image of this generation.
    pub image: Pinned,
    /// Why it is not started any more.
    pub latch: Option<Latch>,
    /// The change that led here is on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

impl Record {
    /// The generation of the next change that needs new containers.
    pub fn next_generation(&self) -> u64 {
        self.generation.max(self.newest) + 1
    }

    /// The record that was before the change on trial, and whether the PLC has to run there; none if nothing is on trial.
    pub fn way_back(&self) -> Option<(Self, bool)> {
        let Trial { before, plc } = self.trial.as_ref()?;
        let newest = self.next_generation() - 1;
        Some((Self { newest, ..(**before).clone() }, *plc))
    }
}

/// A file: the record and its checksum.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    crc32: u32,
    record: String,
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The record.
    pub record: Record,
    /// The newest file was damaged, and this is the one before it.
    pub older: bool,
}

/// The directory of all vPLCs.
#[derive(Debug, Clone)]
pub struct Store {
    records: PathBuf,
    programs: PathBuf,
}

impl Store {
    /// The vPLCs below this state directory.
    pub fn new(datastore: &Path) -> Self {
        Self { records: datastore.join("vplcs"), programs: datastore.join("vplc-programs") }
    }

    /// The directory with the programs of a vPLC, and with what the daemon has to know to reach its runtime.
    pub fn programs(&self, name: &str) -> PathBuf {
        self.programs.join(file_escape(name))
    }

    /// Removes that directory. It is fine if there is none.
    pub fn forget_programs(&self, name: &str) -> Result<(), Error> {
        Ok(store::remove_directory(&self.programs(name))?)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.records.join(format!("{}.json", file_escape(name)))
    }

    /// Keeps a vPLC; what was kept before becomes the file before it. On the medium when it returns.
    pub fn keep(&self, name: &str, record: &Record) -> Result<(), Error> {
        let path = self.file(name);
        store::make_directory(&self.records)?;
        if read(&path).is_ok()
            && let Some(bytes) = store::read(&path, SIZE_LIMIT)?
        {
            store::replace(&older(&path), &bytes)?;
        }
        let encode = |error: serde_json::Error| damaged(&path, &error.to_string());
        let record = serde_json::to_string(record).map_err(encode)?;
        let file = File { crc32: crc32fast::hash(record.as_bytes()), record };
        Ok(store::replace(&path, &serde_json::to_vec_pretty(&file).map_err(encode)?)?)
    }

    /// Forgets a vPLC.
    pub fn forget(&self, name: &str) -> Result<(), Error> {
        let path = self.file(name);
        // The older one first: alone it would be taken for the truth.
        store::remove_file(&older(&path))?;
        Ok(store::remove_file(&path)?)
    }

    /// All vPLCs that are kept, by the path of their file. What cannot be read is left as it is, and is in the log.
    pub fn load(&self) -> Vec<(PathBuf, Found)> {
        let Ok(entries) = std::fs::read_dir(&self.records) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let mut records = Vec::new();
        for path in files {
            let found = read(&path).map(|record| Found { record, older: false }).or_else(|error| {
                tracing::error!("{error} The one before it is used.");
                read(&older(&path)).map(|record| Found { record, older: true })
            });
            match found {
                Ok(found) => records.push((path, found)),
                Err(error) => tracing::error!("A vPLC is left as it is. {error}"),
            }
        }
        records
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("older")
}

fn read(path: &Path) -> Result<Record, Error> {
    let bytes = store::read(path, SIZE_LIMIT)?.ok_or_else(|| damaged(path, "it is not there"))?;
    let file: File = serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    if crc32fast::hash(file.record.as_bytes()) != file.crc32 {
        return Err(damaged(path, "its checksum is wrong"));
    }
    serde_json::from_str(&file.record).map_err(|error| damaged(path, &error.to_string()))
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(Kind::Storage, format!("The file \"{}\" is damaged: {reason}.", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: u64) -> Record {
        let image = Pinned { id: "sha256:1".to_owned(), digest: String::new() };
        let spec = "kind: vplc\n".to_owned();
        Record { spec, generation, newest: 0, wanted: Wanted::Running, image, latch: None, trial: None }
    }

    #[test]
    fn the_way_back_is_kept_and_gives_no_generation_twice() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert_eq!(record(1).way_back(), None);
        let trial = Some(Trial { before: Box::new(record(1)), plc: true });
        store.keep("a", &Record { trial, ..record(2) }).unwrap();
        let (before, plc) = store.load().remove(0).1.record.way_back().unwrap();
        assert_eq!((&before, plc), (&Record { newest: 2, ..record(1) }, true));
        assert_eq!(before.next_generation(), 3);
        // A file of a daemon that knew neither.
        let old = r#"{"spec":"","generation":4,"wanted":"running","image":{"id":"a","digest":""},"latch":null}"#;
        let old: Record = serde_json::from_str(old).unwrap();
        assert_eq!((old.next_generation(), old.trial), (5, None));
    }

    #[test]
    fn what_is_kept_is_found_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert!(store.load().is_empty());
        store.keep("a", &record(1)).unwrap();
        store.keep("b", &Record { wanted: Wanted::Gone { keep_data: true }, ..record(2) }).unwrap();
        let found: Vec<u64> = store.load().into_iter().map(|(_, found)| found.record.generation).collect();
        assert_eq!(found, [1, 2]);
        store.forget("a").unwrap();
        store.forget("b").unwrap();
        assert_eq!(std::fs::read_dir(directory.path().join("vplcs")).unwrap().count(), 0);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_leads_to_the_record_before() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        store.keep("a", &record(1)).unwrap();
        store.keep("a", &record(2)).unwrap();
        let path = store.file("a");
        let good = std::fs::read(&path).unwrap();
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).unwrap();
            let found = store.load().remove(0).1;
            assert_eq!((found.record, found.older), (record(1), true), "{length}");
        }
        for index in 0..good.len() {
            let mut bytes = good.clone();
            bytes[index] ^= 0x02;
            std::fs::write(&path, &bytes).unwrap();
            let found = store.load().remove(0).1;
            // A byte between the values may be any blank.
            assert!(found.older || found.record == record(2), "{index}");
        }
        // A damaged file is never taken for the one before the next.
        std::fs::write(&path, b"{").unwrap();
        store.keep("a", &record(3)).unwrap();
        std::fs::write(&path, b"{").unwrap();
        assert_eq!(store.load().remove(0).1.record, record(1));
    }
}
