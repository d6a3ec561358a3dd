//! What a NIC is to be: a YAML document of the kind `nic`.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::machine::Conflict;
use crate::core::document::{Document, DocumentError, DocumentKind, Field, Section, Warnings};
use crate::network::address::{Mac, Prefixed};

/// Bytes of a link's name; the kernel's limit.
const NAME_LIMIT: usize = 15;
/// Addresses that a NIC may have.
const ADDRESSES_LIMIT: usize = 16;

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
}

/// Where the namespace is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
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
    /// Who hears whom.
    pub mode: Mode,
    /// Hardware address; one is generated if none is given.
    pub mac: Option<Mac>,
    /// Largest packet in bytes; that of the parent if none is given.
    pub mtu: Option<u32>,
    /// IPv4 addresses with their prefix, at least one.
    pub addresses: Vec<Prefixed>,
    /// Router of the default route.
    pub gateway: Option<Ipv4Addr>,
    /// Metric of the default route.
    pub metric: u32,
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
        let spec = Self::read_at(section, Place::Process(0))?;
        section.refuse_unknown_keys()?;
        Ok(spec.name)
    }

    fn read(section: &mut Section<'_>) -> Result<Self, DocumentError> {
        section.required("kind")?.constant("nic")?;
        let vplc = section.optional("vplc").map(|field| field.path_component().map(ToOwned::to_owned)).transpose()?;
        let place = match (section.optional("namespace"), section.optional("pid")) {
            (Some(field), None) => Place::Path(absolute_path(&field)?),
            (None, Some(field)) => {
                let pid = field.integer(1..=u32::MAX >> 1)?;
                Place::Process(i32::try_from(pid).unwrap_or(i32::MAX))
            }
            (None, None) => return Err(section.missing("namespace")),
            (Some(_), Some(field)) => return Err(field.invalid_key("must not stand beside \"namespace\".")),
        };
        Ok(Self { vplc, ..Self::read_at(section, place)? })
    }

    fn read_at(section: &mut Section<'_>, place: Place) -> Result<Self, DocumentError> {
        let name = link_name(&section.required("name")?)?;
        let parent = link_name(&section.required("parent")?)?;
        let mode = match section.optional("mode") {
            None => Mode::default(),
            Some(field) => match field.text()? {
                "bridge" => Mode::Bridge,
                "private" => Mode::Private,
                "vepa" => Mode::Vepa,
                _ => return Err(field.invalid("must be \"bridge\", \"private\" or \"vepa\".")),
            },
        };
        let conflict = match section.optional("conflict") {
            None => Conflict::Refuse,
            Some(field) => match field.text()? {
                "refuse" => Conflict::Refuse,
                "warn" => Conflict::Warn,
                _ => return Err(field.invalid("must be \"refuse\" or \"warn\".")),
            },
        };
        let mac = section.optional("mac").map(|field| mac(&field)).transpose()?;
        let mtu = section.optional("mtu").map(|field| field.integer(68..=65_535)).transpose()?;
        let metric = section.optional("metric").map_or(Ok(0), |field| field.integer(0..=u32::MAX))?;
        let field = section.required("addresses")?;
        let addresses: Vec<Prefixed> =
            field.list(ADDRESSES_LIMIT)?.iter().map(address).collect::<Result<_, DocumentError>>()?;
        if addresses.is_empty() {
            return Err(field.invalid("is empty; a NIC has at least one address."));
        }
        let gateway = section.optional("gateway").map(|field| gateway(&field, &addresses)).transpose()?;
        Ok(Self { name, vplc: None, place, parent, mode, mac, mtu, addresses, gateway, metric, conflict })
    }
}

/// A name that the kernel takes for a link (`dev_valid_name`).
fn link_name(field: &Field<'_>) -> Result<String, DocumentError> {
    let name = field.path_component()?;
    if name.len() > NAME_LIMIT {
        return Err(field.invalid(format!("is longer than {NAME_LIMIT} bytes.")));
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
