//! What a vPLC does next: state and event in, effects out. No engine, clock or file in here.
//!
//! The machine compares what is wanted with what was seen, and does the one step that brings both nearer to each other. After
//! each step it looks again. So it does not matter what it was doing when the daemon or the engine ended.

mod course;
mod events;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use self::events::{Claim, Effect, Event, Rules, Sight};
use super::engine::{Condition, Container, Exit, Wellness};
use super::spec::Policy;
use super::store::{Latch, Wanted};
use crate::core::error::{Error, Kind};

/// How long a runtime has to run before whoever waits for its start is told that it runs: one that cannot work mostly ends at
/// once.
const PROOF: Duration = Duration::from_secs(2);
/// How long one has to run that is on trial: as long as its PLC.
const TRIAL_PROOF: Duration = Duration::from_secs(10);

/// Where the NICs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nics {
    /// Nobody has looked since the daemon started.
    Unknown,
    /// Nowhere.
    Gone,
    /// In the namespace of this process.
    At(i32),
}

/// A vPLC on its way.
#[derive(Debug, Clone)]
pub struct Machine {
    rules: Rules,
    engine: bool,
    turn: bool,
    sight: Option<Sight>,
    nics: Nics,
    /// The image was looked for since this generation was wanted.
    image: bool,
    doing: Option<Effect>,
    /// A container stirred while something was being done; look again.
    stirred: bool,
    /// A pause goes on.
    pausing: bool,
    /// The runtime was started or seen running, so that its end is news.
    running: bool,
    /// The runtime was started a moment ago.
    proving: bool,
    /// The runtime is to be stopped and started.
    again: bool,
    /// It is waited for that the runtime gets healthy.
    awaiting: bool,
    /// That was in vain.
    late: bool,
    /// What is on trial has passed.
    passed: bool,
    data_gone: bool,
    ends: VecDeque<Duration>,
    restarts: u32,
    failures: u32,
    error: Option<Error>,
}

impl Machine {
    /// A vPLC of which nothing was seen yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            engine: false,
            turn: false,
            sight: None,
            nics: Nics::Unknown,
            image: false,
            doing: None,
            stirred: false,
            pausing: false,
            running: false,
            proving: false,
            again: false,
            awaiting: false,
            late: false,
            passed: false,
            data_gone: false,
            ends: VecDeque::new(),
            restarts: 0,
            failures: 0,
            error: None,
        }
    }

    /// The containers as they were seen last.
    pub fn sight(&self) -> Option<&Sight> {
        self.sight.as_ref()
    }

    /// Why it is not started any more.
    pub fn latch(&self) -> Option<&Latch> {
        self.rules.latch.as_ref()
    }

    /// How often the runtime was restarted because it had ended by itself.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// What went wrong last; none after a success.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// What is being done.
    pub fn doing(&self) -> Option<&Effect> {
        self.doing.as_ref()
    }

    /// The state of the container in one word.
    pub fn state(&self) -> &'static str {
        let Some(sight) = &self.sight else { return "unknown" };
        match sight.runtime.as_ref().map(|runtime| runtime.condition) {
            Some(Condition::Running { .. }) if self.doing == Some(Effect::StopRuntime) => "stopping",
            Some(Condition::Running { .. }) => "running",
            _ if matches!(self.rules.wanted, Wanted::Gone { .. }) => "deleting",
            _ if self.rules.latch.is_some() => "failed",
            _ if self.rules.wanted == Wanted::Stopped => "stopped",
            _ => "starting",
        }
    }

    /// Whether it has come to rest: as it is wanted, or with the reason why not. None while it is on its way.
    pub fn rest(&self, name: &str) -> Option<Result<(), Error>> {
        if !self.engine {
            let message = format!("The vPLC \"{name}\" cannot be looked after: the container engine does not answer.");
            return Some(Err(Error::new(Kind::EngineUnavailable, message)));
        }
        if let Some(error) = &self.error {
            return Some(Err(error.clone()));
        }
        if self.doing.is_some() || self.pausing || self.again || !self.turn {
            return None;
        }
        if let Some(latch) = self.rules.latch.as_ref().filter(|_| self.rules.wanted == Wanted::Running) {
            return Some(Err(if self.rules.trial { ended(name, latch) } else { latched(name, latch) }));
        }
        match self.wellness() {
            Some(_) if self.proving && self.rules.wanted == Wanted::Running => None,
            Some(Wellness::Starting) if self.rules.wanted == Wanted::Running && self.late => {
                let seconds = self.rules.health_limit.as_secs();
                let message = format!("The vPLC \"{name}\" runs, but it did not get healthy within {seconds} s.");
                Some(Err(Error::new(Kind::VplcFailed, message)))
            }
            Some(Wellness::Starting) if self.rules.wanted == Wanted::Running => None,
            Some(Wellness::Unhealthy) if self.rules.wanted == Wanted::Running => {
                Some(Err(Error::new(Kind::VplcFailed, format!("The vPLC \"{name}\" runs, but it is not healthy."))))
            }
            _ => Some(Ok(())),
        }
    }

    /// Whether those that come after it need not wait any longer: it runs, or will not for now.
    pub fn is_settled(&self, name: &str) -> bool {
        self.engine && self.turn && (self.wellness().is_some() || self.rest(name).is_some())
    }

    /// Whether the runtime runs, and may be asked for its programs.
    pub fn has_programs(&self) -> bool {
        let runtime = self.sight.as_ref().and_then(|sight| sight.runtime.as_ref());
        let stopping = self.doing == Some(Effect::StopRuntime);
        self.rules.claim.is_some()
            && !stopping
            && runtime.is_some_and(|runtime| pid(Some(runtime)).is_some() && self.is_claimed(runtime))
    }

    /// How well the runtime is, while it runs.
    pub fn wellness(&self) -> Option<Wellness> {
        match self.sight.as_ref()?.runtime.as_ref()?.condition {
            Condition::Running { wellness, .. } => Some(wellness),
            _ => None,
        }
    }

    /// Takes in what happened, and says what to do, in this order. Of what takes time there is one at most.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Engine(there) => {
                self.engine = there;
                // What was seen before a break is worth nothing after it.
                self.stirred = true;
                self.pausing &= !there;
            }
            Event::Turn => self.turn = true,
            Event::Rules { rules, nics } => self.follow(rules, nics),
            Event::Again => {
                self.again = true;
                self.forgive();
            }
            Event::Stirred => self.stirred = true,
            Event::Seen(sight, now) => {
                self.doing = None;
                self.see(sight, now, &mut effects);
            }
            Event::Done | Event::Claimed(_) => self.done(&mut effects),
            Event::Ended => {
                self.doing = None;
                self.stirred = true;
            }
            Event::Proved => self.proving = false,
            // A runtime that was started anew since has time of its own.
            Event::Late => self.late = self.awaiting,
            Event::Failed(error) => {
                // The containers may be otherwise than they were seen: look before the next try.
                self.stirred = true;
                self.doing = None;
                if self.engine {
                    self.error = Some(error);
                    self.pausing = true;
                    effects.push(Effect::Retry { failures: self.failures });
                    self.failures = self.failures.saturating_add(1);
                }
            }
            Event::Lines(lines) => {
                self.doing = None;
                self.close(lines, &mut effects);
            }
            Event::PauseOver => self.pausing = false,
        }
        if self.doing.is_none() && self.engine && !self.pausing {
            if let Some(next) = self.next() {
                self.doing = Some(next.clone());
                effects.push(next);
            } else {
                self.error = None;
                self.failures = 0;
                if !self.awaiting && self.wellness() == Some(Wellness::Starting) {
                    self.awaiting = true;
                    effects.push(Effect::Await(self.rules.health_limit));
                }
            }
        }
        effects
    }

    fn follow(&mut self, rules: Rules, nics: bool) {
        if rules.generation != self.rules.generation {
            self.image = false;
        }
        if nics && self.nics != Nics::Gone {
            self.nics = Nics::Unknown;
        }
        self.rules = rules;
        self.turn = true;
        self.again = false;
        self.passed = false;
        (self.awaiting, self.late) = (false, false);
        self.forgive();
    }

    /// An operator spoke: what failed before is tried again at once.
    fn forgive(&mut self) {
        self.error = None;
        self.failures = 0;
        self.pausing = false;
        self.ends.clear();
    }

    /// What an effect that is done has changed, as far as looking does not show it.
    fn done(&mut self, effects: &mut Vec<Effect>) {
        match self.doing.take() {
            Some(Effect::FetchImage) => self.image = true,
            Some(Effect::AttachNics { pid }) => self.nics = Nics::At(pid),
            Some(Effect::DetachNics) => self.nics = Nics::Gone,
            Some(Effect::Claim { container }) => self.rules.claim = Some(Claim { container: Some(container) }),
            Some(Effect::ProvePlc { .. }) => self.passed = true,
            Some(Effect::RemoveData) => self.data_gone = true,
            Some(Effect::StartRuntime) => {
                self.running = true;
                self.proving = true;
                (self.awaiting, self.late) = (false, false);
                self.again = false;
                self.stirred = true;
                effects.push(Effect::Prove(if self.rules.trial { TRIAL_PROOF } else { PROOF }));
            }
            Some(Effect::StopRuntime) => {
                // One that is stopped because it was ill counts as one that ended by itself; that is the only case in which a
                // runtime is stopped that is as it is wanted.
                let runtime = self.sight.as_mut().and_then(|sight| sight.runtime.as_mut());
                let current = runtime.as_ref().is_some_and(|runtime| runtime.generation == self.rules.generation);
                self.running = current && !self.again && self.rules.wanted == Wanted::Running;
                if let Some(runtime) = runtime {
                    // Until it is looked at, so that nobody sees it running again.
                    runtime.condition = Condition::Exited(Exit { code: 0, out_of_memory: false });
                }
                self.stirred = true;
            }
            _ => self.stirred = true,
        }
    }

    fn see(&mut self, sight: Sight, now: Duration, effects: &mut Vec<Effect>) {
        self.stirred = false;
        let exit = match sight.runtime.as_ref().map(|runtime| runtime.condition) {
            Some(Condition::Exited(exit)) => Some(exit),
            _ => None,
        };
        let up = matches!(sight.runtime.as_ref().map(|runtime| runtime.condition), Some(Condition::Running { .. }));
        // The end of one that is about to be replaced says nothing about the one that is wanted.
        let current = sight.runtime.as_ref().is_some_and(|runtime| runtime.generation == self.rules.generation);
        let fell = self.running && !up && current && self.rules.wanted == Wanted::Running && !self.again;
        self.sight = Some(sight);
        self.running = up;
        if !fell || self.rules.latch.is_some() {
            return;
        }
        // A runtime that somebody removed has no exit code; it is made anew.
        let Some(exit) = exit else { return };
        let restart = &self.rules.restart;
        self.ends.push_back(now);
        while self.ends.front().is_some_and(|first| now.saturating_sub(*first) > restart.window) {
            self.ends.pop_front();
        }
        let often = u32::try_from(self.ends.len()).unwrap_or(u32::MAX) >= restart.limit;
        let last = match restart.policy {
            _ if self.rules.trial => true,
            Policy::Always => often,
            Policy::OnFailure => often || exit.code == 0,
            Policy::Never => true,
        };
        if last {
            self.doing = Some(Effect::ReadLines);
            effects.push(Effect::ReadLines);
        } else {
            self.restarts = self.restarts.saturating_add(1);
            self.pausing = true;
            effects.push(Effect::Pause(restart.delay));
        }
    }

    fn close(&mut self, lines: Vec<String>, effects: &mut Vec<Effect>) {
        let exit = match self.sight.as_ref().and_then(|sight| sight.runtime.as_ref()).map(|runtime| runtime.condition) {
            Some(Condition::Exited(exit)) => exit,
            _ => Exit { code: 0, out_of_memory: false },
        };
        let ends = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let latch = Latch { exit_code: exit.code, out_of_memory: exit.out_of_memory, ends, lines };
        self.rules.latch = Some(latch.clone());
        // What was on trial is taken back, so there is nothing to keep.
        if !self.rules.trial {
            effects.push(Effect::KeepLatch(latch));
        }
    }
}

/// Number of the first process of a container that runs.
fn pid(container: Option<&Container>) -> Option<i32> {
    match container?.condition {
        Condition::Running { pid, .. } => Some(pid),
        _ => None,
    }
}

/// Why a change of a vPLC that was on trial has failed, as an error.
fn ended(name: &str, latch: &Latch) -> Error {
    let memory = if latch.out_of_memory { ", because memory ran out" } else { "" };
    let last = latch.lines.last().map(|line| format!(" Its last line was: {line}")).unwrap_or_default();
    let code = latch.exit_code;
    let message =
        format!("The vPLC \"{name}\" ended by itself with exit code {code}{memory} after it was changed.{last}");
    Error::new(Kind::VplcFailed, message)
}

/// Why a vPLC is not started any more, as an error.
pub fn latched(name: &str, latch: &Latch) -> Error {
    let memory = if latch.out_of_memory { ", because memory ran out" } else { "" };
    let times = if latch.ends == 1 { "once".to_owned() } else { format!("{} times", latch.ends) };
    let last = latch.lines.last().map(|line| format!(" Its last line was: {line}")).unwrap_or_default();
    let message = format!(
        "The vPLC \"{name}\" ended by itself {times}, last with exit code {}{memory}; it is not started again until it is reset.{last}",
        latch.exit_code
    );
    Error::new(Kind::VplcFailed, message)
}
