//! Reads typed values out of a parsed document; every error knows its place and key.

use std::ops::RangeInclusive;

use super::node::{Entry, Node, Value, push_index, push_key};
use super::{DocumentError, NAME_LIMIT, NameDefect, Place, Problem, Source, WARNINGS_LIMIT};
use super::{check_name, check_path_component, excerpt};

/// Remarks about a document that is accepted nevertheless.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    told: Vec<(Place, String)>,
    untold: usize,
}

impl Warnings {
    /// Adds one; beyond [`WARNINGS_LIMIT`] they are only counted.
    fn push(&mut self, place: Place, warning: impl FnOnce() -> String) {
        if self.told.len() < WARNINGS_LIMIT {
            self.told.push((place, warning()));
        } else {
            self.untold += 1;
        }
    }

    /// How many there are to be told.
    pub(super) fn len(&self) -> usize {
        self.told.len()
    }

    /// Puts those from this index on, which belong to one document, into its order.
    pub(super) fn sort_from(&mut self, index: usize) {
        if let Some(part) = self.told.get_mut(index..) {
            part.sort_by_key(|(place, _)| *place);
        }
    }

    /// All of them, in the order of the document.
    pub(crate) fn into_vec(self) -> Vec<String> {
        let mut warnings: Vec<String> = self.told.into_iter().map(|(_, warning)| warning).collect();
        if self.untold > 0 {
            warnings.push(format!("There are {} more warnings of this kind.", self.untold));
        }
        warnings
    }
}

/// One value of a document.
#[derive(Debug)]
pub(crate) struct Field<'t> {
    source: Source<'t>,
    path: String,
    /// Where its key stands; for the items of a list and the document itself, where the value stands.
    key_place: Place,
    node: &'t Node,
}

impl<'t> Field<'t> {
    pub(super) fn root(source: Source<'t>, node: &'t Node) -> Self {
        Self { source, path: String::new(), key_place: node.place, node }
    }

    /// What is wrong with this value, as an error at its place. The sentence goes on after the key.
    pub(crate) fn invalid(&self, rest: impl Into<String>) -> DocumentError {
        self.error(Problem::Invalid(rest.into()))
    }

    /// What is wrong with this value, as an error at the place of its key.
    pub(crate) fn invalid_key(&self, rest: impl Into<String>) -> DocumentError {
        self.source.error(self.key_place, self.path.clone(), Problem::Invalid(rest.into()))
    }

    /// Its key, such as `component_types.rtos`.
    pub(crate) fn key(&self) -> &str {
        &self.path
    }

    /// The value once more, for an error that is found after it was read.
    pub(crate) fn place(&self) -> Self {
        Self { source: self.source, path: self.path.clone(), key_place: self.key_place, node: self.node }
    }

    /// Where it stands, as messages name it: `origin:line:column`, the place of its key.
    pub(crate) fn position(&self) -> String {
        let Place { line, column } = self.key_place;
        format!("{}:{line}:{column}", self.source.origin)
    }

    /// Whether the value is a list; for values that may be one or many.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Adds a remark on this value, with the place of its key.
    pub(crate) fn remark(&self, warnings: &mut Warnings, rest: &str) {
        let place = self.key_place;
        warnings.push(place, || {
            format!("{}:{}:{}: \"{}\" {rest}", self.source.origin, place.line, place.column, self.path)
        });
    }

    fn error(&self, problem: Problem) -> DocumentError {
        // The parser gives an absent value the position of whatever comes next; its key is what people look for.
        let place = if matches!(self.node.value, Value::Null) { self.key_place } else { self.node.place };
        self.source.error(place, self.path.clone(), problem)
    }

    fn wrong_type(&self, expected: &'static str) -> DocumentError {
        let found = match &self.node.value {
            Value::Null => "empty",
            Value::Scalar { text, plain: true } if is_number(text) => "a number",
            Value::Scalar { .. } => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        };
        self.error(Problem::WrongType { expected, found })
    }

    /// The value as a string. Any scalar is one, in quotes or not: `1.10` and `yes` stay what they are.
    pub(crate) fn text(&self) -> Result<&'t str, DocumentError> {
        match &self.node.value {
            Value::Scalar { text, .. } => Ok(text),
            _ => Err(self.wrong_type("a string")),
        }
    }

    /// The value as a string of at most `limit` bytes that something may be named: see [`check_name`].
    pub(crate) fn name(&self, limit: usize) -> Result<&'t str, DocumentError> {
        let name = self.text()?;
        self.checked(name, check_name(name, limit))
    }

    /// The value as a name that can be one entry of a directory: see [`check_path_component`].
    pub(crate) fn path_component(&self) -> Result<&'t str, DocumentError> {
        let name = self.text()?;
        self.checked(name, check_path_component(name, NAME_LIMIT))
    }

    /// Checks the key itself, in a mapping whose keys are names: see [`check_path_component`].
    pub(crate) fn check_key(&self, key: &str) -> Result<(), DocumentError> {
        check_path_component(key, NAME_LIMIT)
            .map_err(|defect| self.invalid_key(format!("is no valid name: it {defect}.")))
    }

    fn checked(&self, name: &'t str, defect: Result<(), NameDefect>) -> Result<&'t str, DocumentError> {
        match defect {
            Ok(()) => Ok(name),
            Err(NameDefect::Empty) => Err(self.invalid("is empty.")),
            Err(defect) => Err(self.invalid(format!("{defect}: \"{}\".", excerpt(name)))),
        }
    }

    /// The value, which must be this string.
    pub(crate) fn constant(&self, expected: &str) -> Result<(), DocumentError> {
        let text = self.text()?;
        if text == expected {
            return Ok(());
        }
        Err(self.invalid(format!("is \"{}\"; expected \"{expected}\".", excerpt(text))))
    }

    /// The value as an integer, written in plain decimal digits without quotes.
    ///
    /// Other notations are refused because programs read them differently: `010` is 8 to YAML 1.1 and 10 to YAML 1.2.
    pub(crate) fn integer(&self, range: RangeInclusive<u32>) -> Result<u32, DocumentError> {
        let (low, high) = (*range.start(), *range.end());
        let Value::Scalar { text, plain } = &self.node.value else {
            return Err(self.wrong_type("an integer"));
        };
        let shown = excerpt(text);
        if !plain {
            let hint = if is_decimal(text) { format!("; write {shown} without quotes") } else { String::new() };
            return Err(self.invalid(format!("must be an integer from {low} to {high}, but it is a string{hint}.")));
        }
        let number = is_decimal(text).then(|| text.parse().ok()).flatten().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let hint = if is_decimal(text) || !is_number(text) { "" } else { "; write it in decimal digits" };
            self.invalid(format!("must be an integer from {low} to {high}, but it is {shown}{hint}."))
        })
    }

    /// The value as a boolean, written `true` or `false` without quotes; `yes` and `on` are strings to YAML 1.2.
    pub(crate) fn boolean(&self) -> Result<bool, DocumentError> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if text == "true" => Ok(true),
            Value::Scalar { text, plain: true } if text == "false" => Ok(false),
            Value::Scalar { text, .. } => {
                Err(self.invalid(format!("must be true or false, but it is \"{}\".", excerpt(text))))
            }
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// The items of the value, which must be a list of at most `limit` items.
    pub(crate) fn list(&self, limit: usize) -> Result<Vec<Field<'t>>, DocumentError> {
        let Value::List(items) = &self.node.value else {
            return Err(self.wrong_type("a list"));
        };
        if items.len() > limit {
            return Err(self.invalid(format!("has {} items; at most {limit} are allowed.", items.len())));
        }
        let item = |(index, node): (usize, &'t std::rc::Rc<Node>)| {
            let mut path = self.path.clone();
            push_index(&mut path, index);
            Field { source: self.source, path, key_place: node.place, node }
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// The value as a mapping.
    pub(crate) fn section(self) -> Result<Section<'t>, DocumentError> {
        match &self.node.value {
            Value::Map(entries) => Ok(Section { asked: vec![false; entries.len()], entries, field: self }),
            _ => Err(self.wrong_type("a mapping")),
        }
    }
}

/// A mapping whose keys are looked up one by one.
#[derive(Debug)]
pub(crate) struct Section<'t> {
    field: Field<'t>,
    entries: &'t [Entry],
    asked: Vec<bool>,
}

impl<'t> Section<'t> {
    /// The value of a key that must be there.
    pub(crate) fn required(&mut self, key: &str) -> Result<Field<'t>, DocumentError> {
        self.optional(key).ok_or_else(|| self.missing(key))
    }

    /// The value of a key that may be absent.
    pub(crate) fn optional(&mut self, key: &str) -> Option<Field<'t>> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        if let Some(asked) = self.asked.get_mut(index) {
            *asked = true;
        }
        self.entries.get(index).map(|entry| self.entry(entry))
    }

    /// Every key with its value, for mappings whose keys are free.
    pub(crate) fn all(&mut self) -> Vec<(&'t str, Field<'t>)> {
        self.asked.fill(true);
        self.entries.iter().map(|entry| (entry.key.as_str(), self.entry(entry))).collect()
    }

    /// The error for an absent key; its place is that of the mapping.
    pub(crate) fn missing(&self, key: &str) -> DocumentError {
        let mut path = self.field.path.clone();
        push_key(&mut path, key);
        self.field.source.error(self.field.node.place, path, Problem::Missing)
    }

    /// The entries as one line of YAML without its braces, to be read again by somebody else. Numbers stay numbers.
    pub(crate) fn flow(&self) -> String {
        let mut text = String::new();
        push_entries(&mut text, self.entries);
        text
    }

    /// What is wrong with this mapping, as an error at its place. The sentence goes on after the key.
    pub(crate) fn invalid(&self, rest: impl Into<String>) -> DocumentError {
        self.field.invalid(rest)
    }

    /// Warns of every key that nobody asked for.
    pub(crate) fn warn_of_unknown_keys(&self, warnings: &mut Warnings) {
        for (entry, _) in self.entries.iter().zip(&self.asked).filter(|(_, asked)| !**asked) {
            self.entry(entry).remark(warnings, "is not a known key and is ignored.");
        }
    }

    /// Refuses the first key that nobody asked for, for documents in which a slip of the pen must not go unnoticed.
    pub(crate) fn refuse_unknown_keys(&self) -> Result<(), DocumentError> {
        let mut unknown = self.entries.iter().zip(&self.asked).filter(|(_, asked)| !**asked);
        unknown.next().map_or(Ok(()), |(entry, _)| Err(self.entry(entry).invalid_key("is not a known key.")))
    }

    fn entry(&self, entry: &'t Entry) -> Field<'t> {
        let mut path = self.field.path.clone();
        push_key(&mut path, &entry.key);
        Field { source: self.field.source, path, key_place: entry.place, node: &entry.value }
    }
}

fn push_flow(text: &mut String, node: &Node) {
    match &node.value {
        Value::Null => text.push_str("null"),
        Value::Scalar { text: word, plain: true } if is_decimal(word) || word == "true" || word == "false" => {
            text.push_str(word);
        }
        Value::Scalar { text: string, .. } => text.push_str(&serde_json::Value::from(string.as_str()).to_string()),
        Value::List(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                push_flow(text, item);
            }
            text.push(']');
        }
        Value::Map(entries) => {
            text.push('{');
            push_entries(text, entries);
            text.push('}');
        }
    }
}

fn push_entries(text: &mut String, entries: &[Entry]) {
    for (index, entry) in entries.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { ", " });
        text.push_str(&serde_json::Value::from(entry.key.as_str()).to_string());
        text.push_str(": ");
        push_flow(text, &entry.value);
    }
}

/// Decimal digits without leading zeros.
fn is_decimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() && (text == "0" || !text.starts_with('0'))
}

/// Anything that YAML 1.2 takes for a number.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let radix = |prefix: &str, radix: u32| {
        text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok();
    float || radix("0x", 16) || radix("0o", 8)
}
