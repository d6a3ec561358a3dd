//! Stays with a Job to its end; and if the daemon leaves in between, finds the Job with which it goes on.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use orchestratord::core::error::Kind;
use tokio::time::{Instant, timeout, timeout_at};
use zbus::names::OwnedUniqueName;

use crate::client::{Client, Listener, job_interface, run_options};
use crate::failure::Failure;
use crate::follow::Order;
use crate::progress::Reporter;
use crate::story::Story;
use crate::view::{ComponentView, ErrorView, JobView, UpdateView, View};

/// How long a daemon that was told to stop may take to leave the bus; its unit allows it as much.
const STOP_LIMIT: Duration = Duration::from_secs(90);
/// How long the daemon may stay away before the bus is asked to start it. A service manager that restarts it needs less,
/// and nobody gets in the way of a package manager that stops it, changes its files and starts it again.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait for the daemon in all, and again for it to get ready.
const RETURN_LIMIT: Duration = Duration::from_secs(90);
/// How often a daemon that starts is asked whether it is ready.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How a Job ended.
#[derive(Debug)]
pub struct End {
    /// The Job in its last state.
    pub job: JobView,
    /// The deployment afterwards; none if the daemon could not be asked any more.
    pub update: Option<UpdateView>,
    /// The Components afterwards.
    pub components: Vec<ComponentView>,
}

/// What became of a Job.
#[derive(Debug)]
pub enum Fate {
    /// It ended.
    Ended(Box<End>),
    /// The daemon left, and the deployment is not over.
    Left,
    /// The daemon reboots the host; that is to be waited for, this long.
    Reboots(Duration),
}

/// What a daemon that came back has made of the deployment.
#[derive(Debug)]
pub enum Found {
    /// It goes on, or has gone on, with this Job.
    Job(String),
    /// There is no Job, and this is how it stands.
    End(Box<End>),
    /// The daemon has left again.
    Nobody,
}

/// Follows one request.
pub struct Pursuit<'a> {
    client: Client,
    listener: Listener,
    story: Story<'a>,
    order: Order,
    /// What went wrong before the request, and was told.
    error_before: Option<ErrorView>,
    /// The Job that is followed.
    job: JobView,
    /// Name of the Manifest of the deployment, as the daemon that left gave it.
    manifest: String,
}

impl<'a> Pursuit<'a> {
    /// Listens from now on.
    pub async fn begin(client: &Client, order: Order, reporter: &'a mut dyn Reporter) -> Result<Self, Failure> {
        let mut listener = client.listen().await?;
        // What is said before the answer stands in the answer.
        let present = async { Ok((client.update_properties().await?, client.objects().await?)) };
        let (update, objects) = listener.during(present, |_| Ok(())).await?;
        let update = UpdateView::new(&update);
        // A deployment that waits for a reboot may keep an error that nobody was told yet.
        let error_before = update.last_error.clone().filter(|_| update.state == "waiting");
        let story = Story::new(update, objects, reporter);
        Ok(Self {
            client: client.clone(),
            listener,
            story,
            order,
            error_before,
            job: JobView::default(),
            manifest: String::new(),
        })
    }

    /// The Job that is or was followed.
    pub fn job(&self) -> &JobView {
        &self.job
    }

    /// Waits for an answer of the daemon; what it says meanwhile is told.
    pub async fn ask<T>(&mut self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let story = &mut self.story;
        let take = |event| {
            story.take(event);
            Ok(())
        };
        self.listener.during(call, take).await
    }

    /// Follows a Job to its end.
    pub async fn follow(&mut self, path: &str) -> Result<Fate, Failure> {
        let client = self.client.clone();
        // The ObjectManager may have told about the Job by now, but it need not.
        match self.ask(client.properties(path, job_interface())).await {
            Ok(known) => self.story.job(path, &known),
            Err(failure) if failure.is_absence() => {}
            Err(failure) => return Err(failure),
        }
        self.job = self.story.follow(path, self.order.kind);

        let result = match self.ask(client.wait(path)).await {
            Ok(result) => Some(result),
            // The last signals of a daemon that stops may tell more than its answer.
            Err(failure) if failure.is_absence() || self.stops() => None,
            Err(failure) => return Err(failure),
        };
        let said = self.story.view.job(path).filter(|job| job.state == "done").map(|job| job.result.clone());
        let Some(result) = result.or_else(|| said.clone()) else {
            return Ok(Fate::Left);
        };
        let last = async {
            Ok((
                client.properties(path, job_interface()).await?,
                client.update_properties().await?,
                client.objects().await?,
            ))
        };
        let (update, components) = match self.ask(last).await {
            Ok((properties, update, objects)) => {
                self.story.job(path, &properties);
                let components = View::new(objects).components().into_iter().cloned().collect();
                (Some(UpdateView::new(&update)), components)
            }
            // An update of the daemon itself may restart it right now. What it said is enough; of a success, the word is.
            Err(failure) if (failure.is_absence() || self.stops()) && (said.is_some() || result == "done") => {
                (None, Vec::new())
            }
            Err(failure) if failure.is_absence() => return Ok(Fate::Left),
            Err(failure) => return Err(failure),
        };
        let job = self.story.view.job(path).cloned().unwrap_or_default();
        self.job = JobView { result, ..job };
        if self.is_abandoned() {
            return Ok(Fate::Left);
        }
        match self.order.waits_for_reboot {
            Some(limit) if self.job.result == "reboot-required" && !self.order.deferred => Ok(Fate::Reboots(limit)),
            _ => Ok(Fate::Ended(Box::new(End { job: self.job.clone(), update, components }))),
        }
    }

    /// The daemon is about to leave, or has left.
    fn stops(&self) -> bool {
        self.listener.has_left() || self.story.daemon == "stopping"
    }

    /// A daemon that has to stop in the middle of a deployment ends the Job, and the next one goes on with another.
    fn is_abandoned(&self) -> bool {
        let failed = self.job.error.as_ref().is_some_and(|error| error.name == Kind::Failed.dbus_name());
        self.job.result == "stopped" && failed && self.stops()
    }

    /// Waits for the daemon to come back, with help if it does not by itself.
    pub async fn await_successor(&mut self) -> Result<(), Failure> {
        let JobView { id, kind, .. } = &self.job;
        self.story.note(&format!(
            "orchestratord left the bus while Job {id} ({kind}) was running; waiting for it to come back."
        ));
        let found =
            self.successor().await.map_err(|failure| if failure.is_absence() { self.gives_up() } else { failure });
        self.turn_to(found?);
        Ok(())
    }

    async fn successor(&mut self) -> Result<OwnedUniqueName, Failure> {
        let stopped = Instant::now() + STOP_LIMIT;
        while !self.listener.has_left() {
            timeout_at(stopped, self.listener.next()).await.map_err(|_| Failure::left())??;
        }
        let limit = Instant::now() + RETURN_LIMIT;
        if let Ok(found) = timeout(GRACE, self.listener.successor()).await {
            return found;
        }
        let can_start = tokio::select! {
            biased;
            found = self.listener.successor() => return found,
            // Without an answer it may still come.
            can_start = timeout_at(limit, self.client.start_daemon()) => can_start.unwrap_or(Ok(true))?,
        };
        if !can_start {
            return Err(Failure::left());
        }
        timeout_at(limit, self.listener.successor()).await.map_err(|_| Failure::left())?
    }

    /// Waits until the host goes down, and this program with it, or until another daemon is there all the same.
    pub async fn await_reboot(&mut self) {
        self.story.note(
            "orchestratord reboots the host and goes on with the deployment by itself afterwards; waiting for the shutdown.",
        );
        match self.listener.successor().await {
            Ok(found) => self.turn_to(found),
            // The bus ends too when the host goes down.
            Err(_) => pending().await,
        }
    }

    fn turn_to(&mut self, daemon: OwnedUniqueName) {
        self.client = self.client.at(daemon);
        self.manifest.clone_from(&self.story.update.manifest);
        self.story.turn();
    }

    /// What the daemon that came back has made of the deployment.
    pub async fn find(&mut self) -> Result<Found, Failure> {
        match self.look().await {
            Err(failure) if failure.is_absence() => Ok(Found::Nobody),
            found => found,
        }
    }

    async fn look(&mut self) -> Result<Found, Failure> {
        let ready = timeout(RETURN_LIMIT, self.until_ready()).await;
        ready.map_err(|_| Failure::new(Kind::Failed, "orchestratord is back, but it does not get ready."))??;
        let client = self.client.clone();
        let update = UpdateView::new(&self.ask(client.update_properties()).await?);
        let objects = self.ask(client.objects()).await?;
        self.story.objects(objects);
        self.story.update = update.clone();

        let jobs = self.story.view.jobs();
        // The Job that the daemon begins by itself is its first.
        let resumed = jobs.iter().find(|job| job.kind == "resume" && job.started_by == 0);
        let active = || jobs.iter().find(|job| job.path == update.active_job && job.kind != "install");
        if let Some(path) = resumed.or_else(active).map(|job| job.path.clone()) {
            self.story.note("orchestratord is back and goes on with the deployment.");
            return Ok(Found::Job(path));
        }
        match update.state.as_str() {
            "waiting" | "reboot-required" => Ok(self.rests(update)),
            _ => self.learn_end(update).await,
        }
    }

    async fn until_ready(&mut self) -> Result<(), Failure> {
        let client = self.client.clone();
        loop {
            let manager = self.ask(client.manager_properties()).await?;
            self.story.manager(&manager);
            // The answer may be older than the signal it hides, so it is asked for again after a while.
            let again = Instant::now() + ASK_AGAIN;
            while self.story.daemon == "starting" {
                if self.listener.has_left() {
                    return Err(Failure::left());
                }
                match timeout_at(again, self.listener.next()).await {
                    Ok(event) => self.story.take(event?),
                    Err(_) => break,
                }
            }
            if self.story.daemon != "starting" {
                return Ok(());
            }
        }
    }

    /// The deployment came to rest just before the daemon left, so nobody told its end.
    fn rests(&mut self, update: UpdateView) -> Found {
        self.story.note("orchestratord is back; the deployment is open and waits.");
        let result = if update.state == "reboot-required" { "reboot-required" } else { "stopped" };
        self.end(result, self.news(&update), update)
    }

    /// The deployment is over. The daemon tells once how, if nobody was there to hear it.
    async fn learn_end(&mut self, update: UpdateView) -> Result<Found, Failure> {
        let client = self.client.clone();
        let deferred = self.order.deferred;
        let resume = async {
            let job = client.update().await?.resume(run_options(&[], deferred)).await;
            job.map_err(|error| Failure::from_bus(&error))
        };
        let failure = match self.ask(resume).await {
            Ok(path) => {
                self.story.note("orchestratord is back; the deployment is over.");
                return Ok(Found::Job(path.as_str().to_owned()));
            }
            Err(failure) => failure,
        };
        let told = failure.exit_code() == Kind::NothingInProgress.exit_code();
        if !told && failure.exit_code() != Kind::Busy.exit_code() {
            return Err(failure);
        }
        // It ended, and the daemon left before the end was heard. What it remembers has to do.
        match self.news(&update) {
            Some(error) if told => Err(Failure::from_error(&error.name, &error.message)),
            None if told && self.order.kind != "rollback" && update.manifest == self.manifest => {
                self.story.note("orchestratord is back; the deployment is over.");
                Ok(self.end("done", None, update))
            }
            _ => {
                let JobView { id, kind, .. } = &self.job;
                let text = format!(
                    "orchestratord is back, but it does not tell how Job {id} ({kind}) ended; \"orchestratorctl components\" \
                     shows the versions that are installed."
                );
                Err(Failure::new(Kind::Failed, text))
            }
        }
    }

    /// What went wrong since the request. An install begins without an error; to the other requests, one from before is
    /// no failure of theirs.
    fn news(&self, update: &UpdateView) -> Option<ErrorView> {
        let is_new = |error: &ErrorView| self.order.kind == "install" || self.error_before.as_ref() != Some(error);
        update.last_error.clone().filter(is_new)
    }

    fn end(&self, result: &str, error: Option<ErrorView>, update: UpdateView) -> Found {
        let components = self.story.view.components().into_iter().cloned().collect();
        let job = JobView { state: "done".to_owned(), result: result.to_owned(), error, ..self.job.clone() };
        Found::End(Box::new(End { job, update: Some(update), components }))
    }

    /// The daemon does not come back, or not for long.
    pub fn gives_up(&self) -> Failure {
        let JobView { id, kind, .. } = &self.job;
        Failure::Gone(format!(
            "orchestratord left the bus while Job {id} ({kind}) was running. The deployment is recorded on disk and goes \
             on when orchestratord starts again; \"orchestratorctl status\" shows how it stands."
        ))
    }

    /// Ends the report. Returns what went wrong, by Component, and whether all Components were what they should be.
    pub fn close(mut self, components: &[ComponentView]) -> (BTreeMap<String, ErrorView>, bool) {
        self.story.end();
        let untouched = self.story.is_untouched();
        let mut errors = self.story.errors;
        // A Component that failed as it had failed before has changed nothing, and so was not told about.
        let failed = components.iter().filter(|component| component.state == "failed");
        errors.extend(failed.filter_map(|component| Some((component.label(), component.last_error.clone()?))));
        (errors, untouched)
    }
}
