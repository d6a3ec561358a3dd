//! What the machine makes of calls that were cut short, of a daemon that went on by itself, and of a cancelled Job.

use super::tests::{ROLLED_BACK, World, answer, defer, failing, failure, fine, result, stop};
use super::*;
use crate::core::error::Kind;

/// Table 2.9: what an interruption in each activity leads to.
#[test]
fn an_interruption_is_a_failure_a_repetition_or_a_reboot() {
    use Activity as A;
    for (what, again, ends_in) in [
        (A::Download, false, JobResult::Failed),
        (A::Install, false, JobResult::RolledBack),
        (A::AskReboot, true, JobResult::Done),
        (A::Reboot, false, JobResult::Done),
        (A::VerifyReboot, false, JobResult::RolledBack),
        (A::Commit, false, JobResult::RolledBack),
        (A::Cleanup, true, JobResult::Done),
    ] {
        let mut world = World::new(&[1], RunOptions::default(), |_, activity, attempt| {
            if activity == what && attempt == 1 { Outcome::Interrupted } else { answer(activity, NeedsReboot::Yes) }
        });
        assert_eq!(result(&world.begin()).0, ends_in, "{what:?}");
        let calls = world.trace.iter().filter(|call| **call == format!("0:{}", what.as_str())).count();
        assert_eq!(calls, 1 + usize::from(again), "{what:?}");
    }
    for (what, again) in [
        (A::AskRollback, true),
        (A::Rollback, true),
        (A::RollbackReboot, false),
        (A::VerifyRollbackReboot, true),
        (A::Failure, true),
    ] {
        let mut world = World::new(&[1], RunOptions::default(), |_, activity, attempt| match activity {
            A::Commit => failure(),
            _ if activity == what && attempt == 1 => Outcome::Interrupted,
            _ => answer(activity, NeedsReboot::Yes),
        });
        assert_eq!(result(&world.begin()), ROLLED_BACK, "{what:?}");
        let calls = world.trace.iter().filter(|call| **call == format!("0:{}", what.as_str())).count();
        assert_eq!(calls, 1 + usize::from(again), "{what:?}");
    }
}

#[test]
fn repeated_interruptions_come_to_an_end() {
    for what in [Activity::Rollback, Activity::Failure, Activity::Cleanup, Activity::AskRollback, Activity::AskReboot] {
        let mut world = World::new(&[1], RunOptions::default(), |_, activity, _| match activity {
            _ if activity == what => Outcome::Interrupted,
            Activity::Commit => failure(),
            _ => answer(activity, NeedsReboot::No),
        });
        world.begin();
        let calls = world.trace.iter().filter(|call| **call == format!("0:{}", what.as_str())).count();
        assert!(calls <= 2 * REPEATED_CALLS as usize, "{what:?}: {calls}");
    }
}

/// A reboot that is on record but never ran leaves the old software running, and not every verification notices.
#[test]
fn a_reboot_that_never_began_is_made() {
    for (what, fails) in [(Activity::Reboot, false), (Activity::RollbackReboot, true)] {
        let mut world = World::new(&[1], RunOptions::default(), |_, activity, attempt| match activity {
            Activity::Commit if fails => failure(),
            _ if activity == what && attempt == 1 => Outcome::Interrupted,
            _ => answer(activity, NeedsReboot::Yes),
        });
        world.starts_are_seen = false;
        let end = result(&world.begin());
        assert_eq!(end.0, if fails { JobResult::RolledBack } else { JobResult::Done });
        let call = what.as_str().replace("Artifact", "0:");
        assert!(world.take_trace().contains(&format!("{call} {call} 0:Verify")), "{what:?}");
    }
}

#[test]
fn a_reboot_that_never_begins_is_given_up() {
    let mut world = World::new(&[1], RunOptions::default(), |_, activity, _| match activity {
        Activity::Reboot => Outcome::Interrupted,
        _ => answer(activity, NeedsReboot::Yes),
    });
    world.starts_are_seen = false;
    assert_eq!(result(&world.begin()), ROLLED_BACK);
    let trace = world.take_trace();
    assert_eq!(trace.matches("0:Reboot").count(), REPEATED_CALLS as usize, "{trace}");
    assert!(!trace.contains("0:VerifyReboot") && !trace.contains("Commit"), "{trace}");
}

/// A record of a version that did not tell starts yet.
#[test]
fn an_older_record_counts_a_reboot_as_begun() {
    let mut member = serde_json::to_value(Member::new(1)).unwrap();
    member.as_object_mut().unwrap().remove("begun");
    assert!(serde_json::from_value::<Member>(member).unwrap().begun);
}

/// A deployment whose `ArtifactInstall` was cut short, taken up by a daemon without a caller.
fn unattended(points: &[StopPoint]) -> World<'static> {
    let mut world = World::new(&[1], stop(points), fine);
    world.deployment.step(Event::Begin("boot-0".into())).unwrap();
    world.deployment.step(Event::Ended(0, Outcome::Done)).unwrap();
    assert_eq!(world.deployment.running(), [(0, Activity::Install)]);
    world.deployment.head.unattended = true;
    world.deployment.step(Event::Recover("boot-0".into())).unwrap();
    world
}

fn rests(end: &Effect) -> (Rest, Option<Kind>) {
    match end {
        Effect::Rest { why, error } => (*why, error.as_ref().map(|error| error.kind)),
        other => panic!("it does not rest: {other:?}"),
    }
}

#[test]
fn who_resumes_what_failed_while_nobody_was_there_is_told() {
    let points = [StopPoint::ArtifactRollback];
    let mut world = unattended(&points);
    let end = world.play(Event::Ended(0, Outcome::Interrupted));
    let failed = (Rest::Stopped(StopPoint::ArtifactRollback), Some(Kind::InterfaceFailed));
    assert_eq!(rests(&end), failed);
    // It rests there already; that is a failure for the first who asks, and none for the next.
    assert_eq!(rests(&world.resume(stop(&points))), failed);
    assert_eq!(rests(&world.resume(stop(&points))), (failed.0, None));
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::RolledBack, None));

    let mut world = unattended(&[StopPoint::Cleanup]);
    let end = world.play(Event::Ended(0, Outcome::Interrupted));
    assert_eq!(rests(&end), (Rest::Stopped(StopPoint::Cleanup), Some(Kind::InterfaceFailed)));
    assert_eq!(result(&world.resume(stop(&[]))), ROLLED_BACK);
}

/// A call that comes while the daemon goes on by itself must not lead past the reboot that nobody has heard of.
#[test]
fn who_resumes_what_came_to_a_reboot_while_nobody_was_there_is_told() {
    let resumed = |options: RunOptions| {
        let mut world = World::new(&[1], options.clone(), |_, activity, _| answer(activity, NeedsReboot::Automatic));
        world.deployment.head.unattended = true;
        assert_eq!(rests(&world.begin()), (Rest::RebootRequired, None));
        (rests(&world.resume(options.clone())), world)
    };
    let (first, mut world) = resumed(defer(&[]));
    assert_eq!(first, (Rest::RebootRequired, None));
    assert_eq!(world.warnings, 0);
    assert!(!world.take_trace().contains("VerifyReboot"));
    // Who insists has to know.
    assert_eq!(result(&world.resume(defer(&[]))), (JobResult::Done, None));
    assert_eq!(world.warnings, 1);
    let (_, mut world) = resumed(defer(&[]));
    world.boot += 1;
    assert_eq!(result(&world.resume(defer(&[]))), (JobResult::Done, None));
    assert_eq!(world.warnings, 0);
}

/// The update module: a client whose machine rebooted in `ArtifactInstall` calls `rollback`, and that has to succeed.
#[test]
fn who_takes_back_what_failed_while_nobody_was_there_has_what_was_wanted() {
    for points in [&[StopPoint::ArtifactRollback, StopPoint::Cleanup][..], &[StopPoint::Cleanup]] {
        let mut world = unattended(points);
        world.play(Event::Ended(0, Outcome::Interrupted));
        assert_eq!(rests(&world.rollback(stop(&[StopPoint::Cleanup]))), (Rest::Stopped(StopPoint::Cleanup), None));
        assert_eq!(result(&world.resume(stop(&[]))), (JobResult::RolledBack, None));
    }
}

/// Two order groups; the lower one is installed and the higher one downloads when the Job is cancelled.
fn cancelled<'a>(outcome: impl Fn(usize, Activity, u32) -> Outcome + 'a) -> (World<'a>, Effect) {
    let mut world = World::new(&[1, 2], RunOptions::default(), outcome);
    world.deployment.step(Event::Begin("boot-0".into())).unwrap();
    for outcome in [Outcome::Done, Outcome::Done, Outcome::NeedsReboot(NeedsReboot::No)] {
        world.deployment.step(Event::Ended(0, outcome)).unwrap();
    }
    assert_eq!(world.deployment.running(), [(1, Activity::Download)]);
    world.deployment.step(Event::Cancel).unwrap();
    let end = world.play(Event::Ended(1, Outcome::Done));
    (world, end)
}

#[test]
fn cancelling_asks_first_whether_all_can_go_back() {
    let (mut world, end) = cancelled(fine);
    assert_eq!(result(&end), (JobResult::Cancelled, Some(Kind::Cancelled)));
    assert_eq!(world.take_trace(), "0:SupportsRollback 0:Rollback 0:Failure 0:Cleanup 1:Cleanup");

    let stuck = |_: usize, activity: Activity, _: u32| match activity {
        Activity::AskRollback => Outcome::SupportsRollback(false),
        _ => answer(activity, NeedsReboot::No),
    };
    let (mut world, end) = cancelled(stuck);
    assert_eq!(result(&end), (JobResult::Done, None));
    assert_eq!(world.warnings, 1);
    assert_eq!(world.take_trace(), "0:SupportsRollback 1:Install 1:NeedsReboot 0:Commit 1:Commit 0:Cleanup 1:Cleanup");

    // An error is no Yes.
    let (world, end) = cancelled(failing(0, Activity::AskRollback, NeedsReboot::No));
    assert_eq!(result(&end), (JobResult::Done, None));
    assert!(!world.deployment.head.inconsistent);
}
