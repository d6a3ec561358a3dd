//! A record that lost a part, or in which bits turned, at every byte.
//!
//! What the daemon makes of a record depends on its bytes alone, so each byte is tried on the code that reads it, and the
//! daemon itself is started for every result that differs, and for a sample of all others. It has to bring the System to
//! the old or the new state, or to say that it does not know.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use orchestratord::update::record::{Record, RecordError};

use crate::bed::Bed;
use crate::check;
use crate::disturbance::Disturbance;
use crate::drive::{Run, Verb};
use crate::scenario::{SCENARIOS, Scenario};

/// Deployments at rest: a scenario, and where its first call stops.
const RESTS: [(&str, &[&str]); 4] = [
    ("module, no reboot", &["ArtifactCommit"]),
    ("module, host reboots", &["ArtifactCommit"]),
    ("module, ArtifactInstall fails", &["ArtifactRollback"]),
    ("module, no reboot", &["Cleanup"]),
];
/// Files of a record; all of what the daemon reads of it.
const FILES: [&str; 2] = ["deployment/journal", "deployment/plan.json"];

/// What became of a byte and of all behind it.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Cut,
    Flip(u8),
}

impl Damage {
    fn done_to(self, bytes: &[u8], at: usize) -> Vec<u8> {
        match self {
            Self::Cut => bytes[..at].to_vec(),
            Self::Flip(bit) => {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 1 << bit;
                bytes
            }
        }
    }
}

/// What the code that reads a record says of it.
fn verdict(state: &Path) -> Result<String> {
    match Record::open(state) {
        Ok(None) => Ok("none".to_owned()),
        Ok(Some(found)) => Ok(format!("sound, {} {}", found.torn, serde_json::to_string(&found.deployment)?)),
        Err(RecordError::Damaged { .. }) => Ok("damaged".to_owned()),
        Err(error) => Err(error.into()),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Returns how many damaged records ended well, and how many did not.
pub fn damage(whole: bool) -> Result<(usize, usize)> {
    // In a sample, a prime: it meets every part of an entry.
    let (step, starts) = if whole { (1, 199) } else { (97, 1999) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut bed = Bed::new().await?;
        let (mut passed, mut failed) = (0, 0);
        for (name, stops) in RESTS {
            let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).context("no such scenario")?;
            let rest = tempfile::TempDir::new_in(bed.place.path())?;
            let mut run = Run::begin(&mut bed, *scenario, Disturbance::None).await?;
            run.call(Verb::Install(2), stops, true).await?;
            let kept = rest.path().join("state");
            copy(&run.bed.path("state"), &kept)?;
            copy(&run.bed.path("system"), &rest.path().join("system"))?;
            run.bed.daemon().kill_daemon();
            bed.switch_off();
            let lone = rest.path().join("lone");
            let mut seen: BTreeMap<String, usize> = BTreeMap::new();
            let (mut tried, mut started, mut bad) = (0, 0, 0);
            for file in FILES {
                let bytes = fs::read(kept.join(file))?;
                // Behind the last entry there are zeros written ahead; of them the beginning is enough.
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                for at in (0..(used + 64).min(bytes.len())).step_by(step) {
                    for damage in [Damage::Cut, Damage::Flip(u8::try_from(at % 8)?)] {
                        tried += 1;
                        let bytes = damage.done_to(&bytes, at);
                        let read = {
                            fs::remove_dir_all(&lone).ok();
                            copy(&kept.join("deployment"), &lone.join("deployment"))?;
                            fs::write(lone.join(file), &bytes)?;
                            verdict(&lone)?
                        };
                        let count = seen.entry(read).or_default();
                        *count += 1;
                        if *count > 1 && tried % starts != 0 {
                            continue;
                        }
                        started += 1;
                        let outcome = start(&mut bed, scenario, rest.path(), file, &bytes).await;
                        let autopsy = outcome.is_err().then(|| bed.autopsy());
                        bed.switch_off();
                        if let Err(error) = outcome {
                            bad += 1;
                            println!("FAILED {name}, {file}, byte {at}, {damage:?}: {error:#}\n{}", autopsy.unwrap_or_default());
                        }
                    }
                }
            }
            let kinds = seen.len();
            println!("{tried:6} damaged records, {kinds} results, {started} daemons started, {bad} failed  {name}, at rest before {stops:?}");
            passed += tried - bad;
            failed += bad;
        }
        Ok((passed, failed))
    })
}

/// The daemon finds such a record, and somebody takes the deployment to its end.
async fn start(bed: &mut Bed, scenario: &Scenario, rest: &Path, file: &str, bytes: &[u8]) -> Result<()> {
    bed.reset(scenario, Disturbance::None)?;
    for directory in ["state", "system"] {
        fs::remove_dir_all(bed.path(directory))?;
        copy(&rest.join(directory), &bed.path(directory))?;
    }
    fs::write(bed.path("state").join(file), bytes)?;
    bed.start(false).await?;
    let mut run = Run::take_up(bed, *scenario).await?;
    run.finish().await?;
    let (error, state) = run.says().await?;
    let aside = run.bed.path("state/deployment.damaged").exists();
    if aside || run.bed.last()?["inconsistent"] == true {
        // Nobody knows how far it came; the record is kept, and no Component was touched since.
        ensure!(state == "degraded" && !error.is_empty(), "the daemon is \"{state}\" and says \"{error}\"");
        return Ok(());
    }
    check::ended(run.bed, scenario)?;
    Ok(())
}
