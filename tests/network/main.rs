//! The network domain of the real daemon, in network namespaces of the test's own: the links of the machine are never
//! touched.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code; a panic is how a test fails")]

mod capture;
mod command_line;
mod dhcp;
mod events;
mod host;
mod kinds;
mod links;
mod nics;
mod rig;
mod shim;
