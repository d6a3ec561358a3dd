//! Does for one NIC what its machine says, and tells the machine what happens.

mod effects;

use std::future::pending;
use std::os::fd::AsFd;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use self::effects::{announce, configure, make, probe};
use super::attachments::check_away;
use super::dhcp::task::{self, Leasing, Workplace};
use super::ipv6::Ipv6Addresses;
use super::link_kind::{LinkKind, Made, Reach, Reaching, Routers, Site, give_up, still_taken, v4};
use super::machine::{Effect, Event, Machine, Parent};
use super::namespace::{Namespace, Target, appeared};
use super::parents::ParentLink;
use super::spec::Spec;
use super::store::Store;
use super::{NicStatus, retry_after};
use crate::core::error::{Error, Kind};
use crate::network::address::{Mac, Prefixed};
use crate::network::kernel::{Kernel, KernelEvent, Opened, Port};

/// A namespace that was found, and what is known of it.
struct Entered {
    namespace: Arc<Namespace>,
    port: Arc<dyn Port>,
    events: BoxStream<'static, KernelEvent>,
    ipv6: Ipv6Addresses,
}

impl Entered {
    /// Makes up for reports that were lost.
    async fn learn(&mut self) {
        if let Ok(now) = self.port.snapshot().await {
            self.ipv6.replace(&now);
        }
    }
}

/// A parent that the NIC has taken.
#[derive(Debug, Clone)]
pub struct Held {
    index: u32,
    carrier: bool,
    mac: Option<Mac>,
}

/// One NIC at work.
pub struct Worker {
    /// The kernel.
    pub kernel: Arc<dyn Kernel>,
    /// The way into the daemon's own namespace, where the parents are.
    pub host: Arc<dyn Port>,
    /// What is to be.
    pub spec: Spec,
    /// Its hardware address; without meaning if that is the one of the parent.
    pub mac: Mac,
    /// Where.
    pub target: Target,
    /// What outlives the daemon.
    pub store: Store,
    /// Who else has the host pass on packets.
    pub routers: Routers,
    /// Who can be reached by a shim.
    pub reach: Reach,
    /// The parent, while it is on the host.
    pub parent: watch::Receiver<Option<ParentLink>>,
    /// The parent, while it is in the namespace.
    pub held: Option<Held>,
    /// Where the status goes.
    pub status: mpsc::UnboundedSender<NicStatus>,
    /// The status that was told last.
    pub told: NicStatus,
    /// Whether it is known what addresses the NIC has, and not only what it had when the daemon ended.
    pub settled: bool,
    /// Whether nothing can have been set on the link before.
    pub fresh: bool,
    /// Asks for the end of the NIC; without an answer, the NIC stays and only the worker ends.
    pub remove: oneshot::Receiver<oneshot::Sender<()>>,
}

impl Worker {
    /// Works until the NIC is removed, or the daemon ends.
    pub async fn run(mut self) {
        let mut machine = Machine::new(self.spec.conflict, self.spec.dhcp.is_some());
        let mut entered: Option<Entered> = None;
        let mut link: Option<u32> = None;
        let mut leasing: Option<Leasing> = None;
        let mut reaching: Option<Reaching> = None;
        let mut doing: Option<BoxFuture<'static, (Event, Option<u32>)>> = None;
        let mut retry: Option<BoxFuture<'static, ()>> = None;
        let mut finding: BoxFuture<'static, Result<Entered, Error>> = self.find();
        self.held = self.find_held().await;
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
                    changed = self.parent.changed() => match changed {
                        Ok(()) => self.parent_changed(),
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
                    report = next(&mut entered) => {
                        look_again(reaching.as_ref(), &report, link);
                        self.reported(report, entered.as_mut(), link).await
                    }
                    () = progress(&mut leasing) => Vec::new(),
                    () = reached(&mut reaching) => Vec::new(),
                    (event, made) = ongoing(&mut doing) => {
                        doing = None;
                        // A client works on the link that it began with.
                        leasing = leasing.filter(|_| made.is_none() || made == link);
                        link = made.or(link);
                        self.fresh = self.fresh && made.is_none() || event == Event::Made { fresh: true };
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
                            let released = leasing.take().filter(|_| removed.is_some());
                            let port = entered.as_ref().map(|entered| entered.port.clone());
                            if self.abandon(port, link.take(), released).await {
                                first.push(Event::Parent(self.parent()));
                            }
                        }
                        Effect::Lease => {
                            let place = entered.as_ref().zip(link);
                            leasing =
                                leasing.or_else(|| place.map(|(entered, link)| self.begin_to_lease(entered, link)));
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
            let ipv6 = entered.as_ref().zip(link).map(|(entered, link)| entered.ipv6.of(link)).unwrap_or_default();
            reaching =
                entered.as_ref().filter(|_| machine.is_right()).and_then(|entered| self.reach(reaching, entered));
            self.publish(&machine, leasing.as_ref(), reaching.as_ref(), ipv6);
            if let Some(answer) = removed.take() {
                return self.leave(answer).await;
            }
        }
    }

    /// The parent, if a former daemon has taken it.
    async fn find_held(&self) -> Option<Held> {
        let taken = still_taken(self.host.as_ref(), &self.store, &self.spec).await?;
        Some(Held { index: taken.index, carrier: true, mac: taken.mac() })
    }

    /// Keeps on having the others reached, or begins, if that is what the NIC is for.
    fn reach(&self, reaching: Option<Reaching>, entered: &Entered) -> Option<Reaching> {
        let is_shim = self.spec.link == LinkKind::Shim;
        is_shim.then(|| reaching.unwrap_or_else(|| Reaching::start(self.site(entered), &self.reach)))
    }

    /// The NIC is removed.
    async fn leave(&self, answer: oneshot::Sender<()>) {
        self.reach.forget(&self.spec);
        self.routers.leave(self.host.as_ref(), &self.store, &self.spec).await;
        // A caller who has gone away needs no answer.
        let _ = answer.send(());
    }

    /// What a report of the kernel about the namespace means.
    async fn reported(&mut self, report: KernelEvent, entered: Option<&mut Entered>, link: Option<u32>) -> Vec<Event> {
        match report {
            KernelEvent::LinkGone(index) if Some(index) == link => {
                // Pulled out, or taken away by somebody: where it is now, the host shows.
                self.held = None;
                vec![Event::Parent(self.parent()), Event::LinkGone]
            }
            // By its name, since it may be reported before it is known that the move is done.
            KernelEvent::Link(now) if now.name == self.spec.name && self.held.is_some() => {
                self.held.iter_mut().for_each(|held| held.carrier = now.up && now.carrier);
                vec![Event::Parent(self.parent())]
            }
            KernelEvent::Lost => {
                if let Some(entered) = entered {
                    entered.learn().await;
                }
                vec![Event::Doubt]
            }
            // An address of IPv6 may have come or gone.
            _ => Vec::new(),
        }
    }

    /// Gives up the link, and gives this lease back. Returns whether the parent was taken and is none of ours any more.
    async fn abandon(&mut self, port: Option<Arc<dyn Port>>, link: Option<u32>, lease: Option<Leasing>) -> bool {
        if let Some(lease) = lease {
            lease.release().await;
        }
        give_up(self.host.as_ref(), port.as_deref(), &self.store, &self.spec, self.mac, link).await;
        self.held.take().is_some()
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
            if target != Target::Host {
                check_away(&namespace)?;
            }
            let Opened { port, events } = kernel.open_in(namespace.as_fd())?;
            let mut ipv6 = Ipv6Addresses::default();
            ipv6.replace(&port.snapshot().await?);
            Ok(Entered { namespace: Arc::new(namespace), port, events, ipv6 })
        }
        .boxed()
    }

    fn parent(&mut self) -> Option<Parent> {
        let seen = self.parent.borrow_and_update();
        match &self.held {
            Some(held) => Some(Parent { index: held.index, carrier: held.carrier }),
            None => seen.as_ref().map(|parent| Parent { index: parent.index, carrier: parent.carrier }),
        }
    }

    /// What follows from a change of the parent.
    fn parent_changed(&mut self) -> Vec<Event> {
        let mut events = vec![Event::Parent(self.parent())];
        // The kernel forgets for whom a link answers when that is switched off.
        if self.spec.link == LinkKind::Routed {
            events.push(Event::Doubt);
        }
        events
    }

    fn begin_to_lease(&self, entered: &Entered, link: u32) -> Leasing {
        let place = Workplace {
            port: entered.port.clone(),
            namespace: entered.namespace.clone(),
            link,
            mac: self.mac_of_parent().filter(|_| self.spec.link.has_mac_of_parent()).unwrap_or(self.mac),
            spec: self.spec.clone(),
            file: self.store.lease(&self.spec.key()),
        };
        Leasing::start(place, self.leased_parent())
    }

    fn mac_of_parent(&self) -> Option<Mac> {
        match self.parent.borrow().as_ref() {
            Some(parent) => parent.mac,
            None => self.held.as_ref().and_then(|held| held.mac),
        }
    }

    /// What the DHCP client has to know of the parent.
    fn leased_parent(&self) -> task::Parent {
        if let Some(held) = &self.held {
            return task::Parent { carrier: held.carrier, ..task::Parent::default() };
        }
        let parent = self.parent.borrow();
        parent.as_ref().map_or_else(task::Parent::default, |parent| task::Parent {
            carrier: parent.carrier,
            mtu: parent.mtu,
            addresses: parent.addresses.clone(),
        })
    }

    fn publish(
        &mut self,
        machine: &Machine,
        leasing: Option<&Leasing>,
        reaching: Option<&Reaching>,
        ipv6: Vec<Prefixed>,
    ) {
        let right = machine.is_right();
        let (parent, mac) = (self.parent.borrow().as_ref().map(|parent| parent.index), self.mac_of_parent());
        if let Some(leasing) = leasing {
            leasing.follow(self.leased_parent());
        }
        let gateway = self.spec.gateway.filter(|_| right).map(|gateway| gateway.to_string()).unwrap_or_default();
        let first = NicStatus::first(&self.spec, self.mac);
        let mut now = NicStatus {
            parent,
            mac: first.mac.or(mac),
            state: machine.state(),
            addresses: if right { self.spec.addresses.clone() } else { Vec::new() },
            gateway,
            error: machine.error().cloned().or_else(|| reaching.and_then(Reaching::error)),
            ..first
        };
        let progress = leasing.map(Leasing::progress);
        let has_begun = progress.as_ref().is_none_or(|progress| progress.lease.is_some() || progress.error.is_some());
        if let Some(progress) = progress {
            now.add(progress);
        }
        self.settled |= now.error.is_some() || (right && has_begun);
        if self.settled {
            self.reach.tell(&self.spec, v4(&now.addresses).into_iter().collect());
        }
        now.addresses.extend(ipv6);
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

    fn site(&self, entered: &Entered) -> Site {
        Site {
            host: self.host.clone(),
            port: entered.port.clone(),
            namespace: entered.namespace.clone(),
            spec: self.spec.clone(),
            mac: self.mac,
            store: self.store.clone(),
        }
    }

    fn perform(
        &mut self,
        effect: Effect,
        entered: &Entered,
        link: Option<u32>,
    ) -> Option<BoxFuture<'static, (Event, Option<u32>)>> {
        let (seen, site) = (self.parent.borrow().clone(), self.site(entered));
        match effect {
            Effect::Make { parent: index } => {
                if self.spec.link == LinkKind::Dedicated {
                    let held = seen.as_ref().map(|seen| Held { index, carrier: seen.carrier, mac: seen.mac });
                    self.held = held.or(self.held.take()).or(Some(Held { index, carrier: true, mac: None }));
                }
                let made = async move {
                    match make(&site, seen, index).await {
                        Ok(Made { link, fresh }) => (Event::Made { fresh }, Some(link)),
                        Err(error) => (Event::Failed(error), None),
                    }
                };
                Some(made.boxed())
            }
            Effect::Probe => {
                let link = link?;
                Some(async move { (probe(&site, seen, link).await.unwrap_or_else(Event::Failed), None) }.boxed())
            }
            Effect::Configure => {
                let link = link?;
                let fresh = self.fresh;
                let configured = async move {
                    match configure(&site, seen, link, fresh).await {
                        Ok(()) => (Event::Configured, None),
                        Err(error) => (Event::Failed(error), None),
                    }
                };
                Some(configured.boxed())
            }
            Effect::Announce => {
                let link = link?;
                let announced = async move {
                    if let Err(error) = announce(&site, seen, link).await {
                        tracing::debug!(nic = site.spec.name, "The addresses are not announced: {error}");
                    }
                    pending().await
                };
                Some(announced.boxed())
            }
            Effect::Abandon | Effect::Lease | Effect::Retry { .. } => None,
        }
    }
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

async fn next(entered: &mut Option<Entered>) -> KernelEvent {
    match entered {
        None => pending().await,
        Some(entered) => match entered.events.next().await {
            None => pending().await,
            Some(event) => {
                entered.ipv6.apply(&event);
                event
            }
        },
    }
}

async fn progress(leasing: &mut Option<Leasing>) {
    match leasing {
        None => pending().await,
        Some(leasing) => leasing.changed().await,
    }
}

async fn reached(reaching: &mut Option<Reaching>) {
    match reaching {
        None => pending().await,
        Some(reaching) => reaching.changed().await,
    }
}

/// The kernel forgets routes over a link, when that is switched off above all.
fn look_again(reaching: Option<&Reaching>, report: &KernelEvent, link: Option<u32>) {
    let is_about_it = match report {
        KernelEvent::Link(now) => Some(now.index) == link,
        KernelEvent::AddressGone(address) => Some(address.link) == link,
        KernelEvent::Lost => true,
        _ => false,
    };
    if let Some(reaching) = reaching.filter(|_| is_about_it) {
        reaching.look();
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
