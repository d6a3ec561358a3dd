//! What comes next in a deployment: a pure machine, so that a failure at each step can be tried without a runtime.
//!
//! Forward: upload, compile, start, verify. If a step fails, the same four steps bring the old program back, as the runtime has
//! thrown it away by then; a program that did not run before is not started again. Only a failure that provably touched
//! nothing leaves the runtime alone.

use serde::{Deserialize, Serialize};

use crate::core::error::{Error, Kind};
use crate::core::job::JobResult;

/// How often each direction is tried in all.
pub const TRIES: u8 = 3;

/// Where a deployment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To the new program.
    Forward,
    /// To the old one.
    Back,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The archive goes to the runtime, which stops the program that runs.
    Upload,
    /// The runtime compiles it.
    Compile,
    /// The program is started.
    Start,
    /// It has to run for a while.
    Verify,
}

/// A deployment, as it is on the medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The version to deploy.
    pub new: u32,
    /// The version that was there before.
    pub old: Option<u32>,
    /// Whether a program ran before.
    pub was_running: bool,
    /// Where it goes.
    pub direction: Direction,
    /// What is being done.
    pub step: Step,
    /// How often this direction was begun.
    pub tries: u8,
    /// Why it goes back.
    pub failure: Option<Error>,
}

/// How a step went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// As it should.
    Done,
    /// It did not.
    Failed {
        /// Why.
        error: Error,
        /// The runtime provably has what it had before.
        untouched: bool,
        /// Another try may go better.
        passing: bool,
    },
    /// The daemon begins with a deployment that it finds on the medium, and this is what the runtime says.
    Resumed(Found),
}

/// What the runtime is about when a daemon begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// It compiles.
    pub compiling: bool,
    /// It has compiled or tried to, since it was started.
    pub compiled: bool,
    /// A program runs.
    pub running: bool,
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The new program runs.
    Deployed,
    /// The runtime has what it had before; nothing was touched.
    Unchanged(Error),
    /// The old program is back, and runs if it did before.
    RolledBack(Error),
    /// The new program failed, and no old one is there, or it could not be brought back.
    Lost {
        /// Why the new one failed.
        error: Error,
        /// Why the old one could not be brought back; `None` if there is none.
        back: Option<Error>,
    },
}

impl Outcome {
    /// As the result of a Job.
    pub fn result(&self) -> JobResult {
        match self {
            Self::Deployed => JobResult::Done,
            Self::Unchanged(error) if error.kind == Kind::Cancelled => JobResult::Cancelled,
            Self::Unchanged(_) => JobResult::Failed,
            Self::RolledBack(_) => JobResult::RolledBack,
            Self::Lost { .. } => JobResult::Inconsistent,
        }
    }

    /// What went wrong, as one error.
    pub fn error(&self) -> Option<Error> {
        let with = |error: &Error, more: &str| Error::new(error.kind, format!("{} {more}", error.message));
        match self {
            Self::Deployed => None,
            Self::Unchanged(error) => Some(with(error, "The program that was there before was not touched.")),
            Self::RolledBack(error) => Some(with(error, "The program that was there before is back.")),
            Self::Lost { error, back: None } => Some(with(error, "There is no former program to go back to.")),
            Self::Lost { error, back: Some(back) } => Some(Error::new(
                Kind::Inconsistent,
                format!("{} The former program could not be brought back: {}", error.message, back.message),
            )),
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Upload this version.
    Upload(u32),
    /// Wait for the end of the compilation.
    Compile,
    /// Start the program.
    Start,
    /// See that it runs.
    Verify,
    /// It is over.
    Finish(Outcome),
}

impl Deployment {
    /// A deployment at its beginning.
    pub fn new(new: u32, old: Option<u32>, was_running: bool) -> Self {
        Self { new, old, was_running, direction: Direction::Forward, step: Step::Upload, tries: 1, failure: None }
    }

    /// What its step asks for.
    pub fn effect(&self) -> Effect {
        match (self.step, self.direction) {
            (Step::Upload, Direction::Forward) => Effect::Upload(self.new),
            // Whoever goes back has an old version.
            (Step::Upload, Direction::Back) => Effect::Upload(self.old.unwrap_or(self.new)),
            (Step::Compile, _) => Effect::Compile,
            (Step::Start, _) => Effect::Start,
            (Step::Verify, _) => Effect::Verify,
        }
    }

    /// What comes after a step that went this way.
    pub fn next(mut self, event: Event) -> (Self, Effect) {
        match event {
            Event::Done => match self.step {
                Step::Upload => self.step = Step::Compile,
                Step::Compile if self.direction == Direction::Back && !self.was_running => return self.finished(),
                Step::Compile => self.step = Step::Start,
                Step::Start => self.step = Step::Verify,
                Step::Verify => return self.finished(),
            },
            Event::Failed { error, untouched, passing } => return self.failed(error, untouched, passing),
            Event::Resumed(found) => return self.resumed(found),
        }
        let effect = self.effect();
        (self, effect)
    }

    fn finished(self) -> (Self, Effect) {
        let outcome = match (self.direction, &self.failure) {
            (Direction::Back, Some(error)) => Outcome::RolledBack(error.clone()),
            _ => Outcome::Deployed,
        };
        (self, Effect::Finish(outcome))
    }

    fn failed(mut self, error: Error, untouched: bool, passing: bool) -> (Self, Effect) {
        match (self.direction, self.old) {
            (Direction::Forward, _) if passing && self.step == Step::Upload && self.tries < TRIES => self.tries += 1,
            (Direction::Forward, _) if untouched => return (self, Effect::Finish(Outcome::Unchanged(error))),
            (Direction::Forward, None) => return (self, Effect::Finish(Outcome::Lost { error, back: None })),
            (Direction::Forward, Some(_)) => {
                self.direction = Direction::Back;
                self.step = Step::Upload;
                self.tries = 1;
                self.failure = Some(error);
            }
            (Direction::Back, _) if self.tries < TRIES => {
                self.step = Step::Upload;
                self.tries += 1;
            }
            (Direction::Back, _) => {
                let outcome = match self.failure.clone() {
                    Some(failure) => Outcome::Lost { error: failure, back: Some(error) },
                    None => Outcome::Lost { error, back: None },
                };
                return (self, Effect::Finish(outcome));
            }
        }
        let effect = self.effect();
        (self, effect)
    }

    /// The step on the medium may have been done, in part or not at all.
    fn resumed(mut self, found: Found) -> (Self, Effect) {
        let again = |mut deployment: Self| {
            if deployment.tries >= TRIES {
                let text = "The daemon or the runtime ended again and again while the program was deployed.";
                return deployment.failed(Error::new(Kind::Failed, text), false, false);
            }
            deployment.step = Step::Upload;
            deployment.tries += 1;
            let effect = deployment.effect();
            (deployment, effect)
        };
        match self.step {
            // The archive has come to the runtime, which is at work.
            Step::Upload if found.compiling => self.step = Step::Compile,
            Step::Compile if found.compiling || found.compiled => {}
            // A compilation that is over may be that of another program, and a runtime that was started anew has forgotten it: nothing
            // is known.
            Step::Upload | Step::Compile => return again(self),
            Step::Start if found.running => self.step = Step::Verify,
            Step::Start | Step::Verify => {}
        }
        let effect = self.effect();
        (self, effect)
    }
}

#[cfg(test)]
mod tests;
