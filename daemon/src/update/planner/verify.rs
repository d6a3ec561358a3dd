//! Looks at every combination in every step of a plan, and at what a failure would leave behind.

use super::ground::{Ground, Scope, each_choice};
use super::{Course, Moment, WayBack};

/// How far a unit is once this step is over.
fn place(course: &Course, step: u32) -> usize {
    course.steps.iter().take_while(|moved| **moved <= step).count()
}

/// Whether every combination of these places, one for each unit of the scope, may occur.
fn all_allowed(ground: &Ground<'_>, scope: &Scope, ways: &[usize], places: &[Vec<usize>]) -> bool {
    let places: Vec<&[usize]> = places.iter().map(Vec::as_slice).collect();
    let mut allowed = true;
    each_choice(&places, |at| {
        if let Some(moment) = ground.moment(scope, ways, at) {
            allowed &= ground.allows(scope, moment, ways, at);
        }
    });
    allowed
}

fn ways(courses: &[Course]) -> Vec<usize> {
    courses.iter().map(|course| course.way).collect()
}

fn last_step(courses: &[Course]) -> u32 {
    courses.iter().filter_map(|course| course.steps.last()).max().copied().unwrap_or(0)
}

/// Checks a plan against the constraints themselves: every subset of every step. The error names what is wrong.
pub(super) fn verify(ground: &Ground<'_>, courses: &[Course]) -> Result<(), String> {
    let ways = ways(courses);
    for (unit, course) in courses.iter().enumerate() {
        let ascending = course.steps.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || course.steps.len() != ground.last(unit, &ways) || course.steps.first() == Some(&0) {
            return Err(format!("the steps of {} make no way", ground.units[unit].label));
        }
    }
    for step in 1..=last_step(courses) {
        let moves = |unit: usize| courses[unit].steps.contains(&step);
        for scope in ground.scopes.iter().filter(|scope| scope.units.iter().any(|&unit| moves(unit))) {
            let places: Vec<Vec<usize>> = scope
                .units
                .iter()
                .map(|&unit| {
                    let after = place(&courses[unit], step);
                    if moves(unit) { vec![after - 1, after] } else { vec![after] }
                })
                .collect();
            if !all_allowed(ground, scope, &ways, &places) {
                return Err(format!("{} in step {step}", ground.constraints[scope.constraint].label()));
            }
        }
    }
    Ok(())
}

/// Whether the System may rest after this step, as far as it is a combination that it was not found in.
fn may_rest(ground: &Ground<'_>, courses: &[Course], ways: &[usize], step: u32) -> bool {
    ground.scopes.iter().all(|scope| {
        let at: Vec<usize> = scope.units.iter().map(|&unit| place(&courses[unit], step)).collect();
        at.iter().all(|at| *at == 0) || ground.allows(scope, Moment::End, ways, &at)
    })
}

/// After which steps everything is committed: as few as possible, and one between any two moves of a unit. `None`: there is no
/// state in which the System may rest where one is needed.
pub(super) fn commits(ground: &Ground<'_>, courses: &[Course]) -> Option<Vec<u32>> {
    let ways = ways(courses);
    let mut between: Vec<(u32, u32)> =
        courses.iter().flat_map(|course| course.steps.windows(2).map(|pair| (pair[1], pair[0]))).collect();
    between.sort_unstable();
    let mut commits: Vec<u32> = Vec::new();
    for (second, first) in between {
        // Those chosen are the latest that do for the others, so no earlier one could take their place.
        if commits.last().is_some_and(|commit| *commit >= first) {
            continue;
        }
        commits.push((first..second).rev().find(|&step| may_rest(ground, courses, &ways, step))?);
    }
    Some(commits)
}

/// What a failure in each step leads to.
pub(super) fn ways_back(ground: &Ground<'_>, courses: &[Course], commits: &[u32]) -> Vec<WayBack> {
    let ways = ways(courses);
    (1..=last_step(courses))
        .map(|failed| {
            let begun = commits.iter().copied().filter(|commit| *commit < failed).max().unwrap_or(0);
            way_back(ground, courses, &ways, begun, failed)
        })
        .collect()
}

/// What a failure in one step leads to, if everything up to the step `begun` is committed.
fn way_back(ground: &Ground<'_>, courses: &[Course], ways: &[usize], begun: u32, failed: u32) -> WayBack {
    let stuck = |unit: usize| {
        ground.units[unit].stays && courses[unit].steps.iter().any(|step| (begun + 1..=failed).contains(step))
    };
    let staying: Vec<usize> = (0..courses.len()).filter(|&unit| stuck(unit)).collect();
    if staying.is_empty() {
        return if begun == 0 { WayBack::Full } else { WayBack::Part };
    }
    for scope in ground.scopes.iter().filter(|scope| scope.units.iter().any(|&unit| stuck(unit))) {
        let defect = WayBack::Broken(staying.clone(), scope.constraint);
        for step in (begun + 1..=failed).rev() {
            let places = scope.units.iter().map(|&unit| {
                let course = &courses[unit];
                let (early, late) = (place(course, step - 1), place(course, step));
                if stuck(unit) {
                    let (before, now) = (place(course, failed - 1), place(course, failed));
                    // Nobody knows whether what failed has arrived.
                    if before == now { vec![now] } else { vec![before, now] }
                } else if early == late {
                    vec![late]
                } else {
                    vec![early, late]
                }
            });
            if !all_allowed(ground, scope, ways, &places.collect::<Vec<_>>()) {
                return defect;
            }
        }
        let rest: Vec<Vec<usize>> = scope
            .units
            .iter()
            .map(|&unit| {
                let (committed, before, now) =
                    (place(&courses[unit], begun), place(&courses[unit], failed - 1), place(&courses[unit], failed));
                match stuck(unit) {
                    false => vec![committed],
                    true if before == now => vec![now],
                    true => vec![before, now],
                }
            })
            .collect();
        let rest: Vec<&[usize]> = rest.iter().map(Vec::as_slice).collect();
        let mut acceptable = true;
        each_choice(&rest, |at| {
            acceptable &= at.iter().all(|at| *at == 0) || ground.allows(scope, Moment::End, ways, at);
        });
        if !acceptable {
            return defect;
        }
    }
    WayBack::Mixed(staying)
}
