//! A whole System: Components played by `interfaces/v1/demo-component`, the real daemon on a private bus, and a host whose
//! reboots are pretended.
//!
//! Everything lies in one temporary directory:
//!
//! ```text
//! etc/        mender-orchestrator.conf, topology.yaml      share/      interfaces/v1
//! state/      what the daemon keeps                        releases/   Artifacts and Manifests
//! system/     one directory per Component, and calls.log   boot-id, daemon.log
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestratord::update::artifact::writer::{self, ArtifactSpec};
use orchestratord_dbus::{BUS_NAME, ErrorPair, JobProxy, Options, ROOT_PATH, UpdateProxy, error_reply, job};
use tempfile::TempDir;
use zbus::Connection;
use zbus::proxy::CacheProperties;

use crate::bus::Bus;
use crate::{binary, repository};

/// How long anything may take before a test fails; long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The line of `calls.log` that stands for a reboot of the host.
pub const HOST_REBOOT: &str = "reboot of the host";
/// Bytes of the payload of a release: more than a pipe holds.
const PAYLOAD: usize = 70_000;
/// Queries that stand in no trace: they have no barrier.
const LOOSE: [&str; 5] = ["Identity", "Provides", "Inventory", "NeedsUnpackedArtifact", "ProvidePayloadFileSizes"];
/// Queries that stand in [`System::full_trace`] only.
const QUERIES: [&str; 2] = ["NeedsArtifactReboot", "SupportsRollback"];

/// A Component of the System. Its Interface is `demo-<component type>`, and its instance, which is its only Interface
/// argument, is its id too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Component type.
    pub component_type: String,
    /// Instance.
    pub instance: String,
    /// Order group, by type.
    pub order: u32,
}

/// How a Job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `done`, `failed`, ...
    pub result: String,
    /// D-Bus error name and message.
    pub error: Option<ErrorPair>,
}

impl Outcome {
    /// Fails the test unless the Job ended like this and without an error.
    #[track_caller]
    pub fn clean(&self, result: &str) {
        assert_eq!((self.result.as_str(), &self.error), (result, &None));
    }

    /// Fails the test unless the Job ended like this, with an error of this kind (the last part of its name); returns
    /// the message.
    #[track_caller]
    pub fn faulty(&self, result: &str, kind: &str) -> &str {
        let (name, message) = self.error.as_ref().unwrap_or_else(|| panic!("no error: {self:?}"));
        assert_eq!((self.result.as_str(), name.rsplit('.').next()), (result, Some(kind)), "{self:?}");
        message
    }
}

/// A System under test. Dropping it ends the daemon and every Interface program.
#[derive(Debug)]
pub struct System {
    components: Vec<Component>,
    settings: serde_json::Map<String, serde_json::Value>,
    environment: BTreeMap<String, String>,
    daemon: Option<Child>,
    boots: u32,
    connection: Connection,
    // Dropped last, so that nothing is left that works in it.
    bus: Bus,
    place: TempDir,
}

impl System {
    /// A System of these Components, each `(component type, instance, order group)`, at release 1, with reboots `No` and
    /// rollback `Yes`. The daemon does not run yet.
    pub async fn new(components: &[(&str, &str, u32)]) -> Self {
        let place = TempDir::with_prefix("orchestrator-system-").expect("a temporary directory");
        for directory in ["etc", "share/interfaces/v1", "state", "system", "releases"] {
            fs::create_dir_all(place.path().join(directory)).expect("a directory");
        }
        let bus = Bus::start();
        let connection = bus.connect().await;
        let mut system = Self {
            components: Vec::new(),
            settings: serde_json::Map::new(),
            environment: BTreeMap::new(),
            daemon: None,
            boots: 0,
            connection,
            bus,
            place,
        };
        system.configure("Runner", "process");
        let note = format!("echo '{HOST_REBOOT}' >>\"$ORCHESTRATOR_DEMO_DIR/calls.log\"");
        system.configure("RebootCommand", vec!["/bin/sh".to_owned(), "-c".to_owned(), note]);
        system.new_boot_id();
        for (component_type, instance, order) in components {
            system.add(component_type, instance, *order);
        }
        system.write_topology();
        system
    }

    /// The same with a daemon that runs.
    pub async fn start(components: &[(&str, &str, u32)]) -> Self {
        let mut system = Self::new(components).await;
        system.start_daemon().await;
        system
    }

    /// A gateway `G13` in group 10, and two controllers `R456` and `R998` in group 20.
    pub async fn demo() -> Self {
        Self::start(&[("gateway", "G13", 10), ("rtos", "R456", 20), ("rtos", "R998", 20)]).await
    }

    fn add(&mut self, component_type: &str, instance: &str, order: u32) {
        let (component_type, instance) = (component_type.to_owned(), instance.to_owned());
        fs::create_dir_all(self.home(&instance)).expect("a directory");
        let program = self.program(&component_type);
        if !program.is_symlink() {
            symlink(repository().join("interfaces/v1/demo-component"), program).expect("a link");
        }
        let provides = format!("rootfs-image.demo-{component_type}.version={component_type}-1\n");
        self.set(&instance, "provides", &provides);
        self.set(&instance, "needs-reboot", "No");
        self.set(&instance, "supports-rollback", "Yes");
        self.components.push(Component { component_type, instance, order });
    }

    // --- the daemon --------------------------------------------------------------------------------------------------

    /// Sets an option of the configuration, for the next start or reload of the daemon.
    pub fn configure(&mut self, option: &str, value: impl Into<serde_json::Value>) {
        self.settings.insert(option.to_owned(), value.into());
        let text = serde_json::to_string_pretty(&self.settings).expect("JSON");
        fs::write(self.path("etc/mender-orchestrator.conf"), text).expect("the configuration");
    }

    /// Sets a variable in the environment of the next daemon.
    pub fn set_variable(&mut self, variable: &str, value: &str) {
        self.environment.insert(variable.to_owned(), value.to_owned());
    }

    /// Starts the daemon, and waits until it says that it is ready. Its log goes on in the same file.
    pub async fn start_daemon(&mut self) {
        self.spawn_daemon();
        self.wait_until_ready().await;
    }

    /// Starts the daemon and does not wait.
    pub fn spawn_daemon(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.path("daemon.log")).expect("the log");
        let child = Command::new(binary("orchestratord"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("JOURNAL_STREAM")
            .envs(self.directories())
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("the daemon can be started");
        self.daemon = Some(child);
    }

    fn directories(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.path(name).display().to_string();
        vec![
            ("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address().to_owned()),
            ("MENDER_ORCHESTRATOR_CONF_DIR", path("etc")),
            ("MENDER_ORCHESTRATOR_DATA_DIR", path("share")),
            ("MENDER_ORCHESTRATOR_DATASTORE_DIR", path("state")),
            ("MENDER_ORCHESTRATOR_TOPOLOGY_DIR", path("etc")),
            ("MENDER_ORCHESTRATOR_TOPOLOGY_COMPONENTS_FILE", String::new()),
            ("MENDER_ORCHESTRATOR_MANIFEST_STORE_DIR", String::new()),
            ("MENDER_ORCHESTRATOR_ARTIFACTS_CACHE_DIR", String::new()),
            ("ORCHESTRATOR_DEMO_DIR", path("system")),
            ("ORCHESTRATORD_BOOT_ID_FILE", path("boot-id")),
        ]
    }

    /// Waits until the daemon says that it is ready.
    pub async fn wait_until_ready(&mut self) {
        let manager = zbus::Proxy::new(&self.connection, BUS_NAME, ROOT_PATH, "org.freedesktop.DBus.Properties")
            .await
            .expect("a proxy");
        let begun = Instant::now();
        loop {
            let state: zbus::Result<zbus::OwnedVariant> =
                manager.call("Get", &("org.orchestratord1.Manager", "State")).await;
            let state = state.ok().and_then(|state| String::try_from(state).ok());
            if state.is_some_and(|state| state != "starting") {
                return;
            }
            if let Some(status) = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().expect("a status")) {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not get ready:\n{}", self.log());
            pause().await;
        }
    }

    /// Kills the daemon, and nothing else, with SIGKILL.
    pub fn kill_daemon(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon that runs");
        daemon.kill().expect("the daemon can be killed");
        daemon.wait().expect("the daemon can be waited for");
    }

    /// Sends a signal to the daemon.
    pub fn signal_daemon(&self, signal: Signal) {
        let id = self.daemon.as_ref().expect("a daemon that runs").id();
        kill(Pid::from_raw(i32::try_from(id).expect("a process id")), signal).expect("a signal");
    }

    /// Tells the daemon to stop with SIGTERM and waits for its end.
    pub async fn stop_daemon(&mut self) -> ExitStatus {
        self.signal_daemon(Signal::SIGTERM);
        self.wait_for_end().await
    }

    /// Waits until the daemon has ended by itself.
    pub async fn wait_for_end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.daemon.as_mut().expect("a daemon").try_wait().expect("a status") {
                self.daemon = None;
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not end:\n{}", self.log());
            pause().await;
        }
    }

    /// Whether the daemon runs.
    pub fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|daemon| daemon.try_wait().expect("a status").is_none())
    }

    /// What the daemon has logged since the beginning.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    // --- the host ----------------------------------------------------------------------------------------------------

    /// Pretends that the power goes and comes back: daemon and Interface programs are gone at once, and the boot id is
    /// another. The daemon does not run afterwards.
    pub fn cut_power(&mut self) {
        if self.daemon.is_some() {
            self.kill_daemon();
        }
        self.kill_programs();
        self.new_boot_id();
    }

    /// Waits until the daemon has asked for this many reboots of the host in all.
    pub async fn wait_for_reboot_request(&self, count: usize) {
        let asked = || self.lines().iter().filter(|line| *line == HOST_REBOOT).count() >= count;
        self.wait_until("a reboot is asked for", asked).await;
    }

    /// Pretends a reboot: the daemon is told to stop as a shutdown does, and starts with another boot id.
    pub async fn reboot(&mut self) {
        if self.daemon.is_some() {
            let status = self.stop_daemon().await;
            assert!(status.success(), "the daemon ended with {status}:\n{}", self.log());
        }
        self.cut_power();
        self.start_daemon().await;
    }

    /// Another boot id, for the next look at it.
    pub fn new_boot_id(&mut self) {
        self.boots += 1;
        fs::write(self.path("boot-id"), format!("00000000-0000-4000-8000-{:012}\n", self.boots)).expect("the boot id");
    }

    /// Kills what Interface programs of this System still run.
    pub fn kill_programs(&self) {
        let mark = format!("ORCHESTRATOR_DEMO_DIR={}", self.path("system").display());
        let daemon = self.daemon.as_ref().map(Child::id);
        // A second look finds what was forked during the first.
        while programs(&mark).into_iter().filter(|id| Some(*id) != daemon).inspect(|id| end(*id)).count() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Process ids of the Interface programs that run.
    pub fn programs(&self) -> Vec<u32> {
        let daemon = self.daemon.as_ref().map(Child::id);
        let mark = format!("ORCHESTRATOR_DEMO_DIR={}", self.path("system").display());
        programs(&mark).into_iter().filter(|id| Some(*id) != daemon).collect()
    }

    // --- places ------------------------------------------------------------------------------------------------------

    /// A path in the directory of the System.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The directory of a Component.
    pub fn home(&self, instance: &str) -> PathBuf {
        self.path("system").join(instance)
    }

    /// The Interface program of a Component type: a link to the demonstration, which a test may replace.
    pub fn program(&self, component_type: &str) -> PathBuf {
        self.path("share/interfaces/v1").join(format!("demo-{component_type}"))
    }

    /// The File API tree of a Component.
    pub fn tree(&self, component_type: &str, id: &str) -> PathBuf {
        self.path("state/work").join(component_type).join(id).join("tree")
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// A connection to the bus that lives as long as the System.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The Components.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    fn component(&self, instance: &str) -> &Component {
        let found = self.components.iter().find(|component| component.instance == instance);
        found.unwrap_or_else(|| panic!("there is no Component \"{instance}\""))
    }

    // --- the Components ----------------------------------------------------------------------------------------------

    /// Writes a file of a Component: an answer or a switch.
    pub fn set(&self, instance: &str, file: &str, content: &str) {
        // In one step: a program may be reading it.
        let (path, new) = (self.home(instance).join(file), self.home(instance).join(format!("{file}.set")));
        fs::write(&new, content).expect("a file");
        fs::rename(&new, &path).expect("a file");
    }

    /// Removes a file of a Component.
    pub fn unset(&self, instance: &str, file: &str) {
        fs::remove_file(self.home(instance).join(file)).expect("a file that is there");
    }

    /// Release of a Component: what its version key says after the type, and no other bytes than those of it.
    #[track_caller]
    pub fn assert_release(&self, instance: &str, release: u32) {
        let component_type = &self.component(instance).component_type;
        let provides = fs::read_to_string(self.home(instance).join("provides")).unwrap_or_default();
        let line = format!("rootfs-image.demo-{component_type}.version={component_type}-{release}");
        assert!(provides.lines().any(|found| found == line), "{instance} is not at release {release}: {provides}");
        let payload = self.home(instance).join("payload");
        if release == 1 {
            // It came without bytes.
            assert!(!payload.exists(), "{instance} holds the bytes of another release");
            return;
        }
        let name = format!("{component_type}-{release}.img");
        let names: Vec<_> = fs::read_dir(&payload).expect("a payload").map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, [name.as_str()], "payload of {instance}");
        let content = fs::read(payload.join(&name)).expect("a file");
        assert!(content == self.payload(component_type, release), "{instance} does not hold the bytes of {release}");
    }

    /// [`System::assert_release`] for all Components.
    #[track_caller]
    pub fn assert_all_at(&self, release: u32) {
        for component in &self.components {
            self.assert_release(&component.instance, release);
        }
    }

    /// Fails the test unless a deployment has left nothing on any Component or in the daemon's directory.
    #[track_caller]
    pub fn assert_cleaned_up(&self) {
        for component in &self.components {
            for leftover in ["previous", "previous.new", "incoming", "trial"] {
                let path = self.home(&component.instance).join(leftover);
                assert!(!path.exists(), "\"{}\" was left behind", path.display());
            }
            let tree = self.tree(&component.component_type, &component.instance);
            assert!(!tree.exists(), "\"{}\" was left behind", tree.display());
        }
        for leftover in
            ["state/deployment", "state/deployment.new", "state/deployment.old", "state/manifests/in-progress"]
        {
            assert!(!self.path(leftover).exists(), "\"{leftover}\" was left behind");
        }
    }

    // --- releases ----------------------------------------------------------------------------------------------------

    /// The bytes of the payload of a release.
    pub fn payload(&self, component_type: &str, release: u32) -> Vec<u8> {
        let mut state = component_type.bytes().fold(u64::from(release), |sum, byte| sum * 257 + u64::from(byte));
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..PAYLOAD).map(next).collect()
    }

    /// The description of the Artifact of a release, with its payload written; for tests that want another one.
    pub fn spec(&self, component_type: &str, release: u32) -> ArtifactSpec {
        let name = format!("{component_type}-{release}");
        let file = self.path("releases").join(format!("{name}.img"));
        fs::write(&file, self.payload(component_type, release)).expect("a payload");
        let interface = format!("demo-{component_type}");
        ArtifactSpec::module_image(&name, vec![component_type.to_owned()], &interface, vec![file])
    }

    /// Where the Artifact of a release lies.
    pub fn artifact(&self, component_type: &str, release: u32) -> PathBuf {
        self.path("releases").join(format!("{component_type}-{release}.mender"))
    }

    /// Writes an Artifact in place of the one of a release.
    pub fn write_artifact(&self, component_type: &str, release: u32, spec: &ArtifactSpec) {
        writer::write(spec, None, &self.artifact(component_type, release)).expect("an Artifact");
    }

    /// The Manifest of a release, with absolute paths; writes the Artifacts that do not exist yet, and the Manifest to
    /// [`System::manifest_file`].
    pub fn manifest(&self, release: u32) -> String {
        let mut text = format!(
            "api_version: mender/v1\nkind: manifest\nname: release-{release}\nsystem_types_compatible: [test-system]\n\
             component_types:\n"
        );
        let types: BTreeMap<&str, u32> =
            self.components.iter().map(|component| (component.component_type.as_str(), component.order)).collect();
        for (component_type, order) in types {
            let artifact = self.artifact(component_type, release);
            if !artifact.exists() {
                self.write_artifact(component_type, release, &self.spec(component_type, release));
            }
            write!(
                text,
                "  {component_type}:\n    artifact_path: {}\n    update_strategy:\n      order: {order}\n",
                artifact.display()
            )
            .expect("text");
        }
        fs::write(self.manifest_file(release), &text).expect("the Manifest");
        text
    }

    /// Where the Manifest of a release lies.
    pub fn manifest_file(&self, release: u32) -> PathBuf {
        self.path("releases").join(format!("manifest-{release}.yaml"))
    }

    /// Writes the Topology with all Components.
    pub fn write_topology(&self) {
        let mut text = "api_version: mender/v1\nkind: topology\nsystem_type: test-system\ncomponents:\n".to_owned();
        for Component { component_type, instance, .. } in &self.components {
            write!(
                text,
                "  - component_type: {component_type}\n    interface: demo-{component_type}\n    interface_args: [{instance}]\n"
            )
            .expect("text");
        }
        fs::write(self.path("etc/topology.yaml"), text).expect("the Topology");
    }

    // --- requests over the bus ---------------------------------------------------------------------------------------

    /// `Update` of the daemon; properties are asked for at each read.
    pub async fn update(&self) -> UpdateProxy<'static> {
        UpdateProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await.expect("a proxy")
    }

    /// Installs a release and waits for the end of the Job.
    pub async fn install(&self, release: u32, options: Options<'_>) -> Result<Outcome, ErrorPair> {
        let job = self.begin(release, options).await?;
        Ok(outcome(&job).await)
    }

    /// Begins to install a release.
    pub async fn begin(&self, release: u32, options: Options<'_>) -> Result<JobProxy<'static>, ErrorPair> {
        self.begin_text(&self.manifest(release), options).await
    }

    /// Begins to install this Manifest.
    pub async fn begin_text(&self, manifest: &str, options: Options<'_>) -> Result<JobProxy<'static>, ErrorPair> {
        let path = self.update().await.install(manifest, options).await.map_err(refusal)?;
        Ok(job(&self.connection, path).await.expect("a proxy"))
    }

    /// Resumes and waits for the end of the Job.
    pub async fn resume(&self, options: Options<'_>) -> Result<Outcome, ErrorPair> {
        let path = self.update().await.resume(options).await.map_err(refusal)?;
        Ok(outcome(&job(&self.connection, path).await.expect("a proxy")).await)
    }

    /// Rolls back and waits for the end of the Job.
    pub async fn rollback(&self, options: Options<'_>) -> Result<Outcome, ErrorPair> {
        let path = self.update().await.rollback(options).await.map_err(refusal)?;
        Ok(outcome(&job(&self.connection, path).await.expect("a proxy")).await)
    }

    /// Waits until no Job works on a deployment; returns `Update.State`.
    pub async fn wait_for_rest(&self) -> String {
        let update = self.update().await;
        let begun = Instant::now();
        loop {
            let state = update.state().await.expect("the state");
            if state != "busy" {
                return state;
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon stays busy:\n{}", self.log());
            pause().await;
        }
    }

    /// Waits until something is so.
    pub async fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            let lines = self.lines().join("\n");
            assert!(begun.elapsed() < PATIENCE, "it does not happen that {what}:\n{lines}\n{}", self.log());
            pause().await;
        }
    }

    /// Waits until a Component was called with this word.
    pub async fn wait_for_call(&self, instance: &str, word: &str) {
        let begin = format!("begin {instance} {word} ");
        let called = || self.lines().iter().any(|line| line.starts_with(&begin));
        self.wait_until(&format!("{instance} is called with {word}"), called).await;
    }

    // --- requests with the command line ------------------------------------------------------------------------------

    /// Runs `mender-orchestrator` to its end.
    pub async fn mender(&self, arguments: &[&str]) -> Output {
        self.ctl("mender-orchestrator", arguments).output().await.expect("the command line")
    }

    /// A command that runs our command line under this name.
    pub fn ctl(&self, name: &str, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(binary("orchestratorctl"));
        command
            .arg0(name)
            .args(arguments)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address())
            .current_dir(self.path("releases"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    // --- what was called ---------------------------------------------------------------------------------------------

    /// The lines of `calls.log`: `begin <instance> <word> ...`, `end <instance> <word> <exit status>`, and
    /// [`HOST_REBOOT`].
    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("system/calls.log")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Forgets all calls so far.
    pub fn forget_calls(&self) {
        File::create(self.path("system/calls.log")).expect("calls.log");
    }

    /// How often a Component was called with this word.
    pub fn count(&self, instance: &str, word: &str) -> usize {
        let begin = format!("begin {instance} {word} ");
        self.lines().iter().filter(|line| line.starts_with(&begin)).count()
    }

    /// The states that were called, in steps: `<state> <instance> ...` for all Components of one order group, sorted, and
    /// `reboot` for a reboot of the host. Fails the test if a step began before all calls of the step before had ended.
    #[track_caller]
    pub fn trace(&self) -> Vec<String> {
        self.steps(&QUERIES)
    }

    /// [`System::trace`] with the queries `NeedsArtifactReboot` and `SupportsRollback`.
    #[track_caller]
    pub fn full_trace(&self) -> Vec<String> {
        self.steps(&[])
    }

    #[track_caller]
    fn steps(&self, without: &[&str]) -> Vec<String> {
        let lines = self.lines();
        let mut steps: Vec<(String, u32, Vec<String>)> = Vec::new();
        let mut running: Vec<(&str, &str)> = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            if line == HOST_REBOOT {
                steps.push(("reboot".to_owned(), 0, Vec::new()));
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, instance, word, ..] = words[..] else { panic!("calls.log holds \"{line}\"") };
            if LOOSE.contains(&word) || without.contains(&word) {
                continue;
            }
            if kind == "end" {
                running.retain(|call| *call != (instance, word));
                continue;
            }
            // All Components are asked at once for SupportsRollback.
            let order = if word == "SupportsRollback" { 0 } else { self.component(instance).order };
            match steps.last_mut() {
                Some((last, last_order, instances))
                    if last == word && *last_order == order && !instances.iter().any(|one| one == instance) =>
                {
                    instances.push(instance.to_owned());
                }
                _ => {
                    // Who was killed has no end; that only a later one breaks the barrier.
                    let late = |(instance, word): &&(&str, &str)| {
                        let end = format!("end {instance} {word} ");
                        let again = format!("begin {instance} {word} ");
                        let rest = &lines[number..];
                        let next = rest.iter().position(|line| line.starts_with(&again)).unwrap_or(rest.len());
                        rest[..next].iter().any(|line| line.starts_with(&end))
                    };
                    if let Some(late) = running.iter().find(late) {
                        panic!("{line}: {late:?} had not ended:\n{}", lines.join("\n"));
                    }
                    running.clear();
                    steps.push((word.to_owned(), order, vec![instance.to_owned()]));
                }
            }
            running.push((instance, word));
        }
        let text = |(word, _, mut instances): (String, u32, Vec<String>)| {
            instances.sort();
            instances.insert(0, word);
            instances.join(" ")
        };
        steps.into_iter().map(text).collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        self.kill_programs();
        if std::thread::panicking() {
            eprintln!("--- calls\n{}\n--- log of the daemon\n{}", self.lines().join("\n"), self.log());
        }
    }
}

/// Waits for the end of a Job.
pub async fn outcome(job: &JobProxy<'_>) -> Outcome {
    let result = job.wait().await.expect("the result of the Job");
    let error = job.error().await.expect("the error of the Job");
    Outcome { result, error: Some(error).filter(|(name, message)| !name.is_empty() || !message.is_empty()) }
}

/// Options with `stop-before`.
pub fn stop_before<'a>(points: &[&'a str]) -> Options<'a> {
    Options::from([("stop-before", points.to_vec().into())])
}

/// Options that leave the reboot to the caller.
pub fn deferred() -> Options<'static> {
    Options::from([("reboot", "defer".into())])
}

/// A short while between two looks.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

fn refusal(error: zbus::Error) -> ErrorPair {
    error_reply(&error).unwrap_or_else(|| panic!("no error of the daemon: {error}"))
}

/// The processes that have this in their environment.
fn programs(mark: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| has_mark(Path::new("/proc").join(id.to_string()).as_path(), mark)).collect()
}

fn has_mark(process: &Path, mark: &str) -> bool {
    // A process that is gone, or is nobody's business, has none.
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

fn end(process: u32) {
    // An error means that it has ended by itself.
    kill(Pid::from_raw(i32::try_from(process).expect("a process id")), Signal::SIGKILL).ok();
}
