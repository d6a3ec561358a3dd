//! NICs in network namespaces.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use orchestratord::core::error::Kind;
use orchestratord_dbus::{NicProxy, Options};
use serde::Serialize;
use serde_json::json;

use crate::client::{Client, Event, Properties, interface};
use crate::failure::{Failure, SUCCESS};
use crate::input;
use crate::mirror::{Mirror, Object};
use crate::output::{Table, printable, show};
use crate::view::ErrorView;

/// A NIC. The serialised shape is documented in `docs/cli.md`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NicView {
    /// Its name.
    pub name: String,
    r#type: String,
    parent: String,
    mode: String,
    mac: String,
    state: String,
    addresses: Vec<String>,
    gateway: String,
    dns: Vec<String>,
    domain: String,
    ntp: Vec<String>,
    lease_expires: u64,
    last_error: Option<ErrorView>,
}

impl Object for NicView {
    fn interface() -> &'static str {
        interface::<NicProxy<'_>>()
    }

    fn merge(&mut self, properties: &Properties) {
        let take = |field: &mut String, name| {
            if let Some(text) = properties.text(name) {
                *field = text;
            }
        };
        take(&mut self.name, "Name");
        take(&mut self.r#type, "Type");
        take(&mut self.parent, "ParentName");
        take(&mut self.mode, "Mode");
        take(&mut self.mac, "Mac");
        take(&mut self.state, "State");
        take(&mut self.gateway, "Gateway");
        take(&mut self.domain, "Domain");
        for (field, name) in [(&mut self.addresses, "Addresses"), (&mut self.dns, "Dns"), (&mut self.ntp, "Ntp")] {
            if let Some(list) = properties.list(name) {
                *field = list;
            }
        }
        if let Some(expires) = properties.number("LeaseExpires") {
            self.lease_expires = expires;
        }
        if let Some(error) = properties.error("LastError") {
            self.last_error = ErrorView::from_pair(error);
        }
    }
}

impl NicView {
    fn error(&self) -> &str {
        self.last_error.as_ref().map(|error| error.message.as_str()).unwrap_or_default()
    }

    /// For people, in one line.
    pub fn line(&self) -> String {
        let mut line = format!("{} on {}, {}", self.r#type, self.parent, self.state);
        if !self.addresses.is_empty() {
            line = format!("{line}, {}", self.addresses.join(" "));
        }
        if !self.gateway.is_empty() {
            line = format!("{line}, gateway {}", self.gateway);
        }
        if !self.error().is_empty() {
            line = format!("{line}: {}", self.error());
        }
        line
    }
}

async fn nics() -> Result<Mirror<NicView>, Failure> {
    Ok(Mirror::new(&mut Client::connect().await?.objects().await?))
}

/// `nic list`
pub async fn list(json: bool) -> Result<u8, Failure> {
    let nics = nics().await?;
    let nics = nics.sorted_by(|nic| &nic.name);
    show(json, &json!({ "nics": nics }), || {
        let mut table =
            Table::new(&["NIC", "TYPE", "PARENT", "MODE", "STATE", "MAC", "ADDRESSES", "GATEWAY", "LAST ERROR"]);
        for nic in &nics {
            let addresses = nic.addresses.join(" ");
            table.row(&[
                &nic.name,
                &nic.r#type,
                &nic.parent,
                &nic.mode,
                &nic.state,
                &nic.mac,
                &addresses,
                &nic.gateway,
                nic.error(),
            ]);
        }
        table.render()
    })?;
    Ok(SUCCESS)
}

/// `nic show`
pub async fn show_nic(name: &str, json: bool) -> Result<u8, Failure> {
    let nics = nics().await?;
    let Some((_, nic)) = nics.iter().find(|(_, nic)| nic.name == name) else {
        return Err(Failure::new(Kind::NotSupported, format!("There is no NIC \"{name}\".")));
    };
    print_nic(nic, json)
}

fn print_nic(nic: &NicView, json: bool) -> Result<u8, Failure> {
    show(json, &json!({ "nic": nic }), || {
        let [addresses, dns, ntp] = [&nic.addresses, &nic.dns, &nic.ntp].map(|list| list.join(" "));
        let lease_ends = lease_ends(nic.lease_expires);
        let lines = [
            ("NIC", nic.name.as_str()),
            ("Type", &nic.r#type),
            ("Parent", &nic.parent),
            ("Mode", &nic.mode),
            ("State", &nic.state),
            ("MAC", &nic.mac),
            ("Addresses", &addresses),
            ("Gateway", &nic.gateway),
            ("DNS", &dns),
            ("Domain", &nic.domain),
            ("NTP", &ntp),
            ("Lease ends", &lease_ends),
            ("Last error", nic.error()),
        ];
        let line = |(name, value): &(&str, &str)| {
            let value = if value.is_empty() { "-".to_owned() } else { printable(value) };
            format!("{:<12}{value}\n", format!("{name}:"))
        };
        lines.iter().map(line).collect()
    })?;
    Ok(SUCCESS)
}

/// How long a lease is good, for people.
fn lease_ends(at: u64) -> String {
    if at == 0 {
        return String::new();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("in {} s", at.saturating_sub(now))
}

/// `nic attach`
pub async fn attach(file: &Path, wait: bool, json: bool) -> Result<u8, Failure> {
    let spec = if file == Path::new("-") { input::manifest_from_stdin()?.text } else { input::manifest(file)?.text };
    let client = Client::connect().await?;
    let network = client.network().await?;
    let mut listener = client.listen().await?;
    let attached = async {
        let options = Options::from([("wait", wait.into())]);
        let path = network.attach_nic(&spec, options).await.map_err(|error| Failure::from_bus(&error))?;
        let properties = client.properties(path.as_str(), interface::<NicProxy<'_>>()).await?;
        Ok((path.as_str().to_owned(), properties))
    };
    // What is said before the answer stands in the answer.
    let (path, properties) = listener.during(attached, |_| Ok(())).await?;
    let mut nic = NicView::default();
    nic.merge(&properties);
    while !wait && !matches!(nic.state.as_str(), "up" | "bound" | "renewing" | "rebinding" | "no-carrier") {
        if let Some(error) = nic.last_error.as_ref().filter(|_| nic.state == "failed") {
            return Err(Failure::from_error(&error.name, &error.message));
        }
        if listener.has_left() {
            return Err(Failure::left());
        }
        if let Event::Changed { path: changed, interface, properties } = listener.next().await?
            && changed == path
            && interface == self::interface::<NicProxy<'_>>()
        {
            nic.merge(&properties);
        }
    }
    print_nic(&nic, json)
}

/// `nic detach`
pub async fn detach(name: &str) -> Result<u8, Failure> {
    let network = Client::connect().await?.network().await?;
    network.detach_nic(name, Options::new()).await.map_err(|error| Failure::from_bus(&error))?;
    Ok(SUCCESS)
}
