//! The kernel behind one netlink socket per namespace: requests and multicast groups share it, so an idle network costs
//! nothing. `rtnetlink` speaks the protocol; its types stay in here, since they change with every release.

mod report;
mod request;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use futures_util::stream::Stream;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future};
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, InfoData, InfoVeth, LinkAttribute};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::RouteScope;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::Connection;
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, LinkVeth, MulticastGroup, RouteMessageBuilder};

use self::report::{address_record, default_route, event, link_record, route_over, statistics};
use self::request::{inet_setting, new_link, route_message};
use super::address::Prefixed;
use super::kernel::{
    Answer, DefaultRoute, Inet, Kernel, KernelError, LinkChange, LinkRecord, NewLink, NewPair, Opened, Origin, Port,
    Route, Snapshot, StaticRoute, Statistics,
};
use super::nic::namespace::Namespace;

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
/// `ENOENT`
const NO_ENTRY: i32 = 2;
/// `EEXIST`
const EXISTS: i32 = 17;
/// `ENODEV`
const NO_DEVICE: i32 = 19;

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
                .address(pair.near_mac.0.to_vec())
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
                        (AfSpecInet::DevConf(settings), Inet::ArpIgnore) => settings.arp_ignore != 0,
                        (AfSpecInet::DevConf(settings), Inet::ArpAnnounce) => settings.arp_announce > 1,
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

    fn routes(&self, link: u32, origin: Origin) -> Answer<'_, Vec<Route>> {
        async move {
            let mut routes = Vec::new();
            let mut answers = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
            while let Some(route) = answers.try_next().await.map_err(|error| refusal("list the routes", &error))? {
                routes.extend(route_over(&route, link).filter(|route| route.origin == origin));
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

    fn claim_route(&self, link: u32, route: Route) -> Answer<'_, bool> {
        async move {
            match self.handle.route().add(route_message(link, route)).execute().await {
                Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code().abs() == EXISTS => Ok(false),
                Err(error) => Err(refusal(&format!("set the route to \"{}\"", route.destination), &error)),
                Ok(()) => Ok(true),
            }
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
