//! The runner of systemd against that of plain processes: the same installs, on one booted systemd.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use orchestrator_tests::booted::{BOOT_ID_FILE, Bench, Booted};
use orchestrator_tests::repository;
use orchestratord::update::artifact::Compression;
use zbus::Connection;

use crate::Scale;
use crate::bed::{self, Taking};
use crate::overhead::CALLS;
use crate::payload::{Kind, Payloads};
use crate::report::{Report, median};

/// Where the machine finds the daemon.
const SHOWN: &str = "/opt/bench";
const ARTIFACT: &str = "/var/tmp/tiny.mender";
const CONFIGURATION: &str = "/etc/mender-orchestrator";

/// Installs a tiny Artifact on many Components with each runner.
pub async fn run(scale: &Scale, payloads: &Payloads, report: &mut Report) -> anyhow::Result<()> {
    report.heading("Both runners, on a booted systemd whose disk is memory");
    let tiny = payloads.artifact(Kind::Noise, 1024, Compression::Gzip)?;
    for count in [10, 100] {
        let Some(bench) = Bench::new() else {
            report.say("The runner of systemd is left out: this machine cannot boot a systemd.");
            return Ok(());
        };
        let daemon = bed::program()?;
        let directory = daemon.parent().context("the daemon has no directory")?;
        let machine = bench
            .show(directory, SHOWN)
            .copy(&tiny, ARTIFACT)
            .copy(
                repository().join("dbus-interfaces/org.orchestratord1.conf"),
                "/usr/share/dbus-1/system.d/org.orchestratord1.conf",
            )
            .file(&format!("{CONFIGURATION}/topology.yaml"), 0o644, bed::topology(count))
            .file("/usr/share/mender-orchestrator/interfaces/v1/bench", 0o755, Taking::Nothing.script())
            .boot();
        let mut walls = Vec::new();
        for runner in ["process", "systemd"] {
            start(&machine, runner);
            let connection = zbus::connection::Builder::address(machine.bus_address().as_str()).build().await?;
            let mut samples = Vec::new();
            // The first round brings everything into memory and does not count.
            for round in 0..=scale.runs {
                let wall = install(&connection).await?;
                if round > 0 {
                    samples.push(wall);
                }
            }
            machine.ask("systemctl stop orchestratord");
            let wall = median(samples);
            #[allow(clippy::cast_precision_loss, reason = "some thousands at most")]
            let calls = (count * CALLS.len()) as f64;
            report.line(&format!("runner-{runner}-{count}-call-ms"), wall * 1000.0 / calls);
            walls.push(wall);
        }
        if let [process, systemd] = walls[..] {
            report.line(&format!("runner-systemd-{count}/runner-process"), systemd / process);
        }
    }
    Ok(())
}

/// Starts the daemon as a service of the machine, with this runner.
fn start(machine: &Booted, runner: &str) {
    machine.ask(&format!(
        "echo '{{\"Runner\": \"{runner}\"}}' >{CONFIGURATION}/mender-orchestrator.conf\n\
         systemd-run --quiet --collect --unit=orchestratord --service-type=notify --property=RuntimeDirectory=orchestrator \
         --setenv=ORCHESTRATORD_BOOT_ID_FILE={BOOT_ID_FILE} --setenv=MENDER_ORCHESTRATOR_TOPOLOGY_DIR={CONFIGURATION} \
         --setenv=MENDER_ORCHESTRATOR_ARTIFACTS_CACHE_DIR= {SHOWN}/orchestratord"
    ));
}

/// Seconds that an install takes.
async fn install(connection: &Connection) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let job = bed::begin(connection, ARTIFACT.as_ref()).await?;
    let result = tokio::time::timeout(Duration::from_mins(5), job.wait()).await??;
    let wall = begun.elapsed().as_secs_f64();
    ensure!(result == "done", "the install ended with {result}: {:?}", job.error().await?);
    Ok(wall)
}
