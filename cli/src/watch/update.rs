//! Updates of the System: the daemon, the deployment, the Components and the Jobs.

use orchestratord_dbus::{ManagerProxy, UpdateProxy};
use serde_json::json;

use super::{Lines, Watched};
use crate::client::{Client, Event, interface};
use crate::failure::Failure;
use crate::progress::{log_line, percent};
use crate::view::{Change, ComponentChange, ComponentView, JobChange, JobView, UpdateView, View};

/// The System as it is known.
#[derive(Debug, Default)]
pub(super) struct Watch {
    daemon: String,
    update: UpdateView,
    view: View,
}

impl Watched for Watch {
    async fn read(client: &Client) -> Result<Self, Failure> {
        let (manager, update) = (client.manager_properties().await?, client.update_properties().await?);
        Ok(Self {
            daemon: manager.text("State").unwrap_or_default(),
            update: UpdateView::new(&update),
            view: View::new(client.objects().await?),
        })
    }

    fn event(&mut self, event: Event, lines: Lines) -> Result<(), Failure> {
        match &event {
            Event::Changed { interface, properties, .. } if interface == self::interface::<ManagerProxy<'_>>() => {
                if let Some(state) = properties.text("State") {
                    self.daemon = state;
                    self.print_daemon(lines)?;
                }
            }
            Event::Changed { interface, properties, .. } if interface == self::interface::<UpdateProxy<'_>>() => {
                let before = self.update.clone();
                self.update.merge(properties);
                if before != self.update {
                    self.print_update(lines)?;
                }
            }
            _ => {}
        }
        for change in self.view.apply(event) {
            match change {
                Change::Component(component, change) => print_component(&component, &change, lines)?,
                Change::Job(job, change) => print_job(&job, &change, lines)?,
            }
        }
        Ok(())
    }

    fn print_all(&self, lines: Lines) -> Result<(), Failure> {
        if matches!(lines, Lines::Json) {
            let snapshot = json!({
                "event": "snapshot",
                "daemon": self.daemon,
                "update": self.update,
                "components": self.view.components(),
                "jobs": self.view.jobs(),
            });
            return lines.print("", snapshot);
        }
        self.print_daemon(lines)?;
        self.print_update(lines)?;
        for component in self.view.components() {
            print_component(component, &ComponentChange::State(component.state.clone()), lines)?;
        }
        for job in self.view.jobs().into_iter().filter(|job| job.state != "done") {
            print_job(job, &JobChange::Step(job.step.clone()), lines)?;
        }
        Ok(())
    }
}

impl Watch {
    fn print_daemon(&self, lines: Lines) -> Result<(), Failure> {
        lines.print(&format!("daemon: {}", self.daemon), json!({ "event": "daemon", "daemon": self.daemon }))
    }

    fn print_update(&self, lines: Lines) -> Result<(), Failure> {
        let update = &self.update;
        let mut parts = vec![format!("deployment: {}", update.state)];
        for (name, value) in [("manifest", &update.manifest), ("stopped before", &update.stopped_before)] {
            if !value.is_empty() {
                parts.push(format!("{name} {value}"));
            }
        }
        parts.extend(update.last_error.as_ref().map(|error| format!("last error: {}", error.message)));
        let text = parts.join(", ");
        lines.print(&text, json!({ "event": "update", "update": update }))
    }
}

fn print_component(component: &ComponentView, change: &ComponentChange, lines: Lines) -> Result<(), Failure> {
    let (word, text) = match change {
        ComponentChange::Added => ("added", "is part of the System".to_owned()),
        ComponentChange::State(state) => ("state", state.clone()),
        ComponentChange::Version(version) => ("version", format!("version {version}")),
        ComponentChange::Progress(_) => ("progress", String::new()),
        ComponentChange::Error(error) => ("error", format!("error: {}", error.message)),
        ComponentChange::Removed => ("removed", "is no longer part of the System".to_owned()),
    };
    let text = if text.is_empty() { text } else { format!("{}: {text}", component.label()) };
    lines.print(&text, json!({ "event": "component", "change": word, "component": component }))
}

fn print_job(job: &JobView, change: &JobChange, lines: Lines) -> Result<(), Failure> {
    let (word, text) = match change {
        JobChange::Added => ("added", job.kind.clone()),
        JobChange::Progress(_) => ("progress", String::new()),
        JobChange::Step(step) => ("step", format!("{} % {step}", percent(job.progress))),
        JobChange::Log { severity, component, message } => {
            let text = format!("job {}: {}", job.id, log_line(severity, component, message));
            let line = json!({
                "event": "log", "job": job.id, "severity": severity, "component": component, "message": message,
            });
            return lines.print(&text, line);
        }
        JobChange::Ended => ("ended", ended(job)),
        JobChange::Removed => ("removed", String::new()),
    };
    let text = if text.is_empty() { text } else { format!("job {}: {text}", job.id) };
    lines.print(&text, json!({ "event": "job", "change": word, "job": job }))
}

fn ended(job: &JobView) -> String {
    let error = job.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
    format!("{}{error}", job.result)
}
