//! A daemon that plays a script, and the private bus it lives on.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use zbus::fdo::Properties;
use zbus::message::Header;
use zbus::names::{ErrorName, InterfaceName};
use zbus::object_server::SignalEmitter;
use zbus::{Connection, DBusError, Message, OwnedObjectPath, OwnedVariant, Variant, interface};

const NAME: &str = "org.orchestratord1";
const ROOT: &str = "/org/orchestratord1";
pub const JOB: &str = "/org/orchestratord1/job/7";

/// A private system bus, gone with this value.
pub struct Bus {
    pub directory: TempDir,
    pub address: String,
    // Killed when dropped.
    _process: Child,
}

impl Bus {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("bus");
        let configuration = directory.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><type>system</type>\
             <listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow user=\"*\"/>\
             <allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>\n",
            socket.display()
        );
        std::fs::write(&configuration, text).unwrap();
        let mut process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", configuration.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            // It grumbles about the number of files it may open.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("dbus-daemon has to be installed");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.next_line().await.unwrap().expect("dbus-daemon prints its address");
        Self { directory, address, _process: process }
    }

    /// Puts a file into the bus's directory.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().canonicalize().unwrap().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// What the daemon does while a Job runs.
#[derive(Debug, Clone)]
pub enum Act {
    /// Properties of the Job change.
    Step(f64, &'static str),
    /// Properties of a Component change.
    Component(&'static str, &'static str, f64),
    /// A Component has failed.
    ComponentError(&'static str, &'static str),
    /// A line of the Job's log.
    Log(&'static str, &'static str, &'static str),
    /// Waits for [`Daemon::go_on`].
    Hold,
    /// The Job ends.
    End(&'static str, &'static str, &'static str),
    /// The daemon dies.
    Die,
}

/// How the daemon answers.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Error name and message for every call of Update.
    pub refusal: Option<(&'static str, &'static str)>,
    /// Happens before the reply that names the Job.
    pub early: Vec<Act>,
    /// Happens after it.
    pub acts: Vec<Act>,
    /// `Wait` is the last call that is answered.
    pub dies_after_wait: bool,
    /// `Inventory` answers.
    pub entries: Vec<(&'static str, &'static str, &'static str)>,
    pub errors: Vec<&'static str>,
}

/// A call the daemon has received: member, Manifest, options as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub member: &'static str,
    pub manifest: String,
    pub options: BTreeMap<String, String>,
}

struct State {
    dying: bool,
    calls: Vec<Call>,
    job: HashMap<&'static str, Variant<'static>>,
    components: BTreeMap<&'static str, HashMap<&'static str, Variant<'static>>>,
    update: HashMap<&'static str, Variant<'static>>,
}

/// The daemon.
#[derive(Clone)]
pub struct Daemon(Arc<Inner>);

struct Inner {
    connection: Connection,
    script: Script,
    state: Mutex<State>,
    go_on: Notify,
    done: watch::Sender<bool>,
}

fn pair(name: &str, message: &str) -> Variant<'static> {
    Variant::from((name.to_owned(), message.to_owned()))
}

/// Components of the played System, as (path, type, id).
const COMPONENTS: [(&str, &str, &str); 3] = [
    ("/org/orchestratord1/component/gateway/G13", "gateway", "G13"),
    ("/org/orchestratord1/component/rtos/R123", "rtos", "R123"),
    ("/org/orchestratord1/component/rtos/_352_3a54", "rtos", "52:54"),
];

impl Daemon {
    /// Plays the daemon until the connection ends.
    pub async fn start(bus: &Bus, script: Script) -> Self {
        let connection = zbus::connection::Builder::address(bus.address.as_str()).build().await.unwrap();
        let components = COMPONENTS.map(|(path, component_type, id)| {
            let provides = HashMap::from([("rootfs-image.version".to_owned(), "v1".to_owned())]);
            let properties = HashMap::from([
                ("Type", Variant::from(component_type)),
                ("Id", Variant::from(id)),
                ("Interface", Variant::from(format!("{component_type}-interface"))),
                ("Arguments", Variant::from(vec!["0".to_owned()])),
                ("State", Variant::from("idle")),
                ("Version", Variant::from("v1")),
                ("Provides", Variant::from(provides)),
                ("Progress", Variant::from(0.0_f64)),
                ("LastError", pair("", "")),
            ]);
            (path, properties)
        });
        let state = State {
            dying: false,
            calls: Vec::new(),
            job: HashMap::from([
                ("Id", Variant::from(7_u32)),
                ("Kind", Variant::from("install")),
                ("Subject", Variant::from(OwnedObjectPath::try_from(ROOT).unwrap().into_inner())),
                ("StartedBy", Variant::from(0_u32)),
                ("Started", Variant::from(1_760_526_531_593_812_u64)),
                ("State", Variant::from("running")),
                ("Progress", Variant::from(0.0_f64)),
                ("Step", Variant::from("")),
                ("Result", Variant::from("")),
                ("Error", pair("", "")),
            ]),
            components: BTreeMap::from(components),
            update: HashMap::from([
                ("State", Variant::from("idle")),
                ("StoppedBefore", Variant::from("")),
                ("Manifest", Variant::from("system-core-v2")),
                ("SystemType", Variant::from("system-core-v1")),
                ("ActiveJob", Variant::from(OwnedObjectPath::try_from("/").unwrap().into_inner())),
                ("LastError", pair("", "")),
            ]),
        };
        let daemon = Self(Arc::new(Inner {
            connection,
            script,
            state: Mutex::new(state),
            go_on: Notify::new(),
            done: watch::Sender::new(false),
        }));
        let server = daemon.0.connection.object_server();
        server.at(ROOT, zbus::fdo::ObjectManager).await.unwrap();
        server.at(ROOT, Manager).await.unwrap();
        server.at(ROOT, Update(daemon.clone())).await.unwrap();
        for (path, ..) in COMPONENTS {
            server.at(path, Component(daemon.clone(), path)).await.unwrap();
        }
        daemon.0.connection.request_name(NAME).await.unwrap();
        daemon
    }

    /// What was called so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Lets the script go on after [`Act::Hold`].
    pub fn go_on(&self) {
        self.0.go_on.notify_one();
    }

    /// Puts a Job on the bus as if someone else had begun it.
    pub async fn begin_job(&self) {
        self.0.connection.object_server().at(JOB, Job(self.clone())).await.unwrap();
    }

    /// Sets properties of Update, and says so.
    pub async fn update(&self, values: &[(&'static str, Variant<'static>)]) {
        for (name, value) in values {
            self.state().update.insert(name, value.try_clone().unwrap());
        }
        self.changed(ROOT, "org.orchestratord1.Update", values).await;
    }

    /// Leaves the bus at once.
    pub async fn die(&self) {
        self.0.connection.clone().close().await.unwrap();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    async fn changed(&self, path: &'static str, interface: &'static str, values: &[(&str, Variant<'_>)]) {
        let emitter = SignalEmitter::new(&self.0.connection, path).unwrap();
        let values = values.iter().map(|(name, value)| (*name, value.try_clone().unwrap())).collect();
        let interface = InterfaceName::try_from(interface).unwrap();
        // A daemon that has died has nobody to tell.
        let _ = Properties::properties_changed(&emitter, interface, values, Cow::Borrowed(&[])).await;
    }

    async fn job_changed(&self, values: &[(&'static str, Variant<'static>)]) {
        for (name, value) in values {
            self.state().job.insert(name, value.try_clone().unwrap());
        }
        self.changed(JOB, "org.orchestratord1.Job", values).await;
    }

    async fn component_changed(&self, id: &str, values: &[(&'static str, Variant<'static>)]) {
        let (path, ..) = COMPONENTS.into_iter().find(|component| component.2 == id).unwrap();
        for (name, value) in values {
            self.state().components.get_mut(path).unwrap().insert(name, value.try_clone().unwrap());
        }
        self.changed(path, "org.orchestratord1.Component", values).await;
    }

    /// Plays acts.
    pub async fn play(&self, acts: &[Act]) {
        for act in acts {
            match *act {
                Act::Step(progress, step) => {
                    self.job_changed(&[("Progress", progress.into()), ("Step", step.into())]).await;
                }
                Act::Component(id, state, progress) => {
                    self.component_changed(id, &[("State", state.into()), ("Progress", progress.into())]).await;
                }
                Act::ComponentError(id, message) => {
                    let error = pair("org.orchestratord1.Error.InterfaceFailed", message);
                    self.component_changed(id, &[("State", "failed".into()), ("LastError", error)]).await;
                }
                Act::Log(severity, component, message) => {
                    let emitter = SignalEmitter::new(&self.0.connection, JOB).unwrap();
                    Job::log(&emitter, severity, component, message).await.unwrap();
                }
                Act::Hold => self.0.go_on.notified().await,
                Act::End(result, name, message) => {
                    let values = [
                        ("Progress", Variant::from(1.0_f64)),
                        ("State", "done".into()),
                        ("Result", result.into()),
                        ("Error", pair(name, message)),
                    ];
                    self.job_changed(&values).await;
                    self.0.done.send_replace(true);
                }
                Act::Die => self.die().await,
            }
        }
    }

    fn received(
        &self,
        member: &'static str,
        manifest: &str,
        options: &HashMap<String, OwnedVariant>,
    ) -> Result<(), Refusal> {
        let options =
            options.iter().map(|(key, value)| (key.clone(), Variant::from(value.try_clone().unwrap()).to_string()));
        self.state().calls.push(Call { member, manifest: manifest.to_owned(), options: options.collect() });
        match self.0.script.refusal {
            Some((name, message)) => Err(Refusal(name, message)),
            None => Ok(()),
        }
    }

    async fn deploy(&self, kind: &'static str) -> OwnedObjectPath {
        self.state().job.insert("Kind", kind.into());
        self.begin_job().await;
        self.play(&self.0.script.early).await;
        let daemon = self.clone();
        tokio::spawn(async move { daemon.play(&daemon.0.script.acts).await });
        OwnedObjectPath::try_from(JOB).unwrap()
    }
}

/// Any error reply.
#[derive(Debug)]
struct Refusal(&'static str, &'static str);

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.1,))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::try_from(self.0).unwrap()
    }

    fn description(&self) -> Option<&str> {
        Some(self.1)
    }
}

struct Manager;

#[interface(name = "org.orchestratord1.Manager")]
impl Manager {
    #[zbus(property)]
    fn version(&self) -> String {
        "1.2.3".to_owned()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        "idle".to_owned()
    }
}

struct Update(Daemon);

impl Update {
    fn get<T: TryFrom<Variant<'static>, Error: std::fmt::Debug>>(&self, name: &str) -> T {
        self.0.state().update[name].try_clone().unwrap().try_into().unwrap()
    }
}

type Entries = Vec<(String, String, String)>;

#[interface(name = "org.orchestratord1.Update")]
impl Update {
    async fn plan(
        &self,
        manifest: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<Vec<HashMap<String, OwnedVariant>>, Refusal> {
        self.0.received("Plan", manifest, &options)?;
        let step = |order: u32, id: &str, action: &str, artifact: &str, size: u64| {
            let values: [(&str, Variant<'_>); 10] = [
                ("order", order.into()),
                ("component-type", "rtos".into()),
                ("id", id.into()),
                ("action", action.into()),
                ("interface", "rtos-interface".into()),
                ("from-version", "v1".into()),
                ("to-version", "v2".into()),
                ("artifact-name", "rtos-v2".into()),
                ("artifact", artifact.into()),
                ("size", size.into()),
            ];
            values.into_iter().map(|(key, value)| (key.to_owned(), value.try_to_owned().unwrap())).collect()
        };
        Ok(vec![step(10, "R123", "install", "/a/rtos-v2.mender", 1536), step(20, "52:54", "unchanged", "", 0)])
    }

    async fn install(
        &self,
        manifest: &str,
        options: HashMap<String, OwnedVariant>,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.0.received("Install", manifest, &options)?;
        Ok(self.0.deploy("install").await)
    }

    async fn resume(&self, options: HashMap<String, OwnedVariant>) -> Result<OwnedObjectPath, Refusal> {
        self.0.received("Resume", "", &options)?;
        Ok(self.0.deploy("resume").await)
    }

    async fn rollback(&self, options: HashMap<String, OwnedVariant>) -> Result<OwnedObjectPath, Refusal> {
        self.0.received("Rollback", "", &options)?;
        Ok(self.0.deploy("rollback").await)
    }

    async fn inventory(&self, options: HashMap<String, OwnedVariant>) -> Result<(Entries, Vec<String>), Refusal> {
        self.0.received("Inventory", "", &options)?;
        let script = &self.0.0.script;
        let owned = |entry: &(&str, &str, &str)| (entry.0.to_owned(), entry.1.to_owned(), entry.2.to_owned());
        let errors = script.errors.iter().map(|&error| error.to_owned()).collect();
        Ok((script.entries.iter().map(owned).collect(), errors))
    }

    async fn reload(&self, options: HashMap<String, OwnedVariant>) -> Result<(), Refusal> {
        self.0.received("Reload", "", &options)
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.get("State")
    }

    #[zbus(property)]
    fn stopped_before(&self) -> String {
        self.get("StoppedBefore")
    }

    #[zbus(property)]
    fn manifest(&self) -> String {
        self.get("Manifest")
    }

    #[zbus(property)]
    fn system_type(&self) -> String {
        self.get("SystemType")
    }

    #[zbus(property)]
    fn active_job(&self) -> OwnedObjectPath {
        self.get("ActiveJob")
    }

    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.get("LastError")
    }
}

struct Component(Daemon, &'static str);

impl Component {
    fn get<T: TryFrom<Variant<'static>, Error: std::fmt::Debug>>(&self, name: &str) -> T {
        self.0.state().components[self.1][name].try_clone().unwrap().try_into().unwrap()
    }
}

#[interface(name = "org.orchestratord1.Component")]
impl Component {
    #[zbus(property, name = "Type")]
    fn component_type(&self) -> String {
        self.get("Type")
    }

    #[zbus(property)]
    fn id(&self) -> String {
        self.get("Id")
    }

    #[zbus(property)]
    fn interface(&self) -> String {
        self.get("Interface")
    }

    #[zbus(property)]
    fn arguments(&self) -> Vec<String> {
        self.get("Arguments")
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.get("State")
    }

    #[zbus(property)]
    fn version(&self) -> String {
        self.get("Version")
    }

    #[zbus(property)]
    fn provides(&self) -> HashMap<String, String> {
        self.get("Provides")
    }

    #[zbus(property)]
    fn progress(&self) -> f64 {
        self.get("Progress")
    }

    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.get("LastError")
    }
}

struct Job(Daemon);

impl Job {
    fn get<T: TryFrom<Variant<'static>, Error: std::fmt::Debug>>(&self, name: &str) -> T {
        self.0.state().job[name].try_clone().unwrap().try_into().unwrap()
    }
}

#[interface(name = "org.orchestratord1.Job")]
impl Job {
    async fn cancel(&self) -> Result<(), Refusal> {
        self.0.received("Cancel", "", &HashMap::new())
    }

    async fn wait(&self) -> String {
        let _ = self.0.0.done.subscribe().wait_for(|done| *done).await;
        self.0.state().dying = self.0.0.script.dies_after_wait;
        self.get("Result")
    }

    #[zbus(signal)]
    async fn log(emitter: &SignalEmitter<'_>, severity: &str, component: &str, message: &str) -> zbus::Result<()>;

    #[zbus(property)]
    async fn id(&self) -> u32 {
        let dying = self.0.state().dying;
        if dying {
            self.0.die().await;
            std::future::pending::<()>().await;
        }
        self.get("Id")
    }

    #[zbus(property)]
    fn kind(&self) -> String {
        self.get("Kind")
    }

    #[zbus(property)]
    fn subject(&self) -> OwnedObjectPath {
        self.get("Subject")
    }

    #[zbus(property)]
    fn started_by(&self) -> u32 {
        self.get("StartedBy")
    }

    #[zbus(property)]
    fn started(&self) -> u64 {
        self.get("Started")
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.get("State")
    }

    #[zbus(property)]
    fn progress(&self) -> f64 {
        self.get("Progress")
    }

    #[zbus(property)]
    fn step(&self) -> String {
        self.get("Step")
    }

    #[zbus(property)]
    fn result(&self) -> String {
        self.get("Result")
    }

    #[zbus(property)]
    fn error(&self) -> (String, String) {
        self.get("Error")
    }
}

/// The text of a small Manifest.
pub const MANIFEST: &str = "api_version: mender/v1\nkind: manifest\n";

/// A Manifest in the bus's directory.
pub fn manifest(bus: &Bus) -> PathBuf {
    bus.file("m.yaml", MANIFEST)
}

/// The canonical directory of a file.
pub fn directory(path: &Path) -> String {
    path.parent().unwrap().canonicalize().unwrap().to_str().unwrap().to_owned()
}
