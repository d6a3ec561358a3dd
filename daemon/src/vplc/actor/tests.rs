use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tempfile::TempDir;

use super::*;
use crate::core::document::{DocumentError, Section};
use crate::vplc::engine::Condition;
use crate::vplc::engine::scripted::ScriptedEngine;
use crate::vplc::spec::NicSection;

const SPEC: &str = "\
api_version: orchestrator/v1
kind: vplc
name: a
image: {reference: \"plc:1\"}
nics: [{name: eth0}]
data: {path: /data}
";

/// NICs that are a list of process ids.
#[derive(Debug, Default)]
struct ScriptedNics {
    attached: Mutex<Option<i32>>,
    fails: Mutex<bool>,
}

impl Nics for ScriptedNics {
    fn attach<'a>(&'a self, _: &'a str, _: &'a [NicSection], pid: i32) -> BoxFuture<'a, Result<(), Error>> {
        *self.attached.lock().unwrap() = Some(pid);
        let failed = *self.fails.lock().unwrap();
        let result = if failed { Err(Error::new(Kind::AddressInUse, "Somebody has it.")) } else { Ok(()) };
        std::future::ready(result).boxed()
    }

    fn connect(&self, _: i32, _: u16) -> BoxFuture<'_, std::io::Result<tokio::net::TcpStream>> {
        std::future::ready(Err(std::io::ErrorKind::ConnectionRefused.into())).boxed()
    }

    fn detach<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        *self.attached.lock().unwrap() = None;
        std::future::ready(Ok(())).boxed()
    }
}

fn check_nic(section: &mut Section<'_>) -> Result<String, DocumentError> {
    Ok(section.required("name")?.text()?.to_owned())
}

/// The domain over a script.
struct Domain {
    place: TempDir,
    engine: Arc<ScriptedEngine>,
    nics: Arc<ScriptedNics>,
    jobs: Jobs,
    handle: VplcHandle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Domain {
    fn start() -> Self {
        Self::over(TempDir::new().unwrap(), Arc::default(), Arc::default())
    }

    fn over(place: TempDir, engine: Arc<ScriptedEngine>, nics: Arc<ScriptedNics>) -> Self {
        let (jobs, stop) = (Jobs::default(), CancellationToken::new());
        let settings = Settings { datastore: place.path().to_owned(), dev: place.path().join("dev"), history: false };
        let (actor, handle) =
            Actor::new(engine.clone(), nics.clone(), check_nic, &settings, jobs.clone(), stop.clone());
        Self { place, engine, nics, jobs, handle, stop, task: tokio::spawn(actor.run()) }
    }

    /// Ends the daemon and starts another one over the same state and engine.
    async fn restart(self) -> Self {
        self.stop.cancel();
        self.task.await.unwrap();
        Self::over(self.place, self.engine, self.nics)
    }

    async fn end(&self, id: u32) -> (JobResult, Option<Kind>) {
        let status = self.jobs.get(id).unwrap().wait().await;
        (status.result.unwrap(), status.error.map(|error| error.kind))
    }

    async fn apply(&self, spec: &str) -> (JobResult, Option<Kind>) {
        let application = Application { spec: spec.to_owned(), archive: None, pin: None, caller: 0 };
        let id = self.handle.apply(application).await.unwrap();
        self.end(id).await
    }

    async fn order(&self, order: Order) -> (JobResult, Option<Kind>) {
        let id = self.handle.order("a".to_owned(), order, 0).await.unwrap();
        self.end(id).await
    }

    /// Whether nothing is left of any vPLC.
    fn is_empty(&self) -> bool {
        let files = std::fs::read_dir(self.place.path().join("vplcs")).map_or(0, Iterator::count);
        let table = self.engine.table();
        let nics = self.nics.attached.lock().unwrap().is_none();
        files == 0 && table.containers.is_empty() && table.volumes.is_empty() && nics
    }

    fn condition(&self) -> Option<Condition> {
        self.engine.table().containers.get("vplc.a").map(|container| container.condition)
    }
}

const DONE: (JobResult, Option<Kind>) = (JobResult::Done, None);

#[tokio::test]
async fn whatever_fails_while_a_vplc_is_made_nothing_of_it_stays() {
    // The image, both containers and their starts.
    for fails in 0..5 {
        let domain = Domain::start();
        domain.engine.table().fails = Some(fails);
        let (result, kind) = domain.apply(SPEC).await;
        assert_eq!(result, JobResult::Failed, "{fails}");
        assert!(matches!(kind, Some(Kind::EngineFailed | Kind::ImageUnavailable)), "{kind:?}");
        assert!(domain.is_empty(), "{fails}: {:?}", domain.engine.table());
        assert!(domain.handle.status().borrow().vplcs.is_empty());
        assert_eq!(domain.apply(SPEC).await, DONE, "{fails}");
    }
    let domain = Domain::start();
    *domain.nics.fails.lock().unwrap() = true;
    assert_eq!(domain.apply(SPEC).await, (JobResult::Failed, Some(Kind::AddressInUse)));
    assert!(domain.is_empty());
}

#[tokio::test]
async fn a_change_that_fails_anywhere_is_taken_back() {
    // Stop, remove two, make two, start two.
    for fails in 5..12 {
        let domain = Domain::start();
        assert_eq!(domain.apply(SPEC).await, DONE);
        domain.engine.table().fails = Some(fails);
        let (result, _) = domain.apply(&format!("{SPEC}memory: 64M\n")).await;
        let status = domain.handle.status().borrow().vplcs["a"].clone();
        assert_eq!(
            (result, status.spec.as_str(), status.container),
            (JobResult::RolledBack, SPEC, "running"),
            "{fails}"
        );
        assert!(matches!(domain.condition(), Some(Condition::Running { .. })));
    }
}

/// Wherever the daemon ends, the next one takes the change back that had not proved itself.
#[tokio::test]
async fn a_change_that_the_end_of_the_daemon_interrupts_is_taken_back() {
    // Before the stop, between both, and when the new one runs but has not proved itself.
    futures_util::future::join_all([5, 6, 8, 12].map(async |changes| {
        let domain = Domain::start();
        assert_eq!(domain.apply(SPEC).await, DONE);
        let before = domain.engine.table().containers["vplc.a"].generation;
        domain.engine.table().hangs = Some(changes);
        let spec = format!("{SPEC}memory: 64M\n");
        let application = Application { spec: spec.clone(), archive: None, pin: None, caller: 0 };
        domain.handle.apply(application).await.unwrap();
        let done = async {
            while domain.engine.table().changes <= changes.min(11) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), done).await.expect("the change gets so far");
        assert_eq!(domain.handle.status().borrow().vplcs["a"].spec, spec, "{changes}");
        domain.engine.table().hangs = None;
        let domain = domain.restart().await;
        let mut status = domain.handle.status();
        let back = |status: &VplcsStatus| status.vplcs.get("a").is_some_and(|vplc| vplc.spec == SPEC);
        let seen = tokio::time::timeout(Duration::from_mins(1), status.wait_for(back)).await;
        seen.expect("it is taken back").unwrap();
        assert_eq!(domain.end(1).await, (JobResult::RolledBack, Some(Kind::Failed)), "{changes}");
        assert!(matches!(domain.condition(), Some(Condition::Running { .. })), "{changes}");
        assert_eq!(domain.engine.table().containers["vplc.a"].generation, before, "{changes}");
        // It is over: another daemon finds nothing to take back, and the next change is another one.
        let domain = domain.restart().await;
        assert!(domain.jobs.get(1).is_none());
        let mut status = domain.handle.status();
        status.wait_for(|status| status.vplcs.get("a").is_some_and(|vplc| vplc.container == "running")).await.unwrap();
        assert_eq!(domain.apply(&spec).await, DONE);
        assert_eq!(domain.engine.table().containers["vplc.a"].generation, before + 2);
    }))
    .await;
}

#[tokio::test]
async fn another_image_changes_nothing_else_and_comes_back_by_its_digest() {
    let domain = Domain::start();
    assert_eq!(domain.apply(SPEC).await, DONE);
    let upgrade = async |reference: &str, pin: Option<&str>| {
        let (reference, pin) = (reference.to_owned(), pin.map(ToOwned::to_owned));
        let upgrade = Upgrade { reference, archive: None, pin, caller: 0 };
        let id = domain.handle.upgrade("a".to_owned(), upgrade).await?;
        Ok::<_, Error>(domain.end(id).await)
    };
    let image = || domain.handle.status().borrow().vplcs["a"].image.clone();
    assert_eq!(image(), "plc:1 plc:1");
    assert_eq!(upgrade("plc:2", None).await.unwrap(), DONE);
    assert_eq!(
        (image().as_str(), domain.handle.status().borrow().vplcs["a"].spec.as_str()),
        ("plc:2 plc:2", SPEC.replace("plc:1", "plc:2").as_str())
    );
    assert_eq!(upgrade("plc:2", Some("plc:1")).await.unwrap(), DONE);
    assert_eq!(image(), "plc:2 plc:1");
    assert_eq!(upgrade("plc:2", Some("sha256:gone")).await.unwrap(), (JobResult::Failed, Some(Kind::ImageUnavailable)));
    assert_eq!(image(), "plc:2 plc:1");
    assert_eq!(upgrade("no tag", None).await.unwrap_err().kind, Kind::InvalidVplc);
}

#[tokio::test]
async fn what_was_wanted_outlives_the_daemon() {
    let domain = Domain::start();
    assert_eq!(domain.apply(SPEC).await, DONE);
    let (before, changes) = (domain.condition(), domain.engine.table().changes);
    let domain = domain.restart().await;
    let mut status = domain.handle.status();
    let known = |status: &VplcsStatus, state: &str| status.vplcs.get("a").is_some_and(|vplc| vplc.container == state);
    status.wait_for(|status| known(status, "running")).await.unwrap();
    assert_eq!((domain.condition(), domain.engine.table().changes), (before, changes), "what runs is not touched");
    assert_eq!(domain.order(Order::Stop).await, DONE);
    let domain = domain.restart().await;
    let mut status = domain.handle.status();
    status.wait_for(|status| known(status, "stopped")).await.unwrap();
    assert!(matches!(domain.condition(), Some(Condition::Exited(_))));
    assert_eq!(domain.order(Order::Delete { keep_data: true }).await, DONE);
    assert_eq!(domain.engine.table().volumes.len(), 1);
    assert!(domain.engine.table().containers.is_empty());
    assert_eq!(domain.handle.order("a".to_owned(), Order::Start, 0).await.unwrap_err().kind, Kind::UnknownVplc);
    // A volume that was there before is none of the business of one that cannot be made.
    let next = domain.engine.table().changes;
    domain.engine.table().fails = Some(next);
    assert_eq!(domain.apply(SPEC).await.0, JobResult::Failed);
    assert_eq!(domain.engine.table().volumes.len(), 1);
}

#[tokio::test]
async fn one_job_at_a_time_works_on_a_vplc() {
    let domain = Domain::start();
    let application = || Application { spec: SPEC.to_owned(), archive: None, pin: None, caller: 0 };
    let first = domain.handle.apply(application()).await.unwrap();
    assert_eq!(domain.handle.apply(application()).await.unwrap_err().kind, Kind::Busy);
    assert_eq!(domain.end(first).await, DONE);
    assert_eq!(domain.apply(SPEC).await, DONE);
}

#[tokio::test]
async fn a_program_needs_its_section_and_a_vplc_that_runs() {
    let domain = Domain::start();
    let rollback =
        async |name: &str| domain.handle.program(name.to_owned(), ProgramOrder::Rollback(None), 0).await.unwrap_err();
    assert_eq!(rollback("a").await.kind, Kind::UnknownVplc);
    assert_eq!(domain.apply(SPEC).await, DONE);
    let error = rollback("a").await;
    assert_eq!(error.kind, Kind::NotSupported);
    assert!(error.message.contains("no section \"program\""), "{error}");
    let spec = SPEC.replace("name: a\n", "name: b\nprogram: {}\nstate: stopped\n");
    assert_eq!(domain.apply(&spec).await, DONE);
    let error = rollback("b").await;
    assert_eq!(error.kind, Kind::NotSupported);
    assert!(error.message.contains("is stopped"), "{error}");
    // Password and programs go with the vPLC.
    let kept = domain.place.path().join("vplc-programs/b");
    assert!(kept.join("runtime.json").exists());
    let delete = async |keep_data| {
        let id = domain.handle.order("b".to_owned(), Order::Delete { keep_data }, 0).await.unwrap();
        assert_eq!(domain.end(id).await, DONE);
    };
    delete(true).await;
    assert!(kept.join("runtime.json").exists());
    assert_eq!(domain.apply(&spec).await, DONE);
    delete(false).await;
    assert!(!kept.exists());
}
