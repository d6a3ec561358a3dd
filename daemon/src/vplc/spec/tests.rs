use super::*;
use crate::core::document::Section;

const LEAST: &str = "api_version: orchestrator/v1\nkind: vplc\nname: press1\nimage: {reference: \"plc:1\"}\n";

const MOST: &str = "\
api_version: orchestrator/v1
kind: vplc
name: press1
image:
  reference: registry.example.com:5000/openplc/runtime@sha256:0123456789abcdef
  pull: always
command: [/bin/plc, --fast]
nics:
  - name: eth0
    parent: lan0
    mtu: 1400
serial:
  - device: usb-FTDI_1-if00
    path: /dev/serial/press
    shared: true
data: {path: /var/openplc}
environment:
  MODE: fast
  N: 010
cpuset: 2-3,5
memory: 512M
pids: 100
real_time: {priority: 80, locked_memory: unlimited}
capabilities: [NET_RAW, SYS_NICE]
read_only_root: true
logs: {size: 1M, files: 4}
start_order: 7
state: stopped
stop_grace: 60
restart: {policy: on-failure, limit: 3, window: 60, delay: 1}
health: {command: [/bin/ok], interval: 5, timeout: 2, retries: 4, start_period: 9, on_unhealthy: restart}
program: {port: 9443, keep: 9}
";

/// A NIC has a name here, and whatever else is fine.
fn check_nic(section: &mut Section<'_>) -> Result<String, DocumentError> {
    Ok(section.required("name")?.text()?.to_owned())
}

fn parse(text: &str) -> Result<Spec, DocumentError> {
    Spec::parse(text, check_nic)
}

#[test]
fn what_is_not_said_is_as_it_is_usual() {
    let spec = parse(LEAST).unwrap();
    assert_eq!(spec.stop_grace, Duration::from_secs(30));
    assert_eq!(spec.program, None);
    let programs = parse(&format!("{LEAST}program: {{}}\n")).unwrap();
    assert_eq!(programs.program, Some(ProgramSection { port: 8443, keep: 5 }));
    assert!(!programs.same_containers(&spec), "a runtime is claimed before it is on the network");
    assert_eq!(spec.restart, Restart::default());
    assert_eq!((spec.start_order, spec.state, spec.read_only_root), (100, None, false));
    assert!(spec.capabilities.contains("NET_BIND_SERVICE") && !spec.capabilities.contains("NET_RAW"));
}

#[test]
fn every_key_arrives() {
    let spec = parse(MOST).unwrap();
    assert_eq!(spec.image.pull, Pull::Always);
    assert_eq!(spec.nics[0].text, r#""name": "eth0", "parent": "lan0", "mtu": 1400"#);
    assert_eq!(spec.serial[0].path, "/dev/serial/press");
    assert_eq!(spec.environment["N"], "010");
    assert_eq!((spec.memory, spec.pids, spec.cpuset.as_deref()), (Some(512 << 20), Some(100), Some("2-3,5")));
    assert_eq!(spec.real_time, Some(RealTime { priority: 80, locked_memory: None }));
    assert_eq!((spec.state, spec.start_order), (Some(Desired::Stopped), 7));
    assert_eq!(spec.logs, Logs { size: 1 << 20, files: 4 });
    assert_eq!(spec.restart.policy, Policy::OnFailure);
    assert_eq!(spec.program, Some(ProgramSection { port: 9443, keep: 9 }));
    assert_eq!(spec.health.unwrap().on_unhealthy, Unhealthy::Restart);
}

/// One wrong value after the other, and where each is found.
#[test]
fn bad_values_name_key_and_line() {
    for (line, wrong, expected) in [
        ("name: press1", "name: -x", "vplc:3:7: \"name\" must consist of letters"),
        ("name: press1", "name: a/b", "vplc:3:7: \"name\" must consist of letters"),
        ("  pull: always", "  pull: sometimes", "vplc:6:9: \"image.pull\" must be \"missing\""),
        ("  pull: always", "  tag: 1", "vplc:6:3: \"image.tag\" is not a known key."),
        ("command: [/bin/plc, --fast]", "command: []", "vplc:7:10: \"command\" must begin with a program."),
        (
            "    path: /dev/serial/press",
            "    path: /dev/ttyUSB0",
            "vplc:14:11: \"serial[0].path\" must be a name in \"/dev/serial\"",
        ),
        (
            "    path: /dev/serial/press",
            "    path: /dev/serial/a/b",
            "vplc:14:11: \"serial[0].path\" must be a name in",
        ),
        ("    path: /dev/serial/press", "    path: /dev/serial/.a", "vplc:14:11: \"serial[0].path\" must be a name in"),
        (
            "    path: /dev/serial/press",
            "    path: /dev/serial/../null",
            "vplc:14:11: \"serial[0].path\" must be an absolute path",
        ),
        ("  - device: usb-FTDI_1-if00", "  - device: ../null", "vplc:13:13: \"serial[0].device\""),
        (
            "capabilities: [NET_RAW, SYS_NICE]",
            "capabilities: [MKNOD]",
            "vplc:24:15: \"capabilities\" must be without \"MKNOD\"",
        ),
        ("data: {path: /var/openplc}", "data: {path: /}", "vplc:16:14: \"data.path\" must be an absolute path"),
        ("  N: 010", "  1N: x", "vplc:19:3: \"environment.1N\" is no name of a variable"),
        ("cpuset: 2-3,5", "cpuset: 3-2", "vplc:20:9: \"cpuset\" must be a list of processors"),
        ("memory: 512M", "memory: 1M", "vplc:21:9: \"memory\" must be a size"),
        ("memory: 512M", "memory: 99999999999999999999G", "vplc:21:9: \"memory\" must be a size"),
        ("pids: 100", "pids: 0", "vplc:22:7: \"pids\" must be an integer from 1"),
        (
            "capabilities: [NET_RAW, SYS_NICE]",
            "capabilities: [SYS_ADMIN]",
            "vplc:24:16: \"capabilities[0]\" would give",
        ),
        (
            "capabilities: [NET_RAW, SYS_NICE]",
            "capabilities: [cap_net_raw]",
            "vplc:24:16: \"capabilities[0]\" must be a cap",
        ),
        ("read_only_root: true", "read_only_root: yes", "vplc:25:17: \"read_only_root\" must be true or false"),
        ("state: stopped", "state: paused", "vplc:28:8: \"state\" must be \"running\""),
        ("stop_grace: 60", "stop_grace: 29", "vplc:29:13: \"stop_grace\" must be an integer from 30"),
        ("program: {port: 9443", "program: {port: 0", "vplc:32:17: \"program.port\" must be an integer from 1"),
        ("keep: 9}", "keep: 1}", "vplc:32:29: \"program.keep\" must be an integer from 2"),
        ("keep: 9}", "keeps: 9}", "vplc:32:23: \"program.keeps\" is not a known key."),
        ("stop_grace: 60", "stop_gace: 60", "vplc:29:1: \"stop_gace\" is not a known key."),
    ] {
        assert!(MOST.contains(line), "{line}");
        let error = parse(&MOST.replace(line, wrong)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    for reference in ["plc", "registry.example.com:5000/plc", "../plc:1", "plc:1 x", ""] {
        let text = LEAST.replace("plc:1", reference);
        assert!(parse(&text).unwrap_err().to_string().contains("\"image.reference\""), "{reference}");
    }
}

#[test]
fn names_do_not_repeat() {
    let twice = MOST.replace("serial:", "  - name: eth0\nserial:");
    assert!(parse(&twice).unwrap_err().to_string().contains("which another NIC of the vPLC has"));
    for (device, path, key) in
        [("usb-FTDI_1-if00", "other", "serial[1].device"), ("usb-FTDI_2-if00", "press", "serial[1].path")]
    {
        let port = format!("  - device: {device}\n    path: /dev/serial/{path}\ndata:");
        let error = parse(&MOST.replace("data:", &port)).unwrap_err().to_string();
        assert!(error.contains(&format!("\"{key}\" is that of another serial port of the vPLC.")), "{error}");
    }
}

#[test]
fn only_what_containers_are_made_of_needs_other_containers() {
    let spec = parse(MOST).unwrap();
    let other = |line: &str, change: &str| parse(&MOST.replace(line, change)).unwrap();
    for (line, change, same) in [
        ("    mtu: 1400", "    mtu: 1500", true),
        ("start_order: 7", "start_order: 8", true),
        ("state: stopped", "state: running", true),
        ("stop_grace: 60", "stop_grace: 61", true),
        ("limit: 3", "limit: 4", true),
        ("on_unhealthy: restart", "on_unhealthy: report", true),
        ("  pull: always", "  pull: never", true),
        ("memory: 512M", "memory: 513M", false),
        ("  MODE: fast", "  MODE: slow", false),
        ("retries: 4", "retries: 5", false),
        ("data: {path: /var/openplc}", "data: {path: /var/other}", false),
    ] {
        assert_eq!(spec.same_containers(&other(line, change)), same, "{change}");
    }
}

#[test]
fn changes_are_told_by_key() {
    let (one, other) =
        (parse(MOST).unwrap(), parse(&MOST.replace("pids: 100\n", "").replace("fast\n", "slow\n")).unwrap());
    let changes = other.changes_from(Some(&one));
    let told: Vec<(&str, &str, &str)> =
        changes.iter().map(|change| (change.key.as_str(), change.from.as_str(), change.to.as_str())).collect();
    assert_eq!(told, [("environment.MODE", "\"fast\"", "\"slow\""), ("pids", "100", "")]);
    assert!(one.changes_from(None).iter().all(|change| change.from.is_empty()));
    assert!(one.changes_from(Some(&one)).is_empty());
}
