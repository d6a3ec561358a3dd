//! Servers that mean no good, or do not know better.

use super::servers::{NOISE, Script, Scripted};
use super::{has, leased};
use crate::capture::Capture;
use crate::kinds::detach;
use crate::nics::{attach, becomes, host};
use crate::rig::until;

#[tokio::test]
async fn what_is_damaged_or_for_others_is_not_believed() {
    let (host, plant, plc) = host().await;
    let script = Script { seconds: 8, times: (2, 6), noise: true, ..Script::default() };
    let server = Scripted::start(&plant, script);
    let capture = Capture::start(&plant);
    let nic = attach(&host, &leased(&plc, "conflict: warn\n")).await;
    has(&nic, &plc, "192.0.2.50/24").await;
    let mac = nic.mac().await.unwrap();
    // Renewals go through the same.
    let before = nic.lease_expires().await.unwrap();
    until("it is renewed twice", async || (nic.lease_expires().await.unwrap() >= before + 4).then_some(())).await;
    becomes(&nic, "bound").await;
    assert_eq!(nic.last_error().await.unwrap().1, "");
    assert!(capture.dhcp().iter().any(|message| message.yours == NOISE), "there was no noise");
    capture.assert_only(&mac, &["192.0.2.50"]);
    drop(server);
    detach(&host, "plc0").await;
}

#[tokio::test]
async fn odd_options_are_left_out_and_the_rest_is_used() {
    let (host, plant, plc) = host().await;
    let odd = vec![
        (15, b"plant\x1b[31m\n.example".to_vec()),
        (6, vec![192, 0, 2]),
        (42, vec![255; 252]),
        (26, vec![0, 1]),
        (12, vec![b'x'; 255]),
        // A prefix of 33 bits.
        (121, vec![33, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (250, vec![0; 255]),
    ];
    let _server = Scripted::start(&plant, Script { odd, ..Script::default() });
    let nic = attach(&host, &leased(&plc, "conflict: warn\n")).await;
    has(&nic, &plc, "192.0.2.50/24").await;
    becomes(&nic, "bound").await;
    assert_eq!((nic.domain().await.unwrap(), nic.ntp().await.unwrap()), (String::new(), Vec::new()));
    // The routes are damaged, so the router counts.
    assert_eq!(nic.gateway().await.unwrap(), "192.0.2.1");
    assert!(plc.ip("address show dev plc0").contains("mtu 1500"));
}

/// A route that somebody else has set in the target stays; the rest of the lease is used, and ends with its time.
#[tokio::test]
async fn a_route_of_somebody_else_in_the_target_is_left_alone() {
    let (host, plant, plc) = host().await;
    let server = Scripted::start(&plant, Script { seconds: 6, times: (2, 4), ..Script::default() });
    plc.ip("link add other0 type bridge");
    plc.ip("address add 198.51.100.7/24 dev other0");
    plc.ip("link set other0 up");
    plc.ip("route add default via 198.51.100.1 dev other0");
    let nic = attach(&host, &leased(&plc, "conflict: warn\n")).await;
    has(&nic, &plc, "192.0.2.50/24").await;
    becomes(&nic, "bound").await;
    let told = async || nic.last_error().await.unwrap().1.contains("another one with the metric 0").then_some(());
    until("it is told", told).await;
    assert_eq!(plc.ip("route show default").trim(), "default via 198.51.100.1 dev other0");
    server.change(|script| script.silent = true);
    let gone = async || (!plc.ip("address show dev plc0").contains("192.0.2.50")).then_some(());
    until("the address goes with its time", gone).await;
    assert_eq!(plc.ip("route show default").trim(), "default via 198.51.100.1 dev other0");
    server.change(|script| script.silent = false);
    has(&nic, &plc, "192.0.2.50/24").await;
    // The next renewal sets what is not taken any more.
    plc.ip("route del default");
    until("it is right", async || nic.last_error().await.unwrap().1.is_empty().then_some(())).await;
    assert!(plc.ip("route show default").contains("via 192.0.2.1 dev plc0 proto dhcp"));
    detach(&host, "plc0").await;

    // Another metric is another route.
    plc.ip("route add default via 198.51.100.1 dev other0");
    let nic = attach(&host, &leased(&plc, "conflict: warn\nmetric: 50\n")).await;
    becomes(&nic, "bound").await;
    assert_eq!(nic.last_error().await.unwrap().1, "");
    let routes = plc.ip("route show default");
    assert!(
        routes.contains("via 198.51.100.1 dev other0") && routes.contains("dev plc0 proto dhcp metric 50"),
        "{routes}"
    );
}
