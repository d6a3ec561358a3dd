//! What a worker does with the PLC programs of its vPLC: one deployment at a time, beside what the machine does, and a look at
//! the PLC now and then.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Tools, wait};
use crate::core::error::{Error, Kind};
use crate::core::job::{Job, JobReporter, JobResult, Severity, VPLC_SUBJECT};
use crate::vplc::engine::Condition;
use crate::vplc::handle::ProgramOrder;
use crate::vplc::machine::{Event, Sight};
use crate::vplc::nics::Nics;
use crate::vplc::program::runtime::Dial;
use crate::vplc::program::store::Version;
use crate::vplc::program::{Outcome, Patience, Programs, Progress};
use crate::vplc::spec::Spec;

/// Between two looks at the PLC. A look costs the runtime a TLS handshake.
pub(super) const PACE: Duration = Duration::from_secs(15);
/// Each look of this number asks for the figures of the tasks, too, which take a lock that the scan takes.
const THOROUGH: u64 = 4;

/// The way to the loopback of a vPLC: by the process in its network namespace, 0 while there is none.
#[derive(Debug)]
struct Way {
    nics: Arc<dyn Nics>,
    pid: Arc<AtomicI32>,
}

impl Dial for Way {
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<TcpStream>> {
        match self.pid.load(Ordering::Relaxed) {
            0 => std::future::ready(Err(io::Error::new(io::ErrorKind::NotConnected, "it does not run"))).boxed(),
            pid => self.nics.connect(pid, port),
        }
    }
}

/// What was seen of the PLC.
#[derive(Debug, Clone, Default)]
struct Glance {
    /// What it does.
    plc: &'static str,
    program: Option<Version>,
    versions: Arc<[Version]>,
    /// How often its tasks were late since it was started; none if that was not asked or not told.
    overruns: Option<u64>,
}

impl Glance {
    async fn at(programs: &Programs, thorough: bool) -> Self {
        let runtime = programs.runtime();
        let (plc, tasks) = if thorough {
            runtime.statistics().await.map_or(("", Vec::new()), |(plc, tasks)| (plc.as_str(), tasks))
        } else {
            (runtime.plc().await.map_or("", |plc| plc.as_str()), Vec::new())
        };
        let overruns = (!tasks.is_empty()).then(|| tasks.iter().map(|task| task.overruns).sum());
        Self { overruns, ..Self::of(programs, plc).await }
    }

    /// What is kept, beside what the PLC does.
    async fn of(programs: &Programs, plc: &'static str) -> Self {
        Self { plc, program: programs.active().await, versions: programs.versions().await.into(), overruns: None }
    }
}

/// How a deployment ended; without an outcome if there was nothing to do.
type Ended = (JobReporter, Result<Option<Outcome>, Error>, Glance);

/// The programs of a vPLC, as its worker sees them.
pub(super) struct Shelf {
    /// None if the vPLC has no programs.
    programs: Option<Result<Arc<Programs>, Error>>,
    pid: Arc<AtomicI32>,
    deployment: Option<BoxFuture<'static, Ended>>,
    /// It is told to the outside before its Job ends.
    ended: Option<Ended>,
    look: Option<BoxFuture<'static, Glance>>,
    /// Looks so far.
    looks: u64,
    glance: Glance,
    /// Why the runtime that was claimed last does not run the program.
    lost: Option<Error>,
    /// The deployment that the end of the daemon interrupted, if there is one, was taken up.
    resumed: bool,
    /// The next look is the first one since the runtime was reached.
    first: bool,
}

impl Shelf {
    /// Opens the programs of a vPLC. If that fails, each use of them does.
    pub(super) fn open(tools: &Tools, spec: &Spec) -> Self {
        let pid = Arc::new(AtomicI32::new(0));
        let programs = spec.program.as_ref().map(|section| {
            let way = Arc::new(Way { nics: tools.nics.clone(), pid: pid.clone() });
            let (directory, patience) = (tools.store.programs(&spec.name), Patience::default());
            let programs = Programs::open(&spec.name, &directory, way, section.port, section.keep, patience);
            programs.map(Arc::new).inspect_err(|error| tracing::error!(vplc = spec.name, "{error}"))
        });
        let (deployment, ended, look) = (None, None, None);
        let (glance, lost) = (Glance::default(), None);
        Self { programs, pid, deployment, ended, look, looks: 0, glance, lost, resumed: false, first: true }
    }

    /// The programs, for those who only look at them; an error if the vPLC has none.
    pub(super) fn programs(&self, vplc: &str) -> Result<Arc<Programs>, Error> {
        let without = || {
            let message = format!(
                "The vPLC \"{vplc}\" takes no programs: its specification has no section \"program\" (add \"program: {{}}\")."
            );
            Error::new(Kind::NotSupported, message)
        };
        self.programs.clone().ok_or_else(without)?
    }

    /// Whether its PLC has to run after a change: unless it was seen to do something else, which is nobody's business here.
    pub(super) fn is_plc_expected(&self) -> bool {
        self.programs.is_some() && !matches!(self.glance.plc, "stopped" | "empty" | "error")
    }

    /// Why the runtime that was claimed last does not run the program.
    pub(super) fn lost(&self) -> Option<&Error> {
        self.lost.as_ref()
    }

    /// A runtime was claimed, without its program if there is a reason.
    pub(super) fn note_claim(&mut self, lost: Option<Error>) {
        self.lost = lost;
    }

    /// Which container was claimed last.
    pub(super) fn claimed(&self) -> Option<String> {
        self.programs.as_ref()?.as_ref().ok()?.runtime().claimed()
    }

    /// What the PLC does, in one word; empty if that is not known.
    pub(super) fn plc(&self) -> &'static str {
        self.glance.plc
    }

    /// How often the tasks of the program were late since it was started, as far as that is known.
    pub(super) fn overruns(&self) -> Option<u64> {
        self.glance.overruns
    }

    /// How often it has looked at the PLC; none if nobody looks.
    pub(super) fn looks(&self) -> Option<u64> {
        self.programs.as_ref()?.as_ref().ok().map(|_| self.looks)
    }

    /// The program that is on the runtime.
    pub(super) fn active(&self) -> Option<&Version> {
        self.glance.program.as_ref()
    }

    /// All versions of the program that are kept, the oldest first.
    pub(super) fn versions(&self) -> Arc<[Version]> {
        self.glance.versions.clone()
    }

    /// Learns where the runtime can be reached: its own process if somebody killed the holder.
    pub(super) fn see(&self, sight: &Sight) {
        let pid =
            [&sight.holder, &sight.runtime].into_iter().flatten().find_map(|container| match container.condition {
                Condition::Running { pid, .. } => Some(pid),
                _ => None,
            });
        self.pid.store(pid.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Makes the runtime in this container the daemon's own.
    pub(super) fn claim(&self, container: String, strict: bool) -> BoxFuture<'static, Event> {
        let programs = self.programs.clone();
        async move {
            let claimed = match programs {
                Some(Ok(programs)) => programs.claim(&container, strict, &Unseen, &CancellationToken::new()).await,
                Some(Err(error)) => Err(error),
                None => Ok(None),
            };
            claimed.map_or_else(Event::Failed, Event::Claimed)
        }
        .boxed()
    }

    /// Sees that the PLC runs, if it has to and if it has a program.
    pub(super) fn prove(&self, needed: bool) -> BoxFuture<'static, Event> {
        let programs = self.programs.clone().filter(|_| needed);
        async move {
            let proved = match programs {
                Some(Ok(programs)) => programs.prove(&Unseen, &CancellationToken::new()).await,
                Some(Err(error)) => Err(error),
                None => Ok(()),
            };
            proved.map_or_else(Event::Failed, |()| Event::Done)
        }
        .boxed()
    }

    /// Begins what an operator wants.
    pub(super) fn begin(&mut self, vplc: &str, order: ProgramOrder, reporter: JobReporter, caller: u32, running: bool) {
        let programs = match &self.programs {
            Some(Ok(programs)) if running && self.deployment.is_none() => programs.clone(),
            Some(Err(error)) => return reporter.finish(JobResult::Failed, Some(error.clone())),
            _ => {
                let message = format!("The runtime of the vPLC \"{vplc}\" is not ready for a program.");
                return reporter.finish(JobResult::Failed, Some(Error::new(Kind::Busy, message)));
            }
        };
        self.look = None;
        let work = async move {
            let cancel = reporter.cancelled();
            // Whatever was left open comes first.
            let done = match programs.resume(&reporter, &cancel).await {
                Err(error) => Err(error),
                Ok(_) => match order {
                    ProgramOrder::Deploy(file) => {
                        programs.deploy(file, &format!("user {caller}"), &reporter, &cancel).await
                    }
                    ProgramOrder::Rollback(version) => programs.rollback(version, &reporter, &cancel).await,
                },
            };
            let glance = Glance::at(&programs, true).await;
            (reporter, done.map(|(_, outcome)| Some(outcome)), glance)
        };
        self.deployment = Some(work.boxed());
    }

    /// Takes up what the end of the daemon has interrupted, and looks at the PLC; `running` if its runtime can be reached. Returns
    /// the Job that it has begun.
    pub(super) async fn tend(&mut self, tools: &Tools, vplc: &str, running: bool) -> Option<Job> {
        let Some(Ok(programs)) = &self.programs else { return None };
        if !running {
            self.look = None;
            (self.glance.plc, self.glance.overruns) = ("", None);
            (self.resumed, self.first) = (false, true);
            if self.glance.versions.is_empty() {
                self.glance = Glance::of(programs, "").await;
            }
            return None;
        }
        if self.deployment.is_some() {
            return None;
        }
        if !self.resumed {
            self.resumed = true;
            if programs.is_interrupted().await {
                let reporter = tools.jobs.begin("deploy", format!("{VPLC_SUBJECT}{vplc}"), 0);
                let (job, programs) = (reporter.job().clone(), programs.clone());
                let work = async move {
                    let done = programs.resume(&reporter, &reporter.cancelled()).await;
                    let glance = Glance::at(&programs, true).await;
                    (reporter, done.map(|done| done.map(|(_, outcome)| outcome)), glance)
                };
                self.deployment = Some(work.boxed());
                return Some(job);
            }
        }
        if self.look.is_none() {
            let (programs, first) = (programs.clone(), std::mem::take(&mut self.first));
            let thorough = self.looks.is_multiple_of(THOROUGH);
            let look = async move {
                if !first {
                    sleep(PACE).await;
                }
                Glance::at(&programs, thorough).await
            };
            self.look = Some(look.boxed());
        }
        None
    }

    /// Returns when there is something to tell.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            ended = wait(&mut self.deployment) => {
                self.deployment = None;
                self.glance = ended.2.clone();
                if matches!(ended.1, Ok(Some(Outcome::Deployed | Outcome::RolledBack(_)))) {
                    self.lost = None;
                }
                self.ended = Some(ended);
            }
            mut glance = wait(&mut self.look) => {
                self.look = None;
                glance.overruns = glance.overruns.or(self.glance.overruns);
                self.glance = glance;
            }
        }
        self.looks += 1;
    }

    /// Ends the Job of a deployment that is over.
    pub(super) fn finish(&mut self) {
        let Some((reporter, done, _)) = self.ended.take() else { return };
        match done {
            Ok(Some(outcome)) => reporter.finish(outcome.result(), outcome.error()),
            Ok(None) => reporter.finish(JobResult::Done, None),
            Err(error) if error.kind == Kind::Cancelled => reporter.finish(JobResult::Cancelled, Some(error)),
            Err(error) => reporter.finish(JobResult::Failed, Some(error)),
        }
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shelf").field("programs", &self.programs).finish_non_exhaustive()
    }
}

/// Follows what no Job shows.
struct Unseen;

impl Progress for Unseen {
    fn report(&self, _: f64, step: &str) {
        tracing::debug!("{step}");
    }

    fn line(&self, severity: Severity, message: String) {
        match severity {
            Severity::Info => tracing::debug!("{message}"),
            Severity::Warning | Severity::Error => tracing::warn!("{message}"),
        }
    }
}

/// An operator wants something else than that the runtime is waited for.
pub(super) fn given_up(vplc: &str) -> Error {
    Error::new(Kind::Cancelled, format!("The runtime of the vPLC \"{vplc}\" is not waited for any longer."))
}
