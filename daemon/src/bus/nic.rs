//! `org.orchestratord1.Nic`: a NIC that the daemon made in a network namespace.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]
#![allow(clippy::unused_self, reason = "a property is a method for the macro, even if it is constant")]

use tokio::sync::watch;
use zbus::{OwnedObjectPath, interface};

use super::view::{error_pair, link_path, no_path, text, view};
use crate::network::nic::NicStatus;

view! {
    /// What a NIC shows.
    NicView of "org.orchestratord1.Nic" {
        "Parent" parent: OwnedObjectPath,
        "Mac" mac: String,
        "State" state: String,
        "Addresses" addresses: Vec<String>,
        "Gateway" gateway: String,
        "LastError" last_error: (String, String),
    }
}

impl From<&NicStatus> for NicView {
    fn from(status: &NicStatus) -> Self {
        Self {
            parent: status.parent.map_or_else(no_path, link_path),
            mac: status.mac.to_string(),
            state: status.state.to_owned(),
            addresses: status.addresses.iter().map(ToString::to_string).collect(),
            gateway: status.gateway.clone(),
            last_error: error_pair(status.error.as_ref()),
        }
    }
}

/// A NIC.
pub(super) struct Nic {
    name: String,
    view: watch::Receiver<NicView>,
}

impl Nic {
    pub(super) fn new(status: &NicStatus, view: watch::Receiver<NicView>) -> Self {
        Self { name: text(status.name.as_str()), view }
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

    /// Where its addresses come from: "static". More words may come.
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> &'static str {
        "static"
    }

    /// The link that it hangs on; "/" while that is not there.
    #[zbus(property)]
    fn parent(&self) -> OwnedObjectPath {
        self.view.borrow().parent.clone()
    }

    /// Hardware address.
    #[zbus(property)]
    fn mac(&self) -> String {
        self.view.borrow().mac.clone()
    }

    /// "waiting-for-namespace", "waiting-for-parent", "attaching", "probing" (asks whether somebody has its addresses), "up",
    /// "no-carrier" (up, but nothing is at the other end of the parent) or "failed" (see LastError; it is tried again).
    /// More words may come.
    #[zbus(property)]
    fn state(&self) -> String {
        self.view.borrow().state.clone()
    }

    /// Addresses that are set, with the length of their prefix.
    #[zbus(property)]
    fn addresses(&self) -> Vec<String> {
        self.view.borrow().addresses.clone()
    }

    /// Router of its default route, while that is set; else empty.
    #[zbus(property)]
    fn gateway(&self) -> String {
        self.view.borrow().gateway.clone()
    }

    /// Error name and message of what went wrong last; both are empty after a success.
    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.view.borrow().last_error.clone()
    }
}
