//! The step that comes next.

use super::{Effect, Machine, Nics, Sight, pid};
use crate::vplc::engine::{Container, Wellness};
use crate::vplc::spec::Unhealthy;
use crate::vplc::store::Wanted;

impl Machine {
    /// The step that brings what is nearer to what is wanted; none if both are the same.
    pub(super) fn next(&self) -> Option<Effect> {
        let Some(sight) = self.sight.as_ref().filter(|_| !self.stirred) else { return Some(Effect::Look) };
        match self.rules.wanted {
            Wanted::Running => self.towards_running(sight),
            Wanted::Stopped => self.towards_stopped(sight),
            Wanted::Gone { keep_data } => Some(self.towards_nothing(sight, keep_data)),
        }
    }

    fn towards_running(&self, sight: &Sight) -> Option<Effect> {
        let current = |container: &&Container| container.generation == self.rules.generation;
        let holder = sight.holder.as_ref();
        let holder_pid = pid(holder);
        if let Some((runtime, pid)) = sight.runtime.as_ref().zip(pid(sight.runtime.as_ref())) {
            if current(&runtime) && !self.again {
                let ill = self.wellness() == Some(Wellness::Unhealthy);
                if ill && self.rules.unhealthy == Unhealthy::Restart && !self.rules.trial {
                    // Counted like an end of its own: `running` stays set until it is seen to have ended.
                    return Some(Effect::StopRuntime);
                }
                if !self.is_claimed(runtime) {
                    return Some(Effect::Claim { container: runtime.id.clone() });
                }
                // It is never stopped for its NICs; they follow it, also if somebody killed the holder.
                return self.attach(holder_pid.unwrap_or(pid)).or_else(|| self.proof(runtime));
            }
            // Whatever may fail without harm is tried while the old one still runs.
            let ready = self.image || current(&runtime);
            return Some(if ready { Effect::StopRuntime } else { Effect::FetchImage });
        }
        if self.rules.latch.is_some() || !self.turn {
            return None;
        }
        if sight.runtime.as_ref().is_some_and(|runtime| !current(&runtime)) {
            return Some(Effect::RemoveRuntime);
        }
        if holder.is_some_and(|holder| !current(&holder)) {
            return Some(Effect::RemoveHolder);
        }
        if (holder.is_none() || sight.runtime.is_none()) && !self.image {
            return Some(Effect::FetchImage);
        }
        if holder.is_none() {
            // A runtime joins a holder for life.
            return Some(if sight.runtime.is_some() { Effect::RemoveRuntime } else { Effect::CreateHolder });
        }
        let Some(holder_pid) = holder_pid else { return Some(Effect::StartHolder) };
        if sight.runtime.as_ref().is_some_and(|runtime| self.is_claimed(runtime)) || self.rules.claim.is_none() {
            if let Some(attach) = self.attach(holder_pid) {
                return Some(attach);
            }
        } else if self.nics != Nics::Gone {
            // Whoever reaches a runtime before the daemon does owns it.
            return Some(Effect::DetachNics);
        }
        Some(if sight.runtime.is_none() { Effect::CreateRuntime } else { Effect::StartRuntime })
    }

    /// Whether nobody else can make it his own any more.
    pub(super) fn is_claimed(&self, runtime: &Container) -> bool {
        self.rules.claim.as_ref().is_none_or(|claim| claim.container.as_deref() == Some(runtime.id.as_str()))
    }

    /// What is on trial is well and on the network: then the PLC is looked at once more.
    fn proof(&self, runtime: &Container) -> Option<Effect> {
        let well = matches!(self.wellness(), Some(Wellness::Healthy | Wellness::Unknown));
        let due = self.rules.trial && !self.passed && !self.proving && well;
        due.then(|| Effect::ProvePlc { container: runtime.id.clone() })
    }

    fn attach(&self, pid: i32) -> Option<Effect> {
        (self.nics != Nics::At(pid)).then_some(Effect::AttachNics { pid })
    }

    /// A PLC that stands still is not on the network. Its containers stay, for their output and for what the runtime has
    /// written beside its volume.
    fn towards_stopped(&self, sight: &Sight) -> Option<Effect> {
        if pid(sight.runtime.as_ref()).is_some() {
            return Some(Effect::StopRuntime);
        }
        if self.nics != Nics::Gone {
            return Some(Effect::DetachNics);
        }
        pid(sight.holder.as_ref()).map(|_| Effect::StopHolder)
    }

    fn towards_nothing(&self, sight: &Sight, keep_data: bool) -> Effect {
        if pid(sight.runtime.as_ref()).is_some() {
            Effect::StopRuntime
        } else if self.nics != Nics::Gone {
            Effect::DetachNics
        } else if sight.runtime.is_some() {
            Effect::RemoveRuntime
        } else if sight.holder.is_some() {
            Effect::RemoveHolder
        } else if !keep_data && !self.data_gone {
            Effect::RemoveData
        } else {
            Effect::Vanish
        }
    }
}
