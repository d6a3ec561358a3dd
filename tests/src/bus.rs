//! A private message bus with the rules of a system bus and our policy file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Uid, User};
use tempfile::TempDir;
use zbus::Connection;

use crate::repository;

/// User id of `nobody` on Debian; what matters is that it is not root.
pub const NOBODY: u32 = 65534;

/// A running `dbus-daemon`; dropping it ends it.
#[derive(Debug)]
pub struct Bus {
    daemon: Child,
    directory: TempDir,
    address: String,
}

impl Bus {
    /// Starts a bus that knows our policy file.
    pub fn start() -> Self {
        Self::with_policies(&[])
    }

    /// Starts a bus that knows our policy file and these.
    pub fn with_policies(more: &[&Path]) -> Self {
        let directory = TempDir::with_prefix("orchestrator-bus-").expect("a temporary directory");
        // Callers who are not root must reach the socket.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let socket = directory.path().join("bus");
        let own = own_policy(directory.path());
        let policies: Vec<&str> = std::iter::once(own.as_path()).chain(more.iter().copied()).map(path).collect();
        let includes = format!("  <include>{}</include>\n", policies.join("</include>\n  <include>"));
        let configuration = directory.path().join("bus.conf");
        fs::write(&configuration, SYSTEM_BUS.replace("@SOCKET@", path(&socket)).replace("@INCLUDES@", &includes))
            .expect("the configuration of the bus");

        let mut daemon = Command::new("dbus-daemon")
            .arg("--nofork")
            .arg("--print-address")
            .arg(format!("--config-file={}", path(&configuration)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("\"dbus-daemon\" (Debian: dbus-daemon) can be started");
        let mut address = String::new();
        let stdout = daemon.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut address).expect("the address of the bus");
        let address = address.trim().to_owned();
        let bus = Self { daemon, directory, address };
        assert!(!bus.address.is_empty(), "dbus-daemon did not start; see its message above");
        bus
    }

    /// The address, for `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A directory that lives as long as the bus, open to everybody.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// How to connect.
    pub fn builder(&self) -> zbus::connection::Builder<'static> {
        zbus::connection::Builder::address(self.address.as_str())
    }

    /// A new connection.
    pub async fn connect(&self) -> Connection {
        self.builder().build().await.expect("a connection to the private bus")
    }

    /// `busctl` on this bus.
    pub fn busctl(&self) -> tokio::process::Command {
        let mut busctl = tokio::process::Command::new("busctl");
        busctl.arg(format!("--address={}", self.address)).stdin(Stdio::null()).kill_on_drop(true);
        busctl
    }

    /// A command that runs this program as a user who is not root. `None`, said on standard error, if this process is
    /// no root and so cannot become somebody else.
    pub fn as_nobody(&self, program: &Path, test: &str) -> Option<tokio::process::Command> {
        if !Uid::effective().is_root() {
            crate::skip(test, "only root can call as another user");
            return None;
        }
        let program = if program.is_absolute() {
            // The build directory may be closed to others, this one is not.
            let copy = self.directory().join(program.file_name().expect("a program"));
            if !copy.exists() {
                // By another process: a program that is open for writing cannot be run, and whatever this process has
                // open while it copies goes along with the processes that other tests start at that moment.
                let copied = Command::new("cp").arg(program).arg(&copy).status();
                assert!(copied.is_ok_and(|status| status.success()), "\"{}\" cannot be copied", program.display());
            }
            copy
        } else {
            program.to_owned()
        };
        let mut command = tokio::process::Command::new("setpriv");
        command
            .args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", path(&program)])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Some(command)
    }

    /// `busctl` on this bus, run by [`Bus::as_nobody`].
    pub fn busctl_as_nobody(&self, test: &str) -> Option<tokio::process::Command> {
        let mut busctl = self.as_nobody(Path::new("busctl"), test)?;
        busctl.arg(format!("--address={}", self.address));
        Some(busctl)
    }

    /// Ends the bus, as if it had crashed.
    pub fn kill(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Our policy file; "root" becomes the user who runs the tests.
fn own_policy(directory: &Path) -> PathBuf {
    let source = repository().join("dbus-interfaces/org.orchestratord1.conf");
    let policy = fs::read_to_string(&source).expect("our bus policy");
    assert!(policy.contains("user=\"root\""), "{} has no rule for root", source.display());
    let user = User::from_uid(Uid::effective()).ok().flatten().map_or("root".to_owned(), |user| user.name);
    let copy = directory.join("org.orchestratord1.conf");
    fs::write(&copy, policy.replace("user=\"root\"", &format!("user=\"{user}\""))).expect("a copy of our bus policy");
    copy
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The rules of the system bus as dbus ships them: nobody owns a name and no method can be called unless a policy file
/// of the service allows it.
const SYSTEM_BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=@SOCKET@</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>
@INCLUDES@</busconfig>
"#;
