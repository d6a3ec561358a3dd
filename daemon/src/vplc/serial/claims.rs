//! Whom a serial port belongs to.

use std::collections::BTreeMap;

use super::SerialError;
use super::ports::{Port, check_name};

/// What one vPLC wants of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    vplc: String,
    shared: bool,
}

/// The owners of all ports, plugged in or not.
#[derive(Debug, Clone, Default)]
pub struct Claims(BTreeMap<String, Vec<Claim>>);

impl Claims {
    /// Gives a port to a vPLC. It has no other owner, unless all of them share it.
    pub fn take(&mut self, vplc: &str, port: &str, shared: bool) -> Result<(), SerialError> {
        check_name(port)?;
        let claims = self.0.get(port).map(Vec::as_slice).unwrap_or_default();
        if let Some(other) = claims.iter().find(|claim| claim.vplc != vplc && !(claim.shared && shared)) {
            return Err(SerialError::InUse { port: port.to_owned(), owner: other.vplc.clone() });
        }
        let claims = self.0.entry(port.to_owned()).or_default();
        claims.retain(|claim| claim.vplc != vplc);
        claims.push(Claim { vplc: vplc.to_owned(), shared });
        Ok(())
    }

    /// Takes a port away from a vPLC.
    pub fn release(&mut self, vplc: &str, port: &str) {
        if let Some(claims) = self.0.get_mut(port) {
            claims.retain(|claim| claim.vplc != vplc);
        }
        self.0.retain(|_, claims| !claims.is_empty());
    }

    /// Takes all ports away from a vPLC.
    pub fn release_all(&mut self, vplc: &str) {
        for claims in self.0.values_mut() {
            claims.retain(|claim| claim.vplc != vplc);
        }
        self.0.retain(|_, claims| !claims.is_empty());
    }

    /// Whether a vPLC may have the node of this port: it owns the name, and nobody owns the same device under another name. To be
    /// asked each time before a node is made, as only what is plugged in has a device.
    pub fn check(&self, vplc: &str, port: &Port, plugged: &BTreeMap<String, Port>) -> Result<(), SerialError> {
        let own = self.0.get(&port.name).and_then(|claims| claims.iter().find(|claim| claim.vplc == vplc));
        let shared = own.is_some_and(|claim| claim.shared);
        let same = |name: &str| plugged.get(name).is_some_and(|other| other.device == port.device);
        for (_, claims) in self.0.iter().filter(|(name, _)| **name == port.name || same(name)) {
            if let Some(other) = claims.iter().find(|claim| claim.vplc != vplc && !(claim.shared && shared)) {
                return Err(SerialError::InUse { port: port.name.clone(), owner: other.vplc.clone() });
            }
        }
        let not_owned = || SerialError::NotOwned { port: port.name.clone(), vplc: vplc.to_owned() };
        own.map(drop).ok_or_else(not_owned)
    }
}
