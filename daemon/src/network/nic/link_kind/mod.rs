//! The kinds of links that a NIC can be: how each is made, taken over, set up on the side of the host, and given up.

mod dedicated;
mod routed;
mod shim;
#[cfg(test)]
mod tests;
mod upper;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

pub use self::dedicated::Taken;
pub use self::routed::Routers;
pub use self::shim::{Reach, Reaching};
use super::dhcp::record::{Record, Remembered};
use super::namespace::Namespace;
use super::parents::ParentLink;
use super::spec::{Mode, Spec};
use super::store::Store;
use crate::core::document::reason;
use crate::core::error::{Error, Kind};
use crate::network::address::{Mac, Prefixed};
use crate::network::kernel::{LinkRecord, Origin, Port, Route};

/// What the link of a NIC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A link of its own on top of the parent, with its own hardware address.
    Macvlan(Mode),
    /// The packets of one VLAN of the parent (IEEE 802.1Q).
    Vlan(u16),
    /// The parent itself, which moves into the namespace.
    Dedicated,
    /// One end of a pair, with the host as a router between it and the parent.
    Routed,
    /// A macvlan in the namespace of the daemon, by which the host reaches the others of the parent.
    Shim,
}

impl LinkKind {
    /// The word in specifications and on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Vlan(_) => "vlan",
            Self::Dedicated => "dedicated",
            Self::Routed => "routed",
            Self::Shim => "shim",
        }
    }

    /// The kernel's word for its link; none if that may be any.
    const fn kernel_word(self) -> Option<&'static str> {
        match self {
            Self::Macvlan(_) | Self::Shim => Some("macvlan"),
            Self::Vlan(_) => Some("vlan"),
            Self::Dedicated | Self::Routed => None,
        }
    }

    /// Whether the hardware address is that of the parent, and not one of its own.
    pub const fn has_mac_of_parent(self) -> bool {
        matches!(self, Self::Dedicated | Self::Macvlan(Mode::Passthru))
    }

    /// Whether nobody else can use the parent beside it.
    pub const fn is_alone(self) -> bool {
        self.has_mac_of_parent()
    }

    /// Refuses a parent that cannot be one.
    pub fn check(self, name: &str, parent: &ParentLink) -> Result<(), Error> {
        let unsuitable = |why: &str| Err(Error::new(Kind::UnsuitableLink, format!("The link \"{name}\" {why}.")));
        if parent.kind == "loopback" {
            return unsuitable("is the loopback; no NIC can use it");
        }
        if self == Self::Routed {
            return Ok(());
        }
        if parent.kind == "wireless" {
            return unsuitable(match self {
                Self::Dedicated => "is wireless, and its radio stays with the host; use the type \"routed\"",
                _ => {
                    "is wireless, and an access point drops what comes from further hardware addresses; use the type \
                     \"routed\""
                }
            });
        }
        if parent.is_port {
            return unsuitable("is a port of a bridge or bond; use that one");
        }
        if self != Self::Dedicated {
            return Ok(());
        }
        if parent.kind == "bridge" {
            return unsuitable("is a bridge, which cannot be moved");
        }
        if parent.default_route {
            let message =
                format!("The link \"{name}\" carries the default route of the host; it cannot be taken away.");
            return Err(Error::new(Kind::DefaultRoute, message));
        }
        if let Some(other) = &parent.carries {
            let message = format!("The link \"{name}\" carries the link \"{other}\"; it cannot be taken away.");
            return Err(Error::new(Kind::LinkInUse, message));
        }
        Ok(())
    }
}

/// What a link is made of: a NIC, and the namespaces on both sides of it.
#[derive(Debug, Clone)]
pub struct Site {
    /// The way into the daemon's own namespace.
    pub host: Arc<dyn Port>,
    /// The way into the namespace of the NIC.
    pub port: Arc<dyn Port>,
    /// The namespace of the NIC.
    pub namespace: Arc<Namespace>,
    /// What is to be.
    pub spec: Spec,
    /// Its hardware address; without meaning if that is the one of the parent.
    pub mac: Mac,
    /// What outlives the daemon.
    pub store: Store,
}

/// A link that stands in its namespace, up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Its number there.
    pub link: u32,
    /// Whether nothing can have used the addresses before.
    pub fresh: bool,
}

impl Site {
    /// Makes the link, or takes over the one that is there.
    pub async fn make(&self, parent: &ParentLink) -> Result<Made, Error> {
        match self.spec.link {
            LinkKind::Macvlan(_) | LinkKind::Vlan(_) => upper::make(self, parent).await,
            LinkKind::Dedicated => dedicated::take(self, parent).await,
            LinkKind::Routed => routed::make(self, parent).await,
            LinkKind::Shim => shim::make(self, parent).await,
        }
    }

    /// Sets up what the NIC needs on the side of the host once it may use its addresses; what is right is not touched.
    pub async fn configure_host(&self, parent: &ParentLink) -> Result<(), Error> {
        match self.spec.link {
            LinkKind::Routed => routed::configure_host(self, parent).await,
            _ => Ok(()),
        }
    }

    /// Where others would hear of the addresses: a namespace, and number and hardware address of a link in it.
    pub async fn wire(&self, link: u32, parent: &ParentLink) -> Result<Wire, Error> {
        if self.spec.link == LinkKind::Routed {
            let home = home().map_err(|error| {
                Error::new(Kind::Failed, format!("The own namespace cannot be opened: {}.", reason(&error)))
            })?;
            return Ok(Wire { namespace: Arc::new(home), link: parent.index, mac: parent.mac.unwrap_or(self.mac) });
        }
        let mac = if self.spec.link.has_mac_of_parent() {
            let found = self.port.link_named(&self.spec.name).await?;
            found.and_then(|found| Mac::from_slice(&found.address)).unwrap_or(self.mac)
        } else {
            self.mac
        };
        Ok(Wire { namespace: self.namespace.clone(), link, mac })
    }

    fn foreign(&self) -> Error {
        let message = format!("The namespace has a link \"{}\" already, which is not ours.", self.spec.name);
        Error::new(Kind::NotSupported, message)
    }

    fn vanished(&self) -> Error {
        Error::new(Kind::Failed, format!("The link \"{}\" was made and is not there.", self.spec.name))
    }

    /// Whether nothing can have used the addresses of a link that is there already. None if it has an address whose lease is
    /// over, or not known.
    async fn is_fresh(&self, link: u32, mac: Mac) -> Result<Option<bool>, Error> {
        let now = self.port.snapshot().await?;
        let of_link = || now.addresses.iter().filter(|now| now.link == link);
        let is_set = |address: Prefixed| of_link().any(|now| now.address == address);
        if self.spec.dhcp.is_none() {
            return Ok(Some(!self.spec.addresses.iter().copied().all(is_set)));
        }
        let bare = !of_link().any(|now| now.address.address.is_ipv4());
        let leased = match Record::new(self.store.lease(&self.spec.key()), mac).load() {
            Some(Remembered::Holds(held)) => is_set(held.lease.prefixed()),
            _ => false,
        };
        Ok((bare || leased).then_some(bare))
    }

    /// Takes the IPv4 addresses from a link.
    async fn clear(&self, link: u32) -> Result<(), Error> {
        let now = self.port.snapshot().await?;
        for found in now.addresses.iter().filter(|now| now.link == link && now.address.address.is_ipv4()) {
            self.port.remove_address(link, found.address).await?;
        }
        Ok(())
    }
}

/// Where somebody speaks ARP.
#[derive(Debug)]
pub struct Wire {
    namespace: Arc<Namespace>,
    /// Number of the link.
    pub link: u32,
    /// Its hardware address.
    pub mac: Mac,
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// Gives up the link of a NIC, also one whose making was given up half way, and what was set up for it on the host.
/// `port` leads into the namespace, if there still is one; `link` is the number of the link there, if it is known.
pub async fn give_up(
    host: &dyn Port,
    port: Option<&dyn Port>,
    store: &Store,
    spec: &Spec,
    mac: Mac,
    link: Option<u32>,
) {
    let given_up = match spec.link {
        LinkKind::Macvlan(_) | LinkKind::Vlan(_) | LinkKind::Shim => match port {
            Some(port) => upper::remove(port, spec, mac, link).await,
            None => Ok(()),
        },
        LinkKind::Dedicated => dedicated::give_back(host, port, store, spec).await,
        LinkKind::Routed => routed::remove(host, spec, mac).await,
    };
    if let Err(error) = given_up {
        tracing::warn!(nic = spec.name, "Something is left behind: {error}");
    }
}

/// Before a NIC begins: the link that a former daemon took, if it is still away. One that came home by itself, because its
/// namespace ended, gets its name and state back.
pub async fn still_taken(host: &dyn Port, store: &Store, spec: &Spec) -> Option<Taken> {
    if spec.link != LinkKind::Dedicated {
        return None;
    }
    match dedicated::still_taken(host, store, spec).await {
        Ok(taken) => taken,
        Err(error) => {
            tracing::error!(nic = spec.name, "Whether its link was taken before is not known: {error}");
            None
        }
    }
}

/// The namespace of the daemon itself.
fn home() -> std::io::Result<Namespace> {
    Namespace::open(&super::namespace::Target::Host)
}

/// Has exactly these addresses be reached over a link of the host, each by a route of its own. Routes of others stay as they
/// are; that one stands in the way is an error. Addresses to `keep` have their route if they have one.
async fn lead_to(
    host: &dyn Port,
    link: &LinkRecord,
    wanted: &BTreeSet<Ipv4Addr>,
    keep: &BTreeSet<Ipv4Addr>,
    metric: u32,
) -> Result<(), Error> {
    let there = host.routes(link.index, Origin::Specification).await?;
    let is_wanted = |route: &&Route| wanted.union(keep).any(|address| **route == Route::to_host(*address, metric));
    for route in there.iter().filter(|route| route.gateway.is_none() && route.destination.length == 32) {
        if !is_wanted(&route) {
            host.remove_route(link.index, *route).await?;
        }
    }
    let routes = wanted.iter().map(|address| Route::to_host(*address, metric));
    for route in routes.filter(|route| !there.contains(route)) {
        if !host.claim_route(link.index, route).await? {
            let message = format!(
                "The host has another route to \"{}\" already; it is left alone, and \"{}\" is not used.",
                route.destination.address, link.name
            );
            return Err(Error::new(Kind::AddressInUse, message));
        }
    }
    Ok(())
}

fn has_mac(link: &LinkRecord, mac: Mac) -> bool {
    link.address == mac.0
}

/// The IPv4 addresses among some.
pub fn v4(addresses: &[Prefixed]) -> Vec<Ipv4Addr> {
    let v4 = |prefixed: &Prefixed| match prefixed.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    addresses.iter().filter_map(v4).collect()
}
