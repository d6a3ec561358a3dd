//! What the kernel says, in the words of this domain.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State, Stats64,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::network::address::Prefixed;
use crate::network::kernel::{
    AddressRecord, DefaultRoute, KernelEvent, LinkRecord, OperState, Origin, Route, Statistics,
};

/// Where the kernel shows the links of the namespace that was current when it was mounted.
const SYSFS_NET: &str = "/sys/class/net";

pub(super) fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<KernelEvent> {
    let message = match message.payload {
        NetlinkPayload::Overrun(_) => return Some(KernelEvent::Lost),
        NetlinkPayload::InnerMessage(message) => message,
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewLink(link) => link_record(&link).map(KernelEvent::Link),
        // A port that leaves its bridge is reported in the same way, but with the family of bridges.
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            Some(KernelEvent::LinkGone(link.header.index))
        }
        RouteNetlinkMessage::NewAddress(address) => address_record(&address).map(KernelEvent::Address),
        RouteNetlinkMessage::DelAddress(address) => address_record(&address).map(KernelEvent::AddressGone),
        RouteNetlinkMessage::NewRoute(route) => default_route(&route).map(KernelEvent::Route),
        RouteNetlinkMessage::DelRoute(route) => default_route(&route).map(KernelEvent::RouteGone),
        _ => None,
    }
}

/// A link; none if the message tells a part of it only, as those about bridge ports and wireless scans do.
pub(super) fn link_record(message: &LinkMessage) -> Option<LinkRecord> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let (mut name, mut mtu, mut address, mut kind) = (None, None, Vec::new(), None);
    let (mut oper_state, mut carrier) = (OperState::Unknown, None);
    let (mut parent, mut controller, mut alias) = (None, None, String::new());
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
            LinkAttribute::Address(bytes) => address.clone_from(bytes),
            LinkAttribute::OperState(state) => oper_state = oper_state_of(*state),
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::Controller(index) => controller = Some(*index).filter(|index| *index != 0),
            LinkAttribute::IfAlias(text) => alias.clone_from(text),
            LinkAttribute::Carrier(there) => carrier = Some(*there == 1),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let (name, mtu) = (name?, mtu?);
    let up = message.header.flags.contains(LinkFlags::Up);
    let carrier = carrier.unwrap_or_else(|| message.header.flags.contains(LinkFlags::LowerUp));
    let kind = kind_word(kind, message.header.link_layer_type, &name);
    let index = message.header.index;
    Some(LinkRecord { index, name, kind, address, mtu, oper_state, up, carrier, parent, controller, alias })
}

fn kind_word(kind: Option<&InfoKind>, layer: LinkLayerType, name: &str) -> String {
    // Early, because some wireless drivers have a kind of their own. Not for what we make ourselves, which may be in other
    // namespaces than sysfs knows of.
    if !matches!(kind, Some(InfoKind::MacVlan | InfoKind::Vlan)) && is_wireless(name) {
        return "wireless".to_owned();
    }
    if let Some(kind) = kind {
        return kind.to_string();
    }
    match layer {
        LinkLayerType::Ether => "ethernet".to_owned(),
        other => other.to_string().to_ascii_lowercase(),
    }
}

/// Whether a link of the daemon's own namespace is wireless; netlink does not say.
fn is_wireless(name: &str) -> bool {
    let link = Path::new(SYSFS_NET).join(name);
    link.join("phy80211").exists() || link.join("wireless").exists()
}

fn oper_state_of(state: State) -> OperState {
    match state {
        State::NotPresent => OperState::NotPresent,
        State::Down => OperState::Down,
        State::LowerLayerDown => OperState::LowerLayerDown,
        State::Testing => OperState::Testing,
        State::Dormant => OperState::Dormant,
        State::Up => OperState::Up,
        _ => OperState::Unknown,
    }
}

pub(super) fn address_record(message: &AddressMessage) -> Option<AddressRecord> {
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            // On a point-to-point link the other attribute is the peer.
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    Some(AddressRecord {
        link: message.header.index,
        address: Prefixed { address: local.or(address)?, length: message.header.prefix_len },
        global: message.header.scope == AddressScope::Universe,
    })
}

/// A default route of the main table; none if the message is about another one.
pub(super) fn default_route(message: &RouteMessage) -> Option<DefaultRoute> {
    let header = &message.header;
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let (mut table, mut link, mut gateway, mut metric) = (u32::from(header.table), None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(hops) => {
                if let Some(hop) = hops.first() {
                    link = Some(hop.interface_index);
                    gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                        RouteAttribute::Gateway(address) => ip(address),
                        _ => None,
                    });
                }
            }
            _ => {}
        }
    }
    let default = header.destination_prefix_length == 0 && header.kind == RouteType::Unicast && table == main;
    let v6 = header.address_family == AddressFamily::Inet6;
    if default { Some(DefaultRoute { metric, v6, link: link?, gateway }) } else { None }
}

/// An IPv4 route of the main table over this link; none if it is another one, or from where nobody here knows.
pub(super) fn route_over(message: &RouteMessage, on: u32) -> Option<Route> {
    let header = &message.header;
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let (mut table, mut link, mut gateway, mut metric) = (u32::from(header.table), None, None, 0);
    let mut destination = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Destination(address) => destination = ip(address)?,
            _ => {}
        }
    }
    let origin = match header.protocol {
        RouteProtocol::Dhcp => Origin::Lease,
        RouteProtocol::Static => Origin::Specification,
        _ => return None,
    };
    let destination = Prefixed { address: destination, length: header.destination_prefix_length };
    let on_link = header.flags.contains(RouteFlags::Onlink);
    let route = Route { destination, gateway, metric, on_link, origin };
    (table == main && link == Some(on)).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

pub(super) fn statistics(counters: &Stats64) -> Statistics {
    Statistics::from([
        ("rx-bytes", counters.rx_bytes),
        ("rx-packets", counters.rx_packets),
        ("rx-errors", counters.rx_errors),
        ("rx-dropped", counters.rx_dropped),
        ("rx-crc-errors", counters.rx_crc_errors),
        ("rx-missed", counters.rx_missed_errors),
        ("tx-bytes", counters.tx_bytes),
        ("tx-packets", counters.tx_packets),
        ("tx-errors", counters.tx_errors),
        ("tx-dropped", counters.tx_dropped),
        ("tx-carrier-errors", counters.tx_carrier_errors),
        ("multicast", counters.multicast),
        ("collisions", counters.collisions),
    ])
}
