//! Follows everything the daemon does.

use orchestratord_dbus::{ManagerProxy, UpdateProxy};
use serde_json::{Value, json};

use crate::client::{Client, Event, interface};
use crate::failure::{Failure, SUCCESS};
use crate::interrupt::Interrupt;
use crate::output::{Moment, print, print_json_line, printable};
use crate::progress::{log_line, percent};
use crate::view::{Change, ComponentChange, ComponentView, JobChange, JobView, UpdateView, View};

/// Follows the daemon, across its restarts, until a signal or the end of the bus.
pub async fn run(json: bool) -> Result<u8, Failure> {
    let mut interrupt = Interrupt::new()?;
    tokio::select! {
        biased;
        // The way to end this command is no failure of it.
        _ = interrupt.wait() => Ok(SUCCESS),
        outcome = follow(json) => outcome,
    }
}

async fn follow(json: bool) -> Result<u8, Failure> {
    let mut client = Client::connect().await?;
    loop {
        let mut listener = client.listen().await?;
        let mut watch = Watch { json, daemon: String::new(), update: UpdateView::default(), view: View::default() };
        let first = async {
            Ok((client.manager_properties().await?, client.update_properties().await?, client.objects().await?))
        };
        // What is said before the answers stands in the answers, except for an end of the daemon.
        let mut presence = Presence::Here;
        let first = listener.during(first, |event| {
            presence.note(&event);
            Ok(())
        });
        match first.await {
            Ok((manager, update, objects)) => {
                watch.daemon = manager.text("State").unwrap_or_default();
                watch.update = UpdateView::new(&update);
                watch.view = View::new(objects);
                watch.print_snapshot()?;
            }
            Err(Failure::Gone(_)) => {}
            Err(failure) => return Err(failure),
        }
        while presence == Presence::Here {
            let event = listener.next().await?;
            presence.note(&event);
            watch.event(event)?;
        }
        watch.print("orchestratord has left the bus", json!({ "event": "vanished" }))?;
        // Asking for the daemon would start it, and someone may have stopped it on purpose.
        while presence != Presence::Replaced {
            presence.note(&listener.next().await?);
        }
        client = client.again().await?;
    }
}

/// Where the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// On the bus.
    Here,
    /// Not on the bus.
    Gone,
    /// Another instance of it is on the bus.
    Replaced,
}

impl Presence {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Vanished => *self = Self::Gone,
            Event::Appeared => *self = Self::Replaced,
            _ => {}
        }
    }
}

struct Watch {
    json: bool,
    daemon: String,
    update: UpdateView,
    view: View,
}

impl Watch {
    /// Prints what an event changed.
    fn event(&mut self, event: Event) -> Result<(), Failure> {
        match &event {
            Event::Changed { interface, properties, .. } if interface == self::interface::<ManagerProxy<'_>>() => {
                if let Some(state) = properties.text("State") {
                    self.daemon = state;
                    self.print_daemon()?;
                }
            }
            Event::Changed { interface, properties, .. } if interface == self::interface::<UpdateProxy<'_>>() => {
                let before = self.update.clone();
                self.update.merge(properties);
                if before != self.update {
                    self.print_update()?;
                }
            }
            _ => {}
        }
        for change in self.view.apply(event) {
            match change {
                Change::Component(component, change) => self.print_component(&component, &change)?,
                Change::Job(job, change) => self.print_job(&job, &change)?,
            }
        }
        Ok(())
    }

    fn print_snapshot(&self) -> Result<(), Failure> {
        if self.json {
            let snapshot = json!({
                "event": "snapshot",
                "daemon": self.daemon,
                "update": self.update,
                "components": self.view.components(),
                "jobs": self.view.jobs(),
            });
            return self.print("", snapshot);
        }
        self.print_daemon()?;
        self.print_update()?;
        for component in self.view.components() {
            self.print_component(component, &ComponentChange::State(component.state.clone()))?;
        }
        for job in self.view.jobs().into_iter().filter(|job| job.state != "done") {
            self.print_job(job, &JobChange::Step(job.step.clone()))?;
        }
        Ok(())
    }

    fn print_daemon(&self) -> Result<(), Failure> {
        self.print(&format!("daemon: {}", self.daemon), json!({ "event": "daemon", "daemon": self.daemon }))
    }

    fn print_update(&self) -> Result<(), Failure> {
        let update = &self.update;
        let mut parts = vec![format!("deployment: {}", update.state)];
        for (name, value) in [("manifest", &update.manifest), ("stopped before", &update.stopped_before)] {
            if !value.is_empty() {
                parts.push(format!("{name} {value}"));
            }
        }
        parts.extend(update.last_error.as_ref().map(|error| format!("last error: {}", error.message)));
        let text = parts.join(", ");
        self.print(&text, json!({ "event": "update", "update": update }))
    }

    fn print_component(&self, component: &ComponentView, change: &ComponentChange) -> Result<(), Failure> {
        let (word, text) = match change {
            ComponentChange::Added => ("added", "is part of the System".to_owned()),
            ComponentChange::State(state) => ("state", state.clone()),
            ComponentChange::Version(version) => ("version", format!("version {version}")),
            ComponentChange::Progress(_) => ("progress", String::new()),
            ComponentChange::Error(error) => ("error", format!("error: {}", error.message)),
            ComponentChange::Removed => ("removed", "is no longer part of the System".to_owned()),
        };
        let text = if text.is_empty() { text } else { format!("{}: {text}", component.label()) };
        self.print(&text, json!({ "event": "component", "change": word, "component": component }))
    }

    fn print_job(&self, job: &JobView, change: &JobChange) -> Result<(), Failure> {
        let (word, text) = match change {
            JobChange::Added => ("added", job.kind.clone()),
            JobChange::Progress(_) => ("progress", String::new()),
            JobChange::Step(step) => ("step", format!("{} % {step}", percent(job.progress))),
            JobChange::Log { severity, component, message } => {
                let text = format!("job {}: {}", job.id, log_line(severity, component, message));
                let line = json!({
                    "event": "log", "job": job.id, "severity": severity, "component": component, "message": message,
                });
                return self.print(&text, line);
            }
            JobChange::Ended => ("ended", ended(job)),
            JobChange::Removed => ("removed", String::new()),
        };
        let text = if text.is_empty() { text } else { format!("job {}: {text}", job.id) };
        self.print(&text, json!({ "event": "job", "change": word, "job": job }))
    }

    /// Prints a line with the time; text that is empty is for readers of JSON only.
    fn print(&self, text: &str, mut line: Value) -> Result<(), Failure> {
        let time = Moment::now().rfc3339();
        if self.json {
            line["time"] = time.into();
            print_json_line(&line)
        } else if text.is_empty() {
            Ok(())
        } else {
            print(&format!("{time} {}\n", printable(text)))
        }
    }
}

fn ended(job: &JobView) -> String {
    let error = job.error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
    format!("{}{error}", job.result)
}
