//! Versions: when one can be said to come before another, and conditions on them.
//!
//! The version of a Component is any text. Two of them have an order only if both are made like this:
//!
//! ```text
//! version = prefix number *( "." number ) [ "-" word *( "." word ) ] [ "+" anything ]
//! ```
//!
//! The prefix is everything before the first digit and has to be the same in both; `v` and `V` count as no prefix. Numbers
//! that are missing count as 0. What follows `-` begins with a letter and makes a version that comes before the one without it,
//! as `1.0-rc.1` before `1.0`; digits in it compare as numbers. What follows `+` does not count. Everything else, such as the
//! date `2025-10-15`, has no order here: a wrong guess would be worse than none.

use std::cmp::Ordering;
use std::fmt;

use crate::core::document::{DocumentError, Field, NAME_LIMIT, excerpt};

/// A condition may list this many alternatives.
pub const ALTERNATIVES_LIMIT: usize = 256;

/// The parts of a version that has an order.
struct Ordered<'v> {
    prefix: &'v str,
    numbers: Vec<&'v str>,
    words: Option<Vec<&'v str>>,
}

impl<'v> Ordered<'v> {
    fn read(version: &'v str) -> Option<Self> {
        let (version, _build) = version.split_once('+').unwrap_or((version, ""));
        let (prefix, rest) = version.split_at(version.find(|character: char| character.is_ascii_digit())?);
        let prefix = if matches!(prefix, "v" | "V") { "" } else { prefix };
        let (numbers, words) = match rest.split_once('-') {
            Some((numbers, words)) => (numbers, Some(words.split('.').collect::<Vec<_>>())),
            None => (rest, None),
        };
        let numbers: Vec<&str> = numbers.split('.').collect();
        let is_number = |number: &&str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_word = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let words_fit = words.as_ref().is_none_or(|words| {
            words.iter().all(is_word)
                && words.first().is_some_and(|word| word.starts_with(|c: char| !c.is_ascii_digit()))
        });
        (numbers.iter().all(is_number) && words_fit).then_some(Self { prefix, numbers, words })
    }
}

/// Which of two versions comes first; `None` if they have no order.
pub fn compare(left: &str, right: &str) -> Option<Ordering> {
    let (left, right) = (Ordered::read(left)?, Ordered::read(right)?);
    if left.prefix != right.prefix {
        return None;
    }
    let length = left.numbers.len().max(right.numbers.len());
    let at =
        |numbers: &[&'_ str], index: usize| numbers.get(index).map_or(String::new(), |number| (*number).to_owned());
    for index in 0..length {
        let order = compare_numbers(&at(&left.numbers, index), &at(&right.numbers, index));
        if order != Ordering::Equal {
            return Some(order);
        }
    }
    Some(match (&left.words, &right.words) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => {
            let pairs = left.iter().zip(right).map(|(left, right)| compare_words(left, right));
            pairs.fold(Ordering::Equal, Ordering::then).then(left.len().cmp(&right.len()))
        }
    })
}

/// Decimal numbers of any length; nothing counts as 0.
fn compare_numbers(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

/// Words in which runs of digits compare as numbers, and come before letters.
fn compare_words(mut left: &str, mut right: &str) -> Ordering {
    let run = |word: &str| {
        let digits = word.starts_with(|c: char| c.is_ascii_digit());
        let end = word.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(word.len());
        (digits, end)
    };
    while !left.is_empty() && !right.is_empty() {
        let ((left_digits, left_end), (right_digits, right_end)) = (run(left), run(right));
        let (left_run, left_rest) = left.split_at(left_end);
        let (right_run, right_rest) = right.split_at(right_end);
        let order = match (left_digits, right_digits) {
            (true, true) => compare_numbers(left_run, right_run),
            (false, false) => left_run.cmp(right_run),
            (digits, _) => {
                if digits {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        };
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    left.len().cmp(&right.len())
}

/// A version and a bound that have no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the version \"{}\" cannot be compared with \"{}\"", excerpt(version), excerpt(bound))]
pub struct Incomparable {
    /// The version of a Component or an Artifact.
    pub version: String,
    /// What a condition compares it with.
    pub bound: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    AtLeast,
    Greater,
    Same,
    Other,
}

/// Longer signs first: `<` begins `<=`, too.
const SIGNS: [(&str, Relation); 6] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("!=", Relation::Other),
    ("<", Relation::Less),
    (">", Relation::Greater),
    ("=", Relation::Same),
];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparison {
    relation: Relation,
    bound: String,
}

impl Comparison {
    fn holds(&self, version: &str) -> Result<bool, Incomparable> {
        let order = || {
            compare(version, &self.bound)
                .ok_or_else(|| Incomparable { version: version.to_owned(), bound: self.bound.clone() })
        };
        Ok(match self.relation {
            Relation::Same => version == self.bound,
            Relation::Other => version != self.bound,
            Relation::Less => order()? == Ordering::Less,
            Relation::AtMost => order()? != Ordering::Greater,
            Relation::AtLeast => order()? != Ordering::Less,
            Relation::Greater => order()? == Ordering::Greater,
        })
    }
}

/// A condition on a version: a version, a range, one of several, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// One of these has to hold, that is every comparison of it.
    alternatives: Vec<Vec<Comparison>>,
    text: String,
}

impl Condition {
    /// Reads one from a document: a string, or a list of strings of which one has to hold.
    pub(super) fn read(field: &Field<'_>) -> Result<Self, DocumentError> {
        if !field.is_list() {
            return Ok(Self { alternatives: vec![alternative(field)?], text: excerpt(field.text()?) });
        }
        let items = field.list(ALTERNATIVES_LIMIT)?;
        if items.is_empty() {
            return Err(field.invalid("is empty; name at least one version."));
        }
        let alternatives = items.iter().map(alternative).collect::<Result<_, _>>()?;
        let texts: Vec<String> = items.iter().filter_map(|item| item.text().ok()).map(excerpt).collect();
        Ok(Self { alternatives, text: texts.join(" or ") })
    }

    /// Whether a version fulfils it. If it is compared with a bound that it has no order with, and no other alternative holds,
    /// nobody can tell: that is the error.
    pub fn holds(&self, version: &str) -> Result<bool, Incomparable> {
        let mut unknown = None;
        for alternative in &self.alternatives {
            let verdicts: Result<Vec<bool>, _> =
                alternative.iter().map(|comparison| comparison.holds(version)).collect();
            match verdicts {
                Ok(verdicts) if verdicts.iter().all(|verdict| *verdict) => return Ok(true),
                Ok(_) => {}
                Err(error) => unknown = Some(error),
            }
        }
        unknown.map_or(Ok(false), Err)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn alternative(field: &Field<'_>) -> Result<Vec<Comparison>, DocumentError> {
    let text = field.name(NAME_LIMIT)?;
    if text == "*" {
        return Ok(Vec::new());
    }
    if !text.starts_with(['<', '>', '=', '!']) {
        return Ok(vec![Comparison { relation: Relation::Same, bound: text.to_owned() }]);
    }
    text.split_whitespace().map(|word| comparison(field, word)).collect()
}

fn comparison(field: &Field<'_>, word: &str) -> Result<Comparison, DocumentError> {
    let found = SIGNS.iter().find_map(|(sign, relation)| word.strip_prefix(sign).map(|bound| (*relation, bound)));
    let Some((relation, bound)) = found else {
        let word = excerpt(word);
        return Err(field.invalid(format!("has \"{word}\" in a range; expected <, <=, >, >=, = or != with a version.")));
    };
    if bound.is_empty() {
        return Err(field.invalid(format!("has \"{word}\" without a version; write them without a blank between.")));
    }
    let exact = matches!(relation, Relation::Same | Relation::Other);
    if !exact && compare(bound, bound).is_none() {
        let bound = excerpt(bound);
        return Err(
            field.invalid(format!("compares with \"{bound}\", which has no order; only numbers with dots have one."))
        );
    }
    Ok(Comparison { relation, bound: bound.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_in_the_order_that_is_documented() {
        let ascending = ["v1-alpha", "1-alpha.1", "1-rc9", "1-rc10", "1", "1.0.1", "1.2", "v1.10", "2", "10"];
        for (index, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(compare(left, right), Some(index.cmp(&other)), "{left} and {right}");
            }
        }
        assert_eq!(compare("1.0", "v1"), Some(Ordering::Equal));
        assert_eq!(compare("rtos-1.9+a", "rtos-1.10"), Some(Ordering::Less));
        assert_eq!(compare("1.99999999999999999999999", "1.100000000000000000000000"), Some(Ordering::Less));
    }

    #[test]
    fn what_has_no_order_is_not_guessed() {
        for (left, right) in [
            ("2025-10-15", "2025-10-16"),
            ("unknown", "1"),
            ("rtos-1", "gateway-1"),
            ("1..2", "1"),
            ("1.2b", "1.2"),
            ("1-", "1"),
            ("", ""),
        ] {
            assert_eq!(compare(left, right), None, "{left} and {right}");
        }
    }
}
