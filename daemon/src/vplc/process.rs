//! A process of a vPLC, told from a later one with the same number.

use std::fs;
use std::io;

use super::engine::{Condition, Engine, Role};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number in the process namespace of the daemon.
    pub pid: i32,
    /// When it was started, in clock ticks since the host was.
    started: u64,
}

impl Process {
    /// The process that has this number now. Whoever has the number from a container engine asks the engine again afterwards: if
    /// the number is still the same, this is the process that was meant.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, started: stat(pid, pid)?.started })
    }

    /// The first process of a container, if that runs and the engine can be asked.
    pub async fn of_container(engine: &dyn Engine, vplc: &str, role: Role) -> Option<Self> {
        let ask = async || match engine.find(vplc, role).await.ok()??.condition {
            Condition::Running { pid, .. } => Some(pid),
            _ => None,
        };
        let pid = ask().await?;
        let process = Self::of(pid).ok()?;
        // The same number again, so it had not changed hands when it was looked at.
        (ask().await? == pid).then_some(process)
    }

    /// An error if the process has ended.
    pub fn is_alive(&self) -> io::Result<()> {
        if stat(self.pid, self.pid)?.started == self.started { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// What `proc(5)` tells of a thread in its file `stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    /// The name of the thread.
    pub name: String,
    /// Ticks since the host was started.
    pub started: u64,
    /// Number of the policy.
    pub policy: u32,
}

/// Reads it. The main thread of a process has the number of the process.
pub(super) fn stat(pid: i32, tid: i32) -> io::Result<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat"))?).ok_or(io::ErrorKind::InvalidData.into())
}

/// The name may hold anything, also brackets and blanks.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    // The first one is the third of the manual page.
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat { name, started: field(22)?, policy: field(41).and_then(|policy| u32::try_from(policy).ok())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_mislead() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let stat = parse_stat(&format!("17 (a) (b) S {}\n", fields.join(" "))).unwrap();
        assert_eq!(stat, Stat { name: "a) (b".to_owned(), started: 22, policy: 41 });
        assert_eq!(parse_stat("17 (a"), None);
        assert_eq!(parse_stat("17 (a) S 1 2"), None);
    }

    #[test]
    fn a_process_is_known_again_until_it_ends() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = Process::of(pid).unwrap();
        own.is_alive().unwrap();
        let other = Process { started: own.started + 1, ..own };
        assert!(other.is_alive().is_err());
        assert!(Process::of(i32::MAX).is_err());
    }
}
