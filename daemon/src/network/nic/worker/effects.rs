//! What the effects of a machine do to the kernel and on the wire.

use std::net::IpAddr;
use std::os::fd::AsFd;

use super::super::link_kind::{Made, Site, v4};
use super::super::machine::Event;
use super::super::parents::ParentLink;
use super::super::probe::{Pace, Prober};
use crate::core::error::{Error, Kind};
use crate::network::kernel::Snapshot;

/// A parent of which nothing is known but its number: one that was taken before the daemon was started.
fn away(index: u32) -> ParentLink {
    ParentLink {
        index,
        kind: String::new(),
        mac: None,
        mtu: 0,
        carrier: true,
        switched_off: 0,
        default_route: false,
        is_port: false,
        carries: None,
        addresses: Vec::new(),
    }
}

/// Makes the link, or takes over the one that is there.
pub(super) async fn make(site: &Site, parent: Option<ParentLink>, index: u32) -> Result<Made, Error> {
    let parent = parent.filter(|parent| parent.index == index).unwrap_or_else(|| away(index));
    site.spec.link.check(&site.spec.parent, &parent)?;
    site.make(&parent).await
}

/// Sets what is not set yet; what is there and right is not touched. On a `fresh` link nothing is looked for.
pub(super) async fn configure(site: &Site, parent: Option<ParentLink>, link: u32, fresh: bool) -> Result<(), Error> {
    let (spec, port) = (&site.spec, site.port.as_ref());
    let now = if fresh { Snapshot::default() } else { port.snapshot().await? };
    for address in &spec.addresses {
        if !now.addresses.iter().any(|found| found.link == link && found.address == *address) {
            port.add_address(link, *address).await?;
        }
    }
    if let Some(gateway) = spec.gateway {
        let there = now.routes.iter().any(|route| {
            route.link == link && route.gateway == Some(IpAddr::V4(gateway)) && route.metric == spec.metric
        });
        if !there {
            port.add_default_route(link, gateway, spec.metric).await?;
        }
    }
    for route in &spec.routes {
        port.add_route(link, *route).await?;
    }
    match parent {
        Some(parent) => site.configure_host(&parent).await,
        None => Ok(()),
    }
}

/// Speaks ARP where others would hear of the addresses.
async fn prober(site: &Site, parent: Option<ParentLink>, link: u32) -> Result<Prober, Error> {
    let wire = site.wire(link, &parent.unwrap_or_else(|| away(link))).await?;
    Prober::open(wire.as_fd(), wire.link, wire.mac, v4(&site.spec.addresses)).map_err(|error| unasked(site, &error))
}

fn unasked(site: &Site, error: &std::io::Error) -> Error {
    let name = &site.spec.name;
    Error::new(Kind::Failed, format!("Whether an address of the NIC \"{name}\" is in use cannot be asked: {error}."))
}

/// Tells everybody about the addresses.
pub(super) async fn announce(site: &Site, parent: Option<ParentLink>, link: u32) -> Result<(), Error> {
    if site.spec.addresses.is_empty() {
        return Ok(());
    }
    prober(site, parent, link).await?.announce().await.map_err(|error| unasked(site, &error))
}

/// Asks whether somebody has an address.
pub(super) async fn probe(site: &Site, parent: Option<ParentLink>, link: u32) -> Result<Event, Error> {
    if site.spec.addresses.is_empty() {
        return Ok(Event::Clear);
    }
    let asked = prober(site, parent, link).await?.probe(Pace::Full).await.map_err(|error| unasked(site, &error))?;
    let Some((address, owner)) = asked else { return Ok(Event::Clear) };
    let name = &site.spec.name;
    let message = format!("The address \"{address}\" of the NIC \"{name}\" is in use by \"{owner}\".");
    Ok(Event::Taken(Error::new(Kind::AddressInUse, message)))
}
