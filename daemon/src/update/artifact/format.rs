//! Names, bounds and small rules of the format that reader and writer share.

use ring::digest;

use super::error::ArtifactError;

/// Largest `version` member, in bytes. Mender's own is 31.
pub const VERSION_LIMIT: u64 = 1024;
/// Largest `manifest`, in bytes.
pub const MANIFEST_LIMIT: u64 = 1024 * 1024;
/// Largest `manifest.sig`, in bytes. RSA with 8192 bits makes 1368 characters.
pub const SIGNATURE_LIMIT: u64 = 8 * 1024;
/// Largest header tar, in bytes: as stored, and again after decompression.
pub const HEADER_LIMIT: u64 = 16 * 1024 * 1024;
/// Largest `header-info` and `type-info`, in bytes each.
pub const INFO_LIMIT: u64 = 1024 * 1024;
/// Largest `meta-data`, in bytes.
pub const META_DATA_LIMIT: u64 = 1024 * 1024;
/// Largest number of state scripts.
pub const SCRIPTS_LIMIT: usize = 1000;
/// Largest number of payload files.
pub const FILES_LIMIT: usize = 10_000;
/// Longest name in the manifest, in bytes; so a payload file's name has at most 90.
pub const NAME_LIMIT: usize = 100;
/// Longest text in `header-info` and `type-info` (names, keys, values), in bytes.
pub const TEXT_LIMIT: usize = 1024;
/// Largest extension of a tar member (PAX records, GNU long name), in bytes.
pub const EXTENSION_LIMIT: u64 = 64 * 1024;
/// Longest run of zero bytes after the end of a tar file. GNU tar fills up to its record size, 10 KiB by default.
pub const TRAILING_LIMIT: u64 = 1024 * 1024;
/// Memory the decompressor of one xz or zstd stream may use, in bytes.
pub const DECOMPRESSION_MEMORY_LIMIT: u64 = 128 * 1024 * 1024;

/// The payload type of an Artifact that holds a Manifest.
pub const MANIFEST_PAYLOAD_TYPE: &str = "mender-orchestrator-manifest";

pub(super) const VERSION: &str = "version";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const MANIFEST_SIGNATURE: &str = "manifest.sig";
pub(super) const HEADER_TAR: &str = "header.tar";
pub(super) const DATA_TAR: &str = "data/0000.tar";
pub(super) const DATA_DIRECTORY: &str = "data/0000/";
pub(super) const HEADER_INFO: &str = "header-info";
pub(super) const SCRIPTS_DIRECTORY: &str = "scripts/";
pub(super) const TYPE_INFO: &str = "headers/0000/type-info";
pub(super) const META_DATA: &str = "headers/0000/meta-data";

/// SHA-256 as bytes.
pub type Sha256 = [u8; 32];

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// 64 lower-case hexadecimal digits as bytes.
pub(super) fn parse_sha256(digits: &[u8]) -> Option<Sha256> {
    let digit = |character: u8| match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    };
    if digits.len() != 64 {
        return None;
    }
    let mut sum = [0; 32];
    for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(sum)
}

pub(super) fn sha256(bytes: &[u8]) -> Sha256 {
    digest_bytes(&digest::digest(&digest::SHA256, bytes))
}

pub(super) fn digest_bytes(digest: &digest::Digest) -> Sha256 {
    let mut sum = [0; 32];
    // The lengths are equal by the choice of the algorithm; zip needs no proof of it.
    for (to, from) in sum.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    sum
}

/// A name for a message: quoted, without control characters, cut where it becomes unreadable.
pub(super) fn quote(name: &str) -> String {
    const SHOWN: usize = 160;
    let mut shown: String = name.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// A member of an inner tar, for a message.
pub(super) fn quote_inside(name: &str, tar: &str) -> String {
    format!("{} in {}", quote(name), quote(tar))
}

/// Whether the name fits a payload file: word characters, `-`, `.` and `,`, and not a directory's own name.
///
/// Interface scripts use these names unquoted more often than not, so nothing else is let through.
pub(super) fn is_payload_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b',');
    !name.is_empty() && name != "." && name != ".." && name.bytes().all(plain)
}

/// Whether the name fits a state script of an Artifact: `ArtifactInstall_Enter_10_text` and its like.
pub(super) fn is_script_name(name: &str) -> bool {
    const STATES: [&str; 6] = [
        "ArtifactInstall",
        "ArtifactReboot",
        "ArtifactRollback",
        "ArtifactRollbackReboot",
        "ArtifactCommit",
        "ArtifactFailure",
    ];
    let mut parts = name.splitn(4, '_');
    let (Some(state), Some(moment), Some(number)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let text_fits = parts.next().is_none_or(|text| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
    STATES.contains(&state)
        && ["Enter", "Leave", "Error"].contains(&moment)
        && number.len() == 2
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && text_fits
        && name.len() <= NAME_LIMIT
}

/// Whether the payload type can name an Interface: a plain file name.
pub(super) fn is_payload_type(name: &str) -> bool {
    is_text(name) && !name.is_empty() && name != "." && name != ".." && !name.contains('/')
}

/// Whether a text is short enough and free of control characters, so that it fits into one line of a log or an answer.
pub(super) fn is_text(text: &str) -> bool {
    text.len() <= TEXT_LIMIT && !text.chars().any(char::is_control)
}

/// The rule of [`is_text`] for a message.
pub(super) fn text_rule(key: &str) -> String {
    format!("has a text in \"{key}\" that is longer than {TEXT_LIMIT} bytes or holds control characters")
}

/// Compares a checksum with the one in the manifest.
pub(super) fn compare(place: impl Into<String>, expected: &Sha256, actual: &Sha256) -> Result<(), ArtifactError> {
    if expected == actual {
        return Ok(());
    }
    Err(ArtifactError::Checksum { place: place.into(), expected: *expected, actual: *actual })
}
