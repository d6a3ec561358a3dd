//! What readers see: every property, the object tree, Jobs from beginning to oblivion, and busctl as a caller.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use orchestrator_tests::bus::Bus;
use orchestrator_tests::scripted::{Daemon, Vplcs, component, system};
use orchestratord::core::error::{Error, Kind};
use orchestratord::core::job::{JobResult, LINGERING_JOBS};
use orchestratord::network::handle::NetworkStatus;
use orchestratord::update::handle::{StopPoint, UpdateState, UpdateStatus};
use orchestratord_dbus::{ManagerProxy, Options, UpdateProxy, error_reply, job, objects};
use zbus::OwnedObjectPath;

const ROOT: [&str; 2] = ["org.orchestratord1", "/org/orchestratord1"];

/// Standard output of a call of busctl that must succeed.
async fn busctl(bus: &Bus, arguments: &[&str]) -> String {
    let output = bus.busctl().args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn path(text: &str) -> OwnedObjectPath {
    text.try_into().unwrap()
}

#[tokio::test]
async fn busctl_reads_every_property_of_manager_and_update() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, UpdateStatus::default()).await;
    let read = async |interface: &str, names: &[&str]| {
        busctl(&bus, &[&["get-property"], &ROOT[..], &[interface], names].concat()).await
    };
    let update = ["State", "StoppedBefore", "Manifest", "SystemType", "ActiveJob", "LastError"];
    let manager = read("org.orchestratord1.Manager", &["Version", "State"]).await;
    assert_eq!(manager, format!("s \"{}\"\ns \"idle\"\n", env!("CARGO_PKG_VERSION")));
    let empty = read("org.orchestratord1.Update", &update).await;
    assert_eq!(empty, "s \"idle\"\ns \"\"\ns \"\"\ns \"\"\no \"/\"\n(ss) \"\" \"\"\n");

    daemon.domain.status.send_replace(UpdateStatus {
        state: UpdateState::RebootRequired,
        stopped_before: Some(StopPoint::Cleanup),
        manifest: "car 2".to_owned(),
        system_type: "car".to_owned(),
        active_job: Some(7),
        last_error: Some(Error::new(Kind::NoSuitableArtifact, "No Artifact fits \"rtos.R1\".")),
        components: vec![],
        inconsistent: false,
    });
    daemon.flush().await;
    let full = read("org.orchestratord1.Update", &update).await;
    assert_eq!(
        full,
        "s \"reboot-required\"\ns \"Cleanup\"\ns \"car 2\"\ns \"car\"\no \"/org/orchestratord1/job/7\"\n\
         (ss) \"org.orchestratord1.Error.NoSuitableArtifact\" \"No Artifact fits \\\"rtos.R1\\\".\"\n"
    );
}

#[tokio::test]
async fn the_object_tree_has_components_and_jobs_with_all_their_properties() {
    let bus = Bus::start();
    let mut gateway = component("gateway", "52:54:00");
    gateway.state = "ArtifactInstall".to_owned();
    gateway.progress = 0.25;
    gateway.last_error = Some(Error::new(Kind::InterfaceFailed, "It failed."));
    let daemon = Daemon::start(&bus, system(vec![gateway, component("rtos", "")])).await;
    let reporter = daemon.domain.jobs.begin("install", "system", 1000);
    reporter.report(0.5, "Installing");
    daemon.flush().await;

    let client = bus.connect().await;
    let managed = objects(&client).await.unwrap().get_managed_objects().await.unwrap();
    let full: BTreeSet<&str> =
        managed.iter().filter(|(_, interfaces)| !interfaces.is_empty()).map(|(path, _)| path.as_str()).collect();
    let gateway = "/org/orchestratord1/component/gateway/_352_3a54_3a00";
    assert_eq!(full, BTreeSet::from([gateway, "/org/orchestratord1/component/rtos/_", "/org/orchestratord1/job/1"]));

    let properties = |path: &str, interface: &str| -> BTreeMap<String, String> {
        managed[&OwnedObjectPath::try_from(path).unwrap()]
            .iter()
            .find(|(name, _)| name.as_str() == interface)
            .map(|(_, properties)| properties)
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect()
    };
    let expected = [
        ("Arguments", "[\"0\"]"),
        ("Id", "\"52:54:00\""),
        ("Interface", "\"rtos\""),
        ("LastError", "(\"org.orchestratord1.Error.InterfaceFailed\", \"It failed.\")"),
        ("Progress", "0.25"),
        ("Provides", "{\"rootfs-image.version\": \"1\"}"),
        ("State", "\"ArtifactInstall\""),
        ("Type", "\"gateway\""),
        ("Version", "\"1\""),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(properties(gateway, "org.orchestratord1.Component"), BTreeMap::from(expected));

    let mut job = properties("/org/orchestratord1/job/1", "org.orchestratord1.Job");
    let started: u64 = job.remove("Started").unwrap().trim_start_matches("uint64 ").parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(u128::from(started).abs_diff(now.as_micros()) < 60_000_000, "{started} is not now in microseconds");
    let expected = [
        ("Error", "(\"\", \"\")"),
        ("Id", "uint32 1"),
        ("Kind", "\"install\""),
        ("Progress", "0.5"),
        ("Result", "\"\""),
        ("StartedBy", "uint32 1000"),
        ("State", "\"running\""),
        ("Step", "\"Installing\""),
        ("Subject", "objectpath \"/org/orchestratord1\""),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(job, BTreeMap::from(expected));
}

#[tokio::test]
async fn a_vanished_component_is_an_unknown_object() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![component("gateway", "1")])).await;
    let client = bus.connect().await;
    let gateway =
        orchestratord_dbus::component(&client, path("/org/orchestratord1/component/gateway/_31")).await.unwrap();
    assert_eq!(gateway.component_type().await.unwrap(), "gateway");
    assert_eq!(gateway.provides().await.unwrap(), HashMap::from([("rootfs-image.version".to_owned(), "1".to_owned())]));
    daemon.domain.status.send_modify(|status| status.components.clear());
    daemon.flush().await;
    let (name, _) = error_reply(&gateway.state().await.unwrap_err()).unwrap();
    assert_eq!(name, "org.freedesktop.DBus.Error.UnknownObject");
}

#[tokio::test]
async fn properties_cannot_be_written() {
    let bus = Bus::start();
    let _daemon = Daemon::start(&bus, system(vec![])).await;
    let arguments = [&["set-property"], &ROOT[..], &["org.orchestratord1.Update", "Manifest", "s", "x"]].concat();
    assert!(!bus.busctl().args(arguments).output().await.unwrap().status.success());
    let arguments = [&["get-property"], &ROOT[..], &["org.orchestratord1.Update", "Manifest"]].concat();
    assert_eq!(busctl(&bus, &arguments).await, "s \"demo 1\"\n");
}

#[tokio::test]
async fn busctl_drives_an_install_and_reads_an_error() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let install = [&["call"], &ROOT[..], &["org.orchestratord1.Update", "Install", "sa{sv}"]].concat();
    let arguments =
        [&install[..], &["name: demo 2", "2", "reboot", "s", "defer", "stop-before", "as", "1", "Cleanup"]].concat();
    let (said, reporter) = tokio::join!(busctl(&bus, &arguments), daemon.domain.accept());
    assert_eq!(said, "o \"/org/orchestratord1/job/1\"\n");

    let wait = ["call", ROOT[0], "/org/orchestratord1/job/1", "org.orchestratord1.Job", "Wait"];
    let end = async { daemon.domain.finish(&reporter, JobResult::RebootRequired) };
    assert_eq!(tokio::join!(busctl(&bus, &wait), end).0, "s \"reboot-required\"\n");

    // busctl shows the message of an error and nothing else.
    let arguments = [&install[..], &["m", "1", "rebot", "s", "defer"]].concat();
    let output = bus.busctl().args(arguments).output().await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let message = "Install has no option \"rebot\"; it takes \"base-directory\", \"reboot\", \"stop-before\", \
                   \"topology-components\".";
    assert!(said.contains(message), "{said}");
}

#[tokio::test]
async fn wait_returns_at_the_end_with_all_values_final() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    for result in [
        JobResult::Done,
        JobResult::Stopped,
        JobResult::Failed,
        JobResult::RolledBack,
        JobResult::Cancelled,
        JobResult::RebootRequired,
        JobResult::Inconsistent,
    ] {
        let reporter = daemon.domain.jobs.begin("install", "system", 0);
        let id = reporter.job().id;
        daemon.flush().await;
        let client = bus.connect().await;
        let job = job(&client, path(&format!("/org/orchestratord1/job/{id}"))).await.unwrap();
        let end = async {
            // The call is on its way by then, or comes after the end; either must do.
            tokio::task::yield_now().await;
            reporter.report(0.9, "last step");
            reporter.finish(result, Some(Error::new(Kind::Cancelled, "Cancelled.")));
        };
        let (waited, ()) = tokio::join!(job.wait(), end);
        assert_eq!(waited.unwrap(), result.as_str());
        assert_eq!(job.state().await.unwrap(), "done");
        assert_eq!(job.result().await.unwrap(), result.as_str());
        assert_eq!(job.step().await.unwrap(), "last step");
        let progress = if result == JobResult::Done { 1.0 } else { 0.9 };
        assert!((job.progress().await.unwrap() - progress).abs() < f64::EPSILON);
        assert_eq!(job.error().await.unwrap().0, "org.orchestratord1.Error.Cancelled");
        // A Job that has ended lingers, so a second Wait is no race.
        assert_eq!(job.wait().await.unwrap(), result.as_str());
    }
}

#[tokio::test]
async fn cancel_reaches_the_work_or_says_why_not() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    let reporter = daemon.domain.jobs.begin("install", "system", 0);
    daemon.flush().await;
    let client = bus.connect().await;
    let job = job(&client, path("/org/orchestratord1/job/1")).await.unwrap();
    reporter.refuse_cancel(Error::new(Kind::NotSupported, "Job 1 cannot be cancelled any more."));
    let (name, message) = error_reply(&job.cancel().await.unwrap_err()).unwrap();
    assert_eq!(name, "org.freedesktop.DBus.Error.NotSupported");
    assert_eq!(message, "Job 1 cannot be cancelled any more.");
    assert!(!reporter.cancelled().is_cancelled());

    let second = daemon.domain.jobs.begin("rollback", "system", 0);
    daemon.flush().await;
    orchestratord_dbus::job(&client, path("/org/orchestratord1/job/2")).await.unwrap().cancel().await.unwrap();
    assert!(second.cancelled().is_cancelled());
}

#[tokio::test]
async fn only_the_newest_finished_jobs_linger() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    for _ in 0..LINGERING_JOBS + 2 {
        daemon.domain.jobs.begin("install", "system", 0).finish(JobResult::Done, None);
    }
    daemon.flush().await;
    let client = bus.connect().await;
    let managed = objects(&client).await.unwrap().get_managed_objects().await.unwrap();
    let jobs = managed.keys().filter(|path| path.as_str().starts_with("/org/orchestratord1/job/")).count();
    assert_eq!(jobs, LINGERING_JOBS);
    let forgotten = job(&client, path("/org/orchestratord1/job/2")).await.unwrap();
    assert_eq!(
        error_reply(&forgotten.wait().await.unwrap_err()).unwrap().0,
        "org.freedesktop.DBus.Error.UnknownObject"
    );
    let kept = job(&client, path("/org/orchestratord1/job/3")).await.unwrap();
    assert_eq!(kept.wait().await.unwrap(), "done");
}

#[tokio::test]
async fn callers_do_not_wait_for_each_other() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![component("gateway", "1")])).await;
    let reporter = daemon.domain.jobs.begin("install", "system", 0);
    daemon.flush().await;
    let clients = [bus.connect().await, bus.connect().await, bus.connect().await];
    let updates = [UpdateProxy::new(&clients[0]).await.unwrap(), UpdateProxy::new(&clients[1]).await.unwrap()];
    let job = job(&clients[2], path("/org/orchestratord1/job/1")).await.unwrap();

    // Two plans and a wait hang; the domain answers none of them yet.
    let plans = [updates[0].plan("1", Options::new()), updates[1].plan("2", Options::new())];
    let others = async {
        let first = daemon.domain.requests.recv().await.unwrap();
        let second = daemon.domain.requests.recv().await.unwrap();
        let manager = ManagerProxy::new(&clients[2]).await.unwrap();
        assert_eq!(manager.state().await.unwrap(), "idle");
        assert_eq!(job.state().await.unwrap(), "running");
        assert_eq!(objects(&clients[2]).await.unwrap().get_managed_objects().await.unwrap().len(), 5);
        reporter.finish(JobResult::Done, None);
        for request in [second, first] {
            let orchestratord::update::handle::Request::Plan(_, reply) = request else { panic!("{request:?}") };
            reply.send(Ok(vec![])).unwrap();
        }
    };
    let [one, two] = plans;
    let (one, two, waited, ()) = tokio::join!(one, two, job.wait(), others);
    assert_eq!((one.unwrap().len(), two.unwrap().len(), waited.unwrap().as_str()), (0, 0, "done"));
}

#[tokio::test]
async fn a_name_that_is_taken_is_said_so() {
    let bus = Bus::start();
    let _first = Daemon::start(&bus, system(vec![])).await;
    let (domain, handle) = orchestrator_tests::scripted::Domain::new(UpdateStatus::default());
    let (_network, network) = orchestrator_tests::scripted::Network::start(NetworkStatus::default());
    let (_phase, phases) = tokio::sync::watch::channel(orchestratord::bus::Phase::Starting);
    let (_vplcs, vplc) = Vplcs::start();
    let directory = tempfile::tempdir().unwrap();
    let audit = orchestratord::core::audit::Audit::open(directory.path());
    let second = orchestratord::bus::Bus::open(bus.builder(), &handle, &domain.jobs, &network, &vplc, phases, audit);
    let second = second.await.unwrap();
    let error = second.claim().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "The bus name \"org.orchestratord1\" is taken: another orchestratord runs on this bus."
    );
}
