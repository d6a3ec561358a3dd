//! The network behind the parent changes.

use super::servers::Dnsmasq;
use super::{Monitor, has, leased};
use crate::capture::Capture;
use crate::nics::{attach, becomes, host};
use crate::rig::{Namespace, until};

fn static_nic(plc: &Namespace) -> String {
    let place = format!("name: fixed0\nparent: lan0\npid: {}", plc.pid());
    format!("kind: nic\n{place}\naddresses: [192.0.2.200/24]\ngateway: 192.0.2.1\nconflict: warn\n")
}

#[tokio::test]
async fn a_cable_that_is_plugged_elsewhere_brings_another_lease() {
    let (host, plant, plc) = host().await;
    let server = Dnsmasq::start(&plant, &["--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2h"]);
    let other = Namespace::new();
    let fixed = attach(&host, &static_nic(&other)).await;
    becomes(&fixed, "up").await;
    let nic = attach(&host, &leased(&plc, "")).await;
    has(&nic, &plc, "192.0.2.50/24").await;
    becomes(&nic, "bound").await;
    let mac = nic.mac().await.unwrap();
    let index =
        |net: &Namespace| net.ip("-oneline link show").lines().last().unwrap().split(':').next().unwrap().to_owned();
    let before = index(&other);

    // Out and in again in the same network: the lease is asked for, and stays.
    let capture = Capture::start(&plant);
    plant.ip("link set plant0 down");
    becomes(&nic, "no-carrier").await;
    assert!(plc.ip("address show dev plc0").contains("192.0.2.50"));
    plant.ip("link set plant0 up");
    let asked = capture.said("the lease is asked for", |message| message.kind == "REQUEST").await;
    assert!(asked.option(50).is_some() && asked.option(54).is_none(), "{asked:?}");
    becomes(&nic, "bound").await;
    assert!(capture.dhcp().iter().all(|message| message.kind != "DISCOVER"));

    // Into another network.
    plant.ip("link set plant0 down");
    becomes(&nic, "no-carrier").await;
    drop(server);
    plant.ip("address flush dev plant0");
    plant.ip("address add 198.51.100.1/24 dev plant0");
    let _server = Dnsmasq::start(&plant, &["--dhcp-range=198.51.100.50,198.51.100.50,255.255.255.0,2h"]);
    plant.ip("link set plant0 up");
    has(&nic, &plc, "198.51.100.50/24").await;
    becomes(&nic, "bound").await;
    assert!(!plc.ip("address show dev plc0").contains("192.0.2.50"));
    assert_eq!(nic.gateway().await.unwrap(), "198.51.100.1");
    assert!(plc.ip("route show").contains("default via 198.51.100.1 dev plc0"));
    let kinds: Vec<&str> = capture.dhcp().iter().map(|message| message.kind).collect();
    let after = kinds.iter().rposition(|kind| *kind == "NAK").expect("the other network refuses");
    assert_eq!(kinds[after..], ["NAK", "DISCOVER", "OFFER", "REQUEST", "ACK"]);
    capture.assert_only(&mac, &["192.0.2.50", "198.51.100.50"]);
    // The link with the static address is the same one, with the same address.
    assert_eq!(index(&other), before);
    assert!(other.ip("address show dev fixed0").contains("192.0.2.200/24"));
    println!("{}", capture.transcript("DHCP: the cable out and in, and into another network"));
}

/// A switch that moves the port to another network shows only in what becomes of the host's own address.
#[tokio::test]
async fn a_parent_that_moves_to_another_network_takes_its_leases_along() {
    let (host, plant, plc) = host().await;
    host.net.ip("address add 192.0.2.20/24 dev lan0");
    let server = Dnsmasq::start(&plant, &["--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2h"]);
    let other = Namespace::new();
    let fixed = attach(&host, &static_nic(&other)).await;
    becomes(&fixed, "up").await;
    let nic = attach(&host, &leased(&plc, "")).await;
    has(&nic, &plc, "192.0.2.50/24").await;
    becomes(&nic, "bound").await;
    until("all is quiet", async || (!other.ip("address show dev fixed0").contains("tentative")).then_some(())).await;
    let monitor = Monitor::start(&host, &other, "fixed").await;
    drop(server);
    plant.ip("address flush dev plant0");
    plant.ip("address add 198.51.100.1/24 dev plant0");
    let _server = Dnsmasq::start(&plant, &["--dhcp-range=198.51.100.50,198.51.100.50,255.255.255.0,2h"]);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    host.net.ip("address del 192.0.2.20/24 dev lan0");
    host.net.ip("address add 198.51.100.20/24 dev lan0");
    has(&nic, &plc, "198.51.100.50/24").await;
    becomes(&nic, "bound").await;
    assert_eq!(monitor.text(), "", "the NIC with the static address was disturbed");
}
