//! The real polkit daemon on a private bus, with our policy file and the rules of a test.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::Uid;

use crate::bus::Bus;
use crate::{repository, skip};

const PROGRAM: &str = "/usr/lib/polkit-1/polkitd";
const ACTIONS: &str = "/usr/share/polkit-1/actions";
const RULES: &str = "/etc/polkit-1/rules.d";
/// What allows polkitd to own its name on the bus.
pub const BUS_POLICY: &str = "/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf";

/// A running polkitd; dropping it ends it.
#[derive(Debug)]
pub struct Polkit(Child);

impl Polkit {
    /// Starts polkitd on this bus, which must know [`BUS_POLICY`]. `None`, said on standard error, if the machine
    /// cannot do that.
    pub async fn start(bus: &Bus, rules: &str, test: &str) -> Option<Self> {
        if !available(test) {
            return None;
        }
        let actions = bus.directory().join("actions");
        let rules_directory = bus.directory().join("rules.d");
        fs::create_dir_all(&actions).expect("a directory");
        fs::create_dir_all(&rules_directory).expect("a directory");
        for entry in fs::read_dir(ACTIONS).expect("the actions of the machine").flatten() {
            fs::copy(entry.path(), actions.join(entry.file_name())).expect("a copy");
        }
        let own = repository().join("dbus-interfaces/polkit/org.orchestratord1.policy");
        fs::copy(&own, actions.join("org.orchestratord1.policy")).expect("our policy file");
        fs::write(rules_directory.join("50-test.rules"), rules).expect("the rules");

        // The directories are compiled into polkitd 122, so they are mounted over where only it can see it.
        let script = format!(
            "mount --bind '{}' {ACTIONS} && mount --bind '{}' {RULES} && exec {PROGRAM} --no-debug",
            actions.display(),
            rules_directory.display()
        );
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .stdin(Stdio::null())
            .spawn()
            .expect("\"unshare\" can be started");
        let polkit = Self(child);
        let client = bus.connect().await;
        let names = zbus::fdo::DBusProxy::new(&client).await.expect("the bus");
        let name = || "org.freedesktop.PolicyKit1".try_into().expect("a name");
        for _ in 0..200 {
            if names.name_has_owner(name()).await.expect("an answer") {
                return Some(polkit);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("polkitd did not come to the bus within 10 s");
    }
}

impl Drop for Polkit {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Whether this machine can run a polkitd of our own; if not, that is said on standard error.
pub fn available(test: &str) -> bool {
    if !Uid::effective().is_root() {
        skip(test, "only root can start polkitd");
        return false;
    }
    if !Path::new(PROGRAM).exists() || !Path::new(BUS_POLICY).exists() {
        skip(test, "polkitd is not installed (Debian: polkitd)");
        return false;
    }
    let mount =
        Command::new("unshare").args(["--mount", "mount", "--bind", "/tmp", "/tmp"]).stderr(Stdio::null()).status();
    if !mount.is_ok_and(|status| status.success()) {
        skip(test, "this machine allows no mount namespaces");
        return false;
    }
    true
}
