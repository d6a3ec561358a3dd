//! The daemon's log: to journald with fields if standard error is the journal, else to standard error, one line per
//! record.

use std::io::{self, Write};
use std::os::linux::fs::MetadataExt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Name in the journal, and prefix of the journal fields that are ours (`ORCHESTRATORD_JOB`, ...).
const IDENTIFIER: &str = "orchestratord";

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Failures.
    Error,
    /// Failures, and oddities that change nothing.
    Warning,
    /// Also what is being done.
    #[default]
    Info,
    /// Also how.
    Debug,
}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Reads the words of Mender's configuration; `fatal` and `trace` are there for its sake.
    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        match word {
            "fatal" | "error" => Ok(Self::Error),
            "warning" | "warn" => Ok(Self::Warning),
            "info" => Ok(Self::Info),
            "debug" | "trace" => Ok(Self::Debug),
            _ => Err(UnknownLevel(word.to_owned())),
        }
    }
}

/// A word that is no log level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "The log level \"{0}\" is unknown: expected \"fatal\", \"error\", \"warning\", \"info\", \"debug\" or \"trace\"."
)]
pub struct UnknownLevel(String);

impl Level {
    /// What passes. Other crates may warn, no more: zbus alone writes several lines for each message on the bus.
    fn filter(self) -> Targets {
        let own = match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warning => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        };
        Targets::new().with_default(own.min(LevelFilter::WARN)).with_target("orchestratord", own)
    }
}

/// Starts the log of the process. An error means that it has been started before.
pub fn start(level: Level) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry();
    match journald() {
        Some(layer) => registry.with(layer.with_filter(level.filter())).try_init(),
        None => registry.with(lines(StandardError).with_filter(level.filter())).try_init(),
    }
}

/// The way to journald, if standard error leads there anyway and its native socket answers.
fn journald() -> Option<tracing_journald::Layer> {
    let journal = std::env::var("JOURNAL_STREAM").ok()?;
    let standard_error = std::fs::metadata("/proc/self/fd/2").ok()?;
    if journal != format!("{}:{}", standard_error.st_dev(), standard_error.st_ino()) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_syslog_identifier(IDENTIFIER.to_owned()).with_field_prefix(Some(IDENTIFIER.to_uppercase())))
}

/// Lines of text: time, level, target, message, fields.
fn lines<S, W>(writer: W) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer)
}

/// Standard error; each record is one write.
struct StandardError;

impl<'writer> MakeWriter<'writer> for StandardError {
    type Writer = OneLine<io::StderrLock<'writer>>;

    fn make_writer(&'writer self) -> Self::Writer {
        OneLine(io::stderr().lock())
    }
}

/// Keeps a record on one line: what an Interface printed or a Manifest holds must not forge a record.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let (body, end) = match record.split_last() {
            Some((b'\n', body)) => (body, "\n"),
            _ => (record, ""),
        };
        let mut line = Vec::with_capacity(record.len());
        for byte in body {
            match byte {
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                byte => line.push(*byte),
            }
        }
        line.extend_from_slice(end.as_bytes());
        self.0.write_all(&line)?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'writer> MakeWriter<'writer> for Memory {
        type Writer = OneLine<Self>;

        fn make_writer(&'writer self) -> Self::Writer {
            OneLine(self.clone())
        }
    }

    fn logged(level: Level, write: impl FnOnce()) -> String {
        let memory = Memory::default();
        let subscriber = tracing_subscriber::registry().with(lines(memory.clone()).with_filter(level.filter()));
        tracing::subscriber::with_default(subscriber, write);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_record_is_one_line_with_its_fields() {
        let text = logged(Level::Info, || tracing::info!(job = 7, "first\nsecond\r\n"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with("first\\nsecond\\r\\n job=7\n"), "{text}");
        assert!(text.contains(" INFO orchestratord::logging"), "{text}");
    }

    #[test]
    fn the_level_holds_for_us_and_others_stay_quiet() {
        let all = || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!("i");
            tracing::debug!("d");
            tracing::info!(target: "zbus", "z-info");
            tracing::warn!(target: "zbus", "z-warn");
        };
        for (level, lines) in [(Level::Error, 1), (Level::Warning, 3), (Level::Info, 4), (Level::Debug, 5)] {
            assert_eq!(logged(level, all).lines().count(), lines, "{level:?}");
        }
        assert!(!logged(Level::Debug, all).contains("z-info"));
    }

    #[test]
    fn all_words_of_mender_are_known() {
        for (word, level) in [("fatal", Level::Error), ("warning", Level::Warning), ("trace", Level::Debug)] {
            assert_eq!(word.parse(), Ok(level));
        }
        let error = "loud".parse::<Level>().unwrap_err();
        assert!(error.to_string().starts_with("The log level \"loud\" is unknown"), "{error}");
    }
}
