//! The daemon of a System, and the host it runs on.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestratord_dbus::{BUS_NAME, ROOT_PATH};

use super::{HOST_REBOOT, PATIENCE, System, pause};
use crate::binary;

impl System {
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

    /// The same in this directory.
    pub async fn start_daemon_in(&mut self, directory: &Path) {
        self.spawn(directory);
        self.wait_until_ready().await;
    }

    /// Starts the daemon and does not wait.
    pub fn spawn_daemon(&mut self) {
        self.spawn(Path::new("/"));
    }

    fn spawn(&mut self, directory: &Path) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.path("daemon.log")).expect("the log");
        let child = Command::new(binary("orchestratord"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("JOURNAL_STREAM")
            .envs(self.directories())
            .envs(&self.environment)
            .current_dir(directory)
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
