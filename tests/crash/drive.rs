//! Drives a deployment as a person, or the update module on behalf of the Mender client, would; whatever happens.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use orchestratord_dbus::{JobProxy, Options, UpdateProxy, job};
use zbus::proxy::CacheProperties;

use crate::bed::{Bed, PATIENCE};
use crate::disturbance::Disturbance;
use crate::scenario::{Flow, Scenario};

/// What a call told its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The Job ended: its result, and the message of its error.
    Ended(String, Option<String>),
    /// The call was refused: name of the error.
    Refused(String),
    /// The daemon left, or the machine.
    Gone,
}

impl Told {
    /// The exit status of `mender-orchestrator`.
    pub fn status(&self) -> u8 {
        match self {
            Self::Ended(result, _) if result == "reboot-required" => 4,
            Self::Ended(_, Some(_)) | Self::Refused(_) | Self::Gone => 1,
            Self::Ended(result, None) if matches!(result.as_str(), "inconsistent" | "cancelled" | "") => 1,
            Self::Ended(..) => 0,
        }
    }
}

/// A call on the deployment.
#[derive(Debug, Clone, Copy)]
pub enum Verb {
    Install(u8),
    Resume,
    Rollback,
}

const EVERYWHERE: [&str; 3] = ["ArtifactCommit", "ArtifactRollback", "Cleanup"];

/// A run: the machine, the one who drives, and what was told.
pub struct Run<'b> {
    pub bed: &'b mut Bed,
    scenario: Scenario,
    /// Every answer, with the call it answered.
    pub told: Vec<(String, Told)>,
    lossy: bool,
    reboots_seen: usize,
    /// The update module has told the Mender client that the deployment is committed (true) or rolled back (false).
    pub claimed: Option<bool>,
}

impl<'b> Run<'b> {
    /// A System as it was, and a daemon that will be disturbed once the first call is made.
    pub async fn begin(bed: &'b mut Bed, scenario: Scenario, disturbance: Disturbance) -> Result<Self> {
        bed.reset(&scenario, disturbance)?;
        bed.start(false).await?;
        let lossy = matches!(disturbance, Disturbance::PowerCut(_));
        let run = Self { bed, scenario, told: Vec::new(), lossy, reboots_seen: 0, claimed: None };
        run.settled().await?;
        Ok(run)
    }

    /// The same from where a machine stands that is switched on.
    pub async fn take_up(bed: &'b mut Bed, scenario: Scenario) -> Result<Self> {
        let run = Self { bed, scenario, told: Vec::new(), lossy: false, reboots_seen: 0, claimed: None };
        run.settled().await?;
        Ok(run)
    }

    async fn update(&self) -> Result<UpdateProxy<'static>> {
        Ok(UpdateProxy::builder(&self.bed.connection).cache_properties(CacheProperties::No).build().await?)
    }

    /// A property of the daemon.
    pub async fn state(&self) -> Result<String> {
        Ok(self.update().await?.state().await?)
    }

    /// Waits until nothing works on a deployment and no query runs. The daemon has to be there.
    async fn settled(&self) -> Result<()> {
        let begun = Instant::now();
        while self.state().await? == "busy" {
            ensure!(begun.elapsed() < PATIENCE, "the daemon stays busy: {:?}", self.bed.log().last());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Makes a call and waits for the end of its Job, or for the end of the daemon, or for a reboot of the host.
    pub async fn call(&mut self, verb: Verb, stops: &[&str], defer: bool) -> Result<Told> {
        let name = format!("{verb:?}");
        self.bed.note(&format!("client {name}"));
        let manifest = match verb {
            Verb::Install(0) => "nonsense".to_owned(),
            Verb::Install(release) => self.bed.manifest(&self.scenario, release),
            _ => String::new(),
        };
        let update = self.update().await?;
        let connection = self.bed.connection.clone();
        let cancels = self.scenario.flow == Flow::Cancelled && matches!(verb, Verb::Install(2));
        let work = async {
            let mut options = Options::from([("stop-before", stops.to_vec().into())]);
            options.insert("reboot", if defer { "defer" } else { "auto" }.into());
            let path = match verb {
                Verb::Install(_) => update.install(&manifest, options).await,
                Verb::Resume => update.resume(options).await,
                Verb::Rollback => update.rollback(options).await,
            };
            let job = job(&connection, path?).await?;
            if cancels {
                cancel(&job).await?;
            }
            let result = job.wait().await?;
            let error = match job.error().await {
                Ok((name, _)) if name.is_empty() => None,
                Ok((_, message)) => Some(message),
                Err(_) if result == "done" => None,
                Err(error) => return Err(error),
            };
            Ok::<_, zbus::Error>(Told::Ended(result, error))
        };
        let told = {
            let bed = &*self.bed;
            let seen = self.reboots_seen;
            tokio::select! {
                told = work => told,
                () = reboot_asked(bed, seen) => Ok(Told::Gone),
                () = tokio::time::sleep(PATIENCE) => bail!("{name} does not end: {:?}", bed.log().last()),
            }
        };
        let told = match told {
            Ok(told) => told,
            Err(error) => match orchestratord_dbus::error_reply(&error) {
                Some((name, _))
                    if name.starts_with("org.freedesktop.DBus.Error.") && !name.ends_with("InvalidArgs") =>
                {
                    Told::Gone
                }
                Some((name, _)) => Told::Refused(name),
                None => bail!("{name}: {error}"),
            },
        };
        self.told.push((name, told.clone()));
        Ok(told)
    }

    /// After a call: a daemon that died is started again, a host that was asked to reboot does so.
    async fn revive(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            ensure!(begun.elapsed() < PATIENCE, "no end of reboots");
            if self.bed.daemon().is_terminated() {
                self.bed.daemon().wait_gone();
            }
            // A reboot that was asked for is done by the host, whatever became of the daemon.
            let asked = self.bed.reboots();
            if asked > self.reboots_seen {
                self.reboots_seen = asked;
                self.bed.reboot(false).await?;
            } else if self.bed.daemon().is_gone() {
                if self.lossy {
                    self.bed.reboot(true).await?;
                } else {
                    self.bed.restart_daemon().await?;
                }
                self.lossy = false;
            } else {
                return Ok(());
            }
        }
    }

    /// Waits until the daemon is there and works on nothing; what has to be started again is. Returns its state.
    async fn calm(&mut self) -> Result<String> {
        let begun = Instant::now();
        loop {
            self.revive().await?;
            ensure!(begun.elapsed() < PATIENCE, "the daemon stays busy: {:?}", self.bed.log().last());
            match self.state().await {
                Ok(state) if state != "busy" => return Ok(state),
                Ok(_) => tokio::time::sleep(Duration::from_millis(3)).await,
                // It died this very moment.
                Err(_) => self.bed.daemon().wait_gone(),
            }
        }
    }

    /// A call as a program makes it, after which the machine is there again. `None`: the machine went down meanwhile.
    async fn command(&mut self, verb: Verb, stops: &[&str], defer: bool) -> Result<Option<u8>> {
        let power = self.lossy;
        let reboots = self.reboots_seen;
        let told = self.call(verb, stops, defer).await?;
        if told == Told::Gone {
            // The daemon's death may become known through the bus first.
            let begun = Instant::now();
            while !self.bed.daemon().is_gone() && self.bed.reboots() == self.reboots_seen {
                ensure!(begun.elapsed() < PATIENCE, "the call was lost, but the daemon lives");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        self.revive().await?;
        let down = (power && !self.lossy) || self.reboots_seen > reboots;
        Ok((!down).then(|| told.status()))
    }

    /// Drives the deployment to its end.
    pub async fn drive(&mut self) -> Result<()> {
        match self.scenario.flow {
            Flow::Operator | Flow::Cancelled => {
                self.command(Verb::Install(2), &[], false).await?;
                self.calm().await?;
            }
            Flow::Module => self.module(2).await?,
            Flow::Refused => self.module(0).await?,
            Flow::TakenBack(stop) => {
                self.command(Verb::Install(2), &[stop], false).await?;
                self.calm().await?;
                // Whoever got no answer asks again.
                for _ in 0..5 {
                    self.command(Verb::Rollback, &[], false).await?;
                    self.calm().await?;
                    if self.told.last().is_none_or(|(_, told)| *told != Told::Gone) {
                        break;
                    }
                }
            }
        }
        self.finish().await
    }

    /// The way of the Mender client through the update module; see the table in the description of that module.
    async fn module(&mut self, release: u8) -> Result<()> {
        let mut rolls_back = match self.command(Verb::Install(release), &EVERYWHERE, true).await? {
            Some(0) => false,
            Some(4) => {
                self.bed.reboot(false).await?;
                false
            }
            // Also after a reboot that nobody asked for.
            _ => true,
        };
        if !rolls_back {
            rolls_back = self.command(Verb::Resume, &["ArtifactRollback", "Cleanup"], false).await? != Some(0);
            if !rolls_back {
                self.claimed = Some(true);
            }
        }
        if rolls_back {
            // After a crash of the machine the client calls the state again.
            for _ in 0..5 {
                match self.command(Verb::Rollback, &["Cleanup"], true).await? {
                    Some(4) => {
                        self.bed.reboot(false).await?;
                        break;
                    }
                    Some(0) => {
                        self.claimed = Some(false);
                        break;
                    }
                    Some(_) => break,
                    None => {}
                }
            }
        }
        for _ in 0..5 {
            if self.command(Verb::Resume, &[], false).await?.is_some() {
                break;
            }
        }
        self.calm().await?;
        Ok(())
    }

    /// A person looks: what is open is resumed, what was not told is asked for.
    pub async fn finish(&mut self) -> Result<()> {
        for _ in 0..5 {
            let state = self.calm().await?;
            if state == "reboot-required" {
                self.bed.reboot(false).await?;
            }
            let status = self.command(Verb::Resume, &[], false).await?;
            // A daemon that has just come to the bus may say "idle" before it has looked at its record.
            let was_lost = self.told.last().is_some_and(|(_, told)| *told == Told::Gone);
            if state == "idle" && !was_lost && status != Some(4) {
                break;
            }
        }
        self.calm().await?;
        self.bed.disarm();
        // The last point may have been met just now.
        self.calm().await?;
        Ok(())
    }

    /// The medium works again, the daemon starts anew, and somebody looks after it.
    pub async fn mend(&mut self) -> Result<()> {
        self.bed.note("mended");
        self.bed.daemon().lift();
        self.bed.daemon().kill_daemon();
        self.finish().await
    }

    /// Mends everything that was made to fail and installs another release.
    pub async fn install_afresh(&mut self) -> Result<()> {
        self.bed.note("fresh");
        for part in self.scenario.parts {
            let home = self.bed.path("system").join(part.name);
            for (name, _) in part.switches {
                match std::fs::remove_file(home.join(name)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            std::fs::write(home.join("needs-reboot"), "No\n")?;
            std::fs::write(home.join("supports-rollback"), "Yes\n")?;
        }
        let told = self.call(Verb::Install(3), &[], false).await?;
        ensure!(told == Told::Ended("done".to_owned(), None), "a fresh install afterwards: {told:?}");
        Ok(())
    }

    /// What the daemon says about itself: `LastError`, and the state of the whole.
    pub async fn says(&self) -> Result<(String, String)> {
        let manager = orchestratord_dbus::ManagerProxy::builder(&self.bed.connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok((self.update().await?.last_error().await?.0, manager.state().await?))
    }
}

async fn cancel(job: &JobProxy<'_>) -> zbus::Result<()> {
    match job.cancel().await {
        // It is too late for that; then the deployment goes its way.
        Err(error)
            if orchestratord_dbus::error_reply(&error).is_some_and(|(name, _)| name.ends_with("NotSupported")) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Returns when the host is asked to reboot once more.
async fn reboot_asked(bed: &Bed, seen: usize) {
    while bed.reboots() == seen {
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
