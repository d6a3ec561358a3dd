//! Long work as a thing of its own: a Job is registered when the work is accepted, shows its progress, and lingers
//! after its end, so that nobody can miss the end between "started" and "subscribed".

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::error::{Error, Kind};

/// How many finished Jobs linger at most.
pub const LINGERING_JOBS: usize = 16;
/// How long a finished Job lingers at most.
pub const LINGER_TIME: Duration = Duration::from_mins(10);

/// How a Job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobResult {
    /// All that was asked for is done.
    Done,
    /// Stopped before the state the caller named; the deployment stays open.
    Stopped,
    /// Failed, and nothing had to be rolled back.
    Failed,
    /// The System is back in its former state.
    RolledBack,
    /// Cancelled by a caller.
    Cancelled,
    /// The host has to be rebooted before the deployment can go on.
    RebootRequired,
    /// The System is neither in the old nor in the new state.
    Inconsistent,
}

impl JobResult {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Cancelled => "cancelled",
            Self::RebootRequired => "reboot-required",
            Self::Inconsistent => "inconsistent",
        }
    }
}

/// Whether a Job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// The work goes on.
    Running,
    /// The work has ended; the result stands.
    Done,
}

impl JobState {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
        }
    }
}

/// How much a line of a Job's log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Odd, but the work goes on as planned.
    Warning,
    /// A failure.
    Error,
}

impl Severity {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A line of a Job's log, for the caller who waits for the Job; the daemon's own log has it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub severity: Severity,
    /// `<component type>.<id>`; empty if it is about the whole System.
    pub component: String,
    /// One line.
    pub message: String,
}

/// Lines of log that a slow reader may lag behind before it loses the oldest.
const LOG_BACKLOG: usize = 1024;

/// What changes in a Job while it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStatus {
    /// Whether it runs.
    pub state: JobState,
    /// From 0 to 1, never falling.
    pub progress: f64,
    /// What is being done, for people.
    pub step: String,
    /// How it ended, once it has.
    pub result: Option<JobResult>,
    /// What went wrong, also when the result is `Stopped` or `RolledBack`.
    pub error: Option<Error>,
}

/// In [`Job::subject`], what stands before the name of a vPLC.
pub const VPLC_SUBJECT: &str = "vplc/";

/// A Job as readers see it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Number, unique while the daemon runs; starts at 1.
    pub id: u32,
    /// What kind of work: `install`, `resume`, `rollback`; of vPLCs `apply`, `start`, `stop`, `restart`, `delete`,
    /// `deploy`, `rollback`.
    pub kind: &'static str,
    /// D-Bus independent name of what it works on: `system`, or the name of a vPLC after [`VPLC_SUBJECT`].
    pub subject: Cow<'static, str>,
    /// User id of the caller; 0 for work the daemon began by itself.
    pub started_by: u32,
    /// When it was accepted, in microseconds since 1970.
    pub started: u64,
    /// Everything that changes.
    pub status: watch::Receiver<JobStatus>,
    log: broadcast::Sender<LogLine>,
    log_from_start: Arc<Mutex<Option<broadcast::Receiver<LogLine>>>>,
    cancel: Arc<CancelSwitch>,
    told: Arc<AtomicBool>,
}

#[derive(Debug)]
struct CancelSwitch {
    token: CancellationToken,
    refusal: Mutex<Option<Error>>,
}

impl Job {
    /// Log lines from now on.
    pub fn log(&self) -> broadcast::Receiver<LogLine> {
        self.log.subscribe()
    }

    /// All log lines since the Job began; later calls get those from now on. The bus takes it, so that no line is lost
    /// between the beginning of a Job and its publication.
    pub fn log_from_start(&self) -> broadcast::Receiver<LogLine> {
        lock(&self.log_from_start).take().unwrap_or_else(|| self.log())
    }

    /// Asks the work to stop. It answers with an error if the work cannot be stopped any more.
    pub fn cancel(&self) -> Result<(), Error> {
        let refusal = lock(&self.cancel.refusal);
        if let Some(error) = refusal.as_ref() {
            return Err(error.clone());
        }
        self.cancel.token.cancel();
        Ok(())
    }

    /// Somebody who waited for the end was told of it.
    pub fn tell(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Whether anybody who waited for the end was told of it.
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Waits for the end and returns the last status.
    pub async fn wait(&self) -> JobStatus {
        let mut status = self.status.clone();
        // An error means that the reporter is gone, and it writes a final status before it goes.
        drop(status.wait_for(|status| status.state == JobState::Done).await);
        let last = status.borrow();
        last.clone()
    }
}

/// A Job appeared or vanished.
#[derive(Debug, Clone)]
pub enum JobChange {
    /// Registered just now.
    New(Job),
    /// Finished just now; it lingers.
    Finished(Job),
    /// Lingered long enough.
    Forgotten(u32),
}

#[derive(Debug, Default)]
struct Registry {
    last_id: u32,
    jobs: BTreeMap<u32, Job>,
    finished: VecDeque<(u32, Instant)>,
    listeners: Vec<mpsc::UnboundedSender<JobChange>>,
}

impl Registry {
    fn tell(&mut self, change: &JobChange) {
        // Unbounded on purpose: there is one listener, the bus, and Jobs are rare.
        self.listeners.retain(|listener| listener.send(change.clone()).is_ok());
    }

    /// Forgets what has lingered long enough; returns when the next Job will have.
    fn forget(&mut self, now: Instant) -> Option<Instant> {
        while let Some((id, ended)) = self.finished.front().copied() {
            if self.finished.len() <= LINGERING_JOBS && now.duration_since(ended) < LINGER_TIME {
                break;
            }
            self.finished.pop_front();
            self.jobs.remove(&id);
            self.tell(&JobChange::Forgotten(id));
        }
        self.finished.front().map(|(_, ended)| *ended + LINGER_TIME)
    }
}

/// All Jobs of the daemon.
#[derive(Debug, Clone, Default)]
pub struct Jobs(Arc<Mutex<Registry>>);

impl Jobs {
    /// Registers a Job; the work reports through what this returns.
    pub fn begin(&self, kind: &'static str, subject: impl Into<Cow<'static, str>>, started_by: u32) -> JobReporter {
        let (sender, status) = watch::channel(JobStatus {
            state: JobState::Running,
            progress: 0.0,
            step: String::new(),
            result: None,
            error: None,
        });
        let (log, from_start) = broadcast::channel(LOG_BACKLOG);
        let cancel = Arc::new(CancelSwitch { token: CancellationToken::new(), refusal: Mutex::new(None) });
        let mut registry = lock(&self.0);
        registry.forget(Instant::now());
        registry.last_id += 1;
        let job = Job {
            id: registry.last_id,
            kind,
            subject: subject.into(),
            started_by,
            started: now_micros(),
            status,
            log,
            log_from_start: Arc::new(Mutex::new(Some(from_start))),
            cancel,
            told: Arc::default(),
        };
        registry.jobs.insert(job.id, job.clone());
        registry.tell(&JobChange::New(job.clone()));
        JobReporter { jobs: self.clone(), job, sender }
    }

    /// All Jobs that run or linger, by number.
    pub fn list(&self) -> Vec<Job> {
        lock(&self.0).jobs.values().cloned().collect()
    }

    /// One Job.
    pub fn get(&self, id: u32) -> Option<Job> {
        lock(&self.0).jobs.get(&id).cloned()
    }

    /// Forgets the Jobs that have lingered long enough by `now`; returns when to call again. New Jobs and ends of Jobs do
    /// the same by themselves, so this matters only on a daemon at rest.
    pub fn forget(&self, now: Instant) -> Option<Instant> {
        lock(&self.0).forget(now)
    }

    /// What changes from now on.
    pub fn changes(&self) -> mpsc::UnboundedReceiver<JobChange> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.0).listeners.push(sender);
        receiver
    }
}

/// The writing end of a Job, held by the work.
#[derive(Debug)]
pub struct JobReporter {
    jobs: Jobs,
    job: Job,
    sender: watch::Sender<JobStatus>,
}

impl JobReporter {
    /// The Job as readers see it.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Cancelled when a caller asked for it.
    pub fn cancelled(&self) -> CancellationToken {
        self.job.cancel.token.clone()
    }

    /// From now on [`Job::cancel`] answers with this error.
    pub fn refuse_cancel(&self, error: Error) {
        *lock(&self.job.cancel.refusal) = Some(error);
    }

    /// Reports progress (0 to 1; falling values are ignored) and what is being done.
    pub fn report(&self, progress: f64, step: &str) {
        self.sender.send_if_modified(|status| {
            let progress = progress.clamp(status.progress, 1.0);
            let changed = progress > status.progress || status.step != step;
            status.progress = progress;
            if status.step != step {
                step.clone_into(&mut status.step);
            }
            changed
        });
    }

    /// Adds a line to the Job's log.
    pub fn log(&self, line: LogLine) {
        // An error means that nobody reads.
        drop(self.job.log.send(line));
    }

    /// Ends the Job; it can end only once.
    pub fn finish(&self, result: JobResult, error: Option<Error>) {
        let changed = self.sender.send_if_modified(|status| {
            if status.state == JobState::Done {
                return false;
            }
            if result == JobResult::Done {
                status.progress = 1.0;
            }
            status.state = JobState::Done;
            status.result = Some(result);
            status.error = error;
            true
        });
        if changed {
            let text = format!("Job \"{}\" has ended and cannot be cancelled any more.", self.job.id);
            self.refuse_cancel(Error::new(Kind::NotSupported, text));
            let mut registry = lock(&self.jobs.0);
            let now = Instant::now();
            registry.finished.push_back((self.job.id, now));
            registry.tell(&JobChange::Finished(self.job.clone()));
            registry.forget(now);
        }
    }
}

impl Drop for JobReporter {
    /// Work that vanishes without a word has failed.
    fn drop(&mut self) {
        let message = "The work ended without a result; see the log of orchestratord.";
        self.finish(JobResult::Failed, Some(Error::new(Kind::Failed, message)));
    }
}

/// The data behind these locks is valid after every single statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn progress_never_falls_and_done_means_all() {
        let jobs = Jobs::default();
        let reporter = jobs.begin("install", "system", 0);
        reporter.report(0.5, "a");
        reporter.report(0.2, "b");
        let job = reporter.job().clone();
        assert!((job.status.borrow().progress - 0.5).abs() < f64::EPSILON);
        assert_eq!(job.status.borrow().step, "b");
        reporter.finish(JobResult::Done, None);
        assert!((job.status.borrow().progress - 1.0).abs() < f64::EPSILON);
        assert_eq!(job.status.borrow().result, Some(JobResult::Done));
    }

    #[test]
    fn dropped_work_has_failed() {
        let jobs = Jobs::default();
        let job = jobs.begin("install", "system", 0).job().clone();
        let status = job.status.borrow().clone();
        assert_eq!(status.result, Some(JobResult::Failed));
        assert_eq!(status.error.map(|error| error.kind), Some(Kind::Failed));
    }

    #[test]
    fn only_the_newest_finished_jobs_linger() {
        let jobs = Jobs::default();
        let running = jobs.begin("install", "system", 0);
        for _ in 0..LINGERING_JOBS + 3 {
            jobs.begin("resume", "system", 0).finish(JobResult::Done, None);
        }
        let listed = jobs.list();
        assert_eq!(listed.len(), LINGERING_JOBS + 1);
        assert_eq!(listed[0].id, running.job().id);
        assert_eq!(listed[1].id, 5);
    }

    #[test]
    fn finished_jobs_are_forgotten_in_time() {
        let jobs = Jobs::default();
        assert_eq!(jobs.forget(Instant::now()), None);
        jobs.begin("install", "system", 0).finish(JobResult::Done, None);
        let running = jobs.begin("resume", "system", 0);
        let due = jobs.forget(Instant::now()).unwrap();
        assert_eq!(jobs.list().len(), 2);
        let mut changes = jobs.changes();
        assert_eq!(jobs.forget(due), None);
        assert!(matches!(changes.try_recv(), Ok(JobChange::Forgotten(1))));
        assert_eq!(jobs.list().iter().map(|job| job.id).collect::<Vec<_>>(), [running.job().id]);
    }

    #[test]
    fn a_job_that_has_ended_cannot_be_cancelled() {
        let reporter = Jobs::default().begin("install", "system", 0);
        reporter.finish(JobResult::Stopped, None);
        let error = reporter.job().cancel().unwrap_err();
        assert_eq!(error.kind, Kind::NotSupported);
        assert!(error.message.contains("has ended"), "{error}");
    }

    #[test]
    fn the_first_reader_of_the_log_misses_nothing() {
        let jobs = Jobs::default();
        let reporter = jobs.begin("install", "system", 0);
        let line = LogLine { severity: Severity::Info, component: String::new(), message: "first".to_owned() };
        reporter.log(line.clone());
        let mut log = reporter.job().log_from_start();
        assert_eq!(log.try_recv(), Ok(line));
        assert!(reporter.job().log_from_start().try_recv().is_err());
    }

    #[test]
    fn cancel_is_refused_once_the_work_says_so() {
        let jobs = Jobs::default();
        let reporter = jobs.begin("install", "system", 0);
        reporter.refuse_cancel(Error::new(Kind::NotSupported, "too late"));
        assert_eq!(reporter.job().cancel().unwrap_err().kind, Kind::NotSupported);
        assert!(!reporter.cancelled().is_cancelled());
    }
}
