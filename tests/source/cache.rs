//! The cache, across order groups and deployments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use orchestrator_tests::servers::Server;
use orchestrator_tests::system::System;
use serde_json::json;

use super::{bytes, hurry, install, install_well};

/// A System of two Components that take one Artifact in one order group, and an empty cache.
async fn pair(directory: &Path) -> (System, Server) {
    let mut system = System::new(&[("rtos", "R1", 1), ("rtos", "R2", 1), ("gateway", "G1", 2)]).await;
    hurry(&mut system);
    let (rtos, gateway) = (bytes(&system, "rtos"), bytes(&system, "gateway"));
    let server = Server::start(move |request, reply| match request.target.as_str() {
        "/rtos-2.mender" => reply.file(request, &rtos),
        "/gateway-2.mender" => reply.file(request, &gateway),
        _ => reply.send("404 Not Found", &[], b""),
    });
    system.configure("ArtifactSources", json!({"Url": server.url()}));
    let path = if directory.is_absolute() { directory.to_owned() } else { system.path("cache") };
    fs::create_dir_all(&path).unwrap();
    system.configure("ArtifactsCache", json!({"Enabled": true, "Path": path}));
    (system, server)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn requests(server: &Server, name: &str) -> usize {
    server.requests().iter().filter(|request| request.target == format!("/{name}-2.mender")).count()
}

/// Puts a Component back to release 1 behind the daemon's back.
fn reset(system: &System, instance: &str, component_type: &str) {
    fs::remove_dir_all(system.home(instance).join("payload")).ok();
    system.set(instance, "provides", &format!("rootfs-image.demo-{component_type}.version={component_type}-1\n"));
}

#[tokio::test]
async fn an_artifact_is_downloaded_once_for_all() {
    let (mut system, server) = pair(Path::new("")).await;
    fs::write(system.path("cache/mine.txt"), "not of the daemon").unwrap();
    fs::write(system.path("cache").join(format!("{}.partial", "0".repeat(32))), "half").unwrap();
    system.start_daemon().await;
    assert_eq!(
        files(&system.path("cache")),
        [system.path("cache/mine.txt")],
        "what was half written goes at the start"
    );
    install_well(&system).await;
    // Once for the header, once for all of it.
    assert_eq!((requests(&server, "rtos"), requests(&server, "gateway")), (2, 2));
    assert_eq!(files(&system.path("cache")).len(), 3);

    // The next deployment takes them from there.
    for (instance, kind) in [("R1", "rtos"), ("R2", "rtos"), ("G1", "gateway")] {
        reset(&system, instance, kind);
    }
    install_well(&system).await;
    assert_eq!((requests(&server, "rtos"), requests(&server, "gateway")), (3, 3), "one more for each header");

    // One that is rotten is downloaded anew; the other one is not used any more and goes.
    let mut rotten = files(&system.path("cache")).into_iter().filter(|path| !path.ends_with("mine.txt"));
    let (one, other) = (rotten.next().unwrap(), rotten.next().unwrap());
    for path in [&one, &other] {
        let mut content = fs::read(path).unwrap();
        let place = content.len() / 2;
        content[place] ^= 1;
        fs::write(path, content).unwrap();
    }
    reset(&system, "R1", "rtos");
    install_well(&system).await;
    assert_eq!((requests(&server, "rtos"), requests(&server, "gateway")), (5, 4));
    assert!(system.log().contains("in the cache is not used: its SHA-256 is"), "{}", system.log());
    let left = files(&system.path("cache"));
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(system.path("cache/mine.txt").exists());
}

#[tokio::test]
async fn without_its_directory_no_install_begins() {
    let (mut system, server) = pair(Path::new("")).await;
    system.start_daemon().await;
    fs::remove_dir(system.path("cache")).unwrap();
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 10, "{stderr}");
    assert!(stderr.contains("\"ArtifactsCache.Path\" cannot be used: it does not exist"), "{stderr}");
    assert_eq!(system.trace(), [""; 0]);
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn the_oldest_gives_way() {
    let (mut system, _server) = pair(Path::new("")).await;
    let size = bytes(&system, "rtos").len().max(bytes(&system, "gateway").len());
    // Room for one.
    system.configure(
        "ArtifactsCache",
        json!({"Enabled": true, "Path": system.path("cache"), "MaxSizeBytes": size + size / 2}),
    );
    system.start_daemon().await;
    install_well(&system).await;
    assert_eq!(files(&system.path("cache")).len(), 1);
    assert!(system.log().contains("from the cache to make room"), "{}", system.log());
}

#[tokio::test]
async fn what_is_too_large_passes_by_unless_the_cache_is_strict() {
    let (mut system, _server) = pair(Path::new("")).await;
    let settings =
        |strict: bool| json!({"Enabled": true, "Path": system.path("cache"), "MaxSizeBytes": 1_000, "Strict": strict});
    let (strict, lax) = (settings(true), settings(false));
    system.configure("ArtifactsCache", strict);
    system.start_daemon().await;
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 18, "{stderr}");
    assert!(stderr.contains("\"ArtifactsCache.MaxSizeBytes\" is 1000"), "{stderr}");
    system.assert_all_at(1);
    assert!(system.stop_daemon().await.success());
    system.configure("ArtifactsCache", lax);
    system.start_daemon().await;
    install_well(&system).await;
    assert!(files(&system.path("cache")).is_empty());
    assert!(system.log().contains("The Artifact is not put into the cache"), "{}", system.log());
}

/// A local file is never copied.
#[tokio::test]
async fn files_are_not_cached() {
    let (mut system, _server) = pair(Path::new("")).await;
    system.start_daemon().await;
    system.install(2, orchestratord_dbus::Options::new()).await.unwrap().clean("done");
    assert!(files(&system.path("cache")).is_empty());
}

/// A small file system of its own.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, bytes: usize) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output().unwrap();
        mounted.status.success().then(|| Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn a_full_disk_costs_the_cache_and_not_the_deployment() {
    let place = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(&place.path().join("small"), 20_480) else {
        return orchestrator_tests::skip(
            "a_full_disk_costs_the_cache_and_not_the_deployment",
            "tmpfs cannot be mounted here",
        );
    };
    let (mut system, _server) = pair(&small.0).await;
    system.start_daemon().await;
    install_well(&system).await;
    assert!(files(&small.0).is_empty());
    assert!(system.log().contains("The Artifact is not put into the cache"), "{}", system.log());
}

/// Where an Interface stores the files, there has to be room for them.
#[tokio::test]
async fn a_full_disk_under_the_files_is_a_failure_that_leaves_nothing() {
    let (mut system, _server) = pair(Path::new("")).await;
    let Some(_small) = Small::mount(&system.path("state/work"), 65_536) else {
        return orchestrator_tests::skip("a_full_disk_under_the_files", "tmpfs cannot be mounted here");
    };
    system.set("R1", "streams", "ignore");
    system.start_daemon().await;
    let (code, stderr) = install(&system).await;
    assert_eq!(code, 18, "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
    system.assert_all_at(1);
    system.assert_cleaned_up();
    assert!(files(&system.path("cache")).iter().all(|path| path.extension().is_some_and(|end| end == "mender")));
}
