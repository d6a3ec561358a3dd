//! A machine in a directory: a bus, a System of Components, a daemon that is traced, and a power switch.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use orchestrator_tests::bus::Bus;
use orchestrator_tests::{binary, repository};
use orchestratord::update::artifact::{self, ArtifactSpec};
use tempfile::TempDir;
use zbus::Connection;

use crate::disturbance::{Disturbance, Point};
use crate::scenario::Scenario;
use crate::tracer::{Log, Logged, Traced};

/// How long anything may take before it counts as hanging. Under load a deployment takes seconds; nothing is measured here.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Name of the Interface of a Component type.
pub fn interface(kind: &str) -> String {
    format!("demo-{kind}")
}

/// The machine.
pub struct Bed {
    /// Everything is below this, in memory if possible: nothing here needs a medium that outlives the test.
    pub place: TempDir,
    /// Callers' connection to the bus.
    pub connection: Connection,
    daemon: Option<Traced>,
    /// What is still to come, counted from the start of the daemon.
    disturbance: Disturbance,
    /// The points of daemons that are gone.
    points: Vec<Point>,
    /// Where the disturbance was.
    hit: Option<Point>,
    boots: u32,
    log: Log,
    generation: u32,
    bus: Bus,
}

impl Bed {
    /// Makes the machine, switched off.
    pub async fn new() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let place = TempDir::with_prefix_in("orchestrator-crash-", parent)?;
        let root = place.path();
        for directory in ["etc", "share/interfaces/v1", "payload", "release"] {
            fs::create_dir_all(root.join(directory))?;
        }
        for kind in ["alpha", "beta"] {
            let program = repository().join("interfaces/v1/demo-component");
            std::os::unix::fs::symlink(program, root.join("share/interfaces/v1").join(interface(kind)))?;
            for release in 1..=3_u8 {
                let payload = root.join(format!("payload/{kind}-{release}.img"));
                let bytes: Vec<u8> =
                    (0..20_000_u32).map(|at| (at.wrapping_mul(u32::from(release) + 7) >> 3).to_le_bytes()[0]).collect();
                fs::write(&payload, bytes)?;
                let name = format!("{kind}-{release}");
                let spec = ArtifactSpec::module_image(&name, vec![kind.to_owned()], &interface(kind), vec![payload]);
                artifact::write(&spec, None, &root.join(format!("release/{name}.mender")))?;
            }
        }
        fs::write(
            root.join("etc/mender-orchestrator.conf"),
            format!(
                r#"{{"Runner": "process", "RebootTimeoutSeconds": 3600, "RebootCommand": ["/bin/sh", "-c", "echo reboot >>'{}'"]}}"#,
                root.join("system/calls.log").display()
            ),
        )?;
        let bus = Bus::start();
        let connection = bus.connect().await;
        let bed = Self {
            place,
            connection,
            daemon: None,
            disturbance: Disturbance::None,
            points: Vec::new(),
            hit: None,
            boots: 0,
            log: Log::default(),
            generation: 0,
            bus,
        };
        Ok(bed)
    }

    /// Everything as it was before: release 1, no state, switched off.
    pub fn reset(&mut self, scenario: &Scenario, disturbance: Disturbance) -> Result<()> {
        self.daemon = None;
        self.disturbance = disturbance;
        self.points.clear();
        self.hit = None;
        for directory in ["state", "system"] {
            let path = self.path(directory);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
            fs::create_dir(&path)?;
        }
        let mut topology = "api_version: mender/v1\nkind: topology\nsystem_type: bench\ncomponents:\n".to_owned();
        for part in scenario.parts {
            let home = self.path("system").join(part.name);
            fs::create_dir_all(home.join("payload"))?;
            fs::write(
                home.join("provides"),
                format!("rootfs-image.{}.version={}-1\n", interface(part.kind), part.kind),
            )?;
            fs::copy(
                self.path(&format!("payload/{}-1.img", part.kind)),
                home.join(format!("payload/{}-1.img", part.kind)),
            )?;
            fs::write(home.join("needs-reboot"), format!("{}\n", part.reboot))?;
            fs::write(home.join("supports-rollback"), format!("{}\n", part.rollback))?;
            for (name, content) in part.switches {
                fs::write(home.join(name), format!("{content}\n"))?;
            }
            let (kind, interface, name) = (part.kind, interface(part.kind), part.name);
            write!(topology, "  - component_type: {kind}\n    interface: {interface}\n    interface_args: [{name}]\n")?;
        }
        fs::write(self.path("etc/topology.yaml"), topology)?;
        fs::write(self.path("system/calls.log"), "")?;
        fs::write(self.path("daemon.log"), "")?;
        self.log.lock().unwrap().clear();
        self.generation = 0;
        Ok(())
    }

    /// The Manifest of a release.
    pub fn manifest(&self, scenario: &Scenario, release: u8) -> String {
        let dialect = if scenario.planned { "orchestrator/v1" } else { "mender/v1" };
        let mut text = format!(
            "api_version: {dialect}\nkind: manifest\nname: bench-{release}\nsystem_types_compatible: [bench]\ncomponent_types:\n"
        );
        for (kind, order) in [("alpha", scenario.orders.0), ("beta", scenario.orders.1)] {
            let artifact = self.path(&format!("release/{kind}-{release}.mender"));
            let artifact = artifact.display();
            write!(text, "  {kind}:\n    artifact_path: {artifact}\n").expect("a text can be written to");
            if !scenario.planned {
                writeln!(text, "    update_strategy: {{order: {order}}}").expect("a text can be written to");
            }
        }
        if scenario.planned {
            write!(
                text,
                "constraints:\n  - when: {{beta: beta-{release}}}\n    requires: {{alpha: alpha-{release}}}\n    scope: transition\n"
            )
            .expect("a text can be written to");
        }
        text
    }

    /// A path on the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The daemon.
    pub fn daemon(&self) -> &Traced {
        self.daemon.as_ref().expect("the machine is switched on")
    }

    /// The daemon starts, as the init system starts it. Returns once it is on the bus, or if it has died before.
    pub async fn start(&mut self, armed: bool) -> Result<()> {
        self.note("daemon");
        self.generation += 1;
        let mut command = Command::new(binary("traced-launcher"));
        command
            .arg(binary("orchestratord"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MENDER_ORCHESTRATOR_CONF_DIR", self.path("etc"))
            .env("MENDER_ORCHESTRATOR_TOPOLOGY_DIR", self.path("etc"))
            .env("MENDER_ORCHESTRATOR_DATA_DIR", self.path("share"))
            .env("MENDER_ORCHESTRATOR_DATASTORE_DIR", self.path("state"))
            .env("ORCHESTRATOR_DEMO_DIR", self.path("system"))
            .env("ORCHESTRATORD_BOOT_ID_FILE", self.path("boot-id"))
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address())
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log"))?);
        fs::write(self.path("boot-id"), format!("boot-{}\n", self.boots))?;
        let daemon = Traced::start(
            command,
            (&self.path("state"), &self.path("system")),
            self.disturbance,
            (self.log.clone(), self.generation),
        );
        if armed {
            daemon.arm();
        }
        self.daemon = Some(daemon);
        let begun = Instant::now();
        while !self.daemon().is_gone() && !self.owner().await? {
            ensure!(begun.elapsed() < PATIENCE, "the daemon does not come to the bus");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Nothing happens any more, unless it has happened.
    pub fn disarm(&mut self) {
        self.points();
        if let Some(daemon) = &self.daemon {
            daemon.disarm();
        }
        self.disturbance = Disturbance::None;
    }

    /// Where the disturbance was, and all points so far.
    pub fn points(&mut self) -> (Option<Point>, Vec<Point>) {
        if let Some(daemon) = &self.daemon {
            let points = daemon.take_points();
            self.disturbance = self.disturbance.after(points.len());
            self.points.extend(points);
            if let Some(hit) = daemon.take_hit() {
                self.hit = Some(hit);
                self.disturbance = self.disturbance.met();
            }
        }
        (self.hit.clone(), self.points.clone())
    }

    /// The name of a daemon that has died is free when the bus has noticed.
    async fn wait_off_bus(&self) -> Result<()> {
        let begun = Instant::now();
        while self.owner().await? {
            ensure!(begun.elapsed() < PATIENCE, "the daemon's name stays on the bus");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn owner(&self) -> Result<bool> {
        let owner = self
            .connection
            .call_method(
                Some("org.freedesktop.DBus"),
                "/org/freedesktop/DBus",
                Some("org.freedesktop.DBus"),
                "NameHasOwner",
                &"org.orchestratord1",
            )
            .await?;
        Ok(owner.body().deserialize::<bool>()?)
    }

    /// The daemon has died alone; the init system starts another one, which finds the programs that still run.
    pub async fn restart_daemon(&mut self) -> Result<()> {
        self.daemon().wait_gone();
        self.wait_off_bus().await?;
        self.points();
        let old = self.daemon.take();
        self.start(true).await?;
        // Its programs are ended by the new daemon; waiting for that here would wait for ever if it failed to.
        if let Some(old) = old {
            old.release();
            self.daemon().adopt(old);
        }
        Ok(())
    }

    /// The machine goes down at once and comes up again. With `lossy` it loses what was not synced.
    pub async fn reboot(&mut self, lossy: bool) -> Result<()> {
        self.points();
        if let Some(mut daemon) = self.daemon.take() {
            daemon.end_all();
            if lossy {
                daemon.lose_unsynced();
            }
        }
        self.wait_off_bus().await?;
        self.boots += 1;
        self.note("boot");
        self.start(true).await
    }

    /// Ends the daemon and all programs.
    pub fn switch_off(&mut self) {
        self.daemon = None;
    }

    /// All that tells why a run hangs or fails: what the daemon logged, what was called, and where every process of the
    /// daemon and of its programs stands.
    pub fn autopsy(&self) -> String {
        let mut text = String::from("---- calls\n");
        for line in self.log() {
            let _ = writeln!(text, "{} {}", line.generation, line.text);
        }
        let log = fs::read(self.path("daemon.log")).unwrap_or_default();
        let _ = writeln!(text, "---- log of the daemon\n{}", String::from_utf8_lossy(&log));
        text.push_str(&self.daemon.as_ref().map_or_else(|| "switched off".to_owned(), Traced::whereabouts));
        text
    }

    /// Adds a line of ours to the log of calls.
    pub fn note(&self, line: &str) {
        self.log.lock().unwrap().push(Logged { generation: 0, text: line.to_owned() });
    }

    /// The log of calls.
    pub fn log(&self) -> Vec<Logged> {
        self.log.lock().unwrap().clone()
    }

    /// How often the host was asked to reboot.
    pub fn reboots(&self) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.text == "reboot").count()
    }

    /// How the last deployment ended, as the daemon keeps it.
    pub fn last(&self) -> Result<serde_json::Value> {
        let path = self.path("state/last.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(serde_json::Value::Null),
            Err(error) => bail!("{}: {error}", path.display()),
        }
    }
}
