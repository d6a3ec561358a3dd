//! All NICs that are attached: taken in, refused, kept on disk, and handed to a worker each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::NicStatus;
use super::namespace::{Namespace, Target};
use super::spec::{Place, Spec};
use super::store::Store;
use super::worker::Worker;
use crate::core::document::reason;
use crate::core::error::{Error, Kind};
use crate::network::address::Mac;
use crate::network::handle::NetworkStatus;
use crate::network::kernel::{Kernel, Port};

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
    statuses: mpsc::UnboundedSender<NicStatus>,
}

impl Attachments {
    /// None yet; what becomes of them comes through the channel.
    pub fn new(kernel: Arc<dyn Kernel>, datastore: &Path) -> (Self, mpsc::UnboundedReceiver<NicStatus>) {
        let (statuses, receiver) = mpsc::unbounded_channel();
        (Self { kernel, store: Store::new(datastore), nics: BTreeMap::new(), statuses }, receiver)
    }

    /// Attaches those again that a former daemon had.
    pub fn restore(&mut self, host: &Arc<dyn Port>, network: &watch::Receiver<NetworkStatus>) {
        for (spec, text, mac, target) in self.store.load() {
            self.start(host, network, spec, text, mac, target);
        }
    }

    /// Attaches a NIC. To attach the very same again is fine.
    pub fn attach(
        &mut self,
        host: &Arc<dyn Port>,
        network: &watch::Receiver<NetworkStatus>,
        text: String,
        wait: bool,
    ) -> Result<String, Error> {
        let spec = Spec::parse(&text)?;
        let name = spec.key();
        if let Some(attached) = self.nics.get(&name) {
            if attached.text == text {
                return Ok(name);
            }
            let message = format!("A NIC \"{name}\" is attached, and not by this specification; detach it first.");
            return Err(Error::new(Kind::NotSupported, message));
        }
        check_parent(&spec, &network.borrow(), wait)?;
        let target = find(&spec, wait)?;
        let mac = match spec.mac {
            Some(mac) => mac,
            None => self.store.mac(&name)?,
        };
        self.check_others(&spec, mac)?;
        self.store.keep(&name, &text, mac, &target)?;
        self.start(host, network, spec, text, mac, target);
        Ok(name)
    }

    fn start(
        &mut self,
        host: &Arc<dyn Port>,
        network: &watch::Receiver<NetworkStatus>,
        spec: Spec,
        text: String,
        mac: Mac,
        target: Target,
    ) {
        let (remove, removal) = oneshot::channel();
        let told = Worker::first_status(&spec, mac);
        // So that it is shown from the first moment on.
        drop(self.statuses.send(told.clone()));
        let worker = Worker {
            kernel: self.kernel.clone(),
            host: host.clone(),
            spec: spec.clone(),
            mac,
            target,
            network: network.clone(),
            status: self.statuses.clone(),
            told,
            remove: removal,
        };
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

    fn check_others(&self, spec: &Spec, mac: Mac) -> Result<(), Error> {
        for (name, other) in &self.nics {
            if other.mac == mac {
                let message = format!("The hardware address \"{mac}\" is that of the NIC \"{name}\".");
                return Err(Error::new(Kind::AddressInUse, message));
            }
            let same = |one: &&crate::network::address::Prefixed| {
                other.spec.addresses.iter().any(|address| address.address == one.address)
            };
            if let Some(taken) = spec.addresses.iter().find(same).filter(|_| other.spec.parent == spec.parent) {
                let message = format!("The address \"{}\" is that of the NIC \"{name}\".", taken.address);
                return Err(Error::new(Kind::AddressInUse, message));
            }
        }
        Ok(())
    }
}

fn check_parent(spec: &Spec, network: &NetworkStatus, wait: bool) -> Result<(), Error> {
    let Some(link) = network.links.values().find(|link| link.name == spec.parent) else {
        if wait {
            return Ok(());
        }
        return Err(Error::new(Kind::UnknownLink, format!("There is no link \"{}\".", spec.parent)));
    };
    let why = match link.kind.as_str() {
        "wireless" => "is wireless, and an access point drops what comes from further hardware addresses",
        "loopback" => "is the loopback",
        _ => return Ok(()),
    };
    Err(Error::new(Kind::NotSupported, format!("The link \"{}\" {why}; it cannot be a parent.", spec.parent)))
}

fn find(spec: &Spec, wait: bool) -> Result<Target, Error> {
    let missing = |what: String, error: &std::io::Error| {
        Error::new(Kind::InvalidNic, format!("{what} cannot be opened: {}.", reason(error)))
    };
    match &spec.place {
        Place::Path(path) => {
            let target = Target::Path(path.clone());
            if !wait {
                let what = || format!("The network namespace \"{}\"", path.display());
                Namespace::open(&target).map_err(|error| missing(what(), &error))?;
            }
            Ok(target)
        }
        Place::Process(pid) => {
            let what = || format!("The network namespace of process \"{pid}\"");
            let target = Target::process(*pid).map_err(|error| missing(what(), &error))?;
            Namespace::open(&target).map_err(|error| missing(what(), &error))?;
            Ok(target)
        }
    }
}
