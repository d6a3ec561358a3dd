//! What a NIC does next: state and event in, effects out. No socket, clock or file in here.

#[cfg(test)]
mod tests;

use crate::core::error::Error;

/// The link that a NIC hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its number.
    pub index: u32,
    /// Whether there is something at its other end.
    pub carrier: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The parent is this link now, or there is none.
    Parent(Option<Parent>),
    /// The namespace is there, or it is gone. One that was replaced is gone first.
    Namespace(bool),
    /// The link stands; `fresh` if it was made just now, not if it was found as it should be.
    Made {
        /// Whether nothing can have used its addresses before.
        fresh: bool,
    },
    /// Nobody else has the addresses.
    Clear,
    /// Somebody else has an address.
    Taken(Error),
    /// Addresses and routes are set.
    Configured,
    /// What was being done failed.
    Failed(Error),
    /// The link was removed by somebody else, or with its parent.
    LinkGone,
    /// Whether everything is still as it should be is not known.
    Doubt,
    /// It is time to try again.
    RetryDue,
    /// The NIC is not wanted any more.
    Remove,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Make the link in the namespace, without addresses, or take over the one that is there.
    Make {
        /// Number of the parent.
        parent: u32,
    },
    /// Ask whether somebody has the addresses.
    Probe,
    /// Set addresses and routes.
    Configure,
    /// Lease an address, and keep it leased until the link is abandoned.
    Lease,
    /// Tell everybody about the addresses.
    Announce,
    /// Give up what is being done, and remove the link.
    Abandon,
    /// Report a `RetryDue` after a while that grows with the number of failures before.
    Retry {
        /// Failures in a row before this one.
        failures: u32,
    },
}

/// How far a NIC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is no link.
    Nothing,
    Making,
    Probing,
    Configuring,
    /// Everything is as it should be.
    Right,
}

/// When addresses are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Before they are set; one that somebody has is not set.
    Refuse,
    /// After they are set; one that somebody has is reported.
    Warn,
}

/// A NIC on its way.
#[derive(Debug, Clone)]
pub struct Machine {
    conflict: Conflict,
    leased: bool,
    parent: Option<Parent>,
    namespace: bool,
    stage: Stage,
    failures: u32,
    error: Option<Error>,
    removed: bool,
}

impl Machine {
    /// A NIC of which nothing is there yet; `leased` if its address is, so that only the link is to be made.
    pub fn new(conflict: Conflict, leased: bool) -> Self {
        Self {
            conflict,
            leased,
            parent: None,
            namespace: false,
            stage: Stage::Nothing,
            failures: 0,
            error: None,
            removed: false,
        }
    }

    /// The state in one word.
    pub fn state(&self) -> &'static str {
        match self.stage {
            _ if !self.namespace => "waiting-for-namespace",
            _ if self.parent.is_none() => "waiting-for-parent",
            Stage::Nothing if self.error.is_some() => "failed",
            Stage::Nothing | Stage::Making | Stage::Configuring => "attaching",
            Stage::Probing => "probing",
            Stage::Right if self.parent.is_some_and(|parent| !parent.carrier) => "no-carrier",
            Stage::Right => "up",
        }
    }

    /// What went wrong last; none after a success.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Whether addresses are set.
    pub fn is_right(&self) -> bool {
        self.stage == Stage::Right
    }

    /// Takes in what happened, and says what to do, in this order.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        if self.removed {
            return Vec::new();
        }
        match event {
            Event::Parent(now) => {
                let moved = self.parent.map(|parent| parent.index) != now.map(|parent| parent.index);
                self.parent = now;
                if moved { self.start_over() } else { Vec::new() }
            }
            Event::Namespace(there) => {
                if there == self.namespace {
                    return Vec::new();
                }
                self.namespace = there;
                self.start_over()
            }
            Event::Made { .. } if self.stage == Stage::Making && self.leased => {
                self.stage = Stage::Right;
                self.failures = 0;
                self.error = None;
                vec![Effect::Lease]
            }
            Event::Made { fresh } if self.stage == Stage::Making => {
                if fresh && self.conflict == Conflict::Refuse {
                    self.stage = Stage::Probing;
                    return vec![Effect::Probe];
                }
                self.stage = Stage::Configuring;
                vec![Effect::Configure]
            }
            Event::Clear if self.stage == Stage::Probing => {
                self.stage = Stage::Configuring;
                vec![Effect::Configure]
            }
            Event::Configured if self.stage == Stage::Configuring => {
                self.stage = Stage::Right;
                self.failures = 0;
                self.error = None;
                vec![if self.conflict == Conflict::Warn { Effect::Probe } else { Effect::Announce }]
            }
            Event::Taken(error) if self.stage == Stage::Right => {
                self.error = Some(error);
                Vec::new()
            }
            Event::Clear if self.stage == Stage::Right => vec![Effect::Announce],
            // Whether somebody has an address that is in use cannot be asked while the cable is out. That is no reason to take
            // the link away.
            Event::Failed(_) if self.stage == Stage::Right => Vec::new(),
            Event::Taken(error) | Event::Failed(error) if self.stage != Stage::Nothing => self.fail(error),
            Event::LinkGone if matches!(self.stage, Stage::Probing | Stage::Configuring | Stage::Right) => {
                self.start_over()
            }
            // Making takes over what is there, and touches nothing that is right.
            Event::Doubt if self.stage == Stage::Right => {
                self.stage = Stage::Nothing;
                self.begin()
            }
            Event::RetryDue => self.begin(),
            Event::Remove => {
                self.removed = true;
                self.stage = Stage::Nothing;
                vec![Effect::Abandon]
            }
            // The end of something that was given up.
            Event::Made { .. }
            | Event::Clear
            | Event::Taken(_)
            | Event::Configured
            | Event::Failed(_)
            | Event::Doubt
            | Event::LinkGone => Vec::new(),
        }
    }

    fn fail(&mut self, error: Error) -> Vec<Effect> {
        self.error = Some(error);
        self.stage = Stage::Nothing;
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        vec![Effect::Abandon, Effect::Retry { failures }]
    }

    /// What was is over: another parent, another namespace, or the link is gone.
    fn start_over(&mut self) -> Vec<Effect> {
        let mut effects = if self.stage == Stage::Nothing { Vec::new() } else { vec![Effect::Abandon] };
        self.stage = Stage::Nothing;
        self.failures = 0;
        self.error = None;
        effects.extend(self.begin());
        effects
    }

    fn begin(&mut self) -> Vec<Effect> {
        match self.parent {
            Some(parent) if self.namespace && self.stage == Stage::Nothing => {
                self.stage = Stage::Making;
                vec![Effect::Make { parent: parent.index }]
            }
            _ => Vec::new(),
        }
    }
}
