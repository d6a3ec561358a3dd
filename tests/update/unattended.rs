//! What the daemon does by itself after a restart, and what the first caller after that is told.

use orchestrator_tests::system::{System, stop_before};
use orchestratord_dbus::Options;
use serde_json::Value;

/// A System whose daemon died in the middle of an installation; nobody follows. The next daemon has gone on.
async fn died_and_came_back(points: &[&str]) -> System {
    let mut system = System::demo().await;
    system.set("R456", "ArtifactInstall.hang", "");
    drop(system.begin(2, stop_before(points)).await.unwrap());
    system.wait_for_call("R456", "ArtifactInstall").await;
    system.kill_daemon();
    system.unset("R456", "ArtifactInstall.hang");
    system.start_daemon().await;
    system.wait_for_rest().await;
    system
}

#[tokio::test]
async fn resuming_to_where_it_rests_already_tells_the_failure_once() {
    let system = died_and_came_back(&["ArtifactRollback"]).await;
    let resume = ["resume", "--stop-before", "ArtifactRollback"];
    let output = system.mender(&resume).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(system.count("R456", "ArtifactRollback"), 0);
    // It was told now.
    assert_eq!(system.mender(&resume).await.status.code(), Some(0));
    assert_eq!(system.mender(&["resume"]).await.status.code(), Some(0));
    system.assert_all_at(1);
}

#[tokio::test]
async fn resuming_what_failed_and_went_back_alone_tells_the_failure() {
    let system = died_and_came_back(&["Cleanup"]).await;
    system.resume(Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    system.assert_all_at(1);
}

/// The update module: after a reboot in `ArtifactInstall` the client calls `rollback` and `Cleanup`, and both must succeed.
#[tokio::test]
async fn taking_back_what_failed_alone_is_a_success() {
    let system = died_and_came_back(&["ArtifactCommit", "ArtifactRollback", "Cleanup"]).await;
    let rollback = system.mender(&["rollback", "--stop-before", "Cleanup", "--exit-on-reboot"]).await;
    assert_eq!(rollback.status.code(), Some(0), "{}", String::from_utf8_lossy(&rollback.stderr));
    assert_eq!(system.mender(&["resume"]).await.status.code(), Some(0));
    system.assert_all_at(1);
}

#[tokio::test]
async fn an_end_that_was_followed_is_not_told_again() {
    let mut system = System::demo().await;
    system.set("R456", "ArtifactInstall.hang", "");
    let manifest = system.manifest(2);
    assert!(!manifest.is_empty());
    let path = system.manifest_file(2);
    let program = system.ctl("orchestratorctl", &["install", path.to_str().unwrap()]).output();
    let program = tokio::spawn(program);
    system.wait_for_call("R456", "ArtifactInstall").await;
    system.kill_daemon();
    system.unset("R456", "ArtifactInstall.hang");
    system.start_daemon().await;
    assert_eq!(program.await.unwrap().unwrap().status.code(), Some(15));
    let (name, _) = system.resume(Options::new()).await.unwrap_err();
    assert_eq!(name, "org.orchestratord1.Error.NothingInProgress");
}

/// Nobody has asked the Components since the daemon is back, and no lines would look like a System without any.
#[tokio::test]
async fn an_inventory_in_the_middle_of_a_recovery_is_no_empty_one() {
    let mut system = System::demo().await;
    system.set("R456", "ArtifactInstall.hang", "");
    drop(system.begin(2, Options::new()).await.unwrap());
    system.wait_for_call("R456", "ArtifactInstall").await;
    // While the first daemon works it answers from what it knows.
    assert_eq!(system.mender(&["show-inventory"]).await.status.code(), Some(0));
    system.kill_daemon();
    system.unset("R456", "ArtifactInstall.hang");
    system.set("R456", "ArtifactRollback.hang", "");
    system.start_daemon().await;
    system.wait_for_call("R456", "ArtifactRollback").await;
    let output = system.ctl("orchestratorctl", &["inventory"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(output.stdout.is_empty() && said.contains("at work on a deployment"), "{said}");
}

#[tokio::test]
async fn a_reload_changes_what_is_logged() {
    let mut system = System::demo().await;
    let debug = " DEBUG orchestratord";
    assert!(!system.log().contains(debug));
    system.configure("LogLevel", Value::from("debug"));
    let reload = async |system: &System| {
        let output = system.ctl("orchestratorctl", &["reload"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    reload(&system).await;
    // It says so when it answers from what it knows.
    system.set("R456", "Download.sleep", "2");
    let job = system.begin(2, Options::new()).await.unwrap();
    system.wait_for_call("R456", "Download").await;
    system.mender(&["show-inventory"]).await;
    assert!(system.log().contains(debug), "{}", system.log());
    job.wait().await.unwrap();
    system.configure("LogLevel", Value::from("error"));
    reload(&system).await;
    let lines = system.log().lines().count();
    system.mender(&["show-inventory"]).await;
    assert_eq!(
        system.log().lines().skip(lines).filter(|line| !line.contains(" ERROR ")).count(),
        0,
        "{}",
        system.log()
    );
}
