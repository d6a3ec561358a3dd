//! The crash matrix: every effect of every scenario is a point at which the daemon, or the whole machine, dies; the next
//! start has to bring the System into the old or the new state, or to say that it is inconsistent.
//!
//! `cargo test` runs a sample that is spread over all scenarios; `make crash-matrix` runs everything. Variables:
//! `CRASH_MATRIX=whole`, `CRASH_SAMPLE=<number of points>`, `CRASH_WORKERS=<number>`, `CRASH_ONLY=<part of a scenario's name>`, `CRASH_POINT=<disturbance>:<n>`
//! to repeat one point with its log.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod bed;
mod check;
mod damage;
mod disturbance;
mod drive;
mod scenario;
mod syscall;
mod tracer;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;

use bed::Bed;
use disturbance::{Disturbance, Point};
use drive::Run;
use scenario::{End, SCENARIOS, Scenario};

/// The scenarios in which the medium fails, too.
const FAULTY: [&str; 7] = [
    "success, no reboot",
    "success, host reboots in the first group",
    "ArtifactCommit fails",
    "module, host reboots",
    "module, ArtifactInstall fails",
    "module, Manifest refused",
    "taken back after ArtifactCommit",
];
/// At every so many-th point another release is installed afterwards. What a run leaves behind is looked at after each.
const FRESH: usize = 3;
/// Points of the sample, over all scenarios.
const SAMPLE: usize = 400;

fn main() -> ExitCode {
    // The arguments of libtest: only a filter is heeded.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("crash_matrix: test");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| "crash_matrix".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if !cfg!(target_arch = "x86_64") {
        orchestrator_tests::skip("crash_matrix", "the tracer is made for x86_64 only");
        return ExitCode::SUCCESS;
    }
    match matrix() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash_matrix: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One run with one disturbance.
#[derive(Debug, Clone, Copy)]
struct Case {
    scenario: usize,
    disturbance: Disturbance,
}

#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    ends: BTreeMap<End, usize>,
}

fn matrix() -> Result<usize> {
    let begun = Instant::now();
    let whole = std::env::var("CRASH_MATRIX").is_ok_and(|word| word == "whole");
    let only = std::env::var("CRASH_ONLY").unwrap_or_default();
    let chosen: Vec<usize> = (0..SCENARIOS.len()).filter(|index| SCENARIOS[*index].name.contains(&only)).collect();
    if let Ok(word) = std::env::var("CRASH_POINT") {
        return one(&word, *chosen.first().context("no such scenario")?);
    }

    // First every scenario undisturbed: it has to end as it should, and that tells how many points it has.
    let counted: Mutex<BTreeMap<usize, Vec<Point>>> = Mutex::default();
    let undisturbed: Vec<Case> =
        chosen.iter().map(|&scenario| Case { scenario, disturbance: Disturbance::None }).collect();
    let failures = work(&undisturbed, |case, outcome| {
        let Outcome { points, end, .. } = outcome?;
        let expected = SCENARIOS[case.scenario].end;
        ensure!(end == expected, "undisturbed it ends {end:?}, not {expected:?}");
        counted.lock().unwrap().insert(case.scenario, points);
        Ok(())
    })?;
    ensure!(failures == 0, "{failures} scenarios fail undisturbed");

    let counted = counted.into_inner().unwrap();
    let cases: Vec<Case> = counted.iter().flat_map(|(&scenario, points)| cases(scenario, points)).collect();
    let all = cases.len();
    // The order of the cases goes round the kinds of disturbance; an odd step meets all of them.
    let sample = std::env::var("CRASH_SAMPLE").ok().and_then(|number| number.parse().ok()).unwrap_or(SAMPLE);
    let step = if whole { 1 } else { (all / sample.max(1)).max(1) | 1 };
    let cases: Vec<Case> = cases.into_iter().step_by(step).collect();
    println!("{} scenarios, {all} points, {} of them now", counted.len(), cases.len());

    let tallies: Mutex<BTreeMap<usize, Tally>> = Mutex::default();
    let unhit = AtomicUsize::new(0);
    work(&cases, |case, outcome| {
        let scenario = &SCENARIOS[case.scenario];
        let verdict = outcome.and_then(|outcome| {
            if outcome.hit.is_none() {
                // The runs of two Components beside each other differ in length; this one was shorter.
                unhit.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
            let allowed = outcome.end == scenario.end || scenario.may.contains(&outcome.end);
            ensure!(allowed, "at {:?} it ends {:?}: {}", outcome.hit, outcome.end, outcome.told);
            Ok(Some(outcome.end))
        });
        let mut tallies = tallies.lock().unwrap();
        let tally = tallies.entry(case.scenario).or_default();
        match verdict {
            Ok(None) => Ok(()),
            Ok(Some(end)) => {
                tally.passed += 1;
                *tally.ends.entry(end).or_default() += 1;
                Ok(())
            }
            Err(error) => {
                tally.failed += 1;
                Err(error)
            }
        }
    })?;

    let (mut passed, mut failed) = (0, 0);
    for (index, tally) in tallies.into_inner().unwrap() {
        println!("{:5} passed {:3} failed  {} {:?}", tally.passed, tally.failed, SCENARIOS[index].name, tally.ends);
        passed += tally.passed;
        failed += tally.failed;
    }
    let (sound, unsound) = damage::damage(whole)?;
    passed += sound;
    failed += unsound;
    println!("{} runs ended before their point, {} s", unhit.into_inner(), begun.elapsed().as_secs());
    println!("crash points: {passed} passed, {failed} failed");
    Ok(failed)
}

/// Everything that is done to a scenario with these points.
fn cases(scenario: usize, points: &[Point]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |disturbance| cases.push(Case { scenario, disturbance });
    let faulty = FAULTY.iter().any(|name| *name == SCENARIOS[scenario].name);
    let mut by_daemon = 0;
    for (index, point) in points.iter().enumerate() {
        let at = index + 1;
        by_daemon += usize::from(point.by_daemon);
        // Making and removing File API directories takes many steps that are all alike. They are taken one by one in the
        // first scenario, and every seventh in the others.
        let alike = point.path.contains("/tree.new/") || point.path.contains("/tree.old/");
        if alike && scenario != 0 && index % 7 != 0 {
            continue;
        }
        // Programs that run go on or stand still, in turn.
        add(if at.is_multiple_of(2) { Disturbance::Kill(at) } else { Disturbance::KillHolding(at) });
        add(Disturbance::PowerCut(at));
        let of_record =
            point.by_daemon && ["deployment", "last", "manifests"].iter().any(|name| point.path.starts_with(name));
        if of_record && matches!(point.call, "fsync" | "fdatasync" | "rename") {
            add(Disturbance::KillAfter(at));
        }
        // The same for a daemon that recovers, and for one that may put its things in order.
        if faulty && at.is_multiple_of(3) {
            add(Disturbance::KillTwice(at, 1 + at % 40));
        }
        if faulty && point.by_daemon && at.is_multiple_of(2) {
            add(Disturbance::Terminate(at));
        }
        if faulty && point.by_daemon {
            add(Disturbance::FailOnce(by_daemon, Errno::EIO));
            add(Disturbance::FailFrom(by_daemon, [Errno::ENOSPC, Errno::EROFS, Errno::EIO][by_daemon % 3]));
        }
    }
    cases
}

struct Outcome {
    end: End,
    hit: Option<Point>,
    points: Vec<Point>,
    told: String,
}

/// Runs the cases on several machines at once and hands each outcome to `judge`; returns how many it refused.
fn work(cases: &[Case], judge: impl Fn(Case, Result<Outcome>) -> Result<()> + Sync) -> Result<usize> {
    let workers = std::env::var("CRASH_WORKERS").ok().and_then(|number| number.parse().ok());
    let workers: usize = workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from)).max(1);
    let (next, failures, judge) = (AtomicUsize::new(0), AtomicUsize::new(0), &judge);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.min(cases.len()))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(async {
                        let mut bed = Bed::new().await?;
                        loop {
                            let number = next.fetch_add(1, Ordering::Relaxed);
                            let Some(&case) = cases.get(number) else { return Ok(()) };
                            let outcome = play(&mut bed, case, number % FRESH == 0).await;
                            let autopsy = outcome.is_err().then(|| bed.autopsy());
                            bed.switch_off();
                            if let Err(error) = judge(case, outcome) {
                                failures.fetch_add(1, Ordering::Relaxed);
                                println!("FAILED {} {:?}: {error:#}", SCENARIOS[case.scenario].name, case.disturbance);
                                if let Some(text) = autopsy {
                                    println!("{}", keep(case, &text)?);
                                }
                            }
                            if number > 0 && number.is_multiple_of(100) {
                                println!("{number} of {} done", cases.len());
                            }
                        }
                    })
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(failures.load(Ordering::Relaxed))
    })
}

/// Keeps what a failure left behind, beside the test; returns where.
fn keep(case: Case, text: &str) -> Result<String> {
    let directory = orchestrator_tests::binary("orchestratord").with_file_name("crash-failures");
    std::fs::create_dir_all(&directory)?;
    let name = format!("{} {:?}.txt", SCENARIOS[case.scenario].name, case.disturbance);
    let path =
        directory.join(name.replace(|character: char| !character.is_ascii_alphanumeric() && character != '.', "-"));
    std::fs::write(&path, text)?;
    Ok(format!("       see \"{}\"", path.display()))
}

async fn play(bed: &mut Bed, case: Case, fresh: bool) -> Result<Outcome> {
    let scenario: &Scenario = &SCENARIOS[case.scenario];
    let mut run = Run::begin(bed, *scenario, case.disturbance).await?;
    run.bed.daemon().arm();
    let mut driven = run.drive().await;
    if driven.is_ok() && case.disturbance.is_fault() {
        driven = run.mend().await;
    }
    let (hit, points) = run.bed.points();
    let with_point = || format!("at {}", hit.as_ref().map_or_else(|| "no point".to_owned(), ToString::to_string));
    driven
        .with_context(|| format!("told: {:?}, calls:\n        {}", run.told, check::show(&run.bed.log())))
        .with_context(with_point)?;
    let end = check::check(&run, scenario).await.with_context(with_point)?;
    let told = format!("{:?}\n      calls:\n        {}", run.told, check::show(&run.bed.log()));
    if fresh {
        run.install_afresh().await.with_context(with_point)?;
    }
    Ok(Outcome { end, hit, points, told })
}

/// Repeats one point and shows everything.
fn one(word: &str, scenario: usize) -> Result<usize> {
    let (kind, at) = word.split_once(':').context("CRASH_POINT is <disturbance>:<number>")?;
    let at: usize = at.parse()?;
    let disturbance = match kind {
        "once" => Disturbance::FailOnce(at, Errno::EIO),
        "full" => Disturbance::FailFrom(at, Errno::ENOSPC),
        "read-only" => Disturbance::FailFrom(at, Errno::EROFS),
        "broken" => Disturbance::FailFrom(at, Errno::EIO),
        "none" => Disturbance::None,
        "kill" => Disturbance::Kill(at),
        "hold" => Disturbance::KillHolding(at),
        "after" => Disturbance::KillAfter(at),
        "power" => Disturbance::PowerCut(at),
        "twice" => Disturbance::KillTwice(at, 1 + at % 40),
        "term" => Disturbance::Terminate(at),
        _ => bail!("the disturbance is none, kill, hold, after, power, twice, term, once, full, read-only or broken"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut bed = Bed::new().await?;
        let outcome = play(&mut bed, Case { scenario, disturbance }, true).await;
        if outcome.is_err() {
            println!("{}", bed.autopsy());
        }
        println!("{}", std::fs::read_to_string(bed.path("daemon.log"))?);
        println!("{}", check::show(&bed.log()));
        match outcome {
            Ok(outcome) => {
                for (index, point) in outcome.points.iter().enumerate() {
                    println!("{:4} {point}", index + 1);
                }
                println!("{:?} at {:?}", outcome.end, outcome.hit);
                Ok(0)
            }
            Err(error) => {
                println!("{error:#}");
                Ok(1)
            }
        }
    })
}
