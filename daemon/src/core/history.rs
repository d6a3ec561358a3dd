//! Figures of the last days, in memory: a ring of fixed size.

use std::collections::VecDeque;

/// Points that one reading gives at most; each is the mean of the samples that fall together.
pub const POINTS: usize = 1000;

/// Seconds since 1970, and the value.
pub type Point = (u64, f64);

/// Some figures at one moment; what was not to be had is no number.
#[derive(Debug, Clone, Copy)]
pub struct Sample<const FIGURES: usize> {
    /// Seconds since 1970; enough until 2106.
    time: u32,
    /// As single precision, which halves the size and is finer than the figures are.
    values: [f32; FIGURES],
}

impl<const FIGURES: usize> Sample<FIGURES> {
    /// These figures at this time, in seconds since 1970.
    pub fn new(time: u64, values: [f64; FIGURES]) -> Self {
        Self { time: u32::try_from(time).unwrap_or(u32::MAX), values: values.map(single) }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "single precision is what is meant")]
fn single(value: f64) -> f32 {
    value as f32
}

/// The ring. Its memory is taken once, and does not grow.
#[derive(Debug)]
pub struct History<const FIGURES: usize> {
    samples: VecDeque<Sample<FIGURES>>,
    most: usize,
}

impl<const FIGURES: usize> History<FIGURES> {
    /// An empty history that keeps so many samples.
    pub fn new(most: usize) -> Self {
        Self { samples: VecDeque::with_capacity(most), most }
    }

    /// Adds a sample; the oldest goes when there are too many.
    pub fn add(&mut self, sample: Sample<FIGURES>) {
        if self.samples.len() == self.most {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The values of a figure since then, in their order: the mean of each handful of samples, with the time of its first. Nothing
    /// for a figure that there is not.
    pub fn read(&self, figure: usize, since: u64) -> Vec<Point> {
        let recorded: Vec<Point> = self
            .samples
            .iter()
            .filter(|sample| u64::from(sample.time) >= since)
            .filter_map(|sample| Some((u64::from(sample.time), f64::from(*sample.values.get(figure)?))))
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
