//! Answers that no good runtime gives.

use std::time::Duration;

use orchestratord::core::error::Kind;
use orchestratord::vplc::program::Patience;

use crate::bed::{Bed, PATIENCE};

#[tokio::test]
async fn no_answer_is_believed_followed_or_waited_for_without_a_bound() {
    // Short, because it is waited out; and nothing is retried for longer than that.
    let patience = Patience { answer: Duration::from_secs(5), silence: Duration::ZERO, ..PATIENCE };
    let bed = Bed::with(patience, &[]);
    bed.good(1).await;
    let [_, before, starts] = bed.stub.registers().unwrap();
    for (fault, reason) in [
        ("redirect", "it redirects \"/api/version\" elsewhere (302 Found)"),
        ("huge", "its answer to \"/api/version\" has more than 4194304 bytes"),
        ("drip", "it has not answered \"/api/version\" in full within 5 s"),
        ("hang", "it has not answered \"/api/version\" in full within 5 s"),
        ("reset", "does not answer: "),
        ("garbage", "its answer to \"/api/version\" is no JSON"),
        ("error", "its answer to \"/api/version\", with status 500, is not understood"),
    ] {
        bed.stub.fault(fault);
        let error = bed.programs.status().await.runtime.unwrap_err();
        assert_eq!(error.kind, Kind::RuntimeFailed, "{fault}");
        assert!(error.message.starts_with("The runtime of the vPLC \"press\" does not answer"), "{fault}: {error}");
        assert!(error.message.contains(reason), "{fault}: {error}");
        let error = bed.deploy(2, "good").await.unwrap_err();
        assert_eq!(error.kind, Kind::RuntimeFailed, "{fault}");
        bed.stub.fault("");
    }
    // The program has not noticed anything, and nothing is left of the attempts.
    let [number, after, starts_after] = bed.stub.registers().unwrap();
    assert!(number == 1 && starts_after == starts && after > before);
    assert_eq!(bed.numbers().await, [1]);
    assert!(bed.programs.status().await.plc.is_ok());
}

#[tokio::test]
async fn a_token_that_is_not_good_any_more_is_renewed() {
    let bed = Bed::new();
    bed.good(1).await;
    bed.stub.fault("revoke");
    bed.programs.runtime().plc().await.unwrap();
    bed.stub.fault("revoke");
    bed.good(2).await;
}

#[tokio::test]
async fn a_token_that_expires_at_once_is_an_error_and_no_loop() {
    let bed = Bed::with(PATIENCE, &[("STUB_TOKEN_SECONDS", "0")]);
    let error = bed.programs.status().await.plc.unwrap_err();
    assert!(error.message.contains("with status 401"), "{error}");
}
