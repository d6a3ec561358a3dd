//! Puts the parts together and keeps them going: the bus, the actors, signals, and the word to the service manager.
//!
//! `SIGTERM` and `SIGINT` end the daemon, `SIGHUP` has it read its configuration again. The service manager is told
//! when the daemon is ready, what it is doing, and, at half the watchdog's period, that every actor has answered.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::BoxFuture;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::bus::manager::state_word;
use crate::bus::{Bus, Phase, Publisher};
use crate::core::audit::Audit;
use crate::core::error::Error;
use crate::core::job::Jobs;
use crate::network::handle::NetworkHandle;
use crate::update::handle::{StopPoint, UpdateHandle, UpdateState, UpdateStatus};
use crate::vplc::handle::VplcHandle;

/// How long the actors may take to put things in order after they were told to stop. The unit allows 90 s in all.
const STOP_LIMIT: Duration = Duration::from_mins(1);
/// How long the last signals may take to get to the bus.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// What the supervisor looks after.
pub struct Parts {
    /// The door to the update domain.
    pub update: UpdateHandle,
    /// The door to the network domain.
    pub network: NetworkHandle,
    /// The door to the vPLC domain.
    pub vplc: VplcHandle,
    /// All Jobs.
    pub jobs: Jobs,
    /// Who asked for what.
    pub audit: Audit,
    /// The actors of all domains. They are not polled before the bus name is owned, so the name keeps two daemons
    /// from working on one System. Once `stop` is cancelled it has a minute to end; before, an end is a fault.
    pub actor: BoxFuture<'static, ()>,
    /// Tells the actors to stop: no new work, and what is open is on disk and can be resumed.
    pub stop: CancellationToken,
}

impl fmt::Debug for Parts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Parts").field("update", &self.update).finish_non_exhaustive()
    }
}

/// Runs the daemon on the system bus until it is told to stop. An error is worth an exit code other than 0.
pub async fn run(parts: Parts) -> anyhow::Result<()> {
    let Parts { update, network, vplc, jobs, audit, actor, stop } = parts;
    // First of all, so that no signal finds the default action in place.
    let mut terminate = signal(SignalKind::terminate()).context("Cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("Cannot listen for SIGINT")?;
    let hangup = signal(SignalKind::hangup()).context("Cannot listen for SIGHUP")?;

    let (phase, phases) = watch::channel(Phase::Starting);
    let system = zbus::connection::Builder::system();
    let bus = Bus::open(system, &update, &jobs, &network, &vplc, phases, audit).await?;
    bus.claim().await?;
    let mut actor = tokio::spawn(actor);

    let end = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        () = bus.closed() => Err("The connection to the system bus was lost"),
        _ = &mut actor => Err("The update service ended unexpectedly"),
        never = serve(&phase, &bus, &update, &network, &vplc, hangup) => match never {},
    };

    phase.send_replace(Phase::Stopping);
    tell(&[NotifyState::Stopping, NotifyState::Status(&status_line(Phase::Stopping, &update.status().borrow()))]);
    stop.cancel();
    let unfinished = !actor.is_finished() && timeout(STOP_LIMIT, actor).await.is_err();
    // The bus may be what broke, so this is no place to report an error.
    drop(timeout(FLUSH_LIMIT, bus.publisher().flush()).await);
    bus.close().await;

    match end {
        Ok(_) if unfinished => bail!("The update service did not stop within {} s.", STOP_LIMIT.as_secs()),
        Ok(reason) => {
            tracing::info!(reason, "orchestratord ends");
            Ok(())
        }
        Err(reason) => bail!("{reason}."),
    }
}

/// The daemon's life from the start of the actors to the end, which comes from outside.
async fn serve(
    phase: &watch::Sender<Phase>,
    bus: &Bus,
    update: &UpdateHandle,
    network: &NetworkHandle,
    vplc: &VplcHandle,
    hangup: Signal,
) -> Infallible {
    let publisher = bus.publisher();
    // Whoever waits for the daemon to be ready finds what the actors knew at their start.
    if let Err(error) = answers(update, network, vplc, &publisher).await {
        tracing::error!("The start is not complete: {error}");
        // An actor is gone, which ends the daemon elsewhere.
        return std::future::pending().await;
    }
    phase.send_replace(Phase::Running);
    // An error means the same.
    drop(publisher.flush().await);
    let line = status_line(Phase::Running, &update.status().borrow());
    tell(&[NotifyState::Ready, NotifyState::Status(&line)]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "orchestratord is ready");
    tokio::select! {
        never = reload_at(hangup, update) => never,
        never = watch_over(update, network, vplc, publisher) => never,
        never = tell_status(update, line) => never,
    }
}

/// Reads the configuration again at each signal.
async fn reload_at(mut hangup: Signal, update: &UpdateHandle) -> Infallible {
    loop {
        if hangup.recv().await.is_none() {
            // tokio closes the stream only when its runtime ends.
            std::future::pending::<()>().await;
        }
        match NotifyState::monotonic_usec_now() {
            // systemd takes a reload for begun only if the time comes in the same datagram.
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("The monotonic clock cannot be read: {error}"),
        }
        match update.reload().await {
            Ok(()) => tracing::info!("The configuration was read again"),
            Err(error) => tracing::error!("The configuration was not read again: {error}"),
        }
        tell(&[NotifyState::Ready]);
    }
}

/// Pats the watchdog, each time only after every actor has answered.
async fn watch_over(
    update: &UpdateHandle,
    network: &NetworkHandle,
    vplc: &VplcHandle,
    publisher: Publisher,
) -> Infallible {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let half = (period / 2).max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + half, half);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match timeout(half, answers(update, network, vplc, &publisher)).await {
            Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
            Ok(Err(error)) => tracing::error!("The watchdog is not patted: {error}"),
            Err(_) => tracing::error!("The watchdog is not patted: an actor does not answer."),
        }
    }
}

async fn answers(
    update: &UpdateHandle,
    network: &NetworkHandle,
    vplc: &VplcHandle,
    publisher: &Publisher,
) -> Result<(), Error> {
    update.ping().await?;
    network.ping().await?;
    vplc.ping().await?;
    publisher.flush().await
}

/// Tells the service manager in one line what the daemon is doing, once per change.
async fn tell_status(update: &UpdateHandle, mut told: String) -> Infallible {
    let mut status = update.status();
    loop {
        let line = status_line(Phase::Running, &status.borrow_and_update());
        if line != told {
            tell(&[NotifyState::Status(&line)]);
            told = line;
        }
        if status.changed().await.is_err() {
            // The actor is gone, which ends the daemon elsewhere.
            return std::future::pending().await;
        }
    }
}

/// What `systemctl status` shows.
fn status_line(phase: Phase, update: &UpdateStatus) -> String {
    let word = state_word(phase, update);
    let manifest = if update.manifest.is_empty() { "no Manifest".to_owned() } else { one_line(&update.manifest) };
    let detail = match (update.state, update.stopped_before.map(StopPoint::as_str)) {
        (UpdateState::Idle, _) => format!("{manifest} installed"),
        (UpdateState::Busy, _) => format!("working on {manifest}"),
        (UpdateState::Waiting, Some(point)) => format!("{manifest} stopped before {point}"),
        (UpdateState::Waiting, None) => format!("{manifest} waits for Resume or Rollback"),
        (UpdateState::RebootRequired, _) => format!("{manifest} waits for a reboot of the host"),
    };
    match &update.last_error {
        Some(error) if word == "degraded" => format!("{word}: {detail}; {}", one_line(&error.message)),
        _ => format!("{word}: {detail}"),
    }
}

/// A line break would begin another assignment in the message to the service manager.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The service manager may be gone or never have been there; neither is a reason to stop.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("The service manager cannot be told: {error}");
    }
}

/// Runs `daemon` on a runtime of one thread, which is all that the daemon needs.
pub fn block_on<T>(daemon: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("Cannot start the asynchronous runtime")?;
    let result = runtime.block_on(daemon);
    // A thread that reads a file of a hung mount must not keep the process.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::error::Kind;

    #[test]
    fn the_status_is_one_line_that_says_what_goes_on() {
        let mut update = UpdateStatus::default();
        assert_eq!(status_line(Phase::Running, &update), "idle: no Manifest installed");
        update.manifest = "car 2\nREADY=1".to_owned();
        update.state = UpdateState::Busy;
        assert_eq!(status_line(Phase::Running, &update), "busy: working on car 2 READY=1");
        update.state = UpdateState::Waiting;
        assert_eq!(status_line(Phase::Running, &update), "idle: car 2 READY=1 waits for Resume or Rollback");
        update.stopped_before = Some(StopPoint::ArtifactCommit);
        assert_eq!(status_line(Phase::Running, &update), "idle: car 2 READY=1 stopped before ArtifactCommit");
        update.state = UpdateState::RebootRequired;
        assert_eq!(status_line(Phase::Stopping, &update), "stopping: car 2 READY=1 waits for a reboot of the host");
        update.state = UpdateState::Idle;
        update.inconsistent = true;
        update.last_error = Some(Error::new(Kind::Inconsistent, "The Component \"a.b\"\nis broken."));
        let line = status_line(Phase::Running, &update);
        assert_eq!(line, "degraded: car 2 READY=1 installed; The Component \"a.b\" is broken.");
    }
}
