//! Serial ports of the host, handed to vPLCs: found by the name that does not change, watched without polling, one owner each.
//!
//! A port is named by its link in `/dev/serial/by-id`, exactly. The links are made by udev after it has dealt with a device, so they,
//! and not the events of the kernel, are what is watched: with inotify, which also works where the events of udev do not come, as in
//! network namespaces and with other device managers.
//!
//! # Where the nodes are
//!
//! The `/dev` of a container exists only once its first process runs, which is too late for a PLC that opens its ports at once. So the
//! nodes are in a directory of their own, [`DIRECTORY`], which is a `tmpfs` that the engine mounts into the holder and into the
//! runtime: it is there while the holder runs, so before the runtime is started, and it outlives restarts of the runtime. What
//! was made of other ways is in `docs/vplc-programs.md`.
//!
//! # What a vPLC may open
//!
//! The filter for devices of a container is a program in the kernel that is fixed when the container is made, and an adapter that is
//! plugged in again may have another number. A filter for exactly one number would need another container then, which means a PLC that
//! stops. So the filter lets the kind of device pass ([`device_rules`]), without the right to make nodes (`m`), and the container
//! gets no `CAP_MKNOD`: what it can open is what has a node, and the nodes are made and removed by the daemon, one for each port that
//! the vPLC owns. The image must not bring nodes of its own, which is one more reason to pin it.

mod claims;
mod node;
mod ports;
mod watch;

pub use claims::Claims;
pub use node::Nodes;
pub use ports::{Device, Port, Ports};
pub use watch::follow;

use std::io;

use super::spec::SerialPort;
use crate::core::error::{Error, Kind};

/// Where a vPLC finds its serial ports.
pub const DIRECTORY: &str = "/dev/serial";

/// What can be wrong with a serial port.
#[derive(Debug, thiserror::Error)]
pub enum SerialError {
    /// It cannot be the name of a port.
    #[error(
        "\"{0}\" is no name of a serial port: it is to be one that stands in \"/dev/serial/by-id\", without a path."
    )]
    Name(String),
    /// Somebody else has it.
    #[error("The serial port \"{port}\" belongs to the vPLC \"{owner}\", and is not shared by both.")]
    InUse {
        /// The port.
        port: String,
        /// Who has it.
        owner: String,
    },
    /// Something is in the way of a node.
    #[error("The serial port cannot be put at \"{0}\" of the vPLC: there is something that is not ours.")]
    InTheWay(String),
    /// There is no place for nodes.
    #[error("The container engine has not mounted a \"{DIRECTORY}\" of its own for the vPLC.")]
    NoDirectory,
    /// A node would not work.
    #[error(
        "The container engine has mounted \"{DIRECTORY}\" of the vPLC so that devices in it cannot be opened (nodev)."
    )]
    NoDevices,
    /// The node cannot be made or removed.
    #[error("The node \"{path}\" of the vPLC cannot be changed: {source}.")]
    Node {
        /// Where it is to be.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl From<SerialError> for Error {
    fn from(error: SerialError) -> Self {
        let kind = match error {
            SerialError::Name(_) => Kind::InvalidVplc,
            SerialError::InUse { .. } => Kind::SerialPortInUse,
            SerialError::InTheWay(_) | SerialError::NoDirectory | SerialError::NoDevices => Kind::NotSupported,
            SerialError::Node { .. } => Kind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

/// How a port of a vPLC is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    /// What the specification says.
    pub port: SerialPort,
    /// Its node on the host; empty while it is not plugged in.
    pub device: String,
    /// The runtime runs and has the node.
    pub connected: bool,
    /// Why it does not have it although the port is plugged in; empty if it has, or does not run.
    pub error: String,
}

impl PortStatus {
    /// A port that was not seen.
    pub fn unplugged(port: SerialPort) -> Self {
        Self { port, device: String::new(), connected: false, error: String::new() }
    }
}

/// Majors of the adapters that udev makes names for: `ttyACM` and `ttyUSB` (`Documentation/admin-guide/devices.txt` of the kernel).
const USB_MAJORS: [u32; 2] = [166, 188];

/// The rules for the filter of a container that has these ports, in the form of the option `--device-cgroup-rule`: the kinds of USB
/// adapters, and exactly the devices of other kinds. None for a vPLC without ports.
pub fn device_rules<'p>(ports: impl IntoIterator<Item = Option<&'p Port>>) -> Vec<String> {
    let ports: Vec<Option<&Port>> = ports.into_iter().collect();
    if ports.is_empty() {
        return Vec::new();
    }
    let mut rules: Vec<String> = USB_MAJORS.iter().map(|major| format!("c {major}:* rw")).collect();
    for Device { major, minor } in ports.into_iter().flatten().map(|port| port.device) {
        let rule = format!("c {major}:{minor} rw");
        if !USB_MAJORS.contains(&major) && !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

#[cfg(test)]
mod tests;
