//! An append-only file of entries, each with a length and a checksum.
//!
//! ```text
//! "orchjnl1"  then per entry:  length u32 LE | CRC-32 u32 LE over (number u64 LE, payload) | payload
//! ```
//!
//! The rest of the file is zeros, written ahead in steps: growing a file costs metadata writes at every append, and a
//! file system that is full later cannot stop the appends that fit. The number of the entry is part of the checksum,
//! so a stale entry left behind a torn one never passes for its successor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

const MAGIC: &[u8; 8] = b"orchjnl1";
const FRAME: u64 = 8;
/// Zeros are written ahead in steps of this many bytes.
const STEP: u64 = 256 * 1024;
/// An entry is at most this long.
const ENTRY_LIMIT: usize = 16 * 1024 * 1024;
/// A journal is at most this long; the length field of a damaged file must not make us read a whole disk.
const JOURNAL_LIMIT: u64 = 256 * 1024 * 1024;

/// What stood behind the last good entry when the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Only zeros: the last append was completed.
    Clean,
    /// Something else: an append was cut short, or the file was damaged there. It is erased now.
    Torn,
}

/// What an opened journal held.
#[derive(Debug)]
pub struct Entries {
    /// The good entries, oldest first.
    pub entries: Vec<Vec<u8>>,
    /// What stood behind them.
    pub tail: Tail,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    number: u64,
    end: u64,
    allocated: u64,
}

impl Journal {
    /// Makes a new, empty journal with room for the first entries; it must not exist.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::of("create", path))?;
        let start = MAGIC.len() as u64;
        let mut journal = Self { file, path: path.to_owned(), number: 0, end: start, allocated: 0 };
        journal.allocate(STEP)?;
        journal.file.write_all_at(MAGIC, 0).map_err(StoreError::of("write", path))?;
        journal.file.sync_all().map_err(StoreError::of("sync", path))?;
        Ok(journal)
    }

    /// Opens a journal and reads its good entries. A torn tail is erased.
    pub fn open(path: &Path) -> Result<(Self, Entries), StoreError> {
        let bytes = super::read(path, JOURNAL_LIMIT)?
            .ok_or_else(|| StoreError::of("open", path)(io::Error::from(io::ErrorKind::NotFound)))?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(StoreError::of("open", path))?;
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it does not begin as a journal does");
            return Err(StoreError::of("read", path)(error));
        };
        let mut entries = Vec::new();
        let mut number = 0;
        while let Some((payload, behind)) = split_entry(rest, number) {
            entries.push(payload.to_vec());
            rest = behind;
            number += 1;
        }
        let allocated = bytes.len() as u64;
        let end = allocated - rest.len() as u64;
        let journal = Self { file, path: path.to_owned(), number, end, allocated };
        let tail = if rest.iter().all(|byte| *byte == 0) { Tail::Clean } else { Tail::Torn };
        if tail == Tail::Torn {
            journal.zero(end, allocated - end)?;
            journal.file.sync_data().map_err(StoreError::of("sync", path))?;
        }
        Ok((journal, Entries { entries, tail }))
    }

    /// Appends an entry. With `durable` it is on the medium on return, and so is every entry before it; without, it
    /// survives the end of this process, but perhaps not a power cut.
    pub fn append(&mut self, payload: &[u8], durable: bool) -> Result<(), StoreError> {
        let length = u32::try_from(payload.len()).ok().filter(|_| !payload.is_empty() && payload.len() <= ENTRY_LIMIT);
        let Some(length) = length else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "an entry is empty or too long");
            return Err(StoreError::of("append to", &self.path)(error));
        };
        let size = FRAME + u64::from(length);
        // Behind the entry there is always room for the zero length that ends the journal.
        if self.end + size + FRAME > self.allocated {
            self.allocate(self.end + size + FRAME + STEP)?;
            self.file.sync_all().map_err(StoreError::of("sync", &self.path))?;
        }
        let mut frame = Vec::with_capacity(payload.len() + 8);
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&checksum(self.number, payload).to_le_bytes());
        frame.extend_from_slice(payload);
        if let Err(error) = self.file.write_all_at(&frame, self.end) {
            // A half-written entry is torn; it must not stand where the next one will be shorter.
            drop(self.zero(self.end, size));
            return Err(StoreError::of("append to", &self.path)(error));
        }
        if durable {
            self.file.sync_data().map_err(StoreError::of("sync", &self.path))?;
        }
        self.end += size;
        self.number += 1;
        Ok(())
    }

    /// Length of all entries in bytes.
    pub fn length(&self) -> u64 {
        self.end
    }

    fn allocate(&mut self, length: u64) -> Result<(), StoreError> {
        self.zero(self.allocated, length - self.allocated)?;
        self.allocated = length;
        Ok(())
    }

    fn zero(&self, from: u64, length: u64) -> Result<(), StoreError> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let mut done = 0;
        while done < length {
            let part = usize::try_from(length - done).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..part], from + done).map_err(StoreError::of("write", &self.path))?;
            done += part as u64;
        }
        Ok(())
    }
}

fn split_entry(rest: &[u8], number: u64) -> Option<(&[u8], &[u8])> {
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length == 0 || length > ENTRY_LIMIT {
        return None;
    }
    let (payload, behind) = rest.split_at_checked(length)?;
    (checksum(number, payload) == u32::from_le_bytes(*sum)).then_some((payload, behind))
}

fn checksum(number: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal_with(entries: &[&[u8]]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let mut journal = Journal::create(&path).unwrap();
        for entry in entries {
            journal.append(entry, true).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn entries_come_back_in_order_and_more_can_be_added() {
        let (_directory, path) = journal_with(&[b"one", b"two"]);
        let (mut journal, found) = Journal::open(&path).unwrap();
        assert_eq!(found.entries, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(found.tail, Tail::Clean);
        journal.append(b"three", false).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1.entries.len(), 3);
    }

    #[test]
    fn it_grows_beyond_the_room_written_ahead() {
        let big = vec![7_u8; 200 * 1024];
        let (_directory, path) = journal_with(&[&big, &big, &big]);
        let found = Journal::open(&path).unwrap().1;
        assert_eq!(found.entries, vec![big.clone(), big.clone(), big]);
        assert_eq!(found.tail, Tail::Clean);
    }

    /// Every cut and every flipped byte gives a prefix of the entries, never anything else.
    #[test]
    fn any_cut_and_any_damage_leaves_the_entries_before_it() {
        let entries: [&[u8]; 3] = [b"alpha", b"be", b"gamma!"];
        let (_directory, path) = journal_with(&entries);
        let whole = std::fs::read(&path).unwrap();
        let used = 8 + entries.iter().map(|entry| entry.len() + 8).sum::<usize>();
        for at in MAGIC.len()..used {
            let mut cut = whole.clone();
            cut[at..].fill(0);
            let mut flipped = whole.clone();
            flipped[at] ^= 0x55;
            for damaged in [cut, whole[..at].to_vec(), flipped] {
                std::fs::write(&path, &damaged).unwrap();
                let (mut journal, found) = Journal::open(&path).unwrap();
                assert!(found.entries.len() < 3, "at {at}");
                assert!(found.entries.iter().zip(entries).all(|(found, entry)| found == entry), "at {at}");
                // What is appended now stands directly behind, and nothing stale comes back.
                journal.append(b"new", true).unwrap();
                drop(journal);
                let again = Journal::open(&path).unwrap().1;
                assert_eq!(again.entries.len(), found.entries.len() + 1, "at {at}");
                assert_eq!(again.tail, Tail::Clean, "at {at}");
            }
        }
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        std::fs::write(&path, b"something else").unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("does not begin"));
    }

    #[test]
    fn empty_entries_are_refused_because_zero_length_means_the_end() {
        let (_directory, path) = journal_with(&[]);
        let (mut journal, _) = Journal::open(&path).unwrap();
        assert!(journal.append(b"", true).is_err());
    }
}
