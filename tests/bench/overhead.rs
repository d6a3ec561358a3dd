//! What the daemon adds to the programs it calls, and what it costs when nothing is to be done.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use orchestratord::update::artifact::Compression;

use crate::Scale;
use crate::bed::{Bed, Taking};
use crate::payload::{Kind, Payloads};
use crate::process::{children_cpu, resident, sleeps};
use crate::report::{Report, Sample, median, middle};

/// Calls of the Interface that an install of one Component makes, from `Identity` to the last `Provides`.
pub const CALLS: [&str; 11] = [
    "Identity",
    "Provides",
    "NeedsUnpackedArtifact",
    "ProvidePayloadFileSizes",
    "Download",
    "ArtifactInstall",
    "NeedsArtifactReboot",
    "ArtifactCommit",
    "Cleanup",
    "Identity",
    "Provides",
];

/// One tiny Artifact, then many Components.
pub async fn calls(scale: &Scale, on: &Path, payloads: &Payloads, report: &mut Report) -> anyhow::Result<()> {
    let tiny = payloads.artifact(Kind::Noise, 1024, Compression::Gzip)?;
    report.heading(&format!("Orchestration, {} calls for each Component, process runner", CALLS.len()));
    let mut rows = Vec::new();
    let bed = Bed::start(on, 1, Taking::Nothing).await?;
    let mut samples = Vec::new();
    for _ in 0..scale.runs * 4 {
        samples.push(bed.install(&tiny).await?);
    }
    let one = middle(&samples);
    report.line("tiny-install-ms", one.wall * 1000.0);
    let floor = start_programs(&bed, CALLS.len(), 1)?;
    report.line("tiny-install/process-floor", one.wall / floor.wall);
    rows.push(("one Component".to_owned(), one, Some(floor.wall)));
    drop(bed);

    for count in [10, 100, 500] {
        let bed = Bed::start(on, count, Taking::Nothing).await?;
        let (mut ours, mut serial, mut parallel) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..if count > 100 { scale.runs.min(3) } else { scale.runs } {
            ours.push(bed.install(&tiny).await?);
            serial.push(start_programs(&bed, CALLS.len() * count, 1)?);
            parallel.push(start_programs(&bed, CALLS.len() * count, 2)?);
        }
        let (ours, serial, parallel) = (middle(&ours), middle(&serial), middle(&parallel));
        report.line(&format!("components-{count}/process-floor"), ours.wall / parallel.wall);
        report.line(&format!("components-{count}/process-floor-serial"), ours.wall / serial.wall);
        report.line(&format!("components-{count}-cpu/process-cpu"), ours.cpu / parallel.cpu);
        rows.push((format!("{count} Components"), ours, Some(parallel.wall)));
        rows.push((format!("{count}: the same programs, two at a time"), parallel, Some(parallel.wall)));
        rows.push((format!("{count}: one after the other"), serial, Some(parallel.wall)));
    }
    report.samples(&rows);
    Ok(())
}

/// Starts and awaits the bed's Interface program so many times, so many at a time, and nothing else.
fn start_programs(bed: &Bed, count: usize, at_once: usize) -> anyhow::Result<Sample> {
    let program = bed.program();
    let next = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    let (before, begun) = (children_cpu()?, Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let word = CALLS.get(number % CALLS.len()).copied().unwrap_or_default();
                    // With a pipe for each stream, as whoever wants the output has it.
                    let output = Command::new(&program).args([word, "/", "bench", "b0"]).stdin(Stdio::null()).output();
                    if !output.is_ok_and(|output| output.status.success()) {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    ensure!(failures.into_inner() == 0, "the Interface program failed");
    Ok(Sample { wall: begun.elapsed().as_secs_f64(), cpu: children_cpu()? - before, peak: 0.0 })
}

/// One Artifact for eight Components.
pub async fn sharing(scale: &Scale, on: &Path, payloads: &Payloads, report: &mut Report) -> anyhow::Result<()> {
    report.heading(&format!("One gzip Artifact of {} MiB for eight Components, streamed", scale.size >> 20));
    let artifact = payloads.artifact(Kind::Realistic, scale.size, Compression::Gzip)?;
    let (one, eight) = (Bed::start(on, 1, Taking::Nothing).await?, Bed::start(on, 8, Taking::Nothing).await?);
    let (mut ones, mut eights) = (Vec::new(), Vec::new());
    for bed in [&one, &eight] {
        bed.take(Taking::Stream)?;
    }
    let own = |bed: &Bed| crate::process::own_cpu_of(bed.id());
    let (mut own_one, mut own_eight) = (Vec::new(), Vec::new());
    for _ in 0..scale.runs.min(3) {
        let before = own(&one)?;
        ones.push(one.install(&artifact).await?);
        own_one.push(own(&one)? - before);
        let before = own(&eight)?;
        eights.push(eight.install(&artifact).await?);
        own_eight.push(own(&eight)? - before);
    }
    let (one, eight) = (middle(&ones), middle(&eights));
    report.line("share-8/share-1-cpu", median(own_eight) / median(own_one));
    report.line("share-8/share-1-cpu-with-programs", eight.cpu / one.cpu);
    report.line("share-8/share-1-wall", eight.wall / one.wall);
    report.line("share-8-rss-mib", eight.peak);
    report.samples(&[("one".to_owned(), one, None), ("eight".to_owned(), eight, None)]);
    Ok(())
}

/// Memory does not grow with the Artifact: zeros, of which 4 GiB fit into a file of some MiB.
pub async fn memory(on: &Path, payloads: &Payloads, report: &mut Report) -> anyhow::Result<()> {
    report.heading("Peak memory, gzip, streamed");
    let bed = Bed::start(on, 1, Taking::Stream).await?;
    let mut rows = Vec::new();
    for mebibytes in [64_u64, 4096] {
        let artifact = payloads.artifact(Kind::Zeros, mebibytes << 20, Compression::Gzip)?;
        let sample = bed.install(&artifact).await?;
        report.line(&format!("stream-{mebibytes}-mib-rss-mib"), sample.peak);
        rows.push((format!("{mebibytes} MiB"), sample, None));
    }
    report.samples(&rows);
    Ok(())
}

/// The daemon that has nothing to do.
pub async fn idle(scale: &Scale, on: &Path, report: &mut Report) -> anyhow::Result<()> {
    report.heading("The daemon itself, Topology of 20 Components");
    let (mut ready, mut rss) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..scale.runs {
        drop(last.take());
        let bed = Bed::start(on, 20, Taking::Nothing).await?;
        // It has asked its Components by then.
        tokio::time::sleep(Duration::from_secs(2)).await;
        ready.push(bed.ready_after * 1000.0);
        rss.push(resident(bed.id())?);
        last = Some(bed);
    }
    report.line("ready-ms", median(ready));
    report.line("idle-rss-mib", median(rss));
    if let Some(bed) = last {
        let before = sleeps(bed.id())?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        let woken =
            sleeps(bed.id())?.into_iter().map(|(thread, count)| count - before.get(&thread).unwrap_or(&0)).sum::<u32>();
        report.line("idle-wake-ups-per-minute", f64::from(woken) * 3.0);
    }
    Ok(())
}
