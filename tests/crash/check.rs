//! What must be true whatever happened.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::bed::{Bed, interface};
use crate::drive::{Run, Told};
use crate::scenario::{End, Flow, Scenario};
use crate::tracer::Logged;

/// One line of the log of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line<'l> {
    /// The program of a reboot runs; it has not said so yet.
    Exec(&'l str, &'l str),
    Begin(&'l str, &'l str),
    End(&'l str, &'l str, i32),
    /// Another daemon came up.
    Up,
    /// The machine came up, and with it the host.
    Boot,
    Reboot,
    Client(&'l str),
}

fn parse(log: &[Logged]) -> Result<Vec<Line<'_>>> {
    let lines = log.iter().take_while(|line| line.text != "fresh").map(|Logged { text: line, .. }| {
        let words: Vec<&str> = line.split(' ').collect();
        Ok(match words.as_slice() {
            ["exec", who, word] => Line::Exec(who, word),
            ["begin", who, word, ..] => Line::Begin(who, state(word)),
            // Killed by a daemon, or with the machine.
            ["died", who, word] => Line::End(who, state(word), -1),
            ["end", who, word, status] => Line::End(who, state(word), status.parse()?),
            ["daemon" | "mended"] => Line::Up,
            ["boot"] => Line::Boot,
            ["reboot"] => Line::Reboot,
            ["client", call] => Line::Client(call),
            _ => bail!("the log of calls has the line \"{line}\""),
        })
    });
    lines.collect()
}

fn state(word: &str) -> &str {
    if word == "DownloadWithFileSizes" { "Download" } else { word }
}

/// A state of the protocol, not a query.
fn is_state(word: &str) -> bool {
    word.starts_with("Artifact") || word == "Download" || word == "Cleanup"
}

fn is_forward(word: &str) -> bool {
    matches!(word, "Download" | "ArtifactInstall" | "ArtifactReboot" | "ArtifactVerifyReboot" | "ArtifactCommit")
}

/// How the deployment ended, after everything was checked.
pub async fn check(run: &Run<'_>, scenario: &Scenario) -> Result<End> {
    let log = run.bed.log();
    let lines = parse(&log)?;
    let verdict: Result<End> = async {
        one_at_a_time(&log, &lines)?;
        calls(&lines, scenario)?;
        let end = end(run.bed, scenario)?;
        refused(run, &lines)?;
        told(run, scenario, end).await?;
        over(run, scenario).await?;
        went_back(&lines, scenario, end)?;
        Ok(end)
    }
    .await;
    verdict.with_context(|| format!("told: {:?}\n      calls:\n        {}", run.told, show(&log)))
}

/// The log, for people.
pub fn show(log: &[Logged]) -> String {
    let lines: Vec<String> = log.iter().map(|line| format!("{} {}", line.generation, line.text)).collect();
    lines.join("\n        ")
}

/// A Component never has two calls at once: a program of a daemon that died has ended before the next daemon calls.
fn one_at_a_time(log: &[Logged], lines: &[Line<'_>]) -> Result<()> {
    let mut latest: BTreeMap<&str, u32> = BTreeMap::new();
    let mut open: BTreeMap<&str, (&str, u32)> = BTreeMap::new();
    for (logged, line) in log.iter().zip(lines) {
        let (Line::Begin(who, word) | Line::End(who, word, _)) = *line else { continue };
        // These change nothing, and are asked outside a deployment by daemons that know nothing of each other.
        if matches!(word, "Identity" | "Provides" | "Inventory") {
            continue;
        }
        let newest = latest.entry(who).or_default();
        ensure!(
            logged.generation >= *newest,
            "{who}: {word} of an earlier daemon went on beside a call of a later one"
        );
        *newest = logged.generation;
        match *line {
            Line::Begin(..) => {
                let running = open.insert(who, (word, logged.generation));
                let overlaps = running.is_some_and(|(_, generation)| generation == logged.generation);
                ensure!(!overlaps, "{who}: {word} began while {running:?} ran");
            }
            _ => {
                ensure!(
                    open.remove(who) == Some((word, logged.generation)),
                    "{who}: {word} ended without having begun"
                );
            }
        }
    }
    Ok(())
}

/// Every Component is in the old state or every Component is in the new state, or the daemon says that it is neither.
fn end(bed: &Bed, scenario: &Scenario) -> Result<End> {
    let says_inconsistent = bed.last()?["inconsistent"] == true;
    let mut releases = Vec::new();
    for part in scenario.parts {
        let home = bed.path("system").join(part.name);
        let provides = fs::read_to_string(home.join("provides")).unwrap_or_default();
        let mut names: Vec<String> = fs::read_dir(home.join("payload"))
            .into_iter()
            .flatten()
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        let is = |release: u8| -> Result<bool> {
            let (kind, file) = (part.kind, format!("{}-{release}.img", part.kind));
            let version = format!("rootfs-image.{}.version={kind}-{release}", interface(kind));
            Ok(names == [file.clone()]
                && fs::read(home.join("payload").join(&file))? == fs::read(bed.path("payload").join(&file))?
                && provides.lines().any(|line| line == version)
                && provides.lines().count() == if release == 1 { 1 } else { 2 })
        };
        releases.push(if is(1)? {
            Some(End::Old)
        } else if is(2)? {
            Some(End::New)
        } else {
            None
        });
        if releases.last() == Some(&None) && !says_inconsistent {
            bail!("{} is half installed: {provides:?}, {names:?}", part.name);
        }
    }
    if says_inconsistent {
        return Ok(End::Inconsistent);
    }
    match releases.first().copied().flatten() {
        Some(end) if releases.iter().all(|other| *other == Some(end)) => Ok(end),
        _ => bail!("the Components do not match: {releases:?}"),
    }
}

/// The System is old or new as a whole, or the daemon says that it is neither.
pub fn ended(bed: &Bed, scenario: &Scenario) -> Result<()> {
    end(bed, scenario).map(drop)
}

/// What is refused has touched nothing.
fn refused(run: &Run<'_>, lines: &[Line<'_>]) -> Result<()> {
    let first = run.told.first().filter(|(call, told)| call.starts_with("Install") && matches!(told, Told::Refused(_)));
    if first.is_some() {
        let touched = lines.iter().find(|line| matches!(line, Line::Begin(_, word) if is_state(word)));
        ensure!(touched.is_none(), "the install was refused after {touched:?}");
    }
    Ok(())
}

/// What callers were told is true, and a failure is never silent.
async fn told(run: &Run<'_>, scenario: &Scenario, end: End) -> Result<()> {
    let last = run.bed.last()?;
    let result = last["result"].as_str().unwrap_or("none");
    match (end, result) {
        // New and failed: committed, and cleaning up failed. Old and none: refused before there was anything.
        (End::New, "done" | "failed")
        | (End::Old, "rolled-back" | "failed" | "cancelled" | "none")
        | (End::Inconsistent, "inconsistent") => {}
        _ => bail!("the System is {end:?}, but the result is \"{result}\""),
    }
    let (error, state) = run.says().await?;
    let wanted = end != End::New && result != "none";
    let is_taken_back = matches!(scenario.flow, Flow::TakenBack(_)) && end == End::Old;
    let told_before = run.told.iter().any(|(_, told)| told.status() == 1);
    ensure!(
        !wanted || !error.is_empty() || is_taken_back || told_before,
        "the deployment ended \"{result}\", and neither a caller nor LastError says why"
    );
    ensure!(
        (state == "degraded") == (end == End::Inconsistent),
        "the daemon says \"{state}\" of a System that is {end:?}"
    );
    match run.claimed {
        Some(true) => ensure!(end == End::New, "the Mender client was told \"committed\", but the System is {end:?}"),
        Some(false) => {
            ensure!(end != End::New, "the Mender client was told \"rolled back\", but the System is {end:?}");
        }
        None => {}
    }
    Ok(())
}

/// Nothing is left open or lying about.
async fn over(run: &Run<'_>, scenario: &Scenario) -> Result<()> {
    let state = run.state().await?;
    ensure!(state == "idle", "the deployment is still open: the daemon is \"{state}\"");
    for entry in fs::read_dir(run.bed.path("state"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let known = matches!(
            name.as_str(),
            "lock" | "last.json" | "last.json.new" | "manifests" | "work" | "queries" | "audit"
        );
        ensure!(known, "\"{name}\" is left in the state directory");
    }
    ensure!(!run.bed.path("state/manifests/in-progress").exists(), "a Manifest is left in progress");
    for part in scenario.parts {
        let trees = run.bed.path("state/work").join(part.kind).join(part.name);
        if trees.exists() {
            for entry in fs::read_dir(&trees)? {
                // Of an Artifact that was not downloaded, a tree may be left half made; the next one replaces it.
                let name = entry?.file_name();
                ensure!(name != "tree", "the File API directory of {} is left", part.name);
            }
        }
        if part.switches.iter().any(|(name, _)| name.starts_with("Cleanup")) {
            continue;
        }
        for name in ["previous", "previous.new", "incoming", "provides.new", "trial"] {
            let left = run.bed.path("system").join(part.name).join(name);
            ensure!(!left.exists(), "{} was not cleaned up: \"{name}\" is there", part.name);
        }
    }
    Ok(())
}

/// The rules of the Interface protocol, over all daemons that took part.
#[allow(clippy::too_many_lines, reason = "a list of rules, each a few lines")]
fn calls(lines: &[Line<'_>], scenario: &Scenario) -> Result<()> {
    let order = |who: &str| {
        let part = scenario.parts.iter().find(|part| part.name == who);
        part.map_or(0, |part| if part.kind == "alpha" { scenario.orders.0 } else { scenario.orders.1 })
    };
    let begun = |upto: usize, who: &str, word: &str| lines[..upto].contains(&Line::Begin(who, word));
    let well = |upto: usize, who: &str, word: &str| lines[..upto].contains(&Line::End(who, word, 0));
    let mut ups = 0;
    for (at, line) in lines.iter().enumerate() {
        match *line {
            Line::Up => ups += 1,
            Line::Boot | Line::Reboot | Line::Exec(..) | Line::Client(_) | Line::End(..) => {}
            Line::Begin(who, word) => {
                if !is_state(word) {
                    continue;
                }
                if is_forward(word) {
                    // A reboot is made again if the daemon died before it was on record that it had begun.
                    let may_repeat = word == "ArtifactReboot" && lost_sight(&lines[..at - 1], who, word);
                    ensure!(may_repeat || !begun(at, who, word), "{who}: {word} was called twice");
                    let back = lines[..at]
                        .iter()
                        .any(|line| matches!(line, Line::Begin(_, "ArtifactRollback" | "ArtifactFailure")));
                    ensure!(!back, "{who}: {word} on the way back");
                }
                if word != "Cleanup" {
                    let over = lines[..at].iter().any(|line| matches!(line, Line::Begin(_, "Cleanup")));
                    ensure!(!over, "{who}: {word} after a Cleanup");
                }
                match word {
                    "ArtifactInstall" => {
                        for part in scenario.parts.iter().filter(|part| order(part.name) == order(who)) {
                            ensure!(
                                well(at, part.name, "Download"),
                                "{who}: {word} before {} has downloaded",
                                part.name
                            );
                        }
                    }
                    "Download" => {
                        for part in scenario.parts.iter().filter(|part| order(part.name) < order(who)) {
                            ensure!(
                                well(at, part.name, "ArtifactInstall"),
                                "{who}: {word} before {} is installed",
                                part.name
                            );
                        }
                    }
                    "ArtifactVerifyReboot" => {
                        let part =
                            scenario.parts.iter().find(|part| part.name == who).context("an unknown Component")?;
                        let installed =
                            lines[..at].iter().rposition(|line| *line == Line::Begin(who, "ArtifactInstall"));
                        let since = &lines[installed.unwrap_or(0)..at];
                        let rebooted = match part.reboot {
                            "Yes" => lines[..at].contains(&Line::Exec(who, "ArtifactReboot")),
                            // By us, by the caller, or by a power cut: the host came up since.
                            _ => since.contains(&Line::Boot),
                        };
                        ensure!(rebooted, "{who}: {word} without a reboot");
                    }
                    "ArtifactCommit" => {
                        for part in scenario.parts {
                            ensure!(
                                well(at, part.name, "ArtifactInstall"),
                                "{who}: {word} before {} is installed",
                                part.name
                            );
                            let verified = part.reboot == "No" || well(at, part.name, "ArtifactVerifyReboot");
                            ensure!(verified, "{who}: {word} before {} is verified", part.name);
                            let lower = order(part.name) >= order(who) || well(at, part.name, "ArtifactCommit");
                            ensure!(lower, "{who}: {word} before {} has committed", part.name);
                        }
                    }
                    "ArtifactRollback" | "ArtifactFailure" => {
                        // Put on record and not yet begun when the daemon died: nobody can tell, so it counts as begun.
                        let may_have_begun = ups > 1 && well(at, who, "Download");
                        ensure!(
                            may_have_begun || begun(at, who, "ArtifactInstall"),
                            "{who}: {word} without ArtifactInstall"
                        );
                        let above = scenario
                            .parts
                            .iter()
                            .filter(|part| order(part.name) > order(who) && begun(at, part.name, "ArtifactInstall"));
                        for part in above {
                            ensure!(
                                begun(at, part.name, "ArtifactFailure"),
                                "{who}: {word} before {} is back",
                                part.name
                            );
                        }
                    }
                    "ArtifactRollbackReboot" | "ArtifactVerifyRollbackReboot" => {
                        ensure!(begun(at, who, "ArtifactRollback"), "{who}: {word} without ArtifactRollback");
                    }
                    _ => {}
                }
                stops(&lines[..at], who, word, scenario)?;
            }
        }
    }
    for part in scenario.parts {
        if begun(lines.len(), part.name, "Download") {
            let last = lines
                .iter()
                .rfind(|line| matches!(line, Line::End(who, ..) | Line::Begin(who, _) if *who == part.name));
            let cleaned = lines.iter().any(|line| matches!(line, Line::End(who, "Cleanup", 0..) if *who == part.name));
            ensure!(cleaned, "{} got no Cleanup: its last call is {last:?}", part.name);
        }
    }
    Ok(())
}

/// A daemon came up, or the machine, since the program of such a call began before this one.
fn lost_sight(before: &[Line<'_>], who: &str, word: &str) -> bool {
    let first = before.iter().position(|line| *line == Line::Exec(who, word));
    first.is_some_and(|first| before[first..].iter().any(|line| matches!(line, Line::Up | Line::Boot)))
}

/// Points to stop before are respected by every daemon.
fn stops(before: &[Line<'_>], who: &str, word: &str, scenario: &Scenario) -> Result<()> {
    let asked = |call: &str| before.contains(&Line::Client(call));
    let resumes = before.iter().filter(|line| **line == Line::Client("Resume")).count();
    let allowed = match (scenario.flow, word) {
        (Flow::Module | Flow::Refused, "ArtifactCommit") => asked("Resume"),
        (Flow::Module | Flow::Refused, "Cleanup") => resumes >= if asked("Rollback") { 1 } else { 2 },
        (Flow::Module | Flow::Refused, "ArtifactRollback") | (Flow::TakenBack("ArtifactCommit"), "ArtifactCommit") => {
            asked("Rollback")
        }
        _ => true,
    };
    ensure!(allowed, "{who}: {word}, although the deployment was to stop before it");
    Ok(())
}

/// On the way back every Component that was touched and can go back did so, to the end.
fn went_back(lines: &[Line<'_>], scenario: &Scenario, end: End) -> Result<()> {
    if end == End::New {
        return Ok(());
    }
    for part in scenario.parts {
        let installed = lines.contains(&Line::Begin(part.name, "ArtifactInstall"));
        let fails = part.switches.iter().any(|(name, _)| name.starts_with("ArtifactRollback."));
        if installed && part.rollback == "Yes" {
            let back = lines.iter().any(|line| matches!(line, Line::End(who, "ArtifactRollback", status) if *who == part.name && (*status == 0 || fails)));
            ensure!(back, "{} was installed and did not go back", part.name);
            let told =
                lines.iter().any(|line| matches!(line, Line::Begin(who, "ArtifactFailure") if *who == part.name));
            ensure!(told, "{} was installed and got no ArtifactFailure", part.name);
        }
    }
    Ok(())
}
