//! The real program against a daemon that is played here from the bus contract, on a private bus. Nothing is shared with
//! the daemon's code, so that a difference between the two shows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test, to panic is to fail")]
#![allow(clippy::unused_self, clippy::unused_async, reason = "the members of an interface have the form of methods")]

mod artifact;
mod exit_codes;
mod follow;
mod mender;
mod play;
mod program;
mod read;
mod restart;
mod shell;
