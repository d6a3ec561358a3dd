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
    /// The device that it has been given, by its node on the host; empty if none.
    holds: String,
}

impl Claim {
    fn excludes(&self, vplc: &str, shared: bool) -> bool {
        self.vplc != vplc && !(self.shared && shared)
    }
}

/// The owners of all ports, plugged in or not. It is made anew from what the vPLCs have whenever it is asked, so it cannot differ from that.
#[derive(Debug, Clone, Default)]
pub struct Claims(BTreeMap<String, Vec<Claim>>);

impl Claims {
    /// What all vPLCs have.
    pub fn of(status: &VplcsStatus) -> Self {
        let mut claims = Self::default();
        for vplc in status.vplcs.values() {
            for port in &vplc.serial {
                let holds = if port.error.is_empty() { port.device.clone() } else { String::new() };
                claims.put(&port.port, Claim { vplc: vplc.name.clone(), shared: port.port.shared, holds });
            }
        }
        claims
    }

    /// A vPLC may get this port.
    pub fn add(&mut self, vplc: &str, port: &SerialPort) {
        self.put(port, Claim { vplc: vplc.to_owned(), shared: port.shared, holds: String::new() });
    }

    fn put(&mut self, port: &SerialPort, claim: Claim) {
        self.0.entry(port.device.clone()).or_default().push(claim);
    }

    fn on<'c>(&'c self, name: &str) -> impl Iterator<Item = &'c Claim> + use<'c> {
        self.0.get(name).into_iter().flatten()
    }

    /// Whether a vPLC may be given these ports: a port has no other owner, unless all of them share it.
    pub fn allow(&self, vplc: &str, ports: &[SerialPort]) -> Result<(), SerialError> {
        for port in ports {
            if let Some(other) = self.on(&port.device).find(|claim| claim.excludes(vplc, port.shared)) {
                return Err(SerialError::InUse { port: port.device.clone(), owner: other.vplc.clone() });
            }
        }
        Ok(())
    }

    /// Whether a vPLC may have the node of this port: nobody else has the same device, under whatever name. To be asked each time
    /// before a node is made, as only what is plugged in has a device. Who has it keeps it; of those who come at the same time, the
    /// first one by name gets it.
    pub fn check(
        &self,
        vplc: &str,
        port: &Port,
        shared: bool,
        plugged: &BTreeMap<String, Port>,
    ) -> Result<(), SerialError> {
        let device = port.path.display().to_string();
        let holds = self.on(&port.name).any(|claim| claim.vplc == vplc && claim.holds == device);
        let same = plugged.values().filter(|other| other.device == port.device);
        let mut claims = same.flat_map(|other| self.on(&other.name)).filter(|claim| claim.excludes(vplc, shared));
        match claims.find(|claim| claim.holds == device || !holds && claim.vplc.as_str() < vplc) {
            Some(other) => Err(SerialError::InUse { port: port.name.clone(), owner: other.vplc.clone() }),
            None => Ok(()),
        }
    }
}
