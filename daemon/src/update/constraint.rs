//! Which combinations of versions are acceptable: the `constraints` of a Manifest.
//!
//! A constraint speaks of Component types. It holds if it holds for every choice of one Component of each of them, so it says
//! nothing where a type has no Component. When it is asked is in `planner`.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use super::version::{Condition, Incomparable};
use crate::core::document::{DocumentError, Field, NAME_LIMIT, Section, excerpt};

/// A Manifest may have this many constraints.
pub const CONSTRAINTS_LIMIT: usize = 1_000;
/// A constraint may speak of this many Component types.
pub const TYPES_LIMIT: usize = 6;
/// A table may have this many rows.
pub const ROWS_LIMIT: usize = 1_000;
/// A `reason` may have this many bytes.
pub const REASON_LIMIT: usize = 1_024;

/// When a combination is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The deployment is complete, or rests for good.
    End,
    /// At least one of its Components has begun to move, and not all have arrived.
    Transition,
}

/// One constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// Its name, for messages.
    pub name: Option<String>,
    /// Why it is there, in the words of who wrote it.
    pub reason: Option<String>,
    /// Where it stands, as `origin:line:column`.
    pub position: String,
    /// The Component types it speaks of, each once.
    pub types: Vec<String>,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// Rows with one condition for each type. The rows of the end are acceptable on the way, too.
    Combinations { end: Option<Vec<Vec<Condition>>>, transition: Option<Vec<Vec<Condition>>> },
    /// If the first `when` conditions hold, the others have to.
    Requires { scope: Scope, conditions: Vec<Condition>, when: usize },
    /// Not all at once.
    Conflicts { scope: Scope, conditions: Vec<Condition> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    End,
    Transition,
    Always,
}

impl Scope {
    fn includes(self, moment: Moment) -> bool {
        match self {
            Self::End => moment == Moment::End,
            Self::Transition => moment == Moment::Transition,
            Self::Always => true,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::End => " at the end",
            Self::Transition => " on the way",
            Self::Always => "",
        }
    }
}

impl Constraint {
    /// Reads one item of the list.
    pub(super) fn read(field: Field<'_>) -> Result<Self, DocumentError> {
        let position = field.position();
        let mut section = field.section()?;
        let name = section.optional("name").map(|field| field.name(NAME_LIMIT).map(str::to_owned)).transpose()?;
        let reason = section.optional("reason").map(|field| field.name(REASON_LIMIT).map(str::to_owned)).transpose()?;
        let forms = [section.optional("combinations"), section.optional("requires"), section.optional("conflicts")];
        let (types, rule) = match forms {
            [Some(table), None, None] => read_table(table)?,
            [None, Some(requires), None] => {
                let when = section.required("when")?;
                let (mut types, mut conditions) = read_conditions(when, &[])?;
                let when = types.len();
                let (more_types, more) = read_conditions(requires, &types)?;
                types.extend(more_types);
                conditions.extend(more);
                (types, Rule::Requires { scope: read_scope(&mut section)?, conditions, when })
            }
            [None, None, Some(conflicts)] => {
                let (types, conditions) = read_conditions(conflicts, &[])?;
                (types, Rule::Conflicts { scope: read_scope(&mut section)?, conditions })
            }
            _ => {
                return Err(
                    section.invalid("must have exactly one of \"combinations\", \"requires\" and \"conflicts\".")
                );
            }
        };
        if types.len() > TYPES_LIMIT {
            let count = types.len();
            return Err(
                section.invalid(format!("speaks of {count} Component types; at most {TYPES_LIMIT} are allowed."))
            );
        }
        section.refuse_unknown_keys()?;
        Ok(Self { name, reason, position, types, rule })
    }

    /// Whether these versions, one for each type, may be together at this moment.
    pub fn allows(&self, moment: Moment, versions: &[&str]) -> Result<bool, Incomparable> {
        let all = |conditions: &[Condition], versions: &[&str]| {
            let verdicts = conditions.iter().zip(versions).map(|(condition, version)| condition.holds(version));
            // Every condition is asked, so that a version without an order is told whatever the others are.
            verdicts.collect::<Result<Vec<bool>, _>>().map(|verdicts| verdicts.into_iter().all(|verdict| verdict))
        };
        let any = |rows: &[Vec<Condition>]| {
            let verdicts: Result<Vec<bool>, _> = rows.iter().map(|row| all(row, versions)).collect();
            verdicts.map(|verdicts| verdicts.into_iter().any(|verdict| verdict))
        };
        match &self.rule {
            Rule::Combinations { end, transition } => match (moment, end, transition) {
                (Moment::End, Some(end), _) => any(end),
                (Moment::Transition, end, Some(transition)) => {
                    Ok(any(transition)? | end.as_ref().map_or(Ok(false), |end| any(end))?)
                }
                _ => Ok(true),
            },
            Rule::Requires { scope, .. } | Rule::Conflicts { scope, .. } if !scope.includes(moment) => Ok(true),
            Rule::Requires { conditions, when, .. } => {
                let (premise, conclusion) = conditions.split_at(*when);
                let (of_premise, of_conclusion) = versions.split_at(*when);
                let (premise, conclusion) = (all(premise, of_premise)?, all(conclusion, of_conclusion)?);
                Ok(!premise || conclusion)
            }
            Rule::Conflicts { conditions, .. } => Ok(!all(conditions, versions)?),
        }
    }

    /// What it is called in a message: name, if it has one, and place.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("\"{name}\" ({})", self.position),
            None => format!("the constraint at {}", self.position),
        }
    }

    /// What it says, in words: one sentence, without the place.
    pub fn words(&self) -> String {
        let list = |types: &[String], conditions: &[Condition]| {
            let parts: Vec<String> =
                types.iter().zip(conditions).map(|(name, condition)| format!("{name} {condition}")).collect();
            parts.join(" and ")
        };
        let mut text = match &self.rule {
            Rule::Combinations { end, transition } => {
                let mut text = format!("combinations of {}:", self.types.join(", "));
                if let Some(end) = end {
                    let _ = write!(text, " at the end {}", rows(end));
                }
                match transition {
                    Some(transition) if end.is_some() && transition.is_empty() => {
                        text.push_str("; no others on the way");
                    }
                    Some(transition) if end.is_some() => {
                        let _ = write!(text, "; besides on the way {}", rows(transition));
                    }
                    Some(transition) => {
                        let _ = write!(text, " on the way {}", rows(transition));
                    }
                    None => {}
                }
                text
            }
            Rule::Requires { scope, conditions, when } => {
                let (premise, conclusion) = conditions.split_at(*when);
                let (of_premise, of_conclusion) = self.types.split_at(*when);
                let (premise, conclusion) = (list(of_premise, premise), list(of_conclusion, conclusion));
                format!("{premise} requires {conclusion}{}", scope.words())
            }
            Rule::Conflicts { scope, conditions } => {
                format!("not {} together{}", list(&self.types, conditions), scope.words())
            }
        };
        if let Some(reason) = &self.reason {
            let _ = write!(text, " ({})", excerpt(reason));
        }
        text
    }
}

/// The first few rows of a table, for a message.
fn rows(rows: &[Vec<Condition>]) -> String {
    const SHOWN: usize = 4;
    let shown = rows.iter().take(SHOWN).map(|row| {
        let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
        format!("({})", cells.join(", "))
    });
    let mut parts: Vec<String> = shown.collect();
    if rows.is_empty() {
        parts.push("none".to_owned());
    } else if rows.len() > SHOWN {
        parts.push(format!("{} more", rows.len() - SHOWN));
    }
    parts.join(", ")
}

fn read_scope(section: &mut Section<'_>) -> Result<Scope, DocumentError> {
    let Some(field) = section.optional("scope") else { return Ok(Scope::Always) };
    match field.text()? {
        "end" => Ok(Scope::End),
        "transition" => Ok(Scope::Transition),
        "always" => Ok(Scope::Always),
        other => {
            Err(field.invalid(format!("is \"{}\"; expected \"end\", \"transition\" or \"always\".", excerpt(other))))
        }
    }
}

/// Component types with a condition each; `taken` are those of the same constraint that stand elsewhere.
fn read_conditions(field: Field<'_>, taken: &[String]) -> Result<(Vec<String>, Vec<Condition>), DocumentError> {
    let mut section = field.section()?;
    let entries = section.all();
    if entries.is_empty() {
        return Err(section.invalid("is empty; name at least one Component type."));
    }
    let (mut types, mut conditions) = (Vec::new(), Vec::new());
    for (name, field) in entries {
        field.check_key(name)?;
        if taken.iter().any(|taken| taken == name) {
            return Err(field.invalid_key("stands in \"when\" already; a constraint names a Component type once."));
        }
        conditions.push(Condition::read(&field)?);
        types.push(name.to_owned());
    }
    Ok((types, conditions))
}

fn read_table(field: Field<'_>) -> Result<(Vec<String>, Rule), DocumentError> {
    let mut section = field.section()?;
    let mut types: Vec<String> = Vec::new();
    let field = section.required("types")?;
    for item in field.list(TYPES_LIMIT)? {
        let name = item.path_component()?;
        if types.iter().any(|known| known == name) {
            return Err(item.invalid("stands here for the second time."));
        }
        types.push(name.to_owned());
    }
    if types.is_empty() {
        return Err(field.invalid("is empty; name at least one Component type."));
    }
    let mut rows = |key: &str| section.optional(key).map(|field| read_rows(&field, types.len())).transpose();
    let (end, transition) = (rows("end")?, rows("transition")?);
    if end.is_none() && transition.is_none() {
        return Err(section.invalid("must have \"end\" or \"transition\"."));
    }
    section.refuse_unknown_keys()?;
    Ok((types, Rule::Combinations { end, transition }))
}

fn read_rows(field: &Field<'_>, width: usize) -> Result<Vec<Vec<Condition>>, DocumentError> {
    let mut rows = Vec::new();
    for row in field.list(ROWS_LIMIT)? {
        let cells = row.list(ROWS_LIMIT)?;
        if cells.len() != width {
            let count = cells.len();
            return Err(row.invalid(format!("has {count} versions, but \"types\" has {width} Component types.")));
        }
        rows.push(cells.iter().map(Condition::read).collect::<Result<_, _>>()?);
    }
    Ok(rows)
}
