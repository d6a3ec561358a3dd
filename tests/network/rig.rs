//! A host to play with: a network namespace, and the daemon in it on a private bus.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::unistd::Uid;
use orchestrator_tests::binary;
use orchestrator_tests::bus::Bus;
use orchestratord_dbus::zbus::Connection;
use orchestratord_dbus::zbus::proxy::CacheProperties;
use orchestratord_dbus::{LinkProxy, ManagedObjects, NetworkProxy};
use tempfile::TempDir;

/// How long anything may take before a test fails; long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A network namespace, held by a process that does nothing; dropping it ends both.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A namespace with nothing but a loopback.
    pub fn new() -> Self {
        assert!(Uid::effective().is_root(), "this needs root; \"unshare --user --map-root-user\" makes anybody root");
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let namespace = Self { holder: holder.spawn().expect("\"unshare\" (Debian: util-linux)") };
        let entered = || fs::metadata(namespace.path()).is_ok_and(|metadata| metadata.ino() != own);
        let deadline = std::time::Instant::now() + PATIENCE;
        while !entered() {
            assert!(std::time::Instant::now() < deadline, "no network namespace can be made");
            std::thread::sleep(Duration::from_millis(1));
        }
        namespace.ip("link set lo up");
        namespace
    }

    /// The process that is in it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// The file that leads to it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid()))
    }

    /// A command that will run in it.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// Runs `ip` with these words in it.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let output = self.command("ip").args(words.split(' ')).output().expect("\"ip\" (Debian: iproute2)");
        text(&output, words)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

#[track_caller]
fn text(output: &Output, what: &str) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The daemon in a namespace.
pub struct Host {
    daemon: Option<Child>,
    /// A connection to its bus.
    pub client: Connection,
    /// Its namespace.
    pub net: Namespace,
    /// Its bus.
    pub bus: Bus,
    place: TempDir,
}

impl Host {
    /// A host whose namespace was made ready like this, with the daemon running.
    pub async fn start(prepare: impl FnOnce(&Namespace)) -> Self {
        let mut host = Self::new(prepare).await;
        host.start_daemon().await;
        host
    }

    /// A host without a daemon.
    pub async fn new(prepare: impl FnOnce(&Namespace)) -> Self {
        let net = Namespace::new();
        prepare(&net);
        let bus = Bus::start();
        let client = bus.connect().await;
        let place = TempDir::with_prefix("orchestrator-network-").unwrap();
        for directory in ["etc", "share", "state"] {
            fs::create_dir(place.path().join(directory)).unwrap();
        }
        let host = Self { daemon: None, client, net, bus, place };
        host.configure("{ \"Runner\": \"process\", \"RebootCommand\": [\"/bin/false\"] }");
        host
    }

    /// Writes the configuration of the daemon.
    pub fn configure(&self, options: &str) {
        fs::write(self.place.path().join("etc/mender-orchestrator.conf"), options).unwrap();
    }

    /// The directory of everything that belongs to this host.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// The command that is the daemon.
    pub fn daemon(&self) -> Command {
        let mut command = self.net.command(binary("orchestratord"));
        self.environment(&mut command);
        command
    }

    /// Sets what the daemon and the command line need to know.
    pub fn environment(&self, command: &mut Command) {
        let place = self.place.path();
        command
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address())
            .env("MENDER_ORCHESTRATOR_CONF_DIR", place.join("etc"))
            .env("MENDER_ORCHESTRATOR_DATA_DIR", place.join("share"))
            .env("MENDER_ORCHESTRATOR_DATASTORE_DIR", place.join("state"))
            .env_remove("NOTIFY_SOCKET");
    }

    /// Starts the daemon and waits until it can be called.
    pub async fn start_daemon(&mut self) {
        let daemon = self.daemon();
        self.start_as(daemon).await;
    }

    /// Starts the daemon by this command.
    pub async fn start_as(&mut self, mut command: Command) {
        self.daemon = Some(command.spawn().expect("the daemon"));
        let manager = orchestratord_dbus::ManagerProxy::new(&self.client).await.unwrap();
        until("the daemon is ready", async || {
            let state = manager.inner().get_property::<String>("State").await;
            state.is_ok_and(|state| state != "starting").then_some(())
        })
        .await;
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a running daemon").id()
    }

    /// Ends the daemon with `SIGKILL`.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
    }

    /// Everything that the daemon shows.
    pub async fn objects(&self) -> ManagedObjects {
        orchestratord_dbus::objects(&self.client).await.unwrap().get_managed_objects().await.unwrap()
    }

    /// The network as a whole.
    pub async fn network(&self) -> NetworkProxy<'static> {
        NetworkProxy::builder(&self.client).cache_properties(CacheProperties::No).build().await.unwrap()
    }

    /// The link with this name, once it is on the bus.
    pub async fn link(&self, name: &str) -> LinkProxy<'static> {
        until(&format!("the link {name} appears"), async || self.find_link(name).await).await
    }

    /// The link with this name, if it is on the bus.
    pub async fn find_link(&self, name: &str) -> Option<LinkProxy<'static>> {
        for (path, interfaces) in self.objects().await {
            let Some(properties) = interfaces.get("org.orchestratord1.Link") else { continue };
            if <&str>::try_from(&properties["Name"]).unwrap() == name {
                let link = LinkProxy::builder(&self.client).path(path).cache_properties(CacheProperties::No);
                return Some(link.build().await.unwrap());
            }
        }
        None
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill_daemon();
    }
}

/// Waits until there is an answer.
pub async fn until<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
