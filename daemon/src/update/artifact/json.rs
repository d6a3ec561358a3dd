//! JSON objects of an Artifact, taken apart with messages that name the key.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::ArtifactError;
use super::format::{is_text, quote, text_rule};

/// A JSON object with the member it came from, and the path of keys that leads to it.
pub(super) struct Object<'a> {
    place: &'a str,
    path: String,
    map: Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Parses a member. A key that occurs twice is refused: parsers differ in which one they take.
    pub(super) fn parse(place: &'a str, bytes: &[u8]) -> Result<Self, ArtifactError> {
        match serde_json::from_slice::<Unique>(bytes) {
            Ok(Unique(Value::Object(map))) => Ok(Self { place, path: String::new(), map }),
            Ok(_) => Err(ArtifactError::malformed(place, "is JSON, but not an object")),
            Err(error) => Err(ArtifactError::malformed(place, format!("is not valid JSON ({error})"))),
        }
    }

    /// The value of the key; `None` if the key is absent or null.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// The value of the key, null included.
    pub(super) fn take_nullable(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key)
    }

    /// A text; `None` if the key is absent or null.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ArtifactError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => self.checked(key, text).map(Some),
            Some(_) => Err(self.wrong(key, "has to be a string")),
        }
    }

    /// A list of texts; `None` if the key is absent or null.
    pub(super) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, ArtifactError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(values)) => self.list(key, values).map(Some),
            Some(_) => Err(self.wrong(key, "has to be a list of strings")),
        }
    }

    /// A list of texts that may be absent, but not empty.
    pub(super) fn some_texts(&mut self, key: &str) -> Result<Option<Vec<String>>, ArtifactError> {
        match self.texts(key)? {
            Some(list) if list.is_empty() => Err(self.wrong(key, "may not be an empty list")),
            list => Ok(list),
        }
    }

    /// An object inside; `None` if the key is absent or null.
    pub(super) fn object(&mut self, key: &str) -> Result<Option<Self>, ArtifactError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { place: self.place, path: self.path_of(key), map })),
            Some(_) => Err(self.wrong(key, "has to be an object")),
        }
    }

    /// All entries, each a text.
    pub(super) fn into_texts(mut self) -> Result<BTreeMap<String, String>, ArtifactError> {
        self.entries(|object, key, value| match value {
            Value::String(text) => object.checked(key, text),
            _ => Err(object.wrong(key, "has to be a string")),
        })
    }

    /// All entries, each a text or a list of them that is not empty.
    pub(super) fn into_lists(mut self) -> Result<BTreeMap<String, Vec<String>>, ArtifactError> {
        self.entries(|object, key, value| match value {
            Value::String(text) => Ok(vec![object.checked(key, text)?]),
            Value::Array(values) if !values.is_empty() => object.list(key, values),
            _ => Err(object.wrong(key, "has to be a string or a list of strings that is not empty")),
        })
    }

    /// The error for a key that breaks a rule.
    pub(super) fn wrong(&self, key: &str, rule: &str) -> ArtifactError {
        ArtifactError::malformed(self.place, format!("breaks a rule: {} {rule}", quote(&self.path_of(key))))
    }

    /// The error for a key that is not there.
    pub(super) fn missing(&self, key: &str) -> ArtifactError {
        ArtifactError::malformed(self.place, format!("has no {}", quote(&self.path_of(key))))
    }

    fn entries<T>(
        &mut self,
        convert: impl Fn(&Self, &str, Value) -> Result<T, ArtifactError>,
    ) -> Result<BTreeMap<String, T>, ArtifactError> {
        let map = std::mem::take(&mut self.map);
        map.into_iter()
            .map(|(key, value)| {
                let key = self.checked("a key", key)?;
                let value = convert(self, &key, value)?;
                Ok((key, value))
            })
            .collect()
    }

    fn list(&self, key: &str, values: Vec<Value>) -> Result<Vec<String>, ArtifactError> {
        let text = |value| match value {
            Value::String(text) => self.checked(key, text),
            _ => Err(self.wrong(key, "has to be a list of strings")),
        };
        values.into_iter().map(text).collect()
    }

    fn checked(&self, key: &str, text: String) -> Result<String, ArtifactError> {
        if is_text(&text) {
            return Ok(text);
        }
        Err(ArtifactError::malformed(self.place, text_rule(&self.path_of(key))))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// A [`Value`] whose objects have no key twice. Its depth is bounded by `serde_json`.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Unique(value))) = entries.next_entry::<String, Unique>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {} occurs twice", quote(&key))));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
