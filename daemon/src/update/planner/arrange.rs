//! Splits the System into clusters, chooses the ways of the units, and finds the fewest steps and reboots.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use super::Course;
use super::ground::Ground;
use super::network::{Bounds, Budget, GaveUp, Mask, Network, Tie};

/// So many choices of ways are looked at for one cluster.
const WAYS_LIMIT: usize = 2_000;
/// So many of them are kept to choose from.
const CANDIDATES_LIMIT: usize = 64;

/// An event, by unit and place on its way, with its step and what ties it there.
pub(super) type Tied = (usize, usize, u32, Tie);

/// When everything happens.
pub(super) struct Arrangement {
    pub courses: Vec<Course>,
    pub ties: Vec<Tied>,
    pub minimal: bool,
}

/// Units that constraints connect, with those constraints.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub units: Vec<usize>,
    pub scopes: Vec<usize>,
}

/// One choice of ways that can be gone.
struct Candidate<'g> {
    ways: Vec<usize>,
    network: Network<'g>,
    steps: u32,
    artifacts: usize,
}

/// Finds the arrangement with the fewest steps, reboots of the host and Artifacts. `None`: there is none.
pub(super) fn arrange(ground: &Ground<'_>, budget: &mut Budget) -> Result<Option<Arrangement>, GaveUp> {
    let mask = Mask { constraints: vec![true; ground.constraints.len()], order: true };
    let mut minimal = true;
    let mut choices = Vec::new();
    for cluster in clusters(ground) {
        let (candidates, complete) = candidates(ground, &mask, &cluster, budget)?;
        if candidates.is_empty() {
            return Ok(None);
        }
        minimal &= complete;
        choices.push(candidates);
    }
    let fewest = |candidates: &Vec<Candidate<'_>>| candidates.iter().map(|candidate| candidate.steps).min();
    let steps = choices.iter().filter_map(fewest).max().unwrap_or(0);
    for candidates in &mut choices {
        candidates.retain(|candidate| candidate.steps <= steps);
        candidates.sort_by_key(|candidate| candidate.artifacts);
    }
    let (reboots, proven) = fewest_reboots(&mut choices, steps, budget);
    minimal &= proven;
    let bounds = Bounds { steps, reboots: reboots.as_deref() };
    let mut arrangement =
        Arrangement { courses: vec![Course::default(); ground.units.len()], ties: Vec::new(), minimal };
    for candidates in &mut choices {
        for candidate in candidates {
            let Some(found) = candidate.network.solve(bounds, budget)? else { continue };
            for (unit, steps) in candidate.network.courses(&found) {
                arrangement.courses[unit] = Course { way: candidate.ways[unit], steps, reasons: Vec::new() };
            }
            arrangement.ties.extend(candidate.network.ties(&found));
            break;
        }
    }
    close_gaps(&mut arrangement);
    Ok(Some(arrangement))
}

/// Steps in which nothing happens, which there are only if the fewest were not found, count for nothing.
fn close_gaps(arrangement: &mut Arrangement) {
    let mut used: Vec<u32> = arrangement.courses.iter().flat_map(|course| course.steps.clone()).collect();
    used.sort_unstable();
    used.dedup();
    let number = |step: u32| u32::try_from(used.partition_point(|used| *used < step) + 1).unwrap_or(u32::MAX);
    for course in &mut arrangement.courses {
        course.steps.iter_mut().for_each(|step| *step = number(*step));
    }
    for (_, _, step, _) in &mut arrangement.ties {
        *step = number(*step);
    }
}

/// The unit that stands for the cluster of this one.
fn find(root: &mut [usize], mut unit: usize) -> usize {
    while root[unit] != unit {
        root[unit] = root[root[unit]];
        unit = root[unit];
    }
    unit
}

/// The clusters of the units that move.
pub(super) fn clusters(ground: &Ground<'_>) -> Vec<Cluster> {
    let units = ground.units;
    let mut root: Vec<usize> = (0..units.len()).collect();
    let moving: Vec<usize> = (0..units.len()).filter(|&unit| units[unit].moves()).collect();
    let join = |root: &mut Vec<usize>, group: &[usize]| {
        for pair in group.windows(2) {
            let (left, right) = (find(root, pair[0]), find(root, pair[1]));
            root[left.max(right)] = left.min(right);
        }
    };
    // A commit between two steps is one of everything, so nothing can be planned apart from it.
    let commits = moving.iter().any(|&unit| units[unit].ways.iter().any(|way| way.len() > 1));
    if commits {
        join(&mut root, &moving);
    }
    let ordered: Vec<usize> = moving.iter().copied().filter(|&unit| units[unit].order.is_some()).collect();
    join(&mut root, &ordered);
    for scope in ground.scopes.iter().filter(|scope| !ground.is_free(scope)) {
        let group: Vec<usize> = scope.units.iter().copied().filter(|&unit| units[unit].moves()).collect();
        join(&mut root, &group);
    }
    let mut clusters: Vec<Cluster> = units.iter().map(|_| Cluster::default()).collect();
    for &unit in &moving {
        clusters[find(&mut root, unit)].units.push(unit);
    }
    for (index, scope) in ground.scopes.iter().enumerate() {
        let member = scope.units.iter().find(|unit| units[**unit].moves());
        let member = if commits { moving.first() } else { member };
        if let Some(&unit) = member {
            clusters[find(&mut root, unit)].scopes.push(index);
        }
    }
    clusters.retain(|cluster| !cluster.units.is_empty());
    clusters
}

/// Choices of a way for each unit of a cluster, those with the fewest Artifacts first.
struct Ways<'g> {
    ground: &'g Ground<'g>,
    units: &'g [usize],
    waiting: BinaryHeap<Reverse<(usize, Vec<usize>)>>,
    seen: HashSet<Vec<usize>>,
}

impl<'g> Ways<'g> {
    fn new(ground: &'g Ground<'g>, units: &'g [usize]) -> Self {
        let first = vec![0; units.len()];
        let mut ways = Self { ground, units, waiting: BinaryHeap::new(), seen: HashSet::new() };
        ways.put(first);
        ways
    }

    fn put(&mut self, chosen: Vec<usize>) {
        let units = self.units.iter().map(|&unit| &self.ground.units[unit]);
        let artifacts = units.zip(&chosen).map(|(unit, &way)| unit.ways[way].len() * unit.count).sum();
        if self.seen.insert(chosen.clone()) {
            self.waiting.push(Reverse((artifacts, chosen)));
        }
    }
}

impl Iterator for Ways<'_> {
    type Item = (usize, Vec<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((artifacts, chosen)) = self.waiting.pop()?;
        for (place, &unit) in self.units.iter().enumerate() {
            if chosen[place] + 1 < self.ground.units[unit].ways.len() {
                let mut next = chosen.clone();
                next[place] += 1;
                self.put(next);
            }
        }
        let mut ways = vec![0; self.ground.units.len()];
        for (&unit, way) in self.units.iter().zip(chosen) {
            ways[unit] = way;
        }
        Some((artifacts, ways))
    }
}

/// Whether a cluster can be gone through if only these causes count.
pub(super) fn is_feasible(
    ground: &Ground<'_>,
    mask: &Mask,
    cluster: &Cluster,
    budget: &mut Budget,
) -> Result<bool, GaveUp> {
    for (count, (_, ways)) in Ways::new(ground, &cluster.units).enumerate() {
        if count == WAYS_LIMIT {
            budget.exhaust()?;
        }
        let mut network = Network::new(ground, mask, &cluster.units, &cluster.scopes, &ways, budget)?;
        let bounds = Bounds { steps: network.longest(), reboots: None };
        if network.solve(bounds, budget)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The choices of ways that a cluster can go, each with its fewest steps; and whether these are all.
fn candidates<'g>(
    ground: &'g Ground<'g>,
    mask: &'g Mask,
    cluster: &Cluster,
    budget: &mut Budget,
) -> Result<(Vec<Candidate<'g>>, bool), GaveUp> {
    let mut found: Vec<Candidate<'g>> = Vec::new();
    let mut complete = true;
    for (count, (artifacts, ways)) in Ways::new(ground, &cluster.units).enumerate() {
        if count == WAYS_LIMIT || found.len() == CANDIDATES_LIMIT {
            complete = false;
            break;
        }
        match candidate(ground, mask, cluster, ways, artifacts, budget) {
            Ok(Some((candidate, proven))) => {
                complete &= proven;
                found.push(candidate);
            }
            Ok(None) => {}
            Err(gave_up) if found.is_empty() => return Err(gave_up),
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    if found.is_empty() && !complete {
        budget.exhaust()?;
    }
    Ok((found, complete))
}

fn candidate<'g>(
    ground: &'g Ground<'g>,
    mask: &'g Mask,
    cluster: &Cluster,
    ways: Vec<usize>,
    artifacts: usize,
    budget: &mut Budget,
) -> Result<Option<(Candidate<'g>, bool)>, GaveUp> {
    let mut network = Network::new(ground, mask, &cluster.units, &cluster.scopes, &ways, budget)?;
    let last = |found: &[Vec<u32>]| found.iter().flatten().copied().max().unwrap_or(0);
    let steps_of = |network: &Network<'_>, found: &[u32]| {
        last(&network.courses(found).into_iter().map(|(_, steps)| steps).collect::<Vec<_>>())
    };
    let bounds = Bounds { steps: network.longest(), reboots: None };
    let Some(found) = network.solve(bounds, budget)? else { return Ok(None) };
    let mut steps = steps_of(&network, &found);
    let mut proven = true;
    while steps > network.shortest() {
        // Half of what is left may go into each proof that fewer steps will not do.
        let mut share = budget.share(2);
        let fewer = network.solve(Bounds { steps: steps - 1, reboots: None }, &mut share);
        budget.take_back(&share);
        match fewer {
            Ok(Some(found)) => steps = steps_of(&network, &found),
            Ok(None) => break,
            Err(_) => {
                proven = false;
                break;
            }
        }
    }
    Ok(Some((Candidate { ways, network, steps, artifacts }, proven)))
}

/// The steps in which the host is rebooted, as few as possible, and whether that is proven; `None`: it is not rebooted at all,
/// or nothing better was found than where the steps happen to have it.
fn fewest_reboots(choices: &mut [Vec<Candidate<'_>>], steps: u32, budget: &mut Budget) -> (Option<Vec<u32>>, bool) {
    let reboots = choices.iter().flatten().any(|candidate| candidate.network.reboots_host());
    if !reboots {
        // The cheapest candidates stand first, and all of them fit.
        return (None, true);
    }
    let mut share = budget.share(2);
    let found = search_reboots(choices, steps, &mut share);
    budget.take_back(&share);
    if let Ok(found) = found {
        return (found, true);
    }
    // As good as can be had: leave out one step after the other.
    let mut kept: Vec<u32> = (1..=steps).collect();
    let mut share = budget.share(2);
    for step in 1..=steps {
        let fewer: Vec<u32> = kept.iter().copied().filter(|kept| *kept != step).collect();
        match fits(choices, steps, &fewer, &mut share) {
            Ok(Some(_)) => kept = fewer,
            Ok(None) => {}
            Err(_) => break,
        }
    }
    budget.take_back(&share);
    (Some(kept), false)
}

/// Looks through the sets of steps, the smallest first.
fn search_reboots(
    choices: &mut [Vec<Candidate<'_>>],
    steps: u32,
    budget: &mut Budget,
) -> Result<Option<Vec<u32>>, GaveUp> {
    // Where a cluster can be gone in one way only, its reboots have to fall into these.
    let single = choices.iter().filter(|candidates| candidates.len() == 1).flatten();
    let windows: Vec<(u32, u32)> = single.flat_map(|candidate| candidate.network.reboot_windows(steps)).collect();
    let chain = choices.iter().filter(|candidates| candidates.len() == 1).flatten();
    let chain = chain.map(|candidate| candidate.network.reboots_in_a_row()).max().unwrap_or(0);
    let ends_at_first = choices.iter().all(|candidates| candidates.len() == 1);
    for count in chain.max(1)..=steps {
        let mut search = RebootSearch { steps, windows: &windows, ends_at_first, best: None };
        search.extend(choices, &mut Vec::new(), count, budget)?;
        if let Some((_, chosen)) = search.best {
            return Ok(Some(chosen));
        }
    }
    Ok(None)
}

/// A search for a set of steps of one size.
struct RebootSearch<'w> {
    steps: u32,
    windows: &'w [(u32, u32)],
    /// The sets do not differ in the number of Artifacts.
    ends_at_first: bool,
    best: Option<(usize, Vec<u32>)>,
}

impl RebootSearch<'_> {
    /// Adds this many steps behind those that are chosen, the latest first.
    fn extend(
        &mut self,
        choices: &mut [Vec<Candidate<'_>>],
        chosen: &mut Vec<u32>,
        left: u32,
        budget: &mut Budget,
    ) -> Result<(), GaveUp> {
        budget.spend(1 + self.windows.len())?;
        if left == 0 {
            if let Some(artifacts) = fits(choices, self.steps, chosen, budget)?
                && self.best.as_ref().is_none_or(|(fewest, _)| artifacts < *fewest)
            {
                self.best = Some((artifacts, chosen.clone()));
            }
            return Ok(());
        }
        let missed = |(from, to): &&(u32, u32)| !chosen.iter().any(|step| (from..=to).contains(&step));
        let latest = self.windows.iter().filter(missed).map(|(_, to)| *to).min();
        let latest = latest.unwrap_or(self.steps).min(self.steps + 1 - left);
        let first = chosen.last().map_or(1, |last| last + 1);
        for step in (first..=latest).rev() {
            chosen.push(step);
            self.extend(choices, chosen, left - 1, budget)?;
            chosen.pop();
            if self.ends_at_first && self.best.is_some() {
                break;
            }
        }
        Ok(())
    }
}

/// How many Artifacts it takes if the host is rebooted in these steps only; `None`: it cannot be done.
fn fits(
    choices: &mut [Vec<Candidate<'_>>],
    steps: u32,
    reboots: &[u32],
    budget: &mut Budget,
) -> Result<Option<usize>, GaveUp> {
    let mut artifacts = 0;
    for candidates in choices {
        let mut cheapest = None;
        for candidate in candidates.iter_mut() {
            if candidate.network.solve(Bounds { steps, reboots: Some(reboots) }, budget)?.is_some() {
                cheapest = Some(candidate.artifacts);
                break;
            }
        }
        let Some(cheapest) = cheapest else { return Ok(None) };
        artifacts += cheapest;
    }
    Ok(Some(artifacts))
}
