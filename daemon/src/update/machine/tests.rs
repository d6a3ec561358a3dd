//! The rules of the protocol, one by one, on the pure machine.

use super::*;
use crate::core::error::Kind;
use crate::update::handle::RebootMode;

/// Plays the world: answers every effect, and writes down what was done.
pub(super) struct World<'a> {
    pub deployment: Deployment,
    pub trace: Vec<String>,
    pub warnings: usize,
    pub(super) boot: u32,
    reboots_work: bool,
    /// Whether the driver gets to say that the program of a reboot runs.
    pub starts_are_seen: bool,
    outcome: Box<dyn Fn(usize, Activity, u32) -> Outcome + 'a>,
}

/// How a Job ended: the last effect.
pub(super) type End = Effect;

impl<'a> World<'a> {
    pub fn new(
        orders: &[u32],
        options: RunOptions,
        outcome: impl Fn(usize, Activity, u32) -> Outcome + 'a,
    ) -> World<'a> {
        World {
            deployment: Deployment::new(orders.iter().copied(), options),
            trace: Vec::new(),
            warnings: 0,
            boot: 0,
            reboots_work: true,
            starts_are_seen: true,
            outcome: Box::new(outcome),
        }
    }

    pub fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    /// Steps until the Job ends.
    pub fn play(&mut self, first: Event) -> End {
        let mut events = std::collections::VecDeque::from([first]);
        let mut steps = 0;
        while let Some(event) = events.pop_front() {
            steps += 1;
            assert!(steps < 10_000, "no end: {:?}", &self.trace[self.trace.len() - 20..]);
            let effects = self.deployment.step(event.clone()).unwrap_or_else(|error| panic!("{event:?}: {error}"));
            for effect in effects {
                match effect {
                    Effect::Run(index, activity) => {
                        let attempt = self.deployment.members[index].attempts(activity);
                        self.trace.push(format!("{index}:{}", activity.as_str()));
                        if self.starts_are_seen && activity.may_be_resumed_by_verification() {
                            events.push_back(Event::Started(index));
                        }
                        events.push_back(Event::Ended(index, (self.outcome)(index, activity, attempt)));
                    }
                    Effect::RebootHost => {
                        self.trace.push("reboot".to_owned());
                        if self.reboots_work {
                            self.boot += 1;
                            events.push_back(Event::Recover(self.boot_id()));
                        } else {
                            events.push_back(Event::RebootFailed(Error::new(Kind::RebootFailed, "no")));
                        }
                    }
                    Effect::Warn(_) => self.warnings += 1,
                    end => {
                        assert!(events.is_empty(), "a Job ended with reports outstanding: {events:?}");
                        return end;
                    }
                }
            }
        }
        panic!("the machine waits for nothing; trace {:?}", self.trace);
    }

    pub fn begin(&mut self) -> End {
        let boot_id = self.boot_id();
        self.play(Event::Begin(boot_id))
    }

    pub fn resume(&mut self, options: RunOptions) -> End {
        let boot_id = self.boot_id();
        self.play(Event::Resume(options, boot_id))
    }

    pub fn rollback(&mut self, options: RunOptions) -> End {
        let boot_id = self.boot_id();
        self.play(Event::Rollback(options, false, boot_id))
    }

    pub fn take_trace(&mut self) -> String {
        std::mem::take(&mut self.trace).join(" ").replace("Artifact", "")
    }
}

pub(super) fn stop(points: &[StopPoint]) -> RunOptions {
    RunOptions { stop_before: points.iter().copied().collect(), reboot: RebootMode::Auto }
}

pub(super) fn defer(points: &[StopPoint]) -> RunOptions {
    RunOptions { reboot: RebootMode::Defer, ..stop(points) }
}

pub(super) fn failure() -> Outcome {
    Outcome::Failed(Error::new(Kind::InterfaceFailed, "it failed"))
}

/// Everything works, can be rolled back and needs no reboot.
pub(super) fn fine(_: usize, activity: Activity, _: u32) -> Outcome {
    answer(activity, NeedsReboot::No)
}

pub(super) fn answer(activity: Activity, reboot: NeedsReboot) -> Outcome {
    match activity {
        Activity::AskReboot | Activity::AskRollbackReboot => Outcome::NeedsReboot(reboot),
        Activity::AskRollback => Outcome::SupportsRollback(true),
        _ => Outcome::Done,
    }
}

/// As `fine`, but this activity of this Component fails.
pub(super) fn failing(who: usize, what: Activity, reboot: NeedsReboot) -> impl Fn(usize, Activity, u32) -> Outcome {
    move |index, activity, _| {
        if (index, activity) == (who, what) { failure() } else { answer(activity, reboot) }
    }
}

pub(super) fn result(end: &End) -> (JobResult, Option<Kind>) {
    match end {
        Effect::Finish { result, error } => (*result, error.as_ref().map(|error| error.kind)),
        other => panic!("not finished: {other:?}"),
    }
}

fn rested(end: &End) -> (Rest, bool) {
    match end {
        Effect::Rest { why, error } => (*why, error.is_some()),
        other => panic!("does not rest: {other:?}"),
    }
}

const COMMIT: StopPoint = StopPoint::ArtifactCommit;
const ROLLBACK: StopPoint = StopPoint::ArtifactRollback;
const CLEANUP: StopPoint = StopPoint::Cleanup;
pub(super) const ROLLED_BACK: (JobResult, Option<Kind>) = (JobResult::RolledBack, Some(Kind::InterfaceFailed));

#[test]
fn groups_ascend_with_a_barrier_after_every_state() {
    let mut world = World::new(&[20, 10, 20], RunOptions::default(), fine);
    assert_eq!(result(&world.begin()), (JobResult::Done, None));
    assert_eq!(
        world.take_trace(),
        "1:Download 1:Install 1:NeedsReboot \
         0:Download 2:Download 0:Install 2:Install 0:NeedsReboot 2:NeedsReboot \
         1:Commit 0:Commit 2:Commit 1:Cleanup 0:Cleanup 2:Cleanup"
    );
}

#[test]
fn peripheral_reboots_come_first_then_one_reboot_of_the_host_then_verification() {
    let mut world = World::new(&[1, 1, 1, 1], RunOptions::default(), |index, activity, _| {
        answer(activity, [NeedsReboot::Automatic, NeedsReboot::Yes, NeedsReboot::No, NeedsReboot::Automatic][index])
    });
    assert_eq!(result(&world.begin()), (JobResult::Done, None));
    let trace = world.take_trace();
    assert!(trace.contains("1:Reboot reboot 0:VerifyReboot 1:VerifyReboot 3:VerifyReboot 0:Commit"), "{trace}");
    assert_eq!(trace.matches(" reboot").count(), 1);
}

#[test]
fn a_failed_download_in_the_lowest_group_is_followed_by_cleanup_only() {
    let mut world = World::new(&[1, 1, 2], RunOptions::default(), failing(0, Activity::Download, NeedsReboot::No));
    assert_eq!(result(&world.begin()), (JobResult::Failed, Some(Kind::InterfaceFailed)));
    assert_eq!(world.take_trace(), "0:Download 1:Download 0:Cleanup 1:Cleanup");
}

#[test]
fn a_failed_download_in_a_later_group_rolls_back_the_earlier_ones() {
    let mut world = World::new(&[1, 2, 2], RunOptions::default(), failing(2, Activity::Download, NeedsReboot::No));
    assert_eq!(result(&world.begin()), ROLLED_BACK);
    assert_eq!(
        world.take_trace(),
        "0:Download 0:Install 0:NeedsReboot 1:Download 2:Download \
         0:SupportsRollback 0:Rollback 0:Failure 0:Cleanup 1:Cleanup 2:Cleanup"
    );
}

#[test]
fn siblings_end_the_state_in_which_one_fails_and_all_are_rolled_back_descending() {
    let mut world = World::new(&[1, 2, 2], RunOptions::default(), failing(1, Activity::Commit, NeedsReboot::No));
    assert_eq!(result(&world.begin()), ROLLED_BACK);
    let trace = world.take_trace();
    assert!(
        trace.ends_with(
            "0:Commit 1:Commit 2:Commit 0:SupportsRollback 1:SupportsRollback 2:SupportsRollback \
             1:Rollback 2:Rollback 1:Failure 2:Failure 0:Rollback 0:Failure 0:Cleanup 1:Cleanup 2:Cleanup"
        ),
        "{trace}"
    );
}

#[test]
fn after_a_failed_install_needs_reboot_is_asked_late_and_only_yes_counts() {
    for (reboot, expected) in [
        (NeedsReboot::Yes, "0:Rollback 0:NeedsReboot 0:RollbackReboot 0:VerifyRollbackReboot 0:Failure 0:Cleanup"),
        (NeedsReboot::Automatic, "0:Rollback 0:NeedsReboot 0:Failure 0:Cleanup"),
        (NeedsReboot::No, "0:Rollback 0:NeedsReboot 0:Failure 0:Cleanup"),
    ] {
        let mut world = World::new(&[1], RunOptions::default(), failing(0, Activity::Install, reboot));
        assert_eq!(result(&world.begin()), ROLLED_BACK);
        let trace = world.take_trace();
        assert_eq!(trace, format!("0:Download 0:Install 0:SupportsRollback {expected}"));
    }
}

#[test]
fn rollback_reboots_the_host_only_where_it_was_rebooted_before() {
    let mut world = World::new(&[1], RunOptions::default(), failing(0, Activity::VerifyReboot, NeedsReboot::Automatic));
    assert_eq!(result(&world.begin()), ROLLED_BACK);
    assert_eq!(
        world.take_trace(),
        "0:Download 0:Install 0:NeedsReboot reboot 0:VerifyReboot 0:SupportsRollback 0:Rollback reboot \
         0:VerifyRollbackReboot 0:Failure 0:Cleanup"
    );
}

#[test]
fn a_failed_rollback_still_reboots_and_verification_decides() {
    let outcome = |verified: bool| {
        move |_: usize, activity: Activity, _: u32| match activity {
            Activity::Commit | Activity::Rollback => failure(),
            Activity::VerifyRollbackReboot if !verified => failure(),
            _ => answer(activity, NeedsReboot::Yes),
        }
    };
    let mut world = World::new(&[1], RunOptions::default(), outcome(true));
    assert_eq!(result(&world.begin()), ROLLED_BACK);
    let mut world = World::new(&[1], RunOptions::default(), outcome(false));
    assert_eq!(result(&world.begin()), (JobResult::Inconsistent, Some(Kind::Inconsistent)));
}

#[test]
fn a_failed_rollback_without_a_verification_leaves_the_system_inconsistent() {
    let mut world = World::new(&[1], RunOptions::default(), |_, activity, _| match activity {
        Activity::Commit | Activity::Rollback => failure(),
        _ => answer(activity, NeedsReboot::No),
    });
    assert_eq!(result(&world.begin()), (JobResult::Inconsistent, Some(Kind::Inconsistent)));
    assert!(world.take_trace().ends_with("0:Rollback 0:Failure 0:Cleanup"));
}

#[test]
fn rollback_reboot_is_repeated_for_those_that_do_not_verify_then_given_up() {
    let mut world = World::new(&[1, 1], RunOptions::default(), |index, activity, _| match (index, activity) {
        (_, Activity::Commit) | (1, Activity::VerifyRollbackReboot) => failure(),
        _ => answer(activity, NeedsReboot::Yes),
    });
    assert_eq!(result(&world.begin()).0, JobResult::Inconsistent);
    let trace = world.take_trace();
    assert_eq!(trace.matches("1:RollbackReboot").count(), ROLLBACK_REBOOT_ATTEMPTS as usize);
    assert_eq!(trace.matches("1:VerifyRollbackReboot").count(), ROLLBACK_REBOOT_ATTEMPTS as usize);
    assert_eq!(trace.matches("0:RollbackReboot").count(), 1);
    assert!(trace.ends_with("1:VerifyRollbackReboot 0:Failure 1:Failure 0:Cleanup 1:Cleanup"), "{trace}");
}

#[test]
fn a_second_try_that_verifies_saves_the_system() {
    let mut world = World::new(&[1], RunOptions::default(), |_, activity, attempt| match activity {
        Activity::Commit => failure(),
        Activity::VerifyRollbackReboot if attempt < 2 => failure(),
        _ => answer(activity, NeedsReboot::Automatic),
    });
    assert_eq!(result(&world.begin()), ROLLED_BACK);
    assert_eq!(world.take_trace().matches("reboot").count(), 3);
}

#[test]
fn a_component_that_cannot_go_back_gets_artifact_failure_only() {
    let mut world = World::new(&[1, 1], RunOptions::default(), |index, activity, _| match (index, activity) {
        (1, Activity::Commit) => failure(),
        (0, Activity::AskRollback) => Outcome::SupportsRollback(false),
        _ => answer(activity, NeedsReboot::Yes),
    });
    assert_eq!(result(&world.begin()).0, JobResult::Inconsistent);
    let trace = world.take_trace();
    assert!(!trace.contains("0:Rollback") && trace.contains("0:Failure"), "{trace}");
}

#[test]
fn an_invalid_answer_to_supports_rollback_counts_as_no() {
    let mut world = World::new(&[1], RunOptions::default(), |_, activity, _| match activity {
        Activity::Commit | Activity::AskRollback => failure(),
        _ => answer(activity, NeedsReboot::No),
    });
    assert_eq!(result(&world.begin()).0, JobResult::Inconsistent);
    assert!(world.take_trace().ends_with("0:SupportsRollback 0:Failure 0:Cleanup"));
}

#[test]
fn errors_in_artifact_failure_are_ignored() {
    let mut world = World::new(&[1], RunOptions::default(), |_, activity, _| match activity {
        Activity::Commit | Activity::Failure | Activity::RollbackReboot => failure(),
        _ => answer(activity, NeedsReboot::Yes),
    });
    assert_eq!(result(&world.begin()), ROLLED_BACK);
}

#[test]
fn a_failed_cleanup_after_the_commit_is_told_but_changes_nothing() {
    let mut world = World::new(&[1], RunOptions::default(), failing(0, Activity::Cleanup, NeedsReboot::No));
    let end = world.begin();
    assert_eq!(result(&end), (JobResult::Failed, Some(Kind::InterfaceFailed)));
    let Effect::Finish { error: Some(error), .. } = end else { panic!() };
    assert!(error.message.starts_with("The new versions are committed"), "{error}");
}

#[test]
fn a_host_that_does_not_reboot_has_failed_artifact_reboot() {
    let mut world = World::new(&[1], RunOptions::default(), |_, activity, _| answer(activity, NeedsReboot::Automatic));
    world.reboots_work = false;
    assert_eq!(result(&world.begin()), (JobResult::RolledBack, Some(Kind::RebootFailed)));
    // The host was not rebooted, so the way back needs no reboot.
    assert_eq!(
        world.take_trace(),
        "0:Download 0:Install 0:NeedsReboot reboot 0:SupportsRollback 0:Rollback 0:Failure 0:Cleanup"
    );
}

#[test]
fn the_update_module_without_a_reboot() {
    let mut world = World::new(&[1, 2], defer(&[COMMIT, ROLLBACK, CLEANUP]), fine);
    assert_eq!(rested(&world.begin()), (Rest::Stopped(COMMIT), false));
    assert!(world.take_trace().ends_with("1:NeedsReboot"));
    assert_eq!(rested(&world.resume(stop(&[ROLLBACK, CLEANUP]))), (Rest::Stopped(CLEANUP), false));
    assert_eq!(world.take_trace(), "0:Commit 1:Commit");
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::Done, None));
    assert_eq!(world.take_trace(), "0:Cleanup 1:Cleanup");
}

#[test]
fn the_update_module_with_a_reboot() {
    let automatic = |_, activity, _| answer(activity, NeedsReboot::Automatic);
    let mut world = World::new(&[1], defer(&[COMMIT, ROLLBACK, CLEANUP]), automatic);
    assert_eq!(rested(&world.begin()), (Rest::RebootRequired, false));
    world.boot += 1;
    assert_eq!(rested(&world.resume(stop(&[ROLLBACK, CLEANUP]))), (Rest::Stopped(CLEANUP), false));
    assert_eq!(world.take_trace(), "0:Download 0:Install 0:NeedsReboot 0:VerifyReboot 0:Commit");
    assert_eq!(world.warnings, 0);
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::Done, None));
}

#[test]
fn the_update_module_with_a_failure_before_the_reboot() {
    let outcome = failing(1, Activity::Install, NeedsReboot::Automatic);
    let mut world = World::new(&[1, 1], defer(&[COMMIT, ROLLBACK, CLEANUP]), outcome);
    assert_eq!(rested(&world.begin()), (Rest::Stopped(ROLLBACK), true));
    assert_eq!(rested(&world.rollback(defer(&[CLEANUP]))), (Rest::Stopped(CLEANUP), false));
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::RolledBack, None));
}

#[test]
fn the_update_module_with_a_failure_after_the_reboot() {
    let outcome = failing(0, Activity::VerifyReboot, NeedsReboot::Automatic);
    let mut world = World::new(&[1], defer(&[COMMIT, ROLLBACK, CLEANUP]), outcome);
    assert_eq!(rested(&world.begin()), (Rest::RebootRequired, false));
    world.boot += 1;
    assert_eq!(rested(&world.resume(stop(&[ROLLBACK, CLEANUP]))), (Rest::Stopped(ROLLBACK), true));
    assert_eq!(rested(&world.rollback(defer(&[CLEANUP]))), (Rest::RebootRequired, false));
    world.boot += 1;
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::RolledBack, None));
    assert!(world.take_trace().ends_with("0:Rollback 0:VerifyRollbackReboot 0:Failure 0:Cleanup"));
}

#[test]
fn a_failed_download_stops_before_cleanup_and_the_calls_that_follow_succeed() {
    let outcome = failing(0, Activity::Download, NeedsReboot::No);
    let mut world = World::new(&[1], defer(&[COMMIT, ROLLBACK, CLEANUP]), outcome);
    assert_eq!(rested(&world.begin()), (Rest::Stopped(CLEANUP), true));
    world.take_trace();
    assert_eq!(rested(&world.rollback(defer(&[CLEANUP]))), (Rest::Stopped(CLEANUP), false));
    assert_eq!(world.take_trace(), "");
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::Failed, None));
    assert_eq!(world.take_trace(), "0:Cleanup");
}

#[test]
fn a_failure_during_a_deferred_reboot_is_told_by_the_call_after_it() {
    let outcome = failing(0, Activity::VerifyReboot, NeedsReboot::Automatic);
    let mut world = World::new(&[1], defer(&[]), outcome);
    assert_eq!(rested(&world.begin()), (Rest::RebootRequired, false));
    world.boot += 1;
    assert_eq!(rested(&world.resume(defer(&[]))), (Rest::RebootRequired, false));
    world.boot += 1;
    assert_eq!(result(&world.resume(defer(&[]))), ROLLED_BACK);
}

#[test]
fn resuming_without_the_reboot_warns_and_goes_on() {
    let automatic = |_, activity, _| answer(activity, NeedsReboot::Automatic);
    let mut world = World::new(&[1], defer(&[]), automatic);
    world.begin();
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::Done, None));
    assert_eq!(world.warnings, 1);
}

#[test]
fn nothing_to_do_rests_where_it_is_told_and_ends_without_a_call() {
    let mut world = World::new(&[], RunOptions::default(), fine);
    assert_eq!(result(&world.begin()), (JobResult::Done, None));
    let mut world = World::new(&[], defer(&[COMMIT, ROLLBACK, CLEANUP]), fine);
    assert_eq!(rested(&world.begin()), (Rest::Stopped(COMMIT), false));
    assert_eq!(rested(&world.resume(stop(&[ROLLBACK, CLEANUP]))), (Rest::Stopped(CLEANUP), false));
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::Done, None));
    let mut world = World::new(&[], defer(&[COMMIT]), fine);
    world.begin();
    assert_eq!(result(&world.rollback(stop(&[]))), (JobResult::RolledBack, None));
    assert_eq!(world.take_trace(), "");
}

#[test]
fn a_deployment_that_failed_early_can_be_resumed_and_rolled_back() {
    let error = Error::new(Kind::InvalidManifest, "bad");
    let mut world = World::new(&[], RunOptions::default(), fine);
    world.deployment = Deployment::failed_early(defer(&[COMMIT, ROLLBACK, CLEANUP]), error);
    assert_eq!(rested(&world.rollback(defer(&[CLEANUP]))), (Rest::Stopped(CLEANUP), false));
    assert_eq!(result(&world.resume(stop(&[]))), (JobResult::Failed, None));
}

#[test]
fn taking_back_before_and_after_the_commit_runs_artifact_failure_too() {
    for point in [COMMIT, CLEANUP] {
        let mut world = World::new(&[1, 2], stop(&[point]), fine);
        world.begin();
        world.take_trace();
        assert_eq!(result(&world.rollback(stop(&[]))), (JobResult::RolledBack, None), "{point:?}");
        assert_eq!(
            world.take_trace(),
            "0:SupportsRollback 1:SupportsRollback 1:Rollback 1:Failure 0:Rollback 0:Failure 0:Cleanup 1:Cleanup"
        );
    }
}

#[test]
fn taking_back_is_refused_if_a_component_cannot_unless_forced() {
    let outcome = |index, activity, _| match (index, activity) {
        (0, Activity::AskRollback) => Outcome::SupportsRollback(false),
        _ => answer(activity, NeedsReboot::No),
    };
    for point in [COMMIT, CLEANUP] {
        let mut world = World::new(&[1, 2], stop(&[point]), outcome);
        let end = world.begin();
        world.take_trace();
        let Effect::Refuse(error) = world.rollback(stop(&[])) else { panic!() };
        assert_eq!(error.kind, Kind::RollbackNotSupported);
        assert_eq!(world.deployment.head.rest, Some(rested(&end).0));
        assert_eq!(world.take_trace(), "0:SupportsRollback 1:SupportsRollback");
        let mut forced = World::new(&[], stop(&[]), outcome);
        forced.deployment = world.deployment.clone();
        assert_eq!(result(&forced.play(Event::Rollback(stop(&[]), true, "x".into()))).0, JobResult::Inconsistent);
        // The refusal left everything as it was: going on still succeeds.
        assert_eq!(result(&world.resume(stop(&[]))), (JobResult::Done, None));
    }
}

#[test]
fn taking_back_while_the_host_should_reboot_asks_no_reboot_that_did_not_happen() {
    let automatic = |_, activity, _| answer(activity, NeedsReboot::Automatic);
    for (rebooted, expected) in [(false, 0), (true, 1)] {
        let mut world = World::new(&[1], defer(&[]), automatic);
        world.begin();
        world.take_trace();
        world.boot += u32::from(rebooted);
        assert_eq!(result(&world.rollback(stop(&[]))), (JobResult::RolledBack, None));
        assert_eq!(world.take_trace().matches(" reboot").count(), expected);
    }
}

#[test]
fn cancelling_turns_round_at_the_next_barrier() {
    let mut deployment = Deployment::new([1], RunOptions::default());
    deployment.step(Event::Begin("a".into())).unwrap();
    deployment.step(Event::Ended(0, Outcome::Done)).unwrap();
    assert!(deployment.can_cancel());
    deployment.step(Event::Cancel).unwrap();
    let mut world = World::new(&[], RunOptions::default(), fine);
    world.deployment = deployment;
    let end = world.play(Event::Ended(0, Outcome::Done));
    assert_eq!(result(&end), (JobResult::Cancelled, Some(Kind::Cancelled)));
    assert_eq!(world.take_trace(), "0:SupportsRollback 0:Rollback 0:NeedsReboot 0:Failure 0:Cleanup");
}

#[test]
fn a_daemon_that_comes_back_without_a_reboot_asks_again_and_then_gives_up() {
    let automatic = |_, activity, _| answer(activity, NeedsReboot::Automatic);
    let mut deployment = Deployment::new([1], RunOptions::default());
    deployment.step(Event::Begin("a".into())).unwrap();
    deployment.step(Event::Ended(0, Outcome::Done)).unwrap();
    deployment.step(Event::Ended(0, Outcome::Done)).unwrap();
    let effects = deployment.step(Event::Ended(0, Outcome::NeedsReboot(NeedsReboot::Automatic))).unwrap();
    assert_eq!(effects, [Effect::RebootHost]);
    for _ in 1..REBOOT_REQUESTS {
        assert_eq!(deployment.step(Event::Recover("a".into())).unwrap(), [Effect::RebootHost]);
    }
    let mut world = World::new(&[], RunOptions::default(), automatic);
    world.deployment = deployment;
    assert_eq!(result(&world.play(Event::Recover("a".into()))), (JobResult::RolledBack, Some(Kind::RebootFailed)));
}

#[test]
fn what_cannot_be_recorded_ends_the_way_there() {
    let mut world = World::new(&[1, 2], RunOptions::default(), fine);
    world.deployment.step(Event::Begin("a".into())).unwrap();
    for _ in 0..2 {
        world.deployment.step(Event::Ended(0, Outcome::Done)).unwrap();
    }
    world.deployment.step(Event::Unrecorded(Error::new(Kind::Storage, "disk full"))).unwrap();
    assert!(world.deployment.head.failed);
    let end = world.play(Event::Ended(0, Outcome::NeedsReboot(NeedsReboot::No)));
    assert_eq!(result(&end), (JobResult::RolledBack, Some(Kind::Storage)));
    assert_eq!(world.take_trace(), "0:SupportsRollback 0:Rollback 0:Failure 0:Cleanup");
}

#[test]
fn impossible_events_change_nothing() {
    let mut deployment = Deployment::new([1], RunOptions::default());
    deployment.step(Event::Begin("a".into())).unwrap();
    let before = deployment.clone();
    for event in [
        Event::Begin("a".into()),
        Event::Ended(1, Outcome::Done),
        Event::Resume(RunOptions::default(), "a".into()),
        Event::Rollback(RunOptions::default(), false, "a".into()),
        Event::RebootFailed(Error::new(Kind::RebootFailed, "x")),
    ] {
        deployment.step(event).unwrap_err();
        assert_eq!(deployment, before);
    }
}
