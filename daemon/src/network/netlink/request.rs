//! What the kernel is asked for, as it takes it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, LinkAttribute, LinkMessage, MacVlanMode};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{LinkMacVlan, LinkMessageBuilder, LinkVlan, RouteMessageBuilder};

use crate::network::kernel::{Inet, NewLink, Origin, Route, Upper};
use crate::network::nic::spec::Mode;

/// `IFLA_INET_CONF`
const INET_CONF: u16 = 1;
/// `arp_announce`: with the best address of the link that is asked on.
const ARP_ANNOUNCE_BEST: u32 = 2;

/// The request for a link on top of another one.
pub(super) fn new_link(link: &NewLink, namespace: BorrowedFd<'_>) -> LinkMessage {
    fn finish<T>(mut message: LinkMessageBuilder<T>, link: &NewLink, namespace: BorrowedFd<'_>) -> LinkMessage {
        if let Some(mac) = link.mac {
            message = message.address(mac.0.to_vec());
        }
        if let Some(mtu) = link.mtu {
            message = message.mtu(mtu);
        }
        message.setns_by_fd(namespace.as_raw_fd()).up().build()
    }
    match link.upper {
        Upper::Macvlan(mode) => {
            let mode = match mode {
                Mode::Bridge => MacVlanMode::Bridge,
                Mode::Private => MacVlanMode::Private,
                Mode::Vepa => MacVlanMode::Vepa,
                Mode::Passthru => MacVlanMode::Passthrough,
            };
            finish(LinkMacVlan::new(&link.name, link.parent, mode), link, namespace)
        }
        Upper::Vlan(id) => finish(LinkVlan::new(&link.name, link.parent, id), link, namespace),
    }
}

/// A setting of IPv4 as the kernel takes it. Made by hand, because the types of the library leave out what is zero.
pub(super) fn inet_setting(setting: Inet, on: bool) -> LinkAttribute {
    // `IPV4_DEVCONF_*`, and what the kernel has for "on".
    let (number, value): (u16, u32) = match setting {
        Inet::Forwarding => (1, 1),
        Inet::ProxyArp => (3, 1),
        Inet::ArpAnnounce => (18, ARP_ANNOUNCE_BEST),
        Inet::ArpIgnore => (19, 1),
    };
    let value = if on { value } else { 0 };
    let mut attribute = Vec::from(8_u16.to_ne_bytes());
    attribute.extend(number.to_ne_bytes());
    attribute.extend(value.to_ne_bytes());
    let settings = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, attribute));
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![settings])])
}

/// A route as the kernel takes it; its protocol says where it is from.
pub(super) fn route_message(link: u32, route: Route) -> RouteMessage {
    let destination = match route.destination.address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination, route.destination.length)
        .output_interface(link)
        .priority(route.metric)
        .protocol(match route.origin {
            Origin::Lease => RouteProtocol::Dhcp,
            Origin::Specification => RouteProtocol::Static,
        });
    let message = match route.gateway {
        Some(gateway) => message.gateway(gateway),
        None => message.scope(RouteScope::Link),
    };
    if route.on_link { message.onlink().build() } else { message.build() }
}
