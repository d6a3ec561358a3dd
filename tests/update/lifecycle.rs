//! The daemon around a deployment: cancelling, stopping, being killed, being asked for several things at once, and what
//! it shows.

use std::collections::HashMap;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestrator_tests::system::{System, deferred, outcome, stop_before};
use orchestratord_dbus::{COMPONENT_PREFIX, ComponentProxy, Options, component, error_reply, objects};
use zbus::OwnedObjectPath;

async fn component_of(system: &System, name: &str) -> ComponentProxy<'static> {
    let path = OwnedObjectPath::try_from(format!("{COMPONENT_PREFIX}/{name}")).unwrap();
    component(system.connection(), path).await.unwrap()
}

/// The Components come to the bus when they have answered, which may be after the daemon is ready.
async fn wait_for_components(system: &System) {
    let manager = objects(system.connection()).await.unwrap();
    loop {
        let objects = manager.get_managed_objects().await.unwrap();
        let found = objects.keys().filter(|path| path.as_str().starts_with(&format!("{COMPONENT_PREFIX}/")));
        if found.filter(|path| path.matches('/').count() == 5).count() == system.components().len() {
            return;
        }
        orchestrator_tests::system::pause().await;
    }
}

/// `State`, whether `LastError` is set, and `Version`.
async fn shown(system: &System, name: &str) -> (String, bool, String) {
    let component = component_of(system, name).await;
    let error = component.last_error().await.unwrap();
    (component.state().await.unwrap(), !error.0.is_empty(), component.version().await.unwrap())
}

fn is(state: &str, error: bool, version: &str) -> (String, bool, String) {
    (state.to_owned(), error, version.to_owned())
}

/// When `Wait` returns, the Components are what the deployment made of them.
#[tokio::test]
async fn components_show_their_new_version_when_the_job_has_ended() {
    let system = System::demo().await;
    wait_for_components(&system).await;
    assert_eq!(shown(&system, "rtos/R456").await, is("idle", false, "rtos-1"));
    system.install(2, Options::new()).await.unwrap().clean("done");
    for (name, version) in [("gateway/G13", "gateway-2"), ("rtos/R456", "rtos-2"), ("rtos/R998", "rtos-2")] {
        assert_eq!(shown(&system, name).await, is("idle", false, version));
        let component = component_of(&system, name).await;
        let provides: HashMap<String, String> = component.provides().await.unwrap();
        assert!(provides.values().any(|value| value == version), "{provides:?}");
    }
}

#[tokio::test]
async fn a_failed_component_keeps_its_error_until_the_next_deployment() {
    let system = System::demo().await;
    system.set("R456", "ArtifactCommit.fail", "1");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    assert_eq!(shown(&system, "rtos/R456").await, is("idle", true, "rtos-1"));
    assert_eq!(shown(&system, "rtos/R998").await, is("idle", false, "rtos-1"));
    assert!(component_of(&system, "rtos/R456").await.last_error().await.unwrap().1.contains("ArtifactCommit"));
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(shown(&system, "rtos/R456").await, is("idle", false, "rtos-2"));
}

/// A Component is where it is, whether the deployment rests, goes on, or is found again by another daemon.
#[tokio::test]
async fn components_show_how_far_they_are_while_a_deployment_rests_and_after_a_restart() {
    let mut system = System::demo().await;
    system.set("R456", "ArtifactCommit.fail", "");
    system.install(2, stop_before(&["ArtifactCommit", "ArtifactRollback"])).await.unwrap().clean("stopped");
    assert_eq!(shown(&system, "gateway/G13").await.0, "NeedsArtifactReboot");
    let progress = component_of(&system, "gateway/G13").await.progress().await.unwrap();
    assert!(progress > 0.5, "{progress}");
    assert!(system.stop_daemon().await.success());
    system.start_daemon().await;
    assert_eq!(shown(&system, "gateway/G13").await.0, "NeedsArtifactReboot");
    let again = component_of(&system, "gateway/G13").await.progress().await.unwrap();
    assert!((again - progress).abs() < 0.01, "{again} is not {progress}");

    system.resume(stop_before(&["ArtifactRollback", "Cleanup"])).await.unwrap().faulty("stopped", "InterfaceFailed");
    assert_eq!(shown(&system, "rtos/R456").await.0, "failed");
    assert!(shown(&system, "rtos/R456").await.1);
    system.rollback(stop_before(&["Cleanup"])).await.unwrap().clean("stopped");
    assert!(shown(&system, "rtos/R456").await.1, "going on does not make the failure unhappen");
    system.resume(Options::new()).await.unwrap().clean("rolled-back");
    assert_eq!(shown(&system, "rtos/R998").await, is("idle", false, "rtos-1"));
}

#[tokio::test]
async fn a_component_that_leaves_the_topology_leaves_the_bus_and_comes_back() {
    let system = System::demo().await;
    let count = || async {
        let objects = objects(system.connection()).await.unwrap().get_managed_objects().await.unwrap();
        let components = objects
            .values()
            .filter(|interfaces| interfaces.keys().any(|name| name.as_str() == "org.orchestratord1.Component"));
        components.count()
    };
    wait_for_components(&system).await;
    assert_eq!(count().await, 3);
    let whole = fs::read_to_string(system.path("etc/topology.yaml")).unwrap();
    let cut = &whole[..whole.rfind("  - component_type").unwrap()];
    fs::write(system.path("etc/topology.yaml"), cut).unwrap();
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(count().await, 2);
    system.assert_release("R998", 1);
    fs::write(system.path("etc/topology.yaml"), whole).unwrap();
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(count().await, 3);
    system.assert_all_at(2);
}

// --- cancelling ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn cancelling_a_download_cuts_it_short_and_takes_the_rest_back() {
    let system = System::demo().await;
    system.set("R998", "Download.hang", "");
    let job = system.begin(2, Options::new()).await.unwrap();
    system.wait_for_call("R998", "Download").await;
    system.wait_for_call("R456", "Download").await;
    job.cancel().await.unwrap();
    outcome(&job).await.faulty("cancelled", "Cancelled");
    assert_eq!(
        system.trace()[2..],
        ["Download R456 R998", "ArtifactRollback G13", "ArtifactFailure G13", "Cleanup G13", "Cleanup R456 R998"]
    );
    system.assert_all_at(1);
    system.assert_cleaned_up();
    assert_eq!(system.programs(), [0; 0]);
}

/// What is installed and cannot go back is better than what would be neither.
#[tokio::test]
async fn cancelling_is_given_up_if_a_component_that_is_installed_cannot_go_back() {
    let system = System::demo().await;
    system.set("G13", "supports-rollback", "No");
    system.set("R998", "Download.sleep", "2");
    let job = system.begin(2, Options::new()).await.unwrap();
    system.wait_for_call("R998", "Download").await;
    job.cancel().await.unwrap();
    outcome(&job).await.clean("done");
    assert_eq!(system.count("G13", "SupportsRollback"), 1);
    system.assert_all_at(2);
    assert!(system.log().contains("The deployment cannot be cancelled"), "{}", system.log());
}

/// Nothing but a download is left half way.
#[tokio::test]
async fn cancelling_an_install_waits_for_it_and_then_goes_back() {
    let system = System::demo().await;
    system.observe("rtos");
    system.set("R456", "ArtifactInstall.wait", "");
    let job = system.begin(2, Options::new()).await.unwrap();
    system.wait_for_call_of_wrapper("R456", "ArtifactInstall").await;
    job.cancel().await.unwrap();
    job.cancel().await.unwrap();
    system.unset("R456", "ArtifactInstall.wait");
    outcome(&job).await.faulty("cancelled", "Cancelled");
    assert_eq!(system.trace()[3..5], ["ArtifactInstall R456 R998", "ArtifactRollback R456 R998"]);
    system.assert_all_at(1);
    system.assert_cleaned_up();
}

trait Wrapper {
    async fn wait_for_call_of_wrapper(&self, instance: &str, word: &str);
}

impl Wrapper for System {
    /// A wrapper that waits has not written to the log of calls yet; but its sibling, which began beside it, has.
    async fn wait_for_call_of_wrapper(&self, instance: &str, word: &str) {
        let siblings: Vec<String> = self.components().iter().map(|component| component.instance.clone()).collect();
        let sibling = siblings.iter().rfind(|sibling| *sibling != instance).unwrap();
        self.wait_for_call(sibling, word).await;
    }
}

#[tokio::test]
async fn cancelling_is_refused_once_the_commit_has_begun_on_the_way_back_and_after_the_end() {
    for (switch, word) in [("ArtifactCommit.wait", "commit"), ("ArtifactRollback.wait", "rolled back")] {
        let system = System::demo().await;
        system.observe("gateway");
        if word == "rolled back" {
            system.set("G13", "ArtifactInstall.fail", "");
        }
        system.set("G13", switch, "");
        let job = system.begin(2, Options::new()).await.unwrap();
        let state = switch.strip_suffix(".wait").unwrap();
        loop {
            if shown(&system, "gateway/G13").await.0 == state {
                break;
            }
            orchestrator_tests::system::pause().await;
        }
        let (name, message) = error_reply(&job.cancel().await.unwrap_err()).unwrap();
        assert!(name.ends_with("NotSupported") && message.contains(word), "{name}: {message}");
        system.unset("G13", switch);
        let outcome = outcome(&job).await;
        assert_eq!(outcome.result, if word == "commit" { "done" } else { "rolled-back" });
        let (name, message) = error_reply(&job.cancel().await.unwrap_err()).unwrap();
        assert!(name.ends_with("NotSupported"), "{name}: {message}");
    }
}

#[tokio::test]
async fn a_job_that_has_stopped_cannot_be_cancelled() {
    let system = System::demo().await;
    let job = system.begin(2, stop_before(&["ArtifactCommit"])).await.unwrap();
    outcome(&job).await.clean("stopped");
    let (name, message) = error_reply(&job.cancel().await.unwrap_err()).unwrap();
    assert!(name.ends_with("NotSupported") && message.contains("has ended"), "{name}: {message}");
    system.resume(Options::new()).await.unwrap().clean("done");
}

/// The host is about to go down; what comes after the reboot would not know of it.
#[tokio::test]
async fn cancelling_is_refused_while_the_host_reboots() {
    let system = System::demo().await;
    system.set("G13", "needs-reboot", "Automatic");
    let job = system.begin(2, Options::new()).await.unwrap();
    system.wait_for_reboot_request(1).await;
    let (name, message) = error_reply(&job.cancel().await.unwrap_err()).unwrap();
    assert!(name.ends_with("NotSupported") && message.contains("reboot"), "{name}: {message}");
}

/// Whoever presses Ctrl-C stops watching, no more.
#[tokio::test]
async fn interrupting_the_command_line_leaves_the_deployment_alone() {
    for name in ["mender-orchestrator", "orchestratorctl"] {
        let system = System::demo().await;
        system.manifest(2);
        system.observe("gateway");
        system.set("G13", "Download.wait", "");
        let mut command = system.ctl(name, &["install", "manifest-2.yaml"]);
        let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        while system.update().await.state().await.unwrap() != "busy"
            || system.update().await.active_job().await.unwrap().as_str() == "/"
        {
            orchestrator_tests::system::pause().await;
        }
        kill(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()), Signal::SIGINT).unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(130));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("goes on"), "{said}");
        system.unset("G13", "Download.wait");
        assert_eq!(system.wait_for_rest().await, "idle");
        system.assert_all_at(2);
    }
}

// --- several at once -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_second_install_while_the_first_is_prepared_or_works_is_busy() {
    let system = System::demo().await;
    system.observe("gateway");
    system.set("G13", "Provides.wait", "");
    let update = system.update().await;
    let manifest = system.manifest(2);
    let first = {
        let (update, manifest) = (update.clone(), manifest.clone());
        tokio::spawn(async move { update.install(&manifest, Options::new()).await })
    };
    while update.state().await.unwrap() != "busy" {
        orchestrator_tests::system::pause().await;
    }
    let busy = || async {
        for refused in [
            update.install(&manifest, Options::new()).await,
            update.resume(Options::new()).await,
            update.rollback(Options::new()).await,
        ] {
            let (name, message) = error_reply(&refused.unwrap_err()).unwrap();
            assert_eq!(name, "org.orchestratord1.Error.Busy", "{message}");
        }
        let (name, _) = error_reply(&update.plan(&manifest, Options::new()).await.unwrap_err()).unwrap();
        assert_eq!(name, "org.orchestratord1.Error.Busy");
    };
    busy().await;
    system.set("G13", "Download.wait", "");
    system.unset("G13", "Provides.wait");
    let job = first.await.unwrap().unwrap();
    busy().await;
    system.unset("G13", "Download.wait");
    let job = orchestratord_dbus::job(system.connection(), job).await.unwrap();
    outcome(&job).await.clean("done");
    system.assert_all_at(2);
}

/// Monitoring that asks all the time must not keep an update from its turn: who comes after an install waits behind it.
#[tokio::test]
async fn an_install_gets_its_turn_although_others_keep_asking() {
    let system = System::demo().await;
    system.observe("gateway");
    let ask = || {
        let connection = system.connection().clone();
        tokio::spawn(async move {
            let update = orchestratord_dbus::UpdateProxy::new(&connection).await.unwrap();
            update.inventory(Options::new()).await.unwrap()
        })
    };
    wait_for_components(&system).await;
    system.forget_calls();
    system.set("G13", "Inventory.wait", "");
    let first = ask();
    system.wait_for_call("R998", "Inventory").await;
    let manifest = system.manifest(2);
    let update = system.update().await;
    let install = tokio::spawn(async move { update.install(&manifest, Options::new()).await });
    // The install is on its way before the second question, by the same connection.
    system.update().await.state().await.unwrap();
    let second = ask();
    system.update().await.state().await.unwrap();
    system.unset("G13", "Inventory.wait");
    let job = install.await.unwrap().unwrap();
    outcome(&orchestratord_dbus::job(system.connection(), job).await.unwrap()).await.clean("done");
    assert!(!first.await.unwrap().0.is_empty());
    // It was answered from what is known, once the install had begun.
    assert!(!second.await.unwrap().0.is_empty());
    for instance in ["G13", "R456", "R998"] {
        assert_eq!(system.count(instance, "Inventory"), 1, "{instance}");
    }
    system.assert_all_at(2);
}

#[tokio::test]
async fn a_reload_while_a_job_works_takes_effect_afterwards() {
    let mut system = System::demo().await;
    system.observe("gateway");
    system.set("G13", "Download.wait", "");
    let job = system.begin(2, Options::new()).await.unwrap();
    system.configure("InterfaceTimeoutSeconds", 1);
    system.update().await.reload(Options::new()).await.unwrap();
    // Longer than the new limit: the call that runs keeps the one it began with.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    system.unset("G13", "Download.wait");
    outcome(&job).await.clean("done");
    system.set("G13", "Download.hang", "");
    let outcome = system.install(3, Options::new()).await.unwrap();
    assert!(outcome.faulty("failed", "InterfaceFailed").contains("ran out of time after 1 s"));
}

#[tokio::test]
async fn a_reload_keeps_the_error_of_the_last_deployment() {
    let system = System::demo().await;
    system.set("G13", "ArtifactInstall.fail", "");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    let before = system.update().await.last_error().await.unwrap();
    system.update().await.reload(Options::new()).await.unwrap();
    assert_eq!(system.update().await.last_error().await.unwrap(), before);
}

// --- the end of the daemon -------------------------------------------------------------------------------------------

/// A daemon that is told to stop leaves the deployment for the next one, whatever state it is in.
#[tokio::test]
async fn stopping_the_daemon_during_a_deployment_ends_in_a_whole_system() {
    for (word, release) in
        [("Download", 1), ("ArtifactInstall", 1), ("ArtifactReboot", 2), ("ArtifactCommit", 1), ("Cleanup", 2)]
    {
        let mut system = System::demo().await;
        system.set("R456", "needs-reboot", "Yes");
        system.set("R456", &format!("{word}.hang"), "");
        system.begin(2, Options::new()).await.unwrap();
        system.wait_for_call("R456", word).await;
        assert!(system.stop_daemon().await.success(), "{word}");
        // They were sent SIGKILL, and need not have heard it yet.
        system.wait_until("no program is left", || system.programs().is_empty()).await;
        system.unset("R456", &format!("{word}.hang"));
        system.start_daemon().await;
        assert_eq!(system.wait_for_rest().await, "idle");
        system.assert_all_at(release);
        system.assert_cleaned_up();
        // Nobody was there to be told; the first who asks is.
        let told = system.resume(Options::new()).await.unwrap();
        assert_eq!(told.result, if word == "Download" || release == 1 { "rolled-back" } else { "done" }, "{word}");
    }
}

/// One that is killed, with its programs and without: the other half of the same promise.
#[tokio::test]
async fn killing_the_daemon_in_any_state_ends_in_a_whole_system() {
    let there = ["Download", "ArtifactInstall", "ArtifactReboot", "ArtifactVerifyReboot", "ArtifactCommit"];
    let back = ["ArtifactRollback", "ArtifactRollbackReboot", "ArtifactVerifyRollbackReboot", "ArtifactFailure"];
    for word in there.into_iter().chain(back).chain(["Cleanup"]) {
        let mut system = System::new(&[("gateway", "G13", 10), ("rtos", "R456", 20)]).await;
        system.set("R456", "needs-reboot", "Yes");
        if back.contains(&word) {
            system.set("R456", "ArtifactCommit.fail", "");
        }
        system.set("R456", &format!("{word}.hang"), "");
        system.start_daemon().await;
        system.begin(2, Options::new()).await.unwrap();
        system.wait_for_call("R456", word).await;
        system.kill_daemon();
        system.unset("R456", &format!("{word}.hang"));
        system.start_daemon().await;
        assert_eq!(system.wait_for_rest().await, "idle", "{word}");
        let new = ["ArtifactReboot", "Cleanup"].contains(&word);
        system.assert_all_at(if new { 2 } else { 1 });
        system.assert_cleaned_up();
        assert_eq!(system.programs(), [0; 0], "what the old daemon left is ended: {word}");
        assert_eq!(system.count("R456", "Cleanup"), if word == "Cleanup" { 2 } else { 1 }, "{word}");
        let manager = orchestratord_dbus::ManagerProxy::new(system.connection()).await.unwrap();
        assert_eq!(manager.state().await.unwrap(), "idle", "{word}");
    }
}

/// A state that makes the daemon crash each time must not make it try for ever.
#[tokio::test]
async fn a_crash_in_the_same_state_again_and_again_comes_to_an_end() {
    let mut system = System::new(&[("rtos", "R1", 1)]).await;
    system.set("R1", "ArtifactInstall.fail", "");
    system.set("R1", "ArtifactFailure.hang", "");
    system.start_daemon().await;
    system.begin(2, Options::new()).await.unwrap();
    for attempt in 1..=3 {
        let begun = || system.count("R1", "ArtifactFailure") >= attempt;
        system.wait_until("ArtifactFailure is called again", begun).await;
        system.cut_power();
        system.start_daemon().await;
    }
    assert_eq!(system.wait_for_rest().await, "idle");
    assert_eq!(system.count("R1", "ArtifactFailure"), 3);
    system.assert_all_at(1);
}

#[tokio::test]
async fn a_stop_while_an_install_is_prepared_begins_nothing() {
    let mut system = System::demo().await;
    system.observe("gateway");
    system.set("G13", "Provides.wait", "");
    let update = system.update().await;
    let manifest = system.manifest(2);
    let install = tokio::spawn(async move { update.install(&manifest, Options::new()).await });
    while system.update().await.state().await.unwrap() != "busy" {
        orchestrator_tests::system::pause().await;
    }
    system.signal_daemon(Signal::SIGTERM);
    system.unset("G13", "Provides.wait");
    assert!(system.wait_for_end().await.success());
    assert!(install.await.unwrap().is_err());
    assert_eq!(system.full_trace(), [""; 0]);
    assert!(!system.path("state/deployment").exists());
}

/// Somebody removes the directory that the daemon was started in.
#[tokio::test]
async fn the_directory_the_daemon_was_started_in_may_go() {
    let mut system = System::new(&[("rtos", "R1", 1)]).await;
    let directory = system.path("started-here");
    fs::create_dir(&directory).unwrap();
    system.start_daemon_in(&directory).await;
    fs::remove_dir(&directory).unwrap();
    system.install(2, Options::new()).await.unwrap().clean("done");
    system.assert_all_at(2);
}

/// After many deployments the daemon's directory holds no more than after one.
#[tokio::test]
async fn deployments_leave_nothing_that_piles_up() {
    let system = System::demo().await;
    let size = || {
        let mut names: Vec<String> = Vec::new();
        let mut directories = vec![system.path("state")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path.clone());
                }
                names.push(path.display().to_string());
            }
        }
        names.sort();
        names
    };
    let mut sizes = Vec::new();
    for release in 2..6 {
        system.install(release, Options::new()).await.unwrap().clean("done");
        sizes.push(size().len());
    }
    assert_eq!(sizes[1], sizes[3], "{:#?}", size());
    assert!(!size().iter().any(|name| name.contains("/work")), "{:#?}", size());
    assert_eq!(size().iter().filter(|name| name.contains(".yaml")).count(), 2, "two Manifests are kept");
}

/// The stop points of the first call do not outlive it.
#[tokio::test]
async fn options_of_an_earlier_call_do_not_bind_a_later_one() {
    let mut system = System::demo().await;
    system.set("R456", "needs-reboot", "Automatic");
    let mut options = stop_before(&["ArtifactCommit", "Cleanup"]);
    options.extend(deferred());
    system.install(2, options).await.unwrap().clean("reboot-required");
    system.reboot().await;
    system.resume(stop_before(&["Cleanup"])).await.unwrap().clean("stopped");
    assert_eq!(system.update().await.stopped_before().await.unwrap(), "Cleanup");
    system.resume(Options::new()).await.unwrap().clean("done");
}
