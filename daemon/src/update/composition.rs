//! From Components, Artifacts and constraints to who is updated when: what [`planner`] needs is put together
//! here, and what it answers is put into the terms of a Plan. Pure.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::answers;
use super::component::ComponentKey;
use super::manifest::{ArtifactEntry, ComponentType, Manifest};
use super::planner::{self, Schedule, Unit, Unplannable, WayBack};
use super::selection::{self, Candidate};
use crate::core::document::excerpt;
use crate::core::error::{Error, Kind};

/// A Component may have this many ways to its last version.
pub const WAYS_LIMIT: usize = 64;

/// A Component as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Part<'p> {
    /// Type and id.
    pub key: &'p ComponentKey,
    /// Name of the Interface.
    pub interface: &'p str,
    /// What it provides.
    pub provides: &'p BTreeMap<String, String>,
}

/// One update of a Component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which Artifact of its type: 0 is the last one, 1 the first intermediate one.
    pub artifact: usize,
    /// Step, from 1 on; equal ones run side by side.
    pub step: u32,
    /// Part of the deployment, from 0 on.
    pub leg: u32,
    /// What the Component provides before.
    pub before: BTreeMap<String, String>,
    /// Version before.
    pub from_version: String,
    /// Version afterwards.
    pub to_version: String,
    /// Why it is not earlier, and what else to know beforehand.
    pub reasons: Vec<String>,
    /// Where a failure in this step leads: `full`, `part`, `mixed` or `broken`.
    pub way_back: &'static str,
}

/// What is done with each Component, in the order in which they were given; empty for those that have what they should have.
pub type Composition = Vec<Vec<Move>>;

/// Works out who is updated when. `artifacts` has those of each Component type: the last one, then the intermediate ones in
/// the order of the Manifest.
pub fn compose(
    manifest: &Manifest,
    parts: &[Part<'_>],
    artifacts: &BTreeMap<String, Vec<Candidate>>,
) -> Result<Composition, Error> {
    let mut units: Vec<Unit> = Vec::new();
    let mut ways_of_unit: Vec<(Vec<Vec<Hop>>, &str)> = Vec::new();
    let mut unit_of_part = Vec::new();
    let mut own_ways = Vec::new();
    for part in parts {
        let name = &part.key.component_type;
        let (Some(entry), Some(candidates)) = (manifest.component_types.get(name), artifacts.get(name)) else {
            let text = format!("The Manifest has no entry in \"component_types\" for \"{}\".", excerpt(name));
            return Err(Error::new(Kind::InvalidManifest, text));
        };
        let ways = ways(part, entry, candidates)?;
        let start = version(part.provides, part.interface);
        let same = |(unit, (known, interface)): (&Unit, &(Vec<Vec<Hop>>, &str))| {
            unit.component_type == *name && unit.start == start && *interface == part.interface && alike(known, &ways)
        };
        let known = units.iter().zip(&ways_of_unit).position(same);
        let index = known.unwrap_or_else(|| {
            let versions = ways.iter().map(|way| way.iter().map(|hop| hop.to_version.clone()).collect());
            units.push(Unit {
                component_type: name.clone(),
                count: 0,
                label: String::new(),
                start,
                ways: versions.collect(),
                reboots_host: entry.reboots_host,
                stays: entry.stays,
                order: entry.order,
            });
            ways_of_unit.push((ways.clone(), part.interface));
            units.len() - 1
        });
        name_another(&mut units[index], part.key);
        unit_of_part.push(index);
        own_ways.push(ways);
    }
    let schedule =
        planner::plan(&units, &manifest.constraints, planner::BUDGET).map_err(|error| refusal(manifest, &error))?;
    let parts = own_ways.into_iter().zip(unit_of_part);
    Ok(parts.map(|(ways, unit)| moves(ways, unit, &units, &schedule, manifest)).collect())
}

fn refusal(manifest: &Manifest, error: &Unplannable) -> Error {
    let kind = match error {
        Unplannable::GaveUp(_) => Kind::NotSupported,
        _ => Kind::InvalidManifest,
    };
    Error::new(kind, format!("The Manifest \"{}\" cannot be installed on this System. {error}", manifest.name))
}

/// Adds a Component to the label of its unit; only the first few are named.
fn name_another(unit: &mut Unit, key: &ComponentKey) {
    const SHOWN: usize = 3;
    unit.count += 1;
    match unit.count {
        1 => unit.label = key.to_string(),
        count if count <= SHOWN => unit.label = format!("{}, {key}", unit.label),
        count if count == SHOWN + 1 => unit.label.push_str(", …"),
        _ => {}
    }
}

fn moves(ways: Vec<Vec<Hop>>, unit: usize, units: &[Unit], schedule: &Schedule, manifest: &Manifest) -> Vec<Move> {
    let course = &schedule.courses[unit];
    let way = ways.into_iter().nth(course.way).unwrap_or_default();
    let hops = way.into_iter().zip(&course.steps).zip(&course.reasons);
    hops.map(|((hop, &step), reason)| {
        let leg = schedule.commits.iter().filter(|commit| **commit < step).count();
        let (way_back, note) = way_back(schedule, step, units, manifest);
        let mut reasons: Vec<String> = Some(reason.clone()).filter(|reason| !reason.is_empty()).into_iter().collect();
        reasons.extend(note);
        if !schedule.minimal && step == 1 {
            reasons.push("there may be a shorter plan; looking for it was given up".to_owned());
        }
        Move {
            artifact: hop.artifact,
            step,
            leg: u32::try_from(leg).unwrap_or(u32::MAX),
            before: hop.before,
            from_version: hop.from_version,
            to_version: hop.to_version,
            reasons,
            way_back,
        }
    })
    .collect()
}

/// The word for where a failure in a step leads, and what to say about it.
fn way_back(schedule: &Schedule, step: u32, units: &[Unit], manifest: &Manifest) -> (&'static str, Option<String>) {
    let index = usize::try_from(step).unwrap_or(usize::MAX).saturating_sub(1);
    let staying = |staying: &[usize]| {
        let labels: Vec<&str> = staying.iter().map(|&unit| units[unit].label.as_str()).collect();
        labels.join(", ")
    };
    match schedule.way_back.get(index) {
        None | Some(WayBack::Full) => ("full", None),
        Some(WayBack::Part) => {
            let text = "a failure leads back to the last commit only, not to how the System is now";
            ("part", Some(text.to_owned()))
        }
        Some(WayBack::Mixed(units)) => {
            ("mixed", Some(format!("if this step fails, {} cannot go back and stays as it is then", staying(units))))
        }
        Some(WayBack::Broken(units, constraint)) => {
            let constraint = manifest
                .constraints
                .get(*constraint)
                .map(|constraint| format!("; {} is not kept then: {}", constraint.label(), constraint.words()));
            let text = format!("if this step fails, {} cannot go back and stays as it is then", staying(units));
            ("broken", Some(format!("{text}{}", constraint.unwrap_or_default())))
        }
    }
}

/// One update of a Component on one of its ways.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hop {
    artifact: usize,
    before: BTreeMap<String, String>,
    from_version: String,
    to_version: String,
}

/// Whether two Components have the same ways, as far as versions and Artifacts go.
fn alike(left: &[Vec<Hop>], right: &[Vec<Hop>]) -> bool {
    let hops = |way: &[Hop]| way.iter().map(|hop| (hop.artifact, hop.to_version.clone())).collect::<Vec<_>>();
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| hops(left) == hops(right))
}

fn version(provides: &BTreeMap<String, String>, interface: &str) -> String {
    answers::version_key(provides, interface).map(|(_, version)| version.to_owned()).unwrap_or_default()
}

/// All ways of a Component to its last Artifact, the shortest first; one empty way if it has that. The intermediate Artifacts
/// are passed in the order of the Manifest, each at most once.
fn ways(part: &Part<'_>, entry: &ComponentType, candidates: &[Candidate]) -> Result<Vec<Vec<Hop>>, Error> {
    let Some(target) = candidates.first() else {
        let text = format!("There is no Artifact for the Component \"{}\".", part.key);
        return Err(Error::new(Kind::NoSuitableArtifact, text));
    };
    if selection::is_installed(part.provides, target) {
        return Ok(vec![Vec::new()]);
    }
    let mut found: Vec<Vec<Hop>> = Vec::new();
    // Ways that do not end yet, with what the Component provides then and the first intermediate Artifact that may follow.
    let mut open = vec![(Vec::new(), part.provides.clone(), 1)];
    while !open.is_empty() {
        let mut longer = Vec::new();
        for (way, provides, next) in open {
            if let Some(hop) = hop(part, &entry.artifact, target, 0, &provides)? {
                let mut way: Vec<Hop> = Vec::clone(&way);
                way.push(hop);
                found.push(way);
            }
            for (index, candidate) in candidates.iter().enumerate().skip(next) {
                let Some(intermediate) = entry.intermediates.get(index - 1) else { continue };
                if let Some(hop) = hop(part, intermediate, candidate, index, &provides)? {
                    let mut way = Vec::clone(&way);
                    way.push(hop);
                    longer.push((way, selection::provides_after(&provides, candidate), index + 1));
                }
            }
        }
        if found.len() > WAYS_LIMIT || longer.len() > 4 * WAYS_LIMIT {
            let text = format!(
                "{}: \"{}\" leaves more than {WAYS_LIMIT} ways over its intermediates for the Component \"{}\"; say with \
                 \"from\" on which versions each may be installed.",
                entry.artifact.position, entry.artifact.key, part.key
            );
            return Err(Error::new(Kind::NotSupported, text));
        }
        open = longer;
    }
    if found.is_empty() {
        return Err(no_way(part, entry, target));
    }
    Ok(found)
}

/// What installing this Artifact on a Component that provides this makes of it; `None`: it cannot be installed there.
fn hop(
    part: &Part<'_>,
    entry: &ArtifactEntry,
    candidate: &Candidate,
    artifact: usize,
    provides: &BTreeMap<String, String>,
) -> Result<Option<Hop>, Error> {
    let from_version = version(provides, part.interface);
    if let Some(condition) = &entry.from {
        let holds = condition.holds(&from_version).map_err(|error| {
            let text =
                format!("{}: \"{}.from\" cannot be judged for \"{}\": {error}.", entry.position, entry.key, part.key);
            Error::new(Kind::InvalidManifest, text)
        });
        if !holds? {
            return Ok(None);
        }
    }
    // An intermediate one that changes nothing leads nowhere.
    if artifact > 0 && selection::is_installed(provides, candidate) {
        return Ok(None);
    }
    if selection::select(part.key, part.interface, provides, std::slice::from_ref(candidate)).is_err() {
        return Ok(None);
    }
    let to_version = version(&selection::provides_after(provides, candidate), part.interface);
    if let Some(declared) = entry.version.as_ref().filter(|declared| **declared != to_version) {
        let text = format!(
            "{}: \"{}.version\" is \"{}\", but the Artifact \"{}\" makes it \"{}\".",
            entry.position,
            entry.key,
            excerpt(declared),
            excerpt(&candidate.source),
            excerpt(&to_version)
        );
        return Err(Error::new(Kind::InvalidManifest, text));
    }
    Ok(Some(Hop { artifact, before: provides.clone(), from_version, to_version }))
}

fn no_way(part: &Part<'_>, entry: &ComponentType, target: &Candidate) -> Error {
    let over = match entry.intermediates.len() {
        0 => String::new(),
        count => format!(" Over its {count} intermediate Artifacts there is no way either."),
    };
    let refusal = selection::select(part.key, part.interface, part.provides, std::slice::from_ref(target)).err();
    let text = refusal.map_or_else(
        || {
            let from = entry.artifact.from.as_ref().map(ToString::to_string).unwrap_or_default();
            format!(
                "{}: \"{}\" may be installed from {from} only, but the Component \"{}\" has \"{}\".{over}",
                entry.artifact.position,
                entry.artifact.key,
                part.key,
                excerpt(&version(part.provides, part.interface))
            )
        },
        |refusal| format!("{refusal}{over}"),
    );
    Error::new(Kind::NoSuitableArtifact, text)
}
