//! HTTP and HTTPS, as downloads on devices need them: `client` speaks it, `tls` says whom to trust, `download` gets to the end
//! of an Artifact over connections that break.

mod client;
mod download;
mod tls;

pub(super) use self::client::{Connector, Failure, Http, refused, shown};
pub(super) use self::download::{Download, Origin};
