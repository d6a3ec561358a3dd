//! Follows a Job from the request to its end.

use std::cell::Cell;
use std::collections::BTreeMap;

use orchestratord::core::error::Kind;
use serde::Serialize;
use zbus::OwnedObjectPath;

use crate::client::{Client, Event, job_interface};
use crate::failure::{FAILED, Failure, REBOOT_REQUIRED, SUCCESS};
use crate::progress::Reporter;
use crate::view::{Change, ComponentChange, ComponentView, ErrorView, JobView, UpdateView, View, job_number};

/// How a request that moves a deployment ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The Job in its last state.
    pub job: JobView,
    /// Exit code of `orchestratorctl`.
    pub exit_code: u8,
    /// The deployment afterwards; none if the daemon could not be asked any more.
    pub update: Option<UpdateView>,
    /// The Components afterwards.
    pub components: Vec<ComponentView>,
    /// What went wrong during this Job, by Component (`<component type>.<id>`).
    pub component_errors: BTreeMap<String, ErrorView>,
}

/// Exit code for the end of a Job.
///
/// The error decides, not the result: finishing or taking back what failed or was cancelled in an earlier call is a
/// success of this one. An inconsistent System is never a success.
pub fn exit_code(result: &str, error: Option<&ErrorView>) -> u8 {
    match (result, error) {
        ("reboot-required", _) => REBOOT_REQUIRED,
        (_, Some(error)) => Failure::from_error(&error.name, &error.message).exit_code(),
        ("inconsistent", None) => Kind::Inconsistent.exit_code(),
        // A Job that ends without a word would be a defect of the daemon; it must not look like a success.
        ("", None) => FAILED,
        (_, None) => SUCCESS,
    }
}

/// How far a request has got; survives an interruption.
#[derive(Debug, Default)]
pub struct Stage(Cell<Option<u64>>, Cell<bool>);

impl Stage {
    /// Number of the Job, once the daemon has accepted the request.
    pub fn job(&self) -> Option<u64> {
        self.0.get()
    }

    /// Whether the request has been sent.
    pub fn sent(&self) -> bool {
        self.1.get()
    }
}

/// Sends a request that makes a Job of this kind, and follows it to its end. Listening begins before the request is
/// sent, so no change can be missed.
pub async fn run<'c, F>(
    client: &'c Client,
    kind: &str,
    request: impl FnOnce() -> F,
    reporter: &mut dyn Reporter,
    stage: &Stage,
) -> Result<Outcome, Failure>
where
    F: Future<Output = Result<OwnedObjectPath, Failure>> + 'c,
{
    let mut listener = client.listen().await?;
    // What is said before the answer stands in the answer.
    let objects = listener.during(client.objects(), |_| Ok(())).await?;
    let mut view = View::new(objects);
    let mut early = Vec::new();
    stage.1.set(true);
    let accepted = listener.during(request(), |event| {
        early.extend(view.apply(event));
        Ok(())
    });
    let path = accepted.await.map_err(|failure| match failure {
        Failure::Gone(message) => Failure::Gone(format!(
            "{message} \"orchestratorctl status\" shows whether it has begun the deployment all the same."
        )),
        failure => failure,
    })?;
    let path = path.as_str();
    let id = job_number(path);
    stage.0.set(Some(id));
    let left = |failure| left(failure, id, kind);

    // The ObjectManager may have told about the Job by now, but it need not.
    let known = listener.during(client.properties(path, job_interface()), |event| {
        early.extend(view.apply(event));
        Ok(())
    });
    let known = known.await.map_err(left)?;
    early.extend(view.merge(path, job_interface(), &known));
    let job = view.job(path).cloned().unwrap_or_default();
    let mut followed = Followed { path, errors: BTreeMap::new(), reporter: &mut *reporter };
    followed.reporter.begin(&job);
    followed.tell(&early);

    let wait = listener.during(client.wait(path), |event| {
        if matches!(event, Event::Vanished | Event::Appeared) {
            return Err(Failure::Gone(String::new()));
        }
        followed.tell(&view.apply(event));
        Ok(())
    });
    let result = wait.await.map_err(left)?;

    // An update of the daemon itself may restart it right now, so from here on it need not be there any more.
    let last = async {
        let properties = client.properties(path, job_interface()).await?;
        let objects = client.objects().await?;
        Ok((properties, objects, client.update_properties().await?))
    };
    let last = listener.during(last, |event| {
        followed.tell(&view.apply(event));
        Ok(())
    });
    let last = last.await;
    let mut component_errors = followed.errors;
    reporter.end();
    let (update, components) = match last {
        Ok((properties, objects, update)) => {
            view.merge(path, job_interface(), &properties);
            (Some(UpdateView::new(&update)), View::new(objects))
        }
        // Only a success needs no second look for its reason.
        Err(failure) if result != "done" => return Err(left(failure)),
        Err(_) => (None, View::default()),
    };
    let ended = JobView { result, ..view.job(path).cloned().unwrap_or(job) };
    let exit_code = exit_code(&ended.result, ended.error.as_ref());
    let components: Vec<_> = components.components().into_iter().cloned().collect();
    // A Component that failed as it had failed before has changed nothing, and so was not told about.
    let failed = components.iter().filter(|component| component.state == "failed");
    let failed = failed.filter_map(|component| Some((component.label(), component.last_error.clone()?)));
    component_errors.extend(failed);
    Ok(Outcome { job: ended, exit_code, update, components, component_errors })
}

/// Says what it means that the daemon left while a Job was running.
fn left(failure: Failure, id: u64, kind: &str) -> Failure {
    match failure {
        Failure::Gone(_) | Failure::Absent(_) => Failure::Gone(format!(
            "orchestratord left the bus while Job {id} ({kind}) was running. The deployment is recorded on disk and \
             goes on when orchestratord starts again; \"orchestratorctl status\" shows how it stands."
        )),
        failure => failure,
    }
}

struct Followed<'a> {
    path: &'a str,
    errors: BTreeMap<String, ErrorView>,
    reporter: &'a mut dyn Reporter,
}

impl Followed<'_> {
    fn tell(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Job(job, change) if job.path == self.path => self.reporter.job(job, change),
                Change::Job(..) => {}
                Change::Component(component, change) => {
                    if let ComponentChange::Error(error) = change {
                        self.errors.insert(component.label(), error.clone());
                    }
                    self.reporter.component(component, change);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> ErrorView {
        ErrorView { name: kind.dbus_name().to_owned(), message: "It broke.".to_owned() }
    }

    #[test]
    fn the_error_decides_the_exit_code() {
        for kind in Kind::ALL {
            for result in ["done", "stopped", "failed", "rolled-back", "cancelled", "inconsistent"] {
                assert_eq!(exit_code(result, Some(&error(kind))), kind.exit_code(), "{result} {kind:?}");
            }
            assert_eq!(exit_code("reboot-required", Some(&error(kind))), 4);
        }
        assert_eq!(exit_code("reboot-required", None), 4);
    }

    #[test]
    fn without_an_error_only_honest_ends_are_successes() {
        for (result, expected) in [
            ("done", 0),
            ("stopped", 0),
            ("rolled-back", 0),
            ("failed", 0),
            ("inconsistent", 20),
            ("cancelled", 0),
            ("", 1),
        ] {
            assert_eq!(exit_code(result, None), expected, "{result}");
        }
    }
}
