//! Sockets for packets, which take their time to close.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

/// A packet socket (`packet(7)`). To close one, the kernel waits until no processor uses it any more (`synchronize_net`), which takes
/// 10 to 30 ms. Nobody else shall wait that long, so that is done aside.
#[derive(Debug)]
pub struct PacketSocket(Option<OwnedFd>);

impl PacketSocket {
    /// Has the runtime watch a socket.
    #[expect(
        deprecated,
        reason = "an owned descriptor stays the same one, which is all that the unsafe successor asks for"
    )]
    pub fn watched(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<Self>> {
        AsyncFd::with_interest(Self(Some(socket)), interest)
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        // It is there until it is dropped.
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        let socket = self.0.take();
        // Without a runtime nobody is kept waiting.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(socket)));
        }
    }
}
