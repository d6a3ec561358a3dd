//! All NICs that are attached: taken in, refused, kept on disk, and handed to a worker each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::NicStatus;
use super::link_kind::{LinkKind, Reach, Routers, v4};
use super::namespace::{Namespace, Target};
use super::parents::{ParentLink, Parents};
use super::spec::{Place, Spec};
use super::store::Store;
use super::worker::Worker;
use crate::core::document::reason;
use crate::core::error::{Error, Kind};
use crate::network::address::{Mac, Prefixed};
use crate::network::kernel::{Kernel, Port};
use crate::network::link::Links;

/// A NIC with its worker.
struct Attached {
    spec: Spec,
    text: String,
    mac: Mac,
    remove: oneshot::Sender<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// All NICs that are attached.
pub struct Attachments {
    kernel: Arc<dyn Kernel>,
    store: Store,
    nics: BTreeMap<String, Attached>,
    parents: Parents,
    routers: Routers,
    reach: Reach,
    statuses: mpsc::UnboundedSender<NicStatus>,
}

impl Attachments {
    /// None yet; what becomes of them comes through the channel.
    pub fn new(kernel: Arc<dyn Kernel>, datastore: &Path) -> (Self, mpsc::UnboundedReceiver<NicStatus>) {
        let (statuses, receiver) = mpsc::unbounded_channel();
        let nics = Self {
            kernel,
            store: Store::new(datastore),
            nics: BTreeMap::new(),
            parents: Parents::default(),
            routers: Routers::default(),
            reach: Reach::default(),
            statuses,
        };
        (nics, receiver)
    }

    /// Attaches those again that a former daemon had.
    pub fn restore(&mut self, host: &Arc<dyn Port>, links: &Links) {
        let nics = self.store.load();
        // All of them first, so that no shim takes the way to one that is still to come.
        for (spec, _, mac, _) in &nics {
            let leased = spec.dhcp.as_ref().and_then(|_| self.store.leased(&spec.key(), *mac));
            self.reach.remember(spec, v4(&spec.addresses).into_iter().chain(leased).collect());
        }
        for (spec, text, mac, target) in nics {
            self.start(host, links, spec, text, mac, target);
        }
    }

    /// Takes in the links of the host as they are now.
    pub fn follow(&mut self, links: &Links) {
        self.parents.update(links);
    }

    /// Attaches a NIC. To attach the very same again is fine.
    pub fn attach(&mut self, host: &Arc<dyn Port>, links: &Links, text: String, wait: bool) -> Result<String, Error> {
        let spec = Spec::parse(&text)?;
        let name = spec.key();
        if let Some(attached) = self.nics.get(&name) {
            if attached.text == text {
                return Ok(name);
            }
            let message = format!("A NIC \"{name}\" is attached, and not by this specification; detach it first.");
            return Err(Error::new(Kind::NotSupported, message));
        }
        // First, because a link that somebody has taken is not on the host.
        self.check_parent_of_others(&spec)?;
        check_parent(&spec, links, wait)?;
        check_shim(&spec, links)?;
        let target = find(&spec, wait)?;
        let mac = match spec.mac {
            Some(mac) => mac,
            None if spec.link.has_mac_of_parent() => Mac([0; 6]),
            None => self.store.mac(&name)?,
        };
        self.check_others(&spec, mac)?;
        self.store.keep(&name, &text, mac, &target)?;
        self.start(host, links, spec, text, mac, target);
        Ok(name)
    }

    fn start(&mut self, host: &Arc<dyn Port>, links: &Links, spec: Spec, text: String, mac: Mac, target: Target) {
        let (remove, removal) = oneshot::channel();
        let told = NicStatus::first(&spec, mac);
        // So that it is shown from the first moment on.
        drop(self.statuses.send(told.clone()));
        let worker = Worker {
            kernel: self.kernel.clone(),
            host: host.clone(),
            spec: spec.clone(),
            mac,
            target,
            store: self.store.clone(),
            routers: self.routers.clone(),
            reach: self.reach.clone(),
            parent: self.parents.follow(&spec.parent, links),
            held: None,
            status: self.statuses.clone(),
            told,
            settled: false,
            fresh: false,
            remove: removal,
        };
        if spec.link == LinkKind::Routed {
            self.routers.join(&spec);
        }
        let task = tokio::spawn(worker.run());
        self.nics.insert(spec.key(), Attached { spec, text, mac, remove, task });
    }

    /// Detaches a NIC; its link is gone afterwards. The hardware address stays kept for the name.
    pub async fn detach(&mut self, name: &str) -> Result<(), Error> {
        let Some(attached) = self.nics.remove(name) else {
            return Err(Error::new(Kind::NotSupported, format!("There is no NIC \"{name}\".")));
        };
        let (answer, removed) = oneshot::channel();
        // A worker ends without an answer only when the daemon does.
        if attached.remove.send(answer).is_ok() {
            drop(removed.await);
        }
        attached.task.abort();
        // Last: whoever dies before finds the NIC attached, and detaches it again.
        self.store.forget(name)
    }

    /// Refuses a parent that another NIC has for itself, or one that others have and that this one would have for itself.
    fn check_parent_of_others(&self, spec: &Spec) -> Result<(), Error> {
        for (name, other) in self.nics.iter().filter(|(_, other)| other.spec.parent == spec.parent) {
            let how = match (other.spec.link, spec.link) {
                (LinkKind::Dedicated, _) => "was taken by",
                (LinkKind::Shim, LinkKind::Shim) => "has a shim already:",
                (LinkKind::Vlan(one), LinkKind::Vlan(another)) if one == another => "carries this VLAN already for",
                (one, another) if one.is_alone() || another.is_alone() => "is used by",
                _ => continue,
            };
            let message = format!("The link \"{}\" {how} the NIC \"{name}\".", spec.parent);
            return Err(Error::new(Kind::LinkInUse, message));
        }
        Ok(())
    }

    fn check_others(&self, spec: &Spec, mac: Mac) -> Result<(), Error> {
        for (name, other) in &self.nics {
            if other.mac == mac && !spec.link.has_mac_of_parent() {
                let message = format!("The hardware address \"{mac}\" is that of the NIC \"{name}\".");
                return Err(Error::new(Kind::AddressInUse, message));
            }
            let same = |one: &&Prefixed| other.spec.addresses.iter().any(|address| address.address == one.address);
            if let Some(taken) = spec.addresses.iter().find(same).filter(|_| other.spec.parent == spec.parent) {
                let message = format!("The address \"{}\" is that of the NIC \"{name}\".", taken.address);
                return Err(Error::new(Kind::AddressInUse, message));
            }
            let has_route = |spec: &Spec| spec.gateway.map(|_| spec.metric);
            let same_target = other.spec.place == spec.place && other.spec.vplc == spec.vplc;
            if let Some(metric) = has_route(spec).filter(|_| same_target && has_route(&other.spec) == has_route(spec)) {
                let message = format!(
                    "The NIC \"{name}\" has a default route with the metric {metric} in this namespace already; give another metric."
                );
                return Err(Error::new(Kind::InvalidNic, message));
            }
        }
        Ok(())
    }
}

fn check_parent(spec: &Spec, links: &Links, wait: bool) -> Result<(), Error> {
    match ParentLink::find(links, &spec.parent) {
        Some(parent) => spec.link.check(&spec.parent, &parent),
        None if wait => Ok(()),
        None => Err(Error::new(Kind::UnknownLink, format!("There is no link \"{}\".", spec.parent))),
    }
}

/// Refuses an address for a shim that the host has elsewhere: it would be answered for by two links.
fn check_shim(spec: &Spec, links: &Links) -> Result<(), Error> {
    if spec.link != LinkKind::Shim {
        return Ok(());
    }
    for link in links.values().filter(|link| link.name != spec.name) {
        let has = |one: &&Prefixed| link.addresses.iter().any(|address| address.address == one.address);
        if let Some(taken) = spec.addresses.iter().find(has) {
            let message =
                format!("The host has the address \"{}\" already, on the link \"{}\".", taken.address, link.name);
            return Err(Error::new(Kind::AddressInUse, message));
        }
    }
    Ok(())
}

fn find(spec: &Spec, wait: bool) -> Result<Target, Error> {
    let missing = |what: String, error: &std::io::Error| {
        Error::new(Kind::InvalidNic, format!("{what} cannot be opened: {}.", reason(error)))
    };
    match &spec.place {
        Place::Host => Ok(Target::Host),
        Place::Path(path) => {
            let target = Target::Path(path.clone());
            if !wait {
                let what = || format!("The network namespace \"{}\"", path.display());
                let opened = Namespace::open(&target).map_err(|error| missing(what(), &error))?;
                check_away(&opened)?;
            }
            Ok(target)
        }
        Place::Process(pid) => {
            let what = || format!("The network namespace of process \"{pid}\"");
            let target = Target::process(*pid).map_err(|error| missing(what(), &error))?;
            check_away(&Namespace::open(&target).map_err(|error| missing(what(), &error))?)?;
            Ok(target)
        }
    }
}

/// Refuses the namespace of the host: addresses and routes of a NIC would come into the way of its own.
pub(super) fn check_away(namespace: &Namespace) -> Result<(), Error> {
    if namespace.is_home().unwrap_or(false) {
        let message = "The network namespace is that of the host itself; the type \"shim\" is what is meant for that.";
        return Err(Error::new(Kind::InvalidNic, message));
    }
    Ok(())
}
