//! The course of a deployment as a pure state machine: `(Deployment, Event) -> (Deployment, [Effect])`.
//!
//! It decides which call comes next on which Component, when the host is rebooted, where to stop, and when to turn
//! round. It knows no process, file or clock, so every failure and crash point can be enumerated in a test. Whoever
//! drives it puts the new state on disk before carrying out the effects.
//!
//! The way there is in `forward`, the way back in `back`; the order of calls is that of
//! Interface protocol v1 (order groups ascend with a barrier after each state, a failure turns round and descends).

mod back;
mod course;
#[cfg(test)]
mod crash_tests;
mod forward;
#[cfg(test)]
mod leg_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::answers::NeedsReboot;
use super::handle::{RunOptions, StopPoint};
use crate::core::error::Error;
use crate::core::job::JobResult;

/// How often the reboot of a rollback is tried before the System is given up as inconsistent. The protocol says "a
/// limited number of times".
pub const ROLLBACK_REBOOT_ATTEMPTS: u32 = 5;
/// How often a call that was cut short by the end of the daemon or the host is made again, where repeating is right.
pub const REPEATED_CALLS: u32 = 3;
/// How often the host is asked to reboot when the daemon comes back without a reboot.
pub const REBOOT_REQUESTS: u32 = 3;

/// What can be done with one Component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Activity {
    /// `Download` or `DownloadWithFileSizes`, with the queries that choose between them.
    Download,
    /// `ArtifactInstall`.
    Install,
    /// The query `NeedsArtifactReboot`.
    AskReboot,
    /// `ArtifactReboot`.
    Reboot,
    /// `ArtifactVerifyReboot`.
    VerifyReboot,
    /// `ArtifactCommit`.
    Commit,
    /// The query `SupportsRollback`.
    AskRollback,
    /// `ArtifactRollback`.
    Rollback,
    /// The query `NeedsArtifactReboot` of a Component whose installation failed before it could be asked.
    AskRollbackReboot,
    /// `ArtifactRollbackReboot`.
    RollbackReboot,
    /// `ArtifactVerifyRollbackReboot`.
    VerifyRollbackReboot,
    /// `ArtifactFailure`.
    Failure,
    /// `Cleanup`.
    Cleanup,
}

impl Activity {
    /// Name of the state or query in the Interface protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Download => "Download",
            Self::Install => "ArtifactInstall",
            Self::AskReboot | Self::AskRollbackReboot => "NeedsArtifactReboot",
            Self::Reboot => "ArtifactReboot",
            Self::VerifyReboot => "ArtifactVerifyReboot",
            Self::Commit => "ArtifactCommit",
            Self::AskRollback => "SupportsRollback",
            Self::Rollback => "ArtifactRollback",
            Self::RollbackReboot => "ArtifactRollbackReboot",
            Self::VerifyRollbackReboot => "ArtifactVerifyRollbackReboot",
            Self::Failure => "ArtifactFailure",
            Self::Cleanup => "Cleanup",
        }
    }
}

impl Activity {
    /// Reboots: if one is cut short, its verification decides, provided that it had begun.
    pub const fn may_be_resumed_by_verification(self) -> bool {
        matches!(self, Self::Reboot | Self::RollbackReboot)
    }
}

/// How an activity ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well; for `ArtifactRollback` and the like it means exit status 0.
    Done,
    /// Answer to `NeedsArtifactReboot`.
    NeedsReboot(NeedsReboot),
    /// Answer to `SupportsRollback`.
    SupportsRollback(bool),
    /// It failed.
    Failed(Error),
    /// The daemon or the host ended while it ran, and how it ended cannot be told any more.
    Interrupted,
}

/// Where a rollback reboot of a Component stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Verification {
    /// None was made.
    #[default]
    None,
    /// Rebooted, to be verified.
    Pending,
    /// Verified.
    Good,
    /// It did not verify.
    Bad,
}

/// A call in the current step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallState {
    /// Started, or about to be.
    Running,
    /// Over.
    Ended,
    /// Over, with a failure.
    Failed,
}

/// One Component of the deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Order group.
    pub order: u32,
    /// Part of the deployment that it belongs to, from 0 on; a part is committed and cleaned up before the next one begins.
    /// Records of earlier versions have one part only.
    #[serde(default)]
    pub leg: u32,
    /// The call of the current step, if it takes part in it.
    pub call: Option<CallState>,
    /// `Download` has started.
    pub downloaded: bool,
    /// `ArtifactInstall` has started.
    pub installed: bool,
    /// The answer, once asked.
    pub needs_reboot: Option<NeedsReboot>,
    /// `ArtifactReboot` has started, or the host was rebooted in its place.
    pub rebooted: bool,
    /// `ArtifactCommit` ended well.
    pub committed: bool,
    /// The answer, once asked.
    pub supports_rollback: Option<bool>,
    /// `ArtifactRollback` has started.
    pub rolled_back: bool,
    /// `ArtifactRollback` failed.
    pub rollback_failed: bool,
    /// Where its rollback reboot stands.
    pub verification: Verification,
    /// How often each activity was started.
    pub attempts: BTreeMap<Activity, u32>,
    /// The program of the current call is known to have run. Kept of reboots only.
    #[serde(default = "yes")]
    pub begun: bool,
}

/// Records of earlier versions do not tell; there a reboot counts as begun.
const fn yes() -> bool {
    true
}

impl Member {
    /// A Component of this order group that nothing has happened to yet.
    pub fn new(order: u32) -> Self {
        Self {
            order,
            leg: 0,
            call: None,
            downloaded: false,
            installed: false,
            needs_reboot: None,
            rebooted: false,
            committed: false,
            supports_rollback: None,
            rolled_back: false,
            rollback_failed: false,
            verification: Verification::None,
            attempts: BTreeMap::new(),
            begun: false,
        }
    }

    /// How often this activity was started.
    pub fn attempts(&self, activity: Activity) -> u32 {
        self.attempts.get(&activity).copied().unwrap_or(0)
    }
}

/// Where a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing has begun.
    Start,
    /// One activity on one order group, all Components side by side.
    Group(Activity, u32),
    /// The reboot of the host that stands for `ArtifactReboot` in this order group.
    HostReboot(u32),
    /// All order groups are installed.
    BeforeCommit,
    /// Something failed, or a caller wants the old state back.
    BeforeRollback,
    /// `SupportsRollback` on all Components whose installation started.
    AskRollback,
    /// The reboot of the host that stands for `ArtifactRollbackReboot` in this order group.
    HostRollbackReboot(u32),
    /// Only `Cleanup` is left.
    BeforeCleanup,
    /// Over.
    Done,
}

impl Phase {
    /// The order group that this is about.
    pub const fn order(self) -> Option<u32> {
        match self {
            Self::Group(_, order) | Self::HostReboot(order) | Self::HostRollbackReboot(order) => Some(order),
            _ => None,
        }
    }
}

/// Why an open deployment rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rest {
    /// A caller asked to stop here.
    Stopped(StopPoint),
    /// The caller has to reboot the host.
    RebootRequired,
}

/// Everything about a deployment except its Components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Where it is.
    pub phase: Phase,
    /// The part of the deployment that is being worked on.
    #[serde(default)]
    pub leg: u32,
    /// What the last caller wanted.
    pub options: RunOptions,
    /// Why it rests, if it does.
    pub rest: Option<Rest>,
    /// It will not succeed: something failed, or it was cancelled or taken back.
    pub failed: bool,
    /// A caller cancelled it.
    pub cancelled: bool,
    /// A caller cancelled it after a Component was installed: the step after which it goes on if that is refused.
    #[serde(default)]
    pub cancelled_after: Option<(Activity, u32)>,
    /// The daemon found it and went on by itself; no caller has heard since of what went wrong.
    #[serde(default)]
    pub unattended: bool,
    /// A caller took it back without anything having failed; the place to return to if that is refused.
    pub taken_back: Option<StopPoint>,
    /// Take it back although a Component cannot be rolled back.
    pub forced: bool,
    /// The System is neither in the old nor in the new state.
    pub inconsistent: bool,
    /// The first thing that went wrong.
    pub cause: Option<Error>,
    /// What went wrong and was not yet told to any caller.
    pub untold: Option<Error>,
    /// What went wrong on the way back.
    pub rollback_error: Option<Error>,
    /// Boot id of the host.
    pub boot_id: String,
    /// Boot id of the host when it was asked to reboot.
    pub asked_in: String,
    /// How often the host was asked to reboot in this phase.
    pub reboot_requests: u32,
    /// Rollback reboots per order group.
    pub rollback_reboots: BTreeMap<u32, u32>,
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Everything but the Components.
    pub head: Head,
    /// The Components that take part.
    pub members: Vec<Member>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new deployment begins; the host has this boot id.
    Begin(String),
    /// The program of the current step runs on this Component. Told of reboots only.
    Started(usize),
    /// An activity of the current step ended on this Component.
    Ended(usize, Outcome),
    /// A Component that is installed was asked ahead of its turn, because the Job was cancelled: whether it can be rolled
    /// back.
    CanGoBack(usize, bool),
    /// The host did not reboot although it was asked to.
    RebootFailed(Error),
    /// A caller wants to go on; the host has this boot id.
    Resume(RunOptions, String),
    /// A caller wants the old state back (`force`: although a Component cannot be rolled back); the host has this boot
    /// id.
    Rollback(RunOptions, bool, String),
    /// The daemon found the deployment unattended, after a start or because its record could not be written; the host
    /// has this boot id.
    Recover(String),
    /// A caller cancelled the Job.
    Cancel,
    /// The next step cannot be put on disk, so the way there ends here.
    Unrecorded(Error),
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Do this on this Component and report with [`Event::Ended`].
    Run(usize, Activity),
    /// Reboot the host; report only if it does not happen.
    RebootHost,
    /// End the Job; the deployment stays open.
    Rest {
        /// Why.
        why: Rest,
        /// What went wrong and was not yet told.
        error: Option<Error>,
    },
    /// End the Job with this error; the deployment rests where it was.
    Refuse(Error),
    /// The deployment is over.
    Finish {
        /// How.
        result: JobResult,
        /// What went wrong and was not yet told; always there if the System is inconsistent.
        error: Option<Error>,
    },
    /// Tell people.
    Warn(String),
}

/// An event that cannot happen in this state; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("The event {event} is impossible in the phase {phase:?}.")]
pub struct Impossible {
    event: String,
    phase: Phase,
}

impl Deployment {
    /// A deployment of these Components, given by their order groups.
    pub fn new(orders: impl IntoIterator<Item = u32>, options: RunOptions) -> Self {
        Self {
            head: Head {
                phase: Phase::Start,
                leg: 0,
                options,
                rest: None,
                failed: false,
                cancelled: false,
                cancelled_after: None,
                unattended: false,
                taken_back: None,
                forced: false,
                inconsistent: false,
                cause: None,
                untold: None,
                rollback_error: None,
                boot_id: String::new(),
                asked_in: String::new(),
                reboot_requests: 0,
                rollback_reboots: BTreeMap::new(),
            },
            members: orders.into_iter().map(Member::new).collect(),
        }
    }

    /// A deployment of these Components, given by their order groups and parts. The order groups ascend from part to part.
    pub fn in_legs(places: impl IntoIterator<Item = (u32, u32)>, options: RunOptions) -> Self {
        let mut deployment = Self::new([], options);
        deployment.members = places.into_iter().map(|(order, leg)| Member { leg, ..Member::new(order) }).collect();
        deployment
    }

    /// No other part follows.
    fn is_last_leg(&self) -> bool {
        self.members.iter().all(|member| member.leg <= self.head.leg)
    }

    /// The members of the part that is being worked on.
    fn of_leg(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.leg == self.head.leg)
    }

    /// A deployment that failed before it touched anything, kept so that the calls that follow find something to end.
    pub fn failed_early(options: RunOptions, error: Error) -> Self {
        let mut deployment = Self::new([], options);
        deployment.head.failed = true;
        deployment.head.cause = Some(error);
        deployment.head.phase = Phase::BeforeCleanup;
        deployment.head.rest = Some(Rest::Stopped(StopPoint::Cleanup));
        deployment
    }

    /// No `ArtifactInstall` of this part has started, so there is nothing to roll back.
    pub fn is_untouched(&self) -> bool {
        self.of_leg().all(|member| !member.installed)
    }

    /// The activities that run now: started, and not reported as ended.
    pub fn running(&self) -> Vec<(usize, Activity)> {
        let activity = match self.head.phase {
            Phase::Group(activity, _) => activity,
            Phase::AskRollback => Activity::AskRollback,
            _ => return Vec::new(),
        };
        let runs = |member: &Member| member.call == Some(CallState::Running);
        self.members.iter().enumerate().filter(|(_, member)| runs(member)).map(|(index, _)| (index, activity)).collect()
    }

    /// All Components of this part are committed, and nothing went wrong since.
    pub fn is_committed(&self) -> bool {
        !self.head.failed && matches!(self.head.phase, Phase::BeforeCleanup | Phase::Group(Activity::Cleanup, _))
    }

    /// `Cleanup` has begun; the deployment will end as it stands now.
    pub fn is_cleaning_up(&self) -> bool {
        self.is_last_leg() && matches!(self.head.phase, Phase::Group(Activity::Cleanup, _) | Phase::Done)
    }

    /// A daemon that finds this state after a crash rolls back.
    pub fn leads_back(&self) -> bool {
        let fails_when_cut_short = |activity| {
            matches!(activity, Activity::Download | Activity::Install | Activity::VerifyReboot | Activity::Commit)
        };
        self.head.failed
            || self.head.phase == Phase::Start
            || self.running().iter().any(|(_, activity)| fails_when_cut_short(*activity))
    }

    /// Whether cancelling can still change the course: before the commit begins and before it turned round.
    pub fn can_cancel(&self) -> bool {
        !self.head.failed
            && match self.head.phase {
                Phase::Start | Phase::BeforeCommit => true,
                Phase::Group(activity, _) => activity < Activity::Commit,
                // Not while the host goes down either: nobody would remember after it comes back.
                _ => false,
            }
    }
}
