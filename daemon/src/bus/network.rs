//! `org.orchestratord1.Network`: the network of the host as a whole.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

use tokio::sync::watch;
use zbus::{OwnedObjectPath, interface};

use super::view::{link_path, no_path, view};
use crate::network::handle::NetworkStatus;

view! {
    /// What the Network shows.
    NetworkView of "org.orchestratord1.Network" {
        "DefaultLink" default_link: OwnedObjectPath,
        "Online" online: bool,
    }
}

impl From<&NetworkStatus> for NetworkView {
    fn from(status: &NetworkStatus) -> Self {
        Self { default_link: status.default_link.map_or_else(no_path, link_path), online: status.online }
    }
}

/// The network of the host.
pub(super) struct Network {
    view: watch::Receiver<NetworkView>,
}

impl Network {
    pub(super) fn new(view: watch::Receiver<NetworkView>) -> Self {
        Self { view }
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// The network of the host.
#[interface(name = "org.orchestratord1.Network")]
impl Network {
    /// The link that packets to the world take: that of the default route with the lowest metric, IPv4 before IPv6, those
    /// with carrier before all others; "/" if there is no default route.
    #[zbus(property)]
    fn default_link(&self) -> OwnedObjectPath {
        self.view.borrow().default_link.clone()
    }

    /// Whether packets to the world have a way to leave: DefaultLink has carrier and a global address. Whether anybody
    /// answers is not tried.
    #[zbus(property)]
    fn online(&self) -> bool {
        self.view.borrow().online
    }
}
