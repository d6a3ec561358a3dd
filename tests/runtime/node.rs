//! Nodes in the `/dev` of what stands in for a container: a process in a mount namespace with a `/dev` of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use orchestrator_tests::skip;
use orchestratord::vplc::process::Process;
use orchestratord::vplc::serial::{Container, Device, SerialError};

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

    fn container(&self) -> Container {
        let process = Process::of(i32::try_from(self.0.id()).unwrap()).unwrap();
        Container::of(process).unwrap()
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

const OWN_DEV: &str = "mount -t tmpfs none /dev";

/// Whether this machine lets us make namespaces and nodes.
fn possible(test: &str) -> bool {
    let script = format!("{OWN_DEV} && mknod /dev/n c 1 3 && : >/dev/n");
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", &script]).stderr(Stdio::null()).status();
    let possible = tried.is_ok_and(|status| status.success());
    if !possible {
        skip(test, "this machine lets us make no device nodes in a mount namespace");
    }
    possible
}

#[test]
fn a_node_is_made_replaced_and_removed_from_outside() {
    if !possible("a_node_is_made_replaced_and_removed_from_outside") {
        return;
    }
    let inside = Inside::start(OWN_DEV);
    let container = inside.container();
    container.make_node("/dev/modbus0", NULL, None).unwrap();
    assert_eq!(
        inside.sh("stat -c '%F %t:%T %a' /dev/modbus0; cat /dev/modbus0; ls -A /dev"),
        "character special file 1:3 660\nmodbus0\n"
    );
    // The same again changes nothing.
    let before = inside.sh("stat -c %i /dev/modbus0");
    container.make_node("/dev/modbus0", NULL, None).unwrap();
    assert_eq!(inside.sh("stat -c %i /dev/modbus0"), before);
    // It came back under another number.
    container.make_node("/dev/modbus0", ZERO, Some(NULL)).unwrap();
    assert_eq!(container.node("/dev/modbus0").unwrap(), Some(ZERO));
    assert_eq!(inside.sh("head -c 3 /dev/modbus0 | wc -c").trim(), "3");
    // Another device is not ours to remove.
    container.remove_node("/dev/modbus0", NULL).unwrap();
    assert_eq!(container.node("/dev/modbus0").unwrap(), Some(ZERO));
    container.remove_node("/dev/modbus0", ZERO).unwrap();
    container.remove_node("/dev/modbus0", ZERO).unwrap();
    assert_eq!(inside.sh("ls -A /dev"), "");
    assert!(!std::path::Path::new("/dev/modbus0").exists(), "it was made on the host");
}

#[test]
fn what_is_in_the_way_is_left_alone() {
    if !possible("what_is_in_the_way_is_left_alone") {
        return;
    }
    let inside =
        Inside::start(&format!("{OWN_DEV}; echo text >/dev/file; ln -s /etc/passwd /dev/link; mknod /dev/zero c 1 5"));
    let container = inside.container();
    for (path, former) in [
        ("/dev/file", None),
        ("/dev/link", None),
        ("/dev/zero", None),
        ("/dev/zero", Some(Device { major: 1, minor: 7 })),
    ] {
        assert!(matches!(container.make_node(path, NULL, former), Err(SerialError::InTheWay(_))), "{path}");
        container.remove_node(path, NULL).unwrap();
    }
    assert_eq!(
        inside.sh("cat /dev/file; readlink /dev/link; stat -c %t:%T /dev/zero; ls -A /dev"),
        "text\n/etc/passwd\n1:5\nfile\nlink\nzero\n"
    );
    for path in ["/etc/passwd", "/dev/../etc/x", "/dev/a/b", "/dev/", "/dev/.hidden", "modbus0"] {
        assert!(matches!(container.make_node(path, NULL, None), Err(SerialError::Place(_))), "{path}");
    }
}

#[test]
fn a_container_cannot_lead_the_daemon_astray() {
    let test = "a_container_cannot_lead_the_daemon_astray";
    if !possible(test) {
        return;
    }
    // The /dev of the host.
    let sharing = Inside::start(":");
    assert!(matches!(sharing.container().make_node("/dev/modbus0", NULL, None), Err(SerialError::HostDevices)));
    // A link in place of /dev.
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
    assert!(matches!(linked.container().make_node("/dev/modbus0", NULL, None), Err(SerialError::Node { .. })));
    assert!(!root.path().join("etc/modbus0").exists());
}
