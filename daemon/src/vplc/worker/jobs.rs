//! The Jobs of a worker: what they change, when they are over, and what is taken back if they fail.

use super::effects::step;
use super::serial::SerialPorts;
use super::{Prepared, Shelf, Worker, rules, wanted};
use crate::core::error::{Error, Kind};
use crate::core::job::{Job, JobReporter, JobResult, VPLC_SUBJECT};
use crate::vplc::handle::Order;
use crate::vplc::machine::{Effect, Event};
use crate::vplc::spec::Spec;
use crate::vplc::store::{Record, Trial, Wanted};

/// What is taken back if a Job fails.
#[derive(Debug)]
enum Undo {
    /// Nothing.
    Nothing,
    /// There was no such vPLC before; its volume may have been there.
    Forget {
        /// The volume was there.
        keep_data: bool,
    },
    /// The vPLC was like this.
    Return(Box<(Spec, Record)>),
}

/// A Job at work.
#[derive(Debug)]
pub(super) struct Work {
    reporter: JobReporter,
    undo: Undo,
    /// What is being taken back.
    back: Option<Back>,
    /// How far it is, from 0 to 1.
    share: f64,
}

/// A change that is being taken back.
#[derive(Debug)]
struct Back {
    /// What went wrong with it.
    cause: Error,
    /// Whether the PLC has to run again.
    plc: bool,
    /// A daemon that has just started waits for its engine; a caller does not.
    patient: bool,
}

impl Work {
    /// The Job that makes what is new.
    pub(super) fn making(reporter: JobReporter, keep_data: bool) -> Self {
        Self { reporter, undo: Undo::Forget { keep_data }, back: None, share: 0.0 }
    }

    /// Ends the Job of a vPLC of which nothing is left.
    pub(super) fn vanished(self) {
        let result = if self.back.is_some() { JobResult::Failed } else { JobResult::Done };
        self.reporter.finish(result, self.back.map(|back| back.cause));
    }
}

impl Worker {
    pub(super) fn apply(&mut self, prepared: Prepared, reporter: JobReporter) -> Vec<Event> {
        let Prepared { spec, text, image } = prepared;
        let same = spec.same_containers(&self.spec) && image.id == self.record.image.id;
        let before = Record { trial: None, ..self.record.clone() };
        let trial = || Trial { before: Box::new(before.clone()), plc: self.shelf.is_plc_expected() };
        let record = Record {
            spec: text,
            generation: if same { self.record.generation } else { self.record.next_generation() },
            newest: self.record.newest,
            wanted: match (spec.state, self.record.wanted) {
                (Some(state), _) => wanted(state),
                // Whoever applies one that is on its way out wants it back.
                (None, Wanted::Gone { .. }) => Wanted::Running,
                (None, before) => before,
            },
            image,
            latch: None,
            // From now on until it has proved itself, also if the daemon ends.
            trial: (!same).then(trial),
        };
        let undo = Undo::Return(Box::new((self.spec.clone(), before)));
        let changed = self.change(spec, record);
        self.set_to_work(reporter, undo, changed)
    }

    /// Takes a change back that was on trial when the daemon ended; the record is the one before it. Returns the Job that does it.
    pub(super) fn resume_return(&mut self, plc: bool) -> Job {
        let name = self.spec.name.clone();
        let message = format!("orchestratord ended while the vPLC \"{name}\" was changed; the change is taken back.");
        tracing::warn!(vplc = name, "{message}");
        if let Err(error) = self.tools.store.keep(&name, &self.record) {
            // The trial is still on record then, and the next daemon does the same.
            tracing::error!(vplc = name, "{error}");
        }
        let reporter = self.tools.jobs.begin("apply", format!("{VPLC_SUBJECT}{name}"), 0);
        let job = reporter.job().clone();
        let refusal = format!("Job {} cannot be cancelled: it takes back a change.", job.id);
        reporter.refuse_cancel(Error::new(Kind::NotSupported, refusal));
        let back = Back { cause: Error::new(Kind::Failed, message), plc, patient: true };
        self.work = Some(Work { reporter, undo: Undo::Nothing, back: Some(back), share: 0.0 });
        job
    }

    pub(super) fn order(&mut self, order: Order, reporter: JobReporter) -> Vec<Event> {
        let record = match order {
            Order::Start | Order::Restart => Record { wanted: Wanted::Running, latch: None, ..self.record.clone() },
            Order::Stop => Record { wanted: Wanted::Stopped, ..self.record.clone() },
            Order::Delete { keep_data } => Record { wanted: Wanted::Gone { keep_data }, ..self.record.clone() },
        };
        let changed = self.change(self.spec.clone(), record).map(|mut events| {
            events.extend((order == Order::Restart).then_some(Event::Again));
            events
        });
        self.set_to_work(reporter, Undo::Nothing, changed)
    }

    fn set_to_work(&mut self, reporter: JobReporter, undo: Undo, changed: Result<Vec<Event>, Error>) -> Vec<Event> {
        match changed {
            Ok(events) => {
                self.work = Some(Work { reporter, undo, back: None, share: 0.0 });
                events
            }
            Err(error) => {
                reporter.finish(JobResult::Failed, Some(error));
                Vec::new()
            }
        }
    }

    /// From now on this holds; it is on record before anything is done.
    pub(super) fn change(&mut self, spec: Spec, record: Record) -> Result<Vec<Event>, Error> {
        self.tools.store.keep(&spec.name, &record)?;
        let nics = spec.nics != self.spec.nics;
        if spec.program != self.spec.program || matches!(self.record.wanted, Wanted::Gone { .. }) {
            self.shelf = Shelf::open(&self.tools, &spec);
        }
        self.hardware.follow(&spec);
        if spec.serial != self.spec.serial {
            self.serial = SerialPorts::new(&self.tools, &spec);
        }
        (self.spec, self.record, self.older) = (spec, record, false);
        Ok(vec![Event::Rules { rules: rules(&self.spec, &self.record, &self.shelf), nics }])
    }

    /// Ends the Job if there is nothing more to wait for, or takes back what it has done.
    pub(super) fn judge(&mut self) -> Vec<Event> {
        let Some(work) = &mut self.work else { return Vec::new() };
        if let Some(effect) = self.machine.doing().filter(|effect| **effect != Effect::Look) {
            let (share, what) = step(effect);
            // The order of steps is not always the same, and a way back begins where the way there ended.
            work.share = work.share.max(share);
            work.reporter.report(work.share, what);
        }
        let Some(rest) = self.machine.rest(&self.spec.name) else { return Vec::new() };
        let patient = work.back.as_ref().is_some_and(|back| back.patient);
        if patient && matches!(&rest, Err(error) if error.kind == Kind::EngineUnavailable) {
            return Vec::new();
        }
        let mut events = Vec::new();
        let rest = match rest {
            // It has proved itself: only now is the way back given up.
            Ok(()) if self.record.trial.is_some() => {
                let record = Record { trial: None, ..self.record.clone() };
                self.change(self.spec.clone(), record).map(|closed| events = closed)
            }
            rest => rest,
        };
        let Some(mut work) = self.work.take() else { return events };
        let undo = std::mem::replace(&mut work.undo, Undo::Nothing);
        let Work { reporter, back, share, .. } = work;
        let (cause, spec, record) = match (rest, undo, back) {
            (Ok(()), _, None) => {
                reporter.finish(JobResult::Done, None);
                return events;
            }
            (Ok(()), _, Some(back)) => {
                match self.shelf.lost().filter(|_| back.plc) {
                    None => reporter.finish(JobResult::RolledBack, Some(back.cause)),
                    Some(lost) => reporter.finish(JobResult::Inconsistent, Some(stuck(&back.cause, lost))),
                }
                return events;
            }
            (Err(error), Undo::Nothing, back) => {
                match back {
                    None => reporter.finish(JobResult::Failed, Some(error)),
                    Some(back) if matches!(self.record.wanted, Wanted::Gone { .. }) => {
                        reporter.finish(JobResult::Failed, Some(back.cause));
                    }
                    Some(back) => reporter.finish(JobResult::Inconsistent, Some(stuck(&back.cause, &error))),
                }
                return events;
            }
            (Err(error), Undo::Forget { keep_data }, _) => {
                let record = Record { wanted: Wanted::Gone { keep_data }, ..self.record.clone() };
                (error, self.spec.clone(), record)
            }
            (Err(error), Undo::Return(before), _) => {
                // With its generation: what was made in between goes, and what still runs of before stays.
                let (spec, record) = *before;
                (error, spec, Record { newest: self.record.next_generation() - 1, ..record })
            }
        };
        let plc = self.record.trial.as_ref().is_some_and(|trial| trial.plc);
        tracing::warn!(vplc = self.spec.name, "A change is taken back. {cause}");
        let back = Some(Back { cause, plc, patient: false });
        self.work = Some(Work { reporter, undo: Undo::Nothing, back, share });
        self.turn_back(spec, record)
    }

    fn turn_back(&mut self, spec: Spec, record: Record) -> Vec<Event> {
        let changed = self.change(spec, record);
        changed.unwrap_or_else(|error| vec![Event::Failed(error)])
    }
}

/// A change that failed, and was not taken back either.
fn stuck(cause: &Error, error: &Error) -> Error {
    let message = format!("{} It could not be taken back: {}", cause.message, error.message);
    Error::new(Kind::Inconsistent, message)
}
