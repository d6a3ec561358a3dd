//! What the update domain works with: settings, runner, host, keys.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

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

    /// How many calls may run at once.
    pub fn most_at_once(&self) -> usize {
        self.settings.max_parallel.map_or(usize::MAX, NonZeroUsize::get)
    }

    /// Places for so many calls that have to run at the same time, no more than [`Environment::most_at_once`].
    pub fn together(&self, count: usize) -> Together {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Together { slots: self.slots.clone(), count, held: Arc::default() }
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

/// Places for calls that have to run at the same time.
#[derive(Debug, Clone)]
pub struct Together {
    slots: Option<Arc<Semaphore>>,
    count: u32,
    held: Arc<OnceCell<Mutex<OwnedSemaphorePermit>>>,
}

impl Together {
    /// One of the places, when all of them can be had; held until it is dropped.
    pub async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = self.slots.as_ref()?;
        let all = || async { slots.clone().acquire_many_owned(self.count).await.map(Mutex::new) };
        // An error means that the semaphore was closed, which nobody does.
        let held = self.held.get_or_try_init(all).await.ok()?;
        held.lock().unwrap_or_else(PoisonError::into_inner).split(1)
    }
}

/// A word that no other call of this or an earlier daemon has: for calls outside a deployment.
pub fn unique_tag(word: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}-{count}-{word}", since.as_micros(), std::process::id())
}
