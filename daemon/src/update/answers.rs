//! The answers of Interfaces to queries, from bytes to values.
//!
//! An Interface is a program of somebody else: whatever it prints is checked before it becomes a directory name, a
//! property on the bus or the reason to install something.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use super::runner::ANSWER_LIMIT;
use crate::core::document::{check_name, check_path_component, excerpt};
use crate::core::error::{Error, Kind};

/// An id may have this many bytes.
pub const ID_LIMIT: usize = 128;
/// A key of Provides or Inventory may have this many bytes.
pub const KEY_LIMIT: usize = 256;
/// A value of Provides or Inventory may have this many bytes.
pub const VALUE_LIMIT: usize = 4_096;
/// Provides or Inventory may have this many lines.
pub const LINES_LIMIT: usize = 2_048;

/// A question to an Interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Query {
    /// Who are you?
    Identity,
    /// What is installed on the Component?
    Provides,
    /// What else is to be told about the Component?
    Inventory,
    /// One file after the other, or the Artifact as it is?
    NeedsUnpackedArtifact,
    /// Shall the sizes of the files be told?
    ProvidePayloadFileSizes,
    /// Must something be rebooted after the install?
    NeedsArtifactReboot,
    /// Can the install be taken back?
    SupportsRollback,
}

impl Query {
    /// The first argument of the Interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Provides => "Provides",
            Self::Inventory => "Inventory",
            Self::NeedsUnpackedArtifact => "NeedsUnpackedArtifact",
            Self::ProvidePayloadFileSizes => "ProvidePayloadFileSizes",
            Self::NeedsArtifactReboot => "NeedsArtifactReboot",
            Self::SupportsRollback => "SupportsRollback",
        }
    }
}

/// Answer to `NeedsArtifactReboot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NeedsReboot {
    /// Nothing is to be rebooted.
    #[default]
    No,
    /// The host is to be rebooted, once for all Components of the order group.
    Automatic,
    /// The Interface reboots the Component itself, in `ArtifactReboot`.
    Yes,
}

/// An answer that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// More bytes than [`ANSWER_LIMIT`].
    #[error("The answer to \"{}\" has {size} bytes; at most {ANSWER_LIMIT} are allowed.", query.as_str())]
    TooLong {
        /// The query.
        query: Query,
        /// Bytes of the answer.
        size: usize,
    },
    /// Not UTF-8.
    #[error("The answer to \"{}\" is not valid UTF-8 in line {line}.", query.as_str())]
    Utf8 {
        /// The query.
        query: Query,
        /// The line, from 1.
        line: usize,
    },
    /// A control character, such as a carriage return or an escape sequence.
    #[error("The answer to \"{}\" has the control character {character:?} in line {line}.", query.as_str())]
    Control {
        /// The query.
        query: Query,
        /// The line, from 1.
        line: usize,
        /// The character.
        character: char,
    },
    /// More than one line where one is allowed, or too many.
    #[error("The answer to \"{}\" has {lines} lines; at most {allowed} are allowed.", query.as_str())]
    TooManyLines {
        /// The query.
        query: Query,
        /// Lines of the answer.
        lines: usize,
        /// Lines that are allowed.
        allowed: usize,
    },
    /// A word that is none of the valid answers.
    #[error("The answer to \"{}\" is \"{answer}\" in line 1; expected {expected}.", query.as_str())]
    UnknownWord {
        /// The query.
        query: Query,
        /// The answer.
        answer: String,
        /// The valid answers.
        expected: String,
    },
    /// Nothing where something must be.
    #[error("The answer to \"{}\" is empty; expected \"id=\" and the id of the Component.", query.as_str())]
    Empty {
        /// The query.
        query: Query,
    },
    /// A line that is malformed.
    #[error("The answer to \"{}\" is malformed in line {line}, \"{text}\": {reason}.", query.as_str())]
    Line {
        /// The query.
        query: Query,
        /// The line, from 1.
        line: usize,
        /// The line itself, or its beginning.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A Component reports two versions of the same thing.
    #[error(
        "The answer to \"Provides\" has both \"rootfs-image.version\" and \"{key}\" (line {line}); exactly one of them is \
         allowed."
    )]
    TwoVersions {
        /// The key with the name of the Interface.
        key: String,
        /// The line of the later one, from 1.
        line: usize,
    },
    /// A Component does not report its version, so no Artifact can be deployed.
    #[error(
        "The answer to \"Provides\" has no version key: expected \"rootfs-image.{interface}.version\", or \
         \"rootfs-image.version\" if the Component runs Mender."
    )]
    MissingVersion {
        /// Name of the Interface.
        interface: String,
    },
}

impl From<AnswerError> for Error {
    fn from(error: AnswerError) -> Self {
        Self::new(Kind::InterfaceFailed, error.to_string())
    }
}

/// Answer to `NeedsUnpackedArtifact`; nothing means yes.
pub fn parse_needs_unpacked_artifact(answer: &[u8]) -> Result<bool, AnswerError> {
    Ok(parse_choice(Query::NeedsUnpackedArtifact, answer, &["Yes", "No"])? != Some("No"))
}

/// Answer to `ProvidePayloadFileSizes`; nothing means no.
pub fn parse_provide_payload_file_sizes(answer: &[u8]) -> Result<bool, AnswerError> {
    Ok(parse_choice(Query::ProvidePayloadFileSizes, answer, &["Yes", "No"])? == Some("Yes"))
}

/// Answer to `SupportsRollback`; nothing means no.
pub fn parse_supports_rollback(answer: &[u8]) -> Result<bool, AnswerError> {
    Ok(parse_choice(Query::SupportsRollback, answer, &["Yes", "No"])? == Some("Yes"))
}

/// Answer to `NeedsArtifactReboot`; nothing means no.
pub fn parse_needs_artifact_reboot(answer: &[u8]) -> Result<NeedsReboot, AnswerError> {
    let choice = parse_choice(Query::NeedsArtifactReboot, answer, &["No", "Automatic", "Yes"])?;
    Ok(match choice {
        Some("Automatic") => NeedsReboot::Automatic,
        Some("Yes") => NeedsReboot::Yes,
        _ => NeedsReboot::No,
    })
}

/// One word out of `allowed`, in exact case, on at most one line; `None` if nothing was answered.
pub fn parse_choice<'w>(query: Query, answer: &[u8], allowed: &[&'w str]) -> Result<Option<&'w str>, AnswerError> {
    let text = check_text(query, answer)?;
    let word = text.strip_suffix('\n').unwrap_or(text);
    let lines = word.split('\n').count();
    if lines > 1 {
        return Err(AnswerError::TooManyLines { query, lines, allowed: 1 });
    }
    if word.is_empty() {
        return Ok(None);
    }
    let found = allowed.iter().find(|candidate| **candidate == word).copied();
    found.map(Some).ok_or_else(|| {
        let expected = allowed.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        AnswerError::UnknownWord { query, answer: excerpt(word), expected }
    })
}

/// Answer to `Identity`: the id out of the one line `id=<id>`; blank lines do not count.
///
/// The id becomes a directory name and part of keys: 1 to [`ID_LIMIT`] bytes, no `/`, not `.` or `..`, no control
/// characters, no blanks at its ends.
pub fn parse_identity(answer: &[u8]) -> Result<String, AnswerError> {
    let query = Query::Identity;
    let text = check_text(query, answer)?;
    let mut lines = filled_lines(text);
    let Some((line, content)) = lines.next() else {
        return Err(AnswerError::Empty { query });
    };
    let more = lines.count();
    if more > 0 {
        return Err(AnswerError::TooManyLines { query, lines: more + 1, allowed: 1 });
    }
    let refuse = |reason: String| AnswerError::Line { query, line, text: excerpt(content), reason };
    let Some(id) = content.strip_prefix("id=") else {
        return Err(refuse("expected \"id=\" and the id of the Component".to_owned()));
    };
    match check_path_component(id, ID_LIMIT) {
        Ok(()) => Ok(id.to_owned()),
        Err(defect) => Err(refuse(format!("the id {defect}"))),
    }
}

/// Answer to `Provides` of a Component with this Interface: one `key=value` per line, split at the first `=`.
///
/// Refused are lists (a key that repeats), `device_type`, and both version keys together. That there is a version key at
/// all is for [`require_version_key`] to check, because it matters for deployments only.
pub fn parse_provides(answer: &[u8], interface: &str) -> Result<BTreeMap<String, String>, AnswerError> {
    let query = Query::Provides;
    let mut provides = BTreeMap::new();
    let own_key = interface_version_key(interface);
    for Pair { line, text, key, value } in parse_pairs(query, answer)? {
        let refuse = |reason: &str| AnswerError::Line { query, line, text: excerpt(text), reason: reason.to_owned() };
        // The protocol has no spaces around the "="; taken as they are they would never match an Artifact's.
        if key.ends_with(' ') || value.starts_with(' ') {
            return Err(refuse("there must be no spaces around \"=\""));
        }
        if key == "device_type" {
            return Err(refuse("\"device_type\" is prohibited, it is the Component type of the Topology"));
        }
        match provides.entry(key.to_owned()) {
            Entry::Vacant(entry) => entry.insert(value.to_owned()),
            Entry::Occupied(_) => return Err(refuse("the key repeats, and lists are prohibited")),
        };
        if provides.contains_key(MENDER_VERSION_KEY) && provides.contains_key(&own_key) {
            return Err(AnswerError::TwoVersions { key: own_key, line });
        }
    }
    Ok(provides)
}

/// Answer to `Inventory`: one `key=value` per line, in order; a key that repeats is a list.
pub fn parse_inventory(answer: &[u8]) -> Result<Vec<(String, String)>, AnswerError> {
    let pairs = parse_pairs(Query::Inventory, answer)?;
    Ok(pairs.into_iter().map(|pair| (pair.key.trim_end_matches(' ').to_owned(), pair.value.to_owned())).collect())
}

/// The version key of a Component that runs Mender.
pub const MENDER_VERSION_KEY: &str = "rootfs-image.version";

/// The version key of a Component that does not run Mender.
pub fn interface_version_key(interface: &str) -> String {
    format!("rootfs-image.{interface}.version")
}

/// The version key of a Component with this Interface, and its value; `None` if it reports no version.
pub fn version_key<'p>(provides: &'p BTreeMap<String, String>, interface: &str) -> Option<(&'p str, &'p str)> {
    let own = interface_version_key(interface);
    [own.as_str(), MENDER_VERSION_KEY]
        .into_iter()
        .find_map(|key| provides.get_key_value(key))
        .map(|(key, value)| (key.as_str(), value.as_str()))
}

/// [`version_key`], or the error that tells why nothing can be deployed to the Component.
pub fn require_version_key<'p>(
    provides: &'p BTreeMap<String, String>,
    interface: &str,
) -> Result<(&'p str, &'p str), AnswerError> {
    version_key(provides, interface).ok_or_else(|| AnswerError::MissingVersion { interface: interface.to_owned() })
}

struct Pair<'a> {
    line: usize,
    text: &'a str,
    key: &'a str,
    value: &'a str,
}

fn parse_pairs(query: Query, answer: &[u8]) -> Result<Vec<Pair<'_>>, AnswerError> {
    let text = check_text(query, answer)?;
    let count = filled_lines(text).count();
    if count > LINES_LIMIT {
        return Err(AnswerError::TooManyLines { query, lines: count, allowed: LINES_LIMIT });
    }
    filled_lines(text).map(|(line, text)| parse_pair(query, line, text)).collect()
}

fn parse_pair(query: Query, line: usize, text: &str) -> Result<Pair<'_>, AnswerError> {
    let refuse = |reason: String| AnswerError::Line { query, line, text: excerpt(text), reason };
    let (key, value) = text.split_once('=').ok_or_else(|| refuse("there is no \"=\"".to_owned()))?;
    check_name(key.trim_end_matches(' '), KEY_LIMIT).map_err(|defect| refuse(format!("the key {defect}")))?;
    if value.len() > VALUE_LIMIT {
        return Err(refuse(format!("the value is longer than {VALUE_LIMIT} bytes")));
    }
    Ok(Pair { line, text, key, value })
}

/// The lines that are not blank, with their number from 1.
fn filled_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

/// Size, encoding and characters.
fn check_text(query: Query, answer: &[u8]) -> Result<&str, AnswerError> {
    if answer.len() > ANSWER_LIMIT {
        return Err(AnswerError::TooLong { query, size: answer.len() });
    }
    let line_at = |end: usize| answer.iter().take(end).filter(|byte| **byte == b'\n').count() + 1;
    let text =
        std::str::from_utf8(answer).map_err(|error| AnswerError::Utf8 { query, line: line_at(error.valid_up_to()) })?;
    match text.char_indices().find(|(_, character)| character.is_control() && *character != '\n') {
        Some((index, character)) => Err(AnswerError::Control { query, line: line_at(index), character }),
        None => Ok(text),
    }
}
