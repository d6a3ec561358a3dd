//! `artifact`: written, read and checked, here and by Mender's own tool.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::program::{Output, PROGRAM, on_bus, run, text};

async fn orchestratorctl(place: &TempDir, line: &[&str]) -> Output {
    let mut command = on_bus(Command::new(PROGRAM), "unix:path=/nonexistent");
    run(command.current_dir(place.path()).env_remove("SOURCE_DATE_EPOCH"), line).await
}

async fn good(place: &TempDir, line: &[&str]) -> String {
    let output = orchestratorctl(place, line).await;
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{line:?}: {output:?}");
    output.stdout
}

async fn refused(place: &TempDir, line: &[&str], code: i32, said: &str) {
    let output = orchestratorctl(place, line).await;
    assert_eq!((output.code(), output.stdout.as_str()), (code, ""), "{line:?}: {output:?}");
    assert!(output.stderr.contains(said), "{line:?}: {output:?}");
}

async fn tool(place: &Path, program: &str, line: &[&str]) -> Output {
    let mut command = on_bus(Command::new(program), "unix:path=/nonexistent");
    run(command.current_dir(place), line).await
}

/// A key pair, `private.pem` and `public.pem`.
async fn keys(place: &Path) {
    for line in [
        // The form that Mender's tool reads too.
        &["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "private.pem"][..],
        &["pkey", "-in", "private.pem", "-pubout", "-out", "public.pem"],
    ] {
        assert_eq!(tool(place, "openssl", line).await.code(), 0);
    }
}

const RTOS: [&str; 18] = [
    "artifact",
    "write",
    "module-image",
    "-n",
    "rtos-v2",
    "-t",
    "rtos",
    "-T",
    "rtos-interface",
    "-f",
    "firmware.bin",
    "-p",
    "bootloader:2:1",
    "-d",
    "rootfs-image.rtos-interface.version:rtos-v1",
    "-o",
    "a.mender",
    "--compression=lzma",
];

async fn written() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("firmware.bin"), "firmware").unwrap();
    keys(place.path()).await;
    assert_eq!(good(&place, &[&RTOS[..], &["-k", "private.pem"]].concat()).await, "");
    place
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let place = written().await;
    let read = good(&place, &["--json", "artifact", "read", "a.mender"]).await;
    let mut contents: Value = serde_json::from_str(&read).unwrap();
    let size = std::fs::metadata(place.path().join("a.mender")).unwrap().len();
    assert_eq!(contents["size"].take(), size);
    assert_eq!(
        contents,
        json!({
            "name": "rtos-v2", "group": null, "device_types": ["rtos"], "payload_type": "rtos-interface",
            "provides": { "bootloader": "2:1", "rootfs-image.rtos-interface.version": "rtos-v2" },
            "depends": { "rootfs-image.rtos-interface.version": ["rtos-v1"] },
            "clears_provides": ["rootfs-image.rtos-interface.*"], "scripts": [], "meta_data": null,
            "signature": "unverified", "verified_with": null, "header_compression": "xz", "payload_compression": "xz",
            "size": null,
            "files": [{
                "name": "firmware.bin", "size": 8,
                // printf firmware | sha256sum
                "sha256": "c3bf47ea1f4a4a605470313cacb3a44f4a461f68c6faeab07e737610cb5ac835",
            }],
        })
    );
    let text = good(&place, &["artifact", "read", "a.mender", "--key", "public.pem"]).await;
    for line in [
        "Artifact:       rtos-v2\n",
        "Device types:   rtos\n",
        "Signature:      verified with \"public.pem\"\n",
        "Clears:         rootfs-image.rtos-interface.*\n",
        "Provides:       bootloader = 2:1\n",
        "Depends:        rootfs-image.rtos-interface.version = rtos-v1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn verify_gives_a_verdict() {
    let place = written().await;
    let verdict = good(&place, &["artifact", "verify", "a.mender"]).await;
    assert_eq!(verdict, "\"a.mender\" is sound: 1 payload file, signed, but not verified because no key is given.\n");
    let verdict = good(&place, &["artifact", "verify", "-k", "public.pem", "a.mender"]).await;
    assert_eq!(verdict, "\"a.mender\" is sound: 1 payload file, signature verified with \"public.pem\".\n");
    good(&place, &RTOS).await;
    let verdict = good(&place, &["artifact", "verify", "a.mender"]).await;
    assert_eq!(verdict, "\"a.mender\" is sound: 1 payload file, not signed.\n");
    refused(&place, &["artifact", "verify", "-k", "public.pem", "a.mender"], 13, "a.mender").await;

    let mut bytes = std::fs::read(place.path().join("a.mender")).unwrap();
    let at = bytes.len() - 1500;
    bytes[at] ^= 1;
    std::fs::write(place.path().join("a.mender"), &bytes).unwrap();
    refused(&place, &["artifact", "verify", "a.mender"], 13, "a.mender").await;
    refused(&place, &["artifact", "read", "a.mender"], 13, "a.mender").await;
    refused(&place, &["artifact", "read", "absent.mender"], 1, "absent.mender").await;
    refused(&place, &["artifact", "verify", "-k", "absent.pem", "a.mender"], 10, "absent.pem").await;
}

#[tokio::test]
async fn menders_tool_agrees() {
    if std::process::Command::new("mender-artifact").arg("--version").output().is_err() {
        eprintln!("SKIPPED menders_tool_agrees: mender-artifact is not installed");
        return;
    }
    let place = written().await;
    let output = tool(place.path(), "mender-artifact", &["read", "-k", "public.pem", "a.mender"]).await;
    assert_eq!(output.code(), 0, "{output:?}");
    for word in ["Name: rtos-v2", "signed and verified correctly", "bootloader: 2:1", "name:     firmware.bin"] {
        assert!(output.stdout.contains(word), "{word} in {output:?}");
    }
    let line: Vec<&str> = RTOS[1..].to_vec();
    let output = tool(place.path(), "mender-artifact", &[&line[..], &["-k", "private.pem"]].concat()).await;
    assert_eq!(output.code(), 0, "{output:?}");
    let text = good(&place, &["artifact", "read", "-k", "public.pem", "a.mender"]).await;
    for word in ["rtos-v2", "bootloader = 2:1", "firmware.bin, 8 B", "verified with"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[tokio::test]
async fn every_option_arrives() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("f"), "x").unwrap();
    std::fs::write(place.path().join("meta.json"), "{\"a\": 1}").unwrap();
    std::fs::write(place.path().join("ArtifactInstall_Enter_00"), "#!/bin/sh\n").unwrap();
    let line = [
        "artifact",
        "write",
        "module-image",
        "--artifact-name",
        "n",
        "--device-type",
        "a",
        "--device-type",
        "b",
        "--type",
        "t",
        "--file",
        "f",
        "--artifact-name-depends",
        "m1",
        "-N",
        "m2",
        "--depends-groups",
        "g1",
        "-G",
        "g2",
        "--provides-group",
        "g",
        "--depends",
        "k:1",
        "-d",
        "k:2",
        "--provides",
        "p:",
        "--clears-provides",
        "p.*",
        "--meta-data",
        "meta.json",
        "--script",
        "ArtifactInstall_Enter_00",
        "--software-filesystem",
        "fs",
        "--software-name",
        "sn",
        "--software-version",
        "sv",
        "--compression",
        "zstd",
    ];
    good(&place, &line).await;
    let read = good(&place, &["--json", "artifact", "read", "artifact.mender"]).await;
    let contents: Value = serde_json::from_str(&read).unwrap();
    for (key, expected) in [
        ("group", json!("g")),
        ("device_types", json!(["a", "b"])),
        ("provides", json!({ "p": "", "fs.sn.version": "sv" })),
        ("depends", json!({ "k": ["1", "2"], "artifact_name": ["m1", "m2"], "artifact_group": ["g1", "g2"] })),
        ("clears_provides", json!(["p.*", "fs.sn.*"])),
        ("meta_data", json!({ "a": 1 })),
        ("scripts", json!(["ArtifactInstall_Enter_00"])),
        ("header_compression", json!("zstd")),
        ("signature", json!("none")),
    ] {
        assert_eq!(contents[key], expected, "{key}");
    }
    good(&place, &[&line[..], &["--no-default-software-version"]].concat()).await;
    let read = good(&place, &["--json", "artifact", "read", "artifact.mender"]).await;
    assert!(!read.contains("fs.sn"), "{read}");
}

#[tokio::test]
async fn wrong_descriptions_are_refused() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("f"), "x").unwrap();
    let write = ["artifact", "write", "module-image", "-n", "n", "-t", "t", "-T", "y", "-f", "f"];
    for (more, code, said) in [
        (&["-p", "k"][..], 2, "a key, a colon and a value"),
        (&["-p", ":v"], 2, "a key, a colon and a value"),
        (&["-p", "k:1", "-p", "k:2"], 2, "\"k\" twice"),
        (&["--compression", "bzip2"], 2, "bzip2"),
        (&["-f", "absent"], 1, "absent"),
        (&["-m", "absent"], 1, "absent"),
        (&["-m", "f"], 2, "meta-data"),
        (&["-s", "f"], 2, "state script"),
        (&["-k", "f"], 10, "\"f\""),
    ] {
        refused(&place, &[&write[..], more].concat(), code, said).await;
        assert!(!place.path().join("artifact.mender").exists(), "{more:?}");
    }
}

const MANIFEST: &str = "\
api_version: mender/v1
kind: manifest
name: system-v2
system_types_compatible: [core, edge]
component_types:
  rtos: { artifact_name: rtos-v2, update_strategy: { order: 20 } }
";

#[tokio::test]
async fn manifests_travel_as_artifacts() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("m.yaml"), MANIFEST).unwrap();
    good(&place, &["artifact", "write", "manifest", "m.yaml", "-t", "core"]).await;
    let read = good(&place, &["--json", "artifact", "read", "orchestrator-manifest.mender"]).await;
    let contents: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(
        (&contents["name"], &contents["payload_type"], &contents["device_types"]),
        (&json!("system-v2"), &json!("mender-orchestrator-manifest"), &json!(["core"]))
    );
    assert_eq!(contents["provides"], json!({ "data-partition.mender-orchestrator-manifest.version": "system-v2" }));
    assert_eq!(contents["files"][0]["name"], "m.yaml");
    let line = ["artifact", "write", "manifest", "m.yaml", "-t", "core", "-t", "edge", "-n", "other", "-o", "o.mender"];
    good(&place, &line).await;
    let text = good(&place, &["artifact", "read", "o.mender"]).await;
    assert!(text.contains("Artifact:       other\n") && text.contains("Device types:   core, edge\n"), "{text}");
}

#[tokio::test]
async fn manifests_that_cannot_be_meant_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let write = async |name: &str, text: &str, said: &str| {
        std::fs::write(place.path().join(name), text).unwrap();
        refused(&place, &["artifact", "write", "manifest", name, "-t", "core"], 11, said).await;
        assert!(!place.path().join("orchestrator-manifest.mender").exists());
    };
    write("m.yaml", &MANIFEST.replace("[core, edge]", "[edge]"), "\"core\"").await;
    write("m.yaml", &MANIFEST.replace("order: 20", "order: 101"), "101").await;
    write("m.yaml", &MANIFEST.replace("order: 20", "order: 0"), "m.yaml:6:61: ").await;
    write("m.yaml", "name: [", "m.yaml:1:").await;
    write("m.txt", MANIFEST, ".yaml").await;
    let path = place.path().join("m.yaml");
    std::fs::write(&path, MANIFEST).unwrap();
    refused(&place, &["artifact", "write", "manifest", text(&path)], 2, "--system-type").await;
}
