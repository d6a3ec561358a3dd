//! The door to the network domain: requests in, status out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::host::Host;
use super::kernel::Statistics;
use super::link::LinkStatus;
use super::nic::NicStatus;
use crate::core::error::{Error, Kind};

/// All that the outside can see of the network.
#[derive(Debug, Clone, Default)]
pub struct NetworkStatus {
    /// The links, by number. Equal pointers are equal links.
    pub links: BTreeMap<u32, Arc<LinkStatus>>,
    /// The link that packets to the world take.
    pub default_link: Option<u32>,
    /// Whether packets to the world have a way to leave.
    pub online: bool,
    /// The NICs that are attached, by name. Equal pointers are equal NICs.
    pub nics: BTreeMap<String, Arc<NicStatus>>,
}

/// A request with the way back for its answer.
#[derive(Debug)]
pub enum Request {
    /// The counters of a link.
    Statistics(u32, oneshot::Sender<Result<Statistics, Error>>),
    /// Attach a NIC by its specification; `true` attaches it also if its parent or namespace is not there yet.
    Attach(String, bool, oneshot::Sender<Result<String, Error>>),
    /// Detach the NIC with this name.
    Detach(String, oneshot::Sender<Result<(), Error>>),
    /// Show that the actor is alive.
    Ping(oneshot::Sender<()>),
}

/// The door to the network domain; clones lead to the same actor.
#[derive(Debug, Clone)]
pub struct NetworkHandle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<NetworkStatus>,
    host: Host,
}

impl NetworkHandle {
    /// The door that leads to the actor with this mailbox, and to the figures of this host.
    pub fn new(requests: mpsc::Sender<Request>, status: watch::Receiver<NetworkStatus>, host: Host) -> Self {
        Self { requests, status, host }
    }

    /// The status, to read and to wait for changes.
    pub fn status(&self) -> watch::Receiver<NetworkStatus> {
        self.status.clone()
    }

    /// How the host is.
    pub fn host(&self) -> Host {
        self.host.clone()
    }

    /// The counters of a link, as they are now.
    pub async fn statistics(&self, link: u32) -> Result<Statistics, Error> {
        self.ask(|reply| Request::Statistics(link, reply)).await?
    }

    /// Attaches a NIC by its specification and returns its name once that is accepted; `wait` attaches it also if its
    /// parent or namespace is not there yet.
    pub async fn attach(&self, spec: String, wait: bool) -> Result<String, Error> {
        self.ask(|reply| Request::Attach(spec, wait, reply)).await?
    }

    /// Detaches the NIC with this name, and returns when its link is gone.
    pub async fn detach(&self, name: String) -> Result<(), Error> {
        self.ask(|reply| Request::Detach(name, reply)).await?
    }

    /// Returns once the actor has answered.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask(Request::Ping).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::new(Kind::Failed, "The network service of orchestratord has stopped.");
        self.requests.send(request(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}
