//! What Docker takes to connect a running container to a macvlan network: a `dockerd` of its own, in the namespace where the
//! parent is, asked over its socket, so that its command line costs nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestrator_tests::namespace::Namespace;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::report::{Report, median};

/// How long the engine may take to start or to answer.
const PATIENCE: Duration = Duration::from_mins(2);
/// The daemon of the engine, where Debian has it.
const DOCKERD: &str = "/usr/sbin/dockerd";
/// A busybox that needs no library.
const BUSYBOX: &str = "/bin/busybox";

/// A running engine with one container.
struct Engine {
    place: TempDir,
    daemon: Child,
}

impl Engine {
    fn start(on: &Path, net: &Namespace) -> anyhow::Result<Self> {
        let place = TempDir::with_prefix_in("docker-", on)?;
        fs::write(place.path().join("daemon.json"), "{}")?;
        let log = fs::File::create(place.path().join("log"))?;
        let mut command = net.command(DOCKERD);
        for (option, name) in
            [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid"), ("--config-file", "daemon.json")]
        {
            command.arg(option).arg(place.path().join(name));
        }
        command.arg(format!("--host=unix://{}", place.path().join("socket").display()));
        command.args(["--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false"]);
        let daemon = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut engine = Self { place, daemon };
        let deadline = Instant::now() + PATIENCE;
        while engine.call("GET", "/_ping", "text/plain", b"").is_err() {
            if engine.daemon.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(engine.place.path().join("log")).unwrap_or_default();
                bail!("{}", log.lines().next_back().unwrap_or("it says nothing"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        engine.run()?;
        Ok(engine)
    }

    /// Starts the container that does nothing.
    fn run(&self) -> anyhow::Result<()> {
        let root = self.place.path().join("root");
        fs::create_dir_all(root.join("bin"))?;
        fs::copy(BUSYBOX, root.join("bin/busybox"))?;
        symlink("busybox", root.join("bin/sleep"))?;
        let mut image = tar::Builder::new(Vec::new());
        image.follow_symlinks(false);
        image.append_dir_all(".", &root)?;
        self.call("POST", "/images/create?fromSrc=-&repo=plc&tag=1", "application/x-tar", &image.into_inner()?)?;
        let container =
            json!({"Image": "plc:1", "Cmd": ["/bin/sleep", "1000000"], "HostConfig": {"NetworkMode": "none"}});
        self.post("/containers/create?name=plc", &container)?;
        self.post("/containers/plc/start", &json!({}))
    }

    fn post(&self, path: &str, document: &Value) -> anyhow::Result<()> {
        self.call("POST", path, "application/json", document.to_string().as_bytes())
    }

    fn call(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<()> {
        let mut stream = UnixStream::connect(self.place.path().join("socket"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        // What was said before the engine let go of the connection counts, however it did that.
        if let Err(error) = stream.read_to_end(&mut answer)
            && answer.is_empty()
        {
            return Err(error.into());
        }
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{method} {path}: {}", answer.lines().last().unwrap_or_default());
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.call("DELETE", "/containers/plc?force=true", "text/plain", b"").ok();
        if let Ok(id) = i32::try_from(self.daemon.id()) {
            kill(Pid::from_raw(id), Signal::SIGTERM).ok();
        }
        self.daemon.wait().ok();
    }
}

/// Measures it so many times on the link `lan0` of a namespace. Where there is no engine, that is said.
pub fn run(on: &Path, net: &Namespace, times: usize, report: &mut Report) -> anyhow::Result<()> {
    for (file, package) in [(DOCKERD, "docker.io"), (BUSYBOX, "busybox-static")] {
        if !Path::new(file).exists() {
            report.say(&format!("Not compared with Docker: there is no \"{file}\" (Debian: {package})."));
            return Ok(());
        }
    }
    let engine = match Engine::start(on, net) {
        Ok(engine) => engine,
        Err(error) => {
            report.say(&format!("Not compared with Docker: no engine can be started here: {error:#}."));
            return Ok(());
        }
    };
    let pool = json!([{ "Subnet": "10.79.0.0/16" }]);
    let network =
        json!({"Name": "plant", "Driver": "macvlan", "Options": {"parent": "lan0"}, "IPAM": {"Config": pool}});
    engine.post("/networks/create", &network)?;
    // A container that has no network is on the one called "none", and can be on no other one beside that.
    engine.post("/networks/none/disconnect", &json!({"Container": "plc", "Force": true}))?;
    let (mut connected, mut disconnected) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let begun = Instant::now();
        engine.post("/networks/plant/connect", &json!({"Container": "plc"})).context("connect")?;
        connected.push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        engine.post("/networks/plant/disconnect", &json!({"Container": "plc", "Force": true}))?;
        disconnected.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    report.line("docker-network-connect-ms", median(connected));
    report.line("docker-network-disconnect-ms", median(disconnected));
    Ok(())
}
