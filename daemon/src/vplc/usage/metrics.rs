//! The figures of all vPLCs for whatever scrapes.

use super::Usage;
use crate::core::open_metrics::{OpenMetrics, label};

/// Adds the figures of these vPLCs; a vPLC that does not run has only some.
pub fn describe(vplcs: &[(String, Usage)], text: &mut OpenMetrics) {
    let values = |value: &dyn Fn(&Usage) -> Option<String>| -> Vec<(String, String)> {
        vplcs.iter().filter_map(|(name, usage)| Some((label("vplc", name), value(usage)?))).collect()
    };
    let whole = |number: Option<u64>| number.map(|number| number.to_string());
    let cpu = values(&|usage| usage.reading.cpu_seconds().map(|seconds| seconds.to_string()));
    text.counter("orchestratord_vplc_cpu_seconds", "seconds", "Time that processors have spent on the vPLC.", &cpu);
    let memory = values(&|usage| whole(usage.reading.memory));
    text.gauge("orchestratord_vplc_memory_bytes", "bytes", "Memory in use, without the cache of files.", &memory);
    let received = values(&|usage| whole(usage.reading.received));
    text.counter("orchestratord_vplc_received_bytes", "bytes", "Received over the network.", &received);
    let sent = values(&|usage| whole(usage.reading.sent));
    text.counter("orchestratord_vplc_sent_bytes", "bytes", "Sent over the network.", &sent);
    let restarts = values(&|usage| Some(usage.restarts.to_string()));
    text.counter("orchestratord_vplc_restarts", "", "Restarts after the runtime had ended by itself.", &restarts);
    let overruns = values(&|usage| whole(usage.overruns));
    text.counter("orchestratord_vplc_scan_overruns", "", "Times that a task of the program was late.", &overruns);
}
