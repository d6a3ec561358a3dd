//! Control groups of both versions, and the counters of a network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::vplc::process::Process;

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// What the kernel says about a container at one moment. What it does not say is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Time that processors have spent on it.
    pub cpu: Option<Duration>,
    /// Bytes of memory that it holds, without the pages of files that the kernel would give up.
    pub memory: Option<u64>,
    /// Bytes that its links have received, without the loopback.
    pub received: Option<u64>,
    /// Bytes that they have sent.
    pub sent: Option<u64>,
}

impl Reading {
    /// Looks at the container of this process. That the process has ended is an error.
    pub fn of(process: Process) -> io::Result<Self> {
        let pid = process.pid;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let links = fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
        let reading = Self::from(Path::new(GROUPS), &groups, &links);
        process.is_alive()?;
        Ok(reading)
    }

    /// From the files `cgroup` and `net/dev` of `proc(5)`.
    pub(super) fn from(root: &Path, groups: &str, links: &str) -> Self {
        let (received, sent) = traffic(links).unzip();
        let place = |controller| Place::of(root, groups, controller);
        let cpu = place("cpuacct").and_then(|place| place.cpu());
        Self { cpu, memory: place("memory").and_then(|place| place.memory()), received, sent }
    }

    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        self.cpu.as_ref().map(Duration::as_secs_f64)
    }
}

/// The directory in which a controller tells about a group.
enum Place {
    /// Of a hierarchy of version 1.
    First(PathBuf),
    /// Of the one of version 2.
    Second(PathBuf),
}

impl Place {
    fn of(root: &Path, groups: &str, controller: &str) -> Option<Self> {
        let lines = || groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        // Paths are relative to where the hierarchy is mounted.
        let below = |mount: PathBuf, path: &str| mount.join(path.trim_start_matches('/'));
        let first = lines().find(|(names, _)| names.split(',').any(|name| name == controller));
        if let Some((_, path)) = first {
            return Some(Self::First(below(root.join(controller), path)));
        }
        let (_, path) = lines().find(|(names, _)| names.is_empty())?;
        let mixed = root.join("unified");
        Some(Self::Second(below(if mixed.is_dir() { mixed } else { root.to_owned() }, path)))
    }

    fn cpu(&self) -> Option<Duration> {
        match self {
            Self::First(group) => Some(Duration::from_nanos(number(&group.join("cpuacct.usage"))?)),
            Self::Second(group) => Some(Duration::from_micros(entry(&group.join("cpu.stat"), "usage_usec")?)),
        }
    }

    fn memory(&self) -> Option<u64> {
        let (all, table, prefix) = match self {
            Self::First(group) => (group.join("memory.usage_in_bytes"), group.join("memory.stat"), "total_"),
            Self::Second(group) => (group.join("memory.current"), group.join("memory.stat"), ""),
        };
        // Pages of shared memory count as files, too, but are not on these lists.
        let pages = |list| entry(&table, &format!("{prefix}{list}_file"));
        Some(number(&all)?.saturating_sub(pages("active")?).saturating_sub(pages("inactive")?))
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind this word in a table of two columns.
fn entry(file: &Path, word: &str) -> Option<u64> {
    let table = fs::read_to_string(file).ok()?;
    table.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))?.trim().parse().ok()
}

/// Bytes received and sent by all links but the loopback.
fn traffic(links: &str) -> Option<(u64, u64)> {
    let mut sum = (0_u64, 0_u64);
    // Two lines of headings.
    for line in links.lines().skip(2) {
        let (name, columns) = line.split_once(':')?;
        let columns: Vec<&str> = columns.split_whitespace().collect();
        let column = |index: usize| columns.get(index)?.parse::<u64>().ok();
        let (received, sent) = (column(0)?, column(8)?);
        if name.trim() != "lo" {
            sum = (sum.0.saturating_add(received), sum.1.saturating_add(sent));
        }
    }
    Some(sum)
}
