//! What is known about the links of one namespace: plain state, fed with what the kernel says.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::address::{Mac, Prefixed};
use super::kernel::{AddressRecord, DefaultRoute, KernelEvent, LinkRecord, OperState, Snapshot};

/// A link as the outside sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Number of the link.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What it is, in one word.
    pub kind: String,
    /// Hardware address with colons; empty if there is none.
    pub mac: String,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// State.
    pub oper_state: OperState,
    /// Whether it is up and there is something at the other end.
    pub carrier: bool,
    /// Addresses, IPv4 first.
    pub addresses: Vec<Prefixed>,
    /// Router of the default route over this link, IPv4 first.
    pub gateway: Option<IpAddr>,
    /// Whether a default route leads over it, with a router or without.
    pub default_route: bool,
    /// The link below it, or the other end of a veth.
    pub parent: Option<u32>,
    /// The bridge or bond that it is a port of.
    pub controller: Option<u32>,
    /// The NICs that use it, by name: those that hang on it, and the one that the daemon made it for.
    pub used_by: Vec<String>,
    /// How often it was switched off while it was watched: with that the kernel forgets some of what was set on it.
    pub switched_off: u32,
}

/// What the daemon writes on a link that it makes in its own namespace (`IFLA_IFALIAS`), before the name of the NIC that
/// it is for. Links without it are never removed.
pub const OWN: &str = "orchestratord: ";

/// Links, by their number.
pub type Links = BTreeMap<u32, Arc<LinkStatus>>;

/// What has to be asked for after an event, because the kernel does not report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing.
    Nothing,
    /// The default routes: the kernel drops those of IPv4 without a word when a link goes down or loses an address.
    Routes,
    /// Everything.
    All,
}

/// The links of one namespace with their addresses and default routes.
#[derive(Debug, Default)]
pub struct Mirror {
    records: BTreeMap<u32, LinkRecord>,
    addresses: BTreeSet<AddressRecord>,
    routes: BTreeSet<DefaultRoute>,
    /// How often links were switched off, by their number.
    switched_off: BTreeMap<u32, u32>,
    /// The links that NICs hang on, by the name of the NIC.
    users: BTreeMap<String, u32>,
    /// What the outside sees; an entry is replaced only if it differs, so that equal pointers mean equal links.
    links: Links,
}

impl Mirror {
    /// Takes in everything; what was known before is forgotten.
    pub fn replace(&mut self, snapshot: Snapshot) {
        self.records = snapshot.links.into_iter().map(|record| (record.index, record)).collect();
        self.addresses = snapshot.addresses.into_iter().collect();
        self.routes = snapshot.routes.into_iter().collect();
        self.links.retain(|index, _| self.records.contains_key(index));
        let all: Vec<u32> = self.records.keys().copied().collect();
        for index in all {
            self.refresh(index);
        }
    }

    /// Takes in the default routes.
    pub fn replace_routes(&mut self, routes: Vec<DefaultRoute>) {
        let before = std::mem::replace(&mut self.routes, routes.into_iter().collect());
        let touched: BTreeSet<u32> = before.symmetric_difference(&self.routes).map(|route| route.link).collect();
        for index in touched {
            self.refresh(index);
        }
    }

    /// Takes in a change, and says what is not known after it.
    pub fn apply(&mut self, event: KernelEvent) -> Unknown {
        let (index, unknown) = match event {
            KernelEvent::Link(record) => {
                let index = record.index;
                let was_up = self.records.get(&index).is_some_and(|before| before.up);
                let switched_off = was_up && !record.up;
                let unknown = if switched_off { Unknown::Routes } else { Unknown::Nothing };
                if switched_off {
                    *self.switched_off.entry(index).or_default() += 1;
                }
                self.records.insert(index, record);
                (index, unknown)
            }
            KernelEvent::LinkGone(index) => {
                self.records.remove(&index);
                self.links.remove(&index);
                self.switched_off.remove(&index);
                self.addresses.retain(|address| address.link != index);
                self.routes.retain(|route| route.link != index);
                (index, Unknown::Nothing)
            }
            KernelEvent::Address(record) => {
                self.addresses.insert(record);
                (record.link, Unknown::Nothing)
            }
            KernelEvent::AddressGone(record) => {
                self.addresses.remove(&record);
                (record.link, Unknown::Routes)
            }
            KernelEvent::Route(route) => {
                self.routes.insert(route);
                (route.link, Unknown::Nothing)
            }
            KernelEvent::RouteGone(route) => {
                self.routes.remove(&route);
                (route.link, Unknown::Nothing)
            }
            KernelEvent::Lost => return Unknown::All,
        };
        self.refresh(index);
        unknown
    }

    /// Takes in which link a NIC hangs on now.
    pub fn set_user(&mut self, nic: &str, link: Option<u32>) {
        let before = match link {
            Some(index) => self.users.insert(nic.to_owned(), index),
            None => self.users.remove(nic),
        };
        if before != link {
            before.into_iter().chain(link).for_each(|index| self.refresh(index));
        }
    }

    /// The NICs that use a link.
    fn used_by(&self, record: &LinkRecord) -> Vec<String> {
        let made_for = record.alias.strip_prefix(OWN).map(str::to_owned);
        let hanging = self.users.iter().filter(|(_, index)| **index == record.index).map(|(nic, _)| nic.clone());
        made_for.into_iter().chain(hanging).collect()
    }

    fn refresh(&mut self, index: u32) {
        let Some(record) = self.records.get(&index) else { return };
        let mut addresses: Vec<Prefixed> =
            self.addresses.iter().filter(|address| address.link == index).map(|record| record.address).collect();
        addresses.sort();
        let best = self.routes.iter().filter(|route| route.link == index).min_by_key(|route| (route.v6, route.metric));
        let link = LinkStatus {
            index,
            name: record.name.clone(),
            kind: record.kind.clone(),
            mac: mac_text(&record.address),
            mtu: record.mtu,
            oper_state: record.oper_state,
            carrier: record.up && record.carrier,
            addresses,
            gateway: best.and_then(|route| route.gateway),
            default_route: best.is_some(),
            parent: record.parent,
            controller: record.controller,
            used_by: self.used_by(record),
            switched_off: self.switched_off.get(&index).copied().unwrap_or_default(),
        };
        if self.links.get(&index).is_none_or(|before| **before != link) {
            self.links.insert(index, Arc::new(link));
        }
    }

    /// All links.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The link that packets to the world take: of the default routes the one with the lowest metric, IPv4 before IPv6;
    /// routes over links without carrier come last.
    pub fn default_link(&self) -> Option<u32> {
        let usable = |route: &&DefaultRoute| self.links.contains_key(&route.link);
        let rank = |route: &&DefaultRoute| (!self.has_carrier(route.link), route.v6, route.metric, route.link);
        self.routes.iter().filter(usable).min_by_key(rank).map(|route| route.link)
    }

    /// Whether packets to the world have a way to leave: a default link with carrier and an address that is good beyond
    /// it.
    pub fn online(&self) -> bool {
        self.default_link().is_some_and(|link| {
            self.has_carrier(link) && self.addresses.iter().any(|address| address.link == link && address.global)
        })
    }

    fn has_carrier(&self, link: u32) -> bool {
        self.links.get(&link).is_some_and(|link| link.carrier)
    }
}

fn mac_text(address: &[u8]) -> String {
    match Mac::from_slice(address) {
        Some(Mac([0, 0, 0, 0, 0, 0])) => String::new(),
        Some(mac) => mac.to_string(),
        None => address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
    }
}
