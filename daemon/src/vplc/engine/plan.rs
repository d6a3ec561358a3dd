//! How a container is to be made.

use std::collections::BTreeMap;

use super::Role;
use crate::vplc::spec::{Health, Logs, RealTime, Spec};

/// What the holder runs: the longest sleep that every `sleep` knows. It comes from the image of the vPLC itself, so that a
/// plant without a registry needs no second image.
const HOLDER: [&str; 2] = ["sleep", "2147483647"];

/// A volume and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where in the container.
    pub path: String,
}

/// How a container is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The vPLC.
    pub vplc: String,
    /// What the container is to it.
    pub role: Role,
    /// The generation of the record.
    pub generation: u64,
    /// Id of the image.
    pub image: String,
    /// Replaces the entry point and the command of the image, if there is something in it.
    pub command: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// The volume.
    pub volume: Option<Volume>,
    /// The rules for its filter of devices, if it has the directory for serial ports; none if it has not.
    pub ports: Option<Vec<String>>,
    /// Processors.
    pub cpuset: Option<String>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Real-time limits.
    pub real_time: Option<RealTime>,
    /// Capabilities.
    pub capabilities: Vec<String>,
    /// Whether the root file system is read-only.
    pub read_only_root: bool,
    /// How much output is kept.
    pub logs: Logs,
    /// Seconds that the engine itself waits when it stops the container with the host.
    pub stop_seconds: u64,
    /// How it is found out whether it is well.
    pub health: Option<Health>,
}

impl Plan {
    /// The holder of a vPLC: no rights, hardly any memory, no network but the loopback.
    pub fn holder(spec: &Spec, generation: u64, image: &str) -> Self {
        Self {
            vplc: spec.name.clone(),
            role: Role::Holder,
            generation,
            image: image.to_owned(),
            command: HOLDER.map(ToOwned::to_owned).to_vec(),
            environment: BTreeMap::new(),
            volume: None,
            // The directory is there as long as the holder runs, and so before the runtime is started.
            ports: (!spec.serial.is_empty()).then(Vec::new),
            cpuset: None,
            memory: None,
            pids: Some(8),
            real_time: None,
            capabilities: Vec::new(),
            read_only_root: true,
            logs: Logs { size: 1 << 16, files: 1 },
            stop_seconds: 1,
            health: None,
        }
    }

    /// The runtime of a vPLC, in the network namespace of its holder; `device_rules` are those of [`crate::vplc::serial`].
    pub fn runtime(spec: &Spec, generation: u64, image: &str, device_rules: Vec<String>) -> Self {
        let mut capabilities: Vec<String> = spec.capabilities.iter().cloned().collect();
        // Without it the kernel refuses real-time policies whatever the limits say.
        if spec.real_time.is_some() && !spec.capabilities.contains("SYS_NICE") {
            capabilities.push("SYS_NICE".to_owned());
        }
        Self {
            vplc: spec.name.clone(),
            role: Role::Runtime,
            generation,
            image: image.to_owned(),
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            volume: spec.data.clone().map(|path| Volume { name: super::volume(&spec.name), path }),
            ports: (!spec.serial.is_empty()).then_some(device_rules),
            cpuset: spec.cpuset.clone(),
            memory: spec.memory,
            pids: spec.pids,
            real_time: spec.real_time.clone(),
            capabilities,
            read_only_root: spec.read_only_root,
            logs: spec.logs.clone(),
            stop_seconds: spec.stop_grace.as_secs(),
            health: spec.health.clone(),
        }
    }
}
