//! The update module that Mender Orchestrator comes with, driven as the Mender client drives it, with our command line under it.
//!
//! What the module does is played by `tests/mender/original-module`; `ORIGINAL_MODULE` names another program to be driven instead,
//! such as the genuine one. The client is played here: its directory, the order of its calls, what it does after a failure and after a
//! reboot that it did not ask for. These are the rules of its version 5.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use orchestrator_tests::system::{HOST_REBOOT, System};
use orchestrator_tests::{binary, repository};

const INSTALL: &str = "install --stop-before ArtifactCommit --stop-before ArtifactRollback --stop-before Cleanup --exit-on-reboot manifest.yaml";
const COMMIT: &str = "resume --stop-before ArtifactRollback --stop-before Cleanup";
const ROLLBACK: &str = "rollback --stop-before Cleanup --exit-on-reboot";
const CLEANUP: &str = "resume";

/// How the client judges its deployment.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Success,
    Failure,
    /// The rollback failed: the client puts a mark on the name of the Artifact.
    Inconsistent,
}

/// What became of a call of the module.
enum Call {
    Ended(i32, String),
    /// The host was rebooted under it, by the daemon.
    Cut,
}

/// A Mender client on a System.
struct Client {
    system: System,
    /// Program of the module.
    module: PathBuf,
    /// The calls of the module, and reboots.
    steps: Vec<String>,
    /// The calls of `mender-orchestrator` that came to their end, in the order in which they did.
    calls: Vec<String>,
    /// Reboots of the daemon that were carried out.
    reboots: usize,
    /// State in which the client itself fails, as one of its state scripts would make it.
    fails_in: Option<&'static str>,
}

impl Client {
    async fn new() -> Self {
        let system = System::demo().await;
        for directory in ["client", "programs/real"] {
            fs::create_dir_all(system.path(directory)).unwrap();
        }
        symlink(binary("orchestratorctl"), system.path("programs/real/mender-orchestrator")).unwrap();
        let wrapper = system.path("programs/mender-orchestrator");
        let text = "#!/bin/sh\ncode=0\n\"${0%/*}/real/mender-orchestrator\" \"$@\" || code=$?\n\
                    printf '%s %s\\n' \"$code\" \"$*\" >>\"${0%/*}/calls\"\nexit \"$code\"\n";
        fs::write(&wrapper, text).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let own = || repository().join("tests/mender/original-module");
        let module = std::env::var_os("ORIGINAL_MODULE").map_or_else(own, PathBuf::from);
        Self { system, module, steps: Vec::new(), calls: Vec::new(), reboots: 0, fails_in: None }
    }

    fn tree(&self) -> PathBuf {
        self.system.path("client/tree")
    }

    /// What the client does before the download of a payload.
    fn prepare(&self, files: &[(&str, &str)]) {
        prepare(&self.tree());
        for (name, content) in files {
            fs::write(self.tree().join("files").join(name), content).unwrap();
        }
    }

    /// Calls the module; the host may go down meanwhile.
    async fn call(&mut self, state: &'static str) -> Call {
        if self.fails_in == Some(state) {
            self.steps.push(format!("{state} is not reached"));
            return Call::Ended(1, String::new());
        }
        let path = format!("{}:{}", self.system.path("programs").display(), std::env::var("PATH").unwrap());
        // The directory may be gone; the client goes on then, too.
        let there = self.tree().is_dir();
        let child = tokio::process::Command::new(&self.module)
            .args([Path::new(state), &self.tree()])
            .current_dir(if there { self.tree() } else { self.system.path("client") })
            .env("PATH", path)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.system.bus().address())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let group = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        let output = child.wait_with_output();
        let asked = self.reboots + 1;
        let output = tokio::select! {
            output = output => Some(output.unwrap()),
            () = self.system.wait_for_reboot_request(asked) => None,
        };
        let log = self.system.path("programs/calls");
        let manifest = format!("{}/files/", self.tree().display());
        self.calls.extend(fs::read_to_string(&log).unwrap_or_default().lines().map(|line| line.replace(&manifest, "")));
        fs::remove_file(log).ok();
        let Some(output) = output else {
            self.reboots = asked;
            self.steps.push(format!("{state} reboot"));
            killpg(group, Signal::SIGKILL).unwrap();
            self.system.reboot().await;
            return Call::Cut;
        };
        let (code, answer) = (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap());
        let answer = answer.trim_end().to_owned();
        eprintln!("{state} of the module: {code} {answer}\n{}", String::from_utf8_lossy(&output.stderr));
        let told = if answer.is_empty() { code.to_string() } else { answer.clone() };
        self.steps.push(format!("{state} {told}"));
        Call::Ended(code, answer)
    }

    async fn succeeds(&mut self, state: &'static str) -> bool {
        matches!(self.call(state).await, Call::Ended(0, _))
    }

    async fn answer(&mut self, query: &'static str) -> String {
        match self.call(query).await {
            Call::Ended(0, answer) => answer,
            _ => panic!("{query} fails"),
        }
    }

    async fn reboot(&mut self) {
        self.steps.push("reboot".to_owned());
        self.system.reboot().await;
    }

    /// Installs release 2.
    async fn deploy(&mut self) -> Verdict {
        let manifest = self.system.manifest(2);
        self.deploy_files(&[("manifest.yaml", &manifest)]).await
    }

    /// Installs an Artifact with these payload files.
    async fn deploy_files(&mut self, files: &[(&str, &str)]) -> Verdict {
        self.prepare(files);
        let verdict = if self.goes_forward().await { Verdict::Success } else { self.goes_back().await };
        let cleaned = loop {
            match self.call("Cleanup").await {
                // Whatever Cleanup was cut off at, the client calls it again.
                Call::Cut => {}
                Call::Ended(code, _) => break code == 0,
            }
        };
        if self.tree().exists() {
            fs::remove_dir_all(self.tree()).unwrap();
        }
        match verdict {
            // The first failure makes the deployment fail; one after the rollback was begun makes it inconsistent.
            _ if cleaned => verdict,
            Verdict::Success => Verdict::Failure,
            _ => Verdict::Inconsistent,
        }
    }

    /// To the commit; a reboot that the client has not asked for is a failure in all these states.
    async fn goes_forward(&mut self) -> bool {
        if !self.succeeds("Download").await || !self.succeeds("ArtifactInstall").await {
            return false;
        }
        if self.answer("NeedsArtifactReboot").await == "Automatic" {
            self.reboot().await;
            if !self.succeeds("ArtifactVerifyReboot").await {
                return false;
            }
        }
        self.succeeds("ArtifactCommit").await
    }

    async fn goes_back(&mut self) -> Verdict {
        assert_eq!(self.answer("SupportsRollback").await, "Yes");
        let came_back = loop {
            match self.call("ArtifactRollback").await {
                // The client begins it anew.
                Call::Cut => {}
                Call::Ended(code, _) => break code == 0,
            }
        };
        if came_back && self.answer("NeedsArtifactReboot").await == "Automatic" {
            self.reboot().await;
            assert!(self.succeeds("ArtifactVerifyRollbackReboot").await, "the client would reboot without end");
        }
        let told = self.succeeds("ArtifactFailure").await;
        if came_back && told { Verdict::Failure } else { Verdict::Inconsistent }
    }

    /// Fails the test unless these were the calls of `mender-orchestrator`, with these exit codes.
    #[track_caller]
    fn assert_calls(&self, expected: &[(i32, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(code, arguments)| format!("{code} {arguments}")).collect();
        assert_eq!(self.calls, expected, "{:?}", self.steps);
    }

    /// Fails the test unless all Components are at this release and nothing is open.
    async fn assert_over(&self, release: u32) {
        self.system.assert_all_at(release);
        assert_eq!(self.system.update().await.state().await.unwrap(), "idle");
        self.system.assert_cleaned_up();
        let unforeseen = self.system.lines().iter().filter(|line| *line == HOST_REBOOT).count() - self.reboots;
        assert_eq!(unforeseen, 0, "reboots of the daemon that nobody waited for");
    }
}

/// What every client does to its directory before it installs, also one that an Interface calls while another one works in it.
fn prepare(tree: &Path) {
    if tree.exists() {
        fs::remove_dir_all(tree).unwrap();
    }
    for directory in ["files", "tmp", "streams"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
}

#[tokio::test]
async fn without_a_reboot() {
    let mut client = Client::new().await;
    assert_eq!(client.deploy().await, Verdict::Success);
    client.assert_calls(&[(0, INSTALL), (0, COMMIT), (0, CLEANUP)]);
    assert_eq!(
        client.steps,
        ["Download 0", "ArtifactInstall 0", "NeedsArtifactReboot No", "ArtifactCommit 0", "Cleanup 0"]
    );
    client.assert_over(2).await;
}

#[tokio::test]
async fn with_a_reboot_in_any_one_group() {
    for instance in ["G13", "R456"] {
        let mut client = Client::new().await;
        client.system.set(instance, "needs-reboot", "Automatic");
        assert_eq!(client.deploy().await, Verdict::Success, "{instance}");
        client.assert_calls(&[(4, INSTALL), (0, COMMIT), (0, CLEANUP)]);
        assert_eq!(client.steps[2..4], ["NeedsArtifactReboot Automatic", "reboot"]);
        client.assert_over(2).await;
    }
}

/// `Download` of the lowest group among them: it goes to `Cleanup` without any rollback.
#[tokio::test]
async fn with_a_failure_before_the_reboot() {
    for (instance, state) in [
        ("G13", "Download"),
        ("G13", "ArtifactInstall"),
        ("R456", "Download"),
        ("R456", "ArtifactInstall"),
        ("R998", "NeedsArtifactReboot"),
    ] {
        let mut client = Client::new().await;
        client.system.set(instance, &format!("{state}.fail"), "");
        assert_eq!(client.deploy().await, Verdict::Failure, "{instance} {state}");
        client.assert_calls(&[(1, INSTALL), (0, ROLLBACK), (0, CLEANUP)]);
        assert_eq!(
            client.steps[1..5],
            ["ArtifactInstall 1", "SupportsRollback Yes", "ArtifactRollback 0", "NeedsArtifactReboot No"]
        );
        client.assert_over(1).await;
    }
}

#[tokio::test]
async fn with_a_failure_after_the_reboot() {
    for (instance, state) in [
        ("G13", "ArtifactVerifyReboot"),
        ("R456", "Download"),
        ("R456", "ArtifactInstall"),
        ("G13", "ArtifactCommit"),
        ("R998", "ArtifactCommit"),
    ] {
        let mut client = Client::new().await;
        client.system.set("G13", "needs-reboot", "Automatic");
        client.system.set(instance, &format!("{state}.fail"), "");
        assert_eq!(client.deploy().await, Verdict::Failure, "{instance} {state}");
        client.assert_calls(&[(4, INSTALL), (1, COMMIT), (4, ROLLBACK), (0, CLEANUP)]);
        assert_eq!(
            client.steps[4..],
            [
                "ArtifactVerifyReboot 0",
                "ArtifactCommit 1",
                "SupportsRollback Yes",
                "ArtifactRollback 0",
                "NeedsArtifactReboot Automatic",
                "reboot",
                "ArtifactVerifyRollbackReboot 0",
                "ArtifactFailure 0",
                "Cleanup 0"
            ]
        );
        client.assert_over(1).await;
    }
}

#[tokio::test]
async fn with_a_failure_of_the_commit() {
    let mut client = Client::new().await;
    client.system.set("R998", "ArtifactCommit.fail", "");
    assert_eq!(client.deploy().await, Verdict::Failure);
    client.assert_calls(&[(0, INSTALL), (1, COMMIT), (0, ROLLBACK), (0, CLEANUP)]);
    client.assert_over(1).await;
}

/// A state script of the client fails, so nothing is known of it here until the rollback is asked for.
#[tokio::test]
async fn with_a_failure_of_the_client_itself() {
    for reboots in [false, true] {
        let mut client = Client::new().await;
        if reboots {
            client.system.set("G13", "needs-reboot", "Automatic");
        }
        client.fails_in = Some("ArtifactCommit");
        assert_eq!(client.deploy().await, Verdict::Failure);
        let code = if reboots { 4 } else { 0 };
        client.assert_calls(&[(code, INSTALL), (code, ROLLBACK), (0, CLEANUP)]);
        client.assert_over(1).await;
    }
}

/// Refused before any Component was called: `rollback` and `resume` succeed all the same.
#[tokio::test]
async fn with_a_manifest_that_is_refused() {
    let mut client = Client::new().await;
    let manifest = client.system.manifest(2);
    let other_type = manifest.replace("system_types_compatible:", "system_types_compatible: [another]\nx-old:");
    for refused in ["kind: nonsense\n", &manifest.replace("order: 20", "order: 200"), &other_type, ""] {
        client.calls.clear();
        assert_eq!(client.deploy_files(&[("manifest.yaml", refused)]).await, Verdict::Failure, "{refused}");
        client.assert_calls(&[(1, INSTALL), (0, ROLLBACK), (0, CLEANUP)]);
        assert_eq!(client.system.full_trace(), [""; 0]);
        client.assert_over(1).await;
    }
    // What follows is not disturbed by it.
    client.calls.clear();
    assert_eq!(client.deploy().await, Verdict::Success);
    client.assert_calls(&[(0, INSTALL), (0, COMMIT), (0, CLEANUP)]);
}

/// The module fails before it calls anything. It asks for a rollback nevertheless, of which there is nothing; only our own module
/// knows better.
#[tokio::test]
async fn with_an_artifact_that_the_module_itself_refuses() {
    let mut client = Client::new().await;
    let manifest = client.system.manifest(2);
    let verdict = client.deploy_files(&[("manifest.yaml", &manifest), ("other.yaml", &manifest)]).await;
    assert_eq!(verdict, Verdict::Inconsistent);
    client.assert_calls(&[(1, ROLLBACK), (1, CLEANUP)]);
    client.assert_over(1).await;
}

#[tokio::test]
async fn with_nothing_to_do() {
    let mut client = Client::new().await;
    assert_eq!(client.deploy().await, Verdict::Success);
    client.system.forget_calls();
    client.calls.clear();
    assert_eq!(client.deploy().await, Verdict::Success);
    client.assert_calls(&[(0, INSTALL), (0, COMMIT), (0, CLEANUP)]);
    assert_eq!(client.system.full_trace(), [""; 0]);
    client.assert_over(2).await;
}

/// The second group wants a reboot of the host too. In the commit of the client there is no exit code for it, so the daemon reboots; the
/// client takes that for a crash and goes back, at once, while the daemon is still on its way forward. All ends well, if not forward.
#[tokio::test]
async fn with_a_reboot_in_the_second_group_too() {
    let mut client = Client::new().await;
    for instance in ["G13", "R456"] {
        client.system.set(instance, "needs-reboot", "Automatic");
    }
    client.system.set("R456", "ArtifactVerifyReboot.sleep", "1");
    assert_eq!(client.deploy().await, Verdict::Failure);
    client.assert_calls(&[(4, INSTALL), (4, ROLLBACK), (0, CLEANUP)]);
    assert_eq!(
        client.steps[4..],
        [
            "ArtifactVerifyReboot 0",
            "ArtifactCommit reboot",
            "SupportsRollback Yes",
            "ArtifactRollback 0",
            "NeedsArtifactReboot Automatic",
            "reboot",
            "ArtifactVerifyRollbackReboot 0",
            "ArtifactFailure 0",
            "Cleanup reboot",
            "Cleanup 0"
        ]
    );
    client.assert_over(1).await;
}

/// `rootfs-image` calls a Mender client of its own, which uses the same directory: it empties it when it begins, and removes it at
/// the end.
#[tokio::test]
async fn while_a_nested_client_wipes_the_directory() {
    for fails in [false, true] {
        let mut client = Client::new().await;
        let (program, demo) = (client.system.program("gateway"), client.system.path("share/demo-gateway"));
        fs::rename(&program, &demo).unwrap();
        let tree = client.tree();
        let wipe = format!("rm -rf '{}'", tree.display());
        let text = format!(
            "#!/bin/sh\ncase $1 in\nDownload) {wipe}; mkdir -p '{0}/files' '{0}/tmp' ;;\nCleanup) {wipe} ;;\nesac\nexec '{1}' \"$@\"\n",
            tree.display(),
            demo.display()
        );
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        client.system.set("G13", "needs-reboot", "Automatic");
        if fails {
            client.system.set("R456", "ArtifactInstall.fail", "");
        }
        let verdict = client.deploy().await;
        if fails {
            assert_eq!(verdict, Verdict::Failure);
            client.assert_calls(&[(4, INSTALL), (1, COMMIT), (4, ROLLBACK), (0, CLEANUP)]);
        } else {
            assert_eq!(verdict, Verdict::Success);
            client.assert_calls(&[(4, INSTALL), (0, COMMIT), (0, CLEANUP)]);
        }
        assert!(!tree.exists(), "the nested client was the last one there");
        client.assert_over(if fails { 1 } else { 2 }).await;
    }
}

/// A Component that cannot go back: the client has to learn of it.
#[tokio::test]
async fn with_a_rollback_that_fails() {
    let mut client = Client::new().await;
    client.system.set("R998", "ArtifactCommit.fail", "");
    client.system.set("R456", "supports-rollback", "No");
    assert_eq!(client.deploy().await, Verdict::Inconsistent);
    client.assert_calls(&[(0, INSTALL), (1, COMMIT), (1, ROLLBACK), (1, CLEANUP)]);
    client.system.assert_release("R456", 2);
    assert_eq!(client.system.update().await.state().await.unwrap(), "idle");
}

/// The daemon dies while it installs, and comes back; the call of the module survives that.
#[tokio::test]
async fn while_the_daemon_is_restarted() {
    let mut client = Client::new().await;
    client.system.set("R456", "ArtifactInstall.sleep", "1");
    client.prepare(&[("manifest.yaml", &client.system.manifest(2))]);
    let module = client.module.clone();
    let path = format!("{}:{}", client.system.path("programs").display(), std::env::var("PATH").unwrap());
    let mut install = tokio::process::Command::new(module)
        .args([Path::new("ArtifactInstall"), &client.tree()])
        .current_dir(client.tree())
        .env("PATH", path)
        .env("DBUS_SYSTEM_BUS_ADDRESS", client.system.bus().address())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    client.system.wait_for_call("R456", "ArtifactInstall").await;
    client.system.kill_daemon();
    client.system.start_daemon().await;
    let status = tokio::time::timeout(Duration::from_mins(3), install.wait()).await.unwrap().unwrap();
    // An installation that was cut short is taken back, and the client follows.
    assert_eq!(status.code(), Some(1));
    assert!(client.succeeds("ArtifactRollback").await);
    assert_eq!(client.answer("NeedsArtifactReboot").await, "No");
    assert!(client.succeeds("Cleanup").await);
    client.assert_over(1).await;
}
