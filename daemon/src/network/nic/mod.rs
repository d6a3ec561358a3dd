//! NICs: links that the daemon makes for others, in their network namespaces, and keeps right.

pub mod attachments;
pub mod dhcp;
pub mod ipv6;
pub mod link_kind;
pub mod machine;
pub mod namespace;
pub mod packets;
pub mod parents;
pub mod probe;
pub mod spec;
pub mod store;
pub mod worker;

use std::net::IpAddr;
use std::time::Duration;

use self::link_kind::LinkKind;
use crate::core::error::Error;
use crate::network::address::{Mac, Prefixed};

/// The first wait before what failed is tried again; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const RETRY_MOST: Duration = Duration::from_mins(5);

/// A NIC as the outside sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicStatus {
    /// Name, also of the link; after the name of the vPLC and a slash if it belongs to one.
    pub name: String,
    /// What its link is.
    pub link: LinkKind,
    /// Name of the parent.
    pub parent_name: String,
    /// Number of the parent, while it is there.
    pub parent: Option<u32>,
    /// Hardware address; none while it is that of a parent that is not there.
    pub mac: Option<Mac>,
    /// Where its addresses come from, in one word.
    pub mode: &'static str,
    /// The state in one word.
    pub state: &'static str,
    /// The addresses that are set; also those that the kernel took from the announcements of routers (IPv6).
    pub addresses: Vec<Prefixed>,
    /// Router of the default route, while it is set.
    pub gateway: String,
    /// Name servers, the best first.
    pub dns: Vec<IpAddr>,
    /// Domain that names are looked up in; may be empty.
    pub domain: String,
    /// Time servers, the best first.
    pub ntp: Vec<IpAddr>,
    /// When the lease ends, in seconds since 1970; 0 if never, or without a lease.
    pub lease_expires: u64,
    /// What went wrong last; none after a success.
    pub error: Option<Error>,
}

impl NicStatus {
    /// The status of a NIC of which nothing is there yet.
    fn first(spec: &spec::Spec, mac: Mac) -> Self {
        Self {
            name: spec.key(),
            link: spec.link,
            parent_name: spec.parent.clone(),
            parent: None,
            mac: Some(mac).filter(|_| !spec.link.has_mac_of_parent()),
            mode: if spec.dhcp.is_some() { "dhcp" } else { "static" },
            state: "waiting-for-namespace",
            addresses: Vec::new(),
            gateway: String::new(),
            dns: spec.dns.clone(),
            domain: String::new(),
            ntp: Vec::new(),
            lease_expires: 0,
            error: None,
        }
    }

    /// Adds how far the lease is. What is wrong with the link itself counts more.
    fn add(&mut self, progress: dhcp::task::Progress) {
        if self.state == "up" {
            self.state = progress.state;
        }
        self.error = self.error.take().or(progress.error);
        let Some(lease) = progress.lease else { return };
        self.lease_expires = progress.expires;
        self.addresses.push(lease.prefixed());
        self.gateway = lease.gateway().map(|gateway| gateway.to_string()).unwrap_or_default();
        if self.dns.is_empty() {
            self.dns = lease.dns.iter().copied().map(IpAddr::V4).collect();
        }
        self.ntp = lease.ntp.iter().copied().map(IpAddr::V4).collect();
        self.domain = lease.domain;
    }
}

/// How long to wait after so many failures in a row: half of it for certain, the rest at random, so that many NICs that
/// fail together do not try together.
fn retry_after(failures: u32) -> Duration {
    let wait = RETRY_FIRST.saturating_mul(1 << failures.min(16)).min(RETRY_MOST);
    wait / 2 + probe::up_to(wait / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        for failures in 0..100 {
            let wait = retry_after(failures);
            assert!(wait >= RETRY_FIRST / 2 && wait <= RETRY_MOST, "{wait:?}");
        }
        assert!(retry_after(9) >= Duration::from_secs(100));
    }
}
