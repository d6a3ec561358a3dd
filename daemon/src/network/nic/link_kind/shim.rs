//! A way from the host to the macvlan NICs of its own parents. The kernel keeps a parent and its macvlan links apart, but
//! not these among themselves: so the host gets one, too, with an address of its own, and routes over it to those
//! addresses that the NICs of the parent have at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::parents::ParentLink;
use super::super::retry_after;
use super::super::spec::{Mode, Spec};
use super::{LinkKind, Made, Site, lead_to, upper};
use crate::core::error::Error;
use crate::network::kernel::{Inet, LinkChange};
use crate::network::link::OWN;

/// Makes the link, or takes over the one that is there.
pub async fn make(site: &Site, parent: &ParentLink) -> Result<Made, Error> {
    let made = upper::make(site, parent).await?;
    let (spec, host) = (&site.spec, site.host.as_ref());
    let alias = format!("{OWN}{}", spec.key());
    let link = host.link_named(&spec.name).await?.ok_or_else(|| site.vanished())?;
    if link.alias != alias {
        host.change_link(link.index, LinkChange { alias: Some(&alias), ..LinkChange::default() }).await?;
    }
    // The link hears the same wire as its parent: without this the host would answer for each address by two hardware
    // addresses, and the neighbours would see its addresses move.
    for setting in [Inet::ArpIgnore, Inet::ArpAnnounce] {
        if !host.inet(link.index, setting).await? {
            host.set_inet(link.index, setting, true).await?;
        }
    }
    Ok(made)
}

/// What of a NIC can be reached over a shim.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reachable {
    parent: String,
    addresses: BTreeSet<Ipv4Addr>,
    /// Whether they are known only from before the daemon was started.
    old: bool,
}

/// The addresses of all NICs that hear a shim, by the name of the NIC.
#[derive(Debug, Clone)]
pub struct Reach(Arc<watch::Sender<BTreeMap<String, Reachable>>>);

impl Default for Reach {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Reach {
    /// A NIC had these addresses when the daemon ended, and may still have them.
    pub fn remember(&self, spec: &Spec, addresses: BTreeSet<Ipv4Addr>) {
        self.set(spec, addresses, true);
    }

    /// A NIC has these addresses now.
    pub fn tell(&self, spec: &Spec, addresses: BTreeSet<Ipv4Addr>) {
        self.set(spec, addresses, false);
    }

    fn set(&self, spec: &Spec, addresses: BTreeSet<Ipv4Addr>, old: bool) {
        if spec.link != LinkKind::Macvlan(Mode::Bridge) {
            return;
        }
        let now = Reachable { parent: spec.parent.clone(), addresses, old };
        self.0.send_if_modified(|all| all.insert(spec.key(), now.clone()) != Some(now));
    }

    /// A NIC is gone.
    pub fn forget(&self, spec: &Spec) {
        self.0.send_if_modified(|all| all.remove(&spec.key()).is_some());
    }
}

/// The addresses of the NICs of a parent: those they have, and those they may still have.
fn of_parent(all: &BTreeMap<String, Reachable>, parent: &str) -> [BTreeSet<Ipv4Addr>; 2] {
    [false, true].map(|old| {
        let of = all.values().filter(|nic| nic.parent == parent && nic.old == old);
        of.flat_map(|nic| nic.addresses.iter().copied()).collect()
    })
}

/// Keeps the routes of a shim in line with the NICs of its parent until this is dropped. The routes outlive it; they end
/// with the link.
#[derive(Debug)]
pub struct Reaching {
    error: watch::Receiver<Option<Error>>,
    look: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Reaching {
    /// Begins. Has to be called inside the runtime.
    pub fn start(site: Site, reach: &Reach) -> Self {
        let (errors, error) = watch::channel(None);
        let (look, looks) = watch::channel(());
        let task = tokio::spawn(keep(site, reach.0.subscribe(), looks, errors));
        Self { error, look, task }
    }

    /// Something happened to the link: the kernel may have forgotten its routes.
    pub fn look(&self) {
        self.look.send_replace(());
    }

    /// What is not as it should be.
    pub fn error(&self) -> Option<Error> {
        self.error.borrow().clone()
    }

    /// Returns when that has changed.
    pub async fn changed(&mut self) {
        if self.error.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

impl Drop for Reaching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(
    site: Site,
    mut reach: watch::Receiver<BTreeMap<String, Reachable>>,
    mut looks: watch::Receiver<()>,
    errors: watch::Sender<Option<Error>>,
) {
    let mut failures = 0;
    loop {
        let [now, old] = of_parent(&reach.borrow_and_update(), &site.spec.parent);
        let result = lead(&site, &now, &old).await;
        let wait = if result.is_ok() {
            failures = 0;
            None
        } else {
            failures = u32::saturating_add(failures, 1);
            Some(retry_after(failures - 1))
        };
        errors.send_if_modified(|error| {
            let (before, now) = (error.clone(), result.err());
            *error = now;
            *error != before
        });
        let again = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = reach.changed() => if changed.is_err() { return },
            changed = looks.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

async fn lead(site: &Site, now: &BTreeSet<Ipv4Addr>, old: &BTreeSet<Ipv4Addr>) -> Result<(), Error> {
    let link = site.host.link_named(&site.spec.name).await?.ok_or_else(|| site.vanished())?;
    lead_to(site.host.as_ref(), &link, now, old, site.spec.metric).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, parent: &str, more: &str) -> Spec {
        let text = format!("kind: nic\nname: {name}\nparent: {parent}\npid: 1\naddresses: [192.0.2.7/24]\n{more}");
        Spec::parse(&text).unwrap()
    }

    #[test]
    fn only_what_hears_a_shim_is_reached_by_it() {
        let reach = Reach::default();
        let address = |last| BTreeSet::from([Ipv4Addr::new(192, 0, 2, last)]);
        reach.tell(&spec("plc0", "eth0", ""), address(1));
        reach.tell(&spec("plc1", "eth1", ""), address(2));
        reach.tell(&spec("plc2", "eth0", "mode: private"), address(3));
        reach.tell(&spec("plc3", "eth0", "type: vlan\nvlan: 7"), address(4));
        reach.remember(&spec("plc4", "eth0", ""), address(5));
        assert_eq!(of_parent(&reach.0.borrow(), "eth0"), [address(1), address(5)]);
        reach.tell(&spec("plc4", "eth0", ""), address(6));
        reach.forget(&spec("plc0", "eth0", ""));
        assert_eq!(of_parent(&reach.0.borrow(), "eth0"), [address(6), BTreeSet::new()]);
    }
}
