//! `make bench`: what the daemon costs, in ratios to what the hardware must spend and to what others spend, all in one run
//! on one machine. `docs/benchmarks.md` says how to read it.
//!
//! `BENCH_SIZE` (MiB, 512), `BENCH_RUNS` (5) and `BENCH_ONLY` (a list of throughput, sharing, memory, calls, runners, latency, idle and
//! network) make a quick run; `BENCH_BINARIES` names the directory of the daemon.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what the program is for")]

mod bed;
mod docker;
mod latency;
mod network;
mod overhead;
mod payload;
mod peers;
mod process;
mod report;
mod runners;
mod throughput;
mod wire;

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use nix::unistd::Uid;

use crate::payload::Payloads;
use crate::report::Report;

/// How much is measured.
#[derive(Debug)]
pub struct Scale {
    /// Bytes of the large payloads.
    pub size: u64,
    /// Runs of each measurement, of which the median counts.
    pub runs: usize,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [word, address] if word == "serve" => runtime.block_on(latency::serve(address)),
        _ => runtime.block_on(measure()),
    }
}

async fn measure() -> anyhow::Result<()> {
    anyhow::ensure!(Uid::effective().is_root(), "this needs root: peers mount file systems");
    let scale =
        Scale { size: number("BENCH_SIZE", 512)? << 20, runs: usize::try_from(number("BENCH_RUNS", 5)?.max(1))? };
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split([',', ' ']).any(|word| word == part);
    let on = orchestrator_tests::repository().join("target/bench");
    fs::create_dir_all(&on)?;
    let payloads = Payloads::new(&on)?;
    let mut report = Report::default();
    machine(&scale, &mut report)?;
    let result = async {
        if wanted("idle") {
            overhead::idle(&scale, &on, &mut report).await?;
        }
        if wanted("network") {
            network::run(&on, &mut report).await?;
        }
        if wanted("latency") {
            latency::run(&scale, &on, &payloads, &mut report).await?;
        }
        if wanted("calls") {
            overhead::calls(&scale, &on, &payloads, &mut report).await?;
        }
        if wanted("runners") {
            runners::run(&scale, &payloads, &mut report).await?;
        }
        if wanted("memory") {
            overhead::memory(&on, &payloads, &mut report).await?;
        }
        if wanted("sharing") {
            overhead::sharing(&scale, &on, &payloads, &mut report).await?;
        }
        if wanted("throughput") {
            throughput::run(&scale, &on, &payloads, &mut report).await?;
        }
        anyhow::Ok(())
    };
    let result = result.await;
    let path: PathBuf = on.join("report.md");
    report.write(&path)?;
    eprintln!("The tables are in {}.", path.display());
    result
}

fn number(variable: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{variable} is no number: {text}")),
        _ => Ok(default),
    }
}

/// What was measured, and on what.
fn machine(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let date =
        std::process::Command::new("date").args(["-u", "-d", &format!("@{since}"), "+%Y-%m-%d %H:%M UTC"]).output()?;
    report.say(&format!(
        "{}, {count} processors ({}), Linux {}, load before: {}; {} MiB, medians of {}.",
        String::from_utf8_lossy(&date.stdout).trim(),
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        load.split(' ').next().unwrap_or_default(),
        scale.size >> 20,
        scale.runs
    ));
    Ok(())
}
