//! The links of the host.

use std::collections::BTreeMap;

use orchestratord::core::error::Kind;
use orchestratord_dbus::{LinkProxy, NetworkProxy, ROOT_PATH};
use serde::Serialize;
use serde_json::json;

use crate::client::{Client, Properties, interface};
use crate::failure::{Failure, SUCCESS};
use crate::mirror::{Mirror, Object};
use crate::output::{Table, printable, show};

/// A link. The serialised shape is documented in `docs/cli.md`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LinkView {
    /// Number of the link.
    pub index: u64,
    /// Its name.
    pub name: String,
    kind: String,
    mac: String,
    mtu: u64,
    oper_state: String,
    carrier: bool,
    addresses: Vec<String>,
    gateway: String,
    used_by: Vec<String>,
}

impl Object for LinkView {
    fn interface() -> &'static str {
        interface::<LinkProxy<'_>>()
    }

    fn merge(&mut self, properties: &Properties) {
        let take = |field: &mut String, name| {
            if let Some(text) = properties.text(name) {
                *field = text;
            }
        };
        take(&mut self.name, "Name");
        take(&mut self.kind, "Kind");
        take(&mut self.mac, "Mac");
        take(&mut self.oper_state, "OperState");
        take(&mut self.gateway, "Gateway");
        self.index = properties.number("Index").unwrap_or(self.index);
        self.mtu = properties.number("Mtu").unwrap_or(self.mtu);
        self.carrier = properties.flag("Carrier").unwrap_or(self.carrier);
        if let Some(addresses) = properties.list("Addresses") {
            self.addresses = addresses;
        }
        if let Some(nics) = properties.nics("UsedBy") {
            self.used_by = nics;
        }
    }
}

impl LinkView {
    /// For people, in one line.
    pub fn line(&self) -> String {
        let carrier = if self.carrier { "" } else { ", no carrier" };
        let mut line = format!("{} {}{carrier}", self.kind, self.oper_state);
        if !self.addresses.is_empty() {
            line = format!("{line}, {}", self.addresses.join(" "));
        }
        if !self.gateway.is_empty() {
            line = format!("{line}, gateway {}", self.gateway);
        }
        line
    }
}

/// The network as a whole: the path of the default link, and whether packets have a way to leave.
pub async fn network(client: &Client) -> Result<(String, bool), Failure> {
    let properties = client.properties(ROOT_PATH, interface::<NetworkProxy<'_>>()).await?;
    let default_link = properties.path("DefaultLink").unwrap_or_default();
    Ok((default_link, properties.flag("Online").unwrap_or_default()))
}

/// `link list`
pub async fn list(json: bool) -> Result<u8, Failure> {
    let client = Client::connect().await?;
    let links = Mirror::<LinkView>::new(&mut client.objects().await?);
    let (default_path, online) = network(&client).await?;
    let default_link = links.at(&default_path).map(|link| link.name.clone()).unwrap_or_default();
    let sorted = links.sorted_by(|link| link.index);
    show(json, &json!({ "default_link": default_link, "online": online, "links": sorted }), || {
        let mut table = Table::new(&["LINK", "KIND", "STATE", "CARRIER", "MAC", "MTU", "ADDRESSES", "GATEWAY"]);
        for link in &sorted {
            let carrier = if link.carrier { "yes" } else { "no" };
            let (mtu, addresses) = (link.mtu.to_string(), link.addresses.join(" "));
            let name = if link.name == default_link { format!("{} *", link.name) } else { link.name.clone() };
            table.row(&[&name, &link.kind, &link.oper_state, carrier, &link.mac, &mtu, &addresses, &link.gateway]);
        }
        table.render()
    })?;
    Ok(SUCCESS)
}

/// `link show`
pub async fn show_link(name: &str, json: bool) -> Result<u8, Failure> {
    let client = Client::connect().await?;
    let links = Mirror::<LinkView>::new(&mut client.objects().await?);
    let Some((path, link)) = links.iter().find(|(_, link)| link.name == name) else {
        return Err(Failure::new(Kind::UnknownLink, format!("There is no link \"{name}\".")));
    };
    // The counters change all the time, so they are asked for last.
    let properties = client.properties(path, interface::<LinkProxy<'_>>()).await?;
    let statistics: BTreeMap<String, u64> = properties.numbers("Statistics").unwrap_or_default().into_iter().collect();
    show(json, &json!({ "link": link, "statistics": statistics }), || {
        let carrier = if link.carrier { "yes" } else { "no" };
        let (index, mtu, addresses) = (link.index.to_string(), link.mtu.to_string(), link.addresses.join(" "));
        let used_by = link.used_by.join(" ");
        let mut rows: Vec<(&str, &str)> = vec![
            ("Link", &link.name),
            ("Index", &index),
            ("Kind", &link.kind),
            ("State", &link.oper_state),
            ("Carrier", carrier),
            ("MAC", &link.mac),
            ("MTU", &mtu),
            ("Addresses", &addresses),
            ("Gateway", &link.gateway),
            ("Used by", &used_by),
        ];
        let counters: Vec<(&str, String)> =
            statistics.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
        rows.extend(counters.iter().map(|(name, value)| (*name, value.as_str())));
        let row = |(name, value): &(&str, &str)| {
            let value = if value.is_empty() { "-".to_owned() } else { printable(value) };
            format!("{:<20}{value}\n", format!("{name}:"))
        };
        rows.iter().map(row).collect()
    })?;
    Ok(SUCCESS)
}
