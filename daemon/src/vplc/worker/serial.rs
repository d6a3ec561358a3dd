//! What a worker does with the serial ports of its vPLC: their nodes come and go with the adapters and the containers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Tools, wait};
use crate::vplc::engine::{Engine, Role};
use crate::vplc::handle::VplcsStatus;
use crate::vplc::machine::Sight;
use crate::vplc::process::Process;
use crate::vplc::serial::{Claims, Nodes, Port, PortStatus, Ports, device_rules, follow};
use crate::vplc::spec::{SerialPort, Spec};

/// How long after the kernel refused to watch the ports it is asked again.
const RETRY: Duration = Duration::from_mins(1);

/// What it takes to put the nodes where they belong.
#[derive(Debug)]
pub(super) struct Site {
    engine: Arc<dyn Engine>,
    status: Arc<watch::Sender<VplcsStatus>>,
    place: Ports,
    vplc: String,
    wanted: Vec<SerialPort>,
    /// Held by whoever changes nodes.
    turn: Mutex<()>,
}

impl Site {
    /// The rules for the filter of devices of a new runtime.
    pub(super) fn rules(&self) -> Vec<String> {
        let plugged = self.place.list();
        device_rules(self.wanted.iter().map(|port| plugged.get(&port.device)))
    }

    /// Has the nodes be right for a runtime that is started next. A port that is missing does not keep a PLC from running.
    pub(super) async fn prepare(self: Arc<Self>) {
        if !self.wanted.is_empty() {
            self.arrange(&[Role::Holder]).await;
        }
    }

    /// Has the nodes in these containers, as far as they run, be right.
    async fn arrange(self: Arc<Self>, roles: &[Role]) -> Vec<PortStatus> {
        let _turn = self.turn.lock().await;
        let mut inside = Vec::new();
        for role in roles {
            let process = Process::of_container(self.engine.as_ref(), &self.vplc, *role).await;
            inside.extend(process.map(|process| (*role, process)));
        }
        let site = self.clone();
        let put = spawn_blocking(move || site.put(&inside)).await;
        put.unwrap_or_else(|_| self.unplugged())
    }

    fn unplugged(&self) -> Vec<PortStatus> {
        self.wanted.iter().cloned().map(PortStatus::unplugged).collect()
    }

    fn put(&self, inside: &[(Role, Process)]) -> Vec<PortStatus> {
        let (plugged, claims) = (self.place.list(), Claims::of(&self.status.borrow()));
        let mut statuses = self.unplugged();
        let mut found: BTreeMap<&str, &Port> = BTreeMap::new();
        for (wanted, status) in self.wanted.iter().zip(&mut statuses) {
            let Some(port) = plugged.get(&wanted.device) else { continue };
            status.device = port.path.display().to_string();
            match claims.check(&self.vplc, port, wanted.shared, &plugged) {
                Ok(()) => drop(found.insert(wanted.node(), port)),
                Err(error) => status.error = error.to_string(),
            }
        }
        for (role, process) in inside {
            let nodes = Nodes::of(*process).and_then(|nodes| {
                nodes.retain(|name| found.contains_key(name))?;
                Ok(nodes)
            });
            for status in &mut statuses {
                let Some(port) = found.get(status.port.node()) else { continue };
                let made = nodes.as_ref().map_err(ToString::to_string);
                let made = made
                    .and_then(|nodes| nodes.make(status.port.node(), port.device).map_err(|error| error.to_string()));
                // That of the runtime comes last, and counts.
                status.connected = *role == Role::Runtime && made.is_ok();
                status.error = made.err().unwrap_or_default();
            }
        }
        statuses
    }
}

/// The serial ports of one vPLC.
pub(super) struct SerialPorts {
    site: Arc<Site>,
    plugged: watch::Receiver<BTreeMap<String, Port>>,
    /// What all vPLCs have.
    others: watch::Receiver<VplcsStatus>,
    follow: BoxFuture<'static, Infallible>,
    /// What the engine calls the containers that run, and the numbers of their first processes.
    seen: [Option<(String, i32)>; 2],
    /// The nodes may not be as they should.
    stale: bool,
    work: Option<BoxFuture<'static, Vec<PortStatus>>>,
    status: Vec<PortStatus>,
}

impl SerialPorts {
    /// Those of a vPLC of which nothing was seen yet.
    pub(super) fn new(tools: &Tools, spec: &Spec) -> Self {
        let (engine, status, place) = (tools.engine.clone(), tools.status.clone(), tools.ports.clone());
        let (vplc, wanted) = (spec.name.clone(), spec.serial.clone());
        let (sender, plugged) = watch::channel(BTreeMap::new());
        let follow =
            if wanted.is_empty() { std::future::pending().boxed() } else { watched(place.clone(), sender).boxed() };
        let site = Arc::new(Site { engine, status, place, vplc, wanted, turn: Mutex::default() });
        let (status, others) = (site.unplugged(), tools.status.subscribe());
        Self { site, plugged, others, follow, seen: [None, None], stale: true, work: None, status }
    }

    /// What changes nodes.
    pub(super) fn site(&self) -> Arc<Site> {
        self.site.clone()
    }

    /// How the ports were when somebody looked last.
    pub(super) fn status(&self) -> &[PortStatus] {
        &self.status
    }

    /// Puts nodes where they belong after an adapter or a container has come or gone.
    pub(super) fn tend(&mut self, sight: Option<&Sight>) {
        let containers = sight.map_or([None, None], |sight| [sight.holder.as_ref(), sight.runtime.as_ref()]);
        let seen = containers.map(|container| container.and_then(super::running));
        self.stale |= seen != self.seen;
        self.seen = seen;
        if self.stale && self.work.is_none() && !self.site.wanted.is_empty() {
            self.stale = false;
            let site = self.site.clone();
            self.work = Some(async move { site.arrange(&Role::ALL).await }.boxed());
        }
    }

    /// Returns when there is something to do or to tell.
    pub(super) async fn changed(&mut self) {
        let refused = self.status.iter().any(|port| !port.error.is_empty());
        tokio::select! {
            // Somebody may have let go of a device.
            Ok(()) = self.others.changed(), if refused => self.stale = true,
            never = &mut self.follow => match never {},
            // The sender lives as long as what is awaited above.
            Ok(()) = self.plugged.changed() => self.stale = true,
            status = wait(&mut self.work) => {
                self.work = None;
                for port in status.iter().filter(|port| !self.status.contains(port)) {
                    let (name, connected, error) = (&port.port.device, port.connected, &port.error);
                    tracing::info!(vplc = self.site.vplc, port = name, connected, "A serial port has changed. {error}");
                }
                self.status = status;
            }
        }
    }
}

impl std::fmt::Debug for SerialPorts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SerialPorts").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Watches the ports for ever.
async fn watched(place: Ports, plugged: watch::Sender<BTreeMap<String, Port>>) -> Infallible {
    loop {
        let Err(error) = follow(&place, &plugged).await;
        tracing::warn!("The serial ports are not watched: {error}");
        sleep(RETRY).await;
    }
}
