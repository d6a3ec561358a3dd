//! Runs commands and reads of the kernel what they cost.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{SysconfVar, sysconf};

use crate::report::Sample;

/// Starts a command that says nothing, waits for it, and measures it. An exit status other than 0 is an error.
pub fn measure(command: &mut Command) -> anyhow::Result<Sample> {
    let errors = tempfile::tempfile()?;
    let before = children_cpu()?;
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone()?).spawn()?;
    let mut peak = 0.0_f64;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // What is gone has no peak any more; the last look counts.
        peak = peak.max(peak_of(child.id()).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(2));
    };
    let wall = begun.elapsed().as_secs_f64();
    if !status.success() {
        use std::io::{Read as _, Seek as _};
        let (mut errors, mut text) = (errors, String::new());
        errors.rewind()?;
        errors.read_to_string(&mut text)?;
        bail!("{command:?}: {status}: {text}");
    }
    Ok(Sample { wall, cpu: children_cpu()? - before, peak })
}

/// A pipeline of the shell.
pub fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command
}

/// Processor time of all children that were waited for, in seconds.
pub fn children_cpu() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Processor time of this process, in seconds.
pub fn own_cpu() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn seconds(time: TimeVal) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "microseconds of one run fit")]
    let micros = (time.tv_sec() * 1_000_000 + time.tv_usec()) as f64;
    micros / 1e6
}

/// Processor time of a process and of the children it has waited for, in seconds.
pub fn cpu_of(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').context("a process")?.1;
    let ticks: u32 =
        fields.split_ascii_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u32>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("a clock")?;
    Ok(f64::from(ticks) / f64::from(u32::try_from(per_second)?))
}

/// Largest resident set so far in MiB.
pub fn peak_of(process: u32) -> anyhow::Result<f64> {
    status_mib(process, "VmHWM:")
}

/// Resident set in MiB.
pub fn resident(process: u32) -> anyhow::Result<f64> {
    status_mib(process, "VmRSS:")
}

/// Has the peak begin anew.
pub fn forget_peak(process: u32) -> anyhow::Result<()> {
    Ok(fs::write(format!("/proc/{process}/clear_refs"), "5")?)
}

fn status_mib(process: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a figure")?;
    let kib: u32 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(f64::from(kib) / 1024.0)
}

/// How often each thread of a process has gone to sleep so far: each time it was woken before.
pub fn sleeps(process: u32) -> anyhow::Result<BTreeMap<OsString, u32>> {
    let mut sleeps = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?;
        // A thread that ends meanwhile is none that is woken again and again.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps.insert(task.file_name(), line.context("a figure")?.trim().parse()?);
    }
    Ok(sleeps)
}

/// A child that ends with this.
#[derive(Debug)]
pub struct Held(pub Child);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs a command to its end without measuring it.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(())
}

/// Whether a program is there.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|directory: std::path::PathBuf| directory.join(program).exists())
}

/// A program that only its owner may run, or everybody with `mode` 755.
pub fn script(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // Beside its place first: a program that is open for writing cannot be run.
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(fresh, path)?)
}

/// Processor time of a process without its children, in seconds, to the nanosecond as the scheduler has it.
pub fn own_cpu_of(process: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').context("a process")?.1;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("a clock")?;
    for field in fields.split_ascii_whitespace().skip(11).take(2) {
        sum += f64::from(field.parse::<u32>()?) / f64::from(u32::try_from(per_second)?);
    }
    Ok(sum)
}
