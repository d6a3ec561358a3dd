//! What happens while a request is followed, told to the reporter as it comes.

use std::collections::BTreeMap;

use orchestratord_dbus::{ManagedObjects, ManagerProxy, UpdateProxy};

use crate::client::{Event, Properties, interface, job_interface};
use crate::progress::Reporter;
use crate::told::{Place, Told};
use crate::view::{Change, ComponentChange, ErrorView, JobChange, JobView, UpdateView, View, job_number};

/// What is known, and who is told.
pub struct Story<'a> {
    /// Components and Jobs.
    pub view: View,
    /// The deployment.
    pub update: UpdateView,
    /// State of the daemon; empty if unknown.
    pub daemon: String,
    /// What went wrong, by Component.
    pub errors: BTreeMap<String, ErrorView>,
    /// Components were left alone because they are what they should be.
    unchanged: bool,
    /// Components were worked on.
    touched: bool,
    /// Path of the Job that is followed, once it is known.
    job: Option<String>,
    /// What happened since then or before.
    early: Vec<Change>,
    told: Told,
    reporter: &'a mut dyn Reporter,
}

impl<'a> Story<'a> {
    /// Begins with the present.
    pub fn new(update: UpdateView, objects: ManagedObjects, reporter: &'a mut dyn Reporter) -> Self {
        Self {
            view: View::new(objects),
            update,
            daemon: String::new(),
            errors: BTreeMap::new(),
            unchanged: false,
            touched: false,
            job: None,
            early: Vec::new(),
            told: Told::default(),
            reporter,
        }
    }

    /// Takes in what the daemon said.
    pub fn take(&mut self, event: Event) {
        match &event {
            Event::Changed { interface, properties, .. } if interface == self::interface::<ManagerProxy<'_>>() => {
                self.manager(properties);
            }
            Event::Changed { interface, properties, .. } if interface == self::interface::<UpdateProxy<'_>>() => {
                self.update.merge(properties);
            }
            _ => {}
        }
        let changes = self.view.apply(event);
        self.tell(changes);
    }

    /// Takes in properties of `Manager`.
    pub fn manager(&mut self, properties: &Properties) {
        self.daemon = properties.text("State").unwrap_or_else(|| std::mem::take(&mut self.daemon));
    }

    /// Takes in all Components and Jobs.
    pub fn objects(&mut self, objects: ManagedObjects) {
        let changes = self.view.take_in(objects);
        self.tell(changes);
    }

    /// Takes in properties of a Job.
    pub fn job(&mut self, path: &str, properties: &Properties) {
        let changes = self.view.merge(path, job_interface(), properties);
        self.tell(changes);
    }

    /// From now on, this Job is followed. If nothing is known of it yet, it is of this kind.
    pub fn follow(&mut self, path: &str, kind: &str) -> JobView {
        let unknown = || JobView { id: job_number(path), kind: kind.to_owned(), ..JobView::default() };
        let job = self.view.job(path).cloned().unwrap_or_else(unknown);
        self.reporter.begin(&job);
        self.job = Some(path.to_owned());
        let early = std::mem::take(&mut self.early);
        self.tell(early);
        job
    }

    /// Another instance of the daemon speaks from now on, with Jobs of its own.
    pub fn turn(&mut self) {
        self.view.forget_jobs();
        self.daemon.clear();
        self.job = None;
        self.early.clear();
    }

    /// Tells something that the daemon cannot tell.
    pub fn note(&mut self, message: &str) {
        self.reporter.note(message);
    }

    /// Whether all Components were found to be what they should be.
    pub fn is_untouched(&self) -> bool {
        self.unchanged && !self.touched
    }

    /// Nothing more will be told.
    pub fn end(&mut self) {
        self.reporter.end();
    }

    fn tell(&mut self, changes: Vec<Change>) {
        let Some(path) = self.job.clone() else {
            return self.early.extend(changes);
        };
        for change in changes {
            match change {
                Change::Job(job, change) if job.path == path => {
                    let known = match &change {
                        JobChange::Log { severity, component, message } if severity == "error" => {
                            !component.is_empty() && !self.told.is_news(component, message, Place::Log)
                        }
                        _ => false,
                    };
                    if !known {
                        self.reporter.job(&job, &change);
                    }
                }
                Change::Job(..) => {}
                Change::Component(component, change) => {
                    let label = component.label();
                    let known = match &change {
                        ComponentChange::Error(error) => {
                            self.errors.insert(label.clone(), error.clone());
                            !self.told.is_news(&label, &error.message, Place::Property)
                        }
                        ComponentChange::State(state) => {
                            self.unchanged |= state == "unchanged";
                            self.touched |= !matches!(state.as_str(), "idle" | "unchanged");
                            false
                        }
                        _ => false,
                    };
                    if !known {
                        self.reporter.component(&component, &change);
                    }
                }
            }
        }
    }
}
