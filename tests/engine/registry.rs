//! Images from a registry: pinned by what the tag stood for, and errors that leave everything as it is.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::engine::Engine;
use crate::rig::{Host, PATIENCE, RUNS, becomes, spec, until};

/// Debian's registry.
const REGISTRY: &str = "/usr/bin/docker-registry";

/// A registry on loopback, which engines trust without TLS.
struct Registry {
    process: Child,
    port: u16,
    _place: TempDir,
}

impl Registry {
    /// An empty one; none, said on standard error, where there is no such program.
    fn start(test: &str) -> Option<Self> {
        if fs::metadata(REGISTRY).is_err() {
            orchestrator_tests::skip(test, &format!("there is no \"{REGISTRY}\" (Debian: docker-registry)"));
            return None;
        }
        let place = TempDir::with_prefix("vplc-registry-").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let storage = place.path().join("images");
        let configuration = serde_json::json!({
            "version": 0.1,
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": storage } },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        let file = place.path().join("registry.yml");
        fs::write(&file, configuration.to_string()).unwrap();
        let log = fs::File::create(place.path().join("log")).unwrap();
        let mut command = Command::new(REGISTRY);
        command.arg("serve").arg(file).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let registry = Self { process: command.spawn().unwrap(), port, _place: place };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the registry does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Some(registry)
    }

    fn end(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }

    /// The name of an image in it.
    fn name(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/plant/plc:{tag}", self.port)
    }

    /// Puts an image of the engine into it under this tag, and takes that name from the engine.
    fn take(&self, engine: &Engine, image: &str, tag: &str) {
        let (name, repository) = (self.name(tag), format!("127.0.0.1:{}/plant/plc", self.port));
        engine.api("POST", &format!("/images/{image}/tag?repo={repository}&tag={tag}"), None).unwrap();
        let said = engine.push(&format!("/images/{repository}/push?tag={tag}"));
        assert!(said.contains("digest: sha256:"), "{said}");
        engine.api("DELETE", &format!("/images/{name}"), None).unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.end();
    }
}

#[tokio::test]
async fn images_come_from_a_registry_and_are_pinned() {
    let test = "images_come_from_a_registry_and_are_pinned";
    let (Some(mut registry), Some(host)) = (Registry::start(test), Host::start(test).await) else { return };
    registry.take(&host.engine, "plc:1", "stable");
    let repository = format!("127.0.0.1:{}/plant/plc", registry.port);
    let of = |tag: &str, pull: &str| {
        let spec = spec(RUNS, "").replace("pull: never", &format!("pull: {pull}"));
        spec.replace("plc:1", &format!("{repository}:{tag}"))
    };
    let before = host.residue();

    // A tag that is not there, and a digest that is not.
    let (result, kind, message) = host.apply(&of("unstable", "missing")).await;
    assert_eq!((result.as_str(), kind.as_str()), ("failed", "ImageUnavailable"), "{message}");
    assert!(message.contains(&registry.name("unstable")), "{message}");
    let digest = format!("127.0.0.1:{}/plant/plc@sha256:{}", registry.port, "0123456789abcdef".repeat(4));
    let (result, kind, message) = host.apply(&of("stable", "missing").replace(&registry.name("stable"), &digest)).await;
    assert_eq!((result.as_str(), kind.as_str()), ("failed", "ImageUnavailable"), "{message}");
    assert_eq!(host.residue(), before);

    let file = host.file("plc.yaml", &of("stable", "missing"));
    let (code, _, told) = host.ctl(&format!("vplc apply {file}")).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains(&format!("fetching {}", registry.name("stable"))), "{told}");
    let vplc = host.vplc("press1").await;
    let image = vplc.image().await.unwrap();
    let (name, pinned) = image.split_once(' ').unwrap();
    assert_eq!(name, registry.name("stable"));
    assert!(pinned.starts_with(&format!("127.0.0.1:{}/plant/plc@sha256:", registry.port)), "{pinned}");
    let id = |container: &str| host.engine.inspect(container).unwrap()["Image"].clone();
    let first = id("vplc.press1");

    // The tag moves to another image, and all that the engine has of the first one is lost.
    let other = host.engine.change("plc:1", "other:1");
    registry.take(&host.engine, "other:1", "stable");
    for name in ["vplc.press1", "vplc-net.press1"] {
        host.engine.api("DELETE", &format!("/containers/{name}?force=true"), None);
    }
    until("it is made again", async || host.engine.inspect("vplc.press1")).await;
    becomes(&vplc, "running").await;
    assert_eq!(id("vplc.press1"), first, "what the tag stood for when it was applied");
    assert_ne!(first.as_str().unwrap(), other);

    // Whoever applies it again and asks for it gets what the tag means now.
    host.run(&of("stable", "always")).await;
    assert_eq!(id("vplc.press1").as_str().unwrap(), other);

    // Without the registry, what runs is not touched.
    let runtime = host.engine.pid("vplc.press1");
    registry.end();
    let (result, kind, message) = host.apply(&of("stable", "always")).await;
    assert_eq!((result.as_str(), kind.as_str()), ("failed", "ImageUnavailable"), "{message}");
    host.run(&of("stable", "missing")).await;
    assert_eq!(host.engine.pid("vplc.press1"), runtime);
    host.delete().await;
    assert_eq!(host.residue(), before);
}
