//! PLC programs on the stub of the runtime, over TLS on loopback, and the nodes of serial ports in the `/dev` of a container.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code; a panic is how a test fails")]

mod bed;
mod broken;
mod deploy;
mod hostile;
mod image;
mod interrupted;
mod node;
mod trust;
