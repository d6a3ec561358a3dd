//! The door to the update domain: requests in, status out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::component::ComponentStatus;
use crate::core::error::{Error, Kind};

/// A point where a caller may have the deployment stop: before the first call of this state over all order groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StopPoint {
    /// All Components are installed, none is committed.
    ArtifactCommit,
    /// Something failed, nothing is rolled back yet.
    ArtifactRollback,
    /// Committed or rolled back; the last chance to go back after a commit.
    Cleanup,
}

impl StopPoint {
    /// Name of the state in the Interface protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ArtifactCommit => "ArtifactCommit",
            Self::ArtifactRollback => "ArtifactRollback",
            Self::Cleanup => "Cleanup",
        }
    }
}

impl FromStr for StopPoint {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        [Self::ArtifactCommit, Self::ArtifactRollback, Self::Cleanup]
            .into_iter()
            .find(|point| point.as_str() == word)
            .ok_or_else(|| {
                Error::new(
                    Kind::InvalidArgs,
                    format!("Cannot stop before \"{word}\": expected ArtifactCommit, ArtifactRollback or Cleanup."),
                )
            })
    }
}

/// Who reboots the host when a deployment needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RebootMode {
    /// The daemon does.
    #[default]
    Auto,
    /// The caller does, after the Job ended with `reboot-required`, and then calls `Resume`.
    Defer,
}

impl FromStr for RebootMode {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        match word {
            "auto" => Ok(Self::Auto),
            "defer" => Ok(Self::Defer),
            _ => Err(Error::new(
                Kind::InvalidArgs,
                format!("Unknown reboot mode \"{word}\": expected \"auto\" or \"defer\"."),
            )),
        }
    }
}

/// Options that every request which moves a deployment takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunOptions {
    /// Where to stop.
    pub stop_before: BTreeSet<StopPoint>,
    /// Who reboots.
    pub reboot: RebootMode,
}

/// What to plan or install.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManifestRequest {
    /// The Manifest itself, not its path.
    pub text: String,
    /// Where relative `artifact_path` entries start; absolute. Without it they are an error.
    pub base_directory: Option<PathBuf>,
    /// Text that replaces the configured file with the Components of a split Topology.
    pub topology_components: Option<String>,
}

/// One step of a Plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanStep {
    /// Order group; Components with the same number run side by side.
    pub order: u32,
    /// Component type.
    pub component_type: String,
    /// Component id.
    pub id: String,
    /// `install` or `unchanged`.
    pub action: String,
    /// Name of the Interface.
    pub interface: String,
    /// Version the Component has now; empty if unknown.
    pub from_version: String,
    /// Version the Component will have; empty if unknown.
    pub to_version: String,
    /// Name of the Artifact; empty for `unchanged`.
    pub artifact_name: String,
    /// Where the Artifact comes from; empty for `unchanged`.
    pub artifact: String,
    /// Size of the Artifact in bytes; 0 for `unchanged`.
    pub size: u64,
    /// Part of the deployment, from 1 on; each is committed before the next one begins. 0 for `unchanged`.
    pub leg: u32,
    /// Why it is not updated earlier, and what else is worth knowing before it is.
    pub reasons: Vec<String>,
    /// What becomes of the System if something fails in this step: `full`, `part`, `mixed`, `broken`; empty for `unchanged` and
    /// where the Manifest gives the order itself.
    pub way_back: String,
}

/// One line of the inventory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct InventoryEntry {
    /// `<component type>/<id>`, as it stands after `/component/` in the object path, but not escaped.
    pub component: String,
    /// Key.
    pub key: String,
    /// Value; a key that repeats is a list.
    pub value: String,
}

/// What to ask the Components for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InventoryScope {
    /// Provides and Inventory, merged.
    #[default]
    All,
    /// Provides only.
    Provides,
}

/// The inventory, with what could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Sorted by component, key, value.
    pub entries: Vec<InventoryEntry>,
    /// One error for each Component that did not answer.
    pub errors: Vec<Error>,
}

/// What the update domain is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpdateState {
    /// No deployment is open.
    #[default]
    Idle,
    /// A Job works on a deployment.
    Busy,
    /// A deployment is open and waits for `Resume` or `Rollback`.
    Waiting,
    /// A deployment is open and waits for a reboot of the host.
    RebootRequired,
}

impl UpdateState {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Waiting => "waiting",
            Self::RebootRequired => "reboot-required",
        }
    }
}

/// All that the outside can see of the update domain.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpdateStatus {
    /// What it is doing.
    pub state: UpdateState,
    /// Where the open deployment stopped because a caller wanted it so.
    pub stopped_before: Option<StopPoint>,
    /// Name of the Manifest that is being installed, else of the one installed last; empty if none ever was.
    pub manifest: String,
    /// System type of the Topology; empty if there is no valid Topology.
    pub system_type: String,
    /// Number of the Job that runs.
    pub active_job: Option<u32>,
    /// What went wrong last; none after a success.
    pub last_error: Option<Error>,
    /// The Components of the Topology, in its order.
    pub components: Vec<ComponentStatus>,
    /// True after a deployment ended `inconsistent`, until one succeeds.
    pub inconsistent: bool,
}

/// A request with the way back for its answer.
#[derive(Debug)]
pub enum Request {
    /// Work out what an install would do.
    Plan(ManifestRequest, oneshot::Sender<Result<Vec<PlanStep>, Error>>),
    /// Install a Manifest.
    Install(ManifestRequest, RunOptions, u32, oneshot::Sender<Result<u32, Error>>),
    /// Go on with the open deployment.
    Resume(RunOptions, u32, oneshot::Sender<Result<u32, Error>>),
    /// Take the open deployment back; `true` goes on although a Component cannot be rolled back.
    Rollback(RunOptions, bool, u32, oneshot::Sender<Result<u32, Error>>),
    /// Ask the Components what they are; the text replaces the configured file of Components.
    Inventory(InventoryScope, Option<String>, oneshot::Sender<Result<Inventory, Error>>),
    /// Read the configuration and Topology again.
    Reload(oneshot::Sender<Result<(), Error>>),
    /// Show that the actor is alive.
    Ping(oneshot::Sender<()>),
}

/// The door to the update domain; clones lead to the same actor.
#[derive(Debug, Clone)]
pub struct UpdateHandle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<UpdateStatus>,
}

impl UpdateHandle {
    /// The door that leads to the actor with this mailbox.
    pub fn new(requests: mpsc::Sender<Request>, status: watch::Receiver<UpdateStatus>) -> Self {
        Self { requests, status }
    }

    /// The status, to read and to wait for changes.
    pub fn status(&self) -> watch::Receiver<UpdateStatus> {
        self.status.clone()
    }

    /// What an install would do, in order. Asks the Components for Identity and Provides, touches nothing.
    pub async fn plan(&self, manifest: ManifestRequest) -> Result<Vec<PlanStep>, Error> {
        self.ask(|reply| Request::Plan(manifest, reply)).await?
    }

    /// Begins an install and returns the number of its Job once it is accepted.
    pub async fn install(&self, manifest: ManifestRequest, options: RunOptions, caller: u32) -> Result<u32, Error> {
        self.ask(|reply| Request::Install(manifest, options, caller, reply)).await?
    }

    /// Goes on with the open deployment and returns the number of the Job.
    pub async fn resume(&self, options: RunOptions, caller: u32) -> Result<u32, Error> {
        self.ask(|reply| Request::Resume(options, caller, reply)).await?
    }

    /// Takes the open deployment back and returns the number of the Job.
    pub async fn rollback(&self, options: RunOptions, force: bool, caller: u32) -> Result<u32, Error> {
        self.ask(|reply| Request::Rollback(options, force, caller, reply)).await?
    }

    /// Asks all Components what they are.
    pub async fn inventory(
        &self,
        scope: InventoryScope,
        topology_components: Option<String>,
    ) -> Result<Inventory, Error> {
        self.ask(|reply| Request::Inventory(scope, topology_components, reply)).await?
    }

    /// Reads the configuration and Topology again.
    pub async fn reload(&self) -> Result<(), Error> {
        self.ask(Request::Reload).await?
    }

    /// Returns once the actor has answered.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask(Request::Ping).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::new(Kind::Failed, "The update service of orchestratord has stopped.");
        self.requests.send(request(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}
