//! Links on top of the parent: macvlan and VLAN. They are made in the namespace in one request, and end with it or with
//! the parent.

use super::super::parents::ParentLink;
use super::super::spec::{Mode, Spec};
use super::{LinkKind, Made, Site, has_mac};
use crate::core::error::Error;
use crate::network::address::Mac;
use crate::network::kernel::{LinkRecord, NewLink, Port, Upper};

/// `EEXIST`
const EXISTS: i32 = 17;

fn is_ours(link: &LinkRecord, spec: &Spec, mac: Mac) -> bool {
    link.name == spec.name && Some(link.kind.as_str()) == spec.link.kernel_word() && has_mac(link, mac)
}

/// Makes the link, or takes over the one that is there.
pub async fn make(site: &Site, parent: &ParentLink) -> Result<Made, Error> {
    let (spec, port) = (&site.spec, site.port.as_ref());
    let own = !spec.link.has_mac_of_parent();
    let mac = if own { site.mac } else { parent.mac.unwrap_or(site.mac) };
    if let Some(link) = port.link_named(&spec.name).await? {
        if !is_ours(&link, spec, mac) {
            return Err(site.foreign());
        }
        if link.parent == Some(parent.index)
            && link.up
            && let Some(fresh) = site.is_fresh(link.index, mac).await?
        {
            return Ok(Made { link: link.index, fresh });
        }
        port.remove_link(link.index).await?;
    }
    let upper = match spec.link {
        LinkKind::Vlan(id) => Upper::Vlan(id),
        LinkKind::Macvlan(mode) => Upper::Macvlan(mode),
        // Only in this mode the NICs of the parent hear it.
        LinkKind::Shim => Upper::Macvlan(Mode::Bridge),
        LinkKind::Dedicated | LinkKind::Routed => return Err(site.vanished()),
    };
    let link = NewLink { name: spec.name.clone(), parent: parent.index, mac: own.then_some(mac), mtu: spec.mtu, upper };
    match site.host.make_link(&link, std::os::fd::AsFd::as_fd(site.namespace.as_ref())).await {
        Err(error) if error.errno != Some(EXISTS) => return Err(error.into()),
        // Somebody was quicker; whether it was us is seen below.
        _ => {}
    }
    match port.link_named(&spec.name).await? {
        Some(link) if is_ours(&link, spec, mac) => Ok(Made { link: link.index, fresh: true }),
        _ => Err(site.vanished()),
    }
}

/// Removes our link.
pub async fn remove(port: &dyn Port, spec: &Spec, mac: Mac, link: Option<u32>) -> Result<(), Error> {
    let Some(found) = port.link_named(&spec.name).await? else { return Ok(()) };
    // What address the parent had need not be known any more.
    let inherited = spec.link.has_mac_of_parent() && Some(found.kind.as_str()) == spec.link.kernel_word();
    if Some(found.index) == link || inherited || is_ours(&found, spec, mac) {
        port.remove_link(found.index).await?;
    }
    Ok(())
}
