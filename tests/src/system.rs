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

mod host;
mod releases;
mod requests;
mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use nix::unistd::Uid;
use orchestratord_dbus::ErrorPair;
use tempfile::TempDir;
use zbus::Connection;

pub use self::requests::{deferred, outcome, stop_before};
use crate::bus::Bus;
use crate::repository;

/// How long anything may take before a test fails; long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(3);
/// The line of `calls.log` that stands for a reboot of the host.
pub const HOST_REBOOT: &str = "reboot of the host";

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
        Self::on(Bus::start(), components).await
    }

    /// The same on this bus.
    pub async fn on(bus: Bus, components: &[(&str, &str, u32)]) -> Self {
        assert!(Uid::effective().is_root(), "this needs root; \"unshare --user --map-root-user\" makes anybody root");
        let place = TempDir::with_prefix("orchestrator-system-").expect("a temporary directory");
        for directory in ["etc", "share/interfaces/v1", "state", "system", "releases"] {
            fs::create_dir_all(place.path().join(directory)).expect("a directory");
        }
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

    /// Puts `tests/interfaces/observed`, which has more switches, in front of the Interface program of a Component type.
    pub fn observe(&self, component_type: &str) {
        let (program, demo) = (self.program(component_type), self.path("share/demo"));
        fs::create_dir_all(&demo).expect("a directory");
        fs::rename(&program, demo.join(program.file_name().expect("a name"))).expect("a link");
        symlink(repository().join("tests/interfaces/observed"), program).expect("a link");
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

/// A short while between two looks.
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
