//! Ends of the daemon and of the runtime in the middle of a deployment.

use std::sync::{Arc, Mutex};

use orchestrator_tests::runtime::{StubRuntime, program};
use orchestratord::core::error::Kind;
use orchestratord::vplc::program::Outcome;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, Observer, file};

/// Begins a deployment, and drops it when this step begins, as the end of a daemon does.
async fn interrupt(bed: &Bed, number: u16, behaviour: &str, step: &'static str) {
    let notify = Arc::new(Notify::new());
    let reached = notify.clone();
    let observer = Observer::at(move |now| {
        if now.starts_with(step) {
            reached.notify_one();
        }
    });
    tokio::select! {
        done = bed.deploy_with(number, behaviour, &observer) => panic!("\"{step}\" was not reached: {done:?}"),
        () = notify.notified() => {}
    }
}

#[tokio::test]
async fn a_deployment_goes_on_after_the_end_of_the_daemon_at_any_step() {
    for step in ["uploading", "compiling", "starting", "verifying"] {
        let mut bed = Bed::new();
        bed.good(1).await;
        interrupt(&bed, 2, "good", step).await;
        bed.reopen();
        assert_eq!(bed.deploy(3, "good").await.unwrap_err().kind, Kind::Busy, "{step}");
        assert!(bed.programs.status().await.deployment.is_some(), "{step}");
        let resumed = bed.programs.resume(&Observer::new(), &CancellationToken::new()).await.unwrap();
        let (version, outcome) = resumed.unwrap();
        assert_eq!((version.number, outcome), (2, Outcome::Deployed), "{step}");
        assert_eq!(bed.number(), Some(2), "{step}");
        assert_eq!(bed.programs.resume(&Observer::new(), &CancellationToken::new()).await.unwrap(), None);
        bed.good(3).await;
    }
}

#[tokio::test]
async fn the_way_back_goes_on_after_the_end_of_the_daemon() {
    let mut bed = Bed::new();
    bed.good(1).await;
    interrupt(&bed, 2, "never-running", "going back: compiling").await;
    bed.reopen();
    let resumed = bed.programs.resume(&Observer::new(), &CancellationToken::new()).await.unwrap();
    let (_, outcome) = resumed.unwrap();
    let Outcome::RolledBack(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.message.contains("does not run"), "{error}");
    assert_eq!(bed.number(), Some(1));
}

#[tokio::test]
async fn a_daemon_that_ends_while_nothing_is_deployed_leaves_the_program_alone() {
    let mut bed = Bed::new();
    bed.good(1).await;
    let [_, before, starts] = bed.stub.registers().unwrap();
    bed.reopen();
    assert_eq!(bed.programs.resume(&Observer::new(), &CancellationToken::new()).await.unwrap(), None);
    // The counter goes on counting: it was not started again.
    let scans = async {
        loop {
            let [number, after, starts_after] = bed.stub.registers().unwrap();
            assert_eq!((number, starts_after), (1, starts));
            if after > before {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), scans).await.expect("it runs");
}

#[tokio::test]
async fn a_runtime_that_starts_anew_at_a_step_ends_with_a_program_that_runs() {
    for (step, expected) in [("compiling", 1), ("verifying", 2)] {
        let mut bed = Bed::new();
        bed.good(1).await;
        let ports = [bed.stub.https, bed.stub.modbus];
        let directory = bed.directory.path().to_owned();
        // The stub is ended and started again by the one who sees the step begin.
        let spare = StubRuntime::with(tempfile::tempdir().unwrap().path(), [0, 0], &[]);
        let stub = Arc::new(Mutex::new(Some(std::mem::replace(&mut bed.stub, spare))));
        let again = stub.clone();
        let observer = Observer::at(move |now| {
            let mut stub = again.lock().unwrap();
            if now.starts_with(step) {
                stub.take().unwrap().end();
                *stub = Some(StubRuntime::with(&directory, ports, &[]));
            }
        });
        let archive = file(&program(2, "good"));
        let cancel = CancellationToken::new();
        let (_, outcome) = bed.programs.deploy(archive, "x", &observer, &cancel).await.unwrap();
        let number = stub.lock().unwrap().as_ref().unwrap().registers().map(|[number, ..]| number);
        assert_eq!(number, Some(expected), "{step}: {outcome:?}");
        assert_eq!(matches!(outcome, Outcome::Deployed), expected == 2, "{step}: {outcome:?}");
    }
}
