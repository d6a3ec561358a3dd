//! Answers of Interfaces that are refused: before anything is touched, without one call of a state.

use orchestrator_tests::system::System;
use orchestratord_dbus::Options;

/// A daemon that knows its System, whose R456 then changes one answer; what Install says to it.
async fn refusal(system: &System, file: &str, content: &str) -> String {
    system.set("R456", file, content);
    let manifest = system.manifest(2);
    let (name, message) = system.begin_text(&manifest, Options::new()).await.unwrap_err();
    system.unset("R456", file);
    let kind = name.rsplit('.').next().unwrap();
    assert!(["InterfaceFailed", "InvalidTopology", "NoSuitableArtifact"].contains(&kind), "{name}: {message}");
    assert_eq!(system.full_trace(), [""; 0], "{file} {content:?}");
    assert!(!system.path("state/deployment").exists());
    assert_eq!(system.update().await.state().await.unwrap(), "idle");
    assert_eq!(system.update().await.last_error().await.unwrap(), (name, message.clone()));
    message
}

const VERSION: &str = "rootfs-image.demo-rtos.version=rtos-1\n";

#[tokio::test]
async fn a_malformed_provides_refuses_the_install_and_names_component_and_line() {
    let system = System::demo().await;
    let cases = [
        ("", "version"),
        ("a=b\n", "rootfs-image.demo-rtos.version"),
        ("no separator\n", "line 1"),
        ("rootfs-image.demo-rtos.version=1\nrootfs-image.version=1\n", "exactly one"),
        ("rootfs-image.demo-rtos.version=1\na=1\na=2\n", "line 3"),
        ("rootfs-image.demo-rtos.version=1\ndevice_type=rtos\n", "device_type"),
        ("rootfs-image.demo-rtos.version=1\n=x\n", "line 2"),
        ("rootfs-image.demo-rtos.version=1\nkey =x\n", "line 2"),
        ("rootfs-image.demo-rtos.version=1\nx=\u{1b}[31m\n", "control"),
    ];
    for (provides, expected) in cases {
        let message = refusal(&system, "provides", provides).await;
        assert!(message.contains("rtos.R456") || message.contains("rtos.#2"), "{provides:?}: {message}");
        assert!(message.contains(expected), "{provides:?}: {message}");
    }
    system.set("R456", "provides", VERSION);
    system.install(2, Options::new()).await.unwrap().clean("done");
}

#[tokio::test]
async fn a_malformed_identity_refuses_the_install() {
    let system = System::demo().await;
    // The demonstration prints "id=" and the file, so what is wrong comes in front of it.
    let cases = [
        ("Identity.stdout", "id=first\n", "2 lines"),
        ("Identity.stdout", "name=x\n", "lines"),
        ("id", "..", ".."),
        ("id", "a/b", "/"),
        ("Identity.fail", "", "exited with status 1"),
        ("Identity.signal", "KILL", "signal 9"),
        ("id", &"x".repeat(200), "128"),
    ];
    for (file, content, expected) in cases {
        let message = refusal(&system, file, content).await;
        assert!(message.contains("Identity") || message.contains("id"), "{file} {content:?}: {message}");
        assert!(message.contains(expected), "{file} {content:?}: {message}");
        assert!(message.contains("rtos"), "{message}");
    }
}

#[tokio::test]
async fn a_failing_or_endless_provides_refuses_the_install() {
    let mut system = System::new(&[("gateway", "G13", 10), ("rtos", "R456", 20)]).await;
    system.configure("QueryTimeoutSeconds", 1);
    system.start_daemon().await;
    for (file, content, expected) in [
        ("Provides.fail-late", "", "exited with status 1"),
        ("Provides.signal", "SEGV", "signal 11"),
        ("Provides.hang", "", "ran out of time after 1 s"),
        ("provides", &format!("{VERSION}{}", "a".repeat(70_000)), "65536"),
    ] {
        let message = refusal(&system, file, content).await;
        assert!(message.contains("Provides of Component \"rtos.R456\""), "{message}");
        assert!(message.contains(expected), "{message}");
        system.set("R456", "provides", VERSION);
    }
    assert_eq!(system.programs(), [0; 0], "what ran out of time is ended");
}

#[tokio::test]
async fn two_components_with_one_name_refuse_the_install() {
    let system = System::demo().await;
    let message = refusal(&system, "id", "R998").await;
    assert!(message.contains("rtos") && message.contains("R998"), "{message}");
}

/// Types tell them apart.
#[tokio::test]
async fn the_same_id_under_two_types_is_allowed() {
    let system = System::demo().await;
    system.set("R456", "id", "G13");
    system.install(2, Options::new()).await.unwrap().clean("done");
    system.assert_all_at(2);
}

#[tokio::test]
async fn an_interface_that_is_missing_or_no_program_refuses_the_install() {
    let system = System::demo().await;
    let manifest = system.manifest(2);
    let program = system.program("rtos");
    let replace: [(&str, &dyn Fn()); 4] = [
        ("does not exist", &|| {}),
        ("is not a regular file", &|| std::fs::create_dir(&program).unwrap()),
        ("is not executable", &|| {
            std::fs::remove_dir(&program).unwrap();
            std::fs::write(&program, "#!/bin/sh\n").unwrap();
        }),
        ("does not exist", &|| {
            std::fs::remove_file(&program).unwrap();
            std::os::unix::fs::symlink("/nonexistent/interface", &program).unwrap();
        }),
    ];
    std::fs::remove_file(&program).unwrap();
    for (expected, replace) in replace {
        replace();
        let (name, message) = system.begin_text(&manifest, Options::new()).await.unwrap_err();
        assert_eq!(name, "org.orchestratord1.Error.InterfaceFailed");
        assert!(message.contains("demo-rtos") && message.contains(expected), "{message}");
        assert_eq!(system.full_trace(), [""; 0]);
    }
}

#[tokio::test]
async fn nonsense_before_download_fails_it_without_calling_it() {
    for (file, content, word) in [
        ("needs-unpacked", "yes", "NeedsUnpackedArtifact"),
        ("needs-unpacked", "Yes\nNo", "NeedsUnpackedArtifact"),
        ("needs-unpacked", " Yes", "NeedsUnpackedArtifact"),
        ("file-sizes", "Automatic", "ProvidePayloadFileSizes"),
        ("file-sizes", "1", "ProvidePayloadFileSizes"),
    ] {
        let system = System::demo().await;
        system.set("G13", file, content);
        let outcome = system.install(2, Options::new()).await.unwrap();
        let message = outcome.faulty("failed", "InterfaceFailed");
        assert!(message.contains(word) && message.contains("gateway.G13"), "{file} {content:?}: {message}");
        assert_eq!(system.full_trace(), ["Cleanup G13"]);
        system.assert_all_at(1);
        system.assert_cleaned_up();
    }
}

/// Of a query only standard error is logged; what stands on standard output is the answer.
#[tokio::test]
async fn empty_answers_mean_the_defaults_of_the_protocol() {
    let system = System::demo().await;
    for file in ["needs-reboot", "supports-rollback"] {
        system.unset("R456", file);
    }
    system.install(2, Options::new()).await.unwrap().clean("done");
    assert_eq!(system.count("R456", "Download"), 1, "without sizes");
    assert!(system.home("R456").join("payload/rtos-2.img").exists(), "unpacked");
    assert_eq!(system.count("R456", "ArtifactReboot"), 0, "without a reboot");
}

#[tokio::test]
async fn no_artifact_fits_and_nothing_is_touched() {
    use orchestratord::update::artifact::ArtifactSpec;
    use std::collections::BTreeMap;
    let system = System::demo().await;
    let spec = system.spec("rtos", 2);
    let depends = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), vec![value.to_owned()])]);
    let cases = [
        (ArtifactSpec { device_types: vec!["gateway".into()], ..spec.clone() }, "gateway"),
        (ArtifactSpec { depends: depends("boot-loader.version", "2"), ..spec.clone() }, "boot-loader.version"),
        (ArtifactSpec { depends: depends("rootfs-image.demo-rtos.version", "rtos-0"), ..spec.clone() }, "rtos-0"),
        (ArtifactSpec { name_depends: vec!["other".into()], ..spec.clone() }, "artifact_name"),
    ];
    let manifest = system.manifest(2);
    for (spec, expected) in cases {
        system.write_artifact("rtos", 2, &spec);
        let (name, message) = system.begin_text(&manifest, Options::new()).await.unwrap_err();
        assert_eq!(name, "org.orchestratord1.Error.NoSuitableArtifact", "{message}");
        assert!(message.contains(expected) && message.contains("rtos"), "{message}");
        assert_eq!(system.full_trace(), [""; 0]);
    }
}

/// One that no file is there for, one that only a server has.
#[tokio::test]
async fn an_artifact_that_cannot_be_had_refuses_the_install() {
    let system = System::demo().await;
    let manifest = system.manifest(2);
    let path = system.artifact("rtos", 2).display().to_string();
    for (from, to, expected) in [
        (format!("artifact_path: {path}"), "artifact_path: /nonexistent/a.mender".to_owned(), "/nonexistent/a.mender"),
        (format!("artifact_path: {path}"), "artifact_name: rtos-2".to_owned(), "rtos-2"),
        (path.clone(), system.path("releases").display().to_string(), "regular file"),
        (path.clone(), "/dev/null".to_owned(), "regular file"),
    ] {
        let (name, message) = system.begin_text(&manifest.replace(&from, &to), Options::new()).await.unwrap_err();
        assert!(name.starts_with("org.orchestratord1.Error."), "{name}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(system.full_trace(), [""; 0]);
    }
}
