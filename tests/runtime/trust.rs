//! Who the runtime is to the daemon, and the daemon to the runtime.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use orchestratord::core::error::Kind;
use orchestratord::vplc::program::Programs;
use orchestratord::vplc::program::runtime::PlcState;

use crate::bed::{Bed, PATIENCE};

#[tokio::test]
async fn a_fresh_runtime_becomes_the_daemons_own_and_nobody_elses() {
    let mut bed = Bed::new();
    bed.programs.runtime().claim().await.unwrap();
    let credentials = bed.programs.runtime().credentials();
    assert!(credentials.password.len() >= 32 && credentials.certificate.is_some());
    for name in ["runtime.json", "runtime.json.previous"] {
        let mode = fs::metadata(bed.kept().join(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(!format!("{credentials:?}").contains(&credentials.password));
    // A daemon that starts again is the same user.
    bed.reopen();
    assert_eq!(bed.programs.runtime().credentials(), credentials);
    bed.programs.runtime().claim().await.unwrap();
    // Another daemon is nobody.
    let other = tempfile::tempdir().unwrap();
    let dial = Arc::new(crate::bed::Loopback(bed.stub.https.into()));
    let other = Programs::open("other", other.path(), dial, 8443, 5, PATIENCE).unwrap();
    assert_ne!(other.runtime().credentials().password, credentials.password);
    let error = other.runtime().claim().await.unwrap_err().about("other");
    assert_eq!(error.kind, Kind::RuntimeUntrusted);
    assert!(error.message.contains("but has users"), "{error}");
}

#[tokio::test]
async fn another_certificate_is_an_error_that_names_both_and_gets_no_password() {
    let mut bed = Bed::new();
    bed.good(1).await;
    let known = bed.programs.runtime().credentials().certificate.unwrap();
    for name in ["certOPENPLC.pem", "keyOPENPLC.pem"] {
        fs::remove_file(bed.directory.path().join("work").join(name)).unwrap();
    }
    bed.restart();
    for again in [false, true] {
        if again {
            bed.reopen();
        }
        let error = bed.programs.status().await.runtime.unwrap_err();
        assert_eq!(error.kind, Kind::RuntimeUntrusted);
        assert!(error.message.contains(&format!("but \"{known}\" is known to be its own")), "{error}");
        assert_eq!(bed.deploy(2, "good").await.unwrap_err().kind, Kind::RuntimeUntrusted);
    }
    // Whoever made the new container says so.
    bed.programs.runtime().expect_new_certificate().unwrap();
    // It has just been started, and starts its program by itself.
    while bed.programs.runtime().plc().await.unwrap() != PlcState::Running {
        tokio::time::sleep(PATIENCE.pace).await;
    }
    let new = bed.programs.runtime().credentials().certificate.unwrap();
    assert_ne!(new, known);
    bed.reopen();
    assert_eq!(bed.programs.runtime().credentials().certificate, Some(new));
    bed.good(2).await;
}

#[tokio::test]
async fn a_runtime_that_lost_its_users_gets_the_same_one_again() {
    let mut bed = Bed::new();
    bed.good(1).await;
    fs::remove_dir_all(bed.directory.path().join("data")).unwrap();
    bed.restart();
    bed.good(2).await;
}

#[tokio::test]
async fn damage_to_the_credentials_locks_nobody_out() {
    let mut bed = Bed::new();
    bed.good(1).await;
    let path = bed.kept().join("runtime.json");
    fs::write(&path, &fs::read(&path).unwrap()[..30]).unwrap();
    bed.reopen();
    bed.good(2).await;
}
