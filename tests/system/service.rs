//! The adapters to systemd from within a sandboxed service, as the daemon is one.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use orchestrator_tests::booted::{BOOT_ID_FILE, Bench, Booted, unit};
use orchestratord::systemd::available;
use orchestratord::systemd::logind::LogindHost;
use orchestratord::update::reboot::Host;

const BUS: &str = "unix:path=/run/dbus/system_bus_socket";
const CALLER: &str = "/opt/tests/transient-call";

/// A service in the sandbox of the daemon's unit.
fn service(words: &str) -> String {
    let of_the_daemon = ["BusName=", "Restart", "WatchdogSec=", "Type=", "ExecStart="];
    let unit = unit();
    let (_, sandbox) = unit.split_once("[Service]\n").unwrap();
    let (sandbox, _) = sandbox.split_once("[Install]").unwrap();
    let kept = sandbox.lines().filter(|line| !of_the_daemon.iter().any(|key| line.starts_with(key)));
    let kept = kept.collect::<Vec<_>>().join("\n");
    format!("[Service]\nType=exec\nExecStart={CALLER} {BUS} {words}\n{kept}\n")
}

fn bench() -> Option<Bench> {
    let caller = Path::new(env!("CARGO_BIN_EXE_transient-call"));
    Some(Bench::new()?.show(caller.parent().unwrap(), "/opt/tests"))
}

fn with_call(bench: Bench, body: &str) -> Booted {
    let words = "/run/orchestrator/calls adopt theirs 300000 log /var/tmp /opt/program";
    bench.file("/etc/systemd/system/caller.service", 0o644, service(words)).script("/opt/program", body).boot()
}

#[test]
fn a_program_sees_the_machine_and_not_the_sandbox() {
    let Some(bench) = bench() else { return };
    let show =
        "readlink /proc/self/ns/mnt; touch /usr/by-the-program /tmp/by-the-program; grep CapBnd /proc/self/status";
    let machine = with_call(bench, show);
    machine.ask("systemctl start caller");
    machine.wait_for("! systemctl is-active caller");
    let said = machine.ask("journalctl --sync; journalctl --unit=caller --output=cat");
    assert!(said.contains("ended: Code(0)"), "{said}");
    let of_init = machine.ask("readlink /proc/1/ns/mnt; grep CapBnd /proc/1/status");
    for line in of_init.lines() {
        assert!(said.contains(&format!("stdout: {line}\n")), "{line}\n{said}");
    }
    machine.ask("test -e /usr/by-the-program && test -e /tmp/by-the-program");
}

#[test]
fn a_program_may_restart_its_own_daemon() {
    let Some(bench) = bench() else { return };
    let machine = with_call(bench, "echo before; systemctl restart caller; echo after; exit 3");
    machine.ask("systemctl start caller");
    machine.wait_for("journalctl --sync; journalctl --unit=caller | grep -E 'adopted|ended'");
    let said = machine.ask("journalctl --unit=caller --output=cat --identifier=transient-call");
    assert_eq!(said, "stdout: before\nstdout: after\nadopted: Code(3)");
}

#[test]
fn a_shutdown_ends_the_daemon_before_its_calls() {
    let Some(bench) = bench() else { return };
    let mut machine = with_call(bench, "trap 'sleep 1; exit 1' TERM; echo up; while :; do sleep 0.1; done");
    machine.ask("systemctl start caller");
    machine.wait_for("journalctl --unit=caller | grep 'stdout: up'");
    machine.reboot();
    let said = machine.ask("journalctl --boot=-1 --output=cat");
    assert!(!said.contains("ended:"), "the daemon took the end of the machine for the end of the call\n{said}");
    let place = |line: &str| said.find(line).unwrap_or_else(|| panic!("no \"{line}\" in\n{said}"));
    assert!(place("Stopped caller.service") < place("Stopping orchestrator-call-theirs.service"), "{said}");
}

#[test]
fn a_sandboxed_daemon_may_reboot_the_host() {
    let Some(bench) = bench() else { return };
    let mut machine =
        bench.file("/etc/systemd/system/caller.service", 0o644, service(&format!("reboot {BOOT_ID_FILE}"))).boot();
    let before = machine.boot_id();
    machine.ask("systemctl start caller");
    machine.wait_for_boot_after(&before);
    let said = machine.ask("journalctl --boot=-1 --output=cat");
    assert!(said.contains(&before.replace('-', "")), "the daemon reads the boot id of the machine\n{said}");
    assert!(said.contains("The system will reboot now!"), "it was logind that rebooted\n{said}");
}

async fn connection(machine: &Booted) -> zbus::Connection {
    zbus::connection::Builder::address(machine.bus_address().as_str()).build().await.unwrap()
}

#[tokio::test]
async fn without_logind_systemd_reboots() {
    let Some(bench) = Bench::new() else { return };
    let mut machine = bench.boot();
    machine.ask("systemctl mask --runtime systemd-logind; systemctl stop systemd-logind");
    let before = machine.boot_id();
    LogindHost::new(connection(&machine).await, "/dev/null").reboot().await.unwrap();
    machine.wait_for_boot_after(&before);
    // In an orderly way.
    assert!(machine.ask("journalctl --boot=-1 --output=cat").contains("Stopped target multi-user.target"));
}

#[test]
fn a_refused_reboot_says_who_and_why() {
    let Some(bench) = bench() else { return };
    let unit = format!("{}User=nobody\n", service(&format!("reboot {BOOT_ID_FILE}")));
    let machine = bench.file("/etc/systemd/system/caller.service", 0o644, unit).boot();
    machine.ask("systemctl start caller");
    machine.wait_for("! systemctl is-active caller");
    let said = machine.ask("journalctl --sync; journalctl --unit=caller --output=cat --identifier=transient-call");
    assert!(said.contains("\"org.freedesktop.login1\" refused to reboot the host: "), "{said}");
    assert!(said.contains("authentication required"), "{said}");
    assert_eq!(machine.ask("systemctl is-system-running"), "running");
}

#[tokio::test]
async fn systemd_is_available_only_where_it_runs() {
    let Some(bench) = bench() else { return };
    let machine = bench.boot();
    assert_eq!(machine.ask(&format!("{CALLER} {BUS} available -")), "true");
    machine.ask("dbus-daemon --session --fork --address=unix:path=/run/private-bus --print-pid");
    assert_eq!(machine.ask(&format!("{CALLER} unix:path=/run/private-bus available -")), "false");
    // What counts is the init system of this machine, not who answers on the bus.
    assert_eq!(available(&connection(&machine).await).await, Path::new("/run/systemd/system").is_dir());
}
