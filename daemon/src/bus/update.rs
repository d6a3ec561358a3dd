//! `org.orchestratord1.Update`: updates of the System.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

use std::collections::HashMap;

use tokio::sync::watch;
use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant, interface};

use super::Phase;
use super::auth::Action;
use super::error::Refusal;
use super::gate::Gate;
use super::options::Options;
use super::publish::Publisher;
use super::view::{error_pair, job_path, no_path, text, view};
use crate::core::error::{Error, Kind};
use crate::update::handle::{PlanStep, StopPoint, UpdateHandle, UpdateStatus};

view! {
    /// What Update shows.
    UpdateView of "org.orchestratord1.Update" {
        "State" state: String,
        "StoppedBefore" stopped_before: String,
        "Manifest" manifest: String,
        "SystemType" system_type: String,
        "ActiveJob" active_job: OwnedObjectPath,
        "LastError" last_error: (String, String),
    }
}

impl From<&UpdateStatus> for UpdateView {
    fn from(status: &UpdateStatus) -> Self {
        Self {
            state: status.state.as_str().to_owned(),
            stopped_before: status.stopped_before.map_or("", StopPoint::as_str).to_owned(),
            manifest: text(status.manifest.as_str()),
            system_type: text(status.system_type.as_str()),
            active_job: status.active_job.map_or_else(no_path, job_path),
            last_error: error_pair(status.last_error.as_ref()),
        }
    }
}

/// Updates of the System.
pub(super) struct Update {
    handle: UpdateHandle,
    publisher: Publisher,
    gate: Gate,
    phase: watch::Receiver<Phase>,
    view: watch::Receiver<UpdateView>,
}

impl Update {
    pub(super) fn new(
        handle: UpdateHandle,
        publisher: Publisher,
        gate: Gate,
        phase: watch::Receiver<Phase>,
        view: watch::Receiver<UpdateView>,
    ) -> Self {
        Self { handle, publisher, gate, phase, view }
    }

    /// An error if the daemon is about to end.
    fn takes_work(&self) -> Result<(), Error> {
        if *self.phase.borrow() == Phase::Stopping {
            return Err(Error::new(
                Kind::NotSupported,
                "The daemon \"orchestratord\" is stopping and takes no new work.",
            ));
        }
        Ok(())
    }

    /// Turns the acceptance of a Job into its path, once all that the acceptance changed has been announced.
    async fn accepted(&self, id: Result<u32, Error>, caller: u32) -> Result<OwnedObjectPath, Refusal> {
        let id = id?;
        tracing::info!(job = id, caller, "A Job was begun over the bus");
        self.publisher.flush().await?;
        Ok(job_path(id))
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// Updates of the System.
#[interface(name = "org.orchestratord1.Update")]
impl Update {
    /// Works out what Install would do. Asks the Components what they are, changes nothing.
    /// Needs the polkit action org.orchestratord1.inspect.
    /// @manifest: the text of the Manifest, 1 MiB at most
    /// @options: "base-directory" s: absolute directory in which relative artifact paths of the Manifest start, without
    ///   which they are an error; "topology-components" s: text, 1 MiB at most, in place of the configured file with
    ///   the Components of a split Topology
    /// @steps: one dictionary per Component, in the order of the work: "order" u, "component-type" s, "id" s,
    ///   "action" s ("install", "unchanged"), "interface" s, "from-version" s, "to-version" s, "artifact-name" s,
    ///   "artifact" s (where it comes from), "size" t (bytes of the Artifact), "leg" u (part of the deployment, from 1 on; each
    ///   is committed before the next one begins), "reasons" as (why it is not updated earlier, and what else to know
    ///   beforehand), "way-back" s (where a failure in this step leads: "full", back to the start; "part", back to the last
    ///   commit; "mixed" or "broken", a Component cannot go back and is left with the others in a combination that is
    ///   acceptable, or is not; empty if nobody has looked). A Component that is updated over an intermediate version has one
    ///   dictionary for each update. More keys may come
    #[zbus(out_args("steps"))]
    async fn plan(
        &self,
        manifest: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<HashMap<&'static str, Variant<'static>>>, Refusal> {
        self.gate.inspect(connection, &call, Action::Inspect).await?;
        self.takes_work()?;
        let mut options = Options::new("Plan", &["base-directory", "topology-components"], options)?;
        let steps = self.handle.plan(options.manifest(manifest)?).await?;
        Ok(steps.into_iter().map(step).collect())
    }

    /// Begins to install a Manifest. The reply means that the Manifest was read, every Component asked and an Artifact
    /// found for each; any fault so far is the error reply, and nothing was changed.
    /// Needs the polkit action org.orchestratord1.update.
    /// @manifest: the text of the Manifest, 1 MiB at most
    /// @options: "base-directory" s and "topology-components" s as in Plan; "stop-before" as: stop before these states
    ///   ("ArtifactCommit", "ArtifactRollback", "Cleanup") and wait for Resume or Rollback; "reboot" s: "auto" (the
    ///   default: the daemon reboots the host when the deployment needs it) or "defer" (the Job ends with
    ///   "reboot-required", the caller reboots and then calls Resume)
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn install(
        &self,
        manifest: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let install = |caller| async move {
            self.takes_work()?;
            let known = ["base-directory", "reboot", "stop-before", "topology-components"];
            let mut options = Options::new("Install", &known, options)?;
            let request = options.manifest(manifest)?;
            let job = self.handle.install(request, options.run()?, caller).await;
            self.accepted(job, caller).await
        };
        self.gate.begin(connection, &call, Action::Update, install).await
    }

    /// Goes on with the open deployment.
    /// Needs the polkit action org.orchestratord1.update.
    /// @options: "stop-before" as and "reboot" s as in Install
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn resume(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let resume = |caller| async move {
            self.takes_work()?;
            let mut options = Options::new("Resume", &["reboot", "stop-before"], options)?;
            let job = self.handle.resume(options.run()?, caller).await;
            self.accepted(job, caller).await
        };
        self.gate.begin(connection, &call, Action::Update, resume).await
    }

    /// Takes the open deployment back.
    /// Needs the polkit action org.orchestratord1.update.
    /// @options: "stop-before" as and "reboot" s as in Install; "force" b: go on although a Component cannot be rolled
    ///   back
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn rollback(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let rollback = |caller| async move {
            self.takes_work()?;
            let mut options = Options::new("Rollback", &["force", "reboot", "stop-before"], options)?;
            let run = options.run()?;
            let job = self.handle.rollback(run, options.force()?, caller).await;
            self.accepted(job, caller).await
        };
        self.gate.begin(connection, &call, Action::Update, rollback).await
    }

    /// Asks the Components what they are.
    /// Needs the polkit action org.orchestratord1.inspect.
    /// @options: "scope" s: "all" (the default: Provides and Inventory, merged) or "provides"; "topology-components" s
    ///   as in Plan
    /// @entries: component ("TYPE/ID"), key, value; a key that repeats is a list
    /// @errors: one message for each Component that did not answer
    #[zbus(out_args("entries", "errors"))]
    async fn inventory(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<(String, String, String)>, Vec<String>), Refusal> {
        self.gate.inspect(connection, &call, Action::Inspect).await?;
        self.takes_work()?;
        let mut options = Options::new("Inventory", &["scope", "topology-components"], options)?;
        let (scope, components) = options.inventory()?;
        let inventory = self.handle.inventory(scope, components).await?;
        let entries = inventory
            .entries
            .into_iter()
            .map(|entry| (text(entry.component), text(entry.key), text(entry.value)))
            .collect();
        let errors = inventory.errors.into_iter().map(|error| text(error.message)).collect();
        Ok((entries, errors))
    }

    /// Reads configuration and Topology again.
    /// Needs the polkit action org.orchestratord1.update.
    /// @options: none
    async fn reload(
        &self,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        let reload = |_| async move {
            self.takes_work()?;
            Options::new("Reload", &[], options)?;
            self.handle.reload().await?;
            self.publisher.flush().await?;
            Ok(())
        };
        self.gate.change(connection, &call, Action::Update, reload).await
    }

    /// "idle", "busy" (a Job works on a deployment), "waiting" (a deployment is open and waits for Resume or Rollback)
    /// or "reboot-required" (it waits for a reboot of the host). More words may come.
    #[zbus(property)]
    fn state(&self) -> String {
        self.view.borrow().state.clone()
    }

    /// State before which the open deployment stopped because a caller wanted it so; empty if it did not.
    #[zbus(property)]
    fn stopped_before(&self) -> String {
        self.view.borrow().stopped_before.clone()
    }

    /// Name of the Manifest that is being installed, else of the one installed last; empty if none ever was.
    #[zbus(property)]
    fn manifest(&self) -> String {
        self.view.borrow().manifest.clone()
    }

    /// System type of the Topology; empty if there is no valid Topology.
    #[zbus(property)]
    fn system_type(&self) -> String {
        self.view.borrow().system_type.clone()
    }

    /// The Job that runs; "/" if none does.
    #[zbus(property)]
    fn active_job(&self) -> OwnedObjectPath {
        self.view.borrow().active_job.clone()
    }

    /// Error name and message of what went wrong last; both are empty after a success.
    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.view.borrow().last_error.clone()
    }
}

/// One step of a plan as it goes over the bus.
fn step(step: PlanStep) -> HashMap<&'static str, Variant<'static>> {
    HashMap::from([
        ("order", step.order.into()),
        ("component-type", text(step.component_type).into()),
        ("id", text(step.id).into()),
        ("action", text(step.action).into()),
        ("interface", text(step.interface).into()),
        ("from-version", text(step.from_version).into()),
        ("to-version", text(step.to_version).into()),
        ("artifact-name", text(step.artifact_name).into()),
        ("artifact", text(step.artifact).into()),
        ("size", step.size.into()),
        ("leg", step.leg.into()),
        ("reasons", step.reasons.into_iter().map(text).collect::<Vec<String>>().into()),
        ("way-back", text(step.way_back).into()),
    ])
}
