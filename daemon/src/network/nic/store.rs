//! What of a NIC outlives the daemon: its specification and its hardware address, one file each.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::dhcp::record::{Record, Remembered};
use super::link_kind::Taken;
use super::namespace::Target;
use super::spec::Spec;
use crate::core::error::{Error, Kind};
use crate::core::name::file_escape;
use crate::core::store;
use crate::network::address::Mac;

/// Bytes that such a file may have; the specification itself is bounded by the bus.
const SIZE_LIMIT: u64 = 4 << 20;

/// A NIC as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    spec: String,
    mac: String,
    target: Target,
}

/// The directory of all NICs that are attached.
#[derive(Debug, Clone)]
pub struct Store(PathBuf);

impl Store {
    /// The NICs below this state directory.
    pub fn new(datastore: &Path) -> Self {
        Self(datastore.join("nics"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{}.json", file_escape(name)))
    }

    /// The file of the lease of the NIC with this name.
    pub fn lease(&self, name: &str) -> PathBuf {
        self.0.join(format!("{}.lease", file_escape(name)))
    }

    /// The address that the NIC with this name has leased, if the lease still holds.
    pub fn leased(&self, name: &str, mac: Mac) -> Option<Ipv4Addr> {
        match Record::new(self.lease(name), mac).load() {
            Some(Remembered::Holds(held)) => Some(held.lease.address),
            _ => None,
        }
    }

    /// The hardware address of the NIC with this name: the one it had before, if any, or a new one that is administered
    /// locally. It is kept even when the NIC is detached, so that it comes back as the same device.
    pub fn mac(&self, name: &str) -> Result<Mac, Error> {
        let path = self.0.join(format!("{}.mac", file_escape(name)));
        if let Some(kept) = store::read(&path, 64)? {
            let text = String::from_utf8_lossy(&kept);
            return text.trim().parse().map_err(|error| damaged(&path, &format!("{error}")));
        }
        let mut bytes = [0; 6];
        let random = SystemRandom::new().fill(&mut bytes);
        random.map_err(|_| Error::new(Kind::Failed, "No hardware address can be drawn: there is no randomness."))?;
        // Administered locally, for one station.
        bytes[0] = bytes[0] & 0xfc | 0x02;
        let mac = Mac(bytes);
        store::make_directory(&self.0)?;
        store::replace(&path, mac.to_string().as_bytes())?;
        Ok(mac)
    }

    /// Keeps a NIC.
    pub fn keep(&self, name: &str, spec: &str, mac: Mac, target: &Target) -> Result<(), Error> {
        store::make_directory(&self.0)?;
        let kept = Kept { spec: spec.to_owned(), mac: mac.to_string(), target: target.clone() };
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| damaged(&self.file(name), &error.to_string()))?;
        Ok(store::replace(&self.file(name), &text)?)
    }

    /// Forgets a NIC and its lease, but not its hardware address.
    pub fn forget(&self, name: &str) -> Result<(), Error> {
        store::remove_file(&self.lease(name))?;
        Ok(store::remove_file(&self.file(name))?)
    }

    /// Keeps what of the host a NIC is about to take.
    pub fn keep_taken(&self, nic: &str, taken: &Taken) -> Result<(), Error> {
        let path = self.named(nic, "taken");
        let text = serde_json::to_vec_pretty(taken).map_err(|error| damaged(&path, &error.to_string()))?;
        store::make_directory(&self.0)?;
        Ok(store::replace(&path, &text)?)
    }

    /// What of the host a NIC has taken, or was about to.
    pub fn taken(&self, nic: &str) -> Result<Option<Taken>, Error> {
        let path = self.named(nic, "taken");
        let bytes = store::read(&path, SIZE_LIMIT)?;
        bytes
            .map(|bytes| serde_json::from_slice(&bytes).map_err(|error| damaged(&path, &error.to_string())))
            .transpose()
    }

    /// What a NIC has taken is back.
    pub fn forget_taken(&self, nic: &str) -> Result<(), Error> {
        Ok(store::remove_file(&self.named(nic, "taken"))?)
    }

    /// Keeps that a link did not pass on packets before the daemon had it do so.
    pub fn keep_forwarding(&self, link: &str) -> Result<(), Error> {
        store::make_directory(&self.0)?;
        Ok(store::replace(
            &self.named(link, "forwarding"),
            b"0
",
        )?)
    }

    /// Whether the daemon has a link pass on packets that did not do so before.
    pub fn has_forwarding(&self, link: &str) -> bool {
        self.named(link, "forwarding").exists()
    }

    /// A link passes on packets no more.
    pub fn forget_forwarding(&self, link: &str) -> Result<(), Error> {
        Ok(store::remove_file(&self.named(link, "forwarding"))?)
    }

    fn named(&self, name: &str, extension: &str) -> PathBuf {
        self.0.join(format!("{}.{extension}", file_escape(name)))
    }

    /// All NICs that are kept. What cannot be read is left as it is, and is in the log.
    pub fn load(&self) -> Vec<(Spec, String, Mac, Target)> {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        let mut nics = Vec::new();
        for path in files {
            match read(&path) {
                Ok(nic) => nics.push(nic),
                Err(error) => tracing::error!("A NIC is not attached. {error}"),
            }
        }
        nics
    }
}

fn read(path: &Path) -> Result<(Spec, String, Mac, Target), Error> {
    let bytes = store::read(path, SIZE_LIMIT)?.unwrap_or_default();
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    let mac = kept.mac.parse().map_err(|error| damaged(path, &format!("{error}")))?;
    Ok((Spec::parse(&kept.spec)?, kept.spec, mac, kept.target))
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::new(Kind::Storage, format!("The file \"{}\" is damaged: {reason}.", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "kind: nic\nname: plc0\nparent: eth0\npid: 1\naddresses: [192.0.2.7/24]\n";

    #[test]
    fn a_hardware_address_is_drawn_once_and_kept_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let mac = store.mac("plc0").unwrap();
        assert!(mac.is_unicast() && mac.0[0] & 2 == 2, "{mac}");
        assert_ne!(store.mac("plc1").unwrap(), mac);
        store.keep("plc0", SPEC, mac, &Target::Process { pid: 1, started: 2 }).unwrap();
        store.forget("plc0").unwrap();
        assert_eq!(Store::new(directory.path()).mac("plc0").unwrap(), mac);
    }

    #[test]
    fn what_is_kept_is_found_again_and_damage_spares_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert!(store.load().is_empty());
        let mac = store.mac("plc0").unwrap();
        let target = Target::Path("/run/netns/plc".into());
        store.keep("plc0", SPEC, mac, &target).unwrap();
        std::fs::write(directory.path().join("nics/broken.json"), "{").unwrap();
        let found = store.load();
        assert_eq!(found.len(), 1);
        let (spec, text, kept, place) = &found[0];
        assert_eq!((spec.name.as_str(), text.as_str(), *kept, place), ("plc0", SPEC, mac, &target));
        store.forget("plc0").unwrap();
        assert!(store.load().is_empty());
    }
}
