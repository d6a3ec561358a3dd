//! Collects what was measured: lines `bench: NAME VALUE` as it goes, tables in Markdown at the end.

use std::fmt::Write as _;
use std::path::Path;

/// One measured run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Seconds from begin to end.
    pub wall: f64,
    /// Seconds of processor time, of the program and the processes it has waited for.
    pub cpu: f64,
    /// Largest resident set in MiB; 0 if it was not looked at.
    pub peak: f64,
}

/// The figure in the middle; 0 of none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    percentile(&figures, 50)
}

/// Of sorted figures the one that so many percent are not above; 0 of none.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
}

/// The median of each figure.
pub fn middle(samples: &[Sample]) -> Sample {
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
    Sample { wall: of(|sample| sample.wall), cpu: of(|sample| sample.cpu), peak: of(|sample| sample.peak) }
}

/// What is said at the end.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<(String, f64)>,
    text: String,
}

impl Report {
    /// Prints a figure as a line of its own.
    pub fn line(&mut self, name: &str, value: f64) {
        println!("bench: {name} {value:.3}");
        self.lines.push((name.to_owned(), value));
    }

    /// A paragraph; what was left out is said here, and on standard error at once.
    pub fn say(&mut self, text: &str) {
        eprintln!("{text}");
        let _ = write!(self.text, "\n{text}\n");
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        eprintln!("== {text}");
        let _ = write!(self.text, "\n### {text}\n");
    }

    /// A table.
    pub fn table(&mut self, columns: &[&str], rows: &[Vec<String>]) {
        let rule = vec!["---"; columns.len()];
        let _ = write!(self.text, "\n| {} |\n|{}|\n", columns.join(" | "), rule.join("|"));
        for row in rows {
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
    }

    /// A table of samples: seconds, MiB, and wall time as a multiple of a floor.
    pub fn samples(&mut self, rows: &[(String, Sample, Option<f64>)]) {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|(name, sample, floor)| {
                let figure = |figure: f64| if figure > 0.0 { format!("{figure:.2}") } else { String::new() };
                let ratio = floor.map(|floor| format!("{:.2}", sample.wall / floor)).unwrap_or_default();
                vec![name.clone(), figure(sample.wall), figure(sample.cpu), figure(sample.peak), ratio]
            })
            .collect();
        self.table(&["what", "wall s", "CPU s", "peak MiB", "of its floor"], &rows);
    }

    /// Writes everything as Markdown.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = self.text.clone();
        text.push_str("\n### The lines\n\n```text\n");
        for (name, value) in &self.lines {
            let _ = writeln!(text, "bench: {name} {value:.3}");
        }
        text.push_str("```\n");
        std::fs::write(path, text)
    }
}
