//! How fast an Artifact gets to a Component, against the floor and against others.
//!
//! The floor of a case is its slowest stage: the pipe, the hash, the bare decoder. Stages overlap on two processors.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;
use std::time::Instant;

use flate2::bufread::MultiGzDecoder;
use orchestratord::update::artifact::Compression;

use crate::Scale;
use crate::bed::{Bed, Taking};
use crate::payload::{Kind, Payloads};
use crate::peers::{Mender, Peer, Rauc, SwUpdate};
use crate::process::{measure, own_cpu, shell};
use crate::report::{Report, Sample, median, middle};

/// What is measured of one payload and compression.
struct Case {
    kind: Kind,
    compression: Compression,
    size: u64,
    runs: usize,
}

/// All of it.
pub async fn run(scale: &Scale, on: &Path, payloads: &Payloads, report: &mut Report) -> anyhow::Result<()> {
    let bed = Bed::start(on, 1, Taking::Stream).await?;
    for kind in [Kind::Realistic, Kind::Noise] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz] {
            // xz is so slow that a quarter of the bytes and at most three runs say as much.
            let (size, runs) = match compression {
                Compression::Xz => (scale.size / 4, scale.runs.min(3)),
                _ => (scale.size, scale.runs),
            };
            let runs = if kind == Kind::Noise { runs.min(3) } else { runs };
            case(&Case { kind, compression, size, runs }, &bed, on, payloads, report).await?;
        }
    }
    Ok(())
}

#[allow(clippy::too_many_lines, reason = "one list of what is measured side by side")]
async fn case(case: &Case, bed: &Bed, on: &Path, payloads: &Payloads, report: &mut Report) -> anyhow::Result<()> {
    let Case { kind, compression, size, runs } = *case;
    report.heading(&format!("{} payload, {compression}, {} MiB, {runs} runs", kind.name(), size >> 20));
    let plain = payloads.plain(kind, size)?;
    let compressed = payloads.compressed(kind, size, compression)?;
    let artifact = payloads.artifact(kind, size, compression)?;

    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    if kind == Kind::Realistic {
        let mut add = |peer: anyhow::Result<Box<dyn Peer>>, name: &str| match peer {
            Ok(peer) => peers.push(peer),
            Err(error) => report.say(&format!("LEFT OUT {name}, {compression}: {error:#}")),
        };
        // Debian's client of Mender knows no zstd.
        if compression != Compression::Zstd {
            add(Mender::new(on, &artifact, false).map(|peer| Box::new(peer) as _), "mender install, streamed");
            add(Mender::new(on, &artifact, true).map(|peer| Box::new(peer) as _), "mender install, stored");
        }
        add(Rauc::new(on, payloads, size, compression).map(|peer| Box::new(peer) as _), "rauc install");
        add(SwUpdate::new(on, payloads, size, compression).map(|peer| Box::new(peer) as _), "swupdate");
    }

    let (mut pipe, mut hash, mut decoder) = (Vec::new(), Vec::new(), Vec::new());
    let (mut streamed, mut written, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    let mut theirs: Vec<(Box<dyn Peer>, Vec<Sample>)> = peers.into_iter().map(|peer| (peer, Vec::new())).collect();
    for round in 0..=runs {
        let keep = |samples: &mut Vec<Sample>, sample: Sample| {
            // The first round only brings everything into memory.
            if round > 0 {
                samples.push(sample);
            }
        };
        keep(&mut pipe, measure(&mut shell(&format!("cat '{}' | cat >/dev/null", plain.display())))?);
        keep(&mut hash, measure(&mut shell(&format!("exec openssl dgst -sha256 '{}'", plain.display())))?);
        keep(&mut decoder, bare_decoder(&compressed, compression)?);
        bed.take(Taking::Stream)?;
        keep(&mut streamed, bed.install(&artifact).await?);
        bed.take(Taking::Write)?;
        keep(&mut written, bed.install(&artifact).await?);
        bed.take(Taking::Store)?;
        keep(&mut stored, bed.install(&artifact).await?);
        theirs.retain_mut(|(peer, samples)| match peer.install() {
            Ok(sample) => {
                keep(samples, sample);
                true
            }
            Err(error) => {
                report.say(&format!("LEFT OUT {}, {compression}: {error:#}", peer.name()));
                false
            }
        });
    }

    let floor = [&pipe, &hash, &decoder].map(|samples| middle(samples).wall).into_iter().fold(0.0, f64::max);
    let row = |name: &str, samples: &[Sample]| (name.to_owned(), middle(samples), Some(floor));
    let mut rows = vec![row("floor: pipe", &pipe), row("floor: hash", &hash)];
    if compression != Compression::None {
        rows.push(row("floor: decoder", &decoder));
    }
    rows.push(row("ours, streamed", &streamed));
    rows.push(row("ours, streamed into a file, with fsync", &written));
    rows.push(row("ours, stored, with fsync", &stored));
    for (peer, samples) in &theirs {
        rows.push(row(peer.name(), samples));
    }
    report.samples(&rows);

    let name = if kind == Kind::Noise { format!("noise-{compression}") } else { compression.to_string() };
    let over = |ours: &[Sample], theirs: &[Sample]| {
        // Run against run, so that what else the machine does hits both.
        median(ours.iter().zip(theirs).map(|(ours, theirs)| ours.wall / theirs.wall).collect())
    };
    report.line(&format!("stream-{name}/floor"), middle(&streamed).wall / floor);
    if kind == Kind::Realistic && compression == Compression::Gzip {
        report.line("stream-rss-mib", middle(&streamed).peak);
    }
    report.line(&format!("stream-{name}-rss-mib"), streamed.iter().map(|sample| sample.peak).fold(0.0, f64::max));
    let mut fastest = Vec::new();
    for (peer, samples) in &theirs {
        // Each against ours with the same sink: what only reads against what only reads, a slot against a slot.
        match peer.name() {
            "mender install, streamed" => report.line(&format!("stream-{name}/mender"), over(&streamed, samples)),
            "mender install, stored" => {
                report.line(&format!("store-{name}/mender"), over(&stored, samples));
                fastest.push(over(&stored, samples));
            }
            peer => {
                let peer = peer.split(' ').next().unwrap_or_default();
                report.line(&format!("stream-{name}/{peer}"), over(&written, samples));
                report.line(&format!("store-{name}/{peer}"), over(&stored, samples));
                fastest.push(over(&stored, samples));
            }
        }
    }
    if !fastest.is_empty() {
        report.line(&format!("store-{name}/fastest-peer"), fastest.into_iter().fold(0.0, f64::max));
    }
    Ok(())
}

fn bare_decoder(compressed: &Path, compression: Compression) -> anyhow::Result<Sample> {
    match compression {
        Compression::None => Ok(Sample::default()),
        Compression::Xz => measure(&mut shell(&format!("exec xz -dc '{}'", compressed.display()))),
        Compression::Zstd => measure(&mut shell(&format!("exec zstd -qdc '{}'", compressed.display()))),
        Compression::Gzip => {
            let (before, begun) = (own_cpu()?, Instant::now());
            let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(256 * 1024, File::open(compressed)?));
            let mut buffer = vec![0; 256 * 1024];
            while decoder.read(&mut buffer).map_err(io::Error::other)? > 0 {}
            Ok(Sample { wall: begun.elapsed().as_secs_f64(), cpu: own_cpu()? - before, peak: 0.0 })
        }
    }
}
