//! Records what the daemon signals, in the order of the bus.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use futures_util::{FutureExt, StreamExt};
use orchestrator_tests::bus::Bus;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedVariant};

/// One signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    pub path: String,
    pub name: String,
    /// Changed properties for `PropertiesChanged`, else the arguments by position.
    pub values: HashMap<String, String>,
}

impl Signal {
    /// The value of a property or argument, as busctl would show it.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }
}

/// A connection that listens to everything the daemon signals.
pub struct Recorder {
    client: Connection,
    signals: MessageStream,
}

impl Recorder {
    pub async fn start(bus: &Bus) -> Self {
        let client = bus.connect().await;
        let rule = MatchRule::builder().msg_type(Type::Signal).sender("org.orchestratord1").build().unwrap();
        // So many that the connection never has to wait for the test.
        let signals = MessageStream::for_match_rule(rule, &client, NonZeroUsize::new(10_000)).await.unwrap();
        Self { client, signals }
    }

    /// The connection that listens; what comes over it comes in the order in which the daemon sent it.
    pub fn client(&self) -> Connection {
        self.client.clone()
    }

    /// All signals that the daemon sent so far and that were not taken yet.
    pub async fn take(&mut self) -> Vec<Signal> {
        // The reply comes after every signal that was sent before it.
        let peer = zbus::fdo::PeerProxy::builder(&self.client).destination("org.orchestratord1");
        peer.path("/org/orchestratord1").build().await.unwrap().ping().await.unwrap();
        self.take_arrived()
    }

    /// The signals that have arrived here and were not taken yet.
    pub fn take_arrived(&mut self) -> Vec<Signal> {
        let mut taken = Vec::new();
        while let Some(Some(message)) = self.signals.next().now_or_never() {
            taken.push(read(&message.unwrap()));
        }
        taken
    }

    /// The signals with this name on this path.
    pub async fn take_only(&mut self, path: &str, name: &str) -> Vec<Signal> {
        let taken = self.take().await;
        taken.into_iter().filter(|signal| signal.path == path && signal.name == name).collect()
    }
}

fn read(message: &zbus::Message) -> Signal {
    let header = message.header();
    let name = header.member().unwrap().to_string();
    let body = message.body();
    let values = match name.as_str() {
        "PropertiesChanged" => {
            let (_, changed, invalidated): (String, HashMap<String, OwnedVariant>, Vec<String>) =
                body.deserialize().unwrap();
            assert_eq!(invalidated, Vec::<String>::new(), "every value is sent along");
            assert!(!changed.is_empty(), "a signal that says nothing");
            changed.into_iter().map(|(property, value)| (property, shown(&value))).collect()
        }
        "Log" => arguments(body.deserialize::<(String, String, String)>().map(|(s, c, m)| vec![s, c, m])),
        "JobNew" => arguments(
            body.deserialize::<(u32, zbus::OwnedObjectPath)>().map(|(id, job)| vec![id.to_string(), job.to_string()]),
        ),
        "JobRemoved" => arguments(
            body.deserialize::<(u32, zbus::OwnedObjectPath, String)>()
                .map(|(id, job, result)| vec![id.to_string(), job.to_string(), result]),
        ),
        "InterfacesAdded" => {
            let (path, _): (zbus::OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>) =
                body.deserialize().unwrap();
            arguments(Ok(vec![path.to_string()]))
        }
        "InterfacesRemoved" => {
            let (path, interfaces): (zbus::OwnedObjectPath, Vec<String>) = body.deserialize().unwrap();
            arguments(Ok(vec![path.to_string(), interfaces.join(" ")]))
        }
        other => panic!("an unknown signal {other}"),
    };
    Signal { path: header.path().unwrap().to_string(), name, values }
}

fn arguments(arguments: zbus::Result<Vec<String>>) -> HashMap<String, String> {
    arguments.unwrap().into_iter().enumerate().map(|(place, value)| (place.to_string(), value)).collect()
}

fn shown(value: &OwnedVariant) -> String {
    match &**value {
        zbus::Variant::Str(text) => text.to_string(),
        zbus::Variant::F64(number) => number.to_string(),
        zbus::Variant::ObjectPath(path) => path.to_string(),
        zbus::Variant::Structure(pair) => pair
            .fields()
            .iter()
            .map(|field| match field {
                zbus::Variant::Str(text) => text.to_string(),
                other => format!("{other:?}"),
            })
            .collect::<Vec<_>>()
            .join(" "),
        other => format!("{other:?}"),
    }
}
