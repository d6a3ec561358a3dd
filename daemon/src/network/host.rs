//! How the host is: processor, memory, disks, temperature, load and pressure, now and, if wanted, over the last days.
//!
//! Figures are read when somebody asks. Only the history needs a timer, so it is off unless it is configured.

pub mod history;
pub mod metrics;
pub mod socket;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sysinfo::{Components, Disks, System};
use tokio_util::sync::CancellationToken;

use self::history::{History, Metric, PERIOD, SAMPLES, sample};
use crate::core::history::Point;
use crate::core::open_metrics::{OpenMetrics, Source};

/// A reading serves everybody who asks within this time.
const FRESH: Duration = Duration::from_secs(1);
/// How long a reading may take: a file system whose server is gone may never answer.
const LIMIT: Duration = Duration::from_secs(3);
/// File systems that are full by nature.
const READ_ONLY: [&str; 5] = ["squashfs", "erofs", "iso9660", "cramfs", "udf"];
/// What the kernel knows the pressure of, and for whom.
const PRESSURES: [(&str, &str, &str); 5] = [
    ("cpu-some", "cpu", "some"),
    ("memory-some", "memory", "some"),
    ("memory-full", "memory", "full"),
    ("io-some", "io", "some"),
    ("io-full", "io", "full"),
];

/// How the host is at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Share of all processors that was busy since the reading before, 0 to 1.
    pub cpu: f64,
    /// Bytes of memory that cannot be had without swapping.
    pub memory_used: u64,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes used on all writable disks, each device counted once.
    pub disk_used: u64,
    /// Bytes of these disks.
    pub disk_total: u64,
    /// Seconds since the host started.
    pub uptime: u64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: (f64, f64, f64),
    /// Highest temperature of all sensors in degrees Celsius; none without sensors.
    pub temperature: Option<f64>,
    /// Pressure stall information: share of the last 10 s in which work waited, 0 to 1, by `cpu-some`, `memory-some`,
    /// `memory-full`, `io-some`, `io-full`; without those that the kernel does not tell.
    pub pressure: BTreeMap<&'static str, f64>,
}

/// What reads the figures; keeps what a difference needs.
#[derive(Debug)]
struct Reader {
    system: System,
}

impl Reader {
    fn new() -> Self {
        let mut system = System::new();
        // A share is a difference; this is where the first one starts.
        system.refresh_cpu_usage();
        Self { system }
    }

    fn read(&mut self) -> Figures {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        let load = System::load_average();
        let (disk_used, disk_total) = disks();
        Figures {
            cpu: f64::from(self.system.global_cpu_usage()) / 100.0,
            memory_used: self.system.total_memory().saturating_sub(self.system.available_memory()),
            memory_total: self.system.total_memory(),
            disk_used,
            disk_total,
            uptime: System::uptime(),
            load: (load.one, load.five, load.fifteen),
            temperature: temperature(),
            pressure: pressure(),
        }
    }
}

fn temperature() -> Option<f64> {
    let components = Components::new_with_refreshed_list();
    components
        .iter()
        .filter_map(sysinfo::Component::temperature)
        .map(f64::from)
        .filter(|t| t.is_finite())
        .reduce(f64::max)
}

/// Used and total bytes of all writable disks.
fn disks() -> (u64, u64) {
    let disks = Disks::new_with_refreshed_list();
    let mounts = disks.iter().map(|disk| Mount {
        device: disk.name().to_string_lossy().into_owned(),
        file_system: disk.file_system().to_string_lossy().into_owned(),
        total: disk.total_space(),
        available: disk.available_space(),
    });
    sum(&mounts.collect::<Vec<_>>())
}

/// A mounted file system.
#[derive(Debug, Clone)]
struct Mount {
    device: String,
    file_system: String,
    total: u64,
    available: u64,
}

/// Counts each device once. An overlay has no device of its own and the figures of its writable layer: it counts if no
/// mounted device has the same ones.
fn sum(mounts: &[Mount]) -> (u64, u64) {
    let writable = || mounts.iter().filter(|mount| mount.total > 0 && !READ_ONLY.contains(&mount.file_system.as_str()));
    let mut devices = BTreeSet::new();
    let mut figures = BTreeSet::new();
    let mut counted = (0_u64, 0_u64);
    let is_overlay = |mount: &Mount| mount.file_system == "overlay";
    for mount in writable().filter(|mount| !is_overlay(mount)).chain(writable().filter(|mount| is_overlay(mount))) {
        let new = if is_overlay(mount) {
            !figures.contains(&(mount.total, mount.available))
        } else {
            devices.insert(&mount.device)
        };
        figures.insert((mount.total, mount.available));
        if new {
            counted.0 = counted.0.saturating_add(mount.total.saturating_sub(mount.available));
            counted.1 = counted.1.saturating_add(mount.total);
        }
    }
    counted
}

fn pressure() -> BTreeMap<&'static str, f64> {
    let read = |(name, resource, who): &(&'static str, &str, &str)| {
        let text = fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?;
        Some((*name, stalled(&text, who)?))
    };
    PRESSURES.iter().filter_map(read).collect()
}

/// The share of the last 10 s in a file of `/proc/pressure`.
fn stalled(text: &str, who: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(who)?.strip_prefix(' '))?;
    let percent: f64 = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    Some(percent / 100.0)
}

/// The last figures, and when they were read.
#[derive(Debug)]
struct Last {
    figures: Figures,
    read: Option<Instant>,
}

/// The door to the figures of the host; clones show the same host.
#[derive(Debug, Clone)]
pub struct Host {
    reader: Arc<Mutex<Reader>>,
    last: Arc<Mutex<Last>>,
    history: Option<Arc<Mutex<History>>>,
    others: Arc<OnceLock<Arc<dyn Source>>>,
}

impl Host {
    /// The host of this process; `history` tells whether [`Host::record`] will be driven.
    pub fn new(history: bool) -> Self {
        let mut reader = Reader::new();
        let last = Last { figures: reader.read(), read: None };
        let history = history.then(|| Arc::new(Mutex::new(History::new(SAMPLES))));
        Self { reader: Arc::new(Mutex::new(reader)), last: Arc::new(Mutex::new(last)), history, others: Arc::default() }
    }

    /// How the host is now. If the figures cannot be had in time, they are those of the last time.
    pub async fn figures(&self) -> Figures {
        let last = self.last();
        if last.1.is_some_and(|read| read.elapsed() < FRESH) {
            return last.0;
        }
        let reader = self.reader.clone();
        // A reading that hangs holds the lock, and keeps others from hanging beside it.
        let reading = tokio::task::spawn_blocking(move || reader.try_lock().ok().map(|mut reader| reader.read()));
        match tokio::time::timeout(LIMIT, reading).await {
            Ok(Ok(Some(figures))) => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Last { figures: figures.clone(), read: Some(Instant::now()) };
                figures
            }
            _ => last.0,
        }
    }

    /// Whose figures come along in [`Host::metrics`]: those of what runs on the host. Only the first one is heard.
    pub fn show_along(&self, others: Arc<dyn Source>) {
        // An error means that there is one.
        drop(self.others.set(others));
    }

    /// All figures as `OpenMetrics` text.
    pub async fn metrics(&self) -> String {
        let mut text = OpenMetrics::default();
        metrics::describe(&self.figures().await, &mut text);
        if let Some(others) = self.others.get() {
            others.describe(&mut text).await;
        }
        text.finish()
    }

    fn last(&self) -> (Figures, Option<Instant>) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (last.figures.clone(), last.read)
    }

    /// Bytes of memory that the host has.
    pub fn memory_total(&self) -> u64 {
        self.last().0.memory_total
    }

    /// What was recorded of this metric since then (seconds since 1970), at most [`crate::core::history::POINTS`] points; nothing if
    /// no history is kept.
    pub fn history(&self, metric: Metric, since: u64) -> Vec<Point> {
        let Some(history) = &self.history else { return Vec::new() };
        history.lock().unwrap_or_else(PoisonError::into_inner).read(metric.index(), since)
    }

    /// Records the history, if one is wanted, until it is told to stop.
    pub async fn record(self, stop: CancellationToken) {
        let Some(history) = self.history.clone() else { return stop.cancelled().await };
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let sample = sample(now(), &self.figures().await);
            history.lock().unwrap_or_else(PoisonError::into_inner).add(sample);
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
