//! Deployments of several parts, each committed before the next one begins.

use super::tests::World;
use super::*;
use crate::core::error::Kind;

/// Two Components in the first part, the second of them once more in the second part.
const PLACES: [(u32, u32); 3] = [(1, 0), (2, 0), (3, 1)];

fn answer(activity: Activity) -> Outcome {
    match activity {
        Activity::AskReboot | Activity::AskRollbackReboot => Outcome::NeedsReboot(NeedsReboot::No),
        Activity::AskRollback => Outcome::SupportsRollback(true),
        _ => Outcome::Done,
    }
}

fn world<'a>(options: RunOptions, outcome: impl Fn(usize, Activity, u32) -> Outcome + 'a) -> World<'a> {
    let mut world = World::new(&[], RunOptions::default(), outcome);
    world.deployment = Deployment::in_legs(PLACES, options);
    world
}

fn begin(world: &mut World<'_>) -> Effect {
    let boot_id = world.boot_id();
    world.play(Event::Begin(boot_id))
}

fn calls(world: &World<'_>) -> String {
    world
        .trace
        .iter()
        .filter(|call| !call.contains("Needs"))
        .cloned()
        .collect::<Vec<_>>()
        .join(" ")
        .replace("Artifact", "")
}

fn failing(index: usize, activity: Activity) -> impl Fn(usize, Activity, u32) -> Outcome {
    move |at, now, _| {
        if (at, now) == (index, activity) {
            Outcome::Failed(Error::new(Kind::InterfaceFailed, "it failed"))
        } else {
            answer(now)
        }
    }
}

fn stop(points: &[StopPoint]) -> RunOptions {
    RunOptions { stop_before: points.iter().copied().collect(), ..RunOptions::default() }
}

#[test]
fn a_part_is_committed_and_cleaned_up_before_the_next_one_begins() {
    let mut world = world(RunOptions::default(), |_, activity, _| answer(activity));
    let end = begin(&mut world);
    assert_eq!(end, Effect::Finish { result: JobResult::Done, error: None });
    assert_eq!(
        calls(&world),
        "0:Download 0:Install 1:Download 1:Install 0:Commit 1:Commit 0:Cleanup 1:Cleanup \
         2:Download 2:Install 2:Commit 2:Cleanup"
    );
}

#[test]
fn a_failure_in_a_later_part_leads_back_to_the_commit_and_says_so() {
    for (activity, way) in [
        (Activity::Download, "2:Download 2:Cleanup"),
        (Activity::Install, "2:Download 2:Install 2:SupportsRollback 2:Rollback 2:Failure 2:Cleanup"),
        (Activity::Commit, "2:Download 2:Install 2:Commit 2:SupportsRollback 2:Rollback 2:Failure 2:Cleanup"),
    ] {
        let mut world = world(RunOptions::default(), failing(2, activity));
        let Effect::Finish { result, error } = begin(&mut world) else { panic!("no end") };
        assert_eq!(result, JobResult::Failed, "{activity:?}");
        let message = error.unwrap().message;
        assert!(message.contains("last commit") && message.contains("it failed"), "{message}");
        assert!(calls(&world).ends_with(&format!("0:Cleanup 1:Cleanup {way}")), "{}", calls(&world));
    }
}

#[test]
fn a_failure_in_the_first_part_leads_back_to_the_start() {
    let mut world = world(RunOptions::default(), failing(1, Activity::Commit));
    let Effect::Finish { result, .. } = begin(&mut world) else { panic!("no end") };
    assert_eq!(result, JobResult::RolledBack);
    assert!(!calls(&world).contains("2:"), "{}", calls(&world));
}

#[test]
fn stops_before_the_commit_and_the_cleanup_are_those_of_the_last_part() {
    let options = stop(&[StopPoint::ArtifactCommit, StopPoint::Cleanup]);
    let mut world = world(options, |_, activity, _| answer(activity));
    let rest = begin(&mut world);
    assert_eq!(rest, Effect::Rest { why: Rest::Stopped(StopPoint::ArtifactCommit), error: None });
    assert!(calls(&world).ends_with("1:Cleanup 2:Download 2:Install"), "{}", calls(&world));
    let boot_id = world.boot_id();
    let Effect::Finish { result, error } = world.play(Event::Rollback(RunOptions::default(), false, boot_id)) else {
        panic!("no end")
    };
    assert_eq!(result, JobResult::Failed);
    assert!(error.unwrap().message.contains("last commit"));
    assert!(calls(&world).ends_with("2:Rollback 2:Failure 2:Cleanup"), "{}", calls(&world));
}

/// After a crash at any point the daemon goes on from the record; no Component is called again that an earlier part is done with.
#[test]
fn a_crash_anywhere_keeps_the_parts_apart() {
    let mut at = 0;
    loop {
        let mut deployment = Deployment::in_legs(PLACES, RunOptions::default());
        let mut trace = Vec::new();
        let mut waiting = deployment.step(Event::Begin("a".into())).unwrap();
        let (mut made, mut crashed, mut end) = (0, false, None);
        while end.is_none() {
            let effect = waiting.remove(0);
            match effect {
                Effect::Run(index, activity) => {
                    made += 1;
                    trace.push((index, activity));
                    if made == at && !crashed {
                        crashed = true;
                        let record = serde_json::to_vec(&deployment).unwrap();
                        deployment = serde_json::from_slice(&record).unwrap();
                        let running = deployment.running();
                        waiting = deployment.step(Event::Recover("a".into())).unwrap();
                        for (index, _) in running {
                            waiting.extend(deployment.step(Event::Ended(index, Outcome::Interrupted)).unwrap());
                        }
                    } else {
                        waiting.extend(deployment.step(Event::Ended(index, answer(activity))).unwrap());
                    }
                }
                Effect::Finish { result, .. } => end = Some(result),
                other => panic!("{other:?}"),
            }
        }
        let first_of_second = trace.iter().position(|(index, _)| *index == 2);
        if let Some(place) = first_of_second {
            assert!(trace[place..].iter().all(|(index, _)| *index == 2), "{trace:?}");
            assert!(trace[..place].contains(&(1, Activity::Cleanup)), "{trace:?}");
        }
        let committed = |index: usize| {
            let member = &deployment.members[index];
            member.committed && !member.rolled_back
        };
        match end.unwrap() {
            JobResult::Done => assert!((0..3).all(committed), "{trace:?}"),
            JobResult::Failed => assert!(!committed(2) && (first_of_second.is_none() || committed(0)), "{trace:?}"),
            JobResult::RolledBack => assert!((0..3).all(|index| !committed(index)), "{trace:?}"),
            other => panic!("{other:?}: {trace:?}"),
        }
        if !crashed && at > 0 {
            break;
        }
        at += 1;
        assert!(at < 100);
    }
}
