//! Benches for the end-to-end tests of orchestratord.

pub mod booted;
