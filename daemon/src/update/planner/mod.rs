//! Works out the steps of an update from what is acceptable: which Components move when, side by side or one after the other,
//! and over which versions. Pure and deterministic: the same input gives the same plan, and no clock, file or process is
//! asked.
//!
//! # What is acceptable
//!
//! A state of the System is a version for each Component. In a step some Components move from one version to the next, and
//! nobody knows in which order: every subset of them may have arrived. A constraint looks at *combinations*, one Component of
//! each type it names, and it looks at them like this:
//!
//! * all of them are as they were found: not looked at, the System was like that before;
//! * all of them have their last version: [`Moment::End`];
//! * anything else: [`Moment::Transition`].
//!
//! Components of one type that have the same version and the same ways to go are one [`Unit`] and move together. Nothing is
//! lost by that: if they moved apart, or on different ways, the combinations on the way would be those of all of their moves;
//! if all do what one of them does, they are fewer.
//!
//! # Method
//!
//! A unit that moves is a row of events, one for each version on its way. A combination `(version i of a, version j of b)`
//! occurs, for some subset of some step, unless `a` leaves `i` in an earlier step than `b` comes to `j`, or the other way
//! round: so a combination that must not occur is a choice between such precedences (`ground`, `network`). If every combination
//! leaves one choice only, which is the rule when every Component moves once, the precedences are a graph, and the longest path
//! to an event is its step. Else `network` searches, within a budget. `arrange` splits the System into clusters that no
//! constraint connects, plans them apart, and lets their steps run side by side. `verify` checks the outcome against the
//! constraints themselves, by looking at every combination in every step; a plan that fails there is not given out.

mod arrange;
mod explain;
mod ground;
mod network;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
mod verify;

use super::constraint::{Constraint, Moment};

/// Elementary operations of one planning; a second or so.
pub const BUDGET: u64 = 60_000_000;

/// Components of one type that have the same version and the same ways to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Component type.
    pub component_type: String,
    /// How many Components these are.
    pub count: usize,
    /// What they are called in messages.
    pub label: String,
    /// The version they have.
    pub start: String,
    /// Ways to the last version, each by the versions that follow; the shortest first. One empty way: they do not move.
    pub ways: Vec<Vec<String>>,
    /// Their updates reboot the host.
    pub reboots_host: bool,
    /// They cannot be rolled back.
    pub stays: bool,
    /// Units with a lower number move before those with a higher one.
    pub order: Option<u32>,
}

impl Unit {
    /// Whether there is anything to do.
    pub fn moves(&self) -> bool {
        self.ways.iter().all(|way| !way.is_empty())
    }

    /// The version in the end.
    pub fn target(&self) -> &str {
        self.ways.first().and_then(|way| way.last()).unwrap_or(&self.start)
    }
}

/// When a unit moves, and over which versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Course {
    /// Index of its way.
    pub way: usize,
    /// Step of each version on that way, from 1 on, ascending.
    pub steps: Vec<u32>,
    /// Why it does not move earlier, for each of its steps.
    pub reasons: Vec<String>,
}

/// What becomes of the System if something fails in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WayBack {
    /// It returns to how it was found.
    Full,
    /// It returns to where the last part of the deployment was committed.
    Part,
    /// These units, by index, stay as they are; the combination with the others is acceptable.
    Mixed(Vec<usize>),
    /// The same, and the combination is not acceptable to this constraint, by index.
    Broken(Vec<usize>, usize),
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What each unit does.
    pub courses: Vec<Course>,
    /// How many steps there are.
    pub steps: u32,
    /// After these steps everything is committed, because a Component that has moved moves again later. The last step is not
    /// among them.
    pub commits: Vec<u32>,
    /// For each step.
    pub way_back: Vec<WayBack>,
    /// Proven to have the fewest steps, of those the fewest reboots of the host, and of those the fewest Artifacts.
    pub minimal: bool,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unplannable {
    /// The versions that the Manifest wants do not go together.
    #[error("The versions that the Manifest leads to are not acceptable together: {combination}, but {constraint}.")]
    End {
        /// Label and words.
        constraint: String,
        /// Units with versions.
        combination: String,
    },
    /// There is no way between that is acceptable throughout.
    #[error(
        "There is no acceptable way to the versions that the Manifest wants. {}: {}.",
        if *minimal { "These cannot all be kept, but could if any one of them were left out" }
        else { "The reason is among these" },
        causes.join("; ")
    )]
    Conflict {
        /// Labels and words.
        causes: Vec<String>,
        /// None of them can be left out.
        minimal: bool,
    },
    /// Too hard.
    #[error("Gave up planning: {0}.")]
    GaveUp(String),
    /// A condition compares versions that have no order.
    #[error("The Component {unit} cannot be judged by {constraint}: {error}.")]
    Incomparable {
        /// Label.
        constraint: String,
        /// The units concerned.
        unit: String,
        /// What cannot be compared.
        error: super::version::Incomparable,
    },
}

/// Works out a plan for these units under these constraints, with this many elementary operations at most.
pub fn plan(units: &[Unit], constraints: &[Constraint], budget: u64) -> Result<Schedule, Unplannable> {
    let ground = ground::Ground::new(units, constraints)?;
    if let Some((index, combination)) = ground.defect_of_end() {
        let constraint = explain::constraint(&constraints[index]);
        return Err(Unplannable::End { constraint, combination });
    }
    let mut budget = network::Budget::new(budget);
    let arrangement = match arrange::arrange(&ground, &mut budget) {
        Ok(Some(arrangement)) => arrangement,
        Ok(None) => return Err(explain::conflict(&ground, &mut budget)),
        Err(gave_up) => return Err(Unplannable::GaveUp(gave_up.to_string())),
    };
    let mut courses = arrangement.courses;
    let Some(commits) = verify::commits(&ground, &courses) else {
        return Err(Unplannable::GaveUp("the plan that was found has no place to commit between its steps".to_owned()));
    };
    if let Err(defect) = verify::verify(&ground, &courses) {
        return Err(Unplannable::GaveUp(format!("the plan that was found did not stand the check: {defect}")));
    }
    for (course, reasons) in courses.iter_mut().zip(explain::reasons(&ground, &arrangement.ties)) {
        course.reasons = reasons;
    }
    let steps = courses.iter().filter_map(|course| course.steps.last()).max().copied().unwrap_or(0);
    let way_back = verify::ways_back(&ground, &courses, &commits);
    Ok(Schedule { courses, steps, commits, way_back, minimal: arrangement.minimal })
}
