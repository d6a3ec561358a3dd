//! Where the tour takes place, and how it is told.

use std::fs;
use std::process::Command;
use std::time::Duration;

use orchestrator_tests::booted::{Bench, Booted, INSTALL_DAEMON, STRICT};
use orchestrator_tests::plant::Plant;
use orchestrator_tests::runtime::{program, write_archive};

/// How long anything may take; long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(3);
/// Where commands are run in the machine.
const HOME: &str = "/root";
/// The machine's own link: systemd configures it, so that the host is in the plant, too.
const LINK: &str = "[Match]\nName=host0\n\n[Network]\nAddress=192.0.2.2/24\nLinkLocalAddressing=no\n";

/// A machine, a plant, and the cable between them.
pub struct Stage {
    machine: Booted,
    pub plant: Plant,
}

impl Stage {
    /// Boots the machine; none, said on standard error, where that cannot be.
    pub fn new(test: &str) -> Option<Self> {
        let bench = Bench::new()?.with_daemon();
        let missing = |reason: &str| {
            assert!(std::env::var_os(STRICT).is_none(), "{reason}");
            orchestrator_tests::skip(test, reason);
        };
        for (program, package) in [("mbpoll", "mbpoll"), ("ping", "iputils-ping"), ("busybox", "busybox-static")] {
            let found = Command::new("sh").args(["-c", &format!("command -v {program} >/dev/null")]).status();
            if !found.is_ok_and(|status| status.success()) {
                missing(&format!("there is no \"{program}\" (Debian: {package})"));
                return None;
            }
        }
        let bench = match bench.with_engine() {
            Ok(bench) => bench,
            Err(reason) => {
                missing(&reason);
                return None;
            }
        };
        let plant = Plant::with_switch();
        let machine = bench
            .file(&format!("{HOME}/plc.tar"), 0o644, image("plc/runtime:4.1.9"))
            .file("/etc/systemd/network/host0.network", 0o644, LINK)
            .file(&format!("{HOME}/program-11.zip"), 0o644, program(11, "good"))
            .file(&format!("{HOME}/program-12.zip"), 0o644, program(12, "good"))
            .file(&format!("{HOME}/broken.zip"), 0o644, program(13, "compile-error"))
            .plug(&plant.0, "plant0")
            .boot();
        machine.ask(&format!(
            "{INSTALL_DAEMON} && systemctl mask --quiet systemd-networkd-wait-online && \
             systemctl enable --quiet --now systemd-networkd docker orchestratord"
        ));
        machine.wait_for("docker version && orchestratorctl status");
        Some(Self { machine, plant })
    }

    /// A file in the machine.
    pub fn file(&self, name: &str, text: &str) {
        self.machine.ask(&format!("cat >{HOME}/{name} <<'END'\n{text}END"));
    }

    /// Runs a command in the machine; it has to succeed.
    pub fn run(&self, command: &str) {
        let code = tell("plc#", command, self.machine.command("sh"));
        assert_eq!(code, Some(0), "{command}");
    }

    /// Runs a command in the machine; it has to fail.
    pub fn fails(&self, command: &str) {
        let code = tell("plc#", command, self.machine.command("sh"));
        assert_ne!(code, Some(0), "{command}");
        println!("   (exit code {})", code.unwrap());
    }

    /// Runs a command in the plant; it has to succeed.
    pub fn in_plant(&self, command: &str) {
        let code = tell("plant$", command, self.plant.0.command("sh"));
        assert_eq!(code, Some(0), "{command}");
    }

    /// Runs a command in the plant that gets no answer.
    pub fn refused_in_plant(&self, command: &str) {
        let code = tell("plant$", command, self.plant.0.command("sh"));
        assert_ne!(code, Some(0), "{command}");
    }

    /// Waits until a command in the machine succeeds.
    pub fn wait_for(&self, command: &str) {
        self.machine.wait_for(command);
    }

    /// Reboots the machine with this command.
    pub fn reboot(&mut self, command: &str) {
        println!("plc# {command}");
        self.machine.reboot();
    }

    /// Cuts the power of the machine.
    pub fn cut_power(&mut self) {
        println!("   (all processes of the machine are killed at once, and it boots)");
        self.machine.cut_power();
    }

    /// What a vPLC could leave behind: containers, volumes, files, links and control groups. Hardware addresses stay, and the files
    /// that Docker has of network namespaces until it tidies up, a minute later.
    pub fn left(&self) -> String {
        self.machine.ask(
            "docker ps --all --quiet; docker volume ls --quiet; cd /var/lib/mender-orchestrator; \
             find vplcs vplc-programs nics -type f ! -name '*.mac' 2>/dev/null; ls /sys/class/net; \
             ls -d /sys/fs/cgroup/system.slice/docker-* 2>/dev/null; true",
        )
    }
}

/// An archive with an image of the stub runtime.
fn image(name: &str) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("image.tar");
    write_archive(&archive, name);
    fs::read(archive).unwrap()
}

/// Says what comes next.
pub fn title(text: &str) {
    println!("\n== {text}");
}

/// Says what was found.
pub fn note(text: &str) {
    println!("   ({text})");
}

/// Runs a command, and shows it and what it says; returns its exit code.
fn tell(prompt: &str, command: &str, mut shell: Command) -> Option<i32> {
    println!("{prompt} {command}");
    let script = format!("cd {HOME}; exec 2>&1; {command}");
    let output = shell.args(["-c", &script]).output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    output.status.code()
}
