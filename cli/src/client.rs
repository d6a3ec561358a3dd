//! The way to the daemon: connection, calls, and the one ordered stream of what it says.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use orchestratord::core::error::Kind;
use orchestratord::core::name::dbus_unescape;
use orchestratord_dbus::{
    BUS_NAME, ComponentProxy, ErrorPair, HostProxy, JobProxy, ManagedObjects, ManagerProxy, NetworkProxy,
    ObjectManagerProxy, Options, ROOT_PATH, UpdateProxy, VplcProxy, VplcsProxy,
};
use tokio::time::timeout;
use zbus::message::Type;
use zbus::names::OwnedUniqueName;
use zbus::proxy::{Builder, CacheProperties, Defaults};
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, OwnedVariant};

use crate::failure::{Failure, bus_address};

/// How long the bus may take to say that a daemon which has left will not answer.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Properties of one interface. What is missing or of another type reads as empty, so that a newer daemon with
/// another idea of a property does not stop the rest from being shown.
#[derive(Debug, Default)]
pub struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    /// These properties.
    pub fn new(values: HashMap<String, OwnedVariant>) -> Self {
        Self(values)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }

    /// An object path.
    pub fn path(&self, name: &str) -> Option<String> {
        let path = self.0.get(name)?.try_clone().ok()?;
        OwnedObjectPath::try_from(path).ok().map(|path| path.as_str().to_owned())
    }

    /// Paths of NICs, each by its name; after that of its vPLC and a slash if it belongs to one.
    pub fn nics(&self, name: &str) -> Option<Vec<String>> {
        let paths: Vec<OwnedObjectPath> = self.0.get(name)?.try_clone().ok()?.try_into().ok()?;
        let name = |path: &OwnedObjectPath| {
            let words: Vec<&str> = path.as_str().rsplit('/').collect();
            match words.as_slice() {
                [nic, "nic", vplc, "vplc", ..] => format!("{}/{}", dbus_unescape(vplc), dbus_unescape(nic)),
                [nic, ..] => dbus_unescape(nic),
                [] => String::new(),
            }
        };
        Some(paths.iter().map(name).collect())
    }

    /// A number that need not be whole, such as a share.
    pub fn share(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(|value| f64::try_from(value).ok())
    }

    /// True or false.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(|value| bool::try_from(value).ok())
    }

    /// A map of numbers.
    pub fn numbers(&self, name: &str) -> Option<HashMap<String, u64>> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }

    /// A number.
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = self.0.get(name)?;
        u64::try_from(value).ok().or_else(|| u32::try_from(value).ok().map(u64::from))
    }

    /// Error name and message.
    pub fn error(&self, name: &str) -> Option<ErrorPair> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }

    /// A list of texts.
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }

    /// A map of anything.
    pub fn dictionary(&self, name: &str) -> Option<Self> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok().map(Self)
    }

    /// A list of maps of anything.
    pub fn dictionaries(&self, name: &str) -> Vec<Self> {
        let list = self.0.get(name).and_then(|value| value.try_clone().ok());
        let list = list.and_then(|value| Vec::<HashMap<String, OwnedVariant>>::try_from(value).ok());
        list.unwrap_or_default().into_iter().map(Self).collect()
    }

    /// A map of texts.
    pub fn map(&self, name: &str) -> Option<HashMap<String, String>> {
        self.0.get(name)?.try_clone().ok()?.try_into().ok()
    }
}

/// A connection to a running daemon.
///
/// Calls go to the unique name of the daemon that answered first: if it restarts in between, a call fails instead of
/// reaching a daemon whose signals nobody listens to.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    daemon: OwnedUniqueName,
}

impl Client {
    /// Connects, and has the bus start the daemon if need be.
    pub async fn connect() -> Result<Self, Failure> {
        let connection = Connection::system().await.map_err(|error| {
            Failure::new(Kind::Failed, format!("Cannot connect to {}: {error}; is D-Bus running?", bus_address()))
        })?;
        Self::find(&connection).await
    }

    async fn find(connection: &Connection) -> Result<Self, Failure> {
        let ping = connection.call_method(Some(BUS_NAME), ROOT_PATH, Some("org.freedesktop.DBus.Peer"), "Ping", &());
        let answer = ping.await.map_err(|error| Failure::from_bus(&error))?;
        let daemon = answer.header().sender().map(|sender| sender.to_owned().into());
        let daemon = daemon.ok_or_else(|| Failure::from_bus(&zbus::Error::InvalidReply))?;
        Ok(Self { connection: connection.clone(), daemon })
    }

    /// The daemon that owns the name now, on the same connection.
    pub async fn again(&self) -> Result<Self, Failure> {
        Self::find(&self.connection).await
    }

    /// Another instance of the daemon, on the same connection.
    pub fn at(&self, daemon: OwnedUniqueName) -> Self {
        Self { connection: self.connection.clone(), daemon }
    }

    /// Asks the bus to start the daemon; returns whether that is possible at all. The bus may know how, and the start
    /// may still fail or take longer than the bus waits.
    pub async fn start_daemon(&self) -> Result<bool, Failure> {
        let bus = Some("org.freedesktop.DBus");
        let arguments = (BUS_NAME, 0_u32);
        let started = self.connection.call_method(bus, "/org/freedesktop/DBus", bus, "StartServiceByName", &arguments);
        match started.await {
            Ok(_) => Ok(true),
            Err(zbus::Error::MethodError(name, ..)) => {
                let word = name.as_str().strip_prefix("org.freedesktop.DBus.Error.").unwrap_or_default();
                Ok(word != "ServiceUnknown" && !word.starts_with("Spawn."))
            }
            Err(error) => Err(Failure::from_bus(&error)),
        }
    }

    /// Calls to `Update`.
    pub async fn update(&self) -> Result<UpdateProxy<'static>, Failure> {
        self.proxy(UpdateProxy::builder(&self.connection)).await
    }

    /// Calls to `Network`.
    pub async fn network(&self) -> Result<NetworkProxy<'static>, Failure> {
        self.proxy(NetworkProxy::builder(&self.connection)).await
    }

    /// Calls to `Vplcs`.
    pub async fn vplcs(&self) -> Result<VplcsProxy<'static>, Failure> {
        self.proxy(VplcsProxy::builder(&self.connection)).await
    }

    /// Calls to the vPLC at this path.
    pub async fn vplc(&self, path: String) -> Result<VplcProxy<'static>, Failure> {
        let path = OwnedObjectPath::try_from(path).map_err(|error| Failure::from_bus(&error))?;
        self.proxy(VplcProxy::builder(&self.connection).path(path)).await
    }

    /// Calls to `Host`.
    pub async fn host(&self) -> Result<HostProxy<'static>, Failure> {
        self.proxy(HostProxy::builder(&self.connection)).await
    }

    /// Waits for the end of a Job; returns its result.
    pub async fn wait(&self, job: &str) -> Result<String, Failure> {
        let job = OwnedObjectPath::try_from(job).map_err(|error| Failure::from_bus(&error))?;
        let job = self.proxy(JobProxy::builder(&self.connection).path(job)).await?;
        job.wait().await.map_err(|error| Failure::from_bus(&error))
    }

    async fn proxy<T>(&self, builder: Builder<'static, T>) -> Result<T, Failure>
    where
        T: From<zbus::Proxy<'static>> + Defaults,
    {
        let built = builder.destination(self.daemon.clone()).cache_properties(CacheProperties::No).build().await;
        built.map_err(|error| Failure::from_bus(&error))
    }

    /// All Components and Jobs with their properties.
    pub async fn objects(&self) -> Result<ManagedObjects, Failure> {
        let objects = ObjectManagerProxy::builder(&self.connection).path(ROOT_PATH);
        let objects = self.proxy(objects).await?;
        objects.get_managed_objects().await.map_err(|error| Failure::from_bus(&error.into()))
    }

    /// All properties of one interface.
    pub async fn properties(&self, path: &str, interface: &str) -> Result<Properties, Failure> {
        let all = self.connection.call_method(
            Some(&self.daemon),
            path,
            Some("org.freedesktop.DBus.Properties"),
            "GetAll",
            &interface,
        );
        let reply = all.await.map_err(|error| Failure::from_bus(&error))?;
        let values = reply.body().deserialize().map_err(|error| Failure::from_bus(&error))?;
        Ok(Properties(values))
    }

    /// Properties of `Manager`.
    pub async fn manager_properties(&self) -> Result<Properties, Failure> {
        self.properties(ROOT_PATH, interface::<ManagerProxy<'_>>()).await
    }

    /// Properties of `Update`.
    pub async fn update_properties(&self) -> Result<Properties, Failure> {
        self.properties(ROOT_PATH, interface::<UpdateProxy<'_>>()).await
    }

    /// From now on, everything the daemon says.
    pub async fn listen(&self) -> Result<Listener, Failure> {
        let messages = MessageStream::from(&self.connection);
        for rule in [
            // By the well-known name, so that nothing is missed of what another instance says from its first moment on.
            format!("type='signal',sender='{BUS_NAME}',path_namespace='{ROOT_PATH}'"),
            format!("type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{BUS_NAME}'"),
        ] {
            let bus = Some("org.freedesktop.DBus");
            let added = self.connection.call_method(bus, "/org/freedesktop/DBus", bus, "AddMatch", &rule).await;
            added.map_err(|error| Failure::from_bus(&error))?;
        }
        Ok(Listener { messages, daemon: self.daemon.clone(), owner: Some(self.daemon.clone()) })
    }
}

/// Name of the interface behind a proxy type.
pub fn interface<T: Defaults>() -> &'static str {
    T::INTERFACE.as_ref().map_or("", |name| name.as_str())
}

/// Something the daemon said, or that happened to it.
#[derive(Debug)]
pub enum Event {
    /// Properties of an object changed.
    Changed {
        /// The object.
        path: String,
        /// Their interface.
        interface: String,
        /// Their new values.
        properties: Properties,
    },
    /// An object appeared, with these interfaces.
    Added(String, HashMap<String, Properties>),
    /// Interfaces of an object vanished.
    Removed(String, Vec<String>),
    /// A line of a Job's log.
    Log {
        /// The Job.
        job: String,
        /// `info`, `warning` or `error`.
        severity: String,
        /// `<component type>.<id>`, or empty.
        component: String,
        /// The line.
        message: String,
    },
    /// The daemon owns its name no more.
    Vanished,
    /// Another instance of the daemon owns the name now.
    Appeared,
}

/// The stream of what the daemon says, in its order.
#[derive(Debug)]
pub struct Listener {
    messages: MessageStream,
    /// Whose words are passed on.
    daemon: OwnedUniqueName,
    /// Who owns the daemon's name.
    owner: Option<OwnedUniqueName>,
}

impl Listener {
    /// Whether the daemon owns its name no more.
    pub fn has_left(&self) -> bool {
        self.owner.as_ref() != Some(&self.daemon)
    }

    /// The next event; an error once the bus is gone.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            match self.messages.next().await {
                Some(Ok(message)) => {
                    if let Some(event) = self.event(&message) {
                        return Ok(event);
                    }
                }
                Some(Err(zbus::Error::InputOutput(_))) | None => {
                    return Err(Failure::Gone(format!("The connection to {} broke.", bus_address())));
                }
                // A single message that cannot be read does not make the others worthless.
                Some(Err(_)) => {}
            }
        }
    }

    /// Reads on until another instance of the daemon owns its name; returns at once if one does. What was said before is
    /// over and done with; what the other instance says comes next.
    pub async fn successor(&mut self) -> Result<OwnedUniqueName, Failure> {
        loop {
            if let Some(owner) = self.owner.clone().filter(|owner| *owner != self.daemon) {
                self.daemon = owner.clone();
                return Ok(owner);
            }
            self.next().await?;
        }
    }

    /// Waits for a call and hands over all events meanwhile, those before the reply certainly before it.
    ///
    /// Messages have to be taken off the stream while calls wait: the connection stops reading when it is full. When the
    /// daemon leaves, the stream stays where it is: the reply is there already, or the bus says at once that none comes.
    pub async fn during<T>(
        &mut self,
        call: impl Future<Output = Result<T, Failure>>,
        mut on_event: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<T, Failure> {
        tokio::pin!(call);
        while !self.has_left() {
            tokio::select! {
                biased;
                event = self.next() => on_event(event?)?,
                outcome = &mut call => return outcome,
            }
        }
        timeout(LAST_WORDS, call).await.unwrap_or_else(|_| Err(Failure::left()))
    }

    fn event(&mut self, message: &Message) -> Option<Event> {
        let header = message.header();
        if header.message_type() != Type::Signal {
            return None;
        }
        let sender = header.sender()?.as_str();
        let member = (header.interface()?.as_str(), header.member()?.as_str());
        let body = message.body();
        if sender == "org.freedesktop.DBus" {
            let (name, _, owner): (String, String, String) = body.deserialize().ok()?;
            if member.1 != "NameOwnerChanged" || name != BUS_NAME {
                return None;
            }
            // The bus makes no empty name but for "nobody".
            self.owner = OwnedUniqueName::try_from(owner).ok();
            return match &self.owner {
                None => Some(Event::Vanished),
                Some(owner) if *owner != self.daemon => Some(Event::Appeared),
                Some(_) => None,
            };
        }
        // The match rules let other instances of the daemon in, and messages sent to us alone.
        if sender != self.daemon.as_str() {
            return None;
        }
        let path = header.path()?.as_str().to_owned();
        match member {
            ("org.freedesktop.DBus.Properties", "PropertiesChanged") => {
                let (interface, values, _): (String, _, Vec<String>) = body.deserialize().ok()?;
                Some(Event::Changed { path, interface, properties: Properties(values) })
            }
            ("org.freedesktop.DBus.ObjectManager", "InterfacesAdded") => {
                let (object, interfaces): (OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>) =
                    body.deserialize().ok()?;
                let interfaces = interfaces.into_iter().map(|(name, values)| (name, Properties(values))).collect();
                Some(Event::Added(object.as_str().to_owned(), interfaces))
            }
            ("org.freedesktop.DBus.ObjectManager", "InterfacesRemoved") => {
                let (object, interfaces): (OwnedObjectPath, Vec<String>) = body.deserialize().ok()?;
                Some(Event::Removed(object.as_str().to_owned(), interfaces))
            }
            (interface, "Log") if interface == self::interface::<JobProxy<'_>>() => {
                let (severity, component, message) = body.deserialize().ok()?;
                Some(Event::Log { job: path, severity, component, message })
            }
            _ => None,
        }
    }
}

/// Options shared by the requests that move a deployment.
pub fn run_options<'a>(stop_before: &'a [String], defer_reboot: bool) -> Options<'a> {
    let mut options = Options::from([("reboot", if defer_reboot { "defer" } else { "auto" }.into())]);
    if !stop_before.is_empty() {
        let states: Vec<&'a str> = stop_before.iter().map(String::as_str).collect();
        options.insert("stop-before", states.into());
    }
    options
}

/// Interface name of a Component object.
pub fn component_interface() -> &'static str {
    interface::<ComponentProxy<'_>>()
}

/// Interface name of a Job object.
pub fn job_interface() -> &'static str {
    interface::<JobProxy<'_>>()
}
