//! The figures of the last 48 hours.

use std::time::Duration;

use super::Figures;
use crate::core::history;

/// Time between two samples.
pub const PERIOD: Duration = Duration::from_secs(5);
/// Samples that are kept: 48 hours of them.
pub const SAMPLES: usize = 48 * 3600 / 5;

/// What is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Share of all processors that was busy.
    Cpu,
    /// Share of the memory in use.
    Memory,
    /// Share of the disks in use.
    Disk,
    /// Load average over one minute.
    Load,
    /// Highest temperature in degrees Celsius.
    Temperature,
    /// Share of the time in which work waited for a processor.
    PressureCpu,
    /// The same for memory.
    PressureMemory,
    /// The same for disks.
    PressureIo,
}

impl Metric {
    /// Every metric, in the order of a sample.
    pub const ALL: [Self; 8] = [
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Load,
        Self::Temperature,
        Self::PressureCpu,
        Self::PressureMemory,
        Self::PressureIo,
    ];

    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Load => "load",
            Self::Temperature => "temperature",
            Self::PressureCpu => "pressure-cpu",
            Self::PressureMemory => "pressure-memory",
            Self::PressureIo => "pressure-io",
        }
    }

    /// Its place in a sample.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|metric| *metric == self).unwrap_or_default()
    }

    /// The metric with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == name)
    }
}

/// A sample of every metric.
pub type Sample = history::Sample<{ Metric::ALL.len() }>;
/// The ring of them.
pub type History = history::History<{ Metric::ALL.len() }>;

/// These figures at this time, in seconds since 1970.
pub fn sample(time: u64, figures: &Figures) -> Sample {
    Sample::new(time, Metric::ALL.map(|metric| value(metric, figures)))
}

fn value(metric: Metric, figures: &Figures) -> f64 {
    let pressure = |name| figures.pressure.get(name).copied().unwrap_or(f64::NAN);
    match metric {
        Metric::Cpu => figures.cpu,
        Metric::Memory => share(figures.memory_used, figures.memory_total),
        Metric::Disk => share(figures.disk_used, figures.disk_total),
        Metric::Load => figures.load.0,
        Metric::Temperature => figures.temperature.unwrap_or(f64::NAN),
        Metric::PressureCpu => pressure("cpu-some"),
        Metric::PressureMemory => pressure("memory-some"),
        Metric::PressureIo => pressure("io-some"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share of bytes needs no more digits than a float has")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { f64::NAN } else { part as f64 / whole as f64 }
}
