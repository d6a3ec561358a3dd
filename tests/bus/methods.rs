//! Every method: what reaches the domain, what comes back, and which error has which name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use orchestrator_tests::bus::Bus;
use orchestrator_tests::scripted::{Daemon, system};
use orchestratord::core::error::{Error, Kind};
use orchestratord::core::job::JobResult;
use orchestratord::update::handle::{
    Inventory, InventoryEntry, InventoryScope, ManifestRequest, PlanStep, RebootMode, Request, RunOptions, StopPoint,
};
use orchestratord_dbus::{Options, UpdateProxy, error_reply, job};
use zbus::Variant;

/// Name and message of an error reply.
pub fn refusal<T>(result: zbus::Result<T>) -> (String, String) {
    let error = result.err().expect("the call is refused");
    error_reply(&error).unwrap_or_else(|| panic!("no error reply: {error}"))
}

/// Has the domain answer one request while the call runs.
async fn answered<T>(
    daemon: &mut Daemon,
    call: impl Future<Output = zbus::Result<T>>,
    answer: impl FnOnce(Request),
) -> zbus::Result<T> {
    let answer = async { answer(daemon.domain.requests.recv().await.unwrap()) };
    let (result, ()) = tokio::join!(call, answer);
    result
}

#[tokio::test]
async fn plan_passes_all_options_and_returns_the_steps() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();

    let options = Options::from([("base-directory", "/data".into()), ("topology-components", "components: []".into())]);
    let steps = answered(&mut daemon, update.plan("the manifest", options), |request| {
        let Request::Plan(manifest, reply) = request else { panic!("{request:?}") };
        assert_eq!(
            manifest,
            ManifestRequest {
                text: "the manifest".to_owned(),
                base_directory: Some(PathBuf::from("/data")),
                topology_components: Some("components: []".to_owned()),
            }
        );
        let step = PlanStep {
            order: 10,
            component_type: "gateway".to_owned(),
            id: "a\0b".to_owned(),
            action: "install".to_owned(),
            interface: "rootfs-image".to_owned(),
            from_version: "1".to_owned(),
            to_version: "2".to_owned(),
            artifact_name: "gateway-2".to_owned(),
            artifact: "/data/gateway.mender".to_owned(),
            size: 1 << 40,
            leg: 2,
            reasons: vec!["after".to_owned()],
            way_back: "full".to_owned(),
        };
        reply.send(Ok(vec![step])).unwrap();
    })
    .await
    .unwrap();

    let [step] = steps.as_slice() else { panic!("{steps:?}") };
    let expected: [(&str, Variant<'_>); 13] = [
        ("order", 10_u32.into()),
        ("leg", 2_u32.into()),
        ("reasons", vec!["after"].into()),
        ("way-back", "full".into()),
        ("component-type", "gateway".into()),
        ("id", "a\u{fffd}b".into()),
        ("action", "install".into()),
        ("interface", "rootfs-image".into()),
        ("from-version", "1".into()),
        ("to-version", "2".into()),
        ("artifact-name", "gateway-2".into()),
        ("artifact", "/data/gateway.mender".into()),
        ("size", (1_u64 << 40).into()),
    ];
    assert_eq!(step.len(), expected.len());
    for (key, value) in expected {
        assert_eq!(*step[key], value, "{key}");
    }
}

#[tokio::test]
async fn install_passes_all_options_and_the_job_exists_when_it_replies() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();

    let options = Options::from([
        ("base-directory", "/data".into()),
        ("stop-before", vec!["ArtifactCommit", "Cleanup"].into()),
        ("reboot", "defer".into()),
        ("topology-components", "c".into()),
    ]);
    let call = update.install("m", options);
    let domain = async {
        let Some(Request::Install(manifest, run, caller, reply)) = daemon.domain.requests.recv().await else {
            panic!()
        };
        assert_eq!(manifest.text, "m");
        assert_eq!(manifest.base_directory, Some(PathBuf::from("/data")));
        assert_eq!(manifest.topology_components.as_deref(), Some("c"));
        let stop_before = BTreeSet::from([StopPoint::ArtifactCommit, StopPoint::Cleanup]);
        assert_eq!(run, RunOptions { stop_before, reboot: RebootMode::Defer });
        assert_eq!(caller, nix::unistd::Uid::effective().as_raw());
        let reporter = daemon.domain.jobs.begin("install", "system", caller);
        reply.send(Ok(reporter.job().id)).unwrap();
        reporter
    };
    let (path, reporter) = tokio::join!(call, domain);
    let path = path.unwrap();
    assert_eq!(path.as_str(), "/org/orchestratord1/job/1");
    let job = job(&client, path).await.unwrap();
    assert_eq!(job.state().await.unwrap(), "running");
    assert_eq!(job.kind().await.unwrap(), "install");
    reporter.finish(JobResult::Done, None);
    assert_eq!(job.wait().await.unwrap(), "done");
}

#[tokio::test]
async fn resume_and_rollback_pass_all_options() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();
    let stop = || ("stop-before", vec!["ArtifactRollback"].into());
    let expected = |reboot| RunOptions { stop_before: BTreeSet::from([StopPoint::ArtifactRollback]), reboot };

    let call = update.resume(Options::from([stop(), ("reboot", "auto".into())]));
    let path = answered(&mut daemon, call, |request| {
        let Request::Resume(run, _, reply) = request else { panic!("{request:?}") };
        assert_eq!(run, expected(RebootMode::Auto));
        reply.send(Ok(7)).unwrap();
    });
    assert_eq!(path.await.unwrap().as_str(), "/org/orchestratord1/job/7");

    let call = update.rollback(Options::from([stop(), ("reboot", "defer".into()), ("force", true.into())]));
    let path = answered(&mut daemon, call, |request| {
        let Request::Rollback(run, force, _, reply) = request else { panic!("{request:?}") };
        assert_eq!(run, expected(RebootMode::Defer));
        assert!(force);
        reply.send(Ok(8)).unwrap();
    });
    assert_eq!(path.await.unwrap().as_str(), "/org/orchestratord1/job/8");

    let path = answered(&mut daemon, update.rollback(Options::new()), |request| {
        let Request::Rollback(run, force, _, reply) = request else { panic!("{request:?}") };
        assert_eq!(run, RunOptions::default());
        assert!(!force);
        reply.send(Ok(9)).unwrap();
    });
    assert_eq!(path.await.unwrap().as_str(), "/org/orchestratord1/job/9");
}

#[tokio::test]
async fn inventory_returns_entries_beside_errors() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();

    let options = Options::from([("scope", "provides".into()), ("topology-components", "c".into())]);
    let inventory = answered(&mut daemon, update.inventory(options), |request| {
        let Request::Inventory(scope, components, reply) = request else { panic!("{request:?}") };
        assert_eq!(scope, InventoryScope::Provides);
        assert_eq!(components.as_deref(), Some("c"));
        let entry = |key: &str, value: &str| InventoryEntry {
            component: "rtos/R123".to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        reply
            .send(Ok(Inventory {
                entries: vec![entry("list", "1"), entry("list", "2")],
                errors: vec![Error::new(Kind::InterfaceFailed, "The Component \"rtos.R456\" does not answer.")],
            }))
            .unwrap();
    });
    let (entries, errors) = inventory.await.unwrap();
    let entry = |value: &str| ("rtos/R123".to_owned(), "list".to_owned(), value.to_owned());
    assert_eq!(entries, [entry("1"), entry("2")]);
    assert_eq!(errors, ["The Component \"rtos.R456\" does not answer."]);

    let call = update.inventory(Options::new());
    let inventory = answered(&mut daemon, call, |request| {
        let Request::Inventory(InventoryScope::All, None, reply) = request else { panic!("{request:?}") };
        reply.send(Ok(Inventory::default())).unwrap();
    });
    assert_eq!(inventory.await.unwrap(), (vec![], vec![]));
}

#[tokio::test]
async fn reload_returns_when_the_new_state_is_out() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();
    let status = daemon.domain.status.clone();
    let call = update.reload(Options::new());
    let reloaded = answered(&mut daemon, call, |request| {
        let Request::Reload(reply) = request else { panic!("{request:?}") };
        status.send_modify(|status| status.system_type = "other".to_owned());
        reply.send(Ok(())).unwrap();
    });
    reloaded.await.unwrap();
    assert_eq!(update.system_type().await.unwrap(), "other");

    let call = update.reload(Options::new());
    let failed = answered(&mut daemon, call, |request| {
        let Request::Reload(reply) = request else { panic!("{request:?}") };
        reply.send(Err(Error::new(Kind::InvalidTopology, "The Topology is empty."))).unwrap();
    });
    let expected = ("org.orchestratord1.Error.InvalidTopology".to_owned(), "The Topology is empty.".to_owned());
    assert_eq!(refusal(failed.await), expected);
}

#[tokio::test]
async fn every_kind_of_error_arrives_under_its_name() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();
    for kind in Kind::ALL {
        let message = format!("The thing \"{kind:?}\" went wrong.");
        let failed = answered(&mut daemon, update.install("m", Options::new()), |request| {
            let Request::Install(_, _, _, reply) = request else { panic!("{request:?}") };
            reply.send(Err(Error::new(kind, message.as_str()))).unwrap();
        });
        assert_eq!(refusal(failed.await), (kind.dbus_name().to_owned(), message));
    }
}

#[tokio::test]
async fn nothing_unknown_malformed_or_oversized_reaches_the_domain() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();
    let one = |key: &'static str| Options::from([(key, Variant::from("x"))]);
    let huge = "m".repeat((1 << 20) + 1);
    let refusals = [
        ("no-such", refusal(update.plan("m", one("no-such")).await)),
        ("stop-before", refusal(update.plan("m", one("stop-before")).await)),
        ("force", refusal(update.install("m", one("force")).await)),
        ("base-directory", refusal(update.install("m", one("base-directory")).await)),
        ("stop-before", refusal(update.install("m", one("stop-before")).await)),
        ("reboot", refusal(update.install("m", one("reboot")).await)),
        ("base-directory", refusal(update.resume(one("base-directory")).await)),
        ("force", refusal(update.rollback(one("force")).await)),
        ("scope", refusal(update.inventory(one("scope")).await)),
        ("x", refusal(update.reload(one("x")).await)),
        ("manifest", refusal(update.install(&huge, Options::new()).await)),
        ("manifest", refusal(update.plan(&huge, Options::new()).await)),
        ("topology-components", {
            let options = Options::from([("topology-components", Variant::from(huge.as_str()))]);
            refusal(update.inventory(options).await)
        }),
    ];
    for (key, (name, message)) in refusals {
        assert_eq!(name, "org.freedesktop.DBus.Error.InvalidArgs", "{message}");
        assert!(message.contains(&format!("\"{key}\"")), "{message}");
        assert!(message.ends_with('.'), "{message}");
    }
    assert!(daemon.domain.requests.try_recv().is_err(), "a malformed call reached the domain");
}

#[tokio::test]
async fn a_stopping_daemon_takes_no_new_work() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();
    daemon.phase.send_replace(orchestratord::bus::Phase::Stopping);
    for result in [update.install("m", Options::new()).await, update.resume(Options::new()).await] {
        let (name, message) = refusal(result);
        assert_eq!(name, "org.freedesktop.DBus.Error.NotSupported");
        assert_eq!(message, "The daemon \"orchestratord\" is stopping and takes no new work.");
    }
    assert!(daemon.domain.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_domain_that_is_gone_is_an_error_reply() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();
    drop(daemon.domain);
    let (name, message) = refusal(update.resume(Options::new()).await);
    assert_eq!(name, "org.orchestratord1.Error.Failed");
    assert_eq!(message, "The update service of orchestratord has stopped.");
}
