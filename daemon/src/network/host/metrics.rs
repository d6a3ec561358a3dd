//! The figures for whatever scrapes.

use super::Figures;
use crate::core::open_metrics::OpenMetrics;

/// Adds the figures.
pub fn describe(figures: &Figures, text: &mut OpenMetrics) {
    let mut gauge = |name: &str, unit: &str, help: &str, values: &[(String, String)]| {
        text.gauge(&format!("orchestratord_host_{name}"), unit, help, values);
    };
    let one = |value: String| vec![(String::new(), value)];
    let (one_minute, five, fifteen) = figures.load;
    gauge("cpu_usage_ratio", "ratio", "Share of all processors that was busy.", &one(figures.cpu.to_string()));
    gauge("memory_used_bytes", "bytes", "Memory in use.", &one(figures.memory_used.to_string()));
    gauge("memory_size_bytes", "bytes", "Memory.", &one(figures.memory_total.to_string()));
    gauge("disk_used_bytes", "bytes", "Used on writable disks.", &one(figures.disk_used.to_string()));
    gauge("disk_size_bytes", "bytes", "Size of writable disks.", &one(figures.disk_total.to_string()));
    gauge("uptime_seconds", "seconds", "Time since the host started.", &one(figures.uptime.to_string()));
    let loads = [("1", one_minute), ("5", five), ("15", fifteen)];
    let loads = loads.map(|(minutes, load)| (format!("{{minutes=\"{minutes}\"}}"), load.to_string()));
    gauge("load", "", "Load average.", &loads);
    if let Some(temperature) = figures.temperature {
        gauge("temperature_celsius", "celsius", "Highest temperature of all sensors.", &one(temperature.to_string()));
    }
    let pressures: Vec<(String, String)> = figures
        .pressure
        .iter()
        .filter_map(|(name, share)| name.split_once('-').map(|(resource, who)| (resource, who, share)))
        .map(|(resource, who, share)| (format!("{{resource=\"{resource}\",who=\"{who}\"}}"), share.to_string()))
        .collect();
    gauge("pressure_ratio", "ratio", "Share of the last 10 s in which work waited.", &pressures);
}
