//! What the writer writes, read back; what it refuses; what it leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

use super::super::tarball::{Member, TarReader};
use super::super::writer::{epoch, tar_header};
use crate::core::error::{Error, Kind};
use crate::update::artifact::{ArtifactSpec, Compression, SigningKey, VerifyKeys, verify, write};

struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn spec(&self) -> ArtifactSpec {
        let files = vec![self.file("firmware.bin", vec![7; 1_000_003]), self.file("empty", "")];
        ArtifactSpec::module_image("rtos-v2", vec!["rtos".into()], "rtos-interface", files)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn provides<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[test]
fn everything_comes_back() {
    let bench = Bench::new();
    for compression in Compression::ALL {
        let spec = ArtifactSpec {
            group: Some("line-1".into()),
            name_depends: strings(["a", "b"]),
            group_depends: strings(["g"]),
            provides: provides([("x", "1")]),
            depends: BTreeMap::from([("y".into(), strings(["2"])), ("z".into(), strings(["3", "4"]))]),
            clears: strings(["x*"]),
            meta_data: Some(b"{ \"key\": 1.0 }".to_vec()),
            scripts: vec![
                bench.file("ArtifactInstall_Enter_01_a", "#!/bin/sh"),
                bench.file("ArtifactCommit_Leave_02", ""),
            ],
            compression,
            ..bench.spec()
        };
        let out = bench.path("out.mender");
        write(&spec, None, &out).unwrap();
        let summary = verify(&out, &VerifyKeys::none()).unwrap();
        let header = &summary.header;
        assert_eq!(summary.size, fs::metadata(&out).unwrap().len());
        assert_eq!((header.compression, summary.data_compression), (compression, compression));
        assert_eq!((header.artifact_name.as_str(), header.artifact_group.as_deref()), ("rtos-v2", Some("line-1")));
        assert_eq!(header.device_types, ["rtos"]);
        assert_eq!(header.payload_type, "rtos-interface");
        assert_eq!(header.provides, provides([("rootfs-image.rtos-interface.version", "rtos-v2"), ("x", "1")]));
        assert_eq!(
            header.depends,
            BTreeMap::from([
                ("artifact_group".into(), strings(["g"])),
                ("artifact_name".into(), strings(["a", "b"])),
                ("y".into(), strings(["2"])),
                ("z".into(), strings(["3", "4"])),
            ])
        );
        assert_eq!(header.clears_provides, Some(strings(["x*", "rootfs-image.rtos-interface.*"])));
        assert_eq!(header.scripts, ["ArtifactInstall_Enter_01_a", "ArtifactCommit_Leave_02"]);
        assert_eq!(header.raw_meta_data, b"{ \"key\": 1.0 }");
        assert!(!header.signed);
        let files: Vec<_> = summary.files.iter().map(|file| (file.name.as_str(), file.size)).collect();
        assert_eq!(files, [("firmware.bin", 1_000_003), ("empty", 0)]);
    }
    assert!(!bench.names().contains(&"out.mender.tmp".to_owned()));
}

#[test]
fn software_versions() {
    let bench = Bench::new();
    let out = bench.path("out.mender");
    let written = |change: &dyn Fn(&mut ArtifactSpec)| {
        let mut spec = bench.spec();
        change(&mut spec);
        write(&spec, None, &out).unwrap();
        let header = verify(&out, &VerifyKeys::none()).unwrap().header;
        (header.provides, header.clears_provides)
    };
    assert_eq!(
        written(&|_| {}),
        (
            provides([("rootfs-image.rtos-interface.version", "rtos-v2")]),
            Some(strings(["rootfs-image.rtos-interface.*"]))
        )
    );
    assert_eq!(
        written(&|spec| {
            spec.software.filesystem = Some("data".into());
            spec.software.name = Some("app".into());
            spec.software.version = Some("9".into());
        }),
        (provides([("data.app.version", "9")]), Some(strings(["data.app.*"])))
    );
    assert_eq!(
        written(&|spec| spec.software.no_clears = true),
        (provides([("rootfs-image.rtos-interface.version", "rtos-v2")]), None)
    );
    assert_eq!(written(&|spec| spec.software.no_version = true), (BTreeMap::new(), None));
    // What is given by hand wins, and is not doubled.
    assert_eq!(
        written(&|spec| {
            spec.provides = provides([("rootfs-image.rtos-interface.version", "7")]);
            spec.clears = strings(["rootfs-image.rtos-interface.*"]);
        }),
        (provides([("rootfs-image.rtos-interface.version", "7")]), Some(strings(["rootfs-image.rtos-interface.*"])))
    );
}

#[test]
fn a_manifest_artifact() {
    let bench = Bench::new();
    let out = bench.path("out.mender");
    let manifest = bench.file("manifest.yaml", "api_version: mender/v1\n");
    write(&ArtifactSpec::manifest("system-v2", strings(["gateway"]), manifest), None, &out).unwrap();
    let header = verify(&out, &VerifyKeys::none()).unwrap().header;
    assert_eq!(header.payload_type, "mender-orchestrator-manifest");
    assert_eq!(header.provides, provides([("data-partition.mender-orchestrator-manifest.version", "system-v2")]));
    assert_eq!(header.clears_provides, Some(strings(["data-partition.mender-orchestrator-manifest.*"])));
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let bench = Bench::new();
    for compression in Compression::ALL {
        let spec = ArtifactSpec { compression, modified: 1_700_000_000, ..bench.spec() };
        let (first, second) = (bench.path("1.mender"), bench.path("2.mender"));
        write(&spec, None, &first).unwrap();
        write(&spec, None, &second).unwrap();
        assert_eq!(fs::read(first).unwrap(), fs::read(&second).unwrap(), "{compression}");
        write(&ArtifactSpec { modified: 0, ..spec.clone() }, None, &bench.path("3.mender")).unwrap();
        assert_ne!(fs::read(bench.path("3.mender")).unwrap(), fs::read(second).unwrap());
    }
}

#[test]
fn signed_with_p256() {
    let bench = Bench::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(document));
    let key = SigningKey::load(&bench.file("key.pem", pem)).unwrap();
    let out = bench.path("out.mender");
    write(&bench.spec(), Some(&key), &out).unwrap();
    assert!(verify(&out, &VerifyKeys::none()).unwrap().header.signed);
}

fn refused(spec: &ArtifactSpec, out: &Path) -> String {
    let error = write(spec, None, out).unwrap_err();
    let error = Error::from(error);
    assert_eq!(error.kind, Kind::InvalidArgs, "{error}");
    error.message
}

#[test]
fn descriptions_that_break_a_rule() {
    type Change<'a> = Box<dyn Fn(&mut ArtifactSpec) + 'a>;
    let bench = Bench::new();
    let out = bench.path("out.mender");
    let long = "a".repeat(91);
    fs::create_dir(bench.path("directory")).unwrap();
    fs::create_dir(bench.path("more")).unwrap();
    let table: [(Change, &str); 17] = [
        (Box::new(|spec| spec.name.clear()), "it has no name"),
        (Box::new(|spec| spec.device_types.clear()), "\"rtos-v2\" names no device type"),
        (Box::new(|spec| spec.payload_type.clear()), "the payload type \"\" is not a plain name"),
        (Box::new(|spec| spec.payload_type = "a/b".into()), "the payload type \"a/b\" is not a plain name"),
        (
            Box::new(|spec| spec.name = "a\nb".into()),
            "the text \"a\\nb\" is longer than 1024 bytes or holds control characters",
        ),
        (
            Box::new(|spec| spec.provides = provides([("a", "b\r")])),
            "the text \"b\\r\" is longer than 1024 bytes or holds control characters",
        ),
        (Box::new(|spec| spec.depends = BTreeMap::from([("a".into(), vec![])])), "the dependency \"a\" has no value"),
        (
            Box::new(|spec| spec.files = vec![bench.file("a b", "")]),
            "the payload file \"a b\" has a name with other characters than letters, digits, \"_\", \"-\", \".\" and \",\"",
        ),
        (Box::new(|spec| spec.files = vec![bench.file(&long, "")]), "has a name of more than 90 bytes"),
        (
            Box::new(|spec| spec.files = vec![bench.file("a", ""), bench.file("more/a", "")]),
            "the payload file \"a\" is given twice",
        ),
        (
            Box::new(|spec| spec.files = vec![bench.path("directory")]),
            "the payload \"directory\" is not a regular file",
        ),
        (
            Box::new(|spec| spec.scripts = vec![bench.file("install.sh", "")]),
            "\"install.sh\" is given twice, or is not the name of an Artifact's state script",
        ),
        (
            Box::new(|spec| spec.scripts = vec![bench.file("ArtifactInstall_Enter_01", ""); 2]),
            "\"ArtifactInstall_Enter_01\" is given twice, or is not the name of an Artifact's state script",
        ),
        (Box::new(|spec| spec.meta_data = Some(b"[]".to_vec())), "the meta-data is JSON, but not an object"),
        (
            Box::new(|spec| spec.meta_data = Some(format!("{{}}{}", " ".repeat(1024 * 1024)).into())),
            "\"headers/0000/meta-data\" is larger than 1048576 bytes",
        ),
        (
            Box::new(|spec| spec.scripts = vec![bench.file("ArtifactInstall_Enter_01", vec![0; 16 * 1024 * 1024])]),
            "its header is larger than 16777216 bytes",
        ),
        (Box::new(|spec| spec.modified = 1 << 33), "its time stamp is beyond what a tar file can hold"),
    ];
    for (change, rule) in table {
        let mut spec = bench.spec();
        change(&mut spec);
        let message = refused(&spec, &out);
        assert!(
            message.starts_with("Cannot write the Artifact: ") && message.ends_with(&format!("{rule}.")),
            "{message}"
        );
        assert!(!bench.names().iter().any(|name| name.starts_with("out.mender")), "{message}");
    }
}

#[test]
fn a_failure_leaves_the_old_artifact_alone() {
    let bench = Bench::new();
    let out = bench.file("out.mender", "old");
    let spec = ArtifactSpec { files: vec![bench.path("gone")], ..bench.spec() };
    let message = write(&spec, None, &out).unwrap_err().to_string();
    let expected = format!(
        "Cannot read \"{}\" to make the Artifact: No such file or directory (os error 2).",
        bench.path("gone").display()
    );
    assert_eq!(message, expected);
    assert_eq!(fs::read(&out).unwrap(), b"old");
    assert_eq!(bench.names(), ["empty", "firmware.bin", "out.mender"]);
}

#[test]
fn a_leftover_or_planted_draft_is_replaced_and_never_followed() {
    let bench = Bench::new();
    let victim = bench.file("victim", "precious");
    symlink(&victim, bench.path("out.mender.tmp")).unwrap();
    write(&bench.spec(), None, &bench.path("out.mender")).unwrap();
    assert_eq!(fs::read(victim).unwrap(), b"precious");
    assert_eq!(bench.names(), ["empty", "firmware.bin", "out.mender", "victim"]);
}

#[test]
fn an_unwritable_place() {
    let bench = Bench::new();
    let error = write(&bench.spec(), None, &bench.path("no/out.mender")).unwrap_err();
    let expected = format!(
        "Cannot create \"{}\" to make the Artifact: No such file or directory (os error 2).",
        bench.path("no/out.mender.tmp").display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(Error::from(error).kind, Kind::Failed);
}

#[test]
fn a_file_whose_size_is_not_what_it_claims() {
    let bench = Bench::new();
    // Claims 0 bytes and has some.
    let spec = ArtifactSpec { files: vec!["/proc/version".into()], ..bench.spec() };
    let message = refused(&spec, &bench.path("out.mender"));
    assert_eq!(message, "Cannot write the Artifact: the payload file \"version\" changed while it was read.");
}

#[test]
fn sizes_that_posix_tar_cannot_hold() {
    for size in [(1 << 33) - 1, 1 << 33, 1 << 40] {
        let header = tar_header("large", size, 0).unwrap();
        let member = TarReader::new(header.as_bytes().as_slice(), None).next_member().unwrap();
        assert_eq!(member, Some(Member { name: "large".into(), size }));
    }
}

#[test]
fn the_time_stamp_of_reproducible_builds() {
    assert_eq!(epoch(None).unwrap(), 0);
    assert_eq!(epoch(Some("1700000000".as_ref())).unwrap(), 1_700_000_000);
    for wrong in ["", "+1", "-1", "now", "8589934592", "99999999999999999999"] {
        let message = format!(
            "Cannot write the Artifact: \"SOURCE_DATE_EPOCH\" is \"{wrong}\", not a number of seconds since 1970."
        );
        assert_eq!(epoch(Some(wrong.as_ref())).unwrap_err().to_string(), message);
    }
}

#[test]
fn names_of_compressions() {
    for compression in Compression::ALL {
        assert_eq!(compression.to_string().parse::<Compression>().unwrap(), compression);
    }
    assert_eq!("lzma".parse::<Compression>().unwrap(), Compression::Xz);
    let message =
        "Cannot write the Artifact: the compression \"brotli\" is not one of none, gzip, xz (or lzma) and zstd.";
    assert_eq!("brotli".parse::<Compression>().unwrap_err().to_string(), message);
}
