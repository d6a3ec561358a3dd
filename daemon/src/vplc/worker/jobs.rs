//! The Jobs of a worker: what they change, when they are over, and what is taken back if they fail.

use super::effects::step;
use super::{Prepared, Shelf, Worker, rules, wanted};
use crate::core::error::Error;
use crate::core::job::{JobReporter, JobResult};
use crate::vplc::handle::Order;
use crate::vplc::machine::{Effect, Event};
use crate::vplc::spec::Spec;
use crate::vplc::store::{Record, Wanted};

/// What is taken back if a Job fails.
#[derive(Debug)]
pub(super) enum Undo {
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
    pub(super) reporter: JobReporter,
    pub(super) undo: Undo,
    /// What went wrong, while it is taken back.
    pub(super) cause: Option<Error>,
}

impl Worker {
    pub(super) fn apply(&mut self, prepared: Prepared, reporter: JobReporter) -> Vec<Event> {
        let Prepared { spec, text, image } = prepared;
        let same = spec.same_containers(&self.spec) && image.id == self.record.image.id;
        let record = Record {
            spec: text,
            generation: if same { self.record.generation } else { self.record.generation + 1 },
            wanted: match (spec.state, self.record.wanted) {
                (Some(state), _) => wanted(state),
                // Whoever applies one that is on its way out wants it back.
                (None, Wanted::Gone { .. }) => Wanted::Running,
                (None, before) => before,
            },
            image,
            latch: None,
        };
        let before = Box::new((self.spec.clone(), self.record.clone()));
        let changed = self.change(spec, record);
        self.set_to_work(reporter, Undo::Return(before), changed)
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
                self.work = Some(Work { reporter, undo, cause: None });
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
        (self.spec, self.record, self.older) = (spec, record, false);
        Ok(vec![Event::Rules { rules: rules(&self.spec, &self.record, &self.shelf), nics }])
    }

    /// Ends the Job if there is nothing more to wait for, or takes back what it has done.
    pub(super) fn judge(&mut self) -> Vec<Event> {
        let Some(work) = &mut self.work else { return Vec::new() };
        if let Some(effect) = self.machine.doing().filter(|effect| **effect != Effect::Look) {
            work.reporter.report(0.5, step(effect));
        }
        let Some(rest) = self.machine.rest(&self.spec.name) else { return Vec::new() };
        let undo = std::mem::replace(&mut work.undo, Undo::Nothing);
        match (rest, undo) {
            (Ok(()), _) => {
                if let Some(Work { reporter, cause, .. }) = self.work.take() {
                    let result = if cause.is_some() { JobResult::RolledBack } else { JobResult::Done };
                    reporter.finish(result, cause);
                }
                Vec::new()
            }
            (Err(error), Undo::Nothing) => {
                if let Some(Work { reporter, cause, .. }) = self.work.take() {
                    reporter.finish(JobResult::Failed, Some(cause.unwrap_or(error)));
                }
                Vec::new()
            }
            (Err(error), Undo::Forget { keep_data }) => {
                work.cause = Some(error);
                let record = Record { wanted: Wanted::Gone { keep_data }, ..self.record.clone() };
                self.turn_back(self.spec.clone(), record)
            }
            (Err(error), Undo::Return(before)) => {
                work.cause = Some(error);
                // With its generation: what was made in between goes, and what still runs of before stays.
                let (spec, record) = *before;
                self.turn_back(spec, record)
            }
        }
    }

    fn turn_back(&mut self, spec: Spec, record: Record) -> Vec<Event> {
        let changed = self.change(spec, record);
        changed.unwrap_or_else(|error| vec![Event::Failed(error)])
    }
}
