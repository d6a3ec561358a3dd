//! The planner against brute force, which looks at every state of every single Component and shares no code with it.
#![expect(clippy::format_push_string, reason = "writing to a String cannot fail, and this says so in fewer words")]

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use super::*;
use crate::core::document::Document;
use crate::update::manifest::Manifest;

/// A Component: type, version, ways, whether it reboots the host, whether it stays as it is.
type Component = (String, String, Vec<Vec<String>>, bool, bool);

/// A System with what it is to become.
struct Case {
    components: Vec<Component>,
    orders: BTreeMap<String, u32>,
    constraints: Vec<Constraint>,
    text: String,
}

/// Where a Component is: its way once it has moved, the place on it, and whether it has moved since the last commit.
type Place = (Option<usize>, usize, bool);

impl Case {
    fn units(&self) -> (Vec<Unit>, Vec<usize>) {
        let mut units: Vec<Unit> = Vec::new();
        let mut of = Vec::new();
        for (component_type, start, ways, reboots_host, stays) in &self.components {
            let unit = Unit {
                component_type: component_type.clone(),
                count: 1,
                label: format!("{component_type} {start}"),
                start: start.clone(),
                ways: ways.clone(),
                reboots_host: *reboots_host,
                stays: *stays,
                order: self.orders.get(component_type).copied(),
            };
            let known = units.iter().position(|known| *known == Unit { count: known.count, ..unit.clone() });
            let index = known.unwrap_or_else(|| {
                units.push(Unit { count: 0, ..unit });
                units.len() - 1
            });
            units[index].count += 1;
            of.push(index);
        }
        (units, of)
    }

    fn version(&self, component: usize, (way, at, _): Place) -> &str {
        let (_, start, ways, ..) = &self.components[component];
        if at == 0 { start } else { &ways[way.unwrap()][at - 1] }
    }

    fn arrived(&self, component: usize, (way, at, _): Place) -> bool {
        let ways = &self.components[component].2;
        if ways[0].is_empty() { true } else { way.is_some_and(|way| ways[way].len() == at) }
    }

    /// Every choice of one Component for each type.
    fn choices(&self, types: &[String]) -> Vec<Vec<usize>> {
        types.iter().fold(vec![Vec::new()], |choices, name| {
            let of_type = (0..self.components.len()).filter(|&index| self.components[index].0 == *name);
            let of_type: Vec<usize> = of_type.collect();
            choices
                .iter()
                .flat_map(|choice| of_type.iter().map(|&one| choice.iter().copied().chain([one]).collect::<Vec<_>>()))
                .collect()
        })
    }

    fn every(&self, judge: impl Fn(&Constraint, &[usize], &[&str]) -> bool, state: &[Place]) -> bool {
        self.constraints.iter().all(|constraint| {
            self.choices(&constraint.types).iter().all(|choice| {
                let versions: Vec<&str> = choice.iter().map(|&one| self.version(one, state[one])).collect();
                judge(constraint, choice, &versions)
            })
        })
    }

    fn acceptable(&self, state: &[Place]) -> bool {
        self.every(
            |constraint, choice, versions| {
                if choice.iter().all(|&one| self.arrived(one, state[one])) {
                    constraint.allows(Moment::End, versions).unwrap()
                } else {
                    choice.iter().all(|&one| state[one].1 == 0)
                        || constraint.allows(Moment::Transition, versions).unwrap()
                }
            },
            state,
        )
    }

    fn may_rest(&self, state: &[Place]) -> bool {
        self.every(
            |constraint, choice, versions| {
                choice.iter().all(|&one| state[one].1 == 0) || constraint.allows(Moment::End, versions).unwrap()
            },
            state,
        )
    }

    fn respects_order(&self, state: &[Place], moving: &[usize]) -> bool {
        let order = |one: usize| self.orders.get(&self.components[one].0);
        moving.iter().all(|&one| {
            (0..state.len()).all(|other| match (order(one), order(other)) {
                (Some(one), Some(lower)) if lower < one => self.arrived(other, state[other]),
                _ => true,
            })
        })
    }

    /// Steps, reboots and Artifacts of the best plan.
    fn best(&self) -> Option<(u32, u32, u32)> {
        let start: Vec<Place> = vec![(None, 0, false); self.components.len()];
        let target = |state: &[Place]| (0..state.len()).all(|one| self.arrived(one, state[one]));
        if target(&start) {
            return self.acceptable(&start).then_some((0, 0, 0));
        }
        let mut best: HashMap<Vec<Place>, (u32, u32, u32)> = HashMap::from([(start.clone(), (0, 0, 0))]);
        let mut waiting = BinaryHeap::from([std::cmp::Reverse(((0, 0, 0), start))]);
        while let Some(std::cmp::Reverse((cost, state))) = waiting.pop() {
            if best.get(&state) != Some(&cost) {
                continue;
            }
            if target(&state) {
                return Some(cost);
            }
            let mut found: Vec<(Vec<Place>, (u32, u32, u32))> = Vec::new();
            if self.may_rest(&state) && state.iter().any(|place| place.2) {
                found.push((state.iter().map(|&(way, at, _)| (way, at, false)).collect(), cost));
            }
            for (next, moving) in self.moves(&state) {
                if !self.respects_order(&state, &moving) || !self.all_subsets(&state, &next, &moving) {
                    continue;
                }
                let reboots = u32::from(moving.iter().any(|&one| self.components[one].3));
                let artifacts = u32::try_from(moving.len()).unwrap();
                found.push((next, (cost.0 + 1, cost.1 + reboots, cost.2 + artifacts)));
            }
            for (next, cost) in found {
                if best.get(&next).is_none_or(|known| cost < *known) {
                    best.insert(next.clone(), cost);
                    waiting.push(std::cmp::Reverse((cost, next)));
                }
            }
        }
        None
    }

    fn all_subsets(&self, from: &[Place], to: &[Place], moving: &[usize]) -> bool {
        (0..1_u32 << moving.len()).all(|subset| {
            let mut state = from.to_vec();
            for (bit, &one) in moving.iter().enumerate() {
                if subset & (1 << bit) != 0 {
                    state[one] = to[one];
                }
            }
            self.acceptable(&state)
        })
    }

    /// Every state that one step leads to, with who moves.
    fn moves(&self, state: &[Place]) -> Vec<(Vec<Place>, Vec<usize>)> {
        let mut found = vec![(state.to_vec(), Vec::new())];
        for (one, &(way, at, moved)) in state.iter().enumerate() {
            let ways = &self.components[one].2;
            let open = |index: &usize| ways[*index].len() > at && way.is_none_or(|way| way == *index) && !moved;
            for index in (0..ways.len()).filter(open) {
                for (state, moving) in found.clone() {
                    if moving.contains(&one) {
                        continue;
                    }
                    let (mut state, mut moving) = (state, moving);
                    state[one] = (Some(index), at + 1, true);
                    moving.push(one);
                    found.push((state, moving));
                }
            }
        }
        found.retain(|(_, moving)| !moving.is_empty());
        found
    }

    /// The state of each Component after a step of a plan.
    fn state(of: &[usize], schedule: &Schedule, step: u32) -> Vec<Place> {
        of.iter()
            .map(|&unit| {
                let course = &schedule.courses[unit];
                let at = course.steps.iter().filter(|moved| **moved <= step).count();
                (Some(course.way), at, false)
            })
            .collect()
    }

    /// Plays a failure in each step with each subset of it done, and goes back; compares with what the plan foretells.
    fn check_ways_back(&self, of: &[usize], schedule: &Schedule) {
        for failed in 1..=schedule.steps {
            let begun = schedule.commits.iter().copied().filter(|commit| *commit < failed).max().unwrap_or(0);
            let mut sound = true;
            let (before, now) = (Self::state(of, schedule, failed - 1), Self::state(of, schedule, failed));
            let moving: Vec<usize> = (0..of.len()).filter(|&one| before[one] != now[one]).collect();
            for subset in 0..1_u32 << moving.len() {
                let mut reached = before.clone();
                for (bit, &one) in moving.iter().enumerate() {
                    if subset & (1 << bit) != 0 {
                        reached[one] = now[one];
                    }
                }
                let start = Self::state(of, schedule, begun);
                let stuck = |one: usize| self.components[one].4 && reached[one] != start[one];
                // One step after the other is undone, each in any order.
                for step in (begun + 1..=failed).rev() {
                    let (from, to) = (Self::state(of, schedule, step), Self::state(of, schedule, step - 1));
                    let from: Vec<Place> = (0..of.len())
                        .map(|one| if stuck(one) || step == failed { reached[one] } else { from[one] })
                        .collect();
                    let to: Vec<Place> =
                        (0..of.len()).map(|one| if stuck(one) { reached[one] } else { to[one] }).collect();
                    let back: Vec<usize> = (0..of.len()).filter(|&one| from[one] != to[one]).collect();
                    sound &= self.all_subsets(&from, &to, &back);
                }
                let rest: Vec<Place> =
                    (0..of.len()).map(|one| if stuck(one) { reached[one] } else { start[one] }).collect();
                if (0..of.len()).any(stuck) {
                    sound &= self.may_rest(&rest);
                }
            }
            let foretold = &schedule.way_back[usize::try_from(failed).unwrap() - 1];
            assert_eq!(sound, !matches!(foretold, WayBack::Broken(..)), "step {failed}: {foretold:?}\n{}", self.text);
        }
    }
}

/// The same numbers at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }
}

fn case(dice: &mut Dice) -> Case {
    let types: Vec<String> = (0..2 + dice.below(3)).map(|index| format!("t{index}")).collect();
    let hops = dice.below(3) == 0;
    let mut components = Vec::new();
    let mut text = "api_version: orchestrator/v1\nkind: manifest\nname: x\nsystem_types_compatible: [s]\n".to_owned();
    text.push_str("component_types:\n");
    let mut orders = BTreeMap::new();
    let with_orders = dice.below(4) == 0;
    for (index, name) in types.iter().enumerate() {
        text.push_str(&format!("  {name}: {{artifact_name: a}}\n"));
        if with_orders && dice.below(2) == 0 {
            orders.insert(name.clone(), u32::try_from(dice.below(3)).unwrap() + 1);
        }
        let (host, stays) = (dice.below(3) == 0, dice.below(5) == 0);
        let several = index == 0 && types.len() < 4 && dice.below(2) == 0;
        for _ in 0..=usize::from(several) {
            let start = if dice.below(6) == 0 {
                "3"
            } else if dice.below(5) == 0 {
                "0"
            } else {
                "1"
            };
            let way = |versions: &[&str]| versions.iter().map(|version| (*version).to_owned()).collect::<Vec<_>>();
            let ways = match (start, dice.below(3)) {
                ("3", _) => vec![way(&[])],
                (_, 0) if hops => vec![way(&["2", "3"])],
                (_, 1) if hops => vec![way(&["3"]), way(&["2", "3"])],
                _ => vec![way(&["3"])],
            };
            components.push((name.clone(), start.to_owned(), ways, host, stays));
        }
    }
    text.push_str("constraints:\n");
    for _ in 0..=dice.below(5) {
        let size = 2 + usize::from(types.len() > 2 && dice.below(3) == 0);
        let mut chosen: Vec<&String> = Vec::new();
        while chosen.len() < size {
            let name = &types[dice.below(types.len())];
            if !chosen.contains(&name) {
                chosen.push(name);
            }
        }
        let scope = ["end", "transition", "always"][if dice.below(4) == 0 { dice.below(3) } else { 1 }];
        let condition = |dice: &mut Dice| ["'1'", "'2'", "'3'", "'>=2'", "'<3'", "['0', '3']", "'!=2'"][dice.below(7)];
        let pairs: Vec<String> = chosen.iter().map(|name| format!("{name}: {}", condition(dice))).collect();
        match dice.below(3) {
            0 => text.push_str(&format!("  - {{conflicts: {{{}}}, scope: {scope}}}\n", pairs.join(", "))),
            1 => text.push_str(&format!(
                "  - {{when: {{{}}}, requires: {{{}}}, scope: {scope}}}\n",
                pairs[0],
                pairs[1..].join(", ")
            )),
            _ => {
                let row = |dice: &mut Dice| {
                    let cells: Vec<&str> = (0..size).map(|_| condition(dice)).collect();
                    format!("[{}]", cells.join(", "))
                };
                let rows: Vec<String> = (0..=dice.below(4)).map(|_| row(dice)).collect();
                let last = vec!["'3'"; size].join(", ");
                let first = vec!["'*'"; size - 1].join(", ");
                let names: Vec<&str> = chosen.iter().map(|name| name.as_str()).collect();
                text.push_str(&format!(
                    "  - {{combinations: {{types: [{}], end: [[{last}]], transition: [{}, ['1', {first}]]}}}}\n",
                    names.join(", "),
                    rows.join(", ")
                ));
            }
        }
    }
    let constraints = Manifest::parse(&Document::new("m", text.as_str())).unwrap().constraints;
    let text = format!("{text}{components:?} {orders:?}");
    Case { components, orders, constraints, text }
}

#[test]
fn a_plan_is_found_if_there_is_one_and_it_is_the_best() {
    let (mut dice, mut planned, mut refused, mut hops) = (Dice(0x9e37_79b9_7f4a_7c15), 0, 0, 0);
    for _ in 0..700 {
        let case = case(&mut dice);
        let (units, of) = case.units();
        let best = case.best();
        match plan(&units, &case.constraints, BUDGET) {
            Ok(schedule) => {
                assert!(schedule.minimal, "{}", case.text);
                let reboots = (1..=schedule.steps)
                    .filter(|step| {
                        let reboots =
                            |(unit, course): (&Unit, &Course)| unit.reboots_host && course.steps.contains(step);
                        units.iter().zip(&schedule.courses).any(reboots)
                    })
                    .count();
                let artifacts: usize =
                    units.iter().zip(&schedule.courses).map(|(unit, course)| unit.count * course.steps.len()).sum();
                let cost = (schedule.steps, u32::try_from(reboots).unwrap(), u32::try_from(artifacts).unwrap());
                assert_eq!(Some(cost), best, "{}\n{schedule:?}", case.text);
                for step in 1..=schedule.steps {
                    let (from, to) = (Case::state(&of, &schedule, step - 1), Case::state(&of, &schedule, step));
                    let moving: Vec<usize> = (0..of.len()).filter(|&one| from[one] != to[one]).collect();
                    assert!(!moving.is_empty() && case.all_subsets(&from, &to, &moving), "{step}\n{}", case.text);
                }
                for commit in &schedule.commits {
                    assert!(case.may_rest(&Case::state(&of, &schedule, *commit)), "{}", case.text);
                }
                case.check_ways_back(&of, &schedule);
                planned += 1;
                hops += usize::from(!schedule.commits.is_empty());
            }
            Err(Unplannable::End { .. }) => assert_eq!(best, None, "{}", case.text),
            Err(Unplannable::Conflict { minimal, .. }) => {
                assert_eq!(best, None, "{}", case.text);
                assert!(minimal, "{}", case.text);
                refused += 1;
            }
            Err(other) => panic!("{other}\n{}", case.text),
        }
    }
    assert!(planned > 100 && refused > 50 && hops > 5, "{planned} planned, {refused} refused, {hops} with commits");
}
