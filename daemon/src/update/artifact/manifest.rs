//! The member `manifest`: the SHA-256 of every other member. Not to be confused with an update Manifest.

use std::collections::BTreeMap;

use super::compression::Compression;
use super::error::ArtifactError;
use super::format::{
    DATA_DIRECTORY, FILES_LIMIT, HEADER_TAR, MANIFEST, NAME_LIMIT, Sha256, VERSION, hex, is_payload_file_name,
    parse_sha256, quote,
};

/// Checksums by name, as the manifest lists them. What was read from an Artifact has at least `version` and the header
/// tar.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checksums {
    entries: BTreeMap<String, Sha256>,
}

impl Checksums {
    /// Parses the manifest, by the union of all strict rules: lower-case digits, two spaces, no name twice, no name
    /// that no member can have.
    pub(super) fn parse(text: &[u8]) -> Result<Self, ArtifactError> {
        let mut entries = BTreeMap::new();
        let mut header = None;
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let wrong =
                |rule: String| ArtifactError::malformed(quote(MANIFEST), format!("has {rule} in line {}", index + 1));
            let (sum, name) = parse_line(line).ok_or_else(|| {
                wrong("something else than 64 lower-case hexadecimal digits, two spaces and a name".into())
            })?;
            if name.len() > NAME_LIMIT {
                return Err(wrong(format!("a name of more than {NAME_LIMIT} bytes")));
            }
            if Compression::of_member(name, HEADER_TAR).is_some() {
                if let Some(other) = header.replace(name).filter(|other| *other != name) {
                    return Err(wrong(format!("a second header, {} after {}", quote(name), quote(other))));
                }
            } else if name != VERSION && !name.strip_prefix(DATA_DIRECTORY).is_some_and(is_payload_file_name) {
                return Err(wrong(format!("{}, which can be the name of no member,", quote(name))));
            }
            if entries.insert(name.to_owned(), sum).is_some() {
                return Err(wrong(format!("{} for the second time", quote(name))));
            }
        }
        let missing = |name: &str| ArtifactError::malformed(quote(MANIFEST), format!("does not list {}", quote(name)));
        if !entries.contains_key(VERSION) {
            return Err(missing(VERSION));
        }
        if header.is_none() {
            return Err(missing(HEADER_TAR));
        }
        // One for the version and one for the header.
        if entries.len() > FILES_LIMIT + 2 {
            return Err(ArtifactError::TooMany { place: quote(MANIFEST), limit: FILES_LIMIT, things: "payload files" });
        }
        Ok(Self { entries })
    }

    /// The checksum of the member with this name; a payload file has the prefix `data/0000/`.
    pub fn get(&self, name: &str) -> Option<&Sha256> {
        self.entries.get(name)
    }

    /// The payload files with their checksums, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Sha256)> {
        self.entries.iter().filter_map(|(name, sum)| Some((name.strip_prefix(DATA_DIRECTORY)?, sum)))
    }

    /// The checksum of a payload file.
    pub fn file(&self, name: &str) -> Option<&Sha256> {
        self.get(&format!("{DATA_DIRECTORY}{name}"))
    }

    pub(super) fn insert(&mut self, name: &str, sum: Sha256) {
        self.entries.insert(name.to_owned(), sum);
    }

    /// The manifest's text.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for (name, sum) in &self.entries {
            text.push_str(&hex(sum));
            text.push_str("  ");
            text.push_str(name);
            text.push('\n');
        }
        text
    }
}

fn parse_line(line: &[u8]) -> Option<(Sha256, &str)> {
    let (digits, rest) = line.split_at_checked(64)?;
    let name = str::from_utf8(rest.strip_prefix(b"  ")?).ok()?;
    let fits = !name.is_empty() && !name.chars().any(|character| character.is_whitespace() || character.is_control());
    Some((parse_sha256(digits)?, name)).filter(|_| fits)
}
