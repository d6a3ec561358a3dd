//! What an activity of the machine means for one Component: which call of its Interface, and how its end is reported.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::interface::{
    ArtifactInput, CallError, DownloadRequest, HeaderCheck, Interface, InterfaceError, StartSink, State, Tree,
    TreeContext,
};
use super::machine::{Activity, Deployment, Member, Outcome, Phase};
use super::plan::{Plan, PlannedMember, artifact_digest};
use super::view::View;
use crate::core::error::{Error, Kind};
use crate::core::job::JobReporter;

/// Makes the calls of a deployment.
#[derive(Debug, Clone)]
pub struct Calls {
    /// The Interfaces of the members.
    pub interfaces: Vec<Arc<Interface>>,
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
}

impl Calls {
    /// Makes the call and waits for its end.
    pub async fn make(self, index: usize, activity: Activity, attempt: u32) -> (usize, Outcome) {
        let _slot = self.environment.slot().await;
        let tag = self.tag(index, activity, attempt);
        let interface = &self.interfaces[index];
        // Only downloads are cut short; whatever else has begun is waited for.
        let never = CancellationToken::new();
        let outcome = match activity {
            Activity::Download => done(self.download(index, &tag).await),
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

    async fn download(&self, index: usize, tag: &str) -> Result<(), Error> {
        let interface = &self.interfaces[index];
        let member = &self.plan.members[index];
        let artifact = LocalArtifact::open(&member.artifact).await?;
        let request = DownloadRequest {
            artifact: Box::new(artifact),
            keys: (*self.environment.keys).clone(),
            check: expect_selected(member),
            context: TreeContext {
                artifact_name: member.current_artifact_name.clone(),
                artifact_group: member.current_artifact_group.clone(),
                component_type: member.key.component_type.clone(),
            },
            progress: self.progress_of(index),
        };
        let downloaded = interface.download(request, tag, &self.cancel).await;
        downloaded.map_err(|error| in_file(error, &member.artifact).into())
    }

    /// Passes a download's progress on, in steps of a hundredth.
    fn progress_of(&self, index: usize) -> Arc<dyn Fn(u64) + Send + Sync> {
        let (view, job, plan) = (self.view.clone(), self.job.clone(), self.plan.clone());
        let last = std::sync::atomic::AtomicU64::new(0);
        Arc::new(move |bytes| {
            let member = &plan.members[index];
            let hundredths = (bytes.saturating_mul(100) / member.size.max(1)).min(100);
            if last.fetch_max(hundredths, std::sync::atomic::Ordering::Relaxed) >= hundredths {
                return;
            }
            let part = f64::from(u32::try_from(hundredths).unwrap_or(100)) / 100.0;
            let share = share(Activity::Download) + part * (share(Activity::Install) - share(Activity::Download));
            view.component(&member.key, |component| component.progress = component.progress.max(share));
            let sum: f64 = view
                .now()
                .components
                .iter()
                .filter(|component| plan.members.iter().any(|member| member.key == component.key))
                .map(|component| component.progress)
                .sum();
            let step = job.job().status.borrow().step.clone();
            job.report(sum / count(plan.members.len()), &step);
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

/// Names the file in what is wrong with an Artifact.
fn in_file(error: InterfaceError, path: &Path) -> InterfaceError {
    match error {
        InterfaceError::Call { word, component, cause } => {
            let cause = match *cause {
                CallError::Artifact(cause) => CallError::Artifact(cause.in_file(path)),
                cause => cause,
            };
            InterfaceError::Call { word, component, cause: Box::new(cause) }
        }
        error => error,
    }
}

/// The Artifact that is installed has to be the one that was selected.
fn expect_selected(member: &PlannedMember) -> HeaderCheck {
    let (expected, path) = (member.artifact_digest.clone(), member.artifact.clone());
    Box::new(move |header| {
        if artifact_digest(header) == expected {
            return Ok(());
        }
        let text = format!("The Artifact \"{}\" has changed since it was selected.", path.display());
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

/// An Artifact in a local file.
#[derive(Debug)]
struct LocalArtifact {
    file: File,
    size: u64,
}

impl LocalArtifact {
    /// Opens it on a thread of its own: the file may lie on a mount that hangs.
    async fn open(path: &Path) -> Result<Self, Error> {
        let refused = |reason: String| {
            let text = format!("Cannot open the Artifact \"{}\": {reason}.", path.display());
            Error::new(Kind::NoSuitableArtifact, text)
        };
        let opened = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || -> io::Result<Self> {
                // Opening a FIFO would wait for a writer.
                if !path.metadata()?.is_file() {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
                }
                let file = File::open(path)?;
                let size = file.metadata()?.len();
                Ok(Self { file, size })
            })
        };
        opened.await.map_err(|error| refused(error.to_string()))?.map_err(|error| refused(error.to_string()))
    }
}

impl Read for LocalArtifact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl ArtifactInput for LocalArtifact {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }
}
