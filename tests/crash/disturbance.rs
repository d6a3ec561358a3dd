//! What is done to a run, and where.

use nix::errno::Errno;

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// Nothing: the points are only counted.
    None,
    /// The daemon dies before the call takes effect. Programs of Interfaces that run go on.
    Kill(usize),
    /// As [`Disturbance::Kill`], but the program that came to the point (or runs at it) stands still until the next daemon
    /// is up.
    KillHolding(usize),
    /// The daemon dies when the call has taken effect, and has not done anything else yet.
    KillAfter(usize),
    /// As [`Disturbance::Kill`], and the next daemon dies so many points after its start, in the middle of recovering.
    KillTwice(usize, usize),
    /// The daemon is told to end; it does so in its own time.
    Terminate(usize),
    /// The machine dies before the call takes effect, and with it all programs; what was not synced is lost.
    PowerCut(usize),
    /// The call fails with this error, once. Only points of the daemon are counted.
    FailOnce(usize, Errno),
    /// From here on all calls that need the medium fail with this error, until it is lifted. Only points of the daemon are
    /// counted.
    FailFrom(usize, Errno),
}

impl Disturbance {
    /// The number of its point.
    pub fn at(self) -> usize {
        match self {
            Self::None => usize::MAX,
            Self::Kill(at)
            | Self::KillHolding(at)
            | Self::KillAfter(at)
            | Self::KillTwice(at, _)
            | Self::Terminate(at)
            | Self::PowerCut(at)
            | Self::FailOnce(at, _)
            | Self::FailFrom(at, _) => at,
        }
    }

    /// The same for a daemon that starts after so many points.
    pub fn after(self, points: usize) -> Self {
        match self {
            Self::None => Self::None,
            Self::Kill(at) => Self::Kill(at.saturating_sub(points)),
            Self::KillHolding(at) => Self::KillHolding(at.saturating_sub(points)),
            Self::KillAfter(at) => Self::KillAfter(at.saturating_sub(points)),
            Self::KillTwice(at, then) => Self::KillTwice(at.saturating_sub(points), then),
            Self::Terminate(at) => Self::Terminate(at.saturating_sub(points)),
            Self::PowerCut(at) => Self::PowerCut(at.saturating_sub(points)),
            Self::FailOnce(at, error) => Self::FailOnce(at.saturating_sub(points), error),
            Self::FailFrom(at, error) => Self::FailFrom(at.saturating_sub(points), error),
        }
    }

    /// What is left of it once it was met.
    pub fn met(self) -> Self {
        match self {
            Self::KillTwice(_, then) => Self::Kill(then),
            _ => Self::None,
        }
    }

    /// The medium fails; nobody dies.
    pub fn is_fault(self) -> bool {
        matches!(self, Self::FailOnce(..) | Self::FailFrom(..))
    }
}

/// A system call that changes a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Made by the daemon, not by the program of an Interface.
    pub by_daemon: bool,
    /// Its name.
    pub call: &'static str,
    /// The file, below the state directory or the directory of the Components.
    pub path: String,
}

impl std::fmt::Display for Point {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} {}", if self.by_daemon { "daemon" } else { "script" }, self.call, self.path)
    }
}
