//! How an Artifact gets to an Interface: every form of streams, and what is wrong with an Artifact at this point.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use orchestrator_tests::system::{Outcome, System, outcome};
use orchestratord::update::artifact::{ArtifactSpec, Compression, SigningKey, write};
use orchestratord_dbus::Options;

/// The payload of these tests: several files, one of them empty, one larger than a pipe.
fn files() -> BTreeMap<&'static str, Vec<u8>> {
    let large = (0..200_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    BTreeMap::from([("large.bin", large), ("empty", Vec::new()), ("note,1_a-b.txt", b"small\n".to_vec())])
}

/// Writes the Artifact of release 2 with these files.
fn write_artifact(system: &System, component_type: &str, files: &BTreeMap<&str, Vec<u8>>, compression: Compression) {
    let directory = system.path("releases").join(format!("{component_type}-files"));
    fs::create_dir_all(&directory).unwrap();
    let paths = files.iter().map(|(name, content)| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        path
    });
    let spec = ArtifactSpec { files: paths.collect(), compression, ..system.spec(component_type, 2) };
    system.write_artifact(component_type, 2, &spec);
}

fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// Every way to read, packed and unpacked, with sizes and without, each by a Component of its own.
#[tokio::test]
async fn every_form_of_reading_gets_every_byte() {
    let mut types = Vec::new();
    for mode in ["cat", "read", "slow", "ignore"] {
        for packed in ["No", "Yes"] {
            for sizes in ["No", "Yes"] {
                types.push((format!("{mode}-{packed}-{sizes}"), mode, packed, sizes));
            }
        }
    }
    let components: Vec<(&str, &str, u32)> = types.iter().map(|(name, ..)| (name.as_str(), name.as_str(), 1)).collect();
    let system = System::start(&components).await;
    for (name, mode, packed, sizes) in &types {
        write_artifact(&system, name, &files(), Compression::default());
        system.set(name, "streams", mode);
        system.set(name, "needs-unpacked", if *packed == "Yes" { "No" } else { "Yes" });
        system.set(name, "file-sizes", sizes);
    }
    system.install(2, Options::new()).await.unwrap().clean("done");
    for (name, _, packed, sizes) in &types {
        let payload = content(&system.home(name).join("payload"));
        if *packed == "Yes" {
            let artifact = fs::read(system.artifact(name, 2)).unwrap();
            assert!(
                payload == BTreeMap::from([("artifact.mender".to_owned(), artifact)]),
                "{name}: {:?}",
                payload.keys()
            );
        } else {
            let expected: BTreeMap<String, Vec<u8>> =
                files().into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
            assert!(payload == expected, "{name}: {:?}", payload.keys());
        }
        let word = if *sizes == "Yes" { "DownloadWithFileSizes" } else { "Download" };
        assert_eq!(system.count(name, word), 1, "{name}");
        assert_eq!(system.count(name, "Download") + system.count(name, "DownloadWithFileSizes"), 1, "{name}");
    }
    system.assert_cleaned_up();
}

#[tokio::test]
async fn every_compression_is_read() {
    let names = ["none", "gzip", "xz", "zstd"];
    let components = names.map(|name| (name, name, 1));
    let system = System::start(&components).await;
    for (name, compression) in names.into_iter().zip(Compression::ALL) {
        write_artifact(&system, name, &files(), compression);
    }
    system.install(2, Options::new()).await.unwrap().clean("done");
    for name in names {
        assert!(content(&system.home(name).join("payload")).into_values().eq(files().into_values()), "{name}");
    }
}

#[tokio::test]
async fn an_artifact_without_files_ends_the_streams_at_once() {
    let system = System::start(&[("cat", "C", 1), ("ignore", "I", 1)]).await;
    system.set("I", "streams", "ignore");
    for name in ["cat", "ignore"] {
        write_artifact(&system, name, &BTreeMap::new(), Compression::default());
    }
    system.install(2, Options::new()).await.unwrap().clean("done");
    for instance in ["C", "I"] {
        assert!(content(&system.home(instance).join("payload")).is_empty());
    }
}

/// One Component, one switch: how Download fails.
async fn failing(switch: &str, content: &str) -> (System, Outcome) {
    let system = System::start(&[("rtos", "R1", 1)]).await;
    write_artifact(&system, "rtos", &files(), Compression::None);
    system.set("R1", switch, content);
    let outcome = system.install(2, Options::new()).await.unwrap();
    assert_eq!(system.trace()[system.trace().len() - 1], "Cleanup R1");
    assert_eq!(system.count("R1", "ArtifactInstall"), 0);
    system.assert_all_at(1);
    system.assert_cleaned_up();
    (system, outcome)
}

#[tokio::test]
async fn leaving_after_one_file_of_three_is_a_failure() {
    let (_, outcome) = failing("streams", "first").await;
    let message = outcome.faulty("failed", "InterfaceFailed");
    assert!(message.contains("rtos.R1") && message.contains("stream-next"), "{message}");
}

#[tokio::test]
async fn leaving_in_the_middle_of_a_file_is_a_failure() {
    let system = System::start(&[("rtos", "R1", 1)]).await;
    system.set("R1", "streams", "partial");
    let outcome = system.install(2, Options::new()).await.unwrap();
    let message = outcome.faulty("failed", "InterfaceFailed");
    assert!(message.contains("rtos.R1") && message.contains("streams/rtos-2.img"), "{message}");
    assert_eq!(system.trace(), ["Download R1", "Cleanup R1"]);
    system.assert_all_at(1);
    system.assert_cleaned_up();
}

#[tokio::test]
async fn a_failing_exit_status_counts_although_everything_was_read() {
    let (_, outcome) = failing("Download.fail-late", "").await;
    let message = outcome.faulty("failed", "InterfaceFailed");
    assert!(message.contains("exited with status 1"), "{message}");
}

#[tokio::test]
async fn a_program_that_never_reads_and_fails_gets_no_files() {
    let system = System::start(&[("rtos", "R1", 1)]).await;
    system.set("R1", "Download.fail", "");
    system.observe("rtos");
    system.set("R1", "Cleanup.keep", "");
    system.install(2, Options::new()).await.unwrap().faulty("failed", "InterfaceFailed");
    let names: Vec<String> = fs::read_dir(system.home("R1").join("kept/Cleanup"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("files") || name.starts_with("stream"))
        .collect();
    assert_eq!(names, [""; 0]);
}

/// Changes one byte of the payload where it stands in an Artifact that is not compressed.
fn damage(artifact: &Path, payload: &[u8]) {
    let mut bytes = fs::read(artifact).unwrap();
    let place = bytes.windows(64).position(|window| window == &payload[..64]).unwrap();
    bytes[place + 100] ^= 1;
    fs::write(artifact, bytes).unwrap();
}

/// The Interface took everything and is content; the checksum says no.
#[tokio::test]
async fn a_damaged_payload_fails_download_in_every_form() {
    for (mode, unpacked) in [("cat", "Yes"), ("cat", "No"), ("ignore", "Yes"), ("ignore", "No")] {
        let system = System::start(&[("rtos", "R1", 1)]).await;
        system.set("R1", "streams", mode);
        system.set("R1", "needs-unpacked", unpacked);
        let files = files();
        write_artifact(&system, "rtos", &files, Compression::None);
        damage(&system.artifact("rtos", 2), &files["large.bin"]);
        let outcome = system.install(2, Options::new()).await.unwrap();
        let message = outcome.faulty("failed", "InvalidArtifact");
        assert!(message.contains("large.bin") && message.contains("rtos.R1"), "{mode} {unpacked}: {message}");
        assert_eq!(system.trace(), ["Download R1", "Cleanup R1"]);
        system.assert_all_at(1);
        system.assert_cleaned_up();
    }
}

/// In a later group it takes the earlier one back.
#[tokio::test]
async fn a_truncated_payload_is_found_in_download_and_takes_earlier_groups_back() {
    let system = System::demo().await;
    write_artifact(&system, "rtos", &files(), Compression::None);
    let artifact = system.artifact("rtos", 2);
    let bytes = fs::read(&artifact).unwrap();
    fs::write(&artifact, &bytes[..bytes.len() / 2]).unwrap();
    let outcome = system.install(2, Options::new()).await.unwrap();
    let message = outcome.faulty("rolled-back", "InvalidArtifact");
    assert!(message.contains("Download of Component \"rtos."), "{message}");
    assert_eq!(
        system.trace()[2..],
        ["Download R456 R998", "ArtifactRollback G13", "ArtifactFailure G13", "Cleanup G13", "Cleanup R456 R998"]
    );
    system.assert_all_at(1);
    system.assert_cleaned_up();
}

/// Something else lies at the place of an Artifact that was selected, when its turn comes.
#[tokio::test]
async fn an_artifact_that_is_not_what_was_selected_fails_download() {
    type Swap = fn(&System, &Path);
    let swaps: [(&str, Swap, &str); 4] = [
        ("another Artifact", |system, path| write(&system.spec("rtos", 3), None, path).unwrap(), "has changed"),
        ("nothing", |_, path| fs::remove_file(path).unwrap(), "No such file"),
        ("no Artifact", |_, path| fs::write(path, "nonsense").unwrap(), "rtos-2.mender"),
        (
            "a FIFO",
            |_, path| {
                fs::remove_file(path).unwrap();
                mkfifo(path, Mode::S_IRWXU).unwrap();
            },
            "not a regular file",
        ),
    ];
    for (what, swap, expected) in swaps {
        let system = System::demo().await;
        system.observe("gateway");
        system.set("G13", "Download.wait", "");
        let job = system.begin(2, Options::new()).await.unwrap();
        swap(&system, &system.artifact("rtos", 2));
        system.unset("G13", "Download.wait");
        let outcome = outcome(&job).await;
        let (_, message) = outcome.error.as_ref().unwrap();
        assert_eq!(outcome.result, "rolled-back", "{what}: {message}");
        assert!(message.contains(expected) && message.contains("rtos-2.mender"), "{what}: {message}");
        assert_eq!(system.count("R456", "Download") + system.count("R998", "Download"), 0, "{what}");
        system.assert_all_at(1);
        system.assert_cleaned_up();
    }
}

fn openssl(system: &System, line: &str) {
    let output = Command::new("openssl").args(line.split(' ')).current_dir(system.path("etc")).output().unwrap();
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// With a key configured, an Artifact that is not signed with it is refused before anything is touched.
#[tokio::test]
async fn a_configured_key_is_demanded_of_every_artifact() {
    let mut system = System::new(&[("rtos", "R1", 1)]).await;
    for name in ["ours", "other"] {
        openssl(&system, &format!("ecparam -genkey -name prime256v1 -noout -out {name}.pem"));
        openssl(&system, &format!("pkey -in {name}.pem -pubout -out {name}.pub"));
    }
    system.configure("ArtifactVerifyKey", system.path("etc/ours.pub").display().to_string());
    system.start_daemon().await;
    let manifest = system.manifest(2);
    let artifact = system.artifact("rtos", 2);
    let signed = |key: &str| {
        let key = SigningKey::load(&system.path("etc").join(key)).unwrap();
        write(&system.spec("rtos", 2), Some(&key), &artifact).unwrap();
    };
    for sign in [None, Some("other.pem")] {
        if let Some(key) = sign {
            signed(key);
        }
        let (name, message) = system.begin_text(&manifest, Options::new()).await.unwrap_err();
        assert_eq!(name, "org.orchestratord1.Error.InvalidArtifact", "{message}");
        assert!(message.contains("manifest.sig") || message.contains("sign"), "{message}");
        assert_eq!(system.full_trace(), [""; 0]);
    }
    signed("ours.pem");
    system.install(2, Options::new()).await.unwrap().clean("done");
    system.assert_all_at(2);
}
