//! Tests of the format as a whole. The fixtures are written by code of their own, which can break every rule.

mod accepted;
mod fixture;
mod mutated;
mod refused;
mod refused_payload;
mod signed;
mod streaming;
mod written;
