//! A lease: what a server grants, read from the options of its answer (RFC 2132, RFC 3442).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::network::address::Prefixed;

/// Options by their number; those that came in parts are whole (RFC 3396).
pub type Options = BTreeMap<u8, Vec<u8>>;

/// Subnet mask.
pub const MASK: u8 = 1;
/// Routers, the best first.
pub const ROUTERS: u8 = 3;
/// Name servers, the best first.
pub const DNS: u8 = 6;
/// Name of the host.
pub const HOST_NAME: u8 = 12;
/// Domain that names are looked up in.
pub const DOMAIN: u8 = 15;
/// Largest packet of the link.
pub const MTU: u8 = 26;
/// Time servers.
pub const NTP: u8 = 42;
/// The address that the client would like to have.
pub const REQUESTED: u8 = 50;
/// How long the lease is good, in seconds.
pub const LEASE_TIME: u8 = 51;
/// The server that is meant.
pub const SERVER: u8 = 54;
/// When to renew (T1), in seconds.
pub const RENEWAL_TIME: u8 = 58;
/// When to ask any server (T2), in seconds.
pub const REBINDING_TIME: u8 = 59;
/// Who the client is, whatever its link.
pub const CLIENT_ID: u8 = 61;
/// Routes with their prefixes; they stand for the routers, too (RFC 3442).
pub const CLASSLESS_ROUTES: u8 = 121;

/// A shorter lease is refused: it would be nothing but traffic.
const SHORTEST: u32 = 4;
/// Servers of one kind that are taken; the rest is left out.
const SERVERS_LIMIT: usize = 8;
/// Routes that are taken.
const ROUTES_LIMIT: usize = 64;
/// Every link has to carry this much (RFC 1122, 3.3.3); what says less is no sane MTU.
const MTU_LEAST: u16 = 576;
/// Bytes of a domain (RFC 1035).
const DOMAIN_LIMIT: usize = 253;
/// The lease has no end.
const FOR_EVER: u32 = u32::MAX;

/// A route that came with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeasedRoute {
    /// First address of the network it leads to.
    pub destination: Ipv4Addr,
    /// Bits of its prefix; none for the default route.
    pub length: u8,
    /// The router; none if the network is on the link itself.
    pub gateway: Option<Ipv4Addr>,
}

/// What a server grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of its prefix.
    pub length: u8,
    /// The server that granted it.
    pub server: Ipv4Addr,
    /// Routes, also the default one.
    pub routes: Vec<LeasedRoute>,
    /// Name servers, the best first.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers, the best first.
    pub ntp: Vec<Ipv4Addr>,
    /// Domain that names are looked up in; may be empty.
    pub domain: String,
    /// Largest packet in bytes, if the server says so.
    pub mtu: Option<u32>,
    /// Seconds that it is good for; none if it has no end.
    pub seconds: Option<u32>,
    /// Seconds until it is to be renewed (T1).
    pub renew: u32,
    /// Seconds until any server is asked (T2).
    pub rebind: u32,
}

impl Lease {
    /// Reads a lease of this address; none if the answer is not one that can be used.
    pub fn read(address: Ipv4Addr, options: &Options) -> Option<Self> {
        let length = match number(options, MASK) {
            Some(mask) => prefix_length(mask)?,
            None => class_length(address),
        };
        if !is_host(address, length) {
            return None;
        }
        let server = addresses(options, SERVER).first().copied().filter(|server| is_station(*server))?;
        let seconds = number(options, LEASE_TIME).filter(|seconds| *seconds >= SHORTEST)?;
        let (renew, rebind) = times(seconds, number(options, RENEWAL_TIME), number(options, REBINDING_TIME));
        let mtu = options.get(&MTU).and_then(|bytes| Some(u16::from_be_bytes(bytes.as_slice().try_into().ok()?)));
        Some(Self {
            address,
            length,
            server,
            routes: routes(address, options),
            dns: servers(options, DNS),
            ntp: servers(options, NTP),
            domain: options.get(&DOMAIN).and_then(|bytes| domain(bytes)).unwrap_or_default(),
            mtu: mtu.filter(|mtu| *mtu >= MTU_LEAST).map(u32::from),
            seconds: (seconds != FOR_EVER).then_some(seconds),
            renew,
            rebind,
        })
    }

    /// The address with its prefix.
    pub fn prefixed(&self) -> Prefixed {
        Prefixed { address: IpAddr::V4(self.address), length: self.length }
    }

    /// Router of the default route.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.routes.iter().find(|route| route.length == 0).and_then(|route| route.gateway)
    }

    /// Whether an address is in the network of the lease.
    pub fn is_near(&self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ u32::from(self.address)) & mask(self.length) == 0
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or_default()
}

/// Length of the prefix behind a mask; none if the mask has holes or is empty.
fn prefix_length(bits: u32) -> Option<u8> {
    let length = u8::try_from(bits.leading_ones()).ok()?;
    (length > 0 && mask(length) == bits).then_some(length)
}

/// Without a mask the network is that of its class (RFC 950).
fn class_length(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

fn is_station(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

fn is_host(address: Ipv4Addr, length: u8) -> bool {
    let host = !mask(length);
    let bits = u32::from(address) & host;
    is_station(address) && (length >= 31 || (bits != 0 && bits != host))
}

fn number(options: &Options, option: u8) -> Option<u32> {
    Some(u32::from_be_bytes(options.get(&option)?.as_slice().try_into().ok()?))
}

fn addresses(options: &Options, option: u8) -> Vec<Ipv4Addr> {
    let (whole, _) = options.get(&option).map(Vec::as_slice).unwrap_or_default().as_chunks::<4>();
    whole.iter().map(|octets| Ipv4Addr::from(*octets)).collect()
}

fn servers(options: &Options, option: u8) -> Vec<Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = Vec::new();
    for address in addresses(options, option) {
        if found.len() < SERVERS_LIMIT && is_station(address) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// T1 and T2: those of the server if they make sense, else those of RFC 2131, 4.4.5.
fn times(seconds: u32, renew: Option<u32>, rebind: Option<u32>) -> (u32, u32) {
    let rebind = rebind.filter(|rebind| (2..seconds).contains(rebind)).unwrap_or(seconds - seconds / 8 - 1);
    let renew = renew.filter(|renew| (1..rebind).contains(renew)).unwrap_or((seconds / 2).min(rebind - 1));
    (renew, rebind)
}

/// Who is told of classless routes does not look at the routers (RFC 3442).
fn routes(own: Ipv4Addr, options: &Options) -> Vec<LeasedRoute> {
    let is_router = |router: &Ipv4Addr| is_station(*router) && *router != own;
    if let Some(routes) = options.get(&CLASSLESS_ROUTES).and_then(|bytes| classless(bytes)) {
        let mut taken: Vec<LeasedRoute> = Vec::new();
        for route in routes.into_iter().take(ROUTES_LIMIT) {
            let known =
                taken.iter().any(|other| (other.destination, other.length) == (route.destination, route.length));
            if !known && route.gateway.as_ref().is_none_or(is_router) {
                taken.push(route);
            }
        }
        return taken;
    }
    let router = addresses(options, ROUTERS).into_iter().find(is_router);
    router
        .map(|router| LeasedRoute { destination: Ipv4Addr::UNSPECIFIED, length: 0, gateway: Some(router) })
        .into_iter()
        .collect()
}

/// None if the option is damaged; a part of it is as good as none.
fn classless(mut bytes: &[u8]) -> Option<Vec<LeasedRoute>> {
    let mut routes = Vec::new();
    while let Some((length, rest)) = bytes.split_first() {
        let significant = usize::from(length.div_ceil(8));
        if *length > 32 || rest.len() < significant + 4 {
            return None;
        }
        let mut destination = [0; 4];
        destination[..significant].copy_from_slice(&rest[..significant]);
        let destination = Ipv4Addr::from(u32::from_be_bytes(destination) & mask(*length));
        let gateway: [u8; 4] = rest[significant..significant + 4].try_into().ok()?;
        let gateway = Some(Ipv4Addr::from(gateway)).filter(|gateway| !gateway.is_unspecified());
        routes.push(LeasedRoute { destination, length: *length, gateway });
        bytes = &rest[significant + 4..];
    }
    (!routes.is_empty()).then_some(routes)
}

/// A domain that is fit to be shown and written into files of others.
fn domain(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\0', '.']);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (text.len() <= DOMAIN_LIMIT && text.bytes().all(fits)).then(|| text.to_owned())
}
