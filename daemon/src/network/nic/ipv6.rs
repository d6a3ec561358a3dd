//! The addresses of IPv6 that the kernel gave the links of a namespace, most by the announcements of routers (RFC 4862).

use std::collections::BTreeSet;

use crate::network::address::Prefixed;
use crate::network::kernel::{AddressRecord, KernelEvent, Snapshot};

/// Addresses that are good beyond their link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ipv6Addresses(BTreeSet<AddressRecord>);

impl Ipv6Addresses {
    /// Takes in everything that is there.
    pub fn replace(&mut self, now: &Snapshot) {
        self.0 = now.addresses.iter().copied().filter(counts).collect();
    }

    /// Takes in a change.
    pub fn apply(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Address(address) if counts(address) => {
                self.0.insert(*address);
            }
            KernelEvent::AddressGone(address) => {
                self.0.remove(address);
            }
            KernelEvent::LinkGone(link) => self.0.retain(|address| address.link != *link),
            _ => {}
        }
    }

    /// Those of a link.
    pub fn of(&self, link: u32) -> Vec<Prefixed> {
        self.0.iter().filter(|address| address.link == link).map(|address| address.address).collect()
    }
}

fn counts(address: &AddressRecord) -> bool {
    address.global && address.address.address.is_ipv6()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(link: u32, text: &str, global: bool) -> AddressRecord {
        AddressRecord { link, address: Prefixed { address: text.parse().unwrap(), length: 64 }, global }
    }

    #[test]
    fn those_that_are_good_beyond_the_link_are_followed() {
        let mut addresses = Ipv6Addresses::default();
        let there = vec![address(2, "fe80::1", false), address(2, "2001:db8::1", true), address(2, "192.0.2.7", true)];
        addresses.replace(&Snapshot { addresses: there, ..Snapshot::default() });
        addresses.apply(&KernelEvent::Address(address(2, "2001:db8::2", true)));
        addresses.apply(&KernelEvent::Address(address(3, "2001:db8::3", true)));
        let of =
            |addresses: &Ipv6Addresses, link| addresses.of(link).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of(&addresses, 2), ["2001:db8::1/64", "2001:db8::2/64"]);
        addresses.apply(&KernelEvent::AddressGone(address(2, "2001:db8::1", true)));
        addresses.apply(&KernelEvent::LinkGone(3));
        assert_eq!((of(&addresses, 2), of(&addresses, 3)), (vec!["2001:db8::2/64".to_owned()], Vec::new()));
    }
}
