//! Events, precedences between them, and choices of which one precedence has to hold: finds the earliest step of each event.

use std::fmt;

use super::Moment;
use super::ground::{Ground, each_choice};

/// What a planning may still spend.
#[derive(Debug)]
pub(super) struct Budget {
    whole: u64,
    left: u64,
}

/// The budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GaveUp {
    whole: u64,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the constraints leave too many ways to look at them all ({} operations)", self.whole)
    }
}

impl Budget {
    pub fn new(whole: u64) -> Self {
        Self { whole, left: whole }
    }

    /// A part of what is left, for work that may be done without.
    pub fn share(&mut self, divisor: u64) -> Self {
        let part = self.left / divisor;
        self.left -= part;
        Self { whole: self.whole, left: part }
    }

    /// Gives back what is left of a share.
    pub fn take_back(&mut self, share: &Self) {
        self.left += share.left;
    }

    /// There is more to look at than is allowed.
    pub fn exhaust(&mut self) -> Result<(), GaveUp> {
        self.left = 0;
        self.spend(1)
    }

    pub fn spend(&mut self, operations: usize) -> Result<(), GaveUp> {
        let operations = u64::try_from(operations).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(operations).ok_or(GaveUp { whole: self.whole })?;
        Ok(())
    }
}

/// Why a precedence is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// A constraint, by index.
    Constraint(usize),
    /// The numbers in `order`.
    Order,
    /// A Component goes through one version after the other, committed in between.
    Way,
}

/// A precedence: `after` happens at least `weight` steps later than `before`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence {
    pub before: usize,
    pub after: usize,
    pub weight: u32,
}

/// One of these has to hold.
struct Choice {
    precedences: Vec<Precedence>,
    cause: Cause,
}

/// Precedences of which one has to be chosen, the best last.
type Alternatives = Vec<(Precedence, Cause)>;

/// Which causes count; for finding out which of them conflict.
#[derive(Debug, Clone)]
pub(super) struct Mask {
    pub constraints: Vec<bool>,
    pub order: bool,
}

/// What ties an event to its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tie {
    /// Nothing: it is as early as can be.
    None,
    /// It follows the event of another unit, given with the place on its way.
    After(usize, usize, Cause),
    /// It waits for a step in which the host is rebooted anyway.
    Reboot,
}

/// The events of some units on chosen ways. An event is "the unit comes to a place of its way"; events behind those of all units
/// stand for commits between two of them.
pub(super) struct Network<'g> {
    ground: &'g Ground<'g>,
    mask: &'g Mask,
    units: Vec<usize>,
    ways: Vec<usize>,
    /// Number of the first event of each unit; the event of place `i` is `first + i - 1`.
    first: Vec<usize>,
    /// Of each event: unit and place.
    events: Vec<(usize, usize)>,
    /// Events from here on are commits.
    moves: usize,
    host: Vec<bool>,
    following: Vec<Vec<(Precedence, Cause)>>,
    /// How many of `following` are given; what comes after them was chosen by the last `solve`.
    given: Vec<usize>,
    choices: Vec<Choice>,
    /// Scopes that decide whether a state can be committed.
    scopes: Vec<usize>,
    earliest: Vec<u32>,
    /// Steps that follow each event at least.
    tail: Vec<u32>,
    feasible: bool,
}

/// What a solution has to keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'b> {
    /// The last step.
    pub steps: u32,
    /// The steps in which the host may be rebooted, ascending; `None`: any.
    pub reboots: Option<&'b [u32]>,
}

impl<'g> Network<'g> {
    /// Sets up the events and precedences of these units on these ways (`ways` has one for every unit of the ground).
    pub fn new(
        ground: &'g Ground<'g>,
        mask: &'g Mask,
        units: &[usize],
        scopes: &[usize],
        ways: &[usize],
        budget: &mut Budget,
    ) -> Result<Self, GaveUp> {
        let mut network = Self {
            ground,
            mask,
            units: units.to_vec(),
            ways: ways.to_vec(),
            first: vec![usize::MAX; ground.units.len()],
            events: Vec::new(),
            moves: 0,
            host: Vec::new(),
            following: Vec::new(),
            given: Vec::new(),
            choices: Vec::new(),
            scopes: scopes.to_vec(),
            earliest: Vec::new(),
            tail: Vec::new(),
            feasible: true,
        };
        for &unit in units {
            network.first[unit] = network.events.len();
            for place in 1..=ground.last(unit, ways) {
                network.events.push((unit, place));
                network.host.push(ground.units[unit].reboots_host);
            }
        }
        network.moves = network.events.len();
        for event in 1..network.moves {
            if network.events[event].0 == network.events[event - 1].0 {
                let commit = network.events.len();
                network.events.push(network.events[event - 1]);
                network.host.push(false);
                let leave = Precedence { before: event - 1, after: commit, weight: 0 };
                let arrive = Precedence { before: commit, after: event, weight: 1 };
                for precedence in [leave, arrive] {
                    network.choices.push(Choice { precedences: vec![precedence], cause: Cause::Way });
                }
            }
        }
        if mask.order {
            network.keep_order();
        }
        for &scope in scopes {
            network.keep_scope(scope, budget)?;
        }
        network.settle(budget)?;
        Ok(network)
    }

    /// Units with a lower `order` are through before those with the next higher one begin.
    fn keep_order(&mut self) {
        let mut orders: Vec<u32> = self.units.iter().filter_map(|&unit| self.ground.units[unit].order).collect();
        orders.sort_unstable();
        orders.dedup();
        let of = |order: u32| {
            self.units.iter().copied().filter(|&unit| self.ground.units[unit].order == Some(order)).collect::<Vec<_>>()
        };
        let mut choices = Vec::new();
        for pair in orders.windows(2) {
            for low in of(pair[0]) {
                for high in of(pair[1]) {
                    let before = self.first[low] + self.ground.last(low, &self.ways) - 1;
                    let precedence = Precedence { before, after: self.first[high], weight: 1 };
                    choices.push(Choice { precedences: vec![precedence], cause: Cause::Order });
                }
            }
        }
        self.choices.append(&mut choices);
    }

    /// Turns every combination of the scope that must not occur into a choice of precedences that prevent it.
    fn keep_scope(&mut self, index: usize, budget: &mut Budget) -> Result<(), GaveUp> {
        let (ground, scope) = (self.ground, &self.ground.scopes[index]);
        if !self.mask.constraints[scope.constraint] || ground.is_free(scope) {
            return Ok(());
        }
        let places: Vec<Vec<usize>> =
            scope.units.iter().map(|&unit| (0..=ground.last(unit, &self.ways)).collect()).collect();
        let places: Vec<&[usize]> = places.iter().map(Vec::as_slice).collect();
        budget.spend(places.iter().map(|places| places.len()).product())?;
        let mut choices = Vec::new();
        each_choice(&places, |at| {
            let moment = ground.moment(scope, &self.ways, at);
            if moment == Some(Moment::Transition) && !ground.allows(scope, Moment::Transition, &self.ways, at) {
                choices.push(Choice {
                    precedences: self.preventing(scope, at),
                    cause: Cause::Constraint(scope.constraint),
                });
            }
        });
        self.choices.append(&mut choices);
        Ok(())
    }

    /// The precedences of which each keeps these units from being at these places at the same time: one has left its place a step
    /// before another comes to its own.
    fn preventing(&self, scope: &super::ground::Scope, at: &[usize]) -> Vec<Precedence> {
        let mut precedences = Vec::new();
        for (&left, &place) in scope.units.iter().zip(at) {
            if place == self.ground.last(left, &self.ways) {
                continue;
            }
            for (&other, &come) in scope.units.iter().zip(at) {
                if other != left && come > 0 {
                    let (before, after) = (self.first[left] + place, self.first[other] + come - 1);
                    precedences.push(Precedence { before, after, weight: 1 });
                }
            }
        }
        precedences
    }

    /// Takes the choices that are none as given, and works out the earliest steps that follow.
    fn settle(&mut self, budget: &mut Budget) -> Result<(), GaveUp> {
        let count = self.events.len();
        self.following = vec![Vec::new(); count];
        self.earliest = vec![1; count];
        self.tail = vec![0; count];
        let (given, open) =
            std::mem::take(&mut self.choices).into_iter().partition(|choice| choice.precedences.len() == 1);
        self.choices = open;
        let mut given: Vec<(Precedence, Cause)> =
            Vec::<Choice>::into_iter(given).map(|choice| (choice.precedences[0], choice.cause)).collect();
        // What a constraint asks for explains more than what follows from the way itself.
        given.sort_unstable();
        given.dedup_by_key(|(precedence, _)| *precedence);
        for (precedence, cause) in given {
            self.following[precedence.before].push((precedence, cause));
        }
        self.given = self.following.iter().map(Vec::len).collect();
        if self.choices.iter().any(|choice| choice.precedences.is_empty()) {
            self.feasible = false;
            return Ok(());
        }
        let longest = self.longest();
        let mut queue: Vec<usize> = (0..count).collect();
        while let Some(event) = queue.pop() {
            budget.spend(1 + self.following[event].len())?;
            for index in 0..self.following[event].len() {
                let (Precedence { after, weight, .. }, _) = self.following[event][index];
                let step = self.earliest[event] + weight;
                if step > longest {
                    // Only a circle is longer than all events one after the other.
                    self.feasible = false;
                    return Ok(());
                }
                if step > self.earliest[after] {
                    self.earliest[after] = step;
                    queue.push(after);
                }
            }
        }
        let mut order: Vec<usize> = (0..count).collect();
        // Tails grow backwards; events of one step may be tied by a weight of 0, so this is repeated until nothing changes.
        order.sort_by_key(|&event| std::cmp::Reverse(self.earliest[event]));
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for &event in &order {
                budget.spend(1 + self.following[event].len())?;
                let tail = self.following[event].iter().map(|(given, _)| self.tail[given.after] + given.weight).max();
                if tail.is_some_and(|tail| tail > self.tail[event]) {
                    self.tail[event] = tail.unwrap_or_default();
                    changed = true;
                }
            }
        }
        Ok(())
    }

    /// Whether an update of one of the units reboots the host.
    pub fn reboots_host(&self) -> bool {
        self.host.contains(&true)
    }

    /// The first and the last step that each reboot of the host may fall into, if there are this many steps.
    pub fn reboot_windows(&self, steps: u32) -> impl Iterator<Item = (u32, u32)> {
        let hosts = (0..self.events.len()).filter(|&event| self.host[event]);
        hosts.map(move |event| (self.earliest[event], steps.saturating_sub(self.tail[event])))
    }

    /// How many reboots have to come one after the other at least.
    pub fn reboots_in_a_row(&self) -> u32 {
        let mut order: Vec<usize> = (0..self.events.len()).collect();
        // What is given runs from earlier steps to later ones; commits, which are tied by a weight of 0, are no reboots, and
        // leaving one out makes the bound weaker, not wrong.
        order.sort_by_key(|&event| self.earliest[event]);
        let mut row = vec![0; self.events.len()];
        for event in order {
            row[event] += u32::from(self.host[event]);
            let so_far = row[event];
            for (given, _) in &self.following[event][..self.given[event]] {
                row[given.after] = row[given.after].max(so_far);
            }
        }
        row.into_iter().max().unwrap_or(0)
    }

    /// A number of steps that is always enough, if any is.
    pub fn longest(&self) -> u32 {
        u32::try_from(self.moves).unwrap_or(u32::MAX).max(1)
    }

    /// A number of steps that is needed at least.
    pub fn shortest(&self) -> u32 {
        self.earliest[..self.moves].iter().copied().max().unwrap_or(0)
    }

    /// Finds steps for all events; `None`: there are none.
    pub fn solve(&mut self, bounds: Bounds<'_>, budget: &mut Budget) -> Result<Option<Vec<u32>>, GaveUp> {
        if !self.feasible {
            return Ok(None);
        }
        for (following, given) in self.following.iter_mut().zip(&self.given) {
            following.truncate(*given);
        }
        let mut search = Search { steps: self.earliest.clone(), trail: Vec::new(), added: Vec::new(), bounds };
        let all: Vec<usize> = (0..self.events.len()).collect();
        // Where to go back to, and what is left to try there.
        let mut frames: Vec<(usize, usize, Alternatives)> = Vec::new();
        let mut fits = search.push_on(self, &all, budget)?;
        loop {
            let open = if fits { self.open_choice(&search, budget)? } else { Some(Vec::new()) };
            let Some(open) = open else { break };
            frames.push((search.trail.len(), search.added.len(), open));
            // The next alternative of the innermost choice that has one.
            loop {
                let Some((trail, added, alternatives)) = frames.last_mut() else {
                    return Ok(None);
                };
                search.undo(self, *trail, *added);
                match alternatives.pop() {
                    Some((precedence, cause)) => {
                        fits = search.add(self, precedence, cause, budget)?;
                        break;
                    }
                    None => drop(frames.pop()),
                }
            }
        }
        // The precedences that were chosen stay for `ties` to find, until the next call.
        Ok(Some(search.steps))
    }

    /// A choice that is not kept by the steps as they are, with the alternatives that fit, best last. `None`: all are kept.
    fn open_choice(&self, search: &Search<'_>, budget: &mut Budget) -> Result<Option<Alternatives>, GaveUp> {
        let mut best: Option<Alternatives> = None;
        for choice in &self.choices {
            budget.spend(choice.precedences.len())?;
            if choice.precedences.iter().any(|precedence| search.keeps(*precedence)) {
                continue;
            }
            let fitting = choice.precedences.iter().filter(|precedence| search.fits(self, **precedence));
            let fitting: Vec<(Precedence, Cause)> = fitting.map(|precedence| (*precedence, choice.cause)).collect();
            if best.as_ref().is_none_or(|best| fitting.len() < best.len()) {
                let done = fitting.len() < 2;
                best = Some(fitting);
                if done {
                    break;
                }
            }
        }
        let best = match best {
            None => self.open_commit(search, budget)?,
            best => best,
        };
        Ok(best.map(|mut alternatives| {
            let delay = |precedence: &Precedence| search.steps[precedence.before] + precedence.weight;
            alternatives.sort_by_key(|(precedence, _)| std::cmp::Reverse((delay(precedence), *precedence)));
            alternatives
        }))
    }

    /// As `open_choice`, for a commit in a state in which the System must not rest.
    fn open_commit(&self, search: &Search<'_>, budget: &mut Budget) -> Result<Option<Alternatives>, GaveUp> {
        let mut looked_at = Vec::new();
        for commit in self.moves..self.events.len() {
            let step = search.steps[commit];
            if looked_at.contains(&step) {
                continue;
            }
            looked_at.push(step);
            budget.spend(self.scopes.len())?;
            for &index in &self.scopes {
                let scope = &self.ground.scopes[index];
                if !self.mask.constraints[scope.constraint] {
                    continue;
                }
                let place = |&unit: &usize| match self.first[unit] {
                    usize::MAX => 0,
                    first => {
                        let last = self.ground.last(unit, &self.ways);
                        (0..last).take_while(|place| search.steps[first + place] <= step).count()
                    }
                };
                let at: Vec<usize> = scope.units.iter().map(place).collect();
                let rests_as_found = at.iter().all(|at| *at == 0);
                if rests_as_found || self.ground.allows(scope, Moment::End, &self.ways, &at) {
                    continue;
                }
                // Some unit of the combination leaves before the commit, or comes after it.
                let mut alternatives = Vec::new();
                for (&unit, &place) in scope.units.iter().zip(&at) {
                    if place > 0 {
                        let come = self.first[unit] + place - 1;
                        alternatives.push(Precedence { before: commit, after: come, weight: 1 });
                    }
                    if place < self.ground.last(unit, &self.ways) {
                        let leave = self.first[unit] + place;
                        alternatives.push(Precedence { before: leave, after: commit, weight: 0 });
                    }
                }
                let fitting = alternatives.into_iter().filter(|precedence| search.fits(self, *precedence));
                return Ok(Some(fitting.map(|fitting| (fitting, Cause::Constraint(scope.constraint))).collect()));
            }
        }
        Ok(None)
    }

    /// What ties each event of a solution to its step; units with the events of their places. Belongs to the last `solve`.
    pub fn ties(&self, steps: &[u32]) -> Vec<(usize, usize, u32, Tie)> {
        let mut ties = vec![Tie::Reboot; self.events.len()];
        let rank = |tie: &Tie| match tie {
            Tie::After(_, _, Cause::Constraint(_)) => 0,
            Tie::After(_, _, Cause::Order) => 1,
            Tie::After(_, _, Cause::Way) => 2,
            Tie::None | Tie::Reboot => 3,
        };
        // Commits pass on what ties them, so they come first; each is tied by a move, or by nothing.
        for commits in [true, false] {
            for (precedence, cause) in self.following.iter().flatten() {
                let Precedence { before, after, weight } = *precedence;
                if (after >= self.moves) != commits || steps[before] + weight != steps[after] {
                    continue;
                }
                let (unit, place) = self.events[before];
                let tie = match ties[before] {
                    Tie::After(unit, place, inner @ Cause::Constraint(_)) if before >= self.moves => {
                        Tie::After(unit, place, inner)
                    }
                    _ => Tie::After(unit, place, *cause),
                };
                if rank(&tie) < rank(&ties[after]) {
                    ties[after] = tie;
                }
            }
        }
        let moves = self.events.iter().zip(&ties).zip(steps).take(self.moves);
        let tie = |step: u32, tie: Tie| if step == 1 { Tie::None } else { tie };
        moves.map(|((&(unit, place), &found), &step)| (unit, place, step, tie(step, found))).collect()
    }

    /// The steps of a solution, by unit.
    pub fn courses(&self, steps: &[u32]) -> Vec<(usize, Vec<u32>)> {
        let of = |&unit: &usize| {
            let first = self.first[unit];
            (unit, steps[first..first + self.ground.last(unit, &self.ways)].to_vec())
        };
        self.units.iter().map(of).collect()
    }
}

/// Where a search is.
struct Search<'b> {
    steps: Vec<u32>,
    trail: Vec<(usize, u32)>,
    added: Vec<usize>,
    bounds: Bounds<'b>,
}

impl Search<'_> {
    fn keeps(&self, precedence: Precedence) -> bool {
        self.steps[precedence.before] + precedence.weight <= self.steps[precedence.after]
    }

    fn fits(&self, network: &Network<'_>, precedence: Precedence) -> bool {
        self.steps[precedence.before] + precedence.weight + network.tail[precedence.after] <= self.bounds.steps
    }

    fn undo(&mut self, network: &mut Network<'_>, trail: usize, added: usize) {
        for (event, step) in self.trail.drain(trail..).rev() {
            self.steps[event] = step;
        }
        for before in self.added.drain(added..).rev() {
            network.following[before].pop();
        }
    }

    fn add(
        &mut self,
        network: &mut Network<'_>,
        precedence: Precedence,
        cause: Cause,
        budget: &mut Budget,
    ) -> Result<bool, GaveUp> {
        network.following[precedence.before].push((precedence, cause));
        self.added.push(precedence.before);
        self.push_on(network, &[precedence.before], budget)
    }

    /// Moves events to where they may be at the earliest; false: beyond the bounds.
    fn push_on(&mut self, network: &Network<'_>, from: &[usize], budget: &mut Budget) -> Result<bool, GaveUp> {
        let mut queue = Vec::new();
        for &event in from {
            if !self.put(network, event, self.steps[event]) {
                return Ok(false);
            }
            queue.push(event);
        }
        while let Some(event) = queue.pop() {
            budget.spend(1 + network.following[event].len())?;
            for &(Precedence { after, weight, .. }, _) in &network.following[event] {
                let step = self.steps[event] + weight;
                if step > self.steps[after] {
                    if !self.put(network, after, step) {
                        return Ok(false);
                    }
                    queue.push(after);
                }
            }
        }
        Ok(true)
    }

    fn put(&mut self, network: &Network<'_>, event: usize, step: u32) -> bool {
        let step = match self.bounds.reboots {
            Some(reboots) if network.host[event] => match reboots.iter().find(|reboot| **reboot >= step) {
                Some(reboot) => *reboot,
                None => return false,
            },
            _ => step,
        };
        if step != self.steps[event] {
            self.trail.push((event, self.steps[event]));
            self.steps[event] = step;
        }
        step + network.tail[event] <= self.bounds.steps
    }
}
