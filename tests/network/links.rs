//! Links as the kernel has them, on the bus.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use futures_util::StreamExt;
use orchestratord_dbus::zbus::fdo::PropertiesProxy;
use orchestratord_dbus::zbus::proxy::CacheProperties;

use crate::rig::{Host, PATIENCE, until};

fn plug(net: &crate::rig::Namespace) {
    net.ip("link add lan0 type veth peer name lan0-far");
    net.ip("link set lan0-far up");
}

#[tokio::test]
async fn a_link_appears_changes_and_vanishes() {
    let host = Host::start(|_| ()).await;
    assert_eq!(host.link("lo").await.kind().await.unwrap(), "loopback");
    plug(&host.net);
    let link = host.link("lan0").await;
    assert_eq!(link.kind().await.unwrap(), "veth");
    assert!(!link.carrier().await.unwrap());
    host.net.ip("link set lan0 address 02:00:00:00:00:07 mtu 1400 up");
    host.net.ip("address add 192.0.2.7/24 dev lan0");
    until("everything is shown", async || {
        let mac = link.mac().await.unwrap() == "02:00:00:00:00:07";
        let addresses = link.addresses().await.unwrap();
        let up = link.oper_state().await.unwrap() == "up" && link.carrier().await.unwrap();
        (mac && up && addresses.contains(&"192.0.2.7/24".to_owned()) && link.mtu().await.unwrap() == 1400).then_some(())
    })
    .await;
    host.net.ip("link set lan0-far down");
    until("the cable is pulled", async || (!link.carrier().await.unwrap()).then_some(())).await;
    // Links are renamed while they are down; the object stays.
    host.net.ip("link set lan0 down");
    host.net.ip("link set lan0 name plant0");
    until("the new name", async || (link.name().await.unwrap() == "plant0").then_some(())).await;
    host.net.ip("link del plant0");
    until("the link vanishes", async || host.find_link("plant0").await.is_none().then_some(())).await;
    assert!(link.name().await.is_err());
}

#[tokio::test]
async fn bridges_and_macvlans_are_told_apart_and_a_port_that_leaves_stays_a_link() {
    let host = Host::start(|net| {
        plug(net);
        net.ip("link set lan0 up");
        net.ip("link add br0 type bridge");
        net.ip("link add mv0 link lan0 type macvlan mode bridge");
        net.ip("link set lan0-far master br0");
    })
    .await;
    for (name, kind) in [("br0", "bridge"), ("mv0", "macvlan"), ("lan0", "veth")] {
        assert_eq!(host.link(name).await.kind().await.unwrap(), kind);
    }
    let index = host.link("lan0-far").await.index().await.unwrap();
    host.net.ip("link set lan0-far nomaster");
    host.net.ip("link set br0 down");
    host.net.ip("link del br0");
    until("the bridge vanishes", async || host.find_link("br0").await.is_none().then_some(())).await;
    assert_eq!(host.link("lan0-far").await.index().await.unwrap(), index);
}

#[tokio::test]
async fn the_default_link_and_online_follow_the_routes() {
    let host = Host::start(|net| {
        plug(net);
        net.ip("link add wan0 type veth peer name wan0-far");
        for link in ["lan0", "wan0", "wan0-far"] {
            net.ip(&format!("link set {link} up"));
        }
        net.ip("address add 192.0.2.7/24 dev lan0");
        net.ip("address add 198.51.100.7/24 dev wan0");
    })
    .await;
    let network = host.network().await;
    assert_eq!(network.default_link().await.unwrap().as_str(), "/");
    assert!(!network.online().await.unwrap());
    let [lan, wan] = [host.link("lan0").await, host.link("wan0").await];
    let shows = async |link: &orchestratord_dbus::LinkProxy<'_>, online: bool, what: &str| {
        until(what, async || {
            let shown = network.default_link().await.unwrap();
            (shown.as_str() == link.inner().path().as_str() && network.online().await.unwrap() == online).then_some(())
        })
        .await;
    };
    host.net.ip("route add default via 192.0.2.1 dev lan0 metric 200");
    shows(&lan, true, "the only route").await;
    assert_eq!(lan.gateway().await.unwrap(), "192.0.2.1");
    host.net.ip("route add default via 198.51.100.1 dev wan0 metric 100");
    shows(&wan, true, "the better route").await;
    // The kernel drops the routes of a link that goes down, and reports none of it.
    host.net.ip("link set wan0 down");
    shows(&lan, true, "the other route").await;
    until("no gateway is left", async || wan.gateway().await.unwrap().is_empty().then_some(())).await;
    host.net.ip("address del 192.0.2.7/24 dev lan0");
    until("no route is left", async || (network.default_link().await.unwrap().as_str() == "/").then_some(())).await;
    assert!(!network.online().await.unwrap());
}

#[tokio::test]
async fn a_wireless_link_is_recognised() {
    let mut host = Host::new(plug).await;
    // There is no wireless hardware here; sysfs is where the daemon looks.
    let fake = host.place().join("sysfs");
    fs::create_dir_all(fake.join("lan0/phy80211")).unwrap();
    let daemon = host.daemon();
    let mut command = Command::new("unshare");
    let script = format!("mount --bind {} /sys/class/net && exec \"$@\"", fake.display());
    command.args(["--mount", "sh", "-ec", &script, "-"]).arg(daemon.get_program()).args(daemon.get_args());
    host.environment(&mut command);
    host.start_as(command).await;
    assert_eq!(host.link("lan0").await.kind().await.unwrap(), "wireless");
    assert_eq!(host.link("lan0-far").await.kind().await.unwrap(), "veth");
}

#[tokio::test]
async fn without_privileges_the_network_is_shown_all_the_same() {
    let mut host = Host::new(plug).await;
    let nobody = orchestrator_tests::bus::NOBODY;
    std::os::unix::fs::chown(host.place(), Some(nobody), Some(nobody)).unwrap();
    for directory in ["etc", "share", "state"] {
        std::os::unix::fs::chown(host.place().join(directory), Some(nobody), Some(nobody)).unwrap();
    }
    let Some(as_nobody) = host.bus.as_nobody(&orchestrator_tests::binary("orchestratord"), "without_privileges") else {
        return;
    };
    // The policy of the bus lets only its own user take the name, so the daemon keeps the user id and loses its rights.
    drop(as_nobody);
    let daemon = host.daemon();
    let mut command = Command::new(daemon.get_program());
    let arguments: Vec<_> = daemon.get_args().collect();
    let (program, options) = arguments.split_last().unwrap();
    command.args(options).args(["setpriv", "--bounding-set=-all", "--inh-caps=-all"]).arg(program);
    host.environment(&mut command);
    host.start_as(command).await;
    assert_eq!(host.link("lan0").await.kind().await.unwrap(), "veth");
    host.net.ip("link set lan0 up");
    let link = host.link("lan0").await;
    until("the link is up", async || link.carrier().await.unwrap().then_some(())).await;
}

/// Thousands of changes while the daemon cannot read: the kernel drops reports, and the daemon asks for everything.
#[tokio::test]
async fn after_an_overrun_everything_is_right_again() {
    let host = Host::start(plug).await;
    host.link("lan0").await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(host.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let mut batch = String::new();
    for _ in 0..3000 {
        batch.push_str("link set lan0 mtu 1300\nlink set lan0 mtu 1301\n");
    }
    for number in 0..20 {
        writeln!(batch, "link add extra{number} type bridge").unwrap();
    }
    batch.push_str("link del lan0\n");
    let mut ip = host.net.command("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut ip.stdin.take().unwrap(), batch.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    let expected: BTreeSet<String> = (0..20).map(|number| format!("extra{number}")).chain(["lo".to_owned()]).collect();
    until("the links are those of the kernel", async || {
        let objects = host.objects().await;
        let links = objects.values().filter_map(|interfaces| interfaces.get("org.orchestratord1.Link"));
        let names: BTreeSet<String> = links.map(|link| <&str>::try_from(&link["Name"]).unwrap().to_owned()).collect();
        (names == expected).then_some(())
    })
    .await;
}

/// A signal for each change, and none without one; the counters are read when they are wanted.
#[tokio::test]
async fn an_idle_network_is_silent() {
    let host = Host::start(|net| {
        plug(net);
        net.ip("link set lan0 up");
    })
    .await;
    let link = host.link("lan0").await;
    let properties = PropertiesProxy::builder(&host.client)
        .destination("org.orchestratord1")
        .path(link.inner().path().to_owned())
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .unwrap();
    let mut changes = properties.receive_properties_changed().await.unwrap();
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
        let counted = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned();
        counted.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    // Duplicate address detection and the like have to be over.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    while futures_util::FutureExt::now_or_never(changes.next()).is_some() {}
    let before = switches();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(switches(), before, "the daemon woke up without a reason");
    assert!(link.statistics().await.unwrap()["tx-packets"] > 0);
    host.net.ip("link set lan0 mtu 1400");
    let change = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    let arguments = change.args().unwrap();
    assert_eq!(arguments.changed_properties().keys().copied().collect::<Vec<_>>(), ["Mtu"]);
}
