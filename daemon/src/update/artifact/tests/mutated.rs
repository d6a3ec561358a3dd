//! Damage of every kind: an Artifact is refused or read as it was, and nothing panics.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::fixture::*;
use crate::update::artifact::Compression;

/// Small Artifacts with everything in them, one for each compression.
fn samples() -> &'static [(Vec<u8>, Content)] {
    static SAMPLES: OnceLock<Vec<(Vec<u8>, Content)>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let sample = |compression| {
            let mut fixture = Fixture::with_meta_data(r#"{"a":1}"#);
            fixture.header.insert(1, raw("scripts/ArtifactInstall_Enter_00", "#!/bin/sh"));
            fixture.header_compression = compression;
            fixture.data_compression = compression;
            let bytes = fixture.bytes();
            let content = read(&bytes).unwrap();
            (bytes, content)
        };
        Compression::ALL.into_iter().map(sample).collect()
    })
}

#[test]
fn every_truncation_is_refused() {
    for (bytes, _) in samples() {
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
    }
}

#[test]
fn every_single_bit() {
    for (bytes, content) in samples() {
        let mut damaged = bytes.clone();
        for index in 0..bytes.len() {
            damaged[index] ^= 1 << (index % 8);
            if let Ok(found) = read(&damaged) {
                assert_eq!(&found, content, "byte {index}");
            }
            damaged[index] = bytes[index];
        }
    }
}

/// One kind of damage.
#[derive(Debug, Clone)]
enum Damage {
    Set {
        at: usize,
        value: u8,
    },
    Remove {
        at: usize,
        count: usize,
    },
    Insert {
        at: usize,
        bytes: Vec<u8>,
    },
    Copy {
        from: usize,
        to: usize,
        count: usize,
    },
    /// Makes the checksum of the tar header at this block right again, so that the damage gets further in.
    Seal {
        block: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let count = prop_oneof![1_usize..40, Just(512), Just(1024)];
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Damage::Set { at, value }),
        1 => (any::<usize>(), count.clone()).prop_map(|(at, count)| Damage::Remove { at, count }),
        1 => (any::<usize>(), prop::collection::vec(any::<u8>(), 1..600)).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        1 => (any::<usize>(), any::<usize>(), count).prop_map(|(from, to, count)| Damage::Copy { from, to, count }),
        3 => any::<usize>().prop_map(|block| Damage::Seal { block }),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: Damage) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    match damage {
        Damage::Set { at, value } => bytes[at % length] = value,
        Damage::Remove { at, count } => drop(bytes.drain(at % length..(at % length + count).min(length))),
        Damage::Insert { at, bytes: more } => drop(bytes.splice(at % length..at % length, more)),
        Damage::Copy { from, to, count } => {
            let part = bytes[from % length..(from % length + count).min(length)].to_vec();
            let to = to % length;
            let end = (to + part.len()).min(length);
            bytes[to..end].copy_from_slice(&part[..end - to]);
        }
        Damage::Seal { block } => {
            let at = block % length.div_ceil(512) * 512;
            if let Some(block) = bytes.get_mut(at..at + 512) {
                seal(block);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_damage(sample in 0..4_usize, damages in prop::collection::vec(damage(), 1..6)) {
        let (bytes, content) = &samples()[sample];
        let mut damaged = bytes.clone();
        for damage in damages {
            apply(&mut damaged, damage);
        }
        if let Ok(found) = read(&damaged) {
            prop_assert_eq!(&found, content);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_header_tar(bytes in prop::collection::vec(any::<u8>(), 0..2000), compression in 0..4_usize) {
        // The checksum is right, so whatever it is reaches the decompressor.
        let header_compression = Compression::ALL[compression];
        let fixture = Fixture { header_compression, ..Fixture::default() };
        let magic = &fixture.header_tar()[..6];
        prop_assert!(read(&fixture.bytes_with_header(&[magic, &bytes].concat())).is_err());
    }

    #[test]
    fn any_json(json in "[\\[\\]{}:,\"a-z0-9 .]{0,60}", position in 0..2_usize) {
        let mut fixture = Fixture { header_compression: Compression::None, ..Fixture::default() };
        fixture.header[position].content = json.into();
        prop_assert!(read(&fixture.bytes()).is_err());
    }
}
