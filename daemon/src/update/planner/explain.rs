//! Puts into words why there is no plan, and why a step is where it is.

use super::arrange::{Tied, clusters, is_feasible};
use super::ground::Ground;
use super::network::{Budget, Cause, Mask, Tie};
use super::{Constraint, Unplannable};
use crate::core::document::excerpt;

/// Label and words of a constraint.
pub(super) fn constraint(constraint: &Constraint) -> String {
    format!("{}: {}", constraint.label(), constraint.words())
}

/// A version for a message; one that is not known has no text.
pub(super) fn version(version: &str) -> String {
    if version.is_empty() { "(unknown)".to_owned() } else { excerpt(version) }
}

/// Which constraints conflict: none of those that are told can be left out, unless the budget ends before that is known.
pub(super) fn conflict(ground: &Ground<'_>, budget: &mut Budget) -> Unplannable {
    let mut mask = Mask { constraints: vec![true; ground.constraints.len()], order: true };
    let clusters = clusters(ground);
    let stuck = clusters.iter().find(|cluster| is_feasible(ground, &mask, cluster, budget) != Ok(true));
    let Some(cluster) = stuck else {
        return Unplannable::GaveUp("no plan was found, and no reason for that either".to_owned());
    };
    let mut concerned = vec![false; ground.constraints.len()];
    for &scope in &cluster.scopes {
        concerned[ground.scopes[scope].constraint] = true;
    }
    mask.constraints.clone_from(&concerned);
    let mut minimal = true;
    // From the last to the first: what stands first in the Manifest is what people know best.
    for index in (0..concerned.len()).rev().filter(|&index| concerned[index]) {
        mask.constraints[index] = false;
        match is_feasible(ground, &mask, cluster, budget) {
            Ok(false) => {}
            Ok(true) => mask.constraints[index] = true,
            Err(_) => {
                mask.constraints[index] = true;
                minimal = false;
            }
        }
    }
    let ordered = |&&unit: &&usize| ground.units[unit].order.is_some();
    if cluster.units.iter().filter(ordered).count() > 1 {
        mask.order = false;
        mask.order = is_feasible(ground, &mask, cluster, budget) != Ok(false);
    } else {
        mask.order = false;
    }
    let kept = ground.constraints.iter().zip(&mask.constraints).filter(|(_, kept)| **kept);
    let mut causes: Vec<String> = kept.map(|(kept, _)| constraint(kept)).collect();
    if mask.order {
        causes.push("the \"order\" in \"update_strategy\" of the Component types".to_owned());
    }
    Unplannable::Conflict { causes, minimal }
}

/// For each unit, why each of its moves is not earlier; empty where nothing holds it.
pub(super) fn reasons(ground: &Ground<'_>, ties: &[Tied]) -> Vec<Vec<String>> {
    let mut reasons = vec![Vec::new(); ground.units.len()];
    let mut ties: Vec<&Tied> = ties.iter().collect();
    ties.sort_by_key(|(unit, place, ..)| (*unit, *place));
    for (unit, _, _, tie) in ties {
        let text = match *tie {
            Tie::None => String::new(),
            Tie::Reboot => "together with another reboot of the host".to_owned(),
            Tie::After(other, _, Cause::Constraint(index)) => {
                format!("after {}, because of {}", ground.units[other].label, constraint(&ground.constraints[index]))
            }
            Tie::After(other, _, Cause::Order) => {
                format!("after {}, because of its lower \"order\"", ground.units[other].label)
            }
            Tie::After(_, _, Cause::Way) => "after its step before, which is committed first".to_owned(),
        };
        reasons[*unit].push(text);
    }
    reasons
}
