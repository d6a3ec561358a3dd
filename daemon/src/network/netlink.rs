//! The kernel behind one netlink socket per namespace: requests and multicast groups share it, so an idle network costs
//! nothing. `rtnetlink` speaks the protocol; its types stay in here, since they change with every release.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use futures_util::stream::Stream;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future};
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage, MacVlanMode, State, Stats64,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::Connection;
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, MulticastGroup,
    RouteMessageBuilder,
};

use super::address::Prefixed;
use super::kernel::{
    AddressRecord, Answer, DefaultRoute, Inet, Kernel, KernelError, KernelEvent, LinkChange, LinkRecord, NewLink,
    NewPair, Opened, OperState, Port, Route, Snapshot, StaticRoute, Statistics, Upper,
};
use super::nic::namespace::Namespace;
use super::nic::spec::Mode;

/// What a port listens to.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];
/// Bytes of reports that may wait in the kernel; without privileges it gives less. What does not fit is made up for by
/// asking for everything.
const RECEIVE_BUFFER: usize = 1 << 20;
/// `ESRCH`
const NO_SUCH_ROUTE: i32 = 3;
/// Where the kernel shows the links of the namespace that was current when it was mounted.
const SYSFS_NET: &str = "/sys/class/net";

/// `ENOENT`
const NO_ENTRY: i32 = 2;
/// `ENODEV`
const NO_DEVICE: i32 = 19;
/// `IFLA_INET_CONF`
const INET_CONF: u16 = 1;

/// The kernel of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Netlink;

impl Kernel for Netlink {
    fn open(&self) -> Result<Opened, KernelError> {
        drive(rtnetlink::new_multicast_connection(&GROUPS))
    }

    fn open_in(&self, namespace: BorrowedFd<'_>) -> Result<Opened, KernelError> {
        drive(Namespace::inside(namespace, || rtnetlink::new_multicast_connection(&GROUPS)))
    }
}

/// Drives a connection that was opened, and reads what it reports.
fn drive<M>(opened: io::Result<(Connection<RouteNetlinkMessage>, Handle, M)>) -> Result<Opened, KernelError>
where
    M: Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send + 'static,
{
    let (mut connection, handle, messages) =
        opened.map_err(|error| failure("open a netlink socket", &error.to_string(), error.raw_os_error()))?;
    let socket = connection.socket_mut().socket_mut();
    if let Err(error) = socket.set_rx_buf_sz(RECEIVE_BUFFER) {
        tracing::debug!("The netlink socket keeps its receive buffer: {error}");
    }
    tokio::spawn(connection);
    let events = messages.filter_map(|(message, _)| future::ready(event(message))).boxed();
    Ok(Opened { port: Arc::new(NetlinkPort { handle }), events })
}

#[derive(Debug)]
struct NetlinkPort {
    handle: Handle,
}

impl Port for NetlinkPort {
    fn snapshot(&self) -> Answer<'_, Snapshot> {
        async {
            let refused = |error: &_| refusal("list the links", error);
            let links: Vec<_> = self.handle.link().get().execute().try_collect().await.map_err(|e| refused(&e))?;
            let addresses: Vec<_> =
                self.handle.address().get().execute().try_collect().await.map_err(|e| refused(&e))?;
            Ok(Snapshot {
                links: links.iter().filter_map(link_record).collect(),
                addresses: addresses.iter().filter_map(address_record).collect(),
                routes: self.default_routes().await?,
            })
        }
        .boxed()
    }

    fn default_routes(&self) -> Answer<'_, Vec<DefaultRoute>> {
        async {
            let mut routes = Vec::new();
            let (v4, v6) =
                (RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build());
            for request in [v4, v6] {
                let mut answers = self.handle.route().get(request).execute();
                while let Some(route) = answers.try_next().await.map_err(|error| refusal("list the routes", &error))? {
                    routes.extend(default_route(&route));
                }
            }
            Ok(routes)
        }
        .boxed()
    }

    fn link_named<'a>(&'a self, name: &'a str) -> Answer<'a, Option<LinkRecord>> {
        async move {
            match self.handle.link().get().match_name(name).execute().try_next().await {
                Ok(link) => Ok(link.as_ref().and_then(link_record)),
                Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code().abs() == NO_DEVICE => Ok(None),
                Err(error) => Err(refusal(&format!("look for the link \"{name}\""), &error)),
            }
        }
        .boxed()
    }

    fn make_link<'a>(&'a self, link: &'a NewLink, namespace: BorrowedFd<'a>) -> Answer<'a, ()> {
        async move {
            let message = new_link(link, namespace);
            let answer = self.handle.link().add(message).execute().await;
            answer.map_err(|error| refusal(&format!("make the link \"{}\"", link.name), &error))
        }
        .boxed()
    }

    fn make_pair<'a>(&'a self, pair: &'a NewPair, namespace: BorrowedFd<'a>) -> Answer<'a, ()> {
        async move {
            let far = LinkUnspec::new_with_name(&pair.far)
                .address(pair.mac.0.to_vec())
                .mtu(pair.mtu)
                .setns_by_fd(namespace.as_raw_fd())
                .build();
            let near = LinkVeth::new(&pair.near, &pair.far)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
                .mtu(pair.mtu)
                .up()
                .build();
            let answer = self.handle.link().add(near).execute().await;
            answer.map_err(|error| refusal(&format!("make the link \"{}\"", pair.far), &error))
        }
        .boxed()
    }

    fn change_link<'a>(&'a self, link: u32, change: LinkChange<'a>) -> Answer<'a, ()> {
        async move {
            let mut message = LinkUnspec::new_with_index(link);
            if let Some(namespace) = change.namespace {
                message = message.setns_by_fd(namespace.as_raw_fd());
            }
            if let Some(name) = change.name {
                message = message.name(name);
            }
            if let Some(mtu) = change.mtu {
                message = message.mtu(mtu);
            }
            if let Some(alias) = change.alias {
                message = message.alias(alias);
            }
            message = match change.up {
                Some(true) => message.up(),
                Some(false) => message.down(),
                None => message,
            };
            let answer = self.handle.link().set(message.build()).execute().await;
            answer.map_err(|error| refusal(&format!("change link {link}"), &error))
        }
        .boxed()
    }

    fn inet(&self, link: u32, setting: Inet) -> Answer<'_, bool> {
        async move {
            let answers = self.handle.link().get().match_index(link).execute();
            let links: Vec<_> =
                answers.try_collect().await.map_err(|error| refusal("read the settings of a link", &error))?;
            Ok(links.iter().flat_map(|link| &link.attributes).any(|attribute| match attribute {
                LinkAttribute::AfSpecUnspec(families) => families.iter().any(|family| match family {
                    AfSpecUnspec::Inet(settings) => settings.iter().any(|settings| match (settings, setting) {
                        (AfSpecInet::DevConf(settings), Inet::Forwarding) => settings.forwarding != 0,
                        (AfSpecInet::DevConf(settings), Inet::ProxyArp) => settings.proxy_arp != 0,
                        _ => false,
                    }),
                    _ => false,
                }),
                _ => false,
            }))
        }
        .boxed()
    }

    fn set_inet(&self, link: u32, setting: Inet, on: bool) -> Answer<'_, ()> {
        async move {
            let message = LinkUnspec::new_with_index(link).append_extra_attribute(inet_setting(setting, on)).build();
            let answer = self.handle.link().set(message).execute().await;
            answer.map_err(|error| refusal(&format!("change the settings of link {link}"), &error))
        }
        .boxed()
    }

    fn add_proxy(&self, link: u32, address: Ipv4Addr) -> Answer<'_, ()> {
        async move {
            let request = self.handle.neighbours().add(link, IpAddr::V4(address)).flags(NeighbourFlags::Proxy);
            let answer = request.replace().execute().await;
            answer.map_err(|error| refusal(&format!("answer for the address \"{address}\""), &error))
        }
        .boxed()
    }

    fn remove_proxy(&self, link: u32, address: Ipv4Addr) -> Answer<'_, ()> {
        async move {
            let mut message = NeighbourMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.ifindex = link;
            message.header.flags = NeighbourFlags::Proxy;
            message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
            match self.handle.neighbours().del(message).execute().await {
                Err(rtnetlink::Error::NetlinkError(answer)) if answer.raw_code().abs() == NO_ENTRY => Ok(()),
                answer => {
                    answer.map_err(|error| refusal(&format!("no longer answer for the address \"{address}\""), &error))
                }
            }
        }
        .boxed()
    }

    fn add_route(&self, link: u32, route: StaticRoute) -> Answer<'_, ()> {
        async move {
            let StaticRoute { destination, via, metric } = route;
            let IpAddr::V4(network) = destination.address else {
                return Err(failure("set a route", "only those of IPv4 are known", None));
            };
            let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(network, destination.length)
                .output_interface(link)
                .priority(metric);
            message = match via {
                Some(router) => message.gateway(router),
                None => message.scope(RouteScope::Link),
            };
            let added = self.handle.route().add(message.build()).replace().execute().await;
            added.map_err(|error| refusal(&format!("set the route to \"{destination}\""), &error))
        }
        .boxed()
    }

    fn remove_link(&self, link: u32) -> Answer<'_, ()> {
        async move {
            let removed = self.handle.link().del(link).execute().await;
            removed.map_err(|error| refusal(&format!("remove link {link}"), &error))
        }
        .boxed()
    }

    fn add_address(&self, link: u32, address: Prefixed) -> Answer<'_, ()> {
        async move {
            let added = self.handle.address().add(link, address.address, address.length).replace().execute().await;
            added.map_err(|error| refusal(&format!("set the address \"{address}\""), &error))
        }
        .boxed()
    }

    fn add_default_route(&self, link: u32, gateway: Ipv4Addr, metric: u32) -> Answer<'_, ()> {
        async move {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
                .gateway(gateway)
                .output_interface(link)
                .priority(metric)
                .build();
            let added = self.handle.route().add(route).replace().execute().await;
            added.map_err(|error| refusal(&format!("set the default route by \"{gateway}\""), &error))
        }
        .boxed()
    }

    fn remove_address(&self, link: u32, address: Prefixed) -> Answer<'_, ()> {
        async move {
            let message = match address.address {
                IpAddr::V4(v4) => {
                    AddressMessageBuilder::<Ipv4Addr>::new().index(link).address(v4, address.length).build()
                }
                IpAddr::V6(v6) => {
                    AddressMessageBuilder::<Ipv6Addr>::new().index(link).address(v6, address.length).build()
                }
            };
            let removed = self.handle.address().del(message).execute().await;
            removed.map_err(|error| refusal(&format!("remove the address \"{address}\""), &error))
        }
        .boxed()
    }

    fn leased_routes(&self, link: u32) -> Answer<'_, Vec<Route>> {
        async move {
            let mut routes = Vec::new();
            let mut answers = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
            while let Some(route) = answers.try_next().await.map_err(|error| refusal("list the routes", &error))? {
                routes.extend(leased_route(&route, link));
            }
            Ok(routes)
        }
        .boxed()
    }

    fn set_route(&self, link: u32, route: Route) -> Answer<'_, ()> {
        async move {
            let added = self.handle.route().add(route_message(link, route)).replace().execute().await;
            added.map_err(|error| refusal(&format!("set the route to \"{}\"", route.destination), &error))
        }
        .boxed()
    }

    fn remove_route(&self, link: u32, route: Route) -> Answer<'_, ()> {
        async move {
            let removed = self.handle.route().del(route_message(link, route)).execute().await;
            match removed.map_err(|error| refusal(&format!("remove the route to \"{}\"", route.destination), &error)) {
                // The kernel removes routes by itself, too, as that of an address that goes.
                Err(error) if error.errno == Some(NO_SUCH_ROUTE) => Ok(()),
                other => other,
            }
        }
        .boxed()
    }

    fn set_mtu(&self, link: u32, mtu: u32) -> Answer<'_, ()> {
        async move {
            let set = self.handle.link().set(LinkUnspec::new_with_index(link).mtu(mtu).build()).execute().await;
            set.map_err(|error| refusal(&format!("set the MTU {mtu}"), &error))
        }
        .boxed()
    }

    fn statistics(&self, link: u32) -> Answer<'_, Statistics> {
        async move {
            let answers = self.handle.link().get().match_index(link).execute();
            let links: Vec<_> =
                answers.try_collect().await.map_err(|error| refusal("read the counters of a link", &error))?;
            let counters = links.iter().flat_map(|link| &link.attributes).find_map(|attribute| match attribute {
                LinkAttribute::Stats64(counters) => Some(statistics(counters)),
                _ => None,
            });
            Ok(counters.unwrap_or_default())
        }
        .boxed()
    }
}

/// The request for a link on top of another one.
fn new_link(link: &NewLink, namespace: BorrowedFd<'_>) -> LinkMessage {
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
fn inet_setting(setting: Inet, on: bool) -> LinkAttribute {
    let number: u16 = match setting {
        Inet::Forwarding => 1,
        Inet::ProxyArp => 3,
    };
    let mut value = Vec::from(8_u16.to_ne_bytes());
    value.extend(number.to_ne_bytes());
    value.extend(u32::from(on).to_ne_bytes());
    let settings = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, value));
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![settings])])
}

fn statistics(counters: &Stats64) -> Statistics {
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

fn failure(action: &str, reason: &str, errno: Option<i32>) -> KernelError {
    let reason = reason.split(" (os error").next().unwrap_or(reason).to_owned();
    KernelError { action: action.to_owned(), reason, errno }
}

fn refusal(action: &str, error: &rtnetlink::Error) -> KernelError {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            failure(action, &message.to_io().to_string(), Some(message.raw_code().abs()))
        }
        other => failure(action, &other.to_string(), None),
    }
}

fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<KernelEvent> {
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
fn link_record(message: &LinkMessage) -> Option<LinkRecord> {
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

fn address_record(message: &AddressMessage) -> Option<AddressRecord> {
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
fn default_route(message: &RouteMessage) -> Option<DefaultRoute> {
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

/// A route of a lease as the kernel takes it. The protocol marks it as ours.
fn route_message(link: u32, route: Route) -> RouteMessage {
    let destination = match route.destination.address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination, route.destination.length)
        .output_interface(link)
        .priority(route.metric)
        .protocol(RouteProtocol::Dhcp);
    let message = match route.gateway {
        Some(gateway) => message.gateway(gateway),
        None => message.scope(RouteScope::Link),
    };
    if route.on_link { message.onlink().build() } else { message.build() }
}

/// A route that [`route_message`] has made; none if it is another one.
fn leased_route(message: &RouteMessage, on: u32) -> Option<Route> {
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
    let ours = header.protocol == RouteProtocol::Dhcp && table == main && link == Some(on);
    let destination = Prefixed { address: destination, length: header.destination_prefix_length };
    let on_link = header.flags.contains(RouteFlags::Onlink);
    ours.then_some(Route { destination, gateway, metric, on_link })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
