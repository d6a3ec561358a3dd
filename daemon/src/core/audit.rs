//! The audit log: what was asked of the daemon, by whom, and what became of it.
//!
//! One JSON object a line, only ever appended, in a file of mode 0600. A line is handed to the kernel before the call goes on, so a
//! crash of the daemon loses none; it is on the medium at most [`SYNC_DELAY`] later, so a power cut loses at most the lines of that
//! time. No call waits for the medium. When the file has its size, it gets the suffix `.1`, that one `.2`, and so on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::store::{self, StoreError};

/// How long a line may be in memory of the kernel only.
pub const SYNC_DELAY: Duration = Duration::from_secs(1);
/// Bytes of a file before the next one is begun.
pub const SIZE_LIMIT: u64 = 1 << 20;
/// Files that are kept besides the one that is written.
pub const KEEP: u32 = 4;
/// Refused calls that are written in a minute. Anybody can make them, and they must not drive what matters out of the log.
const DENIALS: u32 = 100;
/// Characters of one text in a line.
const TEXT_LIMIT: usize = 500;

/// Who called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Caller {
    /// User id; `None` if the bus does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Process id; `None` if the bus does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The systemd unit or the control group of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'e> {
    /// A call that changes something was let in.
    Call {
        /// Number of the call, which its end refers to.
        call: u64,
        /// Who called.
        #[serde(flatten)]
        caller: &'e Caller,
        /// Interface and name of the method.
        #[serde(serialize_with = "cut")]
        method: &'e str,
        /// Path of the object.
        #[serde(serialize_with = "cut")]
        object: &'e str,
    },
    /// It has ended.
    End {
        /// Number of the call.
        call: u64,
        /// `ok`, or the name of the error.
        result: &'e str,
        /// Path of the object that was made, such as the Job that does the work.
        #[serde(skip_serializing_if = "str::is_empty")]
        made: &'e str,
        /// What the error says.
        #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
        message: &'e str,
    },
    /// A call that would change something was not let in.
    Denied {
        /// Who called.
        #[serde(flatten)]
        caller: &'e Caller,
        /// Interface and name of the method.
        #[serde(serialize_with = "cut")]
        method: &'e str,
        /// Path of the object.
        #[serde(serialize_with = "cut")]
        object: &'e str,
        /// Name of the error.
        result: &'e str,
        /// What it says.
        #[serde(serialize_with = "cut")]
        message: &'e str,
    },
    /// Work that a call began has ended.
    Job {
        /// Number of the Job.
        job: u32,
        /// What kind of work it was.
        kind: &'e str,
        /// Who began it.
        uid: u32,
        /// How it ended.
        result: &'e str,
        /// What went wrong.
        #[serde(skip_serializing_if = "str::is_empty", serialize_with = "cut")]
        message: &'e str,
    },
}

#[derive(Serialize)]
struct Line<'e> {
    /// Microseconds since 1970.
    time: u64,
    #[serde(flatten)]
    event: Event<'e>,
    /// Lines before this one that could not be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    limit: u64,
    file: Option<File>,
    size: u64,
    lost: u64,
    calls: u64,
    /// The minute in which refused calls are counted, and how many there were.
    denials: (Instant, u32),
    /// There are lines that are not on the medium.
    dirty: bool,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    work: Condvar,
}

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// The audit log. Copies of it are the same log; with the last one it is closed, and all its lines are on the medium.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Owner>);

impl Audit {
    /// The log below this directory: `audit.log` and its predecessors. If it cannot be written, the daemon goes on, and counts what is lost.
    pub fn open(directory: &Path) -> Self {
        Self::with_limit(directory, SIZE_LIMIT)
    }

    fn with_limit(directory: &Path, limit: u64) -> Self {
        let path = directory.join("audit.log");
        let log = Log {
            path,
            limit,
            file: None,
            size: 0,
            lost: 0,
            calls: 0,
            denials: (Instant::now(), 0),
            dirty: false,
            closed: false,
        };
        let shared = Arc::new(Shared { log: Mutex::new(log), work: Condvar::new() });
        let of_thread = shared.clone();
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || of_thread.sync());
        if let Err(error) = &thread {
            tracing::error!("The audit log is not put on the medium until the daemon ends: {error}");
        }
        Self(Arc::new(Owner { shared, thread: Mutex::new(thread.ok()) }))
    }

    /// Writes that a call was let in, and returns its number.
    pub fn call(&self, caller: &Caller, method: &str, object: &str) -> u64 {
        let mut log = self.0.shared.lock();
        log.calls += 1;
        let call = log.calls;
        log.write(Event::Call { call, caller, method, object });
        self.0.shared.work.notify_one();
        call
    }

    /// Writes anything else.
    pub fn record(&self, event: Event<'_>) {
        self.0.shared.lock().write(event);
        self.0.shared.work.notify_one();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // An error means that it panicked, which is in the log of the daemon.
        drop(thread.map(thread::JoinHandle::join));
    }
}

impl Shared {
    /// The data behind the lock is valid after every single statement.
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts lines on the medium, some time after the first of them; it sleeps while there are none.
    fn sync(&self) {
        let mut log = self.lock();
        loop {
            while !log.dirty && !log.closed {
                log = self.work.wait(log).unwrap_or_else(PoisonError::into_inner);
            }
            if !log.closed {
                let until = |log: &mut Log| !log.closed;
                log = self.work.wait_timeout_while(log, SYNC_DELAY, until).unwrap_or_else(PoisonError::into_inner).0;
            }
            let closed = log.closed;
            log.dirty = false;
            let file = log.file.as_ref().and_then(|file| file.try_clone().ok());
            drop(log);
            if let Some(Err(error)) = file.map(|file| file.sync_data()) {
                tracing::error!("The audit log cannot be put on the medium: {error}");
            }
            if closed {
                return;
            }
            log = self.lock();
        }
    }
}

impl Log {
    fn write(&mut self, event: Event<'_>) {
        if matches!(event, Event::Denied { .. }) && !self.may_tell_denial() {
            return;
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        let line = Line { time, event, lost: (self.lost > 0).then_some(self.lost) };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            let size = bytes.len() as u64;
            self.file(size).map_err(|error| io::Error::other(error.to_string()))?.write_all(&bytes)?;
            self.size += size;
            Ok(())
        });
        match written {
            Ok(()) => {
                self.lost = 0;
                self.dirty = true;
            }
            Err(error) => {
                if self.lost == 0 {
                    tracing::error!("The audit log cannot be written: {error}");
                }
                self.lost += 1;
                // What was written of the line may be half of it, which the next one must not join.
                self.file = None;
            }
        }
    }

    fn may_tell_denial(&mut self) -> bool {
        let (since, count) = &mut self.denials;
        if since.elapsed() > Duration::from_mins(1) {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count == DENIALS {
            tracing::warn!("More than {DENIALS} calls were refused in a minute; the others are not in the audit log");
        }
        *count <= DENIALS
    }

    /// The file to append so many bytes to.
    fn file(&mut self, size: u64) -> Result<&mut File, StoreError> {
        if self.size + size > self.limit
            && let Some(full) = self.file.take()
        {
            full.sync_data().map_err(StoreError::of("sync", &self.path))?;
            self.rotate()?;
        }
        if self.file.is_none() {
            self.begin()?;
        }
        let missing = || StoreError::of("open", &self.path)(io::ErrorKind::NotFound.into());
        self.file.as_mut().ok_or_else(missing)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        if let Some(directory) = self.path.parent() {
            store::make_directory(directory)?;
        }
        let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path);
        let mut file = opened.map_err(StoreError::of("open", &self.path))?;
        self.size = file.metadata().map_err(StoreError::of("read", &self.path))?.len();
        if self.size > 0 {
            // A power cut or a full disk may have left half a line.
            let mut last = [0];
            let end = std::os::unix::fs::FileExt::read_at(&file, &mut last, self.size - 1);
            if end.map_err(StoreError::of("read", &self.path))? == 1 && last != *b"\n" {
                file.write_all(b"\n").map_err(StoreError::of("write", &self.path))?;
                self.size += 1;
            }
        }
        self.file = Some(file);
        if let Some(directory) = self.path.parent() {
            store::sync_directory(directory)?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        let older = |number: u32| match number {
            0 => self.path.clone(),
            number => self.path.with_extension(format!("log.{number}")),
        };
        for number in (0..KEEP).rev() {
            match fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::of("rename", &older(number))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Texts may come from callers, who must not fill the disk.
fn cut<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let end = text.char_indices().nth(TEXT_LIMIT).map_or(text.len(), |(end, _)| end);
    serializer.serialize_str(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or(serde_json::Value::Null)).collect()
    }

    fn end(call: u64, message: &str) -> Event<'_> {
        Event::End { call, result: "ok", made: "", message }
    }

    #[test]
    fn a_call_and_its_end_are_two_lines_of_json() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::open(directory.path());
        let caller = Caller { uid: Some(1000), pid: Some(7), unit: Some("hmi.service".to_owned()) };
        let call = audit.call(&caller, "org.orchestratord1.Update.Install", "/org/orchestratord1");
        audit.record(end(call, ""));
        // Before the log is closed: the daemon may be killed at any time.
        let found = lines(&directory.path().join("audit.log"));
        assert_eq!(found[0]["event"], "call");
        assert_eq!((&found[0]["uid"], &found[0]["pid"]), (&1000.into(), &7.into()));
        assert_eq!(found[0]["unit"], "hmi.service");
        assert_eq!(found[0]["method"], "org.orchestratord1.Update.Install");
        assert_eq!((&found[1]["call"], &found[1]["result"]), (&found[0]["call"], &"ok".into()));
        assert!(found[1].get("message").is_none() && found[0]["time"].as_u64() > Some(1_700_000_000_000_000));
    }

    #[test]
    fn it_is_appended_to_and_half_a_line_does_not_spoil_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        Audit::open(directory.path()).record(end(1, ""));
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"time\":17").unwrap();
        Audit::open(directory.path()).record(end(2, ""));
        let found = lines(&path);
        assert_eq!(found.len(), 3);
        assert_eq!((&found[0]["call"], &found[1], &found[2]["call"]), (&1.into(), &serde_json::Value::Null, &2.into()));
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn it_stays_within_its_size_and_keeps_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::with_limit(directory.path(), 1000);
        for call in 0..200 {
            audit.record(end(call, &"x".repeat(100)));
        }
        drop(audit);
        let mut names: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3", "audit.log.4"]);
        let mut calls = Vec::new();
        for name in names.iter().rev() {
            let path = directory.path().join(name);
            assert!(fs::metadata(&path).unwrap().len() <= 1000);
            calls.extend(lines(&path).iter().map(|line| line["call"].as_u64().unwrap()));
        }
        assert_eq!(calls.last(), Some(&199));
        assert!(calls.windows(2).all(|pair| pair[1] == pair[0] + 1), "{calls:?}");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        fs::create_dir(&path).unwrap();
        let audit = Audit::open(directory.path());
        audit.record(end(1, ""));
        audit.record(end(2, ""));
        fs::remove_dir(&path).unwrap();
        audit.record(end(3, ""));
        audit.record(end(4, ""));
        let found = lines(&path);
        assert_eq!((&found[0]["call"], &found[0]["lost"]), (&3.into(), &2.into()));
        assert!(found[1].get("lost").is_none());
    }

    #[test]
    fn refused_calls_do_not_drive_out_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::open(directory.path());
        let caller = Caller { uid: Some(1000), ..Caller::default() };
        audit.record(end(1, ""));
        for _ in 0..10 * DENIALS {
            let (method, object, result, message) = ("a.b", "/", "x", "no");
            audit.record(Event::Denied { caller: &caller, method, object, result, message });
        }
        audit.record(end(2, ""));
        let found = lines(&directory.path().join("audit.log"));
        assert_eq!(found.len(), 2 + DENIALS as usize);
        assert_eq!((&found[1]["event"], &found[1]["uid"]), (&"denied".into(), &1000.into()));
    }

    #[test]
    fn a_long_message_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Audit::open(directory.path());
        audit.record(end(1, &"ü".repeat(100_000)));
        let found = lines(&directory.path().join("audit.log"));
        assert_eq!(found[0]["message"].as_str().unwrap().chars().count(), TEXT_LIMIT);
    }
}
