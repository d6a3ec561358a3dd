use super::*;
use crate::core::error::{Error, Kind};

const GOOD: &str = "kind: nic\nname: plc0\nparent: eth0\nnamespace: /run/netns/plc\naddresses: [192.0.2.7/24]\n";

#[test]
fn a_specification_is_read_with_its_defaults() {
    let spec = Spec::parse(GOOD).unwrap();
    assert_eq!((spec.name.as_str(), spec.parent.as_str()), ("plc0", "eth0"));
    assert_eq!(spec.place, Place::Path("/run/netns/plc".into()));
    assert_eq!(spec.link, LinkKind::Macvlan(Mode::Bridge));
    assert_eq!((spec.conflict, spec.mac, spec.metric, spec.routes.len()), (Conflict::Refuse, None, 0, 0));
    let more = "mode: private\nconflict: warn\nmac: 02:00:00:00:00:07\nmtu: 1400\ngateway: 192.0.2.1\nmetric: 50\n";
    let spec = Spec::parse(&format!("{GOOD}{more}").replace("namespace: /run/netns/plc", "pid: 12")).unwrap();
    assert_eq!((spec.place, spec.mtu, spec.metric), (Place::Process(12), Some(1400), 50));
    assert_eq!((spec.gateway, spec.link), (Some(Ipv4Addr::new(192, 0, 2, 1)), LinkKind::Macvlan(Mode::Private)));
}

#[test]
fn every_type_of_link_is_read() {
    let of = |more: &str| Spec::parse(&format!("{GOOD}{more}")).unwrap().link;
    assert_eq!(of("mode: passthru\n"), LinkKind::Macvlan(Mode::Passthru));
    assert_eq!(of("type: vlan\nvlan: 7\n"), LinkKind::Vlan(7));
    assert_eq!(of("type: routed\n"), LinkKind::Routed);
    assert_eq!(of("type: dedicated\n"), LinkKind::Dedicated);
    let bare = GOOD.replace("addresses: [192.0.2.7/24]\n", "type: dedicated\n");
    assert!(Spec::parse(&bare).unwrap().addresses.is_empty());
}

#[test]
fn routes_are_read() {
    let text = format!("{GOOD}routes: [{{to: 198.51.100.0/24, via: 192.0.2.1, metric: 7}}, {{to: 203.0.113.5/32}}]\n");
    let routes = Spec::parse(&text).unwrap().routes;
    assert_eq!((routes[0].destination.to_string().as_str(), routes[0].metric), ("198.51.100.0/24", 7));
    assert_eq!((routes[0].via, routes[1].via), (Some(Ipv4Addr::new(192, 0, 2, 1)), None));
}

#[test]
fn an_address_may_be_leased() {
    let leased = GOOD.replace("[192.0.2.7/24]", "dhcp");
    let spec = Spec::parse(&leased).unwrap();
    assert_eq!((spec.addresses.len(), spec.dhcp), (0, Some(Dhcp { host_name: None })));
    let spec = Spec::parse(&format!("{leased}hostname: press-7\ndns: [192.0.2.3, \"2001:db8::53\"]\n")).unwrap();
    assert_eq!(spec.dhcp, Some(Dhcp { host_name: Some("press-7".to_owned()) }));
    assert_eq!(spec.dns.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.3", "2001:db8::53"]);
    for (text, expected) in [
        (format!("{leased}gateway: 192.0.2.1\n"), "\"gateway\" must not stand beside \"addresses: dhcp\"."),
        (format!("{leased}hostname: a.b\n"), "\"hostname\" must consist of letters, digits and \"-\""),
        (format!("{leased}hostname: -a\n"), "\"hostname\" must consist of letters"),
        (format!("{leased}hostname: {}\n", "a".repeat(64)), "\"hostname\""),
        (format!("{leased}dns: [192.0.2]\n"), "\"dns[0]\" must be an IP address."),
        (format!("{leased}dns: [0.0.0.0]\n"), "\"dns[0]\" is not the address of one host."),
        (leased.replace("dhcp", "bootp"), "\"addresses\" must be \"dhcp\" or a list of addresses."),
        (format!("{GOOD}hostname: press-7\n"), "\"hostname\" is for \"addresses: dhcp\" only."),
    ] {
        let error = Error::from(Spec::parse(&text).expect_err(&text));
        assert_eq!(error.kind, Kind::InvalidNic);
        assert!(error.message.contains(expected), "{expected}\n{}", error.message);
    }
}

#[test]
fn everything_that_cannot_work_is_refused_with_its_place() {
    for (from, to, expected) in [
        ("plc0", "a-name-too-long0", "nic:2:7: \"name\" is longer than 15 bytes."),
        ("plc0", "a/b", "nic:2:7: \"name\" must not contain \"/\""),
        ("plc0", "all", "nic:2:7: \"name\" is a word of the kernel"),
        ("plc0", "\"a b\"", "nic:2:7: \"name\" must not contain blanks"),
        ("eth0", "..", "nic:3:9: \"parent\" must not contain \"/\" or be"),
        ("/run", "run", "nic:4:12: \"namespace\" must be an absolute path."),
        ("192.0.2.7/24", "192.0.2.7", "\"addresses[0]\" must be an IPv4 address with"),
        ("192.0.2.7/24", "192.0.2.0/24", "\"addresses[0]\" is the address of the network"),
        ("192.0.2.7/24", "192.0.2.255/24", "\"addresses[0]\" is the address of the network"),
        ("192.0.2.7/24", "224.0.0.1/24", "\"addresses[0]\" is not the address of one host."),
        ("192.0.2.7/24", "", "\"addresses\" is empty"),
        ("kind: nic", "kind: vplc", "nic:1:7: \"kind\" is \"vplc\"; expected \"nic\"."),
        ("kind: nic", "kind: nic\npid: 1", "\"pid\" must not stand beside \"namespace\"."),
        ("kind: nic", "kind: nic\ngateway: 198.51.100.1", "\"gateway\" lies outside the prefix of every address."),
        ("kind: nic", "kind: nic\ngateway: 192.0.2.7", "\"gateway\" is an address of the NIC itself."),
        ("kind: nic", "kind: nic\nmac: 01:00:5e:00:00:01", "\"mac\" is the address of a group"),
        ("kind: nic", "kind: nic\nmac: 00:00:00:00:00:00", "\"mac\" is the address of a group"),
        (
            "kind: nic",
            "kind: nic\ntype: ipvlan",
            "nic:2:7: \"type\" must be \"macvlan\", \"vlan\", \"dedicated\", \"routed\" or",
        ),
        ("kind: nic", "kind: nic\nmode: loose", "\"mode\" must be \"bridge\", \"private\", \"vepa\" or"),
        (
            "kind: nic",
            "kind: nic\ntype: routed\nmode: vepa",
            "\"mode\" is for the type \"macvlan\", and this one is \"routed\".",
        ),
        ("kind: nic", "kind: nic\nvlan: 7", "\"vlan\" is for the type \"vlan\", and this one is \"macvlan\"."),
        ("kind: nic", "kind: nic\ntype: vlan", "\"vlan\" is missing"),
        ("kind: nic", "kind: nic\ntype: vlan\nvlan: 4095", "\"vlan\" must be an integer from 1 to 4094"),
        ("kind: nic", "kind: nic\ntype: dedicated\nmac: 02:00:00:00:00:07", "\"mac\" must not be given: the link has"),
        ("kind: nic", "kind: nic\nmode: passthru\nmac: 02:00:00:00:00:07", "\"mac\" must not be given: the link has"),
        ("kind: nic", "kind: nic\nroutes: [{to: 0.0.0.0/0}]", "\"routes[0].to\" must be an IPv4 network"),
        ("kind: nic", "kind: nic\nroutes: [{to: 198.51.100.1/24}]", "\"routes[0].to\" has bits beyond its prefix."),
        ("kind: nic", "kind: nic\nroutes: [{to: 198.51.100.0/24, via: 203.0.113.1}]", "\"routes[0].via\" lies outside"),
        ("kind: nic", "kind: nic\nroutes: [{to: 198.51.100.0/24, by: x}]", "\"routes[0].by\" is not a known key."),
        ("kind: nic", "kind: nic\nmac: eth", "\"mac\" is no MAC address: six pairs"),
    ] {
        let text = GOOD.replacen(from, to, 1);
        let error = Error::from(Spec::parse(&text).expect_err(&text));
        assert_eq!(error.kind, Kind::InvalidNic);
        assert!(error.message.contains(expected), "{expected}\n{}", error.message);
    }
}

#[test]
fn a_shim_is_of_the_host_and_takes_nothing_from_it() {
    let shim = GOOD.replace("namespace: /run/netns/plc\n", "type: shim\n").replace("7/24", "7/32");
    let spec = Spec::parse(&shim).unwrap();
    assert_eq!((spec.link, spec.place), (LinkKind::Shim, Place::Host));
    for (text, expected) in [
        (shim.replace("7/32", "7/24"), "\"addresses[0]\" must have the prefix length 32"),
        (shim.replace("[192.0.2.7/32]", "dhcp"), "\"addresses\" must be a list"),
        (shim.replace("addresses: [192.0.2.7/32]\n", ""), "\"addresses\" is missing"),
        (format!("{shim}namespace: /run/netns/plc\n"), "\"namespace\" has no place in a NIC of the type"),
        (format!("{shim}pid: 7\n"), "\"pid\" has no place"),
        (format!("{shim}gateway: 192.0.2.1\n"), "\"gateway\" has no place"),
        (format!("{shim}routes: [{{to: 198.51.100.0/24}}]\n"), "\"routes\" has no place"),
        (format!("{shim}mode: bridge\n"), "\"mode\" is for the type \"macvlan\", and this one is \"shim\"."),
        (format!("{shim}vplc: line1\n"), "\"vplc\" has no place"),
    ] {
        let error = Error::from(Spec::parse(&text).expect_err(&text));
        assert_eq!(error.kind, Kind::InvalidNic);
        assert!(error.message.contains(expected), "{expected}\n{}", error.message);
    }
}

#[test]
fn point_to_point_prefixes_have_no_network_address() {
    for address in ["192.0.2.6/31", "192.0.2.7/31", "192.0.2.7/32"] {
        assert!(Spec::parse(&GOOD.replace("192.0.2.7/24", address)).is_ok(), "{address}");
    }
}
