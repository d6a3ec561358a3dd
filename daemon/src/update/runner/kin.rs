//! Finds and ends the processes of a call that runs as a plain process.
//!
//! A process belongs to the call if it carries the tag in its environment, is in the process group of the program, or
//! descends from one that does. The tag is what finds a process that left the group with `setsid` and whose parent is
//! gone; group and descent find one whose environment was cleared. Only a process that did all three is lost, and
//! holding those too takes a control group, that is the runner of systemd.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::time::sleep;

use super::{TAG_VARIABLE, children};

/// How often one looks whether processes that were told to end have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Time after SIGKILL in which a process has to vanish; one that hangs in the kernel does not.
const VANISH_LIMIT: Duration = Duration::from_secs(10);

/// How often one looks for processes that were forked while the others were being stopped. Stopped ones fork no more, so
/// few rounds suffice unless there are very many.
const FREEZE_ROUNDS: usize = 100;

/// The processes of one call.
#[derive(Debug, Clone)]
pub(super) struct Kin {
    /// `NAME=tag`, as it stands in the environment.
    mark: Vec<u8>,
    /// The program itself, which leads its process group. It must not be reaped while this is in use: until then its
    /// number, and so that of the group, cannot be given to a stranger.
    leader: Option<Pid>,
}

/// A process as `/proc` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    id: i32,
    parent: i32,
    group: i32,
    /// Neither a zombie nor dead.
    alive: bool,
}

impl Kin {
    /// The processes that carry this tag and, if known, those of its program.
    pub(super) fn new(tag: &str, leader: Option<Pid>) -> Self {
        Self { mark: format!("{TAG_VARIABLE}={tag}").into_bytes(), leader }
    }

    /// Sends a signal to all processes there are now; returns how many.
    pub(super) fn signal(&self, signal: Signal) -> usize {
        let found = self.find();
        send(&found, signal);
        found.len()
    }

    /// Ends all processes: SIGTERM, `grace`, SIGKILL, until none is left. `Err` tells how many could not be ended.
    pub(super) async fn end(&self, grace: Duration) -> Result<(), usize> {
        // Nearly always nothing is left, and to find that out costs the same however many processes the machine has.
        if self.leader.is_some_and(has_ended) && children::any_orphan() == Some(false) {
            return Ok(());
        }
        if self.aside(Self::terminate).await == 0 {
            return Ok(());
        }
        let patience = Instant::now() + grace;
        while Instant::now() < patience {
            sleep(LOOK_AGAIN.min(grace)).await;
            if self.aside(|kin| kin.find().len()).await == 0 {
                return Ok(());
            }
        }
        let patience = Instant::now() + VANISH_LIMIT;
        loop {
            let left = self.aside(|kin| kin.signal(Signal::SIGKILL)).await;
            if left == 0 {
                return Ok(());
            }
            if Instant::now() >= patience {
                return Err(left);
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Sends SIGTERM to every process there is at one moment; returns how many.
    ///
    /// A child that is forked between the look and the signal would get none, and would be waited for in vain. So all
    /// are stopped first, until no new one shows up. What a script starts when it handles SIGTERM, to tidy up, is left
    /// to do so.
    fn terminate(&self) -> usize {
        let mut stopped: Vec<Pid> = Vec::new();
        for _ in 0..FREEZE_ROUNDS {
            let fresh: Vec<Pid> = self.find().into_iter().filter(|process| !stopped.contains(process)).collect();
            if fresh.is_empty() {
                break;
            }
            send(&fresh, Signal::SIGSTOP);
            stopped.extend(fresh);
        }
        send(&stopped, Signal::SIGTERM);
        send(&stopped, Signal::SIGCONT);
        stopped.len()
    }

    /// All living processes of the call.
    fn find(&self) -> Vec<Pid> {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        // Whatever a call did to its environment or its group, it is neither the daemon nor the init process.
        let processes: Vec<Process> =
            processes().into_iter().filter(|process| process.id > 1 && process.id != own).collect();
        let mut kin: HashSet<i32> = processes
            .iter()
            .filter(|process| {
                let led = self.leader.is_some_and(|leader| process.group == leader.as_raw());
                led || (process.alive && carries(process.id, &self.mark))
            })
            .map(|process| process.id)
            .collect();
        // A child may stand before its parent in the list, so go over it until nothing is added.
        loop {
            let known = kin.len();
            for process in &processes {
                if kin.contains(&process.parent) {
                    kin.insert(process.id);
                }
            }
            if kin.len() == known {
                break;
            }
        }
        processes
            .iter()
            .filter(|process| process.alive && kin.contains(&process.id))
            .map(|process| Pid::from_raw(process.id))
            .collect()
    }

    /// Does this in a thread of its own: reading all of /proc takes milliseconds, in which other calls want to be served.
    async fn aside(&self, look: impl FnOnce(&Self) -> usize + Send + 'static) -> usize {
        let kin = self.clone();
        tokio::task::spawn_blocking(move || look(&kin)).await.unwrap_or(0)
    }
}

/// Whether the program, not reaped yet, has ended.
fn has_ended(leader: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    waitid(Id::Pid(leader), flags).is_ok_and(|status| status != WaitStatus::StillAlive)
}

fn send(processes: &[Pid], signal: Signal) {
    for &process in processes {
        // It may have ended meanwhile.
        let _ = kill(process, signal);
    }
}

fn processes() -> Vec<Process> {
    let Ok(directory) = std::fs::read_dir("/proc") else { return Vec::new() };
    directory
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|id| parse_stat(id, &std::fs::read(format!("/proc/{id}/stat")).ok()?))
        .collect()
}

/// Reads `/proc/<id>/stat`: the name in parentheses can hold anything, so count from the last parenthesis.
fn parse_stat(id: i32, stat: &[u8]) -> Option<Process> {
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace();
    let alive = !matches!(fields.next()?, "Z" | "X" | "x");
    Some(Process { id, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()?, alive })
}

fn carries(id: i32, mark: &[u8]) -> bool {
    std::fs::read(format!("/proc/{id}/environ"))
        .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|entry| entry == mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_confuse() {
        let stat = b"42 (a) S 1 (b)) R 7 40 40 0 -1 4194560";
        assert_eq!(parse_stat(42, stat), Some(Process { id: 42, parent: 7, group: 40, alive: true }));
        assert_eq!(parse_stat(42, b"42 (sh) Z 7 40 40"), Some(Process { id: 42, parent: 7, group: 40, alive: false }));
        assert_eq!(parse_stat(42, b"42 (sh"), None);
        assert_eq!(parse_stat(42, b"42 (sh) S"), None);
    }

    #[test]
    fn nothing_is_found_for_a_tag_nobody_carries() {
        assert_eq!(Kin::new("kin-test-nobody", None).find(), Vec::new());
    }
}
