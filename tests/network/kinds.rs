//! The kinds of links that a NIC can be, and what is refused.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use orchestrator_tests::skip;
use orchestratord_dbus::Options;

use crate::nics::{attach, becomes, hears_the_plant, host, nic, plug, refused, spec};
use crate::rig::{Host, Namespace, until};

/// A NIC of this type.
pub fn with_type(plc: &Namespace, more: &str) -> String {
    spec(&format!("pid: {}", plc.pid()), &format!("conflict: warn\n{more}\n"))
}

pub async fn detach(host: &Host, name: &str) {
    host.network().await.detach_nic(name, Options::new()).await.unwrap();
}

/// What is kept of NICs, without the hardware addresses.
pub fn states(host: &Host) -> Vec<String> {
    let Ok(entries) = fs::read_dir(host.place().join("state/nics")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.rsplit_once('.').is_none_or(|(_, kind)| kind != "mac"))
        .collect();
    names.sort();
    names
}

/// `ip monitor` in a namespace, until it is asked what it saw.
pub struct Monitor {
    program: Child,
    log: PathBuf,
    /// Where in the log it begins to count.
    from: usize,
}

impl Monitor {
    pub async fn start(namespace: &Namespace, log: PathBuf) -> Self {
        let mut monitor = namespace.command("ip");
        monitor.args(["monitor", "link", "address", "route"]).stdout(fs::File::create(&log).unwrap());
        let mut monitor = Self { program: monitor.spawn().unwrap(), log, from: 0 };
        // It listens once it shows something that was done for that.
        namespace.ip("link add probe type bridge");
        until("the monitor listens", async || {
            if fs::read_to_string(&monitor.log).unwrap().contains("probe") {
                return Some(());
            }
            namespace.ip("link del probe");
            namespace.ip("link add probe type bridge");
            None
        })
        .await;
        namespace.ip("link del probe");
        until("the monitor has shown it all", async || {
            let text = fs::read_to_string(&monitor.log).unwrap();
            let last = text.rsplit_once("Deleted").map(|(_, last)| last.to_owned()).unwrap_or_default();
            monitor.from = text.len();
            (last.lines().count() >= 2 && last.ends_with('\n')).then_some(())
        })
        .await;
        monitor
    }

    pub fn seen(mut self) -> String {
        // What is on its way to it is read before it ends.
        std::thread::sleep(std::time::Duration::from_millis(100));
        self.program.kill().unwrap();
        self.program.wait().unwrap();
        fs::read_to_string(&self.log).unwrap().split_off(self.from)
    }
}

#[tokio::test]
async fn a_dedicated_link_moves_and_comes_back() {
    let (host, plant, plc) = host().await;
    let mac = host.link("lan0").await.mac().await.unwrap();
    let nic = attach(&host, &with_type(&plc, "type: dedicated")).await;
    becomes(&nic, "up").await;
    assert_eq!((nic.r#type().await.unwrap().as_str(), nic.mac().await.unwrap()), ("dedicated", mac.clone()));
    let shown = plc.ip("address show dev plc0");
    assert!(shown.contains("192.0.2.7/24") && shown.contains(&mac), "{shown}");
    assert!(!host.net.ip("link show").contains("lan0"));
    hears_the_plant(&plc).await;
    assert_eq!(states(&host), ["plc0.json", "plc0.taken"]);
    detach(&host, "plc0").await;
    assert!(host.net.ip("link show dev lan0").contains(",UP"));
    assert!(!plc.ip("link show").contains("plc0"));
    assert_eq!(states(&host), Vec::<String>::new());

    host.link("lan0").await;
    // One that was down comes back down; it needs no address, and the cable is the one of the link.
    host.net.ip("link set lan0 down");
    let bare = with_type(&plc, "type: dedicated").replace("addresses: [192.0.2.7/24]\ngateway: 192.0.2.1\n", "");
    let nic = attach(&host, &bare).await;
    becomes(&nic, "up").await;
    plant.ip("link set plant0 down");
    becomes(&nic, "no-carrier").await;
    plant.ip("link set plant0 up");
    becomes(&nic, "up").await;
    // The name is somebody else's by now.
    host.net.ip("link add lan0 type bridge");
    detach(&host, "plc0").await;
    let back = host.net.ip("link show");
    let line = back.lines().find(|line| line.contains("dev0")).unwrap_or_else(|| panic!("{back}"));
    assert!(!line.contains(",UP"), "{line}");
}

#[tokio::test]
async fn a_dedicated_link_outlives_the_daemon_and_comes_back_when_the_target_ends() {
    let (mut host, _plant, plc) = host().await;
    let nic = attach(&host, &with_type(&plc, "type: dedicated")).await;
    becomes(&nic, "up").await;
    until("all is quiet", async || (!plc.ip("address show dev plc0").contains("tentative")).then_some(())).await;
    let monitor = Monitor::start(&plc, host.place().join("monitor")).await;
    host.kill_daemon();
    host.start_daemon().await;
    until("the NIC is known", async || {
        host.objects().await.keys().any(|path| path.as_str().ends_with("/nic/plc0")).then_some(())
    })
    .await;
    becomes(&nic, "up").await;
    assert_eq!(monitor.seen(), "", "the restart touched something");
    // The daemon holds the namespace open, so that even a virtual link outlives the target.
    drop(plc);
    becomes(&nic, "waiting-for-namespace").await;
    until("the link is back", async || host.net.ip("link show").contains("lan0").then_some(())).await;
    assert!(host.net.ip("link show dev lan0").contains(",UP"));
    assert_eq!(states(&host), ["plc0.json"]);
}

#[tokio::test]
async fn a_killed_daemon_brings_a_dedicated_link_back() {
    let (mut host, _plant, plc) = host().await;
    let nic = attach(&host, &with_type(&plc, "type: dedicated")).await;
    becomes(&nic, "up").await;
    host.kill_daemon();
    // As the kernel does it with the links of a namespace that ends: home, under the name that it had there, and down.
    // A virtual one would be destroyed, and there is no other one here.
    plc.ip(&format!("link set plc0 netns {}", host.net.pid()));
    host.start_daemon().await;
    until("the link has its name", async || host.net.ip("link show").contains("lan0").then_some(())).await;
    // The target is still there, so it is taken again.
    until("the link is taken again", async || plc.ip("address").contains("192.0.2.7/24").then_some(())).await;
    host.kill_daemon();
    plc.ip(&format!("link set plc0 netns {}", host.net.pid()));
    drop(plc);
    host.start_daemon().await;
    until("the link is as it was", async || {
        let shown = host.net.ip("link show");
        shown.lines().any(|line| line.contains(" lan0") && line.contains(",UP")).then_some(())
    })
    .await;
    detach(&host, "plc0").await;
    assert_eq!(states(&host), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_in_use_or_does_not_serve_is_refused_by_its_own_error() {
    let (host, plant, plc) = host().await;
    let says = async |spec: &str, kind: &str, message: &str| {
        assert_eq!(refused(&host, spec).await, (kind.to_owned(), message.to_owned()));
    };
    let dedicated = with_type(&plc, "type: dedicated");
    let macvlan = with_type(&plc, "");
    let other = |spec: &str| spec.replace("plc0", "plc1").replace("192.0.2.7", "192.0.2.8");

    host.net.ip("address add 192.0.2.9/24 dev lan0");
    host.net.ip("route add default via 192.0.2.1 dev lan0");
    let lan = host.link("lan0").await;
    until("the route is known", async || (!lan.gateway().await.unwrap().is_empty()).then_some(())).await;
    let taken_away = "The link \"lan0\" carries the default route of the host; it cannot be taken away.";
    says(&dedicated, "DefaultRoute", taken_away).await;
    host.net.ip("route del default");
    until("no route is known", async || lan.gateway().await.unwrap().is_empty().then_some(())).await;

    host.net.ip("link add mv0 link lan0 type macvlan mode bridge");
    host.link("mv0").await;
    says(&dedicated, "LinkInUse", "The link \"lan0\" carries the link \"mv0\"; it cannot be taken away.").await;
    host.net.ip("link del mv0");
    until("the link is gone", async || host.find_link("mv0").await.is_none().then_some(())).await;

    becomes(&attach(&host, &macvlan).await, "up").await;
    let lan_uses = lan.used_by().await.unwrap();
    assert_eq!(lan_uses.iter().map(|path| path.as_str()).collect::<Vec<_>>(), ["/org/orchestratord1/nic/plc0"]);
    says(&other(&dedicated), "LinkInUse", "The link \"lan0\" is used by the NIC \"plc0\".").await;
    says(&other(&with_type(&plc, "mode: passthru")), "LinkInUse", "The link \"lan0\" is used by the NIC \"plc0\".")
        .await;
    detach(&host, "plc0").await;
    assert!(lan.used_by().await.unwrap().is_empty());
    becomes(&attach(&host, &dedicated).await, "up").await;
    says(&other(&macvlan), "LinkInUse", "The link \"lan0\" was taken by the NIC \"plc0\".").await;
    says(&other(&dedicated), "LinkInUse", "The link \"lan0\" was taken by the NIC \"plc0\".").await;
    detach(&host, "plc0").await;

    host.net.ip("link add br0 type bridge");
    host.net.ip("link add port0 type veth peer name port1");
    host.net.ip("link set port0 master br0");
    host.link("port0").await;
    let on = |parent: &str, spec: &str| spec.replace("parent: lan0", &format!("parent: {parent}"));
    let port = "The link \"port0\" is a port of a bridge or bond; use that one.";
    until("the port is known", async || (refused(&host, &on("port0", &dedicated)).await.1 == port).then_some(())).await;
    says(&on("port0", &macvlan), "UnsuitableLink", port).await;
    says(&on("br0", &dedicated), "UnsuitableLink", "The link \"br0\" is a bridge, which cannot be moved.").await;
    let loopback = "The link \"lo\" is the loopback; no NIC can use it.";
    for spec in [&dedicated, &macvlan, &with_type(&plc, "type: routed")] {
        says(&on("lo", spec), "UnsuitableLink", loopback).await;
    }
    says(&on("lan9", &dedicated), "UnknownLink", "There is no link \"lan9\".").await;

    // One that was declared waits for its parent, and says so; what it is then, is looked at then.
    let wait = Options::from([("wait", true.into())]);
    let path = host.network().await.attach_nic(&on("lan9", &dedicated), wait).await.unwrap();
    let waiting = nic(&host, path.as_str()).await;
    becomes(&waiting, "waiting-for-parent").await;
    host.net.ip("link add lan9 type bridge");
    becomes(&waiting, "failed").await;
    let expected = "The link \"lan9\" is a bridge, which cannot be moved.";
    until("it says why", async || (waiting.last_error().await.unwrap().1 == expected).then_some(())).await;
    host.net.ip("link del lan9");
    becomes(&waiting, "waiting-for-parent").await;
    host.net.ip(&format!("link add lan9 type veth peer name plant9 netns {}", plant.pid()));
    plant.ip("link set plant9 up");
    becomes(&waiting, "up").await;
}

#[tokio::test]
async fn a_passthru_link_has_the_parent_for_itself() {
    let (host, _plant, plc) = host().await;
    let nic = attach(&host, &with_type(&plc, "mode: passthru")).await;
    becomes(&nic, "up").await;
    assert_eq!(nic.mac().await.unwrap(), host.link("lan0").await.mac().await.unwrap());
    assert!(plc.ip("-details link show plc0").contains("passthru"));
    hears_the_plant(&plc).await;
    detach(&host, "plc0").await;
    assert!(!plc.ip("link").contains("plc0"));
}

#[tokio::test]
async fn a_vlan_is_a_link_of_its_own() {
    let (host, plant, plc) = host().await;
    let tried =
        host.net.command("ip").args("link add link lan0 name tried type vlan id 9".split(' ')).output().unwrap();
    let text = with_type(&plc, "type: vlan\nvlan: 7");
    let nic = attach(&host, &text).await;
    if String::from_utf8_lossy(&tried.stderr).contains("Unknown device type") {
        skip("a_vlan_is_a_link_of_its_own", "the kernel has no VLANs; what is tested is that the NIC says so");
        becomes(&nic, "failed").await;
        let message = nic.last_error().await.unwrap().1;
        assert!(message.starts_with("Cannot make the link \"plc0\": "), "{message}");
        return;
    }
    becomes(&nic, "up").await;
    plant.ip("address del 192.0.2.1/24 dev plant0");
    plant.ip("link add link plant0 name plant0.7 type vlan id 7");
    plant.ip("link set plant0.7 up");
    plant.ip("address add 192.0.2.1/24 dev plant0.7");
    hears_the_plant(&plc).await;
    let same = text.replace("plc0", "plc1").replace("192.0.2.7", "192.0.2.8");
    assert_eq!(refused(&host, &same).await.0, "LinkInUse");
}

#[tokio::test]
async fn routes_and_their_metrics_are_set() {
    let (host, _plant, plc) = host().await;
    let more = "metric: 50\nroutes: [{to: 198.51.100.0/24, via: 192.0.2.1, metric: 7}, {to: 203.0.113.5/32}]";
    becomes(&attach(&host, &with_type(&plc, more)).await, "up").await;
    let shown = plc.ip("route show").replace("proto static ", "");
    for route in [
        "default via 192.0.2.1 dev plc0 metric 50",
        "198.51.100.0/24 via 192.0.2.1 dev plc0 metric 7",
        "203.0.113.5 dev plc0 scope link",
    ] {
        assert!(
            shown.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(route)),
            "{shown}"
        );
    }
}

/// A host whose `lan0` looks wireless: there is no such hardware here; sysfs is where the daemon looks.
async fn wireless() -> (Host, Namespace, Namespace) {
    let (plant, plc) = (Namespace::new(), Namespace::new());
    let mut host = Host::new(|net| {
        plug(net, &plant);
        net.ip("address add 192.0.2.9/24 dev lan0");
        // A new namespace may have this from the machine.
        let off = ["-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"];
        assert!(net.command("sh").args(off).status().unwrap().success());
    })
    .await;
    start_wireless(&mut host).await;
    let link = host.link("lan0").await;
    assert_eq!(link.kind().await.unwrap(), "wireless");
    until("the parent has carrier", async || link.carrier().await.unwrap().then_some(())).await;
    (host, plant, plc)
}

async fn start_wireless(host: &mut Host) {
    let fake = host.place().join("sysfs");
    fs::create_dir_all(fake.join("lan0/phy80211")).unwrap();
    let daemon = host.daemon();
    let mut command = Command::new("unshare");
    let script = format!("mount --bind {} /sys/class/net && exec \"$@\"", fake.display());
    command.args(["--mount", "sh", "-ec", &script, "-"]).arg(daemon.get_program()).args(daemon.get_args());
    host.environment(&mut command);
    host.start_as(command).await;
}

fn forwards(host: &Host) -> String {
    let read = host.net.command("cat").arg("/proc/sys/net/ipv4/conf/lan0/forwarding").output().unwrap();
    String::from_utf8(read.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_wireless_parent_has_routed_nics_only() {
    let (mut host, plant, plc) = wireless().await;
    for kind in ["", "type: dedicated", "type: vlan\nvlan: 7", "mode: passthru"] {
        let (name, message) = refused(&host, &with_type(&plc, kind)).await;
        assert_eq!(name, "UnsuitableLink");
        assert!(message.ends_with("use the type \"routed\"."), "{message}");
    }
    // What is of somebody else stays as it is.
    host.net.ip("neighbour add proxy 192.0.2.77 dev lan0");
    let before = (host.net.ip("neighbour show proxy"), host.net.ip("route show"), forwards(&host));
    assert_eq!(before.2, "0");
    let parent_mac = host.link("lan0").await.mac().await.unwrap();

    let nic = attach(&host, &with_type(&plc, "type: routed")).await;
    becomes(&nic, "up").await;
    hears_the_plant(&plc).await;
    // On the air there is the parent's hardware address only.
    let seen = plant.ip("neighbour show 192.0.2.7");
    assert!(seen.contains(&parent_mac), "{seen}");
    assert!(host.net.ip("neighbour show proxy").contains("192.0.2.7 dev lan0"));
    // The host itself reaches it, too.
    let called = host.net.command("bash").args(["-c", "exec 3<>/dev/tcp/192.0.2.7/9"]).output().unwrap();
    assert!(String::from_utf8_lossy(&called.stderr).contains("Connection refused"));
    let near = host.net.ip("-oneline link show type veth").lines().find(|line| line.contains("ov")).unwrap().to_owned();
    assert!(near.contains("alias orchestratord: plc0"), "{near}");
    let name = near.split_whitespace().nth(1).unwrap().split('@').next().unwrap().to_owned();
    let used_by = host.link(&name).await.used_by().await.unwrap();
    assert_eq!(used_by[0].as_str(), "/org/orchestratord1/nic/plc0");

    // The kernel forgets the answers of a link that goes down; the daemon may have set them again by the time it says so.
    host.net.ip("link set lan0 down");
    becomes(&nic, "no-carrier").await;
    host.net.ip("link set lan0 up");
    until("the host answers again", async || host.net.ip("neighbour show proxy").contains("192.0.2.7 ").then_some(()))
        .await;
    becomes(&nic, "up").await;
    hears_the_plant(&plc).await;
    host.net.ip("neighbour replace proxy 192.0.2.77 dev lan0");

    // A daemon that starts anew touches nothing.
    let monitor = Monitor::start(&plc, host.place().join("monitor")).await;
    host.kill_daemon();
    start_wireless(&mut host).await;
    becomes(&nic, "up").await;
    assert_eq!(monitor.seen(), "", "the restart touched something");
    assert_eq!(forwards(&host), "1");

    // A second one keeps the host a router until it leaves, too.
    let second = with_type(&plc, "type: routed")
        .replace("plc0", "plc1")
        .replace("192.0.2.7", "192.0.2.8")
        .replace("gateway: 192.0.2.1\n", "");
    becomes(&attach(&host, &second).await, "up").await;
    detach(&host, "plc0").await;
    assert_eq!((forwards(&host).as_str(), host.net.ip("link").contains(&name)), ("1", false));
    detach(&host, "plc1").await;
    assert_eq!((host.net.ip("neighbour show proxy"), host.net.ip("route show"), forwards(&host)), before);
    assert_eq!((states(&host), plc.ip("-brief link").lines().count()), (Vec::new(), 1));
}

#[tokio::test]
async fn the_addresses_of_a_routed_nic_are_probed_on_the_air() {
    let (host, plant, plc) = wireless().await;
    plant.ip("address add 192.0.2.7/24 dev plant0");
    let nic = attach(&host, &with_type(&plc, "type: routed").replace("conflict: warn\n", "")).await;
    becomes(&nic, "failed").await;
    assert_eq!(nic.last_error().await.unwrap().0, "org.orchestratord1.Error.AddressInUse");
    assert_eq!((forwards(&host).as_str(), host.net.ip("neighbour show proxy").as_str()), ("0", ""));
    plant.ip("address del 192.0.2.7/24 dev plant0");
    becomes(&nic, "up").await;
}

#[tokio::test]
async fn a_parent_that_moves_to_another_network_disturbs_no_macvlan() {
    let (host, plant, plc) = host().await;
    host.net.ip("address add 192.0.2.9/24 dev lan0");
    becomes(&attach(&host, &with_type(&plc, "")).await, "up").await;
    until("all is quiet", async || (!plc.ip("address show dev plc0").contains("tentative")).then_some(())).await;
    let monitor = Monitor::start(&plc, host.place().join("monitor")).await;
    host.net.ip("address del 192.0.2.9/24 dev lan0");
    host.net.ip("address add 198.51.100.9/24 dev lan0");
    host.net.ip("route add default via 198.51.100.1 dev lan0");
    let lan = host.link("lan0").await;
    until("the host is elsewhere", async || (lan.gateway().await.unwrap() == "198.51.100.1").then_some(())).await;
    // Longer than the parent takes to settle.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(monitor.seen(), "");
    plant.ip("address show");
    hears_the_plant(&plc).await;
}

/// As many NICs as a large machine has, all on one parent, and nothing left of them.
#[tokio::test]
async fn many_nics_on_one_parent_leave_nothing_behind() {
    let (host, _plant, plc) = host().await;
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", host.pid())).unwrap().count();
    let text = |number: usize| {
        format!(
            "kind: nic\nname: plc{number}\nparent: lan0\npid: {}\naddresses: [192.0.2.{}/24]\nconflict: warn\n",
            plc.pid(),
            number + 20
        )
    };
    // The first one opens what stays open, such as the audit log.
    attach(&host, &text(0)).await;
    detach(&host, "plc0").await;
    let before = (count("fd"), count("task"));
    let mut nics = Vec::new();
    for number in 0..64 {
        nics.push(attach(&host, &text(number)).await);
    }
    for nic in &nics {
        becomes(nic, "up").await;
    }
    assert_eq!(host.link("lan0").await.used_by().await.unwrap().len(), 64);
    for number in 0..64 {
        detach(&host, &format!("plc{number}")).await;
    }
    until("descriptors and threads are as before", async || ((count("fd"), count("task")) <= before).then_some(()))
        .await;
    assert_eq!(plc.ip("-brief link").lines().count(), 1, "only the loopback is left");
    assert_eq!(states(&host), Vec::<String>::new());
    assert!(host.link("lan0").await.used_by().await.unwrap().is_empty());
}
