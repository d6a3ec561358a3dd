//! What stands in for `plc_main`: a program that is compiled, started, stopped, and that misbehaves on request.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

/// Number of the program, scans, starts.
pub type Registers = [u16; 3];
/// So many ends of `plc_main` within [`CRASH_WINDOW`], and it is started without a program.
const CRASHES: usize = 3;
const CRASH_WINDOW: Duration = Duration::from_secs(30);
const SCAN: Duration = Duration::from_millis(10);

/// How a program behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// As it should.
    #[default]
    Good,
    /// `refuse`: the upload is refused.
    Refuse,
    /// `compile-error`: it does not compile.
    CompileError,
    /// `compile-hang`: the compilation has no end.
    CompileHang,
    /// `never-running`: its start ends in ERROR.
    NeverRunning,
    /// `error-soon`: it runs for as long as the pace, and is in ERROR then.
    ErrorSoon,
    /// `crash`: it takes `plc_main` with it, each time.
    Crash,
    /// `exit`: it takes the whole runtime with it, which ends with code 3.
    Exit,
}

impl Behaviour {
    fn of(word: &str) -> Self {
        match word {
            "" | "good" => Self::Good,
            "refuse" => Self::Refuse,
            "compile-error" => Self::CompileError,
            "compile-hang" => Self::CompileHang,
            "never-running" => Self::NeverRunning,
            "error-soon" => Self::ErrorSoon,
            "crash" => Self::Crash,
            "exit" => Self::Exit,
            other => panic!("stub.json has the unknown behaviour \"{other}\""),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Program {
    number: u16,
    behaviour: Behaviour,
}

impl Program {
    fn read(value: &Value) -> Self {
        let number = value["number"].as_u64().and_then(|number| number.try_into().ok()).unwrap_or(0);
        Self { number, behaviour: Behaviour::of(value["behaviour"].as_str().unwrap_or_default()) }
    }
}

struct State {
    plc: &'static str,
    compilation: &'static str,
    log: Vec<String>,
    exit_code: Option<i32>,
    crashes: Vec<Instant>,
    began: Option<Instant>,
    starts: u16,
}

struct Inner {
    state: Mutex<State>,
    running: watch::Sender<Option<u16>>,
    work: PathBuf,
    pace: Duration,
}

/// The PLC.
#[derive(Clone)]
pub struct Plc(Arc<Inner>);

impl Plc {
    pub fn new(work: &Path, pace: Duration) -> Self {
        let state = State {
            plc: "EMPTY",
            compilation: "IDLE",
            log: Vec::new(),
            exit_code: None,
            crashes: Vec::new(),
            began: None,
            starts: 0,
        };
        let (running, _) = watch::channel(None);
        Self(Arc::new(Inner { state: Mutex::new(state), running, work: work.to_owned(), pace }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn built(&self) -> PathBuf {
        self.0.work.join("libplc.json")
    }

    fn program(&self) -> Option<Program> {
        let text = std::fs::read(self.built()).ok()?;
        serde_json::from_slice(&text).ok().map(|value| Program::read(&value))
    }

    /// The number of the program that runs.
    pub fn running(&self) -> watch::Receiver<Option<u16>> {
        self.0.running.subscribe()
    }

    pub fn registers(&self) -> Registers {
        let number = self.0.running.borrow().unwrap_or(0);
        let state = self.state();
        let scans = state.began.map_or(0, |began| began.elapsed().as_millis() / SCAN.as_millis());
        [number, u16::try_from(scans % 65_536).unwrap(), state.starts]
    }

    /// The figures of the one task: it was late as often as the number of the program says.
    pub fn statistics(&self) -> Value {
        let [number, scans, _] = self.registers();
        let tasks = [json!({"name": "main", "scan_count": scans, "scan_time_max": 12, "overruns": number})];
        json!({ "tasks": tasks.as_slice().get(..usize::from(number > 0)) })
    }

    /// What `plc_main` does when it is started: a program that is there runs.
    pub fn boot(&self) {
        if self.program().is_some() {
            self.state().plc = "STOPPED";
            self.start();
        }
    }

    pub fn status(&self) -> &'static str {
        self.state().plc
    }

    pub fn start(&self) -> &'static str {
        let mut state = self.state();
        match state.plc {
            "RUNNING" => return "START:ERROR_ALREADY_RUNNING\n",
            "TRANSITIONING" | "gone" => return "COMMAND:BUSY\n",
            _ => {}
        }
        let Some(program) = self.program() else { return "START:ERROR\n" };
        state.plc = "TRANSITIONING";
        drop(state);
        tokio::spawn(self.clone().run(program));
        "START:OK\n"
    }

    async fn run(self, program: Program) {
        sleep(self.0.pace).await;
        if program.behaviour == Behaviour::NeverRunning {
            self.state().plc = "ERROR";
            return;
        }
        {
            let mut state = self.state();
            state.plc = "RUNNING";
            state.began = Some(Instant::now());
            state.starts += 1;
        }
        self.0.running.send_replace(Some(program.number));
        if program.behaviour == Behaviour::Good {
            return;
        }
        sleep(self.0.pace).await;
        if self.status() != "RUNNING" {
            return;
        }
        self.0.running.send_replace(None);
        self.state().began = None;
        match program.behaviour {
            Behaviour::Exit => {
                eprintln!("stub-runtime: the program takes the runtime with it");
                std::process::exit(3);
            }
            Behaviour::Crash => {
                let safe = {
                    let mut state = self.state();
                    state.plc = "gone";
                    let now = Instant::now();
                    state.crashes.retain(|crash| now.duration_since(*crash) < CRASH_WINDOW);
                    state.crashes.push(now);
                    state.crashes.len() >= CRASHES
                };
                sleep(self.0.pace).await;
                self.state().plc = if safe { "EMPTY" } else { "STOPPED" };
                if !safe {
                    self.start();
                }
            }
            _ => self.state().plc = "ERROR",
        }
    }

    pub fn stop(&self) -> &'static str {
        let mut state = self.state();
        match state.plc {
            "TRANSITIONING" | "gone" => "COMMAND:BUSY\n",
            "RUNNING" => {
                state.plc = "STOPPED";
                state.began = None;
                drop(state);
                self.0.running.send_replace(None);
                "STOP:OK\n"
            }
            _ => "STOP:ERROR\n",
        }
    }

    pub fn compilation(&self) -> Value {
        let state = self.state();
        json!({"status": state.compilation, "logs": state.log, "exit_code": state.exit_code})
    }

    /// Takes a program and begins to compile it; the reason if it does not.
    pub fn upload(&self, archive: &[u8]) -> Result<(), String> {
        if matches!(self.state().compilation, "UNZIPPING" | "COMPILING") {
            return Err("Runtime is compiling another program, please wait".to_owned());
        }
        let mut archive = zip::ZipArchive::new(Cursor::new(archive)).map_err(|_| "not a valid zip".to_owned())?;
        let mut text = String::new();
        if let Ok(mut file) = archive.by_name("stub.json") {
            file.read_to_string(&mut text).map_err(|_| "stub.json is no text".to_owned())?;
        }
        let value: Value = if text.is_empty() { json!({}) } else { serde_json::from_str(&text).unwrap_or_default() };
        let program = Program::read(&value);
        if program.behaviour == Behaviour::Refuse {
            return Err("Uploaded ZIP file failed safety checks".to_owned());
        }
        self.stop();
        // The real one removes the old program before there is a new one.
        drop(std::fs::remove_file(self.built()));
        {
            let mut state = self.state();
            state.compilation = "COMPILING";
            state.log = vec!["[INFO] Starting compilation".to_owned()];
            state.exit_code = None;
        }
        tokio::spawn(self.clone().compile(program, text));
        Ok(())
    }

    async fn compile(self, program: Program, text: String) {
        for step in 1..=4 {
            sleep(self.0.pace / 4).await;
            self.state().log.push(format!("[INFO] g++ unit {step} of 4"));
        }
        if program.behaviour == Behaviour::CompileHang {
            return;
        }
        while self.status() == "TRANSITIONING" {
            sleep(self.0.pace).await;
        }
        self.stop();
        let failed = program.behaviour == Behaviour::CompileError || crate::variable("STUB_COMPILE", "") == "fail";
        if !failed {
            std::fs::write(self.built(), if text.is_empty() { "{}" } else { &text }).expect("the program is kept");
        }
        let mut state = self.state();
        state.plc = if failed { "EMPTY" } else { "STOPPED" };
        state.crashes.clear();
        state.exit_code = Some(i32::from(failed));
        state.compilation = if failed { "FAILED" } else { "SUCCESS" };
        let last = if failed { "[ERROR] main.cpp:7: 'x' was not declared" } else { "[INFO] Compilation done" };
        state.log.push(last.to_owned());
    }
}
