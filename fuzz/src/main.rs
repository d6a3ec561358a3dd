//! Runs one target: `FUZZ_TARGET=<name> orchestratord-fuzz <options of libFuzzer>`.
#![no_main]

mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<targets::Target> = OnceLock::new();
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        match targets::TARGETS.iter().find(|(known, _)| *known == name) {
            Some((_, run)) => *run,
            None => {
                let names: Vec<&str> = targets::TARGETS.iter().map(|(known, _)| *known).collect();
                eprintln!("FUZZ_TARGET must be one of: {}.", names.join(", "));
                std::process::exit(2);
            }
        }
    });
    run(bytes);
});
