//! Programs that are not good.

use std::time::Duration;

use orchestrator_tests::runtime::archive;
use orchestratord::core::error::Kind;
use orchestratord::core::job::JobResult;
use orchestratord::vplc::program::runtime::PlcState;
use orchestratord::vplc::program::{Outcome, Patience};
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, Observer, PATIENCE, file};

#[tokio::test]
async fn a_program_that_fails_at_any_step_is_replaced_by_the_one_before() {
    for (behaviour, reason) in [
        ("compile-error", "does not compile on the vPLC \"press\": "),
        ("never-running", "does not run: its state is \"error\""),
        // Whether it was seen running before depends on the pace of the machine.
        ("error-soon", ": its state is \"error\""),
        ("crash", ": its state is "),
    ] {
        // Longer than a program takes that crashes again and again, until the runtime gives it up.
        let bed = Bed::with(Patience { steady: Duration::from_secs(3), ..PATIENCE }, &[]);
        bed.good(1).await;
        let observer = Observer::new();
        let (version, outcome) = bed.deploy_with(2, behaviour, &observer).await.unwrap();
        let Outcome::RolledBack(error) = &outcome else { panic!("{behaviour}: {outcome:?}") };
        assert_eq!(error.kind, Kind::ProgramFailed, "{behaviour}");
        assert!(error.message.contains(reason), "{behaviour}: {error}");
        assert!(observer.said(reason), "{behaviour}");
        assert_eq!(outcome.result(), JobResult::RolledBack);
        // The old one runs, and is the active one; the bad one is kept to be looked at.
        assert_eq!(bed.number(), Some(1), "{behaviour}");
        assert_eq!(bed.programs.status().await.active.unwrap().number, 1, "{behaviour}");
        assert_eq!((version.number, bed.numbers().await), (2, vec![1, 2]), "{behaviour}");
        assert_eq!(bed.programs.versions().await[1].proven, None);
    }
}

#[tokio::test]
async fn the_message_says_what_the_compiler_said() {
    let bed = Bed::new();
    let (_, outcome) = bed.deploy(2, "compile-error").await.unwrap();
    let Outcome::Lost { error, back: None } = &outcome else { panic!("{outcome:?}") };
    assert!(error.message.contains("[ERROR] main.cpp:7: 'x' was not declared"), "{error}");
    assert_eq!(bed.programs.status().await.active, None);
    // It goes on from there.
    bed.good(3).await;
}

#[tokio::test]
async fn what_the_runtime_refuses_does_not_disturb_the_program_that_runs() {
    let bed = Bed::new();
    bed.good(1).await;
    let [_, before, starts] = bed.stub.registers().unwrap();
    let (_, outcome) = bed.deploy(2, "refuse").await.unwrap();
    let Outcome::Unchanged(error) = &outcome else { panic!("{outcome:?}") };
    assert!(error.message.contains("\"Uploaded ZIP file failed safety checks\""), "{error}");
    let [number, after, starts_after] = bed.stub.registers().unwrap();
    assert!(number == 1 && starts_after == starts && after > before, "the program was started again");
    assert_eq!(bed.numbers().await, [1]);
}

#[tokio::test]
async fn what_is_refused_here_never_comes_to_the_runtime() {
    let bed = Bed::new();
    bed.good(1).await;
    let [_, _, starts] = bed.stub.registers().unwrap();
    for bytes in [b"no archive".to_vec(), archive(&[("a/../../b", b"x")]), archive(&[("run.sh", b"x")])] {
        let cancel = CancellationToken::new();
        let error = bed.programs.deploy(file(&bytes), "x", &Observer::new(), &cancel).await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidProgram);
    }
    let directory = std::fs::File::open("/").unwrap();
    let error = bed.programs.deploy(directory, "x", &Observer::new(), &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind, Kind::InvalidArgs);
    assert_eq!(bed.stub.registers().map(|[number, _, starts]| (number, starts)), Some((1, starts)));
    assert_eq!(bed.numbers().await, [1]);
    let files = std::fs::read_dir(bed.kept().join("programs")).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let is_archive = |name: &&String| name.rsplit_once('.').is_some_and(|(_, kind)| kind == "zip");
    assert_eq!(names.iter().filter(is_archive).count(), 1, "{names:?}");
}

#[tokio::test]
async fn a_program_that_did_not_run_before_is_put_back_but_not_started() {
    let bed = Bed::new();
    bed.good(1).await;
    bed.programs.runtime().stop().await.unwrap();
    let (_, outcome) = bed.deploy(2, "never-running").await.unwrap();
    assert!(matches!(outcome, Outcome::RolledBack(_)), "{outcome:?}");
    assert_eq!(bed.programs.runtime().plc().await.unwrap(), PlcState::Stopped);
    bed.programs.runtime().start().await.unwrap();
    bed.becomes(1).await;
}

#[tokio::test]
async fn a_deployment_is_cancelled_and_the_old_program_comes_back() {
    let bed = Bed::with(PATIENCE, &[("STUB_PACE", "1500")]);
    bed.good(1).await;
    let cancel = CancellationToken::new();
    let at_compile = cancel.clone();
    let observer = Observer::at(move |step| {
        if step.starts_with("compiling") {
            at_compile.cancel();
        }
    });
    let archive = file(&orchestrator_tests::runtime::program(2, "good"));
    let (_, outcome) = bed.programs.deploy(archive, "x", &observer, &cancel).await.unwrap();
    let Outcome::RolledBack(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!((error.kind, bed.number()), (Kind::Cancelled, Some(1)));
    // Before anything was uploaded it costs nothing.
    let [_, _, starts] = bed.stub.registers().unwrap();
    let archive = file(&orchestrator_tests::runtime::program(2, "good"));
    let (_, outcome) = bed.programs.deploy(archive, "x", &Observer::new(), &cancel).await.unwrap();
    assert!(matches!(&outcome, Outcome::Unchanged(error) if error.kind == Kind::Cancelled), "{outcome:?}");
    assert_eq!(outcome.result(), JobResult::Cancelled);
    assert_eq!(bed.stub.registers().unwrap()[2], starts);
}

#[tokio::test]
async fn a_compilation_without_an_end_is_given_up_and_told() {
    let patience = Patience { compile: Duration::from_secs(3), ..PATIENCE };
    let bed = Bed::with(patience, &[]);
    bed.good(1).await;
    let (_, outcome) = bed.deploy(2, "compile-hang").await.unwrap();
    // The stub never takes another program; all there is to do is to say so.
    let Outcome::Lost { error, back: Some(back) } = &outcome else { panic!("{outcome:?}") };
    assert!(error.message.contains("is not compiled on the vPLC \"press\" within 3 s"), "{error}");
    assert!(back.message.contains("does not come to an end of another compilation"), "{back}");
    assert_eq!(outcome.error().unwrap().kind, Kind::Inconsistent);
}
