//! Does for one NIC what its machine says, and tells the machine what happens.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::machine::{Effect, Event, Machine, Parent};
use super::namespace::{Namespace, Target, appeared};
use super::probe::Prober;
use super::spec::Spec;
use super::{NicStatus, retry_after};
use crate::core::error::{Error, Kind};
use crate::network::address::{Mac, Prefixed};
use crate::network::handle::NetworkStatus;
use crate::network::kernel::{Kernel, KernelEvent, LinkRecord, Macvlan, Opened, Port};

/// `EEXIST`
const EXISTS: i32 = 17;

/// A namespace that was found, and what is known of it.
struct Entered {
    namespace: Arc<Namespace>,
    port: Arc<dyn Port>,
    events: BoxStream<'static, KernelEvent>,
}

/// One NIC at work.
pub struct Worker {
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// The way into the daemon's own namespace, where the parents are.
    pub host: Arc<dyn Port>,
    /// What is to be.
    pub spec: Spec,
    /// Its hardware address.
    pub mac: Mac,
    /// Where.
    pub target: Target,
    /// The links of the host.
    pub network: watch::Receiver<NetworkStatus>,
    /// Where the status goes.
    pub status: mpsc::UnboundedSender<NicStatus>,
    /// The status that was told last.
    pub told: NicStatus,
    /// Asks for the end of the NIC; without an answer, the NIC stays and only the worker ends.
    pub remove: oneshot::Receiver<oneshot::Sender<()>>,
}

impl Worker {
    /// The status of a NIC of which nothing is there yet.
    pub fn first_status(spec: &Spec, mac: Mac) -> NicStatus {
        NicStatus {
            name: spec.key(),
            parent_name: spec.parent.clone(),
            parent: None,
            mac,
            state: "waiting-for-namespace",
            addresses: Vec::new(),
            gateway: String::new(),
            error: None,
        }
    }

    /// Works until the NIC is removed, or the daemon ends.
    pub async fn run(mut self) {
        let mut machine = Machine::new(self.spec.conflict);
        let mut entered: Option<Entered> = None;
        let mut link: Option<u32> = None;
        let mut doing: Option<BoxFuture<'static, (Event, Option<u32>)>> = None;
        let mut retry: Option<BoxFuture<'static, ()>> = None;
        let mut finding: BoxFuture<'static, Result<Entered, Error>> = self.find();
        let mut removed = None;
        let mut left = false;
        let target = self.target.clone();
        let mut first = vec![Event::Parent(self.parent())];
        loop {
            let events = if first.is_empty() {
                let replaced = replaced(entered.as_ref().map(|entered| entered.namespace.clone()), &target);
                tokio::select! {
                    end = &mut self.remove => match end {
                        Ok(answer) => {
                            removed = Some(answer);
                            vec![Event::Remove]
                        }
                        // The daemon ends; the NIC goes on without it.
                        Err(_) => return,
                    },
                    changed = self.network.changed() => match changed {
                        Ok(()) => vec![Event::Parent(self.parent())],
                        Err(_) => return,
                    },
                    found = &mut finding, if entered.is_none() => match found {
                        Ok(found) => {
                            entered = Some(found);
                            vec![Event::Namespace(true)]
                        }
                        Err(error) => {
                            self.tell(NicStatus { error: Some(error), ..self.told.clone() });
                            let again = self.find();
                            finding = sleep(retry_after(4)).then(|()| again).boxed();
                            continue;
                        }
                    },
                    () = replaced => {
                        left = true;
                        vec![Event::Namespace(false)]
                    }
                    event = next(&mut entered) => match event {
                        Some(KernelEvent::LinkGone(index)) if Some(index) == link => vec![Event::LinkGone],
                        // Whether the link is still there is found out by making it.
                        Some(KernelEvent::Lost) if link.is_some() => vec![Event::LinkGone],
                        _ => continue,
                    },
                    (event, made) = ongoing(&mut doing) => {
                        doing = None;
                        link = made.or(link);
                        vec![event]
                    }
                    () = waiting(&mut retry) => {
                        retry = None;
                        vec![Event::RetryDue]
                    }
                }
            } else {
                std::mem::take(&mut first)
            };
            for event in events {
                for effect in machine.step(event) {
                    match effect {
                        Effect::Retry { failures } => retry = Some(sleep(retry_after(failures)).boxed()),
                        Effect::Abandon => {
                            (doing, retry) = (None, None);
                            let gone = link.take();
                            self.abandon(entered.as_ref().map(|entered| entered.port.clone()), gone).await;
                        }
                        effect => doing = entered.as_ref().and_then(|entered| self.perform(effect, entered, link)),
                    }
                }
            }
            if std::mem::take(&mut left) {
                // Only now, because a namespace that lost its path may live on, and our link is to go.
                entered = None;
                finding = self.find();
            }
            self.publish(&machine);
            if let Some(answer) = removed.take() {
                // A caller who has gone away needs no answer.
                let _ = answer.send(());
                return;
            }
        }
    }

    fn find(&self) -> BoxFuture<'static, Result<Entered, Error>> {
        let (target, kernel) = (self.target.clone(), self.kernel.clone());
        async move {
            let failed = |error: std::io::Error| {
                Error::new(
                    Kind::Failed,
                    format!("The namespace cannot be opened: {}.", crate::core::document::reason(&error)),
                )
            };
            let namespace = appeared(&target).await.map_err(failed)?;
            let Opened { port, events } = kernel.open_in(namespace.as_fd())?;
            Ok(Entered { namespace: Arc::new(namespace), port, events })
        }
        .boxed()
    }

    fn parent(&mut self) -> Option<Parent> {
        let status = self.network.borrow_and_update();
        let link = status.links.values().find(|link| link.name == self.spec.parent)?;
        Some(Parent { index: link.index, carrier: link.carrier })
    }

    fn publish(&mut self, machine: &Machine) {
        let right = machine.is_right();
        let status = self.network.borrow();
        let parent = status.links.values().find(|link| link.name == self.spec.parent).map(|link| link.index);
        drop(status);
        let gateway = self.spec.gateway.filter(|_| right).map(|gateway| gateway.to_string()).unwrap_or_default();
        let now = NicStatus {
            parent,
            state: machine.state(),
            addresses: if right { self.spec.addresses.clone() } else { Vec::new() },
            gateway,
            error: machine.error().cloned(),
            ..Self::first_status(&self.spec, self.mac)
        };
        self.tell(now);
    }

    fn tell(&mut self, now: NicStatus) {
        if self.told == now {
            return;
        }
        if let Some(error) = &now.error {
            tracing::warn!(nic = now.name, state = now.state, "{error}");
        } else {
            tracing::info!(nic = now.name, state = now.state, "A NIC has changed");
        }
        self.told = now.clone();
        // Nobody listens any more when the daemon ends.
        drop(self.status.send(now));
    }

    /// Removes our link, also one whose making was given up half way.
    async fn abandon(&self, port: Option<Arc<dyn Port>>, link: Option<u32>) {
        let Some(port) = port else { return };
        let links = port.snapshot().await.map(|snapshot| snapshot.links).unwrap_or_default();
        let ours = links.iter().find(|found| is_ours(found, &self.spec.name, self.mac) || Some(found.index) == link);
        if let Some(found) = ours
            && let Err(error) = port.remove_link(found.index).await
        {
            tracing::warn!(nic = self.spec.name, "A link is left behind: {error}");
        }
    }

    fn perform(
        &self,
        effect: Effect,
        entered: &Entered,
        link: Option<u32>,
    ) -> Option<BoxFuture<'static, (Event, Option<u32>)>> {
        let (port, namespace, spec, mac) =
            (entered.port.clone(), entered.namespace.clone(), self.spec.clone(), self.mac);
        match effect {
            Effect::Make { parent } => {
                let host = self.host.clone();
                let made = async move {
                    match make(host.as_ref(), port.as_ref(), &namespace, &spec, mac, parent).await {
                        Ok((index, fresh)) => (Event::Made { fresh }, Some(index)),
                        Err(error) => (Event::Failed(error), None),
                    }
                };
                Some(made.boxed())
            }
            Effect::Probe => {
                let link = link?;
                Some(async move { (probe(&namespace, link, mac, &spec).await, None) }.boxed())
            }
            Effect::Configure => {
                let link = link?;
                let configured = async move {
                    match configure(port.as_ref(), link, &spec).await {
                        Ok(()) => (Event::Configured, None),
                        Err(error) => (Event::Failed(error), None),
                    }
                };
                Some(configured.boxed())
            }
            Effect::Announce => {
                let link = link?;
                let announced = async move {
                    if let Ok(prober) = Prober::open(namespace.as_fd(), link, mac)
                        && let Err(error) = prober.announce(&v4(&spec.addresses)).await
                    {
                        tracing::debug!(nic = spec.name, "The addresses are not announced: {error}");
                    }
                    pending().await
                };
                Some(announced.boxed())
            }
            Effect::Abandon | Effect::Retry { .. } => None,
        }
    }
}

fn is_ours(link: &LinkRecord, name: &str, mac: Mac) -> bool {
    link.name == name && link.kind == "macvlan" && link.address == mac.0
}

/// Makes the link, or takes over the one that is there; tells its number, and whether it is new.
async fn make(
    host: &dyn Port,
    port: &dyn Port,
    namespace: &Namespace,
    spec: &Spec,
    mac: Mac,
    parent: u32,
) -> Result<(u32, bool), Error> {
    let found = async || Ok::<_, Error>(port.snapshot().await?.links.into_iter().find(|link| link.name == spec.name));
    if let Some(link) = found().await? {
        if !is_ours(&link, &spec.name, mac) {
            return Err(Error::new(
                Kind::NotSupported,
                format!("The namespace has a link \"{}\" already, which is not ours.", spec.name),
            ));
        }
        if link.parent == Some(parent) && link.up {
            let now = port.snapshot().await?;
            let is_set = |address| now.addresses.iter().any(|now| now.link == link.index && now.address == address);
            return Ok((link.index, !spec.addresses.iter().copied().all(is_set)));
        }
        port.remove_link(link.index).await?;
    }
    let link = Macvlan { name: spec.name.clone(), parent, mac, mtu: spec.mtu, mode: spec.mode };
    match host.make_macvlan(&link, namespace.as_fd()).await {
        Err(error) if error.errno != Some(EXISTS) => return Err(error.into()),
        // Somebody was quicker; whether it was us is seen below.
        _ => {}
    }
    match found().await? {
        Some(link) if is_ours(&link, &spec.name, mac) => Ok((link.index, true)),
        _ => Err(Error::new(Kind::Failed, format!("The link \"{}\" was made and is not there.", spec.name))),
    }
}

/// Sets what is not set yet; what is there and right is not touched.
async fn configure(port: &dyn Port, link: u32, spec: &Spec) -> Result<(), Error> {
    let now = port.snapshot().await?;
    for address in &spec.addresses {
        if !now.addresses.iter().any(|found| found.link == link && found.address == *address) {
            port.add_address(link, *address).await?;
        }
    }
    if let Some(gateway) = spec.gateway {
        let there = now.routes.iter().any(|route| {
            route.link == link && route.gateway == Some(IpAddr::V4(gateway)) && route.metric == spec.metric
        });
        if !there {
            port.add_default_route(link, gateway, spec.metric).await?;
        }
    }
    Ok(())
}

async fn probe(namespace: &Namespace, link: u32, mac: Mac, spec: &Spec) -> Event {
    let asked = match Prober::open(namespace.as_fd(), link, mac) {
        Ok(prober) => prober.probe(&v4(&spec.addresses)).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(None) => Event::Clear,
        Ok(Some((address, owner))) => Event::Taken(Error::new(
            Kind::AddressInUse,
            format!("The address \"{address}\" of the NIC \"{}\" is in use by \"{owner}\".", spec.name),
        )),
        Err(error) => Event::Failed(Error::new(
            Kind::Failed,
            format!("Whether an address of the NIC \"{}\" is in use cannot be asked: {error}.", spec.name),
        )),
    }
}

fn v4(addresses: &[Prefixed]) -> Vec<Ipv4Addr> {
    let v4 = |prefixed: &Prefixed| match prefixed.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    addresses.iter().filter_map(v4).collect()
}

async fn replaced(namespace: Option<Arc<Namespace>>, target: &Target) {
    match namespace {
        None => pending().await,
        Some(namespace) => {
            if let Err(error) = namespace.replaced(target).await {
                tracing::error!("A namespace is not watched any more: {error}");
                pending::<()>().await;
            }
        }
    }
}

async fn next(entered: &mut Option<Entered>) -> Option<KernelEvent> {
    match entered {
        None => pending().await,
        Some(entered) => match entered.events.next().await {
            None => pending().await,
            event => event,
        },
    }
}

async fn ongoing<T>(doing: &mut Option<BoxFuture<'static, T>>) -> T {
    match doing {
        None => pending().await,
        Some(doing) => doing.await,
    }
}

async fn waiting(retry: &mut Option<BoxFuture<'static, ()>>) {
    ongoing(retry).await;
}
