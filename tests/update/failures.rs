//! Failures on the way there: what still runs, what is taken back, what the Job says.

use orchestrator_tests::system::System;
use orchestratord_dbus::Options;

/// A gateway in group 10 and two controllers in group 20 that reboot themselves. R456 fails.
async fn failing(word: &str) -> (System, String) {
    let system = System::demo().await;
    for controller in ["R456", "R998"] {
        system.set(controller, "needs-reboot", "Yes");
    }
    system.set("R456", &format!("{word}.fail"), "");
    let outcome = system.install(2, Options::new()).await.unwrap();
    let result = if word == "Cleanup" { "failed" } else { "rolled-back" };
    let message = outcome.faulty(result, "InterfaceFailed").to_owned();
    let call = format!("{word} of Component \"rtos.R456\" failed");
    assert!(message.contains(&call), "{message}");
    system.assert_cleaned_up_but("R456", word);
    (system, message)
}

const GATEWAY: [&str; 2] = ["Download G13", "ArtifactInstall G13"];
const CLEANUP: [&str; 2] = ["Cleanup G13", "Cleanup R456 R998"];

fn trace(parts: &[&[&str]]) -> Vec<String> {
    parts.concat().into_iter().map(ToOwned::to_owned).collect()
}

trait CleanedUp {
    fn assert_cleaned_up_but(&self, instance: &str, word: &str);
}

impl CleanedUp for System {
    /// A Component whose `Cleanup` failed keeps what it keeps; the daemon keeps nothing.
    fn assert_cleaned_up_but(&self, instance: &str, word: &str) {
        if word == "Cleanup" {
            for leftover in ["previous", "incoming"] {
                drop(std::fs::remove_dir_all(self.home(instance).join(leftover)));
            }
        }
        self.assert_cleaned_up();
    }
}

#[tokio::test]
async fn download_failing_in_the_lowest_group_leads_to_cleanup_only() {
    for switch in ["Download.fail", "NeedsUnpackedArtifact.fail", "ProvidePayloadFileSizes.fail"] {
        let system = System::demo().await;
        system.set("G13", switch, "");
        let outcome = system.install(2, Options::new()).await.unwrap();
        let message = outcome.faulty("failed", "InterfaceFailed");
        assert!(
            message.contains(switch.strip_suffix(".fail").unwrap()) && message.contains("gateway.G13"),
            "{message}"
        );
        let download: &[&str] = if switch == "Download.fail" { &["Download G13"] } else { &[] };
        assert_eq!(system.full_trace(), trace(&[download, &["Cleanup G13"]]));
        system.assert_all_at(1);
        system.assert_cleaned_up();
    }
}

#[tokio::test]
async fn download_failing_in_a_later_group_takes_the_earlier_groups_back_and_cleans_its_own_up() {
    let (system, _) = failing("Download").await;
    let back = ["ArtifactRollback G13", "ArtifactFailure G13"];
    assert_eq!(system.trace(), trace(&[&GATEWAY, &["Download R456 R998"], &back, &CLEANUP]));
    system.assert_all_at(1);
}

#[tokio::test]
async fn install_failing_takes_every_installed_component_back_from_the_highest_group_down() {
    let (system, _) = failing("ArtifactInstall").await;
    let back = [
        "ArtifactRollback R456 R998",
        // Both answer Yes, when they are asked at last.
        "ArtifactRollbackReboot R456 R998",
        "ArtifactVerifyRollbackReboot R456 R998",
        "ArtifactFailure R456 R998",
        "ArtifactRollback G13",
        "ArtifactFailure G13",
    ];
    let there = ["Download R456 R998", "ArtifactInstall R456 R998"];
    assert_eq!(system.trace(), trace(&[&GATEWAY, &there, &back, &CLEANUP]));
    system.assert_all_at(1);
}

const BACK: [&str; 6] = [
    "ArtifactRollback R456 R998",
    "ArtifactRollbackReboot R456 R998",
    "ArtifactVerifyRollbackReboot R456 R998",
    "ArtifactFailure R456 R998",
    "ArtifactRollback G13",
    "ArtifactFailure G13",
];
const THERE: [&str; 3] = ["Download R456 R998", "ArtifactInstall R456 R998", "ArtifactReboot R456 R998"];

#[tokio::test]
async fn reboot_failing_skips_the_verification_and_goes_back() {
    let (system, _) = failing("ArtifactReboot").await;
    assert_eq!(system.trace(), trace(&[&GATEWAY, &THERE, &BACK, &CLEANUP]));
    system.assert_all_at(1);
}

#[tokio::test]
async fn verify_reboot_failing_goes_back_before_any_commit() {
    let (system, _) = failing("ArtifactVerifyReboot").await;
    assert_eq!(system.trace(), trace(&[&GATEWAY, &THERE, &["ArtifactVerifyReboot R456 R998"], &BACK, &CLEANUP]));
    system.assert_all_at(1);
}

#[tokio::test]
async fn commit_failing_takes_back_also_what_is_committed_already() {
    let (system, _) = failing("ArtifactCommit").await;
    let commit = ["ArtifactVerifyReboot R456 R998", "ArtifactCommit G13", "ArtifactCommit R456 R998"];
    assert_eq!(system.trace(), trace(&[&GATEWAY, &THERE, &commit, &BACK, &CLEANUP]));
    system.assert_all_at(1);
}

#[tokio::test]
async fn needs_reboot_failing_or_nonsense_goes_back() {
    for (file, content) in [("NeedsArtifactReboot.fail", ""), ("needs-reboot", "Maybe"), ("needs-reboot", "No\nNo")] {
        let system = System::demo().await;
        system.set("R456", file, content);
        let outcome = system.install(2, Options::new()).await.unwrap();
        let message = outcome.faulty("rolled-back", "InterfaceFailed");
        assert!(message.contains("NeedsArtifactReboot") && message.contains("rtos.R456"), "{message}");
        let steps = system.trace();
        assert_eq!(steps[3], "ArtifactInstall R456 R998");
        assert_eq!(steps[4], "ArtifactRollback R456 R998");
        system.assert_all_at(1);
    }
}

#[tokio::test]
async fn cleanup_failing_after_the_commit_leaves_the_new_version_and_says_so() {
    let (system, message) = failing("Cleanup").await;
    assert!(message.starts_with("The new versions are committed, but cleaning up failed:"), "{message}");
    assert_eq!(system.trace()[7..], ["ArtifactCommit R456 R998", "Cleanup G13", "Cleanup R456 R998"]);
    system.assert_all_at(2);
    assert_eq!(system.update().await.manifest().await.unwrap(), "release-2");
}

/// The barrier holds for failures too: the sibling ends the state in peace.
#[tokio::test]
async fn the_siblings_of_a_failed_component_end_the_state() {
    let system = System::demo().await;
    system.observe("rtos");
    system.set("R456", "ArtifactInstall.fail", "");
    // It goes on only when the other one has failed.
    system.set("R998", "ArtifactInstall.wait", "");
    let job = system.begin(2, Options::new()).await.unwrap();
    let failed = || system.lines().iter().any(|line| line == "end R456 ArtifactInstall 1");
    system.wait_until("R456 fails", failed).await;
    system.unset("R998", "ArtifactInstall.wait");
    let outcome = orchestrator_tests::system::outcome(&job).await;
    outcome.faulty("rolled-back", "InterfaceFailed");
    let lines = system.lines();
    let place = |wanted: &str| lines.iter().position(|line| line.starts_with(wanted)).unwrap();
    assert!(place("end R998 ArtifactInstall 0") < place("begin R456 ArtifactRollback "), "{lines:#?}");
    system.assert_all_at(1);
}

#[tokio::test]
async fn every_failing_component_is_named_in_the_log_and_the_first_in_the_error() {
    let system = System::demo().await;
    for controller in ["R456", "R998"] {
        system.set(controller, "ArtifactInstall.fail-late", "");
    }
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    let log = system.log();
    for controller in ["R456", "R998"] {
        assert!(log.contains(&format!("ArtifactInstall of Component \"rtos.{controller}\" failed")), "{log}");
    }
    system.assert_all_at(1);
}

#[tokio::test]
async fn a_program_that_is_killed_by_a_signal_has_failed_and_the_error_names_the_signal() {
    let system = System::demo().await;
    system.set("G13", "ArtifactInstall.signal", "SEGV");
    let outcome = system.install(2, Options::new()).await.unwrap();
    let message = outcome.faulty("rolled-back", "InterfaceFailed");
    assert!(message.contains("signal 11") || message.contains("SIGSEGV"), "{message}");
    system.assert_all_at(1);
}

/// After a failure the same Manifest can be installed once the cause is gone.
#[tokio::test]
async fn a_mended_system_takes_the_manifest_that_failed_before() {
    let (system, _) = failing("ArtifactCommit").await;
    system.unset("R456", "ArtifactCommit.fail");
    system.install(2, Options::new()).await.unwrap().clean("done");
    system.assert_all_at(2);
    assert_eq!(system.update().await.last_error().await.unwrap(), (String::new(), String::new()));
}
