//! What a worker sees of its vPLC from the machine below: whether real time is granted, and what the vPLC uses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::programs::{PACE, Shelf};
use super::{Tools, running, wait};
use crate::core::history::Point;
use crate::vplc::engine::{Engine, Role};
use crate::vplc::machine::Sight;
use crate::vplc::process::Process;
use crate::vplc::realtime::{Observed, RealTime, Wanted, assess};
use crate::vplc::spec::Spec;
use crate::vplc::usage::{Meter, Metric, Reading, Usage};

/// How long a runtime has to set itself up before it is looked at, if nobody knows when its program runs.
const FIRST: Duration = Duration::from_secs(3);

/// The first process of the runtime.
#[derive(Debug)]
struct Runtime {
    engine: Arc<dyn Engine>,
    vplc: String,
    known: Mutex<Option<Process>>,
}

impl Runtime {
    /// The one that is known, unless it has ended. Does not ask the engine, which may take its time.
    fn known(&self) -> Option<Process> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|process| process.is_alive().is_ok())
    }

    async fn find(&self) -> Option<Process> {
        if let Some(process) = self.known() {
            return Some(process);
        }
        let found = Process::of_container(self.engine.as_ref(), &self.vplc, Role::Runtime).await;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        found
    }
}

/// The machine below one vPLC.
pub(super) struct Hardware {
    runtime: Arc<Runtime>,
    wanted: Wanted,
    meter: Arc<Meter>,
    /// What the engine calls the runtime that runs, and the number of its first process.
    seen: Option<(String, i32)>,
    /// How often somebody had looked at the PLC when the container was looked at last.
    looks: Option<u64>,
    look: Option<BoxFuture<'static, Option<RealTime>>>,
    real_time: RealTime,
}

impl Hardware {
    /// That of a vPLC that nobody has looked at.
    pub(super) fn new(tools: &Tools, spec: &Spec) -> Self {
        let (engine, vplc) = (tools.engine.clone(), spec.name.clone());
        let runtime = Arc::new(Runtime { engine, vplc, known: Mutex::default() });
        let wanted = Wanted::of(spec);
        let real_time = unseen(&wanted);
        let meter = Arc::new(Meter::new(tools.history));
        Self { runtime, wanted, meter, seen: None, looks: None, look: None, real_time }
    }

    /// The specification is another one.
    pub(super) fn follow(&mut self, spec: &Spec) {
        let wanted = Wanted::of(spec);
        if wanted != self.wanted {
            self.wanted = wanted;
            self.forget(None);
        }
    }

    fn forget(&mut self, seen: Option<(String, i32)>) {
        (self.seen, self.looks, self.look) = (seen, None, None);
        self.real_time = unseen(&self.wanted);
    }

    /// Whether real time is granted, as it was seen last.
    pub(super) fn real_time(&self) -> &RealTime {
        &self.real_time
    }

    /// What the vPLC uses now, for somebody who has asked.
    pub(super) fn usage(&self, restarts: u32, overruns: Option<u64>, reply: oneshot::Sender<Usage>) {
        let (runtime, meter, runs) = (self.runtime.clone(), self.meter.clone(), self.seen.is_some());
        tokio::spawn(async move {
            let usage = if runs { used(&runtime, &meter).await } else { Usage::default() };
            // A caller who has gone away needs no answer.
            drop(reply.send(Usage { restarts, overruns, ..usage }));
        });
    }

    /// What was recorded of its usage.
    pub(super) fn history(&self, metric: Metric, since: u64) -> Vec<Point> {
        self.meter.history(metric, since)
    }

    /// Has the container looked at when a runtime was started, and then after each look at the PLC. Where nobody looks at a PLC, the
    /// pace is the same. Who asks for no real time, and of whom no history is kept, is looked at only until it is found.
    pub(super) fn tend(&mut self, sight: Option<&Sight>, programs: &Shelf) {
        let seen = sight.and_then(|sight| running(sight.runtime.as_ref()?));
        let fresh = seen != self.seen;
        if fresh {
            self.forget(seen);
        }
        let looks = programs.looks();
        let due = looks.is_none() || looks != self.looks;
        let again = !self.wanted.is_nothing() || self.meter.records() || self.runtime.known().is_none();
        if self.seen.is_none() || self.look.is_some() || !(fresh || due && again) {
            return;
        }
        self.looks = looks;
        let pause = match looks {
            Some(_) => Duration::ZERO,
            None if fresh => FIRST,
            None => PACE,
        };
        let (runs, overruns) = (looks.is_none() || programs.plc() == "running", programs.overruns());
        let (runtime, wanted, meter) = (self.runtime.clone(), self.wanted.clone(), self.meter.clone());
        let look = async move {
            let process = runtime.find().await?;
            sleep(pause).await;
            let looked = spawn_blocking(move || {
                let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                meter.record(Reading::of(process)?, overruns, Instant::now(), time);
                Observed::of(process).map(|seen| assess(&wanted, &seen, runs))
            });
            // One that has ended meanwhile is seen to have done so elsewhere.
            looked.await.ok()?.ok()
        };
        self.look = Some(look.boxed());
    }

    /// Returns when somebody has looked.
    pub(super) async fn changed(&mut self) {
        let seen = wait(&mut self.look).await;
        self.look = None;
        if let Some(real_time) = seen.filter(|seen| *seen != self.real_time) {
            let grant = real_time.grant.as_str();
            tracing::info!(vplc = self.runtime.vplc, grant, "Real time was looked at. {}", real_time.reason);
            self.real_time = real_time;
        }
    }
}

impl std::fmt::Debug for Hardware {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hardware").field("seen", &self.seen).finish_non_exhaustive()
    }
}

async fn used(runtime: &Runtime, meter: &Arc<Meter>) -> Usage {
    if let Some(usage) = meter.fresh(Instant::now()) {
        return usage;
    }
    let Some(process) = runtime.known() else { return Usage::default() };
    let meter = meter.clone();
    let read = spawn_blocking(move || Reading::of(process).map(|reading| meter.show(reading, Instant::now())));
    read.await.ok().and_then(Result::ok).unwrap_or_default()
}

/// What there is to say as long as nobody has looked.
fn unseen(wanted: &Wanted) -> RealTime {
    if wanted.is_nothing() { assess(wanted, &Observed::default(), false) } else { RealTime::default() }
}
