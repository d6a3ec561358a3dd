//! The example for Interface authors, run as the daemon would run it.

use std::fs;
use std::path::Path;

use super::State;
use super::bench::Bench;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/interfaces/v1/single-file");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/interface-protocol.md");

/// A Component that runs version "factory".
fn component() -> Bench {
    let mut bench = Bench::new("");
    let directory = bench.path("component");
    fs::create_dir_all(directory.join("current")).unwrap();
    fs::write(directory.join("id"), "R:1\n").unwrap();
    fs::write(directory.join("current/software"), "old").unwrap();
    fs::write(directory.join("current/version"), "factory").unwrap();
    bench.interface.name = "single-file".into();
    bench.interface.program = Path::new(SCRIPT).canonicalize().unwrap();
    bench.interface.arguments = vec![directory.to_str().unwrap().to_owned()];
    bench
}

async fn run(bench: &Bench, state: State) {
    bench.interface.run_state(state, &bench.tag, &bench.cancel).await.unwrap();
}

async fn version(bench: &Bench) -> String {
    let provides = bench.interface.provides(&bench.tag, &bench.cancel).await.unwrap();
    assert_eq!(provides.get("artifact_name"), provides.get("rootfs-image.single-file.version"));
    provides["artifact_name"].clone()
}

/// Names in the directory of the Component.
fn entries(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.path("component")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_example_installs_and_tidies_up() {
    let bench = component();
    let (interface, tag, cancel) = (&bench.interface, &bench.tag, &bench.cancel);
    bench.download(&bench.artifact(&[("firmware.bin", b"new software")])).await.unwrap();
    assert_eq!(interface.identity(tag, cancel).await.unwrap(), "R:1");
    assert!(interface.supports_rollback(tag, cancel).await.unwrap());
    assert_eq!(version(&bench).await, "factory");

    run(&bench, State::ArtifactInstall).await;
    assert_eq!(version(&bench).await, "gateway-v2");
    let expected = "gateway.R:1: Update Interface output (stdout): Installed gateway-v2.";
    assert_eq!(*bench.log.lock().unwrap(), [expected]);
    run(&bench, State::ArtifactCommit).await;
    run(&bench, State::Cleanup).await;
    run(&bench, State::Cleanup).await;
    assert_eq!(bench.text("component/current/software"), "new software");
    assert_eq!(entries(&bench), ["current", "id"]);
    let inventory = interface.inventory(tag, cancel).await.unwrap();
    assert_eq!(inventory, [("software_bytes".to_owned(), "12".to_owned())]);
}

#[tokio::test]
async fn the_example_goes_back_from_every_point() {
    for installed in [false, true] {
        let bench = component();
        bench.download(&bench.artifact(&[("firmware.bin", b"new software")])).await.unwrap();
        if installed {
            run(&bench, State::ArtifactInstall).await;
            run(&bench, State::ArtifactCommit).await;
        }
        run(&bench, State::ArtifactRollback).await;
        run(&bench, State::ArtifactRollback).await;
        run(&bench, State::ArtifactFailure).await;
        run(&bench, State::Cleanup).await;
        assert_eq!(version(&bench).await, "factory", "{installed}");
        assert_eq!(bench.text("component/current/software"), "old");
        assert_eq!(entries(&bench), ["current", "id"]);
    }
}

#[tokio::test]
async fn the_example_refuses_what_it_is_not_made_for() {
    let bench = component();
    let message = bench.failure(&bench.artifact(&[("a", b"1"), ("b", b"2")])).await;
    assert!(message.ends_with("\"PROGRAM\" exited with status 1."), "{message}");
    let expected = "gateway.R:1: Update Interface output (stderr): Expected one payload file, got 2.";
    assert_eq!(*bench.log.lock().unwrap(), [expected]);
}

#[test]
fn the_page_shows_the_example_as_it_is() {
    let script = fs::read_to_string(SCRIPT).unwrap();
    assert!(fs::read_to_string(PAGE).unwrap().contains(&format!("```sh\n{script}```\n")));
}
