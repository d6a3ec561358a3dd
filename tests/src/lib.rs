//! What the end-to-end tests share: a private message bus, the binaries of the workspace, and a scripted update domain.
//!
//! Everything started here lives in a directory of its own and is ended, by its process id, when it is dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code; a panic is how a test fails")]
#![allow(
    clippy::missing_panics_doc,
    reason = "every function of a test harness panics when the machine lacks something"
)]

pub mod booted;
pub mod bus;
pub mod namespace;
pub mod plant;
pub mod polkit;
pub mod runtime;
pub mod scripted;
pub mod servers;
pub mod system;

use std::path::{Path, PathBuf};

/// The root of the source tree.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Where cargo put the programs of this build, `<target>/<profile>`.
pub fn built() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let mut directory = test.parent().expect("a directory");
    if directory.ends_with("deps") {
        directory = directory.parent().expect("a directory");
    }
    directory.to_owned()
}

/// A binary of the workspace, which cargo builds for the tests of its own crate only.
pub fn binary(name: &str) -> PathBuf {
    let path = built().join(name);
    assert!(path.exists(), "\"{}\" is missing; run \"cargo build --workspace\" first", path.display());
    path
}

/// Says on standard error that a test is skipped, and why.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
}
