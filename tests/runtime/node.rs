//! Nodes in what stands in for a container: a process in a mount namespace with a directory for serial ports of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use orchestrator_tests::skip;
use orchestratord::vplc::process::Process;
use orchestratord::vplc::serial::{Device, Nodes, SerialError};

const NULL: Device = Device { major: 1, minor: 3 };
const ZERO: Device = Device { major: 1, minor: 5 };

struct Inside(Child);

impl Inside {
    /// A process whose `/dev` is prepared like this.
    fn start(prepare: &str) -> Self {
        let script = format!("{prepare}\necho; exec sleep 600");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("\"unshare\" (Debian: util-linux) can be started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "\n", "the namespace is ready");
        Self(child)
    }

    fn nodes(&self) -> Result<Nodes, SerialError> {
        Nodes::of(Process::of(i32::try_from(self.0.id()).unwrap()).unwrap())
    }

    /// What a shell inside says.
    fn sh(&self, script: &str) -> String {
        let target = self.0.id().to_string();
        let output =
            Command::new("nsenter").args(["--mount", "--target", &target, "sh", "-c", script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A `/dev` as an engine makes it, with a directory for serial ports.
const OWN: &str = "mount -t tmpfs none /dev; mkdir /dev/serial; mount -t tmpfs none /dev/serial";

/// Whether this machine lets us make namespaces and nodes.
fn possible(test: &str) -> bool {
    let script = format!("{OWN}; mknod /dev/serial/n c 1 3 && : >/dev/serial/n");
    let tried = Command::new("unshare").args(["--mount", "sh", "-ec", &script]).stderr(Stdio::null()).status();
    let possible = tried.is_ok_and(|status| status.success());
    if !possible {
        skip(test, "this machine lets us make no device nodes in a mount namespace");
    }
    possible
}

#[test]
fn nodes_are_made_replaced_and_removed_from_outside() {
    if !possible("nodes_are_made_replaced_and_removed_from_outside") {
        return;
    }
    let inside = Inside::start(OWN);
    let nodes = inside.nodes().unwrap();
    nodes.make("modbus", NULL).unwrap();
    assert_eq!(
        inside.sh("stat -c '%F %t:%T %a' /dev/serial/modbus; cat /dev/serial/modbus; ls -A /dev/serial"),
        "character special file 1:3 666\nmodbus\n"
    );
    // The same again changes nothing.
    let before = inside.sh("stat -c %i /dev/serial/modbus");
    nodes.make("modbus", NULL).unwrap();
    assert_eq!(inside.sh("stat -c %i /dev/serial/modbus"), before);
    // It came back under another number.
    nodes.make("modbus", ZERO).unwrap();
    assert_eq!(inside.sh("head -c 3 /dev/serial/modbus | wc -c").trim(), "3");
    nodes.make("other", NULL).unwrap();
    assert_eq!(nodes.devices().unwrap(), [("modbus".to_owned(), ZERO), ("other".to_owned(), NULL)].into());
    nodes.retain(|name| name == "other").unwrap();
    assert_eq!(inside.sh("ls -A /dev/serial"), "other\n");
    nodes.retain(|_| false).unwrap();
    assert_eq!(inside.sh("ls -A /dev/serial"), "");
    assert!(!std::path::Path::new("/dev/serial/modbus").exists(), "it was made on the host");
}

#[test]
fn what_is_in_the_way_is_left_alone() {
    if !possible("what_is_in_the_way_is_left_alone") {
        return;
    }
    let inside = Inside::start(&format!("{OWN}; cd /dev/serial; echo text >file; ln -s /etc/passwd link"));
    let nodes = inside.nodes().unwrap();
    for name in ["file", "link"] {
        assert!(matches!(nodes.make(name, NULL), Err(SerialError::InTheWay(_))), "{name}");
    }
    nodes.retain(|_| false).unwrap();
    assert_eq!(inside.sh("cd /dev/serial; cat file; readlink link; ls -A"), "text\n/etc/passwd\nfile\nlink\n");
    // What the container puts where a node is prepared is not followed either.
    inside.sh("ln -s /etc/orchestratord-test /dev/serial/.orchestratord");
    nodes.make("modbus", NULL).unwrap();
    assert_eq!(inside.sh("ls -A /dev/serial"), "file\nlink\nmodbus\n");
}

#[test]
fn a_container_cannot_lead_the_daemon_astray() {
    let test = "a_container_cannot_lead_the_daemon_astray";
    if !possible(test) {
        return;
    }
    // The /dev of the host, a directory that is no mount, one on which nodes are dead.
    let refused = |prepare: &str| Inside::start(prepare).nodes().unwrap_err();
    assert!(matches!(refused(":"), SerialError::NoDirectory));
    assert!(matches!(refused("mount -t tmpfs none /dev; mkdir /dev/serial"), SerialError::NoDirectory));
    assert!(matches!(refused(&format!("{OWN}; mount -o remount,nodev /dev/serial")), SerialError::NoDevices));
    // A link in place of the directory, and of what is above it.
    let elsewhere = "mount -t tmpfs none /dev; ln -s /etc /dev/serial";
    assert!(matches!(refused(elsewhere), SerialError::Node { .. }));
    let root = tempfile::tempdir().unwrap();
    for directory in ["bin", "etc", "lib", "lib64", "usr", "proc"] {
        std::fs::create_dir(root.path().join(directory)).unwrap();
    }
    std::os::unix::fs::symlink("/etc", root.path().join("dev")).unwrap();
    let path = root.path().display();
    let binds: String =
        ["bin", "lib", "lib64", "usr"].map(|name| format!("mount --bind /{name} {path}/{name}\n")).concat();
    let mut linked = Command::new("unshare");
    linked.args(["--mount", "sh", "-ec", &format!("{binds}exec chroot {path} sh -c 'echo; exec sleep 600'")]);
    let mut child = linked.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let linked = Inside(child);
    assert!(matches!(linked.nodes(), Err(SerialError::Node { .. })));
}
