//! The File API tree, as an Interface finds it in each state, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use orchestrator_tests::system::{System, stop_before};
use orchestratord::update::artifact::{ArtifactSpec, VerifyKeys, read_header};
use orchestratord_dbus::Options;

/// Every entry below a directory: its content, or what it is.
fn entries(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_dir() {
                found.insert(format!("{name}/"), Vec::new());
                directories.push(path);
            } else if kind.is_fifo() {
                found.insert(format!("{name}|"), Vec::new());
            } else {
                assert!(kind.is_file(), "{}", path.display());
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// An Artifact with everything that has an entry of its own.
fn rich_artifact(system: &System) -> ArtifactSpec {
    let spec = ArtifactSpec {
        group: Some("stable".to_owned()),
        meta_data: Some(b"{\"b\":  [1, 2.50],\n \"a\": \"\xc3\xa4\"}".to_vec()),
        provides: BTreeMap::from([("boot-loader.version".to_owned(), "7".to_owned())]),
        ..system.spec("rtos", 2)
    };
    system.write_artifact("rtos", 2, &spec);
    spec
}

/// What stands in the tree from before Download until after Cleanup.
fn expected(system: &System) -> BTreeMap<String, Vec<u8>> {
    let (header, _) = read_header(&system.artifact("rtos", 2), &VerifyKeys::default()).unwrap();
    let text = |text: &str| text.as_bytes().to_vec();
    [
        ("version", text("1\n")),
        ("current_artifact_name", text("rtos-1\n")),
        ("current_artifact_group", text("old group\n")),
        ("current_device_type", text("rtos\n")),
        ("header/", Vec::new()),
        ("header/artifact_name", text("rtos-2")),
        ("header/artifact_group", text("stable")),
        ("header/payload_type", text("demo-rtos")),
        ("header/header-info", header.raw_header_info.clone()),
        ("header/type-info", header.raw_type_info.clone()),
        ("header/meta-data", b"{\"b\":  [1, 2.50],\n \"a\": \"\xc3\xa4\"}".to_vec()),
        ("tmp/", Vec::new()),
    ]
    .map(|(name, content)| (name.to_owned(), content))
    .into()
}

/// A Component that goes through all states, there and back.
async fn observed(streams: &str) -> System {
    let system = System::start(&[("rtos", "R1", 1)]).await;
    system.observe("rtos");
    let provides = "rootfs-image.demo-rtos.version=rtos-1\nartifact_name=rtos-1\nartifact_group=old group\n";
    system.set("R1", "provides", provides);
    system.set("R1", "needs-reboot", "Yes");
    system.set("R1", "streams", streams);
    system.set("R1", "ArtifactCommit.fail", "");
    for word in STATES.into_iter().chain(["NeedsUnpackedArtifact", "ProvidePayloadFileSizes"]) {
        system.set("R1", &format!("{word}.keep"), "");
    }
    rich_artifact(&system);
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    system
}

const STATES: [&str; 12] = [
    "Download",
    "ArtifactInstall",
    "NeedsArtifactReboot",
    "ArtifactReboot",
    "ArtifactVerifyReboot",
    "ArtifactCommit",
    "SupportsRollback",
    "ArtifactRollback",
    "ArtifactRollbackReboot",
    "ArtifactVerifyRollbackReboot",
    "ArtifactFailure",
    "Cleanup",
];

#[tokio::test]
async fn the_tree_holds_header_and_context_in_every_state_and_files_if_streams_were_not_read() {
    let system = observed("ignore").await;
    let tree = expected(&system);
    for word in STATES.into_iter().chain(["NeedsUnpackedArtifact", "ProvidePayloadFileSizes"]) {
        let mut expected = tree.clone();
        if word == "Download" {
            expected.insert("stream-next|".to_owned(), Vec::new());
            expected.insert("streams/".to_owned(), Vec::new());
        } else if !["NeedsUnpackedArtifact", "ProvidePayloadFileSizes"].contains(&word) {
            expected.insert("files/".to_owned(), Vec::new());
            expected.insert("files/rtos-2.img".to_owned(), system.payload("rtos", 2));
        }
        let found = entries(&system.home("R1").join("kept").join(word));
        assert!(found == expected, "{word}: {found:#?}");
    }
    system.assert_cleaned_up();
}

#[tokio::test]
async fn the_tree_has_no_files_if_streams_were_read() {
    let system = observed("cat").await;
    let tree = expected(&system);
    for word in &STATES[1..] {
        let found = entries(&system.home("R1").join("kept").join(word));
        assert!(found == tree, "{word}: {found:#?}");
    }
}

/// Only root may look into it: an Artifact may hold secrets.
#[tokio::test]
async fn the_tree_is_closed_to_others_and_gone_after_cleanup() {
    let system = System::start(&[("rtos", "R1", 1)]).await;
    system.set("R1", "streams", "ignore");
    system.install(2, stop_before(&["ArtifactCommit"])).await.unwrap().clean("stopped");
    let tree = system.tree("rtos", "R1");
    assert_eq!(tree.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    // Absent values are empty files.
    for name in ["current_artifact_name", "current_artifact_group", "header/artifact_group", "header/meta-data"] {
        assert_eq!(fs::read(tree.join(name)).unwrap(), b"", "{name}");
    }
    fs::write(tree.join("tmp/mine"), "kept").unwrap();
    system.resume(stop_before(&["Cleanup"])).await.unwrap().clean("stopped");
    assert_eq!(fs::read(tree.join("tmp/mine")).unwrap(), b"kept", "the tree lasts until Cleanup");
    system.resume(Options::new()).await.unwrap().clean("done");
    assert!(!system.path("state/work").join("rtos").join("R1").exists(), "nothing is left of it");
}

/// The tree outlasts a reboot, and a second deployment gets a fresh one.
#[tokio::test]
async fn the_tree_lasts_over_a_restart_and_is_made_afresh_for_the_next_deployment() {
    let mut system = System::start(&[("rtos", "R1", 1)]).await;
    system.install(2, stop_before(&["ArtifactCommit"])).await.unwrap().clean("stopped");
    let tree = system.tree("rtos", "R1");
    fs::write(tree.join("tmp/mine"), "kept").unwrap();
    system.cut_power();
    system.start_daemon().await;
    assert_eq!(fs::read(tree.join("tmp/mine")).unwrap(), b"kept");
    system.resume(Options::new()).await.unwrap().clean("done");

    // As if Cleanup had never come.
    fs::create_dir_all(tree.join("tmp")).unwrap();
    fs::write(tree.join("tmp/old"), "").unwrap();
    system.install(3, stop_before(&["ArtifactCommit"])).await.unwrap().clean("stopped");
    assert_eq!(fs::read_dir(tree.join("tmp")).unwrap().count(), 0);
    system.resume(Options::new()).await.unwrap().clean("done");
}

/// Ids such as a MAC address stay readable, others are escaped; all of them stay below the directory of the daemon.
#[tokio::test]
async fn ids_with_odd_characters_have_a_directory_of_their_own() {
    let ids = ["52:54:00:1d:94:82", "a b", "ü", "%41", "A", "..x", "~"];
    let names: Vec<String> = (0..ids.len()).map(|number| format!("I{number}")).collect();
    let components: Vec<(&str, &str, u32)> = names.iter().map(|name| ("rtos", name.as_str(), 1)).collect();
    let system = System::new(&components).await;
    for (name, id) in names.iter().zip(ids) {
        system.set(name, "id", id);
    }
    let mut system = system;
    system.start_daemon().await;
    system.observe("rtos");
    for name in &names {
        system.set(name, "ArtifactInstall.environment", "");
    }
    system.install(2, Options::new()).await.unwrap().clean("done");
    let mut places: Vec<String> = names
        .iter()
        .map(|name| fs::read_to_string(system.home(name).join("seen/ArtifactInstall")).unwrap())
        .map(|seen| seen.lines().next().unwrap().to_owned())
        .collect();
    let below = system.path("state/work/rtos").display().to_string();
    assert!(places[0].ends_with("/52:54:00:1d:94:82/tree"), "{places:?}");
    for place in &places {
        let inner = place.strip_prefix(&below).unwrap();
        assert_eq!(inner.matches('/').count(), 2, "{place}");
    }
    places.sort();
    places.dedup();
    assert_eq!(places.len(), ids.len(), "{places:?}");
    system.assert_all_at(2);
}

/// The arguments, the working directory and the environment of a call.
#[tokio::test]
async fn a_call_gets_word_tree_type_and_arguments_works_in_the_tree_and_inherits_the_environment() {
    let mut system = System::new(&[("rtos", "R1", 1)]).await;
    system.set_variable("BROKER", "tcp://10.0.0.1");
    system.set_variable("NOTIFY_SOCKET", "/nonexistent/notify");
    let topology = fs::read_to_string(system.path("etc/topology.yaml")).unwrap();
    fs::write(system.path("etc/topology.yaml"), topology.replace("[R1]", "[R1, 'a  b', '', '$HOME *', '-x']")).unwrap();
    system.start_daemon().await;
    system.observe("rtos");
    for word in ["ArtifactInstall", "Download", "Identity", "SupportsRollback", "NeedsArtifactReboot"] {
        system.set("R1", &format!("{word}.environment"), "");
    }
    system.set("R1", "ArtifactCommit.fail", "");
    system.install(2, Options::new()).await.unwrap().faulty("rolled-back", "InterfaceFailed");
    let tree = system.tree("rtos", "R1").display().to_string();
    for word in ["ArtifactInstall", "Download", "SupportsRollback", "NeedsArtifactReboot"] {
        let seen = fs::read_to_string(system.home("R1").join("seen").join(word)).unwrap();
        let begin = format!("{tree}\n[{word}]\n[{tree}]\n[rtos]\n[R1]\n[a  b]\n[]\n[$HOME *]\n[-x]\n");
        assert!(seen.starts_with(&begin), "{seen}");
        assert!(seen.lines().any(|line| line == "BROKER=tcp://10.0.0.1"), "{seen}");
        assert!(!seen.contains("NOTIFY_SOCKET"), "a script must not speak for the daemon: {seen}");
    }
    // A query outside a deployment gets the same shape, with a directory that exists.
    let seen = fs::read_to_string(system.home("R1").join("seen/Identity")).unwrap();
    let mut lines = seen.lines();
    let place = lines.next().unwrap();
    assert_eq!(
        [lines.next(), lines.next(), lines.next()],
        [Some("[Identity]"), Some(format!("[{place}]").as_str()), Some("[rtos]")]
    );
    assert!(Path::new(place).join("tmp").is_dir(), "{place}");
}
