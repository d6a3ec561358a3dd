//! A network namespace to play with.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::unistd::Uid;

/// How long anything may take before a test fails; long, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A network namespace, held by a process that does nothing; dropping it ends both.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A namespace with nothing but a loopback.
    #[allow(clippy::new_without_default, reason = "it starts a process, which no default value does")]
    pub fn new() -> Self {
        assert!(Uid::effective().is_root(), "this needs root; \"unshare --user --map-root-user\" makes anybody root");
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        // It ends with the thread that made it, also if that is killed.
        let mut holder = Command::new("setpriv");
        holder.args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]).stdin(Stdio::null());
        let namespace = Self { holder: holder.spawn().expect("\"unshare\" (Debian: util-linux)") };
        let entered = || fs::metadata(namespace.path()).is_ok_and(|metadata| metadata.ino() != own);
        let deadline = std::time::Instant::now() + PATIENCE;
        while !entered() {
            assert!(std::time::Instant::now() < deadline, "no network namespace can be made");
            std::thread::sleep(Duration::from_millis(1));
        }
        namespace.ip("link set lo up");
        namespace
    }

    /// The process that is in it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// The file that leads to it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid()))
    }

    /// A command that will run in it.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// Runs `ip` with these words in it.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let output = self.command("ip").args(words.split(' ')).output().expect("\"ip\" (Debian: iproute2)");
        text(&output, words)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

#[track_caller]
fn text(output: &Output, what: &str) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}
