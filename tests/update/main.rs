//! Deployments from end to end: the real daemon, Interface programs and Artifacts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod answers;
mod busctl;
mod constraints;
mod failures;
mod input;
mod lifecycle;
mod limits;
mod mender;
mod order;
mod original_module;
mod reboots;
mod restarts;
mod rollback;
mod show;
mod streams;
mod tree;
mod unattended;
