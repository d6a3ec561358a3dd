//! How fast the bus is answered, against a service that does nothing else.

use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use orchestrator_tests::bus::Bus;
use orchestratord::update::artifact::Compression;
use orchestratord_dbus::{BUS_NAME, ROOT_PATH};
use zbus::{Connection, OwnedVariant};

use crate::Scale;
use crate::bed::{Bed, Taking};
use crate::payload::{Kind, Payloads};
use crate::process::Held;
use crate::report::{Report, percentile};

/// Calls of one measurement.
const CALLS: usize = 5000;

/// A service with one property and nothing else.
struct Bare;

#[zbus::interface(name = "org.orchestratord1.Manager")]
impl Bare {
    #[zbus(property)]
    #[allow(clippy::unused_self, reason = "a property is a method of an object")]
    fn state(&self) -> &'static str {
        "idle"
    }
}

/// Serves the bare service until standard input ends.
pub async fn serve(address: &str) -> anyhow::Result<()> {
    let connection = zbus::connection::Builder::address(address).build().await?;
    connection.object_server().at(ROOT_PATH, Bare).await?;
    connection.request_name(BUS_NAME).await?;
    println!("ready");
    // The service runs on this thread, so the end is waited for on another.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

/// Latency and throughput at rest and during an install.
pub async fn run(scale: &Scale, on: &Path, payloads: &Payloads, report: &mut Report) -> anyhow::Result<()> {
    report.heading(&format!("D-Bus: {CALLS} property Gets, one after the other"));
    let bed = Bed::start(on, 20, Taking::Nothing).await?;
    let connection = bed.bus().connect().await;
    // On a bus of its own under the daemon's name, because the policy speaks of that name.
    let bare_bus = Bus::start();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", bare_bus.address()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("a pipe")?;
    std::io::BufReader::new(stdout).read_line(&mut String::new())?;
    let bare = Held(child);

    let mut rows = Vec::new();
    let mut add = |report: &mut Report, what: &str, figures: &(Vec<f64>, f64)| {
        let (sorted, per_second) = figures;
        let (p50, p99) = (percentile(sorted, 50), percentile(sorted, 99));
        report.line(&format!("get-{what}-p50-ms"), p50);
        report.line(&format!("get-{what}-p99-ms"), p99);
        report.line(&format!("get-{what}-per-second"), *per_second);
        rows.push(vec![what.to_owned(), format!("{p50:.3}"), format!("{p99:.3}"), format!("{per_second:.0}")]);
    };
    add(report, "bare", &ask(&bare_bus.connect().await, CALLS).await?);
    drop(bare);
    add(report, "idle", &ask(&connection, CALLS).await?);
    bed.take(Taking::Stream)?;
    let artifact = payloads.artifact(Kind::Realistic, scale.size, Compression::Gzip)?;
    let job = bed.begin(&artifact).await?;
    let mut sorted = Vec::new();
    let (begun, mut count) = (Instant::now(), 0.0);
    while job.state().await? == "running" {
        sorted.extend(ask(&connection, 50).await?.0);
        count += 50.0;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let per_second = count / begun.elapsed().as_secs_f64();
    sorted.sort_by(f64::total_cmp);
    add(report, "installing", &(sorted, per_second));
    report.table(&["service", "p50 ms", "p99 ms", "calls per second"], &rows);
    Ok(())
}

/// Milliseconds of so many calls, sorted, and calls per second.
async fn ask(connection: &Connection, count: usize) -> anyhow::Result<(Vec<f64>, f64)> {
    let proxy = zbus::Proxy::new(connection, BUS_NAME, ROOT_PATH, "org.freedesktop.DBus.Properties").await?;
    let mut times = Vec::with_capacity(count);
    let begun = Instant::now();
    for _ in 0..count {
        let asked = Instant::now();
        let _: OwnedVariant = proxy.call("Get", &("org.orchestratord1.Manager", "State")).await?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
    }
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let per_second = count as f64 / begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Ok((times, per_second))
}
