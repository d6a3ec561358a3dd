//! A daemon that plays a script, and the private bus it lives on.

mod interfaces;

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
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

use interfaces::{Component, Job, Manager, Refusal, Update};

const NAME: &str = "org.orchestratord1";
const ROOT: &str = "/org/orchestratord1";

/// A private system bus, gone with this value.
pub struct Bus {
    pub directory: TempDir,
    pub address: String,
    // Killed when dropped.
    _process: Child,
}

impl Bus {
    pub async fn start() -> Self {
        Self::with_service(None).await
    }

    /// A bus that knows a program with which to start the daemon.
    pub async fn with_service(program: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("bus");
        let configuration = directory.path().join("bus.conf");
        let service_directory = match program {
            Some(program) => {
                let file = directory.path().join(format!("{NAME}.service"));
                let text = format!("[D-BUS Service]\nName={NAME}\nExec={program}\nUser=root\n");
                std::fs::write(file, text).unwrap();
                format!("<servicedir>{}</servicedir>", directory.path().display())
            }
            None => String::new(),
        };
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><type>system</type>\
             <listen>unix:path={}</listen>{service_directory}<auth>EXTERNAL</auth><policy context=\"default\"><allow user=\"*\"/>\
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
    /// The state of the daemon changes.
    Manager(&'static str),
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
    /// Number of its Jobs, in place of 7.
    pub job: Option<u32>,
    /// State of the daemon at the start, in place of "idle".
    pub manager: Option<&'static str>,
    /// How a deployment ended that nobody was told about; `Resume` tells it.
    pub untold: Option<(&'static str, &'static str, &'static str)>,
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
    manager: &'static str,
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
            manager: script.manager.unwrap_or("idle"),
            calls: Vec::new(),
            job: HashMap::from([
                ("Id", Variant::from(script.job.unwrap_or(7))),
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
        server.at(ROOT, Manager(daemon.clone())).await.unwrap();
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
        self.0.connection.object_server().at(self.job(), Job(self.clone())).await.unwrap();
    }

    /// Goes on by itself with a deployment that another daemon has begun.
    pub async fn take_up(&self) {
        self.state().job.insert("Kind", "resume".into());
        self.begin_job().await;
        let job = OwnedObjectPath::try_from(self.job()).unwrap().into_inner();
        self.update(&[("State", "busy".into()), ("ActiveJob", job.into())]).await;
        self.play(&self.0.script.acts).await;
    }

    /// Makes a Job that has ended like this.
    async fn tell_end(&self, result: &'static str, name: &'static str, message: &'static str) -> OwnedObjectPath {
        self.state().job.insert("Kind", "resume".into());
        self.begin_job().await;
        self.play(&[Act::End(result, name, message)]).await;
        OwnedObjectPath::try_from(self.job()).unwrap()
    }

    /// Path of its Jobs.
    fn job(&self) -> String {
        format!("{ROOT}/job/{}", self.0.script.job.unwrap_or(7))
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

    async fn changed(&self, path: &str, interface: &'static str, values: &[(&str, Variant<'_>)]) {
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
        self.changed(&self.job(), "org.orchestratord1.Job", values).await;
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
                    let emitter = SignalEmitter::new(&self.0.connection, self.job()).unwrap();
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
                    // What rests or is over has no Job at work any more.
                    let none = OwnedObjectPath::try_from("/").unwrap().into_inner();
                    self.update(&[("ActiveJob", none.into())]).await;
                    self.0.done.send_replace(true);
                }
                Act::Manager(state) => {
                    self.state().manager = state;
                    self.changed(ROOT, "org.orchestratord1.Manager", &[("State", state.into())]).await;
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
        OwnedObjectPath::try_from(self.job()).unwrap()
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
