//! Follows a Job from the request to its end.

use std::cell::Cell;
use std::collections::BTreeMap;

use orchestratord::core::error::Kind;
use serde::Serialize;
use zbus::OwnedObjectPath;

use crate::client::{Client, Event, job_interface};
use crate::failure::{FAILED, Failure, REBOOT_REQUIRED, SUCCESS};
use crate::progress::Reporter;
use crate::view::{Change, ComponentChange, ComponentView, ErrorView, JobChange, JobView, UpdateView, View};

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
/// The error decides, not the result: taking back what failed in an earlier call is a success of this one. Two results
/// are never a success, whatever stands beside them.
pub fn exit_code(result: &str, error: Option<&ErrorView>) -> u8 {
    match (result, error) {
        ("reboot-required", _) => REBOOT_REQUIRED,
        (_, Some(error)) => Failure::from_error(&error.name, &error.message).exit_code(),
        ("inconsistent", None) => Kind::Inconsistent.exit_code(),
        ("cancelled", None) => Kind::Cancelled.exit_code(),
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

/// Sends a request that makes a Job, and follows it to its end. Listening begins before the request is sent, so no
/// change can be missed.
pub async fn run<'c, F>(
    client: &'c Client,
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
    let known = listener.during(client.properties(path.as_str(), job_interface()), |event| {
        early.extend(view.apply(event));
        Ok(())
    });
    let known = known.await.map_err(|failure| left(failure, &JobView::default()))?;
    let changes = view.merge(path.as_str(), job_interface(), &known);
    early.extend(changes.into_iter().filter(|change| !matches!(change, Change::Job(_, JobChange::Ended))));

    let mut followed = Followed { path: path.as_str(), errors: BTreeMap::new(), reporter: &mut *reporter };
    let job = view.job(path.as_str()).cloned().unwrap_or_default();
    stage.0.set(Some(job.id));
    followed.reporter.begin(&job);
    followed.tell(&early);

    let wait = async {
        let job = client.job(&path).await?;
        job.wait().await.map_err(|error| Failure::from_bus(&error))
    };
    let result = listener.during(wait, |event| {
        if matches!(event, Event::Vanished | Event::Appeared) {
            return Err(Failure::Gone(String::new()));
        }
        followed.tell(&view.apply(event));
        Ok(())
    });
    let result = result.await.map_err(|failure| left(failure, view.job(path.as_str()).unwrap_or(&job)))?;

    // An update of the daemon itself may restart it right now, so from here on it need not be there any more.
    let last = async {
        let properties = client.properties(path.as_str(), job_interface()).await?;
        let objects = client.objects().await?;
        Ok((properties, objects, client.update_properties().await?))
    };
    let last = listener.during(last, |event| {
        followed.tell(&view.apply(event));
        Ok(())
    });
    let last = last.await;
    let component_errors = followed.errors;
    reporter.end();
    let update = match last {
        Ok((properties, objects, update)) => {
            view.merge(path.as_str(), job_interface(), &properties);
            let ended = view.job(path.as_str()).cloned();
            view = View::new(objects);
            return Ok(outcome(ended.unwrap_or(job), result, Some(UpdateView::new(&update)), &view, component_errors));
        }
        // Only a success needs no second look for its reason.
        Err(failure) if result != "done" => return Err(left(failure, view.job(path.as_str()).unwrap_or(&job))),
        Err(_) => None,
    };
    let ended = view.job(path.as_str()).cloned();
    Ok(outcome(ended.unwrap_or(job), result, update, &view, component_errors))
}

fn outcome(
    mut job: JobView,
    result: String,
    update: Option<UpdateView>,
    view: &View,
    component_errors: BTreeMap<String, ErrorView>,
) -> Outcome {
    job.result = result;
    let exit_code = exit_code(&job.result, job.error.as_ref());
    let components = view.components().into_iter().cloned().collect();
    Outcome { job, exit_code, update, components, component_errors }
}

/// Says what it means that the daemon left while a Job was running.
fn left(failure: Failure, job: &JobView) -> Failure {
    match failure {
        Failure::Gone(_) => Failure::Gone(format!(
            "orchestratord left the bus while Job {} ({}) was running. The deployment is recorded on disk and goes on \
             when orchestratord starts again; \"orchestratorctl status\" shows how it stands.",
            job.id,
            if job.kind.is_empty() { "of unknown kind" } else { &job.kind }
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
            ("cancelled", 19),
            ("", 1),
        ] {
            assert_eq!(exit_code(result, None), expected, "{result}");
        }
    }
}
