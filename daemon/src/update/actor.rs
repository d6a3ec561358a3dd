//! The one place where requests meet: at most one piece of work on a deployment at a time, queries beside each other.
//!
//! | request           | while a Job works       | while a deployment rests | else |
//! |-------------------|-------------------------|--------------------------|------|
//! | Install           | `Busy`                  | `Busy`                   | begins when the running queries have ended |
//! | Resume, Rollback  | `Busy`; waits if the daemon began the Job by itself | goes on | the untold end of the last deployment, or `NothingInProgress` |
//! | Plan              | `Busy`                  | asks the Components      | asks the Components |
//! | Inventory         | what is known           | asks the Components      | asks the Components |

mod start;

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::beginning::begin;
use super::deployment::{Drive, Ending, Finished, OpenDeployment, look_after, resting_place, say};
use super::environment::Environment;
use super::handle::{
    Inventory, InventoryEntry, InventoryScope, ManifestRequest, Request, RunOptions, UpdateHandle, UpdateState,
};
use super::machine::Event;
use super::manifests::ManifestStore;
use super::prepare::prepare;
use super::record::Last;
use super::survey::{inventory, survey};
use super::view::View;
use crate::core::error::{Error, Kind};
use crate::core::job::{Job, JobReporter, JobResult, Jobs, LogLine, Severity};

/// Requests that may wait to be looked at.
const MAILBOX: usize = 32;
/// Requests that may wait for queries or for a Job of the daemon's own to end.
const WAITING: usize = 32;
/// The answer to an install that the end of the daemon has overtaken.
const STOPPING: &str = "The daemon \"orchestratord\" is stopping and takes no new work.";
/// What Jobs of this domain work on.
const SUBJECT: &str = "system";

/// Makes the [`Environment`] anew from the configuration.
pub type Load = Box<dyn Fn() -> Result<Environment, Error> + Send>;

/// What a task brings back.
enum Worked {
    /// A query has ended.
    Query,
    /// An install was refused before anything was touched; with a record if later calls have to find one.
    Refused(Option<Box<OpenDeployment>>),
    /// A deployment was worked on; if it is over, with what is wrong with the Components now.
    Deployment(Ending, Arc<JobReporter>, Vec<Error>),
}

/// Who works on a deployment now.
enum Working {
    Nobody,
    /// A caller's Job, or one in the making.
    Caller,
    /// The daemon itself, after a restart.
    Daemon,
}

/// What a caller wants of an open deployment.
enum Wish {
    Resume(RunOptions),
    /// With true, although a Component cannot go back.
    Rollback(RunOptions, bool),
}

impl Wish {
    fn kind(&self) -> &'static str {
        match self {
            Self::Resume(_) => "resume",
            Self::Rollback(..) => "rollback",
        }
    }
}

/// The actor of the update domain.
pub struct Actor {
    environment: Environment,
    load: Load,
    jobs: Jobs,
    view: View,
    stop: CancellationToken,
    requests: mpsc::Receiver<Request>,
    waiting: VecDeque<Request>,
    open: Option<Box<OpenDeployment>>,
    /// Why nobody knows whether a deployment is open: the medium does not let its record be read.
    unreadable: Option<Error>,
    working: Working,
    queries: usize,
    tasks: JoinSet<Worked>,
    /// Tags of calls that earlier daemons made, until it is known which of them are taken over.
    left_behind: Vec<String>,
    /// The Job with which this daemon went on by itself.
    own_job: Option<Job>,
}

impl Actor {
    /// An actor that has not begun, with the door to it.
    pub fn new(environment: Environment, load: Load, jobs: Jobs, stop: CancellationToken) -> (Self, UpdateHandle) {
        let (sender, requests) = mpsc::channel(MAILBOX);
        let (view, status) = View::new();
        let actor = Self {
            environment,
            load,
            jobs,
            view,
            stop,
            requests,
            waiting: VecDeque::new(),
            open: None,
            unreadable: None,
            working: Working::Nobody,
            queries: 0,
            tasks: JoinSet::new(),
            left_behind: Vec::new(),
            own_job: None,
        };
        (actor, UpdateHandle::new(sender, status))
    }

    /// Works until it is told to stop. What is open then is on disk.
    pub async fn run(mut self) {
        self.left_behind = self.environment.runner.left_behind();
        self.take_up();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(worked) = self.tasks.join_next() => self.worked(worked),
                request = self.requests.recv() => match request {
                    Some(request) => self.take(request),
                    None => break,
                },
            }
        }
        // A drive notices the stop by itself and leaves its record as it is; queries are simply dropped.
        while !matches!(self.working, Working::Nobody) {
            match self.tasks.join_next().await {
                Some(worked) => self.worked(worked),
                None => break,
            }
        }
    }

    fn alarm(&self, error: Error) {
        tracing::error!("{error}");
        self.view.error(Some(error));
    }

    /// Asks the Components who they are, so that readers see them.
    fn look_around(&mut self) {
        let topology = match self.environment.topology(None) {
            Ok(topology) => topology,
            Err(error) => {
                self.view.system_type("");
                return self.alarm(error);
            }
        };
        self.view.system_type(&topology.system_type);
        let (environment, view) = (self.environment.clone(), self.view.clone());
        self.query(async move {
            let survey = survey(&topology, &environment).await;
            view.surveyed(&survey.found, survey.errors.is_empty());
            for error in survey.errors {
                tracing::warn!("{error}");
                view.error(Some(error));
            }
        });
    }

    fn query(&mut self, query: impl Future<Output = ()> + Send + 'static) {
        self.queries += 1;
        self.tasks.spawn(async move {
            query.await;
            Worked::Query
        });
    }

    fn take(&mut self, request: Request) {
        let needs_record = matches!(request, Request::Install(..) | Request::Resume(..) | Request::Rollback(..));
        if needs_record && self.unreadable.take().is_some() {
            self.take_up();
        }
        let busy = !matches!(self.working, Working::Nobody);
        match (request, self.unreadable.clone()) {
            (
                Request::Install(_, _, _, reply) | Request::Resume(_, _, reply) | Request::Rollback(_, _, _, reply),
                Some(error),
            ) => drop(reply.send(Err(error))),
            (request, _) => self.take_readable(request, busy),
        }
    }

    fn take_readable(&mut self, request: Request, busy: bool) {
        match request {
            // An error in answering means that the caller has gone; that is no concern of ours.
            Request::Ping(reply) => drop(reply.send(())),
            Request::Reload(reply) => drop(reply.send(self.reload())),
            Request::Inventory(scope, _, reply) if busy => drop(reply.send(self.known(scope))),
            // Whoever asks all the time must not keep an install from its turn.
            request @ (Request::Inventory(..) | Request::Plan(..)) if !busy && !self.waiting.is_empty() => {
                self.wait(request);
            }
            Request::Inventory(scope, components, reply) => self.inventory(scope, components.as_deref(), reply),
            Request::Plan(_, reply) if busy => drop(reply.send(Err(self.busy()))),
            Request::Plan(manifest, reply) => {
                let environment = self.environment.clone();
                self.query(async move {
                    let prepared = prepare(&manifest, &environment).await;
                    drop(reply.send(prepared.map(|prepared| prepared.plan.steps())));
                });
            }
            Request::Install(_, _, _, reply) if busy || self.open.is_some() => drop(reply.send(Err(self.busy()))),
            request @ Request::Install(..) if self.queries > 0 => self.wait(request),
            Request::Install(manifest, options, caller, reply) => self.install(manifest, options, caller, reply),
            request @ (Request::Resume(..) | Request::Rollback(..)) if matches!(self.working, Working::Daemon) => {
                self.wait(request);
            }
            Request::Resume(_, _, reply) | Request::Rollback(_, _, _, reply) if busy => {
                drop(reply.send(Err(self.busy())));
            }
            request @ (Request::Resume(..) | Request::Rollback(..)) if self.queries > 0 => self.wait(request),
            Request::Resume(options, caller, reply) => {
                self.go_on(Wish::Resume(options), caller, reply);
            }
            Request::Rollback(options, force, caller, reply) => {
                self.go_on(Wish::Rollback(options, force), caller, reply);
            }
        }
    }

    fn wait(&mut self, request: Request) {
        if self.waiting.len() < WAITING {
            return self.waiting.push_back(request);
        }
        let error = Error::new(Kind::Busy, "Too many requests wait already.");
        match request {
            Request::Install(_, _, _, reply) | Request::Resume(_, _, reply) | Request::Rollback(_, _, _, reply) => {
                drop(reply.send(Err(error)));
            }
            Request::Inventory(_, _, reply) => drop(reply.send(Err(error))),
            Request::Plan(_, reply) => drop(reply.send(Err(error))),
            Request::Reload(reply) => drop(reply.send(Err(error))),
            Request::Ping(reply) => drop(reply.send(())),
        }
    }

    fn busy(&self) -> Error {
        let status = self.view.now();
        let manifest = match status.manifest.as_str() {
            "" => "a refused Manifest".to_owned(),
            name => format!("\"{name}\""),
        };
        let text = match (self.open.as_ref().map(|open| resting_place(&open.state)), status.active_job) {
            (Some((UpdateState::RebootRequired, _)), _) => format!(
                "A deployment of {manifest} waits for a reboot of the host; reboot and resume it, or roll it back."
            ),
            (Some((_, Some(point))), _) => {
                format!("A deployment of {manifest} rests before {}; resume it or roll it back.", point.as_str())
            }
            (Some(_), _) => format!("A deployment of {manifest} is open; resume it or roll it back."),
            (None, Some(job)) => format!("Job \"{job}\" is at work on a deployment of {manifest}."),
            (None, None) => "Another install is being prepared.".to_owned(),
        };
        Error::new(Kind::Busy, text)
    }

    fn reload(&mut self) -> Result<(), Error> {
        // Work that runs keeps what it began with.
        self.environment = (self.load)().inspect_err(|error| tracing::error!("{error}"))?;
        if matches!(self.working, Working::Nobody) && self.open.is_none() {
            let topology = self.environment.topology(None);
            let of_configuration =
                |error: &Error| matches!(error.kind, Kind::InvalidTopology | Kind::InvalidConfiguration);
            if topology.is_ok() && self.view.now().last_error.as_ref().is_some_and(of_configuration) {
                self.view.error(None);
            }
            self.look_around();
            topology?;
        }
        Ok(())
    }

    /// What is known without asking: the Components may be in the middle of something.
    fn known(&self, scope: InventoryScope) -> Result<Inventory, Error> {
        tracing::debug!(?scope, "answering an inventory from what is known");
        let status = self.view.now();
        // After a restart in the middle of a deployment nobody has asked them yet, and nothing would look like an answer.
        if status.components.iter().all(|component| component.provides.is_empty()) {
            return Err(self.busy());
        }
        let entries = status.components.into_iter().flat_map(|component| {
            let name = format!("{}/{}", component.key.component_type, component.key.id);
            component.provides.into_iter().map(move |(key, value)| InventoryEntry {
                component: name.clone(),
                key,
                value,
            })
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        Ok(Inventory { entries, errors: Vec::new() })
    }

    fn inventory(
        &mut self,
        scope: InventoryScope,
        components: Option<&str>,
        reply: oneshot::Sender<Result<Inventory, Error>>,
    ) {
        let topology = match self.environment.topology(components) {
            Ok(topology) => topology,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (environment, view) = (self.environment.clone(), self.view.clone());
        self.query(async move {
            let (survey, inventory) = inventory(&topology, &environment, scope).await;
            view.surveyed(&survey.found, survey.errors.is_empty());
            for error in &inventory.errors {
                tracing::warn!("{error}");
            }
            drop(reply.send(Ok(inventory)));
        });
    }

    fn install(
        &mut self,
        manifest: ManifestRequest,
        options: RunOptions,
        caller: u32,
        reply: oneshot::Sender<Result<u32, Error>>,
    ) {
        self.working = Working::Caller;
        self.view.busy(None);
        let (environment, view, jobs, stop) =
            (self.environment.clone(), self.view.clone(), self.jobs.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let begun = tokio::select! {
                biased;
                () = stop.cancelled() => Err((Error::new(Kind::NotSupported, STOPPING), None)),
                begun = begin(&manifest, &options, &environment, &view) => begun,
            };
            match begun {
                Ok((open, boot_id)) => {
                    let job = Arc::new(jobs.begin("install", SUBJECT, caller));
                    view.busy(Some(job.job().id));
                    view.error(None);
                    view.planned(&open.plan);
                    drop(reply.send(Ok(job.job().id)));
                    let drive = Drive::new(open, environment.clone(), job.clone(), view.clone(), stop.clone());
                    let ending = drive.run(Event::Begin(boot_id), false).await;
                    let errors = look_after(&ending, &environment, &view, &stop).await;
                    Worked::Deployment(ending, job, errors)
                }
                Err((error, open)) => {
                    tracing::error!("{error}");
                    view.error(Some(error.clone()));
                    drop(reply.send(Err(error)));
                    Worked::Refused(open)
                }
            }
        });
    }

    fn go_on(&mut self, wish: Wish, caller: u32, reply: oneshot::Sender<Result<u32, Error>>) {
        let kind = wish.kind();
        let Some(mut open) = self.open.take() else {
            return drop(reply.send(self.tell_last(kind, caller)));
        };
        let boot_id = match self.environment.host.boot_id() {
            Ok(boot_id) => boot_id,
            Err(error) => {
                self.open = Some(open);
                return drop(reply.send(Err(error.into())));
            }
        };
        // Who followed the daemon's own Job has heard what this deployment has to tell.
        if self.own_job_was_followed() {
            open.state.head.untold = None;
        }
        self.working = Working::Caller;
        let stalled = open.state.head.rest.is_none();
        let event = match wish {
            Wish::Resume(options) | Wish::Rollback(options, _) if stalled => {
                open.state.take_up(options, kind == "rollback");
                Event::Recover(boot_id)
            }
            Wish::Resume(options) => Event::Resume(options, boot_id),
            Wish::Rollback(options, force) => Event::Rollback(options, force, boot_id),
        };
        let id = self.drive(open, kind, caller, event, stalled);
        drop(reply.send(Ok(id)));
    }

    fn own_job_was_followed(&self) -> bool {
        self.own_job.as_ref().is_some_and(Job::is_told)
    }

    /// After the daemon ended a deployment by itself, the first who asks gets to know how.
    fn tell_last(&self, kind: &'static str, caller: u32) -> Result<u32, Error> {
        let datastore = &self.environment.settings.datastore_dir;
        match Last::load(datastore)? {
            Some(last)
                if last.untold
                    && !self.own_job_was_followed()
                    && !(kind == "rollback" && last.result == JobResult::Done) =>
            {
                Last { untold: false, ..last.clone() }.save(datastore)?;
                let job = self.jobs.begin(kind, SUBJECT, caller);
                job.finish(last.result, last.error);
                Ok(job.job().id)
            }
            _ => {
                let what = if kind == "resume" { "nothing to resume" } else { "nothing to roll back" };
                Err(Error::new(Kind::NothingInProgress, format!("There is {what}: no deployment is open.")))
            }
        }
    }

    fn drive(
        &mut self,
        open: Box<OpenDeployment>,
        kind: &'static str,
        caller: u32,
        event: Event,
        recovering: bool,
    ) -> u32 {
        let job = Arc::new(self.jobs.begin(kind, SUBJECT, caller));
        let id = job.job().id;
        self.view.busy(Some(id));
        let (environment, view, stop) = (self.environment.clone(), self.view.clone(), self.stop.clone());
        let drive = Drive::new(*open, environment.clone(), job.clone(), view.clone(), stop.clone());
        self.tasks.spawn(async move {
            let ending = drive.run(event, recovering).await;
            let errors = look_after(&ending, &environment, &view, &stop).await;
            Worked::Deployment(ending, job, errors)
        });
        id
    }

    fn worked(&mut self, worked: Result<Worked, tokio::task::JoinError>) {
        let worked = match worked {
            Ok(worked) => worked,
            Err(error) => {
                // A panic is a defect. What it worked on is on disk; a new daemon takes it up from there.
                tracing::error!("A task of the update service was lost: {error}");
                return self.stop.cancel();
            }
        };
        match worked {
            Worked::Query => self.queries -= 1,
            Worked::Refused(open) => {
                self.working = Working::Nobody;
                let (state, point) = open.as_ref().map_or((UpdateState::Idle, None), |open| resting_place(&open.state));
                if let Some(open) = &open {
                    self.view.manifest(&open.plan.manifest);
                }
                self.view.at_rest(state, point);
                self.open = open;
            }
            Worked::Deployment(ending, job, errors) => {
                let by_daemon = matches!(self.working, Working::Daemon);
                self.working = Working::Nobody;
                match ending {
                    Ending::Open(open) => self.open = Some(open),
                    Ending::Abandoned => {}
                    Ending::Over(finished) => self.over(*finished, by_daemon, &job, errors),
                }
            }
        }
        if self.queries == 0 && matches!(self.working, Working::Nobody) {
            for request in std::mem::take(&mut self.waiting) {
                self.take(request);
            }
        }
    }

    fn is_inconsistent_after(&self, result: JobResult) -> bool {
        match result {
            JobResult::Inconsistent => true,
            JobResult::Done => false,
            _ => self.view.now().inconsistent,
        }
    }

    fn over(&mut self, finished: Finished, by_daemon: bool, job: &JobReporter, errors: Vec<Error>) {
        let Finished { record, plan, result, committed, error } = finished;
        let last = Last {
            manifest: plan.manifest.clone(),
            result,
            error,
            untold: by_daemon,
            inconsistent: self.is_inconsistent_after(result),
        };
        self.environment.sources.end(&plan);
        let manifests = ManifestStore::new(&self.environment.settings.manifest_store);
        let stored = if committed { manifests.commit(&plan.manifest_digest) } else { manifests.end() };
        if let Err(error) = stored {
            say(job, Severity::Warning, "", &error.to_string());
        }
        if let Err(error) = record.close(&last) {
            say(job, Severity::Error, "", &error.to_string());
        }
        let text = match plan.manifest.as_str() {
            "" => format!("The deployment that was refused is over: {}.", last.result.as_str()),
            name => format!("The deployment of \"{name}\" is over: {}.", last.result.as_str()),
        };
        // The Job says itself what went wrong; whoever reads the daemon's log may not know of the Job.
        if let Some(error) = &last.error {
            tracing::error!(job = job.job().id, "{text} {}", error.message);
        } else {
            tracing::info!(job = job.job().id, "{text}");
        }
        job.log(LogLine { severity: Severity::Info, component: String::new(), message: text });
        self.view.inconsistent(last.inconsistent);
        self.view.error(last.error.clone().or_else(|| errors.into_iter().next()));
        self.view.manifest(&manifests.current_name());
        self.view.all_idle();
        self.view.at_rest(UpdateState::Idle, None);
        job.finish(last.result, last.error);
    }
}
