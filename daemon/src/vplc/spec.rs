//! What a vPLC is to be: a YAML document of the kind `vplc`.

mod difference;
mod edit;
mod parts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

pub use self::difference::Change;
pub(crate) use self::edit::with_image;
pub use self::parts::{
    Health, Image, Logs, NicSection, Policy, ProgramSection, Pull, RealTime, Restart, SerialPort, Unhealthy,
};
use super::nics::CheckNic;
use crate::core::document::{Document, DocumentError, DocumentKind, Field, Section, Warnings};

/// Characters of a name: those of container names, with room for what is put before it.
const NAME_LIMIT: usize = 63;
/// NICs, serial ports, capabilities.
const PARTS_LIMIT: usize = 64;
/// Environment variables, words of a command.
const WORDS_LIMIT: usize = 256;
/// Bytes of one of them.
const WORD_LIMIT: usize = 4096;
/// How long a check of health that comes with an image may take to say that the runtime is healthy.
const IMAGE_HEALTH_LIMIT: Duration = Duration::from_mins(10);
/// What a runtime may do if the specification does not say: what it needs to drop its own rights, and to listen on the ports
/// of Modbus, S7 and OPC UA.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_BIND_SERVICE", "SETGID", "SETUID"];
/// The capabilities of `capabilities(7)` that give away the host; whoever needs those does not want a container.
const FORBIDDEN: [&str; 6] = ["ALL", "SYS_MODULE", "SYS_RAWIO", "SYS_ADMIN", "SYS_BOOT", "MAC_ADMIN"];

/// Whether a vPLC is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// It is.
    Running,
    /// It is not.
    Stopped,
}

impl Desired {
    /// The word in the specification and on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// A vPLC as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub image: Image,
    /// What the runtime is started with, in place of what the image says.
    pub command: Vec<String>,
    /// Its NICs.
    pub nics: Vec<NicSection>,
    /// Its serial ports.
    pub serial: Vec<SerialPort>,
    /// Its PLC programs, if the daemon looks after them.
    pub program: Option<ProgramSection>,
    /// Where in the runtime the volume is mounted that outlives it.
    pub data: Option<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Processors that it may use, such as `2-3`.
    pub cpuset: Option<String>,
    /// Bytes of memory that it may use.
    pub memory: Option<u64>,
    /// Processes and threads that it may have.
    pub pids: Option<u32>,
    /// Real-time limits.
    pub real_time: Option<RealTime>,
    /// What it may do beyond what everybody may (`capabilities(7)`, without `CAP_`).
    pub capabilities: BTreeSet<String>,
    /// Whether its root file system is read-only.
    pub read_only_root: bool,
    /// How much of its output is kept.
    pub logs: Logs,
    /// At the start of the daemon, lower numbers come before higher ones.
    pub start_order: u32,
    /// Whether it is to run; if nothing is said, what an operator wanted last stays.
    pub state: Option<Desired>,
    /// How long it may take to stop before it is killed.
    pub stop_grace: Duration,
    /// What happens if it ends by itself.
    pub restart: Restart,
    /// How it is found out whether it is well.
    pub health: Option<Health>,
}

impl Spec {
    /// Reads a specification. Unknown keys are refused: a mistyped limit must not be no limit.
    pub(crate) fn parse(text: &str, check_nic: CheckNic) -> Result<Self, DocumentError> {
        let mut warnings = Warnings::default();
        Document::new("vplc", text).load(DocumentKind::Vplc, &mut warnings, |section, _| {
            let spec = Self::read(section, check_nic)?;
            section.refuse_unknown_keys()?;
            Ok(spec)
        })
    }

    fn read(section: &mut Section<'_>, check_nic: CheckNic) -> Result<Self, DocumentError> {
        section.required("api_version")?.constant("orchestrator/v1")?;
        section.required("kind")?.constant("vplc")?;
        let spec = Self {
            name: name(&section.required("name")?)?,
            image: Image::read(section.required("image")?)?,
            command: section.optional("command").map_or(Ok(Vec::new()), |field| words(&field))?,
            nics: section.optional("nics").map_or(Ok(Vec::new()), |field| parts::nics(&field, check_nic))?,
            serial: section.optional("serial").map_or(Ok(Vec::new()), |field| parts::serial(&field))?,
            program: section.optional("program").map(ProgramSection::read).transpose()?,
            data: section.optional("data").map(|field| parts::data(field)).transpose()?,
            environment: section.optional("environment").map_or(Ok(BTreeMap::new()), environment)?,
            cpuset: section.optional("cpuset").map(|field| cpuset(&field)).transpose()?,
            memory: section.optional("memory").map(|field| size(&field, 6 << 20..=1 << 46)).transpose()?,
            pids: section.optional("pids").map(|field| field.integer(1..=4_194_304)).transpose()?,
            real_time: section.optional("real_time").map(RealTime::read).transpose()?,
            capabilities: section
                .optional("capabilities")
                .map_or_else(|| Ok(default_capabilities()), |field| capabilities(&field))?,
            read_only_root: section.optional("read_only_root").map_or(Ok(false), |field| field.boolean())?,
            logs: section.optional("logs").map_or(Ok(Logs::default()), Logs::read)?,
            start_order: section.optional("start_order").map_or(Ok(100), |field| field.integer(0..=1000))?,
            state: section.optional("state").map(|field| state(&field)).transpose()?,
            // The runtime writes its retained variables when it is asked to end, and takes up to 30 s for it.
            stop_grace: section.optional("stop_grace").map_or(Ok(Duration::from_secs(30)), |field| {
                field.integer(30..=3600).map(|seconds| Duration::from_secs(seconds.into()))
            })?,
            restart: section.optional("restart").map_or(Ok(Restart::default()), Restart::read)?,
            health: section.optional("health").map(Health::read).transpose()?,
        };
        if !spec.serial.is_empty() && spec.capabilities.contains("MKNOD") {
            let field = section.required("capabilities")?;
            return Err(
                field.invalid("must be without \"MKNOD\" for a vPLC with serial ports: it could take those of others.")
            );
        }
        Ok(spec)
    }

    /// How long it may take from the start of a runtime until it is healthy: until its check has failed for the last time, and a
    /// minute. What the check of an image asks for is not known here.
    pub fn health_limit(&self) -> Duration {
        self.health.as_ref().map_or(IMAGE_HEALTH_LIMIT, |health| {
            health.start_period + (health.interval + health.timeout) * health.retries + Duration::from_mins(1)
        })
    }

    /// Whether the containers of the one can stay those of the other. NICs can be changed under a running runtime, and what
    /// the daemon itself goes by does not concern them. A runtime that is to get programs is made anew: it has to be claimed
    /// before it is on the network.
    pub fn same_containers(&self, other: &Self) -> bool {
        let bare = |spec: &Self| Self {
            nics: Vec::new(),
            start_order: 0,
            state: None,
            stop_grace: Duration::ZERO,
            restart: Restart::default(),
            program: spec.program.as_ref().map(|program| ProgramSection { keep: 0, ..program.clone() }),
            health: spec.health.as_ref().map(|health| Health { on_unhealthy: Unhealthy::Report, ..health.clone() }),
            image: Image { pull: Pull::Missing, ..spec.image.clone() },
            ..spec.clone()
        };
        bare(self) == bare(other)
    }
}

fn name(field: &Field<'_>) -> Result<String, DocumentError> {
    let name = field.name(NAME_LIMIT)?;
    let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '-');
    if !name.chars().all(plain) || !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err(
            field.invalid("must consist of letters, digits, \"_\", \".\" and \"-\", and begin with a letter or digit.")
        );
    }
    Ok(name.to_owned())
}

fn state(field: &Field<'_>) -> Result<Desired, DocumentError> {
    match field.text()? {
        "running" => Ok(Desired::Running),
        "stopped" => Ok(Desired::Stopped),
        _ => Err(field.invalid("must be \"running\" or \"stopped\".")),
    }
}

/// One word of a command or the value of a variable: anything a process can be given.
fn word(field: &Field<'_>) -> Result<String, DocumentError> {
    let text = field.text()?;
    if text.len() > WORD_LIMIT {
        return Err(field.invalid(format!("is longer than {WORD_LIMIT} bytes.")));
    }
    Ok(text.to_owned())
}

fn words(field: &Field<'_>) -> Result<Vec<String>, DocumentError> {
    let words = field.list(WORDS_LIMIT)?.iter().map(word).collect::<Result<Vec<_>, _>>()?;
    if words.first().is_none_or(String::is_empty) {
        return Err(field.invalid("must begin with a program."));
    }
    Ok(words)
}

fn environment(field: Field<'_>) -> Result<BTreeMap<String, String>, DocumentError> {
    let place = field.place();
    let entries = field.section()?.all();
    if entries.len() > WORDS_LIMIT {
        return Err(place.invalid(format!("has {} entries; at most {WORDS_LIMIT} are allowed.", entries.len())));
    }
    let mut variables = BTreeMap::new();
    for (key, field) in entries {
        let first = key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !first
            || key.len() > 256
            || !key.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
        {
            return Err(field.invalid_key("is no name of a variable: letters, digits and \"_\" only, no digit first."));
        }
        variables.insert(key.to_owned(), word(&field)?);
    }
    Ok(variables)
}

/// A list of processors as `cpuset(7)` has it.
fn cpuset(field: &Field<'_>) -> Result<String, DocumentError> {
    let text = field.text()?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number < 4096 && !text.starts_with('+'));
    let valid = |part: &str| match part.split_once('-') {
        Some((low, high)) => matches!((number(low), number(high)), (Some(low), Some(high)) if low <= high),
        None => number(part).is_some(),
    };
    if text.len() > 256 || !text.split(',').all(valid) {
        return Err(field.invalid("must be a list of processors, such as \"2-3\" or \"1,3\"."));
    }
    Ok(text.to_owned())
}

/// A number of bytes, with K, M or G (of 1024) behind it or not.
fn size(field: &Field<'_>, range: RangeInclusive<u64>) -> Result<u64, DocumentError> {
    let text = field.text()?;
    let (digits, factor) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) if text.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (text, 1_u64),
    };
    let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let bytes = number.and_then(|digits| digits.parse::<u64>().ok()).and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        field.invalid(format!("must be a size such as \"512M\", from {low} to {high} bytes."))
    })
}

fn default_capabilities() -> BTreeSet<String> {
    CAPABILITIES.iter().map(ToString::to_string).collect()
}

fn capabilities(field: &Field<'_>) -> Result<BTreeSet<String>, DocumentError> {
    let mut capabilities = BTreeSet::new();
    for field in field.list(PARTS_LIMIT)? {
        let name = field.name(32)?;
        if !name.chars().all(|character| character.is_ascii_uppercase() || character == '_') || name.starts_with("CAP_")
        {
            return Err(field.invalid("must be a capability in capitals without \"CAP_\", such as \"NET_RAW\"."));
        }
        if FORBIDDEN.contains(&name) {
            return Err(field.invalid("would give the vPLC power over the host, and is not given to any."));
        }
        capabilities.insert(name.to_owned());
    }
    Ok(capabilities)
}

/// An absolute path inside a container, without `.` and `..`, and not its root.
fn inner_path(field: &Field<'_>) -> Result<String, DocumentError> {
    let path = field.name(WORD_LIMIT)?;
    let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(sound)) || path.contains(':') {
        return Err(field.invalid("must be an absolute path without \".\", \"..\" and \":\"."));
    }
    Ok(path.to_owned())
}
