//! Takes requests in, keeps an eye on the engine, and gives each vPLC a worker. Without a vPLC nobody asks for the engine.

mod connection;
mod prepare;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::connection::{Connection, News};
use self::prepare::Outcome;
use super::engine::Engine;
use super::handle::{Application, Order, ProgramOrder, Request, Upgrade, VplcHandle, VplcsStatus};
use super::nics::{CheckNic, Nics};
use super::serial::{Claims, Ports};
use super::session::Sessions;
use super::spec::{Change, SerialPort, Spec, with_image};
use super::store::Store;
use super::worker::{Command, Tools, Word, Worker};
use crate::core::error::{Error, Kind};
use crate::core::job::{Job, JobReporter, JobResult, JobState, Jobs, VPLC_SUBJECT};

/// Requests that may wait.
const MAILBOX: usize = 16;
/// How long those that come later wait for those that come before, at the start of the daemon. The order is no dependency: a
/// vPLC that cannot start must not keep the others from it.
const TURN_LIMIT: Duration = Duration::from_mins(1);

/// What the vPLC domain goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// vPLCs are kept below this directory.
    pub datastore: PathBuf,
    /// Where the device nodes of the host are.
    pub dev: PathBuf,
    /// Whether a history of what each vPLC uses is kept.
    pub history: bool,
}

/// A vPLC with its worker.
struct Entry {
    commands: mpsc::UnboundedSender<Command>,
    start_order: u32,
    /// The Job that was begun last.
    job: Option<Job>,
    /// The serial ports that it may have after that Job, whichever way it ends.
    ports: Vec<SerialPort>,
    task: JoinHandle<()>,
}

impl Entry {
    /// The Job that works on it.
    fn running(&self) -> Option<&Job> {
        self.job.as_ref().filter(|job| job.status.borrow().state == JobState::Running)
    }
}

/// Whose turn it is at the start of the daemon.
#[derive(Debug, Default)]
struct Turns {
    /// Those that have their turn and are not settled.
    now: BTreeSet<String>,
    /// Those that come later, by their order.
    later: BTreeMap<u32, BTreeSet<String>>,
    /// When the next ones have waited long enough.
    due: Option<Instant>,
}

/// The vPLC domain at work.
pub struct Actor {
    tools: Tools,
    check_nic: CheckNic,
    jobs: Jobs,
    sessions: Sessions,
    requests: mpsc::Receiver<Request>,
    entries: BTreeMap<String, Entry>,
    /// Those whose specification is being prepared, with the serial ports that they are to have.
    preparing: BTreeMap<String, Vec<SerialPort>>,
    words: mpsc::UnboundedReceiver<Word>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    outcome_sender: mpsc::UnboundedSender<Outcome>,
    connection: Connection,
    turns: Turns,
    stop: CancellationToken,
}

impl Actor {
    /// An actor that has not begun, and the door to it. `check_nic` knows what a NIC is.
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        nics: Arc<dyn Nics>,
        check_nic: CheckNic,
        settings: &Settings,
        jobs: Jobs,
        stop: CancellationToken,
    ) -> (Self, VplcHandle) {
        let (sender, requests) = mpsc::channel(MAILBOX);
        let (status, statuses) = watch::channel(VplcsStatus::default());
        let (word_sender, words) = mpsc::unbounded_channel();
        let (outcome_sender, outcomes) = mpsc::unbounded_channel();
        let connection = Connection::new(engine.clone());
        let sessions = Sessions::new(engine.clone());
        let tools = Tools {
            engine,
            nics,
            store: Store::new(&settings.datastore),
            ports: Ports::new(&settings.dev),
            history: settings.history,
            jobs: jobs.clone(),
            status: Arc::new(status),
            words: word_sender,
        };
        let actor = Self {
            tools,
            check_nic,
            jobs,
            sessions,
            requests,
            entries: BTreeMap::new(),
            preparing: BTreeMap::new(),
            words,
            outcomes,
            outcome_sender,
            connection,
            turns: Turns::default(),
            stop,
        };
        (actor, VplcHandle::new(sender, statuses))
    }

    /// Works until it is told to stop. Containers that run go on running.
    pub async fn run(mut self) {
        self.restore();
        let stop = self.stop.clone();
        loop {
            let wanted = !self.entries.is_empty();
            let due = self.turns.due;
            tokio::select! {
                () = stop.cancelled() => return self.end().await,
                news = self.connection.news(wanted) => self.hear(news),
                Some(word) = self.words.recv() => self.note(word),
                Some(outcome) = self.outcomes.recv() => self.take_up(outcome),
                () = until(due) => self.next_turn(),
                Some(request) = self.requests.recv() => {
                    // What a Job has changed is known to whoever asks after its end.
                    while let Ok(word) = self.words.try_recv() {
                        self.note(word);
                    }
                    self.answer(request);
                }
            }
        }
    }

    /// Lets the workers end, so that none is in the middle of writing a record.
    async fn end(self) {
        for (_, entry) in self.entries {
            drop(entry.commands);
            // An error means that it ended before.
            drop(entry.task.await);
        }
    }

    /// Takes those up that a former daemon had.
    fn restore(&mut self) {
        for (path, found) in self.tools.store.load() {
            // What was on trial has not proved itself, and nobody is left who waits for it.
            let (record, plc) = match found.record.way_back() {
                Some((before, plc)) => (before, Some(plc)),
                None => (found.record, None),
            };
            match Spec::parse(&record.spec, self.check_nic) {
                Ok(spec) => {
                    let (name, order, tools) = (spec.name.clone(), spec.start_order, self.tools.clone());
                    self.turns.later.entry(order).or_default().insert(name);
                    let (worker, job) = match plc {
                        None => (Worker::found(tools, spec, record, found.older), None),
                        Some(plc) => {
                            let (worker, job) = Worker::interrupted(tools, spec, record, plc);
                            (worker, Some(job))
                        }
                    };
                    self.employ(worker, order, job);
                }
                Err(error) => {
                    tracing::error!("The vPLC in \"{}\" is left as it is. {error}", path.display());
                }
            }
        }
    }

    fn employ(&mut self, mut worker: Worker, start_order: u32, job: Option<Job>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let name = worker.name().to_owned();
        worker.tell();
        let task = tokio::spawn(worker.run(receiver));
        self.entries.insert(name, Entry { commands, start_order, job, ports: Vec::new(), task });
    }

    fn tell(&self, name: &str, command: Command) {
        if let Some(entry) = self.entries.get(name) {
            // An error means that the vPLC has just vanished.
            drop(entry.commands.send(command));
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Up(version) => {
                tracing::info!(engine = version.name, version = version.version, "The container engine is connected");
                self.tools.status.send_modify(|status| {
                    (status.engine, status.engine_version) = (version.name, version.version);
                });
                for name in self.entries.keys() {
                    self.tell(name, Command::Engine(true));
                }
                if self.turns.now.is_empty() {
                    self.next_turn();
                }
            }
            News::Down(error) => {
                tracing::warn!("{error}");
                self.tools.status.send_modify(|status| {
                    (status.engine, status.engine_version) = (String::new(), String::new());
                });
                for name in self.entries.keys() {
                    self.tell(name, Command::Engine(false));
                }
            }
            News::Happened(happening) => self.tell(&happening.vplc, Command::Stirred),
        }
    }

    fn note(&mut self, word: Word) {
        let name = match word {
            Word::Settled(name) => name,
            Word::Began(name, job) => {
                if let Some(entry) = self.entries.get_mut(&name) {
                    entry.job = Some(job);
                }
                return;
            }
            Word::Vanished(name) => {
                self.entries.remove(&name);
                for names in self.turns.later.values_mut() {
                    names.remove(&name);
                }
                name
            }
        };
        if self.turns.now.remove(&name) && self.turns.now.is_empty() {
            self.next_turn();
        }
    }

    /// Gives the next ones their turn.
    fn next_turn(&mut self) {
        self.turns.due = None;
        if let Some((_, names)) = self.turns.later.pop_first() {
            for name in &names {
                self.tell(name, Command::Turn);
            }
            self.turns.now = names;
            self.turns.due = Some(Instant::now() + TURN_LIMIT);
        }
    }

    fn answer(&mut self, request: Request) {
        // A caller who has gone away needs no answer.
        match request {
            Request::Ping(reply) => drop(reply.send(())),
            Request::Plan(text, reply) => drop(reply.send(self.plan(&text))),
            Request::Apply(application, reply) => self.apply(application, reply),
            Request::Upgrade(name, upgrade, reply) => self.upgrade(&name, upgrade, reply),
            Request::Order(name, order, caller, reply) => drop(reply.send(self.order(&name, order, caller))),
            Request::Program(name, order, caller, reply) => drop(reply.send(self.program(&name, order, caller))),
            Request::Programs(name, reply) => match self.entry(&name) {
                Ok(_) => self.tell(&name, Command::Programs(reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Reset(name, reply) => match self.entry(&name) {
                Ok(_) => self.tell(&name, Command::Reset(reply)),
                Err(error) => drop(reply.send(Err(error))),
            },
            // To whom nobody answers, it has vanished.
            Request::Usage(name, reply) => self.tell(&name, Command::Usage(reply)),
            Request::History(name, metric, since, reply) => self.tell(&name, Command::History(metric, since, reply)),
            Request::Follow(name, lines, reply) => match self.entry(&name) {
                Ok(_) => {
                    let sessions = self.sessions.clone();
                    tokio::spawn(async move { drop(reply.send(sessions.follow(name, lines).await)) });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Run(name, errand, reply) => match self.running(&name) {
                Ok(()) => {
                    let sessions = self.sessions.clone();
                    tokio::spawn(async move { drop(reply.send(sessions.run(name, errand).await)) });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Lines(name, lines, reply) => match self.entry(&name) {
                Ok(_) => {
                    let engine = self.tools.engine.clone();
                    tokio::spawn(async move {
                        drop(reply.send(engine.last_lines(&name, lines).await.map_err(Error::from)));
                    });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry, Error> {
        let unknown = || Error::new(Kind::UnknownVplc, format!("There is no vPLC \"{name}\"."));
        self.entries.get(name).ok_or_else(unknown)
    }

    /// An error if the runtime of a vPLC does not run.
    fn running(&self, name: &str) -> Result<(), Error> {
        self.entry(name)?;
        let container = self.tools.status.borrow().vplcs.get(name).map_or("unknown", |vplc| vplc.container);
        if container == "running" {
            return Ok(());
        }
        let message = format!("The vPLC \"{name}\" is {container}; a command can be run in it while it is running.");
        Err(Error::new(Kind::NotSupported, message))
    }

    fn plan(&self, text: &str) -> Result<Vec<Change>, Error> {
        let spec = Spec::parse(text, self.check_nic)?;
        let status = self.tools.status.borrow();
        let before = status.vplcs.get(&spec.name).map(|vplc| Spec::parse(&vplc.spec, self.check_nic)).transpose()?;
        Ok(spec.changes_from(before.as_ref()))
    }

    /// Whom which serial port belongs to, or may belong when what is going on has ended.
    fn claims(&self) -> Claims {
        let mut claims = Claims::of(&self.tools.status.borrow());
        let busy = self.entries.iter().filter(|(_, entry)| entry.running().is_some());
        let busy = busy.map(|(name, entry)| (name, &entry.ports)).chain(&self.preparing);
        for (name, ports) in busy {
            for port in ports {
                claims.add(name, port);
            }
        }
        claims
    }

    /// One Job at a time works on a vPLC.
    fn free(&self, name: &str) -> Result<(), Error> {
        let job = self.entries.get(name).and_then(Entry::running);
        if job.is_none() && !self.preparing.contains_key(name) {
            return Ok(());
        }
        let which = job.map(|job| format!(" (Job {})", job.id)).unwrap_or_default();
        Err(Error::new(Kind::Busy, format!("Something is being done with the vPLC \"{name}\" already{which}.")))
    }

    fn apply(&mut self, application: Application, reply: oneshot::Sender<Result<u32, Error>>) {
        let Application { spec: text, archive, pin, caller } = application;
        let accepted = Spec::parse(&text, self.check_nic).map_err(Error::from).and_then(|spec| {
            self.free(&spec.name)?;
            self.claims().allow(&spec.name, &spec.serial)?;
            Ok(spec)
        });
        match accepted {
            Ok(spec) => {
                self.preparing.insert(spec.name.clone(), spec.serial.clone());
                let preparation = prepare::Preparation {
                    engine: self.tools.engine.clone(),
                    jobs: self.jobs.clone(),
                    spec,
                    text,
                    archive,
                    pin,
                    caller,
                };
                tokio::spawn(preparation.run(reply, self.outcome_sender.clone()));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// The same with another image in the specification.
    fn upgrade(&mut self, name: &str, upgrade: Upgrade, reply: oneshot::Sender<Result<u32, Error>>) {
        let Upgrade { reference, archive, pin, caller } = upgrade;
        let text = self.entry(name).and_then(|_| {
            let status = self.tools.status.borrow();
            let now = status.vplcs.get(name).map(|vplc| vplc.spec.as_str()).unwrap_or_default();
            with_image(now, &reference, self.check_nic)
        });
        match text {
            Ok(spec) => self.apply(Application { spec, archive, pin, caller }, reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Takes up what was prepared.
    fn take_up(&mut self, outcome: Outcome) {
        let (name, found) = match outcome {
            Outcome { name, found: Some(found) } => (name, found),
            Outcome { name, found: None } => {
                self.preparing.remove(&name);
                return;
            }
        };
        self.preparing.remove(&name);
        let (job, order) = (found.reporter.job().clone(), found.prepared.spec.start_order);
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.job = Some(job);
            entry.start_order = order;
            let before = self.tools.status.borrow().vplcs.get(&name).map(|vplc| vplc.serial.clone());
            entry.ports = before.into_iter().flatten().map(|port| port.port).collect();
            entry.ports.extend_from_slice(&found.prepared.spec.serial);
            drop(entry.commands.send(Command::Apply(Box::new(found.prepared), found.reporter)));
            return;
        }
        match Worker::new(self.tools.clone(), found.prepared, found.has_volume, found.reporter) {
            Ok(worker) => {
                self.employ(worker, order, Some(job));
                if self.connection.is_up() {
                    self.tell(&name, Command::Engine(true));
                }
            }
            Err(refused) => {
                let (error, reporter) = *refused;
                reporter.finish(JobResult::Failed, Some(error));
            }
        }
    }

    fn order(&mut self, name: &str, order: Order, caller: u32) -> Result<u32, Error> {
        self.entry(name)?;
        self.free(name)?;
        if !self.connection.is_up() {
            let message = format!("The vPLC \"{name}\" cannot be reached: no container engine is connected.");
            return Err(Error::new(Kind::EngineUnavailable, message));
        }
        let reporter: JobReporter = self.jobs.begin(order.kind(), format!("{VPLC_SUBJECT}{name}"), caller);
        let job = reporter.job().clone();
        let id = job.id;
        if let Some(entry) = self.entries.get_mut(name) {
            entry.job = Some(job);
        }
        self.tell(name, Command::Order(order, reporter));
        Ok(id)
    }

    fn program(&mut self, name: &str, order: ProgramOrder, caller: u32) -> Result<u32, Error> {
        self.entry(name)?;
        let vplc = self.tools.status.borrow().vplcs.get(name).cloned().unwrap_or_default();
        if Spec::parse(&vplc.spec, self.check_nic)?.program.is_none() {
            let message = format!(
                "The vPLC \"{name}\" takes no programs: its specification has no section \"program\" (add \"program: {{}}\")."
            );
            return Err(Error::new(Kind::NotSupported, message));
        }
        self.free(name)?;
        if vplc.container != "running" {
            let message =
                format!("The vPLC \"{name}\" is {}; a program can be deployed while it is running.", vplc.container);
            return Err(Error::new(Kind::NotSupported, message));
        }
        let reporter = self.jobs.begin(order.kind(), format!("{VPLC_SUBJECT}{name}"), caller);
        let job = reporter.job().clone();
        let id = job.id;
        if let Some(entry) = self.entries.get_mut(name) {
            entry.job = Some(job);
        }
        self.tell(name, Command::Program(order, reporter, caller));
        Ok(id)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Actor").field("engine", &self.tools.engine).finish_non_exhaustive()
    }
}
