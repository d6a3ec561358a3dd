//! UDP over IPv4 in an Ethernet frame, for a client that has no address yet.

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use crate::network::address::Mac;

/// `ETH_P_IP`.
pub const IPV4: u16 = 0x0800;
/// Port of the servers.
pub const SERVER_PORT: u16 = 67;
/// Port of the clients.
pub const CLIENT_PORT: u16 = 68;

const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;

/// A message from the client to a server.
pub fn wrap(from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr), payload: &[u8]) -> Vec<u8> {
    // A DHCP message has some hundred bytes.
    let udp_length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(ETHERNET + IP + UDP_HEADER + payload.len());
    frame.extend_from_slice(&to.0.0);
    frame.extend_from_slice(&from.0.0);
    frame.extend_from_slice(&IPV4.to_be_bytes());
    // Version and length of the header; type of service as RFC 4594 has it for the running of the network.
    frame.extend_from_slice(&[0x45, 0xc0]);
    frame.extend_from_slice(&udp_length.saturating_add(20).to_be_bytes());
    // Not to be cut in pieces.
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, UDP, 0, 0]);
    frame.extend_from_slice(&from.1.octets());
    frame.extend_from_slice(&to.1.octets());
    let header_sum = checksum(&[&frame[ETHERNET..]]);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&header_sum);
    for number in [CLIENT_PORT, SERVER_PORT, udp_length, 0] {
        frame.extend_from_slice(&number.to_be_bytes());
    }
    frame.extend_from_slice(payload);
    let pseudo_header = [&frame[ETHERNET + 12..ETHERNET + 20], &[0, UDP], &udp_length.to_be_bytes()].concat();
    let sum = match checksum(&[&pseudo_header, &frame[ETHERNET + IP..]]) {
        // Nothing would mean that there is none.
        [0, 0] => [0xff, 0xff],
        sum => sum,
    };
    frame[ETHERNET + IP + 6..ETHERNET + IP + 8].copy_from_slice(&sum);
    frame
}

/// The message in a frame from a server to a client, and the station that sent it; none if the frame holds something else.
///
/// The sum over the message is not looked at: between namespaces of one host the kernel leaves it for the hardware to
/// fill in, which there is none of.
pub fn unwrap(frame: &[u8]) -> Option<(Mac, &[u8])> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET)?;
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    if ethernet[12..] != IPV4.to_be_bytes() || first >> 4 != 4 || header < IP || packet.len() < header + UDP_HEADER {
        return None;
    }
    let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let total = usize::from(number(2));
    // Neither a later piece of a packet nor one with more to come.
    let whole = number(6).trailing_zeros() >= 14;
    if packet[9] != UDP || !whole || total > packet.len() || checksum(&[&packet[..header]]) != [0, 0] {
        return None;
    }
    let length = usize::from(number(header + 4));
    if number(header) != SERVER_PORT
        || number(header + 2) != CLIENT_PORT
        || length < UDP_HEADER
        || header + length > total
    {
        return None;
    }
    Some((Mac::from_slice(&ethernet[6..12])?, &packet[header + UDP_HEADER..header + length]))
}

/// The sum of RFC 1071. All parts but the last have an even number of bytes.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or_default()).to_be_bytes()
}
