//! The NICs of vPLCs: from the vPLC domain to the network domain, which do not know each other.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::core::error::{Error, Kind};
use crate::network::handle::NetworkHandle;
use crate::network::nic::NicStatus;
use crate::network::nic::namespace::{Namespace, Target};
use crate::vplc::nics::Nics;
use crate::vplc::spec::NicSection;

/// How long a NIC may take to get right before the start of its vPLC is given up for now.
const LIMIT: Duration = Duration::from_secs(30);

/// The network, as vPLCs see it.
#[derive(Debug)]
pub(crate) struct NetworkNics(NetworkHandle);

impl NetworkNics {
    pub(crate) fn new(network: NetworkHandle) -> Self {
        Self(network)
    }

    /// The NICs that a vPLC has, by their names in the network domain.
    fn of(&self, vplc: &str) -> Vec<String> {
        let prefix = format!("{vplc}/");
        self.0.status().borrow().nics.keys().filter(|name| name.starts_with(&prefix)).cloned().collect()
    }

    async fn attach_one(&self, vplc: &str, nic: &NicSection, pid: i32) -> Result<(), Error> {
        let name = format!("{vplc}/{}", nic.name);
        // JSON is YAML.
        let owner = serde_json::Value::from(vplc);
        let text = format!("{{kind: nic, vplc: {owner}, pid: {pid}, {}}}\n", nic.text);
        match self.0.attach(text.clone(), false).await {
            // It hangs in another namespace, or is to be another one.
            Err(error) if error.kind == Kind::NotSupported && self.of(vplc).contains(&name) => {
                self.0.detach(name.clone()).await?;
                self.0.attach(text, false).await?;
            }
            attached => drop(attached?),
        }
        let mut status = self.0.status();
        let right = status.wait_for(|status| status.nics.get(&name).is_some_and(|nic| verdict(nic).is_some()));
        let (state, error) = match timeout(LIMIT, right).await {
            Ok(Ok(status)) => match status.nics.get(&name).and_then(|nic| verdict(nic)) {
                Some(verdict) => return verdict,
                None => ("unknown", None),
            },
            Ok(Err(_)) => ("unknown", None),
            Err(_) => {
                let status = self.0.status();
                let nic = status.borrow().nics.get(&name).cloned();
                nic.map_or(("unknown", None), |nic| (nic.state, nic.error.clone()))
            }
        };
        let message = format!("The NIC \"{}\" of the vPLC \"{vplc}\" did not get right; it is {state}.", nic.name);
        Err(error.unwrap_or_else(|| Error::new(Kind::Failed, message)))
    }
}

/// Whether a NIC is as it should be, or cannot be for now; none while it is on its way. A cable that is not plugged in, or a
/// DHCP server that takes its time, does not keep a PLC from running.
fn verdict(nic: &NicStatus) -> Option<Result<(), Error>> {
    match nic.state {
        "up" | "no-carrier" | "acquiring" | "bound" | "renewing" | "rebinding" => Some(Ok(())),
        "failed" => nic.error.clone().map(Err),
        _ => None,
    }
}

impl Nics for NetworkNics {
    fn attach<'a>(&'a self, vplc: &'a str, nics: &'a [NicSection], pid: i32) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            for name in self.of(vplc) {
                if !nics.iter().any(|nic| name == format!("{vplc}/{}", nic.name)) {
                    self.0.detach(name).await?;
                }
            }
            for nic in nics {
                self.attach_one(vplc, nic, pid).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn connect(&self, pid: i32, port: u16) -> BoxFuture<'_, io::Result<TcpStream>> {
        async move {
            // A socket belongs for good to the namespace that it was made in.
            let namespace = Namespace::open(&Target::process(pid)?)?;
            let socket = Namespace::inside(namespace.as_fd(), TcpSocket::new_v4)?;
            socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
        }
        .boxed()
    }

    fn detach<'a>(&'a self, vplc: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            for name in self.of(vplc) {
                self.0.detach(name).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
