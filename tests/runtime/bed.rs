//! A stub runtime with the programs of a vPLC before it.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use orchestrator_tests::runtime::{StubRuntime, program};
use orchestratord::core::error::Error;
use orchestratord::core::job::Severity;
use orchestratord::vplc::program::runtime::Dial;
use orchestratord::vplc::program::store::Version;
use orchestratord::vplc::program::{Outcome, Patience, Programs, Progress};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Long enough for a machine that is busy, but for what a test waits out.
pub const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(20),
    upload: Duration::from_mins(1),
    compile: Duration::from_mins(1),
    start: Duration::from_mins(1),
    steady: Duration::from_millis(600),
    silence: Duration::from_mins(1),
    pace: Duration::from_millis(20),
};

/// Connects to loopback; the port may change with the process.
#[derive(Debug, Default)]
pub struct Loopback(pub AtomicU16);

impl Dial for Loopback {
    fn dial(&self, _port: u16) -> BoxFuture<'_, io::Result<TcpStream>> {
        TcpStream::connect(("127.0.0.1", self.0.load(Ordering::SeqCst))).boxed()
    }
}

/// Follows a deployment, and does something when a step begins.
pub struct Observer {
    pub steps: Mutex<Vec<String>>,
    pub lines: Mutex<Vec<(Severity, String)>>,
    at: Box<dyn Fn(&str) + Send + Sync>,
}

impl Observer {
    pub fn new() -> Self {
        Self::at(|_| {})
    }

    /// Calls this with each step that begins.
    pub fn at(work: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { steps: Mutex::default(), lines: Mutex::default(), at: Box::new(work) }
    }

    pub fn said(&self, text: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|(_, line)| line.contains(text))
    }
}

impl Progress for Observer {
    fn report(&self, progress: f64, step: &str) {
        assert!((0.0..=1.0).contains(&progress));
        let mut steps = self.steps.lock().unwrap();
        if steps.last().is_none_or(|last| last != step) {
            steps.push(step.to_owned());
            drop(steps);
            (self.at)(step);
        }
    }

    fn line(&self, severity: Severity, message: String) {
        self.lines.lock().unwrap().push((severity, message));
    }
}

/// The directories of a runtime and of the daemon, the runtime, and the daemon's side of it.
pub struct Bed {
    pub directory: TempDir,
    pub stub: StubRuntime,
    pub dial: Arc<Loopback>,
    pub programs: Programs,
    pub patience: Patience,
}

impl Bed {
    pub fn new() -> Self {
        Self::with(PATIENCE, &[])
    }

    pub fn with(patience: Patience, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stub = StubRuntime::with(directory.path(), [0, 0], variables);
        let dial = Arc::new(Loopback(stub.https.into()));
        let programs = open(&directory, &dial, patience);
        Self { directory, stub, dial, programs, patience }
    }

    /// What the daemon keeps.
    pub fn kept(&self) -> PathBuf {
        self.directory.path().join("daemon")
    }

    /// A daemon that starts again.
    pub fn reopen(&mut self) {
        self.programs = open(&self.directory, &self.dial, self.patience);
    }

    /// A runtime that starts again, on the same ports.
    pub fn restart(&mut self) {
        let ports = [self.stub.https, self.stub.modbus];
        self.stub.end();
        self.stub = StubRuntime::with(self.directory.path(), ports, &[]);
    }

    pub async fn deploy(&self, number: u16, behaviour: &str) -> Result<(Version, Outcome), Error> {
        self.deploy_with(number, behaviour, &Observer::new()).await
    }

    pub async fn deploy_with(
        &self,
        number: u16,
        behaviour: &str,
        observer: &Observer,
    ) -> Result<(Version, Outcome), Error> {
        let archive = file(&program(number, behaviour));
        self.programs.deploy(archive, "user 1000", observer, &CancellationToken::new()).await
    }

    /// Deploys a program that is good.
    pub async fn good(&self, number: u16) -> Version {
        let (version, outcome) = self.deploy(number, "good").await.unwrap();
        assert_eq!(outcome, Outcome::Deployed);
        assert_eq!(self.number(), Some(number));
        version
    }

    /// The number of the program that runs, as a Modbus client sees it.
    pub fn number(&self) -> Option<u16> {
        self.stub.registers().map(|[number, ..]| number)
    }

    /// Waits until the program with this number runs, as a Modbus client sees it.
    pub async fn becomes(&self, number: u16) {
        let seen = async {
            while self.number() != Some(number) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), seen).await.expect("the program runs");
    }

    pub async fn numbers(&self) -> Vec<u32> {
        self.programs.versions().await.iter().map(|version| version.number).collect()
    }
}

fn open(directory: &TempDir, dial: &Arc<Loopback>, patience: Patience) -> Programs {
    Programs::open("press", &directory.path().join("daemon"), dial.clone(), 8443, 5, patience).unwrap()
}

/// A file with these bytes.
pub fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}
