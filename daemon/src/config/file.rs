//! One configuration file: JSON whose values know where they stand.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ConfigError, LIST_LIMIT, STRING_LIMIT};
use crate::core::document::{Document, DocumentKind, Place, Problem, WARNINGS_LIMIT, excerpt, place_after};

/// Every option there is; a dot separates the two levels.
pub(super) const KEYS: [&str; 31] = [
    "ArtifactVerifyKey",
    "ArtifactVerifyKeys",
    "ArtifactSources.Directory",
    "ArtifactSources.ServerUrl",
    "ArtifactSources.TokenFile",
    "ArtifactSources.Url",
    "ArtifactsCache.Enabled",
    "ArtifactsCache.MaxSizeBytes",
    "ArtifactsCache.Path",
    "ArtifactsCache.Strict",
    "DownloadTimeoutSeconds",
    "EngineSocket",
    "HostHistory",
    "HttpsClient.Certificate",
    "HttpsClient.Key",
    "HttpsClient.SSLEngine",
    "InterfaceTimeoutSeconds",
    "LogLevel",
    "ManifestStore",
    "MaxParallel",
    "MetricsSocket",
    "QueryTimeoutSeconds",
    "RebootCommand",
    "RebootTimeoutSeconds",
    "RetryDownloadCount",
    "Runner",
    "ServerCertificate",
    "TopologyComponents",
    "ArtifactSources",
    "ArtifactsCache",
    "HttpsClient",
];
/// Those of them that hold others.
const SECTIONS: [&str; 3] = ["ArtifactSources", "ArtifactsCache", "HttpsClient"];

/// Reads a file that may be absent.
pub(super) fn read_optional(path: &Path) -> Result<Option<Document>, ConfigError> {
    match Document::read(path, DocumentKind::Configuration) {
        Ok(document) => Ok(Some(document)),
        Err(error) if error.problem == Problem::NotFound => {
            let dangles = |link: &&Path| link.is_symlink() && !link.exists();
            match path.ancestors().find(dangles) {
                Some(link) => Err(ConfigError::DanglingLink { file: path.to_owned(), link: link.to_owned() }),
                None => Ok(None),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// The options of one file.
pub(super) struct File<'t> {
    document: &'t Document,
    values: BTreeMap<&'static str, &'t RawValue>,
}

impl<'t> File<'t> {
    /// Takes the options out of a file. Unknown ones become warnings, repeated ones are errors.
    pub(super) fn parse(document: &'t Document, warnings: &mut Vec<String>) -> Result<Self, ConfigError> {
        let Object(entries) = serde_json::from_str(&document.text).map_err(|error| json_error(document, &error))?;
        let mut file = Self { document, values: BTreeMap::new() };
        let mut unknown = Vec::new();
        file.take("", entries, &mut unknown)?;
        let untold = unknown.len().saturating_sub(WARNINGS_LIMIT);
        warnings.extend(unknown.into_iter().take(WARNINGS_LIMIT));
        if untold > 0 {
            warnings.push(format!("{}: There are {untold} more unknown options.", document.origin));
        }
        Ok(file)
    }

    fn take(&mut self, section: &str, entries: Vec<Member<'t>>, unknown: &mut Vec<String>) -> Result<(), ConfigError> {
        for (key, value) in entries {
            let name: Cow<'_, str> =
                serde_json::from_str(key.get()).map_err(|error| json_error(self.document, &error))?;
            let path = if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
            // A dot inside a name must not reach into a section.
            let known = KEYS.into_iter().find(|known| *known == path && !name.contains('.'));
            let shown = Value { document: self.document, key: excerpt(&path), raw: key };
            let Some(known) = known else {
                unknown.push(shown.remark("is not a known option and is ignored."));
                continue;
            };
            if self.values.insert(known, value).is_some() {
                return Err(shown.invalid("stands here for the second time"));
            }
            if SECTIONS.contains(&known) {
                let section = Value { document: self.document, key: path, raw: value };
                let Ok(Object(entries)) = serde_json::from_str(value.get()) else {
                    return Err(section.wrong_type("an object"));
                };
                self.take(known, entries, unknown)?;
            }
        }
        Ok(())
    }

    /// The value of an option of this file.
    pub(super) fn get(&self, key: &str) -> Option<Value<'_>> {
        let raw = self.values.get(key)?;
        Some(Value { document: self.document, key: key.to_owned(), raw })
    }
}

fn json_error(document: &Document, error: &serde_json::Error) -> ConfigError {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
    let place = Place { line: error.line().max(1), column: error.column().max(1) };
    ConfigError::Json { file: document.origin.clone(), place, reason }
}

/// A JSON object as its members, names and values still in the words of the file.
struct Object<'t>(Vec<Member<'t>>);
type Member<'t> = (&'t RawValue, &'t RawValue);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// The value of an option, with its place.
pub(super) struct Value<'t> {
    document: &'t Document,
    key: String,
    raw: &'t RawValue,
}

impl<'t> Value<'t> {
    /// The file.
    pub(super) fn file(&self) -> &'t str {
        &self.document.origin
    }

    /// Where the value stands. It is a slice of the text, so the distance of the two says it.
    pub(super) fn place(&self) -> Place {
        let offset = self.raw.get().as_ptr().addr().saturating_sub(self.document.text.as_ptr().addr());
        place_after(self.document.text.get(..offset).unwrap_or_default())
    }

    /// What is wrong with the value; goes on after the key, without a full stop.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            file: self.file().to_owned(),
            place: self.place(),
            key: self.key.clone(),
            reason: reason.into(),
        }
    }

    /// A remark on the value; goes on after the key.
    pub(super) fn remark(&self, rest: &str) -> String {
        let Place { line, column } = self.place();
        format!("{}:{line}:{column}: \"{}\" {rest}", self.file(), self.key)
    }

    fn wrong_type(&self, expected: &str) -> ConfigError {
        let found = match self.raw.get().bytes().next() {
            Some(b'"') => "a string",
            Some(b'[') => "a list",
            Some(b'{') => "an object",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        };
        self.invalid(format!("must be {expected}, but it is {found}"))
    }

    /// A boolean.
    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.wrong_type("a boolean"))
    }

    /// An integer in a range.
    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let text = self.raw.get();
        if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Err(self.wrong_type("an integer"));
        }
        serde_json::from_str(text).ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            self.invalid(format!("must be an integer from {low} to {high}, but it is {}", excerpt(text)))
        })
    }

    /// A string, maybe empty.
    pub(super) fn string_or_empty(&self) -> Result<String, ConfigError> {
        let text: String = serde_json::from_str(self.raw.get()).map_err(|_| self.wrong_type("a string"))?;
        if text.len() > STRING_LIMIT {
            return Err(self.invalid(format!("is longer than {STRING_LIMIT} bytes")));
        }
        if text.contains('\0') {
            return Err(self.invalid("contains a NUL character"));
        }
        Ok(text)
    }

    /// A string that is not empty.
    pub(super) fn string(&self) -> Result<String, ConfigError> {
        self.string_of_at_most(STRING_LIMIT)
    }

    /// A string that is not empty, with a limit of bytes.
    pub(super) fn string_of_at_most(&self, limit: usize) -> Result<String, ConfigError> {
        let text = self.string_or_empty()?;
        if text.is_empty() {
            return Err(self.invalid("is empty; remove it to have the default"));
        }
        if text.len() > limit {
            return Err(self.invalid(format!("is longer than {limit} bytes")));
        }
        Ok(text)
    }

    /// An absolute path.
    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        let text = self.string()?;
        if Path::new(&text).is_absolute() {
            return Ok(PathBuf::from(text));
        }
        Err(self.invalid(format!("must be an absolute path, but it is \"{}\"", excerpt(&text))))
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Result<Vec<Value<'t>>, ConfigError> {
        let items: Vec<&'t RawValue> =
            serde_json::from_str(self.raw.get()).map_err(|_| self.wrong_type("a list of strings"))?;
        if items.len() > LIST_LIMIT {
            return Err(self.invalid(format!("has {} items; at most {LIST_LIMIT} are allowed", items.len())));
        }
        let item = |(index, raw)| Value { document: self.document, key: format!("{}[{index}]", self.key), raw };
        Ok(items.into_iter().enumerate().map(item).collect())
    }
}
