//! The process around it all: the word to the service manager, signals, the bus name, and the end.
//!
//! The process frame is the real one; the update domain behind it is scripted (`scripted-orchestratord`).

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestrator_tests::binary;
use orchestrator_tests::bus::Bus;
use orchestratord_dbus::{ManagerProxy, Options, UpdateProxy, error_reply};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long anything may take before the test fails; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The daemon, and the service manager's ear.
struct Process {
    child: Child,
    script: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    ear: tokio::net::UnixDatagram,
}

impl Process {
    fn start(bus: &Bus, watchdog: Option<Duration>) -> Self {
        Self::launch(bus, Command::new(env!("CARGO_BIN_EXE_scripted-orchestratord")), watchdog)
    }

    fn launch(bus: &Bus, mut command: Command, watchdog: Option<Duration>) -> Self {
        let socket = bus.directory().join("notify");
        let ear = UnixDatagram::bind(&socket).unwrap();
        ear.set_nonblocking(true).unwrap();
        command
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .env("NOTIFY_SOCKET", &socket)
            .env_remove("WATCHDOG_PID")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(period) = watchdog {
            command.env("WATCHDOG_USEC", period.as_micros().to_string());
        }
        let mut child = command.spawn().unwrap();
        let script = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, script, said, ear: tokio::net::UnixDatagram::from_std(ear).unwrap() }
    }

    async fn started(bus: &Bus, watchdog: Option<Duration>) -> Self {
        let mut process = Self::start(bus, watchdog);
        assert_eq!(process.told().await, ["READY=1", "STATUS=idle: demo 1 installed"]);
        process.says("acting").await;
        process
    }

    /// The assignments of the next message to the service manager.
    async fn told(&self) -> Vec<String> {
        self.told_within(PATIENCE).await.expect("a message")
    }

    async fn told_within(&self, limit: Duration) -> Option<Vec<String>> {
        let mut message = vec![0; 4096];
        let length = tokio::time::timeout(limit, self.ear.recv(&mut message)).await.ok()?.unwrap();
        message.truncate(length);
        Some(String::from_utf8(message).unwrap().lines().map(ToOwned::to_owned).collect())
    }

    async fn order(&mut self, line: &str) {
        self.script.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn says(&mut self, line: &str) {
        let said = tokio::time::timeout(PATIENCE, self.said.next_line()).await.expect("a line").unwrap();
        assert_eq!(said.as_deref(), Some(line));
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// Whether it ended well, and what it logged.
    async fn end(self) -> (bool, String) {
        let Self { child, script: _script, .. } = self;
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("an end").unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }
}

#[tokio::test]
async fn ready_comes_when_the_daemon_can_be_called() {
    let bus = Bus::start();
    let process = Process::started(&bus, None).await;
    let client = bus.connect().await;
    assert_eq!(ManagerProxy::new(&client).await.unwrap().state().await.unwrap(), "idle");
    let update = UpdateProxy::new(&client).await.unwrap();
    let (name, message) = error_reply(&update.install("m", Options::new()).await.unwrap_err()).unwrap();
    assert_eq!(name, "org.orchestratord1.Error.InvalidManifest");
    assert_eq!(message, "The Manifest is not in the script.");
    process.signal(Signal::SIGTERM);
    assert!(process.end().await.0);
}

#[tokio::test]
async fn the_status_follows_the_state_and_is_not_repeated() {
    let bus = Bus::start();
    let mut process = Process::started(&bus, None).await;
    process.order("busy demo 2").await;
    assert_eq!(process.told().await, ["STATUS=busy: working on demo 2"]);
    process.order("busy demo 2").await;
    process.order("idle").await;
    assert_eq!(process.told().await, ["STATUS=idle: demo 2 installed"]);
}

#[tokio::test]
async fn both_signals_end_it_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let bus = Bus::start();
        let mut process = Process::started(&bus, None).await;
        process.signal(signal);
        assert_eq!(process.told().await, ["STOPPING=1", "STATUS=stopping: demo 1 installed"]);
        process.says("stopped").await;
        let (well, log) = process.end().await;
        assert!(well, "{log}");
        assert!(log.contains(&format!("orchestratord ends reason=\"{signal}\"")), "{log}");
        let client = bus.connect().await;
        let names = zbus::fdo::DBusProxy::new(&client).await.unwrap();
        assert!(!names.name_has_owner("org.orchestratord1".try_into().unwrap()).await.unwrap());
    }
}

#[tokio::test]
async fn a_hangup_reads_the_configuration_again() {
    let bus = Bus::start();
    let mut process = Process::started(&bus, None).await;
    for _ in 0..2 {
        process.signal(Signal::SIGHUP);
        let told = process.told().await;
        let [reloading, clock] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(reloading, "RELOADING=1");
        // systemd compares this with its own clock to tell this reload from an older one.
        let told_clock: i64 = clock.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(told_clock > 0);
        process.says("reloaded").await;
        assert_eq!(process.told().await, ["READY=1"]);
    }
}

#[tokio::test]
async fn the_watchdog_is_patted_only_while_the_actor_answers() {
    let bus = Bus::start();
    let period = Duration::from_millis(200);
    let mut process = Process::started(&bus, Some(period)).await;
    for _ in 0..3 {
        assert_eq!(process.told().await, ["WATCHDOG=1"]);
    }
    process.order("silent").await;
    // At most the one that was on its way.
    let mut after = 0;
    while let Some(told) = process.told_within(period * 5).await {
        assert_eq!(told, ["WATCHDOG=1"]);
        after += 1;
        assert!(after < 20, "the watchdog is patted although the actor is silent");
    }
    process.child.start_kill().unwrap();
    let (_, log) = process.end().await;
    assert!(log.contains("The watchdog is not patted: an actor does not answer."), "{log}");
}

#[tokio::test]
async fn without_a_watchdog_nothing_is_patted() {
    let bus = Bus::start();
    let process = Process::started(&bus, None).await;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.told().await[0], "STOPPING=1");
}

#[tokio::test]
async fn a_second_daemon_says_who_has_the_name_and_never_acts() {
    let bus = Bus::start();
    let _first = Process::started(&bus, None).await;
    let second = Command::new(env!("CARGO_BIN_EXE_scripted-orchestratord"))
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::piped())
        .output();
    let output = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("The bus name \"org.orchestratord1\" is taken"), "{said}");
    assert_eq!(output.stdout, b"", "the second actor worked on the System");
}

#[tokio::test]
async fn no_bus_is_a_clear_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_scripted-orchestratord"))
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::piped())
        .output();
    let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("The system bus cannot be reached: "), "{said}");
}

#[tokio::test]
async fn a_bus_or_an_actor_that_is_lost_ends_the_daemon_with_an_error() {
    let mut bus = Bus::start();
    let mut process = Process::started(&bus, None).await;
    bus.kill();
    process.says("stopped").await;
    let (well, log) = process.end().await;
    assert!(!well);
    assert!(log.contains("The connection to the system bus was lost."), "{log}");

    let bus = Bus::start();
    let mut process = Process::started(&bus, None).await;
    process.order("end").await;
    let (well, log) = process.end().await;
    assert!(!well);
    assert!(log.contains("The update service ended unexpectedly."), "{log}");
}

#[tokio::test]
async fn the_real_daemon_lives_by_the_same_rules() {
    let bus = Bus::start();
    let home = bus.directory();
    let [configuration, data, state] = ["etc", "share", "state"].map(|name| home.join(name));
    for directory in [&configuration, &data, &state] {
        std::fs::create_dir(directory).unwrap();
    }
    let options = "{ \"Runner\": \"process\", \"RebootCommand\": [\"/bin/false\"] }";
    std::fs::write(configuration.join("mender-orchestrator.conf"), options).unwrap();
    let mut command = Command::new(binary("orchestratord"));
    command
        .env("MENDER_ORCHESTRATOR_CONF_DIR", configuration)
        .env("MENDER_ORCHESTRATOR_DATA_DIR", data)
        .env("MENDER_ORCHESTRATOR_DATASTORE_DIR", &state);
    let process = Process::launch(&bus, command, Some(Duration::from_millis(200)));
    let told = process.told().await;
    // There is no Topology yet, and the daemon says so instead of ending.
    assert_eq!(told[0], "READY=1");
    assert!(told[1].starts_with("STATUS=degraded: "), "{told:?}");
    assert_eq!(process.told().await, ["WATCHDOG=1"]);
    let client = bus.connect().await;
    let update = UpdateProxy::new(&client).await.unwrap();
    assert_eq!(update.last_error().await.unwrap().0, "org.orchestratord1.Error.InvalidTopology");

    process.signal(Signal::SIGHUP);
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some("READY=1") {
        told.extend(process.told().await.into_iter().filter(|line| line != "WATCHDOG=1"));
    }
    assert_eq!((told.len(), told[0].as_str()), (3, "RELOADING=1"), "{told:?}");

    process.signal(Signal::SIGTERM);
    while process.told().await[0] != "STOPPING=1" {}
    let (well, log) = process.end().await;
    assert!(well, "{log}");
}
