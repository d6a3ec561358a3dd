//! `org.orchestratord1.Vplc`: a virtual PLC.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

use std::collections::HashMap;

use tokio::sync::watch;
use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, interface};

use super::auth::Action;
use super::gate::Gate;
use super::options::Options;
use super::view::{error_pair, job_path, text, view};
use super::{Publisher, Refusal};
use crate::vplc::handle::{Order, VplcHandle, VplcStatus};

/// Lines that are shown if nobody says how many.
const LINES: u32 = 100;

view! {
    /// What a vPLC shows.
    VplcView of "org.orchestratord1.Vplc" {
        "Spec" spec: String,
        "Desired" desired: String,
        "Container" container: String,
        "Runtime" runtime: String,
        "Image" image: String,
        "Since" since: u64,
        "Restarts" restarts: u32,
        "LastError" last_error: (String, String),
    }
}

impl From<&VplcStatus> for VplcView {
    fn from(status: &VplcStatus) -> Self {
        Self {
            spec: text(status.spec.as_str()),
            desired: status.desired.to_owned(),
            container: status.container.to_owned(),
            runtime: status.runtime.to_owned(),
            image: text(status.image.as_str()),
            since: status.since,
            restarts: status.restarts,
            last_error: error_pair(status.error.as_ref()),
        }
    }
}

/// A vPLC.
pub(super) struct Vplc {
    name: String,
    handle: VplcHandle,
    publisher: Publisher,
    gate: Gate,
    view: watch::Receiver<VplcView>,
}

impl Vplc {
    pub(super) fn new(
        name: String,
        handle: VplcHandle,
        publisher: Publisher,
        gate: Gate,
        view: watch::Receiver<VplcView>,
    ) -> Self {
        Self { name, handle, publisher, gate, view }
    }

    /// Lets an order in, and turns its acceptance into the path of its Job.
    async fn order(
        &self,
        order: Order,
        method: &'static str,
        options: HashMap<String, OwnedVariant>,
        call: &Header<'_>,
        connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let work = |caller| async move {
            Options::new(method, &[], options)?;
            let id = self.handle.order(self.name.clone(), order, caller).await?;
            tracing::info!(job = id, vplc = self.name, caller, "{method} of a vPLC was called over the bus");
            self.publisher.flush().await?;
            Ok(job_path(id))
        };
        self.gate.begin(connection, call, Action::Vplc, work).await
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// A virtual PLC.
#[interface(name = "org.orchestratord1.Vplc")]
impl Vplc {
    /// Starts it, also if it had ended by itself too often. From now on it runs, also after a restart of the host.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn start(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.order(Order::Start, "Start", options, &call, connection).await
    }

    /// Stops it and takes it off the network. It stays so until somebody starts it, also after a restart of the host.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn stop(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.order(Order::Stop, "Stop", options, &call, connection).await
    }

    /// Stops and starts its runtime; its NICs are not touched.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn restart(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.order(Order::Restart, "Restart", options, &call, connection).await
    }

    /// Lets a vPLC start again that had ended by itself too often.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: none
    async fn reset_failed(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        let reset = |caller| async move {
            Options::new("ResetFailed", &[], options)?;
            self.handle.reset(self.name.clone()).await?;
            tracing::info!(vplc = self.name, caller, "A vPLC was reset over the bus");
            self.publisher.flush().await?;
            Ok(())
        };
        self.gate.change(connection, &call, Action::Vplc, reset).await
    }

    /// The last lines that the runtime has printed.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @options: "lines" u: how many, 100 if it is not given, 10000 at most
    /// @lines: the lines, the oldest first
    #[zbus(out_args("lines"))]
    async fn logs(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>, Refusal> {
        self.gate.inspect(connection, &call, Action::Vplc).await?;
        let mut options = Options::new("Logs", &["lines"], options)?;
        let lines = options.lines()?.unwrap_or(LINES);
        Ok(self.handle.lines(self.name.clone(), lines).await?.into_iter().map(text).collect())
    }

    /// Name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        &self.name
    }

    /// The specification that was applied, as it was given.
    #[zbus(property)]
    fn spec(&self) -> String {
        self.view.borrow().spec.clone()
    }

    /// What is wanted: "running", "stopped" or "deleted". More words may come.
    #[zbus(property)]
    fn desired(&self) -> String {
        self.view.borrow().desired.clone()
    }

    /// "unknown" (the engine has not been asked yet), "starting", "running", "stopping", "stopped", "failed" (it ended by itself
    /// too often, see LastError and ResetFailed) or "deleting". More words may come.
    #[zbus(property)]
    fn container(&self) -> String {
        self.view.borrow().container.clone()
    }

    /// How well the runtime is: "starting", "healthy" or "unhealthy"; empty if it does not run, or if nobody asks it. More words
    /// may come.
    #[zbus(property)]
    fn runtime(&self) -> String {
        self.view.borrow().runtime.clone()
    }

    /// Name of its image, a blank, and the digest that the name stood for when it was applied.
    #[zbus(property)]
    fn image(&self) -> String {
        self.view.borrow().image.clone()
    }

    /// Since when Container is what it is, in microseconds since 1970.
    #[zbus(property)]
    fn since(&self) -> u64 {
        self.view.borrow().since
    }

    /// How often it was started again because it had ended by itself, since the daemon started.
    #[zbus(property)]
    fn restarts(&self) -> u32 {
        self.view.borrow().restarts
    }

    /// Error name and message of what went wrong last; both are empty after a success.
    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.view.borrow().last_error.clone()
    }
}
