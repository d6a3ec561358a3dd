use super::history::Sample;
use super::*;
use crate::core::history::POINTS;

fn figures(cpu: f64) -> Figures {
    Figures { cpu, memory_used: 1, memory_total: 4, ..Figures::default() }
}

#[test]
fn a_reading_of_this_machine_makes_sense() {
    let mut reader = Reader::new();
    let figures = reader.read();
    assert!(figures.memory_total > 0 && figures.memory_used <= figures.memory_total, "{figures:?}");
    assert!(figures.disk_used <= figures.disk_total, "{figures:?}");
    assert!((0.0..=1.0).contains(&figures.cpu), "{figures:?}");
    assert!(figures.uptime > 0 && figures.pressure.values().all(|share| (0.0..=1.0).contains(share)), "{figures:?}");
}

#[test]
fn each_device_counts_once_and_an_overlay_only_if_it_hides_one() {
    let mount = |device: &str, file_system: &str, total, available| Mount {
        device: device.to_owned(),
        file_system: file_system.to_owned(),
        total,
        available,
    };
    let data = mount("/dev/mmcblk0p4", "ext4", 100, 30);
    let root = mount("overlay", "overlay", 100, 30);
    let system = mount("/dev/mmcblk0p2", "squashfs", 50, 0);
    assert_eq!(sum(&[root.clone(), system.clone(), data.clone(), data.clone()]), (70, 100));
    assert_eq!(sum(&[root, system]), (70, 100));
    assert_eq!(sum(&[data, mount("/dev/sda1", "vfat", 10, 9)]), (71, 110));
    assert_eq!(sum(&[]), (0, 0));
}

#[test]
fn pressure_is_read_from_what_the_kernel_writes() {
    let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=7\n";
    assert_eq!((stalled(text, "some"), stalled(text, "full")), (Some(0.015), Some(0.0025)));
    assert_eq!((stalled("", "some"), stalled("some total=1", "some"), stalled(text, "so")), (None, None, None));
}

#[test]
fn two_days_fit_into_two_mebibytes_and_no_more_is_kept() {
    assert!(SAMPLES * size_of::<Sample>() <= 2 << 20);
    assert_eq!(u64::try_from(SAMPLES).unwrap() * PERIOD.as_secs(), 48 * 3600);
    let mut history = History::new(SAMPLES);
    for time in 0..u64::try_from(SAMPLES).unwrap() + 10 {
        history.add(sample(time, &figures(0.5)));
    }
    let points = history.read(Metric::Cpu.index(), 0);
    assert_eq!(points.first(), Some(&(10, 0.5)));
    assert!(points.len() <= POINTS && points.len() > POINTS / 2, "{}", points.len());
}

#[test]
fn a_reading_begins_where_it_was_asked_to_and_leaves_out_what_is_unknown() {
    let mut history = History::new(SAMPLES);
    for time in 0..5_u32 {
        history.add(sample(u64::from(time), &figures(f64::from(time))));
    }
    assert_eq!(history.read(Metric::Cpu.index(), 3), [(3, 3.0), (4, 4.0)]);
    assert_eq!(history.read(Metric::Memory.index(), 4), [(4, 0.25)]);
    assert_eq!(history.read(Metric::Temperature.index(), 0), []);
    assert_eq!(Metric::named("pressure-io"), Some(Metric::PressureIo));
    assert_eq!(Metric::named("CPU"), None);
}

fn text(figures: &Figures) -> String {
    let mut text = OpenMetrics::default();
    metrics::describe(figures, &mut text);
    text.finish()
}

#[test]
fn the_text_is_openmetrics() {
    let figures = Figures { temperature: Some(41.5), pressure: [("cpu-some", 0.01)].into(), ..figures(0.25) };
    let text = text(&figures);
    assert!(text.ends_with("\n# EOF\n"));
    for line in [
        "# TYPE orchestratord_host_cpu_usage_ratio gauge",
        "orchestratord_host_cpu_usage_ratio 0.25",
        "orchestratord_host_load{minutes=\"15\"} 0",
        "orchestratord_host_temperature_celsius 41.5",
        "orchestratord_host_pressure_ratio{resource=\"cpu\",who=\"some\"} 0.01",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!self::text(&Figures::default()).contains("temperature"));
}
