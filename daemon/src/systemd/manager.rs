//! The part of `org.freedesktop.systemd1` that is used here, and how to talk to a PID 1 that comes and goes.

use std::time::Duration;

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
pub(super) const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Time between two tries to reach a PID 1 that is away.
const ABSENCE_PAUSE: Duration = Duration::from_millis(100);

/// Name and value of a unit's property.
pub(super) type Property<'a> = (&'static str, Variant<'a>);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
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

/// The manager; makes no call.
pub(super) async fn manager(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await
}

/// Version of systemd.
pub(super) async fn version(connection: &Connection) -> zbus::Result<String> {
    Ok(manager(connection).await?.version().await?)
}

/// Object path of the unit of this name.
pub(super) fn unit_path(name: &str) -> String {
    format!("{UNITS}/{}", dbus_escape(name))
}

/// Reads one property. systemd makes an object up for each path below [`UNITS`], so a unit that is not loaded has
/// properties too: it is inactive and dead.
pub(super) async fn property<T>(connection: &Connection, path: &str, interface: &str, name: &str) -> zbus::Result<T>
where
    T: TryFrom<OwnedVariant>,
    T::Error: Into<zbus::Error>,
{
    let reply = connection
        .call_method(Some(SYSTEMD), path, Some("org.freedesktop.DBus.Properties"), "Get", &(interface, name))
        .await?;
    let value: OwnedVariant = reply.body().deserialize()?;
    T::try_from(value).map_err(Into::into)
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

/// Repeats a call that does no harm when it is made twice until PID 1 is there to answer it.
///
/// Does not return when the connection to the bus is lost. The units go on without us, and nothing true can be said of
/// them; to claim a failure would start a rollback beside a program that still installs. A daemon without its bus has
/// to end, and the next one finds the units again.
pub(super) async fn insist<T, F>(connection: &Connection, mut call: impl FnMut() -> F + Send) -> zbus::Result<T>
where
    F: Future<Output = zbus::Result<T>> + Send,
{
    loop {
        match call().await {
            Err(_) if connection.is_closed() => return std::future::pending().await,
            Err(error) if is_absent(&error) => {
                tracing::debug!(%error, "systemd is away");
                tokio::time::sleep(ABSENCE_PAUSE).await;
            }
            other => return other,
        }
    }
}
