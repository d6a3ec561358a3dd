//! The way there: order groups ascend through Download, `ArtifactInstall` and the reboots; then all commit.

use super::{Activity, Deployment, Effect, Outcome, Phase};
use crate::core::error::{Error, Kind};
use crate::update::answers::NeedsReboot;

fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "The deployment was cancelled.")
}

impl Deployment {
    /// Whoever cancels wants the old state. If a Component cannot go back to it, what works is better than what would be
    /// neither, and the deployment goes on.
    pub(super) fn cancel_answered(&mut self, can_go_back: bool, effects: &mut Vec<Effect>) {
        let Some((activity, order)) = self.head.cancelled_after.take() else { return };
        if can_go_back {
            self.fail(cancelled());
            return self.enter(Phase::BeforeRollback, effects);
        }
        self.head.cancelled = false;
        let text = "The deployment cannot be cancelled, because a Component that is installed cannot be rolled back \
                    (SupportsRollback is not Yes); going on.";
        effects.push(Effect::Warn(text.to_owned()));
        self.barrier_forward(activity, order, effects);
    }

    pub(super) fn download_from(&mut self, order: u32, effects: &mut Vec<Effect>) {
        match self.next_group(order, |_| true) {
            Some((order, chosen)) => {
                self.head.phase = Phase::Group(Activity::Download, order);
                self.start(&chosen, Activity::Download, effects);
            }
            None => self.enter(Phase::BeforeCommit, effects),
        }
    }

    pub(super) fn commit_from(&mut self, order: u32, effects: &mut Vec<Effect>) {
        match self.next_group(order, |_| true) {
            Some((order, chosen)) => {
                self.head.phase = Phase::Group(Activity::Commit, order);
                self.start(&chosen, Activity::Commit, effects);
            }
            None => self.enter(Phase::BeforeCleanup, effects),
        }
    }

    pub(super) fn ended_forward(&mut self, index: usize, activity: Activity, outcome: Outcome) {
        match outcome {
            Outcome::Failed(error) => self.fail(error),
            Outcome::NeedsReboot(answer) => self.members[index].needs_reboot = Some(answer),
            _ => self.members[index].committed = activity == Activity::Commit,
        }
    }

    /// The whole group has ended `activity`; siblings of a failed Component have ended it too.
    pub(super) fn barrier_forward(&mut self, activity: Activity, order: u32, effects: &mut Vec<Effect>) {
        if self.head.cancelled && !self.head.failed && activity < Activity::Commit {
            if !self.is_untouched() {
                self.head.cancelled_after = Some((activity, order));
                return self.ask_rollback(effects);
            }
            self.fail(cancelled());
        }
        if self.head.failed {
            return self.enter(Phase::BeforeRollback, effects);
        }
        match activity {
            Activity::Download => self.go(Activity::Install, order, effects),
            Activity::Install => self.go(Activity::AskReboot, order, effects),
            Activity::AskReboot => {
                let chosen = self.chosen(order, |member| member.needs_reboot == Some(NeedsReboot::Yes));
                self.head.phase = Phase::Group(Activity::Reboot, order);
                if !self.start(&chosen, Activity::Reboot, effects) {
                    self.host_reboot(order, effects);
                }
            }
            Activity::Reboot => self.host_reboot(order, effects),
            Activity::VerifyReboot => self.download_from(order + 1, effects),
            _ => self.commit_from(order + 1, effects),
        }
    }

    fn go(&mut self, activity: Activity, order: u32, effects: &mut Vec<Effect>) {
        let chosen = self.chosen(order, |_| true);
        self.head.phase = Phase::Group(activity, order);
        self.start(&chosen, activity, effects);
    }

    /// One reboot of the host for all Components of the group that answered `Automatic`.
    fn host_reboot(&mut self, order: u32, effects: &mut Vec<Effect>) {
        let waiting = self.chosen(order, |member| member.needs_reboot == Some(NeedsReboot::Automatic));
        if waiting.is_empty() {
            return self.verify_reboot(order, effects);
        }
        for index in waiting {
            self.members[index].rebooted = true;
        }
        self.head.phase = Phase::HostReboot(order);
        self.head.reboot_requests = 0;
        self.request_reboot(effects);
    }

    /// The host is back.
    pub(super) fn after_host_reboot(&mut self, order: u32, effects: &mut Vec<Effect>) {
        self.verify_reboot(order, effects);
    }

    fn verify_reboot(&mut self, order: u32, effects: &mut Vec<Effect>) {
        let chosen = self.chosen(order, |member| member.rebooted);
        self.head.phase = Phase::Group(Activity::VerifyReboot, order);
        if !self.start(&chosen, Activity::VerifyReboot, effects) {
            self.barrier_forward(Activity::VerifyReboot, order, effects);
        }
    }

    /// The host did not reboot: the Components that waited for it have failed `ArtifactReboot`.
    pub(super) fn reboot_failed(&mut self, error: Error, effects: &mut Vec<Effect>) {
        match self.head.phase {
            Phase::HostRollbackReboot(order) => self.rollback_reboot_failed(order, error, effects),
            Phase::HostReboot(order) => {
                for index in self.chosen(order, |member| member.needs_reboot == Some(NeedsReboot::Automatic)) {
                    self.members[index].rebooted = false;
                }
                self.fail(error);
                self.enter(Phase::BeforeRollback, effects);
            }
            _ => {}
        }
    }
}
