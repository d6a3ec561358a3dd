//! What the runtime says. Refused commands come with the status 200, so the strings in the answers decide; they are those of the
//! runtime 4.1, down to their line ends.

use serde::Serialize;
use serde_json::Value;

/// State of the PLC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlcState {
    /// There is no program.
    Empty,
    /// The program is being set up.
    Init,
    /// The program runs.
    Running,
    /// The program does not run.
    Stopped,
    /// The program has failed.
    Error,
    /// Between two of the others.
    Transitioning,
    /// The runtime says a word that is not known.
    Unknown,
    /// The web server answers, the runtime behind it does not.
    NoResponse,
}

impl PlcState {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Init => "init",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Error => "error",
            Self::Transitioning => "transitioning",
            Self::Unknown => "unknown",
            Self::NoResponse => "no-response",
        }
    }

    /// From `STATUS:RUNNING\n` and the like.
    pub(super) fn parse(status: &str) -> Option<Self> {
        if status.trim() == NO_RESPONSE {
            return Some(Self::NoResponse);
        }
        Some(match status.trim().strip_prefix("STATUS:")? {
            "EMPTY" => Self::Empty,
            "INIT" => Self::Init,
            "RUNNING" => Self::Running,
            "STOPPED" => Self::Stopped,
            "ERROR" => Self::Error,
            "TRANSITIONING" => Self::Transitioning,
            _ => Self::Unknown,
        })
    }
}

/// What the web server says for the runtime behind it.
const NO_RESPONSE: &str = "No response from runtime";

/// How a command was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is done, or begun.
    Ok,
    /// Ask again later.
    Busy,
    /// It is as the command wants it already.
    Already,
    /// Not at all.
    Refused(String),
}

impl Taken {
    /// From `START:OK\n` and the like; `command` is the word before the colon.
    pub(super) fn parse(command: &str, status: &str) -> Self {
        let status = status.trim();
        match status.strip_prefix(command).and_then(|rest| rest.strip_prefix(':')) {
            Some("OK") => Self::Ok,
            Some("ERROR_ALREADY_RUNNING") => Self::Already,
            Some("ERROR_SWITCH_STOP") => Self::Refused("its switch is in the position \"stop\"".to_owned()),
            _ if status == "COMMAND:BUSY" || status == NO_RESPONSE => Self::Busy,
            _ => Self::Refused(format!("it answers \"{}\"", quoted(status))),
        }
    }
}

/// State of the compilation of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compilation {
    /// Where it is.
    pub state: CompilationState,
    /// What the compiler said so far.
    pub log: Vec<String>,
}

/// Where a compilation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompilationState {
    /// There was none since the runtime was started.
    Idle,
    /// Under way.
    Running,
    /// The program is ready to be started.
    Success,
    /// It is not.
    Failed,
}

/// Lines of the compiler's log that are looked at.
const LOG_LINES: usize = 10_000;
/// Characters of one line, or of a word of the runtime, that are passed on.
const LINE_LIMIT: usize = 500;

impl Compilation {
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let state = match value["status"].as_str()? {
            "IDLE" => CompilationState::Idle,
            "UNZIPPING" | "COMPILING" => CompilationState::Running,
            // A compilation that failed after all tells so by its exit code.
            "SUCCESS" if value["exit_code"].as_i64().unwrap_or(0) == 0 => CompilationState::Success,
            "SUCCESS" | "FAILED" => CompilationState::Failed,
            _ => return None,
        };
        let lines = value["logs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let log = lines.iter().take(LOG_LINES).filter_map(Value::as_str).map(quoted).collect();
        Some(Self { state, log })
    }
}

/// Figures of one task of the program, times in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskStatistics {
    /// Name of the task.
    pub name: String,
    /// How often it ran.
    pub scans: u64,
    /// How often it was late.
    pub overruns: u64,
    /// The longest run; `None` before the second one.
    pub scan_time_max: Option<f64>,
    /// The mean of the last runs.
    pub scan_time_average: Option<f64>,
    /// The longest wait of a run for its turn.
    pub latency_max: Option<f64>,
}

/// Tasks that are looked at.
const TASKS: usize = 64;

impl TaskStatistics {
    pub(super) fn parse(value: &Value) -> Vec<Self> {
        let tasks = value["timing_stats"]["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let parse = |task: &Value| Self {
            name: quoted(task["name"].as_str().unwrap_or_default()),
            scans: task["scan_count"].as_u64().unwrap_or(0),
            overruns: task["overruns"].as_u64().unwrap_or(0),
            scan_time_max: task["scan_time_max"].as_f64(),
            scan_time_average: task["scan_time_avg"].as_f64(),
            latency_max: task["cycle_latency_max"].as_f64(),
        };
        tasks.iter().take(TASKS).map(parse).collect()
    }
}

/// The runtime's own words, fit to be shown.
pub(super) fn quoted(text: &str) -> String {
    text.trim_end().chars().filter(|char| !char.is_control() || *char == '\t').take(LINE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_are_understood_with_their_line_ends() {
        for (text, state) in [
            ("STATUS:RUNNING\n", Some(PlcState::Running)),
            ("STATUS:EMPTY\n", Some(PlcState::Empty)),
            ("STATUS:TRANSITIONING\n", Some(PlcState::Transitioning)),
            ("STATUS:DANCING\n", Some(PlcState::Unknown)),
            ("No response from runtime", Some(PlcState::NoResponse)),
            ("RUNNING", None),
            ("", None),
        ] {
            assert_eq!(PlcState::parse(text), state, "{text:?}");
        }
    }

    #[test]
    fn commands_are_refused_with_status_200() {
        for (text, taken) in [
            ("START:OK\n", Taken::Ok),
            ("START:ERROR_ALREADY_RUNNING\n", Taken::Already),
            ("COMMAND:BUSY\n", Taken::Busy),
            ("No response from runtime", Taken::Busy),
            ("START:ERROR\n", Taken::Refused("it answers \"START:ERROR\"".to_owned())),
            ("STOP:OK\n", Taken::Refused("it answers \"STOP:OK\"".to_owned())),
        ] {
            assert_eq!(Taken::parse("START", text), taken, "{text:?}");
        }
        assert!(
            matches!(Taken::parse("START", "START:ERROR_SWITCH_STOP\n"), Taken::Refused(why) if why.contains("switch"))
        );
    }

    #[test]
    fn a_compilation_is_good_only_if_all_says_so() {
        let state = |value| Compilation::parse(&value).map(|compilation| compilation.state);
        assert_eq!(state(json!({"status": "SUCCESS", "exit_code": 0})), Some(CompilationState::Success));
        assert_eq!(state(json!({"status": "SUCCESS", "exit_code": 1})), Some(CompilationState::Failed));
        assert_eq!(state(json!({"status": "UNZIPPING", "exit_code": null})), Some(CompilationState::Running));
        assert_eq!(state(json!({"status": "FAILED", "exit_code": -1})), Some(CompilationState::Failed));
        assert_eq!(state(json!({"status": "COMPILED"})), None);
        assert_eq!(state(json!([])), None);
        let log =
            Compilation::parse(&json!({"status": "IDLE", "logs": ["a\u{1b}[1mb\n", 7, "x".repeat(9999)]})).unwrap().log;
        assert_eq!(log, ["a[1mb".to_owned(), "x".repeat(LINE_LIMIT)]);
    }

    #[test]
    fn figures_may_be_missing() {
        let task =
            json!({"name": "main", "scan_count": 7, "overruns": 1, "scan_time_max": 12.5, "scan_time_avg": null});
        let parsed = TaskStatistics::parse(&json!({"timing_stats": {"tasks": [task]}}));
        assert_eq!((parsed[0].scans, parsed[0].overruns, parsed[0].scan_time_max), (7, 1, Some(12.5)));
        assert_eq!(parsed[0].scan_time_average, None);
        assert!(TaskStatistics::parse(&json!({})).is_empty());
    }
}
