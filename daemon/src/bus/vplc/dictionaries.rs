//! What a vPLC shows as dictionaries: programs, serial ports, usage.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use zbus::Variant;

use crate::bus::view::text;
use crate::vplc::program::store::Version;
use crate::vplc::serial::PortStatus;
use crate::vplc::usage::Usage;

/// A version of a program, as it goes over the bus.
pub type Entries = HashMap<String, Variant<'static>>;

fn version(version: &Version) -> Entries {
    let micros = |seconds: u64| seconds.saturating_mul(1_000_000);
    let entries: [(&str, Variant<'static>); 6] = [
        ("number", version.number.into()),
        ("sha256", version.sha256.clone().into()),
        ("size", version.size.into()),
        ("added", micros(version.added).into()),
        ("by", text(version.by.as_str()).into()),
        ("proven", micros(version.proven.unwrap_or_default()).into()),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The program that is on the runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct Program(Option<Version>);

impl Program {
    pub fn new(program: Option<Version>) -> Self {
        Self(program)
    }

    pub fn entries(&self) -> Entries {
        self.0.as_ref().map(version).unwrap_or_default()
    }
}

/// The versions of the program that are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Versions(Arc<[Version]>);

impl Versions {
    pub fn new(versions: Arc<[Version]>) -> Self {
        Self(versions)
    }

    pub fn entries(&self) -> Vec<Entries> {
        self.0.iter().map(version).collect()
    }
}

impl From<Versions> for Variant<'static> {
    fn from(versions: Versions) -> Self {
        versions.entries().into()
    }
}

impl From<Program> for Variant<'static> {
    fn from(program: Program) -> Self {
        program.entries().into()
    }
}

/// The serial ports.
#[derive(Debug, Clone, PartialEq)]
pub struct Serial(Vec<PortStatus>);

impl Serial {
    pub fn new(ports: Vec<PortStatus>) -> Self {
        Self(ports)
    }

    pub fn entries(&self) -> Vec<Entries> {
        let entries = |port: &PortStatus| {
            let entries: [(&str, Variant<'static>); 6] = [
                ("name", text(port.port.device.as_str()).into()),
                ("node", text(port.port.path.as_str()).into()),
                ("shared", port.port.shared.into()),
                ("device", text(port.device.as_str()).into()),
                ("connected", port.connected.into()),
                ("error", text(port.error.as_str()).into()),
            ];
            entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
        };
        self.0.iter().map(entries).collect()
    }
}

impl From<Serial> for Variant<'static> {
    fn from(serial: Serial) -> Self {
        serial.entries().into()
    }
}

/// What a vPLC uses, without what is not known.
pub fn used(usage: &Usage) -> Entries {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let entries: [(&str, Option<Variant<'static>>); 7] = [
        ("cpu", usage.cpu.map(Variant::from)),
        ("cpu-time", usage.reading.cpu.map(|time| micros(time).into())),
        ("memory", usage.reading.memory.map(Variant::from)),
        ("received", usage.reading.received.map(Variant::from)),
        ("sent", usage.reading.sent.map(Variant::from)),
        ("restarts", Some(usage.restarts.into())),
        ("overruns", usage.overruns.map(Variant::from)),
    ];
    entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
