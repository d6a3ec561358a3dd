use super::super::kernel::{KernelEvent as Event, OperState};
use super::*;

fn record(index: u32, name: &str) -> LinkRecord {
    LinkRecord {
        index,
        name: name.to_owned(),
        kind: "ethernet".to_owned(),
        address: vec![2, 0, 0, 0, 0, 1],
        mtu: 1500,
        oper_state: OperState::Up,
        up: true,
        carrier: true,
        parent: None,
        controller: None,
        alias: String::new(),
    }
}

fn address(link: u32, text: &str, global: bool) -> AddressRecord {
    let (address, length) = text.split_once('/').unwrap();
    let address = Prefixed { address: address.parse().unwrap(), length: length.parse().unwrap() };
    AddressRecord { link, address, global }
}

fn route(link: u32, metric: u32, gateway: &str) -> DefaultRoute {
    let gateway: IpAddr = gateway.parse().unwrap();
    DefaultRoute { metric, v6: gateway.is_ipv6(), link, gateway: Some(gateway) }
}

fn fed(events: impl IntoIterator<Item = Event>) -> Mirror {
    let mut mirror = Mirror::default();
    for event in events {
        mirror.apply(event);
    }
    mirror
}

#[test]
fn a_link_is_shown_with_what_belongs_to_it() {
    // The address comes before its link, as it may when reports are older than answers.
    let mirror = fed([
        Event::Address(address(2, "fe80::1/64", false)),
        Event::Address(address(3, "192.0.2.9/24", true)),
        Event::Link(record(2, "eth0")),
        Event::Address(address(2, "192.0.2.7/24", true)),
        Event::Route(route(2, 100, "fe80::ffff")),
        Event::Route(route(2, 200, "192.0.2.1")),
    ]);
    let link = &mirror.links()[&2];
    let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.7/24", "fe80::1/64"]);
    assert_eq!(link.gateway, Some("192.0.2.1".parse().unwrap()));
    assert_eq!((link.mac.as_str(), link.carrier), ("02:00:00:00:00:01", true));
    assert_eq!(mirror.links().len(), 1);
}

#[test]
fn a_change_that_changes_nothing_keeps_the_link_as_it_is() {
    let mut mirror = fed([Event::Link(record(2, "eth0")), Event::Link(record(3, "eth1"))]);
    let before = mirror.links().clone();
    mirror.apply(Event::Link(record(2, "eth0")));
    mirror.apply(Event::Link(LinkRecord { mtu: 9000, ..record(3, "eth1") }));
    assert!(Arc::ptr_eq(&before[&2], &mirror.links()[&2]));
    assert!(!Arc::ptr_eq(&before[&3], &mirror.links()[&3]));
}

#[test]
fn a_link_that_vanishes_takes_everything_along() {
    let mut mirror = fed([
        Event::Link(record(2, "eth0")),
        Event::Address(address(2, "192.0.2.7/24", true)),
        Event::Route(route(2, 0, "192.0.2.1")),
        Event::LinkGone(2),
    ]);
    assert!(mirror.links().is_empty());
    assert_eq!(mirror.default_link(), None);
    // Another link may get the number.
    mirror.apply(Event::Link(record(2, "eth1")));
    assert_eq!((mirror.links()[&2].addresses.len(), mirror.links()[&2].gateway), (0, None));
}

#[test]
fn the_default_link_is_the_one_packets_take() {
    let mut mirror = fed([
        Event::Link(record(2, "eth0")),
        Event::Link(record(3, "eth1")),
        Event::Route(route(3, 50, "fe80::1")),
        Event::Route(route(2, 200, "192.0.2.1")),
    ]);
    assert_eq!(mirror.default_link(), Some(2), "IPv4 before IPv6");
    mirror.apply(Event::Route(route(3, 100, "198.51.100.1")));
    assert_eq!(mirror.default_link(), Some(3), "the lower metric");
    mirror.apply(Event::Link(LinkRecord { carrier: false, ..record(3, "eth1") }));
    assert_eq!(mirror.default_link(), Some(2), "carrier before metric");
    mirror.apply(Event::LinkGone(2));
    assert_eq!(mirror.default_link(), Some(3), "better one without carrier than none");
    assert!(!mirror.online());
}

#[test]
fn online_needs_a_route_carrier_and_an_address() {
    let mut mirror = fed([Event::Link(record(2, "eth0")), Event::Route(route(2, 0, "192.0.2.1"))]);
    assert!(!mirror.online());
    mirror.apply(Event::Address(address(2, "169.254.0.1/16", false)));
    assert!(!mirror.online());
    mirror.apply(Event::Address(address(2, "192.0.2.7/24", true)));
    assert!(mirror.online());
    mirror.apply(Event::Link(LinkRecord { carrier: false, ..record(2, "eth0") }));
    assert!(!mirror.online());
    mirror.apply(Event::Link(record(2, "eth0")));
    mirror.apply(Event::RouteGone(route(2, 0, "192.0.2.1")));
    assert!(!mirror.online());
}

#[test]
fn what_the_kernel_drops_silently_is_asked_for() {
    let mut mirror = fed([
        Event::Link(record(2, "eth0")),
        Event::Address(address(2, "192.0.2.7/24", true)),
        Event::Route(route(2, 0, "192.0.2.1")),
    ]);
    assert_eq!(mirror.apply(Event::Link(LinkRecord { up: false, ..record(2, "eth0") })), Unknown::Routes);
    assert_eq!(mirror.apply(Event::Link(LinkRecord { up: false, ..record(2, "eth0") })), Unknown::Nothing);
    mirror.replace_routes(Vec::new());
    assert_eq!((mirror.default_link(), mirror.links()[&2].gateway), (None, None));
    assert_eq!(mirror.apply(Event::AddressGone(address(2, "192.0.2.7/24", true))), Unknown::Routes);
    assert_eq!(mirror.apply(Event::Lost), Unknown::All);
}

#[test]
fn everything_anew_forgets_what_is_gone() {
    let mut mirror = fed([
        Event::Link(record(2, "eth0")),
        Event::Link(record(3, "eth1")),
        Event::Address(address(3, "192.0.2.7/24", true)),
    ]);
    mirror.replace(Snapshot { links: vec![record(3, "eth1"), record(4, "eth2")], ..Snapshot::default() });
    let names: Vec<&str> = mirror.links().values().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["eth1", "eth2"]);
    assert!(mirror.links()[&3].addresses.is_empty());
}

#[test]
fn a_link_names_the_nics_that_use_it() {
    let mut mirror = fed([Event::Link(record(2, "eth0"))]);
    mirror.set_user("plc1", Some(2));
    mirror.set_user("plc0", Some(2));
    assert_eq!(mirror.links()[&2].used_by, ["plc0", "plc1"]);
    let before = mirror.links()[&2].clone();
    mirror.set_user("plc0", Some(2));
    assert!(Arc::ptr_eq(&before, &mirror.links()[&2]));
    mirror.apply(Event::Link(record(3, "eth1")));
    mirror.set_user("plc0", Some(3));
    mirror.set_user("plc1", None);
    assert_eq!((mirror.links()[&2].used_by.len(), mirror.links()[&3].used_by.len()), (0, 1));
    mirror.apply(Event::Link(LinkRecord { alias: format!("{OWN}plc7"), ..record(4, "ov0") }));
    assert_eq!(mirror.links()[&4].used_by, ["plc7"]);
}

#[test]
fn a_default_route_without_a_router_is_one() {
    let mirror =
        fed([Event::Link(record(2, "ppp0")), Event::Route(DefaultRoute { gateway: None, ..route(2, 0, "::") })]);
    assert!(mirror.links()[&2].default_route && mirror.links()[&2].gateway.is_none());
}
