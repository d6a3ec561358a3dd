use std::io::{Cursor, Write};

use super::*;
use crate::vplc::program::machine::Direction;

fn archive(text: &str) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("generated.hpp", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(text.as_bytes()).unwrap();
    archive.finish().unwrap().into_inner()
}

fn open(directory: &tempfile::TempDir) -> Store {
    Store::open(directory.path().join("programs"), 3).unwrap()
}

fn add(store: &mut Store, text: &str) -> Version {
    let path = store.incoming();
    let taken = take(&mut archive(text).as_slice(), &path).unwrap();
    store.adopt(taken, "user 1000").unwrap()
}

fn files(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path().join("programs")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.rsplit_once('.').is_some_and(|(_, kind)| kind == "zip"));
    names.sort();
    names
}

#[test]
fn versions_carry_hash_size_and_name_and_outlive_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    let version = add(&mut store, "one");
    store.conclude(Some(1), true).unwrap();
    drop(store);
    let store = open(&directory);
    let bytes = archive("one");
    assert_eq!(version.sha256, hex(ring::digest::digest(&SHA256, &bytes).as_ref()));
    assert_eq!((version.number, version.size, version.by.as_str()), (1, bytes.len() as u64, "user 1000"));
    assert!(version.added > 1_700_000_000);
    let active = store.active().unwrap();
    assert!(active.proven.is_some());
    let mut exported = Vec::new();
    store.archive(1).unwrap().0.read_to_end(&mut exported).unwrap();
    assert_eq!(exported, bytes);
    let message = store.archive(7).unwrap_err().message;
    assert_eq!(message, "There is no version \"7\" of the program.");
}

#[test]
fn what_is_refused_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    let path = store.incoming();
    assert_eq!(take(&mut &b"no archive"[..], &path).unwrap_err().kind, Kind::InvalidProgram);
    let error = take(&mut io::repeat(0), &path).unwrap_err();
    assert_eq!(error.message, ArchiveError::TooLarge.to_string());
    assert!(files(&directory).is_empty());
}

#[test]
fn old_versions_go_but_never_those_that_are_needed() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    for number in [1, 2] {
        add(&mut store, &number.to_string());
        store.conclude(Some(number), true).unwrap();
    }
    // Many that do not run.
    for number in 3..=9 {
        add(&mut store, &number.to_string());
        store.conclude(Some(2), true).unwrap();
    }
    let numbers: Vec<u32> = store.versions().iter().map(|version| version.number).collect();
    assert_eq!(numbers, [1, 2, 9]);
    assert_eq!(files(&directory), ["1.zip", "2.zip", "9.zip"]);
    assert_eq!(store.before(Some(2)), Some(1));
    assert_eq!(store.before(Some(1)), None);
}

#[test]
fn a_damaged_archive_is_told_and_the_one_before_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    for number in [1, 2, 3] {
        add(&mut store, &number.to_string());
        store.conclude(Some(number), true).unwrap();
    }
    assert_eq!(store.fallback(4), Some(3));
    // One bit.
    let path = directory.path().join("programs/3.zip");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = store.archive(3).unwrap_err();
    assert_eq!(error.kind, Kind::Storage);
    assert!(error.message.contains("3.zip\" is not what it was"), "{error}");
    assert_eq!(store.fallback(4), Some(2));
    // The end.
    let path = directory.path().join("programs/2.zip");
    fs::write(&path, &fs::read(&path).unwrap()[..20]).unwrap();
    assert_eq!((store.fallback(4), store.before(Some(3))), (Some(1), Some(1)));
    fs::remove_file(directory.path().join("programs/1.zip")).unwrap();
    assert_eq!(store.fallback(4), None);
}

#[test]
fn a_truncated_document_falls_back_and_numbers_are_never_given_twice() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    for number in [1, 2] {
        add(&mut store, &number.to_string());
        store.conclude(Some(number), true).unwrap();
    }
    add(&mut store, "3");
    drop(store);
    let path = directory.path().join("programs/programs.json");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let mut store = open(&directory);
    assert_eq!(store.active().unwrap().number, 2);
    assert_eq!(files(&directory), ["1.zip", "2.zip"]);
    assert_eq!(add(&mut store, "4").number, 4);
}

#[test]
fn what_was_coming_in_at_a_crash_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    let (first, second) = (store.incoming(), store.incoming());
    assert_ne!(first, second);
    take(&mut archive("x").as_slice(), &first).unwrap();
    fs::write(second, "half").unwrap();
    assert!(open(&directory).versions().is_empty());
    assert!(files(&directory).is_empty());
}

#[test]
fn an_open_deployment_outlives_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory);
    add(&mut store, "1");
    let mut deployment = Deployment::new(1, None, true);
    deployment.direction = Direction::Back;
    deployment.failure = Some(Error::new(Kind::ProgramFailed, "x"));
    store.record(&deployment).unwrap();
    let mut store = open(&directory);
    assert_eq!(store.deployment(), Some(&deployment));
    store.conclude(None, false).unwrap();
    assert_eq!(open(&directory).deployment(), None);
}
