//! The network: mirrors the links of the host, attaches NICs to network namespaces, and tells how the host is.
//!
//! The kernel stands behind the trait in [`kernel`], with [`netlink`] as the real one. [`link`] holds the state as plain
//! data, [`actor`] keeps it in step with the kernel, and [`handle`] is the door.

pub mod actor;
pub mod address;
pub mod handle;
pub mod host;
pub mod kernel;
pub mod link;
pub mod netlink;
pub mod nic;
