//! Requests that move a deployment: sent, followed, and told about.

use orchestratord_dbus::Options;
use serde_json::json;

use crate::PROGRAM;
use crate::args::RunArguments;
use crate::client::Client;
use crate::failure::{Failure, SUCCESS};
use crate::follow::{self, Order, Outcome, Point, Stage};
use crate::interrupt::Interrupt;
use crate::output::{complain, printable, show};
use crate::progress;
use crate::view::job_number;

/// A request that moves a deployment.
pub enum Request<'a> {
    /// Install this Manifest.
    Install(&'a str, Options<'a>),
    /// Go on.
    Resume(Options<'a>),
    /// Go back.
    Rollback(Options<'a>),
}

impl Request<'_> {
    /// The kind of Job it makes.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Install(..) => "install",
            Self::Resume(_) => "resume",
            Self::Rollback(_) => "rollback",
        }
    }

    /// Sends it; returns the Job.
    pub async fn send(self, client: &Client) -> Result<zbus::OwnedObjectPath, Failure> {
        let update = client.update().await?;
        let sent = match self {
            Self::Install(manifest, options) => update.install(manifest, options).await,
            Self::Resume(options) => update.resume(options).await,
            Self::Rollback(options) => update.rollback(options).await,
        };
        sent.map_err(|error| Failure::from_bus(&error))
    }
}

/// Sends the request and follows its Job, as the arguments want it; returns the exit code.
pub async fn run(run: &RunArguments, json: bool, request: Request<'_>) -> Result<u8, Failure> {
    let mut interrupt = Interrupt::new()?;
    let stage = Stage::default();
    let work = async {
        let client = Client::connect().await?;
        if run.detach {
            let job = request.send(&client).await?;
            let path = job.as_str();
            show(json, &json!({ "id": job_number(path), "path": path }), || format!("{path}\n"))?;
            return Ok(SUCCESS);
        }
        let mut reporter = progress::reporter(run.verbose);
        // Whoever watches from elsewhere is cut off by the reboot, so it is better to say so than to wait for it.
        let order = Order { kind: request.kind(), deferred: run.defer_reboot, waits_for_reboot: None };
        let outcome = follow::run(&client, order, || request.send(&client), reporter.as_mut(), &stage).await?;
        drop(reporter);
        tell(&outcome, json);
        Ok(outcome.exit_code)
    };
    tokio::select! {
        biased;
        signal = interrupt.wait() => {
            complain(PROGRAM, &interrupted(&stage));
            Ok(signal)
        }
        outcome = work => outcome,
    }
}

/// What it means that somebody stopped watching.
pub fn interrupted(stage: &Stage) -> String {
    match stage.point() {
        Point::Begun => "Interrupted before anything was asked of orchestratord.".to_owned(),
        Point::Sent => "Interrupted. If orchestratord has accepted the request, the deployment goes on; \
                        \"orchestratorctl status\" shows it."
            .to_owned(),
        Point::Job(job) => format!(
            "Interrupted. Job {job} goes on in orchestratord; \"orchestratorctl watch\" follows it and \"orchestratorctl \
             status\" shows how it stands."
        ),
        Point::Away(job) => format!(
            "Interrupted while orchestratord was away. It goes on with what Job {job} began as soon as it is back; \
             \"orchestratorctl status\" shows how it stands."
        ),
        Point::Rebooting => "Interrupted while orchestratord reboots the host. The deployment goes on by itself \
                             afterwards; \"orchestratorctl status\" shows how it stands."
            .to_owned(),
    }
}

fn tell(outcome: &Outcome, json: bool) {
    if let Some(error) = &outcome.job.error {
        complain(PROGRAM, &error.message);
    }
    let told = show(json, outcome, || format!("{}\n", printable(&summary(outcome))));
    // The exit code is about the deployment, whether or not the rest can be written.
    match told {
        Ok(()) | Err(Failure::BrokenPipe) => {}
        Err(failure) => complain(PROGRAM, &failure.to_string()),
    }
}

/// How a Job ended, in one sentence.
pub fn summary(outcome: &Outcome) -> String {
    let job = &outcome.job;
    let update = outcome.update.as_ref();
    let manifest = update.map(|update| update.manifest.as_str()).filter(|name| !name.is_empty());
    let manifest = manifest.map_or_else(|| "the Manifest".to_owned(), |name| format!("\"{name}\""));
    match job.result.as_str() {
        "done" if outcome.kind == "install" && outcome.untouched => {
            format!("Nothing to do: the System already is what {manifest} describes.")
        }
        "done" => match outcome.kind {
            "install" => format!("Installed {manifest}."),
            "rollback" => "The rollback is done.".to_owned(),
            _ => format!("The deployment of {manifest} is done."),
        },
        "stopped" => match update.map(|update| update.stopped_before.as_str()) {
            Some(state) if !state.is_empty() => {
                format!("Stopped before {state}; the deployment can be resumed or rolled back.")
            }
            _ => "Stopped.".to_owned(),
        },
        "rolled-back" => "The System is back in its former state.".to_owned(),
        "reboot-required" if outcome.reboots => {
            "orchestratord reboots the host; the deployment goes on by itself afterwards.".to_owned()
        }
        "reboot-required" => "The host has to be rebooted; resume the deployment afterwards.".to_owned(),
        "cancelled" => "The deployment was cancelled.".to_owned(),
        "inconsistent" => "The System is inconsistent: neither in its former state nor in the new one.".to_owned(),
        "failed" if job.error.is_none() => "The failed deployment is closed.".to_owned(),
        "failed" => format!("The {} failed.", outcome.kind),
        other => format!("Job {} ended with the result \"{other}\".", job.id),
    }
}
