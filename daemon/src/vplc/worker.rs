//! Does for one vPLC what its machine says, and tells the machine what happens.

mod hardware;
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
use self::programs::Shelf;
use self::serial::SerialPorts;
use super::engine::{Condition, Container, Engine, EngineError, Plan, Role, Wellness};
use super::handle::{Order, ProgramOrder, VplcStatus, VplcsStatus};
use super::machine::{Claim, Effect, Event, Machine, Rules, Sight, latched};
use super::nics::Nics;
use super::serial::Ports;
use super::spec::{Desired, Spec, Unhealthy};
use super::store::{Latch, Pinned, Record, Store, Wanted};
use super::usage::{Metric, Usage};
use crate::core::error::Error;
use crate::core::history::Point;
use crate::core::job::{Job, JobReporter, JobResult, Jobs};

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

/// What is taken back if a Job fails.
#[derive(Debug)]
enum Undo {
    /// Nothing.
    Nothing,
    /// There was no such vPLC before; its volume may have been there.
    Forget {
        /// The volume was there.
        keep_data: bool,
    },
    /// The vPLC was like this.
    Return(Box<(Spec, Record)>),
}

/// A Job at work.
#[derive(Debug)]
struct Work {
    reporter: JobReporter,
    undo: Undo,
    /// What went wrong, while it is taken back.
    cause: Option<Error>,
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
        let record = Record { spec: text, generation: 1, wanted, image, latch: None };
        if let Err(error) = tools.store.keep(&spec.name, &record) {
            return Err(Box::new((error, reporter)));
        }
        let mut worker = Self::found(tools, spec, record, false);
        worker.machine.step(Event::Turn);
        worker.work = Some(Work { reporter, undo: Undo::Forget { keep_data }, cause: None });
        Ok(worker)
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
            }
            while let Some(event) = events.pop_front() {
                self.remark(&event);
                for effect in self.machine.step(event) {
                    match effect {
                        Effect::KeepLatch(latch) => self.latch(latch),
                        Effect::Pause(delay) => pause = Some(sleep(delay).boxed()),
                        Effect::Prove(time) => proof = Some(sleep(time).boxed()),
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

    fn apply(&mut self, prepared: Prepared, reporter: JobReporter) -> Vec<Event> {
        let Prepared { spec, text, image } = prepared;
        let same = spec.same_containers(&self.spec) && image.id == self.record.image.id;
        let record = Record {
            spec: text,
            generation: if same { self.record.generation } else { self.record.generation + 1 },
            wanted: match (spec.state, self.record.wanted) {
                (Some(state), _) => wanted(state),
                // Whoever applies one that is on its way out wants it back.
                (None, Wanted::Gone { .. }) => Wanted::Running,
                (None, before) => before,
            },
            image,
            latch: None,
        };
        let before = Box::new((self.spec.clone(), self.record.clone()));
        let changed = self.change(spec, record);
        self.set_to_work(reporter, Undo::Return(before), changed)
    }

    fn order(&mut self, order: Order, reporter: JobReporter) -> Vec<Event> {
        let record = match order {
            Order::Start | Order::Restart => Record { wanted: Wanted::Running, latch: None, ..self.record.clone() },
            Order::Stop => Record { wanted: Wanted::Stopped, ..self.record.clone() },
            Order::Delete { keep_data } => Record { wanted: Wanted::Gone { keep_data }, ..self.record.clone() },
        };
        let changed = self.change(self.spec.clone(), record).map(|mut events| {
            events.extend((order == Order::Restart).then_some(Event::Again));
            events
        });
        self.set_to_work(reporter, Undo::Nothing, changed)
    }

    fn set_to_work(&mut self, reporter: JobReporter, undo: Undo, changed: Result<Vec<Event>, Error>) -> Vec<Event> {
        match changed {
            Ok(events) => {
                self.work = Some(Work { reporter, undo, cause: None });
                events
            }
            Err(error) => {
                reporter.finish(JobResult::Failed, Some(error));
                Vec::new()
            }
        }
    }

    /// From now on this holds; it is on record before anything is done.
    fn change(&mut self, spec: Spec, record: Record) -> Result<Vec<Event>, Error> {
        self.tools.store.keep(&spec.name, &record)?;
        let nics = spec.nics != self.spec.nics;
        if spec.program != self.spec.program || matches!(self.record.wanted, Wanted::Gone { .. }) {
            self.shelf = Shelf::open(&self.tools, &spec);
        }
        self.hardware.follow(&spec);
        if spec.serial != self.spec.serial {
            self.serial = SerialPorts::new(&self.tools, &spec);
        }
        (self.spec, self.record, self.older) = (spec, record, false);
        Ok(vec![Event::Rules { rules: rules(&self.spec, &self.record, &self.shelf), nics }])
    }

    /// Ends the Job if there is nothing more to wait for, or takes back what it has done.
    fn judge(&mut self) -> Vec<Event> {
        let Some(work) = &mut self.work else { return Vec::new() };
        if let Some(effect) = self.machine.doing().filter(|effect| **effect != Effect::Look) {
            work.reporter.report(0.5, step(effect));
        }
        let Some(rest) = self.machine.rest(&self.spec.name) else { return Vec::new() };
        let undo = std::mem::replace(&mut work.undo, Undo::Nothing);
        match (rest, undo) {
            (Ok(()), _) => {
                if let Some(Work { reporter, cause, .. }) = self.work.take() {
                    let result = if cause.is_some() { JobResult::RolledBack } else { JobResult::Done };
                    reporter.finish(result, cause);
                }
                Vec::new()
            }
            (Err(error), Undo::Nothing) => {
                if let Some(Work { reporter, cause, .. }) = self.work.take() {
                    reporter.finish(JobResult::Failed, Some(cause.unwrap_or(error)));
                }
                Vec::new()
            }
            (Err(error), Undo::Forget { keep_data }) => {
                work.cause = Some(error);
                let record = Record { wanted: Wanted::Gone { keep_data }, ..self.record.clone() };
                self.turn_back(self.spec.clone(), record)
            }
            (Err(error), Undo::Return(before)) => {
                work.cause = Some(error);
                // With its generation: what was made in between goes, and what still runs of before stays.
                let (spec, record) = *before;
                self.turn_back(spec, record)
            }
        }
    }

    fn turn_back(&mut self, spec: Spec, record: Record) -> Vec<Event> {
        let changed = self.change(spec, record);
        changed.unwrap_or_else(|error| vec![Event::Failed(error)])
    }

    fn vanish(mut self) {
        let name = self.spec.name;
        self.tools.status.send_modify(|status| drop(status.vplcs.remove(&name)));
        drop(self.tools.words.send(Word::Vanished(name)));
        if let Some(Work { reporter, cause, .. }) = self.work.take() {
            let result = if cause.is_some() { JobResult::Failed } else { JobResult::Done };
            reporter.finish(result, cause);
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

    /// Begins what takes time.
    fn begin(&self, effect: Effect) -> BoxFuture<'static, Event> {
        let Tools { engine, nics, store, .. } = self.tools.clone();
        if let Effect::Claim { container } = effect {
            // A runtime of another image that does not run the program goes back to the one before.
            let strict = self.work.as_ref().is_some_and(|work| matches!(work.undo, Undo::Return(_)));
            return self.shelf.claim(container, strict);
        }
        let (spec, record, started) = (self.spec.clone(), self.record.clone(), self.started);
        let ports = self.serial.site();
        tracing::debug!(vplc = spec.name, ?effect, "begins");
        async move {
            let done: Result<Event, Error> = async {
                let name = spec.name.as_str();
                let image = &record.image.id;
                match effect {
                    Effect::Look => {
                        let holder = engine.find(name, Role::Holder).await?;
                        let runtime = engine.find(name, Role::Runtime).await?;
                        return Ok(Event::Seen(Sight { holder, runtime }, started.elapsed()));
                    }
                    Effect::ReadLines => {
                        // Without its last words it is no less dead.
                        return Ok(Event::Lines(engine.last_lines(name, LAST_LINES).await.unwrap_or_default()));
                    }
                    Effect::FetchImage => fetch_again(engine.as_ref(), &spec, &record.image).await?,
                    Effect::CreateHolder => engine.create(&Plan::holder(&spec, record.generation, image)).await?,
                    Effect::CreateRuntime => {
                        engine.create(&Plan::runtime(&spec, record.generation, image, ports.rules())).await?;
                    }
                    Effect::StartHolder => engine.start(name, Role::Holder).await?,
                    Effect::StartRuntime => {
                        ports.prepare().await;
                        engine.start(name, Role::Runtime).await?;
                    }
                    Effect::AttachNics { pid } => nics.attach(name, &spec.nics, pid).await?,
                    Effect::DetachNics => nics.detach(name).await?,
                    Effect::StopRuntime => engine.stop(name, Role::Runtime, spec.stop_grace).await?,
                    Effect::StopHolder => engine.stop(name, Role::Holder, Duration::ZERO).await?,
                    Effect::RemoveRuntime => engine.remove(name, Role::Runtime).await?,
                    Effect::RemoveHolder => engine.remove(name, Role::Holder).await?,
                    Effect::RemoveData => {
                        engine.remove_volume(name).await?;
                        store.forget_programs(name)?;
                    }
                    Effect::KeepLatch(_)
                    | Effect::Pause(_)
                    | Effect::Prove(_)
                    | Effect::Claim { .. }
                    | Effect::Retry { .. }
                    | Effect::Vanish => {}
                }
                Ok(Event::Done)
            }
            .await;
            done.unwrap_or_else(Event::Failed)
        }
        .boxed()
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
            serial: self.serial.status().to_vec(),
            real_time: self.hardware.real_time().clone(),
            error: self.machine.error().cloned().or(latch.map(|latch| latched(&self.spec.name, latch))),
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
    }
}

const fn wanted(state: Desired) -> Wanted {
    match state {
        Desired::Running => Wanted::Running,
        Desired::Stopped => Wanted::Stopped,
    }
}

/// The image is the one that was pinned, or it is fetched again as that very one.
async fn fetch_again(engine: &dyn Engine, spec: &Spec, image: &Pinned) -> Result<(), EngineError> {
    if engine.image(&image.id).await?.is_some() {
        return Ok(());
    }
    if image.digest.is_empty() {
        let reason =
            format!("\"{}\" was removed, and it did not come from a registry; apply it with its archive", image.id);
        return Err(EngineError::NoImage { image: spec.image.reference.clone(), reason });
    }
    engine.pull(&image.digest, &|_, _| {}).await
}

/// What is being done, for people.
fn step(effect: &Effect) -> &'static str {
    match effect {
        Effect::Look => "looking",
        Effect::FetchImage => "fetching the image",
        Effect::CreateHolder | Effect::StartHolder => "making the network namespace",
        Effect::AttachNics { .. } => "attaching the NICs",
        Effect::CreateRuntime | Effect::StartRuntime => "starting the runtime",
        Effect::Claim { .. } => "claiming the runtime",
        Effect::StopRuntime => "stopping the runtime",
        Effect::DetachNics => "detaching the NICs",
        Effect::ReadLines => "reading the last output",
        Effect::RemoveRuntime | Effect::RemoveHolder | Effect::StopHolder | Effect::RemoveData => "removing",
        Effect::KeepLatch(_) | Effect::Pause(_) | Effect::Prove(_) | Effect::Retry { .. } | Effect::Vanish => "ending",
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
