use std::collections::BTreeMap;
use std::fs;

use super::bench::{Bench, context, header_of, write_script};
use super::*;
use crate::core::error::{Error, Kind};
use crate::update::answers::NeedsReboot;

fn with_tree(body: &str) -> Bench {
    let bench = Bench::new(body);
    let header = header_of(&bench.artifact(&[]));
    Tree::create(&bench.interface.root, &context(), &header).unwrap();
    bench
}

async fn run(bench: &Bench, state: State) -> Result<(), InterfaceError> {
    bench.interface.run_state(state, &bench.tag, &bench.cancel).await
}

#[tokio::test]
async fn a_program_gets_state_directory_type_and_arguments() {
    let mut bench = with_tree(r#"for word in "$@"; do printf '[%s]\n' "$word"; done > "$4/calls"; pwd >> "$4/calls""#);
    bench.interface.arguments.push("two words".into());
    run(&bench, State::ArtifactInstall).await.unwrap();
    let root = bench.interface.root.to_str().unwrap();
    let directory = bench.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let expected =
        ["[ArtifactInstall]", &format!("[{root}]"), "[gateway]", &format!("[{directory}]"), "[two words]", root];
    assert_eq!(bench.calls(), expected);
}

#[tokio::test]
async fn output_goes_to_the_log_of_the_job() {
    let bench = with_tree("echo working; echo careful >&2");
    run(&bench, State::ArtifactInstall).await.unwrap();
    let mut log = bench.log.lock().unwrap().clone();
    log.sort();
    let expected = [
        "gateway.R:1: Update Interface output (stderr): careful",
        "gateway.R:1: Update Interface output (stdout): working",
    ];
    assert_eq!(log, expected);
}

#[tokio::test]
async fn failures_name_state_component_and_program() {
    let bench = with_tree("exit 3");
    let error = run(&bench, State::ArtifactCommit).await.unwrap_err();
    assert_eq!(
        bench.plain(&error),
        "ArtifactCommit of Component \"gateway.R:1\" failed: \"PROGRAM\" exited with status 3."
    );
    assert_eq!(Error::from(error).kind, Kind::InterfaceFailed);

    write_script(&bench.interface.program, "kill -KILL $$");
    let error = run(&bench, State::ArtifactReboot).await.unwrap_err();
    let expected = "ArtifactReboot of Component \"gateway.R:1\" failed: \"PROGRAM\" was ended by signal 9.";
    assert_eq!(bench.plain(&error), expected);

    fs::remove_file(&bench.interface.program).unwrap();
    let error = run(&bench, State::ArtifactInstall).await.unwrap_err();
    let expected = "ArtifactInstall of Component \"gateway.R:1\" failed: Cannot start \"PROGRAM\": No such file or directory (os error 2).";
    assert_eq!(bench.plain(&error), expected);
}

#[tokio::test]
async fn time_and_patience_run_out() {
    let bench = with_tree("sleep 1000");
    let limited = bench.interface.limited(Duration::from_secs(1));
    let error = limited.run_state(State::ArtifactInstall, &bench.tag, &bench.cancel).await.unwrap_err();
    let expected =
        "ArtifactInstall of Component \"gateway.R:1\" failed: \"PROGRAM\" ran out of time after 1 s and was ended.";
    assert_eq!(bench.plain(&error), expected);

    bench.cancel.cancel();
    let error = Error::from(run(&bench, State::ArtifactInstall).await.unwrap_err());
    assert_eq!(error, Error::new(Kind::Cancelled, "ArtifactInstall of Component \"gateway.R:1\" was cancelled."));
}

#[tokio::test]
async fn without_a_tree_only_cleanup_is_fine() {
    let bench = Bench::new(r#"echo "$1" >> "$4/calls""#);
    run(&bench, State::Cleanup).await.unwrap();
    for state in State::ALL.into_iter().filter(|&state| state != State::Cleanup && state != State::Download) {
        let error = run(&bench, state).await.unwrap_err();
        let expected = format!(
            "{state} of Component \"gateway.R:1\" failed: The working directory \"ROOT\" of the deployment does not exist."
        );
        assert_eq!(bench.plain(&error), expected);
        assert_eq!(Error::from(error).kind, Kind::Storage);
    }
    let error = run(&bench, State::Download).await.unwrap_err();
    assert!(error.to_string().ends_with("There is no Artifact to hand over."), "{error}");
    assert!(bench.calls().is_empty());

    let bench = with_tree(r#"echo "$1" >> "$4/calls""#);
    run(&bench, State::Cleanup).await.unwrap();
    assert_eq!(bench.calls(), ["Cleanup"]);
}

#[tokio::test]
async fn a_state_of_an_earlier_daemon_is_ended_and_unknown() {
    let bench = with_tree(r#": > "$4/ready"; exec sleep 1000"#);
    let run = run(&bench, State::ArtifactInstall);
    let adopt = async {
        bench.wait_for("ready").await;
        bench.interface.adopt_state(State::ArtifactInstall, &bench.tag, &bench.cancel).await.unwrap()
    };
    let (ended, adopted) = tokio::join!(run, adopt);
    assert_eq!(adopted, None);
    assert!(bench.plain(&ended.unwrap_err()).ends_with("\"PROGRAM\" was ended by signal 15."));
}

#[tokio::test]
async fn ending_a_download_ends_its_queries_too() {
    let bench = with_tree(r#": > "$4/ready"; exec sleep 1000"#);
    let tag = download::unpacked_tag(&bench.tag);
    let ask = bench.interface.needs_unpacked(&tag, &bench.cancel);
    let end = async {
        bench.wait_for("ready").await;
        bench.interface.end_state(State::Download, &bench.tag).await;
    };
    let (answer, ()) = tokio::join!(ask, end);
    assert!(answer.unwrap_err().to_string().ends_with("was ended by signal 15."));
}

#[tokio::test]
async fn queries_are_answered() {
    let bench = with_tree(
        r#"echo "$1" >> "$4/calls"
echo note >&2
case "$1" in
    NeedsUnpackedArtifact) echo No ;;
    ProvidePayloadFileSizes) echo Yes ;;
    NeedsArtifactReboot) echo Automatic ;;
    SupportsRollback) echo Yes ;;
    Identity) echo id=R:1 ;;
    Provides) echo rootfs-image.gw.version=7; echo artifact_name=gateway-v1 ;;
    Inventory) echo mac=a; echo mac=b ;;
esac"#,
    );
    let (interface, tag, cancel) = (&bench.interface, &bench.tag, &bench.cancel);
    assert!(!interface.needs_unpacked(tag, cancel).await.unwrap());
    assert!(interface.provide_file_sizes(tag, cancel).await.unwrap());
    assert_eq!(interface.needs_reboot(tag, cancel).await.unwrap(), NeedsReboot::Automatic);
    assert!(interface.supports_rollback(tag, cancel).await.unwrap());
    assert_eq!(interface.identity(tag, cancel).await.unwrap(), "R:1");
    let provides = [("rootfs-image.gw.version", "7"), ("artifact_name", "gateway-v1")];
    let provides: BTreeMap<_, _> = provides.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    assert_eq!(interface.provides(tag, cancel).await.unwrap(), provides);
    let inventory = [("mac".to_owned(), "a".to_owned()), ("mac".to_owned(), "b".to_owned())];
    assert_eq!(interface.inventory(tag, cancel).await.unwrap(), inventory);

    // An answer is no log, what goes to standard error is.
    let log = bench.log.lock().unwrap().clone();
    assert_eq!(log, vec!["gateway.R:1: Update Interface output (stderr): note"; 7]);
    assert_eq!(bench.calls().len(), 7);
}

#[tokio::test]
async fn no_answer_means_the_default() {
    let bench = with_tree("");
    let (interface, tag, cancel) = (&bench.interface, &bench.tag, &bench.cancel);
    assert!(interface.needs_unpacked(tag, cancel).await.unwrap());
    assert!(!interface.provide_file_sizes(tag, cancel).await.unwrap());
    assert_eq!(interface.needs_reboot(tag, cancel).await.unwrap(), NeedsReboot::No);
    assert!(!interface.supports_rollback(tag, cancel).await.unwrap());
    assert!(interface.identity(tag, cancel).await.is_err());
    assert_eq!(interface.provides(tag, cancel).await.unwrap(), BTreeMap::new());
    assert_eq!(interface.inventory(tag, cancel).await.unwrap(), Vec::new());
}

#[tokio::test]
async fn a_malformed_answer_fails_the_query_and_so_does_the_exit_code() {
    let bench = with_tree("echo maybe");
    let error = bench.interface.supports_rollback(&bench.tag, &bench.cancel).await.unwrap_err();
    let message = bench.plain(&error);
    assert!(message.starts_with("SupportsRollback of Component \"gateway.R:1\" failed: The answer to"), "{message}");
    assert_eq!(Error::from(error).kind, Kind::InterfaceFailed);

    write_script(&bench.interface.program, "echo Yes; exit 1");
    let error = bench.interface.supports_rollback(&bench.tag, &bench.cancel).await.unwrap_err();
    assert!(error.to_string().ends_with("exited with status 1."), "{error}");
}

#[tokio::test]
async fn before_identity_a_component_has_only_its_type() {
    let mut bench = Bench::new("exit 1");
    bench.interface.component.id.clear();
    Tree::queries_only(&bench.interface.root).unwrap();
    let error = bench.interface.identity(&bench.tag, &bench.cancel).await.unwrap_err();
    assert_eq!(bench.plain(&error), "Identity of Component \"gateway\" failed: \"PROGRAM\" exited with status 1.");
}

#[test]
fn only_executable_files_in_the_directory_are_interfaces() {
    let bench = Bench::new("");
    let data = bench.path("");
    let interfaces = bench.path("interfaces/v1");
    let locate = |name: &str| Interface::locate(&data, name);
    assert_eq!(locate("gw").unwrap(), interfaces.join("gw"));

    write_script(&bench.path("elsewhere"), "");
    std::os::unix::fs::symlink(bench.path("elsewhere"), interfaces.join("linked")).unwrap();
    assert_eq!(locate("linked").unwrap(), interfaces.join("linked"));

    for name in ["", ".", "..", "../v1/gw", "/bin/sh", "sub/gw", "a\nb", "a\0b"] {
        let error = locate(name).unwrap_err();
        assert!(matches!(error, InterfaceError::Name(_)), "{name:?}: {error}");
    }

    fs::write(interfaces.join("plain"), "").unwrap();
    fs::create_dir(interfaces.join("directory")).unwrap();
    std::os::unix::fs::symlink("nowhere", interfaces.join("dangling")).unwrap();
    let reasons = [
        ("missing", "does not exist"),
        ("dangling", "does not exist"),
        ("directory", "is not a regular file"),
        ("plain", "is not executable"),
    ];
    for (name, reason) in reasons {
        let error = locate(name).unwrap_err();
        let path = interfaces.join(name);
        let expected = format!("The Interface \"{name}\" cannot be used: \"{}\" {reason}.", path.display());
        assert_eq!(error.to_string(), expected);
        assert_eq!(Error::from(error).kind, Kind::InterfaceFailed);
    }
}
