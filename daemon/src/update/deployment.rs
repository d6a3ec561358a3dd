//! Carries a deployment out: asks the machine what comes next, puts its state on disk, does it, and reports back.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::component::ComponentKey;
use super::environment::Environment;
use super::handle::{StopPoint, UpdateState};
use super::interface::{Interface, LogSink};
use super::machine::{Activity, CallState, Deployment, Effect, Event, Member, Outcome, Rest};
use super::member::{self, Calls, DownloadSeat, Overall};
use super::plan::Plan;
use super::record::Record;
use super::runner::KILL_GRACE;
use super::survey::survey;
use super::view::View;
use crate::core::error::{Error, Kind};
use crate::core::job::{JobReporter, JobResult, LogLine, Severity};

/// A deployment that nobody works on.
#[derive(Debug)]
pub struct OpenDeployment {
    /// Its record.
    pub record: Record,
    /// Who takes part.
    pub plan: Arc<Plan>,
    /// Where it is.
    pub state: Deployment,
}

/// How a piece of work on a deployment ended.
#[derive(Debug)]
pub enum Ending {
    /// The deployment stays open.
    Open(Box<OpenDeployment>),
    /// The deployment is over.
    Over(Box<Finished>),
    /// The daemon stops; the next one finds the record and goes on.
    Abandoned,
}

/// Why a step is not taken.
enum Halt {
    /// The caller cannot have what it wants; all is as before.
    Refused(Error),
    /// The deployment cannot go on.
    Stalled(Error),
}

/// A deployment that is over; its record still has to be closed before its Job may end.
#[derive(Debug)]
pub struct Finished {
    /// Its record.
    pub record: Record,
    /// Who took part.
    pub plan: Arc<Plan>,
    /// How it ended.
    pub result: JobResult,
    /// The new versions stand.
    pub committed: bool,
    /// What went wrong.
    pub error: Option<Error>,
}

/// A deployment that is worked on.
#[derive(Debug)]
pub struct Drive {
    open: OpenDeployment,
    environment: Environment,
    job: Arc<JobReporter>,
    view: View,
    /// Cancelled when the daemon stops.
    stop: CancellationToken,
    calls: Calls,
    reports: JoinSet<(usize, Outcome)>,
    /// Reboots whose program runs.
    started: mpsc::Receiver<(usize, Activity, u32)>,
    told_of_storage: bool,
    heard_cancel: bool,
    /// Questions to Components that are installed, asked while others still download.
    asked: JoinSet<(usize, Outcome)>,
}

impl Drive {
    /// Takes a deployment up for a Job.
    pub fn new(
        open: OpenDeployment,
        environment: Environment,
        job: Arc<JobReporter>,
        view: View,
        stop: CancellationToken,
    ) -> Self {
        let interfaces = open.plan.members.iter().map(|member| {
            let job = job.clone();
            Arc::new(Interface {
                name: member.interface.clone(),
                program: member.program.clone(),
                component: member.key.clone(),
                arguments: member.arguments.clone(),
                root: environment.tree(&member.key),
                runner: environment.runner.clone(),
                timeout: environment.settings.interface_timeout,
                patience: KILL_GRACE,
                log: LogSink::new(move |line| job.log(line)),
            })
        });
        let (started, starts) = mpsc::channel(open.plan.members.len().max(1));
        let calls = Calls {
            interfaces: Arc::new(interfaces.collect()),
            plan: open.plan.clone(),
            environment: environment.clone(),
            cancel: CancellationToken::new(),
            view: view.clone(),
            job: job.clone(),
            started,
            overall: Arc::new(Overall::new(open.plan.members.len())),
        };
        Self {
            open,
            environment,
            job,
            view,
            stop,
            calls,
            reports: JoinSet::new(),
            started: starts,
            told_of_storage: false,
            heard_cancel: false,
            asked: JoinSet::new(),
        }
    }

    /// Works until the Job ends. With `recovering`, what an earlier daemon left running is taken over first.
    pub async fn run(mut self, first: Event, recovering: bool) -> Ending {
        if recovering {
            for (index, activity) in self.open.state.running() {
                let attempt = self.open.state.members[index].attempts(activity);
                self.reports.spawn(self.calls.clone().take_over(index, activity, attempt));
            }
        }
        let mut events = vec![first];
        loop {
            for event in std::mem::take(&mut events) {
                let effects = match self.step(event) {
                    Ok(effects) => effects,
                    Err(Halt::Refused(error)) => return self.refused(error),
                    Err(Halt::Stalled(error)) => return self.stalled(&error),
                };
                let downloads = effects.iter().filter_map(|effect| match effect {
                    Effect::Run(index, Activity::Download) => Some(*index),
                    _ => None,
                });
                let mut seats = self.calls.seats(&downloads.collect::<Vec<_>>());
                for effect in effects {
                    match effect {
                        Effect::Run(index, activity) => self.start(index, activity, seats.remove(&index)),
                        Effect::Warn(text) => self.say(Severity::Warning, "", &text),
                        Effect::RebootHost => match self.reboot().await {
                            Some(event) => events.push(event),
                            None => return self.abandoned(JobResult::RebootRequired, None),
                        },
                        Effect::Rest { why, error } => return self.rested(why, error),
                        Effect::Refuse(error) => return self.refused(error),
                        Effect::Finish { result, error } => return self.over(result, error),
                    }
                }
            }
            if events.is_empty() {
                let Some(found) = self.wait().await else {
                    let text = "orchestratord stops; it goes on with the deployment at its next start.";
                    return self.abandoned(JobResult::Stopped, Some(Error::new(Kind::Failed, text)));
                };
                events = found;
            }
        }
    }

    /// Waits for reports; takes all that are there at once, so that they share one write to the disk. `None`: stop.
    async fn wait(&mut self) -> Option<Vec<Event>> {
        self.cut_downloads_short();
        let cancelled = self.job.cancelled();
        let cancellable = !self.heard_cancel && self.open.state.can_cancel();
        let mut events = Vec::new();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            () = cancelled.cancelled(), if cancellable => {
                self.ask_ahead();
                self.heard_cancel = true;
                self.say(Severity::Warning, "", "The deployment is cancelled at the end of this step.");
                events.push(Event::Cancel);
            }
            Some((index, activity, attempt)) = self.started.recv() => {
                let state = &self.open.state;
                // Of a call that is over nobody needs to know any more.
                if state.running().contains(&(index, activity))
                    && state.members[index].attempts(activity) == attempt
                {
                    events.push(Event::Started(index));
                }
            }
            Some(answer) = self.asked.join_next() => {
                if let Ok((index, outcome)) = answer {
                    events.push(Event::CanGoBack(index, outcome == Outcome::SupportsRollback(true)));
                }
            }
            Some(report) = self.reports.join_next() => self.report(report, &mut events),
        }
        while let Some(report) = self.reports.try_join_next() {
            self.report(report, &mut events);
        }
        Some(events)
    }

    /// A Job was cancelled while Components download: those that are installed are asked now whether they can go back,
    /// because a download that is cut short cannot be made again, and one that hangs must not be waited for.
    fn ask_ahead(&mut self) {
        let state = &self.open.state;
        if !matches!(state.head.phase, super::machine::Phase::Group(Activity::Download, _)) {
            return;
        }
        for (index, member) in state.members.iter().enumerate() {
            // What an earlier part of the deployment committed is not taken back.
            if member.leg == state.head.leg && member.installed && member.supports_rollback.is_none() {
                // In its turn it would be asked for the first time.
                self.asked.spawn(self.calls.clone().make(index, Activity::AskRollback, 0, None));
            }
        }
    }

    /// Downloads of a deployment that was cancelled are cut short, unless it may have to go on. Nothing else may be left
    /// half way.
    fn cut_downloads_short(&self) {
        let state = &self.open.state;
        let goes_back = |member: &Member| {
            member.leg != state.head.leg || !member.installed || member.supports_rollback == Some(true)
        };
        if state.head.cancelled
            && matches!(state.head.phase, super::machine::Phase::Group(Activity::Download, _))
            && state.members.iter().all(goes_back)
        {
            self.calls.cancel.cancel();
        }
    }

    fn report(&self, report: Result<(usize, Outcome), tokio::task::JoinError>, events: &mut Vec<Event>) {
        match report {
            Ok((index, outcome)) => {
                let activity = self.open.state.running().into_iter().find(|(who, _)| *who == index);
                if let Some((_, activity)) = activity {
                    self.tell(index, activity, &outcome);
                }
                events.push(Event::Ended(index, outcome));
            }
            // A task that panicked. Nothing knows whose it was; without a panic in the code this does not happen.
            Err(error) => tracing::error!("A call was lost: {error}"),
        }
    }

    /// Lets the machine decide, and puts what it decided on disk before anybody acts on it.
    fn step(&mut self, event: Event) -> Result<Vec<Effect>, Halt> {
        let impossible = |error: super::machine::Impossible| Halt::Refused(Error::new(Kind::Failed, error.to_string()));
        // Who ends while others of the step still run makes nothing happen, so there is nothing to be taken back. With hundreds
        // of Components that is nearly every event.
        let quiet = matches!(&event, Event::Ended(_, outcome) if !matches!(outcome, Outcome::Interrupted | Outcome::Failed(_)))
            && self.open.state.running().len() > 1;
        let before = if quiet { None } else { Some(self.open.state.clone()) };
        let mut effects = self.open.state.step(event.clone()).map_err(impossible)?;
        let durable = !effects.is_empty() || matches!(event, Event::Started(_));
        if let Err(error) = self.save(durable) {
            // Without effects nothing depends on this step yet, and the next one that matters takes it along.
            if effects.is_empty() {
                self.after_step();
                return Ok(effects);
            }
            let Some(before) = before else { return Err(Halt::Stalled(error)) };
            match event {
                // Nothing has been done yet on behalf of this caller.
                Event::Begin(_) | Event::Resume(..) | Event::Rollback(..) => {
                    self.open.state = before;
                    return Err(Halt::Refused(error));
                }
                // As before the daemon was gone. Going back without a record at every start could reboot for ever.
                Event::Recover(_) => return Err(Halt::Stalled(error)),
                _ => {}
            }
            if before.is_committed() && !self.open.state.is_committed() {
                // A part is committed, and the next one would begin. It does so once that can be put on disk.
                return Err(Halt::Stalled(error));
            }
            if !self.open.state.head.failed && !self.open.state.is_committed() {
                self.open.state = before;
                self.open.state.step(Event::Unrecorded(error.clone())).map_err(impossible)?;
                effects = self.open.state.step(event).map_err(impossible)?;
                // Perhaps this fits where the other did not.
                drop(self.save(true));
            }
            if !self.open.record.leads_to_same_end(&self.open.state, &effects) {
                return Err(Halt::Stalled(error));
            }
        }
        // What is shown changes with what begins.
        if !quiet {
            self.after_step();
        }
        Ok(effects)
    }

    /// Puts the state on disk, at the second try if need be: a medium may stumble once.
    fn save(&mut self, durable: bool) -> Result<(), Error> {
        let saved = self.open.record.save(&self.open.state, durable);
        let saved = saved.or_else(|_| self.open.record.save(&self.open.state, durable));
        let error = match saved {
            Ok(()) => return Ok(()),
            Err(error) => Error::from(error),
        };
        if !std::mem::replace(&mut self.told_of_storage, true) {
            self.say(Severity::Error, "", &error.message);
        }
        Err(error)
    }

    fn after_step(&self) {
        let state = &self.open.state;
        if !state.can_cancel() {
            let why = match state.head.phase {
                _ if state.head.failed => "it is being rolled back",
                super::machine::Phase::HostReboot(_) => "it waits for a reboot of the host",
                super::machine::Phase::AskRollback => "it was asked already whether it can go back",
                _ => "it is being committed",
            };
            let text = format!("The deployment cannot be cancelled any more: {why}.");
            self.job.refuse_cancel(Error::new(Kind::NotSupported, text));
        }
        self.job.report(member::progress(state), &member::step_text(state));
    }

    fn start(&mut self, index: usize, activity: Activity, place: Option<DownloadSeat>) {
        let key = &self.open.plan.members[index].key;
        let share = member::share(activity);
        self.view.component(key, |component| {
            activity.as_str().clone_into(&mut component.state);
            component.progress = component.progress.max(share);
        });
        self.calls.overall.reach(index, share);
        tracing::info!(component = %key, state = activity.as_str(), "{}: {}", key, activity.as_str());
        let attempt = self.open.state.members[index].attempts(activity);
        self.reports.spawn(self.calls.clone().make(index, activity, attempt, place));
    }

    /// Shows how an activity ended.
    fn tell(&self, index: usize, activity: Activity, outcome: &Outcome) {
        let key = &self.open.plan.members[index].key;
        let error = match outcome {
            Outcome::Failed(error) => error.clone(),
            Outcome::Interrupted => {
                let text = format!("{} was cut short by the end of orchestratord or the host.", activity.as_str());
                self.say_of(Severity::Warning, Some(key), &text);
                return;
            }
            _ => return,
        };
        self.say_of(Severity::Error, Some(key), &error.message);
        self.view.component(key, |component| {
            "failed".clone_into(&mut component.state);
            component.last_error = Some(error);
        });
    }

    /// Reboots the host. What comes back is the failure to; `None`: the daemon is told to stop, as it should be now.
    async fn reboot(&mut self) -> Option<Event> {
        self.say(Severity::Info, "", "Rebooting the host.");
        if let Err(error) = self.environment.host.reboot().await {
            return Some(self.no_reboot(error.into()));
        }
        let limit = self.environment.settings.reboot_timeout;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = tokio::time::sleep(limit) => {
                let text = format!("The host did not reboot within {} seconds.", limit.as_secs());
                Some(self.no_reboot(Error::new(Kind::RebootFailed, text)))
            }
        }
    }

    fn no_reboot(&self, error: Error) -> Event {
        self.say(Severity::Error, "", &error.message);
        Event::RebootFailed(error)
    }

    fn rested(self, why: Rest, error: Option<Error>) -> Ending {
        let (state, point, result) = match why {
            Rest::Stopped(point) => (UpdateState::Waiting, Some(point), JobResult::Stopped),
            Rest::RebootRequired => (UpdateState::RebootRequired, None, JobResult::RebootRequired),
        };
        let word = point.map_or("the reboot of the host", StopPoint::as_str);
        self.say(Severity::Info, "", &format!("The deployment rests before {word}."));
        self.end(state, point, result, error)
    }

    /// The request is refused; the deployment rests where it did.
    fn refused(self, error: Error) -> Ending {
        let (state, point) = resting_place(&self.open.state);
        self.say(Severity::Error, "", &error.message);
        self.end(state, point, JobResult::Failed, Some(error))
    }

    /// What comes next cannot be put on disk, so it is not done. The deployment rests where the disk says it is; whoever
    /// goes on with it does so as after a crash.
    fn stalled(mut self, error: &Error) -> Ending {
        let text = format!("{} The deployment rests until its record can be written again.", error.message);
        self.say(Severity::Error, "", &text);
        self.open.state = self.open.record.saved().clone();
        self.end(UpdateState::Waiting, None, JobResult::Failed, Some(Error::new(error.kind, text)))
    }

    fn end(self, state: UpdateState, point: Option<StopPoint>, result: JobResult, error: Option<Error>) -> Ending {
        self.view.error(error.clone());
        self.view.at_rest(state, point);
        self.job.finish(result, error);
        Ending::Open(Box::new(self.open))
    }

    fn over(self, result: JobResult, error: Option<Error>) -> Ending {
        let committed = !self.open.state.head.failed;
        Ending::Over(Box::new(Finished { record: self.open.record, plan: self.open.plan, result, committed, error }))
    }

    fn abandoned(self, result: JobResult, error: Option<Error>) -> Ending {
        self.job.finish(result, error);
        Ending::Abandoned
    }

    fn say(&self, severity: Severity, component: &str, message: &str) {
        say(&self.job, severity, component, message);
    }

    fn say_of(&self, severity: Severity, key: Option<&ComponentKey>, message: &str) {
        self.say(severity, &key.map(ToString::to_string).unwrap_or_default(), message);
    }
}

/// Where an open deployment rests, for the status.
pub fn resting_place(state: &Deployment) -> (UpdateState, Option<StopPoint>) {
    match state.head.rest {
        Some(Rest::Stopped(point)) => (UpdateState::Waiting, Some(point)),
        Some(Rest::RebootRequired) => (UpdateState::RebootRequired, None),
        None => (UpdateState::Waiting, None),
    }
}

/// Shows how far the Components of a deployment are that an earlier daemon left behind.
pub fn show(view: &View, open: &OpenDeployment) {
    view.planned(&open.plan);
    for (planned, member) in open.plan.members.iter().zip(&open.state.members) {
        let Some(activity) = member::last_activity(member) else { continue };
        view.component(&planned.key, |component| {
            let failed = member.call == Some(CallState::Failed);
            if failed { "failed" } else { activity.as_str() }.clone_into(&mut component.state);
            component.progress = member::share(activity);
        });
    }
}

/// What stands against an open deployment, for the status after a restart: what went wrong first, or the state in which
/// the way back has left the System.
pub fn standing_error(state: &Deployment) -> Option<Error> {
    let head = &state.head;
    if !head.inconsistent {
        return head.cause.clone();
    }
    let reason = head.rollback_error.as_ref().or(head.cause.as_ref()).map(|error| format!(" {}", error.message));
    Some(Error::new(Kind::Inconsistent, format!("The System is inconsistent.{}", reason.unwrap_or_default())))
}

/// Writes a line to the daemon's log and to the log of the Job.
pub fn say(job: &JobReporter, severity: Severity, component: &str, message: &str) {
    match severity {
        Severity::Info => tracing::info!(job = job.job().id, component, "{message}"),
        Severity::Warning => tracing::warn!(job = job.job().id, component, "{message}"),
        Severity::Error => tracing::error!(job = job.job().id, component, "{message}"),
    }
    job.log(LogLine { severity, component: component.to_owned(), message: message.to_owned() });
}

/// Order group and part of the deployment of each member of a Plan.
pub fn places(plan: &Plan) -> Vec<(u32, u32)> {
    plan.members.iter().map(|member| (member.order, member.leg)).collect()
}

/// Asks the Components what a deployment that is over has made of them, before its Job ends and before the record is
/// closed: whoever waits for the Job finds the new versions. Returns what is wrong with them.
pub async fn look_after(
    ending: &Ending,
    environment: &Environment,
    view: &View,
    stop: &CancellationToken,
) -> Vec<Error> {
    let Ending::Over(finished) = ending else { return Vec::new() };
    if finished.plan.members.is_empty() {
        return Vec::new();
    }
    let topology = match environment.topology(None) {
        Ok(topology) => topology,
        Err(error) => {
            // The deployment had a Topology of its own. This one is looked at when somebody asks for it.
            tracing::warn!("{error}");
            return Vec::new();
        }
    };
    view.system_type(&topology.system_type);
    tokio::select! {
        biased;
        () = stop.cancelled() => Vec::new(),
        survey = survey(&topology, environment) => {
            view.surveyed(&survey.found, survey.errors.is_empty());
            for error in &survey.errors {
                tracing::warn!("{error}");
            }
            survey.errors
        }
    }
}
