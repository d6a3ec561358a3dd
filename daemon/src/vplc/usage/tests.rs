use std::fs;
use std::path::Path;

use super::*;
use crate::core::open_metrics::OpenMetrics;

const LINKS: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     900       9    0    0    0     0          0         0      900       9    0    0    0     0       0          0
  eth0: 1000      10    0    0    0     0          0         0    200       2    0    0    0     0       0          0
  eth1:      11       1    0    0    0     0          0         0        7       1    0    0    0     0       0          0
";

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn groups_of_both_versions_are_read() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let expected = |cpu| Reading { cpu: Some(cpu), memory: Some(700), received: Some(1011), sent: Some(207) };
    write(root, "cpuacct/engine/a1/cpuacct.usage", "1500000000\n");
    write(root, "memory/engine/a1/memory.usage_in_bytes", "1000\n");
    // The table of a group tells about the group itself first, and then about all below it.
    write(
        root,
        "memory/engine/a1/memory.stat",
        "cache 1\ninactive_file 1\nactive_file 1\ntotal_inactive_file 100\ntotal_active_file 200\n",
    );
    let groups = "9:name=systemd:/\n4:memory:/engine/a1\n2:cpu,cpuacct:/engine/a1\n0::/elsewhere\n";
    assert_eq!(Reading::from(root, groups, LINKS), expected(Duration::from_millis(1500)));
    write(root, "system.slice/a1.scope/cpu.stat", "usage_usec 2500000\nuser_usec 1\n");
    write(root, "system.slice/a1.scope/memory.current", "1000\n");
    write(root, "system.slice/a1.scope/memory.stat", "anon 5\nfile 5\ninactive_file 100\nactive_file 200\n");
    assert_eq!(Reading::from(root, "0::/system.slice/a1.scope\n", LINKS), expected(Duration::from_millis(2500)));
    let nothing = Reading::from(root, "0::/gone\n", "");
    assert_eq!(nothing, Reading { received: Some(0), sent: Some(0), ..Reading::default() });
    assert_eq!(Reading::from(root, "", "a\nb\nno table").received, None);
}

#[test]
fn this_process_has_figures() {
    let process = crate::vplc::process::Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    let reading = Reading::of(process).unwrap();
    assert!(reading.received.is_some() && reading.sent.is_some(), "{reading:?}");
}

fn reading(seconds: u64, received: u64) -> Reading {
    let cpu = Some(Duration::from_secs(seconds));
    Reading { cpu, memory: Some(5), received: Some(received), sent: Some(0) }
}

#[test]
fn shares_are_measured_from_the_reading_before() {
    let meter = Meter::new(true);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    meter.record(reading(10, 0), Some(3), at(0), 100);
    assert_eq!(meter.fresh(at(0)), None);
    let usage = meter.show(reading(15, 0), at(10));
    assert_eq!((usage.cpu, usage.reading.memory), (Some(0.5), Some(5)));
    assert_eq!(meter.fresh(at(10)).unwrap().cpu, Some(0.5));
    assert_eq!(meter.fresh(at(11)), None);
    // What somebody reads in between does not change what is recorded.
    meter.record(reading(40, 150), Some(5), at(15), 115);
    assert_eq!(meter.history(Metric::Cpu, 0), [(115, 2.0)]);
    assert_eq!(meter.history(Metric::Received, 0), [(115, 10.0)]);
    assert_eq!(meter.history(Metric::Overruns, 0), [(115, 2.0)]);
    assert_eq!(meter.history(Metric::Memory, 101), [(115, 5.0)]);
    // Another container counts from zero.
    meter.record(reading(1, 1), None, at(30), 130);
    assert_eq!(meter.history(Metric::Cpu, 116), []);
    assert_eq!(meter.show(reading(1, 1), at(31)).cpu, None);
    assert_eq!(Meter::new(false).history(Metric::Cpu, 0), []);
    assert_eq!(Metric::named("overruns"), Some(Metric::Overruns));
}

#[test]
fn each_vplc_has_its_label() {
    let usage = Usage { reading: reading(2, 7), restarts: 3, ..Usage::default() };
    let mut text = OpenMetrics::default();
    metrics::describe(&[("press1".to_owned(), usage), ("press2".to_owned(), Usage::default())], &mut text);
    let text = text.finish();
    for line in [
        "# TYPE orchestratord_vplc_cpu_seconds counter",
        "orchestratord_vplc_cpu_seconds_total{vplc=\"press1\"} 2",
        "orchestratord_vplc_memory_bytes{vplc=\"press1\"} 5",
        "orchestratord_vplc_received_bytes_total{vplc=\"press1\"} 7",
        "orchestratord_vplc_restarts_total{vplc=\"press2\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("overruns") && !text.contains("memory_bytes{vplc=\"press2\"}"), "{text}");
    let mut none = OpenMetrics::default();
    metrics::describe(&[], &mut none);
    assert_eq!(none.finish(), "# EOF\n");
}
