//! What differs between two specifications, for people.

use std::collections::BTreeMap;

use super::Spec;

/// A setting that is another one afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key in the specification.
    pub key: String,
    /// What it is now; empty if it is not there.
    pub from: String,
    /// What it becomes; empty if it goes.
    pub to: String,
}

impl Spec {
    /// What changes when this specification takes the place of another one, or of none.
    pub fn changes_from(&self, before: Option<&Self>) -> Vec<Change> {
        let (old, new) = (before.map(Self::settings).unwrap_or_default(), self.settings());
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        let value = |settings: &BTreeMap<String, String>, key: &str| settings.get(key).cloned().unwrap_or_default();
        keys.into_iter()
            .map(|key| Change { key: key.clone(), from: value(&old, key), to: value(&new, key) })
            .filter(|change| change.from != change.to)
            .collect()
    }

    /// Every setting that is in force, with its key.
    fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        let mut put = |key: &str, value: String| {
            if !value.is_empty() {
                settings.insert(key.to_owned(), value);
            }
        };
        put("image.reference", self.image.reference.clone());
        put("image.pull", format!("{:?}", self.image.pull).to_lowercase());
        put("command", self.command.join(" "));
        for nic in &self.nics {
            put(&format!("nics.{}", nic.name), nic.text.clone());
        }
        for port in &self.serial {
            let shared = if port.shared { ", shared" } else { "" };
            put(&format!("serial.{}", port.path), format!("{}{shared}", port.device));
        }
        if let Some(program) = &self.program {
            put("program.port", program.port.to_string());
            put("program.keep", program.keep.to_string());
        }
        put("data.path", self.data.clone().unwrap_or_default());
        for (variable, value) in &self.environment {
            put(&format!("environment.{variable}"), format!("\"{value}\""));
        }
        put("cpuset", self.cpuset.clone().unwrap_or_default());
        put("memory", self.memory.map(|bytes| bytes.to_string()).unwrap_or_default());
        put("pids", self.pids.map(|number| number.to_string()).unwrap_or_default());
        if let Some(real_time) = &self.real_time {
            put("real_time.priority", real_time.priority.to_string());
            let locked = real_time.locked_memory.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
            put("real_time.locked_memory", locked);
        }
        put("capabilities", self.capabilities.iter().cloned().collect::<Vec<_>>().join(" "));
        put("read_only_root", self.read_only_root.to_string());
        put("logs.size", self.logs.size.to_string());
        put("logs.files", self.logs.files.to_string());
        put("start_order", self.start_order.to_string());
        put("state", self.state.map(|state| state.as_str().to_owned()).unwrap_or_default());
        put("stop_grace", self.stop_grace.as_secs().to_string());
        put("restart.policy", format!("{:?}", self.restart.policy).to_lowercase());
        put("restart.limit", self.restart.limit.to_string());
        put("restart.window", self.restart.window.as_secs().to_string());
        put("restart.delay", self.restart.delay.as_secs().to_string());
        if let Some(health) = &self.health {
            put("health.command", health.command.join(" "));
            put("health.interval", health.interval.as_secs().to_string());
            put("health.timeout", health.timeout.as_secs().to_string());
            put("health.retries", health.retries.to_string());
            put("health.start_period", health.start_period.as_secs().to_string());
            put("health.on_unhealthy", format!("{:?}", health.on_unhealthy).to_lowercase());
        }
        settings
    }
}
