//! The parents of the NICs, each followed for those that hang on it: a NIC hears of its own parent only, and only once
//! that has come to rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::network::address::{Mac, Prefixed};
use crate::network::link::{LinkStatus, Links};

/// How long what happens to a parent is gathered before its NICs hear of it: a cable that is plugged in brings several
/// changes at once, and a driver that loads anew takes its link away for a moment.
const SETTLE: Duration = Duration::from_millis(200);

/// What a NIC has to know of its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentLink {
    /// Its number.
    pub index: u32,
    /// What it is, in one word.
    pub kind: String,
    /// Its hardware address, if it has one.
    pub mac: Option<Mac>,
    /// Its largest packet in bytes.
    pub mtu: u32,
    /// Whether there is something at its other end.
    pub carrier: bool,
    /// How often it was switched off while it was watched.
    pub switched_off: u32,
    /// Whether a default route of the host leads over it.
    pub default_route: bool,
    /// Whether it is a port of a bridge or bond.
    pub is_port: bool,
    /// A link of the host that was made on top of it.
    pub carries: Option<String>,
    /// The addresses that the host has on it.
    pub addresses: Vec<Prefixed>,
}

impl ParentLink {
    /// The link with this name, as a parent.
    pub fn find(links: &Links, name: &str) -> Option<Self> {
        let link = links.values().find(|link| link.name == name)?;
        // The "parent" of a veth is its other end.
        let on_top = |other: &&Arc<LinkStatus>| {
            other.parent == Some(link.index) && ["vlan", "macvlan", "macvtap", "ipvlan"].contains(&other.kind.as_str())
        };
        Some(Self {
            index: link.index,
            kind: link.kind.clone(),
            mac: link.mac.parse().ok(),
            mtu: link.mtu,
            carrier: link.carrier,
            switched_off: link.switched_off,
            default_route: link.default_route,
            is_port: link.controller.is_some(),
            carries: links.values().find(on_top).map(|other| other.name.clone()),
            addresses: link.addresses.clone(),
        })
    }
}

/// All parents that somebody follows, by name.
#[derive(Debug, Default)]
pub struct Parents(BTreeMap<String, Parent>);

#[derive(Debug)]
struct Parent {
    /// As the mirror has it.
    seen: watch::Sender<Option<ParentLink>>,
    /// As the NICs have it.
    settled: Arc<watch::Sender<Option<ParentLink>>>,
}

impl Parents {
    /// Follows the link with this name. Has to be called inside the runtime.
    pub fn follow(&mut self, name: &str, links: &Links) -> watch::Receiver<Option<ParentLink>> {
        if let Some(parent) = self.0.get(name).filter(|parent| parent.settled.receiver_count() > 0) {
            return parent.settled.subscribe();
        }
        let now = ParentLink::find(links, name);
        let (seen, changes) = watch::channel(now.clone());
        let (settled, following) = watch::channel(now);
        let settled = Arc::new(settled);
        tokio::spawn(settle(changes, settled.clone()));
        self.0.insert(name.to_owned(), Parent { seen, settled });
        following
    }

    /// Takes in the links as they are now.
    pub fn update(&mut self, links: &Links) {
        // With the entry of a parent that nobody follows any more its task ends.
        self.0.retain(|_, parent| parent.settled.receiver_count() > 0);
        for (name, parent) in &self.0 {
            let now = ParentLink::find(links, name);
            parent.seen.send_if_modified(|seen| {
                let differs = *seen != now;
                *seen = now;
                differs
            });
        }
    }
}

/// Hands on what is seen once it had time to settle. Churn does not put that off: the time is counted from the first
/// change.
async fn settle(mut seen: watch::Receiver<Option<ParentLink>>, settled: Arc<watch::Sender<Option<ParentLink>>>) {
    while seen.changed().await.is_ok() {
        sleep(SETTLE).await;
        let now = seen.borrow_and_update().clone();
        settled.send_if_modified(|before| {
            let differs = *before != now;
            *before = now;
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::network::kernel::OperState;

    fn link(index: u32, name: &str, carrier: bool) -> (u32, Arc<LinkStatus>) {
        let status = LinkStatus {
            index,
            name: name.to_owned(),
            kind: "ethernet".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            mtu: 1500,
            oper_state: OperState::Up,
            carrier,
            addresses: Vec::new(),
            gateway: None,
            default_route: false,
            parent: None,
            controller: None,
            used_by: Vec::new(),
            switched_off: 0,
        };
        (index, Arc::new(status))
    }

    #[tokio::test]
    async fn a_nic_hears_of_its_own_parent_only_and_once() {
        let mut parents = Parents::default();
        let mut links = Links::from([link(2, "eth0", true), link(3, "eth1", true)]);
        let (mut one, other) = (parents.follow("eth0", &links), parents.follow("eth1", &links));
        // Many changes of one moment are one piece of news, and what is as before in the end is none at all.
        for carrier in [false, true, false] {
            links.extend([link(2, "eth0", carrier)]);
            parents.update(&links);
        }
        one.changed().await.unwrap();
        assert!(one.borrow_and_update().as_ref().is_some_and(|parent| !parent.carrier));
        assert!(!other.has_changed().unwrap());
        links.remove(&2);
        parents.update(&links);
        one.changed().await.unwrap();
        assert!(one.borrow_and_update().is_none());
    }

    #[tokio::test]
    async fn what_was_made_on_top_of_a_link_is_known() {
        let mut links = Links::from([link(2, "eth0", true)]);
        let (_, upper) = link(3, "eth0.7", true);
        let upper = LinkStatus { kind: "vlan".to_owned(), parent: Some(2), ..(*upper).clone() };
        links.insert(3, Arc::new(upper));
        assert_eq!(ParentLink::find(&links, "eth0").unwrap().carries.as_deref(), Some("eth0.7"));
        assert_eq!(ParentLink::find(&links, "eth0.7").unwrap().carries, None);
    }
}
