//! Reboots: of a peripheral, of the host, left to the caller.

use orchestrator_tests::system::{System, deferred};
use orchestratord_dbus::Options;

/// Three Components in one group and one after it.
async fn mixed() -> System {
    let system = System::new(&[("rtos", "P1", 1), ("rtos", "A1", 1), ("rtos", "A2", 1), ("gateway", "G2", 2)]).await;
    system.set("P1", "needs-reboot", "Yes");
    system.set("A1", "needs-reboot", "Automatic");
    system.set("A2", "needs-reboot", "Automatic");
    system
}

const BEFORE: [&str; 4] = ["Download A1 A2 P1", "ArtifactInstall A1 A2 P1", "ArtifactReboot P1", "reboot"];
const AFTER: [&str; 7] = [
    "ArtifactVerifyReboot A1 A2 P1",
    "Download G2",
    "ArtifactInstall G2",
    "ArtifactCommit A1 A2 P1",
    "ArtifactCommit G2",
    "Cleanup A1 A2 P1",
    "Cleanup G2",
];

#[tokio::test]
async fn yes_reboots_the_component_and_verifies_it_and_never_the_host() {
    let system = System::demo().await;
    system.set("R998", "needs-reboot", "Yes");
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(
        system.trace()[2..6],
        ["Download R456 R998", "ArtifactInstall R456 R998", "ArtifactReboot R998", "ArtifactVerifyReboot R998"]
    );
    assert!(!system.trace().contains(&"reboot".to_owned()));
    system.assert_all_at(2);
}

#[tokio::test]
async fn no_and_no_answer_reboot_nothing() {
    let system = System::demo().await;
    system.unset("R998", "needs-reboot");
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert!(!system.trace().iter().any(|step| step.contains("eboot")), "{:?}", system.trace());
}

/// After the restart nobody has to ask: the daemon goes on by itself, and tells the first who asks how it ended.
#[tokio::test]
async fn automatic_is_one_reboot_of_the_host_per_group_after_all_yes_calls() {
    let mut system = mixed().await;
    system.start_daemon().await;
    let job = system.begin(2, Options::new()).await.unwrap();
    system.wait_for_reboot_request(1).await;
    assert_eq!(system.trace(), BEFORE);
    assert_eq!(job.state().await.unwrap(), "running");
    system.reboot().await;
    assert_eq!(system.wait_for_rest().await, "idle");
    assert_eq!(system.trace()[4..], AFTER);
    system.assert_all_at(2);
    system.assert_cleaned_up();
    assert_eq!(system.update().await.manifest().await.unwrap(), "release-2");

    system.resume(Options::new()).await.unwrap().clean("done");
    let (name, message) = system.resume(Options::new()).await.unwrap_err();
    assert_eq!(name, "org.orchestratord1.Error.NothingInProgress");
    assert!(message.contains("nothing to resume"), "{message}");
    assert_eq!(system.trace()[4..], AFTER);
}

#[tokio::test]
async fn a_deferred_reboot_is_left_to_the_caller_who_resumes_afterwards() {
    let mut system = mixed().await;
    system.start_daemon().await;
    system.install(2, deferred()).await.unwrap().clean("reboot-required");
    assert_eq!(system.trace(), BEFORE[..3]);
    let update = system.update().await;
    assert_eq!(update.state().await.unwrap(), "reboot-required");
    assert_eq!(update.stopped_before().await.unwrap(), "");

    system.reboot().await;
    assert_eq!(system.update().await.state().await.unwrap(), "reboot-required");
    assert_eq!(system.trace(), BEFORE[..3], "nothing goes on before Resume");
    system.resume(Options::new()).await.unwrap().clean("done");
    assert_eq!(system.trace()[3..], AFTER);
    system.assert_all_at(2);
}

#[tokio::test]
async fn resuming_without_the_reboot_is_warned_about_and_goes_on() {
    let mut system = mixed().await;
    system.start_daemon().await;
    system.install(2, deferred()).await.unwrap().clean("reboot-required");
    system.resume(Options::new()).await.unwrap().clean("done");
    assert_eq!(system.trace()[3..], AFTER);
    assert!(system.log().contains("The host was not rebooted since the deployment asked for it"), "{}", system.log());
}

#[tokio::test]
async fn each_group_has_a_reboot_of_its_own() {
    let mut system = mixed().await;
    system.set("G2", "needs-reboot", "Automatic");
    system.start_daemon().await;
    system.begin(2, Options::new()).await.unwrap();
    system.wait_for_reboot_request(1).await;
    system.reboot().await;
    system.wait_for_reboot_request(2).await;
    assert_eq!(
        system.trace()[3..],
        ["reboot", "ArtifactVerifyReboot A1 A2 P1", "Download G2", "ArtifactInstall G2", "reboot"]
    );
    system.reboot().await;
    assert_eq!(system.wait_for_rest().await, "idle");
    assert_eq!(
        system.trace()[8..],
        ["ArtifactVerifyReboot G2", "ArtifactCommit A1 A2 P1", "ArtifactCommit G2", "Cleanup A1 A2 P1", "Cleanup G2"]
    );
    system.assert_all_at(2);
}

#[tokio::test]
async fn a_daemon_that_comes_back_without_a_reboot_asks_again_and_gives_up_after_three_times() {
    let mut system = mixed().await;
    system.start_daemon().await;
    system.begin(2, Options::new()).await.unwrap();
    for count in 1..=3 {
        system.wait_for_reboot_request(count).await;
        system.kill_daemon();
        system.start_daemon().await;
    }
    assert_eq!(system.wait_for_rest().await, "idle");
    let message = system.resume(Options::new()).await.unwrap();
    let message = message.faulty("rolled-back", "RebootFailed");
    assert!(message.contains("3 times"), "{message}");
    assert_eq!(system.trace()[3..], ["reboot", "reboot", "reboot"].into_iter().chain(ROLLED_BACK).collect::<Vec<_>>());
    system.assert_all_at(1);
    system.assert_cleaned_up();
}

/// `ArtifactRollbackReboot` only where `ArtifactReboot` was: the host was never rebooted, so it need not be again.
const ROLLED_BACK: [&str; 5] = [
    "ArtifactRollback A1 A2 P1",
    "ArtifactRollbackReboot P1",
    "ArtifactVerifyRollbackReboot P1",
    "ArtifactFailure A1 A2 P1",
    "Cleanup A1 A2 P1",
];

#[tokio::test]
async fn a_reboot_command_that_fails_or_is_missing_is_a_failed_reboot() {
    for command in [["/bin/false"], ["/nonexistent/reboot"]] {
        let mut system = mixed().await;
        system.configure("RebootCommand", command.map(str::to_owned).to_vec());
        system.start_daemon().await;
        let outcome = system.install(2, Options::new()).await.unwrap();
        let message = outcome.faulty("rolled-back", "RebootFailed");
        assert!(message.contains(command[0]), "{message}");
        assert_eq!(system.trace()[3..], ROLLED_BACK);
        system.assert_all_at(1);
        system.assert_cleaned_up();
    }
}

#[tokio::test]
async fn a_host_that_does_not_go_down_in_time_is_a_failed_reboot() {
    let mut system = mixed().await;
    system.configure("RebootTimeoutSeconds", 1);
    system.start_daemon().await;
    let outcome = system.install(2, Options::new()).await.unwrap();
    let message = outcome.faulty("rolled-back", "RebootFailed");
    assert!(message.contains("did not reboot within 1 second"), "{message}");
    assert_eq!(system.trace()[4..], ROLLED_BACK);
    system.assert_all_at(1);
}

#[tokio::test]
async fn rolling_back_instead_of_rebooting_reboots_no_host() {
    let mut system = mixed().await;
    system.start_daemon().await;
    system.install(2, deferred()).await.unwrap().clean("reboot-required");
    system.rollback(Options::new()).await.unwrap().clean("rolled-back");
    assert_eq!(system.trace()[3..], ROLLED_BACK);
    system.assert_all_at(1);
}

#[tokio::test]
async fn rolling_back_after_the_reboot_reboots_the_host_once_more() {
    let mut system = mixed().await;
    system.start_daemon().await;
    system.install(2, deferred()).await.unwrap().clean("reboot-required");
    system.reboot().await;
    system.rollback(deferred()).await.unwrap().clean("reboot-required");
    assert_eq!(system.trace()[3..], ["ArtifactRollback A1 A2 P1", "ArtifactRollbackReboot P1"]);
    system.reboot().await;
    system.resume(Options::new()).await.unwrap().clean("rolled-back");
    assert_eq!(
        system.trace()[5..],
        ["ArtifactVerifyRollbackReboot A1 A2 P1", "ArtifactFailure A1 A2 P1", "Cleanup A1 A2 P1"]
    );
    system.assert_all_at(1);
    system.assert_cleaned_up();
}
