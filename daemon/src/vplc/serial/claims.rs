//! Whom a serial port belongs to.

use std::collections::BTreeMap;

use super::SerialError;
use super::ports::Port;
use crate::vplc::handle::VplcsStatus;
use crate::vplc::spec::SerialPort;

/// What one vPLC wants of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    vplc: String,
    shared: bool,
}

/// The owners of all ports, plugged in or not. It is made anew from what the vPLCs have whenever it is asked, so it cannot differ from that.
#[derive(Debug, Clone, Default)]
pub struct Claims(BTreeMap<String, Vec<Claim>>);

impl Claims {
    /// What all vPLCs have.
    pub fn of(status: &VplcsStatus) -> Self {
        let mut claims = Self::default();
        for vplc in status.vplcs.values() {
            vplc.serial.iter().for_each(|port| claims.add(&vplc.name, &port.port.device, port.port.shared));
        }
        claims
    }

    /// A vPLC has this port.
    pub fn add(&mut self, vplc: &str, port: &str, shared: bool) {
        self.0.entry(port.to_owned()).or_default().push(Claim { vplc: vplc.to_owned(), shared });
    }

    /// Whether a vPLC may be given these ports: a port has no other owner, unless all of them share it.
    pub fn allow(&self, vplc: &str, ports: &[SerialPort]) -> Result<(), SerialError> {
        ports.iter().try_for_each(|port| self.allow_one(vplc, &port.device, &port.device, port.shared))
    }

    /// Whether a vPLC may have the node of this port: nobody else owns the same device under whatever name. To be asked each time
    /// before a node is made, as only what is plugged in has a device.
    pub fn check(
        &self,
        vplc: &str,
        port: &Port,
        shared: bool,
        plugged: &BTreeMap<String, Port>,
    ) -> Result<(), SerialError> {
        let same = plugged.values().filter(|other| other.device == port.device).map(|other| &other.name);
        same.chain([&port.name]).try_for_each(|name| self.allow_one(vplc, &port.name, name, shared))
    }

    fn allow_one(&self, vplc: &str, port: &str, name: &str, shared: bool) -> Result<(), SerialError> {
        let claims = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        match claims.iter().find(|claim| claim.vplc != vplc && !(claim.shared && shared)) {
            Some(other) => Err(SerialError::InUse { port: port.to_owned(), owner: other.vplc.clone() }),
            None => Ok(()),
        }
    }
}
