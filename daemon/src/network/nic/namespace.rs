//! The network namespace of a NIC: found by a path or a process, and watched until it is another one.

use std::fs::{self, File, OpenOptions};
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How a namespace is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A file such as `/run/netns/plant`. Whatever namespace is there is meant.
    Path(PathBuf),
    /// That of the daemon itself.
    Host,
    /// The namespace of a process.
    Process {
        /// Its number.
        pid: i32,
        /// When it was started, in ticks since the host was: tells it from a later process with the same number.
        started: u64,
    },
}

impl Target {
    /// The process with this number, if it runs.
    pub fn process(pid: i32) -> io::Result<Self> {
        Ok(Self::Process { pid, started: started(pid)? })
    }
}

/// When a process was started (`proc(5)`, field 22 of `stat`). The name before it may hold anything.
fn started(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    field.and_then(|field| field.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// An open network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    /// Device and inode, which no other namespace has while this one is open.
    identity: (u64, u64),
    /// Tells of the end of the process, if it was found by one.
    process: Option<AsyncFd<OwnedFd>>,
}

impl Namespace {
    /// Opens the namespace. Has to be called inside the runtime.
    pub fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::Path(path) => Self::of(path, None),
            Target::Host => Self::of(Path::new("/proc/self/ns/net"), None),
            Target::Process { pid, started: expected } => {
                let process = Pid::from_raw(*pid).ok_or(io::ErrorKind::NotFound)?;
                let process = pidfd_open(process, PidfdFlags::NONBLOCK)?;
                let namespace =
                    Self::of(Path::new(&format!("/proc/{pid}/ns/net")), Some(watched(process, Interest::READABLE)?))?;
                // Only now, so that the number cannot have changed hands in between.
                if started(*pid)? == *expected { Ok(namespace) } else { Err(io::ErrorKind::NotFound.into()) }
            }
        }
    }

    /// Whether it is the daemon's own.
    pub fn is_home(&self) -> io::Result<bool> {
        Ok(Self::open(&Target::Host)?.identity == self.identity)
    }

    fn of(path: &Path, process: Option<AsyncFd<OwnedFd>>) -> io::Result<Self> {
        // To open a device may do something, so it is first looked at without opening it.
        let looked_at = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path)?;
        if fstatfs(&looked_at)?.filesystem_type() != NSFS_MAGIC {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is no namespace"));
        }
        let file = File::open(format!("/proc/self/fd/{}", looked_at.as_raw_fd()))?;
        let metadata = file.metadata()?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()), process })
    }

    /// Runs `work` in the namespace, on a thread that ends with it. What it opens stays in the namespace and can be used
    /// from everywhere; the runtime is that of the caller.
    pub fn inside<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let runtime = tokio::runtime::Handle::current();
        let entered = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let _runtime = runtime.enter();
            work()
        };
        let ended = thread::scope(|scope| Ok(thread::Builder::new().spawn_scoped(scope, entered)?.join()));
        ended.and_then(|ended| ended.unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked"))))
    }

    /// Returns when the target leads to another namespace, or to none.
    pub async fn replaced(&self, target: &Target) -> io::Result<()> {
        match (&self.process, target) {
            (Some(process), _) => drop(process.readable().await?),
            (None, Target::Path(path)) => {
                let mounts = Mounts::new()?;
                while fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == self.identity) {
                    mounts.changed().await?;
                }
            }
            (None, Target::Process { .. } | Target::Host) => pending().await,
        }
        Ok(())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Has the runtime watch a descriptor.
#[expect(
    deprecated,
    reason = "an owned descriptor stays the same one, which is all that the unsafe successor asks for"
)]
pub(super) fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

/// Returns with the namespace once it is there.
pub async fn appeared(target: &Target) -> io::Result<Namespace> {
    let mounts = Mounts::new()?;
    loop {
        match Namespace::open(target) {
            Ok(namespace) => return Ok(namespace),
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => {}
            Err(error) => return Err(error),
        }
        match target {
            // A namespace gets its path by a mount.
            Target::Path(_) => mounts.changed().await?,
            // A process that has ended does not come back, and the daemon outlives nothing here.
            Target::Process { .. } | Target::Host => pending().await,
        }
    }
}

/// Tells of changes of the mounts (`proc(5)`, `mountinfo`), without polling.
struct Mounts(AsyncFd<OwnedFd>);

impl Mounts {
    fn new() -> io::Result<Self> {
        Ok(Self(watched(File::open("/proc/self/mountinfo")?.into(), Interest::PRIORITY)?))
    }

    async fn changed(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}
