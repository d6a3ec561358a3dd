//! `mender-orchestrator` as the update module of the Mender client calls it, with the exit codes that it goes by.

use std::fs;
use std::process::Output;

use orchestrator_tests::system::System;

const MODULE_INSTALL: [&str; 8] = [
    "install",
    "--stop-before",
    "ArtifactCommit",
    "--stop-before",
    "ArtifactRollback",
    "--stop-before",
    "Cleanup",
    "--exit-on-reboot",
];
const MODULE_COMMIT: [&str; 5] = ["resume", "--stop-before", "ArtifactRollback", "--stop-before", "Cleanup"];
const MODULE_ROLLBACK: [&str; 4] = ["rollback", "--stop-before", "Cleanup", "--exit-on-reboot"];
const MODULE_CLEANUP: [&str; 1] = ["resume"];

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The four calls that the module makes, by what the client calls them.
trait Module {
    async fn module(&self, call: &str) -> i32;
    async fn is_over(&self);
}

impl Module for System {
    async fn module(&self, call: &str) -> i32 {
        let file = self.manifest_file(2);
        let output = match call {
            "ArtifactInstall" => {
                if !file.exists() {
                    self.manifest(2);
                }
                let file = file.to_str().unwrap();
                self.mender(&MODULE_INSTALL.into_iter().chain([file]).collect::<Vec<_>>()).await
            }
            "ArtifactCommit" => self.mender(&MODULE_COMMIT).await,
            "ArtifactRollback" => self.mender(&MODULE_ROLLBACK).await,
            "Cleanup" => self.mender(&MODULE_CLEANUP).await,
            _ => panic!("{call}"),
        };
        assert_eq!(output.stdout, b"", "nothing but data may go to standard output");
        eprintln!("{call}: {}\n{}", output.status, said(&output));
        code(&output)
    }

    /// Nothing is in progress any more, and the tool says so.
    async fn is_over(&self) {
        for word in ["resume", "rollback"] {
            let output = self.mender(&[word]).await;
            assert_eq!(code(&output), 1);
            let expected = if word == "resume" { "nothing to resume" } else { "nothing to roll back" };
            assert!(said(&output).contains(expected), "{}", said(&output));
        }
        self.assert_cleaned_up();
    }
}

const FORWARD: [&str; 4] = ["Download G13", "ArtifactInstall G13", "Download R456 R998", "ArtifactInstall R456 R998"];
const COMMIT: [&str; 2] = ["ArtifactCommit G13", "ArtifactCommit R456 R998"];
const CLEANUP: [&str; 2] = ["Cleanup G13", "Cleanup R456 R998"];

fn trace(parts: &[&[&str]]) -> Vec<String> {
    parts.concat().into_iter().map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn module_flow_without_reboot() {
    let system = System::demo().await;
    assert_eq!(system.module("ArtifactInstall").await, 0);
    assert_eq!(system.trace(), FORWARD);
    fs::remove_file(system.manifest_file(2)).unwrap();
    assert_eq!(system.module("ArtifactCommit").await, 0);
    assert_eq!(system.trace(), trace(&[&FORWARD, &COMMIT]));
    assert_eq!(system.module("Cleanup").await, 0);
    assert_eq!(system.trace(), trace(&[&FORWARD, &COMMIT, &CLEANUP]));
    system.assert_all_at(2);
    system.is_over().await;
}

#[tokio::test]
async fn module_flow_with_a_reboot_of_the_host_in_the_first_group() {
    let mut system = System::demo().await;
    system.set("G13", "needs-reboot", "Automatic");
    assert_eq!(system.module("ArtifactInstall").await, 4);
    assert_eq!(system.trace(), FORWARD[..2]);
    system.reboot().await;
    assert_eq!(system.module("ArtifactCommit").await, 0);
    assert_eq!(system.trace(), trace(&[&FORWARD[..2], &["ArtifactVerifyReboot G13"], &FORWARD[2..], &COMMIT]));
    assert_eq!(system.module("Cleanup").await, 0);
    system.assert_all_at(2);
    system.is_over().await;
}

#[tokio::test]
async fn module_flow_with_a_reboot_of_the_host_in_the_last_group() {
    let mut system = System::demo().await;
    system.set("R456", "needs-reboot", "Automatic");
    assert_eq!(system.module("ArtifactInstall").await, 4);
    assert_eq!(system.trace(), FORWARD);
    system.reboot().await;
    assert_eq!(system.module("ArtifactCommit").await, 0);
    assert_eq!(system.trace(), trace(&[&FORWARD, &["ArtifactVerifyReboot R456"], &COMMIT]));
    assert_eq!(system.module("Cleanup").await, 0);
    system.assert_all_at(2);
    system.is_over().await;
}

/// The module's rollback of a properly rolled back System must be a success, or the client calls it inconsistent.
#[tokio::test]
async fn module_flow_with_a_failure_before_any_reboot() {
    for (switch, rollback) in [
        ("ArtifactInstall.fail", true),
        ("ArtifactInstall.fail-late", true),
        ("NeedsArtifactReboot.fail", true),
        ("Download.fail", true),
    ] {
        let system = System::demo().await;
        system.set("R998", switch, "");
        assert_eq!(system.module("ArtifactInstall").await, 1);
        assert!(!system.trace().iter().any(|step| step.starts_with("ArtifactRollback")), "{:?}", system.trace());
        assert_eq!(system.module("ArtifactRollback").await, 0);
        assert!(!system.trace().iter().any(|step| step.starts_with("Cleanup")), "{:?}", system.trace());
        assert_eq!(system.trace().contains(&"ArtifactRollback G13".to_owned()), rollback);
        system.assert_all_at(1);
        assert_eq!(system.module("Cleanup").await, 0);
        system.is_over().await;
    }
}

#[tokio::test]
async fn module_flow_with_a_failing_download_in_the_lowest_group_rolls_nothing_back() {
    let system = System::demo().await;
    system.set("G13", "Download.fail", "");
    assert_eq!(system.module("ArtifactInstall").await, 1);
    assert_eq!(system.trace(), ["Download G13"]);
    assert_eq!(system.update().await.stopped_before().await.unwrap(), "Cleanup");
    assert_eq!(system.module("ArtifactRollback").await, 0);
    assert_eq!(system.trace(), ["Download G13"]);
    assert_eq!(system.module("Cleanup").await, 0);
    assert_eq!(system.trace(), ["Download G13", "Cleanup G13"]);
    system.is_over().await;
}

#[tokio::test]
async fn module_flow_with_a_failure_in_the_commit() {
    let system = System::demo().await;
    system.set("R998", "ArtifactCommit.fail", "");
    assert_eq!(system.module("ArtifactInstall").await, 0);
    assert_eq!(system.module("ArtifactCommit").await, 1);
    assert_eq!(system.trace(), trace(&[&FORWARD, &COMMIT]));
    assert_eq!(system.update().await.stopped_before().await.unwrap(), "ArtifactRollback");
    assert_eq!(system.module("ArtifactRollback").await, 0);
    system.assert_all_at(1);
    assert_eq!(system.module("Cleanup").await, 0);
    system.is_over().await;
}

/// The client meets this failure in its `ArtifactCommit`; the way back needs another reboot of the host.
#[tokio::test]
async fn module_flow_with_a_failure_after_the_reboot() {
    let mut system = System::demo().await;
    system.set("R456", "needs-reboot", "Automatic");
    system.set("R456", "ArtifactVerifyReboot.fail", "");
    assert_eq!(system.module("ArtifactInstall").await, 4);
    system.reboot().await;
    assert_eq!(system.module("ArtifactCommit").await, 1);
    assert_eq!(system.module("ArtifactRollback").await, 4);
    assert_eq!(system.trace(), trace(&[&FORWARD, &["ArtifactVerifyReboot R456", "ArtifactRollback R456 R998"]]));
    system.reboot().await;
    assert_eq!(system.module("Cleanup").await, 0);
    assert_eq!(
        system.trace()[6..],
        [
            "ArtifactVerifyRollbackReboot R456",
            "ArtifactFailure R456 R998",
            "ArtifactRollback G13",
            "ArtifactFailure G13",
            "Cleanup G13",
            "Cleanup R456 R998",
        ]
    );
    system.assert_all_at(1);
    system.is_over().await;
}

/// A later step of the client failed after our commit: the module asks for the way back.
#[tokio::test]
async fn module_flow_with_a_rollback_after_the_commit() {
    let system = System::demo().await;
    assert_eq!(system.module("ArtifactInstall").await, 0);
    assert_eq!(system.module("ArtifactCommit").await, 0);
    assert_eq!(system.module("ArtifactRollback").await, 0);
    assert_eq!(
        system.trace()[6..],
        ["ArtifactRollback R456 R998", "ArtifactFailure R456 R998", "ArtifactRollback G13", "ArtifactFailure G13"]
    );
    system.assert_all_at(1);
    assert_eq!(system.module("Cleanup").await, 0);
    system.is_over().await;
    assert_eq!(system.update().await.manifest().await.unwrap(), "", "release 2 is not what is installed");
}

/// All is installed already: no call, but the calls of the module that follow find something to end.
#[tokio::test]
async fn module_flow_with_nothing_to_do() {
    let system = System::demo().await;
    let manifest = system.manifest_file(2);
    system.manifest(2);
    assert_eq!(code(&system.mender(&["install", manifest.to_str().unwrap()]).await), 0);
    system.assert_all_at(2);
    system.forget_calls();
    assert_eq!(system.module("ArtifactInstall").await, 0);
    assert_eq!(system.module("ArtifactCommit").await, 0);
    assert_eq!(system.module("Cleanup").await, 0);
    assert_eq!(system.full_trace(), [""; 0]);
    system.is_over().await;

    assert_eq!(system.module("ArtifactInstall").await, 0);
    assert_eq!(system.module("ArtifactRollback").await, 0);
    assert_eq!(system.module("Cleanup").await, 0);
    assert_eq!(system.full_trace(), [""; 0]);
    system.assert_all_at(2);
    system.is_over().await;

    // Without stops nothing is left to end.
    assert_eq!(code(&system.mender(&["install", manifest.to_str().unwrap()]).await), 0);
    system.is_over().await;
}

/// With stops, a Manifest that is refused leaves a record that rollback and resume can end.
#[tokio::test]
async fn module_flow_with_a_manifest_that_is_refused() {
    let system = System::demo().await;
    fs::write(system.manifest_file(2), "api_version: mender/v1\nkind: manifest\n").unwrap();
    assert_eq!(system.module("ArtifactInstall").await, 1);
    assert_eq!(system.module("ArtifactRollback").await, 0);
    assert_eq!(system.module("Cleanup").await, 0);
    system.is_over().await;

    // The client may skip the rollback.
    assert_eq!(system.module("ArtifactInstall").await, 1);
    assert_eq!(system.module("Cleanup").await, 0);
    system.is_over().await;
    assert_eq!(system.full_trace(), [""; 0]);
    system.assert_all_at(1);
}

/// Without stops it leaves nothing behind.
#[tokio::test]
async fn a_refused_manifest_without_stops_leaves_nothing_in_progress() {
    let system = System::demo().await;
    let file = system.manifest_file(2);
    let text = system.manifest(2);
    fs::write(&file, text.replace("order: 20", "order: 200")).unwrap();
    let output = system.mender(&["install", file.to_str().unwrap()]).await;
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("manifest:13:14: ") && said(&output).contains("order"), "{}", said(&output));
    system.is_over().await;
    assert_eq!(system.full_trace(), [""; 0]);
}

/// A System that cannot go back: refused, nothing changed, and the way there still open.
#[tokio::test]
async fn rollback_before_the_commit_is_refused_if_a_component_cannot_go_back() {
    let system = System::demo().await;
    system.set("R998", "supports-rollback", "No");
    assert_eq!(system.module("ArtifactInstall").await, 0);
    let output = system.mender(&MODULE_ROLLBACK).await;
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("cannot be rolled back"), "{}", said(&output));
    assert_eq!(system.trace(), FORWARD);
    assert_eq!(system.update().await.stopped_before().await.unwrap(), "ArtifactCommit");
    assert_eq!(system.module("ArtifactCommit").await, 0);
    assert_eq!(system.module("ArtifactRollback").await, 1, "nor after it");
    assert_eq!(system.trace(), trace(&[&FORWARD, &COMMIT]));
    assert_eq!(system.module("Cleanup").await, 0);
    system.assert_all_at(2);
    system.is_over().await;
}

#[tokio::test]
async fn an_inconsistent_system_is_a_failure_of_rollback_and_of_what_follows() {
    let system = System::demo().await;
    system.set("R998", "ArtifactCommit.fail", "");
    system.set("R456", "supports-rollback", "No");
    assert_eq!(system.module("ArtifactInstall").await, 0);
    assert_eq!(system.module("ArtifactCommit").await, 1);
    assert_eq!(system.module("ArtifactRollback").await, 1);
    assert_eq!(system.module("Cleanup").await, 1);
    system.assert_release("R456", 2);
    system.is_over().await;
}

#[tokio::test]
async fn an_install_is_refused_while_one_is_in_progress_and_leaves_it_untouched() {
    let system = System::demo().await;
    system.manifest(3);
    assert_eq!(system.module("ArtifactInstall").await, 0);
    for arguments in
        [vec!["install", "manifest-3.yaml"], vec!["install", "--stop-before", "Cleanup", "manifest-3.yaml"]]
    {
        let output = system.mender(&arguments).await;
        assert_eq!(code(&output), 1);
        assert!(said(&output).contains("rests before ArtifactCommit"), "{}", said(&output));
    }
    assert_eq!(system.trace(), FORWARD);
    assert_eq!(system.module("ArtifactCommit").await, 0);
    assert_eq!(system.module("Cleanup").await, 0);
    system.assert_all_at(2);
}

/// Options may stand before the file or after it; a relative Artifact lies beside the Manifest, wherever the tool runs.
#[tokio::test]
async fn install_takes_options_on_both_sides_and_artifacts_beside_the_manifest() {
    let system = System::demo().await;
    let releases = format!("{}/", system.path("releases").display());
    let text = system.manifest(2).replace(&releases, "");
    fs::write(system.manifest_file(2), &text).unwrap();
    let file = system.manifest_file(2);
    let mut command = system.ctl("mender-orchestrator", &["install", "--stop-before", "Cleanup"]);
    let output = command.arg(&file).args(["--exit-on-reboot"]).current_dir("/").output().await.unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    assert_eq!(system.update().await.stopped_before().await.unwrap(), "Cleanup");
    assert_eq!(code(&system.mender(&["resume"]).await), 0);
    system.assert_all_at(2);
}

#[tokio::test]
async fn an_unknown_state_to_stop_before_or_a_missing_file_does_nothing() {
    let system = System::demo().await;
    system.manifest(2);
    for arguments in [
        vec!["install", "--stop-before", "ArtifactReboot", "manifest-2.yaml"],
        vec!["install", "--stop-before", "cleanup", "manifest-2.yaml"],
        vec!["resume", "--stop-before", "Download"],
        vec!["install", "missing.yaml"],
        vec!["install"],
        vec!["commit"],
    ] {
        let output = system.mender(&arguments).await;
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert_ne!(said(&output), "", "{arguments:?}");
    }
    assert_eq!(system.full_trace(), [""; 0]);
    system.is_over().await;
}

/// Each stop by itself, on the way there and on the way back, and resume to the end from there.
#[tokio::test]
async fn each_stop_holds_before_the_first_call_of_its_state_on_both_ways() {
    // (fails, stops, exit code of install, last step before the stop)
    let cases = [
        (false, vec!["ArtifactCommit"], 0, "ArtifactInstall R456 R998"),
        (false, vec!["Cleanup"], 0, "ArtifactCommit R456 R998"),
        (false, vec!["ArtifactRollback"], 0, "Cleanup R456 R998"),
        (true, vec!["ArtifactRollback"], 1, "ArtifactCommit R456 R998"),
        (true, vec!["Cleanup"], 1, "ArtifactFailure G13"),
        (true, vec!["ArtifactCommit"], 0, "ArtifactInstall R456 R998"),
        (true, vec!["ArtifactRollback", "Cleanup"], 1, "ArtifactCommit R456 R998"),
    ];
    for (fails, stops, expected, last) in cases {
        let system = System::demo().await;
        if fails {
            system.set("R998", "ArtifactCommit.fail", "");
        }
        system.manifest(2);
        let mut arguments = vec!["install", "manifest-2.yaml"];
        for stop in &stops {
            arguments.extend(["--stop-before", stop]);
        }
        assert_eq!(code(&system.mender(&arguments).await), expected, "{stops:?} {fails}");
        assert_eq!(system.trace().last().unwrap(), last, "{stops:?} {fails}");
        let stopped = system.update().await.state().await.unwrap() == "waiting";
        assert_eq!(stopped, !last.starts_with("Cleanup"));
        if stopped {
            // The failure may still be ahead; what was told already is not told again.
            let ahead = fails && stops == ["ArtifactCommit"];
            assert_eq!(code(&system.mender(&["resume"]).await), i32::from(ahead), "{stops:?} {fails}");
        }
        system.assert_all_at(if fails { 1 } else { 2 });
        system.is_over().await;
    }
}

/// A second group that needs the host rebooted does so inside the client's `ArtifactCommit`, where the tool may not exit
/// with 4: the daemon reboots by itself, and goes on to the stop afterwards.
#[tokio::test]
async fn a_reboot_in_a_later_group_during_the_modules_commit_is_survived() {
    let mut system = System::demo().await;
    for instance in ["G13", "R456"] {
        system.set(instance, "needs-reboot", "Automatic");
    }
    assert_eq!(system.module("ArtifactInstall").await, 4);
    system.reboot().await;
    let mut commit = system.ctl("mender-orchestrator", &MODULE_COMMIT).spawn().unwrap();
    system.wait_for_reboot_request(1).await;
    // The tool goes down with the host.
    commit.kill().await.unwrap();
    system.reboot().await;
    assert_eq!(system.wait_for_rest().await, "waiting");
    assert_eq!(system.update().await.stopped_before().await.unwrap(), "Cleanup");
    // The client takes this for a spontaneous reboot and rolls back.
    assert_eq!(system.module("ArtifactRollback").await, 4);
    system.reboot().await;
    // The gateway has to be rebooted on its way back too, and Cleanup may not exit with 4 either.
    let mut cleanup = system.ctl("mender-orchestrator", &MODULE_CLEANUP).spawn().unwrap();
    system.wait_for_reboot_request(2).await;
    cleanup.kill().await.unwrap();
    system.reboot().await;
    assert_eq!(system.wait_for_rest().await, "idle");
    system.assert_all_at(1);
}
