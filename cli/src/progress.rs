//! Shows how a Job gets on: bars on a terminal, plain lines elsewhere. Both go to standard error; standard output is
//! for the result.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::printable;
use crate::view::{ComponentChange, ComponentView, JobChange, JobView};

/// Told about everything that happens while a Job runs.
pub trait Reporter {
    /// The Job was accepted, or a daemon that came back goes on with it. What it is doing is told as a change, even if it
    /// was doing so before.
    fn begin(&mut self, job: &JobView);
    /// Something changed in the Job.
    fn job(&mut self, job: &JobView, change: &JobChange);
    /// Something changed in a Component.
    fn component(&mut self, component: &ComponentView, change: &ComponentChange);
    /// Something happened to the daemon itself.
    fn note(&mut self, message: &str);
    /// Nothing more will happen.
    fn end(&mut self);
}

/// The reporter that fits standard error.
pub fn reporter(verbose: bool) -> Box<dyn Reporter> {
    // A terminal without a type cannot move its cursor.
    let able = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    if able && std::io::stderr().is_terminal() { Box::new(Bars::new(verbose)) } else { Box::new(Lines::new(verbose)) }
}

/// Whether a line of a Job's log is shown.
fn shown(severity: &str, verbose: bool) -> bool {
    verbose || severity != "info"
}

/// A line of a Job's log.
pub fn log_line(severity: &str, component: &str, message: &str) -> String {
    let subject = if component.is_empty() { String::new() } else { format!("{}: ", printable(component)) };
    let mark = if severity == "info" { String::new() } else { format!("{}: ", printable(severity)) };
    format!("{subject}{mark}{}", printable(message))
}

/// Whole per cents, rounded down so that 100 means all.
pub fn percent(share: f64) -> u32 {
    // Clamped first, so the value fits; a NaN becomes 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100")]
    let percent = (share * 100.0 + 1e-9).clamp(0.0, 100.0) as u32;
    percent
}

/// One line per step and per state of a Component.
#[derive(Debug)]
pub struct Lines {
    verbose: bool,
}

impl Lines {
    /// With `verbose` the whole log of the Job is shown, not just warnings and errors.
    pub fn new(verbose: bool) -> Self {
        Self { verbose }
    }
}

/// A line on standard error; a lost reader is no reason to give up a deployment.
fn say(line: &str) {
    let mut output = std::io::stderr().lock();
    drop(writeln!(output, "{line}"));
}

impl Reporter for Lines {
    fn begin(&mut self, job: &JobView) {
        say(&format!("Job {}: {}", job.id, printable(&job.kind)));
    }

    fn job(&mut self, job: &JobView, change: &JobChange) {
        match change {
            JobChange::Step(step) if !step.is_empty() => {
                say(&format!("{:>3} % {}", percent(job.progress), printable(step)));
            }
            JobChange::Log { severity, component, message } if shown(severity, self.verbose) => {
                say(&log_line(severity, component, message));
            }
            _ => {}
        }
    }

    fn component(&mut self, component: &ComponentView, change: &ComponentChange) {
        let label = printable(&component.label());
        match change {
            // What has failed is told as an error; the others say that nothing happens yet, or any more.
            ComponentChange::State(state) if !matches!(state.as_str(), "idle" | "selected" | "failed") => {
                say(&format!("{label}: {}", printable(state)));
            }
            ComponentChange::Error(error) => say(&format!("{label}: error: {}", printable(&error.message))),
            _ => {}
        }
    }

    fn note(&mut self, message: &str) {
        say(&printable(message));
    }

    fn end(&mut self) {}
}

/// More bars than this would scroll off a small terminal; the bar of the System stands for the rest.
const MOST_BARS: usize = 16;
/// A share of 1 on a bar.
const WHOLE: u64 = 1000;

/// One bar for the System and one for each Component that takes part.
#[derive(Debug)]
pub struct Bars {
    verbose: bool,
    all: MultiProgress,
    system: ProgressBar,
    components: BTreeMap<String, ProgressBar>,
    ended: bool,
}

impl Bars {
    /// With `verbose` the whole log of the Job is shown, not just warnings and errors.
    pub fn new(verbose: bool) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let system = all.add(bar("System"));
        Self { verbose, all, system, components: BTreeMap::new(), ended: false }
    }

    fn say(&self, line: &str) {
        drop(self.all.println(line));
    }
}

fn bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:<20!} [{bar:24}] {percent:>3}% {wide_msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
    ProgressBar::new(WHOLE).with_style(style).with_prefix(printable(name))
}

fn position(share: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=WHOLE")]
    let position = (share * 1000.0).clamp(0.0, 1000.0) as u64;
    position
}

impl Reporter for Bars {
    fn begin(&mut self, job: &JobView) {
        self.system.set_message(printable(&job.kind));
    }

    fn job(&mut self, _: &JobView, change: &JobChange) {
        match change {
            JobChange::Progress(progress) => self.system.set_position(position(*progress)),
            JobChange::Step(step) => self.system.set_message(printable(step)),
            JobChange::Log { severity, component, message } if shown(severity, self.verbose) => {
                self.say(&log_line(severity, component, message));
            }
            _ => {}
        }
    }

    fn component(&mut self, component: &ComponentView, change: &ComponentChange) {
        let label = component.label();
        match change {
            ComponentChange::Error(error) => {
                self.say(&format!("{}: error: {}", printable(&label), printable(&error.message)));
            }
            ComponentChange::State(state) if state != "idle" => {
                if !self.components.contains_key(&label) && self.components.len() < MOST_BARS && state != "unchanged" {
                    let bar = self.all.add(bar(&label));
                    bar.set_position(position(component.progress));
                    self.components.insert(label.clone(), bar);
                }
                if let Some(bar) = self.components.get(&label) {
                    bar.set_message(printable(state));
                }
            }
            ComponentChange::Progress(progress) => {
                if let Some(bar) = self.components.get(&label) {
                    bar.set_position(position(*progress));
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, message: &str) {
        self.say(&printable(message));
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // Abandoned bars stay as they are; finished ones would show 100 % after a failure too.
        for bar in self.components.values().chain([&self.system]) {
            bar.abandon();
        }
    }
}

impl Drop for Bars {
    /// After an interruption the cursor has to stand below the bars.
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_whole_and_bounded() {
        for (share, expected) in [(0.0, 0), (0.29, 29), (0.999, 99), (1.0, 100), (7.0, 100), (-1.0, 0), (f64::NAN, 0)] {
            assert_eq!(percent(share), expected, "{share}");
        }
    }

    #[test]
    fn log_lines_name_the_component_and_the_trouble() {
        assert_eq!(log_line("info", "", "all well"), "all well");
        assert_eq!(log_line("error", "rtos.R1", "bad\u{1b}"), "rtos.R1: error: bad\\u{1b}");
    }
}
