//! The sections of a specification.

use std::time::Duration;

use super::{PARTS_LIMIT, inner_path, size, words};
use crate::core::document::{DocumentError, Field, Section};
use crate::vplc::nics::CheckNic;
use crate::vplc::program::runtime::PORT;
use crate::vplc::serial::DIRECTORY;

/// Bytes of the name of a serial port in a vPLC.
const NODE_LIMIT: usize = 200;

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// If it is not here.
    #[default]
    Missing,
    /// At each Apply.
    Always,
    /// Never: it was loaded, or is in error.
    Never,
}

/// What a vPLC runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// A name with a tag or digest, as registries know it.
    pub reference: String,
    /// When it is fetched.
    pub pull: Pull,
}

impl Image {
    pub(super) fn read(field: Field<'_>) -> Result<Self, DocumentError> {
        let mut section = field.section()?;
        let field = section.required("reference")?;
        let reference = field.name(512)?;
        let plain = |character: char| character.is_ascii_alphanumeric() || "._-/:@".contains(character);
        let named = reference.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        if !reference.chars().all(plain)
            || !reference.starts_with(|first: char| first.is_ascii_alphanumeric())
            || !named
        {
            return Err(
                field.invalid("must be an image with its tag or digest, such as \"registry.example.com/plc:4.1.5\".")
            );
        }
        let pull = match section.optional("pull") {
            None => Pull::default(),
            Some(field) => match field.text()? {
                "missing" => Pull::Missing,
                "always" => Pull::Always,
                "never" => Pull::Never,
                _ => return Err(field.invalid("must be \"missing\", \"always\" or \"never\".")),
            },
        };
        section.refuse_unknown_keys()?;
        Ok(Self { reference: reference.to_owned(), pull })
    }
}

/// A NIC, as far as it concerns its vPLC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSection {
    /// Its name.
    pub name: String,
    /// The entries of its section, as one line of YAML without braces.
    pub text: String,
}

pub(super) fn nics(field: &Field<'_>, check: CheckNic) -> Result<Vec<NicSection>, DocumentError> {
    let mut nics: Vec<NicSection> = Vec::new();
    for field in field.list(PARTS_LIMIT)? {
        let place = field.place();
        let mut section = field.section()?;
        let name = check(&mut section)?;
        if nics.iter().any(|nic| nic.name == name) {
            return Err(place.invalid(format!("has the name \"{name}\", which another NIC of the vPLC has.")));
        }
        nics.push(NicSection { name, text: section.flow() });
    }
    Ok(nics)
}

/// The PLC programs of a vPLC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSection {
    /// Port of the runtime's REST interface.
    pub port: u16,
    /// Versions that are kept at least.
    pub keep: usize,
}

impl ProgramSection {
    pub(super) fn read(field: Field<'_>) -> Result<Self, DocumentError> {
        let mut section = field.section()?;
        let port = section.optional("port").map_or(Ok(PORT.into()), |field| field.integer(1..=65_535))?;
        let keep = section.optional("keep").map_or(Ok(5), |field| field.integer(2..=100))?;
        section.refuse_unknown_keys()?;
        // Both fit: they were just bounded.
        Ok(Self { port: u16::try_from(port).unwrap_or(PORT), keep: usize::try_from(keep).unwrap_or(usize::MAX) })
    }
}

/// A serial port of the host that a vPLC gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPort {
    /// Its name below `/dev/serial/by-id`.
    pub device: String,
    /// Where it is in the vPLC, in the directory for serial ports.
    pub path: String,
    /// Whether other vPLCs may have it, too.
    pub shared: bool,
}

impl SerialPort {
    /// Its name in the directory for serial ports.
    pub fn node(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

pub(super) fn serial(field: &Field<'_>) -> Result<Vec<SerialPort>, DocumentError> {
    let mut ports: Vec<SerialPort> = Vec::new();
    for field in field.list(PARTS_LIMIT)? {
        let mut section = field.section()?;
        let field = section.required("device")?;
        let device = field.path_component()?.to_owned();
        if ports.iter().any(|port| port.device == device) {
            return Err(field.invalid("is that of another serial port of the vPLC."));
        }
        let field = section.required("path")?;
        let path = inner_path(&field)?;
        let name = path.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_prefix('/'));
        if !name.is_some_and(|name| !name.contains('/') && !name.starts_with('.') && name.len() <= NODE_LIMIT) {
            return Err(field.invalid(format!("must be a name in \"{DIRECTORY}\", such as \"{DIRECTORY}/modbus\".")));
        }
        if ports.iter().any(|port| port.path == path) {
            return Err(field.invalid("is that of another serial port of the vPLC."));
        }
        let shared = section.optional("shared").map_or(Ok(false), |field| field.boolean())?;
        section.refuse_unknown_keys()?;
        ports.push(SerialPort { device, path, shared });
    }
    Ok(ports)
}

pub(super) fn data(field: Field<'_>) -> Result<String, DocumentError> {
    let mut section = field.section()?;
    let path = inner_path(&section.required("path")?)?;
    section.refuse_unknown_keys()?;
    Ok(path)
}

/// Real-time limits (`getrlimit(2)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealTime {
    /// Highest priority for real-time policies.
    pub priority: u32,
    /// Bytes of memory that may be locked; none is unlimited.
    pub locked_memory: Option<u64>,
}

impl RealTime {
    pub(super) fn read(field: Field<'_>) -> Result<Self, DocumentError> {
        let mut section = field.section()?;
        let priority = section.required("priority")?.integer(1..=99)?;
        let locked_memory = match section.optional("locked_memory") {
            None => None,
            Some(field) if field.text()? == "unlimited" => None,
            Some(field) => Some(size(&field, 1 << 16..=1 << 46)?),
        };
        section.refuse_unknown_keys()?;
        Ok(Self { priority, locked_memory })
    }
}

/// How much of the output of a runtime is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Bytes of one file.
    pub size: u64,
    /// Files.
    pub files: u32,
}

impl Default for Logs {
    fn default() -> Self {
        Self { size: 4 << 20, files: 2 }
    }
}

impl Logs {
    pub(super) fn read(field: Field<'_>) -> Result<Self, DocumentError> {
        let mut section = field.section()?;
        let default = Self::default();
        let logs = Self {
            size: section.optional("size").map_or(Ok(default.size), |field| size(&field, 1 << 16..=1 << 30))?,
            files: section.optional("files").map_or(Ok(default.files), |field| field.integer(1..=100))?,
        };
        section.refuse_unknown_keys()?;
        Ok(logs)
    }
}

/// Which ends are followed by a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Each that nobody asked for.
    #[default]
    Always,
    /// Those with another exit code than 0.
    OnFailure,
    /// None.
    Never,
}

/// What happens when a runtime ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// Which ends are followed by a restart.
    pub policy: Policy,
    /// How many ends within the window are the last straw.
    pub limit: u32,
    /// The window.
    pub window: Duration,
    /// The pause before a restart.
    pub delay: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        let (window, delay) = (Duration::from_mins(10), Duration::from_secs(3));
        Self { policy: Policy::default(), limit: 5, window, delay }
    }
}

impl Restart {
    pub(super) fn read(field: Field<'_>) -> Result<Self, DocumentError> {
        let mut section = field.section()?;
        let default = Self::default();
        let policy = match section.optional("policy") {
            None => default.policy,
            Some(field) => match field.text()? {
                "always" => Policy::Always,
                "on-failure" => Policy::OnFailure,
                "never" => Policy::Never,
                _ => return Err(field.invalid("must be \"always\", \"on-failure\" or \"never\".")),
            },
        };
        let restart = Self {
            policy,
            limit: section.optional("limit").map_or(Ok(default.limit), |field| field.integer(1..=100))?,
            window: seconds(&mut section, "window", 1, 86_400, default.window)?,
            delay: seconds(&mut section, "delay", 0, 3600, default.delay)?,
        };
        section.refuse_unknown_keys()?;
        Ok(restart)
    }
}

/// What follows when a runtime is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unhealthy {
    /// It is shown. A running PLC is not restarted unless somebody said so.
    #[default]
    Report,
    /// The runtime is stopped, and started as if it had ended by itself.
    Restart,
}

/// How it is found out whether a runtime is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Run in the runtime; exit code 0 means that it is well.
    pub command: Vec<String>,
    /// The pause between two runs.
    pub interval: Duration,
    /// How long a run may take.
    pub timeout: Duration,
    /// How many failures in a row make it ill.
    pub retries: u32,
    /// How long after its start failures do not count.
    pub start_period: Duration,
    /// What follows.
    pub on_unhealthy: Unhealthy,
}

impl Health {
    pub(super) fn read(field: Field<'_>) -> Result<Self, DocumentError> {
        let mut section = field.section()?;
        let command = words(&section.required("command")?)?;
        let on_unhealthy = match section.optional("on_unhealthy") {
            None => Unhealthy::default(),
            Some(field) => match field.text()? {
                "report" => Unhealthy::Report,
                "restart" => Unhealthy::Restart,
                _ => return Err(field.invalid("must be \"report\" or \"restart\".")),
            },
        };
        let health = Self {
            command,
            interval: seconds(&mut section, "interval", 1, 3600, Duration::from_secs(30))?,
            timeout: seconds(&mut section, "timeout", 1, 3600, Duration::from_secs(10))?,
            retries: section.optional("retries").map_or(Ok(3), |field| field.integer(1..=100))?,
            start_period: seconds(&mut section, "start_period", 0, 3600, Duration::ZERO)?,
            on_unhealthy,
        };
        section.refuse_unknown_keys()?;
        Ok(health)
    }
}

fn seconds(
    section: &mut Section<'_>,
    key: &str,
    least: u32,
    most: u32,
    default: Duration,
) -> Result<Duration, DocumentError> {
    let Some(field) = section.optional(key) else { return Ok(default) };
    Ok(Duration::from_secs(field.integer(least..=most)?.into()))
}
