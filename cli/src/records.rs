//! Log records of `mender-orchestrator` on standard error or in a file, in the shape of Mender's own (so that the
//! deployment log on a Mender server reads as usual).

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use orchestratord::core::error::Kind;

use crate::failure::Failure;
use crate::output::{Moment, printable};
use crate::progress::Reporter;
use crate::view::{ComponentChange, ComponentView, JobChange, JobView};

/// How much a record matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Trace,
    /// For those who look for a defect.
    Debug,
    /// Worth knowing.
    Info,
    /// Odd, but the work goes on.
    Warning,
    /// A failure.
    Error,
    /// A failure that ends the program.
    Fatal,
}

impl Level {
    /// All levels, from the least to the most important.
    pub const ALL: [Self; 6] = [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Fatal];

    /// The word in records and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let level = Self::ALL.into_iter().find(|level| level.as_str() == word);
        level.ok_or_else(|| "expected trace, debug, info, warning, error or fatal".to_owned())
    }
}

/// How many errors are remembered as told.
const TOLD_LIMIT: usize = 64;

/// Writes records.
#[derive(Debug)]
pub struct Records {
    level: Level,
    file: Option<File>,
    written: u64,
    /// Errors already told, so that the same one is not told again by the next who notices it.
    told: Vec<String>,
}

impl Records {
    /// Records of this level and above, to standard error, or to the file alone if one is named; what the file held
    /// before is lost, as with Mender's option.
    pub fn new(level: Level, file: Option<&Path>) -> Result<Self, Failure> {
        let file = file.map(|path| {
            let created = File::create(path);
            created.map_err(|error| {
                Failure::new(Kind::Failed, format!("Cannot open the log file \"{}\": {error}.", path.display()))
            })
        });
        Ok(Self { level, file: file.transpose()?, written: 0, told: Vec::new() })
    }

    /// A record about the whole System.
    pub fn global(&mut self, level: Level, message: &str) {
        self.write(level, "name=\"Global\"", message);
    }

    /// A record about a Component.
    pub fn component(&mut self, level: Level, id: &str, message: &str) {
        self.write(level, &format!("name=\"component\" id={}", quoted(id)), message);
    }

    /// An error, unless a record has told it already.
    pub fn error(&mut self, message: &str) {
        if !self.told.iter().any(|told| told == message) {
            self.global(Level::Error, message);
        }
    }

    fn write(&mut self, level: Level, subject: &str, message: &str) {
        if level >= Level::Error {
            self.told.truncate(TOLD_LIMIT - 1);
            self.told.insert(0, message.to_owned());
        }
        if level < self.level {
            return;
        }
        self.written += 1;
        let record = record(self.written, level, Moment::now(), subject, message);
        // Nobody can be told that the log cannot be written; the deployment matters more.
        match &mut self.file {
            Some(file) => drop(file.write_all(record.as_bytes())),
            None => drop(std::io::stderr().lock().write_all(record.as_bytes())),
        }
    }
}

fn record(number: u64, level: Level, time: Moment, subject: &str, message: &str) -> String {
    let (level, time, message) = (level.as_str(), time.mender(), quoted(message));
    format!("record_id={number} severity={level} time=\"{time}\" {subject} msg={message}\n")
}

/// In quotes, on one line, and readable again: quotes and backslashes within are escaped.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", printable(&text))
}

impl Reporter for Records {
    fn begin(&mut self, job: &JobView) {
        self.global(Level::Debug, &format!("Job {} of orchestratord: {}", job.id, job.kind));
    }

    fn job(&mut self, _: &JobView, change: &JobChange) {
        match change {
            JobChange::Log { severity, component, message } => {
                let level = severity.parse().unwrap_or(Level::Info);
                // The contract writes `<type>.<id>`; types have no dot.
                match component.split_once('.') {
                    Some((_, id)) => self.component(level, id, message),
                    None => self.global(level, message),
                }
            }
            JobChange::Step(step) if !step.is_empty() => self.global(Level::Info, step),
            _ => {}
        }
    }

    fn component(&mut self, component: &ComponentView, change: &ComponentChange) {
        match change {
            ComponentChange::State(state) => Self::component(self, Level::Debug, &component.id, state),
            ComponentChange::Error(error) => {
                Self::component(self, Level::Error, &component.id, &error.message);
            }
            _ => {}
        }
    }

    fn note(&mut self, message: &str) {
        self.global(Level::Warning, message);
    }

    fn end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_shape_of_mender() {
        let time = Moment::from_micros(1_760_526_531_593_812);
        assert_eq!(
            record(1, Level::Info, time, "name=\"Global\"", "all \"well\"\n\\"),
            "record_id=1 severity=info time=\"2025-Oct-15 11:08:51.593812\" name=\"Global\" \
             msg=\"all \\\"well\\\"\\n\\\\\"\n"
        );
    }

    #[test]
    fn levels_filter_and_numbers_count_what_is_written() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        std::fs::write(&path, "old").unwrap();
        let mut records = Records::new(Level::Warning, Some(&path)).unwrap();
        records.global(Level::Info, "quiet");
        records.component(Level::Warning, "52:54", "odd");
        records.global(Level::Error, "broken");
        records.error("broken");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("record_id=1 severity=warning time=\""), "{text}");
        assert!(lines[0].ends_with("name=\"component\" id=\"52:54\" msg=\"odd\""), "{text}");
        assert!(lines[1].starts_with("record_id=2 severity=error"), "{text}");
    }

    #[test]
    fn levels_are_those_of_mender() {
        for level in Level::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        assert!("Info".parse::<Level>().is_err());
    }
}
