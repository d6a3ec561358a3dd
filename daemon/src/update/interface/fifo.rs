//! FIFOs between the daemon and a script, so that neither the end of the script nor of the daemon's patience can leave
//! the other side hanging.
//!
//! The writing side blocks where blocking is the protocol: in `open`, until the script opens the FIFO for reading, and
//! while the pipe is full. [`Gate::release`] ends both for good.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::tree::{TreeError, refused};

/// Bytes that a FIFO may hold; what the kernel allows everybody.
const PIPE_SIZE: i32 = 1024 * 1024;

/// Holds the writing side back until it is released.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<GateState>,
    /// Readable, at its end, from the release on.
    released: PipeReader,
}

#[derive(Debug)]
struct GateState {
    /// Dropped by the release.
    hold: Option<PipeWriter>,
    /// The FIFO whose opening may block at the moment.
    opening: Option<OwnedFd>,
    /// The other end of that FIFO, held open until nobody needs it any more.
    other_end: Option<File>,
}

/// The gate was released while waiting, or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Interface program has ended")]
pub(super) struct Released;

/// Why an open FIFO was not got.
#[derive(Debug)]
pub(super) enum OpenError {
    Released,
    Refused(TreeError),
}

impl Gate {
    /// A gate that is not released.
    pub(super) fn new() -> io::Result<Self> {
        let (released, hold) = io::pipe()?;
        Ok(Self { state: Mutex::new(GateState { hold: Some(hold), opening: None, other_end: None }), released })
    }

    /// Ends all waiting, now and later.
    pub(super) fn release(&self) {
        let mut state = self.lock();
        state.hold = None;
        if let Some(fifo) = &state.opening {
            // The writer may be in `open` or just before it; with the other end held open it passes either way, and
            // then sees that the gate is released. An error can only mean that there is no FIFO to wait for.
            state.other_end = open_read_end(fifo).ok();
        }
    }

    /// Whether the gate has been released.
    pub(super) fn is_released(&self) -> bool {
        self.lock().hold.is_none()
    }

    /// Waits for the release.
    pub(super) fn wait(&self) {
        let mut ends = [PollFd::new(self.released.as_fd(), PollFlags::POLLIN)];
        while !self.is_released() {
            // Interrupted or not, the flag decides.
            let _ = poll(&mut ends, PollTimeout::NONE);
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        // Every field is valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A FIFO in the file system. It is held by its inode: a script that removes or replaces the entry does not confuse us.
#[derive(Debug)]
pub(super) struct Fifo {
    inode: OwnedFd,
    path: PathBuf,
}

impl Fifo {
    /// Makes a FIFO here that only we may use.
    pub(super) fn create(path: &Path) -> Result<Self, TreeError> {
        mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|error| refused("create", path)(error.into()))?;
        let flags = (OFlag::O_PATH | OFlag::O_NOFOLLOW).bits();
        let inode = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(refused("open", path))?;
        Ok(Self { inode: inode.into(), path: path.to_owned() })
    }

    /// Opens the FIFO for writing as soon as somebody opens it for reading.
    pub(super) fn open(&self, gate: &Arc<Gate>) -> Result<FifoWriter, OpenError> {
        let failed = |error: io::Error| OpenError::Refused(refused("open", &self.path)(error));
        {
            let mut state = gate.lock();
            if state.hold.is_none() {
                return Err(OpenError::Released);
            }
            state.opening = Some(self.inode.try_clone().map_err(failed)?);
        }
        let opened = OpenOptions::new().write(true).open(link(&self.inode));
        let mut state = gate.lock();
        state.opening = None;
        if state.hold.is_none() {
            return Err(OpenError::Released);
        }
        let file = opened.map_err(failed)?;
        // From here on blocking would be for a full pipe, and that is done by `poll`, where the release is seen.
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| failed(error.into()))?;
        // Fewer switches between us and the reader. The system may refuse, and then it is only slower.
        let _ = fcntl(&file, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        let unread = self.inode.try_clone().map_err(failed)?;
        Ok(FifoWriter { file, inode: unread, gate: Arc::clone(gate) })
    }
}

/// The writing end of a FIFO. The reader sees the end of the file when this is dropped.
#[derive(Debug)]
pub(super) struct FifoWriter {
    file: File,
    inode: OwnedFd,
    gate: Arc<Gate>,
}

impl FifoWriter {
    /// Closes the writing end; what this returns tells later whether all has been read.
    pub(super) fn close(self) -> io::Result<Unread> {
        // Opened while the writing end is still open, so that it is this pipe with what is in it.
        open_read_end(&self.inode).map(Unread)
    }
}

impl Write for FifoWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.gate.is_released() {
                return Err(io::Error::other(Released));
            }
            match self.file.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            let mut ends = [
                PollFd::new(self.file.as_fd(), PollFlags::POLLOUT),
                PollFd::new(self.gate.released.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut ends, PollTimeout::NONE);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A FIFO that is written completely. Holding it keeps what its reader has not read yet from vanishing.
#[derive(Debug)]
pub(super) struct Unread(File);

impl Unread {
    /// Whether there is something that nobody has read. Takes nothing out: a slow reader may still come to it.
    pub(super) fn anything(&self) -> bool {
        let mut ends = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ends, PollTimeout::ZERO);
        ends[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
    }
}

/// Opens the other end without waiting for anybody.
fn open_read_end(inode: &OwnedFd) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(link(inode))
}

/// A path that leads to the inode itself, whatever its entry is called now.
fn link(inode: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", inode.as_raw_fd()))
}

#[cfg(test)]
mod tests;
