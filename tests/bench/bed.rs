//! The real daemon on a private bus, its state on a real disk, with Components that cost next to nothing themselves.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use orchestrator_tests::bus::Bus;
use orchestratord_dbus::{JobProxy, Options, UpdateProxy, job};
use tempfile::TempDir;
use zbus::Connection;
use zbus::proxy::CacheProperties;

use crate::process::{Held, cpu_of, forget_peak, peak_of, script};
use crate::report::Sample;

/// What the Interface does in `Download`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// Reads the streams and forgets them.
    Stream,
    /// Reads the streams into a file, which is on the disk at the end.
    Write,
    /// Leaves it to the daemon to store files.
    Store,
    /// Nothing else than the daemon's own default, and answers no query.
    Nothing,
}

impl Taking {
    /// The Interface program that does so.
    pub fn script(self) -> String {
        let take = match self {
            Self::Stream => {
                "Download*) while name=\"$(cat stream-next)\"; [ -n \"$name\" ]; do cat \"$name\" >/dev/null; done ;;"
            }
            Self::Write => {
                "Download*) while name=\"$(cat stream-next)\"; [ -n \"$name\" ]; do \
                 dd if=\"$name\" of=tmp/written bs=1M iflag=fullblock conv=fsync 2>/dev/null; done ;;"
            }
            Self::Store | Self::Nothing => "",
        };
        format!(
            "#!/bin/sh\ncase $1 in\nIdentity) echo \"id=$4\" ;;\nProvides) echo rootfs-image.bench.version=0 ;;\n{take}\nesac\n"
        )
    }
}

/// A System of Components of the type "bench".
#[derive(Debug)]
pub struct Bed {
    daemon: Held,
    /// Seconds from its start to the word that it is ready.
    pub ready_after: f64,
    connection: Connection,
    bus: Bus,
    place: TempDir,
}

impl Bed {
    /// Starts the daemon for so many Components.
    pub async fn start(on: &Path, components: usize, taking: Taking) -> anyhow::Result<Self> {
        let place = TempDir::with_prefix_in("bed-", on)?;
        for directory in ["etc", "share/interfaces/v1", "state"] {
            fs::create_dir_all(place.path().join(directory))?;
        }
        fs::write(place.path().join("etc/topology.yaml"), topology(components))?;
        fs::write(place.path().join("etc/mender-orchestrator.conf"), r#"{"Runner": "process"}"#)?;
        script(&place.path().join("share/interfaces/v1/bench"), &taking.script())?;
        let bus = Bus::start();
        let connection = bus.connect().await;
        let (daemon, ready_after) = start_daemon(Command::new(program()?), place.path(), bus.address())?;
        Ok(Self { daemon, ready_after, connection, bus, place })
    }

    /// Has the Components take streams in another way.
    pub fn take(&self, taking: Taking) -> anyhow::Result<()> {
        script(&self.program(), &taking.script())
    }

    /// The Interface program.
    pub fn program(&self) -> PathBuf {
        self.place.path().join("share/interfaces/v1/bench")
    }

    /// Process id of the daemon.
    pub fn id(&self) -> u32 {
        self.daemon.0.id()
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Asks for an install; returns its Job.
    pub async fn begin(&self, artifact: &Path) -> anyhow::Result<JobProxy<'static>> {
        begin(&self.connection, artifact).await
    }

    /// Installs this on all Components and measures the daemon at it.
    pub async fn install(&self, artifact: &Path) -> anyhow::Result<Sample> {
        let before = cpu_of(self.id())?;
        forget_peak(self.id())?;
        let begun = Instant::now();
        let job = self.begin(artifact).await?;
        let result = job.wait().await?;
        let wall = begun.elapsed().as_secs_f64();
        ensure!(result == "done", "the install ended with {result}: {:?}\n{}", job.error().await?, self.log());
        Ok(Sample { wall, cpu: cpu_of(self.id())? - before, peak: peak_of(self.id())? })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("daemon.log")).unwrap_or_default()
    }
}

/// The Topology of a System of so many Components of the type "bench".
pub fn topology(components: usize) -> String {
    let mut topology = "api_version: mender/v1\nkind: topology\nsystem_type: bench\ncomponents:\n".to_owned();
    for number in 0..components {
        let _ = writeln!(topology, "  - {{component_type: bench, interface: bench, interface_args: [b{number}]}}");
    }
    topology
}

/// Asks for an install on all Components of the type "bench"; returns its Job.
pub async fn begin(connection: &Connection, artifact: &Path) -> anyhow::Result<JobProxy<'static>> {
    let manifest = format!(
        "api_version: mender/v1\nkind: manifest\nname: bench\nsystem_types_compatible: [bench]\ncomponent_types:\n  \
         bench:\n    artifact_path: {}\n    update_strategy:\n      order: 1\n",
        artifact.display()
    );
    let update = UpdateProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
    let path = update.install(&manifest, Options::new()).await?;
    Ok(job(connection, path).await?)
}

/// The daemon that is measured.
pub fn program() -> anyhow::Result<PathBuf> {
    let binaries = PathBuf::from(std::env::var_os("BENCH_BINARIES").unwrap_or_else(|| "target/release".into()));
    let program = binaries.join("orchestratord");
    ensure!(program.exists(), "\"{}\" is missing; run \"make build\" first", program.display());
    Ok(program.canonicalize()?)
}

/// Starts the daemon by this command and waits until it says that it is ready.
pub fn start_daemon(mut command: Command, place: &Path, bus: &str) -> anyhow::Result<(Held, f64)> {
    let notify = place.join("notify");
    let socket = UnixDatagram::bind(&notify)?;
    socket.set_read_timeout(Some(Duration::from_mins(1)))?;
    fs::write(place.join("boot-id"), "00000000-0000-4000-8000-000000000001\n")?;
    let log = fs::File::create(place.join("daemon.log"))?;
    command
        .env_remove("WATCHDOG_USEC")
        .env_remove("JOURNAL_STREAM")
        .env("NOTIFY_SOCKET", &notify)
        // As in the unit of the package.
        .env("MALLOC_MMAP_THRESHOLD_", "262144")
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus)
        .env("MENDER_ORCHESTRATOR_CONF_DIR", place.join("etc"))
        .env("MENDER_ORCHESTRATOR_TOPOLOGY_DIR", place.join("etc"))
        .env("MENDER_ORCHESTRATOR_DATA_DIR", place.join("share"))
        .env("MENDER_ORCHESTRATOR_DATASTORE_DIR", place.join("state"))
        .env("MENDER_ORCHESTRATOR_TOPOLOGY_COMPONENTS_FILE", "")
        .env("MENDER_ORCHESTRATOR_MANIFEST_STORE_DIR", "")
        .env("MENDER_ORCHESTRATOR_ARTIFACTS_CACHE_DIR", "")
        .env("ORCHESTRATORD_BOOT_ID_FILE", place.join("boot-id"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let begun = Instant::now();
    let daemon = Held(command.spawn()?);
    let mut message = [0; 4096];
    loop {
        let count = socket.recv(&mut message).with_context(|| {
            format!(
                "the daemon does not get ready: {}",
                fs::read_to_string(place.join("daemon.log")).unwrap_or_default()
            )
        })?;
        if message[..count].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok((daemon, begun.elapsed().as_secs_f64()));
        }
    }
}
