//! The real daemon on a booted systemd: real units, real reboots, and an end of the daemon in the middle of its work.
//!
//! `cargo test -p orchestrator-tests --test daemon -- --nocapture` prints what the journal says about each run.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write as _;

use orchestrator_tests::booted::{Bench, Booted, INSTALL_DAEMON, SHOWN, unit};
use orchestrator_tests::repository;

const DEMO: &str = "/var/lib/orchestratord-demo";
const INTERFACES: &str = "/usr/share/mender-orchestrator/interfaces/v1";

/// A machine with the daemon and a System of these Components (type and instance; the order is that of the list), each
/// at release 1. `prepare` is a shell script that runs before the daemon starts.
fn machine(components: &[(&str, &str)], prepare: &str) -> Option<Booted> {
    let repository = repository();
    let mut topology = "api_version: mender/v1\nkind: topology\nsystem_type: bench\ncomponents:\n".to_owned();
    for (kind, instance) in components {
        writeln!(topology, "  - {{component_type: {kind}, interface: demo-{kind}, interface_args: [{instance}]}}")
            .unwrap();
    }
    let mut bench = Bench::new()?
        .with_daemon()
        .file("/etc/mender-orchestrator/mender-orchestrator.conf", 0o644, r#"{"QueryTimeoutSeconds": 3600}"#)
        .file("/var/lib/mender-orchestrator/topology.yaml", 0o644, topology);
    for (kind, instance) in components {
        let home = format!("{DEMO}/{instance}");
        let provides = format!("rootfs-image.demo-{kind}.version={kind}-1\n");
        bench = bench
            .copy(repository.join("interfaces/v1/demo-component"), &format!("{INTERFACES}/demo-{kind}"))
            .file(&format!("{home}/provides"), 0o644, provides)
            .file(&format!("{home}/supports-rollback"), 0o644, "Yes\n");
    }
    let machine = bench.boot();
    machine.ask(&format!(
        "{INSTALL_DAEMON} && {prepare}\n\
         systemctl enable --now orchestratord"
    ));
    for release in 2..=3 {
        let mut manifest = format!(
            "api_version: mender/v1\nkind: manifest\nname: release-{release}\nsystem_types_compatible: [bench]\ncomponent_types:\n"
        );
        for (index, (kind, _)) in components.iter().enumerate() {
            let artifact = format!("/var/tmp/{kind}-{release}.mender");
            machine.ask(&format!(
                "cd /var/tmp && echo {kind} {release} >payload && {SHOWN}/orchestratorctl artifact write module-image \
                 -n {kind}-{release} -t {kind} -T demo-{kind} -f payload -o {artifact}"
            ));
            let order = (index + 1) * 10;
            writeln!(manifest, "  {kind}:\n    artifact_path: {artifact}\n    update_strategy: {{order: {order}}}")
                .unwrap();
        }
        machine.ask(&format!("cat >/var/tmp/release-{release}.yaml <<'END'\n{manifest}END"));
    }
    Some(machine)
}

/// Has somebody install a release and wait for its end, beside us.
fn install(machine: &Booted, release: u8) {
    let command = format!("{SHOWN}/orchestratorctl install /var/tmp/release-{release}.yaml");
    machine.ask(&format!("systemd-run --quiet --collect --unit=installer {command}"));
}

/// Waits until the deployment is over; gives its result as it is kept.
fn over(machine: &Booted) -> String {
    machine.wait_for(&format!("{SHOWN}/orchestratorctl --json status | grep -q '\"state\": \"idle\"'"));
    machine.wait_for("test ! -e /var/lib/mender-orchestrator/deployment");
    machine.ask("sed 's/.*\"result\":\"\\([a-z-]*\\)\".*/\\1/' /var/lib/mender-orchestrator/last.json")
}

fn versions(machine: &Booted) -> String {
    machine.ask(&format!("sed -n 's/rootfs-image.*version=//p' {DEMO}/*/provides")).replace('\n', " ")
}

/// The calls of states, in order, without queries.
fn calls(machine: &Booted) -> Vec<String> {
    let log = machine.ask(&format!("cat {DEMO}/calls.log"));
    let states = log.lines().filter_map(|line| {
        let mut words = line.strip_prefix("begin ")?.split(' ');
        let (who, state) = (words.next()?, words.next()?);
        (state.starts_with("Artifact") || state.starts_with("Download") || state == "Cleanup")
            .then(|| format!("{who} {state}"))
    });
    states.collect()
}

/// Nothing of a call is left: no unit, no file of ours, none of systemd's.
fn assert_no_calls(machine: &Booted) {
    // A daemon that has just started asks the Components, which makes calls for a moment.
    let units = "systemctl list-units --all --plain --no-legend 'orchestrator-call-*'";
    let files = "ls /run/orchestrator/calls; ls /run/systemd/units | grep orchestrator-call";
    machine.wait_for(&format!("test -z \"$({units}; {files})\""));
}

/// For those who want to see it: what happened, as the journal of all boots has it.
fn transcript(machine: &Booted, title: &str) {
    let lines = machine.ask(
        "journalctl --sync; journalctl --no-pager --quiet --output=cat --all \
         --unit=orchestratord --unit='orchestrator-call-*' | grep -v -e Identity -e Provides -e Deactivated -e Stopp",
    );
    eprintln!("==== {title}\n{lines}\n---- calls\n{}\n", machine.ask(&format!("cat {DEMO}/calls.log")));
}

#[test]
fn the_host_reboots_for_an_update_and_for_its_way_back() {
    let automatic = format!("echo Automatic >{DEMO}/G13/needs-reboot");
    let Some(mut machine) = machine(&[("gateway", "G13"), ("rtos", "R456")], &automatic) else { return };
    let before = machine.boot_id();
    install(&machine, 2);
    machine.wait_for_boot_after(&before);
    assert_eq!(over(&machine), "done");
    assert_eq!(versions(&machine), "gateway-2 rtos-2");
    let expected = [
        "G13 Download",
        "G13 ArtifactInstall",
        "G13 ArtifactVerifyReboot",
        "R456 Download",
        "R456 ArtifactInstall",
        "G13 ArtifactCommit",
        "R456 ArtifactCommit",
        "G13 Cleanup",
        "R456 Cleanup",
    ];
    assert_eq!(calls(&machine), expected);
    transcript(&machine, "a Manifest with a reboot of the host: success");

    // The gateway is installed and verified after its reboot; then the controller fails, and the host goes back too.
    machine.ask(&format!("touch {DEMO}/R456/ArtifactInstall.fail; : >{DEMO}/calls.log"));
    let before = machine.boot_id();
    install(&machine, 3);
    machine.wait_for_boot_after(&before);
    let between = machine.boot_id();
    machine.wait_for_boot_after(&between);
    assert_eq!(over(&machine), "rolled-back");
    assert_eq!(versions(&machine), "gateway-2 rtos-2");
    let expected = [
        "G13 Download",
        "G13 ArtifactInstall",
        "G13 ArtifactVerifyReboot",
        "R456 Download",
        "R456 ArtifactInstall",
        "R456 ArtifactRollback",
        "R456 ArtifactFailure",
        "G13 ArtifactRollback",
        "G13 ArtifactVerifyRollbackReboot",
        "G13 ArtifactFailure",
        "G13 Cleanup",
        "R456 Cleanup",
    ];
    assert_eq!(calls(&machine), expected);
    assert_eq!(machine.ask("journalctl --list-boots --quiet | wc -l"), "4");
    assert_no_calls(&machine);
    transcript(&machine, "a failure after the reboot: the whole System goes back, with a reboot of its own");
}

#[test]
fn a_daemon_killed_in_the_middle_of_an_installation_takes_its_result_over() {
    let slow = format!("echo 6 >{DEMO}/G13/ArtifactInstall.sleep");
    let Some(machine) = machine(&[("gateway", "G13")], &slow) else { return };
    let former = machine.ask("systemctl show --property=MainPID --value orchestratord");
    install(&machine, 2);
    machine.wait_for(&format!("grep 'begin G13 ArtifactInstall' {DEMO}/calls.log"));
    machine.ask("systemctl kill --kill-who=main --signal=KILL orchestratord");
    machine.wait_for(&format!(
        "pid=$(systemctl show --property=MainPID --value orchestratord); [ \"$pid\" -gt 0 ] && [ \"$pid\" -ne {former} ]"
    ));
    assert_eq!(over(&machine), "done");
    assert_eq!(versions(&machine), "gateway-2");
    let log = machine.ask(&format!("cat {DEMO}/calls.log"));
    assert_eq!(log.matches("begin G13 ArtifactInstall").count(), 1, "{log}");
    assert_eq!(log.matches("end G13 ArtifactInstall 0").count(), 1, "{log}");
    // Who asked for it has stayed with it.
    machine.wait_for("! systemctl is-active --quiet installer");
    let said = machine.ask("journalctl --sync; journalctl --unit=installer --output=cat");
    assert!(said.contains("installer.service: Deactivated successfully."), "{said}");
    assert_no_calls(&machine);
    transcript(&machine, "kill -9 of the daemon during ArtifactInstall");
}

#[test]
fn a_component_may_upgrade_the_daemon_itself() {
    let upgrade = format!(
        "mkdir /opt/demo && mv {INTERFACES}/demo-gateway /opt/demo/ && cat >{INTERFACES}/demo-gateway <<'END'\n\
         #!/bin/sh\n\
         if [ \"$1\" = ArtifactInstall ]; then\n\
         cp {SHOWN}/orchestratord /usr/libexec/orchestratord.new && mv /usr/libexec/orchestratord.new /usr/libexec/orchestratord\n\
         systemctl restart orchestratord || exit\n\
         fi\n\
         exec /opt/demo/demo-gateway \"$@\"\n\
         END\n\
         chmod 755 {INTERFACES}/demo-gateway"
    );
    let Some(machine) = machine(&[("gateway", "G13"), ("rtos", "R456")], &upgrade) else { return };
    let former = machine.ask("systemctl show --property=MainPID --value orchestratord");
    install(&machine, 2);
    machine.wait_for(&format!("[ \"$(systemctl show --property=MainPID --value orchestratord)\" -ne {former} ]"));
    assert_eq!(over(&machine), "done");
    assert_eq!(versions(&machine), "gateway-2 rtos-2");
    machine.ask("test -f /usr/libexec/orchestratord && ! test -L /usr/libexec/orchestratord");
    assert_eq!(calls(&machine).iter().filter(|call| *call == "G13 ArtifactInstall").count(), 1);
    assert_no_calls(&machine);
    transcript(&machine, "an Interface replaces and restarts the daemon within ArtifactInstall");
}

#[test]
fn queries_of_a_daemon_that_died_are_ended_by_the_next() {
    let Some(machine) = machine(&[("gateway", "G13")], ":") else { return };
    machine.ask(&format!("touch {DEMO}/G13/Inventory.hang"));
    machine.ask(&format!("systemd-run --quiet --collect --unit=reader {SHOWN}/orchestratorctl inventory"));
    machine.wait_for(&format!("grep 'begin G13 Inventory' {DEMO}/calls.log"));
    machine.ask("systemctl kill --kill-who=main --signal=KILL orchestratord");
    machine.wait_for(&format!("{SHOWN}/orchestratorctl --json status | grep -q '\"state\": \"idle\"'"));
    // It would have had an hour.
    assert_no_calls(&machine);
    machine
        .wait_for("journalctl --unit=orchestratord --output=cat | grep 'Ending a call that an earlier daemon made.'");
}

/// The sandbox of the daemon around something else.
#[test]
fn the_sandbox_shows_serial_ports_and_lets_nodes_of_adapters_be_made() {
    let Some(bench) = Bench::new() else { return };
    let mut probe = String::new();
    for line in
        unit().lines().filter(|line| !["BusName=", "WatchdogSec=", "Restart="].iter().any(|key| line.starts_with(key)))
    {
        let line = match line.split_once('=') {
            Some(("Type", _)) => "Type=oneshot",
            Some(("ExecStart", _)) => "ExecStart=/opt/probe",
            _ => line,
        };
        writeln!(probe, "{line}").unwrap();
    }
    let script = "#!/bin/sh -ex\nls /dev/serial/by-id\nmknod /run/orchestrator/adapter c 188 7\n";
    let machine =
        bench.file("/etc/systemd/system/probe.service", 0o644, probe).file("/opt/probe", 0o755, script).boot();
    machine.ask("mkdir -p /dev/serial/by-id && touch /dev/serial/by-id/usb-A-if00");
    if machine.ask("mknod /run/tried c 188 7 && echo possible || true").is_empty() {
        eprintln!("SKIPPED in part the_sandbox_shows_serial_ports: a booted machine may make no nodes here");
        return;
    }
    machine.ask("systemctl start probe || journalctl --unit=probe >&2");
    machine.ask("test -c /run/orchestrator/adapter && journalctl --unit=probe | grep usb-A-if00");
}
