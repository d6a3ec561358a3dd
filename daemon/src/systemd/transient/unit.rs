//! What a call looks like to systemd, and what systemd says about its end.

use std::time::Duration;

use zbus::Fd;

use super::super::manager::{Property, unit_path};
use super::spool::Inlets;
use crate::update::runner::{Call, Exit, KILL_GRACE, TAG_VARIABLE};

/// The slice with all calls: `systemctl status orchestrator.slice` shows what runs.
const SLICE: &str = "orchestrator.slice";
/// Exit statuses that systemd itself gives a process it cannot turn into the program (`systemd.exec(5)`).
const SYSTEMD_STATUSES: std::ops::RangeInclusive<i32> = 200..=245;
/// Real-time signals end here.
const LAST_SIGNAL: i32 = 64;

const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;

/// Variables that the init system sets for the daemon alone. Programs inherit all others, as those of Mender
/// Orchestrator do; these would make a program speak for the daemon, or name directories that it cannot see from
/// outside the daemon's sandbox.
const PRIVATE_VARIABLES: [&str; 21] = [
    "CACHE_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LOGS_DIRECTORY",
    "MAINPID",
    "MALLOC_MMAP_THRESHOLD_",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    TAG_VARIABLE,
];

/// The unit of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) tag: String,
    pub(super) name: String,
    pub(super) path: String,
}

impl Unit {
    pub(super) fn of(tag: &str) -> Self {
        let name = format!("orchestrator-call-{tag}.service");
        let path = unit_path(&name);
        Self { tag: tag.to_owned(), name, path }
    }
}

/// The daemon's own variables as systemd takes them: `NAME=value`, each name and value such that it does not refuse all
/// of them (a shell can export names like `BASH_FUNC_x%%`).
pub(super) fn environment(variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let plain = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
    };
    let printable = |value: &str| value.chars().all(|character| !character.is_control() || "\t\n".contains(character));
    variables
        .filter(|(name, value)| plain(name) && printable(value) && !PRIVATE_VARIABLES.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The properties of the unit.
///
/// `Type=exec`, not `oneshot`: the start job is over once the program runs. A job that stays for hours would hold up
/// every other unit ordered after it, first of all the restart of the daemon (see `Before`).
pub(super) fn properties<'a>(
    call: &'a Call,
    inlets: &'a Inlets,
    environment: &[String],
    daemon: Option<&'a str>,
) -> Vec<Property<'a>> {
    let program = call.program.to_string_lossy().into_owned();
    let words: Vec<String> = std::iter::once(&program).chain(&call.arguments).map(|word| literal(word)).collect();
    let mut environment = environment.to_vec();
    environment.push(format!("{TAG_VARIABLE}={}", call.tag));
    // Whatever the program's end, the unit stays "active (exited)": so systemd keeps its output for us, and the
    // machine does not count as degraded because an update was refused. Statuses of systemd's own are left out, for
    // a program that never ran has to fail the unit.
    let statuses: Vec<i32> = (1..=255).filter(|status| !SYSTEMD_STATUSES.contains(status)).collect();
    let signals: Vec<i32> = (1..=LAST_SIGNAL).collect();
    let mut properties: Vec<Property<'a>> = vec![
        ("Description", format!("{} of {}", call.word, call.component).into()),
        ("Type", "exec".into()),
        ("Slice", SLICE.into()),
        // Not `ExecStartEx` with "no-env-expand": systemd cannot read that again when it reloads its units.
        ("ExecStart", vec![(program, words, false)].into()),
        ("WorkingDirectory", call.directory.to_string_lossy().into_owned().into()),
        ("Environment", environment.into()),
        ("StandardInput", "null".into()),
        ("StandardOutputFileDescriptor", Fd::from(&inlets.stdout).into()),
        ("StandardErrorFileDescriptor", Fd::from(&inlets.stderr).into()),
        // No `LogExtraFields`: systemd (252 at least) writes them to `/run/systemd/units/log-extra-fields:UNIT` and removes
        // another name when the unit ends, so each call would leave a file in memory until the next boot. Component and
        // state are fields of the lines that the daemon writes, and words of the description, which systemd logs.
        // As for a plain process: who writes to a reader that is gone ends, without a word on standard error.
        ("IgnoreSIGPIPE", false.into()),
        ("KillMode", "control-group".into()),
        ("SendSIGKILL", true.into()),
        ("TimeoutStartUSec", microseconds(call.timeout).into()),
        ("RuntimeMaxUSec", microseconds(call.timeout).into()),
        ("TimeoutStopUSec", microseconds(KILL_GRACE).into()),
        ("RemainAfterExit", true.into()),
        ("SuccessExitStatus", (statuses, signals).into()),
    ];
    if let Some(daemon) = daemon {
        // At shutdown the order is reversed: the daemon ends first and does not take the end of its calls for failures.
        properties.push(("Before", vec![daemon].into()));
    }
    properties
}

/// A word that systemd passes on as it was: it replaces `$NAME` and `${NAME}`, and `$$` by `$`.
///
/// One case is left where a word changes: systemd 252 escapes `$`, `;` and the like when it writes a unit down and does
/// not know these escapes when it reads them. If it reloads its units after it accepted a call and before it started it
/// (a matter of milliseconds), such a word arrives with backslashes. Words without shell characters are safe.
fn literal(word: &str) -> String {
    word.replace('$', "$$")
}

/// Never 0, which means "no limit" to systemd.
fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX - 1).clamp(1, u64::MAX - 1)
}

/// Where the unit is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not loaded, or stopped and about to be unloaded.
    Gone,
    /// Something of it runs, or may run yet.
    Alive,
    /// The program has ended; processes that it left behind may still run.
    Exited,
    /// Ended, and everything with it.
    Failed,
}

impl Phase {
    /// From the unit's `SubState`.
    pub(super) fn of(state: &str) -> Self {
        match state {
            "dead" => Self::Gone,
            "exited" => Self::Exited,
            "failed" => Self::Failed,
            _ => Self::Alive,
        }
    }
}

/// What systemd says about the end of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `Result` of the service.
    pub(super) result: String,
    /// `ExecMainCode`: how the program ended, 0 if it never ran.
    pub(super) code: i32,
    /// `ExecMainStatus`: its exit status or the signal.
    pub(super) status: i32,
    /// Whether the unit was ever up, in other words whether systemd saw the program run.
    pub(super) ran: bool,
}

impl Outcome {
    /// How the call ended; or why the program did not start.
    pub(super) fn exit(&self) -> Result<Exit, String> {
        match (self.result.as_str(), self.code) {
            ("timeout", _) => Ok(Exit::TimedOut),
            (_, CLD_EXITED) if !self.ran && SYSTEMD_STATUSES.contains(&self.status) => {
                Err(format!("systemd gave up with status {}", status_name(self.status)))
            }
            (_, CLD_EXITED) => Ok(Exit::Code(self.status)),
            (_, CLD_KILLED | CLD_DUMPED) => Ok(Exit::Signal(self.status)),
            (result, _) => Err(format!("systemd gave up with result \"{result}\"")),
        }
    }
}

/// The statuses that a wrong call brings about, with systemd's names for them.
fn status_name(status: i32) -> String {
    match status {
        200 => "200/CHDIR (no such working directory)".to_owned(),
        202 => "202/FDS".to_owned(),
        203 => "203/EXEC (no such program, or not executable)".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
