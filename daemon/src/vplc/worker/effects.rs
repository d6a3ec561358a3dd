//! How a worker does what its machine says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::{LAST_LINES, Tools, Worker};
use crate::core::error::Error;
use crate::vplc::engine::{Condition, Engine, EngineError, Plan, Role};
use crate::vplc::machine::{Effect, Event, Sight};
use crate::vplc::spec::Spec;
use crate::vplc::store::Pinned;

/// Between two looks whether a runtime is still there that something is done with.
const LOOK_PACE: Duration = Duration::from_secs(1);

impl Worker {
    /// Begins what takes time.
    pub(super) fn begin(&self, effect: Effect) -> BoxFuture<'static, Event> {
        let Tools { engine, nics, store, .. } = self.tools.clone();
        // What is on trial goes back to what was before if it does not run the program.
        let plc = self.record.trial.as_ref().is_some_and(|trial| trial.plc);
        if let Effect::Claim { container } = effect {
            let runtime = Watched { engine, vplc: self.spec.name.clone(), container: container.clone() };
            return runtime.unless_ended(self.shelf.claim(container, plc));
        }
        if let Effect::ProvePlc { container } = effect {
            let runtime = Watched { engine, vplc: self.spec.name.clone(), container };
            return runtime.unless_ended(self.shelf.prove(plc));
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
                    | Effect::Await(_)
                    | Effect::Claim { .. }
                    | Effect::ProvePlc { .. }
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
}

/// A runtime that something is done with.
struct Watched {
    engine: Arc<dyn Engine>,
    vplc: String,
    container: String,
}

impl Watched {
    /// Does the work. That the runtime has ended says more than what went wrong with the work for that reason.
    fn unless_ended(self, work: BoxFuture<'static, Event>) -> BoxFuture<'static, Event> {
        async move {
            let event = tokio::select! {
                () = self.ended() => return Event::Ended,
                event = work => event,
            };
            let failed = matches!(event, Event::Failed(_) | Event::Claimed(Some(_)));
            if failed && self.has_ended().await { Event::Ended } else { event }
        }
        .boxed()
    }

    /// Returns when the container does not run any more. Asked now and then, because the machine takes in no events of the engine
    /// while something is done.
    async fn ended(&self) {
        loop {
            sleep(LOOK_PACE).await;
            if self.has_ended().await {
                return;
            }
        }
    }

    async fn has_ended(&self) -> bool {
        // An engine that does not answer says nothing about the container.
        let Ok(found) = self.engine.find(&self.vplc, Role::Runtime).await else { return false };
        let running = |condition| matches!(condition, Condition::Running { .. });
        !found.is_some_and(|found| found.id == self.container && running(found.condition))
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

/// What is being done, for people, and how far a Job is at least that has come so far.
pub(super) fn step(effect: &Effect) -> (f64, &'static str) {
    match effect {
        Effect::Look | Effect::ReadLines => (0.0, "looking"),
        Effect::FetchImage => (0.4, "fetching the image"),
        Effect::StopRuntime => (0.42, "stopping the runtime"),
        Effect::DetachNics => (0.44, "detaching the NICs"),
        Effect::RemoveRuntime | Effect::RemoveHolder | Effect::StopHolder | Effect::RemoveData => (0.46, "removing"),
        Effect::CreateHolder | Effect::StartHolder => (0.5, "making the network namespace"),
        Effect::CreateRuntime | Effect::StartRuntime => (0.6, "starting the runtime"),
        Effect::Claim { .. } => (0.65, "claiming the runtime"),
        Effect::AttachNics { .. } => (0.8, "attaching the NICs"),
        Effect::ProvePlc { .. } => (0.9, "proving the PLC"),
        Effect::KeepLatch(_)
        | Effect::Pause(_)
        | Effect::Prove(_)
        | Effect::Await(_)
        | Effect::Retry { .. }
        | Effect::Vanish => (0.95, "ending"),
    }
}
