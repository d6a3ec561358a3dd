//! The door to the vPLC domain: requests in, status out.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::engine::Errand;
use super::program::Programs;
use super::program::runtime::Credentials;
use super::program::store::Version;
use super::realtime::RealTime;
use super::serial::PortStatus;
use super::spec::Change;
use super::usage::{Metric, Usage, metrics};
use crate::core::error::{Error, Kind};
use crate::core::history::Point;
use crate::core::open_metrics::{OpenMetrics, Source};

/// A vPLC as the outside sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VplcStatus {
    /// Name.
    pub name: String,
    /// The text of its specification.
    pub spec: String,
    /// `running`, `stopped` or `deleted`: what is wanted.
    pub desired: &'static str,
    /// What its container does, in one word.
    pub container: &'static str,
    /// How well the runtime is, in one word; empty if nobody asks it.
    pub runtime: &'static str,
    /// The image: its name, and after a blank what it was when it was applied.
    pub image: String,
    /// Since when the container does what it does, in microseconds since 1970.
    pub since: u64,
    /// How often it was started again because it had ended by itself, since the daemon started.
    pub restarts: u32,
    /// What the PLC does, in one word; empty if that is not known.
    pub plc: &'static str,
    /// The program that is on the runtime; none if there is none, or one that did not come from here.
    pub program: Option<Version>,
    /// The versions of the program that are kept, the oldest first.
    pub versions: Arc<[Version]>,
    /// Its serial ports, in the order of the specification.
    pub serial: Vec<PortStatus>,
    /// Whether real time is granted, as it was seen last.
    pub real_time: RealTime,
    /// What went wrong last; none after a success.
    pub error: Option<Error>,
}

/// All that the outside can see of vPLCs.
#[derive(Debug, Clone, Default)]
pub struct VplcsStatus {
    /// `docker` or `podman`; empty while none is connected.
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// The vPLCs, by name. Equal pointers are equal vPLCs.
    pub vplcs: BTreeMap<String, Arc<VplcStatus>>,
}

/// What an operator wants of a vPLC that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start it, also if it was not to be started any more.
    Start,
    /// Stop it, and leave it so.
    Stop,
    /// Stop and start its runtime.
    Restart,
    /// Remove it.
    Delete {
        /// Whether its volume stays.
        keep_data: bool,
    },
}

impl Order {
    /// The kind of the Job.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Delete { .. } => "delete",
        }
    }
}

/// What is wanted of the program of a vPLC.
#[derive(Debug)]
pub enum ProgramOrder {
    /// Put this archive on the runtime.
    Deploy(File),
    /// Put this version on the runtime again; without a number, the one that proved to run before the one that is there.
    Rollback(Option<u32>),
}

impl ProgramOrder {
    /// The kind of the Job.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Deploy(_) => "deploy",
            Self::Rollback(_) => "rollback",
        }
    }
}

/// What is to be applied.
#[derive(Debug)]
pub struct Application {
    /// The text of the specification.
    pub spec: String,
    /// An archive with the image.
    pub archive: Option<File>,
    /// What the reference of the image is to stand for, as the engine or the status of a vPLC calls it: an id or `<name>@<digest>`.
    pub pin: Option<String>,
    /// User id of the caller.
    pub caller: u32,
}

/// Another image for a vPLC.
#[derive(Debug)]
pub struct Upgrade {
    /// Its name, with a tag or a digest.
    pub reference: String,
    /// As in [`Application`].
    pub archive: Option<File>,
    /// As in [`Application`].
    pub pin: Option<String>,
    /// User id of the caller.
    pub caller: u32,
}

/// A request with the way back for its answer.
#[derive(Debug)]
pub enum Request {
    /// Make or change a vPLC; the answer is the number of the Job.
    Apply(Application, oneshot::Sender<Result<u32, Error>>),
    /// Give the vPLC of this name another image; the answer is the number of the Job.
    Upgrade(String, Upgrade, oneshot::Sender<Result<u32, Error>>),
    /// What `Apply` would change.
    Plan(String, oneshot::Sender<Result<Vec<Change>, Error>>),
    /// Do this with the vPLC of this name, for this caller; the answer is the number of the Job.
    Order(String, Order, u32, oneshot::Sender<Result<u32, Error>>),
    /// Do this with the program of the vPLC of this name, for this caller; the answer is the number of the Job.
    Program(String, ProgramOrder, u32, oneshot::Sender<Result<u32, Error>>),
    /// The programs of the vPLC of this name, to look at them.
    Programs(String, oneshot::Sender<Result<Arc<Programs>, Error>>),
    /// Start the vPLC of this name again although it ended by itself too often.
    Reset(String, oneshot::Sender<Result<(), Error>>),
    /// So many of the last lines of output of the vPLC of this name.
    Lines(String, u32, oneshot::Sender<Result<Vec<String>, Error>>),
    /// What the vPLC of this name uses.
    Usage(String, oneshot::Sender<Usage>),
    /// What was recorded of the usage of the vPLC of this name since then (seconds since 1970).
    History(String, Metric, u64, oneshot::Sender<Vec<Point>>),
    /// So many of the last lines of output of the vPLC of this name, and all that comes.
    Follow(String, u32, oneshot::Sender<Result<UnixStream, Error>>),
    /// Run this in the vPLC of this name; the answer is the caller's end of the session.
    Run(String, Errand, oneshot::Sender<Result<UnixStream, Error>>),
    /// Show that the actor is alive.
    Ping(oneshot::Sender<()>),
}

/// The door to the vPLC domain; clones lead to the same actor.
#[derive(Debug, Clone)]
pub struct VplcHandle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<VplcsStatus>,
}

impl VplcHandle {
    /// The door that leads to the actor with this mailbox.
    pub fn new(requests: mpsc::Sender<Request>, status: watch::Receiver<VplcsStatus>) -> Self {
        Self { requests, status }
    }

    /// The status, to read and to wait for changes.
    pub fn status(&self) -> watch::Receiver<VplcsStatus> {
        self.status.clone()
    }

    /// Makes or changes a vPLC to be as specified; returns the number of the Job.
    pub async fn apply(&self, application: Application) -> Result<u32, Error> {
        self.ask(|reply| Request::Apply(application, reply)).await?
    }

    /// Gives a vPLC another image and changes nothing else; returns the number of the Job.
    pub async fn upgrade(&self, vplc: String, upgrade: Upgrade) -> Result<u32, Error> {
        self.ask(|reply| Request::Upgrade(vplc, upgrade, reply)).await?
    }

    /// What [`Self::apply`] would change.
    pub async fn plan(&self, spec: String) -> Result<Vec<Change>, Error> {
        self.ask(|reply| Request::Plan(spec, reply)).await?
    }

    /// Starts, stops, restarts or deletes a vPLC; returns the number of the Job.
    pub async fn order(&self, vplc: String, order: Order, caller: u32) -> Result<u32, Error> {
        self.ask(|reply| Request::Order(vplc, order, caller, reply)).await?
    }

    /// Deploys a PLC program or takes it back; returns the number of the Job.
    pub async fn program(&self, vplc: String, order: ProgramOrder, caller: u32) -> Result<u32, Error> {
        self.ask(|reply| Request::Program(vplc, order, caller, reply)).await?
    }

    /// The archive of a version of the program of a vPLC, or of the active one.
    pub async fn export(&self, vplc: String, version: Option<u32>) -> Result<(File, Version), Error> {
        let programs = self.programs(vplc.clone()).await?;
        let number = match version {
            Some(number) => Some(number),
            None => programs.active().await.map(|version| version.number),
        };
        let none =
            || Error::new(Kind::NotSupported, format!("The vPLC \"{vplc}\" has no program that came from here."));
        programs.export(number.ok_or_else(none)?).await
    }

    /// Who the daemon is to the runtime of a vPLC.
    pub async fn credentials(&self, vplc: String) -> Result<Credentials, Error> {
        Ok(self.programs(vplc).await?.runtime().credentials())
    }

    async fn programs(&self, vplc: String) -> Result<Arc<Programs>, Error> {
        self.ask(|reply| Request::Programs(vplc, reply)).await?
    }

    /// Starts a vPLC again although it ended by itself too often.
    pub async fn reset(&self, vplc: String) -> Result<(), Error> {
        self.ask(|reply| Request::Reset(vplc, reply)).await?
    }

    /// The last lines of output of a vPLC.
    pub async fn lines(&self, vplc: String, lines: u32) -> Result<Vec<String>, Error> {
        self.ask(|reply| Request::Lines(vplc, lines, reply)).await?
    }

    /// What a vPLC uses now.
    pub async fn usage(&self, vplc: String) -> Result<Usage, Error> {
        self.ask(|reply| Request::Usage(vplc, reply)).await
    }

    /// What was recorded of the usage of a vPLC since then (seconds since 1970); nothing if no history is kept.
    pub async fn history(&self, vplc: String, metric: Metric, since: u64) -> Result<Vec<Point>, Error> {
        self.ask(|reply| Request::History(vplc, metric, since, reply)).await
    }

    /// The last lines of output of a vPLC, and all that comes until it ends.
    pub async fn follow(&self, vplc: String, lines: u32) -> Result<UnixStream, Error> {
        self.ask(|reply| Request::Follow(vplc, lines, reply)).await?
    }

    /// Runs a command in a vPLC; returns the caller's end of its [session](super::session).
    pub async fn run(&self, vplc: String, errand: Errand) -> Result<UnixStream, Error> {
        self.ask(|reply| Request::Run(vplc, errand, reply)).await?
    }

    /// Returns once the actor has answered.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask(Request::Ping).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::new(Kind::Failed, "The vPLC service of orchestratord has stopped.");
        self.requests.send(request(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl Source for VplcHandle {
    fn describe<'a>(&'a self, text: &'a mut OpenMetrics) -> BoxFuture<'a, ()> {
        async move {
            let names: Vec<String> = self.status.borrow().vplcs.keys().cloned().collect();
            let mut usages = Vec::new();
            for name in names {
                // An error means that the vPLC has just vanished.
                if let Ok(usage) = self.usage(name.clone()).await {
                    usages.push((name, usage));
                }
            }
            metrics::describe(&usages, text);
        }
        .boxed()
    }
}
