//! What the update domain works with: settings, runner, host, keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::artifact::VerifyKeys;
use super::component::ComponentKey;
use super::interface::tree::Tree;
use super::reboot::Host;
use super::runner::Runner;
use super::source::{Sources, TokenSource};
use super::topology::Topology;
use crate::core::document::{Document, DocumentKind};
use crate::core::error::Error;
use crate::core::settings::Settings;

/// What a piece of work gets when it begins; a reload gives the next piece another one.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Runs the programs of Interfaces.
    pub runner: Arc<dyn Runner>,
    /// The machine that is rebooted.
    pub host: Arc<dyn Host>,
    /// Keys that Artifacts must be signed with; none: signatures are not looked at.
    pub keys: Arc<VerifyKeys>,
    /// Where Artifacts come from.
    pub sources: Sources,
    slots: Option<Arc<Semaphore>>,
}

impl Environment {
    /// Reads the keys. `tokens` are for the Mender server.
    pub fn new(
        settings: Arc<Settings>,
        runner: Arc<dyn Runner>,
        host: Arc<dyn Host>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<Self, Error> {
        let keys = Arc::new(VerifyKeys::load(&settings.verify_keys)?);
        let sources = Sources::new(&settings, tokens)?;
        let slots = settings.max_parallel.map(|limit| Arc::new(Semaphore::new(limit.get())));
        Ok(Self { settings, runner, host, keys, sources, slots })
    }

    /// A place among the calls that may run at once; held until it is dropped.
    pub async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        match &self.slots {
            // An error means that the semaphore was closed, which nobody does.
            Some(slots) => slots.clone().acquire_owned().await.ok(),
            None => None,
        }
    }

    /// Reads the Topology. `components` replaces the file with the Components of a split one.
    pub fn topology(&self, components: Option<&str>) -> Result<Topology, Error> {
        let main = Document::read(&self.settings.topology_file(), DocumentKind::Topology)?;
        let components = match components {
            Some(text) => Some(Document::new("topology components", text)),
            None => match &self.settings.topology_components {
                Some(path) => Some(Document::read(path, DocumentKind::Topology)?),
                None => None,
            },
        };
        let topology = Topology::parse(&main, components.as_ref())?;
        for warning in &topology.warnings {
            tracing::warn!("{warning}");
        }
        Ok(topology)
    }

    /// Where the File API tree of a Component lies.
    pub fn tree(&self, key: &ComponentKey) -> PathBuf {
        Tree::path(&self.settings.datastore_dir, key)
    }
}

/// A word that no other call of this or an earlier daemon has: for calls outside a deployment.
pub fn unique_tag(word: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}-{count}-{word}", since.as_micros(), std::process::id())
}
