//! The way back: order groups descend through `ArtifactRollback`, the reboots and `ArtifactFailure`.

use super::{Activity, Deployment, Effect, Outcome, Phase, ROLLBACK_REBOOT_ATTEMPTS, Rest, Verification};
use crate::core::error::{Error, Kind};
use crate::update::answers::NeedsReboot;
use crate::update::handle::StopPoint;

impl Deployment {
    /// Asks each Component once per deployment whether it can go back.
    pub(super) fn ask_rollback(&mut self, effects: &mut Vec<Effect>) {
        let unasked = |index: &usize| {
            let member = &self.members[*index];
            member.leg == self.head.leg && member.installed && member.supports_rollback.is_none()
        };
        let chosen: Vec<usize> = (0..self.members.len()).filter(unasked).collect();
        self.head.phase = Phase::AskRollback;
        if !self.start(&chosen, Activity::AskRollback, effects) {
            self.rollback_answered(effects);
        }
    }

    pub(super) fn rollback_answered(&mut self, effects: &mut Vec<Effect>) {
        let stays = self.of_leg().filter(|member| member.installed && member.supports_rollback == Some(false));
        let stays = stays.count();
        if self.head.cancelled_after.is_some() {
            return self.cancel_answered(stays == 0, effects);
        }
        if stays > 0 {
            let text = format!("{stays} Component(s) cannot be rolled back (SupportsRollback is not Yes).");
            let error = Error::new(Kind::RollbackNotSupported, text);
            if let (Some(point), false) = (self.head.taken_back, self.head.forced) {
                return self.refuse(point, error, effects);
            }
            self.become_inconsistent(error);
        }
        self.head.taken_back = None;
        match self.of_leg().filter(|member| member.installed).map(|member| member.order).max() {
            Some(order) => self.rollback(order, effects),
            None => self.enter(Phase::BeforeCleanup, effects),
        }
    }

    /// Nothing has failed, so staying here is better than losing Components that cannot go back.
    fn refuse(&mut self, point: StopPoint, error: Error, effects: &mut Vec<Effect>) {
        self.head.taken_back = None;
        self.head.failed = false;
        self.head.phase = if point == StopPoint::Cleanup { Phase::BeforeCleanup } else { Phase::BeforeCommit };
        self.head.rest = Some(Rest::Stopped(point));
        effects.push(Effect::Refuse(error));
    }

    fn rollback(&mut self, order: u32, effects: &mut Vec<Effect>) {
        let chosen = self.chosen(order, |member| member.installed && member.supports_rollback == Some(true));
        self.head.phase = Phase::Group(Activity::Rollback, order);
        if !self.start(&chosen, Activity::Rollback, effects) {
            self.failure(order, effects);
        }
    }

    pub(super) fn ended_back(&mut self, index: usize, activity: Activity, outcome: Outcome) {
        let member = &mut self.members[index];
        match (activity, outcome) {
            (Activity::AskRollback, Outcome::SupportsRollback(answer)) => member.supports_rollback = Some(answer),
            (Activity::AskRollback, Outcome::Failed(error)) => {
                member.supports_rollback = Some(false);
                // A caller who takes a sound deployment back is refused instead, by the answer "no".
                if self.head.taken_back.is_none() && self.head.cancelled_after.is_none() {
                    self.become_inconsistent(error);
                }
            }
            (Activity::AskRollbackReboot, Outcome::NeedsReboot(answer)) => member.needs_reboot = Some(answer),
            // Going back must not stop for a missing answer; "No" is the protocol's default.
            (Activity::AskRollbackReboot, Outcome::Failed(_)) => member.needs_reboot = Some(NeedsReboot::No),
            (Activity::Rollback, Outcome::Failed(error)) => {
                member.rollback_failed = true;
                self.head.rollback_error.get_or_insert(error);
            }
            (Activity::VerifyRollbackReboot, Outcome::Done) => member.verification = Verification::Good,
            (Activity::VerifyRollbackReboot, Outcome::Failed(error)) => {
                member.verification = Verification::Bad;
                self.head.rollback_error.get_or_insert(error);
            }
            (Activity::Cleanup, Outcome::Failed(error)) => {
                self.head.untold.get_or_insert(error);
            }
            // The protocol ignores how ArtifactRollbackReboot and ArtifactFailure end.
            _ => {}
        }
    }

    pub(super) fn barrier_back(&mut self, activity: Activity, order: u32, effects: &mut Vec<Effect>) {
        match activity {
            Activity::Rollback => {
                let chosen = self.chosen(order, |member| member.rolled_back && member.needs_reboot.is_none());
                self.head.phase = Phase::Group(Activity::AskRollbackReboot, order);
                if !self.start(&chosen, Activity::AskRollbackReboot, effects) {
                    self.rollback_reboot(order, effects);
                }
            }
            Activity::AskRollbackReboot => self.rollback_reboot(order, effects),
            Activity::RollbackReboot => self.host_rollback_reboot(order, effects),
            Activity::VerifyRollbackReboot => self.rollback_verified(order, effects),
            Activity::Failure => {
                let below = self.of_leg().filter(|member| member.installed && member.order < order);
                match below.map(|member| member.order).max() {
                    Some(order) => self.rollback(order, effects),
                    None => self.enter(Phase::BeforeCleanup, effects),
                }
            }
            _ => self.clean_up_from(order + 1, effects),
        }
    }

    /// `ArtifactRollbackReboot` on the Components that reboot by themselves and are not verified yet.
    fn rollback_reboot(&mut self, order: u32, effects: &mut Vec<Effect>) {
        let chosen = self.chosen(order, |member| {
            member.rolled_back
                && member.needs_reboot == Some(NeedsReboot::Yes)
                && member.verification != Verification::Good
        });
        let host = self.waits_for_host(order);
        if !chosen.is_empty() || !host.is_empty() {
            *self.head.rollback_reboots.entry(order).or_insert(0) += 1;
        }
        self.head.phase = Phase::Group(Activity::RollbackReboot, order);
        if !self.start(&chosen, Activity::RollbackReboot, effects) {
            self.host_rollback_reboot(order, effects);
        }
    }

    /// The Components whose way back needs a reboot of the host: only where one stood for their `ArtifactReboot`.
    fn waits_for_host(&self, order: u32) -> Vec<usize> {
        self.chosen(order, |member| {
            member.rolled_back
                && member.rebooted
                && member.needs_reboot == Some(NeedsReboot::Automatic)
                && member.verification != Verification::Good
        })
    }

    fn host_rollback_reboot(&mut self, order: u32, effects: &mut Vec<Effect>) {
        let waiting = self.waits_for_host(order);
        if waiting.is_empty() {
            return self.verify_rollback_reboot(order, effects);
        }
        for index in waiting {
            self.members[index].verification = Verification::Pending;
        }
        self.head.phase = Phase::HostRollbackReboot(order);
        self.head.reboot_requests = 0;
        self.request_reboot(effects);
    }

    /// The host is back.
    pub(super) fn after_host_rollback_reboot(&mut self, order: u32, effects: &mut Vec<Effect>) {
        self.verify_rollback_reboot(order, effects);
    }

    fn verify_rollback_reboot(&mut self, order: u32, effects: &mut Vec<Effect>) {
        let chosen = self.chosen(order, |member| member.verification == Verification::Pending);
        self.head.phase = Phase::Group(Activity::VerifyRollbackReboot, order);
        if !self.start(&chosen, Activity::VerifyRollbackReboot, effects) {
            self.rollback_verified(order, effects);
        }
    }

    /// The host did not reboot: a failed verification, to be tried again like any other.
    pub(super) fn rollback_reboot_failed(&mut self, order: u32, error: Error, effects: &mut Vec<Effect>) {
        self.head.rollback_error.get_or_insert(error);
        for index in self.waits_for_host(order) {
            self.members[index].verification = Verification::Bad;
        }
        self.verify_rollback_reboot(order, effects);
    }

    fn rollback_verified(&mut self, order: u32, effects: &mut Vec<Effect>) {
        let bad = self.chosen(order, |member| member.verification == Verification::Bad);
        let reboots = self.head.rollback_reboots.get(&order).copied().unwrap_or(0);
        if !bad.is_empty() && reboots < ROLLBACK_REBOOT_ATTEMPTS {
            return self.rollback_reboot(order, effects);
        }
        let lost = |member: &super::Member| {
            member.verification == Verification::Bad
                || (member.rollback_failed && member.verification != Verification::Good)
        };
        if !self.chosen(order, lost).is_empty() {
            let text = "A Component could not be rolled back.";
            let error = self.head.rollback_error.clone();
            self.become_inconsistent(error.unwrap_or_else(|| Error::new(Kind::Inconsistent, text)));
        }
        self.failure(order, effects);
    }

    fn failure(&mut self, order: u32, effects: &mut Vec<Effect>) {
        let chosen = self.chosen(order, |member| member.installed);
        self.head.phase = Phase::Group(Activity::Failure, order);
        if !self.start(&chosen, Activity::Failure, effects) {
            self.barrier_back(Activity::Failure, order, effects);
        }
    }

    fn become_inconsistent(&mut self, error: Error) {
        self.head.inconsistent = true;
        self.head.cause.get_or_insert_with(|| error.clone());
        self.head.untold.get_or_insert(error);
    }
}
