//! For parents that take no further hardware address, above all wireless ones: a pair of links, one end in the namespace,
//! with the host as a router in between. The host answers ARP for the addresses on the parent, and for everybody else on
//! the pair. Only netlink and only our own entries: no file of `/proc/sys`, no firewall.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::parents::ParentLink;
use super::super::spec::Spec;
use super::super::store::Store;
use super::{Made, Site, has_mac, lead_to, v4};
use crate::core::error::{Error, Kind};
use crate::network::address::Mac;
use crate::network::kernel::{Inet, LinkChange, LinkRecord, NewPair, Port};
use crate::network::link::OWN;

/// The end on the host: the hardware address of the NIC makes a name that no other NIC has.
fn near(mac: Mac) -> String {
    mac.0.iter().fold("ov".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// The hardware address of the end on the host: that of the NIC but for one bit, and administered locally.
fn near_mac(mac: Mac) -> Mac {
    let mut bytes = mac.0;
    bytes[0] = (bytes[0] | 0x02) ^ 0x04;
    Mac(bytes)
}

/// A link of the namespace of whose type this is. Whether a link of another namespace is wireless cannot be seen, and one that
/// is named like ours may be here.
fn is_veth(link: &LinkRecord) -> bool {
    ["veth", "wireless"].contains(&link.kind.as_str())
}

/// The end on the host, if it is ours. The kernel takes no alias for a link that it makes: a daemon that died in between has
/// left it without one, and then the hardware address tells.
async fn find_near(host: &dyn Port, spec: &Spec, mac: Mac) -> Result<Option<LinkRecord>, Error> {
    let name = near(mac);
    match host.link_named(&name).await? {
        Some(link) if link.alias.strip_prefix(OWN) == Some(&spec.key()) => Ok(Some(link)),
        Some(link) if link.alias.is_empty() && is_veth(&link) && has_mac(&link, near_mac(mac)) => Ok(Some(link)),
        Some(_) => {
            Err(Error::new(Kind::NotSupported, format!("The host has a link \"{name}\" already, which is not ours.")))
        }
        None => Ok(None),
    }
}

/// Makes the pair, or takes over the one that is there.
pub async fn make(site: &Site, parent: &ParentLink) -> Result<Made, Error> {
    let (spec, host) = (&site.spec, site.host.as_ref());
    let far = site.port.link_named(&spec.name).await?;
    if far.as_ref().is_some_and(|far| !(has_mac(far, site.mac) && is_veth(far))) {
        return Err(site.foreign());
    }
    if let Some(near) = find_near(host, spec, site.mac).await? {
        let is_whole = |far: &LinkRecord| far.up && near.up && near.parent == Some(far.index) && !near.alias.is_empty();
        if let Some(far) = far.filter(is_whole) {
            let fresh = site.is_fresh(far.index, site.mac).await?.unwrap_or(true);
            return Ok(Made { link: far.index, fresh });
        }
        host.remove_link(near.index).await?;
    } else if let Some(far) = far {
        // The daemon died before it could write its name on the other end.
        site.port.remove_link(far.index).await?;
    }
    let pair = NewPair {
        near: near(site.mac),
        near_mac: near_mac(site.mac),
        far: spec.name.clone(),
        mac: site.mac,
        mtu: spec.mtu.unwrap_or(parent.mtu),
    };
    host.make_pair(&pair, site.namespace.as_fd()).await?;
    let near = host.link_named(&pair.near).await?.ok_or_else(|| site.vanished())?;
    let alias = format!("{OWN}{}", spec.key());
    host.change_link(near.index, LinkChange { alias: Some(&alias), ..LinkChange::default() }).await?;
    let far = site.port.link_named(&spec.name).await?.ok_or_else(|| site.vanished())?;
    site.port.change_link(far.index, LinkChange { up: Some(true), ..LinkChange::default() }).await?;
    Ok(Made { link: far.index, fresh: true })
}

/// Has the host pass on packets between the pair and the parent, and answer for both sides.
pub async fn configure_host(site: &Site, parent: &ParentLink) -> Result<(), Error> {
    let host = site.host.as_ref();
    let near = find_near(host, &site.spec, site.mac).await?.ok_or_else(|| site.vanished())?;
    host.set_inet(near.index, Inet::Forwarding, true).await?;
    host.set_inet(near.index, Inet::ProxyArp, true).await?;
    if !host.inet(parent.index, Inet::Forwarding).await? {
        site.store.keep_forwarding(&site.spec.parent)?;
        host.set_inet(parent.index, Inet::Forwarding, true).await?;
    }
    let addresses = v4(&site.spec.addresses);
    lead_to(host, &near, &addresses.iter().copied().collect(), &BTreeSet::new(), 0).await?;
    for address in addresses {
        host.add_proxy(parent.index, address).await?;
    }
    Ok(())
}

/// Removes the pair, and with it the routes to it; and ends the answers for its addresses.
pub async fn remove(host: &dyn Port, spec: &Spec, mac: Mac) -> Result<(), Error> {
    let parent = host.link_named(&spec.parent).await?;
    if let Some(near) = find_near(host, spec, mac).await? {
        host.remove_link(near.index).await?;
    }
    if let Some(parent) = parent {
        for address in v4(&spec.addresses) {
            host.remove_proxy(parent.index, address).await?;
        }
    }
    Ok(())
}

/// Who has the host pass on packets that come in by a parent: the last one who leaves has it as it was.
#[derive(Debug, Clone, Default)]
pub struct Routers(Arc<Mutex<BTreeSet<(String, String)>>>);

impl Routers {
    /// A NIC needs it.
    pub fn join(&self, spec: &Spec) {
        self.all().insert((spec.parent.clone(), spec.key()));
    }

    /// A NIC needs it no more.
    pub async fn leave(&self, host: &dyn Port, store: &Store, spec: &Spec) {
        let last = {
            let mut all = self.all();
            all.remove(&(spec.parent.clone(), spec.key())) && all.iter().all(|(parent, _)| *parent != spec.parent)
        };
        if last && let Err(error) = undo_forwarding(host, store, &spec.parent).await {
            tracing::warn!(nic = spec.name, "The link \"{}\" still passes on packets: {error}", spec.parent);
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeSet<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn undo_forwarding(host: &dyn Port, store: &Store, parent: &str) -> Result<(), Error> {
    if !store.has_forwarding(parent) {
        return Ok(());
    }
    // Somebody who made a router of the whole host meanwhile meant this link, too.
    let is_router = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1");
    if let Some(link) = host.link_named(parent).await?.filter(|_| !is_router) {
        host.set_inet(link.index, Inet::Forwarding, false).await?;
    }
    store.forget_forwarding(parent)
}
