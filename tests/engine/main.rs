//! vPLCs on a real container engine, which each test starts for itself: the engine of the machine is never touched.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code; a panic is how a test fails")]

mod components;
mod engine;
mod failures;
mod hardware;
mod injection;
mod life;
mod podman;
mod polling;
mod programs;
mod registry;
mod residue;
mod rig;
mod sessions;
mod tap;
mod upgrade;
