//! The constraints brought down to units and versions: which combinations may occur, as tables of bits.

use std::collections::HashMap;

use super::{Constraint, Moment, Unit, Unplannable, explain};

/// Combinations of versions that are looked at for all constraints together.
const COMBINATIONS_LIMIT: usize = 4_000_000;
/// Combinations of units.
const SCOPES_LIMIT: usize = 1_000_000;

/// The verdicts of one constraint on all combinations of versions of its types.
struct Table {
    /// For each of its types: what one version more means for the index.
    strides: Vec<usize>,
    end: Vec<bool>,
    transition: Vec<bool>,
}

/// A constraint on one choice of units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// Index of the constraint.
    pub constraint: usize,
    /// One unit for each of its types, in its order.
    pub units: Vec<usize>,
}

/// Units and constraints, ready to be asked.
pub(super) struct Ground<'i> {
    pub units: &'i [Unit],
    pub constraints: &'i [Constraint],
    pub scopes: Vec<Scope>,
    tables: Vec<Table>,
    /// For each unit and way: the numbers of the versions, the one it has first.
    versions: Vec<Vec<Vec<usize>>>,
}

impl<'i> Ground<'i> {
    /// Asks every constraint about every combination of versions that may come up.
    pub fn new(units: &'i [Unit], constraints: &'i [Constraint]) -> Result<Self, Unplannable> {
        let mut names: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut by_type: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut versions = Vec::new();
        for (index, unit) in units.iter().enumerate() {
            by_type.entry(&unit.component_type).or_default().push(index);
            let known = names.entry(&unit.component_type).or_default();
            let mut number = |version: &'i str| {
                known.iter().position(|known| *known == version).unwrap_or_else(|| {
                    known.push(version);
                    known.len() - 1
                })
            };
            let ways = unit
                .ways
                .iter()
                .map(|way| std::iter::once(&unit.start).chain(way).map(|version| number(version)).collect::<Vec<_>>());
            versions.push(ways.collect());
        }
        let mut ground = Self { units, constraints, scopes: Vec::new(), tables: Vec::new(), versions };
        let mut combinations = 0_usize;
        for (index, constraint) in constraints.iter().enumerate() {
            let none: Vec<&str> = Vec::new();
            let columns: Vec<&Vec<&str>> =
                constraint.types.iter().map(|name| names.get(name.as_str()).unwrap_or(&none)).collect();
            let size = columns.iter().try_fold(1_usize, |size, column| size.checked_mul(column.len()));
            combinations = combinations.saturating_add(size.unwrap_or(usize::MAX));
            if combinations > COMBINATIONS_LIMIT {
                let label = constraint.label();
                let text = format!("with {label} there are more than {COMBINATIONS_LIMIT} combinations of versions");
                return Err(Unplannable::GaveUp(text));
            }
            ground.tables.push(Table::new(constraint, &columns)?);
            let choices: Vec<&[usize]> =
                constraint.types.iter().map(|name| by_type.get(name.as_str()).map_or(&[][..], Vec::as_slice)).collect();
            each_choice(&choices, |units| {
                if ground.scopes.len() <= SCOPES_LIMIT {
                    ground.scopes.push(Scope { constraint: index, units: units.to_vec() });
                }
            });
            if ground.scopes.len() > SCOPES_LIMIT {
                let label = constraint.label();
                let text = format!("with {label} there are more than {SCOPES_LIMIT} combinations of Components");
                return Err(Unplannable::GaveUp(text));
            }
        }
        Ok(ground)
    }

    /// Whether this combination may occur at this moment; `at` holds the place of each unit of the scope on its way.
    pub fn allows(&self, scope: &Scope, moment: Moment, ways: &[usize], at: &[usize]) -> bool {
        let table = &self.tables[scope.constraint];
        let places = scope.units.iter().zip(at).zip(&table.strides);
        let index = places.map(|((&unit, &at), stride)| self.versions[unit][ways[unit]][at] * stride).sum::<usize>();
        match moment {
            Moment::End => table.end[index],
            Moment::Transition => table.transition[index],
        }
    }

    /// How a combination is looked at; `None`: not at all.
    pub fn moment(&self, scope: &Scope, ways: &[usize], at: &[usize]) -> Option<Moment> {
        let last = |unit: usize| self.last(unit, ways);
        if scope.units.iter().zip(at).all(|(&unit, &at)| at == last(unit)) {
            Some(Moment::End)
        } else if at.iter().all(|at| *at == 0) {
            None
        } else {
            Some(Moment::Transition)
        }
    }

    /// The last place of a unit on its way.
    pub fn last(&self, unit: usize, ways: &[usize]) -> usize {
        self.units[unit].ways[ways[unit]].len()
    }

    /// Whether a constraint lets everything happen on the way; then nothing follows from it for the order of the work.
    pub fn is_free(&self, scope: &Scope) -> bool {
        self.tables[scope.constraint].transition.iter().all(|allowed| *allowed)
    }

    /// A combination of last versions that is not acceptable, with its constraint.
    pub fn defect_of_end(&self) -> Option<(usize, String)> {
        let ways = vec![0; self.units.len()];
        self.scopes.iter().find_map(|scope| {
            let at: Vec<usize> = scope.units.iter().map(|&unit| self.last(unit, &ways)).collect();
            (!self.allows(scope, Moment::End, &ways, &at)).then(|| {
                let parts: Vec<String> = scope
                    .units
                    .iter()
                    .map(|&unit| {
                        format!("{} {}", self.units[unit].component_type, explain::version(self.units[unit].target()))
                    })
                    .collect();
                (scope.constraint, parts.join(" and "))
            })
        })
    }
}

impl Table {
    fn new(constraint: &Constraint, columns: &[&Vec<&str>]) -> Result<Self, Unplannable> {
        let mut strides = Vec::new();
        let mut size = 1;
        for column in columns {
            strides.push(size);
            size *= column.len();
        }
        let mut table = Self { strides, end: vec![true; size], transition: vec![true; size] };
        let numbers: Vec<Vec<usize>> = columns.iter().map(|column| (0..column.len()).collect()).collect();
        let choices: Vec<&[usize]> = numbers.iter().map(Vec::as_slice).collect();
        let mut failure = None;
        each_choice(&choices, |choice| {
            let versions: Vec<&str> = choice.iter().zip(columns).map(|(&number, column)| column[number]).collect();
            let index = choice.iter().zip(&table.strides).map(|(number, stride)| number * stride).sum::<usize>();
            match (constraint.allows(Moment::End, &versions), constraint.allows(Moment::Transition, &versions)) {
                (Ok(end), Ok(transition)) => {
                    table.end[index] = end;
                    table.transition[index] = transition;
                }
                (Err(error), _) | (_, Err(error)) => drop(failure.get_or_insert((error, versions.join(", ")))),
            }
        });
        match failure {
            None => Ok(table),
            Some((error, versions)) => {
                let unit = format!("combination {} {}", constraint.types.join(", "), versions);
                Err(Unplannable::Incomparable { constraint: constraint.label(), unit, error })
            }
        }
    }
}

/// Calls with every choice of one element of each; never if one of them is empty.
pub(super) fn each_choice(choices: &[&[usize]], mut call: impl FnMut(&[usize])) {
    if choices.iter().any(|choice| choice.is_empty()) {
        return;
    }
    let mut at = vec![0; choices.len()];
    let mut chosen: Vec<usize> = choices.iter().map(|choice| choice[0]).collect();
    loop {
        call(&chosen);
        let Some(place) = (0..at.len()).find(|&place| at[place] + 1 < choices[place].len()) else { return };
        at[place] += 1;
        chosen[place] = choices[place][at[place]];
        for before in 0..place {
            at[before] = 0;
            chosen[before] = choices[before][0];
        }
    }
}
