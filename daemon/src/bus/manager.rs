//! `org.orchestratord1.Manager`: the daemon itself.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]
#![allow(clippy::unused_self, reason = "a property is a method for the macro, even if it is constant")]

use tokio::sync::watch;
use zbus::interface;
use zbus::object_server::SignalEmitter;

use super::Phase;
use super::view::view;
use crate::core::error::Kind;
use crate::update::handle::{UpdateState, UpdateStatus};

view! {
    /// What the Manager shows.
    ManagerView of "org.orchestratord1.Manager" {
        "State" state: String,
    }
}

impl ManagerView {
    pub(super) fn new(phase: Phase, update: &UpdateStatus) -> Self {
        Self { state: state_word(phase, update).to_owned() }
    }
}

/// The state of the whole daemon in one word.
pub(crate) fn state_word(phase: Phase, update: &UpdateStatus) -> &'static str {
    let misconfigured = update
        .last_error
        .as_ref()
        .is_some_and(|error| matches!(error.kind, Kind::InvalidConfiguration | Kind::InvalidTopology));
    match phase {
        Phase::Starting => "starting",
        Phase::Stopping => "stopping",
        Phase::Running if update.state == UpdateState::Busy => "busy",
        Phase::Running if update.inconsistent || misconfigured => "degraded",
        Phase::Running => "idle",
    }
}

/// The daemon itself.
pub(super) struct Manager {
    view: watch::Receiver<ManagerView>,
}

impl Manager {
    pub(super) fn new(view: watch::Receiver<ManagerView>) -> Self {
        Self { view }
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// The daemon itself.
#[interface(name = "org.orchestratord1.Manager")]
impl Manager {
    /// A Job was accepted; its object exists.
    /// @id: number of the Job
    /// @job: path of the Job
    #[zbus(signal)]
    async fn job_new(emitter: &SignalEmitter<'_>, id: u32, job: zbus::ObjectPath<'_>) -> zbus::Result<()>;

    /// A Job ended. Its object stays for ten minutes at most, and no longer than sixteen Jobs that ended after it.
    /// @id: number of the Job
    /// @job: path of the Job
    /// @result: its property Result
    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: zbus::ObjectPath<'_>,
        result: &str,
    ) -> zbus::Result<()>;

    /// Version of the daemon.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// "starting", "idle", "busy" (a Job runs), "degraded" (the last deployment left the System inconsistent, or the
    /// configuration or Topology is not valid; see LastError of Update) or "stopping". More words may come.
    #[zbus(property)]
    fn state(&self) -> String {
        self.view.borrow().state.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::error::Error;

    #[test]
    fn one_word_for_every_state() {
        let with = |state, inconsistent, kind: Option<Kind>| UpdateStatus {
            state,
            inconsistent,
            last_error: kind.map(|kind| Error::new(kind, "x")),
            ..UpdateStatus::default()
        };
        let idle = with(UpdateState::Idle, false, None);
        assert_eq!(state_word(Phase::Starting, &idle), "starting");
        assert_eq!(state_word(Phase::Running, &idle), "idle");
        assert_eq!(state_word(Phase::Stopping, &idle), "stopping");
        assert_eq!(state_word(Phase::Running, &with(UpdateState::Waiting, false, None)), "idle");
        assert_eq!(state_word(Phase::Running, &with(UpdateState::Busy, true, None)), "busy");
        assert_eq!(state_word(Phase::Running, &with(UpdateState::Idle, true, None)), "degraded");
        assert_eq!(
            state_word(Phase::Running, &with(UpdateState::Idle, false, Some(Kind::InvalidTopology))),
            "degraded"
        );
        assert_eq!(state_word(Phase::Running, &with(UpdateState::Idle, false, Some(Kind::InterfaceFailed))), "idle");
    }
}
