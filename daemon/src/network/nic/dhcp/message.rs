//! DHCP messages (RFC 2131, section 2): what the client says, and what it makes of an answer.
//!
//! Some forty lines read the format. The crate for it, `dhcproto`, would bring a DNS library along, keeps of an option that
//! came in parts (RFC 3396) the last one only, and leaves out the options in the name fields (option 52).

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use super::lease::{self, Lease, Options};
use crate::network::address::Mac;

/// What an answer has to have before its options.
const HEADER: usize = 240;
/// Bytes of the options, where the name of the server and that of the boot file may hold some more (option 52).
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const BOOT_FILE: std::ops::Range<usize> = 108..236;
/// What tells DHCP from its forerunner.
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Some relays drop what is shorter (RFC 1542, 2.1).
const SHORTEST: usize = 300;
/// Longest answer that is understood (option 57); fits through every tunnel, so that it is never in pieces.
const LONGEST_ANSWER: u16 = 1200;

const OVERLOAD: u8 = 52;
const TYPE: u8 = 53;
const PARAMETERS: u8 = 55;
const TEXT: u8 = 56;
const LONGEST: u8 = 57;
const END: u8 = 255;

/// What the server is asked for. The order is that of preference; routes come before routers (RFC 3442).
const WANTED: [u8; 11] = [
    lease::MASK,
    lease::CLASSLESS_ROUTES,
    lease::ROUTERS,
    lease::DNS,
    lease::DOMAIN,
    lease::MTU,
    lease::NTP,
    lease::LEASE_TIME,
    lease::SERVER,
    lease::RENEWAL_TIME,
    lease::REBINDING_TIME,
];

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saying {
    /// DHCPDISCOVER: who has an address?
    Discover,
    /// DHCPREQUEST: this one, please; also to renew it or to ask whether it is still ours.
    Request,
    /// DHCPDECLINE: somebody has it.
    Decline,
    /// DHCPRELEASE: it is not needed any more.
    Release,
}

/// A message of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// What is said.
    pub saying: Saying,
    /// Number of the exchange.
    pub xid: u32,
    /// Seconds since the exchange began.
    pub seconds: u16,
    /// The address that the client answers at; unspecified if there is none.
    pub client: Ipv4Addr,
    /// The address that is meant (option 50).
    pub requested: Option<Ipv4Addr>,
    /// The server that is meant (option 54).
    pub server: Option<Ipv4Addr>,
    /// Whom to send it to; everybody if none.
    pub to: Option<Ipv4Addr>,
}

/// Who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Hardware address. It is kept for the name of the NIC, so it makes a client identifier that lasts.
    pub mac: Mac,
    /// Its name.
    pub host_name: Option<String>,
}

impl Outgoing {
    /// The bytes of the message.
    pub fn encode(&self, identity: &Identity) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        // A request, over Ethernet, whose addresses have six bytes.
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.client.octets());
        bytes[28..34].copy_from_slice(&identity.mac.0);
        bytes[236..].copy_from_slice(&MAGIC);
        let mut option = |number: u8, value: &[u8]| {
            bytes.push(number);
            // All are short; the name of a host is at most 253 bytes.
            bytes.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(&value[..value.len().min(255)]);
        };
        let saying = match self.saying {
            Saying::Discover => 1,
            Saying::Request => 3,
            Saying::Decline => 4,
            Saying::Release => 7,
        };
        option(TYPE, &[saying]);
        let mut id = vec![1];
        id.extend_from_slice(&identity.mac.0);
        option(lease::CLIENT_ID, &id);
        if let Some(address) = self.requested {
            option(lease::REQUESTED, &address.octets());
        }
        if let Some(server) = self.server {
            option(lease::SERVER, &server.octets());
        }
        if matches!(self.saying, Saying::Discover | Saying::Request) {
            option(LONGEST, &LONGEST_ANSWER.to_be_bytes());
            if let Some(name) = &identity.host_name {
                option(lease::HOST_NAME, name.as_bytes());
            }
            option(PARAMETERS, &WANTED);
        }
        bytes.push(END);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// DHCPOFFER: this could be had.
    Offer(Lease),
    /// DHCPACK: it is leased.
    Ack(Lease),
    /// DHCPNAK: no.
    Nak {
        /// Who says so.
        server: Ipv4Addr,
        /// Why, in the words of the server.
        reason: String,
    },
}

/// An answer with the number of the exchange it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Number of the exchange.
    pub xid: u32,
    /// The answer.
    pub answer: Answer,
}

impl Incoming {
    /// Reads an answer to the client with this hardware address; none if it is for another one or no answer at all.
    pub fn decode(bytes: &[u8], mac: Mac) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        if header[..3] != [2, 1, 6] || header[28..34] != mac.0 || header[236..] != MAGIC {
            return None;
        }
        let xid = u32::from_be_bytes(header[4..8].try_into().ok()?);
        let own: [u8; 4] = header[16..20].try_into().ok()?;
        let options = options(header, rest);
        let lease = || Lease::read(Ipv4Addr::from(own), &options);
        let answer = match options.get(&TYPE).map(Vec::as_slice)? {
            [2] => Answer::Offer(lease()?),
            [5] => Answer::Ack(lease()?),
            [6] => {
                let server: [u8; 4] = options.get(&lease::SERVER)?.as_slice().try_into().ok()?;
                let reason = options.get(&TEXT).map(|bytes| readable(bytes)).unwrap_or_default();
                Answer::Nak { server: Ipv4Addr::from(server), reason }
            }
            _ => return None,
        };
        Some(Self { xid, answer })
    }
}

/// All options, those in the name fields, too (RFC 2132, 9.3).
fn options(header: &[u8], rest: &[u8]) -> Options {
    let mut options = Options::new();
    collect(rest, &mut options);
    let overload = options.get(&OVERLOAD).and_then(|value| value.first()).copied().unwrap_or_default();
    if overload & 1 != 0 {
        collect(&header[BOOT_FILE], &mut options);
    }
    if overload & 2 != 0 {
        collect(&header[SERVER_NAME], &mut options);
    }
    options
}

/// Reads options up to the end or to one that is cut off. Parts of one option are put together (RFC 3396).
fn collect(mut bytes: &[u8], options: &mut Options) {
    while let Some((number, rest)) = bytes.split_first() {
        match number {
            0 => bytes = rest,
            &END => return,
            number => {
                let Some((length, rest)) = rest.split_first() else { return };
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                options.entry(*number).or_default().extend_from_slice(value);
                bytes = rest;
            }
        }
    }
}

/// Words of a server, made fit for a message of ours.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String =
        text.chars().filter(|character| !character.is_control() && *character != '"').take(120).collect();
    text.trim_end_matches('.').to_owned()
}
