//! Who may do what: root may, others as polkit says, and nobody by accident.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator_tests::bus::{Bus, NOBODY};
use orchestrator_tests::polkit::{self, Polkit};
use orchestrator_tests::repository;
use orchestrator_tests::scripted::{Daemon, system, vplc};
use orchestratord::bus::auth::Action;
use orchestratord::core::job::{JobReporter, JobResult};
use orchestratord::update::handle::Request;
use zbus::{Connection, OwnedVariant};

const UPDATE: [&str; 2] = ["/org/orchestratord1", "org.orchestratord1.Update"];
const VPLCS: [&str; 2] = ["/org/orchestratord1", "org.orchestratord1.Vplcs"];
const VPLC: [&str; 2] = ["/org/orchestratord1/vplc/press1", "org.orchestratord1.Vplc"];
const JOB: [&str; 2] = ["/org/orchestratord1/job/1", "org.orchestratord1.Job"];

/// Each method that needs an authorisation: path, interface, name, signature, and the action it needs.
const CALLS: [([&str; 2], &str, &str, Action); 22] = [
    (UPDATE, "Plan", "sa{sv}", Action::Inspect),
    (UPDATE, "Install", "sa{sv}", Action::Update),
    (UPDATE, "Resume", "a{sv}", Action::Update),
    (UPDATE, "Rollback", "a{sv}", Action::Update),
    (UPDATE, "Inventory", "a{sv}", Action::Inspect),
    (UPDATE, "Reload", "a{sv}", Action::Update),
    (JOB, "Cancel", "", Action::Update),
    (VPLCS, "Apply", "sa{sv}", Action::Vplc),
    (VPLCS, "Plan", "sa{sv}", Action::Vplc),
    (VPLCS, "Delete", "sa{sv}", Action::Vplc),
    (VPLC, "Start", "a{sv}", Action::Vplc),
    (VPLC, "Stop", "a{sv}", Action::Vplc),
    (VPLC, "Restart", "a{sv}", Action::Vplc),
    (VPLC, "Upgrade", "sa{sv}", Action::Vplc),
    (VPLC, "Deploy", "ha{sv}", Action::Vplc),
    (VPLC, "RollbackProgram", "a{sv}", Action::Vplc),
    (VPLC, "Export", "a{sv}", Action::Vplc),
    (VPLC, "Credentials", "a{sv}", Action::Vplc),
    (VPLC, "ResetFailed", "a{sv}", Action::Vplc),
    (VPLC, "Logs", "a{sv}", Action::Vplc),
    (VPLC, "FollowLogs", "a{sv}", Action::Vplc),
    (VPLC, "Shell", "asa{sv}", Action::VplcShell),
];

const DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";
const PROMPT_NEEDED: &str = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";

/// What a caller who is not root gets: "passed", or name and message of the error. `None` if that cannot be tested.
async fn as_nobody(
    bus: &Bus,
    test: &str,
    object: [&str; 2],
    method: &str,
    signature: &str,
    prompt: &str,
) -> Option<String> {
    let mut caller = bus.as_nobody(Path::new(env!("CARGO_BIN_EXE_bus-caller")), test)?;
    let call = caller.arg(bus.address()).args(object).args([method, signature, prompt]).output();
    // A call that gets through where it must not would wait for the scripted domain for ever.
    let output = tokio::time::timeout(Duration::from_mins(1), call).await.expect("a reply").unwrap();
    let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

/// What root gets for `Resume`, and the Job that it began.
async fn as_root(bus: &Bus, daemon: &mut Daemon) -> JobReporter {
    let mut busctl = bus.busctl();
    let call = busctl.args(["call", "org.orchestratord1", UPDATE[0], UPDATE[1], "Resume", "a{sv}", "0"]).output();
    let (output, reporter) = tokio::join!(call, daemon.domain.accept());
    assert!(output.unwrap().status.success());
    assert_eq!(reporter.job().started_by, nix::unistd::Uid::effective().as_raw());
    reporter
}

/// A daemon with a Job that can be cancelled, and a vPLC.
async fn daemon_with_job(bus: &Bus) -> (Daemon, JobReporter) {
    let daemon = Daemon::start(bus, system(vec![])).await;
    daemon.vplcs.status.send_modify(|status| drop(status.vplcs.insert("press1".to_owned(), vplc("press1"))));
    let job = daemon.domain.jobs.begin("install", "system", 0);
    daemon.vplcs.status.send_modify(|status| drop(status.vplcs.insert("press1".to_owned(), vplc("press1"))));
    daemon.flush().await;
    (daemon, job)
}

#[test]
fn the_policy_file_and_the_code_name_the_same_actions() {
    let policy = fs::read_to_string(repository().join("dbus-interfaces/polkit/org.orchestratord1.policy")).unwrap();
    let in_file: BTreeSet<&str> =
        policy.split("<action id=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
    let in_code: BTreeSet<&str> = Action::ALL.into_iter().map(Action::id).collect();
    assert_eq!(in_file, in_code);
    assert_eq!(policy.matches("<action id=").count(), Action::ALL.len());
}

#[tokio::test]
async fn without_polkit_only_root_gets_through() {
    let test = "without_polkit_only_root_gets_through";
    let bus = Bus::start();
    let (mut daemon, job) = daemon_with_job(&bus).await;
    for (object, method, signature, action) in CALLS {
        let Some(said) = as_nobody(&bus, test, object, method, signature, "prompt").await else { return };
        assert!(said.starts_with(&format!("{DENIED}: User {NOBODY} may not ")), "{method}: {said}");
        assert!(
            said.contains("without an answer from polkit only root and the daemon's own user may"),
            "{method}: {said}"
        );
        assert!(said.contains(action.id()), "{method}: {said}");
    }
    assert!(daemon.domain.requests.try_recv().is_err(), "a refused call reached the domain");
    assert!(!job.cancelled().is_cancelled());
    as_root(&bus, &mut daemon).await;
}

#[tokio::test]
async fn everybody_may_read_and_wait() {
    let test = "everybody_may_read_and_wait";
    let bus = Bus::start();
    let (daemon, job) = daemon_with_job(&bus).await;
    let Some(mut busctl) = bus.busctl_as_nobody(test) else { return };
    let read = busctl.args(["get-property", "org.orchestratord1"]).args(JOB).args(["State", "Kind"]).output().await;
    assert_eq!(String::from_utf8(read.unwrap().stdout).unwrap(), "s \"running\"\ns \"install\"\n");
    let wait = as_nobody(&bus, test, JOB, "Wait", "", "silent");
    let end = async { daemon.domain.finish(&job, JobResult::Done) };
    assert_eq!(tokio::join!(wait, end).0.as_deref(), Some("passed"));
}

#[tokio::test]
async fn real_polkit_decides_about_everybody_but_root() {
    let test = "real_polkit_decides_about_everybody_but_root";
    if !polkit::available(test) {
        return;
    }
    let bus = Bus::with_policies(&[Path::new(polkit::BUS_POLICY)]);
    // A rule that would refuse even root, if polkit asked any rule about root.
    let rules = "polkit.addRule(function(action, subject) { if (subject.user == 'root') return polkit.Result.NO; });";
    let Some(_polkit) = Polkit::start(&bus, rules, test).await else { return };
    let (mut daemon, job) = daemon_with_job(&bus).await;
    for (object, method, signature, action) in CALLS {
        let said = as_nobody(&bus, test, object, method, signature, "silent").await.unwrap();
        assert!(said.starts_with(&format!("{PROMPT_NEEDED}: User {NOBODY} may ")), "{method}: {said}");
        assert!(said.contains(action.id()), "{method}: {said}");

        // A prompt is allowed, but there is nobody to show it.
        let said = as_nobody(&bus, test, object, method, signature, "prompt").await.unwrap();
        assert!(said.starts_with(&format!("{DENIED}: User {NOBODY} may not ")), "{method}: {said}");
        assert!(!said.contains("without an answer"), "{method}: {said}");
    }
    assert!(daemon.domain.requests.try_recv().is_err(), "a refused call reached the domain");
    assert!(!job.cancelled().is_cancelled());
    as_root(&bus, &mut daemon).await;

    // We do not ask polkit about root because polkit never says no to root. This is where that is checked.
    let client = bus.connect().await;
    let answer = client
        .call_method(
            Some("org.freedesktop.PolicyKit1"),
            "/org/freedesktop/PolicyKit1/Authority",
            Some("org.freedesktop.PolicyKit1.Authority"),
            "CheckAuthorization",
            &(
                (
                    "system-bus-name",
                    HashMap::from([("name", zbus::Variant::from(client.unique_name().unwrap().as_str()))]),
                ),
                Action::Update.id(),
                HashMap::<&str, &str>::new(),
                0_u32,
                "",
            ),
        )
        .await
        .unwrap();
    let ((authorised, _, _),): (Answer,) = answer.body().deserialize().unwrap();
    assert!(authorised);
}

#[tokio::test]
async fn a_rule_of_polkit_lets_a_service_user_in() {
    let test = "a_rule_of_polkit_lets_a_service_user_in";
    if !polkit::available(test) {
        return;
    }
    let bus = Bus::with_policies(&[Path::new(polkit::BUS_POLICY)]);
    let rules = "polkit.addRule(function(action, subject) {
        if (action.id == 'org.orchestratord1.update' && subject.user == 'nobody') return polkit.Result.YES;
    });";
    let Some(_polkit) = Polkit::start(&bus, rules, test).await else { return };
    let mut daemon = Daemon::start(&bus, system(vec![])).await;

    let install = as_nobody(&bus, test, UPDATE, "Install", "sa{sv}", "silent");
    let (said, reporter) = tokio::join!(install, daemon.domain.accept());
    assert_eq!(said.as_deref(), Some("passed"));
    assert_eq!(reporter.job().started_by, NOBODY);

    // The rule is about "update" alone, which implies "inspect".
    let plan = as_nobody(&bus, test, UPDATE, "Plan", "sa{sv}", "silent");
    let domain = async {
        let Some(Request::Plan(_, reply)) = daemon.domain.requests.recv().await else { panic!() };
        reply.send(Ok(vec![])).unwrap();
    };
    assert_eq!(tokio::join!(plan, domain).0.as_deref(), Some("passed"));

    assert_eq!(as_nobody(&bus, test, JOB, "Cancel", "", "silent").await.as_deref(), Some("passed"));
    assert!(reporter.cancelled().is_cancelled());
}

/// One question to polkit: subject, action, flags.
type Question = (String, String, u32);

/// `is_authorized`, `is_challenge` and details.
type Answer = (bool, bool, HashMap<String, String>);

/// A polkit that answers as told and writes down what it was asked.
struct ScriptedPolkit {
    /// `is_authorized` and `is_challenge`; `None` is an error.
    answer: Option<(bool, bool)>,
    asked: Arc<Mutex<Vec<Question>>>,
}

#[allow(clippy::needless_pass_by_value, reason = "zbus hands the arguments over by value")]
#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl ScriptedPolkit {
    #[zbus(out_args("result"))]
    fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action_id: String,
        details: HashMap<String, String>,
        flags: u32,
        cancellation_id: &str,
    ) -> zbus::fdo::Result<(Answer,)> {
        assert!(details.is_empty() && cancellation_id.is_empty());
        let (kind, mut who) = subject;
        assert_eq!(kind, "system-bus-name");
        let name = String::try_from(who.remove("name").unwrap()).unwrap();
        self.asked.lock().unwrap().push((name, action_id, flags));
        let (authorised, challenge) = self.answer.ok_or_else(|| zbus::fdo::Error::Failed("Broken.".to_owned()))?;
        Ok(((authorised, challenge, HashMap::new()),))
    }
}

/// A bus with a scripted polkit on it.
async fn with_polkit(answer: Option<(bool, bool)>) -> (Bus, Connection, Arc<Mutex<Vec<Question>>>) {
    let policy = tempfile::NamedTempFile::with_suffix(".conf").unwrap();
    let text = "<busconfig><policy context=\"default\"><allow own=\"org.freedesktop.PolicyKit1\"/>\
                <allow send_destination=\"org.freedesktop.PolicyKit1\"/></policy></busconfig>";
    fs::write(policy.path(), text).unwrap();
    let bus = Bus::with_policies(&[policy.path()]);
    let asked = Arc::default();
    let service = ScriptedPolkit { answer, asked: Arc::clone(&asked) };
    let connection = bus
        .builder()
        .serve_at("/org/freedesktop/PolicyKit1/Authority", service)
        .name("org.freedesktop.PolicyKit1")
        .build()
        .await
        .unwrap();
    (bus, connection, asked)
}

#[tokio::test]
async fn a_prompt_is_allowed_only_if_the_caller_allowed_it() {
    let test = "a_prompt_is_allowed_only_if_the_caller_allowed_it";
    let (bus, _polkit, asked) = with_polkit(Some((false, true))).await;
    let _daemon = daemon_with_job(&bus).await;
    for (prompt, bits, name) in [("prompt", 1, DENIED), ("silent", 0, PROMPT_NEEDED)] {
        let Some(said) = as_nobody(&bus, test, UPDATE, "Resume", "a{sv}", prompt).await else { return };
        assert!(said.starts_with(name), "{said}");
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        let [(subject, action, flags)] = asked.as_slice() else { panic!("{asked:?}") };
        assert!(subject.starts_with(':'), "{subject}");
        assert_eq!((action.as_str(), *flags), ("org.orchestratord1.update", bits));
    }
}

#[tokio::test]
async fn each_call_is_decided_anew_and_by_its_own_action() {
    let test = "each_call_is_decided_anew_and_by_its_own_action";
    let (bus, _polkit, asked) = with_polkit(Some((false, false))).await;
    let _daemon = daemon_with_job(&bus).await;
    for (object, method, signature, action) in CALLS.into_iter().chain(CALLS) {
        let Some(said) = as_nobody(&bus, test, object, method, signature, "silent").await else { return };
        assert!(said.starts_with(DENIED), "{method}: {said}");
        assert!(said.contains(&format!("(polkit action \"{}\")", action.id())), "{method}: {said}");
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(asked.iter().map(|question| question.1.as_str()).collect::<Vec<_>>(), [action.id()], "{method}");
    }
}

#[tokio::test]
async fn a_broken_polkit_refuses_others_but_not_root() {
    let test = "a_broken_polkit_refuses_others_but_not_root";
    let (bus, _polkit, asked) = with_polkit(None).await;
    let (mut daemon, _job) = daemon_with_job(&bus).await;
    let Some(said) = as_nobody(&bus, test, UPDATE, "Resume", "a{sv}", "prompt").await else { return };
    assert!(said.starts_with(DENIED), "{said}");
    assert!(said.contains("without an answer from polkit only root and the daemon's own user may"), "{said}");
    assert_eq!(asked.lock().unwrap().len(), 1);
    as_root(&bus, &mut daemon).await;
}
