//! What a vPLC has and uses of the machine: serial ports, processor time, memory.

use std::time::Duration;

use serde::Serialize;

use crate::client::Properties;
use crate::output::size;

/// A serial port of a vPLC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SerialView {
    name: String,
    node: String,
    shared: bool,
    device: String,
    connected: bool,
    error: String,
}

impl SerialView {
    /// As the bus shows it.
    pub fn new(properties: &Properties) -> Self {
        let text = |name| properties.text(name).unwrap_or_default();
        let flag = |name| properties.flag(name).unwrap_or_default();
        let (name, node, device, error) = (text("name"), text("node"), text("device"), text("error"));
        Self { name, node, shared: flag("shared"), device, connected: flag("connected"), error }
    }

    /// For people, in one line.
    pub fn line(&self) -> String {
        let state = match (self.connected, self.device.is_empty(), self.error.is_empty()) {
            (true, ..) => "connected",
            (_, true, _) => "not plugged in",
            (_, _, true) => "not connected",
            _ => &self.error,
        };
        format!("{} at {}: {state}", self.name, self.node)
    }
}

/// What a vPLC uses. What is not known is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct UsageView {
    cpu: Option<f64>,
    cpu_time: Option<f64>,
    memory: Option<u64>,
    received: Option<u64>,
    sent: Option<u64>,
    overruns: Option<u64>,
}

impl UsageView {
    /// As the bus shows it.
    pub fn new(properties: &Properties) -> Self {
        let seconds = |micros| Duration::from_micros(micros).as_secs_f64();
        Self {
            cpu: properties.share("cpu"),
            cpu_time: properties.number("cpu-time").map(seconds),
            memory: properties.number("memory"),
            received: properties.number("received"),
            sent: properties.number("sent"),
            overruns: properties.number("overruns"),
        }
    }

    /// For people, in one line.
    pub fn line(&self) -> String {
        let parts = [
            self.cpu.map(|cpu| format!("{cpu:.2} processors")),
            self.memory.map(|bytes| format!("{} of memory", size(bytes))),
            self.received.map(|bytes| format!("{} received", size(bytes))),
            self.sent.map(|bytes| format!("{} sent", size(bytes))),
            self.overruns.map(|number| format!("{number} overruns")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
