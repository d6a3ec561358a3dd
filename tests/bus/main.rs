//! The face on the bus, as callers see it: the real server on a private bus, over a scripted update domain.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod audit;
mod authorization;
mod docs;
mod frame;
mod introspection;
mod methods;
mod objects;
mod recorder;
mod signals;
