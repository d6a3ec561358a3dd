//! The serial ports of the host, by the names that udev gives them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::SerialError;

/// Bytes of a name in a directory.
const NAME_LIMIT: usize = 255;

/// The number of a character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Of its driver.
    pub major: u32,
    /// Of the device.
    pub minor: u32,
}

impl Device {
    /// From the number that the kernel uses.
    pub(super) fn of(number: u64) -> Option<Self> {
        Some(Self { major: major(number).try_into().ok()?, minor: minor(number).try_into().ok()? })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

/// A serial port that is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in `/dev/serial/by-id`.
    pub name: String,
    /// Its node on the host.
    pub path: PathBuf,
    /// Its number.
    pub device: Device,
}

/// The serial ports of the host.
#[derive(Debug, Clone)]
pub struct Ports {
    dev: PathBuf,
}

impl Ports {
    /// The ports below this directory, which is `/dev`.
    pub fn new(dev: &Path) -> Self {
        Self { dev: dev.to_owned() }
    }

    /// The directories on the way to the names, the nearest one last.
    pub(super) fn directories(&self) -> [PathBuf; 3] {
        let serial = self.dev.join("serial");
        let by_id = serial.join("by-id");
        [self.dev.clone(), serial, by_id]
    }

    /// The port with exactly this name; `None` if it is not plugged in.
    pub fn resolve(&self, name: &str) -> Result<Option<Port>, SerialError> {
        check_name(name)?;
        let [.., by_id] = self.directories();
        let link = by_id.join(name);
        // What it leads to has to be a device; a link that leads nowhere is an adapter that is just being pulled.
        let (Ok(path), Ok(metadata)) = (fs::canonicalize(&link), fs::metadata(&link)) else { return Ok(None) };
        let device = metadata.file_type().is_char_device().then(|| Device::of(metadata.rdev())).flatten();
        Ok(device.map(|device| Port { name: name.to_owned(), path, device }))
    }

    /// All ports that are plugged in, by name.
    pub fn list(&self) -> BTreeMap<String, Port> {
        let [.., by_id] = self.directories();
        let Ok(entries) = fs::read_dir(by_id) else { return BTreeMap::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let ports = names.filter_map(|name| self.resolve(&name).ok().flatten());
        ports.map(|port| (port.name.clone(), port)).collect()
    }
}

/// A name is one entry of a directory, and nothing else.
pub(super) fn check_name(name: &str) -> Result<(), SerialError> {
    let bad = name.is_empty() || name.len() > NAME_LIMIT || matches!(name, "." | "..");
    if bad || name.chars().any(|char| char == '/' || char.is_control()) {
        return Err(SerialError::Name(name.chars().filter(|char| !char.is_control()).take(64).collect()));
    }
    Ok(())
}
