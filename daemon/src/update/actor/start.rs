//! What the actor does first: it looks at what the last daemon left behind.

use std::sync::Arc;

use super::{Actor, Working};
use crate::core::error::{Error, Kind};
use crate::core::job::JobResult;
use crate::core::store;
use crate::update::deployment::{OpenDeployment, resting_place, show, standing_error};
use crate::update::handle::UpdateState;
use crate::update::interface::Tree;
use crate::update::machine::Event;
use crate::update::manifests::ManifestStore;
use crate::update::member::is_taken_over;
use crate::update::record::{Found, Last, Record, RecordError};

impl Actor {
    /// Looks at what the last daemon left behind.
    pub(super) fn take_up(&mut self) {
        let settings = self.environment.settings.clone();
        self.view.manifest(&ManifestStore::new(&settings.manifest_store).current_name());
        match Last::load(&settings.datastore_dir) {
            Ok(Some(last)) => {
                self.view.inconsistent(last.inconsistent);
                self.view.error(last.error);
            }
            Ok(None) => {}
            Err(error) => {
                // It may have said so, and forgetting that would be silent.
                self.view.inconsistent(true);
                self.alarm(error.into());
            }
        }
        self.environment.sources.sweep();
        match Record::open(&settings.datastore_dir) {
            Ok(Some(found)) => self.found(found),
            Ok(None) => {
                self.end_strays(|_| false);
                self.sweep();
                self.look_around();
            }
            Err(error @ RecordError::Damaged { .. }) => {
                self.end_strays(|_| false);
                self.damaged(&error.into());
            }
            // The record may be sound; whoever calls next has it read again.
            Err(error @ RecordError::Store(_)) => {
                let error = Error::from(error);
                self.alarm(error.clone());
                self.view.at_rest(UpdateState::Waiting, None);
                self.unreadable = Some(error);
            }
        }
    }

    /// No deployment is open, so nothing of one is needed any more. What cannot be removed now can be at the next start.
    fn sweep(&self) {
        let settings = &self.environment.settings;
        let swept = [
            store::remove_directory(&Tree::all(&settings.datastore_dir)),
            ManifestStore::new(&settings.manifest_store).end(),
        ];
        for error in swept.into_iter().filter_map(Result::err) {
            tracing::warn!("{error}");
        }
    }

    /// Ends what earlier daemons began and nobody will hear the end of. Requests that need the Components wait for that.
    fn end_strays(&mut self, is_taken_over: impl Fn(&str) -> bool) {
        for tag in std::mem::take(&mut self.left_behind) {
            if is_taken_over(&tag) {
                continue;
            }
            tracing::info!(tag, "Ending a call that an earlier daemon made.");
            let runner = self.environment.runner.clone();
            self.query(async move { runner.kill(&tag).await });
        }
    }

    fn found(&mut self, found: Found) {
        let Found { record, plan, deployment, torn } = found;
        if torn {
            tracing::warn!("The last entry of the deployment's record was cut short; going on from the one before it.");
        }
        let mut open = Box::new(OpenDeployment { record, plan: Arc::new(plan), state: deployment });
        show(&self.view, &open);
        self.end_strays(|tag| is_taken_over(&open.plan, &open.state, tag));
        if open.state.head.rest.is_some() {
            let (state, point) = resting_place(&open.state);
            self.view.error(standing_error(&open.state));
            self.view.at_rest(state, point);
            self.open = Some(open);
            return;
        }
        tracing::warn!("The deployment of \"{}\" was cut short; going on with it.", open.plan.manifest);
        match self.environment.host.boot_id() {
            Ok(boot_id) => {
                self.working = Working::Daemon;
                open.state.head.unattended = true;
                let id = self.drive(open, "resume", 0, Event::Recover(boot_id), true);
                self.own_job = self.jobs.get(id);
            }
            Err(error) => {
                self.alarm(error.into());
                self.open = Some(open);
            }
        }
    }

    /// A record that cannot be read says neither how far the deployment came nor how to take it back.
    fn damaged(&mut self, error: &Error) {
        let datastore = self.environment.settings.datastore_dir.clone();
        let kept = match Record::set_aside(&datastore) {
            Ok(path) => format!(" It is kept as \"{}\".", path.display()),
            Err(error) => format!(" {error}"),
        };
        let text = format!("The System may be inconsistent: {}{kept}", error.message);
        let error = Error::new(Kind::Inconsistent, text);
        let last = Last {
            manifest: String::new(),
            result: JobResult::Inconsistent,
            error: Some(error.clone()),
            untold: true,
            inconsistent: true,
        };
        if let Err(error) = last.save(&datastore) {
            tracing::error!("{error}");
        }
        self.view.inconsistent(true);
        self.alarm(error);
        self.look_around();
    }
}
