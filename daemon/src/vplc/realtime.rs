//! Whether the threads of a runtime got the scheduling that the vPLC asks for: read back from `/proc`, because the runtime itself goes
//! on without a word if the kernel refuses it.
//!
//! A kernel with `CONFIG_RT_GROUP_SCHED` refuses real-time policies to every control group without a budget of its own, and with
//! control groups of version 2 none can have one, whatever the rights and limits of the process are.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::process::{Process, stat};
use super::spec::Spec;

/// Processes of a container that are looked at.
const PROCESSES_LIMIT: usize = 4096;
/// `SCHED_FIFO` and `SCHED_RR` of `sched(7)`, and `SCHED_DEADLINE`, which is above both.
const REAL_TIME: [u32; 3] = [1, 2, 6];

/// What a vPLC asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The highest priority that its threads may take, 1 to 99; `None` if it asks for no real time.
    pub priority: Option<u32>,
    /// Bytes of memory that it may lock; `u64::MAX` is without a limit.
    pub locked_memory: Option<u64>,
    /// The processors that its threads may run on, and no others.
    pub cpus: Option<BTreeSet<u32>>,
}

impl Wanted {
    /// What a specification asks for.
    pub fn of(spec: &Spec) -> Self {
        let limits = spec.real_time.as_ref();
        Self {
            priority: limits.map(|limits| limits.priority),
            locked_memory: limits.map(|limits| limits.locked_memory.unwrap_or(u64::MAX)),
            cpus: spec.cpuset.as_deref().and_then(cpu_list),
        }
    }

    /// Whether nothing is asked for.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grant {
    /// As asked for, seen on the threads that run.
    Granted,
    /// Less than was asked for.
    Degraded,
    /// Nothing was asked for, or no program runs whose threads could be looked at.
    #[default]
    Off,
}

impl Grant {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Degraded => "degraded",
            Self::Off => "off",
        }
    }
}

/// How it is, and why. By default it is off without a reason, as for a vPLC that does not run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RealTime {
    /// How it is.
    pub grant: Grant,
    /// Full sentences; empty if all is granted.
    pub reason: String,
}

/// One thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its name.
    pub name: String,
    /// Its policy is one of real time.
    pub real_time: bool,
    /// The processors that it may run on.
    pub cpus: BTreeSet<u32>,
}

/// What `/proc` says of the processes of a vPLC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// All threads of all processes.
    pub threads: Vec<Thread>,
    /// The limit on the priority, of the first process.
    pub priority_limit: u64,
    /// The limit on locked memory, of the first process, in bytes; `u64::MAX` is none.
    pub locked_memory_limit: u64,
}

impl Observed {
    /// Looks at the first process of a container and all that descend from it. What ends meanwhile is left out; that the first one
    /// has ended is an error.
    pub fn of(process: Process) -> io::Result<Self> {
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid))?;
        let mut observed = Self {
            threads: Vec::new(),
            priority_limit: limit(&limits, "Max realtime priority").unwrap_or(0),
            locked_memory_limit: limit(&limits, "Max locked memory").unwrap_or(0),
        };
        let (mut waiting, mut seen) = (vec![process.pid], BTreeSet::new());
        while let Some(pid) = waiting.pop() {
            if !seen.insert(pid) || seen.len() > PROCESSES_LIMIT {
                continue;
            }
            for tid in threads(pid) {
                // Whatever ends between two of these is not there.
                observed.threads.extend(thread(pid, tid));
                let children = fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
                waiting.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
            }
        }
        process.is_alive()?;
        Ok(observed)
    }
}

fn threads(pid: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn thread(pid: i32, tid: i32) -> Option<Thread> {
    let stat = stat(pid, tid).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).and_then(cpu_list)?;
    let real_time = REAL_TIME.contains(&stat.policy);
    Some(Thread { name: stat.name, real_time, cpus })
}

/// The soft limit of this name in `limits` of `proc(5)`.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Processors in the form of the kernel, such as `0-2,4`; `None` if it is malformed.
fn cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        // The kernel knows at most 8192.
        if first > last || last >= 8192 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Compares. `running` tells whether a PLC program runs: before, no thread of it has asked for a policy.
pub fn assess(wanted: &Wanted, observed: &Observed, running: bool) -> RealTime {
    let mut lacks = Vec::new();
    if let Some(cpus) = &wanted.cpus {
        let astray: Vec<&Thread> = observed.threads.iter().filter(|thread| !thread.cpus.is_subset(cpus)).collect();
        if let Some(first) = astray.first() {
            lacks.push(format!(
                "{} of its threads may run on other processors than asked for, such as \"{}\".",
                astray.len(),
                first.name
            ));
        }
    }
    if let Some(bytes) = wanted.locked_memory.filter(|bytes| *bytes > observed.locked_memory_limit) {
        let asked = if bytes == u64::MAX { "no limit".to_owned() } else { format!("{bytes}") };
        let has = observed.locked_memory_limit;
        lacks.push(format!("The limit \"memlock\" is {has} bytes, and {asked} was asked for."));
    }
    if let Some(priority) = wanted.priority {
        let limit = observed.priority_limit;
        if limit < u64::from(priority) {
            lacks.push(format!("The limit \"rtprio\" is {limit}, and {priority} was asked for."));
        }
        if running && !observed.threads.iter().any(|thread| thread.real_time) {
            lacks.push("None of its threads has a real-time policy, so the kernel has refused it.".to_owned());
        }
    }
    if wanted.is_nothing() {
        return RealTime { grant: Grant::Off, reason: "The vPLC asks for none.".to_owned() };
    }
    if lacks.is_empty() && !running {
        let reason = "No program runs whose threads could be looked at.".to_owned();
        return RealTime { grant: Grant::Off, reason };
    }
    let grant = if lacks.is_empty() { Grant::Granted } else { Grant::Degraded };
    RealTime { grant, reason: lacks.join(" ") }
}

#[cfg(test)]
mod tests;
