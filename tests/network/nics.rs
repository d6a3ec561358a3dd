//! NICs in network namespaces: attached, refused, followed and detached.

use orchestratord_dbus::zbus::proxy::CacheProperties;
use orchestratord_dbus::{NicProxy, Options, error_reply};

use crate::events::Door;
use crate::rig::{Host, Namespace, until};

/// A parent that is plugged into a plant: another namespace, where `192.0.2.1` is.
pub fn plug(net: &Namespace, plant: &Namespace) {
    net.ip(&format!("link add lan0 type veth peer name plant0 netns {}", plant.pid()));
    net.ip("link set lan0 up");
    plant.ip("link set plant0 up");
    plant.ip("address add 192.0.2.1/24 dev plant0");
}

pub fn spec(place: &str, more: &str) -> String {
    format!("kind: nic\nname: plc0\nparent: lan0\n{place}\naddresses: [192.0.2.7/24]\ngateway: 192.0.2.1\n{more}")
}

/// A host with `lan0`, the plant behind it, and a namespace for a NIC.
pub async fn host() -> (Host, Namespace, Namespace) {
    let (plant, plc) = (Namespace::new(), Namespace::new());
    let host = Host::start(|net| plug(net, &plant)).await;
    let link = host.link("lan0").await;
    until("the parent has carrier", async || link.carrier().await.unwrap().then_some(())).await;
    (host, plant, plc)
}

/// Attaches a NIC.
pub async fn attach(host: &Host, spec: &str) -> NicProxy<'static> {
    let path = host.network().await.attach_nic(spec, Options::new()).await.unwrap();
    nic(host, path.as_str()).await
}

pub async fn nic(host: &Host, path: &str) -> NicProxy<'static> {
    let nic = NicProxy::builder(&host.client).path(path.to_owned()).cache_properties(CacheProperties::No);
    nic.build().await.unwrap()
}

/// Waits for a state of a NIC.
pub async fn becomes(nic: &NicProxy<'_>, state: &str) {
    until(&format!("the NIC becomes {state}"), async || (nic.state().await.unwrap() == state).then_some(())).await;
}

/// Kind and message of a refusal.
pub async fn refused(host: &Host, spec: &str) -> (String, String) {
    let error = host.network().await.attach_nic(spec, Options::new()).await.unwrap_err();
    let (name, message) = error_reply(&error).unwrap();
    (name.rsplit('.').next().unwrap().to_owned(), message)
}

/// Waits until packets go to the plant and back: a port where nobody listens is refused.
pub async fn hears_the_plant(plc: &Namespace) {
    until("the plant answers", async || {
        let called = plc.command("bash").args(["-c", "exec 3<>/dev/tcp/192.0.2.1/9"]).output().unwrap();
        String::from_utf8_lossy(&called.stderr).contains("Connection refused").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_nic_is_attached_probed_and_detached() {
    let (host, _plant, plc) = host().await;
    let nic = attach(&host, &spec(&format!("pid: {}", plc.pid()), "mtu: 1400\n")).await;
    // Until nobody is known to have the address, it is not set.
    becomes(&nic, "probing").await;
    assert!(!plc.ip("address show dev plc0").contains("192.0.2.7"));
    assert_eq!(nic.addresses().await.unwrap(), Vec::<String>::new());
    becomes(&nic, "up").await;
    let shown = plc.ip("address show dev plc0");
    let mac = nic.mac().await.unwrap();
    assert!(shown.contains("192.0.2.7/24") && shown.contains("mtu 1400") && shown.contains(&mac), "{shown}");
    assert!(plc.ip("route show").contains("default via 192.0.2.1 dev plc0"));
    assert_eq!(nic.addresses().await.unwrap(), ["192.0.2.7/24"]);
    assert_eq!(nic.parent().await.unwrap().as_str(), host.link("lan0").await.inner().path().as_str());
    hears_the_plant(&plc).await;
    // Nothing of it is in the namespace of the host.
    assert!(!host.net.ip("link show").contains("plc0"));

    host.network().await.detach_nic("plc0", Options::new()).await.unwrap();
    assert!(!plc.ip("link show").contains("plc0"));
    assert!(nic.state().await.is_err(), "the object is still there");
    let again = attach(&host, &spec(&format!("pid: {}", plc.pid()), "conflict: warn\n")).await;
    assert_eq!(again.mac().await.unwrap(), mac, "the hardware address is kept for ever");
}

#[tokio::test]
async fn an_address_that_somebody_has_is_refused_or_told() {
    let (host, plant, plc) = host().await;
    plant.ip("address add 192.0.2.7/24 dev plant0");
    let place = format!("pid: {}", plc.pid());
    let nic = attach(&host, &spec(&place, "")).await;
    becomes(&nic, "failed").await;
    let (name, message) = nic.last_error().await.unwrap();
    assert_eq!(name, "org.orchestratord1.Error.AddressInUse");
    assert!(message.starts_with("The address \"192.0.2.7\" of the NIC \"plc0\" is in use by \""), "{message}");
    assert!(!plc.ip("address").contains("192.0.2.7"));
    // Once the address is free, the NIC gets right on its own.
    plant.ip("address del 192.0.2.7/24 dev plant0");
    becomes(&nic, "up").await;
    assert_eq!(nic.last_error().await.unwrap(), (String::new(), String::new()));

    host.network().await.detach_nic("plc0", Options::new()).await.unwrap();
    plant.ip("address add 192.0.2.7/24 dev plant0");
    let nic = attach(&host, &spec(&place, "conflict: warn\n")).await;
    becomes(&nic, "up").await;
    until("the conflict is told", async || (!nic.last_error().await.unwrap().0.is_empty()).then_some(())).await;
    assert!(plc.ip("address").contains("192.0.2.7"));
}

#[tokio::test]
async fn what_cannot_work_is_refused_and_leaves_nothing() {
    let (host, _plant, plc) = host().await;
    let place = format!("pid: {}", plc.pid());
    let good = spec(&place, "conflict: warn\n");
    let (kind, message) = refused(&host, &good.replace("lan0", "lan9")).await;
    assert_eq!((kind.as_str(), message.as_str()), ("UnknownLink", "There is no link \"lan9\"."));
    let (kind, message) = refused(&host, &good.replace("parent: lan0", "parent: lo")).await;
    assert_eq!(kind, "UnsuitableLink", "{message}");
    let (kind, message) = refused(&host, &good.replace("plc0", "a/b")).await;
    assert_eq!(kind, "InvalidNic", "{message}");
    assert!(message.starts_with("nic:2:7: \"name\" must not contain"), "{message}");
    for nowhere in ["namespace: /run/netns/orchestrator-none", "namespace: /etc/passwd", "pid: 2147483647"] {
        let (kind, message) = refused(&host, &good.replace(&place, nowhere)).await;
        assert_eq!(kind, "InvalidNic", "{message}");
    }
    let (kind, message) = refused(&host, &format!("{good}mac: 01:00:5e:00:00:01\n")).await;
    assert_eq!(kind, "InvalidNic", "{message}");
    assert!(host.objects().await.keys().all(|path| !path.as_str().contains("/nic/")));

    attach(&host, &good).await;
    // The very same is fine, another one of the name or with the address is not.
    attach(&host, &good).await;
    assert_eq!(refused(&host, &format!("{good}mtu: 1400\n")).await.0, "NotSupported");
    let (kind, message) = refused(&host, &good.replace("plc0", "plc1")).await;
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("AddressInUse", "The address \"192.0.2.7\" is that of the NIC \"plc0\".")
    );
    // A second default route of the same metric would take the place of the first one.
    let second = good.replace("plc0", "plc1").replace("192.0.2.7", "192.0.2.8");
    let (kind, message) = refused(&host, &second).await;
    assert_eq!(kind, "InvalidNic");
    assert_eq!(
        message,
        "The NIC \"plc0\" has a default route with the metric 0 in this namespace already; give another metric."
    );
    attach(&host, &format!("{second}metric: 50\n")).await;
    // The namespace of the host is none for NICs, however it is named.
    for place in [format!("pid: {}", host.pid()), format!("namespace: {}", host.net.path().display())] {
        let (kind, message) =
            refused(&host, &spec(&place, "conflict: warn\n").replace("plc0", "plc2").replace("2.7", "2.17")).await;
        assert_eq!(kind, "InvalidNic");
        assert!(message.starts_with("The network namespace is that of the host itself"), "{message}");
    }
    let error = host.network().await.detach_nic("plc9", Options::new()).await.unwrap_err();
    assert_eq!(error_reply(&error).unwrap().1, "There is no NIC \"plc9\".");
}

#[tokio::test]
async fn a_link_of_the_same_name_that_is_not_ours_is_left_alone() {
    let (host, _plant, plc) = host().await;
    plc.ip("link add plc0 type bridge");
    let nic = attach(&host, &spec(&format!("pid: {}", plc.pid()), "conflict: warn\n")).await;
    becomes(&nic, "failed").await;
    assert!(nic.last_error().await.unwrap().1.contains("has a link \"plc0\" already, which is not ours"));
    host.network().await.detach_nic("plc0", Options::new()).await.unwrap();
    assert!(plc.ip("-details link show plc0").contains("bridge"));
}

#[tokio::test]
async fn a_nic_outlives_the_daemon_and_is_not_touched_by_its_restart() {
    let (mut host, _plant, plc) = host().await;
    let nic = attach(&host, &spec(&format!("pid: {}", plc.pid()), "conflict: warn\n")).await;
    becomes(&nic, "up").await;
    // The kernel is done with the address that IPv6 gives every link.
    until("all is quiet", async || (!plc.ip("address show dev plc0").contains("tentative")).then_some(())).await;
    let before = plc.ip("address show dev plc0");
    let log = host.place().join("monitor");
    let mut monitor = plc.command("ip");
    monitor.args(["monitor", "link", "address", "route"]).stdout(std::fs::File::create(&log).unwrap());
    let mut monitor = monitor.spawn().unwrap();
    host.kill_daemon();
    assert_eq!(plc.ip("address show dev plc0"), before);
    host.start_daemon().await;
    until("the NIC is known", async || {
        host.objects().await.keys().any(|path| path.as_str().ends_with("/nic/plc0")).then_some(())
    })
    .await;
    becomes(&nic, "up").await;
    assert_eq!(plc.ip("address show dev plc0"), before);
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "", "the restart touched something");
    // What was lost while the daemon was away is made good.
    host.kill_daemon();
    plc.ip("link del plc0");
    host.start_daemon().await;
    until("the link is back", async || plc.ip("address").contains("192.0.2.7/24").then_some(())).await;
}

#[tokio::test]
async fn what_goes_away_is_waited_for_and_made_again() {
    let (host, plant, plc) = host().await;
    let nic = attach(&host, &spec(&format!("pid: {}", plc.pid()), "conflict: warn\n")).await;
    becomes(&nic, "up").await;
    // The link is removed by somebody else.
    plc.ip("link del plc0");
    until("the link is back", async || plc.ip("address").contains("192.0.2.7/24").then_some(())).await;
    becomes(&nic, "up").await;
    // The cable.
    plant.ip("link set plant0 down");
    becomes(&nic, "no-carrier").await;
    plant.ip("link set plant0 up");
    becomes(&nic, "up").await;
    // The parent, and with it our link.
    host.net.ip("link del lan0");
    becomes(&nic, "waiting-for-parent").await;
    assert_eq!(nic.parent().await.unwrap().as_str(), "/");
    plug(&host.net, &plant);
    becomes(&nic, "up").await;
    assert!(plc.ip("route show").contains("default via 192.0.2.1 dev plc0"));
    // The process, and with it the namespace.
    drop(plc);
    becomes(&nic, "waiting-for-namespace").await;
    assert_eq!(nic.addresses().await.unwrap(), Vec::<String>::new());
}

/// Restarts of a target that is found by a path, as those of a container.
#[tokio::test]
async fn a_namespace_that_is_replaced_gets_its_nic_again() {
    let (host, _plant, plc) = host().await;
    let door = Door::new(&host);
    let network = host.network().await;
    let text = spec(&format!("namespace: {}", door.path.display()), "conflict: warn\n");
    assert_eq!(refused(&host, &text).await.0, "InvalidNic");
    let attached = network.attach_nic(&text, Options::from([("wait", true.into())])).await.unwrap();
    let nic = nic(&host, attached.as_str()).await;
    becomes(&nic, "waiting-for-namespace").await;
    door.lead_to(&plc);
    becomes(&nic, "up").await;
    assert!(plc.ip("address").contains("192.0.2.7/24"));
    let second = Namespace::new();
    door.close();
    becomes(&nic, "waiting-for-namespace").await;
    until("the old one has it no more", async || (!plc.ip("link").contains("plc0")).then_some(())).await;
    door.lead_to(&second);
    becomes(&nic, "up").await;
    assert!(second.ip("address").contains("192.0.2.7/24"));
}

#[tokio::test]
async fn attaching_and_detaching_leaves_nothing_behind() {
    let (host, _plant, plc) = host().await;
    let text = spec(&format!("pid: {}", plc.pid()), "conflict: warn\n");
    let network = host.network().await;
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", host.pid())).unwrap().count();
    let round = async || {
        let nic = attach(&host, &text).await;
        becomes(&nic, "up").await;
        network.detach_nic("plc0", Options::new()).await.unwrap();
    };
    for _ in 0..5 {
        round().await;
    }
    let before = (count("fd"), count("task"));
    for _ in 0..100 {
        round().await;
    }
    until("descriptors and threads are as before", async || ((count("fd"), count("task")) <= before).then_some(()))
        .await;
    assert_eq!(plc.ip("-brief link").lines().count(), 1, "only the loopback is left");
}
