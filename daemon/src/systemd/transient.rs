//! Runs each call as a transient unit of systemd.
//!
//! Such a unit is no child of the daemon: it has a cgroup of its own, sees the machine as it is and not the daemon's
//! sandbox, ends in time even if no daemon is there to see to it, and outlives the daemon. A daemon that was killed,
//! restarted or upgraded in the middle of a call finds the unit by the tag of the call and takes over; if the program
//! has ended meanwhile, the unit is still there with its result. Only a reboot takes it away.
//!
//! A question ([`Stdout::Answer`]) is not taken over but ended and forgotten, and has to be asked again: what of the
//! answer the former daemon had read already went with it, and half an answer is worse than none.
//!
//! Needs systemd 240 or later (`Type=exec`).

mod spool;
mod unit;

use std::io;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;
use zbus::{Connection, OwnedObjectPath};

use self::spool::{Inlets, Outlets, Spool};
use self::unit::{Outcome, Phase, Unit, environment, properties};
use super::manager::{SERVICE, SYSTEMD, Systemd, UNIT, UNIT_EXISTS, error_name, is_absent, is_crowded};
use super::signals::{UnitSignals, Watch};
use crate::core::error::{Error, Kind};
use crate::update::runner::lines::Output;
use crate::update::runner::{ANSWER_LIMIT, Call, Ended, Exit, Lines, Runner, RunnerError, Stdout, Stream};

/// The runner cannot work.
#[derive(Debug, thiserror::Error)]
pub enum TransientError {
    /// The directory for the output of calls cannot be used.
    #[error("Cannot use \"{}\" for the output of Interface programs: {source}.", directory.display())]
    Spool {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// systemd does not do what is asked.
    #[error("\"{}\" does not tell about its units: {source}.", SYSTEMD)]
    Systemd {
        /// Why.
        source: zbus::Error,
    },
}

impl From<TransientError> for Error {
    fn from(error: TransientError) -> Self {
        let kind = match error {
            TransientError::Spool { .. } => Kind::Storage,
            TransientError::Systemd { .. } => Kind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

/// Runs each call as a transient unit. See the [module](self).
///
/// When the connection to the bus is lost, calls neither end nor fail any more (only a cancelled one returns): the units
/// go on, and to report a failure would be a guess. The daemon has to end then; the next one takes the calls over.
#[derive(Debug)]
pub struct TransientRunner {
    systemd: Systemd,
    signals: UnitSignals,
    spool: Spool,
    environment: Vec<String>,
    daemon: Option<String>,
}

impl TransientRunner {
    /// A runner for the systemd on this bus. What calls print passes through `spool`, a directory that is made if need
    /// be, is private to this instance, survives a restart of the daemon and not one of the machine:
    /// `/run/orchestrator/calls`. Programs inherit the variables that the daemon has now, but for those
    /// that systemd sets for the daemon alone.
    pub async fn new(connection: Connection, spool: impl Into<PathBuf>) -> Result<Self, TransientError> {
        let directory = spool.into();
        let spool = Spool::open(directory.clone()).map_err(|source| TransientError::Spool { directory, source })?;
        let failed = |source| TransientError::Systemd { source };
        let signals = UnitSignals::new(connection.clone());
        let systemd = Systemd::new(connection).await.map_err(failed)?;
        systemd.subscribe().await.map_err(failed)?;
        let daemon = systemd.own_service().await;
        Ok(Self { systemd, signals, spool, environment: environment(utf8_variables()), daemon })
    }

    async fn make(&self, call: &Call, lines: &dyn Lines, cancel: &CancellationToken) -> Result<Ended, RunnerError> {
        let unit = Unit::of(&call.tag);
        let cannot = |reason: String| RunnerError::Start { program: call.program.clone(), reason };
        let watch = self.watch(&unit).await.map_err(|error| cannot(error.to_string()))?;
        let (inlets, outlets) = self.spool.make(&unit.tag).map_err(|error| {
            self.spool.remove(&unit.tag);
            cannot(format!("there is no way to take its output: {error}"))
        })?;
        if let Err(error) = self.start(call, &unit, &watch, &inlets, cancel).await {
            self.spool.remove(&unit.tag);
            if cancel.is_cancelled() {
                return Ok(Ended { exit: Exit::Cancelled, answer: Vec::new() });
            }
            return Err(cannot(error.to_string()));
        }
        // It is with systemd, so a later daemon finds it.
        lines.started();
        // systemd has ends of its own.
        drop(inlets);
        let ended = self.attend(call, &unit, &watch, outlets, lines, cancel).await?;
        // Somebody else stopped the unit, and nobody kept the outcome.
        Ok(ended.unwrap_or(Ended { exit: Exit::Signal(Signal::SIGTERM as i32), answer: Vec::new() }))
    }

    async fn take_over(
        &self,
        call: &Call,
        lines: &dyn Lines,
        cancel: &CancellationToken,
    ) -> Result<Option<Ended>, RunnerError> {
        let unit = Unit::of(&call.tag);
        if call.stdout == Stdout::Answer {
            self.end(&unit).await;
            return Ok(None);
        }
        let lost = |error: zbus::Error| RunnerError::Lost { program: call.program.clone(), reason: error.to_string() };
        let watch = self.watch(&unit).await.map_err(lost)?;
        if self.phase(&unit).await.map_err(lost)? == Phase::Gone {
            self.spool.remove(&unit.tag);
            return Ok(None);
        }
        let outlets = self.spool.find(&unit.tag);
        self.attend(call, &unit, &watch, outlets, lines, cancel).await
    }

    async fn watch(&self, unit: &Unit) -> zbus::Result<Watch> {
        self.systemd.insist(|| self.signals.watch(&unit.path)).await
    }

    async fn start(
        &self,
        call: &Call,
        unit: &Unit,
        watch: &Watch,
        inlets: &Inlets,
        cancel: &CancellationToken,
    ) -> zbus::Result<()> {
        let properties = properties(call, inlets, &self.environment, self.daemon.as_deref());
        let mut in_doubt = false;
        loop {
            let Err(error) = self.systemd.start_transient(&unit.name, &properties).await else {
                return Ok(());
            };
            if self.systemd.is_lost(&error).await {
                return std::future::pending().await;
            }
            match error_name(&error).as_deref() {
                // The reply to our first try was lost, not the unit.
                Some(UNIT_EXISTS) if in_doubt => return Ok(()),
                Some(UNIT_EXISTS) => {
                    tracing::info!(unit = unit.name, "ending what an earlier daemon left of the call");
                    self.put_away(unit, watch).await?;
                }
                _ if is_absent(&error) || is_crowded(&error) => {
                    in_doubt |= is_absent(&error);
                    // Returns once systemd can be asked again.
                    self.phase(unit).await?;
                }
                // The host shuts down, and this daemon with it. The call is for the next boot, not failed.
                _ if self.systemd.is_stopping().await => {
                    cancel.cancelled().await;
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
    }

    /// Follows a unit to its end and puts it away. `None` if it was gone before it could be asked for its outcome.
    async fn attend(
        &self,
        call: &Call,
        unit: &Unit,
        watch: &Watch,
        outlets: Outlets,
        lines: &dyn Lines,
        cancel: &CancellationToken,
    ) -> Result<Option<Ended>, RunnerError> {
        let program = || call.program.clone();
        let mut printed = Printed::new(call.stdout, outlets, lines);
        let verdict = tokio::select! {
            verdict = self.verdict(unit, watch) => verdict.map(Verdict::Over),
            () = printed.until_too_long() => Ok(Verdict::TooLong),
            () = cancel.cancelled() => Ok(Verdict::Cancelled),
        };
        // A program that is told to end may have something to say, and must not block on a full pipe.
        let put_away = tokio::select! {
            put_away = self.put_away(unit, watch) => put_away,
            never = printed.on_and_on() => match never {},
        };
        let answer = printed.finish();
        self.spool.remove(&unit.tag);
        let lost = |error: zbus::Error| RunnerError::Lost { program: program(), reason: error.to_string() };
        put_away.map_err(lost)?;
        let answer = answer.ok_or_else(|| RunnerError::AnswerTooLong { program: program() });
        match verdict.map_err(lost)? {
            Verdict::TooLong => Err(RunnerError::AnswerTooLong { program: program() }),
            Verdict::Cancelled => Ok(Some(Ended { exit: Exit::Cancelled, answer: answer.unwrap_or_default() })),
            Verdict::Over(None) => Ok(None),
            Verdict::Over(Some(outcome)) => {
                let exit = outcome.exit().map_err(|reason| RunnerError::Start { program: program(), reason })?;
                Ok(Some(Ended { exit, answer: answer? }))
            }
        }
    }

    /// Waits until the program has ended and asks how.
    async fn verdict(&self, unit: &Unit, watch: &Watch) -> zbus::Result<Option<Outcome>> {
        loop {
            match self.phase(unit).await? {
                Phase::Alive => watch.changed().await,
                Phase::Gone => return Ok(None),
                Phase::Exited | Phase::Failed => return self.outcome(unit).await.map(Some),
            }
        }
    }

    /// Ends whatever runs of the unit and makes systemd forget it.
    async fn put_away(&self, unit: &Unit, watch: &Watch) -> zbus::Result<()> {
        let mut asked = false;
        loop {
            match self.phase(unit).await? {
                Phase::Gone => return Ok(()),
                Phase::Failed => return self.systemd.reset_failed(&unit.name).await,
                Phase::Alive | Phase::Exited if !asked => {
                    asked = true;
                    self.systemd.stop(&unit.name).await?;
                }
                Phase::Alive | Phase::Exited => watch.changed().await,
            }
        }
    }

    async fn end(&self, unit: &Unit) {
        let ended = match self.watch(unit).await {
            Ok(watch) => self.put_away(unit, &watch).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::error!(unit = unit.name, %error, "cannot end a call that an earlier daemon made");
        }
        self.spool.remove(&unit.tag);
    }

    /// Where the unit is in its life; one that is about to be started is alive.
    async fn phase(&self, unit: &Unit) -> zbus::Result<Phase> {
        let phase = self.phase_now(unit).await?;
        if phase != Phase::Gone {
            return Ok(phase);
        }
        // systemd accepts the start of a unit first and starts it then. If no job waits, what is dead stays dead.
        let (waiting, _): (u32, OwnedObjectPath) = self.systemd.property(&unit.path, UNIT, "Job").await?;
        if waiting == 0 { self.phase_now(unit).await } else { Ok(Phase::Alive) }
    }

    async fn phase_now(&self, unit: &Unit) -> zbus::Result<Phase> {
        let state: String = self.systemd.property(&unit.path, UNIT, "SubState").await?;
        Ok(Phase::of(&state))
    }

    async fn outcome(&self, unit: &Unit) -> zbus::Result<Outcome> {
        let (result, code, status, up) = tokio::try_join!(
            self.systemd.property::<String>(&unit.path, SERVICE, "Result"),
            self.systemd.property::<i32>(&unit.path, SERVICE, "ExecMainCode"),
            self.systemd.property::<i32>(&unit.path, SERVICE, "ExecMainStatus"),
            self.systemd.property::<u64>(&unit.path, UNIT, "ActiveEnterTimestampMonotonic"),
        )?;
        Ok(Outcome { result, code, status, ran: up > 0 })
    }

    /// Lets nobody wait for ever who does not want to wait any more, see [`Systemd::insist`].
    async fn until_abandoned<T>(
        &self,
        call: &Call,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, RunnerError>>,
    ) -> Result<T, RunnerError> {
        let abandoned = async {
            self.systemd.connection().closed().await;
            cancel.cancelled().await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = abandoned => Err(RunnerError::Lost {
                program: call.program.clone(),
                reason: "the connection to the bus is lost".to_owned(),
            }),
        }
    }
}

impl Runner for TransientRunner {
    fn run<'a>(
        &'a self,
        call: &'a Call,
        lines: &'a dyn Lines,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Ended, RunnerError>> {
        Box::pin(self.until_abandoned(call, cancel, self.make(call, lines, cancel)))
    }

    fn adopt<'a>(
        &'a self,
        call: &'a Call,
        lines: &'a dyn Lines,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<Ended>, RunnerError>> {
        Box::pin(self.until_abandoned(call, cancel, self.take_over(call, lines, cancel)))
    }

    fn kill<'a>(&'a self, tag: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.end(&Unit::of(tag)).await })
    }

    fn left_behind(&self) -> Vec<String> {
        self.spool.tags().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot tell which calls an earlier daemon made");
            Vec::new()
        })
    }
}

/// Why we stop waiting for the program.
#[derive(Debug)]
enum Verdict {
    Over(Option<Outcome>),
    TooLong,
    Cancelled,
}

/// What the call prints, on its way to where it belongs.
#[derive(Debug)]
struct Printed<'a> {
    outlets: Outlets,
    output: Output,
    lines: &'a dyn Lines,
    stdout: Stdout,
    answer: Vec<u8>,
    too_long: bool,
}

impl<'a> Printed<'a> {
    fn new(stdout: Stdout, outlets: Outlets, lines: &'a dyn Lines) -> Self {
        Self { outlets, output: Output::new(), lines, stdout, answer: Vec::new(), too_long: false }
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stderr || self.stdout == Stdout::Log {
            self.output.push(stream, bytes, self.lines);
        } else if self.answer.len() + bytes.len() > ANSWER_LIMIT {
            self.too_long = true;
        } else {
            self.answer.extend_from_slice(bytes);
        }
    }

    async fn next(&mut self) {
        let (mut stdout, mut stderr) = ([0; 4096], [0; 4096]);
        let (stream, bytes) = tokio::select! {
            read = self.outlets.stdout.read(&mut stdout) => (Stream::Stdout, &stdout[..read]),
            read = self.outlets.stderr.read(&mut stderr) => (Stream::Stderr, &stderr[..read]),
        };
        self.take(stream, bytes);
    }

    /// Takes what comes until it is more than an answer may be.
    async fn until_too_long(&mut self) {
        while !self.too_long {
            self.next().await;
        }
    }

    /// Takes what comes.
    async fn on_and_on(&mut self) -> std::convert::Infallible {
        loop {
            self.next().await;
        }
    }

    /// Takes what is left; gives the answer unless it is too long.
    fn finish(mut self) -> Option<Vec<u8>> {
        let Outlets { stdout, stderr } = std::mem::replace(&mut self.outlets, Outlets::closed());
        stdout.rest(|bytes| self.take(Stream::Stdout, bytes));
        stderr.rest(|bytes| self.take(Stream::Stderr, bytes));
        self.output.finish(self.lines);
        (!self.too_long).then_some(self.answer)
    }
}

fn utf8_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
