//! Renewal, refusal, expiry and the like, with a server that does what the test says.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::servers::{Script, Scripted};
use super::{Monitor, has, leased};
use crate::capture::{Capture, Dhcp};
use crate::nics::{attach, becomes, host};
use crate::rig::until;

/// A lease that is renewed after two seconds.
fn short() -> Script {
    Script { seconds: 8, times: (2, 5), ..Script::default() }
}

fn is_renewal(message: &Dhcp) -> bool {
    message.kind == "REQUEST" && !message.client.is_unspecified()
}

#[tokio::test]
async fn a_renewal_touches_nothing_but_what_has_changed() {
    let (host, plant, plc) = host().await;
    let server = Scripted::start(&plant, short());
    let capture = Capture::start(&plant);
    let nic = attach(&host, &leased(&plc, "")).await;
    has(&nic, &plc, "192.0.2.50/24").await;
    let mac = nic.mac().await.unwrap();
    until("all is quiet", async || (!plc.ip("address show dev plc0").contains("tentative")).then_some(())).await;
    let monitor = Monitor::start(&host, &plc, "plc").await;
    let before = nic.lease_expires().await.unwrap();
    let renewals = async |count: usize| {
        let seen = || capture.dhcp().iter().filter(|message| is_renewal(message)).count();
        let from = seen();
        until("renewals", async || (seen() >= from + count).then_some(())).await;
    };
    renewals(3).await;
    let renewal = capture.dhcp().into_iter().find(is_renewal).unwrap();
    assert_eq!((renewal.from, renewal.to), (Ipv4Addr::new(192, 0, 2, 50), Ipv4Addr::new(192, 0, 2, 1)));
    assert!(renewal.option(50).is_none() && renewal.option(54).is_none(), "{renewal:?}");
    assert!(nic.lease_expires().await.unwrap() > before);
    assert_eq!(monitor.text(), "", "a renewal touched something");

    // Name servers are none of the kernel's business.
    server.change(|script| script.dns = Ipv4Addr::new(192, 0, 2, 77));
    until("the new name server", async || (nic.dns().await.unwrap() == ["192.0.2.77"]).then_some(())).await;
    assert_eq!(monitor.text(), "");
    // Another router is one route.
    server.change(|script| script.router = Ipv4Addr::new(192, 0, 2, 9));
    until("the new router", async || (nic.gateway().await.unwrap() == "192.0.2.9").then_some(())).await;
    let said = until("the monitor tells", async || Some(monitor.text()).filter(|text| !text.is_empty())).await;
    assert_eq!(said.trim(), "default via 192.0.2.9 dev plc0 proto dhcp", "{said}");
    // Another address.
    server.change(|script| script.address = Ipv4Addr::new(192, 0, 2, 60));
    has(&nic, &plc, "192.0.2.60/24").await;
    assert!(!plc.ip("address show dev plc0").contains("192.0.2.50"));
    becomes(&nic, "bound").await;
    assert!(plc.ip("route show").contains("default via 192.0.2.9 dev plc0"));
    capture.assert_only(&mac, &["192.0.2.50", "192.0.2.60"]);
    println!("{}", capture.transcript("DHCP: renewals of a lease of 8 s, and another address"));
}

#[tokio::test]
async fn a_refused_lease_is_given_up_at_once() {
    let (host, plant, plc) = host().await;
    let server = Scripted::start(&plant, short());
    let capture = Capture::start(&plant);
    let nic = attach(&host, &leased(&plc, "conflict: warn\n")).await;
    has(&nic, &plc, "192.0.2.50/24").await;
    server.change(|script| script.refuse = true);
    until("the address is gone", async || (!plc.ip("address show dev plc0").contains("192.0.2.50")).then_some(()))
        .await;
    assert!(!plc.ip("route show").contains("default"));
    let told = until("the refusal is told", async || {
        let (_, message) = nic.last_error().await.unwrap();
        message.contains("refuses the NIC").then_some(message)
    })
    .await;
    assert!(told.ends_with("the address it asks for: not here."), "{told}");
    // Whoever refuses again and again is asked less and less often.
    let refusals = async || capture.dhcp().iter().filter(|message| message.kind == "NAK").count();
    until("it is refused more than once", async || (refusals().await >= 3).then_some(())).await;
    let before = refusals().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(refusals().await <= before + 1);
    server.change(|script| {
        script.refuse = false;
        script.address = Ipv4Addr::new(192, 0, 2, 60);
    });
    has(&nic, &plc, "192.0.2.60/24").await;
    assert_eq!(nic.last_error().await.unwrap().1, "");
    println!("{}", capture.transcript("DHCP: refused"));
}

#[tokio::test]
async fn a_server_that_is_silent_is_asked_by_all_means_until_the_lease_ends() {
    let (host, plant, plc) = host().await;
    let server = Scripted::start(&plant, short());
    let capture = Capture::start(&plant);
    let nic = attach(&host, &leased(&plc, "")).await;
    has(&nic, &plc, "192.0.2.50/24").await;
    let mac = nic.mac().await.unwrap();
    server.change(|script| script.silent = true);
    becomes(&nic, "rebinding").await;
    assert!(plc.ip("address show dev plc0").contains("192.0.2.50"), "the lease still holds");
    assert!(nic.last_error().await.unwrap().1.contains("renews the lease of the NIC \"plc0\""));
    let asked = |message: &Dhcp| is_renewal(message) && message.to.is_broadcast();
    capture.said("every server is asked", asked).await;
    until("the address is gone", async || (!plc.ip("address show dev plc0").contains("192.0.2.50")).then_some(()))
        .await;
    assert_eq!((nic.lease_expires().await.unwrap(), nic.gateway().await.unwrap().as_str()), (0, ""));
    becomes(&nic, "failed").await;
    server.change(|script| script.silent = false);
    has(&nic, &plc, "192.0.2.50/24").await;
    becomes(&nic, "bound").await;
    capture.assert_only(&mac, &["192.0.2.50"]);
}

#[tokio::test]
async fn an_address_that_somebody_has_is_declined() {
    let (host, plant, plc) = host().await;
    plant.ip("address add 192.0.2.40/24 dev plant0");
    let script = Script { first: Some(Ipv4Addr::new(192, 0, 2, 40)), ..Script::default() };
    let _server = Scripted::start(&plant, script);
    let capture = Capture::start(&plant);
    let nic = attach(&host, &leased(&plc, "")).await;
    becomes(&nic, "failed").await;
    let (name, message) = nic.last_error().await.unwrap();
    assert_eq!(name, "org.orchestratord1.Error.AddressInUse", "{message}");
    assert!(
        message.starts_with("The address \"192.0.2.40\" that the NIC \"plc0\" was leased is in use by"),
        "{message}"
    );
    let decline = capture.said("it is declined", |message| message.kind == "DECLINE").await;
    assert_eq!(decline.option(50), Some(Ipv4Addr::new(192, 0, 2, 40)));
    assert!(!plc.ip("address show dev plc0").contains("192.0.2.40"));
    has(&nic, &plc, "192.0.2.50/24").await;
    capture.assert_only(&nic.mac().await.unwrap(), &["192.0.2.50"]);
    println!("{}", capture.transcript("DHCP: an address that somebody has"));
}

#[tokio::test]
async fn without_a_server_it_is_told_and_asked_on() {
    let (host, plant, plc) = host().await;
    let capture = Capture::start(&plant);
    let nic = attach(&host, &leased(&plc, "")).await;
    becomes(&nic, "acquiring").await;
    becomes(&nic, "failed").await;
    let (_, message) = nic.last_error().await.unwrap();
    assert_eq!(message, "No DHCP server answers the NIC \"plc0\" on \"lan0\".");
    let _server = Scripted::start(&plant, Script::default());
    has(&nic, &plc, "192.0.2.50/24").await;
    assert_eq!(nic.last_error().await.unwrap().1, "");
    capture.assert_only(&nic.mac().await.unwrap(), &["192.0.2.50"]);
}
