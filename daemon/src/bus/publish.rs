//! From the watch channels of the domain to the bus: objects that appear and vanish, and honest signals.
//!
//! One task does it all, so that the order on the bus is the order of the events: a Job exists before anything names
//! it, its last values are out before it is announced as ended. A signal is sent only for a value that differs from the
//! one sent before; progress is sent every [`PACE`] at most, and its last value always.

mod network;
mod vplc;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use zbus::fdo::Properties;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath};

use super::Phase;
use super::component::{Component, ComponentView};
use super::gate::Gate;
use super::job::{Job, JobSignals as _, JobView};
use super::manager::{Manager, ManagerSignals as _, ManagerView};
use super::update::{Update, UpdateView};
use super::view::{Changes, View, component_path, job_path, root_path, text};
use crate::core::error::{Error, Kind};
use crate::core::job::{JobChange, JobResult, JobState, JobStatus, Jobs, LogLine, Severity};
use crate::network::handle::NetworkHandle;
use crate::update::component::{ComponentKey, ComponentStatus};
use crate::update::handle::{UpdateHandle, UpdateStatus};
use crate::vplc::handle::VplcHandle;

/// The shortest time between two signals of an object that say nothing but progress.
pub const PACE: Duration = Duration::from_millis(100);
/// Properties that are progress.
const PACED: [&str; 2] = ["Progress", "Step"];

/// The way to the publishing task.
#[derive(Debug, Clone)]
pub struct Publisher {
    update: mpsc::Sender<oneshot::Sender<()>>,
    network: mpsc::Sender<oneshot::Sender<()>>,
    vplc: mpsc::Sender<oneshot::Sender<()>>,
}

impl Publisher {
    /// Returns once everything that has happened so far is on the bus, progress included.
    pub async fn flush(&self) -> Result<(), Error> {
        let gone = || Error::new(Kind::Failed, "The bus service of orchestratord has stopped.");
        for task in [&self.update, &self.network, &self.vplc] {
            let (done, published) = oneshot::channel();
            task.send(done).await.map_err(|_| gone())?;
            published.await.map_err(|_| gone())?;
        }
        Ok(())
    }
}

/// What is shown of one object.
struct Shown<V> {
    emitter: SignalEmitter<'static>,
    view: watch::Sender<V>,
    sent: Option<Instant>,
}

impl<V: View> Shown<V> {
    fn new(connection: &Connection, path: OwnedObjectPath, view: V) -> (Self, watch::Receiver<V>) {
        let (sender, receiver) = watch::channel(view);
        (
            Self { emitter: SignalEmitter::from_parts(connection.clone(), path.into()), view: sender, sent: None },
            receiver,
        )
    }

    /// When these changes may go out, if they are progress that comes too soon.
    fn withheld(&self, changes: &Changes) -> Option<Instant> {
        let paced = changes.keys().all(|property| PACED.contains(property));
        self.sent.map(|sent| sent + PACE).filter(|due| paced && *due > Instant::now())
    }

    /// Shows this from now on. Progress that comes too soon is withheld, unless `all`; then it returns when it is due.
    async fn show(&mut self, view: V, all: bool) -> Option<Instant> {
        let changes = view.changes_since(&self.view.borrow());
        if changes.is_empty() {
            return None;
        }
        let withheld = self.withheld(&changes);
        if !all && withheld.is_some() {
            return withheld;
        }
        self.view.send_replace(view);
        self.sent = Some(Instant::now());
        let interface = InterfaceName::from_static_str_unchecked(V::INTERFACE);
        let sent = Properties::properties_changed(&self.emitter, interface, changes, Cow::Borrowed(&[])).await;
        report(sent, V::INTERFACE, "PropertiesChanged");
        None
    }
}

/// A Component on the bus.
struct ShownComponent {
    /// What it shows.
    status: ComponentStatus,
    shown: Shown<ComponentView>,
}

/// A Job on the bus.
struct ShownJob {
    status: watch::Receiver<JobStatus>,
    log: broadcast::Receiver<LogLine>,
    shown: Shown<JobView>,
    ended: bool,
}

impl ShownJob {
    /// Waits until there is something to publish: a line of the log, or without one a change of the status.
    async fn activity(&mut self, id: u32) -> (u32, Option<LogLine>) {
        tokio::select! {
            line = self.log.recv() => (id, line_or_loss(line)),
            _ = self.status.changed() => (id, None),
        }
    }

    async fn log(&self, line: LogLine) {
        let LogLine { severity, component, message } = line;
        let sent = self.shown.emitter.log(severity.as_str(), &text(component), &text(message)).await;
        report(sent, JobView::INTERFACE, "Log");
    }

    /// Sends what the log has; what comes while this runs waits for the next time.
    async fn drain_log(&mut self) {
        for _ in 0..self.log.len() {
            let line = match self.log.try_recv() {
                Ok(line) => Ok(line),
                Err(broadcast::error::TryRecvError::Lagged(lost)) => Err(broadcast::error::RecvError::Lagged(lost)),
                Err(_) => return,
            };
            if let Some(line) = line_or_loss(line) {
                self.log(line).await;
            }
        }
    }
}

/// A reader who missed lines is told so.
fn line_or_loss(line: Result<LogLine, broadcast::error::RecvError>) -> Option<LogLine> {
    match line {
        Ok(line) => Some(line),
        Err(broadcast::error::RecvError::Lagged(lost)) => Some(LogLine {
            severity: Severity::Warning,
            component: String::new(),
            message: format!("The bus was too slow for {lost} lines of this log; the daemon's own log has them."),
        }),
        Err(broadcast::error::RecvError::Closed) => None,
    }
}

/// Publishes; made by [`Task::start`], driven by [`Task::run`].
pub(super) struct Task {
    connection: Connection,
    publisher: Publisher,
    gate: Gate,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
    phase: watch::Receiver<Phase>,
    status: watch::Receiver<UpdateStatus>,
    /// The status as it was at the last pass.
    seen: UpdateStatus,
    jobs: Jobs,
    changes: mpsc::UnboundedReceiver<JobChange>,
    manager: Shown<ManagerView>,
    update: Shown<UpdateView>,
    components: BTreeMap<ComponentKey, ShownComponent>,
    shown_jobs: BTreeMap<u32, ShownJob>,
    /// When something withheld is due, or a Job is to be forgotten.
    due: Option<Instant>,
}

impl Task {
    /// Exports all objects there are; from now on [`Task::run`] has to be driven.
    pub(super) async fn start(
        connection: &Connection,
        handle: &UpdateHandle,
        jobs: &Jobs,
        network: &NetworkHandle,
        vplc: &VplcHandle,
        phase: watch::Receiver<Phase>,
        gate: Gate,
    ) -> zbus::Result<(Self, network::Task, vplc::Task, Publisher)> {
        let (sender, flushes) = mpsc::channel(16);
        let (network_sender, network_flushes) = mpsc::channel(16);
        let (vplc_sender, vplc_flushes) = mpsc::channel(16);
        let publisher = Publisher { update: sender, network: network_sender, vplc: vplc_sender };
        let status = handle.status();
        let seen = status.borrow().clone();

        let first = ManagerView::new(*phase.borrow(), &seen);
        let (manager, manager_view) = Shown::new(connection, root_path(), first);
        let (update, update_view) = Shown::new(connection, root_path(), UpdateView::from(&seen));
        let server = connection.object_server();
        server.at(root_path(), zbus::fdo::ObjectManager).await?;
        server.at(root_path(), Manager::new(manager_view)).await?;
        let face = Update::new(handle.clone(), publisher.clone(), gate.clone(), phase.clone(), update_view);
        server.at(root_path(), face).await?;

        let mut task = Self {
            connection: connection.clone(),
            publisher: publisher.clone(),
            gate: gate.clone(),
            flushes,
            phase,
            status,
            seen,
            jobs: jobs.clone(),
            changes: jobs.changes(),
            manager,
            update,
            components: BTreeMap::new(),
            shown_jobs: BTreeMap::new(),
            due: None,
        };
        for job in jobs.list() {
            task.begin(job).await;
        }
        task.publish(true).await;
        let network = network::Task::start(connection, network, &publisher, gate.clone(), network_flushes).await?;
        let vplc = vplc::Task::start(connection, vplc, &publisher, gate, vplc_flushes).await?;
        Ok((task, network, vplc, publisher))
    }

    /// Publishes until the daemon ends.
    pub(super) async fn run(mut self) {
        let (mut phase_open, mut status_open) = (true, true);
        loop {
            let mut waiting = None;
            let due = self.due;
            tokio::select! {
                Some(flush) = self.flushes.recv() => waiting = Some(flush),
                changed = self.phase.changed(), if phase_open => phase_open = changed.is_ok(),
                changed = self.status.changed(), if status_open => {
                    status_open = changed.is_ok();
                    if self.is_early_progress() {
                        continue;
                    }
                }
                Some(change) = self.changes.recv() => self.follow(change).await,
                (id, line) = activity(&mut self.shown_jobs) => {
                    if self.take_up(id, line).await {
                        continue;
                    }
                }
                () = until(due) => {}
            }
            self.publish(waiting.is_some()).await;
            if let Some(flush) = waiting {
                // An error means that the call behind it was given up.
                let _ = flush.send(());
            }
        }
    }

    /// Progress of Components may come with every block of an Artifact. Until its time has come, it costs a
    /// comparison and nothing else.
    fn is_early_progress(&mut self) -> bool {
        if !same_but_progress(&self.seen, &self.status.borrow()) {
            return false;
        }
        let now = Instant::now();
        self.due = earliest(self.due, Some(now + PACE));
        self.due > Some(now)
    }

    /// Publishes what a Job has to say, if that is no more than a line of its log or progress that comes too soon.
    async fn take_up(&mut self, id: u32, line: Option<LogLine>) -> bool {
        let Some(job) = self.shown_jobs.get_mut(&id) else { return false };
        if let Some(line) = line {
            job.log(line).await;
            return true;
        }
        let view = JobView::from(&*job.status.borrow());
        let due = job.shown.withheld(&view.changes_since(&job.shown.view.borrow()));
        self.due = earliest(self.due, due);
        due.is_some()
    }

    /// One pass: whatever changed since the last one goes out.
    async fn publish(&mut self, all: bool) {
        let forget = self.jobs.forget(std::time::Instant::now()).map(Instant::from_std);
        // Read before anything is awaited: a Job that the status names is in the queue of changes by now.
        let status = self.status.borrow_and_update().clone();
        let phase = *self.phase.borrow_and_update();
        let mut due = forget;

        // First, because a Component goes on to its next state right after its failure was logged.
        for job in self.shown_jobs.values_mut() {
            job.drain_log().await;
        }
        due = earliest(due, self.publish_components(&status, all).await);
        while let Ok(change) = self.changes.try_recv() {
            self.follow(change).await;
        }
        for job in self.shown_jobs.values_mut() {
            job.drain_log().await;
            let view = JobView::from(&*job.status.borrow_and_update());
            due = earliest(due, job.shown.show(view, all).await);
        }
        due = earliest(due, self.update.show(UpdateView::from(&status), all).await);
        due = earliest(due, self.manager.show(ManagerView::new(phase, &status), all).await);
        self.seen = status;
        self.due = due;
    }

    async fn publish_components(&mut self, status: &UpdateStatus, all: bool) -> Option<Instant> {
        let mut due = None;
        let gone: Vec<ComponentKey> = self
            .components
            .iter()
            .filter(|(key, shown)| {
                // Interface and Arguments are constant: with other ones it is another object.
                !status.components.iter().any(|component| {
                    component.key == **key
                        && component.interface == shown.status.interface
                        && component.arguments == shown.status.arguments
                })
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.components.remove(&key);
            let removed = self.connection.object_server().remove::<Component, _>(component_path(&key)).await;
            report(removed.map(drop), ComponentView::INTERFACE, "InterfacesRemoved");
        }
        for component in &status.components {
            if let Some(ShownComponent { status, shown }) = self.components.get_mut(&component.key) {
                if status == component {
                    continue;
                }
                match shown.show(ComponentView::from(component), all).await {
                    None => status.clone_from(component),
                    withheld => due = earliest(due, withheld),
                }
            } else {
                let path = component_path(&component.key);
                let (shown, view) = Shown::new(&self.connection, path.clone(), ComponentView::from(component));
                let object = Component::new(component, view);
                let added = self.connection.object_server().at(path, object).await;
                report(added.map(drop), ComponentView::INTERFACE, "InterfacesAdded");
                self.components.insert(component.key.clone(), ShownComponent { status: component.clone(), shown });
            }
        }
        due
    }

    async fn follow(&mut self, change: JobChange) {
        match change {
            JobChange::New(job) => self.begin(job).await,
            JobChange::Finished(job) => self.end(job.id).await,
            JobChange::Forgotten(id) => {
                self.shown_jobs.remove(&id);
                let removed = self.connection.object_server().remove::<Job, _>(job_path(id)).await;
                report(removed.map(drop), JobView::INTERFACE, "InterfacesRemoved");
            }
        }
    }

    async fn begin(&mut self, job: crate::core::job::Job) {
        let id = job.id;
        if self.shown_jobs.contains_key(&id) {
            return;
        }
        let log = job.log_from_start();
        let mut status = job.status.clone();
        let first = JobView::from(&*status.borrow_and_update());
        let (shown, view) = Shown::new(&self.connection, job_path(id), first);
        let face = Job::new(job, self.publisher.clone(), self.gate.clone(), view);
        let added = self.connection.object_server().at(job_path(id), face).await;
        report(added.map(drop), JobView::INTERFACE, "InterfacesAdded");
        self.shown_jobs.insert(id, ShownJob { status, log, shown, ended: false });
        report(self.manager.emitter.job_new(id, job_path(id).into()).await, ManagerView::INTERFACE, "JobNew");
    }

    async fn end(&mut self, id: u32) {
        let Some(job) = self.shown_jobs.get_mut(&id) else { return };
        job.drain_log().await;
        let status = job.status.borrow_and_update().clone();
        job.shown.show(JobView::from(&status), true).await;
        job.ended = status.state == JobState::Done;
        let result = status.result.map_or("", JobResult::as_str);
        let sent = self.manager.emitter.job_removed(id, job_path(id).into(), result).await;
        report(sent, ManagerView::INTERFACE, "JobRemoved");
    }
}

/// Waits until a running Job has something to publish.
async fn activity(jobs: &mut BTreeMap<u32, ShownJob>) -> (u32, Option<LogLine>) {
    let running: Vec<Pin<Box<_>>> =
        jobs.iter_mut().filter(|(_, job)| !job.ended).map(|(id, job)| Box::pin(job.activity(*id))).collect();
    if running.is_empty() { pending().await } else { select_all(running).await.0 }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => pending().await,
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whether two statuses are the same apart from the progress of the Components.
fn same_but_progress(one: &UpdateStatus, other: &UpdateStatus) -> bool {
    // Field by field on purpose: a field that is added later must be put into one class or the other.
    let UpdateStatus { state, stopped_before, manifest, system_type, active_job, last_error, components, inconsistent } =
        one;
    *state == other.state
        && *stopped_before == other.stopped_before
        && *manifest == other.manifest
        && *system_type == other.system_type
        && *active_job == other.active_job
        && *last_error == other.last_error
        && *inconsistent == other.inconsistent
        && components.len() == other.components.len()
        && components.iter().zip(&other.components).all(|(one, other)| {
            let ComponentStatus { key, interface, arguments, state, version, provides, progress: _, last_error } = one;
            *key == other.key
                && *interface == other.interface
                && *arguments == other.arguments
                && *state == other.state
                && *version == other.version
                && *provides == other.provides
                && *last_error == other.last_error
        })
}

/// A signal that cannot be sent means that the bus is gone, which ends the daemon elsewhere.
fn report(sent: zbus::Result<()>, interface: &str, what: &str) {
    if let Err(error) = sent {
        tracing::warn!(interface, what, "Cannot publish on the bus: {error}");
    }
}
