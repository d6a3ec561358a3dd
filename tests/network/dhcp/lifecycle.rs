//! From the first question to the release, with dnsmasq.

use orchestratord_dbus::Options;

use super::servers::Dnsmasq;
use super::{Monitor, has, leased};
use crate::capture::Capture;
use crate::nics::{attach, becomes, host};
use crate::rig::until;

const POOL: &str = "--dhcp-range=192.0.2.50,192.0.2.59,255.255.255.0,2h";

#[tokio::test]
async fn a_lease_is_had_with_all_that_comes_with_it_and_given_back() {
    let (host, plant, plc) = host().await;
    let options = ["--dhcp-option=option:dns-server,192.0.2.2,192.0.2.3", "--dhcp-option=option:ntp-server,192.0.2.4"];
    let more = ["--domain=plant.example", "--dhcp-option-force=option:mtu,1400", POOL];
    let server = Dnsmasq::start(&plant, &[&options[..], &more[..]].concat());
    let capture = Capture::start(&plant);
    let nic = attach(&host, &leased(&plc, "hostname: press-7\nmetric: 50\n")).await;
    becomes(&nic, "bound").await;
    assert_eq!(nic.mode().await.unwrap(), "dhcp");
    let [address] = &nic.addresses().await.unwrap()[..] else { panic!("one address") };
    let leased_address = address.strip_suffix("/24").unwrap().to_owned();
    let shown = plc.ip("address show dev plc0");
    assert!(shown.contains(address) && shown.contains("mtu 1400"), "{shown}");
    assert!(plc.ip("route show").contains("default via 192.0.2.1 dev plc0 proto dhcp metric 50"));
    assert_eq!(nic.gateway().await.unwrap(), "192.0.2.1");
    assert_eq!(nic.dns().await.unwrap(), ["192.0.2.2", "192.0.2.3"]);
    assert_eq!(nic.ntp().await.unwrap(), ["192.0.2.4"]);
    assert_eq!(nic.domain().await.unwrap(), "plant.example");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let ends = nic.lease_expires().await.unwrap();
    assert!((now + 7000..=now + 7200).contains(&ends), "{ends} at {now}");
    let mac = nic.mac().await.unwrap();
    let leases = server.leases();
    assert!(leases.contains(&format!("{mac} {leased_address} press-7 01:{mac}")), "{leases}");

    host.network().await.detach_nic("plc0", Options::new()).await.unwrap();
    capture.said("the lease is given back", |message| message.kind == "RELEASE").await;
    until("the server knows it", async || server.leases().is_empty().then_some(())).await;
    assert!(!plc.ip("link").contains("plc0"));
    capture.assert_only(&mac, &[&leased_address]);
    let kinds: Vec<&str> = capture.dhcp().iter().map(|message| message.kind).collect();
    assert_eq!(kinds, ["DISCOVER", "OFFER", "REQUEST", "ACK", "RELEASE"]);
    println!("{}", capture.transcript("DHCP: start and release"));
    let messages = capture.dhcp();
    let set = capture.announced(messages[3].yours).expect("the address is announced");
    let (exchange, rest) = (messages[3].at.saturating_sub(messages[0].at), set.saturating_sub(messages[3].at));
    println!("from DISCOVER to ACK {exchange:?}, until the address is set {rest:?} more");
}

#[tokio::test]
async fn classless_routes_stand_for_the_router_and_given_servers_for_leased_ones() {
    let (host, plant, plc) = host().await;
    let routes = "--dhcp-option-force=121,198.51.100.0/24,192.0.2.9,203.0.113.0/24,0.0.0.0,0.0.0.0/0,192.0.2.8";
    let _server = Dnsmasq::start(&plant, &[POOL, routes, "--dhcp-option=option:router,192.0.2.7"]);
    let nic = attach(&host, &leased(&plc, "dns: [192.0.2.33, \"2001:db8::53\"]\nconflict: warn\n")).await;
    becomes(&nic, "bound").await;
    let routes = plc.ip("route show");
    assert!(routes.contains("default via 192.0.2.8 dev plc0 proto dhcp"), "{routes}");
    assert!(routes.contains("198.51.100.0/24 via 192.0.2.9 dev plc0 proto dhcp"), "{routes}");
    assert!(routes.contains("203.0.113.0/24 dev plc0 proto dhcp scope link"), "{routes}");
    assert!(!routes.contains("192.0.2.7"), "{routes}");
    assert_eq!(nic.gateway().await.unwrap(), "192.0.2.8");
    assert_eq!(nic.dns().await.unwrap(), ["192.0.2.33", "2001:db8::53"]);
}

#[tokio::test]
async fn a_killed_daemon_leaves_the_address_and_its_successor_asks_for_it() {
    let (mut host, plant, plc) = host().await;
    let server = Dnsmasq::start(&plant, &[POOL]);
    let nic = attach(&host, &leased(&plc, "")).await;
    becomes(&nic, "bound").await;
    let mac = nic.mac().await.unwrap();
    let address = nic.addresses().await.unwrap().remove(0);
    until("all is quiet", async || (!plc.ip("address show dev plc0").contains("tentative")).then_some(())).await;
    let monitor = Monitor::start(&host, &plc, "plc").await;
    let capture = Capture::start(&plant);
    host.kill_daemon();
    assert!(plc.ip("address show dev plc0").contains(&address));
    assert!(server.leases().contains(&mac), "a daemon that ends gives no lease back");
    host.start_daemon().await;
    until("the NIC is known", async || {
        host.objects().await.keys().any(|path| path.as_str().ends_with("/nic/plc0")).then_some(())
    })
    .await;
    becomes(&nic, "bound").await;
    // INIT-REBOOT: a question to all, for the address, to no server in particular.
    let request = capture.said("the successor asks", |message| message.kind == "REQUEST").await;
    assert_eq!(request.option(50).map(|address| format!("{address}/24")), Some(address.clone()));
    assert!(
        request.option(54).is_none() && request.client.is_unspecified() && request.to.is_broadcast(),
        "{request:?}"
    );
    assert_eq!(nic.addresses().await.unwrap(), [address.as_str()]);
    assert_eq!(monitor.text(), "", "the restart touched something");
    assert!(capture.dhcp().iter().all(|message| message.kind != "DISCOVER"));
    println!("{}", capture.transcript("DHCP: the daemon starts again"));

    // A lease that is not known to hold any more is not left on the link.
    host.kill_daemon();
    let record = host.place().join("state/nics/plc0.lease");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&text).unwrap();
    kept["since_boot"] = 0.into();
    kept["lease"]["seconds"] = 4.into();
    std::fs::write(&record, kept.to_string()).unwrap();
    drop(server);
    host.start_daemon().await;
    until("the address is gone", async || (!plc.ip("address").contains(&address)).then_some(())).await;
}

#[tokio::test]
async fn addresses_that_routers_announce_are_shown() {
    let (host, plant, plc) = host().await;
    plant.ip("address add 2001:db8::1/64 dev plant0 nodad");
    let nic = attach(&host, &leased(&plc, "conflict: warn\n")).await;
    let _server =
        Dnsmasq::start(&plant, &[POOL, "--enable-ra", "--dhcp-range=2001:db8::,ra-only,64", "--ra-param=plant0,4"]);
    let shown = until("the address of IPv6 is shown", async || {
        let addresses = nic.addresses().await.unwrap();
        addresses.into_iter().find(|address| address.starts_with("2001:db8:"))
    })
    .await;
    assert!(plc.ip("-6 address show dev plc0").contains(&shown), "{shown}");
    // IPv4 is not held up by it.
    until("the lease is there, too", async || {
        nic.addresses().await.unwrap().iter().any(|address| address.starts_with("192.0.2.")).then_some(())
    })
    .await;
    has(&nic, &plc, &nic.addresses().await.unwrap()[0]).await;
    plc.ip(&format!("address del {shown} dev plc0"));
    until("it is gone", async || (!nic.addresses().await.unwrap().contains(&shown)).then_some(())).await;
}
