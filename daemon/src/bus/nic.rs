//! `org.orchestratord1.Nic`: a NIC that the daemon made in a network namespace.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]
#![allow(clippy::unused_self, reason = "a property is a method for the macro, even if it is constant")]

use tokio::sync::watch;
use zbus::{OwnedObjectPath, interface};

use super::view::{error_pair, lines, link_path, no_path, text, view};
use crate::network::nic::NicStatus;
use crate::network::nic::link_kind::LinkKind;

view! {
    /// What a NIC shows.
    NicView of "org.orchestratord1.Nic" {
        "Parent" parent: OwnedObjectPath,
        "Mac" mac: String,
        "State" state: String,
        "Addresses" addresses: Vec<String>,
        "Gateway" gateway: String,
        "Dns" dns: Vec<String>,
        "Domain" domain: String,
        "Ntp" ntp: Vec<String>,
        "LeaseExpires" lease_expires: u64,
        "LastError" last_error: (String, String),
    }
}

impl From<&NicStatus> for NicView {
    fn from(status: &NicStatus) -> Self {
        Self {
            parent: status.parent.map_or_else(no_path, link_path),
            mac: status.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            state: status.state.to_owned(),
            addresses: lines(&status.addresses),
            gateway: status.gateway.clone(),
            dns: lines(&status.dns),
            domain: text(status.domain.as_str()),
            ntp: lines(&status.ntp),
            lease_expires: status.lease_expires,
            last_error: error_pair(status.error.as_ref()),
        }
    }
}

/// A NIC.
pub(super) struct Nic {
    name: String,
    parent_name: String,
    mode: &'static str,
    link: LinkKind,
    view: watch::Receiver<NicView>,
}

impl Nic {
    pub(super) fn new(status: &NicStatus, view: watch::Receiver<NicView>) -> Self {
        let (name, parent_name) = (text(status.name.as_str()), text(status.parent_name.as_str()));
        Self { name, parent_name, mode: status.mode, link: status.link, view }
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// A NIC that the daemon made in a network namespace.
#[interface(name = "org.orchestratord1.Nic")]
impl Nic {
    /// Name, also that of the link in the namespace; after the name of the vPLC and a slash if it belongs to one.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        &self.name
    }

    /// Where its addresses come from: "static" or "dhcp". More words may come.
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> &'static str {
        self.mode
    }

    /// Name of the link that it hangs on, also while that is not there.
    #[zbus(property(emits_changed_signal = "const"))]
    fn parent_name(&self) -> &str {
        &self.parent_name
    }

    /// What its link is: "macvlan", "vlan", "dedicated" (the parent itself), "routed" or "shim" (for the host itself). More
    /// words may come.
    #[zbus(property(emits_changed_signal = "const"))]
    fn r#type(&self) -> &'static str {
        self.link.as_str()
    }

    /// The link that it hangs on; "/" while that is not there, or is the link of the NIC itself.
    #[zbus(property)]
    fn parent(&self) -> OwnedObjectPath {
        self.view.borrow().parent.clone()
    }

    /// Hardware address; empty while it is that of a parent that is not there.
    #[zbus(property)]
    fn mac(&self) -> String {
        self.view.borrow().mac.clone()
    }

    /// "waiting-for-namespace", "waiting-for-parent", "attaching", "probing" (asks whether somebody has its addresses), "up",
    /// "no-carrier" (up, but nothing is at the other end of the parent) or "failed" (see LastError; it is tried again).
    /// In the mode "dhcp" there is, in place of "up": "acquiring" (no lease yet), "bound", "renewing" (asks the server of the
    /// lease) or "rebinding" (asks every server; the lease still holds). More words may come.
    #[zbus(property)]
    fn state(&self) -> String {
        self.view.borrow().state.clone()
    }

    /// Addresses that are set, with the length of their prefix; also those of IPv6 that the kernel took from the
    /// announcements of routers.
    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.view.borrow().addresses.clone()
    }

    /// Router of its default route, while that is set; else empty.
    #[zbus(property)]
    fn gateway(&self) -> String {
        self.view.borrow().gateway.clone()
    }

    /// Name servers, the best first: those of the specification, else those of the lease.
    #[zbus(property)]
    fn dns(&self) -> Vec<String> {
        self.view.borrow().dns.clone()
    }

    /// Domain that names are looked up in, by the lease; may be empty.
    #[zbus(property)]
    fn domain(&self) -> String {
        self.view.borrow().domain.clone()
    }

    /// Time servers of the lease, the best first.
    #[zbus(property)]
    fn ntp(&self) -> Vec<String> {
        self.view.borrow().ntp.clone()
    }

    /// When the lease ends, in seconds since 1970; 0 without a lease, and for one that has no end.
    #[zbus(property)]
    fn lease_expires(&self) -> u64 {
        self.view.borrow().lease_expires
    }

    /// Error name and message of what went wrong last; both are empty after a success.
    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.view.borrow().last_error.clone()
    }
}
