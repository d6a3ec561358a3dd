//! Loads the YAML documents that come from outside: bounded, with the place of every error.
//!
//! One parser decides what is accepted. It is `granit-parser`, an event parser that gives the position of every node;
//! `node` builds a tree from its events and `field` reads typed values out of that tree. A deserialiser would lose
//! the positions that semantic errors need.

mod field;
mod node;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

pub(crate) use self::field::{Field, Section, Warnings};
use crate::core::error::{Error, Kind};
use crate::core::name::file_escape;

/// Collections may be nested this deep.
pub const DEPTH_LIMIT: usize = 64;
/// A document may have this many values, counted after every alias is replaced by what it stands for.
pub const NODES_LIMIT: usize = 100_000;
/// All strings of a document together may have this many bytes, counted like [`NODES_LIMIT`].
pub const EXPANDED_LIMIT: usize = 4 * 1024 * 1024;
/// A name (of a Manifest, System type, Component type, Interface, Artifact) may have this many bytes.
pub const NAME_LIMIT: usize = 256;
/// A name that becomes a directory entry may have this many bytes once it is escaped: below the 255 of Linux, with room for
/// what may be put around it.
pub const ENTRY_LIMIT: usize = 240;
/// Of one document at most this many warnings are told one by one.
pub const WARNINGS_LIMIT: usize = 50;

/// What a document is; decides how large it may be and what kind of error it causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// The state a System is to have.
    Manifest,
    /// What a System consists of.
    Topology,
    /// The settings of the daemon.
    Configuration,
    /// What a NIC is to be.
    Nic,
    /// What a vPLC is to be.
    Vplc,
}

impl DocumentKind {
    /// Size in bytes that such a document may have.
    ///
    /// For a Manifest it is also the limit of the Mender Server.
    pub const fn limit(self) -> usize {
        match self {
            Self::Manifest | Self::Topology => 1024 * 1024,
            Self::Configuration => 256 * 1024,
            Self::Nic | Self::Vplc => 64 * 1024,
        }
    }

    const fn error_kind(self) -> Kind {
        match self {
            Self::Manifest => Kind::InvalidManifest,
            Self::Topology => Kind::InvalidTopology,
            Self::Configuration => Kind::InvalidConfiguration,
            Self::Nic => Kind::InvalidNic,
            Self::Vplc => Kind::InvalidVplc,
        }
    }
}

/// A text from outside, not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it came from, for messages: the path of the file, or `manifest` if it came over the bus.
    pub origin: String,
    /// The text.
    pub text: String,
}

impl Document {
    /// A document whose text came over the bus or is part of a record.
    pub fn new(origin: impl Into<String>, text: impl Into<String>) -> Self {
        Self { origin: origin.into(), text: text.into() }
    }

    /// Reads a file, at most [`DocumentKind::limit`] bytes of it. Blocks on the disk, but never on a FIFO.
    ///
    /// Errors: it cannot be read, is not a regular file, is too large, or is not UTF-8.
    pub fn read(path: &Path, kind: DocumentKind) -> Result<Self, DocumentError> {
        let origin = path.display().to_string();
        match read_regular_file(path, kind.limit()) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Self { origin, text }),
                Err(error) => {
                    let valid = error.utf8_error().valid_up_to();
                    let bytes = error.into_bytes();
                    let place = place_after(&String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default()));
                    Err(DocumentError { kind, origin, place: Some(place), key: String::new(), problem: Problem::Utf8 })
                }
            },
            Err(problem) => Err(DocumentError { kind, origin, place: None, key: String::new(), problem }),
        }
    }

    /// Parses the text as the mapping that every document of ours is, and hands it to `read`. Keys that `read` did not
    /// ask for become warnings.
    pub(crate) fn load<T>(
        &self,
        kind: DocumentKind,
        warnings: &mut Warnings,
        read: impl FnOnce(&mut Section<'_>, &mut Warnings) -> Result<T, DocumentError>,
    ) -> Result<T, DocumentError> {
        let source = Source { kind, origin: &self.origin };
        let root = node::parse(source, &self.text)?;
        let mut section = Field::root(source, &root).section()?;
        let before = warnings.len();
        let value = read(&mut section, warnings)?;
        section.warn_of_unknown_keys(warnings);
        warnings.sort_from(before);
        Ok(value)
    }
}

fn read_regular_file(path: &Path, limit: usize) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Problem::NotFound,
        _ => Problem::Unreadable(reason(&error)),
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits())
        .open(path)
        .map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(Problem::NotAFile);
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells "just fits" from "too large", also while somebody appends to the file.
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > limit {
        return Err(Problem::TooLarge { limit });
    }
    Ok(bytes)
}

/// The text of an I/O error without the "(os error 2)" that the standard library appends.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A position in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Where one stands after this text.
pub(crate) fn place_after(text: &str) -> Place {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place { line, column }
}

/// Which document is being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'t> {
    kind: DocumentKind,
    origin: &'t str,
}

impl Source<'_> {
    fn error(self, place: Place, key: impl Into<String>, problem: Problem) -> DocumentError {
        DocumentError { kind: self.kind, origin: self.origin.to_owned(), place: Some(place), key: key.into(), problem }
    }
}

/// A document that is refused. Its message has the form `origin:line:column: sentence`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct DocumentError {
    /// What the document was to be.
    pub kind: DocumentKind,
    /// Where it came from, as in [`Document::origin`].
    pub origin: String,
    /// Where the defect is; none if the text could not even be had.
    pub place: Option<Place>,
    /// Path of the key, such as `component_types.rtos.update_strategy.order`; empty for the document as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no such file.
    NotFound,
    /// The file cannot be opened or read; the reason of the system.
    Unreadable(String),
    /// The path leads to a directory, FIFO, socket or device.
    NotAFile,
    /// The text is larger than allowed.
    TooLarge {
        /// Bytes that are allowed.
        limit: usize,
    },
    /// The text is not UTF-8.
    Utf8,
    /// The text holds a NUL character.
    Nul,
    /// The text holds no YAML document.
    Empty,
    /// The text holds more than one YAML document.
    SeveralDocuments,
    /// The text is not YAML; the parser's reason.
    Syntax(String),
    /// Nested deeper than [`DEPTH_LIMIT`].
    TooDeep,
    /// More values than [`NODES_LIMIT`] or longer strings than [`EXPANDED_LIMIT`], aliases replaced.
    TooMany,
    /// An alias inside the very node it stands for.
    AliasOfItself,
    /// The key `<<`, which YAML 1.1 gave a meaning that YAML 1.2 took away.
    MergeKey,
    /// A mapping key that is a list, a mapping, an alias or nothing.
    KeyIsNoString,
    /// A key for the second time in the same mapping.
    DuplicateKey {
        /// Where the first one stands.
        first_line: usize,
    },
    /// A tag other than those for strings, lists and mappings.
    Tag(String),
    /// A key that must be there is not; the position is that of the mapping that lacks it.
    Missing,
    /// A value has another type than it must have.
    WrongType {
        /// With article, such as "a list".
        expected: &'static str,
        /// With article, such as "a string".
        found: &'static str,
    },
    /// A value has the right type and is still wrong; the sentence goes on after the key.
    Invalid(String),
}

impl DocumentError {
    fn sentence(&self) -> String {
        let text = match &self.problem {
            Problem::NotFound => return format!("Cannot read \"{}\": No such file or directory.", self.origin),
            Problem::Unreadable(reason) => return format!("Cannot read \"{}\": {reason}.", self.origin),
            Problem::NotAFile => return format!("\"{}\" is not a regular file.", self.origin),
            Problem::TooLarge { limit } => return format!("\"{}\" is larger than {limit} bytes.", self.origin),
            Problem::Utf8 => "The text is not valid UTF-8.".to_owned(),
            Problem::Nul => "The text contains a NUL character.".to_owned(),
            Problem::Empty => "The document is empty.".to_owned(),
            Problem::SeveralDocuments => "A second YAML document begins here; only one is allowed.".to_owned(),
            Problem::Syntax(reason) => format!("The YAML is malformed: {reason}."),
            Problem::TooDeep => format!("{} is nested deeper than {DEPTH_LIMIT} levels.", self.subject()),
            Problem::TooMany => format!(
                "The document has more than {NODES_LIMIT} values or {EXPANDED_LIMIT} bytes of text, aliases replaced."
            ),
            Problem::AliasOfItself => format!("{} is an alias of something that contains it.", self.subject()),
            Problem::MergeKey => {
                format!("{} is a merge key, which is not supported: write the keys out.", self.subject())
            }
            Problem::KeyIsNoString => format!("A key of {} is not a string.", self.whole()),
            Problem::DuplicateKey { first_line } => {
                format!(
                    "The key {} stands here for the second time; the first is in line {first_line}.",
                    self.subject()
                )
            }
            Problem::Tag(tag) => format!("{} has the tag \"{tag}\", which is not supported.", self.subject()),
            Problem::Missing => format!("The key {} is missing.", self.subject()),
            Problem::WrongType { expected, found } => {
                format!("{} must be {expected}, but it is {found}.", self.subject())
            }
            Problem::Invalid(rest) => format!("{} {rest}", self.subject()),
        };
        match self.place {
            Some(Place { line, column }) => format!("{}:{line}:{column}: {text}", self.origin),
            None => format!("{}: {text}", self.origin),
        }
    }

    fn subject(&self) -> String {
        if self.key.is_empty() { "The document".to_owned() } else { format!("\"{}\"", self.key) }
    }

    fn whole(&self) -> String {
        if self.key.is_empty() { "the document".to_owned() } else { format!("\"{}\"", self.key) }
    }
}

impl From<DocumentError> for Error {
    fn from(error: DocumentError) -> Self {
        Self::new(error.kind.error_kind(), error.to_string())
    }
}

/// A foreign text, fit to stand in a message of one line: control characters escaped, cut after 80 characters.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN {
            shown.push('…');
            break;
        }
        if character.is_control() || character == '\u{2028}' || character == '\u{2029}' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Why a text cannot be a name: shared by every document and answer that names something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameDefect {
    /// Nothing at all.
    Empty,
    /// More bytes than allowed.
    TooLong(usize),
    /// A control character, such as a newline.
    Control,
    /// Blanks in front of it or behind it, which nobody sees.
    Blanks,
    /// A `/`, or it is `.` or `..`.
    Path,
    /// Longer than [`ENTRY_LIMIT`] once it is escaped.
    Entry,
}

impl fmt::Display for NameDefect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("is empty"),
            Self::TooLong(limit) => write!(formatter, "is longer than {limit} bytes"),
            Self::Control => formatter.write_str("contains a control character"),
            Self::Blanks => formatter.write_str("begins or ends with blanks"),
            Self::Entry => write!(formatter, "is longer than {ENTRY_LIMIT} bytes once it is escaped for a directory"),
            Self::Path => formatter.write_str("must not contain \"/\" or be \".\" or \"..\""),
        }
    }
}

/// Checks what every name must fulfil: 1 to `limit` bytes, no control character, no blanks at its ends.
pub(crate) fn check_name(name: &str, limit: usize) -> Result<(), NameDefect> {
    if name.is_empty() {
        Err(NameDefect::Empty)
    } else if name.len() > limit {
        Err(NameDefect::TooLong(limit))
    } else if name.chars().any(char::is_control) {
        Err(NameDefect::Control)
    } else if name.trim() != name {
        Err(NameDefect::Blanks)
    } else {
        Ok(())
    }
}

/// Checks a name that also becomes one entry of a directory or one part of a path.
pub(crate) fn check_path_component(name: &str, limit: usize) -> Result<(), NameDefect> {
    check_name(name, limit)?;
    if name.contains('/') || name == "." || name == ".." {
        Err(NameDefect::Path)
    } else if file_escape(name).len() > ENTRY_LIMIT {
        Err(NameDefect::Entry)
    } else {
        Ok(())
    }
}
