//! The part of `org.freedesktop.systemd1` that is used here, and how to talk to a PID 1 that comes and goes.

use std::time::Duration;

use tokio::sync::Semaphore;
use zbus::fdo;
use zbus::proxy::CacheProperties;
use zbus::{Connection, DBusError as _, OwnedObjectPath, OwnedVariant, Variant};

use crate::core::name::dbus_escape;

/// Bus name of PID 1.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
/// Where the objects of all units are.
pub(super) const UNITS: &str = "/org/freedesktop/systemd1/unit";
/// Interface of all units.
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// Interface of service units.
pub(super) const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// A unit of that name exists already.
pub(super) const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// No unit of that name is loaded.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// The connection asked for signals before.
const ALREADY_SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";

/// How many calls wait for a reply at most.
const CALLS_AT_ONCE: usize = 32;
/// Time between two tries to reach a PID 1 that is away.
const PAUSE: Duration = Duration::from_millis(100);
/// Time in which a connection whose socket failed is closed for all.
const BREAK: Duration = Duration::from_secs(1);

/// Name and value of a unit's property.
pub(super) type Property<'a> = (&'static str, Variant<'a>);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;

    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        auxiliary: &[(&str, Vec<(&str, Variant<'_>)>)],
    ) -> zbus::Result<OwnedObjectPath>;

    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;

    #[zbus(name = "GetUnitByPID")]
    fn get_unit_by_pid(&self, pid: u32) -> zbus::Result<OwnedObjectPath>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> fdo::Result<String>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> fdo::Result<String>;
}

/// Object path of the unit of this name.
pub(super) fn unit_path(name: &str) -> String {
    format!("{UNITS}/{}", dbus_escape(name))
}

/// The D-Bus name of an error reply.
pub(super) fn error_name(error: &zbus::Error) -> Option<String> {
    match error {
        zbus::Error::MethodError(name, _, _) => Some(name.as_str().to_owned()),
        zbus::Error::FDO(error) => match &**error {
            fdo::Error::ZBus(inner) => error_name(inner),
            error => Some(error.name().as_str().to_owned()),
        },
        _ => None,
    }
}

/// Whether it is only that PID 1 was not on the bus: it leaves it for a moment when it executes itself anew, as an
/// upgrade of the systemd package makes it do. `NoReply` means that it left in the middle of the call.
pub(super) fn is_absent(error: &zbus::Error) -> bool {
    error_name(error).is_some_and(|name| {
        let short = name.strip_prefix("org.freedesktop.DBus.Error.").unwrap_or_default();
        matches!(short, "NameHasNoOwner" | "ServiceUnknown" | "NoReply") || short.starts_with("Spawn.")
    })
}

/// Whether this connection waits for more replies than the bus allows. Others use it, too.
pub(super) fn is_crowded(error: &zbus::Error) -> bool {
    error_name(error).as_deref() == Some("org.freedesktop.DBus.Error.LimitsExceeded")
}

/// systemd on a bus.
#[derive(Debug)]
pub(super) struct Systemd {
    connection: Connection,
    manager: ManagerProxy<'static>,
    /// The system bus refuses the call of a connection that waits for more than 128 replies, and hundreds of units may
    /// end at once. PID 1 takes one call after the other anyway.
    turns: Semaphore,
}

impl Systemd {
    /// Makes no call yet.
    pub(super) async fn new(connection: Connection) -> zbus::Result<Self> {
        let manager = ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
        Ok(Self { connection, manager, turns: Semaphore::new(CALLS_AT_ONCE) })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) async fn version(&self) -> zbus::Result<String> {
        self.manager.version().await.map_err(Into::into)
    }

    /// Makes systemd send signals to this bus; without a subscriber it sends none. May be asked for twice.
    pub(super) async fn subscribe(&self) -> zbus::Result<()> {
        match self.manager.subscribe().await {
            Err(error) if error_name(&error).as_deref() == Some(ALREADY_SUBSCRIBED) => Ok(()),
            other => other,
        }
    }

    /// Whether the machine shuts down.
    pub(super) async fn is_stopping(&self) -> bool {
        self.manager.system_state().await.is_ok_and(|state| state == "stopping")
    }

    /// Name of the service this process runs in, if it does.
    pub(super) async fn own_service(&self) -> Option<String> {
        let path = self.manager.get_unit_by_pid(std::process::id()).await.ok()?;
        let name: String = self.property(path.as_str(), UNIT, "Id").await.ok()?;
        name.ends_with(".service").then_some(name)
    }

    /// Starts a unit that is installed.
    pub(super) async fn start(&self, name: &str, mode: &str) -> zbus::Result<()> {
        self.manager.start_unit(name, mode).await.map(drop)
    }

    /// Starts a unit that is described here. Not repeated when PID 1 is away: that would start it twice.
    pub(super) async fn start_transient(&self, name: &str, properties: &[Property<'_>]) -> zbus::Result<()> {
        let _turn = self.turns.acquire().await;
        self.manager.start_transient_unit(name, "fail", properties, &[]).await.map(drop)
    }

    /// Stops a unit; returns before it has stopped. One that is not loaded is none to stop.
    pub(super) async fn stop(&self, name: &str) -> zbus::Result<()> {
        unless_gone(self.insist(|| self.manager.stop_unit(name, "replace")).await.map(drop))
    }

    /// Makes systemd forget that a unit has failed.
    pub(super) async fn reset_failed(&self, name: &str) -> zbus::Result<()> {
        unless_gone(self.insist(|| self.manager.reset_failed_unit(name)).await)
    }

    /// Reads one property. systemd makes an object up for each path below [`UNITS`], so a unit that is not loaded has
    /// properties too: it is inactive and dead.
    pub(super) async fn property<T>(&self, path: &str, interface: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let get = || {
            let body = (interface, name);
            async move {
                self.connection
                    .call_method(Some(SYSTEMD), path, Some("org.freedesktop.DBus.Properties"), "Get", &body)
                    .await
            }
        };
        let value: OwnedVariant = self.insist(get).await?.body().deserialize()?;
        T::try_from(value).map_err(Into::into)
    }

    /// Whether a call failed because the connection to the bus is lost. The call may be told before the connection knows.
    pub(super) async fn is_lost(&self, error: &zbus::Error) -> bool {
        let breaks = matches!(error, zbus::Error::InputOutput(_));
        self.connection.is_closed() || (breaks && tokio::time::timeout(BREAK, self.connection.closed()).await.is_ok())
    }

    /// Repeats a call that does no harm when it is made twice until PID 1 is there to answer it.
    ///
    /// Does not return when the connection to the bus is lost. The units go on without us, and nothing true can be said
    /// of them; to claim a failure would start a rollback beside a program that still installs. A daemon without its bus
    /// has to end, and the next one finds the units again.
    pub(super) async fn insist<T, F>(&self, mut call: impl FnMut() -> F + Send) -> zbus::Result<T>
    where
        F: Future<Output = zbus::Result<T>> + Send,
    {
        loop {
            let turn = self.turns.acquire().await;
            let result = call().await;
            drop(turn);
            match result {
                Err(error) if self.is_lost(&error).await => return std::future::pending().await,
                Err(error) if is_absent(&error) || is_crowded(&error) => {
                    tracing::debug!(%error, "systemd cannot be asked now");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

fn unless_gone(result: zbus::Result<()>) -> zbus::Result<()> {
    match result {
        Err(error) if error_name(&error).as_deref() == Some(NO_SUCH_UNIT) => Ok(()),
        other => other,
    }
}
