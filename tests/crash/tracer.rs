//! Runs a daemon under ptrace and disturbs it at one exact point: a system call that changes a file, by the daemon below
//! its state directory or by an Interface program below the directory of its Components.
//!
//! All points of a run are numbered in the order in which they come, so they can be enumerated: run with 1, 2, 3, ...
//! until a run ends without having been disturbed.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::disturbance::{Disturbance, Point};
use crate::syscall::Call;

/// A line that a program wrote to the log of calls, or that the test wrote there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Which daemon started the program; 0 is the test itself.
    pub generation: u32,
    /// The line.
    pub text: String,
}

/// The log of calls as the tracers see it being written: it knows which line belongs to which daemon.
pub type Log = Arc<Mutex<Vec<Logged>>>;

/// A rename whose directory has not been synced since.
#[derive(Debug)]
struct Renamed {
    from: PathBuf,
    to: PathBuf,
    /// What stood at `to` before, if it was a file.
    before: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Shared {
    armed: AtomicBool,
    lifted: AtomicBool,
    released: AtomicBool,
    terminated: AtomicBool,
    end_all: AtomicBool,
    count: AtomicUsize,
    daemon: AtomicI32,
    points: Mutex<Vec<Point>>,
    hit: Mutex<Option<Point>>,
    daemon_gone: (Mutex<bool>, Condvar),
    /// The journal as it was when it was last synced.
    synced: Mutex<Option<(PathBuf, Vec<u8>)>>,
    renamed: Mutex<Vec<Renamed>>,
    /// All tasks that are traced now.
    tasks: Mutex<HashSet<Pid>>,
}

impl Shared {
    fn kill_all(&self) {
        for task in self.tasks.lock().unwrap().iter() {
            let _ = kill(*task, Signal::SIGKILL);
        }
    }
}

/// A daemon that is traced. Dropping it ends it with all programs that it has started.
#[derive(Debug)]
pub struct Traced {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
    /// Daemons that came before; programs of theirs may still run.
    elders: Mutex<Vec<Traced>>,
}

impl Traced {
    /// Starts the daemon through its launcher. `places` are its state directory and that of the Components. Points are counted once [`Traced::arm`] was called.
    pub fn start(command: Command, places: (&Path, &Path), disturbance: Disturbance, log: (Log, u32)) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tracer = Tracer {
            shared: shared.clone(),
            disturbance,
            state: places.0.to_owned(),
            system: places.1.to_owned(),
            log: log.0,
            generation: log.1,
            groups: HashMap::new(),
            running: HashMap::new(),
            held: Vec::new(),
            daemon: Pid::from_raw(0),
        };
        // All of ptrace has to be done by one and the same thread.
        let thread = thread::spawn(move || tracer.run(command));
        while shared.daemon.load(Ordering::SeqCst) == 0 && !thread.is_finished() {
            thread::sleep(Duration::from_micros(100));
        }
        Self { shared, thread: Some(thread), elders: Mutex::default() }
    }

    /// Begins to count points.
    pub fn arm(&self) {
        self.shared.armed.store(true, Ordering::SeqCst);
    }

    /// From here on nothing happens.
    pub fn disarm(&self) {
        self.shared.armed.store(false, Ordering::SeqCst);
    }

    /// The medium works again.
    pub fn lift(&self) {
        self.shared.lifted.store(true, Ordering::SeqCst);
    }

    /// Lets a program go on that was held when the daemon died.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// The points since the last time.
    pub fn take_points(&self) -> Vec<Point> {
        std::mem::take(&mut self.shared.points.lock().unwrap())
    }

    /// Where it was disturbed, if it was since the last time.
    pub fn take_hit(&self) -> Option<Point> {
        self.shared.hit.lock().unwrap().take()
    }

    /// The daemon was told to end at its point.
    pub fn is_terminated(&self) -> bool {
        self.shared.terminated.load(Ordering::SeqCst)
    }

    /// The daemon has ended.
    pub fn is_gone(&self) -> bool {
        *self.shared.daemon_gone.0.lock().unwrap()
    }

    /// Kills the daemon alone and waits for its end.
    pub fn kill_daemon(&self) {
        self.signal(Signal::SIGKILL);
        self.wait_gone();
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: Signal) {
        let daemon = self.shared.daemon.load(Ordering::SeqCst);
        if daemon > 0 && !self.is_gone() {
            let _ = kill(Pid::from_raw(daemon), signal);
        }
    }

    /// Waits for the end of the daemon.
    pub fn wait_gone(&self) {
        let mut gone = self.shared.daemon_gone.0.lock().unwrap();
        while !*gone {
            let (guard, timeout) = self.shared.daemon_gone.1.wait_timeout(gone, Duration::from_secs(30)).unwrap();
            gone = guard;
            assert!(!timeout.timed_out(), "the daemon does not end");
        }
    }

    /// Where every task stands now, of this daemon and of those before it: state, system call, kernel stack, descriptors.
    pub fn whereabouts(&self) -> String {
        let mut text = String::new();
        let mut tasks: Vec<Pid> = self.shared.tasks.lock().unwrap().iter().copied().collect();
        tasks.sort();
        let daemon = self.shared.daemon.load(Ordering::SeqCst);
        let _ = writeln!(text, "---- tasks of daemon {daemon}, gone: {}", self.is_gone());
        for task in tasks {
            let place = PathBuf::from(format!("/proc/{task}"));
            let read = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_else(|error| error.to_string());
            let status = read("status");
            let of_status: Vec<&str> = status
                .lines()
                .filter(|line| {
                    ["Name:", "State:", "Tgid:", "PPid:", "TracerPid:"].iter().any(|key| line.starts_with(key))
                })
                .collect();
            let _ = writeln!(text, "{task} {}", of_status.join(" ").replace('\t', " "));
            let arguments = read("cmdline").replace('\0', " ");
            let _ = writeln!(text, "    {arguments}\n    syscall {} in {}", read("syscall").trim_end(), read("wchan"));
            for line in read("stack").lines() {
                let _ = writeln!(text, "    stack {line}");
            }
            for entry in fs::read_dir(place.join("fd")).into_iter().flatten().flatten() {
                let target = fs::read_link(entry.path()).unwrap_or_default();
                let _ = writeln!(text, "    fd {} {}", entry.file_name().display(), target.display());
            }
        }
        for elder in self.elders.lock().unwrap().iter() {
            text.push_str(&elder.whereabouts());
        }
        text
    }

    /// The machine dies: the daemon and all programs end at once.
    pub fn end_all(&mut self) {
        self.shared.end_all.store(true, Ordering::SeqCst);
        self.shared.released.store(true, Ordering::SeqCst);
        // A task that was born just now stops first, and is killed by the thread then.
        self.shared.kill_all();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the tracer");
        }
        self.elders.lock().unwrap().clear();
    }

    /// Keeps an earlier daemon, whose programs may still run, until this one ends.
    pub fn adopt(&self, elder: Self) {
        self.elders.lock().unwrap().push(elder);
    }

    /// Takes back what a power cut takes back: what was written to the journal and not synced, and renames whose directory
    /// was not synced. Call it after [`Traced::end_all`].
    pub fn lose_unsynced(&self) {
        for renamed in self.shared.renamed.lock().unwrap().drain(..).rev() {
            match renamed.before {
                Some(bytes) => fs::write(&renamed.to, bytes).expect("the file as it was"),
                None => drop(fs::rename(&renamed.to, &renamed.from)),
            }
        }
        if let Some((path, bytes)) = self.shared.synced.lock().unwrap().take() {
            // It may have got another name or have been removed since.
            if path.exists() {
                fs::write(&path, bytes).expect("the journal as it was");
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end_all();
    }
}

struct Tracer {
    shared: Arc<Shared>,
    disturbance: Disturbance,
    state: PathBuf,
    system: PathBuf,
    log: Log,
    generation: u32,
    /// Thread group of every task.
    groups: HashMap<Pid, Pid>,
    /// The calls that run, by process: Component and state.
    running: HashMap<Pid, String>,
    /// Tasks that stand still, and what they are about to log.
    held: Vec<(Pid, Option<Said>)>,
    daemon: Pid,
}

impl Tracer {
    fn run(&mut self, mut command: Command) {
        #[allow(clippy::zombie_processes, reason = "it is reaped below, with all the others")]
        let child = command.spawn().expect("the launcher starts");
        self.daemon = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let first = waitpid(self.daemon, None).expect("the launcher stops");
        assert!(matches!(first, WaitStatus::Stopped(_, Signal::SIGSTOP)), "the launcher: {first:?}");
        let options = Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL;
        ptrace::setoptions(self.daemon, options).expect("options of ptrace");
        self.met(self.daemon);
        ptrace::cont(self.daemon, None).expect("the launcher goes on");
        self.shared.daemon.store(self.daemon.as_raw(), Ordering::SeqCst);
        loop {
            let mut flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            if !self.held.is_empty() {
                flags |= WaitPidFlag::WNOHANG;
            }
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_micros(500)),
                Ok(status) => self.stopped(status),
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                Err(error) => panic!("waitpid: {error}"),
            }
            if !self.held.is_empty() && self.shared.released.load(Ordering::SeqCst) {
                for (task, text) in std::mem::take(&mut self.held) {
                    self.logged(text);
                    go_on(task, None);
                }
            }
            if self.shared.end_all.load(Ordering::SeqCst) {
                self.kill_all();
            }
        }
        self.gone();
    }

    fn stopped(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(task, _) | WaitStatus::Signaled(task, ..) => {
                self.groups.remove(&task);
                // Killed, or it would have said that it ends.
                if let Some(call) = self.running.remove(&task) {
                    self.log.lock().unwrap().push(Logged { generation: self.generation, text: format!("died {call}") });
                }
                self.shared.tasks.lock().unwrap().remove(&task);
                if task == self.daemon {
                    self.gone();
                }
            }
            WaitStatus::PtraceEvent(task, _, libc::PTRACE_EVENT_SECCOMP) => {
                self.met(task);
                self.called(task);
            }
            WaitStatus::PtraceEvent(task, _, event) => {
                self.met(task);
                if event == libc::PTRACE_EVENT_EXEC {
                    self.executed(task);
                }
                go_on(task, None);
            }
            WaitStatus::PtraceSyscall(task) => {
                // Only asked for where the daemon dies behind a call.
                self.kill_daemon();
                go_on(task, None);
            }
            WaitStatus::Stopped(task, Signal::SIGSTOP) if self.met(task) => go_on(task, None),
            WaitStatus::Stopped(task, signal) => go_on(task, Some(signal)),
            _ => {}
        }
    }

    /// A program runs. Of a reboot that counts, even if the machine dies before the program has written a line.
    fn executed(&self, task: Pid) {
        let words = fs::read(format!("/proc/{task}/cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        // The shell, the program, and its arguments.
        if let [_, _, word, _, _, who, ..] = words.as_slice()
            && matches!(word.as_ref(), "ArtifactReboot" | "ArtifactRollbackReboot")
        {
            let text = format!("exec {who} {word}");
            self.log.lock().unwrap().push(Logged { generation: self.generation, text });
        }
    }

    fn gone(&self) {
        *self.shared.daemon_gone.0.lock().unwrap() = true;
        self.shared.daemon_gone.1.notify_all();
    }

    fn kill_daemon(&self) {
        let _ = kill(self.daemon, Signal::SIGKILL);
    }

    fn kill_all(&self) {
        self.shared.kill_all();
    }

    /// Keeps a task in mind; false if it was known.
    fn met(&self, task: Pid) -> bool {
        self.shared.tasks.lock().unwrap().insert(task)
    }

    fn group(&mut self, task: Pid) -> Pid {
        if let Some(group) = self.groups.get(&task) {
            return *group;
        }
        let status = fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        let group = group.map_or(task, Pid::from_raw);
        self.groups.insert(task, group);
        group
    }

    /// A task is about to change a file.
    fn called(&mut self, task: Pid) {
        let Ok(mut registers) = ptrace::getregs(task) else { return go_on(task, None) };
        let by_daemon = self.group(task) == self.daemon;
        let Some(call) = Call::read(task, &registers) else { return go_on(task, None) };
        let root = if by_daemon { &self.state } else { &self.system };
        let Ok(path) = call.path.strip_prefix(root).map(Path::to_owned) else { return go_on(task, None) };
        // The audit log decides nothing, and when it comes to the medium is a matter of time.
        if by_daemon && path.starts_with("audit") {
            return go_on(task, None);
        }
        // The log of calls is opened and then written; once is enough. What stands already is not made again.
        let is_log = !by_daemon && path == Path::new("calls.log") && call.name != "write";
        if is_log || call.is_void() {
            return go_on(task, None);
        }
        let text = if path == Path::new("calls.log") { call.text.clone() } else { None };
        let text = text.map(|text| Said { process: self.group(task), text });
        let point = Point { by_daemon, call: call.name, path: path.display().to_string() };
        if self.shared.armed.load(Ordering::SeqCst) && (by_daemon || !self.disturbance.is_fault()) {
            let number = self.shared.count.fetch_add(1, Ordering::SeqCst) + 1;
            self.shared.points.lock().unwrap().push(point.clone());
            if number == self.disturbance.at() {
                *self.shared.hit.lock().unwrap() = Some(point.clone());
                match self.disturbance {
                    Disturbance::Terminate(_) => {
                        self.shared.terminated.store(true, Ordering::SeqCst);
                        let _ = kill(self.daemon, Signal::SIGTERM);
                    }
                    Disturbance::Kill(_) | Disturbance::KillTwice(..) => {
                        self.kill_daemon();
                        self.logged(text);
                        return go_on(task, None);
                    }
                    Disturbance::KillHolding(_) => {
                        self.kill_daemon();
                        if by_daemon {
                            return go_on(task, None);
                        }
                        self.held.push((task, text));
                        return;
                    }
                    Disturbance::KillAfter(_) => {
                        self.logged(text);
                        self.note_durability(&call);
                        if ptrace::syscall(task, None).is_err() {
                            self.kill_daemon();
                        }
                        return;
                    }
                    Disturbance::PowerCut(_) => {
                        self.shared.end_all.store(true, Ordering::SeqCst);
                        self.kill_daemon();
                        self.kill_all();
                        return go_on(task, None);
                    }
                    Disturbance::None | Disturbance::FailOnce(..) | Disturbance::FailFrom(..) => {}
                }
            }
            let error = match self.disturbance {
                Disturbance::FailOnce(at, error) if number == at => Some(error),
                Disturbance::FailFrom(at, error)
                    if number >= at && !self.shared.lifted.load(Ordering::SeqCst) && call.can_fail_with(error) =>
                {
                    Some(error)
                }
                _ => None,
            };
            if let Some(error) = error {
                // No such call: it is skipped, and what stands in the register is its result.
                registers.orig_rax = u64::MAX;
                registers.rax = (-i64::from(error as i32)).cast_unsigned();
                let _ = ptrace::setregs(task, registers);
                return go_on(task, None);
            }
        }
        if by_daemon {
            self.note_durability(&call);
        }
        self.logged(text);
        go_on(task, None);
    }

    fn logged(&mut self, said: Option<Said>) {
        let Some(Said { process, text }) = said else { return };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["begin", who, word, ..] => drop(self.running.insert(process, format!("{who} {word}"))),
                ["end", ..] => drop(self.running.remove(&process)),
                _ => {}
            }
            self.log.lock().unwrap().push(Logged { generation: self.generation, text: line.to_owned() });
        }
    }

    /// Keeps in mind what a power cut would take back.
    fn note_durability(&self, call: &Call) {
        let is_journal = call.path.file_name().is_some_and(|name| name == "journal");
        match call.name {
            "fsync" | "fdatasync" if is_journal => {
                let bytes = fs::read(&call.path).unwrap_or_default();
                *self.shared.synced.lock().unwrap() = Some((call.path.clone(), bytes));
            }
            "fsync" => {
                let mut renamed = self.shared.renamed.lock().unwrap();
                renamed.retain(|renamed| renamed.to.parent() != Some(&call.path));
            }
            "rename" => {
                let from = call.from.clone().unwrap_or_default();
                if let Some((journal, _)) = self.shared.synced.lock().unwrap().as_mut()
                    && let Ok(below) = journal.strip_prefix(&from)
                {
                    *journal = call.path.join(below);
                }
                let before = fs::read(&call.path).ok();
                self.shared.renamed.lock().unwrap().push(Renamed { from, to: call.path.clone(), before });
            }
            _ => {}
        }
    }
}

fn go_on(task: Pid, signal: Option<Signal>) {
    // It may have been killed meanwhile; its end is reported then.
    let _ = ptrace::cont(task, signal);
}

/// What a process is about to write to the log of calls.
struct Said {
    process: Pid,
    text: String,
}
