//! The door to the programs of one vPLC.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::deploy::{Driver, with_store, words};
use super::machine::{Deployment, Event, Outcome};
use super::runtime::{Dial, PlcState, Runtime};
use super::store::{self, Store, Version};
use super::{Patience, Progress};
use crate::core::error::{Error, Kind};

/// What there is to know about the programs of a vPLC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramStatus {
    /// The version that is on the runtime; `None` if none is, or one that is not ours.
    pub active: Option<Version>,
    /// What the open deployment does: `uploading`, `compiling`, `starting`, `verifying` or `going-back`.
    pub deployment: Option<&'static str>,
    /// What the PLC does.
    pub plc: Result<PlcState, Error>,
    /// The version of the runtime.
    pub runtime: Result<String, Error>,
}

/// The programs of one vPLC.
#[derive(Debug)]
pub struct Programs {
    vplc: String,
    runtime: Runtime,
    store: Arc<Mutex<Store>>,
    patience: Patience,
    /// Held by a deployment.
    work: Mutex<()>,
}

impl Programs {
    /// Opens what is kept in this directory, which is made if need be: `runtime.json` and `programs/`. Only one of these may be open
    /// for a directory. `keep` versions are kept at least.
    pub fn open(
        vplc: &str,
        directory: &Path,
        dial: Arc<dyn Dial>,
        port: u16,
        keep: usize,
        patience: Patience,
    ) -> Result<Self, Error> {
        crate::core::store::make_directory(directory)?;
        let runtime = Runtime::open(directory, dial, port, patience)?;
        let store = Arc::new(Mutex::new(Store::open(directory.join("programs"), keep)?));
        Ok(Self { vplc: vplc.to_owned(), runtime, store, patience, work: Mutex::new(()) })
    }

    /// The runtime itself: to claim a new one, to start and stop its program, for its log and figures.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Makes the runtime in a new container the daemon's own, waits for it if need be, and brings it the program that the former one
    /// had. To be called while the container is on no network. It may be called again after an error, or if it was dropped halfway.
    ///
    /// A program that does not run on the new runtime is an error if `strict`; otherwise the runtime is claimed without it, and the
    /// reason is what is returned.
    pub async fn claim(
        &self,
        container: &str,
        strict: bool,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Option<Error>, Error> {
        self.runtime.expect_new_certificate()?;
        let deadline = Instant::now() + self.patience.start;
        while let Err(error) = self.runtime.claim().await {
            if !error.is_passing() || Instant::now() >= deadline {
                return Err(error.about(&self.vplc));
            }
            sleep(self.patience.pace).await;
        }
        // What was being deployed to the former container when the daemon ended.
        let resumed = self.resume(progress, cancel).await?;
        let put = match resumed {
            Some((_, Outcome::Deployed | Outcome::RolledBack(_))) => None,
            _ => self.redeploy(progress, cancel).await?,
        };
        let lost = put.and_then(|(_, outcome)| match outcome {
            Outcome::Deployed => None,
            Outcome::Unchanged(error) | Outcome::RolledBack(error) | Outcome::Lost { error, .. } => Some(error),
        });
        if let Some(error) = lost.clone().filter(|_| strict) {
            return Err(error);
        }
        self.runtime.keep_claimed(container)?;
        Ok(lost)
    }

    /// Proves that the active version runs, as a deployment does; there may be none.
    pub async fn prove(&self, progress: &dyn Progress, cancel: &CancellationToken) -> Result<(), Error> {
        let _work = self.begin().await?;
        if self.active().await.is_none() {
            return Ok(());
        }
        self.driver(progress, cancel).steady().await
    }

    /// The version that is on the runtime; `None` if none is, or one that is not ours.
    pub async fn active(&self) -> Option<Version> {
        self.store.lock().await.active().cloned()
    }

    /// Whether the end of the daemon has interrupted a deployment, so that [`Self::resume`] has something to do.
    pub async fn is_interrupted(&self) -> bool {
        self.work.try_lock().is_ok() && self.store.lock().await.deployment().is_some()
    }

    /// All versions that are kept, the oldest first.
    pub async fn versions(&self) -> Vec<Version> {
        self.store.lock().await.versions().to_vec()
    }

    /// Looks at everything. What the runtime does not say is an error in its place.
    pub async fn status(&self) -> ProgramStatus {
        let runtime = self.runtime.version().await.map_err(|error| error.about(&self.vplc));
        let plc = match &runtime {
            Ok(_) => self.runtime.plc().await.map_err(|error| error.about(&self.vplc)),
            Err(error) => Err(error.clone()),
        };
        let store = self.store.lock().await;
        ProgramStatus { active: store.active().cloned(), deployment: store.deployment().map(words), plc, runtime }
    }

    /// The archive of a version, as it was deployed.
    pub async fn export(&self, number: u32) -> Result<(File, Version), Error> {
        with_store(&self.store, move |store| store.archive(number)).await?
    }

    /// Puts a program on the runtime, and proves that it runs; if it does not, has the former one back. An error is one that touched
    /// nothing. If the caller is dropped halfway, [`Programs::resume`] goes on.
    pub async fn deploy(
        &self,
        archive: File,
        by: &str,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<(Version, Outcome), Error> {
        let _work = self.begin().await?;
        let regular = archive.metadata().is_ok_and(|metadata| metadata.is_file());
        if !regular {
            return Err(Error::new(Kind::InvalidArgs, "The program is to be a file: what was handed over is none."));
        }
        progress.report(0.0, "checking the program");
        let incoming = self.store.lock().await.incoming();
        let taken = spawn_blocking(move || {
            let mut archive = archive;
            store::take(&mut archive, &incoming)
        });
        let taken = taken
            .await
            .map_err(|error| Error::new(Kind::Failed, format!("The check of the program failed: {error}.")))??;
        let by = by.to_owned();
        let version = with_store(&self.store, move |store| store.adopt(taken, &by)).await??;
        let number = version.number;
        let done = self.put(number, false, progress, cancel).await;
        if matches!(done, Err(_) | Ok(Outcome::Unchanged(_))) {
            let forgotten = with_store(&self.store, move |store| store.forget(number)).await;
            if let Err(error) = forgotten.and_then(|forgotten| forgotten.map_err(Error::from)) {
                tracing::error!(vplc = self.vplc, "A program that was refused is still kept. {error}");
            }
        }
        done.map(|outcome| (version, outcome))
    }

    /// Puts this version on the runtime again; if none is named, the one that proved to run before the one that is there now.
    pub async fn rollback(
        &self,
        version: Option<u32>,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<(Version, Outcome), Error> {
        let _work = self.begin().await?;
        let found = with_store(&self.store, move |store| {
            let active = store.active().map(|version| version.number);
            version.or_else(|| store.before(active)).and_then(|number| store.version(number).cloned())
        });
        let Some(found) = found.await? else {
            if let Some(number) = version {
                let text = format!("There is no version \"{number}\" of the program of the vPLC \"{}\".", self.vplc);
                return Err(Error::new(Kind::InvalidArgs, text));
            }
            let text = format!("The vPLC \"{}\" has no earlier program that proved to run.", self.vplc);
            return Err(Error::new(Kind::NotSupported, text));
        };
        let outcome = self.put(found.number, false, progress, cancel).await?;
        Ok((found, outcome))
    }

    /// Puts the active version on a runtime that does not have it, such as that of a new image; `None` if there is none. There is no
    /// way back but to the former image, so a failure is [`Outcome::Lost`], and the version stays the active one.
    pub async fn redeploy(
        &self,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Option<(Version, Outcome)>, Error> {
        let _work = self.begin().await?;
        let Some(version) = self.store.lock().await.active().cloned() else { return Ok(None) };
        let outcome = self.put(version.number, true, progress, cancel).await?;
        Ok(Some((version, outcome)))
    }

    /// Goes on with the deployment that the end of the daemon has interrupted; `None` if there is none. To be called when the runtime can
    /// be reached, before anything else is asked for; on an error it may be called again.
    pub async fn resume(
        &self,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Option<(Version, Outcome)>, Error> {
        let _work = self.exclusive()?;
        let (version, deployment) = {
            let store = self.store.lock().await;
            let Some(deployment) = store.deployment().cloned() else { return Ok(None) };
            (store.version(deployment.new).cloned(), deployment)
        };
        let Some(version) = version else {
            // It was refused, and forgotten, and the end of it was not kept.
            let outcome = Outcome::Unchanged(Error::new(Kind::Failed, "The program is not kept any more."));
            self.conclude(&deployment, &outcome).await;
            return Ok(None);
        };
        let driver = self.driver(progress, cancel);
        let found = driver.found().await?;
        let outcome = driver.run(deployment.clone(), Some(Event::Resumed(found))).await;
        self.conclude(&deployment, &outcome).await;
        Ok(Some((version, outcome)))
    }

    fn exclusive(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let busy = || format!("The program of the vPLC \"{}\" is being deployed already.", self.vplc);
        self.work.try_lock().map_err(|_| Error::new(Kind::Busy, busy()))
    }

    async fn begin(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let work = self.exclusive()?;
        if self.store.lock().await.deployment().is_some() {
            let text = format!(
                "A deployment of a program to the vPLC \"{}\" was interrupted and waits for its end.",
                self.vplc
            );
            return Err(Error::new(Kind::Busy, text));
        }
        Ok(work)
    }

    fn driver<'d>(&'d self, progress: &'d dyn Progress, cancel: &'d CancellationToken) -> Driver<'d> {
        let Self { vplc, runtime, store, patience, .. } = self;
        Driver { vplc, runtime, store, patience: *patience, progress, cancel }
    }

    /// Runs a deployment of a version that is kept; `anew` on a runtime that has no program.
    async fn put(
        &self,
        number: u32,
        anew: bool,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Error> {
        // Whoever cannot be asked what it does is not touched.
        let was_running = self.runtime.plc().await.map_err(|error| error.about(&self.vplc))? == PlcState::Running;
        let deployment = with_store(&self.store, move |store| {
            let old = if anew { None } else { store.fallback(number) };
            let deployment = Deployment::new(number, old, was_running);
            store.record(&deployment).map(|()| deployment)
        });
        let deployment = deployment.await??;
        if deployment.old.is_none() && was_running {
            let text = "What runs was not deployed from here, so it cannot be brought back.".to_owned();
            progress.line(crate::core::job::Severity::Warning, text);
        }
        tracing::info!(vplc = self.vplc, version = number, "A program is deployed");
        let outcome = self.driver(progress, cancel).run(deployment.clone(), None).await;
        self.conclude(&deployment, &outcome).await;
        Ok(outcome)
    }

    /// Keeps how it ended. If that cannot be kept, the deployment is still open on the medium, and the next daemon proves once more what
    /// runs.
    async fn conclude(&self, deployment: &Deployment, outcome: &Outcome) {
        let (new, old, was_running) = (deployment.new, deployment.old, deployment.was_running);
        match outcome.error() {
            None => tracing::info!(vplc = self.vplc, version = new, "The program runs"),
            Some(error) => tracing::error!(vplc = self.vplc, version = new, "The program was not deployed. {error}"),
        }
        let outcome = outcome.clone();
        let kept = with_store(&self.store, move |store| {
            let active = store.active().map(|version| version.number);
            match outcome {
                Outcome::Deployed => store.conclude(Some(new), true),
                Outcome::Unchanged(_) => store.conclude(active, false),
                Outcome::RolledBack(_) => store.conclude(old, was_running),
                // The active version is still what is wanted, if it was to come to another runtime.
                Outcome::Lost { .. } => store.conclude(active.filter(|active| *active == new), false),
            }
        });
        if let Err(error) = kept.await.and_then(|kept| kept.map_err(Error::from)) {
            tracing::error!(vplc = self.vplc, "The end of the deployment is not kept. {error}");
        }
    }
}
