//! Publishes the network: Link objects that appear, change and vanish.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use zbus::Connection;

use super::super::gate::Gate;
use super::super::host::Host;
use super::super::link::{Link, LinkView};
use super::super::network::{Network, NetworkView};
use super::super::nic::{Nic, NicView};
use super::super::view::{View, link_path, nic_path, root_path};
use super::{Publisher, Shown, report};
use crate::network::handle::{NetworkHandle, NetworkStatus};
use crate::network::link::LinkStatus;
use crate::network::nic::NicStatus;

/// A link on the bus.
struct ShownLink {
    /// What it shows.
    status: Arc<LinkStatus>,
    shown: Shown<LinkView>,
}

/// Publishes the network; made by [`Task::start`], driven by [`Task::run`].
pub(in super::super) struct Task {
    connection: Connection,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
    handle: NetworkHandle,
    status: watch::Receiver<NetworkStatus>,
    network: Shown<NetworkView>,
    links: BTreeMap<u32, ShownLink>,
    nics: BTreeMap<String, ShownNic>,
}

/// A NIC on the bus.
struct ShownNic {
    /// What it shows.
    status: Arc<NicStatus>,
    shown: Shown<NicView>,
}

impl Task {
    /// Exports all objects there are; from now on [`Task::run`] has to be driven.
    pub(super) async fn start(
        connection: &Connection,
        handle: &NetworkHandle,
        publisher: &Publisher,
        gate: Gate,
        flushes: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> zbus::Result<Self> {
        let status = handle.status();
        let first = NetworkView::from(&*status.borrow());
        let (network, view) = Shown::new(connection, root_path(), first);
        let face = Network::new(handle.clone(), publisher.clone(), gate, view);
        connection.object_server().at(root_path(), face).await?;
        connection.object_server().at(root_path(), Host::new(handle.host())).await?;
        let (connection, handle) = (connection.clone(), handle.clone());
        let mut task =
            Self { connection, flushes, handle, status, network, links: BTreeMap::new(), nics: BTreeMap::new() };
        task.publish().await;
        Ok(task)
    }

    /// Publishes until the daemon ends.
    pub(in super::super) async fn run(mut self) {
        let mut open = true;
        loop {
            tokio::select! {
                Some(flush) = self.flushes.recv() => {
                    self.publish().await;
                    // An error means that the call behind it was given up.
                    let _ = flush.send(());
                }
                changed = self.status.changed(), if open => {
                    open = changed.is_ok();
                    self.publish().await;
                }
            }
        }
    }

    /// One pass: whatever changed since the last one goes out. A link exists while it is the default link.
    async fn publish(&mut self) {
        let status = self.status.borrow_and_update().clone();
        for link in status.links.values() {
            self.publish_link(link).await;
        }
        self.network.show(NetworkView::from(&status), true).await;
        self.publish_nics(&status).await;
        let gone: Vec<u32> = self.links.keys().filter(|index| !status.links.contains_key(index)).copied().collect();
        for index in gone {
            self.remove_link(index).await;
        }
    }

    async fn publish_nics(&mut self, status: &NetworkStatus) {
        for (name, nic) in &status.nics {
            if let Some(ShownNic { status, shown }) = self.nics.get_mut(name) {
                if !Arc::ptr_eq(status, nic) {
                    *status = nic.clone();
                    shown.show(NicView::from(&**nic), true).await;
                }
                continue;
            }
            let path = nic_path(name);
            let (shown, view) = Shown::new(&self.connection, path.clone(), NicView::from(&**nic));
            let added = self.connection.object_server().at(path, Nic::new(nic, view)).await;
            report(added.map(drop), NicView::INTERFACE, "InterfacesAdded");
            self.nics.insert(name.clone(), ShownNic { status: nic.clone(), shown });
        }
        let gone: Vec<String> = self.nics.keys().filter(|name| !status.nics.contains_key(*name)).cloned().collect();
        for name in gone {
            self.nics.remove(&name);
            let removed = self.connection.object_server().remove::<Nic, _>(nic_path(&name)).await;
            report(removed.map(drop), NicView::INTERFACE, "InterfacesRemoved");
        }
    }

    async fn publish_link(&mut self, link: &Arc<LinkStatus>) {
        if let Some(ShownLink { status, shown }) = self.links.get_mut(&link.index) {
            if Arc::ptr_eq(status, link) {
                return;
            }
            // The kind is constant: with another one it is another link that got the same number.
            if status.kind == link.kind {
                *status = link.clone();
                shown.show(LinkView::from(&**link), true).await;
                return;
            }
            self.remove_link(link.index).await;
        }
        let path = link_path(link.index);
        let (shown, view) = Shown::new(&self.connection, path.clone(), LinkView::from(&**link));
        let object = Link::new(link, self.handle.clone(), view);
        let added = self.connection.object_server().at(path, object).await;
        report(added.map(drop), LinkView::INTERFACE, "InterfacesAdded");
        self.links.insert(link.index, ShownLink { status: link.clone(), shown });
    }

    async fn remove_link(&mut self, index: u32) {
        self.links.remove(&index);
        let removed = self.connection.object_server().remove::<Link, _>(link_path(index)).await;
        report(removed.map(drop), LinkView::INTERFACE, "InterfacesRemoved");
    }
}
