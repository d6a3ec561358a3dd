//! The machine that the other tests boot is a real one: it reboots, loses power, and is gone afterwards.

use orchestrator_tests::booted::Bench;

#[test]
fn a_machine_boots_reboots_and_loses_power() {
    let Some(bench) = Bench::new() else { return };
    let mut machine =
        bench.file("/etc/from-the-test", 0o600, "hello\n").script("/usr/bin/greet", "echo greetings").boot();
    assert_eq!(machine.ask("cat /etc/from-the-test; stat -c %a /etc/from-the-test; greet"), "hello\n600\ngreetings");
    assert_eq!(machine.ask("cat /proc/1/comm"), "systemd");
    assert_eq!(machine.ask("systemctl is-system-running"), "running");

    let first = machine.boot_id();
    assert_eq!(machine.boot_id(), first);
    machine.ask("echo kept >/var/lib/kept; echo lost >/run/lost; systemd-run --unit=sleeper sleep 1000");
    machine.reboot();
    let second = machine.boot_id();
    assert_ne!(second, first);
    assert_eq!(machine.ask("cat /var/lib/kept; ls /run/lost 2>/dev/null || echo gone"), "kept\ngone");
    assert!(machine.journal().contains("Stopping sleeper.service"), "an orderly shutdown stops the services");

    machine.cut_power();
    assert_ne!(machine.boot_id(), second);
    assert_eq!(machine.ask("cat /var/lib/kept; journalctl --list-boots --quiet | wc -l"), "kept\n3");
}

#[test]
fn machines_do_not_see_each_other() {
    let (Some(one), Some(other)) = (Bench::new(), Bench::new()) else { return };
    let one = one.boot();
    let other = other.boot();
    one.ask("touch /var/lib/mine");
    assert_eq!(other.ask("ls /var/lib/mine 2>/dev/null || echo none"), "none");
    assert_ne!(one.boot_id(), other.boot_id());
}
