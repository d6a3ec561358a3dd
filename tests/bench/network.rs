//! The network domain: how soon a change of the kernel is on the bus, how long a NIC takes, and what NICs leave behind.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use orchestrator_tests::bus::Bus;
use orchestrator_tests::namespace::Namespace;
use orchestratord::network::address::{Mac, Prefixed};
use orchestratord::network::kernel::{Kernel as _, KernelEvent, LinkChange, NewLink, Opened, Upper};
use orchestratord::network::netlink::Netlink;
use orchestratord::network::nic::spec::Mode;
use orchestratord_dbus::{LinkProxy, NetworkProxy, Options};
use tempfile::TempDir;
use tokio::time::timeout;
use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;

use crate::bed::{program, start_daemon};
use crate::docker;
use crate::process::Held;
use crate::report::{Report, median, percentile};
use crate::wire::{ACK, DISCOVER, Wire};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Changes whose way to the bus is timed.
const CHANGES: u32 = 500;
/// NICs that are attached one after the other for the time of one.
const ATTACHED: usize = 50;
/// Leases that are had and given back.
const LEASES: usize = 20;
/// The address that is leased.
const LEASED: &str = "192.0.2.50";
/// The DHCP server, where Debian has it.
const DNSMASQ: &str = "/usr/sbin/dnsmasq";
/// NICs on one parent.
const MANY: usize = 200;
/// NICs at the begin and the end of many that are compared.
const COMPARED: usize = 20;
/// Rounds of attaching and detaching.
const CYCLES: usize = 1000;

/// A host in a namespace, with a parent that is plugged in, and a namespace for NICs.
struct Site {
    daemon: Held,
    network: NetworkProxy<'static>,
    client: zbus::Connection,
    host: Opened,
    inside: Opened,
    parent: u32,
    plc_file: fs::File,
    plc: Namespace,
    net: Namespace,
    plant: Namespace,
    _bus: Bus,
    place: TempDir,
}

impl Site {
    async fn start(on: &Path) -> anyhow::Result<Self> {
        let (net, plant, plc) = (Namespace::new(), Namespace::new(), Namespace::new());
        net.ip(&format!("link add lan0 type veth peer name plant0 netns {}", plant.pid()));
        net.ip("link set lan0 up");
        plant.ip("link set plant0 up");
        let (net_file, plc_file) = (fs::File::open(net.path())?, fs::File::open(plc.path())?);
        let (host, inside) = (Netlink.open_in(net_file.as_fd())?, Netlink.open_in(plc_file.as_fd())?);
        let parent = host.port.link_named("lan0").await?.context("no parent")?.index;
        let place = TempDir::with_prefix_in("network-", on)?;
        for directory in ["etc", "share", "state"] {
            fs::create_dir(place.path().join(directory))?;
        }
        fs::write(place.path().join("etc/mender-orchestrator.conf"), r#"{"Runner": "process"}"#)?;
        let bus = Bus::start();
        let client = bus.connect().await;
        let (daemon, _) = start_daemon(net.command(program()?), place.path(), bus.address())?;
        let network = NetworkProxy::builder(&client).cache_properties(CacheProperties::No).build().await?;
        Ok(Self { daemon, network, client, host, inside, parent, plc_file, plc, net, plant, _bus: bus, place })
    }

    /// Attaches a NIC; returns the milliseconds from the call until the kernel has its address.
    async fn attach(&mut self, number: usize) -> anyhow::Result<f64> {
        attach(&self.network, &self.plc, &mut self.inside.events, number).await
    }

    /// Attaches many NICs, each in a namespace of its own as vPLCs have one, and detaches them; returns the milliseconds of
    /// each.
    async fn attach_many(&self) -> anyhow::Result<Vec<f64>> {
        let (mut targets, mut times) = (Vec::new(), Vec::new());
        for number in 0..MANY {
            let target = Namespace::new();
            let mut inside = Netlink.open_in(fs::File::open(target.path())?.as_fd())?;
            times.push(attach(&self.network, &target, &mut inside.events, number).await?);
            targets.push(target);
        }
        for number in 0..MANY {
            self.detach(number).await?;
        }
        Ok(times)
    }

    /// Leases an address: milliseconds from the call to the first question, from there to the last answer, and from there
    /// until the address is set.
    async fn lease(&mut self, wire: &Wire) -> anyhow::Result<[f64; 3]> {
        let spec = format!("kind: nic\nname: plc0\nparent: lan0\npid: {}\naddresses: dhcp\n", self.plc.pid());
        let begun = Instant::now();
        let network = self.network.clone();
        let called = async move { anyhow::Ok(network.attach_nic(&spec, Options::new()).await.map(drop)?) };
        let (called, seen) = tokio::join!(called, timeout(PATIENCE, seen(&mut self.inside.events, LEASED)));
        called?;
        let set = seen.context("the NIC gets no lease")?;
        let asked = wire.last(DISCOVER).context("nothing was asked")?;
        let answered = wire.last(ACK).context("nothing was answered")?;
        self.detach(0).await?;
        let times = [begun, asked, answered, set];
        Ok([0, 1, 2].map(|from| times[from + 1].saturating_duration_since(times[from]).as_secs_f64() * 1e3))
    }

    async fn detach(&self, number: usize) -> anyhow::Result<()> {
        Ok(self.network.detach_nic(&format!("plc{number}"), Options::new()).await?)
    }

    /// Links in the namespace, descriptors, threads, files of the state, and resident memory in KiB.
    fn left(&self) -> anyhow::Result<[(&'static str, f64); 5]> {
        let id = self.daemon.0.id();
        let entries = |path: String| anyhow::Ok(f64::from(u32::try_from(fs::read_dir(path)?.count())?));
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no memory")?;
        let links = self.plc.ip("-brief link").lines().count();
        Ok([
            ("links", f64::from(u32::try_from(links)?)),
            ("fds", entries(format!("/proc/{id}/fd"))?),
            ("threads", entries(format!("/proc/{id}/task"))?),
            ("files", entries(self.place.path().join("state/nics").display().to_string())?),
            ("rss-kib", memory.trim().trim_end_matches(" kB").parse()?),
        ])
    }
}

fn address(number: usize) -> String {
    format!("10.77.{}.{}", number / 200, number % 200 + 10)
}

/// When the kernel reports an address.
async fn seen(events: &mut BoxStream<'static, KernelEvent>, wanted: &str) -> Instant {
    while let Some(event) = events.next().await {
        if matches!(event, KernelEvent::Address(record) if record.address.address.to_string() == wanted) {
            break;
        }
    }
    Instant::now()
}

/// Measures everything.
pub async fn run(on: &Path, report: &mut Report) -> anyhow::Result<()> {
    report.heading("Network");
    let mut site = Site::start(on).await?;
    signals(&mut site, report).await?;
    netlink(&mut site, report).await?;

    let mut times = Vec::new();
    for _ in 0..ATTACHED {
        times.push(site.attach(0).await?);
        site.detach(0).await?;
    }
    report.line("nic-attach-ms", median(times));

    docker::run(on, &site.net, ATTACHED, report)?;
    leases(&mut site, report).await?;

    let times = site.attach_many().await?;
    growth(&times, "", report);
    let mut times = Vec::new();
    for number in 0..MANY {
        times.push(site.attach(number).await?);
    }
    growth(&times, "-in-one-namespace", report);
    for number in 0..MANY {
        site.detach(number).await?;
    }

    // Caches are as large as they get.
    let before = site.left()?;
    for _ in 0..CYCLES {
        site.attach(0).await?;
        site.detach(0).await?;
    }
    let after = site.left()?;
    for ((what, before), (_, after)) in before.into_iter().zip(after) {
        report.line(&format!("nic-{CYCLES}-cycles-{what}-before"), before);
        report.line(&format!("nic-{CYCLES}-cycles-{what}-after"), after);
    }
    Ok(())
}

/// Says how long the first and the last ones of many took.
fn growth(times: &[f64], where_to: &str, report: &mut Report) {
    let (first, last) = (median(times[..COMPARED].to_vec()), median(times[MANY - COMPARED..].to_vec()));
    report.line(&format!("nic-attach-first-{COMPARED}-of-{MANY}{where_to}-ms"), first);
    report.line(&format!("nic-attach-last-{COMPARED}-of-{MANY}{where_to}-ms"), last);
}

/// Attaches a NIC in this namespace; returns the milliseconds from the call until the kernel has its address.
async fn attach(
    network: &NetworkProxy<'static>,
    target: &Namespace,
    events: &mut BoxStream<'static, KernelEvent>,
    number: usize,
) -> anyhow::Result<f64> {
    let wanted = address(number);
    let spec = format!(
        "kind: nic\nname: plc{number}\nparent: lan0\npid: {}\naddresses: [{wanted}/16]\nconflict: warn\n",
        target.pid()
    );
    let begun = Instant::now();
    let called = async move { anyhow::Ok(network.attach_nic(&spec, Options::new()).await.map(drop)?) };
    let (called, seen) = tokio::join!(called, timeout(PATIENCE, seen(events, &wanted)));
    called?;
    let seen = seen.context("the NIC gets no address")?;
    Ok(seen.duration_since(begun).as_secs_f64() * 1e3)
}

/// From the call to a leased address, beside what the server takes: dnsmasq, which has one address to give.
async fn leases(site: &mut Site, report: &mut Report) -> anyhow::Result<()> {
    if !Path::new(DNSMASQ).exists() {
        report.say(&format!("No leases: there is no \"{DNSMASQ}\" (Debian: dnsmasq-base)."));
        return Ok(());
    }
    site.plant.ip("address add 192.0.2.1/24 dev plant0");
    let file = site.place.path().join("leases");
    let mut server = site.plant.command(DNSMASQ);
    server.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=0"]);
    server.args(["--interface=plant0", "--except-interface=lo", "--bind-interfaces", "--user=root", "--pid-file="]);
    server.args(["--no-ping", "--dhcp-authoritative", "--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2h"]);
    server.arg(format!("--dhcp-leasefile={}", file.display())).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Held(server.spawn()?);
    let wire = Wire::start(&site.plant)?;
    // The first one waits for the server to start.
    site.lease(&wire).await?;
    let mut leases = Vec::new();
    for _ in 0..LEASES {
        leases.push(site.lease(&wire).await?);
    }
    for (part, name) in ["call-to-discover", "exchange", "ack-to-address"].iter().enumerate() {
        report.line(&format!("dhcp-{name}-ms"), median(leases.iter().map(|lease| lease[part]).collect()));
    }
    Ok(())
}

/// From a request to the kernel to the signal on the bus.
async fn signals(site: &mut Site, report: &mut Report) -> anyhow::Result<()> {
    let path = format!("/org/orchestratord1/link/{}", site.parent);
    let link =
        LinkProxy::builder(&site.client).path(path.clone()).cache_properties(CacheProperties::No).build().await?;
    ensure!(link.name().await? == "lan0", "the parent is not on the bus");
    let properties = PropertiesProxy::builder(&site.client)
        .destination("org.orchestratord1")
        .path(path)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let mut changes = properties.receive_properties_changed().await?;
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let mtu = 1300 + number % 2;
        let begun = Instant::now();
        let change = LinkChange { mtu: Some(mtu), ..LinkChange::default() };
        site.host.port.change_link(site.parent, change).await?;
        loop {
            let signal = timeout(PATIENCE, changes.next()).await.context("no signal")?.context("no bus")?;
            if signal.args()?.changed_properties().contains_key("Mtu") {
                break;
            }
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    report.line("link-change-to-signal-p50-ms", percentile(&times, 50));
    report.line("link-change-to-signal-p99-ms", percentile(&times, 99));
    let change = LinkChange { mtu: Some(1500), ..LinkChange::default() };
    Ok(site.host.port.change_link(site.parent, change).await?)
}

/// The netlink requests of a NIC alone: link, hardware address and up in one, its number, its address.
async fn netlink(site: &mut Site, report: &mut Report) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for _ in 0..ATTACHED {
        let link = NewLink {
            name: "alone0".to_owned(),
            parent: site.parent,
            mac: Some(Mac([2, 0, 0, 0, 7, 7])),
            mtu: None,
            upper: Upper::Macvlan(Mode::Bridge),
        };
        let begun = Instant::now();
        site.host.port.make_link(&link, site.plc_file.as_fd()).await?;
        let made = site.inside.port.link_named("alone0").await?.context("no link")?;
        let address = Prefixed { address: "10.78.0.7".parse()?, length: 16 };
        site.inside.port.add_address(made.index, address).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        site.inside.port.remove_link(made.index).await?;
    }
    report.line("macvlan-netlink-ms", median(times));
    Ok(())
}
