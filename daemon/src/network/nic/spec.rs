//! What a NIC is to be: a YAML document of the kind `nic`.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::dhcp::Dhcp;
use super::link_kind::LinkKind;
use super::machine::Conflict;
use crate::core::document::{Document, DocumentError, DocumentKind, Field, Section, Warnings};
use crate::network::address::{Mac, Prefixed};
use crate::network::kernel::StaticRoute;

/// Bytes of a link's name; the kernel's limit.
const NAME_LIMIT: usize = 15;
/// Name servers that a NIC may have.
const SERVERS_LIMIT: usize = 8;
/// Bytes of the name of a host (RFC 1123); one label, so that it is no domain.
const HOST_NAME_LIMIT: usize = 63;
/// Addresses that a NIC may have.
const ADDRESSES_LIMIT: usize = 16;

/// Further routes that a NIC may have.
const ROUTES_LIMIT: usize = 64;

/// Who hears whom among the NICs of one parent (`ip-link(8)`, macvlan).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// They hear each other.
    #[default]
    Bridge,
    /// They do not.
    Private,
    /// Through the switch that the parent is plugged into.
    Vepa,
    /// There is only this one; it has the hardware address of the parent.
    Passthru,
}

/// Where the namespace is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// That of the daemon itself.
    Host,
    /// A file.
    Path(PathBuf),
    /// That of a process.
    Process(i32),
}

/// A NIC as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name, which is also that of the link in the namespace.
    pub name: String,
    /// The vPLC that it belongs to. NICs of different vPLCs may have the same name.
    pub vplc: Option<String>,
    /// The namespace.
    pub place: Place,
    /// Name of the parent.
    pub parent: String,
    /// What its link is.
    pub link: LinkKind,
    /// Hardware address; one is generated if none is given, unless the link has one already.
    pub mac: Option<Mac>,
    /// Largest packet in bytes; that of the parent if none is given.
    pub mtu: Option<u32>,
    /// IPv4 addresses with their prefix; none if it is leased, or on a dedicated link.
    pub addresses: Vec<Prefixed>,
    /// Set if the address is leased.
    pub dhcp: Option<Dhcp>,
    /// Router of the default route.
    pub gateway: Option<Ipv4Addr>,
    /// Metric of the default route.
    pub metric: u32,
    /// Name servers, the best first; they stand for those of a lease.
    pub dns: Vec<IpAddr>,
    /// Further routes.
    pub routes: Vec<StaticRoute>,
    /// What happens if somebody has an address already.
    pub conflict: Conflict,
}

impl Spec {
    /// Reads a specification; remarks on unknown keys go to the log.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let mut warnings = Warnings::default();
        let spec =
            Document::new("nic", text).load(DocumentKind::Nic, &mut warnings, |section, _| Self::read(section))?;
        for warning in warnings.into_vec() {
            tracing::warn!("{warning}");
        }
        Ok(spec)
    }

    /// The name that no other NIC has: that of the vPLC stands before it, if it belongs to one.
    pub fn key(&self) -> String {
        self.vplc.as_ref().map_or_else(|| self.name.clone(), |vplc| format!("{vplc}/{}", self.name))
    }

    /// Checks a section that is to become a NIC of a vPLC; returns its name. Where it is to be comes later.
    pub(crate) fn check_section(section: &mut Section<'_>) -> Result<String, DocumentError> {
        for key in ["kind", "vplc", "namespace", "pid"] {
            if let Some(field) = section.optional(key) {
                return Err(field.invalid_key("has no place in a NIC of a vPLC."));
            }
        }
        if let Some(field) = section.optional("type").filter(|field| matches!(field.text(), Ok("shim"))) {
            return Err(field.invalid("is for the host itself; it has no place in a vPLC."));
        }
        let spec = Self::read_at(section, Some(Place::Process(0)))?;
        section.refuse_unknown_keys()?;
        Ok(spec.name)
    }

    fn read(section: &mut Section<'_>) -> Result<Self, DocumentError> {
        section.required("kind")?.constant("nic")?;
        let vplc = section.optional("vplc").map(|field| field.path_component().map(ToOwned::to_owned)).transpose()?;
        let place = match (section.optional("namespace"), section.optional("pid")) {
            (Some(field), None) => Some(Place::Path(absolute_path(&field)?)),
            (None, Some(field)) => {
                let pid = field.integer(1..=u32::MAX >> 1)?;
                Some(Place::Process(i32::try_from(pid).unwrap_or(i32::MAX)))
            }
            (None, None) => None,
            (Some(_), Some(field)) => return Err(field.invalid_key("must not stand beside \"namespace\".")),
        };
        Ok(Self { vplc, ..Self::read_at(section, place)? })
    }

    fn read_at(section: &mut Section<'_>, place: Option<Place>) -> Result<Self, DocumentError> {
        let name = link_name(&section.required("name")?)?;
        let parent = link_name(&section.required("parent")?)?;
        let link = link_kind(section)?;
        let place = match place {
            _ if link == LinkKind::Shim => {
                check_shim(section)?;
                Place::Host
            }
            Some(place) => place,
            None => return Err(section.missing("namespace")),
        };
        let conflict = match section.optional("conflict") {
            None => Conflict::Refuse,
            Some(field) => match field.text()? {
                "refuse" => Conflict::Refuse,
                "warn" => Conflict::Warn,
                _ => return Err(field.invalid("must be \"refuse\" or \"warn\".")),
            },
        };
        let mac = match section.optional("mac") {
            Some(field) if link.has_mac_of_parent() => {
                return Err(field.invalid_key("must not be given: the link has the hardware address of the parent."));
            }
            field => field.map(|field| mac(&field)).transpose()?,
        };
        let mtu = section.optional("mtu").map(|field| field.integer(68..=65_535)).transpose()?;
        let metric = section.optional("metric").map_or(Ok(0), |field| field.integer(0..=u32::MAX))?;
        let field = section.optional("addresses");
        let dhcp = match &field {
            Some(field) => read_dhcp(section, field)?,
            None => None,
        };
        let addresses: Vec<Prefixed> = match &field {
            _ if dhcp.is_some() => Vec::new(),
            Some(field) => field.list(ADDRESSES_LIMIT)?.iter().map(address).collect::<Result<_, DocumentError>>()?,
            None if link == LinkKind::Dedicated => Vec::new(),
            None => return Err(section.missing("addresses")),
        };
        if let Some(field) = field.filter(|_| addresses.is_empty() && link != LinkKind::Dedicated) {
            match dhcp {
                None => return Err(field.invalid("is empty; a NIC has at least one address.")),
                Some(_) if link == LinkKind::Routed => {
                    return Err(field.invalid("must be a list: no DHCP server hears a NIC of the type \"routed\"."));
                }
                Some(_) => {}
            }
        }
        let dns = section.optional("dns").map_or(Ok(Vec::new()), |field| name_servers(&field))?;
        let gateway = match section.optional("gateway") {
            Some(field) if dhcp.is_some() => {
                return Err(field.invalid_key("must not stand beside \"addresses: dhcp\"."));
            }
            field => field.map(|field| gateway(&field, &addresses)).transpose()?,
        };
        let routes = match section.optional("routes") {
            None => Vec::new(),
            Some(field) if dhcp.is_some() => {
                return Err(field.invalid_key("must not stand beside \"addresses: dhcp\"."));
            }
            Some(field) => {
                field.list(ROUTES_LIMIT)?.into_iter().map(|field| route(field, &addresses)).collect::<Result<_, _>>()?
            }
        };
        Ok(Self {
            name,
            vplc: None,
            place,
            parent,
            link,
            mac,
            mtu,
            addresses,
            dhcp,
            gateway,
            metric,
            dns,
            routes,
            conflict,
        })
    }
}

fn link_kind(section: &mut Section<'_>) -> Result<LinkKind, DocumentError> {
    let (mode, vlan) = (section.optional("mode"), section.optional("vlan"));
    let kind = section.optional("type");
    let kind = kind.map_or(Ok("macvlan"), |field| match field.text()? {
        known @ ("macvlan" | "vlan" | "dedicated" | "routed" | "shim") => Ok(known),
        _ => Err(field.invalid("must be \"macvlan\", \"vlan\", \"dedicated\", \"routed\" or \"shim\".")),
    })?;
    if let Some(field) = mode.as_ref().filter(|_| kind != "macvlan") {
        return Err(field.invalid_key(format!("is for the type \"macvlan\", and this one is \"{kind}\".")));
    }
    if let Some(field) = vlan.as_ref().filter(|_| kind != "vlan") {
        return Err(field.invalid_key(format!("is for the type \"vlan\", and this one is \"{kind}\".")));
    }
    match kind {
        "vlan" => {
            let number = vlan.ok_or_else(|| section.missing("vlan"))?.integer(1..=4094)?;
            Ok(LinkKind::Vlan(u16::try_from(number).unwrap_or_default()))
        }
        "dedicated" => Ok(LinkKind::Dedicated),
        "routed" => Ok(LinkKind::Routed),
        "shim" => Ok(LinkKind::Shim),
        _ => Ok(LinkKind::Macvlan(mode.map_or(Ok(Mode::default()), |field| match field.text()? {
            "bridge" => Ok(Mode::Bridge),
            "private" => Ok(Mode::Private),
            "vepa" => Ok(Mode::Vepa),
            "passthru" => Ok(Mode::Passthru),
            _ => Err(field.invalid("must be \"bridge\", \"private\", \"vepa\" or \"passthru\".")),
        })?)),
    }
}

/// What is different in a NIC of the host itself: it must not come into the way of the host's own addresses and routes.
fn check_shim(section: &mut Section<'_>) -> Result<(), DocumentError> {
    for key in ["vplc", "namespace", "pid", "gateway", "routes"] {
        if let Some(field) = section.optional(key) {
            return Err(field.invalid_key("has no place in a NIC of the type \"shim\": that is of the host itself."));
        }
    }
    let addresses = section.required("addresses")?;
    if !addresses.is_list() {
        return Err(addresses.invalid("must be a list: a NIC of the type \"shim\" has addresses of its own."));
    }
    for field in addresses.list(ADDRESSES_LIMIT)? {
        if address(&field)?.length != 32 {
            return Err(field.invalid(
                "must have the prefix length 32 in a NIC of the type \"shim\": the host has its own way to the network.",
            ));
        }
    }
    Ok(())
}

/// A route that is not a default route, such as `{to: 198.51.100.0/24, via: 192.0.2.1, metric: 10}`.
fn route(field: Field<'_>, addresses: &[Prefixed]) -> Result<StaticRoute, DocumentError> {
    let mut section = field.section()?;
    let to = section.required("to")?;
    let parsed = to.text()?.split_once('/').and_then(|(network, length)| {
        let length: u8 = length.parse().ok().filter(|length| (1..=32).contains(length))?;
        Some((network.parse::<Ipv4Addr>().ok()?, length))
    });
    let Some((network, length)) = parsed else {
        return Err(to.invalid("must be an IPv4 network with the length of its prefix, such as \"198.51.100.0/24\"."));
    };
    if u32::from(network) & !mask(length) != 0 {
        return Err(to.invalid("has bits beyond its prefix."));
    }
    let via = section.optional("via").map(|field| gateway(&field, addresses)).transpose()?;
    let metric = section.optional("metric").map_or(Ok(0), |field| field.integer(0..=u32::MAX))?;
    section.refuse_unknown_keys()?;
    Ok(StaticRoute { destination: Prefixed { address: IpAddr::V4(network), length }, via, metric })
}

/// A name that the kernel takes for a link (`dev_valid_name`).
fn link_name(field: &Field<'_>) -> Result<String, DocumentError> {
    let name = field.path_component()?;
    if name.len() > NAME_LIMIT {
        return Err(field.invalid(format!("is longer than {NAME_LIMIT} bytes.")));
    }
    if ["all", "default"].contains(&name) {
        return Err(field.invalid("is a word of the kernel for settings of all links, and no name of one."));
    }
    if name.contains(|character: char| character.is_whitespace() || character == ':' || character == '%') {
        return Err(field.invalid("must not contain blanks, \":\" or \"%\"."));
    }
    Ok(name.to_owned())
}

fn absolute_path(field: &Field<'_>) -> Result<PathBuf, DocumentError> {
    let path = Path::new(field.name(4096)?);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err(field.invalid("must be an absolute path.")) }
}

/// How the address is leased, if it is.
fn read_dhcp(section: &mut Section<'_>, addresses: &Field<'_>) -> Result<Option<Dhcp>, DocumentError> {
    let name = section.optional("hostname");
    if addresses.is_list() {
        return match name {
            Some(field) => Err(field.invalid_key("is for \"addresses: dhcp\" only.")),
            None => Ok(None),
        };
    }
    match addresses.text() {
        Ok("dhcp") => {}
        _ => return Err(addresses.invalid("must be \"dhcp\" or a list of addresses.")),
    }
    Ok(Some(Dhcp { host_name: name.map(|field| host_name(&field)).transpose()? }))
}

fn host_name(field: &Field<'_>) -> Result<String, DocumentError> {
    let name = field.name(HOST_NAME_LIMIT)?;
    let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !fits || name.starts_with('-') || name.ends_with('-') {
        return Err(field.invalid("must consist of letters, digits and \"-\", with no \"-\" at either end."));
    }
    Ok(name.to_owned())
}

fn name_servers(field: &Field<'_>) -> Result<Vec<IpAddr>, DocumentError> {
    let server = |field: &Field<'_>| {
        let server: IpAddr = field.text()?.parse().map_err(|_| field.invalid("must be an IP address."))?;
        if server.is_unspecified() || server.is_multicast() {
            return Err(field.invalid("is not the address of one host."));
        }
        Ok(server)
    };
    field.list(SERVERS_LIMIT)?.iter().map(server).collect()
}

fn mac(field: &Field<'_>) -> Result<Mac, DocumentError> {
    let mac: Mac = field.text()?.parse().map_err(|error| field.invalid(format!("is no MAC address: {error}.")))?;
    if !mac.is_unicast() {
        return Err(field.invalid("is the address of a group or nothing but zeros; a NIC needs one of its own."));
    }
    Ok(mac)
}

fn address(field: &Field<'_>) -> Result<Prefixed, DocumentError> {
    let text = field.text()?;
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let length: u8 = length.parse().ok().filter(|length| (1..=32).contains(length))?;
        Some((address.parse::<Ipv4Addr>().ok()?, length))
    });
    let Some((address, length)) = parsed else {
        return Err(field.invalid("must be an IPv4 address with the length of its prefix, such as \"192.0.2.7/24\"."));
    };
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast() {
        return Err(field.invalid("is not the address of one host."));
    }
    let host = !mask(length);
    let bits = u32::from(address) & host;
    if length < 31 && (bits == 0 || bits == host) {
        return Err(field.invalid("is the address of the network itself or its broadcast address."));
    }
    Ok(Prefixed { address: IpAddr::V4(address), length })
}

fn gateway(field: &Field<'_>, addresses: &[Prefixed]) -> Result<Ipv4Addr, DocumentError> {
    let gateway: Ipv4Addr = field.text()?.parse().map_err(|_| field.invalid("must be an IPv4 address."))?;
    let near = |prefixed: &Prefixed| match prefixed.address {
        IpAddr::V4(address) => (u32::from(address) ^ u32::from(gateway)) & mask(prefixed.length) == 0,
        IpAddr::V6(_) => false,
    };
    if !addresses.iter().any(near) {
        return Err(field.invalid("lies outside the prefix of every address."));
    }
    if addresses.iter().any(|prefixed| prefixed.address == IpAddr::V4(gateway)) {
        return Err(field.invalid("is an address of the NIC itself."));
    }
    Ok(gateway)
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or_default()
}
