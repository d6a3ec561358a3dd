//! Publishes vPLCs: objects that appear, change and vanish.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use zbus::Connection;

use super::super::gate::Gate;
use super::super::view::{View, root_path, vplc_path};
use super::super::vplc::{Vplc, VplcView};
use super::super::vplcs::{Vplcs, VplcsView};
use super::{Publisher, Shown, report};
use crate::vplc::handle::{VplcHandle, VplcStatus, VplcsStatus};

/// A vPLC on the bus.
struct ShownVplc {
    /// What it shows.
    status: Arc<VplcStatus>,
    shown: Shown<VplcView>,
}

/// Publishes vPLCs; made by [`Task::start`], driven by [`Task::run`].
pub(in super::super) struct Task {
    connection: Connection,
    publisher: Publisher,
    gate: Gate,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
    handle: VplcHandle,
    status: watch::Receiver<VplcsStatus>,
    vplcs: Shown<VplcsView>,
    shown: BTreeMap<String, ShownVplc>,
}

impl Task {
    /// Exports all objects there are; from now on [`Task::run`] has to be driven.
    pub(super) async fn start(
        connection: &Connection,
        handle: &VplcHandle,
        publisher: &Publisher,
        gate: Gate,
        flushes: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> zbus::Result<Self> {
        let status = handle.status();
        let first = VplcsView::from(&*status.borrow());
        let (vplcs, view) = Shown::new(connection, root_path(), first);
        let face = Vplcs::new(handle.clone(), publisher.clone(), gate.clone(), view);
        connection.object_server().at(root_path(), face).await?;
        let (connection, publisher, handle) = (connection.clone(), publisher.clone(), handle.clone());
        let mut task = Self { connection, publisher, gate, flushes, handle, status, vplcs, shown: BTreeMap::new() };
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

    /// One pass: whatever changed since the last one goes out.
    async fn publish(&mut self) {
        let status = self.status.borrow_and_update().clone();
        self.vplcs.show(VplcsView::from(&status), true).await;
        for (name, vplc) in &status.vplcs {
            if let Some(ShownVplc { status, shown }) = self.shown.get_mut(name) {
                if !Arc::ptr_eq(status, vplc) {
                    *status = vplc.clone();
                    shown.show(VplcView::from(&**vplc), true).await;
                }
                continue;
            }
            let (shown, view) = Shown::new(&self.connection, vplc_path(name), VplcView::from(&**vplc));
            let object = Vplc::new(name.clone(), self.handle.clone(), self.publisher.clone(), self.gate.clone(), view);
            let added = self.connection.object_server().at(vplc_path(name), object).await;
            report(added.map(drop), VplcView::INTERFACE, "InterfacesAdded");
            self.shown.insert(name.clone(), ShownVplc { status: vplc.clone(), shown });
        }
        let gone: Vec<String> = self.shown.keys().filter(|name| !status.vplcs.contains_key(*name)).cloned().collect();
        for name in gone {
            self.shown.remove(&name);
            let removed = self.connection.object_server().remove::<Vplc, _>(vplc_path(&name)).await;
            report(removed.map(drop), VplcView::INTERFACE, "InterfacesRemoved");
        }
    }
}
