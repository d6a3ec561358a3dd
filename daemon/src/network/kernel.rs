//! The kernel's network as this domain sees it: a trait with one real implementation and a scripted one for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::address::{Mac, Prefixed};
use super::nic::spec::Mode;

/// What the kernel says about the state of a link (RFC 2863, `IF_OPER_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperState {
    /// The driver tells nothing, which is usual for loopback and tun.
    Unknown,
    /// The hardware is away.
    NotPresent,
    /// Not up, or without carrier.
    Down,
    /// The link below is not up.
    LowerLayerDown,
    /// In a test mode.
    Testing,
    /// Waits for something, such as authentication.
    Dormant,
    /// Carries traffic.
    Up,
}

impl OperState {
    /// The word on the bus, as `ip link` has it but in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotPresent => "not-present",
            Self::Down => "down",
            Self::LowerLayerDown => "lower-layer-down",
            Self::Testing => "testing",
            Self::Dormant => "dormant",
            Self::Up => "up",
        }
    }
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRecord {
    /// Number of the link, unique in its namespace while it exists.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// What it is, in one word: `ethernet`, `wireless`, `bridge`, `vlan`, `bond`, `macvlan`, `veth`, `loopback` ...
    pub kind: String,
    /// Hardware address; of any length, also none.
    pub address: Vec<u8>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// State.
    pub oper_state: OperState,
    /// Whether it is switched on (`IFF_UP`).
    pub up: bool,
    /// Whether there is something at the other end.
    pub carrier: bool,
    /// The link below it, for macvlan and the like; the other end of a veth. It may be one of another namespace.
    pub parent: Option<u32>,
    /// The bridge or bond that it is a port of.
    pub controller: Option<u32>,
    /// What somebody wrote on it (`IFLA_IFALIAS`); empty if nobody did.
    pub alias: String,
}

/// What a link on top of another one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// A macvlan; this mode says who hears whom.
    Macvlan(Mode),
    /// A VLAN with this number (IEEE 802.1Q).
    Vlan(u16),
}

/// A link on top of another one that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    /// Name in the namespace.
    pub name: String,
    /// Number of the parent, in the namespace of the port.
    pub parent: u32,
    /// Hardware address; the kernel's choice if none is given.
    pub mac: Option<Mac>,
    /// Largest packet; that of the parent if none is given.
    pub mtu: Option<u32>,
    /// What it is.
    pub upper: Upper,
}

/// A pair of links that is to be made: what goes into one end comes out of the other (`veth(4)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPair {
    /// Name of the end in the namespace of the port.
    pub near: String,
    /// Hardware address of that end.
    pub near_mac: Mac,
    /// Name of the other end, in its namespace.
    pub far: String,
    /// Hardware address of the other end.
    pub mac: Mac,
    /// Largest packet of both ends.
    pub mtu: u32,
}

/// What is to become of a link, in one request; what is none stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkChange<'a> {
    /// The namespace it moves to. Its addresses are lost on the way, and it is down afterwards unless `up` says otherwise.
    pub namespace: Option<BorrowedFd<'a>>,
    /// Its name, in that namespace. A link that is up may refuse another one.
    pub name: Option<&'a str>,
    /// Whether it is switched on.
    pub up: Option<bool>,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// What is written on it.
    pub alias: Option<&'a str>,
}

/// A setting that IPv4 has for each link (`net.ipv4.conf` in `ip-sysctl`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inet {
    /// Whether packets that come in by the link may go on to others.
    Forwarding,
    /// Whether the host answers ARP there for everybody whom it reaches by other links.
    ProxyArp,
    /// Whether the host answers ARP there for the addresses of that link only, and not for those of its other links.
    ArpIgnore,
    /// Whether the host asks by ARP there with the addresses of that link only.
    ArpAnnounce,
}

/// A route that is not a default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticRoute {
    /// Where it leads to.
    pub destination: Prefixed,
    /// The router; none if everybody there is reached directly.
    pub via: Option<Ipv4Addr>,
    /// Preference; the lowest wins.
    pub metric: u32,
}

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRecord {
    /// The link.
    pub link: u32,
    /// The address.
    pub address: Prefixed,
    /// Whether it is good beyond the link (`RT_SCOPE_UNIVERSE`).
    pub global: bool,
}

/// A default route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefaultRoute {
    /// Preference; the lowest wins.
    pub metric: u32,
    /// Whether it is for IPv6.
    pub v6: bool,
    /// The link it leads to.
    pub link: u32,
    /// The router; none on links where everybody is reached directly.
    pub gateway: Option<IpAddr>,
}

/// Where a route is from, as the kernel keeps it (`rtm_protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A lease.
    Lease,
    /// What somebody asked for.
    Specification,
}

/// A route over a link that is to be set, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The network it leads to.
    pub destination: Prefixed,
    /// The router; none if the network is on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// Preference; the lowest wins.
    pub metric: u32,
    /// Whether the router is on the link although no address there says so.
    pub on_link: bool,
    /// Where it is from.
    pub origin: Origin,
}

impl Route {
    /// The route to one host that is on the link itself.
    pub const fn to_host(address: Ipv4Addr, metric: u32) -> Self {
        let destination = Prefixed { address: IpAddr::V4(address), length: 32 };
        Self { destination, gateway: None, metric, on_link: false, origin: Origin::Specification }
    }
}

/// All that is mirrored, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Links.
    pub links: Vec<LinkRecord>,
    /// Addresses.
    pub addresses: Vec<AddressRecord>,
    /// Default routes.
    pub routes: Vec<DefaultRoute>,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// A link appeared or changed.
    Link(LinkRecord),
    /// A link vanished.
    LinkGone(u32),
    /// An address appeared or changed.
    Address(AddressRecord),
    /// An address vanished.
    AddressGone(AddressRecord),
    /// A default route appeared.
    Route(DefaultRoute),
    /// A default route vanished.
    RouteGone(DefaultRoute),
    /// The kernel had more to say than the socket could hold: everything has to be asked for anew.
    Lost,
}

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Cannot {action}: {reason}.")]
pub struct KernelError {
    /// What was to be done, such as `list the links`.
    pub action: String,
    /// The kernel's reason in words.
    pub reason: String,
    /// The kernel's reason as a number, if it gave one.
    pub errno: Option<i32>,
}

/// Counters of a link, by name.
pub type Statistics = BTreeMap<&'static str, u64>;

/// The answer of the kernel, when it comes.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, KernelError>>;

/// A way into one network namespace.
pub trait Port: fmt::Debug + Send + Sync {
    /// Everything that is there now.
    fn snapshot(&self) -> Answer<'_, Snapshot>;
    /// The default routes that are there now.
    fn default_routes(&self) -> Answer<'_, Vec<DefaultRoute>>;
    /// The link with this name, if there is one. Costs the same however many links there are.
    fn link_named<'a>(&'a self, name: &'a str) -> Answer<'a, Option<LinkRecord>>;
    /// Makes a link in another namespace in one request, up and without an address. Nothing is left of a request that
    /// fails.
    fn make_link<'a>(&'a self, link: &'a NewLink, namespace: BorrowedFd<'a>) -> Answer<'a, ()>;
    /// Makes a pair with the other end in another namespace, likewise, but with that end down: the kernel makes it first, and
    /// refuses to switch on what has no other end yet.
    fn make_pair<'a>(&'a self, pair: &'a NewPair, namespace: BorrowedFd<'a>) -> Answer<'a, ()>;
    /// Changes a link.
    fn change_link<'a>(&'a self, link: u32, change: LinkChange<'a>) -> Answer<'a, ()>;
    /// Whether a setting of a link is on.
    fn inet(&self, link: u32, setting: Inet) -> Answer<'_, bool>;
    /// Switches a setting of a link.
    fn set_inet(&self, link: u32, setting: Inet, on: bool) -> Answer<'_, ()>;
    /// Has the host answer ARP on a link for one address that is elsewhere; that it does so already is fine.
    fn add_proxy(&self, link: u32, address: Ipv4Addr) -> Answer<'_, ()>;
    /// Ends that; that it does not is fine.
    fn remove_proxy(&self, link: u32, address: Ipv4Addr) -> Answer<'_, ()>;
    /// Adds a route over a link; the very same route is not touched.
    fn add_route(&self, link: u32, route: StaticRoute) -> Answer<'_, ()>;
    /// Removes a link.
    fn remove_link(&self, link: u32) -> Answer<'_, ()>;
    /// Adds an address to a link.
    fn add_address(&self, link: u32, address: Prefixed) -> Answer<'_, ()>;
    /// Adds a default route over a link, in place of one with the same metric.
    fn add_default_route(&self, link: u32, gateway: Ipv4Addr, metric: u32) -> Answer<'_, ()>;
    /// Removes an address from a link.
    fn remove_address(&self, link: u32, address: Prefixed) -> Answer<'_, ()>;
    /// The IPv4 routes over a link that are from there.
    fn routes(&self, link: u32, origin: Origin) -> Answer<'_, Vec<Route>>;
    /// Sets a route, in place of one with the same destination and metric.
    fn set_route(&self, link: u32, route: Route) -> Answer<'_, ()>;
    /// Sets a route if there is none with the same destination and metric, by whatever link; tells whether there was none.
    fn claim_route(&self, link: u32, route: Route) -> Answer<'_, bool>;
    /// Removes such a route; it is fine if there is none.
    fn remove_route(&self, link: u32, route: Route) -> Answer<'_, ()>;
    /// Sets the largest packet of a link.
    fn set_mtu(&self, link: u32, mtu: u32) -> Answer<'_, ()>;
    /// The counters of a link.
    fn statistics(&self, link: u32) -> Answer<'_, Statistics>;
}

/// A port and what is reported through it from then on. An event may be older than what the port answers: whoever
/// applies the events to an answer in their order has the present state after the last of them.
pub struct Opened {
    /// The way in.
    pub port: Arc<dyn Port>,
    /// What changes.
    pub events: BoxStream<'static, KernelEvent>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Opened").field("port", &self.port).finish_non_exhaustive()
    }
}

/// The kernel.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// Opens a port to the namespace of the daemon. Has to be called inside the runtime that will use it.
    fn open(&self) -> Result<Opened, KernelError>;
    /// Opens a port to this namespace, likewise.
    fn open_in(&self, namespace: BorrowedFd<'_>) -> Result<Opened, KernelError>;
}
