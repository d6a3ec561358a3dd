//! Gets messages onto the wire and answers off it, in the namespace of the NIC, while an answer is waited for.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, recv, send, sendto, setsockopt, socket, sockopt,
};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::namespace::Namespace;
use super::super::packets::PacketSocket;
use super::super::probe::on_link;
use super::frame::{self, CLIENT_PORT, IPV4, SERVER_PORT};
use super::message::{Identity, Incoming, Outgoing, Saying};
use crate::network::address::Mac;

/// Longest frame that is read.
const FRAME: usize = 2048;
/// The station that stands for all of a link.
const EVERYBODY: Mac = Mac([0xff; 6]);

/// Lets nothing wake us up but UDP to the port of the clients: `udp dst port 68` and not a later piece of a packet.
fn only_answers() -> [SockFilter; 11] {
    let load_half = |at| SockFilter::new(0x28, 0, 0, at);
    [
        load_half(12),
        SockFilter::new(0x15, 0, 8, u32::from(IPV4)),
        SockFilter::new(0x30, 0, 0, 23),
        SockFilter::new(0x15, 0, 6, 17),
        load_half(20),
        SockFilter::new(0x45, 4, 0, 0x1fff),
        // Four times the length of the header of IPv4.
        SockFilter::new(0xb1, 0, 0, 14),
        SockFilter::new(0x48, 0, 0, 16),
        SockFilter::new(0x15, 0, 1, u32::from(CLIENT_PORT)),
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ]
}

/// The link that a client speaks over.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its namespace.
    pub namespace: BorrowedFd<'a>,
    /// Its number.
    pub link: u32,
    /// Its name.
    pub name: &'a str,
}

/// An open way to the servers.
#[derive(Debug)]
pub struct Transport {
    packets: AsyncFd<PacketSocket>,
    /// With an address on the link: takes what comes to it, so that the kernel does not tell the server that nobody is
    /// there, and sends to a server by the routes of the namespace. None if the port is not to be had.
    port: Option<OwnedFd>,
}

impl Transport {
    /// Opens it. `own` is the address that is on the link. Has to be called inside the runtime.
    pub fn open(place: Place<'_>, own: Option<Ipv4Addr>) -> io::Result<Self> {
        let (packets, port) = Namespace::inside(place.namespace, || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let packets = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
            // Nothing is received before the socket is bound, so nothing slips by the filter.
            SockRef::from(&packets).attach_filter(&only_answers())?;
            bind(packets.as_raw_fd(), &on_link(place.link, IPV4)?)?;
            let port = own.and_then(|own| match open_port(own, place.name) {
                Ok(port) => Some(port),
                Err(error) => {
                    tracing::debug!(nic = place.name, "The port of the DHCP client cannot be had: {error}");
                    None
                }
            });
            Ok((packets, port))
        })?;
        Ok(Self { packets: PacketSocket::watched(packets, Interest::READABLE)?, port })
    }

    /// Sends a message. `router` is the station that sent the last answer.
    pub fn send(&self, message: &Outgoing, identity: &Identity, router: Option<Mac>) -> io::Result<()> {
        let payload = message.encode(identity);
        if let (Some(server), Some(port), Saying::Request) = (message.to, &self.port, message.saying) {
            let to = SockaddrIn::from(SocketAddrV4::new(server, SERVER_PORT));
            if sendto(port.as_raw_fd(), &payload, &to, MsgFlags::empty()).is_ok() {
                return Ok(());
            }
        }
        // Without the port, and at the end, when the link goes away before an address could be resolved.
        let to = match message.to {
            Some(server) => (router.unwrap_or(EVERYBODY), server),
            None => (EVERYBODY, Ipv4Addr::BROADCAST),
        };
        let frame = frame::wrap((identity.mac, message.client), to, &payload);
        send(self.packets.as_raw_fd(), &frame, MsgFlags::empty())?;
        Ok(())
    }

    /// The next answer, and the station that sent it.
    pub async fn receive(&self, mac: Mac) -> io::Result<(Incoming, Mac)> {
        let mut bytes = [0; FRAME];
        loop {
            let mut ready = self.packets.readable().await?;
            match recv(self.packets.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(length) => {
                    let found = frame::unwrap(&bytes[..length.min(FRAME)]);
                    if let Some((station, payload)) = found
                        && let Some(incoming) = Incoming::decode(payload, mac)
                    {
                        return Ok((incoming, station));
                    }
                }
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open_port(own: Ipv4Addr, name: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let port = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&port.as_fd(), sockopt::BindToDevice, &name.into())?;
    setsockopt(&port.as_fd(), sockopt::ReuseAddr, &true)?;
    bind(port.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(own, CLIENT_PORT)))?;
    Ok(port)
}
