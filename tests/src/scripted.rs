//! An update domain that does what a test says, behind the real face on the bus.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestratord::bus::{Bus as Face, Phase};
use orchestratord::core::audit::Audit;
use orchestratord::core::error::{Error, Kind};
use orchestratord::core::job::{JobReporter, JobResult, Jobs};
use orchestratord::network::address::Mac;
use orchestratord::network::handle::{NetworkHandle, NetworkStatus, Request as NetworkRequest};
use orchestratord::network::host::Host;
use orchestratord::network::kernel::OperState;
use orchestratord::network::link::LinkStatus;
use orchestratord::network::nic::NicStatus;
use orchestratord::network::nic::link_kind::LinkKind;
use orchestratord::network::nic::spec::Mode;
use orchestratord::update::component::{ComponentKey, ComponentStatus};
use orchestratord::update::handle::{Request, UpdateHandle, UpdateState, UpdateStatus};
use orchestratord::vplc::handle::{Request as VplcRequest, VplcHandle, VplcStatus, VplcsStatus};
use orchestratord::vplc::usage::Usage;
use tokio::sync::{mpsc, watch};

use crate::bus::Bus;

/// The two ends of the update domain: the test holds the inner one.
#[derive(Debug)]
pub struct Domain {
    /// What the outside sees.
    pub status: watch::Sender<UpdateStatus>,
    /// All Jobs.
    pub jobs: Jobs,
    /// What is asked.
    pub requests: mpsc::Receiver<Request>,
}

impl Domain {
    /// A domain at rest, and the door to it.
    pub fn new(status: UpdateStatus) -> (Self, UpdateHandle) {
        let (status, statuses) = watch::channel(status);
        let (sender, requests) = mpsc::channel(8);
        (Self { status, jobs: Jobs::default(), requests }, UpdateHandle::new(sender, statuses))
    }

    /// Takes the next `Install`, `Resume` or `Rollback`, accepts it and begins its Job.
    pub async fn accept(&mut self) -> JobReporter {
        let request = self.requests.recv().await.expect("a request");
        let (kind, caller, reply) = match request {
            Request::Install(_, _, caller, reply) => ("install", caller, reply),
            Request::Resume(_, caller, reply) => ("resume", caller, reply),
            Request::Rollback(_, _, caller, reply) => ("rollback", caller, reply),
            other => panic!("no request for a Job: {other:?}"),
        };
        let reporter = self.jobs.begin(kind, "system", caller);
        let id = reporter.job().id;
        self.status.send_modify(|status| {
            status.state = UpdateState::Busy;
            status.active_job = Some(id);
        });
        reply.send(Ok(id)).expect("a caller who waits");
        reporter
    }

    /// Ends a Job.
    pub fn finish(&self, reporter: &JobReporter, result: JobResult) {
        self.status.send_modify(|status| {
            status.state = UpdateState::Idle;
            status.active_job = None;
        });
        reporter.finish(result, None);
    }
}

/// The two ends of a network domain that answers everything at once: the test holds the inner one.
#[derive(Debug)]
pub struct Network {
    /// What the outside sees.
    pub status: watch::Sender<NetworkStatus>,
}

impl Network {
    /// A network, and the door to it. Has to be called in a runtime.
    pub fn start(status: NetworkStatus) -> (Self, NetworkHandle) {
        let (status, statuses) = watch::channel(status);
        let (sender, mut requests) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                match request {
                    NetworkRequest::Ping(reply) => drop(reply.send(())),
                    NetworkRequest::Attach(_, _, reply) => {
                        drop(reply.send(Err(Error::new(Kind::InvalidNic, "The NIC is not in the script."))));
                    }
                    NetworkRequest::Detach(_, reply) => drop(reply.send(Ok(()))),
                    NetworkRequest::Statistics(link, reply) => {
                        drop(reply.send(Ok([("rx-bytes", u64::from(link))].into())));
                    }
                }
            }
        });
        (Self { status }, NetworkHandle::new(sender, statuses, Host::new(false)))
    }
}

/// The two ends of a vPLC domain that refuses everything: the test holds the inner one.
#[derive(Debug)]
pub struct Vplcs {
    /// What the outside sees.
    pub status: watch::Sender<VplcsStatus>,
}

impl Vplcs {
    /// vPLCs, and the door to them. Has to be called in a runtime.
    pub fn start() -> (Self, VplcHandle) {
        let (status, statuses) = watch::channel(VplcsStatus::default());
        let (sender, mut requests) = mpsc::channel(8);
        tokio::spawn(async move {
            let refusal = || Error::new(Kind::UnknownVplc, "The vPLC is not in the script.");
            while let Some(request) = requests.recv().await {
                match request {
                    VplcRequest::Ping(reply) => drop(reply.send(())),
                    VplcRequest::Apply(_, reply)
                    | VplcRequest::Upgrade(_, _, reply)
                    | VplcRequest::Order(_, _, _, reply)
                    | VplcRequest::Program(_, _, _, reply) => drop(reply.send(Err(refusal()))),
                    VplcRequest::Plan(_, reply) => drop(reply.send(Err(refusal()))),
                    VplcRequest::Programs(_, reply) => drop(reply.send(Err(refusal()))),
                    VplcRequest::Reset(_, reply) => drop(reply.send(Err(refusal()))),
                    VplcRequest::Lines(_, _, reply) => drop(reply.send(Err(refusal()))),
                    VplcRequest::Usage(_, reply) => drop(reply.send(Usage { restarts: 7, ..Usage::default() })),
                    VplcRequest::History(_, _, _, reply) => drop(reply.send(vec![(1, 0.5)])),
                    VplcRequest::Follow(_, _, reply) | VplcRequest::Run(_, _, reply) => {
                        drop(reply.send(Err(refusal())));
                    }
                }
            }
        });
        (Self { status }, VplcHandle::new(sender, statuses))
    }
}

/// A vPLC that runs.
pub fn vplc(name: &str) -> Arc<VplcStatus> {
    let (desired, container) = ("running", "running");
    Arc::new(VplcStatus { name: name.to_owned(), desired, container, ..VplcStatus::default() })
}

/// A link with carrier.
pub fn link(index: u32, name: &str) -> Arc<LinkStatus> {
    Arc::new(LinkStatus {
        index,
        name: name.to_owned(),
        kind: "ethernet".to_owned(),
        mac: "02:00:00:00:00:01".to_owned(),
        mtu: 1500,
        oper_state: OperState::Up,
        carrier: true,
        addresses: Vec::new(),
        gateway: None,
        default_route: false,
        parent: None,
        controller: None,
        used_by: Vec::new(),
        switched_off: 0,
    })
}

/// A NIC that is up.
pub fn nic(name: &str) -> Arc<NicStatus> {
    Arc::new(NicStatus {
        name: name.to_owned(),
        link: LinkKind::Macvlan(Mode::Bridge),
        parent_name: "eth0".to_owned(),
        parent: Some(2),
        mac: Some(Mac([2, 0, 0, 0, 0, 7])),
        mode: "static",
        state: "up",
        addresses: Vec::new(),
        gateway: String::new(),
        dns: Vec::new(),
        domain: String::new(),
        ntp: Vec::new(),
        lease_expires: 0,
        error: None,
    })
}

/// The real face over a scripted domain, on a private bus.
#[derive(Debug)]
pub struct Daemon {
    /// The domain.
    pub domain: Domain,
    /// The network.
    pub network: Network,
    /// The vPLCs.
    pub vplcs: Vplcs,
    /// The face.
    pub face: Face,
    /// Where the daemon is in its life.
    pub phase: watch::Sender<Phase>,
    /// Where its audit log is.
    pub directory: tempfile::TempDir,
}

impl Daemon {
    /// On the bus under its name, running, with this status.
    pub async fn start(bus: &Bus, status: UpdateStatus) -> Self {
        let (domain, handle) = Domain::new(status);
        let (phase, phases) = watch::channel(Phase::Running);
        let (network, network_handle) = Network::start(NetworkStatus::default());
        let (vplcs, vplc_handle) = Vplcs::start();
        let directory = tempfile::tempdir().expect("a directory");
        let audit = Audit::open(directory.path());
        let face = Face::open(bus.builder(), &handle, &domain.jobs, &network_handle, &vplc_handle, phases, audit)
            .await
            .expect("the face on the bus");
        face.claim().await.expect("the bus name");
        Self { domain, network, vplcs, face, phase, directory }
    }

    /// Returns once everything so far is on the bus.
    pub async fn flush(&self) {
        self.face.publisher().flush().await.expect("the publisher");
    }
}

/// A Component at rest.
pub fn component(component_type: &str, id: &str) -> ComponentStatus {
    ComponentStatus {
        key: ComponentKey { component_type: component_type.to_owned(), id: id.to_owned() },
        interface: "rtos".to_owned(),
        arguments: vec!["0".to_owned()],
        state: "idle".to_owned(),
        version: "1".to_owned(),
        provides: BTreeMap::from([("rootfs-image.version".to_owned(), "1".to_owned())]),
        progress: 0.0,
        last_error: None,
    }
}

/// A System at rest with these Components.
pub fn system(components: Vec<ComponentStatus>) -> UpdateStatus {
    UpdateStatus {
        system_type: "demo".to_owned(),
        manifest: "demo 1".to_owned(),
        components,
        ..UpdateStatus::default()
    }
}
