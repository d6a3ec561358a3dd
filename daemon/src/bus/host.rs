//! `org.orchestratord1.Host`: how the host is.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

use std::collections::BTreeMap;

use zbus::interface;

use super::Refusal;
use crate::core::error::{Error, Kind};
use crate::core::history::Point;
use crate::network::host;
use crate::network::host::history::Metric;

/// How the host is.
pub(super) struct Host {
    host: host::Host,
}

impl Host {
    pub(super) fn new(host: host::Host) -> Self {
        Self { host }
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// How the host is. Figures are read when they are asked for, at most once a second.
#[interface(name = "org.orchestratord1.Host")]
impl Host {
    /// What was recorded of a metric, a sample each 5 s for 48 hours. Empty unless the option HostHistory of the
    /// configuration is set.
    /// @metric: "cpu", "memory", "disk" (shares from 0 to 1), "load", "temperature" (degrees Celsius), "pressure-cpu",
    ///   "pressure-memory" or "pressure-io" (shares of the time in which work waited)
    /// @since: seconds since 1970
    /// @points: seconds since 1970 and the value; at most 1000, each the mean of the samples that fall together
    #[zbus(out_args("points"))]
    fn history(&self, metric: &str, since: u64) -> Result<Vec<Point>, Refusal> {
        let Some(metric) = Metric::named(metric) else {
            return Err(unknown_metric(metric, &Metric::ALL.map(Metric::as_str)));
        };
        Ok(self.host.history(metric, since))
    }

    /// All figures as OpenMetrics text, with those of the vPLCs.
    /// @text: the text
    #[zbus(out_args("text"))]
    async fn metrics(&self) -> String {
        self.host.metrics().await
    }

    /// Share of all processors that was busy since the reading before, 0 to 1.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn cpu_usage(&self) -> f64 {
        self.host.figures().await.cpu
    }

    /// Bytes of memory that cannot be had without swapping.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn memory_used(&self) -> u64 {
        self.host.figures().await.memory_used
    }

    /// Bytes of memory.
    #[zbus(property(emits_changed_signal = "const"))]
    fn memory_total(&self) -> u64 {
        self.host.memory_total()
    }

    /// Bytes used on all writable disks, each device counted once.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn disk_used(&self) -> u64 {
        self.host.figures().await.disk_used
    }

    /// Bytes of all writable disks, each device counted once.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn disk_total(&self) -> u64 {
        self.host.figures().await.disk_total
    }

    /// Seconds since the host started.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn uptime(&self) -> u64 {
        self.host.figures().await.uptime
    }

    /// Load averages over 1, 5 and 15 minutes.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn load_average(&self) -> (f64, f64, f64) {
        self.host.figures().await.load
    }

    /// Temperatures in degrees Celsius: the highest of all sensors as "highest"; empty without sensors.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn temperatures(&self) -> BTreeMap<String, f64> {
        self.host.figures().await.temperature.map(|highest| ("highest".to_owned(), highest)).into_iter().collect()
    }

    /// Share of the last 10 s in which work waited, 0 to 1, by "cpu-some", "memory-some", "memory-full", "io-some" and
    /// "io-full"; without those that the kernel does not tell.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn pressure(&self) -> BTreeMap<String, f64> {
        self.host.figures().await.pressure.into_iter().map(|(name, share)| (name.to_owned(), share)).collect()
    }
}

/// The answer to whoever asks for a metric that is not among these.
pub(super) fn unknown_metric(metric: &str, known: &[&str]) -> Refusal {
    let known: Vec<String> = known.iter().map(|metric| format!("\"{metric}\"")).collect();
    let name: String = metric.chars().take(64).collect();
    let message = format!("There is no metric \"{name}\"; known are {}.", known.join(", "));
    Error::new(Kind::InvalidArgs, message).into()
}
