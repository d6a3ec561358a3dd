//! What vPLCs need of the network.

use std::fmt;
use std::io;

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use crate::core::document::{DocumentError, Section};
use crate::core::error::Error;
use crate::vplc::spec::NicSection;

/// The NICs and the loopback of vPLCs, made by somebody else.
pub trait Nics: fmt::Debug + Send + Sync {
    /// Makes the NICs in the network namespace of a process and returns when all of them are in place, or with the reason
    /// why one cannot be. NICs of this vPLC that stand elsewhere, or are not among these, are removed; those that are right
    /// are not touched.
    fn attach<'a>(&'a self, vplc: &'a str, nics: &'a [NicSection], pid: i32) -> BoxFuture<'a, Result<(), Error>>;

    /// Connects to a TCP port on the loopback of the network namespace of a process.
    fn connect(&self, pid: i32, port: u16) -> BoxFuture<'_, io::Result<TcpStream>>;

    /// Removes all NICs of a vPLC.
    fn detach<'a>(&'a self, vplc: &'a str) -> BoxFuture<'a, Result<(), Error>>;
}

/// Checks the section of a NIC in a specification, and returns the name of the NIC.
pub(crate) type CheckNic = fn(&mut Section<'_>) -> Result<String, DocumentError>;
