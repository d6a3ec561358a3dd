//! Signals are honest: one per change, none without, progress at a pace, the last value always, in the order of events.

use std::time::Duration;

use orchestrator_tests::bus::Bus;
use orchestrator_tests::scripted::{Daemon, component, system};
use orchestratord::bus::{PACE, Phase};
use orchestratord::core::error::{Error, Kind};
use orchestratord::core::job::{JobResult, LogLine, Severity};
use orchestratord::update::handle::{Request, StopPoint, UpdateState};

use crate::recorder::{Recorder, Signal};

const ROOT: &str = "/org/orchestratord1";
const GATEWAY: &str = "/org/orchestratord1/component/gateway/_31";
const JOB: &str = "/org/orchestratord1/job/1";

fn property<'a>(signals: &'a [Signal], name: &str) -> Vec<&'a str> {
    signals.iter().filter_map(|signal| signal.value(name)).collect()
}

#[tokio::test]
async fn a_value_that_stays_the_same_is_not_signalled() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![component("gateway", "1")])).await;
    let mut recorder = Recorder::start(&bus).await;
    daemon.domain.status.send_modify(|_| ());
    daemon.flush().await;
    daemon.domain.status.send_modify(|status| status.components[0].version = "1".to_owned());
    daemon.phase.send_replace(Phase::Running);
    daemon.flush().await;
    assert_eq!(recorder.take().await, []);
}

#[tokio::test]
async fn changes_of_one_moment_come_in_one_signal_per_object() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![component("gateway", "1"), component("rtos", "2")])).await;
    let mut recorder = Recorder::start(&bus).await;
    daemon.domain.status.send_modify(|status| {
        status.state = UpdateState::Waiting;
        status.stopped_before = Some(StopPoint::ArtifactCommit);
        status.manifest = "demo 2".to_owned();
        status.last_error = Some(Error::new(Kind::InterfaceFailed, "It failed."));
        status.inconsistent = true;
        let gateway = &mut status.components[0];
        gateway.state = "ArtifactInstall".to_owned();
        gateway.version = "2".to_owned();
        gateway.progress = 0.5;
    });
    daemon.flush().await;
    let signals = recorder.take().await;
    let places: Vec<_> = signals.iter().map(|signal| (signal.path.as_str(), signal.values.len())).collect();
    assert_eq!(places, [(GATEWAY, 3), (ROOT, 4), (ROOT, 1)], "{signals:#?}");
    assert_eq!(signals[0].value("State"), Some("ArtifactInstall"));
    assert_eq!(signals[0].value("Version"), Some("2"));
    assert_eq!(signals[0].value("Progress"), Some("0.5"));
    assert_eq!(signals[1].value("State"), Some("waiting"));
    assert_eq!(signals[1].value("StoppedBefore"), Some("ArtifactCommit"));
    assert_eq!(signals[1].value("Manifest"), Some("demo 2"));
    assert_eq!(signals[1].value("LastError"), Some("org.orchestratord1.Error.InterfaceFailed It failed."));
    assert_eq!(signals[2].value("State"), Some("degraded"));
}

#[tokio::test]
async fn components_appear_change_and_vanish() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![component("gateway", "1")])).await;
    let mut recorder = Recorder::start(&bus).await;
    daemon.domain.status.send_modify(|status| status.components.push(component("rtos", "2")));
    daemon.flush().await;
    let signals = recorder.take().await;
    assert_eq!(signals.len(), 1, "{signals:#?}");
    assert_eq!((signals[0].path.as_str(), signals[0].name.as_str()), (ROOT, "InterfacesAdded"));
    assert_eq!(signals[0].value("0"), Some("/org/orchestratord1/component/rtos/_32"));

    // Interface and arguments are constant, so a Component with other ones is another object.
    daemon.domain.status.send_modify(|status| {
        status.components.remove(1);
        status.components[0].arguments = vec!["other".to_owned()];
    });
    daemon.flush().await;
    let signals = recorder.take().await;
    let steps: Vec<_> = signals.iter().map(|signal| (signal.name.as_str(), signal.value("0").unwrap())).collect();
    assert_eq!(
        steps,
        [
            ("InterfacesRemoved", GATEWAY),
            ("InterfacesRemoved", "/org/orchestratord1/component/rtos/_32"),
            ("InterfacesAdded", GATEWAY),
        ]
    );
    assert_eq!(signals[0].value("1"), Some("org.orchestratord1.Component"));
}

/// Has a Component and a Job report progress each millisecond and counts the signals; `disturb` changes something else.
async fn pace(disturb: impl Fn(&Daemon, u32)) {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![component("gateway", "1"), component("rtos", "2")])).await;
    let job = daemon.domain.jobs.begin("install", "system", 0);
    daemon.flush().await;
    let mut recorder = Recorder::start(&bus).await;
    let began = tokio::time::Instant::now();
    let steps = 500_u32;
    for step in 1..=steps {
        let progress = f64::from(step) / f64::from(steps + 1);
        job.report(progress, "streaming");
        daemon.domain.status.send_modify(|status| status.components[0].progress = progress);
        disturb(&daemon, step);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // What the pace allows in the time that really passed; one more for the first one, one for the last.
    let most = usize::try_from(began.elapsed().as_millis() / PACE.as_millis()).unwrap() + 2;
    // Nothing but time is needed for the last value.
    let last = (f64::from(steps) / f64::from(steps + 1)).to_string();
    let mut signals = Vec::new();
    let of = |signals: &[Signal], path: &str| -> Vec<String> {
        let of_path: Vec<Signal> = signals.iter().filter(|signal| signal.path == path).cloned().collect();
        property(&of_path, "Progress").into_iter().map(ToOwned::to_owned).collect()
    };
    let mut patience = 600;
    while [GATEWAY, JOB].iter().any(|path| of(&signals, path).last() != Some(&last)) {
        tokio::time::sleep(PACE).await;
        signals.extend(recorder.take().await);
        patience -= 1;
        assert!(patience > 0, "the last value did not come within a minute");
    }
    for path in [GATEWAY, JOB] {
        let shown: Vec<f64> = of(&signals, path).iter().map(|value| value.parse().unwrap()).collect();
        assert!(shown.len() <= most, "{path}: {} signals, at most {most} are allowed", shown.len());
        assert!(shown.is_sorted_by(|one, next| one < next), "{path}: {shown:?}");
    }
}

#[tokio::test]
async fn progress_is_paced_and_its_last_value_always_comes() {
    pace(|_, _| ()).await;
}

#[tokio::test]
async fn progress_is_paced_even_if_something_else_must_go_out_at_once() {
    pace(|daemon, step| daemon.domain.status.send_modify(|status| status.components[1].version = step.to_string()))
        .await;
}

#[tokio::test]
async fn progress_that_was_withheld_needs_no_other_event() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![component("gateway", "1")])).await;
    let mut recorder = Recorder::start(&bus).await;
    daemon.domain.status.send_modify(|status| status.components[0].progress = 0.1);
    daemon.flush().await;
    // The manifest must go out at once, the progress may have to wait.
    daemon.domain.status.send_modify(|status| {
        status.manifest = "demo 2".to_owned();
        status.components[0].progress = 0.2;
    });
    let mut signals = Vec::new();
    for _ in 0..600 {
        signals.extend(recorder.take().await);
        if property(&signals, "Progress").last() == Some(&"0.2") {
            break;
        }
        tokio::time::sleep(PACE).await;
    }
    assert_eq!(property(&signals, "Progress"), ["0.1", "0.2"]);
    assert_eq!(property(&signals, "Manifest"), ["demo 2"]);
}

#[tokio::test]
async fn a_reply_comes_after_all_that_the_call_changed_however_much_that_is() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let mut recorder = Recorder::start(&bus).await;
    let client = recorder.client();
    let update = orchestratord_dbus::UpdateProxy::new(&client).await.unwrap();
    let status = daemon.domain.status.clone();
    let domain = async {
        let Some(Request::Install(_, _, _, reply)) = daemon.domain.requests.recv().await else { panic!() };
        let job = daemon.domain.jobs.begin("install", "system", 0);
        status.send_modify(|status| {
            status.active_job = Some(1);
            status.components = (0..1000).map(|id| component("rtos", &id.to_string())).collect();
        });
        reply.send(Ok(1)).unwrap();
        job
    };
    let (path, job) = tokio::join!(update.install("m", orchestratord_dbus::Options::new()), domain);
    let arrived = recorder.take_arrived();
    let count = |name: &str| arrived.iter().filter(|signal| signal.name == name).count();
    assert_eq!((count("InterfacesAdded"), count("JobNew")), (1001, 1));
    assert_eq!(property(&arrived, "ActiveJob"), [JOB]);

    let handle = orchestratord_dbus::job(&client, path.unwrap()).await.unwrap();
    let end = async {
        for number in 0..1000 {
            let message = number.to_string();
            job.log(LogLine { severity: Severity::Info, component: String::new(), message });
        }
        job.finish(JobResult::Failed, None);
        status.send_modify(|status| status.components.clear());
    };
    let (result, ()) = tokio::join!(handle.wait(), end);
    assert_eq!(result.unwrap(), "failed");
    let arrived = recorder.take_arrived();
    let count = |name: &str| arrived.iter().filter(|signal| signal.name == name).count();
    assert_eq!((count("Log"), count("JobRemoved"), count("InterfacesRemoved")), (1000, 1, 1000));
}

#[tokio::test]
async fn a_state_does_not_wait_for_the_pace() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![component("gateway", "1")])).await;
    let mut recorder = Recorder::start(&bus).await;
    let states = ["Download", "ArtifactInstall", "ArtifactVerifyReboot", "ArtifactCommit", "Cleanup"];
    for state in states {
        daemon.domain.status.send_modify(|status| state.clone_into(&mut status.components[0].state));
        daemon.flush().await;
    }
    assert_eq!(property(&recorder.take_only(GATEWAY, "PropertiesChanged").await, "State"), states);
}

#[tokio::test]
async fn a_job_is_announced_before_it_is_named_and_ends_in_one_piece() {
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, system(vec![])).await;
    let mut recorder = Recorder::start(&bus).await;
    let client = bus.connect().await;
    let update = orchestratord_dbus::UpdateProxy::new(&client).await.unwrap();
    let (path, job) = tokio::join!(update.install("m", orchestratord_dbus::Options::new()), daemon.domain.accept());
    assert_eq!(path.unwrap().as_str(), JOB);
    // Everything that the acceptance changed is out when the reply is.
    let signals = recorder.take().await;
    let names: Vec<_> = signals.iter().map(|signal| (signal.path.as_str(), signal.name.as_str())).collect();
    let changed = (ROOT, "PropertiesChanged");
    assert_eq!(names, [(ROOT, "InterfacesAdded"), (ROOT, "JobNew"), changed, changed]);
    assert_eq!(signals[1].value("0"), Some("1"));
    assert_eq!(signals[1].value("1"), Some(JOB));
    assert_eq!(signals[2].value("ActiveJob"), Some(JOB));
    assert_eq!(signals[2].value("State"), Some("busy"));
    assert_eq!(signals[3].value("State"), Some("busy"));

    job.log(LogLine { severity: Severity::Error, component: "rtos.R1".to_owned(), message: "last\0 words".to_owned() });
    daemon.domain.status.send_modify(|status| {
        status.state = UpdateState::Idle;
        status.active_job = None;
    });
    job.finish(JobResult::RolledBack, Some(Error::new(Kind::InterfaceFailed, "It failed.")));
    daemon.flush().await;
    let signals = recorder.take().await;
    let names: Vec<_> = signals.iter().map(|signal| (signal.path.as_str(), signal.name.as_str())).collect();
    assert_eq!(names, [(JOB, "Log"), (JOB, "PropertiesChanged"), (ROOT, "JobRemoved"), changed, changed]);
    assert_eq!(signals[0].value("0"), Some("error"));
    assert_eq!(signals[0].value("1"), Some("rtos.R1"));
    assert_eq!(signals[0].value("2"), Some("last\u{fffd} words"));
    assert_eq!(signals[1].value("State"), Some("done"));
    assert_eq!(signals[1].value("Result"), Some("rolled-back"));
    assert_eq!(signals[1].value("Error"), Some("org.orchestratord1.Error.InterfaceFailed It failed."));
    assert_eq!(signals[2].value("2"), Some("rolled-back"));
    assert_eq!(signals[3].value("ActiveJob"), Some("/"));
}

#[tokio::test]
async fn no_line_of_the_log_is_lost_not_even_the_first_ones() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    let mut recorder = Recorder::start(&bus).await;
    let job = daemon.domain.jobs.begin("install", "system", 0);
    let mut expected = Vec::new();
    for number in 0..300 {
        let message = format!("line {number}");
        expected.push(message.clone());
        job.log(LogLine { severity: Severity::Info, component: String::new(), message });
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    daemon.flush().await;
    assert_eq!(property(&recorder.take_only(JOB, "Log").await, "2"), expected);
    job.finish(JobResult::Done, None);
}

#[tokio::test]
async fn a_log_that_outruns_the_bus_says_so() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    let mut recorder = Recorder::start(&bus).await;
    let job = daemon.domain.jobs.begin("install", "system", 0);
    for number in 0..3000 {
        job.log(LogLine { severity: Severity::Info, component: String::new(), message: number.to_string() });
    }
    daemon.flush().await;
    let log = recorder.take_only(JOB, "Log").await;
    assert_eq!(log[0].value("0"), Some("warning"));
    let lost = log[0].value("2").unwrap();
    assert!(lost.contains(&format!("{} lines", 3000 - (log.len() - 1))), "{lost} in {}", log.len());
    assert_eq!(log.last().unwrap().value("2"), Some("2999"));
    job.finish(JobResult::Done, None);
}

#[tokio::test]
async fn the_life_of_the_daemon_shows() {
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, system(vec![])).await;
    let mut recorder = Recorder::start(&bus).await;
    daemon.phase.send_replace(Phase::Stopping);
    daemon.flush().await;
    let signals = recorder.take().await;
    assert_eq!(property(&signals, "State"), ["stopping"], "{signals:#?}");
    daemon.face.close().await;
    let client = bus.connect().await;
    let names = zbus::fdo::DBusProxy::new(&client).await.unwrap();
    assert!(!names.name_has_owner("org.orchestratord1".try_into().unwrap()).await.unwrap());
}
