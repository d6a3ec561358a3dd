//! What happens to parents, namespaces and the daemon, against the types of NICs: the cells of the table in
//! `docs/networking.md` that no other test holds.

use std::path::PathBuf;
use std::process::Command;

use orchestratord_dbus::{NicProxy, Options};

use crate::kinds::{Monitor, detach, states, with_type};
use crate::nics::{attach, becomes, hears_the_plant, host, nic, plug, spec};
use crate::rig::{Host, Namespace, until};

/// A host that has an address of its own on the parent, as routing takes.
async fn host_with_address() -> (Host, Namespace, Namespace) {
    let (host, plant, plc) = host().await;
    host.net.ip("address add 192.0.2.9/24 dev lan0");
    (host, plant, plc)
}

/// A path that leads to one namespace after the other, as that of a container.
pub struct Door {
    /// The path.
    pub path: PathBuf,
}

impl Door {
    pub fn new(host: &Host) -> Self {
        let path = host.place().join("netns");
        std::fs::write(&path, "").unwrap();
        Self { path }
    }

    /// The daemon is in the same mount namespace, so it sees these mounts.
    pub fn lead_to(&self, namespace: &Namespace) {
        let mounted = Command::new("mount").arg("--bind").arg(namespace.path()).arg(&self.path).status();
        assert!(mounted.unwrap().success());
    }

    /// Lazily, as "ip netns del" does it, because the daemon has the file open.
    pub fn close(&self) {
        assert!(Command::new("umount").arg("--lazy").arg(&self.path).status().unwrap().success());
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // It is closed already, unless a test failed.
        Command::new("umount").arg("--lazy").arg(&self.path).stderr(std::process::Stdio::null()).status().ok();
    }
}

/// What of a routed NIC is on the host: its end of the pair, routes to it, addresses that the host answers for.
fn on_host(host: &Host) -> (bool, bool, bool) {
    (
        host.net.ip("-oneline link").contains("alias orchestratord: plc0"),
        host.net.ip("route show 192.0.2.7").contains("dev ov"),
        host.net.ip("neighbour show proxy").contains("192.0.2.7 "),
    )
}

const ALL: (bool, bool, bool) = (true, true, true);
const NOTHING: (bool, bool, bool) = (false, false, false);

async fn is_set(plc: &Namespace) {
    until("the address is set", async || plc.ip("address").contains("192.0.2.7/24").then_some(())).await;
}

/// Until it is there, which may be before the daemon has said that it went.
async fn works_again(nic: &NicProxy<'_>, plc: &Namespace) {
    is_set(plc).await;
    becomes(nic, "up").await;
    hears_the_plant(plc).await;
}

#[tokio::test]
async fn a_dedicated_link_that_is_pulled_out_is_waited_for() {
    let (host, plant, plc) = host().await;
    let nic = attach(&host, &with_type(&plc, "type: dedicated")).await;
    becomes(&nic, "up").await;
    // By whoever: as a USB adapter that is pulled out, or by hand in the namespace.
    let by_hand = || plc.ip("link del plc0");
    let pulled = || plant.ip("link del plant0");
    for remove in [&by_hand as &dyn Fn() -> String, &pulled] {
        remove();
        becomes(&nic, "waiting-for-parent").await;
        assert_eq!(nic.addresses().await.unwrap(), Vec::<String>::new());
        plug(&host.net, &plant);
        works_again(&nic, &plc).await;
        assert!(!host.net.ip("link show").contains("lan0"));
    }
    detach(&host, "plc0").await;
    assert!(host.net.ip("link show dev lan0").contains(",UP"));
    assert_eq!(states(&host), Vec::<String>::new());
}

#[tokio::test]
async fn a_dedicated_link_leases_its_address_and_asks_again_after_the_cable() {
    let (host, plant, plc) = host().await;
    let _server =
        crate::dhcp::servers::Dnsmasq::start(&plant, &["--dhcp-range=192.0.2.50,192.0.2.59,255.255.255.0,2h"]);
    let capture = crate::capture::Capture::start(&plant);
    let text = format!("kind: nic\nname: plc0\nparent: lan0\npid: {}\ntype: dedicated\naddresses: dhcp\n", plc.pid());
    let nic = attach(&host, &text).await;
    becomes(&nic, "bound").await;
    let address = nic.addresses().await.unwrap().remove(0);
    plant.ip("link set plant0 down");
    becomes(&nic, "no-carrier").await;
    assert!(plc.ip("address").contains(&address), "the lease holds without a cable");
    let before = capture.dhcp().len();
    plant.ip("link set plant0 up");
    until("it asks for its lease", async || {
        capture.dhcp().iter().skip(before).any(|message| message.kind == "REQUEST").then_some(())
    })
    .await;
    becomes(&nic, "bound").await;
    assert_eq!(nic.addresses().await.unwrap(), [address]);
    detach(&host, "plc0").await;
    capture.said("the lease is given back", |message| message.kind == "RELEASE").await;
    // Nothing of the lease stays on a link that goes home.
    assert!(!host.net.ip("address show dev lan0").contains("inet "));
}

#[tokio::test]
async fn a_routed_nic_outlives_its_parent_and_its_link() {
    let (host, plant, plc) = host_with_address().await;
    let nic = attach(&host, &with_type(&plc, "type: routed")).await;
    becomes(&nic, "up").await;
    assert_eq!(on_host(&host), ALL);
    host.net.ip("link del lan0");
    becomes(&nic, "waiting-for-parent").await;
    assert!(!plc.ip("link").contains("plc0"));
    assert_eq!(on_host(&host), NOTHING);
    plug(&host.net, &plant);
    host.net.ip("address add 192.0.2.9/24 dev lan0");
    works_again(&nic, &plc).await;
    assert_eq!(on_host(&host), ALL);
    // With one end the kernel removes the other.
    plc.ip("link del plc0");
    works_again(&nic, &plc).await;
    until("the host leads to it again", async || (on_host(&host) == ALL).then_some(())).await;
    detach(&host, "plc0").await;
    assert_eq!((on_host(&host), states(&host)), (NOTHING, Vec::new()));
}

#[tokio::test]
async fn a_parent_that_moves_to_another_network_disturbs_no_routed_nic() {
    let (host, _plant, plc) = host_with_address().await;
    let nic = attach(&host, &with_type(&plc, "type: routed")).await;
    becomes(&nic, "up").await;
    until("all is quiet", async || (!plc.ip("address show dev plc0").contains("tentative")).then_some(())).await;
    let inside = Monitor::start(&plc, host.place().join("monitor")).await;
    host.net.ip("address add 198.51.100.9/24 dev lan0");
    host.net.ip("address del 192.0.2.9/24 dev lan0");
    let lan = host.link("lan0").await;
    until("the host is elsewhere", async || (lan.addresses().await.unwrap()[0] == "198.51.100.9/24").then_some(()))
        .await;
    // Longer than the parent takes to settle.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(inside.seen(), "");
    assert_eq!((nic.state().await.unwrap().as_str(), on_host(&host)), ("up", ALL));
}

#[tokio::test]
async fn a_routed_nic_leaves_nothing_on_the_host_when_its_target_ends() {
    let (mut host, _plant, plc) = host_with_address().await;
    let nic = attach(&host, &with_type(&plc, "type: routed")).await;
    becomes(&nic, "up").await;
    drop(plc);
    becomes(&nic, "waiting-for-namespace").await;
    assert_eq!(on_host(&host), NOTHING);
    detach(&host, "plc0").await;

    // Together with the daemon: the kernel removes the pair, and the successor the rest.
    let plc = Namespace::new();
    let nic = attach(&host, &with_type(&plc, "type: routed")).await;
    becomes(&nic, "up").await;
    host.kill_daemon();
    drop(plc);
    until("the pair is gone", async || (!on_host(&host).0).then_some(())).await;
    assert!(on_host(&host).2, "nobody has taken away what the host answers for");
    host.start_daemon().await;
    until("the NIC is known", async || {
        host.objects().await.keys().any(|path| path.as_str().ends_with("/nic/plc0")).then_some(())
    })
    .await;
    becomes(&nic, "waiting-for-namespace").await;
    detach(&host, "plc0").await;
    assert_eq!((on_host(&host), states(&host)), (NOTHING, Vec::new()));
}

#[tokio::test]
async fn a_namespace_that_is_replaced_gets_a_dedicated_or_routed_nic_again() {
    for kind in ["dedicated", "routed"] {
        let (host, _plant, first) = host_with_address().await;
        let (door, second) = (Door::new(&host), Namespace::new());
        door.lead_to(&first);
        let text = spec(&format!("namespace: {}", door.path.display()), &format!("conflict: warn\ntype: {kind}\n"));
        let nic = attach(&host, &text).await;
        becomes(&nic, "up").await;
        is_set(&first).await;
        door.close();
        becomes(&nic, "waiting-for-namespace").await;
        until("the old one has it no more", async || (!first.ip("link").contains("plc0")).then_some(())).await;
        // A dedicated link is at home meanwhile.
        assert!(host.net.ip("link show").contains("lan0"));
        door.lead_to(&second);
        if kind == "dedicated" {
            is_set(&second).await;
            becomes(&nic, "up").await;
            assert!(!host.net.ip("link show").contains("lan0"));
            hears_the_plant(&second).await;
        } else {
            works_again(&nic, &second).await;
            assert_eq!(on_host(&host), ALL);
        }
        door.close();
        becomes(&nic, "waiting-for-namespace").await;
    }
}

#[tokio::test]
async fn a_link_of_the_name_that_is_not_ours_stops_a_dedicated_or_routed_nic() {
    let (host, _plant, plc) = host_with_address().await;
    plc.ip("link add plc0 type bridge");
    for kind in ["dedicated", "routed"] {
        let nic = attach(&host, &with_type(&plc, &format!("type: {kind}"))).await;
        becomes(&nic, "failed").await;
        assert!(nic.last_error().await.unwrap().1.contains("has a link \"plc0\" already, which is not ours"));
        // Nothing was begun on the host.
        assert!(host.net.ip("link show dev lan0").contains(",UP"));
        assert_eq!(on_host(&host), NOTHING);
        detach(&host, "plc0").await;
        assert!(plc.ip("-details link show plc0").contains("bridge"));
    }
    // Once the name is free, a NIC gets right by itself.
    let nic = attach(&host, &with_type(&plc, "type: dedicated")).await;
    becomes(&nic, "failed").await;
    plc.ip("link del plc0");
    works_again(&nic, &plc).await;
}

#[tokio::test]
async fn a_route_of_the_host_stands_before_a_routed_nic() {
    let (host, _plant, plc) = host_with_address().await;
    host.net.ip("route add 192.0.2.7/32 dev lan0");
    let nic = attach(&host, &with_type(&plc, "type: routed")).await;
    becomes(&nic, "failed").await;
    let (_, message) = nic.last_error().await.unwrap();
    assert!(message.starts_with("The host has another route to \"192.0.2.7\" already; it is left alone"), "{message}");
    assert!(host.net.ip("route show 192.0.2.7").contains("dev lan0"));
    host.net.ip("route del 192.0.2.7/32 dev lan0");
    works_again(&nic, &plc).await;
    assert_eq!(on_host(&host), ALL);
}

/// A loose contact: whatever the order in which it all is heard, the end is right, and nothing is left behind.
#[tokio::test]
async fn a_parent_that_flaps_a_hundred_times_is_survived() {
    let (host, plant, plc) = host_with_address().await;
    let kinds = ["", "type: routed"];
    for kind in kinds {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", host.pid())).unwrap().count();
        let nic = attach(&host, &with_type(&plc, kind)).await;
        becomes(&nic, "up").await;
        let before = (count("fd"), count("task"));
        for _ in 0..50 {
            plant.ip("link set plant0 down");
            plant.ip("link set plant0 up");
            host.net.ip("link set lan0 down");
            host.net.ip("link set lan0 up");
        }
        // And one that goes and comes, each time with another number.
        for _ in 0..10 {
            host.net.ip("link del lan0");
            plug(&host.net, &plant);
        }
        host.net.ip("address add 192.0.2.9/24 dev lan0");
        works_again(&nic, &plc).await;
        until("descriptors and threads are as before", async || ((count("fd"), count("task")) <= before).then_some(()))
            .await;
        detach(&host, "plc0").await;
        assert_eq!(plc.ip("-brief link").lines().count(), 1, "only the loopback is left");
        assert_eq!((on_host(&host), states(&host)), (NOTHING, Vec::new()));
        host.link("lan0").await;
    }
}

/// The process of the target ends while the NIC is on its way in.
#[tokio::test]
async fn a_target_that_dies_while_a_nic_comes_leaves_nothing_behind() {
    let (host, _plant, _plc) = host_with_address().await;
    for round in 0..30 {
        let kind = ["", "type: dedicated", "type: routed"][round % 3];
        let short = Namespace::new();
        let network = host.network().await;
        let text = with_type(&short, kind);
        let attached = tokio::spawn(async move { network.attach_nic(&text, Options::new()).await });
        tokio::time::sleep(std::time::Duration::from_micros(300 * u64::try_from(round).unwrap())).await;
        drop(short);
        // It may have been refused, because its namespace was gone already.
        if let Ok(path) = attached.await.unwrap() {
            let nic = nic(&host, path.as_str()).await;
            becomes(&nic, "waiting-for-namespace").await;
            detach(&host, "plc0").await;
        }
        until("the parent is at home", async || {
            host.net.ip("link show").lines().any(|line| line.contains(" lan0") && line.contains(",UP")).then_some(())
        })
        .await;
        assert_eq!((on_host(&host), states(&host)), (NOTHING, Vec::new()), "round {round}");
        host.link("lan0").await;
    }
}

/// A daemon that is killed at any moment of an attach: its successor makes the NIC right, or nothing was begun.
#[tokio::test]
async fn a_daemon_that_is_killed_while_a_nic_comes_loses_nothing() {
    let (mut host, _plant, plc) = host_with_address().await;
    for round in 0..18 {
        let kind = ["", "type: dedicated", "type: routed"][round % 3];
        let network = host.network().await;
        let text = with_type(&plc, kind);
        let attached = tokio::spawn(async move { network.attach_nic(&text, Options::new()).await });
        tokio::time::sleep(std::time::Duration::from_micros(500 * u64::try_from(round).unwrap())).await;
        host.kill_daemon();
        drop(attached.await.unwrap());
        host.start_daemon().await;
        // A NIC on disk is attached; one that is not was never accepted, and is attached now.
        let nic = attach(&host, &with_type(&plc, kind)).await;
        works_again(&nic, &plc).await;
        detach(&host, "plc0").await;
        assert_eq!(plc.ip("-brief link").lines().count(), 1, "only the loopback is left");
        assert_eq!((on_host(&host), states(&host)), (NOTHING, Vec::new()), "round {round}");
        assert!(host.net.ip("link show dev lan0").contains(",UP"));
        host.net.ip("address replace 192.0.2.9/24 dev lan0");
        host.link("lan0").await;
    }
}
