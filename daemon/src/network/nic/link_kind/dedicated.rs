//! The parent itself moves into the namespace, and comes back with its old name and state. What is taken is on disk before
//! it moves, so that a daemon that was killed brings it back, too.

use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::super::parents::ParentLink;
use super::super::spec::Spec;
use super::super::store::Store;
use super::{Made, Site, home};
use crate::core::document::reason;
use crate::core::error::{Error, Kind};
use crate::network::address::Mac;
use crate::network::kernel::{LinkChange, LinkRecord, Port};

/// A link of the host that was taken, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Its name.
    pub link: String,
    /// Its number.
    pub index: u32,
    /// What it is, in one word.
    kind: String,
    /// Its hardware address.
    address: Vec<u8>,
    /// Whether it was switched on.
    up: bool,
    /// Its largest packet in bytes.
    mtu: u32,
}

impl Taken {
    fn new(link: &LinkRecord) -> Self {
        Self {
            link: link.name.clone(),
            index: link.index,
            kind: link.kind.clone(),
            address: link.address.clone(),
            up: link.up,
            mtu: link.mtu,
        }
    }

    /// Its hardware address, if it is one of Ethernet.
    pub fn mac(&self) -> Option<Mac> {
        Mac::from_slice(&self.address)
    }

    fn is(&self, link: &LinkRecord) -> bool {
        link.kind == self.kind && link.address == self.address
    }

    /// The link in the namespace of the NIC. It has its old name if a former daemon died in between.
    fn find_inside<'a>(&self, links: &'a [LinkRecord], nic: &str) -> Option<&'a LinkRecord> {
        links.iter().find(|link| self.is(link) && (link.name == nic || link.name == self.link))
    }

    /// The link among those of the host. The kernel brings it home when its namespace ends: under the name that it had
    /// there, or as `dev` with a number if that is taken.
    fn find_at_home<'a>(&self, links: &'a [LinkRecord], nic: &str) -> Option<&'a LinkRecord> {
        let named = |fits: &dyn Fn(&str) -> bool| links.iter().find(|link| self.is(link) && fits(&link.name));
        named(&|name| name == self.link)
            .or_else(|| named(&|name| name == nic))
            .or_else(|| named(&|name| name.strip_prefix("dev").is_some_and(|rest| rest.parse::<u32>().is_ok())))
    }

    /// The name it gets at home: its own, or if somebody has that by now, one that is free.
    fn free_name(&self, links: &[LinkRecord]) -> String {
        let is_free = |name: &String| links.iter().all(|link| link.name != *name);
        let others = (0..=u32::MAX).map(|number| format!("dev{number}"));
        std::iter::once(self.link.clone()).chain(others).find(is_free).unwrap_or_else(|| self.link.clone())
    }
}

/// Moves the link in, or takes over the one that is there.
pub async fn take(site: &Site, parent: &ParentLink) -> Result<Made, Error> {
    let spec = &site.spec;
    let inside = site.port.snapshot().await?;
    if let Some(taken) = site.store.taken(&spec.key())? {
        if let Some(link) = taken.find_inside(&inside.links, &spec.name) {
            if link.name != spec.name || !link.up {
                let change = LinkChange { name: Some(&spec.name), up: Some(true), ..LinkChange::default() };
                site.port.change_link(link.index, change).await?;
            }
            let fresh = site.is_fresh(link.index, taken.mac().unwrap_or(site.mac)).await?;
            if fresh.is_none() {
                site.clear(link.index).await?;
            }
            return Ok(Made { link: link.index, fresh: fresh.unwrap_or(true) });
        }
        restore(site.host.as_ref(), &taken, &spec.name).await?;
    }
    if inside.links.iter().any(|link| link.name == spec.name) {
        return Err(site.foreign());
    }
    let gone = || Error::new(Kind::UnknownLink, format!("There is no link \"{}\".", spec.parent));
    let link = site.host.link_named(&spec.parent).await?.filter(|link| link.index == parent.index).ok_or_else(gone)?;
    site.store.keep_taken(&spec.key(), &Taken::new(&link))?;
    let change = LinkChange {
        namespace: Some(site.namespace.as_fd()),
        name: Some(&spec.name),
        up: Some(true),
        mtu: spec.mtu,
        alias: None,
    };
    site.host.change_link(link.index, change).await?;
    let moved = site.port.link_named(&spec.name).await?.ok_or_else(|| site.vanished())?;
    Ok(Made { link: moved.index, fresh: true })
}

/// Brings the link back, if one was taken.
pub async fn give_back(host: &dyn Port, port: Option<&dyn Port>, store: &Store, spec: &Spec) -> Result<(), Error> {
    let Some(taken) = store.taken(&spec.key())? else { return Ok(()) };
    if let Some(port) = port {
        let inside = port.snapshot().await?.links;
        if let Some(link) = taken.find_inside(&inside, &spec.name) {
            let name = taken.free_name(&host.snapshot().await?.links);
            if name != taken.link {
                tracing::error!(
                    "The host has another link \"{}\" by now; this one comes back as \"{name}\".",
                    taken.link
                );
            }
            let home = home().map_err(|error| {
                Error::new(Kind::Failed, format!("The own namespace cannot be opened: {}.", reason(&error)))
            })?;
            let change = LinkChange {
                namespace: Some(home.as_fd()),
                name: Some(&name),
                up: Some(taken.up),
                mtu: Some(taken.mtu),
                alias: None,
            };
            port.change_link(link.index, change).await?;
            return store.forget_taken(&spec.key());
        }
    }
    // If it is neither here nor there, it was pulled out, or is where nobody can reach it.
    if restore(host, &taken, &spec.name).await? || port.is_some() {
        store.forget_taken(&spec.key())?;
    }
    Ok(())
}

/// The link that a former daemon took, if it is not at home.
pub async fn still_taken(host: &dyn Port, store: &Store, spec: &Spec) -> Result<Option<Taken>, Error> {
    let Some(taken) = store.taken(&spec.key())? else { return Ok(None) };
    if restore(host, &taken, &spec.name).await? {
        store.forget_taken(&spec.key())?;
        return Ok(None);
    }
    Ok(Some(taken))
}

/// Gives a link that is at home its name and state back; tells whether it is at home.
async fn restore(host: &dyn Port, taken: &Taken, nic: &str) -> Result<bool, Error> {
    let links = host.snapshot().await?.links;
    let Some(link) = taken.find_at_home(&links, nic) else { return Ok(false) };
    let name = taken.free_name(&links);
    let renamed = link.name != taken.link && name == taken.link;
    if renamed || link.up != taken.up || link.mtu != taken.mtu {
        let change = LinkChange {
            name: renamed.then_some(name.as_str()),
            up: Some(taken.up),
            mtu: Some(taken.mtu),
            ..LinkChange::default()
        };
        host.change_link(link.index, change).await?;
    }
    Ok(true)
}
