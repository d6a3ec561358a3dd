//! The network of the host: links, and what changes.

use std::collections::BTreeMap;

use orchestratord::core::error::Kind;
use orchestratord_dbus::{LinkProxy, ManagedObjects, NetworkProxy, ROOT_PATH};
use serde::Serialize;
use serde_json::{Value, json};

use crate::client::{Client, Event, Properties, interface};
use crate::failure::{Failure, SUCCESS};
use crate::interrupt::Interrupt;
use crate::output::{Moment, Table, print, print_json_line, printable, show};

/// A link. The serialised shape is documented in `docs/cli.md`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
struct LinkView {
    index: u64,
    name: String,
    kind: String,
    mac: String,
    mtu: u64,
    oper_state: String,
    carrier: bool,
    addresses: Vec<String>,
    gateway: String,
    used_by: Vec<String>,
}

impl LinkView {
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
        if let Some(nics) = properties.names("UsedBy") {
            self.used_by = nics;
        }
    }

    /// For people, in one line.
    fn line(&self) -> String {
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

/// All links, by path.
fn links(objects: ManagedObjects) -> BTreeMap<String, LinkView> {
    let mut links = BTreeMap::new();
    for (path, mut interfaces) in objects {
        if let Some(properties) = interfaces.remove(interface::<LinkProxy<'_>>()) {
            let mut link = LinkView::default();
            link.merge(&Properties::new(properties));
            links.insert(path.as_str().to_owned(), link);
        }
    }
    links
}

fn by_index(links: &BTreeMap<String, LinkView>) -> Vec<&LinkView> {
    let mut links: Vec<_> = links.values().collect();
    links.sort_by_key(|link| link.index);
    links
}

/// The network as a whole: the name of the default link, and whether packets have a way to leave.
async fn network(client: &Client) -> Result<(String, bool), Failure> {
    let properties = client.properties(ROOT_PATH, interface::<NetworkProxy<'_>>()).await?;
    let default_link = properties.path("DefaultLink").unwrap_or_default();
    Ok((default_link, properties.flag("Online").unwrap_or_default()))
}

/// `link list`
pub async fn list(json: bool) -> Result<u8, Failure> {
    let client = Client::connect().await?;
    let links = links(client.objects().await?);
    let (default_path, online) = network(&client).await?;
    let default_link = links.get(&default_path).map(|link| link.name.clone()).unwrap_or_default();
    let sorted = by_index(&links);
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
    let links = links(client.objects().await?);
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

/// `watch network`: prints the links and then every change, until a signal or the end of the daemon.
pub async fn watch(json: bool) -> Result<u8, Failure> {
    let mut interrupt = Interrupt::new()?;
    tokio::select! {
        biased;
        // The way to end this command is no failure of it.
        _ = interrupt.wait() => Ok(SUCCESS),
        outcome = follow(json) => outcome,
    }
}

async fn follow(json: bool) -> Result<u8, Failure> {
    let client = Client::connect().await?;
    let mut listener = client.listen().await?;
    let mut events = Vec::new();
    let first = async { Ok((client.objects().await?, network(&client).await?)) };
    let first = listener.during(first, |event| {
        events.push(event);
        Ok(())
    });
    let (objects, (default_link, online)) = first.await?;
    let mut watch = Watch { json, links: links(objects), default_link, online };
    watch.print_network()?;
    for link in by_index(&watch.links) {
        watch.print_link(link, "present")?;
    }
    for event in events {
        watch.event(event)?;
    }
    while !listener.has_left() {
        let event = listener.next().await?;
        watch.event(event)?;
    }
    Err(Failure::left())
}

struct Watch {
    json: bool,
    links: BTreeMap<String, LinkView>,
    /// Path of the default link.
    default_link: String,
    online: bool,
}

impl Watch {
    fn event(&mut self, event: Event) -> Result<(), Failure> {
        let link_interface = interface::<LinkProxy<'_>>();
        match event {
            Event::Changed { interface, properties, .. } if interface == self::interface::<NetworkProxy<'_>>() => {
                let before = (self.default_link.clone(), self.online);
                self.default_link = properties.path("DefaultLink").unwrap_or_else(|| before.0.clone());
                self.online = properties.flag("Online").unwrap_or(self.online);
                if before != (self.default_link.clone(), self.online) {
                    self.print_network()?;
                }
            }
            Event::Changed { path, interface, properties } if interface == link_interface => {
                let mut link = self.links.get(&path).cloned().unwrap_or_default();
                link.merge(&properties);
                if self.links.insert(path, link.clone()).as_ref() != Some(&link) {
                    self.print_link(&link, "changed")?;
                }
            }
            Event::Added(path, interfaces) => {
                if let Some(properties) = interfaces.get(link_interface) {
                    let mut link = LinkView::default();
                    link.merge(properties);
                    if self.links.insert(path, link.clone()).is_none() {
                        self.print_link(&link, "added")?;
                    }
                }
            }
            Event::Removed(path, interfaces) if interfaces.iter().any(|name| name == link_interface) => {
                if let Some(link) = self.links.remove(&path) {
                    self.print_link(&link, "removed")?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn print_network(&self) -> Result<(), Failure> {
        let name = self.links.get(&self.default_link).map(|link| link.name.clone()).unwrap_or_default();
        let way = if name.is_empty() { String::new() } else { format!(", default link {name}") };
        let state = if self.online { "online" } else { "offline" };
        let line = json!({ "event": "network", "default_link": name, "online": self.online });
        self.print(&format!("network: {state}{way}"), line)
    }

    fn print_link(&self, link: &LinkView, change: &str) -> Result<(), Failure> {
        let text = if change == "removed" { "removed".to_owned() } else { link.line() };
        let event = json!({ "event": "link", "change": change, "link": link });
        self.print(&format!("{}: {text}", link.name), event)
    }

    fn print(&self, text: &str, mut line: Value) -> Result<(), Failure> {
        let time = Moment::now().rfc3339();
        if self.json {
            line["time"] = time.into();
            print_json_line(&line)
        } else {
            print(&format!("{time} {}\n", printable(text)))
        }
    }
}
