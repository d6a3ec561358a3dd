//! What a vPLC uses of the machine, read from the files of the kernel: the engine's own stream of figures would have it work for each
//! vPLC all the time.

pub mod metrics;
mod reading;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::reading::Reading;
use crate::core::history::{History, Point, Sample};

/// A reading serves everybody who asks within this time.
const FRESH: Duration = Duration::from_secs(1);
/// Samples that are kept: 48 hours of them, at the pace at which a PLC is looked at.
const SAMPLES: usize = 48 * 3600 / 15;

/// What a vPLC uses. What is not known is none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// What the kernel says.
    pub reading: Reading,
    /// Processors that were busy with it since the reading before: 1 is one of them all the time.
    pub cpu: Option<f64>,
    /// How often it was started again because it had ended by itself, since the daemon started.
    pub restarts: u32,
    /// How often the tasks of its program were late since the program was started.
    pub overruns: Option<u64>,
}

/// What is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Processors that were busy with it.
    Cpu,
    /// Bytes of memory.
    Memory,
    /// Bytes received in a second.
    Received,
    /// Bytes sent in a second.
    Sent,
    /// Times that a task was late.
    Overruns,
}

impl Metric {
    /// Every metric, in the order of a sample.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Memory, Self::Received, Self::Sent, Self::Overruns];

    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Received => "received",
            Self::Sent => "sent",
            Self::Overruns => "overruns",
        }
    }

    /// The metric with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == name)
    }
}

/// What was read at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    at: Option<Instant>,
    reading: Reading,
    /// Busy processors since the mark before.
    cpu: Option<f64>,
    overruns: Option<u64>,
}

/// The figures of the last days.
#[derive(Debug)]
struct Records {
    ring: History<{ Metric::ALL.len() }>,
    last: Mark,
}

/// Turns readings of one vPLC into figures.
#[derive(Debug)]
pub struct Meter {
    last: Mutex<Mark>,
    records: Option<Mutex<Records>>,
}

impl Meter {
    /// One that has seen nothing; `history` if it is to keep one.
    pub fn new(history: bool) -> Self {
        let records = || Mutex::new(Records { ring: History::new(SAMPLES), last: Mark::default() });
        Self { last: Mutex::default(), records: history.then(records) }
    }

    /// Whether a history is kept.
    pub fn records(&self) -> bool {
        self.records.is_some()
    }

    /// The last figures, if they are fresh enough for somebody who asks now.
    pub fn fresh(&self, now: Instant) -> Option<Usage> {
        let last = lock(&self.last);
        let at = last.at.filter(|at| now.duration_since(*at) < FRESH && last.cpu.is_some());
        at.map(|_| Usage { reading: last.reading, cpu: last.cpu, ..Usage::default() })
    }

    /// The figures after this reading.
    pub fn show(&self, reading: Reading, now: Instant) -> Usage {
        let mut last = lock(&self.last);
        let cpu = per_second(now, *last, reading.cpu_seconds(), last.reading.cpu_seconds());
        *last = Mark { at: Some(now), reading, cpu, overruns: None };
        Usage { reading, cpu, ..Usage::default() }
    }

    /// Keeps this reading, which was made at this time (seconds since 1970). The first one of all is what later ones are measured from.
    pub fn record(&self, reading: Reading, overruns: Option<u64>, now: Instant, time: u64) {
        if lock(&self.last).at.is_none() {
            self.show(reading, now);
        }
        let Some(records) = &self.records else { return };
        let mut records = lock(records);
        let last = std::mem::replace(&mut records.last, Mark { at: Some(now), reading, cpu: None, overruns });
        let rate = |new: Option<f64>, old: Option<f64>| per_second(now, last, new, old).unwrap_or(f64::NAN);
        let late = overruns.zip(last.overruns).and_then(|(new, old)| new.checked_sub(old));
        let values = Metric::ALL.map(|metric| match metric {
            Metric::Cpu => rate(reading.cpu_seconds(), last.reading.cpu_seconds()),
            Metric::Memory => reading.memory.map_or(f64::NAN, float),
            Metric::Received => rate(reading.received.map(float), last.reading.received.map(float)),
            Metric::Sent => rate(reading.sent.map(float), last.reading.sent.map(float)),
            Metric::Overruns => late.map_or(f64::NAN, float),
        });
        records.ring.add(Sample::new(time, values));
    }

    /// What was recorded of this metric since then (seconds since 1970).
    pub fn history(&self, metric: Metric, since: u64) -> Vec<Point> {
        let index = Metric::ALL.iter().position(|one| *one == metric).unwrap_or_default();
        self.records.as_ref().map(|records| lock(records).ring.read(index, since)).unwrap_or_default()
    }
}

/// How much something grew in a second since the mark; none if that is not known, or if it began anew.
fn per_second(now: Instant, since: Mark, new: Option<f64>, old: Option<f64>) -> Option<f64> {
    let seconds = now.checked_duration_since(since.at?)?.as_secs_f64();
    let grown = new? - old?;
    (grown >= 0.0 && seconds > 0.0).then(|| grown / seconds)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people needs no more digits than a float has")]
fn float(number: u64) -> f64 {
    number as f64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
