//! Does what the machine decides: the hands of a deployment.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::machine::{Deployment, Direction, Effect, Event, Found, Outcome, Step};
use super::runtime::{CompilationState, PlcState, Runtime, RuntimeError};
use super::store::Store;
use super::{Patience, Progress};
use crate::core::error::{Error, Kind};
use crate::core::job::Severity;

/// Lines of the compiler that a message repeats.
const LAST_LINES: usize = 3;

/// Runs work on the store on a thread that may wait for the disk.
pub(super) async fn with_store<T: Send + 'static>(
    store: &Arc<Mutex<Store>>,
    work: impl FnOnce(&mut Store) -> T + Send + 'static,
) -> Result<T, Error> {
    let mut store = store.clone().lock_owned().await;
    let done = spawn_blocking(move || work(&mut store)).await;
    done.map_err(|error| Error::new(Kind::Failed, format!("The store of programs failed: {error}.")))
}

/// How a step failed.
struct Failure {
    error: Error,
    untouched: bool,
    passing: bool,
}

impl Failure {
    fn lasting(error: Error) -> Self {
        Self { error, untouched: false, passing: false }
    }
}

/// What carries out the deployments of one vPLC.
pub(super) struct Driver<'d> {
    pub(super) vplc: &'d str,
    pub(super) runtime: &'d Runtime,
    pub(super) store: &'d Arc<Mutex<Store>>,
    pub(super) patience: Patience,
    pub(super) progress: &'d dyn Progress,
    /// Has it go back. Once it does, it is not cancelled any more.
    pub(super) cancel: &'d CancellationToken,
}

impl Driver<'_> {
    /// What the runtime is about, for a deployment that is resumed.
    pub(super) async fn found(&self) -> Result<Found, Error> {
        let compilation = self.patiently(|| self.runtime.compilation()).await?.state;
        let running = self.patiently(|| self.runtime.plc()).await? == PlcState::Running;
        let compiled = matches!(compilation, CompilationState::Success | CompilationState::Failed);
        Ok(Found { compiling: compilation == CompilationState::Running, compiled, running })
    }

    /// Brings a deployment to its end. It is on the medium as it is given; `event` is what happened to it since.
    pub(super) async fn run(&self, mut deployment: Deployment, event: Option<Event>) -> Outcome {
        let mut event = event;
        loop {
            let effect = match event.take() {
                None => deployment.effect(),
                Some(happened) => {
                    if let Event::Failed { error, .. } = &happened {
                        self.progress.line(Severity::Error, error.message.clone());
                    }
                    let (next, effect) = deployment.next(happened);
                    deployment = next;
                    if let Effect::Finish(outcome) = effect {
                        return outcome;
                    }
                    let record = deployment.clone();
                    let kept = with_store(self.store, move |store| store.record(&record)).await;
                    if let Err(error) = kept.and_then(|kept| kept.map_err(Error::from)) {
                        if deployment.direction == Direction::Forward {
                            event = Some(Event::Failed { error, untouched: false, passing: false });
                            continue;
                        }
                        // To stop halfway would be worse than to go on without a record.
                        self.progress.line(Severity::Error, error.message);
                    }
                    effect
                }
            };
            let done = match effect {
                Effect::Upload(version) => self.upload(&deployment, version).await,
                Effect::Compile => self.unless_cancelled(&deployment, self.compile(&deployment)).await,
                Effect::Start => self.unless_cancelled(&deployment, self.start(&deployment)).await,
                Effect::Verify => self.unless_cancelled(&deployment, self.verify(&deployment)).await,
                Effect::Finish(outcome) => return outcome,
            };
            event = Some(match done {
                Ok(()) => Event::Done,
                Err(Failure { error, untouched, passing }) => Event::Failed { error, untouched, passing },
            });
        }
    }

    async fn unless_cancelled(
        &self,
        deployment: &Deployment,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        if deployment.direction == Direction::Back {
            return work.await;
        }
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Failure::lasting(cancelled())),
            done = work => done,
        }
    }

    fn report(&self, deployment: &Deployment, share: f64, what: &str) {
        let (number, way) = match deployment.direction {
            Direction::Forward => (Some(deployment.new), ""),
            Direction::Back => (deployment.old, "going back: "),
        };
        let number = number.map(|number| format!(" version {number}")).unwrap_or_default();
        self.progress.report(share, &format!("{way}{what}{number}"));
    }

    /// Asks again while the runtime is silent, for as long as it may be.
    async fn patiently<T, F: Future<Output = Result<T, RuntimeError>>>(&self, ask: impl Fn() -> F) -> Result<T, Error> {
        let begun = Instant::now();
        loop {
            match ask().await {
                Err(error) if error.is_passing() && begun.elapsed() < self.patience.silence => {
                    tracing::debug!(vplc = self.vplc, "The runtime {error}");
                    sleep(self.patience.pace).await;
                }
                answer => return answer.map_err(|error| error.about(self.vplc)),
            }
        }
    }

    async fn upload(&self, deployment: &Deployment, version: u32) -> Result<(), Failure> {
        self.report(deployment, 0.02, "uploading");
        let first = deployment.direction == Direction::Forward && deployment.tries == 1;
        let untouched = |error| Failure { error, untouched: first, passing: false };
        let archive = with_store(self.store, move |store| store.archive(version)).await;
        let (archive, _) = archive.and_then(|archive| archive).map_err(untouched)?;
        let before = async {
            let compilation = self.idle().await?;
            Ok::<_, Error>((compilation, self.patiently(|| self.runtime.plc()).await?))
        };
        let before = if deployment.direction == Direction::Forward {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(untouched(cancelled())),
                before = before => before,
            }
        } else {
            before.await
        };
        let before = before.map_err(untouched)?;
        let Err(error) = self.runtime.upload(&archive).await else { return Ok(()) };
        let passing = error.is_passing();
        let error = error.about(self.vplc);
        let after = async {
            let compilation = self.patiently(|| self.runtime.compilation()).await?.state;
            Ok::<_, Error>((compilation, self.patiently(|| self.runtime.plc()).await?))
        };
        match after.await {
            // It came to the runtime, only the answer was lost.
            Ok((CompilationState::Running, _)) if passing => Ok(()),
            // Whatever changes the program stops it first.
            Ok(after) if after == before && before.1 == PlcState::Running => {
                Err(Failure { error, untouched: true, passing })
            }
            _ => Err(Failure { error, untouched: false, passing }),
        }
    }

    /// Waits until the runtime compiles nothing.
    async fn idle(&self) -> Result<CompilationState, Error> {
        let begun = Instant::now();
        loop {
            let state = self.patiently(|| self.runtime.compilation()).await?.state;
            if state != CompilationState::Running {
                return Ok(state);
            }
            if begun.elapsed() > self.patience.compile {
                let text = format!(
                    "The runtime of the vPLC \"{}\" does not come to an end of another compilation.",
                    self.vplc
                );
                return Err(Error::new(Kind::RuntimeFailed, text));
            }
            sleep(self.patience.pace).await;
        }
    }

    async fn compile(&self, deployment: &Deployment) -> Result<(), Failure> {
        self.report(deployment, 0.1, "compiling");
        let failed = |text: String| Failure::lasting(Error::new(Kind::ProgramFailed, text));
        let (begun, mut seen) = (Instant::now(), 0);
        loop {
            let compilation = self.patiently(|| self.runtime.compilation()).await.map_err(Failure::lasting)?;
            // A log that is shorter than before is another one.
            seen = if compilation.log.len() < seen { 0 } else { seen };
            for line in &compilation.log[seen..] {
                self.progress.line(Severity::Info, line.clone());
            }
            if compilation.log.len() > seen {
                seen = compilation.log.len();
                // Nobody knows how many lines there will be.
                let lines = f64::from(u32::try_from(seen).unwrap_or(u32::MAX));
                self.report(deployment, 0.1 + 0.6 * lines / (lines + 50.0), "compiling");
            }
            let vplc = self.vplc;
            match compilation.state {
                CompilationState::Success => return Ok(()),
                CompilationState::Failed => {
                    let last = &compilation.log[compilation.log.len().saturating_sub(LAST_LINES)..];
                    let text = format!("The program does not compile on the vPLC \"{vplc}\": {}.", last.join(" | "));
                    return Err(failed(text));
                }
                CompilationState::Idle => {
                    let text =
                        format!("The runtime of the vPLC \"{vplc}\" was started anew while it compiled the program.");
                    return Err(failed(text));
                }
                CompilationState::Running if begun.elapsed() > self.patience.compile => {
                    let seconds = self.patience.compile.as_secs();
                    return Err(failed(format!(
                        "The program is not compiled on the vPLC \"{vplc}\" within {seconds} s."
                    )));
                }
                CompilationState::Running => sleep(self.patience.pace).await,
            }
        }
    }

    async fn start(&self, deployment: &Deployment) -> Result<(), Failure> {
        self.report(deployment, 0.75, "starting");
        self.patiently(|| self.runtime.start()).await.map_err(Failure::lasting)
    }

    /// A program is good when it has been RUNNING for a while at each look, without the runtime being away in between.
    async fn verify(&self, deployment: &Deployment) -> Result<(), Failure> {
        self.report(deployment, 0.8, "verifying");
        self.steady().await.map_err(Failure::lasting)
    }

    /// Returns when the program has been RUNNING for a while.
    pub(super) async fn steady(&self) -> Result<(), Error> {
        let (begun, mut running_since) = (Instant::now(), None::<Instant>);
        loop {
            let state = match self.runtime.plc().await {
                Ok(state) => Ok(state),
                // A runtime that its program takes with it is gone, and back, and gone again.
                Err(error) if error.is_passing() => Err(error),
                Err(error) => return Err(error.about(self.vplc)),
            };
            let shown = match &state {
                Ok(state) => format!("is \"{}\"", state.as_str()),
                Err(error) => format!("is not known, as its runtime {error}"),
            };
            let failed = |text: &str| {
                let text = format!("The program on the vPLC \"{}\" {text}: its state {shown}.", self.vplc);
                Err(Error::new(Kind::ProgramFailed, text))
            };
            match (state, running_since) {
                (Ok(PlcState::Running), Some(since)) if since.elapsed() >= self.patience.steady => return Ok(()),
                (Ok(PlcState::Running), since) => running_since = since.or_else(|| Some(Instant::now())),
                (_, Some(_)) => return failed("does not keep running"),
                (Ok(PlcState::Error | PlcState::Empty), None) => return failed("does not run"),
                (_, None) if begun.elapsed() > self.patience.start => {
                    return failed(&format!("does not run within {} s", self.patience.start.as_secs()));
                }
                (_, None) => {}
            }
            sleep(self.patience.pace.min(self.patience.steady)).await;
        }
    }
}

fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "The deployment of the program was cancelled.")
}

/// The step in words, for those who look at an open deployment.
pub(super) fn words(deployment: &Deployment) -> &'static str {
    match (deployment.direction, deployment.step) {
        (Direction::Forward, Step::Upload) => "uploading",
        (Direction::Forward, Step::Compile) => "compiling",
        (Direction::Forward, Step::Start) => "starting",
        (Direction::Forward, Step::Verify) => "verifying",
        (Direction::Back, _) => "going-back",
    }
}
