//! The `a{sv}` that ends every call: nothing unknown, nothing of a wrong type gets past here, because a mistyped option
//! of an update must not silently change the update.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;

use zbus::{OwnedVariant, Variant};

use crate::core::error::{Error, Kind};
use crate::update::handle::{InventoryScope, ManifestRequest, RebootMode, RunOptions, StopPoint};
use crate::vplc::engine::{Size, Terminal};

/// Bytes that a Manifest or a Topology given as text may have.
pub const MAX_DOCUMENT: usize = 1 << 20;
/// Bytes that a path given as an option may have; the kernel takes no longer ones.
const MAX_PATH: usize = 4096;
/// Lines of output that are shown at once.
const MAX_LINES: u32 = 10_000;
/// Size of a terminal whose caller does not tell it.
const ROWS: u16 = 24;
const COLUMNS: u16 = 80;
/// Characters of the caller's own words that an error message repeats.
const MAX_QUOTE: usize = 64;

/// The options of one call.
pub(super) struct Options {
    method: &'static str,
    values: HashMap<String, OwnedVariant>,
}

impl Options {
    /// The options of `method`, which takes those in `known` and no others.
    pub(super) fn new(
        method: &'static str,
        known: &[&str],
        values: HashMap<String, OwnedVariant>,
    ) -> Result<Self, Error> {
        let unknown = values.keys().filter(|key| !known.contains(&key.as_str())).min();
        match unknown {
            None => Ok(Self { method, values }),
            Some(key) if known.is_empty() => {
                Err(invalid(format!("{method} takes no options, but \"{}\" was given.", quote(key))))
            }
            Some(key) => Err(invalid(format!(
                "{method} has no option \"{}\"; it takes {}.",
                quote(key),
                known.iter().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&Variant<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.values.remove(key) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => {
                Err(self.bad(key, &format!("has the type \"{}\", but {expected} is expected", value.value_signature())))
            }
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, Error> {
        self.take(key, "a string (\"s\")", |value| match value {
            Variant::Str(text) => Some(text.to_string()),
            _ => None,
        })
    }

    fn words(&mut self, key: &str) -> Result<Vec<String>, Error> {
        let words = self.take(key, "an array of strings (\"as\")", |value| match value {
            Variant::Array(array) if value.value_signature() == "as" => array
                .iter()
                .map(|word| match word {
                    Variant::Str(word) => Some(word.to_string()),
                    _ => None,
                })
                .collect(),
            _ => None,
        })?;
        Ok(words.unwrap_or_default())
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, Error> {
        self.take(key, "a boolean (\"b\")", |value| match value {
            Variant::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    fn document(&mut self, key: &str) -> Result<Option<String>, Error> {
        let document = self.text(key)?;
        if let Some(length) = document.as_ref().map(String::len).filter(|length| *length > MAX_DOCUMENT) {
            return Err(self.bad(key, &format!("has {length} bytes, but at most {MAX_DOCUMENT} are allowed")));
        }
        Ok(document)
    }

    fn parse<T: FromStr<Err = Error>>(&self, key: &str, word: &str) -> Result<T, Error> {
        quote(word).parse().map_err(|error: Error| {
            invalid(format!("The option \"{key}\" of {} is not valid. {}", self.method, error.message))
        })
    }

    fn bad(&self, key: &str, fault: &str) -> Error {
        invalid(format!("The option \"{key}\" of {} {fault}.", self.method))
    }

    /// `base-directory` and `topology-components`, around the Manifest itself.
    pub(super) fn manifest(&mut self, manifest: &str) -> Result<ManifestRequest, Error> {
        if manifest.len() > MAX_DOCUMENT {
            return Err(invalid(format!(
                "The argument \"manifest\" of {} has {} bytes, but at most {MAX_DOCUMENT} are allowed.",
                self.method,
                manifest.len()
            )));
        }
        let base_directory = match self.text("base-directory")? {
            Some(path) if path.len() > MAX_PATH => {
                return Err(self.bad("base-directory", &format!("is longer than {MAX_PATH} bytes")));
            }
            Some(path) if !path.starts_with('/') => {
                return Err(self.bad("base-directory", &format!("is \"{}\", which is no absolute path", quote(&path))));
            }
            path => path.map(PathBuf::from),
        };
        let topology_components = self.document("topology-components")?;
        Ok(ManifestRequest { text: manifest.to_owned(), base_directory, topology_components })
    }

    /// `stop-before` and `reboot`.
    pub(super) fn run(&mut self) -> Result<RunOptions, Error> {
        let mut stop_before = BTreeSet::new();
        for word in self.words("stop-before")? {
            stop_before.insert(self.parse::<StopPoint>("stop-before", &word)?);
        }
        let reboot = match self.text("reboot")? {
            Some(word) => self.parse::<RebootMode>("reboot", &word)?,
            None => RebootMode::default(),
        };
        Ok(RunOptions { stop_before, reboot })
    }

    /// `wait`.
    pub(super) fn wait(&mut self) -> Result<bool, Error> {
        Ok(self.flag("wait")?.unwrap_or_default())
    }

    /// `force`.
    pub(super) fn force(&mut self) -> Result<bool, Error> {
        Ok(self.flag("force")?.unwrap_or_default())
    }

    /// `keep-data`.
    pub(super) fn keep_data(&mut self) -> Result<bool, Error> {
        Ok(self.flag("keep-data")?.unwrap_or_default())
    }

    /// `lines`: how many lines of output.
    pub(super) fn lines(&mut self) -> Result<Option<u32>, Error> {
        let lines = self.take("lines", "a number (\"u\")", |value| u32::try_from(value).ok())?;
        match lines {
            Some(number) if !(1..=MAX_LINES).contains(&number) => {
                Err(self.bad("lines", &format!("is {number}, but a number from 1 to {MAX_LINES} is expected")))
            }
            lines => Ok(lines),
        }
    }

    /// `terminal`, `rows` and `columns`: the terminal of a command; none if `terminal` is not given.
    pub(super) fn terminal(&mut self) -> Result<Option<Terminal>, Error> {
        let kind = self.text("terminal")?;
        let (rows, columns) = (self.characters("rows", ROWS)?, self.characters("columns", COLUMNS)?);
        match kind {
            Some(kind) if kind.len() > MAX_QUOTE || !kind.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(self.bad("terminal", "is no name of a terminal, such as \"xterm\""))
            }
            kind => Ok(kind.map(|kind| Terminal { kind, size: Size { rows, columns } })),
        }
    }

    fn characters(&mut self, key: &str, default: u16) -> Result<u16, Error> {
        let number = self.take(key, "a number (\"u\")", |value| u32::try_from(value).ok())?;
        let Some(number) = number else { return Ok(default) };
        let number = u16::try_from(number).ok().filter(|number| *number > 0);
        number.ok_or_else(|| self.bad(key, "is no number from 1 to 65535"))
    }

    /// `image`: an open file.
    pub(super) fn image(&mut self) -> Result<Option<File>, Error> {
        let file = self.take("image", "a file descriptor (\"h\")", |value| match value {
            Variant::Fd(fd) => fd.as_fd().try_clone_to_owned().ok().map(File::from),
            _ => None,
        })?;
        file.map(|file| regular(file).map_err(|fault| self.bad("image", fault))).transpose()
    }

    /// `scope` and `topology-components`.
    pub(super) fn inventory(&mut self) -> Result<(InventoryScope, Option<String>), Error> {
        let scope = match self.text("scope")?.as_deref() {
            None | Some("all") => InventoryScope::All,
            Some("provides") => InventoryScope::Provides,
            Some(word) => {
                let fault = format!("is \"{}\", but \"all\" or \"provides\" is expected", quote(word));
                return Err(self.bad("scope", &fault));
            }
        };
        Ok((scope, self.document("topology-components")?))
    }
}

/// The caller's own word, cut so that the error reply stays small.
fn quote(word: &str) -> String {
    match word.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{}...", &word[..end]),
        None => word.to_owned(),
    }
}

/// A file that can be read to its end: what is read from a pipe may never come, and a directory cannot be read at all.
pub(super) fn regular(file: File) -> Result<File, &'static str> {
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) { Ok(file) } else { Err("is not a regular file") }
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidArgs, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options<const N: usize>(known: &[&str], values: [(&str, Variant<'static>); N]) -> Result<Options, Error> {
        let values = values.map(|(key, value)| (key.to_owned(), value.try_into_owned().unwrap()));
        Options::new("Install", known, HashMap::from(values))
    }

    fn message<T>(result: Result<T, Error>) -> String {
        let error = result.err().unwrap();
        assert_eq!(error.kind, Kind::InvalidArgs);
        error.message
    }

    #[test]
    fn an_unknown_key_is_named_beside_the_known_ones() {
        let result = options(&["reboot", "stop-before"], [("rebot", "auto".into())]);
        assert_eq!(message(result), "Install has no option \"rebot\"; it takes \"reboot\", \"stop-before\".");
        assert_eq!(message(options(&[], [("x", 1_u32.into())])), "Install takes no options, but \"x\" was given.");
        let long = "k".repeat(1000);
        let result = options(&[], [(long.as_str(), 1_u32.into())]);
        assert_eq!(message(result), format!("Install takes no options, but \"{}...\" was given.", "k".repeat(64)));
    }

    #[test]
    fn a_wrong_type_names_the_key_and_both_types() {
        let mut given = options(&["reboot"], [("reboot", true.into())]).unwrap();
        assert_eq!(
            message(given.run()),
            "The option \"reboot\" of Install has the type \"b\", but a string (\"s\") is expected."
        );
        let mut given = options(&["stop-before"], [("stop-before", vec![1_u32].into())]).unwrap();
        assert_eq!(
            message(given.run()),
            "The option \"stop-before\" of Install has the type \"au\", but an array of strings (\"as\") is expected."
        );
        let mut given = options(&["force"], [("force", "yes".into())]).unwrap();
        assert_eq!(
            message(given.force()),
            "The option \"force\" of Install has the type \"s\", but a boolean (\"b\") is expected."
        );
    }

    #[test]
    fn a_wrong_word_names_the_key_and_the_choice() {
        let mut given = options(&["stop-before"], [("stop-before", vec!["Download"].into())]).unwrap();
        let message_of_stop = message(given.run());
        assert!(
            message_of_stop.starts_with("The option \"stop-before\" of Install is not valid. "),
            "{message_of_stop}"
        );
        assert!(message_of_stop.contains("\"Download\""), "{message_of_stop}");
        let mut given = options(&["reboot"], [("reboot", "never".into())]).unwrap();
        assert!(message(given.run()).contains("\"never\""));
        let mut given = options(&["scope"], [("scope", "some".into())]).unwrap();
        assert_eq!(
            message(given.inventory()),
            "The option \"scope\" of Install is \"some\", but \"all\" or \"provides\" is expected."
        );
    }

    #[test]
    fn everything_valid_arrives() {
        let mut given = options(
            &["base-directory", "topology-components", "stop-before", "reboot", "force"],
            [
                ("base-directory", "/data".into()),
                ("topology-components", "components: []".into()),
                ("stop-before", vec!["Cleanup", "ArtifactCommit", "Cleanup"].into()),
                ("reboot", "defer".into()),
                ("force", true.into()),
            ],
        )
        .unwrap();
        let manifest = given.manifest("text").unwrap();
        assert_eq!(manifest.text, "text");
        assert_eq!(manifest.base_directory, Some(PathBuf::from("/data")));
        assert_eq!(manifest.topology_components.as_deref(), Some("components: []"));
        let run = given.run().unwrap();
        assert_eq!(run.stop_before, BTreeSet::from([StopPoint::ArtifactCommit, StopPoint::Cleanup]));
        assert_eq!(run.reboot, RebootMode::Defer);
        assert!(given.force().unwrap());
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let mut given = options(&[], []).unwrap();
        assert_eq!(given.run().unwrap(), RunOptions::default());
        assert_eq!(given.inventory().unwrap(), (InventoryScope::All, None));
        assert!(!given.force().unwrap());
    }

    #[test]
    fn sizes_are_bounded() {
        let mut given = options(&[], []).unwrap();
        assert!(given.manifest(&"m".repeat(MAX_DOCUMENT)).is_ok());
        assert_eq!(
            message(given.manifest(&"m".repeat(MAX_DOCUMENT + 1))),
            "The argument \"manifest\" of Install has 1048577 bytes, but at most 1048576 are allowed."
        );
        let document = "t".repeat(MAX_DOCUMENT + 1);
        let mut given = options(&["topology-components"], [("topology-components", document.into())]).unwrap();
        assert!(message(given.manifest("")).starts_with("The option \"topology-components\" of Install has 1048577"));
        let path = format!("/{}", "p".repeat(MAX_PATH));
        let mut given = options(&["base-directory"], [("base-directory", path.into())]).unwrap();
        assert!(message(given.manifest("")).contains("longer than 4096 bytes"));
    }

    #[test]
    fn a_relative_base_directory_is_refused() {
        for path in ["", "data", "./data"] {
            let mut given = options(&["base-directory"], [("base-directory", path.into())]).unwrap();
            assert!(message(given.manifest("")).contains("no absolute path"), "{path:?}");
        }
    }
}
