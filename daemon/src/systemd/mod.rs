//! Adapters to systemd over its D-Bus API.
//!
//! [`transient`] makes each call of an Interface program a unit of its own, [`logind`] reboots the host. Nothing here
//! is needed where another init system runs: the domains know only the traits that are implemented here.

pub mod logind;
mod manager;
mod signals;
pub mod transient;

use std::path::Path;
use std::time::Duration;

use zbus::Connection;

use self::manager::Systemd;

/// What systemd itself checks to tell whether it is the init system (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
/// PID 1 answers at once or something is badly wrong with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether systemd is the init system of this machine and answers on this bus.
///
/// On a private bus it does not, and then calls must be made as plain processes.
pub async fn available(connection: &Connection) -> bool {
    if !Path::new(BOOTED).is_dir() {
        return false;
    }
    let version = async { Systemd::new(connection.clone()).await?.version().await };
    match tokio::time::timeout(PATIENCE, version).await {
        Ok(Ok(version)) => {
            tracing::debug!(version, "systemd answers");
            true
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "systemd does not answer");
            false
        }
        Err(_elapsed) => {
            tracing::warn!("systemd does not answer within {} s", PATIENCE.as_secs());
            false
        }
    }
}
