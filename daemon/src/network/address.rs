//! Addresses as they are written: MAC addresses, and IP addresses with their prefix.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A MAC address (EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address in these bytes, if there are six.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Whether it is the address of one station: neither of a group nor nothing but zeros.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.map(|byte| format!("{byte:02x}"));
        formatter.write_str(&pairs.join(":"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A text that is no MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("six pairs of hexadecimal digits with colons between them are expected")]
pub struct NoMac;

impl FromStr for Mac {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
            *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or(NoMac)?;
        }
        if parts.next().is_some() { Err(NoMac) } else { Ok(Self(bytes)) }
    }
}

/// An address with the length of its prefix, written `192.0.2.7/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefixed {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub length: u8,
}

impl fmt::Display for Prefixed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_as_they_are_written() {
        let mac: Mac = "02:aB:00:00:00:7f".parse().unwrap();
        assert_eq!(mac.to_string(), "02:ab:00:00:00:7f");
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0", "02-00-00-00-00-00", "+2:00:00:00:00:00"]
        {
            assert_eq!(text.parse::<Mac>(), Err(NoMac), "{text}");
        }
    }

    #[test]
    fn stations_are_told_from_groups_and_nothing() {
        for (text, unicast) in [
            ("02:00:00:00:00:01", true),
            ("00:00:00:00:00:00", false),
            ("ff:ff:ff:ff:ff:ff", false),
            ("01:00:5e:00:00:01", false),
        ] {
            assert_eq!(text.parse::<Mac>().unwrap().is_unicast(), unicast, "{text}");
        }
    }
}
