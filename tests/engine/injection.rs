//! What goes wrong at each step in which a vPLC is made, and the end of the daemon or of the engine at each of them.
//!
//! Beside it there are always a vPLC that runs and a container that is not ours; neither may notice.

use orchestrator_tests::plant::Plant;
use orchestratord_dbus::Options;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::rig::{Host, NIC, becomes, spec, until};
use crate::tap::{Harm, Tap};

/// Runs until it is asked to end, and ends at once then.
const RUNS: &str = "trap 'exit 0' TERM; sleep 100000 & wait";
/// What a vPLC can have of its own.
const DATA: &str = "data: {path: /data}\n";

type Residue = (Vec<String>, Vec<String>, Vec<String>, usize);

/// A host with neighbours.
struct Street {
    host: Host,
    before: Residue,
    neighbours: [Value; 3],
}

const NEIGHBOURS: [&str; 3] = ["other", "vplc.press0", "vplc-net.press0"];

/// What of the neighbours would be otherwise if anybody had stopped, started, changed or made them anew.
fn seen(host: &Host) -> [Value; 3] {
    NEIGHBOURS.map(|name| {
        let found = host.engine.inspect(name).unwrap_or_else(|| panic!("no container {name}"));
        json!([found["Id"], found["State"], found["Config"], found["Mounts"], found["HostConfig"]["NetworkMode"]])
    })
}

impl Street {
    async fn new(host: Host) -> Self {
        let foreign = json!({ "Image": "plc:1", "Cmd": ["sleep", "1000"], "HostConfig": { "NetworkMode": "none" } });
        host.engine.post("/containers/create?name=other", &foreign).unwrap();
        host.engine.api("POST", "/containers/other/start", None).unwrap();
        let neighbour =
            spec(RUNS, &format!("{NIC}{DATA}")).replace("press1", "press0").replace("192.0.2.7", "192.0.2.6");
        let end = host.apply(&neighbour).await;
        assert_eq!(end.0, "done", "{}", end.2);
        let (before, neighbours) = (host.residue(), seen(&host));
        Self { host, before, neighbours }
    }

    fn tap(&self) -> &Tap {
        self.host.tap.as_ref().unwrap()
    }

    /// Everything is as it was before the vPLC.
    fn assert_clean(&self, what: &str) {
        assert_eq!(self.host.residue(), self.before, "{what}");
        self.assert_quiet(what);
    }

    /// The neighbours have not noticed anything.
    fn assert_quiet(&self, what: &str) {
        assert_eq!(seen(&self.host), self.neighbours, "{what}");
        assert!(self.host.ip_in("vplc.press0", "address show dev eth0").contains("192.0.2.6/24"), "{what}");
    }

    /// Waits until everything is as it was before the vPLC.
    async fn becomes_clean(&self, what: &str) {
        until(&format!("{what}: nothing is left"), async || (self.host.residue() == self.before).then_some(())).await;
        self.assert_clean(what);
    }

    /// Whether there is a vPLC to be deleted.
    fn has_vplc(&self) -> bool {
        self.host.files().iter().any(|file| file == "press1.json")
    }

    async fn delete(&self, what: &str) {
        self.host.delete().await;
        self.assert_clean(what);
    }
}

fn whole() -> String {
    spec(RUNS, &format!("{NIC}{DATA}"))
}

/// The requests that make a vPLC, in words.
async fn requests(street: &Street) -> Vec<String> {
    street.tap().set(None);
    street.host.run(&whole()).await;
    let requests = street.tap().seen();
    street.delete("recorded").await;
    for expected in [
        "POST containers/create vplc-net.press1",
        "POST volumes/create",
        "POST containers/create vplc.press1",
        "POST containers/ID/start",
    ] {
        assert!(requests.iter().any(|request| request == expected), "{expected}: {requests:?}");
    }
    requests
}

#[tokio::test]
async fn an_apply_that_fails_at_any_step_leaves_nothing_behind() {
    let Some(host) = Host::start_tapped("an_apply_that_fails_at_any_step_leaves_nothing_behind").await else { return };
    let street = Street::new(host).await;
    let requests = requests(&street).await;
    for (number, request) in requests.iter().enumerate() {
        for harm in [Harm::Refuse, Harm::Cut, Harm::Deafen] {
            // A question that is lost is a question that is refused.
            if harm != Harm::Refuse && request.starts_with("GET") {
                continue;
            }
            let what = format!("{harm:?} at {number}: {request}");
            street.tap().set(Some((number, harm)));
            let spec = whole();
            match street.host.vplcs().await.apply(&spec, Options::new()).await {
                Ok(job) => {
                    let (result, kind, message) = street.host.end_of(job).await;
                    if result == "done" {
                        // Asking once more was enough.
                        street.host.delete().await;
                    } else {
                        assert_eq!(result, "failed", "{what}: {kind}: {message}");
                        assert!(
                            matches!(kind.as_str(), "EngineFailed" | "EngineUnavailable"),
                            "{what}: {kind}: {message}"
                        );
                    }
                }
                Err(error) => assert!(request.starts_with("GET"), "{what}: {error}"),
            }
            assert!(street.tap().has_struck(), "{what}: it never came to that");
            street.tap().set(None);
            street.assert_clean(&what);
        }
    }
}

#[tokio::test]
async fn a_daemon_that_is_killed_at_any_step_goes_on_where_it_was() {
    let Some(host) = Host::start_tapped("a_daemon_that_is_killed_at_any_step_goes_on_where_it_was").await else {
        return;
    };
    let mut street = Street::new(host).await;
    let requests = requests(&street).await;
    let mut seen = Vec::new();
    for (number, request) in requests.iter().enumerate() {
        // One question of a kind is enough.
        if request.starts_with("GET") && seen.contains(request) {
            continue;
        }
        seen.push(request.clone());
        for harm in [Harm::HoldBefore, Harm::HoldAfter] {
            if harm == Harm::HoldAfter && request.starts_with("GET") {
                continue;
            }
            let what = format!("{harm:?} at {number}: {request}");
            street.tap().set(Some((number, harm)));
            // The call itself may be what never ends.
            let vplcs = street.host.vplcs().await;
            let spec = whole();
            let call = tokio::spawn(async move { drop(vplcs.apply(&spec, Options::new()).await) });
            until(&format!("{what}: it is held"), async || street.tap().holds().then_some(())).await;
            street.host.kill_daemon();
            street.tap().set(None);
            call.await.unwrap();
            let wanted = street.has_vplc();
            street.host.start_daemon().await;
            if wanted {
                let vplc = street.host.vplc("press1").await;
                becomes(&vplc, "running").await;
                assert!(street.host.ip_in("vplc.press1", "address show dev eth0").contains("192.0.2.7/24"), "{what}");
                street.assert_quiet(&what);
                becomes(&street.host.vplc("press0").await, "running").await;
                street.delete(&what).await;
            } else {
                street.becomes_clean(&what).await;
            }
        }
    }
}

#[tokio::test]
async fn an_engine_that_dies_while_a_vplc_is_made_is_waited_for() {
    let Some(host) = Host::start_tapped("an_engine_that_dies_while_a_vplc_is_made_is_waited_for").await else { return };
    let mut street = Street::new(host).await;
    let requests = requests(&street).await;
    for (number, request) in requests.iter().enumerate().filter(|(_, request)| request.starts_with("POST")) {
        let what = format!("the engine dies after {number}: {request}");
        street.tap().set(Some((number, Harm::HoldAfter)));
        let job = street.host.vplcs().await.apply(&whole(), Options::new()).await.unwrap();
        until(&format!("{what}: it is held"), async || street.tap().holds().then_some(())).await;
        street.host.engine.kill();
        street.tap().set(None);
        let (result, kind, message) = street.host.end_of(job).await;
        assert_eq!((result.as_str(), kind.as_str()), ("failed", "EngineUnavailable"), "{what}: {message}");
        street.host.engine.launch().unwrap();
        // Nobody has to ask for it.
        street.becomes_clean(&what).await;
    }
}

#[tokio::test]
async fn nics_that_cannot_be_made_leave_nothing_behind() {
    let Some(host) = Host::start("nics_that_cannot_be_made_leave_nothing_behind").await else { return };
    let _plant = Plant::at("plant0", &host.net);
    let street = Street::new(host).await;
    let probed = NIC.replace("    conflict: warn\n", "");
    for (nic, expected) in [
        (NIC.replace("lan0", "lan9"), "UnknownLink"),
        (NIC.replace("lan0", "lo"), "UnsuitableLink"),
        // The plant has this address itself.
        (probed.replace("192.0.2.7", "192.0.2.1"), "AddressInUse"),
        // The second one of two: the first has to go.
        (format!("{NIC}  - name: eth1\n    parent: lan9\n    addresses: [198.51.100.7/24]\n"), "UnknownLink"),
    ] {
        let (result, kind, message) = street.host.apply(&spec(RUNS, &format!("{nic}{DATA}"))).await;
        assert_eq!((result.as_str(), kind.as_str()), ("failed", expected), "{nic}: {message}");
        street.assert_clean(&nic);
    }
}

/// A vPLC whose runtime has to be claimed.
fn claimed(more: &str) -> String {
    format!(
        "api_version: orchestrator/v1\nkind: vplc\nname: press1\nimage:\n  reference: runtime:1\n  pull: never\n\
         command: [/usr/bin/stub-runtime]\ndata: {{path: /var/run/runtime}}\nprogram: {{}}\n{NIC}{more}"
    )
}

#[tokio::test]
async fn a_runtime_that_cannot_be_claimed_is_never_on_the_network() {
    let Some(host) = Host::start("a_runtime_that_cannot_be_claimed_is_never_on_the_network").await else { return };
    host.engine.import_runtime();
    let mut street = Street::new(host).await;
    for claimable in [false, true] {
        // It answers nobody.
        let spec = claimed("environment: {STUB_FAULT: reset}\n");
        street.host.vplcs().await.apply(&spec, Options::new()).await.unwrap();
        until("the runtime runs", async || {
            let found = street.host.engine.inspect("vplc.press1");
            found.is_some_and(|found| found["State"]["Running"] == true).then_some(())
        })
        .await;
        // The daemon is killed while it claims; the next one goes on with it.
        street.host.kill_daemon();
        street.host.start_daemon().await;
        let vplc = street.host.vplc("press1").await;
        becomes(&vplc, "running").await;
        assert!(!street.host.ip_in("vplc.press1", "-brief link").contains("eth0"), "a NIC before the claim");
        if !claimable {
            street.delete("a vPLC that is deleted while it is claimed").await;
        }
    }
    let fault = format!("/proc/{}/root/workdir/fault", street.host.engine.pid("vplc.press1"));
    std::fs::write(fault, "none").unwrap();
    until("the NIC is there", async || {
        street.host.ip_in("vplc.press1", "-brief address").contains("192.0.2.7/24").then_some(())
    })
    .await;
    street.delete("a daemon that was killed while it claimed").await;
}

#[tokio::test]
async fn a_disk_that_is_full_is_said_and_nothing_is_left_behind() {
    let test = "a_disk_that_is_full_is_said_and_nothing_is_left_behind";
    let Some(engine) = Engine::start_in(test, Some(64 << 20)) else { return };
    let street = Street::new(Host::with(engine, false).await).await;
    let filler = street.host.engine.fill();
    let (result, kind, message) = street.host.apply(&whole()).await;
    assert_eq!((result.as_str(), kind.as_str()), ("failed", "EngineFailed"), "{message}");
    assert!(message.contains("no space left on device"), "{message}");
    street.assert_clean("the disk is full");
    std::fs::remove_file(filler).unwrap();
    street.host.run(&whole()).await;
    street.delete("there is space again").await;
}
