//! The lease of a NIC on disk, so that a daemon that starts again knows it.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::machine::Held;
use crate::core::error::Error;
use crate::core::store;
use crate::network::address::Mac;

/// Bytes that such a file may have.
const SIZE_LIMIT: u64 = 64 << 10;
/// A lease of which nothing but its time changed is written again after this time; flash wears out.
const TIMES_AFTER: Duration = Duration::from_mins(1);

/// Time since the host was started, suspended or not.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Time of the world, as far as the host knows it.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What is in the file. The time is there twice: that of the host does not jump, and that of the world goes on while the
/// host is off.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    mac: String,
    boot: String,
    since_boot: u64,
    since_epoch: u64,
    lease: Lease,
}

/// What is known of a lease of before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// It holds, by the clock of this boot.
    Holds(Held),
    /// It was granted before the host was started, and its time may not be over.
    MayHold(Lease),
    /// It has ended.
    Over(Lease),
}

/// The file of one NIC.
#[derive(Debug, Clone)]
pub struct Record {
    path: PathBuf,
    mac: Mac,
    written: Option<Held>,
}

impl Record {
    /// The record in this file, for a NIC with this address.
    pub fn new(path: PathBuf, mac: Mac) -> Self {
        Self { path, mac, written: None }
    }

    /// Reads the lease of before. One that cannot be read, or is that of another hardware address, is none.
    pub fn load(&mut self) -> Option<Remembered> {
        let bytes = match store::read(&self.path, SIZE_LIMIT) {
            Ok(bytes) => bytes?,
            Err(error) => {
                tracing::warn!("A lease is not known any more. {}", Error::from(error));
                return None;
            }
        };
        let kept: Kept = match serde_json::from_slice(&bytes) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(
                    "A lease is not known any more; the file \"{}\" is damaged: {error}.",
                    self.path.display()
                );
                return None;
            }
        };
        if kept.mac != self.mac.to_string() {
            return None;
        }
        let held = Held { lease: kept.lease, since: Duration::from_millis(kept.since_boot) };
        let over = |since: u64, now: Duration| {
            held.lease
                .seconds
                .is_some_and(|seconds| Duration::from_millis(since) + Duration::from_secs(seconds.into()) <= now)
        };
        if kept.boot == boot() {
            if over(kept.since_boot, since_boot()) {
                return Some(Remembered::Over(held.lease));
            }
            self.written = Some(held.clone());
            return Some(Remembered::Holds(held));
        }
        let over = over(kept.since_epoch, since_epoch());
        Some(if over { Remembered::Over(held.lease) } else { Remembered::MayHold(held.lease) })
    }

    /// Writes a lease down, durably. Blocks on the disk.
    pub fn keep(&mut self, held: &Held) -> Result<(), Error> {
        let fresh = self.written.as_ref().is_some_and(|written| {
            written.lease == held.lease && held.since.saturating_sub(written.since) < TIMES_AFTER
        });
        if fresh {
            return Ok(());
        }
        let age = since_boot().saturating_sub(held.since);
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let kept = Kept {
            mac: self.mac.to_string(),
            boot: boot(),
            since_boot: milliseconds(held.since),
            since_epoch: milliseconds(since_epoch().saturating_sub(age)),
            lease: held.lease.clone(),
        };
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| {
            Error::new(crate::core::error::Kind::Storage, format!("A lease cannot be written: {error}."))
        })?;
        if let Some(directory) = self.path.parent() {
            store::make_directory(directory)?;
        }
        store::replace(&self.path, &text)?;
        self.written = Some(held.clone());
        Ok(())
    }

    /// Forgets the lease.
    pub fn forget(&mut self) -> Result<(), Error> {
        self.written = None;
        Ok(store::remove_file(&self.path)?)
    }
}

/// Tells one run of the host from the next.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
