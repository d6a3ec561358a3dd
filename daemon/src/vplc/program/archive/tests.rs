use std::io::{Cursor, Write};

use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// An archive with another name in place of this one, which has the same length.
fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        (0..=bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert_eq!(places.len(), 2, "once before the file and once in the directory");
    for place in places {
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    let error = check(Cursor::new(bytes)).unwrap_err();
    let error = Error::from(error);
    assert_eq!(error.kind, Kind::InvalidProgram);
    error.message
}

#[test]
fn a_program_as_the_editor_makes_it_is_accepted() {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    archive.add_directory("plc/", options).unwrap();
    archive.start_file("plc/generated.hpp", options).unwrap();
    archive.write_all(&b"#pragma once\n".repeat(1000)).unwrap();
    archive.start_file("plc/main.cpp", options.compression_method(CompressionMethod::Stored)).unwrap();
    archive.write_all(b"int main() {}\n").unwrap();
    archive.start_file("plc/empty", options).unwrap();
    check(Cursor::new(archive.finish().unwrap().into_inner())).unwrap();
}

#[test]
fn names_that_lead_elsewhere_are_refused_by_name() {
    let good = archive(&[("aaaaaaaa", b"x")]);
    for (name, reason) in [
        ("/etc/abc", "has an absolute path"),
        ("../../ab", "leads elsewhere"),
        ("a/../../", "leads elsewhere"),
        ("a/./bcde", "leads elsewhere"),
        ("a//bcdef", "an empty part"),
        ("a..bcdef", "two dots in a row"),
        ("C:bcdefg", "a character that is not allowed"),
        ("..\\..\\ab", "a character that is not allowed"),
        ("abc\0defg", "a character that is not allowed"),
        ("abcde.sh", "has the suffix \".sh\""),
        ("abcd.DLL", "has the suffix \".dll\""),
    ] {
        let message = refusal(&renamed(&good, "aaaaaaaa", name));
        assert!(message.contains(reason), "{name}: {message}");
    }
}

#[test]
fn one_name_twice_is_refused() {
    let message = refusal(&renamed(&archive(&[("one", b"x"), ("two", b"y")]), "two", "one"));
    assert!(message.contains("two files of the same name"), "{message}");
    let message = refusal(&archive(&[("one", b"x"), ("ONE", b"y")]));
    assert!(message.contains("\"ONE\"") && message.contains("twice"), "{message}");
}

#[test]
fn links_and_devices_are_refused() {
    let mut links = ZipWriter::new(Cursor::new(Vec::new()));
    links.add_symlink("conf", "/etc", SimpleFileOptions::default()).unwrap();
    let message = refusal(&links.finish().unwrap().into_inner());
    assert!(message.contains("\"conf\" of the program is a symbolic link"), "{message}");
}

#[test]
fn bombs_are_refused_without_being_unpacked_to_their_end() {
    let zeros = vec![0; usize::try_from(FILE_LIMIT + 1).unwrap()];
    let message = refusal(&archive(&[("zeros", &zeros)]));
    assert!(message.contains("\"zeros\" of the program has more than 10485760 bytes"), "{message}");
    let message = refusal(&archive(&[("zeros", &zeros[1..])]));
    assert!(message.contains("more than 1000 times as large"), "{message}");
    // Many that are small enough one by one, and not packed at all.
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for number in 0..6 {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file(format!("part{number}"), stored).unwrap();
        archive.write_all(&zeros[1..]).unwrap();
    }
    let archive = archive.finish().unwrap().into_inner();
    assert_eq!(refusal(&archive), ArchiveError::TotalTooLarge.to_string());
}

#[test]
fn too_many_heads_are_refused_before_they_are_parsed() {
    let mut bytes = archive(&[("a", b"x")]);
    bytes.splice(0..0, b"PK\x01\x02".repeat(ENTRIES_LIMIT + 1));
    assert!(refusal(&bytes).contains("files and directories, but at most 10000"));
}

#[test]
fn heads_across_the_border_of_a_buffer_count_once() {
    struct Drops<'b>(&'b [u8]);
    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }
    bounded_directory(&mut Drops(&b"PK\x01\x02".repeat(ENTRIES_LIMIT))).unwrap();
    bounded_directory(&mut Drops(&b"PK\x01\x02".repeat(ENTRIES_LIMIT + 1))).unwrap_err();
}

#[test]
fn a_size_that_is_a_lie_is_refused() {
    let bytes = archive(&[("file", &[7; 300])]);
    for (lie, place) in [(299_u32, 0), (301, 0)].into_iter().flat_map(|(lie, _)| [(lie, 22), (lie, 24)]) {
        let mut bytes = bytes.clone();
        // The size unpacked stands 22 bytes into the head of the file and 24 into that of the directory.
        let head: &[u8] = if place == 22 { b"PK\x03\x04" } else { b"PK\x01\x02" };
        let head = bytes.windows(4).position(|window| window == head).unwrap();
        bytes[head + place..head + place + 4].copy_from_slice(&lie.to_le_bytes());
        // The directory is what counts for us; if only the other one lies, nobody is misled.
        if place == 24 {
            let message = refusal(&bytes);
            assert!(message.contains("\"file\""), "{message}");
        }
    }
}

#[test]
fn what_is_no_archive_or_empty_is_refused() {
    assert!(refusal(b"").contains("not a sound zip archive"));
    assert!(refusal(b"#!/bin/sh\necho\n").contains("not a sound zip archive"));
    assert_eq!(
        refusal(&ZipWriter::new(Cursor::new(Vec::new())).finish().unwrap().into_inner()),
        ArchiveError::Empty.to_string()
    );
}

proptest! {
    /// Damage is either harmless or an error; it is never a panic, and what is accepted is within the limits.
    #[test]
    fn damage_is_never_a_panic(cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = archive(&[("generated.hpp", &b"x".repeat(500)), ("a/main.cpp", b"int main() {}")]);
        let whole = bytes.len();
        bytes[at.index(whole)] = byte;
        bytes.truncate(whole - cut.index(whole / 4));
        drop(check(Cursor::new(bytes)));
    }

    #[test]
    fn noise_is_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        drop(check(Cursor::new(bytes)));
    }
}
