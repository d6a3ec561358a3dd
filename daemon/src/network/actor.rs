//! Keeps what is known about the network in step with the kernel. Nothing is polled: without a change in the kernel or
//! a request, the actor sleeps.

#[cfg(test)]
mod tests;

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::handle::{NetworkHandle, NetworkStatus, Request};
use super::host::Host;
use super::host::socket::MetricsSocket;
use super::kernel::{Kernel, KernelError, KernelEvent, Opened, Port};
use super::link::{Mirror, Unknown};
use super::nic::NicStatus;
use super::nic::attachments::Attachments;
use crate::core::error::{Error, Kind};

/// Requests that may wait.
const MAILBOX: usize = 16;

impl From<KernelError> for Error {
    fn from(error: KernelError) -> Self {
        Self::new(Kind::Failed, error.to_string())
    }
}

/// The network domain at work.
pub struct Actor {
    kernel: Arc<dyn Kernel>,
    requests: mpsc::Receiver<Request>,
    status: watch::Sender<NetworkStatus>,
    mirror: Mirror,
    nics: Attachments,
    nic_statuses: mpsc::UnboundedReceiver<NicStatus>,
    host: Host,
    metrics_socket: Option<PathBuf>,
    stop: CancellationToken,
}

impl Actor {
    /// An actor that has not begun, and the door to it. NICs are kept below `datastore`; the figures of the host are
    /// served at `metrics_socket`, too.
    pub fn new(
        kernel: Arc<dyn Kernel>,
        datastore: &Path,
        host: Host,
        metrics_socket: Option<PathBuf>,
        stop: CancellationToken,
    ) -> (Self, NetworkHandle) {
        let (sender, requests) = mpsc::channel(MAILBOX);
        let (status, statuses) = watch::channel(NetworkStatus::default());
        let (nics, nic_statuses) = Attachments::new(kernel.clone(), datastore);
        let mirror = Mirror::default();
        let door = NetworkHandle::new(sender, statuses, host.clone());
        (Self { kernel, requests, status, mirror, nics, nic_statuses, host, metrics_socket, stop }, door)
    }

    /// Works until it is told to stop. A kernel that cannot be asked leaves the status empty, and the log says why.
    pub async fn run(mut self) {
        let (port, mut events) = match self.kernel.open() {
            Ok(Opened { port, events }) => (Some(port), events),
            Err(error) => {
                tracing::error!("The network is not watched. {error}");
                (None, futures_util::stream::pending().boxed())
            }
        };
        if let Some(port) = &port {
            self.learn(port.as_ref(), Unknown::All).await;
            self.publish();
            self.nics.restore(port, self.mirror.links());
        }
        let stop = self.stop.clone();
        let recording = self.host.clone().record(stop.clone());
        let serving = serve_metrics(self.metrics_socket.clone(), self.host.clone());
        tokio::pin!(recording, serving);
        loop {
            tokio::select! {
                () = &mut recording => return,
                () = &mut serving => return,
                () = stop.cancelled() => return,
                Some(event) = events.next() => {
                    let Some(port) = &port else { continue };
                    self.follow(port.as_ref(), event, &mut events).await;
                }
                Some(nic) = self.nic_statuses.recv() => self.show(nic),
                Some(request) = self.requests.recv() => self.answer(port.as_ref(), request).await,
            }
        }
    }

    /// Takes in an event and those that came with it, so that changes of one moment are shown together.
    async fn follow(&mut self, port: &dyn Port, first: KernelEvent, events: &mut BoxStream<'static, KernelEvent>) {
        let mut unknown = self.mirror.apply(first);
        while let Some(Some(event)) = events.next().now_or_never() {
            let more = self.mirror.apply(event);
            if unknown != Unknown::All && more != Unknown::Nothing {
                unknown = more;
            }
        }
        if unknown == Unknown::All {
            flush(port, events).await;
        }
        self.learn(port, unknown).await;
        self.publish();
    }

    async fn learn(&mut self, port: &dyn Port, unknown: Unknown) {
        let learned = match unknown {
            Unknown::Nothing => Ok(()),
            Unknown::Routes => port.default_routes().await.map(|routes| self.mirror.replace_routes(routes)),
            Unknown::All => port.snapshot().await.map(|snapshot| self.mirror.replace(snapshot)),
        };
        if let Err(error) = learned {
            tracing::error!("What is known of the network may be out of date. {error}");
        }
    }

    fn publish(&mut self) {
        self.nics.follow(self.mirror.links());
        let (links, default_link, online) = (self.mirror.links(), self.mirror.default_link(), self.mirror.online());
        self.status.send_if_modified(|status| {
            let same_links = status.links.len() == links.len()
                && status
                    .links
                    .iter()
                    .zip(links)
                    .all(|((one, before), (other, now))| one == other && Arc::ptr_eq(before, now));
            if same_links && status.default_link == default_link && status.online == online {
                return false;
            }
            (status.links, status.default_link, status.online) = (links.clone(), default_link, online);
            true
        });
    }

    fn show(&mut self, nic: NicStatus) {
        self.mirror.set_user(&nic.name, nic.parent);
        self.status.send_modify(|status| {
            status.links.clone_from(self.mirror.links());
            status.nics.insert(nic.name.clone(), Arc::new(nic));
        });
    }

    async fn detach(&mut self, name: &str) -> Result<(), Error> {
        self.nics.detach(name).await?;
        // What it said before its end must not bring it back.
        while let Ok(nic) = self.nic_statuses.try_recv() {
            self.show(nic);
        }
        self.mirror.set_user(name, None);
        self.status.send_modify(|status| {
            status.links.clone_from(self.mirror.links());
            status.nics.remove(name);
        });
        Ok(())
    }

    async fn answer(&mut self, port: Option<&Arc<dyn Port>>, request: Request) {
        let unwatched = || Error::new(Kind::NotSupported, "The network is not watched; the log says why.");
        // A caller who has gone away needs no answer.
        match request {
            Request::Ping(reply) => drop(reply.send(())),
            Request::Attach(spec, wait, reply) => {
                let attached = match port {
                    Some(port) => self.nics.attach(port, self.mirror.links(), spec, wait),
                    None => Err(unwatched()),
                };
                while let Ok(nic) = self.nic_statuses.try_recv() {
                    self.show(nic);
                }
                drop(reply.send(attached));
            }
            Request::Detach(name, reply) => drop(reply.send(self.detach(&name).await)),
            Request::Statistics(link, reply) => {
                let answer = match port {
                    Some(port) => port.statistics(link).await.map_err(Error::from),
                    None => Err(unwatched()),
                };
                drop(reply.send(answer));
            }
        }
    }
}

/// Serves the figures on a socket, if one is wanted; never ends. A socket that cannot be had is no reason not to work.
async fn serve_metrics(path: Option<PathBuf>, host: Host) {
    if let Some(path) = path {
        match MetricsSocket::bind(&path) {
            Ok(socket) => socket.serve(&host).await,
            Err(error) => tracing::error!("The metrics cannot be served at \"{}\": {error}.", path.display()),
        }
    }
    pending::<()>().await;
}

/// Reads and forgets what was reported before the loss: the kernel tells of the loss first and hands out afterwards what
/// was in the socket, and nothing old may be applied to a newer answer. An answer comes behind all of it.
async fn flush(port: &dyn Port, events: &mut BoxStream<'static, KernelEvent>) {
    let mut lost = true;
    while lost {
        if let Err(error) = port.snapshot().await {
            tracing::debug!("While the reports are flushed: {error}");
        }
        lost = false;
        while let Some(Some(event)) = events.next().now_or_never() {
            lost |= event == KernelEvent::Lost;
        }
    }
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Actor").field("kernel", &self.kernel).finish_non_exhaustive()
    }
}
