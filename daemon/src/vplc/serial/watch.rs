//! Tells when a serial port is plugged in or pulled, without polling.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::ports::{Port, Ports};

/// Keeps `ports` in step with what is plugged in. Ends only with an error, and is to be dropped to end it.
pub async fn follow(place: &Ports, ports: &watch::Sender<BTreeMap<String, Port>>) -> io::Result<Infallible> {
    loop {
        let watched = Watched::new(place)?;
        // Looked at after the watch is in place, so nothing is missed in between.
        loop {
            let found = place.list();
            ports.send_if_modified(|known| {
                let changed = *known != found;
                *known = found;
                changed
            });
            if !watched.is_nearest(place) {
                break;
            }
            watched.changed().await?;
        }
    }
}

/// A watch on the nearest directory that is there: no adapter has ever been plugged in where there is no `/dev/serial`. Only this one
/// is watched, so that other devices wake nobody.
struct Watched {
    events: AsyncFd<OwnedFd>,
    depth: usize,
}

impl Watched {
    #[expect(
        deprecated,
        reason = "an owned descriptor stays the same one, which is all that the unsafe successor asks for"
    )]
    fn new(place: &Ports) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (depth, directory) in place.directories().iter().enumerate().rev() {
            match inotify::add_watch(&events, directory, flags) {
                Ok(_) => return Ok(Self { events: AsyncFd::with_interest(events, Interest::READABLE)?, depth }),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// Whether no directory that is nearer, and none in place of this one, has come since.
    fn is_nearest(&self, place: &Ports) -> bool {
        let directories = place.directories();
        directories.get(self.depth + 1).is_none_or(|nearer| !nearer.is_dir()) && directories[self.depth].is_dir()
    }

    /// Waits for a change of the directory. What it was does not matter.
    async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = self.events.readable().await?;
            let mut changed = false;
            loop {
                match rustix::io::read(self.events.get_ref(), &mut buffer) {
                    Ok(read) => changed |= read > 0,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if changed {
                return Ok(());
            }
        }
    }
}
