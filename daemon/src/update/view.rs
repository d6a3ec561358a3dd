//! What the outside sees of the update domain, kept in a watch channel.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::answers;
use super::component::{ComponentKey, ComponentStatus};
use super::handle::{StopPoint, UpdateState, UpdateStatus};
use super::plan::Plan;
use super::survey::Surveyed;
use crate::core::error::Error;

/// The writing end of the status; clones write to the same.
#[derive(Debug, Clone)]
pub struct View(watch::Sender<UpdateStatus>);

impl View {
    /// A view that shows nothing yet.
    pub fn new() -> (Self, watch::Receiver<UpdateStatus>) {
        let (sender, receiver) = watch::channel(UpdateStatus::default());
        (Self(sender), receiver)
    }

    /// What it shows now.
    pub fn now(&self) -> UpdateStatus {
        self.0.borrow().clone()
    }

    /// Changes what it shows; readers are told only if something really changed.
    fn change(&self, change: impl FnOnce(&mut UpdateStatus)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// Work begins; the Job may follow later.
    pub fn busy(&self, job: Option<u32>) {
        self.change(|status| {
            status.state = UpdateState::Busy;
            status.stopped_before = None;
            status.active_job = job;
        });
    }

    /// Work has ended and left this behind.
    pub fn at_rest(&self, state: UpdateState, stopped_before: Option<StopPoint>) {
        self.change(|status| {
            status.state = state;
            status.stopped_before = stopped_before;
            status.active_job = None;
        });
    }

    /// The last error; none after a success.
    pub fn error(&self, error: Option<Error>) {
        self.change(|status| status.last_error = error);
    }

    /// Whether the System is inconsistent.
    pub fn inconsistent(&self, inconsistent: bool) {
        self.change(|status| status.inconsistent = inconsistent);
    }

    /// Name of the Manifest.
    pub fn manifest(&self, name: &str) {
        self.change(|status| name.clone_into(&mut status.manifest));
    }

    /// System type of the Topology.
    pub fn system_type(&self, name: &str) {
        self.change(|status| name.clone_into(&mut status.system_type));
    }

    /// The Components answered who they are. With `complete`, others have vanished.
    pub fn surveyed(&self, found: &[Surveyed], complete: bool) {
        self.change(|status| {
            let mut old = std::mem::take(&mut status.components);
            for surveyed in found {
                let known = old.iter().position(|component| component.key == surveyed.key);
                let mut component = known.map_or_else(|| unknown(&surveyed.key), |index| old.remove(index));
                component.interface.clone_from(&surveyed.interface);
                component.arguments.clone_from(&surveyed.arguments);
                component.version = version(&surveyed.provides, &surveyed.interface);
                component.provides.clone_from(&surveyed.provides);
                status.components.push(component);
            }
            if !complete {
                status.components.append(&mut old);
            }
        });
    }

    /// A deployment of this Plan begins or is found again; [`View::component`] says how far its Components are.
    pub fn planned(&self, plan: &Plan) {
        self.change(|status| {
            status.manifest.clone_from(&plan.manifest);
            status.system_type.clone_from(&plan.system_type);
            // A Component that is updated twice has the version from before the first time.
            for member in plan.members.iter().rev() {
                let component = entry(&mut status.components, &member.key);
                component.interface.clone_from(&member.interface);
                component.arguments.clone_from(&member.arguments);
                component.version.clone_from(&member.from_version);
                "selected".clone_into(&mut component.state);
                component.progress = 0.0;
                component.last_error = None;
            }
            for unchanged in &plan.unchanged {
                let component = entry(&mut status.components, &unchanged.key);
                component.interface.clone_from(&unchanged.interface);
                component.arguments.clone_from(&unchanged.arguments);
                component.version.clone_from(&unchanged.version);
                "unchanged".clone_into(&mut component.state);
                component.progress = 1.0;
                component.last_error = None;
            }
        });
    }

    /// Something changed on one Component.
    pub fn component(&self, key: &ComponentKey, change: impl FnOnce(&mut ComponentStatus)) {
        // Only this one is compared: with hundreds of Components, each of which changes, that matters.
        self.0.send_if_modified(|status| {
            let known = status.components.len();
            let component = entry(&mut status.components, key);
            let before = component.clone();
            change(component);
            *component != before || status.components.len() != known
        });
    }

    /// No deployment is open: nobody is selected any more.
    pub fn all_idle(&self) {
        self.change(|status| {
            for component in &mut status.components {
                "idle".clone_into(&mut component.state);
                component.progress = 0.0;
            }
        });
    }
}

fn entry<'a>(components: &'a mut Vec<ComponentStatus>, key: &ComponentKey) -> &'a mut ComponentStatus {
    let index = components.iter().position(|component| component.key == *key).unwrap_or_else(|| {
        components.push(unknown(key));
        components.len() - 1
    });
    &mut components[index]
}

fn unknown(key: &ComponentKey) -> ComponentStatus {
    ComponentStatus {
        key: key.clone(),
        interface: String::new(),
        arguments: Vec::new(),
        state: "idle".to_owned(),
        version: String::new(),
        provides: BTreeMap::new(),
        progress: 0.0,
        last_error: None,
    }
}

fn version(provides: &BTreeMap<String, String>, interface: &str) -> String {
    answers::version_key(provides, interface).map(|(_, version)| version.to_owned()).unwrap_or_default()
}
