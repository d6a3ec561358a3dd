//! The way to the vPLC, which lasts longer than the daemon: an update may restart it.

use std::time::Duration;

use orchestratord::core::error::Kind;
use orchestratord_dbus::VplcProxy;
use tokio::time::{Instant, sleep};
use zbus::OwnedObjectPath;

use crate::client::{Client, Properties, job_interface};
use crate::failure::Failure;
use crate::vplcs::{VplcView, vplcs};

/// Between two looks.
const PACE: Duration = Duration::from_millis(500);
/// How long a daemon that has left may be away.
const ABSENCE: Duration = Duration::from_mins(5);
/// How long a daemon may take to show its vPLCs.
const APPEARANCE: Duration = Duration::from_secs(10);
/// How long a vPLC may take to come to rest when no Job works on it.
const REST: Duration = Duration::from_mins(10);

/// What a caller of the daemon asks for, again if it has to.
pub(super) struct Desk {
    vplc: String,
}

impl Desk {
    pub(super) fn new(vplc: &str) -> Self {
        Self { vplc: vplc.to_owned() }
    }

    /// The vPLC as it is now.
    pub(super) async fn look(&self) -> Result<VplcView, Failure> {
        let client = Client::connect().await?;
        self.found(&client).await
    }

    async fn found(&self, client: &Client) -> Result<VplcView, Failure> {
        let found = vplcs(client.objects().await?).remove(&self.vplc);
        found.ok_or_else(|| Failure::new(Kind::UnknownVplc, format!("There is no vPLC \"{}\".", self.vplc)))
    }

    /// The vPLC when nothing is being done with it, whoever began that.
    pub(super) async fn settled(&self) -> Result<VplcView, Failure> {
        Ok(self.free().await?.1)
    }

    async fn free(&self) -> Result<(Client, VplcView), Failure> {
        let (mut away, mut restless) = (None::<Instant>, None::<Instant>);
        loop {
            match self.unoccupied().await {
                Ok(Some((client, vplc))) => {
                    let moving = ["unknown", "starting", "stopping"].contains(&vplc.container.as_str());
                    if !moving || restless.get_or_insert_with(Instant::now).elapsed() > REST {
                        return Ok((client, vplc));
                    }
                    away = None;
                }
                Ok(None) => (away, restless) = (None, None),
                Err(failure) => {
                    // A daemon that has just started may not show its vPLCs yet.
                    let unknown = failure.exit_code() == Kind::UnknownVplc.exit_code();
                    let patience = if unknown { APPEARANCE } else { ABSENCE };
                    let passing = unknown || failure.is_absence();
                    if !passing || away.get_or_insert_with(Instant::now).elapsed() > patience {
                        return Err(failure);
                    }
                }
            }
            sleep(PACE).await;
        }
    }

    /// None if there was a Job to wait for.
    async fn unoccupied(&self) -> Result<Option<(Client, VplcView)>, Failure> {
        let client = Client::connect().await?;
        let vplc = self.found(&client).await?;
        for (job, mut interfaces) in client.objects().await? {
            let Some(properties) = interfaces.remove(job_interface()).map(Properties::new) else { continue };
            let open = properties.text("State").is_some_and(|state| state != "done");
            if open && properties.path("Subject").as_ref() == Some(&vplc.path) {
                client.wait(job.as_str()).await?;
                return Ok(None);
            }
        }
        // As it is after the end of the last one.
        let vplc = self.found(&client).await?;
        Ok(Some((client, vplc)))
    }

    /// Has the vPLC do something when it is free, and waits for the end of the Job. How the vPLC is then is for the caller to look
    /// at, also after a success: if the daemon left in between, nobody knows.
    pub(super) async fn perform(
        &self,
        act: impl AsyncFn(&VplcProxy<'_>) -> zbus::Result<OwnedObjectPath>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + REST;
        loop {
            match self.attempt(&act).await {
                // Somebody was faster, or its runtime is just being claimed.
                Err(failure) if failure.exit_code() == Kind::Busy.exit_code() && Instant::now() < deadline => {
                    sleep(PACE).await;
                }
                Err(failure) if failure.is_absence() => return Ok(()),
                done => return done,
            }
        }
    }

    async fn attempt(
        &self,
        act: &impl AsyncFn(&VplcProxy<'_>) -> zbus::Result<OwnedObjectPath>,
    ) -> Result<(), Failure> {
        let (client, vplc) = self.free().await?;
        let proxy = client.vplc(vplc.path).await?;
        let job = act(&proxy).await.map_err(|error| Failure::from_bus(&error))?;
        let result = client.wait(job.as_str()).await?;
        if result == "done" {
            return Ok(());
        }
        let job = client.properties(job.as_str(), job_interface()).await?;
        let (name, message) = job.error("Error").unwrap_or_default();
        Err(Failure::from_error(&name, &format!("The Job ended with \"{result}\". {message}")))
    }

    /// Waits until the vPLC is as it has to be; false if it does not come to it.
    pub(super) async fn is_soon(&self, good: impl Fn(&VplcView) -> bool) -> Result<bool, Failure> {
        // The daemon looks at the PLC every 15 s.
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if good(&self.settled().await?) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(PACE).await;
        }
    }
}
