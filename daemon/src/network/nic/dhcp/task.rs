//! One DHCP client at work: does what its machine says, and tells the machine what happens.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::super::namespace::Namespace;
use super::super::probe::{Pace, Prober};
use super::super::retry_after;
use super::super::spec::Spec;
use super::lease::Lease;
use super::machine::{Client, Effect, Event, Held, Moment, Trouble};
use super::message::{Identity, Incoming};
use super::record::{Record, Remembered, since_boot, since_epoch};
use super::settings::Leased;
use super::transport::{Place, Transport};
use crate::core::error::{Error, Kind};
use crate::network::address::{Mac, Prefixed};
use crate::network::kernel::Port;

/// How long the end of a NIC waits for its lease to be given back.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// The longest sleep; the clock of the sleep stands still while the host is suspended, that of the lease does not.
const SLEEP_LIMIT: Duration = Duration::from_hours(1);

/// The link that the client works on.
pub struct Workplace {
    /// The way into its namespace.
    pub port: Arc<dyn Port>,
    /// Its namespace.
    pub namespace: Arc<Namespace>,
    /// Its number.
    pub link: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// What the NIC is to be.
    pub spec: Spec,
    /// Where its lease is kept.
    pub file: PathBuf,
}

/// What the client has to know of the parent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parent {
    /// Whether there is something at its other end.
    pub carrier: bool,
    /// Its MTU.
    pub mtu: u32,
    /// The addresses of IPv4 that the host has on it.
    pub addresses: Vec<Prefixed>,
}

/// How far the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The state in one word.
    pub state: &'static str,
    /// The lease that the link is in line with.
    pub lease: Option<Lease>,
    /// When it ends, in seconds since 1970; 0 if never, or without a lease.
    pub expires: u64,
    /// What is not as it should be.
    pub error: Option<Error>,
}

/// A client that works until this is dropped. The lease outlives it, on the link and on disk.
#[derive(Debug)]
pub struct Leasing {
    progress: watch::Receiver<Progress>,
    parent: watch::Sender<Parent>,
    release: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Leasing {
    /// Begins to lease an address. Has to be called inside the runtime.
    pub fn start(place: Workplace, parent: Parent) -> Self {
        let first = Progress { state: "acquiring", lease: None, expires: 0, error: None };
        let (progress_sender, progress) = watch::channel(first);
        let (parent, parents) = watch::channel(parent);
        let (release, released) = oneshot::channel();
        let task = tokio::spawn(Task::run(place, parents, progress_sender, released));
        Self { progress, parent, release: Some(release), task }
    }

    /// Returns when there is progress.
    pub async fn changed(&mut self) {
        if self.progress.changed().await.is_err() {
            pending::<()>().await;
        }
    }

    /// How far the client is.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Tells how the parent is now.
    pub fn follow(&self, parent: Parent) {
        self.parent.send_if_modified(|before| {
            let changed = *before != parent;
            *before = parent;
            changed
        });
    }

    /// Gives the lease back.
    pub async fn release(mut self) {
        if let Some(release) = self.release.take()
            && release.send(()).is_ok()
            && timeout(RELEASE_LIMIT, &mut self.task).await.is_err()
        {
            tracing::warn!("A lease is not given back in time");
        }
    }
}

impl Drop for Leasing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The client with everything it needs.
struct Task {
    place: Workplace,
    identity: Identity,
    record: Option<Record>,
    client: Client,
    parent: Parent,
    /// The subnets that the host had last on the parent, if it had any.
    subnets: Vec<Prefixed>,
    /// The lease that the link is in line with.
    applied: Option<Lease>,
    /// The lease of which something may be on the link, also if not all of it could be set.
    attempted: Option<Lease>,
    expires: u64,
    transport: Option<Transport>,
    router: Option<Mac>,
    probing: Option<BoxFuture<'static, Event>>,
    again: Option<BoxFuture<'static, ()>>,
    failures: u32,
    error: Option<Error>,
}

impl Task {
    async fn run(
        place: Workplace,
        mut parents: watch::Receiver<Parent>,
        progress: watch::Sender<Progress>,
        mut released: oneshot::Receiver<()>,
    ) {
        let mut record = Record::new(place.file.clone(), place.mac);
        let (held, wanted) = Self::remember(&place, &mut record).await;
        let host_name = place.spec.dhcp.as_ref().and_then(|dhcp| dhcp.host_name.clone());
        let mut task = Self {
            identity: Identity { mac: place.mac, host_name },
            applied: held.as_ref().map(|held| held.lease.clone()),
            attempted: held.as_ref().map(|held| held.lease.clone()),
            expires: held.as_ref().map_or(0, expiry),
            client: Client::new(place.spec.conflict, held, wanted),
            place,
            record: Some(record),
            parent: Parent::default(),
            subnets: Vec::new(),
            transport: None,
            router: None,
            probing: None,
            again: None,
            failures: 0,
            error: None,
        };
        parents.mark_changed();
        loop {
            let due = task.client.due().map(|due| due.saturating_sub(since_boot()).min(SLEEP_LIMIT));
            let place = &task.place;
            let events = tokio::select! {
                ended = &mut released => match ended {
                    Ok(()) => vec![Event::Release],
                    Err(_) => return,
                },
                changed = parents.changed() => match changed {
                    Ok(()) => {
                        let parent = parents.borrow_and_update().clone();
                        task.follow(parent)
                    }
                    Err(_) => return,
                },
                (incoming, station) = receive(task.transport.as_ref(), place) => {
                    task.router = Some(station);
                    vec![Event::Answered(incoming)]
                }
                () = sleep_for(due) => vec![Event::Due],
                event = ongoing(&mut task.probing) => {
                    task.probing = None;
                    vec![event]
                }
                () = ongoing(&mut task.again) => {
                    task.again = None;
                    if let Some(held) = task.client.held().cloned() {
                        task.put_to_use(held).await;
                    }
                    Vec::new()
                }
            };
            let end = events.contains(&Event::Release);
            for event in events {
                for effect in task.client.step(moment(), event) {
                    task.perform(effect).await;
                }
            }
            if end {
                return;
            }
            if !task.client.listens() {
                task.transport = None;
            }
            let now = task.progress();
            progress.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
    }

    /// The lease of before: it is held if its address is on the link. An address on the link that is not leased any more
    /// was taken away with the link.
    async fn remember(place: &Workplace, record: &mut Record) -> (Option<Held>, Option<(Ipv4Addr, bool)>) {
        match record.load() {
            None => (None, None),
            Some(Remembered::Holds(held)) => {
                let wanted = Some((held.lease.address, true));
                let now = place.port.snapshot().await.unwrap_or_default();
                let here = now.addresses.iter().any(|a| a.link == place.link && a.address == held.lease.prefixed());
                (here.then_some(held), wanted)
            }
            Some(Remembered::MayHold(lease)) => (None, Some((lease.address, true))),
            Some(Remembered::Over(lease)) => (None, Some((lease.address, false))),
        }
    }

    /// What the change of the parent means.
    fn follow(&mut self, parent: Parent) -> Vec<Event> {
        let mut events = Vec::new();
        if parent.carrier != self.parent.carrier {
            events.push(Event::Carrier(parent.carrier));
        }
        let subnets = subnets(&parent.addresses);
        // Between two addresses the host may have none, which says nothing.
        if !subnets.is_empty() && subnets != self.subnets {
            if !self.subnets.is_empty() && !events.contains(&Event::Carrier(true)) {
                events.push(Event::Moved);
            }
            self.subnets = subnets;
        }
        self.parent = parent;
        events
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send(message) => {
                let place = Place {
                    namespace: self.place.namespace.as_fd(),
                    link: self.place.link,
                    name: &self.place.spec.name,
                };
                let own = self.applied.as_ref().map(|lease| lease.address);
                let transport = match self.transport.take() {
                    Some(transport) => Ok(transport),
                    None => Transport::open(place, own),
                };
                let sent = transport.and_then(|transport| {
                    let sent = transport.send(&message, &self.identity, self.router);
                    self.transport = Some(transport);
                    sent
                });
                tracing::debug!(nic = self.place.spec.name, ?message, "DHCP");
                if let Err(error) = sent {
                    // It is sent again after a while, as if it had been lost on the way.
                    tracing::debug!(nic = self.place.spec.name, "A DHCP message is not sent: {error}");
                }
            }
            Effect::Probe(address) => {
                let probed = ask(&self.place, address, Pace::Short);
                let probed = probed.map(move |taken| match taken {
                    Ok(Some(owner)) => Event::Taken(address, owner),
                    // Whoever cannot ask has the word of the server.
                    Ok(None) | Err(_) => Event::Clear,
                });
                self.probing = Some(probed.boxed());
            }
            Effect::Use(held) => self.put_to_use(held).await,
            Effect::Withdraw => self.withdraw().await,
        }
    }

    /// Keeps a lease and brings the link in line with it; what fails is tried again.
    async fn put_to_use(&mut self, held: Held) {
        let before = self.applied.clone();
        match self.try_to_use(&held).await {
            Ok(refused) => {
                if let Some(error) = &refused {
                    tracing::warn!(nic = self.place.spec.name, "A route of a lease is left out. {error}");
                }
                self.error = refused;
                self.failures = 0;
                self.again = None;
                self.expires = expiry(&held);
                self.applied = Some(held.lease.clone());
                let address = held.lease.address;
                if before.is_none_or(|before| before.address != address) {
                    self.probing = Some(watch_over(&self.place, address));
                }
            }
            Err(error) => {
                tracing::warn!(nic = self.place.spec.name, "A lease cannot be used. {error}");
                self.again = Some(sleep(retry_after(self.failures)).boxed());
                self.failures = self.failures.saturating_add(1);
                self.error = Some(error);
            }
        }
    }

    /// Brings the link in line with a lease; returns what the kernel thinks of a route that it does not take.
    async fn try_to_use(&mut self, held: &Held) -> Result<Option<Error>, Error> {
        let before = self.attempted.clone();
        if let Some(before) = &before {
            self.leased().make_room(before, &held.lease).await?;
        }
        if let Some(mut record) = self.record.take() {
            let held = held.clone();
            let kept = spawn_blocking(move || (record.keep(&held), record)).await;
            let (kept, record) =
                kept.map_err(|error| Error::new(Kind::Failed, format!("A lease is not kept: {error}.")))?;
            self.record = Some(record);
            // A disk that is full or gone is no reason to be without an address.
            if let Err(error) = kept {
                tracing::error!(nic = self.place.spec.name, "A lease will not outlive the daemon. {error}");
            }
        }
        self.attempted = Some(held.lease.clone());
        Ok(self.leased().apply(&held.lease, before.as_ref()).await?.map(Error::from))
    }

    async fn withdraw(&mut self) {
        self.again = None;
        self.probing = None;
        // The port is that of the address.
        self.transport = None;
        self.applied = None;
        if let Some(lease) = self.attempted.take()
            && let Err(error) = self.leased().withdraw(&lease).await
        {
            tracing::warn!(nic = self.place.spec.name, "What came with a lease is not all gone. {error}");
        }
        if let Some(record) = &mut self.record
            && let Err(error) = record.forget()
        {
            tracing::warn!(nic = self.place.spec.name, "A lease is not forgotten. {error}");
        }
    }

    fn leased(&self) -> Leased<'_> {
        Leased {
            port: self.place.port.as_ref(),
            link: self.place.link,
            metric: self.place.spec.metric,
            fixed_mtu: self.place.spec.mtu.is_some(),
            parent_mtu: (self.parent.mtu > 0).then_some(self.parent.mtu),
        }
    }

    fn progress(&self) -> Progress {
        let trouble = self.client.trouble().map(|trouble| explain(trouble, &self.place.spec));
        let in_use = self.applied.is_some() || self.client.held().is_none();
        Progress {
            state: if in_use { self.client.state() } else { "failed" },
            lease: self.applied.clone(),
            expires: self.applied.as_ref().map_or(0, |_| self.expires),
            error: self.error.clone().or(trouble),
        }
    }
}

fn explain(trouble: &Trouble, spec: &Spec) -> Error {
    let name = &spec.name;
    match trouble {
        Trouble::Silence => {
            Error::new(Kind::Failed, format!("No DHCP server answers the NIC \"{name}\" on \"{}\".", spec.parent))
        }
        Trouble::NotRenewed => {
            Error::new(Kind::Failed, format!("No DHCP server renews the lease of the NIC \"{name}\"."))
        }
        Trouble::Refused { server, reason } if reason.is_empty() => Error::new(
            Kind::Failed,
            format!("The DHCP server \"{server}\" refuses the NIC \"{name}\" the address it asks for."),
        ),
        Trouble::Refused { server, reason } => Error::new(
            Kind::Failed,
            format!("The DHCP server \"{server}\" refuses the NIC \"{name}\" the address it asks for: {reason}."),
        ),
        Trouble::Taken(address, owner) => Error::new(
            Kind::AddressInUse,
            format!("The address \"{address}\" that the NIC \"{name}\" was leased is in use by \"{owner}\"."),
        ),
    }
}

/// When a lease ends by the time of the world as the host knows it now; 0 if never.
fn expiry(held: &Held) -> u64 {
    held.ends_at().map_or(0, |ends| (since_epoch() + ends.saturating_sub(since_boot())).as_secs())
}

/// Asks whether somebody has an address.
fn ask(
    place: &Workplace,
    address: Ipv4Addr,
    tempo: Pace,
) -> impl Future<Output = std::io::Result<Option<Mac>>> + Send + 'static + use<> {
    let (namespace, link, mac) = (place.namespace.clone(), place.link, place.mac);
    async move {
        let prober = Prober::open(namespace.as_fd(), link, mac, vec![address])?;
        Ok(prober.probe(tempo).await?.map(|(_, owner)| owner))
    }
}

/// Tells everybody about an address that was just set, and listens on for somebody who has it, too.
fn watch_over(place: &Workplace, address: Ipv4Addr) -> BoxFuture<'static, Event> {
    let asked = ask(place, address, Pace::Full);
    let (namespace, link, mac) = (place.namespace.clone(), place.link, place.mac);
    async move {
        let announced = async {
            if let Ok(prober) = Prober::open(namespace.as_fd(), link, mac, vec![address]) {
                // Whoever did not hear it asks.
                prober.announce().await.ok();
            }
            pending::<()>().await;
        };
        tokio::select! {
            () = announced => pending().await,
            taken = asked => match taken {
                Ok(Some(owner)) => Event::Taken(address, owner),
                Ok(None) | Err(_) => Event::Clear,
            },
        }
    }
    .boxed()
}

/// The networks of these addresses.
fn subnets(addresses: &[Prefixed]) -> Vec<Prefixed> {
    let network = |prefixed: &Prefixed| match prefixed.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefixed.length)).unwrap_or_default();
            let address = IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask));
            Some(Prefixed { address, length: prefixed.length })
        }
        IpAddr::V6(_) => None,
    };
    let mut networks: Vec<Prefixed> = addresses.iter().filter_map(network).collect();
    networks.sort();
    networks.dedup();
    networks
}

fn moment() -> Moment {
    let mut bytes = [0; 8];
    // Without randomness the number of an exchange can be guessed, by those who can read it off the wire anyway.
    let _ = SystemRandom::new().fill(&mut bytes);
    Moment { at: since_boot(), random: u64::from_ne_bytes(bytes) }
}

async fn receive(transport: Option<&Transport>, place: &Workplace) -> (Incoming, Mac) {
    let Some(transport) = transport else { return pending().await };
    match transport.receive(place.mac).await {
        Ok(received) => received,
        Err(error) => {
            // The link went down; what comes next is told by the parent or by the clock.
            tracing::debug!(nic = place.spec.name, "No DHCP answer can be read: {error}");
            pending().await
        }
    }
}

async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => pending().await,
    }
}

async fn ongoing<T>(doing: &mut Option<BoxFuture<'static, T>>) -> T {
    match doing {
        Some(doing) => doing.await,
        None => pending().await,
    }
}
