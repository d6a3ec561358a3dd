//! Reboots the host through logind.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::proxy::CacheProperties;

use super::manager::{SYSTEMD, Systemd};
use crate::update::reboot::{Host, RebootError, read_boot_id};

const LOGIND: &str = "org.freedesktop.login1";

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Login {
    fn reboot(&self, interactive: bool) -> zbus::Result<()>;
}

/// A host that logind reboots, or systemd where no logind is installed.
#[derive(Debug, Clone)]
pub struct LogindHost {
    connection: Connection,
    boot_id: PathBuf,
}

impl LogindHost {
    /// A host whose services are on this bus and whose boot id is in the file `boot_id`, usually
    /// [`crate::update::reboot::BOOT_ID_PATH`].
    pub fn new(connection: Connection, boot_id: impl Into<PathBuf>) -> Self {
        Self { connection, boot_id: boot_id.into() }
    }

    async fn ask(&self) -> Result<(), RebootError> {
        let Err(error) = self.ask_logind().await else { return Ok(()) };
        // Not from the error: whether logind is not installed, masked or does not start, each has one of its own.
        if self.has_logind().await {
            return Err(refused(LOGIND, &error));
        }
        tracing::info!(%error, "logind is not there, asking systemd for the reboot");
        self.ask_systemd().await.map_err(|error| refused(SYSTEMD, &error))
    }

    async fn has_logind(&self) -> bool {
        let asked = async { DBusProxy::new(&self.connection).await?.name_has_owner(LOGIND.try_into()?).await };
        asked.await.unwrap_or(true)
    }

    /// No interaction: nobody sits before this machine who could answer a prompt.
    async fn ask_logind(&self) -> zbus::Result<()> {
        let login = LoginProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await?;
        login.reboot(false).await
    }

    /// `Manager.Reboot` of systemd would not stop the services first; starting this target does, and it is what
    /// `systemctl reboot` does without logind.
    async fn ask_systemd(&self) -> zbus::Result<()> {
        Systemd::new(self.connection.clone()).await?.start("reboot.target", "replace-irreversibly").await
    }
}

fn refused(service: &str, error: &zbus::Error) -> RebootError {
    RebootError::Refused { service: service.to_owned(), reason: error.to_string() }
}

impl Host for LogindHost {
    fn boot_id(&self) -> Result<String, RebootError> {
        read_boot_id(&self.boot_id)
    }

    fn reboot(&self) -> BoxFuture<'_, Result<(), RebootError>> {
        Box::pin(self.ask())
    }
}
