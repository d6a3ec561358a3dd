//! Random Systems, answers, failures, crashes and callers against the rules that must hold for all of them.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::core::error::Kind;
use crate::update::handle::RebootMode;

/// What can happen in one run, drawn at random.
#[derive(Debug, Clone)]
struct Script {
    orders: Vec<u32>,
    /// Order groups from this one on are a part of their own.
    second_part: u32,
    needs_reboot: Vec<NeedsReboot>,
    supports_rollback: Vec<Option<bool>>,
    /// One number per activity that ends: what becomes of it.
    fates: Vec<u8>,
    stops: Vec<(u8, bool)>,
}

impl Script {
    /// Order groups and parts; parts are numbered without a gap.
    fn places(&self) -> Vec<(u32, u32)> {
        let first = self.orders.iter().any(|order| *order < self.second_part);
        self.orders.iter().map(|&order| (order, u32::from(first && order >= self.second_part))).collect()
    }
}

/// One call, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    index: usize,
    activity: Activity,
    failed: bool,
}

fn options(bits: u8, defer: bool) -> RunOptions {
    let points = [StopPoint::ArtifactCommit, StopPoint::ArtifactRollback, StopPoint::Cleanup];
    RunOptions {
        stop_before: (0..3).filter(|bit| bits & (1 << bit) != 0).map(|bit| points[bit]).collect(),
        reboot: if defer { RebootMode::Defer } else { RebootMode::Auto },
    }
}

fn script() -> impl Strategy<Value = Script> {
    (1_usize..6).prop_flat_map(|members| {
        let reboot = prop_oneof![Just(NeedsReboot::No), Just(NeedsReboot::Automatic), Just(NeedsReboot::Yes)];
        let supports = prop_oneof![5 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)];
        (
            (prop::collection::vec(1_u32..4, members), 2_u32..6),
            prop::collection::vec(reboot, members),
            prop::collection::vec(supports, members),
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec((0_u8..8, any::<bool>()), 1..8),
        )
            .prop_map(|((orders, second_part), needs_reboot, supports_rollback, fates, stops)| Script {
                orders,
                second_part,
                needs_reboot,
                supports_rollback,
                fates,
                stops,
            })
    })
}

struct Run {
    deployment: Deployment,
    script: Script,
    fates: VecDeque<u8>,
    stops: VecDeque<(u8, bool)>,
    made: Vec<Made>,
    /// Reboots that were cut short before anybody knew that they had begun, by Component.
    unbegun: BTreeMap<usize, usize>,
    boot: u32,
    crashes: u32,
    was_told: bool,
    end: Option<(JobResult, Option<Error>)>,
}

impl Run {
    fn new(script: Script) -> Self {
        let mut stops: VecDeque<(u8, bool)> = script.stops.clone().into();
        let (bits, defer) = stops.pop_front().unwrap_or((0, false));
        Self {
            deployment: Deployment::in_legs(script.places(), options(bits, defer)),
            fates: script.fates.clone().into(),
            stops,
            script,
            made: Vec::new(),
            unbegun: BTreeMap::new(),
            boot: 0,
            crashes: 0,
            was_told: false,
            end: None,
        }
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    fn fate(&mut self) -> u8 {
        self.fates.pop_front().unwrap_or(0)
    }

    fn step(&mut self, event: &Event) -> Result<Vec<Effect>, TestCaseError> {
        let effects = self.deployment.step(event.clone());
        effects.map_err(|error| TestCaseError::fail(format!("{event:?}: {error}")))
    }

    fn play(&mut self) -> Result<(), TestCaseError> {
        let first = Event::Begin(self.boot_id());
        let mut effects: VecDeque<Effect> = self.step(&first)?.into();
        let mut running: Vec<(usize, Activity)> = Vec::new();
        for _ in 0..20_000 {
            // Effects first, then one report, then perhaps a crash.
            if let Some(effect) = effects.pop_front() {
                match effect {
                    Effect::Run(index, activity) => {
                        self.made.push(Made { index, activity, failed: false });
                        running.push((index, activity));
                        if activity.may_be_resumed_by_verification() && self.fate().is_multiple_of(2) {
                            self.step(&Event::Started(index))?;
                        }
                    }
                    Effect::RebootHost => effects.extend(self.reboot()?),
                    Effect::Warn(_) => {}
                    Effect::Rest { why, error } => {
                        prop_assert!(running.is_empty() && effects.is_empty());
                        self.was_told |= error.is_some();
                        effects.extend(self.caller(why)?);
                    }
                    Effect::Refuse(error) => {
                        prop_assert_eq!(error.kind, Kind::RollbackNotSupported);
                        prop_assert!(self.deployment.head.rest.is_some());
                        let event = Event::Resume(options(0, false), self.boot_id());
                        effects.extend(self.step(&event)?);
                    }
                    Effect::Finish { result, error } => {
                        prop_assert!(running.is_empty() && effects.is_empty());
                        self.end = Some((result, error));
                        return Ok(());
                    }
                }
                continue;
            }
            prop_assert!(!running.is_empty(), "waits for nothing in {:?}", self.deployment.head.phase);
            // The record says the same as the world.
            let mut recorded = self.deployment.running();
            recorded.sort_unstable();
            running.sort_unstable();
            prop_assert_eq!(&recorded, &running);
            let fate = self.fate();
            if fate > 250 {
                effects.extend(self.crash(&mut running)?);
            } else {
                let (index, activity) = running.remove(usize::from(fate) % running.len());
                let outcome = self.outcome(index, activity, fate);
                effects.extend(self.step(&Event::Ended(index, outcome))?);
            }
            if fate == 250 {
                self.step(&Event::Cancel)?;
            }
        }
        Err(TestCaseError::fail("no end"))
    }

    fn outcome(&mut self, index: usize, activity: Activity, fate: u8) -> Outcome {
        let fails = (220..250).contains(&fate);
        if fails {
            let last = self.made.iter_mut().rev().find(|made| (made.index, made.activity) == (index, activity));
            if let Some(made) = last {
                made.failed = true;
            }
        }
        match activity {
            _ if fails => Outcome::Failed(Error::new(Kind::InterfaceFailed, "failed")),
            Activity::AskReboot | Activity::AskRollbackReboot => Outcome::NeedsReboot(self.script.needs_reboot[index]),
            Activity::AskRollback => match self.script.supports_rollback[index] {
                Some(answer) => Outcome::SupportsRollback(answer),
                None => Outcome::Failed(Error::new(Kind::InterfaceFailed, "bad answer")),
            },
            _ => Outcome::Done,
        }
    }

    /// Memory is gone; the record stays. What ran may have ended unseen.
    fn crash(&mut self, running: &mut Vec<(usize, Activity)>) -> Result<Vec<Effect>, TestCaseError> {
        self.crashes += 1;
        let record = serde_json::to_vec(&self.deployment).expect("a deployment can be written");
        self.deployment = serde_json::from_slice(&record).expect("and read");
        self.boot += u32::from(self.fate() % 2);
        let lost = std::mem::take(running);
        let mut effects = Vec::new();
        let boot_id = self.boot_id();
        effects.extend(self.step(&Event::Recover(boot_id))?);
        for (index, activity) in lost {
            if activity == Activity::Reboot && !self.deployment.members[index].begun {
                *self.unbegun.entry(index).or_insert(0) += 1;
            }
            effects.extend(self.step(&Event::Ended(index, Outcome::Interrupted))?);
        }
        Ok(effects)
    }

    fn reboot(&mut self) -> Result<Vec<Effect>, TestCaseError> {
        match self.fate() {
            fate if fate > 240 => self.step(&Event::RebootFailed(Error::new(Kind::RebootFailed, "no reboot"))),
            // The daemon comes back, the host was not rebooted.
            fate if fate > 220 => self.step(&Event::Recover(self.boot_id())),
            _ => {
                self.boot += 1;
                self.step(&Event::Recover(self.boot_id()))
            }
        }
    }

    fn caller(&mut self, why: Rest) -> Result<Vec<Effect>, TestCaseError> {
        let (bits, defer) = self.stops.pop_front().unwrap_or((0, false));
        // A caller who stops at the same point again and again would never come to an end.
        let bits = if why == Rest::RebootRequired { bits } else { bits & self.fate() };
        let options = options(if self.stops.is_empty() { 0 } else { bits }, defer);
        if why == Rest::RebootRequired && self.fate() % 4 != 3 {
            self.boot += 1;
        }
        let event = match self.fate() % 4 {
            1 => Event::Rollback(options, self.fate() % 2 == 1, self.boot_id()),
            _ => Event::Resume(options, self.boot_id()),
        };
        self.step(&event)
    }

    fn positions(&self, activity: Activity) -> Vec<(usize, usize)> {
        let made = self.made.iter().enumerate();
        made.filter(|(_, made)| made.activity == activity).map(|(at, made)| (at, made.index)).collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let (result, error) = self.end.clone().ok_or_else(|| TestCaseError::fail("no end"))?;
        let members = &self.deployment.members;
        // No state after Cleanup but Cleanup, and every Component that took part is cleaned up; each part by itself, and
        // nothing of the next one begins before that.
        let part = self.deployment.head.leg;
        for leg in 0..=part {
            let of_leg = |made: &&Made| members[made.index].leg <= leg;
            let begins =
                self.made.iter().position(|made| members[made.index].leg == leg && made.activity == Activity::Cleanup);
            if let Some(at) = begins {
                prop_assert!(self.made[at..].iter().filter(of_leg).all(|made| made.activity == Activity::Cleanup));
                prop_assert!(self.made[..at].iter().all(|made| members[made.index].leg <= leg));
            }
        }
        prop_assert!(members.iter().all(|member| member.leg <= part || !member.downloaded));
        for (index, member) in members.iter().enumerate() {
            let cleaned = self.positions(Activity::Cleanup).iter().any(|(_, who)| *who == index);
            prop_assert_eq!(cleaned, member.downloaded);
        }
        // Commit only after every Install and every verification of the part.
        for leg in 0..=part {
            let of_leg = |activity| {
                let positions = self.positions(activity).into_iter().filter(|(_, who)| members[*who].leg == leg);
                positions.map(|(at, _)| at).collect::<Vec<_>>()
            };
            let Some(&commit) = of_leg(Activity::Commit).first() else { continue };
            for activity in [Activity::Download, Activity::Install, Activity::Reboot, Activity::VerifyReboot] {
                prop_assert!(
                    of_leg(activity).last().is_none_or(|at| *at < commit),
                    "{activity:?} after ArtifactCommit"
                );
            }
            let members = members.iter().filter(|member| member.leg == leg).count();
            prop_assert_eq!(of_leg(Activity::Install).len(), members);
        }
        // A forward state runs at most once per Component; Install follows its own Download.
        for activity in
            [Activity::Download, Activity::Install, Activity::Reboot, Activity::VerifyReboot, Activity::Commit]
        {
            let mut count = BTreeMap::new();
            for (_, who) in self.positions(activity) {
                *count.entry(who).or_insert(0) += 1;
            }
            for (who, count) in count {
                // What may never have begun is made again, so that no Component is committed that did not reboot.
                let again = if activity == Activity::Reboot { self.unbegun.get(&who).copied().unwrap_or(0) } else { 0 };
                prop_assert!(count <= 1 + again, "{activity:?} repeated");
                let is_tried =
                    count > again || !self.positions(Activity::VerifyReboot).iter().any(|(_, at)| *at == who);
                prop_assert!(is_tried, "{activity:?} never began, and is verified");
            }
        }
        // The barrier: within a group, no Install before every Download; no group begins before the lower one installed.
        for (install, who) in self.positions(Activity::Install) {
            for (download, other) in self.positions(Activity::Download) {
                let same = members[other].order == members[who].order;
                let higher = members[other].order > members[who].order;
                prop_assert!(!(same && download > install || higher && download < install), "barrier broken");
            }
        }
        // The System as a whole: when it fails, whoever was installed goes back if it can, and gets ArtifactFailure.
        // Earlier parts stand.
        let failed = !(result == JobResult::Done || result == JobResult::Failed && self.committed());
        for (index, member) in members.iter().enumerate() {
            let has = |activity| self.positions(activity).iter().any(|(_, who)| *who == index);
            let failed = failed && member.leg == part;
            prop_assert_eq!(has(Activity::Failure), failed && member.installed);
            let goes_back = failed && member.installed && member.supports_rollback == Some(true);
            prop_assert_eq!(has(Activity::Rollback), goes_back);
            if has(Activity::RollbackReboot) {
                prop_assert!(has(Activity::Rollback) && member.needs_reboot == Some(NeedsReboot::Yes));
            }
            if failed && member.installed && member.supports_rollback != Some(true) {
                prop_assert_eq!(result, JobResult::Inconsistent);
            }
            if result == JobResult::Done || member.leg < part {
                prop_assert!(member.committed && !member.rolled_back);
            }
            for (activity, attempts) in &member.attempts {
                prop_assert!(*attempts <= 3 * ROLLBACK_REBOOT_ATTEMPTS, "{activity:?} started {attempts} times");
            }
        }
        // Groups go back descending.
        let orders: Vec<u32> = self.positions(Activity::Rollback).iter().map(|(_, who)| members[*who].order).collect();
        prop_assert!(orders.windows(2).all(|pair| pair[0] >= pair[1]), "{orders:?}");
        // Nobody is left without an answer: a forward failure was told once, by a rest or by the end.
        let forward_failure = self.made.iter().any(|made| made.failed && made.activity <= Activity::Commit);
        if forward_failure {
            prop_assert!(self.was_told || error.is_some());
        }
        if result == JobResult::Inconsistent {
            prop_assert!(error.is_some_and(|error| error.kind == Kind::Inconsistent));
        }
        Ok(())
    }

    fn committed(&self) -> bool {
        !self.deployment.head.failed
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold(script in script()) {
        let mut run = Run::new(script);
        run.play()?;
        run.check()?;
    }
}
