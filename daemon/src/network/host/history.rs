//! The figures of the last 48 hours, in memory: a ring of fixed size.

use std::collections::VecDeque;
use std::time::Duration;

use super::Figures;

/// Time between two samples.
pub const PERIOD: Duration = Duration::from_secs(5);
/// Samples that are kept: 48 hours of them.
pub const SAMPLES: usize = 48 * 3600 / 5;
/// Points that one reading gives at most; each is the mean of the samples that fall together.
pub const POINTS: usize = 1000;

/// Seconds since 1970, and the value.
pub type Point = (u64, f64);

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

    /// The metric with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == name)
    }
}

/// The figures at one moment; what was not to be had is no number.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Seconds since 1970; enough until 2106.
    time: u32,
    /// As single precision, which halves the size and is finer than the figures are.
    values: [f32; Metric::ALL.len()],
}

impl Sample {
    /// These figures at this time, in seconds since 1970.
    pub fn new(time: u64, figures: &Figures) -> Self {
        let values = Metric::ALL.map(|metric| single(value(metric, figures)));
        Self { time: u32::try_from(time).unwrap_or(u32::MAX), values }
    }
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

#[expect(clippy::cast_possible_truncation, reason = "single precision is what is meant")]
fn single(value: f64) -> f32 {
    value as f32
}

/// The ring. Its memory is taken once, and does not grow.
#[derive(Debug)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// An empty history.
    pub fn new() -> Self {
        Self { samples: VecDeque::with_capacity(SAMPLES) }
    }

    /// Adds a sample; the oldest goes when there are too many.
    pub fn add(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The values since then, in their order: the mean of each handful of samples, with the time of its first.
    pub fn read(&self, metric: Metric, since: u64) -> Vec<Point> {
        let index = Metric::ALL.iter().position(|one| *one == metric).unwrap_or_default();
        let recorded: Vec<Point> = self
            .samples
            .iter()
            .filter(|sample| u64::from(sample.time) >= since)
            .map(|sample| (u64::from(sample.time), f64::from(sample.values[index])))
            .filter(|(_, value)| value.is_finite())
            .collect();
        recorded.chunks(recorded.len().div_ceil(POINTS).max(1)).filter_map(mean).collect()
    }
}

fn mean(points: &[Point]) -> Option<Point> {
    let count = u32::try_from(points.len()).ok().filter(|count| *count > 0)?;
    let sum: f64 = points.iter().map(|(_, value)| value).sum();
    Some((points.first()?.0, sum / f64::from(count)))
}
