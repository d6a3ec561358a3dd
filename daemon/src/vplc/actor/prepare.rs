//! What is done before anything is changed: is the engine there, are the names free, can the image be had?

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::core::error::{Error, Kind};
use crate::core::job::{JobReporter, JobResult, Jobs, VPLC_SUBJECT};
use crate::vplc::engine::{Engine, EngineError, Role};
use crate::vplc::spec::{Pull, Spec};
use crate::vplc::store::Pinned;
use crate::vplc::worker::Prepared;

/// How long the engine may take to say who it is before a caller is told that it is not there.
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
/// The share of a Job that the image takes.
const IMAGE_SHARE: f64 = 0.4;

/// A specification that can be taken up.
pub(super) struct Found {
    pub(super) prepared: Prepared,
    pub(super) reporter: JobReporter,
    /// There is a volume of that name already, and it is ours.
    pub(super) has_volume: bool,
}

/// What came of a preparation.
pub(super) struct Outcome {
    pub(super) name: String,
    /// None if it failed; who asked for it has been told.
    pub(super) found: Option<Found>,
}

/// A specification that is looked into.
pub(super) struct Preparation {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) jobs: Jobs,
    pub(super) spec: Spec,
    pub(super) text: String,
    pub(super) archive: Option<File>,
    pub(super) pin: Option<String>,
    pub(super) caller: u32,
}

impl Preparation {
    /// Answers as soon as the engine has, and goes on.
    pub(super) async fn run(
        self,
        reply: oneshot::Sender<Result<u32, Error>>,
        outcomes: mpsc::UnboundedSender<Outcome>,
    ) {
        let name = self.spec.name.clone();
        let found = self.look(reply).await;
        // An error means that the daemon ends.
        drop(outcomes.send(Outcome { name, found }));
    }

    async fn look(mut self, reply: oneshot::Sender<Result<u32, Error>>) -> Option<Found> {
        let there = match timeout(ENGINE_LIMIT, self.engine.version()).await {
            Ok(answer) => answer.map(drop).map_err(Error::from),
            Err(_) => Err(EngineError::Slow { what: "say who it is".to_owned() }.into()),
        };
        let free = match there {
            Ok(()) => self.free().await.map_err(Error::from),
            Err(error) => Err(error),
        };
        let has_volume = match free {
            Ok(has_volume) => has_volume,
            // A caller who has gone away needs no answer.
            Err(error) => {
                drop(reply.send(Err(error)));
                return None;
            }
        };
        let reporter = self.jobs.begin("apply", format!("{VPLC_SUBJECT}{}", self.spec.name), self.caller);
        drop(reply.send(Ok(reporter.job().id)));
        let cancelled = reporter.cancelled();
        let image = tokio::select! {
            image = self.image(&reporter) => image.map_err(Error::from),
            () = cancelled.cancelled() => {
                let message = format!("The Job {} was cancelled; nothing was changed.", reporter.job().id);
                reporter.finish(JobResult::Cancelled, Some(Error::new(Kind::Cancelled, message)));
                return None;
            }
        };
        match image {
            Ok(image) => {
                let message = format!("Job {} cannot be cancelled any more: it changes the vPLC.", reporter.job().id);
                reporter.refuse_cancel(Error::new(Kind::NotSupported, message));
                let prepared = Prepared { spec: self.spec, text: self.text, image };
                Some(Found { prepared, reporter, has_volume })
            }
            Err(error) => {
                reporter.finish(JobResult::Failed, Some(error));
                None
            }
        }
    }

    /// An error if something that is not ours has a name that is needed.
    async fn free(&self) -> Result<bool, EngineError> {
        for role in Role::ALL {
            self.engine.find(&self.spec.name, role).await?;
        }
        self.engine.has_volume(&self.spec.name).await
    }

    async fn image(&mut self, reporter: &JobReporter) -> Result<Pinned, EngineError> {
        let reference = &self.spec.image.reference;
        let progress = |share: f64, step: &str| reporter.report(share * IMAGE_SHARE, step);
        if let Some(archive) = self.archive.take() {
            let loaded = self.engine.load(archive, &progress).await?;
            // Another image may have this name from before, and would be taken for the one that was handed over.
            let is_wanted = |name: &String| canonical(name) == canonical(reference);
            if self.pin.is_none() && !reference.contains('@') && !loaded.is_empty() && !loaded.iter().any(is_wanted) {
                let reason = format!("the archive has \"{}\"", loaded.join("\", \""));
                return Err(EngineError::NoImage { image: reference.clone(), reason });
            }
        }
        if let Some(pin) = &self.pin {
            if self.engine.image(pin).await?.is_none() && pin.contains('@') && self.spec.image.pull != Pull::Never {
                self.engine.pull(pin, &progress).await?;
            }
            let missing = || EngineError::NoImage { image: pin.clone(), reason: "it is not here any more".to_owned() };
            return self.engine.image(pin).await?.ok_or_else(missing);
        }
        let here = self.engine.image(reference).await?;
        match (here, self.spec.image.pull) {
            (Some(image), Pull::Missing | Pull::Never) => return Ok(image),
            (None, Pull::Never) => {
                let reason = "it is not here, and \"image.pull\" is \"never\"".to_owned();
                return Err(EngineError::NoImage { image: reference.clone(), reason });
            }
            _ => self.engine.pull(reference, &progress).await?,
        }
        let reason = "the engine fetched it and does not have it".to_owned();
        self.engine.image(reference).await?.ok_or(EngineError::NoImage { image: reference.clone(), reason })
    }
}

/// A name of an image without what may be left out. Engines leave out different parts.
fn canonical(name: &str) -> String {
    let mut short = name;
    for prefix in ["docker.io/", "library/", "localhost/"] {
        short = short.strip_prefix(prefix).unwrap_or(short);
    }
    let tagged = short.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { short.to_owned() } else { format!("{short}:latest") }
}
