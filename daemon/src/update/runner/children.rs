//! Whether processes of a call were left behind, without a look at every process of the machine.
//!
//! The daemon is a "child subreaper": a process whose parent ends becomes a child of the daemon, whatever group, session or
//! environment it has given itself. So when the program of a call has ended and the daemon has no child but those it has
//! started itself, nothing of the call is left.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The children that the daemon has started itself and not reaped yet.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own_children() -> MutexGuard<'static, BTreeSet<i32>> {
    // A set is whole after every statement.
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that the daemon has started itself. To be dropped when it has been reaped.
#[derive(Debug)]
pub struct Own(i32);

impl Own {
    /// Registers a child that was started just now.
    pub fn new(child: Pid) -> Self {
        own_children().insert(child.as_raw());
        Self(child.as_raw())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        own_children().remove(&self.0);
    }
}

/// Has orphans become children of the daemon; to be called before anything is started. Returns whether the system does so.
pub fn adopt_orphans() -> bool {
    static DONE: OnceLock<bool> = OnceLock::new();
    *DONE.get_or_init(|| set_child_subreaper(true).is_ok())
}

/// Whether the daemon has children that it has not started itself. Those that have ended are reaped. `None`: the kernel does
/// not tell (it was built without `CONFIG_PROC_CHILDREN`).
pub fn any_orphan() -> Option<bool> {
    if !adopt_orphans() {
        return None;
    }
    let process = std::process::id();
    // Orphans are given to the first thread that lives, and the first one lives as long as the process.
    let children = std::fs::read_to_string(format!("/proc/self/task/{process}/children")).ok()?;
    let own = own_children();
    let strange = children.split_ascii_whitespace().filter_map(|id| id.parse().ok()).filter(|id| !own.contains(id));
    let mut left = false;
    for id in strange {
        match waitpid(Pid::from_raw(id), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => left = true,
            Ok(_) | Err(Errno::ECHILD) => {}
            Err(_) => return None,
        }
    }
    Some(left)
}
