//! The fuzz targets without a fuzzer: the corpora, and some mutations of them that are the same at each run.
//! `make fuzz` searches for new ones.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use orchestrator_tests::repository;

/// Mutations of each file of a corpus.
const MUTATIONS: u64 = 60;

#[test]
fn corpora_and_mutations_of_them_do_no_harm() {
    for (name, run) in targets::TARGETS {
        let directory = repository().join("fuzz/corpus").join(name);
        let mut files: Vec<_> =
            std::fs::read_dir(&directory).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "\"{}\" is empty", directory.display());
        for file in files {
            let bytes = std::fs::read(&file).expect("a file of the corpus");
            run(&bytes);
            for seed in 1..=MUTATIONS {
                run(&mutated(&bytes, seed));
            }
        }
    }
}

/// The bytes with some of them changed, left out, or repeated.
fn mutated(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bytes.len() as u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).expect("it is below")
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=random(4) {
        let at = random(bytes.len());
        match random(5) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random(8),
            1 if !bytes.is_empty() => bytes[at] = u8::try_from(random(256)).expect("a byte"),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + random(16)).min(bytes.len()))),
            _ => {
                let part = bytes[at..(at + random(32)).min(bytes.len())].to_vec();
                let to = random(bytes.len());
                bytes.splice(to..to, part);
            }
        }
    }
    bytes
}
