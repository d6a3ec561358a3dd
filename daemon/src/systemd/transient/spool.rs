//! Carries what a call prints from a unit to us, also when "us" changes meanwhile.
//!
//! Each stream is a FIFO in a private directory. The end that the unit gets is open for reading *and* writing: so no
//! write fails while no daemon reads, and when the unit ends, PID 1 (which keeps that end as long as it keeps the unit)
//! keeps what was not read yet. What a pipe holds is bounded, so a program that prints without end while no daemon
//! reads waits for the next daemon (or for its time-out) and fills neither disk nor memory, which a file would let it do.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::net::unix::pipe::{OpenOptions as PipeOptions, Receiver};

/// How many bytes a program can print ahead of us, per stream. Generous, since a package manager that replaces this
/// very daemon goes on printing while no daemon reads.
const CAPACITY: i32 = 256 * 1024;
/// More than this is not taken out of a stream after all processes of the call have ended: somebody else, in another
/// unit, holds it and goes on writing.
const REST_LIMIT: usize = 4 * 256 * 1024;

/// The directory with the FIFOs.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
}

/// Both streams of a call, our end.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) stdout: Outlet,
    pub(super) stderr: Outlet,
}

/// Both streams of a call, the end of the unit.
#[derive(Debug)]
pub(super) struct Inlets {
    pub(super) stdout: File,
    pub(super) stderr: File,
}

/// One stream, our end.
#[derive(Debug)]
pub(super) struct Outlet(Option<Receiver>);

impl Spool {
    /// Uses this directory, and makes it with what is above it if need be. Its file system must not outlive a reboot.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory })
    }

    /// Both streams of a new call.
    pub(super) fn make(&self, tag: &str) -> io::Result<(Inlets, Outlets)> {
        let (stdout, from_stdout) = make(&self.stdout(tag))?;
        let (stderr, from_stderr) = make(&self.stderr(tag))?;
        Ok((Inlets { stdout, stderr }, Outlets { stdout: from_stdout, stderr: from_stderr }))
    }

    /// Both streams of a call that somebody before us made, as far as they are there.
    pub(super) fn find(&self, tag: &str) -> Outlets {
        let find = |path: &Path| match PipeOptions::new().open_receiver(path) {
            Ok(receiver) => Outlet(Some(receiver)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what the call prints from now on is lost");
                Outlet(None)
            }
        };
        Outlets { stdout: find(&self.stdout(tag)), stderr: find(&self.stderr(tag)) }
    }

    /// Removes what is left of a call.
    pub(super) fn remove(&self, tag: &str) {
        for path in [self.stdout(tag), self.stderr(tag)] {
            if let Err(error) = remove(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove");
            }
        }
    }

    /// The calls that somebody before us made, or began to make.
    pub(super) fn tags(&self) -> io::Result<Vec<String>> {
        let mut tags = Vec::new();
        for entry in self.directory.read_dir()? {
            let name = entry?.file_name();
            tags.extend(name.to_str().and_then(|name| name.strip_suffix(".out")).map(str::to_owned));
        }
        Ok(tags)
    }

    fn stdout(&self, tag: &str) -> PathBuf {
        self.directory.join(format!("{tag}.out"))
    }

    fn stderr(&self, tag: &str) -> PathBuf {
        self.directory.join(format!("{tag}.err"))
    }
}

impl Outlets {
    /// Streams that have ended.
    pub(super) fn closed() -> Self {
        Self { stdout: Outlet(None), stderr: Outlet(None) }
    }
}

impl Outlet {
    /// Waits for the next bytes; for ever when there can be none any more.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> usize {
        while let Some(receiver) = &self.0 {
            let read = match receiver.readable().await {
                Ok(()) => receiver.try_read(buffer),
                Err(error) => Err(error),
            };
            match read {
                Ok(0) => self.0 = None,
                Ok(read) => return read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot read the output of a call");
                    self.0 = None;
                }
            }
        }
        std::future::pending().await
    }

    /// Takes what is left when all processes of the call have ended.
    pub(super) fn rest(self, mut take: impl FnMut(&[u8])) {
        let Some(receiver) = self.0 else { return };
        let mut buffer = [0; 8192];
        let mut taken = 0;
        while taken < REST_LIMIT {
            // Not through the runtime, which says "not ready" as long as it has not looked at the descriptor again.
            match nix::unistd::read(&receiver, &mut buffer) {
                Ok(0) | Err(Errno::EAGAIN) => return,
                Ok(read) => {
                    taken += read;
                    take(&buffer[..read]);
                }
                Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot read the output of a call");
                    return;
                }
            }
        }
    }
}

fn make(path: &Path) -> io::Result<(File, Outlet)> {
    remove(path)?;
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Before our end, which otherwise sees the end of the stream at once. No O_NONBLOCK: programs do not expect it.
    let inlet = OpenOptions::new().read(true).write(true).open(path)?;
    // Refused to an unprivileged daemon with many pipes; then it is what the kernel gives everybody.
    if let Err(error) = fcntl(&inlet, FcntlArg::F_SETPIPE_SZ(CAPACITY)) {
        tracing::debug!(%error, "a call gets a small pipe");
    }
    let outlet = PipeOptions::new().open_receiver(path)?;
    Ok((inlet, Outlet(Some(outlet))))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
