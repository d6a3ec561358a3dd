//! Where Artifacts come from, from end to end: the real daemon and command line, a real nginx, and servers that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod cache;
mod faults;
mod mender;
mod places;
mod tls;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use orchestrator_tests::system::System;

/// One Component, at release 1; the daemon does not run yet, and gives up quickly.
async fn one() -> System {
    let mut system = System::new(&[("rtos", "R1", 1)]).await;
    hurry(&mut system);
    system
}

/// Tests cannot wait as long as devices should.
fn hurry(system: &mut System) {
    system.configure("RetryDownloadCount", 2);
    system.configure("DownloadTimeoutSeconds", 2);
}

/// The Manifest of a release with names in place of paths, and where it lies.
fn named(system: &System, release: u32) -> (String, PathBuf) {
    let mut text = system.manifest(release);
    for component in system.components() {
        let path = format!("artifact_path: {}", system.artifact(&component.component_type, release).display());
        text = text.replace(&path, &format!("artifact_name: {}-{release}", component.component_type));
    }
    let path = system.path("releases").join(format!("named-{release}.yaml"));
    fs::write(&path, &text).unwrap();
    (text, path)
}

/// The bytes of the Artifact of release 2.
fn bytes(system: &System, component_type: &str) -> Vec<u8> {
    system.manifest(2);
    fs::read(system.artifact(component_type, 2)).unwrap()
}

/// Installs release 2 by name with the command line: exit code and standard error.
async fn install(system: &System) -> (i32, String) {
    let (_, path) = named(system, 2);
    let command = system.ctl("orchestratorctl", &["install", path.to_str().unwrap()]).output();
    let output = tokio::time::timeout(orchestrator_tests::system::PATIENCE, command).await.expect("an end").unwrap();
    let Output { status, stderr, .. } = output;
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// Installs release 2 by name, which has to go well.
async fn install_well(system: &System) {
    let (code, stderr) = install(system).await;
    assert_eq!(code, 0, "{stderr}");
    system.assert_all_at(2);
    system.assert_cleaned_up();
}
