//! Updates a System of many Components as one unit.
//!
//! The way of an install: [`handle`] takes the request, `actor` accepts it, `prepare` reads the documents and selects
//! Artifacts, `machine` decides what happens next, `deployment` does it through `interface` and keeps `record` current.

pub mod answers;
pub mod artifact;
pub mod component;
pub mod document;
pub mod handle;
pub mod interface;
pub mod manifest;
pub mod runner;
pub mod selection;
pub mod topology;
