//! The one way in for calls that need an authorisation: those that change something are written down, with what became of them.

use std::fs;

use tokio::sync::mpsc;
use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath};

use super::auth::{Action, authorise, credentials};
use super::error::Refusal;
use crate::core::audit::{Audit, Caller, Event};
use crate::core::error::Error;
use crate::core::job::{JobChange, JobResult};

/// Lets calls in.
#[derive(Debug, Clone)]
pub(super) struct Gate(Audit);

impl Gate {
    pub(super) fn new(audit: Audit) -> Self {
        Self(audit)
    }

    /// Lets a call in that changes nothing, and returns the user id of its caller.
    pub(super) async fn inspect(
        &self,
        connection: &Connection,
        call: &Header<'_>,
        action: Action,
    ) -> Result<u32, Error> {
        let (uid, _) = credentials(connection, call).await?;
        authorise(connection, call, uid, action).await?;
        Ok(uid)
    }

    /// Lets a call in that changes something, and does its work, which gets the user id of the caller.
    pub(super) async fn change<T, W: Future<Output = Result<T, Refusal>>>(
        &self,
        connection: &Connection,
        call: &Header<'_>,
        action: Action,
        work: impl FnOnce(u32) -> W,
    ) -> Result<T, Refusal> {
        let (number, done) = self.pass(connection, call, action, work).await?;
        self.end(number, done.as_ref().err(), "");
        done
    }

    /// The same for a call that begins or makes what it returns the path of.
    pub(super) async fn begin<W: Future<Output = Result<OwnedObjectPath, Refusal>>>(
        &self,
        connection: &Connection,
        call: &Header<'_>,
        action: Action,
        work: impl FnOnce(u32) -> W,
    ) -> Result<OwnedObjectPath, Refusal> {
        let (number, done) = self.pass(connection, call, action, work).await?;
        self.end(number, done.as_ref().err(), done.as_ref().map_or("", |path| path.as_str()));
        done
    }

    /// Does the work if the caller may; then it returns the number of the call in the log.
    async fn pass<T, W: Future<Output = Result<T, Refusal>>>(
        &self,
        connection: &Connection,
        call: &Header<'_>,
        action: Action,
        work: impl FnOnce(u32) -> W,
    ) -> Result<(u64, Result<T, Refusal>), Refusal> {
        let method = [call.interface().map(ToString::to_string), call.member().map(ToString::to_string)];
        let method = method.into_iter().flatten().collect::<Vec<_>>().join(".");
        let object = call.path().map(ToString::to_string).unwrap_or_default();
        let mut caller = Caller::default();
        let may = async {
            let (uid, pid) = credentials(connection, call).await?;
            caller = Caller { uid: Some(uid), pid, unit: pid.and_then(unit) };
            authorise(connection, call, uid, action).await?;
            Ok::<_, Error>(uid)
        };
        match may.await {
            Ok(uid) => {
                let number = self.0.call(&caller, &method, &object);
                Ok((number, work(uid).await))
            }
            Err(error) => {
                let (result, message) = (error.kind.dbus_name(), error.message.as_str());
                self.0.record(Event::Denied { caller: &caller, method: &method, object: &object, result, message });
                Err(error.into())
            }
        }
    }

    fn end(&self, call: u64, refusal: Option<&Refusal>, made: &str) {
        let error = refusal.map(Refusal::error);
        let (result, message) = error.map_or(("ok", ""), |error| (error.kind.dbus_name(), error.message.as_str()));
        self.0.record(Event::End { call, result, made, message });
    }

    /// Writes down how Jobs end.
    pub(super) async fn follow(self, mut changes: mpsc::UnboundedReceiver<JobChange>) {
        while let Some(change) = changes.recv().await {
            let JobChange::Finished(job) = change else { continue };
            let status = job.status.borrow().clone();
            let result = status.result.map_or("", JobResult::as_str);
            let message = status.error.as_ref().map_or("", |error| error.message.as_str());
            self.0.record(Event::Job { job: job.id, kind: job.kind, uid: job.started_by, result, message });
        }
    }
}

/// The systemd unit of a process, or its control group. The process may have ended and its number have gone to another one, so this
/// is a hint; the user id is none.
fn unit(pid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // The unified hierarchy, or that of systemd.
    let group = groups.lines().find_map(|line| {
        line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, rest)| rest))
    })?;
    let is_unit = |part: &&str| matches!(part.rsplit_once('.'), Some((_, "service" | "scope")));
    let unit = group.rsplit('/').find(is_unit);
    Some(unit.unwrap_or(group).to_owned())
}
