//! What the daemon shows, as this program remembers and prints it. The serialised shapes are documented in
//! `docs/cli.md`.

use std::collections::BTreeMap;

use orchestratord_dbus::{ErrorPair, ManagedObjects};
use serde::{Serialize, Serializer};

use crate::client::{Event, Properties, component_interface, job_interface};
use crate::output::Moment;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorView {
    /// D-Bus error name.
    pub name: String,
    /// A full sentence.
    pub message: String,
}

impl ErrorView {
    /// No error if both parts are empty.
    pub fn from_pair((name, message): ErrorPair) -> Option<Self> {
        (!name.is_empty() || !message.is_empty()).then_some(Self { name, message })
    }
}

/// The deployment and the System as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct UpdateView {
    /// `idle`, `busy`, `waiting` or `reboot-required`.
    pub state: String,
    /// State before which the open deployment stopped; empty if it did not.
    pub stopped_before: String,
    /// Name of the Manifest that is being installed, else of the one installed last.
    pub manifest: String,
    /// System type of the Topology.
    pub system_type: String,
    /// Path of the Job that runs; empty if none does.
    pub active_job: String,
    /// What went wrong last.
    pub last_error: Option<ErrorView>,
}

impl UpdateView {
    /// From all properties of `Update`.
    pub fn new(properties: &Properties) -> Self {
        let mut view = Self::default();
        view.merge(properties);
        view
    }

    /// Takes in properties of `Update`.
    pub fn merge(&mut self, properties: &Properties) {
        take(&mut self.state, properties.text("State"));
        take(&mut self.stopped_before, properties.text("StoppedBefore"));
        take(&mut self.manifest, properties.text("Manifest"));
        take(&mut self.system_type, properties.text("SystemType"));
        let job = properties.path("ActiveJob").map(|path| if path == "/" { String::new() } else { path });
        take(&mut self.active_job, job);
        take(&mut self.last_error, properties.error("LastError").map(ErrorView::from_pair));
    }
}

/// A Component.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ComponentView {
    /// Component type.
    #[serde(rename = "type")]
    pub component_type: String,
    /// What its Interface answered to `Identity`.
    pub id: String,
    /// Name of its Interface.
    pub interface: String,
    /// Arguments that the Topology gives to the Interface.
    pub arguments: Vec<String>,
    /// `idle`, `selected`, `unchanged`, `failed`, or the state of the Interface protocol that ran last.
    pub state: String,
    /// Empty if unknown.
    pub version: String,
    /// What it said it provides.
    pub provides: BTreeMap<String, String>,
    /// Share of the current deployment that is behind it, 0 to 1.
    pub progress: f64,
    /// What went wrong with it last.
    pub last_error: Option<ErrorView>,
}

impl ComponentView {
    /// `<component type>.<id>`, its name in all output.
    pub fn label(&self) -> String {
        format!("{}.{}", self.component_type, self.id)
    }

    fn merge(&mut self, properties: &Properties) -> Vec<ComponentChange> {
        let mut changes = Vec::new();
        take(&mut self.component_type, properties.text("Type"));
        take(&mut self.id, properties.text("Id"));
        take(&mut self.interface, properties.text("Interface"));
        take(&mut self.arguments, properties.list("Arguments"));
        take(&mut self.provides, properties.map("Provides").map(|map| map.into_iter().collect()));
        if take(&mut self.version, properties.text("Version")) {
            changes.push(ComponentChange::Version(self.version.clone()));
        }
        if take(&mut self.state, properties.text("State")) {
            changes.push(ComponentChange::State(self.state.clone()));
        }
        if take(&mut self.progress, properties.share("Progress")) {
            changes.push(ComponentChange::Progress(self.progress));
        }
        if take(&mut self.last_error, properties.error("LastError").map(ErrorView::from_pair)) {
            changes.extend(self.last_error.clone().map(ComponentChange::Error));
        }
        changes
    }
}

/// A Job.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct JobView {
    /// Number of the Job.
    pub id: u64,
    /// Object path.
    pub path: String,
    /// `install`, `resume` or `rollback`.
    pub kind: String,
    /// User id of the caller who began it.
    pub started_by: u64,
    /// When it was accepted, in microseconds since 1970; as RFC 3339 in JSON.
    #[serde(serialize_with = "as_rfc3339")]
    pub started: u64,
    /// `queued`, `running` or `done`.
    pub state: String,
    /// From 0 to 1.
    pub progress: f64,
    /// What is being done.
    pub step: String,
    /// How it ended; empty while it runs.
    pub result: String,
    /// What went wrong.
    pub error: Option<ErrorView>,
}

impl JobView {
    fn merge(&mut self, properties: &Properties) -> Vec<JobChange> {
        let mut changes = Vec::new();
        // An answer may be older than a signal that came before it. What has ended stays so.
        if self.state == "done" && properties.text("State").is_some_and(|state| state != "done") {
            return changes;
        }
        take(&mut self.id, properties.number("Id"));
        take(&mut self.kind, properties.text("Kind"));
        take(&mut self.started_by, properties.number("StartedBy"));
        take(&mut self.started, properties.number("Started"));
        take(&mut self.error, properties.error("Error").map(ErrorView::from_pair));
        take(&mut self.result, properties.text("Result"));
        // Progress first: who prints a new step wants to print the progress that belongs to it.
        if take(&mut self.progress, properties.share("Progress")) {
            changes.push(JobChange::Progress(self.progress));
        }
        if take(&mut self.step, properties.text("Step")) {
            changes.push(JobChange::Step(self.step.clone()));
        }
        if take(&mut self.state, properties.text("State")) && self.state == "done" {
            changes.push(JobChange::Ended);
        }
        changes
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn as_rfc3339<S: Serializer>(micros: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&Moment::from_micros(*micros).rfc3339())
}

/// Takes a new value and says whether it is another one.
fn take<T: PartialEq>(old: &mut T, new: Option<T>) -> bool {
    match new {
        Some(new) if *old != new => {
            *old = new;
            true
        }
        _ => false,
    }
}

/// What changed in a Component.
#[derive(Debug, Clone, PartialEq)]
pub enum ComponentChange {
    /// It appeared.
    Added,
    /// Its state.
    State(String),
    /// Its version.
    Version(String),
    /// Its progress.
    Progress(f64),
    /// Something went wrong with it.
    Error(ErrorView),
    /// It vanished.
    Removed,
}

/// What changed in a Job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobChange {
    /// It appeared.
    Added,
    /// How far it is.
    Progress(f64),
    /// What it does.
    Step(String),
    /// A line of its log.
    Log {
        /// `info`, `warning` or `error`.
        severity: String,
        /// `<component type>.<id>`, or empty.
        component: String,
        /// The line.
        message: String,
    },
    /// It ended.
    Ended,
    /// It was forgotten.
    Removed,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// In a Component, as it is now.
    Component(Box<ComponentView>, ComponentChange),
    /// In a Job, as it is now.
    Job(Box<JobView>, JobChange),
}

/// All Components and Jobs.
#[derive(Debug, Default)]
pub struct View {
    components: BTreeMap<String, ComponentView>,
    jobs: BTreeMap<String, JobView>,
}

impl View {
    /// Everything that exists.
    pub fn new(objects: ManagedObjects) -> Self {
        let mut view = Self::default();
        view.take_in(objects);
        view
    }

    /// Another instance of the daemon has taken over, with its own Jobs: forgets those of the last one.
    pub fn forget_jobs(&mut self) {
        self.jobs.clear();
    }

    /// Takes in everything that exists, and tells what that changed.
    pub fn take_in(&mut self, objects: ManagedObjects) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, interfaces) in objects {
            for (interface, properties) in interfaces {
                changes.extend(self.merge(path.as_str(), interface.as_str(), &Properties::new(properties)));
            }
        }
        changes
    }

    /// All Components, by type and id.
    pub fn components(&self) -> Vec<&ComponentView> {
        let mut components: Vec<_> = self.components.values().collect();
        components.sort_by_key(|component| (&component.component_type, &component.id));
        components
    }

    /// All Jobs, by number.
    pub fn jobs(&self) -> Vec<&JobView> {
        let mut jobs: Vec<_> = self.jobs.values().collect();
        jobs.sort_by_key(|job| job.id);
        jobs
    }

    /// The Job with this path.
    pub fn job(&self, path: &str) -> Option<&JobView> {
        self.jobs.get(path)
    }

    /// Takes in what the daemon said, and tells what that changed.
    pub fn apply(&mut self, event: Event) -> Vec<Change> {
        match event {
            Event::Changed { path, interface, properties } => self.merge(&path, &interface, &properties),
            Event::Added(path, interfaces) => {
                interfaces.iter().flat_map(|(interface, properties)| self.merge(&path, interface, properties)).collect()
            }
            Event::Removed(path, interfaces) => self.remove(&path, &interfaces),
            Event::Log { job, severity, component, message } => {
                let view = self.jobs.entry(job.clone()).or_insert_with(|| new_job(&job));
                vec![Change::Job(Box::new(view.clone()), JobChange::Log { severity, component, message })]
            }
            Event::Vanished | Event::Appeared => Vec::new(),
        }
    }

    /// Takes in properties of one object.
    pub fn merge(&mut self, path: &str, interface: &str, properties: &Properties) -> Vec<Change> {
        if interface == component_interface() {
            let known = self.components.contains_key(path);
            let view = self.components.entry(path.to_owned()).or_default();
            let mut changes = view.merge(properties);
            if !known {
                changes.insert(0, ComponentChange::Added);
            }
            return changes.into_iter().map(|change| Change::Component(Box::new(view.clone()), change)).collect();
        }
        if interface == job_interface() {
            let known = self.jobs.contains_key(path);
            let view = self.jobs.entry(path.to_owned()).or_insert_with(|| new_job(path));
            let mut changes = view.merge(properties);
            if !known {
                changes.insert(0, JobChange::Added);
            }
            return changes.into_iter().map(|change| Change::Job(Box::new(view.clone()), change)).collect();
        }
        Vec::new()
    }

    fn remove(&mut self, path: &str, interfaces: &[String]) -> Vec<Change> {
        let mut changes = Vec::new();
        if interfaces.iter().any(|interface| interface == component_interface())
            && let Some(view) = self.components.remove(path)
        {
            changes.push(Change::Component(Box::new(view), ComponentChange::Removed));
        }
        if interfaces.iter().any(|interface| interface == job_interface())
            && let Some(view) = self.jobs.remove(path)
        {
            changes.push(Change::Job(Box::new(view), JobChange::Removed));
        }
        changes
    }
}

/// The number of a Job, as its path ends with it.
pub fn job_number(path: &str) -> u64 {
    path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn new_job(path: &str) -> JobView {
    JobView { id: job_number(path), path: path.to_owned(), ..JobView::default() }
}
