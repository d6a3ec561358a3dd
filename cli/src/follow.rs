//! Follows a request from the moment it is sent to the end of the work it asked for, across restarts of the daemon.
//!
//! A System may update orchestratord itself: in the middle of the deployment the service manager restarts it, and the
//! new daemon goes on by itself. A caller who took that for a failure would have a good update rolled back.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use orchestratord::core::error::Kind;
use serde::Serialize;
use tokio::time::timeout;
use zbus::OwnedObjectPath;

use crate::client::Client;
use crate::failure::{FAILED, Failure, REBOOT_REQUIRED, SUCCESS};
use crate::progress::Reporter;
use crate::pursuit::{Fate, Found, Pursuit};
use crate::view::{ComponentView, ErrorView, JobView, UpdateView, job_number};

/// Restarts of the daemon that are followed. One that cannot stay does not get through a deployment either.
const RESTARTS: u32 = 10;

/// What is asked of the daemon, as far as it matters to the one who waits.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// The kind of Job that the request makes.
    pub kind: &'static str,
    /// It is not the daemon that reboots the host, but the caller.
    pub deferred: bool,
    /// How long to wait for a reboot by the daemon to end this program; without it, the reboot is the result.
    pub waits_for_reboot: Option<Duration>,
}

/// How a request that moves a deployment ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// The Job in its last state; after a restart of the daemon, the one with which it went on.
    pub job: JobView,
    /// Exit code of `orchestratorctl`.
    pub exit_code: u8,
    /// The deployment afterwards; none if the daemon could not be asked any more.
    pub update: Option<UpdateView>,
    /// The Components afterwards.
    pub components: Vec<ComponentView>,
    /// What went wrong during this request, by Component (`<component type>.<id>`).
    pub component_errors: BTreeMap<String, ErrorView>,
    /// The kind of Job that was asked for.
    #[serde(skip)]
    pub kind: &'static str,
    /// The daemon is rebooting the host.
    #[serde(skip)]
    pub reboots: bool,
    /// All Components were what they should be.
    #[serde(skip)]
    pub untouched: bool,
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

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Point {
    /// Not sent.
    #[default]
    Begun,
    /// Sent, and not answered.
    Sent,
    /// This Job works on it.
    Job(u64),
    /// The daemon left while this Job worked on it.
    Away(u64),
    /// The daemon reboots the host.
    Rebooting,
}

/// How far a request has got; survives an interruption.
#[derive(Debug, Default)]
pub struct Stage(Cell<Point>);

impl Stage {
    /// Where the request is.
    pub fn point(&self) -> Point {
        self.0.get()
    }
}

/// Sends a request that makes a Job, and follows it to its end. Listening begins before the request is sent, so no
/// change can be missed.
pub async fn run<'c, F>(
    client: &'c Client,
    order: Order,
    request: impl FnOnce() -> F,
    reporter: &mut dyn Reporter,
    stage: &Stage,
) -> Result<Outcome, Failure>
where
    F: Future<Output = Result<OwnedObjectPath, Failure>> + 'c,
{
    let mut pursuit = Pursuit::begin(client, order, reporter).await?;
    stage.0.set(Point::Sent);
    let path = pursuit.ask(request()).await.map_err(|failure| match failure {
        Failure::Gone(message) => Failure::Gone(format!(
            "{message} \"orchestratorctl status\" shows whether it has begun the deployment all the same."
        )),
        failure => failure,
    })?;
    let mut found = Found::Job(path.as_str().to_owned());
    for _ in 0..=RESTARTS {
        let fate = match found {
            Found::Job(path) => {
                stage.0.set(Point::Job(job_number(&path)));
                pursuit.follow(&path).await?
            }
            Found::End(end) => Fate::Ended(end),
            Found::Nobody => Fate::Left,
        };
        match fate {
            Fate::Ended(end) => {
                let (component_errors, untouched) = pursuit.close(&end.components);
                return Ok(Outcome {
                    exit_code: exit_code(&end.job.result, end.job.error.as_ref()),
                    kind: order.kind,
                    reboots: end.job.result == "reboot-required" && !order.deferred,
                    untouched,
                    job: end.job,
                    update: end.update,
                    components: end.components,
                    component_errors,
                });
            }
            Fate::Left => {
                stage.0.set(Point::Away(pursuit.job().id));
                pursuit.await_successor().await?;
            }
            Fate::Reboots(limit) => {
                stage.0.set(Point::Rebooting);
                if timeout(limit, pursuit.await_reboot()).await.is_err() {
                    let text = format!("The host was not rebooted within {} seconds.", limit.as_secs());
                    return Err(Failure::new(Kind::RebootFailed, text));
                }
            }
        }
        found = pursuit.find().await?;
    }
    Err(pursuit.gives_up())
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
