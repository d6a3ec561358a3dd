//! When DHCP messages go over the wire.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use orchestrator_tests::namespace::Namespace;

/// `DHCPDISCOVER` and `DHCPACK` (RFC 2132, 9.6).
pub const DISCOVER: u8 = 1;
/// See [`DISCOVER`].
pub const ACK: u8 = 5;

/// Looks at what a namespace sends and receives, until this is dropped.
pub struct Wire {
    seen: Arc<Mutex<Vec<(u8, Instant)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Begins; nothing that is sent after this returns is missed.
    pub fn start(net: &Namespace) -> anyhow::Result<Self> {
        let namespace = File::open(net.path())?;
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (to, end) = (seen.clone(), stop.clone());
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let opened = setns(namespace, CloneFlags::CLONE_NEWNET).and_then(|()| {
                let all = Some(SockProtocol::EthAll);
                let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)?;
                setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20))?;
                Ok(socket)
            });
            let Ok(socket) = opened else { return };
            if ready.send(()).is_err() {
                return;
            }
            let mut frame = [0; 2048];
            while !end.load(Ordering::Relaxed) {
                let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) else { continue };
                let now = Instant::now();
                if let Some(kind) = frame.get(..length).and_then(dhcp) {
                    to.lock().unwrap_or_else(PoisonError::into_inner).push((kind, now));
                }
            }
        });
        is_ready.recv().context("the wire cannot be looked at")?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// When the last message of this kind was seen.
    pub fn last(&self, kind: u8) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().rev().find(|(one, _)| *one == kind).map(|(_, at)| *at)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The kind of a DHCP message in an Ethernet frame without options of IPv4. Client and server here put it first.
fn dhcp(frame: &[u8]) -> Option<u8> {
    let ports = frame.get(34..38)?;
    let is_dhcp =
        frame.get(12..14)? == [8, 0] && frame[23] == 17 && (ports == [0, 67, 0, 68] || ports == [0, 68, 0, 67]);
    match frame.get(282..285)? {
        [53, 1, kind] if is_dhcp => Some(*kind),
        _ => None,
    }
}
