//! A machine of its own: Debian with a booted systemd, in which real units run and real reboots happen.
//!
//! It is a container of `systemd-nspawn` without a network, made by `tests/system/boot.sh` from an image that
//! `tests/system/rootfs.sh` makes once. It runs in seconds, writes to memory only, and each boot has a boot id of its own.
//! Everything in it ends with the thread that booted it, even if that is killed; nothing on the machine has to be
//! installed as a service, and no daemon of the machine is used.
//!
//! Needs root, and the commands in [`TOOLS`]. Where that is missing, [`Bench::new`] says so on standard error and gives
//! `None`; with [`STRICT`] set in the environment it fails instead.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "part of a test: what goes wrong in it fails the test"
)]

mod services;

pub use self::services::{INSTALL_DAEMON, SHOWN, unit};

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::built;
use crate::namespace::Namespace;

/// Commands that must be on the `PATH`, each with its Debian package.
pub const TOOLS: [(&str, &str); 5] = [
    ("systemd-nspawn", "systemd-container"),
    ("debootstrap", "debootstrap"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
];
/// Set in the environment, it makes a test fail that would be skipped.
pub const STRICT: &str = "ORCHESTRATOR_TESTS_STRICT";
/// A file of the machine with its boot id. A service with `ProtectControlGroups=` sees the boot id of *this* machine in
/// the kernel's place, so what is tested has to be told to read this one.
pub const BOOT_ID_FILE: &str = "/run/boot-id";
/// How long anything may take that a healthy machine does in a second or two.
pub const PATIENCE: Duration = Duration::from_secs(90);

const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
const GROUP: &str = "orchestrator-bench";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// What a machine has besides the image.
#[derive(Debug)]
pub struct Bench {
    scratch: Scratch,
    options: Vec<String>,
    /// The network namespace that it is booted in; none for that of the caller.
    outside: Option<PathBuf>,
}

impl Bench {
    /// The image as it is. `None` (or a panic, see [`STRICT`]) if this machine cannot boot it.
    pub fn new() -> Option<Self> {
        let why = match why_not() {
            Some(why) => why,
            None => match Scratch::new() {
                Ok(scratch) => return Some(Self { scratch, options: Vec::new(), outside: None }),
                Err(why) => why,
            },
        };
        assert!(std::env::var_os(STRICT).is_none(), "cannot boot a systemd: {why}");
        eprintln!("SKIPPED, cannot boot a systemd: {why}");
        None
    }

    /// Puts a file into the image.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        let target = self.scratch.seed().join(path.trim_start_matches('/'));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(target.parent().unwrap()).unwrap();
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&target).unwrap();
        file.write_all(content.as_ref()).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Puts an executable shell script into the image.
    #[must_use]
    pub fn script(self, path: &str, body: &str) -> Self {
        self.file(path, 0o755, format!("#!/bin/sh\n{body}\n"))
    }

    /// Copies a file of this machine into the image, with its mode.
    #[must_use]
    pub fn copy(self, from: impl AsRef<Path>, to: &str) -> Self {
        let mode = fs::metadata(&from).unwrap().permissions().mode() & 0o7777;
        let content = fs::read(&from).unwrap();
        self.file(to, mode, content)
    }

    /// Shows a file or directory of this machine at a path of the booted one, read-only. For programs: it costs no copy.
    #[must_use]
    pub fn show(mut self, from: impl AsRef<Path>, at: &str) -> Self {
        self.options.push(format!("--bind-ro={}:{at}", from.as_ref().display()));
        self
    }

    /// Plugs the machine in: its link `host0` is a port of this bridge in this namespace, after a reboot again.
    #[must_use]
    pub fn plug(mut self, outside: &Namespace, bridge: &str) -> Self {
        self.outside = Some(outside.path());
        self.options.push(format!("--network-bridge={bridge}"));
        self
    }

    /// Boots the machine and waits until it is up.
    pub fn boot(self) -> Booted {
        let system = Path::new(env!("CARGO_MANIFEST_DIR")).join("system");
        let console = File::create(self.scratch.console()).unwrap();
        // The death signal makes sure that the machine ends with this thread, however that ends.
        let enter = self.outside.map(|outside| format!("--net={}", outside.display()));
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(enter.as_deref().map(|namespace| ["nsenter", namespace, "--"]).into_iter().flatten())
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"])
            .args(["--mount-proc", "--propagation", "private", "sh"])
            .arg(system.join("boot.sh"))
            .args([&self.scratch.rootfs, &self.scratch.seed()])
            .arg(&self.scratch.group)
            .args(&self.options)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        let mut booted = Booted { child, scratch: self.scratch };
        booted.wait_until_up();
        booted
    }
}

/// A machine that is up. It is gone when this is dropped; if the test fails, its console and journal are shown.
#[derive(Debug)]
pub struct Booted {
    child: Child,
    scratch: Scratch,
}

impl Booted {
    /// PID, on this machine, of the booted systemd. Another one after each reboot.
    pub fn leader(&self) -> Option<Pid> {
        let script = child_of(self.child.id(), "sh")?;
        let nspawn = child_of(script, "systemd-nspawn")?;
        child_of(nspawn, "systemd").map(|pid| Pid::from_raw(pid.cast_signed()))
    }

    /// Address of its system bus, for callers on this machine.
    pub fn bus_address(&self) -> String {
        format!("unix:path=/proc/{}/root/run/dbus/system_bus_socket", self.leader().unwrap())
    }

    /// A command to be run inside, as root, with a clean environment.
    pub fn command(&self, program: &str) -> Command {
        self.try_command(program).unwrap()
    }

    fn try_command(&self, program: &str) -> Option<Command> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader()?.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--no-fork", "--"])
            // A shell that waits for the program, not nsenter: at shutdown systemd stops all processes before it ends them,
            // and nsenter then stops itself, too. So nobody would ever wait for what was ended, and the shutdown wait for that.
            .args(["sh", "-c", "\"$@\"; exit $?", "sh", program])
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null());
        Some(command)
    }

    /// Runs a shell script inside and waits for its end.
    pub fn sh(&self, script: &str) -> Output {
        self.command("sh").args(["-c", script]).output().unwrap()
    }

    /// Standard output of a shell script that must succeed, trimmed.
    pub fn ask(&self, script: &str) -> String {
        let output = self.sh(script);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(
            output.status.success(),
            "{script}: {}\n{text}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Asks with a shell script until it succeeds, and gives its output.
    pub fn wait_for(&self, script: &str) -> String {
        let begun = Instant::now();
        loop {
            let output = self.try_command("sh").and_then(|mut sh| sh.args(["-c", script]).output().ok());
            if let Some(output) = output.as_ref().filter(|output| output.status.success()) {
                return String::from_utf8_lossy(&output.stdout).trim().to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {script}\n{output:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its boot id.
    pub fn boot_id(&self) -> String {
        self.ask("cat /proc/sys/kernel/random/boot_id")
    }

    /// Reboots it in an orderly way and waits until it is up again.
    pub fn reboot(&mut self) {
        let before = self.boot_id();
        // The reply may be lost with the machine.
        self.sh("systemctl reboot");
        self.wait_for_boot_after(&before);
    }

    /// Cuts its power: all that runs in it ends at once. It boots again, with what it wrote still there; this waits
    /// until it is up.
    pub fn cut_power(&mut self) {
        let before = self.boot_id();
        kill(self.leader().unwrap(), Signal::SIGKILL).unwrap();
        self.wait_for_boot_after(&before);
    }

    /// Waits until it is up with another boot id than this one.
    pub fn wait_for_boot_after(&mut self, boot_id: &str) {
        self.wait_for(&format!("test \"$(cat /proc/sys/kernel/random/boot_id)\" != {boot_id}"));
        self.wait_until_up();
    }

    fn wait_until_up(&mut self) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the machine is off: {status}");
            }
            // "degraded" is up, too: what failed is for the test to see.
            let up = "test -S /run/dbus/system_bus_socket && systemctl is-system-running --wait";
            let state = self.try_command("sh").and_then(|mut sh| sh.args(["-c", up]).output().ok());
            let state = state.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            if matches!(state.as_deref(), Some("running" | "degraded")) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the machine is not up within {PATIENCE:?}: {state:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The journal of all its boots.
    pub fn journal(&self) -> String {
        let read =
            |mut journalctl: Command| journalctl.args(["--no-pager", "--output=short-precise", "--all"]).output().ok();
        let output = self.try_command("journalctl").and_then(read);
        output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = fs::read(self.scratch.console()).unwrap_or_default();
            eprintln!("---- console of the machine\n{}", String::from_utf8_lossy(&console));
            eprintln!("---- journal of the machine\n{}---- end", self.journal());
        }
        // The child is `unshare`, which takes its PID namespace with it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a machine uses outside of itself, removed with it.
#[derive(Debug)]
struct Scratch {
    rootfs: PathBuf,
    directory: PathBuf,
    group: String,
}

impl Scratch {
    fn new() -> Result<Self, String> {
        let base = built().parent().unwrap().join("booted");
        let cannot = |error: io::Error| format!("cannot use \"{}\": {error}", base.display());
        fs::create_dir_all(&base).map_err(cannot)?;
        let lock = File::create(base.join("lock")).map_err(cannot)?;
        let locked = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| cannot(errno.into()))?;
        remove_stale(&base);
        let rootfs = image(&base)?;
        drop(locked);
        let group = format!("{GROUP}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let directory = base.join(&group);
        fs::create_dir_all(directory.join("seed")).map_err(cannot)?;
        Ok(Self { rootfs, directory, group })
    }

    fn seed(&self) -> PathBuf {
        self.directory.join("seed")
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.group, &self.directory);
    }
}

fn remove(group: &str, directory: &Path) {
    let begun = Instant::now();
    for hierarchy in HIERARCHIES {
        // A group can be removed once the kernel is done with the processes that were killed in it.
        while let Err(error) = remove_groups(&Path::new(hierarchy).join(group)) {
            if begun.elapsed() > Duration::from_secs(10) {
                eprintln!("cannot remove the cgroup {hierarchy}/{group}: {error}");
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    drop(fs::remove_dir_all(directory));
}

/// A cgroup's files cannot be removed, but its directories can, from the leaves on.
fn remove_groups(group: &Path) -> io::Result<()> {
    if !group.is_dir() {
        return Ok(());
    }
    for entry in group.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Removes what tests left that were killed.
fn remove_stale(base: &Path) {
    let Ok(entries) = base.read_dir() else { return };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let owner = name.strip_prefix(GROUP).and_then(|rest| rest.split('-').nth(1)?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            remove(&name, &base.join(&name));
        }
    }
}

/// The image; made now if there is none of this description.
fn image(base: &Path) -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("system/rootfs.sh");
    let mut hasher = DefaultHasher::new();
    fs::read(&script).map_err(|error| error.to_string())?.hash(&mut hasher);
    let image = base.join(format!("rootfs-{:016x}", hasher.finish()));
    if image.exists() {
        return Ok(image);
    }
    eprintln!("making \"{}\", this takes a minute", image.display());
    for entry in base.read_dir().map_err(|error| error.to_string())?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"rootfs-") {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    let unfinished = base.join("unfinished");
    drop(fs::remove_dir_all(&unfinished));
    let made = Command::new("sh")
        .arg(&script)
        .arg(&unfinished)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run rootfs.sh: {error}"))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        return Err(format!(
            "cannot make the image (no network?): {}",
            last.into_iter().rev().collect::<Vec<_>>().join(" | ")
        ));
    }
    fs::rename(&unfinished, &image).map_err(|error| error.to_string())?;
    Ok(image)
}

fn why_not() -> Option<String> {
    if !geteuid().is_root() {
        return Some("this needs root".to_owned());
    }
    let on_path = |name: &str| PATH.split(':').any(|directory| Path::new(directory).join(name).exists());
    let missing: Vec<&str> = TOOLS.iter().filter(|(tool, _)| !on_path(tool)).map(|(_, package)| *package).collect();
    (!missing.is_empty()).then(|| format!("missing packages: {}", missing.join(" ")))
}

fn child_of(parent: u32, name: &str) -> Option<u32> {
    children(parent).into_iter().find(|(_, child)| child == name).map(|(pid, _)| pid)
}

/// PID and name of each child of a process with one thread.
fn children(parent: u32) -> Vec<(u32, String)> {
    let named = |pid: u32| Some((pid, fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()));
    if let Ok(pids) = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) {
        return pids.split_ascii_whitespace().filter_map(|pid| named(pid.parse().ok()?)).collect();
    }
    // The kernel does not tell (CONFIG_PROC_CHILDREN), so ask every process. Slow where there are thousands.
    let is_child = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()? == parent)
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| is_child(pid) == Some(true)).filter_map(named).collect()
}
