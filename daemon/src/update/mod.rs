//! Updates a System of many Components as one unit.
//!
//! The way of an install: [`handle`] takes the request, [`actor`] accepts it, `beginning` has the documents read, the
//! Artifacts selected and the [`record`] written, [`machine`] decides what happens next, `deployment` does it, one `member`
//! at a time, through [`interface`], and keeps the record current.

pub mod actor;
pub mod answers;
pub mod artifact;
mod beginning;
pub mod component;
pub mod composition;
pub mod constraint;
mod deployment;
pub mod environment;
pub mod handle;
pub mod interface;
pub mod machine;
pub mod manifest;
mod manifests;
mod member;
pub mod plan;
pub mod planner;
mod prepare;
pub mod reboot;
pub mod record;
pub mod runner;
pub mod selection;
pub mod source;
mod survey;
pub mod topology;
pub mod version;
mod view;
