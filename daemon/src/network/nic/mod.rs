//! NICs: links that the daemon makes for others, in their network namespaces, and keeps right.

pub mod attachments;
pub mod machine;
pub mod namespace;
pub mod probe;
pub mod spec;
pub mod store;
pub mod worker;

use std::time::Duration;

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
    /// Name of the parent.
    pub parent_name: String,
    /// Number of the parent, while it is there.
    pub parent: Option<u32>,
    /// Hardware address.
    pub mac: Mac,
    /// The state in one word.
    pub state: &'static str,
    /// The addresses that are set.
    pub addresses: Vec<Prefixed>,
    /// Router of the default route, while it is set.
    pub gateway: String,
    /// What went wrong last; none after a success.
    pub error: Option<Error>,
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
