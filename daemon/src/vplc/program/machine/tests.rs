use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn error(text: &str) -> Error {
    Error::new(Kind::ProgramFailed, text)
}

fn failed(text: &str) -> Event {
    Event::Failed { error: error(text), untouched: false, passing: false }
}

/// Runs a deployment; `answers` says how each effect goes. Returns the effects and the outcome.
fn run(mut deployment: Deployment, mut answers: impl FnMut(&Deployment) -> Event) -> (Vec<Effect>, Outcome) {
    let mut effects = vec![deployment.effect()];
    for _ in 0..100 {
        let event = answers(&deployment);
        let (next, effect) = deployment.next(event);
        deployment = next;
        if let Effect::Finish(outcome) = effect {
            return (effects, outcome);
        }
        assert_eq!(effect, deployment.effect(), "what is on the medium leads to the same step");
        effects.push(effect);
    }
    panic!("no end: {effects:?}");
}

fn forward() -> Vec<Effect> {
    vec![Effect::Upload(2), Effect::Compile, Effect::Start, Effect::Verify]
}

fn back() -> Vec<Effect> {
    vec![Effect::Upload(1), Effect::Compile, Effect::Start, Effect::Verify]
}

const STEPS: [Step; 4] = [Step::Upload, Step::Compile, Step::Start, Step::Verify];

#[test]
fn a_good_program_takes_four_steps() {
    assert_eq!(run(Deployment::new(2, Some(1), true), |_| Event::Done), (forward(), Outcome::Deployed));
}

#[test]
fn a_failure_at_each_step_brings_the_old_program_back_and_proves_it() {
    for (place, step) in STEPS.into_iter().enumerate() {
        let answers = |deployment: &Deployment| match deployment.direction {
            Direction::Forward if deployment.step == step => failed("bad"),
            _ => Event::Done,
        };
        let (effects, outcome) = run(Deployment::new(2, Some(1), true), answers);
        assert_eq!(effects, [&forward()[..=place], &back()].concat(), "{step:?}");
        assert_eq!(outcome, Outcome::RolledBack(error("bad")));
        assert_eq!(outcome.result(), JobResult::RolledBack);
        // A program that did not run is put back and left alone.
        let (effects, outcome) = run(Deployment::new(2, Some(1), false), answers);
        assert_eq!(effects, [&forward()[..=place], &back()[..2]].concat(), "{step:?}");
        assert_eq!(outcome, Outcome::RolledBack(error("bad")));
        // Without an old program there is nothing to go back to.
        let (effects, outcome) = run(Deployment::new(2, None, false), answers);
        assert_eq!(effects, forward()[..=place], "{step:?}");
        assert_eq!(outcome, Outcome::Lost { error: error("bad"), back: None });
    }
}

#[test]
fn the_way_back_is_tried_three_times_whatever_fails_on_it() {
    for step in STEPS {
        let mut tries = 0;
        let (_, outcome) = run(Deployment::new(2, Some(1), true), |deployment| match deployment.direction {
            Direction::Forward if deployment.step == Step::Compile => failed("bad"),
            Direction::Back if deployment.step == step => {
                tries += 1;
                failed("worse")
            }
            _ => Event::Done,
        });
        assert_eq!(tries, TRIES, "{step:?}");
        assert_eq!(outcome, Outcome::Lost { error: error("bad"), back: Some(error("worse")) });
        assert_eq!(outcome.result(), JobResult::Inconsistent);
        assert_eq!(outcome.error().unwrap().kind, Kind::Inconsistent);
    }
}

#[test]
fn what_touched_nothing_leaves_the_runtime_alone() {
    let refused = Event::Failed { error: error("refused"), untouched: true, passing: false };
    let (effects, outcome) = run(Deployment::new(2, Some(1), true), |_| refused.clone());
    assert_eq!((effects, outcome), (vec![Effect::Upload(2)], Outcome::Unchanged(error("refused"))));
}

#[test]
fn an_upload_that_breaks_is_tried_again_before_anything_goes_back() {
    let broken = Event::Failed { error: error("broken"), untouched: false, passing: true };
    let mut uploads = 0;
    let (effects, outcome) = run(Deployment::new(2, Some(1), true), |deployment| {
        uploads += usize::from(deployment.step == Step::Upload);
        if uploads < 3 && deployment.step == Step::Upload { broken.clone() } else { Event::Done }
    });
    assert_eq!(effects, [vec![Effect::Upload(2), Effect::Upload(2)], forward()].concat());
    assert_eq!(outcome, Outcome::Deployed);
}

#[test]
fn a_deployment_is_resumed_where_the_runtime_is() {
    let found = |compiling, compiled, running| Event::Resumed(Found { compiling, compiled, running });
    for (step, found, expected) in [
        (Step::Upload, found(true, false, false), Effect::Compile),
        (Step::Upload, found(false, true, true), Effect::Upload(2)),
        (Step::Upload, found(false, false, false), Effect::Upload(2)),
        (Step::Compile, found(true, false, false), Effect::Compile),
        (Step::Compile, found(false, true, false), Effect::Compile),
        (Step::Compile, found(false, false, true), Effect::Upload(2)),
        (Step::Start, found(false, true, false), Effect::Start),
        (Step::Start, found(false, true, true), Effect::Verify),
        (Step::Verify, found(false, false, true), Effect::Verify),
    ] {
        let deployment = Deployment { step, ..Deployment::new(2, Some(1), true) };
        let (next, effect) = deployment.next(found.clone());
        assert_eq!(effect, expected, "{step:?} {found:?}");
        assert_eq!(next.effect(), expected);
    }
}

#[test]
fn every_outcome_has_words() {
    let texts: BTreeSet<String> = [
        Outcome::Unchanged(error("x.")),
        Outcome::RolledBack(error("x.")),
        Outcome::Lost { error: error("x."), back: None },
        Outcome::Lost { error: error("x."), back: Some(error("y.")) },
    ]
    .iter()
    .map(|outcome| outcome.error().unwrap().message)
    .collect();
    assert_eq!(texts.len(), 4);
    assert!(texts.iter().all(|text| text.starts_with("x. ")));
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Done),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(untouched, passing)| Event::Failed { error: error("bad"), untouched, passing }),
        1 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(compiling, compiled, running)| Event::Resumed(Found { compiling, compiled, running })),
    ]
}

proptest! {
    /// Whatever happens: it ends if things stop going wrong, never goes forward again once it went back, never starts what
    /// it has not compiled in this direction, and says "deployed" or "rolled back" only of what ran through all steps.
    #[test]
    fn the_laws_hold(old in any::<bool>(), was_running in any::<bool>(), events in prop::collection::vec(events(), 0..40)) {
        let mut deployment = Deployment::new(2, old.then_some(1), was_running);
        let mut compiled = false;
        let mut events = events.into_iter();
        loop {
            let event = events.next().unwrap_or(Event::Done);
            let (before, resumed) = (deployment.clone(), matches!(event, Event::Resumed(_)));
            let done = event == Event::Done;
            let (next, effect) = deployment.next(event);
            deployment = next;
            if before.direction == Direction::Back {
                prop_assert_eq!(deployment.direction, Direction::Back);
                prop_assert!(deployment.failure.is_some());
            }
            prop_assert!(deployment.tries <= TRIES);
            // Somebody else may have compiled it between two daemons; without that, nothing is skipped.
            compiled = match (before.step, &effect) {
                (Step::Compile, _) if done => true,
                (_, Effect::Upload(_) | Effect::Compile) => false,
                _ => compiled || resumed,
            };
            match effect {
                Effect::Upload(number) => {
                    prop_assert_eq!(number, if deployment.direction == Direction::Back { 1 } else { 2 });
                }
                Effect::Start => prop_assert!(compiled),
                Effect::Finish(outcome) => {
                    match outcome {
                        Outcome::Deployed => prop_assert!(done && before.step == Step::Verify && before.direction == Direction::Forward),
                        Outcome::RolledBack(_) => {
                            let proven = if was_running { Step::Verify } else { Step::Compile };
                            prop_assert!(done && before.direction == Direction::Back && before.step >= proven);
                        }
                        Outcome::Unchanged(_) => prop_assert_eq!(before.direction, Direction::Forward),
                        Outcome::Lost { back, .. } => prop_assert_eq!(back.is_some(), old),
                    }
                    break;
                }
                _ => {}
            }
        }
    }
}
