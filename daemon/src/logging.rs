//! The daemon's log: to journald with fields if standard error is the journal, else to standard error, one line per
//! record.

use std::io::{self, Write};
use std::os::linux::fs::MetadataExt;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer as Reloadable};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Name in the journal, and prefix of the journal fields that are ours (`ORCHESTRATORD_JOB`, ...).
const IDENTIFIER: &str = "orchestratord";

/// What passes. Other crates may warn, no more: zbus alone writes several lines for each message on the bus.
fn filter(level: Level) -> Targets {
    let own = LevelFilter::from_level(level);
    Targets::new().with_default(own.min(LevelFilter::WARN)).with_target("orchestratord", own)
}

/// Sets what the log of the process lets through.
#[derive(Debug, Clone)]
pub struct LogLevel(Handle<Targets, Registry>);

impl LogLevel {
    /// From now on this level.
    pub fn set(&self, level: Level) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::warn!("The level of the log cannot be changed: {error}.");
        }
    }
}

/// Starts the log of the process. An error means that it has been started before.
pub fn start(level: Level) -> Result<LogLevel, TryInitError> {
    let registry = tracing_subscriber::registry();
    let (filter, handle) = Reloadable::new(filter(level));
    match journald() {
        Some(layer) => registry.with(layer.with_filter(filter)).try_init()?,
        None => registry.with(lines(StandardError).with_filter(filter)).try_init()?,
    }
    Ok(LogLevel(handle))
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
        let subscriber = tracing_subscriber::registry().with(lines(memory.clone()).with_filter(filter(level)));
        tracing::subscriber::with_default(subscriber, write);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_record_is_one_line_with_its_fields() {
        let text = logged(Level::INFO, || tracing::info!(job = 7, "first\nsecond\r\n"));
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
        for (level, lines) in [(Level::ERROR, 1), (Level::WARN, 3), (Level::INFO, 4), (Level::DEBUG, 5)] {
            assert_eq!(logged(level, all).lines().count(), lines, "{level:?}");
        }
        assert!(!logged(Level::DEBUG, all).contains("z-info"));
    }
}
