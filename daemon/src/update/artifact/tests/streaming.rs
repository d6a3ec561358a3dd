//! Reading as a stream: any chunking, unread files, errors on the way, the input to its end.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::fixture::*;
use crate::core::error::{Error, Kind};
use crate::update::artifact::{ArtifactError, Compression, VerifyKeys, open, read_header, verify};

/// Gives one byte at a time, and is interrupted before each.
struct Drip<'a> {
    bytes: &'a [u8],
    interrupted: bool,
}

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = buffer.len().min(1);
        self.bytes.read(&mut buffer[..count])
    }
}

/// Counts what is read, and fails behind the end.
struct Failing<'a> {
    bytes: &'a [u8],
    count: Rc<Cell<usize>>,
}

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.count.set(self.count.get() + count);
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection lost"));
        }
        Ok(count)
    }
}

fn fixture(data_compression: Compression) -> Fixture {
    let large: Vec<u8> = (0..300_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
    let data = vec![raw("first", &large), raw("second", "2"), raw("third", &large[..1000])];
    Fixture { data, data_compression, header_compression: data_compression, ..Fixture::default() }
}

#[test]
fn one_byte_at_a_time() {
    for compression in Compression::ALL {
        let bytes =
            Fixture { data_compression: compression, header_compression: compression, ..Fixture::default() }.bytes();
        let mut artifact = open(Drip { bytes: &bytes, interrupted: false }, &VerifyKeys::none()).unwrap();
        let mut file = artifact.next_file().unwrap().unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"firmware");
        assert!(artifact.finish().unwrap().bytes.is_empty());
    }
}

#[test]
fn files_need_not_be_read() {
    for compression in Compression::ALL {
        let bytes = fixture(compression).bytes();
        let mut artifact = open(bytes.as_slice(), &VerifyKeys::none()).unwrap();
        let mut first = artifact.next_file().unwrap().unwrap();
        let mut start = [0; 1000];
        first.read_exact(&mut start).unwrap();
        drop(first);
        assert_eq!(artifact.next_file().unwrap().unwrap().name(), "second");
        let third = artifact.next_file().unwrap().unwrap();
        assert_eq!((third.name(), third.size()), ("third", 1000));
        assert!(artifact.next_file().unwrap().is_none());
        assert!(artifact.next_file().unwrap().is_none());
        assert!(artifact.finish().unwrap().is_empty());
        assert!(open(bytes.as_slice(), &VerifyKeys::none()).unwrap().finish().unwrap().is_empty());
    }
}

#[test]
fn a_file_that_nobody_reads_is_verified_all_the_same() {
    let mut fixture = fixture(Compression::None);
    let manifest = fixture.manifest();
    fixture.data[0].content[200_000] ^= 1;
    let bytes = fixture.bytes_with_manifest(&manifest);
    let mut artifact = open(bytes.as_slice(), &VerifyKeys::none()).unwrap();
    assert!(artifact.next_file().unwrap().is_some());
    assert!(matches!(artifact.next_file(), Err(ArtifactError::Checksum { .. })));
    assert!(matches!(artifact.next_file(), Err(ArtifactError::Unusable)));
    assert!(matches!(artifact.finish(), Err(ArtifactError::Unusable)));
    let artifact = open(bytes.as_slice(), &VerifyKeys::none()).unwrap();
    assert!(matches!(artifact.finish(), Err(ArtifactError::Checksum { .. })));
}

#[test]
fn the_end_of_a_damaged_file_is_never_handed_out() {
    let mut fixture = fixture(Compression::Gzip);
    let manifest = fixture.manifest();
    fixture.data[0].content[0] ^= 1;
    let bytes = fixture.bytes_with_manifest(&manifest);
    let mut artifact = open(bytes.as_slice(), &VerifyKeys::none()).unwrap();
    let mut file = artifact.next_file().unwrap().unwrap();
    let size = file.size();
    let mut content = Vec::new();
    let error = file.read_to_end(&mut content).unwrap_err();
    assert!((content.len() as u64) < size);
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(matches!(ArtifactError::from_io(error), ArtifactError::Checksum { .. }));
    assert!(matches!(ArtifactError::from_io(file.read(&mut [0]).unwrap_err()), ArtifactError::Unusable));
}

#[test]
fn an_empty_buffer_changes_nothing() {
    let bytes = Fixture::default().bytes();
    let mut artifact = open(bytes.as_slice(), &VerifyKeys::none()).unwrap();
    let mut file = artifact.next_file().unwrap().unwrap();
    assert_eq!(file.read(&mut []).unwrap(), 0);
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content, b"firmware");
    assert_eq!(file.read(&mut [0]).unwrap(), 0);
}

#[test]
fn errors_of_the_input_stay_what_they_are() {
    for compression in Compression::ALL {
        let bytes = fixture(compression).bytes();
        for length in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
            let count = Rc::new(Cell::new(0));
            let input = Failing { bytes: &bytes[..length], count: Rc::clone(&count) };
            let error =
                open(input, &VerifyKeys::none()).and_then(super::super::Artifact::finish).map(drop).unwrap_err();
            assert!(
                matches!(&error, ArtifactError::Input(source) if source.kind() == io::ErrorKind::ConnectionReset),
                "{compression} {length}: {error}"
            );
            assert_eq!(Error::from(error).kind, Kind::Failed);
            assert_eq!(count.get(), length);
        }
    }
}

#[test]
fn only_the_header_is_read_to_know_the_header() {
    let fixture = fixture(Compression::Gzip);
    let bytes = fixture.bytes();
    let count = Rc::new(Cell::new(0));
    let artifact = open(Failing { bytes: &bytes, count: Rc::clone(&count) }, &VerifyKeys::none()).unwrap();
    assert_eq!(artifact.header().artifact_name, "rtos-v1");
    let up_to_header = tar_without_end(&fixture.members()[..3]).len();
    assert!(count.get() <= up_to_header, "{} of {up_to_header} bytes", count.get());
}

#[test]
fn artifacts_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mender");
    let mut bytes = fixture(Compression::Xz).bytes();
    std::fs::write(&path, &bytes).unwrap();
    let keys = VerifyKeys::none();
    let (header, size) = read_header(&path, &keys).unwrap();
    assert_eq!((header.artifact_name.as_str(), size), ("rtos-v1", bytes.len() as u64));
    let summary = verify(&path, &keys).unwrap();
    assert_eq!(summary.header, header);
    assert_eq!(summary.size, size);
    assert_eq!(summary.data_compression, Compression::Xz);
    let names: Vec<_> = summary.files.iter().map(|file| (file.name.as_str(), file.size)).collect();
    assert_eq!(names, [("first", 1_200_000), ("second", 1), ("third", 1000)]);
    assert_eq!(summary.files[1].sha256.map(|byte| format!("{byte:02x}")).concat(), sha256(b"2"));

    bytes.truncate(bytes.len() - 1024);
    std::fs::write(&path, &bytes).unwrap();
    assert!(read_header(&path, &keys).is_ok());
    let message = verify(&path, &keys).unwrap_err().to_string();
    let place = format!(
        "In \"{}\": The Artifact is truncated: it ends inside its outer tar, before the end marker.",
        path.display()
    );
    assert_eq!(message, place);

    let gone = directory.path().join("gone");
    let error = read_header(&gone, &keys).unwrap_err();
    let message = format!("Cannot open the Artifact \"{}\": No such file or directory (os error 2).", gone.display());
    assert_eq!(error.to_string(), message);
    let message = format!("Cannot open the Artifact \"{}\": it is not a regular file.", directory.path().display());
    assert_eq!(verify(directory.path(), &keys).unwrap_err().to_string(), message);
}

#[test]
fn an_artifact_may_move_to_another_thread() {
    fn movable<T: Send>() {}
    movable::<crate::update::artifact::Artifact<std::fs::File>>();
    movable::<VerifyKeys>();
    movable::<ArtifactError>();
}
