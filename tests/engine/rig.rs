//! A host to play with: an engine, a network namespace with a parent for NICs, and the daemon in it on a private bus.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orchestrator_tests::binary;
use orchestrator_tests::bus::Bus;
use orchestrator_tests::namespace::Namespace;
use orchestratord_dbus::zbus::Connection;
use orchestratord_dbus::zbus::proxy::CacheProperties;
use orchestratord_dbus::{JobProxy, Options, VplcProxy, VplcsProxy, error_reply};
use tempfile::TempDir;

use crate::engine::{Engine, IMAGE};
use crate::tap::Tap;

/// How long anything may take before a test fails; long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(3);

fn enter(pid: i64, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg("--").arg(program.as_ref()).stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The daemon with an engine.
pub struct Host {
    daemon: Option<Child>,
    /// A connection to its bus.
    pub client: Connection,
    /// Its namespace, with the link `lan0` that NICs can hang on.
    pub net: Namespace,
    bus: Bus,
    /// What stands between the daemon and its engine.
    pub tap: Option<Tap>,
    /// Its engine.
    pub engine: Engine,
    place: TempDir,
}

/// What the daemon holds.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory in KiB.
    pub resident: u64,
}

impl Host {
    /// A host with the daemon running; none, said on standard error, where there can be no engine.
    pub async fn start(test: &str) -> Option<Self> {
        Some(Self::with(Engine::start(test)?, false).await)
    }

    /// The same, with something between the daemon and the engine that may do harm.
    pub async fn start_tapped(test: &str) -> Option<Self> {
        Some(Self::with(Engine::start(test)?, true).await)
    }

    /// A host with this engine.
    pub async fn with(engine: Engine, tapped: bool) -> Self {
        let net = Namespace::new();
        net.ip("link add lan0 type veth peer name plant0");
        net.ip("link set lan0 up");
        net.ip("link set plant0 up");
        let bus = Bus::start();
        let client = bus.connect().await;
        let place = TempDir::with_prefix("vplc-host-").unwrap();
        for directory in ["etc", "share", "state"] {
            fs::create_dir(place.path().join(directory)).unwrap();
        }
        let tap = tapped.then(|| Tap::new(&place.path().join("tap"), &engine.socket()));
        let options = serde_json::json!({
            "Runner": "process",
            "RebootCommand": ["/bin/false"],
            "EngineSocket": if tapped { place.path().join("tap") } else { engine.socket() },
        });
        fs::write(place.path().join("etc/mender-orchestrator.conf"), options.to_string()).unwrap();
        let mut host = Self { daemon: None, client, net, bus, tap, engine, place };
        host.start_daemon().await;
        host
    }

    fn environment(&self, command: &mut Command) {
        let place = self.place.path();
        command
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address())
            .env("MENDER_ORCHESTRATOR_CONF_DIR", place.join("etc"))
            .env("MENDER_ORCHESTRATOR_DATA_DIR", place.join("share"))
            .env("MENDER_ORCHESTRATOR_DATASTORE_DIR", place.join("state"))
            .env_remove("NOTIFY_SOCKET");
    }

    /// Starts the daemon.
    pub fn spawn_daemon(&mut self) {
        let mut command = self.net.command(binary("orchestratord"));
        self.environment(&mut command);
        self.daemon = Some(command.spawn().expect("the daemon"));
    }

    /// Starts the daemon and waits until it can be called.
    pub async fn start_daemon(&mut self) {
        self.spawn_daemon();
        let manager = orchestratord_dbus::ManagerProxy::new(&self.client).await.unwrap();
        until("the daemon is ready", async || {
            let state = manager.inner().get_property::<String>("State").await;
            state.is_ok_and(|state| state != "starting").then_some(())
        })
        .await;
    }

    /// Ends the daemon with `SIGKILL`.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
    }

    /// What the daemon holds now.
    pub fn weight(&self) -> Weight {
        let process = format!("/proc/{}", self.daemon.as_ref().unwrap().id());
        let count = |what: &str| fs::read_dir(format!("{process}/{what}")).unwrap().count();
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
        Weight { descriptors: count("fd"), threads: count("task"), resident: resident.unwrap() }
    }

    /// Runs `orchestratorctl`: exit code, standard output, standard error.
    pub async fn ctl(&self, words: &str) -> (i32, String, String) {
        let mut command = self.ctl_command();
        command.args(words.split(' ')).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// `orchestratorctl`, to be called on the bus of this host.
    pub fn ctl_command(&self) -> Command {
        self.ctl_command_of(binary("orchestratorctl"))
    }

    /// A program that calls `orchestratorctl` on the bus of this host.
    pub fn ctl_command_of(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.environment(&mut command);
        command
    }

    /// The lines of the audit log.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.place.path().join("state/audit/audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A file with this text.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.place.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Names of the files that the daemon keeps about vPLCs and their NICs, without the hardware addresses, which stay.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for directory in ["vplcs", "vplc-programs", "nics"] {
            let Ok(entries) = fs::read_dir(self.place.path().join("state").join(directory)) else { continue };
            files.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
        }
        files.retain(|name| Path::new(name).extension().is_none_or(|end| end != "mac"));
        files.sort();
        files
    }

    /// What a vPLC leaves behind if it leaves something behind: containers, volumes, files, and links of the host.
    pub fn residue(&self) -> (Vec<String>, Vec<String>, Vec<String>, usize) {
        (self.engine.containers(), self.engine.volumes(), self.files(), self.net.ip("-brief link").lines().count())
    }

    /// Runs `ip` with these words in the network namespace of a container.
    pub fn ip_in(&self, container: &str, words: &str) -> String {
        output(enter(self.engine.pid(container), "ip").args(words.split(' ')))
    }

    /// All vPLCs.
    pub async fn vplcs(&self) -> VplcsProxy<'static> {
        VplcsProxy::builder(&self.client).cache_properties(CacheProperties::No).build().await.unwrap()
    }

    /// The vPLC with this name, whose characters need no escape.
    pub async fn vplc(&self, name: &str) -> VplcProxy<'static> {
        let path = format!("{}/{name}", orchestratord_dbus::VPLC_PREFIX);
        let vplc = VplcProxy::builder(&self.client).path(path).cache_properties(CacheProperties::No);
        vplc.build().await.unwrap()
    }

    /// Waits for the end of a Job: its result, and the kind and message of its error.
    pub async fn end_of(&self, job: zbus::OwnedObjectPath) -> (String, String, String) {
        let job =
            JobProxy::builder(&self.client).path(job).cache_properties(CacheProperties::No).build().await.unwrap();
        let result = tokio::time::timeout(PATIENCE, job.wait()).await.expect("the Job ends").unwrap();
        let (name, message) = job.error().await.unwrap();
        (result, name.rsplit('.').next().unwrap().to_owned(), message)
    }

    /// Applies a specification and waits for the end of the Job.
    pub async fn apply(&self, spec: &str) -> (String, String, String) {
        let job = self.vplcs().await.apply(spec, Options::new()).await.unwrap();
        self.end_of(job).await
    }

    /// Applies a specification that has to work.
    pub async fn run(&self, spec: &str) -> VplcProxy<'static> {
        let end = self.apply(spec).await;
        assert_eq!(end, ("done".to_owned(), String::new(), String::new()), "{spec}");
        self.vplc("press1").await
    }

    /// Applies a specification that has to be refused: kind and message.
    pub async fn refused(&self, spec: &str) -> (String, String) {
        let error = self.vplcs().await.apply(spec, Options::new()).await.unwrap_err();
        let (name, message) = error_reply(&error).unwrap();
        (name.rsplit('.').next().unwrap().to_owned(), message)
    }

    /// Deletes the vPLC that all tests have.
    pub async fn delete(&self) {
        let job = self.vplcs().await.delete("press1", Options::new()).await.unwrap();
        assert_eq!(self.end_of(job).await.0, "done");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill_daemon();
    }
}

/// The specification that all tests have, with this program and these further lines.
pub fn spec(program: &str, more: &str) -> String {
    let program = serde_json::to_string(program).unwrap();
    format!(
        "api_version: orchestrator/v1\nkind: vplc\nname: press1\nimage:\n  reference: {IMAGE}\n  pull: never\n\
         command: [sh, -c, {program}]\n{more}"
    )
}

/// A NIC for [`spec`]; it does not wait for an answer to its ARP probes.
pub const NIC: &str = "nics:\n  - name: eth0\n    parent: lan0\n    addresses: [192.0.2.7/24]\n    conflict: warn\n";

/// A program that runs until it is asked to end.
pub const RUNS: &str = "trap 'exit 0' TERM; echo runs; while :; do sleep 1; done";

/// Waits until the container of a vPLC is in this state.
pub async fn becomes(vplc: &VplcProxy<'_>, state: &str) {
    until(&format!("the vPLC becomes {state}"), async || (vplc.container().await.unwrap() == state).then_some(()))
        .await;
}

/// Waits until there is an answer.
pub async fn until<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
