//! What an archive with a PLC program has to be like before a running program is stopped for it.
//!
//! The limits on sizes, names and suffixes are those of the OpenPLC runtime 4 itself, which would refuse the archive as well, but
//! later. The others are ours: no links, no names twice, no file within another, and every byte is decompressed and compared
//! with its checksum once.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::core::error::{Error, Kind};

/// Bytes that an archive may have.
pub const ARCHIVE_LIMIT: u64 = 100 << 20;
/// Files and directories in an archive.
pub const ENTRIES_LIMIT: usize = 10_000;
/// Bytes of one file, unpacked. The runtime's own limit.
pub const FILE_LIMIT: u64 = 10 << 20;
/// Bytes of all files together, unpacked. The runtime's own limit.
pub const TOTAL_LIMIT: u64 = 50 << 20;
/// How many times larger a file may be than its packed form. The runtime's own limit.
pub const RATIO_LIMIT: u64 = 1000;
/// Suffixes that the runtime refuses.
const SUFFIXES: [&str; 7] = [".exe", ".dll", ".sh", ".bat", ".js", ".vbs", ".scr"];
/// Bytes of one name.
const NAME_LIMIT: usize = 255;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no archive, or a damaged one.
    #[error("The program is not a sound zip archive: {0}.")]
    Malformed(String),
    /// The archive itself is too large.
    #[error("The program has more than {ARCHIVE_LIMIT} bytes.")]
    TooLarge,
    /// Too many files.
    #[error("The program has {0} files and directories, but at most {ENTRIES_LIMIT} are allowed.")]
    TooMany(usize),
    /// One file cannot be accepted.
    #[error("The file \"{name}\" of the program {reason}.")]
    File {
        /// Its name in the archive.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// All files together are too large.
    #[error("The files of the program have more than {TOTAL_LIMIT} bytes together.")]
    TotalTooLarge,
    /// Nothing is in it.
    #[error("The program is an archive without files.")]
    Empty,
    /// The bytes cannot be had.
    #[error("The program cannot be read: {0}.")]
    Read(io::Error),
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        Self::new(Kind::InvalidProgram, error.to_string())
    }
}

impl From<ZipError> for ArchiveError {
    fn from(error: ZipError) -> Self {
        Self::Malformed(error.to_string().trim_end_matches('.').to_owned())
    }
}

/// Looks at an archive from its first byte to its last. It may block for as long as it takes to unpack 50 MiB.
pub fn check<R: Read + Seek>(mut source: R) -> Result<(), ArchiveError> {
    let size = source.seek(io::SeekFrom::End(0)).map_err(ArchiveError::Read)?;
    if size > ARCHIVE_LIMIT {
        return Err(ArchiveError::TooLarge);
    }
    source.rewind().map_err(ArchiveError::Read)?;
    bounded_directory(&mut source)?;
    source.rewind().map_err(ArchiveError::Read)?;
    let mut archive = ZipArchive::new(source)?;
    if archive.len() > ENTRIES_LIMIT {
        return Err(ArchiveError::TooMany(archive.len()));
    }
    if archive.has_duplicate_names() {
        return Err(ArchiveError::Malformed("it has two files of the same name".to_owned()));
    }
    if archive.has_overlapping_files()? {
        return Err(ArchiveError::Malformed("it has a file within another".to_owned()));
    }
    let (mut names, mut files, mut total) = (BTreeSet::new(), 0, 0_u64);
    for index in 0..archive.len() {
        // Raw first: it tells what the entry is without any attempt to unpack it.
        let entry = archive.by_index_raw(index)?;
        let name = checked_name(entry.name_raw())?;
        let refused = |reason: &str| ArchiveError::File { name: name.clone(), reason: reason.to_owned() };
        if entry.is_symlink() {
            return Err(refused("is a symbolic link"));
        }
        // Other kinds of files than these have no meaning in a program, and unpacking them would make devices or pipes.
        if entry.unix_mode().is_some_and(|mode| !matches!(mode & 0o170_000, 0 | 0o040_000 | 0o100_000)) {
            return Err(refused("is neither a file nor a directory"));
        }
        if entry.encrypted() {
            return Err(refused("is encrypted"));
        }
        if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            return Err(refused("is compressed in another way than by \"deflate\""));
        }
        // Only now, because directories end in a slash.
        if !names.insert(name.trim_end_matches('/').to_lowercase()) {
            return Err(refused("is there twice, but for the case of letters"));
        }
        let (size, packed, directory) = (entry.size(), entry.compressed_size(), entry.is_dir());
        if size > FILE_LIMIT {
            return Err(refused(&format!("has more than {FILE_LIMIT} bytes")));
        }
        if size > packed.saturating_mul(RATIO_LIMIT) {
            return Err(refused(&format!("is more than {RATIO_LIMIT} times as large as its packed form")));
        }
        drop(entry);
        files += usize::from(!directory);
        total += unpacked(&mut archive, index, size).map_err(|error| refused(&format!("is damaged: {error}")))?;
        if total > TOTAL_LIMIT {
            return Err(ArchiveError::TotalTooLarge);
        }
    }
    if files == 0 { Err(ArchiveError::Empty) } else { Ok(()) }
}

/// Unpacks a file and returns its true size, which has to be the one that it claims. The checksum is compared by the reader.
fn unpacked<R: Read + Seek>(archive: &mut ZipArchive<R>, index: usize, claimed: u64) -> Result<u64, String> {
    let file = archive.by_index(index).map_err(|error| error.to_string())?;
    // One byte more than there may be, so that more is noticed.
    let size = io::copy(&mut file.take(claimed + 1), &mut io::sink()).map_err(|error| error.to_string())?;
    if size == claimed { Ok(size) } else { Err(format!("it has {size} bytes or more instead of {claimed}")) }
}

fn checked_name(raw: &[u8]) -> Result<String, ArchiveError> {
    let shown: String = String::from_utf8_lossy(raw).chars().filter(|char| !char.is_control()).take(64).collect();
    let refused = |reason: &str| Err(ArchiveError::File { name: shown.clone(), reason: reason.to_owned() });
    let Ok(name) = std::str::from_utf8(raw) else { return refused("has a name that is not UTF-8") };
    if name.len() > NAME_LIMIT {
        return refused(&format!("has a name of more than {NAME_LIMIT} bytes"));
    }
    if name.chars().any(|char| char.is_control() || matches!(char, '\\' | ':')) {
        return refused(
            "has a name with a character that is not allowed (a backslash, a colon or a control character)",
        );
    }
    if name.starts_with('/') {
        return refused("has an absolute path");
    }
    let parts = name.strip_suffix('/').unwrap_or(name).split('/');
    for part in parts {
        match part {
            "" => return refused("has a path with an empty part"),
            "." | ".." => return refused("has a path that leads elsewhere"),
            // The runtime looks for two dots anywhere in a path.
            part if part.contains("..") => return refused("has two dots in a row in its name"),
            _ => {}
        }
    }
    let lower = name.to_lowercase();
    if let Some(suffix) = SUFFIXES.iter().find(|suffix| lower.ends_with(*suffix)) {
        return refused(&format!("has the suffix \"{suffix}\", which the runtime refuses"));
    }
    Ok(name.to_owned())
}

/// Whoever parses the list of files takes memory for each of them before anybody can look. So their heads are counted first; a
/// head within a file counts, too, which does no harm.
fn bounded_directory(source: &mut impl Read) -> Result<(), ArchiveError> {
    const HEAD: &[u8; 4] = b"PK\x01\x02";
    let mut buffer = vec![0; 64 * 1024];
    let (mut kept, mut found) = (0, 0);
    loop {
        let read = source.read(&mut buffer[kept..]).map_err(ArchiveError::Read)?;
        if read == 0 {
            return Ok(());
        }
        let filled = kept + read;
        found += buffer[..filled].windows(HEAD.len()).filter(|window| window == HEAD).count();
        if found > ENTRIES_LIMIT {
            return Err(ArchiveError::TooMany(found));
        }
        // A head may lie across the border.
        let rest = filled.min(HEAD.len() - 1);
        buffer.copy_within(filled - rest..filled, 0);
        kept = rest;
    }
}

#[cfg(test)]
mod tests;
