//! What is asked of the daemon of a System.

use std::process::{Output, Stdio};
use std::time::Instant;

use orchestratord_dbus::{ErrorPair, JobProxy, Options, UpdateProxy, error_reply, job};
use zbus::proxy::CacheProperties;

use super::{Outcome, PATIENCE, System, pause};
use crate::binary;

impl System {
    /// `Update` of the daemon; properties are asked for at each read.
    pub async fn update(&self) -> UpdateProxy<'static> {
        UpdateProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await.expect("a proxy")
    }

    /// Installs a release and waits for the end of the Job.
    pub async fn install(&self, release: u32, options: Options<'_>) -> Result<Outcome, ErrorPair> {
        let job = self.begin(release, options).await?;
        Ok(outcome(&job).await)
    }

    /// Begins to install a release.
    pub async fn begin(&self, release: u32, options: Options<'_>) -> Result<JobProxy<'static>, ErrorPair> {
        self.begin_text(&self.manifest(release), options).await
    }

    /// Begins to install this Manifest.
    pub async fn begin_text(&self, manifest: &str, options: Options<'_>) -> Result<JobProxy<'static>, ErrorPair> {
        let path = self.update().await.install(manifest, options).await.map_err(|error| refusal(&error))?;
        Ok(job(&self.connection, path).await.expect("a proxy"))
    }

    /// Resumes and waits for the end of the Job.
    pub async fn resume(&self, options: Options<'_>) -> Result<Outcome, ErrorPair> {
        let path = self.update().await.resume(options).await.map_err(|error| refusal(&error))?;
        Ok(outcome(&job(&self.connection, path).await.expect("a proxy")).await)
    }

    /// Rolls back and waits for the end of the Job.
    pub async fn rollback(&self, options: Options<'_>) -> Result<Outcome, ErrorPair> {
        let path = self.update().await.rollback(options).await.map_err(|error| refusal(&error))?;
        Ok(outcome(&job(&self.connection, path).await.expect("a proxy")).await)
    }

    /// Waits until no Job works on a deployment; returns `Update.State`.
    pub async fn wait_for_rest(&self) -> String {
        let update = self.update().await;
        let begun = Instant::now();
        loop {
            let state = update.state().await.expect("the state");
            if state != "busy" {
                return state;
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon stays busy:\n{}", self.log());
            pause().await;
        }
    }

    /// Waits until something is so.
    pub async fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            let lines = self.lines().join("\n");
            assert!(begun.elapsed() < PATIENCE, "it does not happen that {what}:\n{lines}\n{}", self.log());
            pause().await;
        }
    }

    /// Waits until a Component was called with this word.
    pub async fn wait_for_call(&self, instance: &str, word: &str) {
        let begin = format!("begin {instance} {word} ");
        let called = || self.lines().iter().any(|line| line.starts_with(&begin));
        self.wait_until(&format!("{instance} is called with {word}"), called).await;
    }

    /// Runs `mender-orchestrator` to its end.
    pub async fn mender(&self, arguments: &[&str]) -> Output {
        let output = self.ctl("mender-orchestrator", arguments).output();
        let output = tokio::time::timeout(PATIENCE, output).await;
        output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).expect("the command line")
    }

    /// A command that runs our command line under this name.
    pub fn ctl(&self, name: &str, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(binary("orchestratorctl"));
        command
            .arg0(name)
            .args(arguments)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address())
            .current_dir(self.path("releases"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// Waits for the end of a Job.
pub async fn outcome(job: &JobProxy<'_>) -> Outcome {
    let result = tokio::time::timeout(PATIENCE, job.wait()).await.expect("a Job that ends");
    let result = result.expect("the result of the Job");
    let error = job.error().await.expect("the error of the Job");
    Outcome { result, error: Some(error).filter(|(name, message)| !name.is_empty() || !message.is_empty()) }
}

/// Options with `stop-before`.
pub fn stop_before<'a>(points: &[&'a str]) -> Options<'a> {
    Options::from([("stop-before", points.to_vec().into())])
}

/// Options that leave the reboot to the caller.
pub fn deferred() -> Options<'static> {
    Options::from([("reboot", "defer".into())])
}

fn refusal(error: &zbus::Error) -> ErrorPair {
    error_reply(error).unwrap_or_else(|| panic!("no error of the daemon: {error}"))
}
