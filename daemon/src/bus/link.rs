//! `org.orchestratord1.Link`: one network link of the host.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

use std::collections::BTreeMap;

use tokio::sync::watch;
use zbus::{OwnedObjectPath, interface};

use super::view::{lines, nic_path, text, view};
use crate::network::handle::NetworkHandle;
use crate::network::link::LinkStatus;

view! {
    /// What a Link shows.
    LinkView of "org.orchestratord1.Link" {
        "Name" name: String,
        "Mac" mac: String,
        "Mtu" mtu: u32,
        "OperState" oper_state: String,
        "Carrier" carrier: bool,
        "Addresses" addresses: Vec<String>,
        "Gateway" gateway: String,
        "UsedBy" used_by: Vec<OwnedObjectPath>,
    }
}

impl From<&LinkStatus> for LinkView {
    fn from(status: &LinkStatus) -> Self {
        Self {
            name: text(status.name.as_str()),
            mac: status.mac.clone(),
            mtu: status.mtu,
            oper_state: status.oper_state.as_str().to_owned(),
            carrier: status.carrier,
            addresses: lines(&status.addresses),
            gateway: status.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            used_by: status.used_by.iter().map(|name| nic_path(name)).collect(),
        }
    }
}

/// One network link of the host.
pub(super) struct Link {
    index: u32,
    kind: String,
    handle: NetworkHandle,
    view: watch::Receiver<LinkView>,
}

impl Link {
    pub(super) fn new(status: &LinkStatus, handle: NetworkHandle, view: watch::Receiver<LinkView>) -> Self {
        Self { index: status.index, kind: text(status.kind.as_str()), handle, view }
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// One network link of the host.
#[interface(name = "org.orchestratord1.Link")]
impl Link {
    /// Number of the link in the kernel.
    #[zbus(property(emits_changed_signal = "const"))]
    fn index(&self) -> u32 {
        self.index
    }

    /// "ethernet", "wireless", "bridge", "vlan", "bond", "macvlan", "veth", "loopback", "tun" or another word of the kernel.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> &str {
        &self.kind
    }

    /// Name.
    #[zbus(property)]
    fn name(&self) -> String {
        self.view.borrow().name.clone()
    }

    /// Hardware address; empty if there is none.
    #[zbus(property)]
    fn mac(&self) -> String {
        self.view.borrow().mac.clone()
    }

    /// Largest packet in bytes.
    #[zbus(property)]
    fn mtu(&self) -> u32 {
        self.view.borrow().mtu
    }

    /// What the kernel says: "up", "down", "lower-layer-down", "dormant", "not-present", "testing" or "unknown".
    #[zbus(property)]
    fn oper_state(&self) -> String {
        self.view.borrow().oper_state.clone()
    }

    /// Whether the link is up and there is something at its other end.
    #[zbus(property)]
    fn carrier(&self) -> bool {
        self.view.borrow().carrier
    }

    /// Addresses with the length of their prefix, IPv4 first.
    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.view.borrow().addresses.clone()
    }

    /// Router of the default route over this link, IPv4 first; empty if there is none.
    #[zbus(property)]
    fn gateway(&self) -> String {
        self.view.borrow().gateway.clone()
    }

    /// The NICs that hang on it, and for a link that the daemon made for a NIC, that one.
    #[zbus(property)]
    fn used_by(&self) -> Vec<OwnedObjectPath> {
        self.view.borrow().used_by.clone()
    }

    /// Counters of the kernel at the moment of the call, such as "rx-bytes", "rx-packets", "rx-errors", "rx-dropped" and the
    /// same with "tx"; empty if the kernel cannot be asked.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn statistics(&self) -> BTreeMap<String, u64> {
        let counters = self.handle.statistics(self.index).await.unwrap_or_default();
        counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
