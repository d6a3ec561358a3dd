//! Outer members that have to be refused, each with its message.

use super::fixture::*;
use crate::core::error::{Error, Kind};
use crate::update::artifact::Compression;
use crate::update::artifact::format::{MANIFEST_LIMIT, VERSION_LIMIT};

/// The members of a sound Artifact, changed.
fn members(change: impl FnOnce(&mut Vec<Raw>)) -> Vec<u8> {
    let mut members = Fixture::default().members();
    change(&mut members);
    tar(&members)
}

fn version(json: &str) -> Vec<u8> {
    Fixture { version: json.into(), ..Fixture::default() }.bytes()
}

fn manifest(change: impl FnOnce(String) -> String) -> Vec<u8> {
    let fixture = Fixture::default();
    fixture.bytes_with_manifest(&change(fixture.manifest()))
}

fn bytes(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Fixture::default().bytes();
    change(&mut bytes);
    bytes
}

#[test]
fn outer_tar() {
    const NO_TAR: &str = "The input is not an Artifact: it does not begin with a tar member.";
    const DIRECTORY: &str = "The Artifact is malformed: \"version\" is a directory; only regular files are allowed.";
    let late = |name: &str| members(|members| members.push(raw(name, "x")));
    assert_refused([
        ("empty input", vec![], NO_TAR),
        ("short input", b"mender".to_vec(), NO_TAR),
        ("zeros", vec![0; 4096], NO_TAR),
        ("text", vec![b'a'; 4096], NO_TAR),
        ("compressed as a whole", compress(&Fixture::default().bytes(), Compression::Gzip), NO_TAR),
        (
            "wrong header checksum",
            bytes(|bytes| bytes[600 + 512] ^= 1),
            "The Artifact is malformed: its outer tar has a tar header with a wrong checksum.",
        ),
        ("directory", members(|members| members[0].kind = b'5'), DIRECTORY),
        (
            "symbolic link",
            members(|members| members[1].kind = b'2'),
            "The Artifact is malformed: \"manifest\" is a symbolic link; only regular files are allowed.",
        ),
        (
            "hard link",
            members(|members| members[1].kind = b'1'),
            "The Artifact is malformed: \"manifest\" is a hard link; only regular files are allowed.",
        ),
        (
            "wrong first member",
            members(|members| members.swap(0, 1)),
            "The Artifact is malformed: \"manifest\" found where \"version\" is expected.",
        ),
        (
            "name with a dot in front",
            members(|members| members[0].name = "./version".into()),
            "The Artifact is malformed: \"./version\" found where \"version\" is expected.",
        ),
        (
            "no manifest, header first",
            members(|members| members.swap(1, 2)),
            "The Artifact is malformed: \"header.tar.gz\" found where \"manifest\" is expected.",
        ),
        (
            "nothing but version",
            members(|members| members.truncate(1)),
            "The Artifact is incomplete: it has no \"manifest\".",
        ),
        ("no header", members(|members| members.truncate(2)), "The Artifact is incomplete: it has no \"header.tar\"."),
        (
            "data before header",
            members(|members| members.swap(2, 3)),
            "The Artifact is malformed: \"data/0000.tar.gz\" found where \"header.tar\", with or without \".gz\", \".xz\" or \".zst\", is expected.",
        ),
        (
            "unknown member before the header",
            members(|members| members.insert(2, raw("notes", ""))),
            "The Artifact is malformed: \"notes\" found where \"header.tar\", with or without \".gz\", \".xz\" or \".zst\", is expected.",
        ),
        (
            "unknown suffix",
            members(|members| members[2].name = "header.tar.bz2".into()),
            "The Artifact is malformed: \"header.tar.bz2\" found where \"header.tar\", with or without \".gz\", \".xz\" or \".zst\", is expected.",
        ),
        (
            "unknown member before the payload",
            members(|members| members.insert(3, raw("notes", ""))),
            "The Artifact is malformed: \"notes\" found where \"data/0000.tar\", with or without \".gz\", \".xz\" or \".zst\", is expected.",
        ),
        (
            "second header",
            members(|members| members.insert(3, members[2].clone())),
            "The Artifact is malformed: \"header.tar.gz\" found where \"data/0000.tar\", with or without \".gz\", \".xz\" or \".zst\", is expected.",
        ),
        (
            "payload with another index",
            members(|members| members[3].name = "data/0001.tar.gz".into()),
            "The Artifact is malformed: \"data/0001.tar.gz\" found where \"data/0000.tar\", with or without \".gz\", \".xz\" or \".zst\", is expected.",
        ),
        (
            "augmented manifest",
            members(|members| members.insert(2, raw("manifest-augment", "x"))),
            "The Artifact has the member \"manifest-augment\"; augmented Artifacts are not supported.",
        ),
        (
            "augmented header",
            members(|members| members.insert(3, raw("header-augment.tar.gz", "x"))),
            "The Artifact has the member \"header-augment.tar.gz\"; augmented Artifacts are not supported.",
        ),
        (
            "no payload",
            members(|members| members.truncate(3)),
            "The Artifact is incomplete: it has no \"data/0000.tar\".",
        ),
        (
            "second payload",
            late("data/0001.tar.gz"),
            "The Artifact is malformed: \"data/0001.tar.gz\" is a second payload; only one is supported.",
        ),
        (
            "late member",
            late("notes"),
            "The Artifact is malformed: \"notes\" found where the end of the Artifact is expected.",
        ),
        (
            "bytes after the end",
            bytes(|bytes| bytes.push(1)),
            "The Artifact is malformed: its outer tar has bytes other than zero after its end.",
        ),
        (
            "far too many zeros after the end",
            bytes(|bytes| bytes.resize(bytes.len() + 1024 * 1024 + 1, 0)),
            "The Artifact is malformed: its outer tar has more than 1048576 zero bytes after its end.",
        ),
        (
            "end in the middle of the end marker",
            bytes(|bytes| bytes.truncate(bytes.len() - 512)),
            "The Artifact is truncated: it ends inside its outer tar, before the end marker.",
        ),
        (
            "end in the payload",
            bytes(|bytes| bytes.truncate(bytes.len() - 1025 - 400)),
            "The Artifact is truncated: it ends inside \"data/0000.tar.gz\".",
        ),
        (
            "global PAX header",
            members(|members| members.insert(0, raw_kind("g", b'g', "18 comment=mender\n"))),
            "The Artifact is malformed: \"g\" is a PAX global header; only regular files are allowed.",
        ),
        (
            "sparse member by PAX",
            members(|members| members.insert(0, raw_kind("x", b'x', "22 GNU.sparse.major=1\n"))),
            "The Artifact is malformed: its outer tar has a sparse member; only plain files are allowed.",
        ),
        (
            "malformed PAX",
            members(|members| members.insert(0, raw_kind("x", b'x', "99 path=version\n"))),
            "The Artifact is malformed: its outer tar has a malformed PAX extension.",
        ),
        (
            "PAX for nothing",
            members(|members| members.push(raw_kind("x", b'x', "16 path=version\n"))),
            "The Artifact is malformed: its outer tar ends after an extension without its member.",
        ),
        (
            "two PAX headers",
            members(|members| members.splice(0..0, vec![raw_kind("x", b'x', "16 path=version\n"); 2]).for_each(drop)),
            "The Artifact is malformed: \"x\" is a second extension for one member; only regular files are allowed.",
        ),
        (
            "huge PAX header",
            members(|members| members.insert(0, raw_kind("x", b'x', vec![b'a'; 64 * 1024 + 1]))),
            "The Artifact is refused: \"PAX extension\" is larger than the limit of 65536 bytes.",
        ),
        (
            "name that is not UTF-8",
            members(|members| members[1].name = b"\xff\xfe".to_vec()),
            "The Artifact is malformed: its outer tar has a member whose name is not UTF-8.",
        ),
        (
            "control characters in a name",
            members(|members| members[1].name = b"\x1b[31m".to_vec()),
            "The Artifact is malformed: \"\\u{1b}[31m\" found where \"manifest\" is expected.",
        ),
    ]);
}

#[test]
fn a_single_block_of_zeros_is_no_end() {
    let fixture = Fixture::default();
    let mut bytes = tar_without_end(&fixture.members());
    bytes.extend_from_slice(&[0; 512]);
    bytes.extend(tar(&[raw("late", "")]));
    let message = "The Artifact is malformed: its outer tar has a single block of zeros where its end marker has two.";
    assert_eq!(refusal(&bytes), message);
}

#[test]
fn version_member() {
    const FORMAT: &str = "The Artifact is malformed: \"version\" breaks a rule: \"format\" has to be \"mender\".";
    const NUMBER: &str = "The Artifact is malformed: \"version\" breaks a rule: \"version\" has to be the number 3.";
    let large = format!("{:2000}", r#"{"format":"mender","version":3}"#);
    assert!(large.len() as u64 > VERSION_LIMIT);
    let swapped = br#"{"version":3,"format":"mender"}"#;
    assert_refused([
        (
            "no JSON",
            version("mender 3"),
            "The Artifact is malformed: \"version\" is not valid JSON (expected value at line 1 column 1).",
        ),
        ("no object", version("[3]"), "The Artifact is malformed: \"version\" is JSON, but not an object."),
        ("no format", version(r#"{"version":3}"#), FORMAT),
        ("other format", version(r#"{"format":"rauc","version":3}"#), FORMAT),
        ("no number", version(r#"{"format":"mender"}"#), NUMBER),
        ("number in a string", version(r#"{"format":"mender","version":"3"}"#), NUMBER),
        ("fraction", version(r#"{"format":"mender","version":3.5}"#), NUMBER),
        (
            "version 2",
            version(r#"{"format":"mender","version":2}"#),
            "The Artifact has format version 2; only version 3 is supported.",
        ),
        (
            "version 4",
            version(r#"{"format":"mender","version":4}"#),
            "The Artifact has format version 4; only version 3 is supported.",
        ),
        ("too large", version(&large), "The Artifact is refused: \"version\" is larger than the limit of 1024 bytes."),
        (
            "other bytes than the manifest says",
            members(|members| members[0].content = swapped.to_vec()),
            &format!(
                "The Artifact is damaged: \"version\" has SHA-256 {}, but the manifest says 96bcd965947569404798bcbdb614f103db5a004eb6e364cfc162c146890ea35b.",
                sha256(swapped)
            ),
        ),
    ]);
}

#[test]
fn an_unsupported_version_has_a_kind_of_its_own() {
    let error = read(&version(r#"{"format":"mender","version":2}"#)).unwrap_err();
    assert_eq!(Error::from(error).kind, Kind::NotSupported);
    let error = read(&version("{}")).unwrap_err();
    assert_eq!(Error::from(error).kind, Kind::InvalidArtifact);
}

#[test]
fn manifest_member() {
    const SHAPE: &str = "The Artifact is malformed: \"manifest\" has something else than 64 lower-case hexadecimal digits, two spaces and a name in line 1.";
    let sum = sha256(b"firmware");
    let long = format!("data/0000/{}", "a".repeat(91));
    let large = vec![b'\n'; usize::try_from(MANIFEST_LIMIT).unwrap() + 1];
    assert_refused([
        ("upper case", manifest(|text| text.replace(&sum, &sum.to_uppercase())), SHAPE),
        ("letters beyond f", manifest(|text| text.replace(&sum, &"g".repeat(64))), SHAPE),
        ("short sum", manifest(|text| text.replace(&sum, &sum[1..])), SHAPE),
        ("one space", manifest(|text| text.replace("  data", " data")), SHAPE),
        ("a tab", manifest(|text| text.replace("  data", "\t\tdata")), SHAPE),
        ("three spaces", manifest(|text| text.replace("  data", "   data")), SHAPE),
        ("binary mark", manifest(|text| text.replacen("  data", " *data", 1)), SHAPE),
        ("no name", manifest(|text| text.replace("  data/0000/firmware.bin", "  ")), SHAPE),
        ("blank in a name", manifest(|text| text.replace("firmware.bin", "firm ware")), SHAPE),
        ("carriage return", manifest(|text| text.replace('\n', "\r\n")), SHAPE),
        ("empty line", manifest(|text| format!("\n{text}")), SHAPE),
        ("empty", manifest(|_| String::new()), SHAPE),
        (
            "long name",
            manifest(|text| text + &line(&long, b"x")),
            "The Artifact is malformed: \"manifest\" has a name of more than 100 bytes in line 5.",
        ),
        (
            "duplicate",
            manifest(|text| text + &line("data/0000/notes", b"x")),
            "The Artifact is malformed: \"manifest\" has \"data/0000/notes\" for the second time in line 5.",
        ),
        (
            "two headers",
            manifest(|text| text + &line("header.tar", b"x")),
            "The Artifact is malformed: \"manifest\" has a second header, \"header.tar\" after \"header.tar.gz\" in line 5.",
        ),
        (
            "no version",
            manifest(|text| text.lines().take(3).flat_map(|line| [line, "\n"]).collect()),
            "The Artifact is malformed: \"manifest\" does not list \"version\".",
        ),
        (
            "no header",
            manifest(|text| {
                text.lines().filter(|line| !line.contains("header")).flat_map(|line| [line, "\n"]).collect()
            }),
            "The Artifact is malformed: \"manifest\" does not list \"header.tar\".",
        ),
        (
            "header under another suffix",
            manifest(|text| text.replace("header.tar.gz", "header.tar")),
            "The Artifact is malformed: \"header.tar.gz\" is not listed in \"manifest\" under this name.",
        ),
        (
            "unknown name",
            manifest(|text| text + &line("manifest.sig", b"x")),
            "The Artifact is malformed: \"manifest\" has \"manifest.sig\", which can be the name of no member, in line 5.",
        ),
        (
            "payload with another index",
            manifest(|text| text + &line("data/0001/x", b"x")),
            "The Artifact is malformed: \"manifest\" has \"data/0001/x\", which can be the name of no member, in line 5.",
        ),
        (
            "name that leaves the payload",
            manifest(|text| text + &line("data/0000/../x", b"x")),
            "The Artifact is malformed: \"manifest\" has \"data/0000/../x\", which can be the name of no member, in line 5.",
        ),
        (
            "too large",
            members(|members| members[1].content = large),
            "The Artifact is refused: \"manifest\" is larger than the limit of 1048576 bytes.",
        ),
        (
            "huge size claimed",
            members(|members| members[1].size = Some(0o7_7777_7777)),
            "The Artifact is refused: \"manifest\" is larger than the limit of 1048576 bytes.",
        ),
        (
            "too many files",
            manifest(|text| text + &(0..10_000).map(|n| line(&format!("data/0000/{n}"), b"")).collect::<String>()),
            "The Artifact is refused: \"manifest\" holds more than 10000 payload files.",
        ),
    ]);
}
