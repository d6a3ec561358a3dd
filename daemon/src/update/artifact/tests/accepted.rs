//! What sound Artifacts may look like, and what is read from them.

use std::collections::BTreeMap;

use super::fixture::*;
use crate::update::artifact::Compression;

fn map<const N: usize>(entries: [(&str, &[&str]); N]) -> BTreeMap<String, Vec<String>> {
    entries
        .into_iter()
        .map(|(key, values)| (key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect()))
        .collect()
}

fn contents(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect()
}

const FILES: [(&str, &[u8]); 2] = [("firmware.bin", b"firmware"), ("notes", b"")];

#[test]
fn every_field_of_the_header() {
    let info = r#"{"payloads":[{"type":"rtos-interface","more":1}],"artifact_provides":{"artifact_name":"rtos-v1","artifact_group":"line-1"},
        "artifact_depends":{"device_type":["rtos","rtos2"],"artifact_name":["a","b"],"artifact_group":["g"]},"later":{}}"#;
    let type_info = r#"{"type":"rtos-interface","artifact_provides":{"v":"1"},"artifact_depends":{"x":"1","y":["2","3"],"artifact_name":["b","c"]},
        "clears_artifact_provides":["v.*"]}"#;
    let mut fixture = Fixture::with_meta_data("{\"a\": [1, {\"b\": null}]}\n");
    fixture.header[0].content = info.into();
    fixture.header[1].content = type_info.into();
    fixture.header.insert(1, raw("scripts/ArtifactInstall_Enter_00", "#!/bin/sh"));
    fixture.header.insert(2, raw("scripts/ArtifactRollbackReboot_Error_99_what-ever.sh", "#!/bin/sh"));
    let (header, files) = read(&fixture.bytes()).unwrap();
    assert_eq!(header.artifact_name, "rtos-v1");
    assert_eq!(header.artifact_group.as_deref(), Some("line-1"));
    assert_eq!(header.device_types, ["rtos", "rtos2"]);
    assert_eq!(header.payload_type, "rtos-interface");
    assert_eq!(header.provides, BTreeMap::from([("v".into(), "1".into())]));
    // The name has to please both sides.
    assert_eq!(
        header.depends,
        map([("artifact_group", &["g"]), ("artifact_name", &["b"]), ("x", &["1"]), ("y", &["2", "3"])])
    );
    assert_eq!(header.clears_provides, Some(vec!["v.*".into()]));
    assert_eq!(header.scripts, ["ArtifactInstall_Enter_00", "ArtifactRollbackReboot_Error_99_what-ever.sh"]);
    assert_eq!(header.raw_header_info, info.as_bytes());
    assert_eq!(header.raw_type_info, type_info.as_bytes());
    assert_eq!(header.raw_meta_data, b"{\"a\": [1, {\"b\": null}]}\n");
    assert!(!header.signed);
    assert_eq!(header.verified_with, None);
    assert_eq!(header.compression, Compression::Gzip);
    assert_eq!(header.checksums.files().map(|(name, _)| name).collect::<Vec<_>>(), ["firmware.bin", "notes"]);
    assert_eq!(contents(&files), FILES);
}

#[test]
fn absent_and_null_are_the_same() {
    for json in [
        r#"{"type":"rtos-interface"}"#,
        r#"{"type":"rtos-interface","artifact_provides":null,"artifact_depends":null,"clears_artifact_provides":null}"#,
    ] {
        let (header, _) = read(&Fixture::with_type_info(json).bytes()).unwrap();
        assert!(header.provides.is_empty());
        assert!(header.depends.is_empty());
        assert_eq!(header.clears_provides, None);
        assert!(header.raw_meta_data.is_empty());
    }
    let (header, _) =
        read(&Fixture::with_type_info(r#"{"type":"rtos-interface","clears_artifact_provides":[]}"#).bytes()).unwrap();
    assert_eq!(header.clears_provides, Some(vec![]));
}

#[test]
fn empty_meta_data_is_none() {
    let (header, _) = read(&Fixture::with_meta_data("").bytes()).unwrap();
    assert!(header.raw_meta_data.is_empty());
}

#[test]
fn rootfs_image_with_an_empty_type() {
    let mut fixture = Fixture::with_header_info(&HEADER_INFO.replace("rtos-interface", "rootfs-image"));
    for json in [r#"{"type":""}"#, r#"{"type":"rootfs-image"}"#] {
        fixture.header[1].content = json.into();
        assert_eq!(read(&fixture.bytes()).unwrap().0.payload_type, "rootfs-image");
    }
}

#[test]
fn every_pair_of_compressions() {
    for header_compression in Compression::ALL {
        for data_compression in Compression::ALL {
            let fixture = Fixture { header_compression, data_compression, ..Fixture::default() };
            let (header, files) = read(&fixture.bytes()).unwrap();
            assert_eq!(header.compression, header_compression);
            assert_eq!(contents(&files), FILES);
        }
    }
}

#[test]
fn concatenated_compressed_streams() {
    for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
        let fixture = Fixture { header_compression: compression, data_compression: compression, ..Fixture::default() };
        let halves = |tar: &[u8]| {
            let (first, second) = tar.split_at(700);
            [compress(first, compression), compress(second, compression)].concat()
        };
        let header = halves(&tar(&fixture.header));
        let manifest = fixture.manifest().replace(&sha256(&fixture.header_tar()), &sha256(&header));
        let bytes = tar(&fixture.members_with(&manifest, header, halves(&tar(&fixture.data))));
        assert_eq!(contents(&read(&bytes).unwrap().1), FILES, "{compression}");
    }
}

#[test]
fn zstd_with_a_skippable_frame_in_front() {
    let fixture = Fixture { data_compression: Compression::Zstd, ..Fixture::default() };
    let skippable = [&0x184d_2a5e_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"skip"].concat();
    let bytes = fixture.bytes_with_data([skippable, fixture.data_tar()].concat());
    assert_eq!(contents(&read(&bytes).unwrap().1), FILES);
}

#[test]
fn a_payload_without_files() {
    for data_compression in Compression::ALL {
        let fixture = Fixture { data: vec![], data_compression, ..Fixture::default() };
        assert!(read(&fixture.bytes()).unwrap().1.is_empty());
    }
}

#[test]
fn zeros_after_the_end() {
    let mut bytes = Fixture::default().bytes();
    bytes.resize(bytes.len().next_multiple_of(10240), 0);
    assert!(read(&bytes).is_ok());
    bytes.push(0);
    assert!(read(&bytes).is_ok());
}

#[test]
fn a_manifest_without_its_last_newline() {
    let fixture = Fixture::default();
    assert!(read(&fixture.bytes_with_manifest(fixture.manifest().trim_end())).is_ok());
}

#[test]
fn names_and_sizes_in_extensions() {
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        let length = (1..99).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
        format!("{length}{rest}")
    };
    let mut short = tar_member(&raw("ignored", "firmware"));
    short[124..136].copy_from_slice(b"00000000001\0");
    seal(&mut short[..512]);
    let mut binary = tar_member(&raw("firmware.bin", "firmware"));
    binary[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]);
    seal(&mut binary[..512]);
    let mut gnu = tar_member(&raw("firmware.bin", "firmware"));
    gnu[257..265].copy_from_slice(b"ustar  \0");
    // Where POSIX has the prefix, GNU has times.
    gnu[345..356].copy_from_slice(b"01234567012");
    seal(&mut gnu[..512]);
    let pax =
        [record("mtime", "1.5"), record("path", "firmware.bin"), record("size", "8"), record("uname", "r\u{f6}ot")];
    let with_pax = [tar_member(&raw_kind("PaxHeaders", b'x', pax.concat())), short].concat();
    let with_long_name =
        [tar_member(&raw_kind("././@LongLink", b'L', "firmware.bin\0")), tar_member(&raw("firm", "firmware"))].concat();
    for (case, member) in [("pax", with_pax), ("long name", with_long_name), ("base 256", binary), ("gnu", gnu)] {
        let data = [member, tar(&[raw("notes", "")])].concat();
        let fixture = Fixture { data_compression: Compression::None, ..Fixture::default() };
        assert_eq!(contents(&read(&fixture.bytes_with_data(data)).unwrap().1), FILES, "{case}");
    }
}

#[test]
fn a_script_with_a_name_split_by_posix() {
    let name = format!("ArtifactInstall_Enter_00_{}", "a".repeat(70));
    let mut script = tar_member(&raw(&name, "#!/bin/sh"));
    script[345..352].copy_from_slice(b"scripts");
    seal(&mut script[..512]);
    let fixture = Fixture { header_compression: Compression::None, ..Fixture::default() };
    let header = [tar_member(&fixture.header[0]), script, tar(&fixture.header[1..])].concat();
    assert_eq!(read(&fixture.bytes_with_header(&header)).unwrap().0.scripts, [name]);
}
