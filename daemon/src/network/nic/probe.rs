//! Address conflict detection for IPv4 (RFC 5227): asks before an address is used whether somebody has it, and tells
//! everybody once it is used.

#[cfg(test)]
mod tests;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, send, socket};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

use super::namespace::Namespace;
use super::packets::PacketSocket;
use crate::network::address::Mac;

/// `PROBE_WAIT`: longest time before the first question.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// `PROBE_NUM`: how often is asked.
const PROBES: u32 = 3;
/// `PROBE_MIN`; `PROBE_MAX` is a second more.
const PROBE_MIN: Duration = Duration::from_secs(1);
/// `ANNOUNCE_WAIT`: how long an answer to the last question may take.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// `ANNOUNCE_INTERVAL`, between the two announcements.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// Between the questions about an address that was leased.
const SHORT_INTERVAL: Duration = Duration::from_millis(10);
/// `ETH_P_ARP`.
const ARP: u16 = 0x0806;
/// Bytes of an ARP packet in an Ethernet frame.
const FRAME: usize = 42;

/// How long the questions take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Four to seven seconds, as RFC 5227, 2.1.1 has it.
    Full,
    /// 30 milliseconds: the server that leased the address asks, too, and the questions go on at full length once it is set.
    Short,
}

impl Pace {
    fn first(self) -> Duration {
        match self {
            Self::Full => up_to(PROBE_WAIT),
            Self::Short => Duration::ZERO,
        }
    }

    fn next(self, last: bool) -> Duration {
        match self {
            Self::Short => SHORT_INTERVAL,
            Self::Full if last => ANNOUNCE_WAIT,
            Self::Full => PROBE_MIN + up_to(Duration::from_secs(1)),
        }
    }
}

/// Lets nothing wake us up but ARP that is about one of these addresses: the links of many NICs on one parent hear all the
/// questions of all of them.
fn only_about(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    const SENDER: u32 = 28;
    const TARGET: u32 = 38;
    let length = 2 * addresses.len() + 4;
    let mut filter = Vec::with_capacity(length);
    for field in [SENDER, TARGET] {
        filter.push(SockFilter::new(0x20, 0, 0, field));
        for address in addresses {
            let to_the_last = u8::try_from(length - 2 - filter.len()).unwrap_or(u8::MAX);
            filter.push(SockFilter::new(0x15, to_the_last, 0, u32::from(*address)));
        }
    }
    filter.extend([SockFilter::new(0x06, 0, 0, 0), SockFilter::new(0x06, 0, 0, u32::MAX)]);
    filter
}

/// Sends and receives ARP on one link.
#[derive(Debug)]
pub struct Prober {
    socket: AsyncFd<PacketSocket>,
    mac: Mac,
    addresses: Vec<Ipv4Addr>,
}

impl Prober {
    /// A prober for the link with this number and hardware address in a namespace, and for these addresses.
    pub fn open(namespace: BorrowedFd<'_>, link: u32, mac: Mac, addresses: Vec<Ipv4Addr>) -> io::Result<Self> {
        let socket = Namespace::inside(namespace, || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            // Without a protocol nothing is received until the socket is bound to its link.
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
            SockRef::from(&socket).attach_filter(&only_about(&addresses))?;
            bind(socket.as_raw_fd(), &on_link(link, ARP)?)?;
            Ok(socket)
        })?;
        Ok(Self { socket: PacketSocket::watched(socket, Interest::READABLE | Interest::WRITABLE)?, mac, addresses })
    }

    /// Asks whether somebody has one of the addresses; tells who, if somebody answers or asks for it, too.
    pub async fn probe(&self, pace: Pace) -> io::Result<Option<(Ipv4Addr, Mac)>> {
        let mut due = Instant::now() + pace.first();
        for question in 0..=PROBES {
            if let Some(taken) = self.listen(due).await? {
                return Ok(Some(taken));
            }
            if question == PROBES {
                break;
            }
            for address in &self.addresses {
                self.send(Ipv4Addr::UNSPECIFIED, *address).await?;
            }
            due = Instant::now() + pace.next(question + 1 == PROBES);
        }
        Ok(None)
    }

    /// Tells everybody that the addresses are ours now, twice.
    pub async fn announce(&self) -> io::Result<()> {
        for round in 0..2 {
            if round > 0 {
                sleep(ANNOUNCE_INTERVAL).await;
            }
            for address in &self.addresses {
                self.send(*address, *address).await?;
            }
        }
        Ok(())
    }

    async fn listen(&self, until: Instant) -> io::Result<Option<(Ipv4Addr, Mac)>> {
        let mut frame = [0; FRAME];
        loop {
            let Ok(ready) = timeout_at(until, self.socket.readable()).await else { return Ok(None) };
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(FRAME) => {
                    if let Some(taken) = conflict(&frame, self.mac, &self.addresses) {
                        return Ok(Some(taken));
                    }
                }
                Ok(_) => {}
                Err(nix::Error::EAGAIN) => ready?.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn send(&self, sender: Ipv4Addr, target: Ipv4Addr) -> io::Result<()> {
        let frame = request(self.mac, sender, target);
        loop {
            let mut ready = self.socket.writable().await?;
            match send(self.socket.as_raw_fd(), &frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// An ARP request (RFC 826) to everybody.
fn request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ARP.to_be_bytes());
    // Ethernet, IPv4, their lengths, request.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&sender.octets());
    frame[38..42].copy_from_slice(&target.octets());
    frame
}

/// Whether a packet of somebody else shows that one of the addresses is in use, or that he wants it, too (RFC 5227, 2.1.1).
fn conflict(frame: &[u8; FRAME], own: Mac, addresses: &[Ipv4Addr]) -> Option<(Ipv4Addr, Mac)> {
    if frame[12..14] != ARP.to_be_bytes() || frame[14..20] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac = Mac::from_slice(&frame[22..28]).filter(|mac| *mac != own)?;
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let (sender, target) = (address(28), address(38));
    let is_request = frame[20..22] == [0, 1];
    let wanted = if sender.is_unspecified() && is_request { target } else { sender };
    addresses.contains(&wanted).then_some((wanted, mac))
}

/// The address that stands for a protocol on a link.
pub(super) fn on_link(link: u32, protocol: u16) -> io::Result<LinkAddr> {
    let index = i32::try_from(link).map_err(io::Error::other)?;
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    #[allow(unsafe_code, reason = "nix can read such an address, and has no other way to make one")]
    // SAFETY: the pointer leads to a whole `sockaddr_ll` of this length, which is copied before this returns.
    let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) };
    address.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// A time from nothing to `most`, at random.
pub(super) fn up_to(most: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without randomness everybody waits equally long, which is no reason not to work.
    let _ = SystemRandom::new().fill(&mut bytes);
    most.mul_f64(f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX))
}
