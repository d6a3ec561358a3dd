//! The way back: who takes part, what is asked, how often it is tried, and when the System is given up as inconsistent.

use orchestrator_tests::system::{System, deferred};
use orchestratord_dbus::{ManagerProxy, Options};

async fn manager_state(system: &System) -> String {
    ManagerProxy::new(system.connection()).await.unwrap().state().await.unwrap()
}

#[tokio::test]
async fn rollback_is_asked_once_for_all_groups_before_the_first_rollback() {
    let system = System::demo().await;
    system.set("R998", "ArtifactCommit.fail", "");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    assert_eq!(
        system.full_trace()[6..],
        [
            "ArtifactCommit G13",
            "ArtifactCommit R456 R998",
            "SupportsRollback G13 R456 R998",
            "ArtifactRollback R456 R998",
            "ArtifactFailure R456 R998",
            "ArtifactRollback G13",
            "ArtifactFailure G13",
            "Cleanup G13",
            "Cleanup R456 R998",
        ]
    );
    system.assert_all_at(1);
}

/// A Component that only downloaded is neither asked nor taken back.
#[tokio::test]
async fn only_components_whose_install_began_are_asked_and_taken_back() {
    let system = System::demo().await;
    system.set("R456", "Download.fail", "");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    for word in ["SupportsRollback", "ArtifactRollback", "ArtifactFailure", "NeedsArtifactReboot"] {
        assert_eq!(system.count("G13", word), 1, "{word}");
        assert_eq!(system.count("R456", word) + system.count("R998", word), 0, "{word}");
    }
    assert_eq!(system.count("R456", "Cleanup"), 1);
    assert_eq!(system.count("R998", "Cleanup"), 1);
}

/// Asked late, because `ArtifactInstall` failed before its turn; `Yes` leads to a reboot of the Component.
#[tokio::test]
async fn a_late_needs_reboot_of_yes_reboots_the_component_after_its_rollback() {
    let system = System::demo().await;
    system.set("G13", "ArtifactInstall.fail-late", "");
    system.set("G13", "needs-reboot", "Yes");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    assert_eq!(
        system.full_trace()[1..],
        [
            "ArtifactInstall G13",
            "SupportsRollback G13",
            "ArtifactRollback G13",
            "NeedsArtifactReboot G13",
            "ArtifactRollbackReboot G13",
            "ArtifactVerifyRollbackReboot G13",
            "ArtifactFailure G13",
            "Cleanup G13",
        ]
    );
    system.assert_all_at(1);
}

/// The host was not rebooted on the way there, so the way back needs no reboot of it either.
#[tokio::test]
async fn a_late_needs_reboot_of_automatic_or_nonsense_reboots_nothing() {
    for answer in ["Automatic", "Maybe"] {
        let system = System::demo().await;
        system.set("G13", "ArtifactInstall.fail-late", "");
        system.set("G13", "needs-reboot", answer);
        system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
        assert_eq!(
            system.full_trace()[3..],
            ["ArtifactRollback G13", "NeedsArtifactReboot G13", "ArtifactFailure G13", "Cleanup G13"],
            "{answer}"
        );
        system.assert_all_at(1);
    }
}

/// Once asked, the answer stands: after the rollback the Component may not know any more what it needed.
#[tokio::test]
async fn needs_reboot_is_asked_once_in_a_deployment() {
    let system = System::demo().await;
    system.set("R998", "needs-reboot", "Yes");
    system.set("R998", "ArtifactVerifyReboot.fail", "");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    for instance in ["G13", "R456", "R998"] {
        assert_eq!(system.count(instance, "NeedsArtifactReboot"), 1, "{instance}");
        assert_eq!(system.count(instance, "SupportsRollback"), 1, "{instance}");
    }
    assert_eq!(system.count("R998", "ArtifactRollbackReboot"), 1);
    assert_eq!(system.count("R456", "ArtifactRollbackReboot"), 0);
}

#[tokio::test]
async fn without_rollback_support_a_failure_is_told_and_the_system_is_inconsistent() {
    for (file, content) in [
        ("supports-rollback", "No"),
        ("supports-rollback", ""),
        ("supports-rollback", "Perhaps"),
        ("supports-rollback", "Yes\nYes"),
        ("SupportsRollback.fail", ""),
    ] {
        let system = System::demo().await;
        system.set("R456", file, content);
        system.set("R998", "ArtifactInstall.fail", "");
        let outcome = system.install(2, Options::new()).await.unwrap();
        outcome.faulty("inconsistent", "Inconsistent");
        assert_eq!(
            system.trace()[4..],
            [
                "ArtifactRollback R998",
                "ArtifactFailure R456 R998",
                "ArtifactRollback G13",
                "ArtifactFailure G13",
                "Cleanup G13",
                "Cleanup R456 R998",
            ],
            "{file}: {content}"
        );
        system.assert_release("G13", 1);
        system.assert_release("R456", 2);
        system.assert_release("R998", 1);
        assert_eq!(manager_state(&system).await, "degraded");
    }
}

/// It stays known over a restart, and until a deployment succeeds.
#[tokio::test]
async fn an_inconsistent_system_is_degraded_until_a_deployment_succeeds() {
    let mut system = System::demo().await;
    system.set("R456", "supports-rollback", "No");
    system.set("R998", "ArtifactInstall.fail", "1");
    let outcome = system.install(2, Options::new()).await.unwrap();
    let message = outcome.faulty("inconsistent", "Inconsistent").to_owned();
    assert!(message.contains("rtos.R998"), "the cause is named: {message}");
    assert!(system.stop_daemon().await.success());
    system.start_daemon().await;
    assert_eq!(manager_state(&system).await, "degraded");
    assert_eq!(system.update().await.last_error().await.unwrap().1, message);
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(manager_state(&system).await, "idle");
    system.assert_all_at(2);
}

#[tokio::test]
async fn a_failed_rollback_makes_the_system_inconsistent_and_still_goes_to_the_end() {
    let system = System::demo().await;
    system.set("R998", "ArtifactCommit.fail", "");
    system.set("R456", "ArtifactRollback.fail", "");
    system.install(2, Options::new()).await.unwrap().faulty("inconsistent", "Inconsistent");
    assert_eq!(
        system.trace()[6..],
        [
            "ArtifactRollback R456 R998",
            "ArtifactFailure R456 R998",
            "ArtifactRollback G13",
            "ArtifactFailure G13",
            "Cleanup G13",
            "Cleanup R456 R998",
        ]
    );
    system.assert_release("G13", 1);
    system.assert_release("R998", 1);
}

/// The old slot may boot all the same, and the verification decides.
#[tokio::test]
async fn a_failed_rollback_still_leads_to_the_rollback_reboot() {
    let system = System::demo().await;
    system.set("R998", "needs-reboot", "Yes");
    system.set("R998", "ArtifactVerifyReboot.fail", "");
    system.set("R998", "ArtifactRollback.fail-late", "");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    assert_eq!(system.count("R998", "ArtifactRollbackReboot"), 1);
    assert_eq!(system.count("R998", "ArtifactVerifyRollbackReboot"), 1);
    system.assert_all_at(1);
}

#[tokio::test]
async fn a_failed_rollback_reboot_or_failure_state_is_ignored() {
    for word in ["ArtifactRollbackReboot", "ArtifactFailure"] {
        let system = System::demo().await;
        system.set("R998", "needs-reboot", "Yes");
        system.set("R998", "ArtifactVerifyReboot.fail", "");
        system.set("R998", &format!("{word}.fail"), "");
        let outcome = system.install(2, Options::new()).await.unwrap();
        let message = outcome.faulty("rolled-back", "InterfaceFailed");
        assert!(message.contains("ArtifactVerifyReboot"), "the cause, not what followed: {message}");
        assert!(system.log().contains(&format!("{word} of Component \"rtos.R998\" failed")), "{}", system.log());
        system.assert_all_at(1);
        system.assert_cleaned_up();
    }
}

#[tokio::test]
async fn a_rollback_reboot_that_does_not_verify_is_tried_again_for_that_component_only() {
    let system = System::demo().await;
    for controller in ["R456", "R998"] {
        system.set(controller, "needs-reboot", "Yes");
    }
    system.set("R998", "ArtifactVerifyReboot.fail", "");
    system.set("R998", "ArtifactVerifyRollbackReboot.fail", "2");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    assert_eq!(
        system.trace()[6..],
        [
            "ArtifactRollback R456 R998",
            "ArtifactRollbackReboot R456 R998",
            "ArtifactVerifyRollbackReboot R456 R998",
            "ArtifactRollbackReboot R998",
            "ArtifactVerifyRollbackReboot R998",
            "ArtifactRollbackReboot R998",
            "ArtifactVerifyRollbackReboot R998",
            "ArtifactFailure R456 R998",
            "ArtifactRollback G13",
            "ArtifactFailure G13",
            "Cleanup G13",
            "Cleanup R456 R998",
        ]
    );
    system.assert_all_at(1);
}

#[tokio::test]
async fn rollback_reboots_are_bounded_then_failure_and_cleanup_follow_and_the_system_is_inconsistent() {
    let system = System::demo().await;
    system.set("R998", "needs-reboot", "Yes");
    system.set("R998", "ArtifactVerifyReboot.fail", "");
    system.set("R998", "ArtifactVerifyRollbackReboot.fail", "");
    let outcome = system.install(2, Options::new()).await.unwrap();
    let message = outcome.faulty("inconsistent", "Inconsistent");
    assert!(message.contains("rtos.R998"), "{message}");
    assert_eq!(system.count("R998", "ArtifactRollbackReboot"), 5);
    assert_eq!(system.count("R998", "ArtifactVerifyRollbackReboot"), 5);
    let steps = system.trace();
    assert_eq!(
        steps[steps.len() - 5..],
        [
            "ArtifactFailure R456 R998",
            "ArtifactRollback G13",
            "ArtifactFailure G13",
            "Cleanup G13",
            "Cleanup R456 R998"
        ]
    );
}

/// The same with the host: it is rebooted again until the verification succeeds, once per try for the whole group.
#[tokio::test]
async fn rollback_reboots_of_the_host_are_tried_again_and_bounded() {
    for (fails, reboots, result) in [("1", 3, "rolled-back"), ("", 6, "inconsistent")] {
        let mut system = System::new(&[("rtos", "A1", 1), ("rtos", "A2", 1)]).await;
        for instance in ["A1", "A2"] {
            system.set(instance, "needs-reboot", "Automatic");
        }
        system.set("A2", "ArtifactVerifyReboot.fail", "");
        system.set("A2", "ArtifactVerifyRollbackReboot.fail", fails);
        system.start_daemon().await;
        system.install(2, deferred()).await.unwrap().clean("reboot-required");
        let mut count = 0;
        let outcome = loop {
            count += 1;
            system.reboot().await;
            let outcome = system.resume(deferred()).await.unwrap();
            if outcome.result != "reboot-required" {
                break outcome;
            }
        };
        assert_eq!((outcome.result.as_str(), count), (result, reboots));
        assert_eq!(system.count("A1", "ArtifactVerifyRollbackReboot"), 1, "A1 was verified at the first try");
        assert_eq!(system.count("A2", "ArtifactVerifyRollbackReboot"), reboots - 1);
        assert_eq!(system.count("A1", "ArtifactRollbackReboot"), 0, "the host reboots in its place");
        for instance in ["A1", "A2"] {
            assert_eq!(system.count(instance, "ArtifactFailure"), 1);
            assert_eq!(system.count(instance, "Cleanup"), 1);
        }
        system.assert_all_at(1);
        system.assert_cleaned_up();
    }
}
