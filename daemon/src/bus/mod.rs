//! The face on the bus: thin interfaces over the handles of the domains, and a task that publishes what changes.
//!
//! `/org/orchestratord1` carries Manager, Update, Network, Vplcs, Host and `ObjectManager`; below it stand one object per
//! Component, Job, Link, Nic and Vplc. Nothing here decides anything.

pub mod auth;
mod component;
mod error;
mod gate;
mod host;
mod job;
mod link;
pub(crate) mod manager;
mod network;
mod nic;
mod options;
mod publish;
mod update;
mod view;
mod vplc;
mod vplcs;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::RequestNameFlags;

pub use error::Refusal;
pub use options::MAX_DOCUMENT;
pub use publish::{PACE, Publisher};

use crate::core::audit::Audit;
use crate::core::job::Jobs;
use crate::network::handle::NetworkHandle;
use crate::update::handle::UpdateHandle;
use crate::vplc::handle::VplcHandle;

/// Bus name of the daemon.
pub const NAME: &str = "org.orchestratord1";
/// Path of the object that stands for the System.
pub const ROOT: &str = "/org/orchestratord1";

/// Where the daemon is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not everything is up yet.
    Starting,
    /// At work.
    Running,
    /// Asked to end; nothing new is accepted.
    Stopping,
}

/// Why the daemon cannot be on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Another process owns the name.
    #[error("The bus name \"{NAME}\" is taken: another orchestratord runs on this bus.")]
    NameTaken,
    /// The bus daemon refuses the name or a match.
    #[error("The bus name \"{NAME}\" cannot be had: {0}.")]
    Name(zbus::Error),
    /// There is no bus.
    #[error("The system bus cannot be reached: {0}.")]
    Connect(zbus::Error),
    /// The objects cannot be exported.
    #[error("The objects below \"{ROOT}\" cannot be exported: {0}.")]
    Export(zbus::Error),
}

/// The daemon on the bus.
#[derive(Debug)]
pub struct Bus {
    connection: Connection,
    publisher: Publisher,
    tasks: [JoinHandle<()>; 4],
}

impl Bus {
    /// Connects and exports all objects, but leaves the name alone: nobody calls before [`Bus::claim`].
    pub async fn open(
        builder: Builder<'_>,
        update: &UpdateHandle,
        jobs: &Jobs,
        network: &NetworkHandle,
        vplc: &VplcHandle,
        phase: watch::Receiver<Phase>,
        audit: Audit,
    ) -> Result<Self, BusError> {
        let connection = builder.build().await.map_err(BusError::Connect)?;
        let gate = gate::Gate::new(audit);
        let ends = gate.clone().follow(jobs.changes());
        let started = publish::Task::start(&connection, update, jobs, network, vplc, phase, gate).await;
        let (task, network, vplc, publisher) = started.map_err(BusError::Export)?;
        let tasks =
            [tokio::spawn(task.run()), tokio::spawn(network.run()), tokio::spawn(vplc.run()), tokio::spawn(ends)];
        Ok(Self { connection, publisher, tasks })
    }

    /// Takes the name, or fails if somebody else has it.
    pub async fn claim(&self) -> Result<(), BusError> {
        match self.connection.request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE).await {
            Ok(_) => Ok(()),
            Err(zbus::Error::NameTaken) => Err(BusError::NameTaken),
            Err(error) => Err(BusError::Name(error)),
        }
    }

    /// The way to the publishing task.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Returns when the bus daemon has gone away.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Leaves the bus. Calls that still wait for a reply get an error from the bus daemon.
    pub async fn close(self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Err(error) = self.connection.close().await {
            tracing::debug!("The connection to the bus did not close cleanly: {error}");
        }
    }
}
