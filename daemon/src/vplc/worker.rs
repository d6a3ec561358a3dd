//! Does for one vPLC what its machine says, and tells the machine what happens.

mod effects;
mod hardware;
mod jobs;
mod programs;
mod serial;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use self::hardware::Hardware;
use self::jobs::Work;
use self::programs::Shelf;
use self::serial::SerialPorts;
use super::engine::{Condition, Container, Engine, Wellness};
use super::handle::{Order, ProgramOrder, VplcStatus, VplcsStatus};
use super::machine::{Claim, Effect, Event, Machine, Rules, Sight, latched};
use super::nics::Nics;
use super::program::Programs;
use super::serial::Ports;
use super::spec::{Desired, Spec, Unhealthy};
use super::store::{Latch, Pinned, Record, Store, Wanted};
use super::usage::{Metric, Usage};
use crate::core::error::Error;
use crate::core::history::Point;
use crate::core::job::{Job, JobReporter, Jobs};

/// The first wait before what failed is tried again; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const RETRY_MOST: Duration = Duration::from_mins(1);
/// Lines of output that are kept of a runtime that is not started any more.
const LAST_LINES: u32 = 20;

/// A specification whose image was found.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What is to be.
    pub spec: Spec,
    /// Its text.
    pub text: String,
    /// The image.
    pub image: Pinned,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// The engine answers, or does not any more.
    Engine(bool),
    /// Those that come before this vPLC are done.
    Turn,
    /// Something happened to a container.
    Stirred,
    /// Be like this from now on.
    Apply(Box<Prepared>, JobReporter),
    /// An operator wants something.
    Order(Order, JobReporter),
    /// An operator wants something of its program; the last one is the caller.
    Program(ProgramOrder, JobReporter, u32),
    /// Hand out its programs, to look at them.
    Programs(oneshot::Sender<Result<Arc<Programs>, Error>>),
    /// Start again although the latch has fallen.
    Reset(oneshot::Sender<Result<(), Error>>),
    /// Tell what it uses.
    Usage(oneshot::Sender<Usage>),
    /// Tell what was recorded of its usage since then (seconds since 1970).
    History(Metric, u64, oneshot::Sender<Vec<Point>>),
}

/// What a worker tells about the vPLC with this name.
#[derive(Debug)]
pub enum Word {
    /// Those that come after it at the start of the daemon need not wait any longer.
    Settled(String),
    /// This Job works on it, which nobody has asked for.
    Began(String, Job),
    /// Nothing is left of it.
    Vanished(String),
}

/// What the workers share.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// The NICs.
    pub nics: Arc<dyn Nics>,
    /// The records.
    pub store: Store,
    /// The serial ports of the host.
    pub ports: Ports,
    /// Whether a history of what each vPLC uses is kept.
    pub history: bool,
    /// All Jobs.
    pub jobs: Jobs,
    /// What the outside sees. Written before a Job ends, so that whoever waited for the Job finds it.
    pub status: Arc<watch::Sender<VplcsStatus>>,
    /// The way to the actor.
    pub words: mpsc::UnboundedSender<Word>,
}

/// One vPLC at work.
#[derive(Debug)]
pub struct Worker {
    tools: Tools,
    spec: Spec,
    record: Record,
    /// The record is not the newest one: the containers may be of a later generation, and are right all the same.
    older: bool,
    machine: Machine,
    shelf: Shelf,
    hardware: Hardware,
    serial: SerialPorts,
    work: Option<Work>,
    started: Instant,
    told: VplcStatus,
    settled: bool,
}

impl Worker {
    /// A vPLC that was found on record.
    pub fn found(tools: Tools, spec: Spec, record: Record, older: bool) -> Self {
        let shelf = Shelf::open(&tools, &spec);
        let (hardware, serial) = (Hardware::new(&tools, &spec), SerialPorts::new(&tools, &spec));
        let machine = Machine::new(rules(&spec, &record, &shelf));
        let (started, told) = (Instant::now(), VplcStatus::default());
        Self { tools, spec, record, older, machine, shelf, hardware, serial, work: None, started, told, settled: false }
    }

    /// A vPLC that is new. Puts it on record; an error leaves nothing behind.
    pub fn new(
        tools: Tools,
        prepared: Prepared,
        keep_data: bool,
        reporter: JobReporter,
    ) -> Result<Self, Box<(Error, JobReporter)>> {
        let Prepared { spec, text, image } = prepared;
        let wanted = spec.state.map_or(Wanted::Running, wanted);
        let record = Record { spec: text, generation: 1, newest: 1, wanted, image, latch: None, trial: None };
        if let Err(error) = tools.store.keep(&spec.name, &record) {
            return Err(Box::new((error, reporter)));
        }
        let mut worker = Self::found(tools, spec, record, false);
        worker.machine.step(Event::Turn);
        worker.work = Some(Work::making(reporter, keep_data));
        Ok(worker)
    }

    /// A vPLC of which a change was on trial when the daemon ended: it is as before from now on, and the Job sees to it. `plc` if
    /// its PLC has to run.
    pub fn interrupted(tools: Tools, spec: Spec, before: Record, plc: bool) -> (Self, Job) {
        let mut worker = Self::found(tools, spec, before, false);
        let job = worker.resume_return(plc);
        (worker, job)
    }

    /// Name of the vPLC.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Works until the vPLC has vanished, or the daemon ends. A container that runs then goes on running.
    pub async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut doing: Option<BoxFuture<'static, Event>> = None;
        let mut pause: Option<BoxFuture<'static, ()>> = None;
        let mut proof: Option<BoxFuture<'static, ()>> = None;
        let mut health: Option<BoxFuture<'static, ()>> = None;
        let mut events: VecDeque<Event> = VecDeque::new();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => {
                        if matches!(command, Command::Apply(..) | Command::Order(..))
                            && matches!(self.machine.doing(), Some(Effect::Claim { .. }))
                        {
                            // It may wait for minutes; it can be begun anew, and is after a while if the command changes nothing.
                            doing = None;
                            self.machine.step(Event::Failed(programs::given_up(&self.spec.name)));
                            pause = Some(sleep(RETRY_FIRST).boxed());
                        }
                        events.extend(self.take(command));
                    }
                    None => return,
                },
                () = self.shelf.changed() => {}
                () = self.hardware.changed() => {}
                () = self.serial.changed() => {}
                event = wait(&mut doing) => {
                    doing = None;
                    events.push_back(event);
                }
                () = wait(&mut pause) => {
                    pause = None;
                    events.push_back(Event::PauseOver);
                }
                () = wait(&mut proof) => {
                    proof = None;
                    events.push_back(Event::Proved);
                }
                () = wait(&mut health) => {
                    health = None;
                    events.push_back(Event::Late);
                }
            }
            while let Some(event) = events.pop_front() {
                self.remark(&event);
                for effect in self.machine.step(event) {
                    match effect {
                        Effect::KeepLatch(latch) => self.latch(latch),
                        Effect::Pause(delay) => pause = Some(sleep(delay).boxed()),
                        Effect::Prove(time) => proof = Some(sleep(time).boxed()),
                        Effect::Await(time) => health = Some(sleep(time).boxed()),
                        Effect::Retry { failures } => pause = Some(sleep(retry_after(failures)).boxed()),
                        Effect::Vanish => match self.tools.store.forget(&self.spec.name) {
                            Ok(()) => return self.vanish(),
                            Err(error) => events.push_back(Event::Failed(error)),
                        },
                        effect => doing = Some(self.begin(effect)),
                    }
                }
                self.tell();
                // Not halfway through what a command means: a restart would be over before it has begun.
                if events.is_empty() {
                    events.extend(self.judge());
                }
            }
            let running = self.machine.has_programs();
            if let Some(job) = self.shelf.tend(&self.tools, &self.spec.name, running).await {
                drop(self.tools.words.send(Word::Began(self.spec.name.clone(), job)));
            }
            self.hardware.tend(self.machine.sight(), &self.shelf);
            self.serial.tend(self.machine.sight());
            self.tell();
            self.shelf.finish();
        }
    }

    /// What a command means to the machine.
    fn take(&mut self, command: Command) -> Vec<Event> {
        match command {
            Command::Engine(there) => vec![Event::Engine(there)],
            Command::Turn => vec![Event::Turn],
            Command::Stirred => vec![Event::Stirred],
            Command::Apply(prepared, reporter) => self.apply(*prepared, reporter),
            Command::Order(order, reporter) => self.order(order, reporter),
            Command::Program(order, reporter, caller) => {
                let running = self.machine.has_programs();
                self.shelf.begin(&self.spec.name, order, reporter, caller, running);
                Vec::new()
            }
            Command::Programs(reply) => {
                // A caller who has gone away needs no answer.
                drop(reply.send(self.shelf.programs(&self.spec.name)));
                Vec::new()
            }
            Command::Usage(reply) => {
                self.hardware.usage(self.machine.restarts(), self.shelf.overruns(), reply);
                Vec::new()
            }
            Command::History(metric, since, reply) => {
                drop(reply.send(self.hardware.history(metric, since)));
                Vec::new()
            }
            Command::Reset(reply) => {
                let record = Record { latch: None, ..self.record.clone() };
                let events = self.change(self.spec.clone(), record);
                // A caller who has gone away needs no answer.
                match events {
                    Ok(events) => {
                        drop(reply.send(Ok(())));
                        events
                    }
                    Err(error) => {
                        drop(reply.send(Err(error)));
                        Vec::new()
                    }
                }
            }
        }
    }

    fn vanish(mut self) {
        let name = self.spec.name;
        self.tools.status.send_modify(|status| drop(status.vplcs.remove(&name)));
        drop(self.tools.words.send(Word::Vanished(name)));
        if let Some(work) = self.work.take() {
            work.vanished();
        }
    }

    fn latch(&mut self, latch: Latch) {
        tracing::error!(vplc = self.spec.name, "{}", latched(&self.spec.name, &latch));
        self.record.latch = Some(latch);
        if let Err(error) = self.tools.store.keep(&self.spec.name, &self.record) {
            tracing::error!(vplc = self.spec.name, "{error}");
        }
    }

    fn remark(&mut self, event: &Event) {
        if let Event::Seen(sight, _) = event {
            self.shelf.see(sight);
        }
        match event {
            Event::Failed(error) => tracing::warn!(vplc = self.spec.name, "{error}"),
            Event::Claimed(lost) => self.shelf.note_claim(lost.clone()),
            // The newest record was lost. A PLC is not restarted for that: what runs is what was wanted.
            Event::Seen(Sight { runtime: Some(runtime), .. }, _) if self.older => {
                self.older = false;
                if runtime.generation > self.record.generation {
                    self.record.generation = runtime.generation;
                    self.machine
                        .step(Event::Rules { rules: rules(&self.spec, &self.record, &self.shelf), nics: false });
                }
            }
            _ => {}
        }
    }

    /// Shows what has changed. To be called before [`Worker::run`], so that nobody can overlook a vPLC that there is.
    pub fn tell(&mut self) {
        let latch = self.machine.latch().filter(|_| self.record.wanted == Wanted::Running);
        let digest =
            if self.record.image.digest.is_empty() { &self.record.image.id } else { &self.record.image.digest };
        let mut status = VplcStatus {
            name: self.spec.name.clone(),
            spec: self.record.spec.clone(),
            desired: match self.record.wanted {
                Wanted::Running => Desired::Running.as_str(),
                Wanted::Stopped => Desired::Stopped.as_str(),
                Wanted::Gone { .. } => "deleted",
            },
            container: self.machine.state(),
            runtime: match self.machine.wellness() {
                None | Some(Wellness::Unknown) => "",
                Some(Wellness::Starting) => "starting",
                Some(Wellness::Healthy) => "healthy",
                Some(Wellness::Unhealthy) => "unhealthy",
            },
            image: format!("{} {digest}", self.spec.image.reference),
            since: self.told.since,
            restarts: self.machine.restarts(),
            plc: self.shelf.plc(),
            program: self.shelf.active().cloned(),
            versions: self.shelf.versions(),
            serial: self.serial.status().to_vec(),
            real_time: self.hardware.real_time().clone(),
            error: (self.machine.error().cloned())
                .or_else(|| latch.map(|latch| latched(&self.spec.name, latch)))
                .or_else(|| self.shelf.lost().cloned()),
        };
        if status.container != self.told.container {
            status.since = now_micros();
            tracing::info!(vplc = status.name, container = status.container, "A vPLC has changed");
        }
        if status != self.told {
            self.told = status.clone();
            self.tools.status.send_modify(|all| drop(all.vplcs.insert(status.name.clone(), Arc::new(status))));
        }
        if !self.settled && self.machine.is_settled(&self.spec.name) {
            self.settled = true;
            drop(self.tools.words.send(Word::Settled(self.spec.name.clone())));
        }
    }
}

/// What the machine goes by.
fn rules(spec: &Spec, record: &Record, shelf: &Shelf) -> Rules {
    Rules {
        wanted: record.wanted,
        generation: record.generation,
        restart: spec.restart.clone(),
        unhealthy: spec.health.as_ref().map_or(Unhealthy::Report, |health| health.on_unhealthy),
        latch: record.latch.clone(),
        claim: spec.program.as_ref().map(|_| Claim { container: shelf.claimed() }),
        trial: record.trial.is_some(),
        health_limit: spec.health_limit(),
    }
}

const fn wanted(state: Desired) -> Wanted {
    match state {
        Desired::Running => Wanted::Running,
        Desired::Stopped => Wanted::Stopped,
    }
}

/// How long to wait after so many failures in a row.
fn retry_after(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.min(16)).min(RETRY_MOST)
}

/// What the engine calls a container, and the number of its first process, if it runs.
fn running(container: &Container) -> Option<(String, i32)> {
    match container.condition {
        Condition::Running { pid, .. } => Some((container.id.clone(), pid)),
        _ => None,
    }
}

/// Waits for what is there, or for ever.
async fn wait<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
