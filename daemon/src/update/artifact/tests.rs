//! Tests of the format as a whole. The fixtures are written by code of their own, which can break every rule.

#![allow(clippy::too_many_lines, reason = "tables of cases")]

mod accepted;
mod fixture;
mod mutated;
mod refused;
mod refused_header;
mod refused_payload;
mod signed;
mod streaming;
mod written;
