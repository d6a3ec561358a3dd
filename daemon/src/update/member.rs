//! What an activity of the machine means for one Component: which call of its Interface, and how its end is reported.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::environment::{Environment, Together};
use super::interface::pass::{self, Seat};
use super::interface::{
    CallError, DownloadRequest, HeaderCheck, Interface, InterfaceError, StartSink, State, Tree, TreeContext,
};
use super::machine::{Activity, Deployment, Member, Outcome, Phase};
use super::plan::{Plan, PlannedMember, artifact_digest};
use super::source::Location;
use super::view::View;
use crate::core::error::{Error, Kind};
use crate::core::job::JobReporter;

/// Makes the calls of a deployment.
#[derive(Debug, Clone)]
pub struct Calls {
    /// The Interfaces of the members.
    pub interfaces: Arc<Vec<Arc<Interface>>>,
    /// Who takes part.
    pub plan: Arc<Plan>,
    /// Settings and keys.
    pub environment: Environment,
    /// Cuts downloads short.
    pub cancel: CancellationToken,
    /// Shows the progress of downloads.
    pub view: View,
    /// Shows the progress of downloads.
    pub job: Arc<JobReporter>,
    /// Is told which reboots run: member, activity, attempt.
    pub started: mpsc::Sender<(usize, Activity, u32)>,
    /// How far all members are.
    pub overall: Arc<Overall>,
}

/// How far the members of a deployment are, each from 0 to 1.
#[derive(Debug)]
pub struct Overall {
    members: Vec<AtomicU32>,
}

impl Overall {
    /// All at their beginning.
    pub fn new(members: usize) -> Self {
        Self { members: (0..members).map(|_| AtomicU32::new(0)).collect() }
    }

    /// A member is this far, and no less than before.
    pub fn reach(&self, index: usize, share: f64) {
        // Thousandths, so that all sums are the same in whatever order they are made.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and 1000")]
        let thousandths = (share.clamp(0.0, 1.0) * 1000.0) as u32;
        if let Some(member) = self.members.get(index) {
            member.fetch_max(thousandths, Ordering::Relaxed);
        }
    }

    /// How far the deployment is.
    fn share(&self) -> f64 {
        let sum: f64 = self.members.iter().map(|member| f64::from(member.load(Ordering::Relaxed))).sum();
        sum / 1000.0 / count(self.members.len())
    }
}

/// A place in the reading of an Artifact, and among the calls that run at once.
#[derive(Debug)]
pub struct DownloadSeat {
    seat: Seat,
    together: Together,
}

impl Calls {
    /// Places for members that are about to download at once. Those who take the same Artifact share one reading of it.
    pub fn seats(&self, members: &[usize]) -> BTreeMap<usize, DownloadSeat> {
        let mut sharing: BTreeMap<(&Location, &str), Vec<usize>> = BTreeMap::new();
        for &index in members {
            let member = &self.plan.members[index];
            sharing.entry((&member.artifact, &member.artifact_digest)).or_default().push(index);
        }
        let mut seats = BTreeMap::new();
        for indices in sharing.into_values() {
            // Who has no turn yet would be waited for in vain.
            for indices in indices.chunks(self.environment.most_at_once()) {
                let (sources, plan, first) = (self.environment.sources.clone(), self.plan.clone(), indices[0]);
                let runtime = Handle::current();
                let open = move |stop: &CancellationToken| runtime.block_on(sources.open(&plan.members[first], stop));
                let taken = pass::seats(Arc::new(open), (*self.environment.keys).clone(), indices.len());
                let together = self.environment.together(indices.len());
                let placed = taken.into_iter().map(|seat| DownloadSeat { seat, together: together.clone() });
                seats.extend(indices.iter().copied().zip(placed));
            }
        }
        seats
    }

    /// Makes the call and waits for its end. `Download` takes a place of [`Calls::seats`].
    pub async fn make(
        self,
        index: usize,
        activity: Activity,
        attempt: u32,
        place: Option<DownloadSeat>,
    ) -> (usize, Outcome) {
        let _slot = match &place {
            Some(place) => place.together.slot().await,
            None => self.environment.slot().await,
        };
        let tag = self.tag(index, activity, attempt);
        let interface = &self.interfaces[index];
        // Only downloads are cut short; whatever else has begun is waited for.
        let never = CancellationToken::new();
        let outcome = match activity {
            Activity::Download => done(self.download(index, &tag, place).await),
            Activity::AskReboot | Activity::AskRollbackReboot => {
                interface.needs_reboot(&tag, &never).await.map_or_else(failed, Outcome::NeedsReboot)
            }
            Activity::AskRollback => {
                interface.supports_rollback(&tag, &never).await.map_or_else(failed, Outcome::SupportsRollback)
            }
            _ => match state(activity) {
                Some(state) => {
                    let tell = self.start_sink(index, activity, attempt);
                    done(interface.run_state_telling(state, &tag, tell, &never).await)
                }
                None => Outcome::Done,
            },
        };
        self.remove_tree_after(index, activity);
        (index, outcome)
    }

    /// Takes over a call that an earlier daemon made.
    pub async fn take_over(self, index: usize, activity: Activity, attempt: u32) -> (usize, Outcome) {
        let tag = self.tag(index, activity, attempt);
        let interface = &self.interfaces[index];
        let outcome = match (activity, state(activity)) {
            // Its data came through the daemon that is gone.
            (Activity::Download, _) => {
                interface.end_state(State::Download, &tag).await;
                Outcome::Interrupted
            }
            (_, Some(state)) => match interface.adopt_state(state, &tag, &CancellationToken::new()).await {
                Ok(Some(())) => Outcome::Done,
                Ok(None) => Outcome::Interrupted,
                Err(error) => failed(error),
            },
            // A query has no effect worth waiting for; it is asked again.
            (_, None) => {
                self.environment.runner.kill(&tag).await;
                Outcome::Interrupted
            }
        };
        if outcome != Outcome::Interrupted {
            self.remove_tree_after(index, activity);
        }
        (index, outcome)
    }

    /// Reboots are told once their program runs. A message that does not fit is as one that came too late: the call counts
    /// as not begun.
    fn start_sink(&self, index: usize, activity: Activity, attempt: u32) -> StartSink {
        if !activity.may_be_resumed_by_verification() {
            return StartSink::default();
        }
        let started = self.started.clone();
        StartSink::new(move || {
            let _ = started.try_send((index, activity, attempt));
        })
    }

    fn tag(&self, index: usize, activity: Activity, attempt: u32) -> String {
        tag(&self.plan, index, activity, attempt)
    }

    async fn download(&self, index: usize, tag: &str, place: Option<DownloadSeat>) -> Result<(), Error> {
        let interface = &self.interfaces[index];
        let member = &self.plan.members[index];
        let request = DownloadRequest {
            artifact: place.ok_or(CallError::NoArtifact)?.seat,
            check: expect_selected(member),
            context: TreeContext {
                artifact_name: member.current_artifact_name.clone(),
                artifact_group: member.current_artifact_group.clone(),
                component_type: member.key.component_type.clone(),
            },
            progress: self.progress_of(index),
        };
        let downloaded = interface.download(request, tag, &self.cancel).await;
        downloaded.map_err(|error| {
            let error = Error::from(in_file(error, &member.artifact));
            if error.kind == Kind::InvalidArtifact {
                self.environment.sources.forget(member);
            }
            error
        })
    }

    /// Passes a download's progress on, in steps of a hundredth.
    fn progress_of(&self, index: usize) -> Arc<dyn Fn(u64) + Send + Sync> {
        let (view, job, plan, overall) = (self.view.clone(), self.job.clone(), self.plan.clone(), self.overall.clone());
        let last = AtomicU64::new(0);
        Arc::new(move |bytes| {
            let member = &plan.members[index];
            let hundredths = (bytes.saturating_mul(100) / member.size.max(1)).min(100);
            if last.fetch_max(hundredths, Ordering::Relaxed) >= hundredths {
                return;
            }
            let part = f64::from(u32::try_from(hundredths).unwrap_or(100)) / 100.0;
            let share = share(Activity::Download) + part * (share(Activity::Install) - share(Activity::Download));
            view.component(&member.key, |component| component.progress = component.progress.max(share));
            overall.reach(index, share);
            let step = job.job().status.borrow().step.clone();
            job.report(overall.share(), &step);
        })
    }

    /// The tree goes when `Cleanup` has run, however it ended; nothing is called after it.
    fn remove_tree_after(&self, index: usize, activity: Activity) {
        if activity != Activity::Cleanup {
            return;
        }
        let tree = Tree::at(&self.environment.tree(&self.plan.members[index].key));
        if let Err(error) = tree.clear() {
            tracing::warn!(component = %self.plan.members[index].key, "{error}");
        }
    }
}

/// Names a call for good: a daemon that comes back finds it by this.
fn tag(plan: &Plan, index: usize, activity: Activity, attempt: u32) -> String {
    format!("{}-{index}-{}-{attempt}", plan.id, activity.as_str())
}

/// Whether a call with this tag is one of those that a daemon which finds this record takes over.
pub fn is_taken_over(plan: &Plan, state: &Deployment, tagged: &str) -> bool {
    state.running().into_iter().any(|(index, activity)| {
        let own = tag(plan, index, activity, state.members[index].attempts(activity));
        // Queries that belong to a download have its tag and a suffix.
        tagged.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Names the place in what is wrong with an Artifact.
fn in_file(error: InterfaceError, place: &Location) -> InterfaceError {
    match error {
        InterfaceError::Call { word, component, cause } => {
            let cause = match *cause {
                CallError::Artifact(cause) => CallError::Artifact(cause.in_file(place.to_string())),
                cause => cause,
            };
            InterfaceError::Call { word, component, cause: Box::new(cause) }
        }
        error => error,
    }
}

/// The Artifact that is installed has to be the one that was selected.
fn expect_selected(member: &PlannedMember) -> HeaderCheck {
    let (expected, place) = (member.artifact_digest.clone(), member.artifact.to_string());
    Box::new(move |header| {
        if artifact_digest(header) == expected {
            return Ok(());
        }
        let text = format!("The Artifact \"{place}\" has changed since it was selected.");
        Err(Error::new(Kind::InvalidArtifact, text))
    })
}

fn done<E: Into<Error>>(result: Result<(), E>) -> Outcome {
    result.map_or_else(failed, |()| Outcome::Done)
}

fn failed(error: impl Into<Error>) -> Outcome {
    Outcome::Failed(error.into())
}

/// The state of the protocol behind an activity; `None` for queries.
fn state(activity: Activity) -> Option<State> {
    Some(match activity {
        Activity::Download => State::Download,
        Activity::Install => State::ArtifactInstall,
        Activity::Reboot => State::ArtifactReboot,
        Activity::VerifyReboot => State::ArtifactVerifyReboot,
        Activity::Commit => State::ArtifactCommit,
        Activity::Rollback => State::ArtifactRollback,
        Activity::RollbackReboot => State::ArtifactRollbackReboot,
        Activity::VerifyRollbackReboot => State::ArtifactVerifyRollbackReboot,
        Activity::Failure => State::ArtifactFailure,
        Activity::Cleanup => State::Cleanup,
        Activity::AskReboot | Activity::AskRollback | Activity::AskRollbackReboot => return None,
    })
}

/// How much of a deployment is behind a Component that is about to do this, 0 to 1. Rough: nobody knows how long an
/// Interface takes.
pub fn share(activity: Activity) -> f64 {
    match activity {
        Activity::Download => 0.0,
        Activity::Install => 0.5,
        Activity::AskReboot => 0.7,
        Activity::Reboot => 0.72,
        Activity::VerifyReboot => 0.8,
        Activity::Commit => 0.85,
        Activity::AskRollback
        | Activity::Rollback
        | Activity::AskRollbackReboot
        | Activity::RollbackReboot
        | Activity::VerifyRollbackReboot
        | Activity::Failure => 0.9,
        Activity::Cleanup => 0.95,
    }
}

/// What was last done with a Component.
pub fn last_activity(member: &Member) -> Option<Activity> {
    // A query about going back says nothing about how far it came.
    member.attempts.keys().copied().filter(|activity| !matches!(activity, Activity::AskRollback)).max()
}

/// How much of the deployment is behind, from its state alone.
pub fn progress(state: &Deployment) -> f64 {
    if state.head.phase == Phase::Done || state.members.is_empty() {
        return 0.0;
    }
    let of = |member: &Member| last_activity(member).map_or(0.0, share);
    state.members.iter().map(of).sum::<f64>() / count(state.members.len())
}

/// What is being done, for people.
pub fn step_text(state: &Deployment) -> String {
    match state.head.phase {
        Phase::Start => "beginning".to_owned(),
        Phase::Group(activity, order) => format!("{} (order {order})", activity.as_str()),
        Phase::HostReboot(order) => format!("reboot of the host (order {order})"),
        Phase::HostRollbackReboot(order) => format!("reboot of the host to roll back (order {order})"),
        Phase::AskRollback => Activity::AskRollback.as_str().to_owned(),
        Phase::BeforeCommit => "before ArtifactCommit".to_owned(),
        Phase::BeforeRollback => "before ArtifactRollback".to_owned(),
        Phase::BeforeCleanup => "before Cleanup".to_owned(),
        // Nothing is being done any more.
        Phase::Done => String::new(),
    }
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number.max(1)).unwrap_or(u32::MAX))
}
