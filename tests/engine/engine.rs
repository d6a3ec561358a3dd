//! Debian's Docker Engine on a socket and in directories of its own, without any network.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::Value;
use tempfile::TempDir;

/// How long the engine may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(2);
/// The daemon of the engine, where Debian has it.
const DOCKERD: &str = "/usr/sbin/dockerd";
/// A busybox that needs no library.
const BUSYBOX: &str = "/bin/busybox";
/// The image that every engine here has.
pub const IMAGE: &str = "plc:1";

/// A running engine. Dropping it ends it with all that it runs.
pub struct Engine {
    place: TempDir,
    daemon: Option<Child>,
}

impl Engine {
    /// Starts an engine with the image in it; none, said on standard error, where that cannot be.
    pub fn start(test: &str) -> Option<Self> {
        if !Uid::effective().is_root() {
            orchestrator_tests::skip(test, "only root can start a container engine");
            return None;
        }
        for (file, package) in [(DOCKERD, "docker.io"), (BUSYBOX, "busybox-static")] {
            if !Path::new(file).exists() {
                orchestrator_tests::skip(test, &format!("there is no \"{file}\" (Debian: {package})"));
                return None;
            }
        }
        let place = TempDir::with_prefix("vplc-engine-").unwrap();
        fs::write(place.path().join("daemon.json"), "{}").unwrap();
        let mut engine = Self { place, daemon: None };
        if let Err(log) = engine.launch() {
            orchestrator_tests::skip(test, &format!("no container engine can be started here: {log}"));
            return None;
        }
        engine.import();
        Some(engine)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.place.path().join("socket")
    }

    /// Starts the daemon of the engine; the end of its log if it does not start.
    pub fn launch(&mut self) -> Result<(), String> {
        let place = self.place.path();
        let log = fs::File::create(place.join("log")).unwrap();
        let mut daemon = Command::new(DOCKERD);
        daemon
            .arg("--data-root")
            .arg(place.join("data"))
            .arg("--exec-root")
            .arg(place.join("exec"))
            .arg("--pidfile")
            .arg(place.join("pid"))
            .arg("--config-file")
            .arg(place.join("daemon.json"))
            .arg(format!("--host=unix://{}", self.socket().display()))
            // Containers of a daemon that ends go on; so it is on plants, where the engine gets updates, too.
            .args(["--live-restore", "--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.daemon = Some(daemon.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.api("GET", "/_ping", None).is_some() {
                return Ok(());
            }
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap().is_some();
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(place.join("log")).unwrap_or_default();
                return Err(log.lines().rev().take(3).collect::<Vec<_>>().join(" / "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the daemon of the engine, and nothing else.
    pub fn end(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), Signal::SIGTERM).ok();
        let deadline = Instant::now() + PATIENCE;
        while daemon.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                daemon.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes the image: busybox, and links for what is used of it.
    fn import(&self) {
        let root = TempDir::with_prefix("vplc-image-").unwrap();
        for directory in ["bin", "tmp", "proc", "dev", "sys", "etc", "run"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        fs::copy(BUSYBOX, root.path().join("bin/busybox")).unwrap();
        for name in ["sh", "sleep", "ip", "cat", "echo", "kill", "test", "touch", "rm"] {
            symlink("busybox", root.path().join("bin").join(name)).unwrap();
        }
        let archive = self.place.path().join("image.tar");
        let tar = Command::new("tar").arg("-C").arg(root.path()).arg("-cf").arg(&archive).arg(".").status().unwrap();
        assert!(tar.success());
        let (name, tag) = IMAGE.split_once(':').unwrap();
        let path = format!("/images/create?fromSrc=-&repo={name}&tag={tag}");
        self.api("POST", &path, Some(&archive)).expect("an image");
        fs::remove_file(archive).unwrap();
    }

    /// Takes the image `runtime:1` in, which has the stub of the PLC runtime.
    pub fn import_runtime(&self) {
        self.import_runtimes(&[("1", "")]);
    }

    /// Takes images `runtime` with these tags in, each with a variable in its environment, if there is one.
    pub fn import_runtimes(&self, images: &[(&str, &str)]) {
        let archive = self.place.path().join("runtime.tar");
        orchestrator_tests::runtime::write_image(&archive);
        for (tag, variable) in images {
            // Also what has no variable is another image than its siblings.
            let change = format!("LABEL%20tag={tag}");
            let variable = variable.replace('=', "%3D");
            let variable = if variable.is_empty() { variable } else { format!("&changes=ENV%20{variable}") };
            let path = format!("/images/create?fromSrc=-&repo=runtime&tag={tag}&changes={change}{variable}");
            self.api("POST", &path, Some(&archive)).expect("an image");
        }
        fs::remove_file(archive).unwrap();
    }

    /// Writes the archive of an image, as `docker save` does, and removes the image.
    pub fn take_out(&self, image: &str, archive: &Path) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--max-time", "120", "--unix-socket"]).arg(self.socket());
        let saved = curl.arg("--output").arg(archive).arg(format!("http://engine/images/{image}/get")).status();
        assert!(saved.expect("\"curl\"").success(), "{image}");
        self.api("DELETE", &format!("/images/{image}"), None).expect("no image");
    }

    /// Calls the engine; none if it says no.
    pub fn api(&self, method: &str, path: &str, body: Option<&Path>) -> Option<String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--max-time", "120", "--request", method, "--unix-socket"]).arg(self.socket());
        if let Some(body) = body {
            let kind = if body.extension().is_some_and(|end| end == "json") { "json" } else { "x-tar" };
            curl.arg("--header").arg(format!("Content-Type: application/{kind}"));
            curl.arg("--data-binary").arg(format!("@{}", body.display()));
        }
        let output = curl.arg(format!("http://engine{path}")).stderr(Stdio::null()).output().expect("\"curl\"");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.api("GET", path, None).unwrap_or_else(|| panic!("{path}"))).unwrap()
    }

    /// Sends a document.
    pub fn post(&self, path: &str, document: &Value) -> Option<String> {
        let file = self.place.path().join("body.json");
        fs::write(&file, document.to_string()).unwrap();
        self.api("POST", path, Some(&file))
    }

    /// What the engine says about a container.
    pub fn inspect(&self, name: &str) -> Option<Value> {
        Some(serde_json::from_str(&self.api("GET", &format!("/containers/{name}/json"), None)?).unwrap())
    }

    /// Number of the first process of a container.
    pub fn pid(&self, name: &str) -> i64 {
        self.inspect(name).unwrap_or_else(|| panic!("no container {name}"))["State"]["Pid"].as_i64().unwrap()
    }

    /// Names of all containers, sorted.
    pub fn containers(&self) -> Vec<String> {
        let all = self.json("/containers/json?all=true");
        let mut names: Vec<String> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|container| container["Names"][0].as_str().unwrap().trim_start_matches('/').to_owned())
            .collect();
        names.sort();
        names
    }

    /// Names of all volumes, sorted.
    pub fn volumes(&self) -> Vec<String> {
        let all = self.json("/volumes");
        let volumes = all["Volumes"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> = volumes.iter().map(|volume| volume["Name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            for name in self.containers() {
                self.api("DELETE", &format!("/containers/{name}?force=true"), None);
            }
        }
        self.end();
    }
}
