//! A host to play with: a network namespace, and the daemon in it on a private bus.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use orchestrator_tests::binary;
use orchestrator_tests::bus::Bus;
pub use orchestrator_tests::namespace::{Namespace, PATIENCE};
use orchestratord_dbus::zbus::Connection;
use orchestratord_dbus::zbus::proxy::CacheProperties;
use orchestratord_dbus::{LinkProxy, ManagedObjects, NetworkProxy};
use tempfile::TempDir;

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
