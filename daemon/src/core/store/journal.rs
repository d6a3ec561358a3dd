//! An append-only file of entries, each with a number, a checksum, and a second copy.
//!
//! ```text
//! "orchjnl2"  then per entry twice the same:
//!     length u32 LE | CRC-32 u32 LE over all that follows | number u32 LE | safe u32 LE | payload
//! ```
//!
//! `safe` tells how many entries were known to be on the medium when this one was written. It tells an append that a
//! power cut has torn (nothing was done yet on its account) from damage to what had been promised to be there: a sound
//! entry that counts on one that is lost. The second copy saves an entry from damage to a few bytes.
//!
//! The rest of the file is zeros, written ahead in steps: growing a file costs metadata writes at every append, and a
//! file system that is full later cannot stop the appends that fit. It also tells a torn append from a file whose end was
//! lost: the former has its zeros behind it. The number of the entry is part of the checksum,
//! so a stale entry left behind a torn one never passes for its successor.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

const MAGIC: &[u8; 8] = b"orchjnl2";
const FRAME: usize = 16;
/// Zeros are written ahead in steps of this many bytes.
const STEP: u64 = 256 * 1024;
/// An entry is at most this long.
const ENTRY_LIMIT: usize = 16 * 1024 * 1024;
/// An entry is looked for as far ahead as this.
const AHEAD: u32 = 65_536;
/// A journal is at most this long; the length field of a damaged file must not make us read a whole disk.
const JOURNAL_LIMIT: u64 = 256 * 1024 * 1024;

/// What stood behind the last good entry when the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Only zeros: the last append was completed.
    Clean,
    /// Something else: an append was cut short. It is erased now.
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
    /// How many entries there are.
    number: u32,
    /// How many of them are on the medium.
    safe: u32,
    end: u64,
    allocated: u64,
    uncertain: bool,
}

impl Journal {
    /// Makes a new, empty journal with room for the first entries; it must not exist. It is on the medium with its first
    /// durable entry, its name after the directory was synced.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::of("create", path))?;
        let start = MAGIC.len() as u64;
        let mut journal =
            Self { file, path: path.to_owned(), number: 0, safe: 0, end: start, allocated: 0, uncertain: false };
        journal.allocate(STEP)?;
        journal.file.write_all_at(MAGIC, 0).map_err(StoreError::of("write", path))?;
        Ok(journal)
    }

    /// Opens a journal and reads its entries. A torn tail is erased.
    ///
    /// An error of the kind [`io::ErrorKind::InvalidData`] means that an entry is lost that was on the medium; nothing is
    /// changed then.
    pub fn open(path: &Path) -> Result<(Self, Entries), StoreError> {
        let bytes = super::read(path, JOURNAL_LIMIT)?
            .ok_or_else(|| StoreError::of("open", path)(io::Error::from(io::ErrorKind::NotFound)))?;
        let damaged = |reason: String| StoreError::of("read", path)(io::Error::new(io::ErrorKind::InvalidData, reason));
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(StoreError::of("open", path))?;
        if !bytes.starts_with(MAGIC) {
            return Err(damaged("it does not begin as a journal does".to_owned()));
        }
        let found = scan(&bytes).map_err(|lost| damaged(format!("entry {lost} is lost, and later ones are not")))?;
        let (allocated, end) = (bytes.len() as u64, found.end as u64);
        // Room is made in whole steps before it is used, so a power cut may leave a part of a step, but no entry in one.
        let whole = allocated - allocated % STEP;
        if whole == 0 || (whole < allocated && end > whole) {
            return Err(damaged(format!("only {allocated} bytes of it are left")));
        }
        let number = u32::try_from(found.entries.len()).unwrap_or(u32::MAX);
        let journal = Self { file, path: path.to_owned(), number, safe: number, end, allocated, uncertain: false };
        if found.tail == Tail::Torn {
            let used = used(&bytes) as u64;
            journal.zero(end, used.saturating_sub(end))?;
        }
        // The end of a process leaves entries that are not on the medium yet; what is done from now on counts on them.
        journal.file.sync_data().map_err(StoreError::of("sync", path))?;
        let entries = found.entries.into_iter().map(<[u8]>::to_vec).collect();
        Ok((journal, Entries { entries, tail: found.tail }))
    }

    /// Appends an entry. With `durable` it is on the medium on return, and so is every entry before it; without, it
    /// survives the end of this process, but perhaps not a power cut.
    pub fn append(&mut self, payload: &[u8], durable: bool) -> Result<(), StoreError> {
        if payload.is_empty() || payload.len() > ENTRY_LIMIT {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "an entry is empty or too long");
            return Err(StoreError::of("append to", &self.path)(error));
        }
        let frame = frame(self.number, self.safe, payload);
        let both = [frame.as_slice(), frame.as_slice()].concat();
        let size = both.len() as u64;
        // Behind the entry there is always room for the zero length that ends the journal.
        if self.end + size + FRAME as u64 > self.allocated {
            self.allocate(self.end + size + FRAME as u64)?;
            self.file.sync_all().map_err(StoreError::of("sync", &self.path))?;
        }
        let written = self.file.write_all_at(&both, self.end).map_err(StoreError::of("append to", &self.path));
        let kept = written.is_ok();
        let written = written.and_then(|()| {
            let synced = if durable { self.file.sync_data() } else { Ok(()) };
            synced.map_err(StoreError::of("sync", &self.path))
        });
        if let Err(error) = written {
            // It counts as not written, so nothing of it must stand where the next one may be shorter.
            let erased = self.zero(self.end, size).is_ok() && self.file.sync_data().is_ok();
            self.uncertain = !erased && (kept || !self.is_blank(self.end, both.len()));
            return Err(error);
        }
        self.end += size;
        self.number += 1;
        if durable {
            self.safe = self.number;
            self.uncertain = false;
        }
        Ok(())
    }

    /// An entry that could not be appended could not be erased either: whoever opens the journal next may or may not find
    /// it.
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    fn is_blank(&self, from: u64, length: usize) -> bool {
        let mut bytes = vec![0; length];
        // Beyond the end of the file there is nothing.
        let count = self.file.read_at(&mut bytes, from);
        count.is_ok_and(|count| bytes[..count].iter().all(|byte| *byte == 0))
    }

    /// The file has another name now, for errors to tell.
    pub fn renamed(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    /// Length of all entries in bytes.
    pub fn length(&self) -> u64 {
        self.end
    }

    /// Makes room for at least so many bytes in all.
    fn allocate(&mut self, length: u64) -> Result<(), StoreError> {
        let length = length.next_multiple_of(STEP);
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

/// One copy of an entry.
fn frame(number: u32, safe: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(FRAME + payload.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&number.to_le_bytes());
    frame.extend_from_slice(&safe.to_le_bytes());
    frame.extend_from_slice(payload);
    let sum = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&sum.to_le_bytes());
    frame
}

/// A sound copy of an entry.
struct Copy<'b> {
    number: u32,
    safe: u32,
    payload: &'b [u8],
}

impl<'b> Copy<'b> {
    /// Reads the one that stands here, if its number is one of these.
    fn read(bytes: &'b [u8], numbers: RangeInclusive<u32>) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?));
        let (length, number) = (usize::try_from(word(0)?).ok()?, word(8)?);
        if length == 0 || length > ENTRY_LIMIT || !numbers.contains(&number) {
            return None;
        }
        let body = bytes.get(8..FRAME + length)?;
        let is_sound = crc32fast::hash(body) == word(4)?;
        is_sound.then_some(Self { number, safe: word(12)?, payload: &body[8..] })
    }

    fn size(&self) -> usize {
        FRAME + self.payload.len()
    }
}

/// What a journal holds.
struct Scanned<'b> {
    entries: Vec<&'b [u8]>,
    end: usize,
    tail: Tail,
}

/// Where the last byte is that is not zero. Most of a journal is zeros, so they are compared in blocks.
fn used(bytes: &[u8]) -> usize {
    let mut blocks = bytes;
    while let Some((front, block)) = blocks.split_last_chunk::<4096>()
        && *block == [0; 4096]
    {
        blocks = front;
    }
    blocks.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Reads the entries; an error is the number of one that was on the medium and is lost.
fn scan(bytes: &[u8]) -> Result<Scanned<'_>, u32> {
    let (mut entries, mut end, mut expected) = (Vec::new(), MAGIC.len(), 0_u32);
    let used = used(bytes);
    loop {
        let rest = &bytes[end..];
        // Numbers far ahead are no successors, and not looking at them keeps the search short.
        let numbers = expected.saturating_sub(1)..=expected.saturating_add(AHEAD);
        let found = match Copy::read(rest, numbers.clone()) {
            Some(copy) => Some((0, copy)),
            None if end >= used => return Ok(Scanned { entries, end, tail: Tail::Clean }),
            None => (1..used - end).find_map(|at| Some((at, Copy::read(&rest[at..], numbers.clone())?))),
        };
        match found {
            Some((at, copy)) if copy.number == expected => {
                entries.push(copy.payload);
                end += at + copy.size();
                expected += 1;
            }
            Some((at, copy)) if copy.number < expected => end += at + copy.size(),
            Some((_, copy)) if copy.safe > expected => return Err(expected),
            // Neither it nor those behind it were promised to be there.
            _ => return Ok(Scanned { entries, end, tail: Tail::Torn }),
        }
    }
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

    /// A file that lost its end looks like one whose last append was torn, but for its length.
    #[test]
    fn a_lost_end_is_damage_and_no_torn_append() {
        let (_directory, path) = journal_with(&[b"one", b"two"]);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, STEP);
        for at in 0..200 {
            std::fs::write(&path, &bytes[..at]).unwrap();
            let error = Journal::open(&path).unwrap_err();
            assert_eq!(error.io().kind(), io::ErrorKind::InvalidData, "{at}");
        }
        // Entries beyond the first step, cut in the middle of one.
        let (_directory, path) = journal_with(&[&vec![7; 100_000], &vec![8; 100_000]]);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, 2 * STEP);
        std::fs::write(&path, &bytes[..350_000]).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(error.to_string().contains("350000 bytes"), "{error}");
        // A power cut while room is made for the next entry.
        let (_directory, path) = journal_with(&[b"one"]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(&[0; 1000]);
        std::fs::write(&path, &bytes).unwrap();
        let (mut journal, found) = Journal::open(&path).unwrap();
        assert_eq!((found.entries.len(), found.tail), (1, Tail::Clean));
        journal.append(&vec![1; 300_000], true).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1.entries.len(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().len() % STEP, 0);
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

    /// Where the copies of these entries stand: begin and end of each pair.
    fn places(entries: &[&[u8]]) -> Vec<(usize, usize)> {
        let mut at = MAGIC.len();
        let place = |entry: &&[u8]| {
            let begin = at;
            at += 2 * (FRAME + entry.len());
            (begin, at)
        };
        entries.iter().map(place).collect()
    }

    /// Every cut gives a prefix of the entries, never anything else.
    #[test]
    fn a_cut_at_any_byte_leaves_the_entries_before_it() {
        let entries: [&[u8]; 3] = [b"alpha", b"be", b"gamma!"];
        let (_directory, path) = journal_with(&entries);
        let whole = std::fs::read(&path).unwrap();
        for at in MAGIC.len()..places(&entries)[2].1 {
            let mut cut = whole.clone();
            cut[at..].fill(0);
            std::fs::write(&path, &cut).unwrap();
            let (mut journal, found) = Journal::open(&path).unwrap();
            // The first copy is enough.
            let complete = places(&entries).iter().filter(|(begin, end)| begin.midpoint(*end) <= at).count();
            assert_eq!(found.entries, entries[..complete].to_vec(), "at {at}");
            // What is appended now stands directly behind, and nothing stale comes back.
            journal.append(b"new", true).unwrap();
            drop(journal);
            let again = Journal::open(&path).unwrap().1;
            assert_eq!(again.entries.len(), complete + 1, "at {at}");
            assert_eq!(again.tail, Tail::Clean, "at {at}");
        }
    }

    #[test]
    fn a_damaged_byte_anywhere_loses_nothing() {
        let entries: [&[u8]; 3] = [b"alpha", b"be", b"gamma!"];
        let (_directory, path) = journal_with(&entries);
        let whole = std::fs::read(&path).unwrap();
        for at in MAGIC.len()..places(&entries)[2].1 {
            for mask in [0x01, 0x55, 0xff] {
                let mut flipped = whole.clone();
                flipped[at] ^= mask;
                std::fs::write(&path, &flipped).unwrap();
                let (mut journal, found) = Journal::open(&path).unwrap();
                assert_eq!(found.entries, entries, "at {at}");
                journal.append(b"new", true).unwrap();
                drop(journal);
                assert_eq!(Journal::open(&path).unwrap().1.entries.len(), 4, "at {at}");
            }
        }
    }

    /// Both copies of an entry are gone. If a later entry counts on it, that is not passed over.
    #[test]
    fn the_loss_of_an_entry_that_was_on_the_medium_is_an_error() {
        let entries: [&[u8]; 4] = [b"alpha", b"be", b"gamma!", b"delta"];
        let (_directory, path) = journal_with(&entries);
        let whole = std::fs::read(&path).unwrap();
        for (number, (begin, end)) in places(&entries).into_iter().enumerate() {
            for byte in [0, 0xff] {
                let mut damaged = whole.clone();
                damaged[begin..end].fill(byte);
                std::fs::write(&path, &damaged).unwrap();
                if number == 3 {
                    // Nothing tells it from an append that was cut short.
                    assert_eq!(Journal::open(&path).unwrap().1.entries, entries[..3].to_vec());
                    continue;
                }
                let error = Journal::open(&path).unwrap_err();
                assert_eq!(error.io().kind(), io::ErrorKind::InvalidData);
                assert!(error.to_string().contains(&format!("entry {number} is lost")), "{error}");
                assert_eq!(std::fs::read(&path).unwrap(), damaged, "it must be left as it is");
            }
        }
    }

    /// A power cut may keep the later one of two entries that were not synced.
    #[test]
    fn the_loss_of_an_entry_that_was_not_yet_on_the_medium_is_a_torn_tail() {
        let (_directory, path) = journal_with(&[b"alpha"]);
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(b"be", false).unwrap();
        journal.append(b"gamma!", false).unwrap();
        drop(journal);
        let mut bytes = std::fs::read(&path).unwrap();
        let (begin, end) = places(&[b"alpha", b"be"])[1];
        bytes[begin..end].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let (_, found) = Journal::open(&path).unwrap();
        assert_eq!(found.entries, [b"alpha".to_vec()]);
        assert_eq!(found.tail, Tail::Torn);
        assert_eq!(Journal::open(&path).unwrap().1.tail, Tail::Clean);
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
