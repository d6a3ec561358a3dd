//! DHCP for IPv4 (RFC 2131): leases an address for a NIC, and keeps it leased.
//!
//! The client is our own, because what a controller needs most is missing from the crate there is (`mozim` 0.3): a lease
//! that was refused while it is renewed is given up (DHCPNAK), an address that somebody has is declined (DHCPDECLINE), and a
//! cable that was pulled leads to a question at once. [`machine`] decides without sockets or clocks, [`message`] and
//! [`lease`] read and write what goes over the wire, [`frame`] and [`transport`] get it there, [`record`] keeps the lease on
//! disk, [`settings`] brings the kernel in line with it, and [`task`] ties them together.

pub mod frame;
pub mod lease;
pub mod machine;
pub mod message;
pub mod record;
pub mod settings;
pub mod task;
pub mod transport;

/// What a NIC that leases its address was asked for besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// The name that the server is told (option 12).
    pub host_name: Option<String>,
}
