use proptest::prelude::*;

use super::*;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);

fn with(more: &[(u8, &[u8])]) -> Options {
    let mut options = Options::from([
        (MASK, vec![255, 255, 255, 0]),
        (SERVER, vec![192, 0, 2, 1]),
        (LEASE_TIME, 3600_u32.to_be_bytes().to_vec()),
    ]);
    options.extend(more.iter().map(|(number, value)| (*number, value.to_vec())));
    options
}

fn read(more: &[(u8, &[u8])]) -> Option<Lease> {
    Lease::read(OWN, &with(more))
}

#[test]
fn everything_that_a_server_grants_is_read() {
    let lease = read(&[
        (ROUTERS, &[192, 0, 2, 1, 192, 0, 2, 2]),
        (DNS, &[192, 0, 2, 3, 192, 0, 2, 3, 224, 0, 0, 1, 192, 0, 2, 4, 9]),
        (NTP, &[192, 0, 2, 5]),
        (DOMAIN, b"plant.example.\0"),
        (MTU, &[5, 120]),
        (RENEWAL_TIME, &[0, 0, 2, 0]),
        (REBINDING_TIME, &[0, 0, 4, 0]),
    ]);
    let lease = lease.unwrap();
    assert_eq!(lease.prefixed().to_string(), "192.0.2.50/24");
    assert_eq!(lease.gateway(), Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(lease.dns, [Ipv4Addr::new(192, 0, 2, 3), Ipv4Addr::new(192, 0, 2, 4)]);
    assert_eq!((lease.ntp.len(), lease.domain.as_str(), lease.mtu), (1, "plant.example", Some(1400)));
    assert_eq!((lease.seconds, lease.renew, lease.rebind), (Some(3600), 512, 1024));
}

#[test]
fn what_cannot_be_used_is_no_lease() {
    for (number, value) in [
        (MASK, &[255, 0, 255, 0][..]),
        (MASK, &[0, 0, 0, 0]),
        (MASK, &[255, 255, 255, 206]),
        (SERVER, &[0, 0, 0, 0]),
        (SERVER, &[1, 2]),
        (LEASE_TIME, &[0, 0, 0, 0]),
        (LEASE_TIME, &[0, 0, 3]),
    ] {
        assert_eq!(read(&[(number, value)]), None, "{number} {value:?}");
    }
    for address in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.0", "192.0.2.255"] {
        assert_eq!(Lease::read(address.parse().unwrap(), &with(&[])), None, "{address}");
    }
    assert!(read(&[(MASK, &[255; 4])]).is_some(), "an address on its own");
}

#[test]
fn times_that_make_no_sense_are_those_of_the_rfc() {
    let number = |number: u32| number.to_be_bytes();
    for (t1, t2) in [(0, 0), (3600, 3500), (3000, 2000), (1, 4000)] {
        let lease = read(&[(RENEWAL_TIME, &number(t1)), (REBINDING_TIME, &number(t2))]).unwrap();
        assert!(0 < lease.renew && lease.renew < lease.rebind && lease.rebind < 3600, "{t1} {t2} {lease:?}");
    }
    let lease = read(&[]).unwrap();
    assert_eq!((lease.renew, lease.rebind), (1800, 3149));
    assert_eq!(read(&[(LEASE_TIME, &[255; 4])]).unwrap().seconds, None);
}

#[test]
fn a_network_without_a_mask_is_that_of_its_class() {
    let mut options = with(&[]);
    options.remove(&MASK);
    for (address, length) in [("10.1.2.3", 8), ("172.16.1.2", 16), ("192.0.2.50", 24)] {
        assert_eq!(Lease::read(address.parse().unwrap(), &options).unwrap().length, length, "{address}");
    }
}

#[test]
fn classless_routes_stand_for_the_router() {
    let router: (u8, &[u8]) = (ROUTERS, &[192, 0, 2, 1]);
    let classless = &[24, 198, 51, 100, 192, 0, 2, 9, 20, 10, 1, 255, 0, 0, 0, 0, 0, 192, 0, 2, 8];
    let lease = read(&[router, (CLASSLESS_ROUTES, classless)]).unwrap();
    let shown: Vec<_> =
        lease.routes.iter().map(|route| (route.destination.to_string(), route.length, route.gateway)).collect();
    let gateway = |last| Some(Ipv4Addr::new(192, 0, 2, last));
    assert_eq!(
        shown,
        [
            ("198.51.100.0".to_owned(), 24, gateway(9)),
            // What lies below the prefix is cut off.
            ("10.1.240.0".to_owned(), 20, None),
            ("0.0.0.0".to_owned(), 0, gateway(8))
        ]
    );
    assert_eq!(lease.gateway(), gateway(8));
    // Damaged ones count for nothing.
    for routes in [&[33, 1, 2, 3, 4, 5, 192, 0, 2, 9][..], &[24, 198, 51, 100, 192], &[]] {
        assert_eq!(read(&[router, (CLASSLESS_ROUTES, routes)]).unwrap().gateway(), gateway(1), "{routes:?}");
    }
    assert_eq!(read(&[(ROUTERS, &[192, 0, 2, 50])]).unwrap().gateway(), None, "we are not our own router");
}

#[test]
fn an_mtu_or_a_domain_that_is_not_sane_is_left_out() {
    assert_eq!(read(&[(MTU, &[0, 68])]).unwrap().mtu, None);
    assert_eq!(read(&[(MTU, &[5])]).unwrap().mtu, None);
    for domain in [&b"a b"[..], b"a\nnameserver 6.6.6.6", &[0xff, 0xfe], &[b'a'; 254]] {
        assert_eq!(read(&[(DOMAIN, domain)]).unwrap().domain, "", "{domain:?}");
    }
}

proptest! {
    #[test]
    fn whatever_a_server_says_is_bounded_and_sane(
        address: [u8; 4],
        options in prop::collection::btree_map(
            prop::sample::select(vec![1, 3, 6, 15, 26, 42, 51, 54, 58, 59, 121]),
            prop::collection::vec(any::<u8>(), 0..700), 0..11),
        sane: bool,
    ) {
        let mut options = options;
        if sane {
            options.extend(with(&[]));
        }
        if let Some(lease) = Lease::read(Ipv4Addr::from(address), &options) {
            prop_assert!((1..=32).contains(&lease.length) && is_host(lease.address, lease.length));
            prop_assert!(lease.dns.len() <= SERVERS_LIMIT && lease.ntp.len() <= SERVERS_LIMIT);
            prop_assert!(lease.routes.len() <= ROUTES_LIMIT && lease.domain.len() <= DOMAIN_LIMIT);
            prop_assert!(0 < lease.renew && lease.renew < lease.rebind);
            prop_assert!(lease.seconds.is_none_or(|seconds| lease.rebind < seconds));
            let written = serde_json::to_vec(&lease).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Lease>(&written).unwrap(), lease);
        }
    }
}
