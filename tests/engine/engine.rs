//! Debian's Docker Engine on a socket and in directories of its own, without any network.

use std::fs;
use std::io::Write;
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
/// Podman, where Debian has it.
const PODMAN: &str = "/usr/bin/podman";
/// Its own limits are above those of some test machines, and short names shall mean what is here.
const PODMAN_OPTIONS: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
                              [engine]\nevents_logger = \"file\"\ncompat_api_enforce_docker_hub = false\n";
/// A busybox that needs no library.
const BUSYBOX: &str = "/bin/busybox";
/// The image that every engine here has.
pub const IMAGE: &str = "plc:1";

/// What an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Docker,
    Podman,
}

/// A running engine. Dropping it ends it with all that it runs.
pub struct Engine {
    kind: Kind,
    place: TempDir,
    daemon: Option<Child>,
    /// Where its data are: in memory, and as much as fits in so many bytes; none for the disk.
    room: Option<u64>,
}

impl Engine {
    /// Starts an engine with the image in it; none, said on standard error, where that cannot be.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_in(test, None)
    }

    /// Starts Podman in the same way.
    pub fn start_podman(test: &str) -> Option<Self> {
        Self::start_as(test, Kind::Podman, None)
    }

    /// The same with so many bytes of space for its data.
    pub fn start_in(test: &str, room: Option<u64>) -> Option<Self> {
        Self::start_as(test, Kind::Docker, room)
    }

    fn start_as(test: &str, kind: Kind, room: Option<u64>) -> Option<Self> {
        if !Uid::effective().is_root() {
            orchestrator_tests::skip(test, "only root can start a container engine");
            return None;
        }
        let program = match kind {
            Kind::Docker => (DOCKERD, "docker.io"),
            Kind::Podman => (PODMAN, "podman"),
        };
        for (file, package) in [program, (BUSYBOX, "busybox-static")] {
            if !Path::new(file).exists() {
                orchestrator_tests::skip(test, &format!("there is no \"{file}\" (Debian: {package})"));
                return None;
            }
        }
        let place = TempDir::with_prefix("vplc-engine-").unwrap();
        fs::write(place.path().join("daemon.json"), "{}").unwrap();
        fs::write(place.path().join("containers.conf"), PODMAN_OPTIONS).unwrap();
        let mut engine = Self { kind, place, daemon: None, room };
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
        let log = fs::File::create(self.place.path().join("log")).unwrap();
        let mut daemon = match self.kind {
            Kind::Docker => self.docker(),
            Kind::Podman => self.podman(),
        };
        daemon.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(daemon.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.api("GET", "/_ping", None).is_some() {
                return Ok(());
            }
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap().is_some();
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
                return Err(log.lines().rev().take(3).collect::<Vec<_>>().join(" / "));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn podman(&self) -> Command {
        let place = self.place.path();
        let mut podman = Command::new(PODMAN);
        podman
            .env("CONTAINERS_CONF", place.join("containers.conf"))
            .arg("--root")
            .arg(place.join("data"))
            .arg("--runroot")
            .arg(place.join("exec"))
            .arg("--tmpdir")
            .arg(place.join("tmp"))
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc", "system", "service"])
            .arg("--time=0")
            .arg(format!("unix://{}", self.socket().display()));
        podman
    }

    fn docker(&self) -> Command {
        let place = self.place.path();
        let mut daemon = match self.room {
            None => Command::new(DOCKERD),
            Some(room) => {
                // In a mount namespace of its own, which takes the data with it.
                let data = place.join("data");
                fs::create_dir_all(&data).unwrap();
                let script = format!("mount -t tmpfs -o size={room} tmpfs {} && exec \"$@\"", data.display());
                let mut shell = Command::new("unshare");
                shell.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", DOCKERD]);
                shell
            }
        };
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
            .args(["--live-restore", "--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false"]);
        daemon
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

    /// Ends the daemon of the engine as a crash does.
    pub fn kill(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let below = fs::read_to_string(self.place.path().join("exec/containerd/containerd.pid")).unwrap_or_default();
        daemon.kill().ok();
        daemon.wait().ok();
        // It dies with its daemon, and as long as it is there the next daemon takes it for one that works.
        let deadline = Instant::now() + PATIENCE;
        while !below.is_empty() && Path::new("/proc").join(below.trim()).exists() {
            assert!(Instant::now() < deadline, "containerd does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fills what space its data have; returns the file that does so.
    pub fn fill(&self) -> PathBuf {
        let daemon = self.daemon.as_ref().unwrap().id();
        let data = self.place.path().join("data");
        let file = PathBuf::from(format!("/proc/{daemon}/root")).join(data.strip_prefix("/").unwrap()).join("filler");
        let mut filler = fs::File::create(&file).unwrap();
        let mut block = vec![0_u8; 1 << 20];
        while !block.is_empty() {
            // In ever smaller pieces, to the last page.
            while filler.write_all(&block).is_ok() {}
            block.truncate(block.len() / 2);
        }
        file
    }

    /// Makes the image: busybox, and links for what is used of it.
    fn import(&self) {
        let root = TempDir::with_prefix("vplc-image-").unwrap();
        for directory in ["bin", "tmp", "proc", "dev", "sys", "etc", "run"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        fs::copy(BUSYBOX, root.path().join("bin/busybox")).unwrap();
        for name in ["sh", "sleep", "ip", "cat", "echo", "kill", "test", "touch", "rm", "grep"] {
            symlink("busybox", root.path().join("bin").join(name)).unwrap();
        }
        let archive = self.place.path().join("image.tar");
        let tar = Command::new("tar").arg("-C").arg(root.path()).arg("-cf").arg(&archive).arg(".").status().unwrap();
        assert!(tar.success());
        let (name, tag) = IMAGE.split_once(':').unwrap();
        let path = format!("/images/create?fromSrc=-&repo={name}&tag={tag}");
        self.api("POST", &path, Some(&archive)).expect("an image");
        fs::remove_file(archive).unwrap();
        if self.kind == Kind::Podman {
            // It does not hear the tag.
            let path = format!("/images/{name}:latest/tag?repo={name}&tag={tag}");
            self.api("POST", &path, None).expect("a tag");
        }
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
        let output = curl.arg(format!("http://engine/v1.41{path}")).stderr(Stdio::null()).output().expect("\"curl\"");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sends an image to its registry; what the engine says of it.
    pub fn push(&self, path: &str) -> String {
        let mut curl = Command::new("curl");
        // Nobody has to log in: the header is "{}" in Base64.
        curl.args(["--silent", "--max-time", "120", "--request", "POST", "--header", "X-Registry-Auth: e30="]);
        curl.arg("--unix-socket").arg(self.socket()).arg(format!("http://engine/v1.41{path}"));
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    }

    /// Makes another image of one that is there; returns its id.
    pub fn change(&self, from: &str, to: &str) -> String {
        let made = self.post("/containers/create?name=change", &serde_json::json!({ "Image": from, "Cmd": ["true"] }));
        assert!(made.is_some(), "a container of {from}");
        let (name, tag) = to.split_once(':').unwrap();
        let path = format!("/commit?container=change&repo={name}&tag={tag}&changes=LABEL%20changed=yes");
        let made: Value = serde_json::from_str(&self.api("POST", &path, None).expect("an image")).unwrap();
        self.api("DELETE", "/containers/change", None).unwrap();
        made["Id"].as_str().unwrap().to_owned()
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
        if self.daemon.is_some() && self.api("GET", "/_ping", None).is_some() {
            for name in self.containers() {
                self.api("DELETE", &format!("/containers/{name}?force=true"), None);
            }
        }
        self.end();
        // An engine that left containers running once, or was killed, does not take all its mounts along.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for point in
            points.filter(|point| Path::new(point).starts_with(self.place.path())).collect::<Vec<_>>().iter().rev()
        {
            Command::new("umount").arg(point).status().ok();
        }
    }
}
