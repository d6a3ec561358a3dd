//! What is fuzzed: one function per kind of input. Each takes any bytes, and fails by panicking.
//!
//! The crate `fuzz/` drives them with coverage, `tests/fuzz/` replays the corpora and some mutations of them.

use std::fs;
use std::io::Read;
use std::path::Path;

use orchestratord::config::Settings;
use orchestratord::core::document::Document;
use orchestratord::core::store::Journal;
use orchestratord::update::answers;
use orchestratord::update::artifact::format::hex;
use orchestratord::update::artifact::{self, Artifact, ArtifactError, VerifyKeys};
use orchestratord::update::handle::{RebootMode, RunOptions, StopPoint};
use orchestratord::update::machine::{Deployment, Effect, Event, Outcome};
use orchestratord::update::manifest::Manifest;
use orchestratord::update::plan::Plan;
use orchestratord::update::record::{Last, Record};
use orchestratord::update::runner::lines::Output;
use orchestratord::update::runner::{LINE_LIMIT, LINES_LIMIT, Lines, Stream};
use orchestratord::update::topology::Topology;

/// Takes an input and panics if it does harm.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: [(&str, Target); 7] = [
    ("artifact", artifact),
    ("sealed-artifact", sealed_artifact),
    ("manifest", manifest),
    ("topology", topology),
    ("configuration", configuration),
    ("answers", answers),
    ("record", record),
];

/// More than any sensible input decompresses to here; ends a decompression bomb, which the daemon streams away.
const READ_LIMIT: u64 = 8 * 1024 * 1024;

/// An Artifact as it comes.
pub fn artifact(bytes: &[u8]) {
    let result = read(bytes);
    if let Err(error) = result {
        assert_message(&error.to_string());
    }
}

fn read(bytes: &[u8]) -> Result<(), ArtifactError> {
    let mut artifact: Artifact<&[u8]> = artifact::open(bytes, &VerifyKeys::none())?;
    let header = artifact.header();
    assert!(!header.artifact_name.is_empty() && !header.device_types.is_empty(), "a header without its names");
    let mut left = READ_LIMIT;
    while let Some(mut file) = artifact.next_file()? {
        assert!(!file.name().is_empty() && !file.name().contains('/'), "a name that leaves the directory");
        let mut sink = std::io::sink();
        let count = std::io::copy(&mut (&mut file).take(left), &mut sink).map_err(ArtifactError::from_io)?;
        left = left.saturating_sub(count);
        if left == 0 {
            return Ok(());
        }
    }
    artifact.finish().map(drop)
}

/// An Artifact whose checksums are right, whatever stands in its parts: the first byte tells the compressions, the next
/// two how long the header is, the next how its tar is made, the rest is header and payload.
pub fn sealed_artifact(bytes: &[u8]) {
    let [first, low, high, how, rest @ ..] = bytes else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let (header, data) = rest.split_at(length.min(rest.len()));
    let suffix = |bits: u8| ["", ".gz", ".xz", ".zst"][usize::from(bits & 3)];
    // Either the bytes are the compressed tar, or parts of it that are put together here.
    let header = if how & 1 == 0 { header.to_vec() } else { pack(&header_tar(header), first & 3) };
    let data = if how & 2 == 0 { data.to_vec() } else { pack(&data_tar(data), first >> 2 & 3) };
    let (header_suffix, data_suffix) = (
        if how & 1 == 0 { suffix(*first) } else { packed_suffix(first & 3) },
        if how & 2 == 0 { suffix(first >> 2) } else { packed_suffix(first >> 2 & 3) },
    );
    let version = br#"{"format":"mender","version":3}"#;
    let files = split_files(bytes_of(rest, length)).into_iter();
    let mut lines: Vec<String> =
        files.map(|(name, content)| format!("{}  data/0000/{name}\n", sha256(content))).collect();
    lines.push(format!("{}  header.tar{header_suffix}\n{}  version\n", sha256(&header), sha256(version)));
    let manifest = lines.concat();
    let mut outer = Vec::new();
    member(&mut outer, "version", version);
    member(&mut outer, "manifest", manifest.as_bytes());
    member(&mut outer, &format!("header.tar{header_suffix}"), &header);
    member(&mut outer, &format!("data/0000.tar{data_suffix}"), &data);
    outer.extend_from_slice(&[0; 1024]);
    artifact(&outer);
}

fn bytes_of(rest: &[u8], length: usize) -> &[u8] {
    rest.get(length..).unwrap_or_default()
}

/// header-info, type-info and meta-data, separated by zeros.
fn header_tar(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    let names = ["header-info", "headers/0000/type-info", "headers/0000/meta-data", "scripts/ArtifactInstall_Enter_00"];
    for (name, content) in names.iter().zip(bytes.split(|byte| *byte == 0)) {
        member(&mut tar, name, content);
    }
    tar.extend_from_slice(&[0; 1024]);
    tar
}

/// Files by name, each line one file: the name, a tabulator, the content.
fn split_files(bytes: &[u8]) -> Vec<(String, &[u8])> {
    bytes
        .split(|byte| *byte == b'\n')
        .take(8)
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'\t')?;
            Some((String::from_utf8_lossy(&line[..at]).into_owned(), &line[at + 1..]))
        })
        .collect()
}

fn data_tar(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in split_files(bytes) {
        member(&mut tar, &name, content);
    }
    tar.extend_from_slice(&[0; 1024]);
    tar
}

/// Two of the compressions are enough to get inside; the bytes of the others come from the corpus.
fn pack(bytes: &[u8], how: u8) -> Vec<u8> {
    if how == 0 {
        return bytes.to_vec();
    }
    let mut packed = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
    encoder.read_to_end(&mut packed).expect("memory can be compressed");
    packed
}

fn packed_suffix(how: u8) -> &'static str {
    if how == 0 { "" } else { ".gz" }
}

fn member(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut block = [0_u8; 512];
    let name = name.as_bytes();
    let kept = name.len().min(100);
    block[..kept].copy_from_slice(&name[..kept]);
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].copy_from_slice(b"        ");
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&block);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// A Manifest.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let document = Document::new("manifest", text);
    match Manifest::parse(&document) {
        Ok(manifest) => {
            assert!(!manifest.component_types.is_empty() && !manifest.name.is_empty(), "an empty Manifest");
            assert_eq!(Manifest::parse(&document).expect("it was valid before"), manifest);
        }
        Err(error) => assert_message(&error.to_string()),
    }
}

/// A Topology; behind a form feed stands the file of Components of a split one.
pub fn topology(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (main, components) = match text.split_once('\x0c') {
        Some((main, components)) => (main, Some(Document::new("components", components))),
        None => (text, None),
    };
    match Topology::parse(&Document::new("topology", main), components.as_ref()) {
        Ok(topology) => assert!(!topology.system_type.is_empty(), "a Topology without its type"),
        Err(error) => assert_message(&error.to_string()),
    }
}

/// The two configuration files, with a form feed between.
pub fn configuration(bytes: &[u8]) {
    with_directory(|directory| {
        let (main, fallback) = match bytes.iter().position(|byte| *byte == 0x0c) {
            Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
            None => (bytes, None),
        };
        let (conf, state) = (directory.join("conf"), directory.join("state"));
        for (place, content) in [(&conf, Some(main)), (&state, fallback)] {
            fs::create_dir_all(place).expect("a directory");
            if let Some(content) = content {
                fs::write(place.join("mender-orchestrator.conf"), content).expect("a file");
            }
        }
        let environment = |name: &str| match name {
            "MENDER_ORCHESTRATOR_CONF_DIR" => conf.to_str().map(str::to_owned),
            "MENDER_ORCHESTRATOR_DATASTORE_DIR" => state.to_str().map(str::to_owned),
            _ => None,
        };
        match Settings::load(&environment) {
            Ok((settings, _)) => assert!(!settings.interface_timeout.is_zero(), "no time for anything"),
            Err(error) => assert_message(&error.to_string()),
        }
    });
}

/// What an Interface prints: the first byte tells which query it answers.
pub fn answers(bytes: &[u8]) {
    let Some((first, answer)) = bytes.split_first() else { return };
    let error = match first % 8 {
        0 => answers::parse_needs_unpacked_artifact(answer).err(),
        1 => answers::parse_provide_payload_file_sizes(answer).err(),
        2 => answers::parse_supports_rollback(answer).err(),
        3 => answers::parse_needs_artifact_reboot(answer).err(),
        4 => match answers::parse_identity(answer) {
            Ok(id) => {
                let bad = id.is_empty() || id.len() > answers::ID_LIMIT || id == "." || id == ".." || id.contains('/');
                assert!(!bad && !id.contains(char::is_control), "the id {id:?} is no file name");
                None
            }
            Err(error) => Some(error),
        },
        5 => match answers::parse_provides(answer, "rtos") {
            Ok(provides) => {
                assert!(!provides.contains_key("device_type"), "a key that is prohibited");
                assert!(provides.len() <= answers::LINES_LIMIT, "too many lines");
                None
            }
            Err(error) => Some(error),
        },
        6 => match answers::parse_inventory(answer) {
            Ok(pairs) => {
                let bad = |(key, value): &(String, String)| {
                    key.is_empty() || key.len() > answers::KEY_LIMIT || value.len() > answers::VALUE_LIMIT
                };
                assert!(!pairs.iter().any(bad), "beyond the limits");
                None
            }
            Err(error) => Some(error),
        },
        _ => return output(answer),
    };
    if let Some(error) = error {
        assert_message(&error.to_string());
    }
}

/// Output that is cut into lines, in pieces of any size.
fn output(bytes: &[u8]) {
    #[derive(Debug, Default)]
    struct Bounded(std::sync::atomic::AtomicUsize);
    impl Lines for Bounded {
        fn line(&self, _: Stream, line: &str) {
            // Every invalid byte may become a replacement character of three bytes.
            assert!(line.len() <= 3 * LINE_LIMIT, "a line of {} bytes", line.len());
            let count = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(count <= LINES_LIMIT, "too many lines");
        }
    }
    let (lines, mut output) = (Bounded::default(), Output::new());
    let step = usize::from(bytes.first().copied().unwrap_or(0)) * 31 + 1;
    for (index, piece) in bytes.chunks(step).enumerate() {
        let stream = if index % 3 == 1 { Stream::Stderr } else { Stream::Stdout };
        output.push(stream, piece, &lines);
    }
    output.finish(&lines);
}

/// The record of a deployment. The first byte tells what the rest is: the file of the journal, the Plan, the last
/// result, or the payloads of entries, each behind its length, that are appended to a sound journal.
pub fn record(bytes: &[u8]) {
    let Some((first, content)) = bytes.split_first() else { return };
    with_directory(|datastore| {
        let plan: Plan = serde_json::from_str(PLAN).expect("the Plan of this test");
        let deployment = Deployment::new([10, 20], RunOptions::default());
        drop(Record::create(datastore, "name: x", &plan, deployment).expect("a record"));
        let place = datastore.join("deployment");
        match first % 4 {
            0 => fs::write(place.join("journal"), content).expect("a file"),
            1 => fs::write(place.join("plan.json"), content).expect("a file"),
            2 => fs::write(datastore.join("last.json"), content).expect("a file"),
            _ => {
                let (mut journal, _) = Journal::open(&place.join("journal")).expect("it is sound");
                let mut rest = content;
                while let [low, high, behind @ ..] = rest {
                    let (entry, behind) =
                        behind.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(behind.len()));
                    if !entry.is_empty() {
                        journal.append(entry, false).expect("an entry");
                    }
                    rest = behind;
                }
            }
        }
        if let Err(error) = Last::load(datastore) {
            assert_message(&error.to_string());
        }
        match Record::open(datastore) {
            Ok(Some(found)) => {
                assert_eq!(found.deployment.members.len(), found.plan.members.len());
                drive(found.deployment, bytes);
            }
            Ok(None) => panic!("the record was there"),
            Err(error) => assert_message(&error.to_string()),
        }
    });
}

const PLAN: &str = r#"{"id":"d","manifest":"m","manifest_digest":"0","system_type":"s","members":[
{"key":{"component_type":"a","id":"1"},"interface":"i","program":"/i","arguments":[],"order":10,"artifact":"/a",
"artifact_digest":"0","artifact_name":"n","size":1,"from_version":"","to_version":"","current_artifact_name":null,
"current_artifact_group":null},
{"key":{"component_type":"a","id":"2"},"interface":"i","program":"/i","arguments":[],"order":20,"artifact":"/a",
"artifact_digest":"0","artifact_name":"n","size":1,"from_version":"","to_version":"","current_artifact_name":null,
"current_artifact_group":null}],"unchanged":[]}"#;

/// Whatever a record says that can be read, going on from it comes to an end.
fn drive(mut deployment: Deployment, fates: &[u8]) {
    let mut fates = fates.iter().rev().copied().chain(std::iter::repeat(0));
    let mut fate = || fates.next().unwrap_or(0);
    let resume = |boot: u32| {
        let options = RunOptions { reboot: RebootMode::Defer, ..RunOptions::default() };
        Event::Resume(options, format!("boot-{boot}"))
    };
    let mut boot = 1;
    let first = if deployment.head.rest.is_some() { resume(boot) } else { Event::Recover("boot-1".to_owned()) };
    let mut events: Vec<Event> = vec![first];
    let lost = deployment.running();
    for _ in 0..3_000 {
        let event = match events.pop() {
            Some(event) => event,
            None => match deployment.running().first() {
                Some(&(index, _)) if lost.contains(&deployment.running()[0]) && fate() % 3 == 0 => {
                    Event::Ended(index, Outcome::Interrupted)
                }
                Some(&(index, _)) if fate() % 8 == 7 => {
                    let error = orchestratord::core::error::Error::new(orchestratord::core::error::Kind::Failed, "x");
                    Event::Ended(index, Outcome::Failed(error))
                }
                Some(&(index, _)) => Event::Ended(index, Outcome::Done),
                // Nothing runs, nothing is to be done, and it is not over: it would hang.
                None => panic!("waits for nothing in {:?}", deployment.head.phase),
            },
        };
        for effect in deployment.step(event).expect("a possible event") {
            match effect {
                Effect::Finish { .. } => return,
                Effect::Rest { .. } | Effect::Refuse(_) => {
                    boot += 1;
                    events.push(resume(boot));
                }
                Effect::RebootHost => {
                    boot += 1;
                    events.push(Event::Recover(format!("boot-{boot}")));
                }
                Effect::Run(..) | Effect::Warn(_) => {}
            }
        }
    }
    panic!("no end in {:?}, stopping before {:?}", deployment.head.phase, StopPoint::Cleanup);
}

/// A message for people: short enough for a log, and one sentence.
fn assert_message(message: &str) {
    assert!(!message.is_empty() && message.len() < 64 * 1024, "a message of {} bytes", message.len());
    assert!(!message.contains('\n'), "a message of several lines: {message}");
}

/// An empty directory in memory, used again and again by this process.
fn with_directory(work: impl FnOnce(&Path)) {
    thread_local! {
        static PLACE: tempfile::TempDir = {
            let memory = Path::new("/dev/shm");
            let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
            tempfile::TempDir::with_prefix_in("orchestratord-fuzz-", parent).expect("a temporary directory")
        };
    }
    PLACE.with(|place| {
        let directory = place.path().join("work");
        fs::create_dir(&directory).expect("an empty place");
        work(&directory);
        fs::remove_dir_all(&directory).expect("what was made can be removed");
    });
}
