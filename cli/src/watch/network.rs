//! The links of the host, and the NICs.

use orchestratord_dbus::NetworkProxy;
use serde_json::json;

use super::{Lines, Watched};
use crate::client::{Client, Event, interface};
use crate::failure::Failure;
use crate::links::{LinkView, network};
use crate::mirror::{Change, Mirror};
use crate::nics::NicView;

/// The network as it is known.
#[derive(Debug, Default)]
pub(super) struct Watch {
    links: Mirror<LinkView>,
    nics: Mirror<NicView>,
    /// Path of the default link.
    default_link: String,
    online: bool,
}

impl Watched for Watch {
    async fn read(client: &Client) -> Result<Self, Failure> {
        let mut objects = client.objects().await?;
        let (default_link, online) = network(client).await?;
        Ok(Self { links: Mirror::new(&mut objects), nics: Mirror::new(&mut objects), default_link, online })
    }

    fn print_all(&self, lines: Lines) -> Result<(), Failure> {
        self.print(lines)?;
        for link in self.links.sorted_by(|link| link.index) {
            print_link(link, "present", lines)?;
        }
        for nic in self.nics.sorted_by(|nic| &nic.name) {
            print_nic(nic, "present", lines)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event, lines: Lines) -> Result<(), Failure> {
        if let Event::Changed { interface, properties, .. } = &event
            && interface == self::interface::<NetworkProxy<'_>>()
        {
            let before = (self.default_link.clone(), self.online);
            self.default_link = properties.path("DefaultLink").unwrap_or_else(|| before.0.clone());
            self.online = properties.flag("Online").unwrap_or(self.online);
            if before != (self.default_link.clone(), self.online) {
                self.print(lines)?;
            }
        }
        if let Some((link, change)) = self.links.apply(&event) {
            print_link(&link, change.as_str(), lines)?;
        }
        if let Some((nic, change)) = self.nics.apply(&event) {
            print_nic(&nic, change.as_str(), lines)?;
        }
        Ok(())
    }
}

impl Watch {
    fn print(&self, lines: Lines) -> Result<(), Failure> {
        let name = self.links.at(&self.default_link).map(|link| link.name.clone()).unwrap_or_default();
        let way = if name.is_empty() { String::new() } else { format!(", default link {name}") };
        let state = if self.online { "online" } else { "offline" };
        let line = json!({ "event": "network", "default_link": name, "online": self.online });
        lines.print(&format!("network: {state}{way}"), line)
    }
}

fn print_link(link: &LinkView, change: &str, lines: Lines) -> Result<(), Failure> {
    let text = if change == Change::Removed.as_str() { "removed".to_owned() } else { link.line() };
    lines.print(&format!("{}: {text}", link.name), json!({ "event": "link", "change": change, "link": link }))
}

fn print_nic(nic: &NicView, change: &str, lines: Lines) -> Result<(), Failure> {
    let text = if change == Change::Removed.as_str() { "detached".to_owned() } else { nic.line() };
    lines.print(&format!("NIC {}: {text}", nic.name), json!({ "event": "nic", "change": change, "nic": nic }))
}
