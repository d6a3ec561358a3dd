//! Headers that have to be refused, each with its message.

use super::fixture::*;
use crate::update::artifact::format::{HEADER_LIMIT, META_DATA_LIMIT};
use crate::update::artifact::{ArtifactError, Compression};

/// The header of a sound Artifact, changed.
fn header(change: impl FnOnce(&mut Vec<Raw>)) -> Vec<u8> {
    let mut fixture = Fixture::default();
    change(&mut fixture.header);
    fixture.bytes()
}

#[test]
fn header_tar() {
    let fixture = Fixture::default();
    let plain = tar(&fixture.header);
    let packed = compress(&plain, Compression::Gzip);
    let bomb = vec![0; usize::try_from(HEADER_LIMIT).unwrap() + 4096];
    let bomb = |compression| {
        let fixture = Fixture { header_compression: compression, ..Fixture::default() };
        let mut script = raw("scripts/ArtifactInstall_Enter_00", &bomb);
        script.size = None;
        let header = tar(&[fixture.header[0].clone(), script, fixture.header[1].clone()]);
        fixture.bytes_with_header(&compress(&header, compression))
    };
    let mut damaged = packed.clone();
    let end = damaged.len();
    damaged[end - 8] ^= 1;
    let with_suffix = |compression, header: &[u8]| {
        Fixture { header_compression: compression, ..Fixture::default() }.bytes_with_header(header)
    };
    assert_refused([
        (
            "other bytes than the manifest says",
            {
                let mut members = fixture.members();
                members[2].content = b"x".to_vec();
                tar(&members)
            },
            &format!(
                "The Artifact is damaged: \"header.tar.gz\" has SHA-256 {}, but the manifest says {}.",
                sha256(b"x"),
                sha256(&packed)
            ),
        ),
        (
            "named gz, is plain",
            fixture.bytes_with_header(&plain),
            "The Artifact is malformed: \"header.tar.gz\" is named for gzip compression, but its content has no compression that is known.",
        ),
        (
            "named plain, is gz",
            with_suffix(Compression::None, &packed),
            "The Artifact is malformed: \"header.tar\" is named for none compression, but its content has gzip compression.",
        ),
        (
            "named zst, is gz",
            with_suffix(Compression::Zstd, &packed),
            "The Artifact is malformed: \"header.tar.zst\" is named for zstd compression, but its content has gzip compression.",
        ),
        (
            "named xz, is zst",
            with_suffix(Compression::Xz, &compress(&plain, Compression::Zstd)),
            "The Artifact is malformed: \"header.tar.xz\" is named for xz compression, but its content has zstd compression.",
        ),
        (
            "damaged gzip",
            fixture.bytes_with_header(&damaged),
            "The Artifact is damaged: \"header.tar.gz\" cannot be decompressed: corrupt gzip stream does not have a matching checksum.",
        ),
        (
            "bytes after gzip",
            fixture.bytes_with_header(&[packed.as_slice(), b"xx"].concat()),
            "The Artifact is damaged: \"header.tar.gz\" cannot be decompressed: unexpected end of file.",
        ),
        (
            "truncated gzip",
            fixture.bytes_with_header(&packed[..packed.len() - 1]),
            "The Artifact is damaged: \"header.tar.gz\" cannot be decompressed: unexpected end of file.",
        ),
        (
            "no tar inside",
            fixture.bytes_with_header(&compress(&[b'a'; 1024], Compression::Gzip)),
            "The Artifact is malformed: \"header.tar.gz\" has a block that is not a tar header.",
        ),
        (
            "nothing inside",
            fixture.bytes_with_header(&compress(&[], Compression::Gzip)),
            "The Artifact is truncated: it ends inside \"header.tar.gz\".",
        ),
        (
            "no end marker",
            fixture.bytes_with_header(&compress(&tar_without_end(&fixture.header), Compression::Gzip)),
            "The Artifact is truncated: it ends inside \"header.tar.gz\".",
        ),
        (
            "bytes after the end marker",
            fixture.bytes_with_header(&compress(&[plain.as_slice(), b"x"].concat(), Compression::Gzip)),
            "The Artifact is malformed: \"header.tar.gz\" has bytes other than zero after its end.",
        ),
        ("no members", header(Vec::clear), "The Artifact is incomplete: it has no \"header-info\" in its header."),
        (
            "gzip bomb",
            bomb(Compression::Gzip),
            "The Artifact is refused: \"header.tar.gz\", decompressed, is larger than the limit of 16777216 bytes.",
        ),
        (
            "xz bomb",
            bomb(Compression::Xz),
            "The Artifact is refused: \"header.tar.xz\", decompressed, is larger than the limit of 16777216 bytes.",
        ),
        (
            "zstd bomb",
            bomb(Compression::Zstd),
            "The Artifact is refused: \"header.tar.zst\", decompressed, is larger than the limit of 16777216 bytes.",
        ),
        (
            "huge size claimed",
            {
                let mut members = fixture.members();
                members[2].size = Some(HEADER_LIMIT + 1);
                tar(&members)
            },
            "The Artifact is refused: \"header.tar.gz\" is larger than the limit of 16777216 bytes.",
        ),
    ]);
}

#[test]
fn header_members() {
    const NEXT: &str = "found where a state script or \"headers/0000/type-info\" is expected.";
    const END: &str = "found where the end of the header is expected.";
    let with_script = |name: &str| header(|header| header.insert(1, raw(&format!("scripts/{name}"), "#!/bin/sh")));
    let bad_script = |name: &str| {
        format!(
            "The Artifact is malformed: \"scripts/{name}\" in \"header.tar.gz\" has a name that no state script of an Artifact can have."
        )
    };
    let found = |name: &str, rule: &str| format!("The Artifact is malformed: \"{name}\" in \"header.tar.gz\" {rule}");
    assert_refused([
        (
            "type-info first",
            header(|header| header.swap(0, 1)),
            &found("headers/0000/type-info", "found where \"header-info\" is expected."),
        ),
        (
            "directory",
            header(|header| header.insert(1, raw_kind("headers/", b'5', ""))),
            &found("headers/", "is a directory; only regular files are allowed."),
        ),
        ("unknown member", header(|header| header.insert(1, raw("notes", ""))), &found("notes", NEXT)),
        ("header-info twice", header(|header| header.insert(1, header[0].clone())), &found("header-info", NEXT)),
        (
            "meta-data first",
            header(|header| header.insert(1, raw("headers/0000/meta-data", "{}"))),
            &found("headers/0000/meta-data", NEXT),
        ),
        (
            "other index",
            header(|header| header[1].name = "headers/0001/type-info".into()),
            &found("headers/0001/type-info", NEXT),
        ),
        (
            "no type-info",
            header(|header| header.truncate(1)),
            "The Artifact is incomplete: it has no \"headers/0000/type-info\" in its header.",
        ),
        ("type-info twice", header(|header| header.push(header[1].clone())), &found("headers/0000/type-info", END)),
        (
            "second bucket",
            header(|header| header.push(raw("headers/0001/type-info", "{}"))),
            &found("headers/0001/type-info", END),
        ),
        (
            "script at the end",
            header(|header| header.push(raw("scripts/ArtifactInstall_Enter_00", ""))),
            &found("scripts/ArtifactInstall_Enter_00", END),
        ),
        (
            "something after meta-data",
            header(|header| header.extend([raw("headers/0000/meta-data", "{}"), raw("notes", "")])),
            &found("notes", END),
        ),
        ("script of a state without scripts", with_script("Download_Enter_00"), &bad_script("Download_Enter_00")),
        ("script that leaves its directory", with_script("../x"), &bad_script("../x")),
        (
            "script that leaves its directory by its text",
            with_script("ArtifactInstall_Enter_00_/../../x"),
            &bad_script("ArtifactInstall_Enter_00_/../../x"),
        ),
        ("script without a number", with_script("ArtifactInstall_Enter"), &bad_script("ArtifactInstall_Enter")),
        (
            "script with a long number",
            with_script("ArtifactInstall_Enter_000"),
            &bad_script("ArtifactInstall_Enter_000"),
        ),
        (
            "script with a blank",
            with_script("ArtifactInstall_Enter_00_a b"),
            &bad_script("ArtifactInstall_Enter_00_a b"),
        ),
        ("script without a name", with_script(""), &bad_script("")),
        (
            "script twice",
            header(|header| header.splice(1..1, vec![raw("scripts/ArtifactCommit_Leave_01", ""); 2]).for_each(drop)),
            &found("scripts/ArtifactCommit_Leave_01", "occurs twice."),
        ),
    ]);
}

#[test]
fn header_info() {
    let info = |json: &str| Fixture::with_header_info(json).bytes();
    let replace = |from: &str, to: &str| {
        assert!(HEADER_INFO.contains(from), "{from}");
        info(&HEADER_INFO.replace(from, to))
    };
    let rule = |rule: &str| format!("The Artifact is malformed: \"header-info\" in \"header.tar.gz\" {rule}.");
    let large = format!("{HEADER_INFO}{}", " ".repeat(1_100_000));
    let long = "a".repeat(1025);
    assert_refused([
        ("no JSON", info("{"), &rule("is not valid JSON (EOF while parsing an object at line 1 column 1)")),
        (
            "more than JSON",
            info(&format!("{HEADER_INFO} x")),
            &rule("is not valid JSON (trailing characters at line 1 column 134)"),
        ),
        ("no object", info("[]"), &rule("is JSON, but not an object")),
        (
            "deep JSON",
            info(&"[".repeat(100_000)),
            &rule("is not valid JSON (recursion limit exceeded at line 1 column 128)"),
        ),
        (
            "key twice",
            info(r#"{"payloads":[],"payloads":[]}"#),
            &rule("is not valid JSON (the key \"payloads\" occurs twice at line 1 column 29)"),
        ),
        ("no payloads", replace(r#""payloads":"#, r#""updates":"#), &rule("has no \"payloads\"")),
        (
            "payloads no list",
            replace(r#"[{"type":"rtos-interface"}]"#, "{}"),
            &rule("breaks a rule: \"payloads\" has to be a list of objects"),
        ),
        (
            "no payload",
            replace(r#"[{"type":"rtos-interface"}]"#, "[]"),
            &rule("breaks a rule: \"payloads\" may not be an empty list"),
        ),
        (
            "two payloads",
            replace(r#"[{"type":"rtos-interface"}]"#, r#"[{"type":"a"},{"type":"b"}]"#),
            &rule("breaks a rule: \"payloads\" lists 2 payloads; only one is supported"),
        ),
        (
            "payload no object",
            replace(r#"{"type":"rtos-interface"}"#, r#""rtos""#),
            &rule("breaks a rule: \"payloads\" has to be a list of objects"),
        ),
        (
            "payload without a type",
            replace(r#"{"type":"rtos-interface"}"#, "{}"),
            &rule("breaks a rule: \"payloads\" has an entry without a \"type\""),
        ),
        (
            "payload with an empty type",
            replace("\"rtos-interface\"", "\"\""),
            &rule("breaks a rule: \"payloads\" has an entry with an empty \"type\""),
        ),
        (
            "payload with a path as type",
            replace("rtos-interface", "../sh"),
            &rule("breaks a rule: \"payloads\" has an entry whose \"type\" is not a plain name"),
        ),
        (
            "payload with a number as type",
            replace("\"rtos-interface\"", "1"),
            &rule("breaks a rule: \"payloads\" has an entry whose \"type\" is not a plain name"),
        ),
        (
            "empty payload",
            replace("\"rtos-interface\"", "null"),
            "The Artifact \"rtos-v1\" has an empty payload (its type in \"header-info\" is null); it only sets provides of a Mender client and cannot be installed on a Component.",
        ),
        ("no provides", replace("artifact_provides", "provides"), &rule("has no \"artifact_provides\"")),
        ("provides null", replace(r#"{"artifact_name":"rtos-v1"}"#, "null"), &rule("has no \"artifact_provides\"")),
        ("no name", replace("artifact_name", "name"), &rule("has no \"artifact_provides.artifact_name\"")),
        (
            "empty name",
            replace("\"rtos-v1\"", "\"\""),
            &rule("breaks a rule: \"artifact_provides.artifact_name\" may not be empty"),
        ),
        (
            "number as name",
            replace("\"rtos-v1\"", "1"),
            &rule("breaks a rule: \"artifact_provides.artifact_name\" has to be a string"),
        ),
        (
            "name with a newline",
            replace("rtos-v1", "rtos\\nv1"),
            &rule(
                "has a text in \"artifact_provides.artifact_name\" that is longer than 1024 bytes or holds control characters",
            ),
        ),
        (
            "long name",
            replace("rtos-v1", &long),
            &rule(
                "has a text in \"artifact_provides.artifact_name\" that is longer than 1024 bytes or holds control characters",
            ),
        ),
        (
            "group no string",
            replace("{\"artifact_name\"", "{\"artifact_group\":[],\"artifact_name\""),
            &rule("breaks a rule: \"artifact_provides.artifact_group\" has to be a string"),
        ),
        ("no depends", replace("artifact_depends", "depends"), &rule("has no \"artifact_depends\"")),
        ("no device type", replace("device_type", "device"), &rule("has no \"artifact_depends.device_type\"")),
        (
            "empty device types",
            replace("[\"rtos\"]", "[]"),
            &rule("breaks a rule: \"artifact_depends.device_type\" may not be an empty list"),
        ),
        (
            "device type no list",
            replace("[\"rtos\"]", "\"rtos\""),
            &rule("breaks a rule: \"artifact_depends.device_type\" has to be a list of strings"),
        ),
        (
            "device type no string",
            replace("[\"rtos\"]", "[1]"),
            &rule("breaks a rule: \"artifact_depends.device_type\" has to be a list of strings"),
        ),
        (
            "empty dependency on a name",
            replace("{\"device_type\"", "{\"artifact_name\":[],\"device_type\""),
            &rule("breaks a rule: \"artifact_depends.artifact_name\" may not be an empty list"),
        ),
        (
            "empty dependency on a group",
            replace("{\"device_type\"", "{\"artifact_group\":[],\"device_type\""),
            &rule("breaks a rule: \"artifact_depends.artifact_group\" may not be an empty list"),
        ),
        (
            "too large",
            info(&large),
            "The Artifact is refused: \"header-info\" in \"header.tar.gz\" is larger than the limit of 1048576 bytes.",
        ),
    ]);
}

#[test]
fn type_info_and_meta_data() {
    const MISMATCH: &str = "breaks a rule: \"type\" has to be \"rtos-interface\", as in \"header-info\"";
    let info = |json: &str| Fixture::with_type_info(json).bytes();
    let meta = |json: &str| Fixture::with_meta_data(json).bytes();
    let rule =
        |rule: &str| format!("The Artifact is malformed: \"headers/0000/type-info\" in \"header.tar.gz\" {rule}.");
    let meta_rule =
        |rule: &str| format!("The Artifact is malformed: \"headers/0000/meta-data\" in \"header.tar.gz\" {rule}.");
    let typed = |rest: &str| info(&format!("{{\"type\":\"rtos-interface\",{rest}}}"));
    let large = " ".repeat(usize::try_from(META_DATA_LIMIT).unwrap());
    assert_refused([
        ("no JSON", info(""), &rule("is not valid JSON (EOF while parsing a value at line 1 column 0)")),
        ("no object", info("\"rtos-interface\""), &rule("is JSON, but not an object")),
        ("no type", info("{}"), &rule("has no \"type\"")),
        ("other type", info(r#"{"type":"directory"}"#), &rule(MISMATCH)),
        ("null type", info(r#"{"type":null}"#), &rule(MISMATCH)),
        ("empty type", info(r#"{"type":""}"#), &rule(MISMATCH)),
        (
            "provides a number",
            typed(r#""artifact_provides":{"a":1}"#),
            &rule("breaks a rule: \"artifact_provides.a\" has to be a string"),
        ),
        (
            "provides a list",
            typed(r#""artifact_provides":{"a":["b"]}"#),
            &rule("breaks a rule: \"artifact_provides.a\" has to be a string"),
        ),
        (
            "provides no object",
            typed(r#""artifact_provides":["a"]"#),
            &rule("breaks a rule: \"artifact_provides\" has to be an object"),
        ),
        (
            "provides two lines",
            typed(r#""artifact_provides":{"a":"b\nc=d"}"#),
            &rule("has a text in \"artifact_provides.a\" that is longer than 1024 bytes or holds control characters"),
        ),
        (
            "depends on a number",
            typed(r#""artifact_depends":{"a":1}"#),
            &rule("breaks a rule: \"artifact_depends.a\" has to be a string or a list of strings that is not empty"),
        ),
        (
            "depends on nothing",
            typed(r#""artifact_depends":{"a":[]}"#),
            &rule("breaks a rule: \"artifact_depends.a\" has to be a string or a list of strings that is not empty"),
        ),
        (
            "depends on numbers",
            typed(r#""artifact_depends":{"a":["b",1]}"#),
            &rule("breaks a rule: \"artifact_depends.a\" has to be a list of strings"),
        ),
        (
            "clears no list",
            typed(r#""clears_artifact_provides":"*""#),
            &rule("breaks a rule: \"clears_artifact_provides\" has to be a list of strings"),
        ),
        (
            "clears a number",
            typed(r#""clears_artifact_provides":[1]"#),
            &rule("breaks a rule: \"clears_artifact_provides\" has to be a list of strings"),
        ),
        ("meta-data a list", meta("[]"), &meta_rule("is JSON, but not an object")),
        ("meta-data no JSON", meta("x"), &meta_rule("is not valid JSON (expected value at line 1 column 1)")),
        ("meta-data blank", meta(" "), &meta_rule("is not valid JSON (EOF while parsing a value at line 1 column 1)")),
        (
            "meta-data too large",
            meta(&format!("{{}}{large}")),
            "The Artifact is refused: \"headers/0000/meta-data\" in \"header.tar.gz\" is larger than the limit of 1048576 bytes.",
        ),
    ]);
}

#[test]
fn an_empty_payload_is_told_apart() {
    let json = HEADER_INFO.replace("\"rtos-interface\"", "null");
    let error = read(&Fixture::with_header_info(&json).bytes()).unwrap_err();
    assert!(matches!(error, ArtifactError::EmptyPayload { name } if name == "rtos-v1"));
}
