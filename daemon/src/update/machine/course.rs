//! What both ways have in common: events in, barriers, stopping points, the end.

use super::{
    Activity, CallState, Deployment, Effect, Event, Impossible, Member, Outcome, Phase, REBOOT_REQUESTS,
    REPEATED_CALLS, Rest, Verification,
};
use crate::core::error::{Error, Kind};
use crate::core::job::JobResult;
use crate::update::answers::NeedsReboot;
use crate::update::handle::{RebootMode, RunOptions, StopPoint};

impl Deployment {
    /// Takes an event and says what is to be done now. On an error nothing has changed.
    pub fn step(&mut self, event: Event) -> Result<Vec<Effect>, Impossible> {
        let mut effects = Vec::new();
        match event {
            Event::Begin(boot_id) if self.head.phase == Phase::Start => {
                self.head.boot_id = boot_id;
                self.enter(Phase::Start, &mut effects);
            }
            Event::Started(index) => {
                if self.is_running(index) {
                    self.members[index].begun = true;
                }
            }
            Event::CanGoBack(index, answer) => {
                if let Some(member) = self.members.get_mut(index) {
                    member.supports_rollback.get_or_insert(answer);
                }
            }
            Event::Ended(index, outcome) if self.is_running(index) => self.ended(index, outcome, &mut effects),
            Event::RebootFailed(error) if self.awaits_reboot() => self.reboot_failed(error, &mut effects),
            Event::Resume(options, boot_id) if self.head.rest.is_some() => {
                let untold = self.head.unattended && self.head.rest == Some(Rest::RebootRequired);
                self.head.boot_id = boot_id;
                if untold && !self.has_rebooted() && self.head.reboot_requests < REBOOT_REQUESTS {
                    // The daemon has come as far as the reboot by itself. This caller is the first to hear of it.
                    self.take_options(options);
                    self.request_reboot(&mut effects);
                } else {
                    self.wake(options, &mut effects);
                    self.go_on(&mut effects);
                }
            }
            Event::Rollback(options, force, boot_id) if self.head.rest.is_some() => {
                // What failed while nobody was there is no failure to who wants the old state back.
                if self.head.unattended && !self.head.inconsistent {
                    self.head.untold = None;
                }
                self.head.boot_id = boot_id;
                self.wake(options, &mut effects);
                self.take_back(force, &mut effects);
            }
            Event::Recover(boot_id) if self.head.rest.is_none() => self.recover(boot_id, &mut effects),
            Event::Cancel => {
                // Takes effect at the next barrier, so that no call is left half way.
                self.head.cancelled |= self.can_cancel();
            }
            Event::Unrecorded(error) if !self.head.failed && !self.is_committed() => self.fail(error),
            event => {
                let name = format!("{event:?}");
                return Err(Impossible {
                    event: name.split(['(', ' ']).next().unwrap_or_default().to_owned(),
                    phase: self.head.phase,
                });
            }
        }
        Ok(effects)
    }

    fn is_running(&self, index: usize) -> bool {
        self.members.get(index).is_some_and(|member| member.call == Some(CallState::Running))
    }

    fn awaits_reboot(&self) -> bool {
        self.head.rest.is_none() && matches!(self.head.phase, Phase::HostReboot(_) | Phase::HostRollbackReboot(_))
    }

    /// Leaves the rest with the options of the new caller.
    fn wake(&mut self, options: RunOptions, effects: &mut Vec<Effect>) {
        if self.head.rest == Some(Rest::RebootRequired) && !self.has_rebooted() {
            let text = "The host was not rebooted since the deployment asked for it; going on all the same.";
            effects.push(Effect::Warn(text.to_owned()));
        }
        self.take_options(options);
    }

    fn take_options(&mut self, options: RunOptions) {
        self.head.options = options;
        self.head.rest = None;
        self.head.unattended = false;
    }

    /// The host was rebooted since the deployment asked for it.
    fn has_rebooted(&self) -> bool {
        self.head.asked_in != self.head.boot_id
    }

    /// Goes on from where it rested.
    fn go_on(&mut self, effects: &mut Vec<Effect>) {
        match self.head.phase {
            Phase::HostReboot(order) => self.after_host_reboot(order, effects),
            Phase::HostRollbackReboot(order) => self.after_host_rollback_reboot(order, effects),
            phase => self.enter(phase, effects),
        }
    }

    /// Turns round on request of a caller.
    fn take_back(&mut self, force: bool, effects: &mut Vec<Effect>) {
        if self.head.failed || self.head.phase == Phase::BeforeCleanup && self.is_untouched() {
            // It is on its way back already, or there is nothing to take back.
            self.head.failed = true;
            return self.go_on(effects);
        }
        if let Phase::HostReboot(order) = self.head.phase {
            self.forget_host_reboot(order);
        }
        self.head.taken_back = match self.head.phase {
            Phase::BeforeCommit => Some(StopPoint::ArtifactCommit),
            Phase::BeforeCleanup => Some(StopPoint::Cleanup),
            // Half way between: staying there is no choice, so this goes on whatever the Components support.
            _ => None,
        };
        self.head.forced = force;
        self.head.failed = true;
        self.enter(Phase::BeforeRollback, effects);
    }

    /// A caller takes up a deployment that was left without a rest, because its record could not be written; with `back` it
    /// wants the old state. [`Event::Recover`] follows.
    pub fn take_up(&mut self, options: RunOptions, back: bool) {
        self.head.options = options;
        self.head.unattended = false;
        if !back || self.head.failed || self.is_cleaning_up() {
            return;
        }
        self.head.failed = true;
        if let Phase::HostReboot(order) = self.head.phase {
            self.forget_host_reboot(order);
        }
        // Calls that ran are waited for, and their step turns round.
        if matches!(self.head.phase, Phase::HostReboot(_) | Phase::BeforeCommit | Phase::BeforeCleanup) {
            self.head.phase = Phase::BeforeRollback;
        }
    }

    /// A reboot of the host that did not happen stands for nothing.
    fn forget_host_reboot(&mut self, order: u32) {
        if self.has_rebooted() {
            return;
        }
        for index in self.chosen(order, |member| member.needs_reboot == Some(NeedsReboot::Automatic)) {
            self.members[index].rebooted = false;
        }
    }

    /// The daemon was gone. Calls that ran are reported one by one with [`Event::Ended`]; only reboots are decided here.
    fn recover(&mut self, boot_id: String, effects: &mut Vec<Effect>) {
        self.head.boot_id = boot_id;
        match self.head.phase {
            Phase::HostReboot(order) if self.has_rebooted() => self.after_host_reboot(order, effects),
            Phase::HostRollbackReboot(order) if self.has_rebooted() => {
                self.after_host_rollback_reboot(order, effects);
            }
            Phase::HostReboot(_) | Phase::HostRollbackReboot(_) => {
                if self.head.reboot_requests < REBOOT_REQUESTS {
                    self.request_reboot(effects);
                } else {
                    let text = format!("The host did not reboot although it was asked {REBOOT_REQUESTS} times.");
                    self.reboot_failed(Error::new(Kind::RebootFailed, text), effects);
                }
            }
            Phase::Start if !self.head.failed => {
                // Nobody may have been told that it was accepted, and nothing has been touched.
                let text = "The deployment was cut short before it began, because orchestratord or the host ended.";
                self.fail(Error::new(Kind::Failed, text));
                self.enter(Phase::Start, effects);
            }
            // Gates lead on by themselves; a group waits for its reports.
            Phase::Start | Phase::BeforeCommit | Phase::BeforeRollback | Phase::BeforeCleanup | Phase::Done => {
                self.enter(self.head.phase, effects);
            }
            Phase::Group(..) | Phase::AskRollback => {
                // A step with no report outstanding was left by nobody, but must not wait for ever either.
                if self.running().is_empty() {
                    self.barrier(effects);
                }
            }
        }
    }

    /// Asks for the reboot, or leaves it to the caller. The boot id tells later whether it happened.
    pub(super) fn request_reboot(&mut self, effects: &mut Vec<Effect>) {
        self.head.asked_in = self.head.boot_id.clone();
        self.head.reboot_requests += 1;
        match self.head.options.reboot {
            RebootMode::Auto => effects.push(Effect::RebootHost),
            RebootMode::Defer => {
                self.head.rest = Some(Rest::RebootRequired);
                // What is untold stays untold: exit status 4 says "reboot", not "failed".
                effects.push(Effect::Rest { why: Rest::RebootRequired, error: None });
            }
        }
    }

    /// Starts an activity on these Components; with none of them, nothing happens and the answer is false.
    pub(super) fn start(&mut self, chosen: &[usize], activity: Activity, effects: &mut Vec<Effect>) -> bool {
        for member in &mut self.members {
            member.call = None;
        }
        for &index in chosen {
            let member = &mut self.members[index];
            member.call = Some(CallState::Running);
            member.begun = false;
            *member.attempts.entry(activity).or_insert(0) += 1;
            match activity {
                Activity::Download => member.downloaded = true,
                Activity::Install => member.installed = true,
                Activity::Reboot => member.rebooted = true,
                Activity::Rollback => member.rolled_back = true,
                Activity::RollbackReboot => member.verification = Verification::Pending,
                _ => {}
            }
            effects.push(Effect::Run(index, activity));
        }
        !chosen.is_empty()
    }

    fn ended(&mut self, index: usize, outcome: Outcome, effects: &mut Vec<Effect>) {
        let activity = match self.head.phase {
            Phase::Group(activity, _) => activity,
            _ => Activity::AskRollback,
        };
        let outcome = if outcome == Outcome::Interrupted {
            let Some(outcome) = self.interrupted(index, activity) else {
                *self.members[index].attempts.entry(activity).or_insert(0) += 1;
                effects.push(Effect::Run(index, activity));
                return;
            };
            outcome
        } else {
            outcome
        };
        self.members[index].call = Some(match outcome {
            Outcome::Failed(_) => CallState::Failed,
            _ => CallState::Ended,
        });
        if activity < Activity::AskRollback {
            self.ended_forward(index, activity, outcome);
        } else {
            self.ended_back(index, activity, outcome);
        }
        if self.running().is_empty() {
            self.barrier(effects);
        }
    }

    /// What it means that nobody knows how the activity ended; `None`: make it again.
    fn interrupted(&self, index: usize, activity: Activity) -> Option<Outcome> {
        let failed = || {
            let name = activity.as_str();
            let text = format!("\"{name}\" was cut short because orchestratord or the host ended.");
            Outcome::Failed(Error::new(Kind::InterfaceFailed, text))
        };
        match activity {
            Activity::Download | Activity::Install | Activity::VerifyReboot | Activity::Commit => Some(failed()),
            // A reboot in the middle of a reboot is no surprise; the verification that follows decides.
            Activity::Reboot | Activity::RollbackReboot if self.members[index].begun => Some(Outcome::Done),
            // It may never have begun, and a verification need not notice that; then nobody would have tried the new
            // software before it is committed.
            Activity::Reboot
            | Activity::RollbackReboot
            | Activity::AskReboot
            | Activity::AskRollback
            | Activity::AskRollbackReboot
            | Activity::Rollback
            | Activity::VerifyRollbackReboot
            | Activity::Failure
            | Activity::Cleanup => (self.members[index].attempts(activity) >= REPEATED_CALLS).then(failed),
        }
    }

    /// All calls of the step are over.
    fn barrier(&mut self, effects: &mut Vec<Effect>) {
        match self.head.phase {
            Phase::Group(activity, order) if activity < Activity::AskRollback => {
                self.barrier_forward(activity, order, effects);
            }
            Phase::Group(activity, order) => self.barrier_back(activity, order, effects),
            Phase::AskRollback => self.rollback_answered(effects),
            phase => self.enter(phase, effects),
        }
    }

    /// Goes to a phase and on from there until something has to be waited for.
    pub(super) fn enter(&mut self, phase: Phase, effects: &mut Vec<Effect>) {
        self.head.phase = phase;
        match phase {
            Phase::Start if self.head.failed => self.enter(Phase::BeforeRollback, effects),
            Phase::Start => self.download_from(0, effects),
            Phase::BeforeCommit => {
                // What has to be committed for the next part to begin is no place to wait for anybody's consent.
                if !self.is_last_leg() || !self.stops(StopPoint::ArtifactCommit, effects) {
                    self.commit_from(0, effects);
                }
            }
            Phase::BeforeRollback => {
                if self.is_untouched() {
                    self.enter(Phase::BeforeCleanup, effects);
                } else if !self.stops(StopPoint::ArtifactRollback, effects) {
                    self.ask_rollback(effects);
                }
            }
            Phase::BeforeCleanup => {
                let passes = !self.head.failed && !self.is_last_leg();
                if passes || !self.stops(StopPoint::Cleanup, effects) {
                    self.clean_up_from(0, effects);
                }
            }
            Phase::Done => self.finish(effects),
            // These are entered by starting something.
            Phase::Group(..) | Phase::HostReboot(_) | Phase::AskRollback | Phase::HostRollbackReboot(_) => {}
        }
    }

    fn stops(&mut self, point: StopPoint, effects: &mut Vec<Effect>) -> bool {
        let stops = self.head.options.stop_before.contains(&point);
        if stops {
            let why = Rest::Stopped(point);
            self.head.rest = Some(why);
            let untold = if self.head.unattended { self.head.untold.clone() } else { self.head.untold.take() };
            effects.push(Effect::Rest { why, error: untold });
        }
        stops
    }

    /// `Cleanup` on every Component that took part, order groups ascending.
    pub(super) fn clean_up_from(&mut self, order: u32, effects: &mut Vec<Effect>) {
        match self.next_group(order, |member| member.downloaded) {
            Some((order, chosen)) => {
                self.head.phase = Phase::Group(Activity::Cleanup, order);
                self.start(&chosen, Activity::Cleanup, effects);
            }
            None => self.enter(Phase::Done, effects),
        }
    }

    /// The lowest order group from `order` on that has such members, with these.
    pub(super) fn next_group(&self, order: u32, takes_part: impl Fn(&Member) -> bool) -> Option<(u32, Vec<usize>)> {
        let found = self.of_leg().filter(|member| member.order >= order && takes_part(member));
        let order = found.map(|member| member.order).min()?;
        Some((order, self.chosen(order, takes_part)))
    }

    /// The members of an order group to which this applies.
    pub(super) fn chosen(&self, order: u32, takes_part: impl Fn(&Member) -> bool) -> Vec<usize> {
        let leg = self.head.leg;
        let of_group = |member: &Member| member.leg == leg && member.order == order && takes_part(member);
        (0..self.members.len()).filter(|&index| of_group(&self.members[index])).collect()
    }

    /// Something went wrong on the way there: the System will not reach the new state.
    pub(super) fn fail(&mut self, error: Error) {
        self.head.failed = true;
        self.head.cause.get_or_insert_with(|| error.clone());
        self.head.untold.get_or_insert(error);
    }

    /// Every part is committed and cleaned up, or this one has failed.
    fn finish(&mut self, effects: &mut Vec<Effect>) {
        if !self.head.failed && !self.is_last_leg() {
            self.head.leg += 1;
            return self.download_from(0, effects);
        }
        self.head.phase = Phase::Done;
        // An earlier part stands, or this one does and its successor was not wanted any more.
        let stands_half_way = self.head.failed
            && !self.head.inconsistent
            && (self.head.leg > 0 || self.of_leg().any(|member| member.committed && !member.rolled_back));
        let result = match () {
            () if self.head.inconsistent => JobResult::Inconsistent,
            () if self.head.cancelled && self.head.failed => JobResult::Cancelled,
            () if stands_half_way => JobResult::Failed,
            () if self.head.failed && (!self.is_untouched() || self.head.cause.is_none()) => JobResult::RolledBack,
            () if self.head.failed || self.head.untold.is_some() => JobResult::Failed,
            () => JobResult::Done,
        };
        let mut error = self.head.untold.take();
        if result == JobResult::Inconsistent {
            error = error
                .or_else(|| self.head.cause.clone())
                .map(|cause| Error::new(Kind::Inconsistent, format!("The System is inconsistent. {}", cause.message)));
        }
        if stands_half_way {
            let cause = error.or_else(|| self.head.cause.clone());
            let cause = cause.unwrap_or_else(|| Error::new(Kind::Failed, "It was not wanted any more."));
            let text = format!(
                "The System stands where the last commit of the deployment left it, which is acceptable, but is not what the \
                 Manifest leads to: {}",
                cause.message
            );
            error = Some(Error::new(cause.kind, text));
        }
        if !self.head.failed {
            error = error.map(|error| {
                let text = format!("The new versions are committed, but cleaning up failed: {}", error.message);
                Error::new(error.kind, text)
            });
        }
        effects.push(Effect::Finish { result, error });
    }
}
