//! `org.orchestratord1.Job`: long work.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]
#![allow(clippy::unused_self, reason = "a property is a method for the macro, even if it is constant")]

use tokio::sync::watch;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, interface};

use super::auth::Action;
use super::error::Refusal;
use super::gate::Gate;
use super::publish::Publisher;
use super::view::{error_pair, root_path, share, text, view, vplc_path};
use crate::core::job::{JobResult, JobStatus, VPLC_SUBJECT};

view! {
    /// What a Job shows.
    JobView of "org.orchestratord1.Job" {
        "State" state: String,
        "Progress" progress: f64,
        "Step" step: String,
        "Result" result: String,
        "Error" error: (String, String),
    }
}

impl From<&JobStatus> for JobView {
    fn from(status: &JobStatus) -> Self {
        Self {
            state: status.state.as_str().to_owned(),
            progress: share(status.progress),
            step: text(status.step.as_str()),
            result: status.result.map_or("", JobResult::as_str).to_owned(),
            error: error_pair(status.error.as_ref()),
        }
    }
}

/// Long work.
pub(super) struct Job {
    work: crate::core::job::Job,
    publisher: Publisher,
    gate: Gate,
    view: watch::Receiver<JobView>,
}

impl Job {
    pub(super) fn new(
        work: crate::core::job::Job,
        publisher: Publisher,
        gate: Gate,
        view: watch::Receiver<JobView>,
    ) -> Self {
        Self { work, publisher, gate, view }
    }

    /// The vPLC that the Job works on.
    fn vplc(&self) -> Option<&str> {
        self.work.subject.strip_prefix(VPLC_SUBJECT)
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// Long work.
#[interface(name = "org.orchestratord1.Job")]
impl Job {
    /// Asks the work to stop; the reply does not wait for that. An error if the work cannot be stopped any more.
    /// Needs the polkit action that the call which began the Job needed.
    async fn cancel(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        let action = if self.vplc().is_some() { Action::Vplc } else { Action::Update };
        let cancel = |_| async { Ok(self.work.cancel()?) };
        self.gate.change(connection, &call, action, cancel).await
    }

    /// Replies when the Job has ended, at once if it has already; all properties have their last values by then. Give
    /// the call a time limit of its own, the usual 25 s are too short.
    /// @result: the property Result
    #[zbus(out_args("result"))]
    async fn wait(&self) -> Result<String, Refusal> {
        let status = self.work.wait().await;
        self.publisher.flush().await?;
        self.work.tell();
        Ok(status.result.map_or("", JobResult::as_str).to_owned())
    }

    /// A line of the Job's log.
    /// @severity: "info", "warning" or "error"
    /// @component: "TYPE.ID"; empty if the line is about the whole System
    /// @message: one line
    #[zbus(signal)]
    pub(super) async fn log(
        emitter: &SignalEmitter<'_>,
        severity: &str,
        component: &str,
        message: &str,
    ) -> zbus::Result<()>;

    /// Number of the Job, unique while the daemon runs.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u32 {
        self.work.id
    }

    /// "install", "resume" or "rollback"; of vPLCs "apply", "start", "stop", "restart" or "delete". More words may come.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> &'static str {
        self.work.kind
    }

    /// The object that the Job works on: a vPLC, or /org/orchestratord1, which is the System.
    #[zbus(property(emits_changed_signal = "const"))]
    fn subject(&self) -> OwnedObjectPath {
        self.vplc().map_or_else(root_path, vplc_path)
    }

    /// User id of the caller who began it; 0 for work that the daemon began by itself.
    #[zbus(property(emits_changed_signal = "const"))]
    fn started_by(&self) -> u32 {
        self.work.started_by
    }

    /// When it was accepted, in microseconds since 1970.
    #[zbus(property(emits_changed_signal = "const"))]
    fn started(&self) -> u64 {
        self.work.started
    }

    /// "queued", "running" or "done".
    #[zbus(property)]
    fn state(&self) -> String {
        self.view.borrow().state.clone()
    }

    /// Share of the work that is done, 0 to 1, never falling; signalled every 100 ms at most.
    #[zbus(property)]
    fn progress(&self) -> f64 {
        self.view.borrow().progress
    }

    /// What is being done, for people; signalled every 100 ms at most.
    #[zbus(property)]
    fn step(&self) -> String {
        self.view.borrow().step.clone()
    }

    /// How the Job ended: "done", "stopped" (before a state the caller named), "failed" (nothing had to be rolled back),
    /// "rolled-back", "cancelled", "reboot-required" or "inconsistent"; empty while it runs. More words may come.
    #[zbus(property)]
    fn result(&self) -> String {
        self.view.borrow().result.clone()
    }

    /// Error name and message of what went wrong, also when Result is "stopped" or "rolled-back"; both are empty if
    /// nothing did.
    #[zbus(property)]
    fn error(&self) -> (String, String) {
        self.view.borrow().error.clone()
    }
}
