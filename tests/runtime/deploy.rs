//! Programs that are good.

use std::io::Read;

use orchestrator_tests::runtime::program;
use orchestratord::core::error::Kind;
use orchestratord::vplc::program::Outcome;
use orchestratord::vplc::program::runtime::PlcState;
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, Observer};

#[tokio::test]
async fn a_program_is_uploaded_compiled_started_and_proved() {
    let bed = Bed::new();
    assert_eq!(bed.number(), None);
    let observer = Observer::new();
    let (version, outcome) = bed.deploy_with(7, "good", &observer).await.unwrap();
    assert_eq!(outcome, Outcome::Deployed);
    assert_eq!(bed.number(), Some(7));
    assert_eq!(
        *observer.steps.lock().unwrap(),
        [
            "checking the program",
            "uploading version 1",
            "compiling version 1",
            "starting version 1",
            "verifying version 1"
        ]
    );
    assert!(observer.said("g++ unit 4 of 4") && observer.said("Compilation done"));
    let status = bed.programs.status().await;
    assert_eq!((status.plc, status.runtime.as_deref()), (Ok(PlcState::Running), Ok("4.1.9")));
    let active = status.active.unwrap();
    assert_eq!((active.number, active.by.as_str(), status.deployment), (1, "user 1000", None));
    assert!(active.proven.is_some() && active.sha256 == version.sha256);
    let mut exported = Vec::new();
    bed.programs.export(1).await.unwrap().0.read_to_end(&mut exported).unwrap();
    assert_eq!(exported, program(7, "good"));
    assert_eq!(bed.programs.export(2).await.unwrap_err().kind, Kind::InvalidArgs);
}

#[tokio::test]
async fn programs_are_replaced_and_taken_back() {
    let bed = Bed::new();
    for number in [1, 2, 3] {
        bed.good(number).await;
    }
    let (observer, cancel) = (Observer::new(), CancellationToken::new());
    for number in [2, 1] {
        let (version, outcome) = bed.programs.rollback(None, &observer, &cancel).await.unwrap();
        assert_eq!((version.number, outcome), (u32::from(number), Outcome::Deployed));
        assert_eq!(bed.number(), Some(number));
    }
    let error = bed.programs.rollback(None, &observer, &cancel).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotSupported);
    assert_eq!(error.message, "The vPLC \"press\" has no earlier program that proved to run.");
    assert_eq!(bed.number(), Some(1));
}

#[tokio::test]
async fn only_one_deployment_at_a_time() {
    let bed = Bed::new();
    let observer = Observer::new();
    let (first, second) = tokio::join!(bed.deploy_with(1, "good", &observer), bed.deploy(2, "good"));
    assert_eq!(first.unwrap().1, Outcome::Deployed);
    assert_eq!(second.unwrap_err().kind, Kind::Busy);
}

#[tokio::test]
async fn the_program_comes_to_a_new_image_which_has_none() {
    let mut bed = Bed::new();
    bed.good(5).await;
    // A new container: users are on a volume, program and certificate are not.
    std::fs::remove_dir_all(bed.directory.path().join("work")).unwrap();
    bed.restart();
    bed.programs.runtime().expect_new_certificate().unwrap();
    assert_eq!(bed.programs.status().await.plc, Ok(PlcState::Empty));
    let (observer, cancel) = (Observer::new(), CancellationToken::new());
    let (version, outcome) = bed.programs.redeploy(&observer, &cancel).await.unwrap().unwrap();
    assert_eq!((version.number, outcome), (1, Outcome::Deployed));
    assert_eq!(bed.number(), Some(5));
}

#[tokio::test]
async fn what_was_stopped_is_stopped_and_started() {
    let bed = Bed::new();
    bed.good(5).await;
    let runtime = bed.programs.runtime();
    bed.stub.fault("busy");
    runtime.stop().await.unwrap();
    assert_eq!((runtime.plc().await.unwrap(), bed.number()), (PlcState::Stopped, None));
    // Again is fine.
    runtime.stop().await.unwrap();
    bed.stub.fault("busy");
    runtime.start().await.unwrap();
    bed.becomes(5).await;
    // Also of what runs already.
    runtime.start().await.unwrap();
    assert_eq!(runtime.log().await.unwrap(), ["2026-01-01T00:00:00Z INFO stub"]);
}
