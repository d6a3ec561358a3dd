//! `org.orchestratord1.Network`: the network of the host as a whole.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

use std::collections::HashMap;

use tokio::sync::watch;
use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, interface};

use super::auth::Action;
use super::gate::Gate;
use super::options::Options;
use super::view::{link_path, nic_path, no_path, view};
use super::{Publisher, Refusal};
use crate::core::document::DocumentKind;
use crate::core::error::{Error, Kind};
use crate::network::handle::{NetworkHandle, NetworkStatus};

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
    handle: NetworkHandle,
    publisher: Publisher,
    gate: Gate,
    view: watch::Receiver<NetworkView>,
}

impl Network {
    pub(super) fn new(
        handle: NetworkHandle,
        publisher: Publisher,
        gate: Gate,
        view: watch::Receiver<NetworkView>,
    ) -> Self {
        Self { handle, publisher, gate, view }
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// The network of the host.
#[interface(name = "org.orchestratord1.Network")]
impl Network {
    /// Attaches a NIC: a link that the daemon makes in a network namespace, and keeps right until it is detached. The reply
    /// means that the specification was accepted; the state of the NIC tells how far it is. The same again is fine.
    /// Needs the polkit action org.orchestratord1.network.
    /// @spec: the specification as YAML, 64 KiB at most
    /// @options: "wait" b: attach it also if its parent or namespace is not there yet
    /// @nic: the NIC
    #[zbus(out_args("nic"))]
    async fn attach_nic(
        &self,
        spec: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let attach = |caller| async move {
            let mut options = Options::new("AttachNic", &["wait"], options)?;
            let limit = DocumentKind::Nic.limit();
            if spec.len() > limit {
                let message = format!(
                    "The argument \"spec\" of AttachNic has {} bytes, but at most {limit} are allowed.",
                    spec.len()
                );
                return Err(Error::new(Kind::InvalidArgs, message).into());
            }
            let name = self.handle.attach(spec.to_owned(), options.wait()?).await?;
            tracing::info!(nic = name, caller, "A NIC was attached over the bus");
            self.publisher.flush().await?;
            Ok(nic_path(&name))
        };
        self.gate.begin(connection, &call, Action::Network, attach).await
    }

    /// Detaches a NIC; its link is gone when the reply comes. Its hardware address stays kept for the name.
    /// Needs the polkit action org.orchestratord1.network.
    /// @name: name of the NIC
    /// @options: none
    async fn detach_nic(
        &self,
        name: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        let detach = |caller| async move {
            Options::new("DetachNic", &[], options)?;
            if let Some((vplc, _)) = name.split_once('/') {
                let message = format!("The NIC \"{name}\" belongs to the vPLC \"{vplc}\"; it changes with that.");
                return Err(Error::new(Kind::NotSupported, message).into());
            }
            self.handle.detach(name.chars().take(256).collect()).await?;
            tracing::info!(nic = name, caller, "A NIC was detached over the bus");
            self.publisher.flush().await?;
            Ok(())
        };
        self.gate.change(connection, &call, Action::Network, detach).await
    }

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
