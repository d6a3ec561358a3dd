//! The host's own way to the macvlan NICs of its parents.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::capture::Capture;
use crate::dhcp::servers::{Script, Scripted};
use crate::events::Door;
use crate::kinds::{Monitor, detach, states, with_type};
use crate::nics::{attach, becomes, host, plug, refused, spec};
use crate::rig::{Host, Namespace, until};

const SHIM: &str = "kind: nic\nname: shim0\ntype: shim\nparent: lan0\naddresses: [192.0.2.250/32]\nconflict: warn\n";

/// A host with an address on `lan0`, and `192.0.2.7` on it in a namespace.
async fn host_with_nic() -> (Host, Namespace, Namespace) {
    let (host, plant, plc) = host().await;
    host.net.ip("address add 192.0.2.9/24 dev lan0");
    becomes(&attach(&host, &with_type(&plc, "")).await, "up").await;
    (host, plant, plc)
}

/// Waits until packets go from one namespace to an address and back: a port where nobody listens is refused.
async fn reaches(from: &Namespace, address: &str) {
    until(&format!("{address} answers"), async || answers(from, address).then_some(())).await;
}

fn answers(from: &Namespace, address: &str) -> bool {
    let script = format!("exec 3<>/dev/tcp/{address}/9");
    let called = from.command("timeout").args(["2", "bash", "-c", &script]).output().unwrap();
    String::from_utf8_lossy(&called.stderr).contains("Connection refused")
}

fn routes(host: &Host) -> String {
    host.net.ip("route show dev shim0")
}

/// Waits until exactly these addresses are reached by the shim.
async fn leads_to(host: &Host, addresses: &[&str]) {
    let mut now = Vec::new();
    let leads = async || {
        now = routes(host).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        now.sort();
        (now == addresses).then_some(())
    };
    until(&format!("the shim leads to {addresses:?}"), leads).await;
}

#[tokio::test]
async fn the_host_reaches_the_nics_of_its_parent_by_a_shim() {
    let (host, plant, plc) = host_with_nic().await;
    assert!(!answers(&host.net, "192.0.2.7"), "the kernel keeps parent and macvlan apart");
    let before = host.net.ip("route show dev lan0");
    let shim = attach(&host, SHIM).await;
    becomes(&shim, "up").await;
    assert_eq!(
        (shim.r#type().await.unwrap(), shim.addresses().await.unwrap()),
        ("shim".into(), vec!["192.0.2.250/32".into()])
    );
    leads_to(&host, &["192.0.2.7"]).await;
    reaches(&host.net, "192.0.2.7").await;
    reaches(&plc, "192.0.2.250").await;
    // Nothing else of the host is touched, and the wire is as it was.
    assert_eq!(host.net.ip("route show dev lan0"), before);
    reaches(&host.net, "192.0.2.1").await;
    reaches(&plant, "192.0.2.9").await;
    let link = host.link("shim0").await;
    assert_eq!(link.used_by().await.unwrap()[0].as_str(), "/org/orchestratord1/nic/shim0");
    // Without the filter that a distribution may have set, which would hide an answer too many.
    let lax = "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$file; done";
    assert!(host.net.command("sh").args(["-c", lax]).status().unwrap().success());
    let capture = Capture::start(&plant);
    plant.ip("neighbour flush dev plant0");
    reaches(&plant, "192.0.2.9").await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let mac = host.link("lan0").await.mac().await.unwrap();
    assert_eq!(capture.answered_for(Ipv4Addr::new(192, 0, 2, 9)), BTreeSet::from([mac]));
    drop(capture);

    // Who comes and goes is followed; who does not hear the shim is left out.
    let others = [Namespace::new(), Namespace::new()];
    let text = |index: usize, more: &str| {
        with_type(&others[index], more)
            .replace("plc0", &format!("plc{}", index + 1))
            .replace("192.0.2.7", &format!("192.0.2.{}", index + 20))
    };
    becomes(&attach(&host, &text(0, "")).await, "up").await;
    becomes(&attach(&host, &text(1, "mode: private")).await, "up").await;
    leads_to(&host, &["192.0.2.20", "192.0.2.7"]).await;
    reaches(&host.net, "192.0.2.20").await;
    detach(&host, "plc0").await;
    leads_to(&host, &["192.0.2.20"]).await;
    // The link is removed by somebody else, or switched off and on: the kernel forgets its routes with that.
    host.net.ip("link set shim0 down");
    host.net.ip("link set shim0 up");
    leads_to(&host, &["192.0.2.20"]).await;
    host.net.ip("link del shim0");
    leads_to_again(&host, &["192.0.2.20"]).await;
    // The parent goes and comes.
    host.net.ip("link del lan0");
    becomes(&shim, "waiting-for-parent").await;
    plug(&host.net, &plant);
    host.net.ip("address add 192.0.2.9/24 dev lan0");
    leads_to_again(&host, &["192.0.2.20"]).await;
    reaches(&host.net, "192.0.2.20").await;
    detach(&host, "shim0").await;
    assert!(!host.net.ip("link show").contains("shim0"));
    assert_eq!(states(&host), ["plc1.json", "plc2.json"]);
}

/// Likewise, while the link itself may not be there yet.
async fn leads_to_again(host: &Host, addresses: &[&str]) {
    until("the shim is back", async || host.net.ip("-brief link").contains("shim0@").then_some(())).await;
    leads_to(host, addresses).await;
}

#[tokio::test]
async fn a_shim_follows_leases_and_the_restart_touches_nothing() {
    let (mut host, plant, plc) = host_with_nic().await;
    let leased = Namespace::new();
    let server = Scripted::start(&plant, Script { seconds: 8, times: (2, 6), ..Script::default() });
    let text = format!("kind: nic\nname: plc1\nparent: lan0\npid: {}\naddresses: dhcp\nconflict: warn\n", leased.pid());
    becomes(&attach(&host, &text).await, "bound").await;
    let (door, behind) = (Door::new(&host), Namespace::new());
    door.lead_to(&behind);
    let place = format!("namespace: {}", door.path.display());
    let text = spec(&place, "conflict: warn\n").replace("plc0", "plc2").replace("192.0.2.7", "192.0.2.30");
    becomes(&attach(&host, &text).await, "up").await;
    becomes(&attach(&host, SHIM).await, "up").await;
    leads_to(&host, &["192.0.2.30", "192.0.2.50", "192.0.2.7"]).await;
    reaches(&host.net, "192.0.2.50").await;
    // Another address by the next renewal.
    server.change(|script| script.address = "192.0.2.60".parse().unwrap());
    leads_to(&host, &["192.0.2.30", "192.0.2.60", "192.0.2.7"]).await;
    reaches(&host.net, "192.0.2.60").await;
    server.change(|script| (script.seconds, script.times) = (3600, (1800, 3000)));
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;

    let monitor = Monitor::start(&host.net, host.place().join("monitor")).await;
    host.kill_daemon();
    // It is not known of everybody at once whether he is still there.
    door.close();
    host.start_daemon().await;
    let nics = async || {
        let objects = host.objects().await;
        let nic = |name: &str| {
            let path = objects.keys().find(|path| path.as_str().ends_with(name))?;
            let state = &objects[path].iter().find(|(name, _)| name.as_str().ends_with(".Nic"))?.1["State"];
            Some(<&str>::try_from(state).unwrap().to_owned())
        };
        let right = nic("/nic/shim0")? == "up" && nic("/nic/plc0")? == "up" && nic("/nic/plc1")? == "bound";
        right.then_some(())
    };
    until("all is known again", nics).await;
    // What a shim would do it does at once.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    door.lead_to(&behind);
    let there = crate::nics::nic(&host, "/org/orchestratord1/nic/plc2").await;
    becomes(&there, "up").await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(monitor.seen(), "", "the restart touched something");
    leads_to(&host, &["192.0.2.30", "192.0.2.60", "192.0.2.7"]).await;
    // A target that ends takes its route along.
    drop(plc);
    leads_to(&host, &["192.0.2.30", "192.0.2.60"]).await;
    door.close();
    leads_to(&host, &["192.0.2.60"]).await;
}

#[tokio::test]
async fn a_shim_takes_nothing_from_others() {
    let (host, _plant, plc) = host_with_nic().await;
    let says = async |text: &str, kind: &str, part: &str| {
        let (name, message) = refused(&host, text).await;
        assert_eq!(name, kind, "{message}");
        assert!(message.contains(part), "{message}");
    };
    says(&SHIM.replace("250/32", "250/24"), "InvalidNic", "must have the prefix length 32").await;
    says(&SHIM.replace("[192.0.2.250/32]", "dhcp"), "InvalidNic", "must be a list").await;
    says(&format!("{SHIM}gateway: 192.0.2.1\n"), "InvalidNic", "\"gateway\" has no place").await;
    says(&format!("{SHIM}pid: 1\n"), "InvalidNic", "\"pid\" has no place").await;
    says(&SHIM.replace("250", "9"), "AddressInUse", "has the address \"192.0.2.9\" already, on the link \"lan0\"")
        .await;
    says(&SHIM.replace("250", "7"), "AddressInUse", "is that of the NIC \"plc0\"").await;
    // The way that somebody else has set is left alone.
    host.net.ip("route add 192.0.2.7/32 dev lan0");
    let shim = attach(&host, SHIM).await;
    until("it is told", async || {
        shim.last_error().await.unwrap().1.contains("another route to \"192.0.2.7\"").then_some(())
    })
    .await;
    assert!(host.net.ip("route show 192.0.2.7").contains("dev lan0"));
    host.net.ip("route del 192.0.2.7/32 dev lan0");
    leads_to(&host, &["192.0.2.7"]).await;
    until("it is right", async || shim.last_error().await.unwrap().1.is_empty().then_some(())).await;
    says(&SHIM.replace("shim0", "shim1").replace("250", "251"), "LinkInUse", "has a shim already: the NIC \"shim0\"")
        .await;
    says(&with_type(&plc, "type: dedicated").replace("plc0", "plc1").replace("2.7", "2.8"), "LinkInUse", "is used by")
        .await;
}
