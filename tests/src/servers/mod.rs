//! Servers that Artifacts can be downloaded from: a real nginx with certificates of all kinds, one that does to each request what
//! a test wants, a Mender server, and the authentication service of its client.

mod authentication;
mod certificates;
mod mender;
mod nginx;
mod scripted;

pub use self::authentication::{Authentication, POLICY};
pub use self::certificates::Certificates;
pub use self::mender::{Item, MenderServer};
pub use self::nginx::Nginx;
pub use self::scripted::{Reply, Request, Server};
