//! Client proxies of orchestratord, one per interface.
//!
//! The contract itself stands in `xml/` beside this crate: one commented file per interface, equal to what the daemon
//! answers to introspection. The proxies add nothing to it; what a member means is said there and in
//! `docs/dbus-api.md`.
//!
//! Methods that change something set the message flag that lets polkit ask the user for a password; a caller who wants
//! no prompt makes the call through [`zbus::Proxy::call_with_flags`].
//!
//! ```no_run
//! # async fn example() -> zbus::Result<()> {
//! use orchestratord_dbus::{JobProxy, Options, UpdateProxy};
//!
//! let connection = zbus::Connection::system().await?;
//! let update = UpdateProxy::new(&connection).await?;
//! let manifest = std::fs::read_to_string("manifest.yaml")?;
//! let job = update.install(&manifest, Options::from([("reboot", "defer".into())])).await?;
//! let job = JobProxy::builder(&connection).path(job).build().await?;
//! println!("{}", job.wait().await?);
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;

pub use zbus;
pub use zbus::fdo::{ManagedObjects, ObjectManagerProxy};
use zbus::{DBusError, OwnedObjectPath, OwnedVariant, Variant};

/// Bus name of the daemon.
pub const BUS_NAME: &str = "org.orchestratord1";
/// Path of the object that stands for the System; it carries Manager, Update, Network, Vplcs, Host and `ObjectManager`.
pub const ROOT_PATH: &str = "/org/orchestratord1";
/// Below this path, `/<type>/<id>` (both escaped) is a Component.
pub const COMPONENT_PREFIX: &str = "/org/orchestratord1/component";
/// Below this path, `/<name>` (escaped) is a Vplc, and below that `/nic/<name>` (escaped) a Nic of it.
pub const VPLC_PREFIX: &str = "/org/orchestratord1/vplc";
/// Below this path, `/<name>` (escaped) is a Nic.
pub const NIC_PREFIX: &str = "/org/orchestratord1/nic";
/// Below this path, `/<number of the kernel>` is a Link.
pub const LINK_PREFIX: &str = "/org/orchestratord1/link";
/// Below this path, `/<number>` is a Job.
pub const JOB_PREFIX: &str = "/org/orchestratord1/job";

/// Options of a call: the last argument of every method that changes something. An unknown key is an error.
pub type Options<'a> = HashMap<&'a str, Variant<'a>>;

/// One step of a plan: `order` u, `component-type` s, `id` s, `action` s, `interface` s, `from-version` s,
/// `to-version` s, `artifact-name` s, `artifact` s, `size` t.
pub type PlanStep = HashMap<String, OwnedVariant>;

/// Error name and message; both are empty if there is no error.
pub type ErrorPair = (String, String);

/// The daemon itself.
#[zbus::proxy(
    interface = "org.orchestratord1.Manager",
    default_service = "org.orchestratord1",
    default_path = "/org/orchestratord1"
)]
pub trait Manager {
    /// Version of the daemon.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// `starting`, `idle`, `busy`, `degraded` or `stopping`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// A Job was accepted.
    #[zbus(signal)]
    fn job_new(&self, id: u32, job: zbus::ObjectPath<'_>) -> zbus::Result<()>;

    /// A Job ended; its object lingers for some minutes.
    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: zbus::ObjectPath<'_>, result: &str) -> zbus::Result<()>;
}

/// Updates of the System.
#[zbus::proxy(
    interface = "org.orchestratord1.Update",
    default_service = "org.orchestratord1",
    default_path = "/org/orchestratord1"
)]
pub trait Update {
    /// What `install` would do, in order. Options: `base-directory` s, `topology-components` s.
    #[zbus(allow_interactive_auth)]
    fn plan(&self, manifest: &str, options: Options<'_>) -> zbus::Result<Vec<PlanStep>>;

    /// Begins to install a Manifest and returns the Job. Options: `base-directory` s, `stop-before` as, `reboot` s,
    /// `topology-components` s.
    #[zbus(allow_interactive_auth)]
    fn install(&self, manifest: &str, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Goes on with the open deployment. Options: `stop-before` as, `reboot` s.
    #[zbus(allow_interactive_auth)]
    fn resume(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Takes the open deployment back. Options: `stop-before` as, `reboot` s, `force` b.
    #[zbus(allow_interactive_auth)]
    fn rollback(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Asks the Components what they are: (component, key, value) entries and one message per Component that did not
    /// answer. Options: `scope` s (`all`, `provides`), `topology-components` s.
    #[zbus(allow_interactive_auth)]
    fn inventory(&self, options: Options<'_>) -> zbus::Result<(Vec<(String, String, String)>, Vec<String>)>;

    /// Reads configuration and Topology again. No options.
    #[zbus(allow_interactive_auth)]
    fn reload(&self, options: Options<'_>) -> zbus::Result<()>;

    /// `idle`, `busy`, `waiting` or `reboot-required`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// State before which the open deployment stopped at a caller's wish; empty if it did not.
    #[zbus(property)]
    fn stopped_before(&self) -> zbus::Result<String>;

    /// Name of the Manifest that is being installed, else of the one installed last.
    #[zbus(property)]
    fn manifest(&self) -> zbus::Result<String>;

    /// System type of the Topology; empty if there is no valid Topology.
    #[zbus(property)]
    fn system_type(&self) -> zbus::Result<String>;

    /// The Job that runs; `/` if none does.
    #[zbus(property)]
    fn active_job(&self) -> zbus::Result<OwnedObjectPath>;

    /// What went wrong last.
    #[zbus(property)]
    fn last_error(&self) -> zbus::Result<ErrorPair>;
}

/// A Component of the System.
#[zbus::proxy(
    interface = "org.orchestratord1.Component",
    default_service = "org.orchestratord1",
    assume_defaults = false
)]
pub trait Component {
    /// Component type.
    #[zbus(property(emits_changed_signal = "const"), name = "Type")]
    fn component_type(&self) -> zbus::Result<String>;

    /// What its Interface answered to `Identity`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<String>;

    /// Name of its Interface.
    #[zbus(property(emits_changed_signal = "const"))]
    fn interface(&self) -> zbus::Result<String>;

    /// Arguments that the Topology gives to the Interface.
    #[zbus(property(emits_changed_signal = "const"))]
    fn arguments(&self) -> zbus::Result<Vec<String>>;

    /// `idle`, `selected`, `unchanged`, `failed`, or the state of the Interface protocol that ran last.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// Version that it said it has; empty if unknown.
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;

    /// What it said it provides.
    #[zbus(property)]
    fn provides(&self) -> zbus::Result<HashMap<String, String>>;

    /// Share of the current deployment that is behind it, 0 to 1.
    #[zbus(property)]
    fn progress(&self) -> zbus::Result<f64>;

    /// What went wrong with it last.
    #[zbus(property)]
    fn last_error(&self) -> zbus::Result<ErrorPair>;
}

/// Long work.
#[zbus::proxy(interface = "org.orchestratord1.Job", default_service = "org.orchestratord1", assume_defaults = false)]
pub trait Job {
    /// Asks the work to stop.
    #[zbus(allow_interactive_auth)]
    fn cancel(&self) -> zbus::Result<()>;

    /// Returns the result once the Job has ended; all its properties have their last values by then.
    fn wait(&self) -> zbus::Result<String>;

    /// A line of the Job's log; the severity is `info`, `warning` or `error`.
    #[zbus(signal)]
    fn log(&self, severity: &str, component: &str, message: &str) -> zbus::Result<()>;

    /// Number of the Job.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<u32>;

    /// `install`, `resume` or `rollback`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> zbus::Result<String>;

    /// The object it works on.
    #[zbus(property(emits_changed_signal = "const"))]
    fn subject(&self) -> zbus::Result<OwnedObjectPath>;

    /// User id of the caller who began it.
    #[zbus(property(emits_changed_signal = "const"))]
    fn started_by(&self) -> zbus::Result<u32>;

    /// When it was accepted, in microseconds since 1970.
    #[zbus(property(emits_changed_signal = "const"))]
    fn started(&self) -> zbus::Result<u64>;

    /// `queued`, `running` or `done`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// From 0 to 1, never falling.
    #[zbus(property)]
    fn progress(&self) -> zbus::Result<f64>;

    /// What is being done, for people.
    #[zbus(property)]
    fn step(&self) -> zbus::Result<String>;

    /// How it ended; empty while it runs.
    #[zbus(property)]
    fn result(&self) -> zbus::Result<String>;

    /// What went wrong, also when the result is `stopped` or `rolled-back`.
    #[zbus(property)]
    fn error(&self) -> zbus::Result<ErrorPair>;
}

/// The network of the host.
#[zbus::proxy(
    interface = "org.orchestratord1.Network",
    default_service = "org.orchestratord1",
    default_path = "/org/orchestratord1"
)]
pub trait Network {
    /// Attaches a NIC by its specification (YAML). Options: `wait` b.
    #[zbus(allow_interactive_auth)]
    fn attach_nic(&self, spec: &str, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Detaches a NIC. No options.
    #[zbus(allow_interactive_auth)]
    fn detach_nic(&self, name: &str, options: Options<'_>) -> zbus::Result<()>;

    /// The link that packets to the world take; `/` if there is no default route.
    #[zbus(property)]
    fn default_link(&self) -> zbus::Result<OwnedObjectPath>;

    /// Whether packets to the world have a way to leave.
    #[zbus(property)]
    fn online(&self) -> zbus::Result<bool>;
}

/// A NIC that the daemon made in a network namespace.
#[zbus::proxy(interface = "org.orchestratord1.Nic", default_service = "org.orchestratord1", assume_defaults = false)]
pub trait Nic {
    /// Name, also that of the link in the namespace.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// `static` or `dhcp`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> zbus::Result<String>;

    /// Name of the link that it hangs on, also while that is not there.
    #[zbus(property(emits_changed_signal = "const"))]
    fn parent_name(&self) -> zbus::Result<String>;

    /// `macvlan`, `vlan`, `dedicated`, `routed` or `shim`.
    #[zbus(property(emits_changed_signal = "const"))]
    fn r#type(&self) -> zbus::Result<String>;

    /// The link that it hangs on; `/` while that is not there, or is the link of the NIC itself.
    #[zbus(property)]
    fn parent(&self) -> zbus::Result<OwnedObjectPath>;

    /// Hardware address.
    #[zbus(property)]
    fn mac(&self) -> zbus::Result<String>;

    /// `waiting-for-namespace`, `waiting-for-parent`, `attaching`, `probing`, `up`, `no-carrier` or `failed`; with a lease
    /// `acquiring`, `bound`, `renewing` or `rebinding` in place of `up`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// Addresses that are set.
    #[zbus(property)]
    fn addresses(&self) -> zbus::Result<Vec<String>>;

    /// Router of its default route, while that is set.
    #[zbus(property)]
    fn gateway(&self) -> zbus::Result<String>;

    /// Name servers, the best first.
    #[zbus(property)]
    fn dns(&self) -> zbus::Result<Vec<String>>;

    /// Domain that names are looked up in.
    #[zbus(property)]
    fn domain(&self) -> zbus::Result<String>;

    /// Time servers, the best first.
    #[zbus(property)]
    fn ntp(&self) -> zbus::Result<Vec<String>>;

    /// When the lease ends, in seconds since 1970; 0 if never, or without a lease.
    #[zbus(property)]
    fn lease_expires(&self) -> zbus::Result<u64>;

    /// What went wrong last.
    #[zbus(property)]
    fn last_error(&self) -> zbus::Result<ErrorPair>;
}

/// All vPLCs, and the engine that runs them.
#[zbus::proxy(
    interface = "org.orchestratord1.Vplcs",
    default_service = "org.orchestratord1",
    default_path = "/org/orchestratord1"
)]
pub trait Vplcs {
    /// Makes a vPLC, or changes it, to be as specified (YAML), and returns the Job. Options: `image` h.
    #[zbus(allow_interactive_auth)]
    fn apply(&self, spec: &str, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// What `apply` would change: key, value now, value afterwards. No options.
    #[zbus(allow_interactive_auth)]
    fn plan(&self, spec: &str, options: Options<'_>) -> zbus::Result<Vec<(String, String, String)>>;

    /// Removes a vPLC and returns the Job. Options: `keep-data` b.
    #[zbus(allow_interactive_auth)]
    fn delete(&self, name: &str, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// `docker` or `podman`; empty while none is connected.
    #[zbus(property)]
    fn engine(&self) -> zbus::Result<String>;

    /// Version of the engine.
    #[zbus(property)]
    fn engine_version(&self) -> zbus::Result<String>;
}

/// A virtual PLC.
#[zbus::proxy(interface = "org.orchestratord1.Vplc", default_service = "org.orchestratord1", assume_defaults = false)]
pub trait Vplc {
    /// Starts it and returns the Job. No options.
    #[zbus(allow_interactive_auth)]
    fn start(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Stops it and returns the Job. No options.
    #[zbus(allow_interactive_auth)]
    fn stop(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Stops and starts its runtime and returns the Job. No options.
    #[zbus(allow_interactive_auth)]
    fn restart(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Gives it another image, and nothing else, and returns the Job. Options: `image` h, `pin` s.
    #[zbus(allow_interactive_auth)]
    fn upgrade(&self, reference: &str, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Puts a PLC program (a zip archive, an open regular file) on its runtime and returns the Job. No options.
    #[zbus(allow_interactive_auth)]
    fn deploy(&self, program: zbus::Fd<'_>, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Puts the program back that proved to run before, or another version, and returns the Job. Options: `version` u.
    #[zbus(allow_interactive_auth)]
    fn rollback_program(&self, options: Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// The archive of the program that is on the runtime, or of another version. Options: `version` u.
    #[zbus(allow_interactive_auth)]
    fn export(&self, options: Options<'_>) -> zbus::Result<zbus::OwnedFd>;

    /// `user` s, `password` s and `certificate` s (SHA-256) of the runtime. No options.
    #[zbus(allow_interactive_auth)]
    fn credentials(&self, options: Options<'_>) -> zbus::Result<HashMap<String, OwnedVariant>>;

    /// Lets it start again although it had ended by itself too often. No options.
    #[zbus(allow_interactive_auth)]
    fn reset_failed(&self, options: Options<'_>) -> zbus::Result<()>;

    /// The last lines of output. Options: `lines` u.
    #[zbus(allow_interactive_auth)]
    fn logs(&self, options: Options<'_>) -> zbus::Result<Vec<String>>;

    /// What was recorded of its usage since then (seconds since 1970); empty unless a history is kept.
    fn history(&self, metric: &str, since: u64) -> zbus::Result<Vec<(u64, f64)>>;

    /// The last lines of output and all that comes, to be read from a descriptor. Options: `lines` u.
    #[zbus(allow_interactive_auth)]
    fn follow_logs(&self, options: Options<'_>) -> zbus::Result<zbus::OwnedFd>;

    /// Runs a command in it; returns a socket with its streams in frames. Options: `terminal` s, `rows` u, `columns` u.
    #[zbus(allow_interactive_auth)]
    fn shell(&self, command: &[&str], options: Options<'_>) -> zbus::Result<zbus::OwnedFd>;

    /// Name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> zbus::Result<String>;

    /// The specification that was applied.
    #[zbus(property)]
    fn spec(&self) -> zbus::Result<String>;

    /// `running`, `stopped` or `deleted`.
    #[zbus(property)]
    fn desired(&self) -> zbus::Result<String>;

    /// `unknown`, `starting`, `running`, `stopping`, `stopped`, `failed` or `deleting`.
    #[zbus(property)]
    fn container(&self) -> zbus::Result<String>;

    /// `starting`, `healthy` or `unhealthy`; empty if nobody asks.
    #[zbus(property)]
    fn runtime(&self) -> zbus::Result<String>;

    /// Name of its image, a blank, and its digest.
    #[zbus(property)]
    fn image(&self) -> zbus::Result<String>;

    /// Since when its container does what it does, in microseconds since 1970.
    #[zbus(property)]
    fn since(&self) -> zbus::Result<u64>;

    /// How often it was started again because it had ended by itself.
    #[zbus(property)]
    fn restarts(&self) -> zbus::Result<u32>;

    /// What the PLC in it does, such as `running`, `stopped` or `empty`; empty if that is not known.
    #[zbus(property)]
    fn plc(&self) -> zbus::Result<String>;

    /// The PLC program: `number` u, `sha256` s, `size` t, `added` t (microseconds since 1970), `by` s, `proven` t; empty if there is
    /// none.
    #[zbus(property)]
    fn program(&self) -> zbus::Result<HashMap<String, OwnedVariant>>;

    /// The versions of the program that are kept, each with the keys of `program`.
    #[zbus(property)]
    fn versions(&self) -> zbus::Result<Vec<HashMap<String, OwnedVariant>>>;

    /// Its serial ports, each with `name` s, `node` s, `shared` b, `device` s, `connected` b, `error` s.
    #[zbus(property)]
    fn serial(&self) -> zbus::Result<Vec<HashMap<String, OwnedVariant>>>;

    /// What it uses: `cpu` d, `cpu-time` t (microseconds), `memory` t, `received` t, `sent` t, `restarts` u, `overruns` t; without
    /// what is not known.
    #[zbus(property(emits_changed_signal = "false"))]
    fn usage(&self) -> zbus::Result<HashMap<String, OwnedVariant>>;

    /// Whether real time is granted: `granted`, `degraded` or `off`.
    #[zbus(property)]
    fn real_time(&self) -> zbus::Result<String>;

    /// Why it is not.
    #[zbus(property)]
    fn real_time_reason(&self) -> zbus::Result<String>;

    /// What went wrong last.
    #[zbus(property)]
    fn last_error(&self) -> zbus::Result<ErrorPair>;
}

/// How the host is.
#[zbus::proxy(
    interface = "org.orchestratord1.Host",
    default_service = "org.orchestratord1",
    default_path = "/org/orchestratord1"
)]
pub trait Host {
    /// What was recorded of a metric since then (seconds since 1970); empty unless a history is kept.
    fn history(&self, metric: &str, since: u64) -> zbus::Result<Vec<(u64, f64)>>;

    /// All figures as `OpenMetrics` text.
    fn metrics(&self) -> zbus::Result<String>;

    /// Share of all processors that was busy since the reading before.
    #[zbus(property(emits_changed_signal = "false"))]
    fn cpu_usage(&self) -> zbus::Result<f64>;

    /// Bytes of memory in use.
    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_used(&self) -> zbus::Result<u64>;

    /// Bytes of memory.
    #[zbus(property(emits_changed_signal = "const"))]
    fn memory_total(&self) -> zbus::Result<u64>;

    /// Bytes used on writable disks.
    #[zbus(property(emits_changed_signal = "false"))]
    fn disk_used(&self) -> zbus::Result<u64>;

    /// Bytes of writable disks.
    #[zbus(property(emits_changed_signal = "false"))]
    fn disk_total(&self) -> zbus::Result<u64>;

    /// Seconds since the host started.
    #[zbus(property(emits_changed_signal = "false"))]
    fn uptime(&self) -> zbus::Result<u64>;

    /// Load averages over 1, 5 and 15 minutes.
    #[zbus(property(emits_changed_signal = "false"))]
    fn load_average(&self) -> zbus::Result<(f64, f64, f64)>;

    /// Temperatures in degrees Celsius.
    #[zbus(property(emits_changed_signal = "false"))]
    fn temperatures(&self) -> zbus::Result<HashMap<String, f64>>;

    /// Pressure stall information.
    #[zbus(property(emits_changed_signal = "false"))]
    fn pressure(&self) -> zbus::Result<HashMap<String, f64>>;
}

/// A network link of the host.
#[zbus::proxy(interface = "org.orchestratord1.Link", default_service = "org.orchestratord1", assume_defaults = false)]
pub trait Link {
    /// Number of the link in the kernel.
    #[zbus(property(emits_changed_signal = "const"))]
    fn index(&self) -> zbus::Result<u32>;

    /// `ethernet`, `wireless`, `bridge`, `vlan`, `bond`, `macvlan`, `veth`, `loopback` ...
    #[zbus(property(emits_changed_signal = "const"))]
    fn kind(&self) -> zbus::Result<String>;

    /// Name.
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;

    /// Hardware address; empty if there is none.
    #[zbus(property)]
    fn mac(&self) -> zbus::Result<String>;

    /// Largest packet in bytes.
    #[zbus(property)]
    fn mtu(&self) -> zbus::Result<u32>;

    /// `up`, `down`, `lower-layer-down`, `dormant`, `not-present`, `testing` or `unknown`.
    #[zbus(property)]
    fn oper_state(&self) -> zbus::Result<String>;

    /// Whether it is up and there is something at its other end.
    #[zbus(property)]
    fn carrier(&self) -> zbus::Result<bool>;

    /// Addresses with the length of their prefix.
    #[zbus(property)]
    fn addresses(&self) -> zbus::Result<Vec<String>>;

    /// Router of the default route over this link; empty if there is none.
    #[zbus(property)]
    fn gateway(&self) -> zbus::Result<String>;

    /// The NICs that use it.
    #[zbus(property)]
    fn used_by(&self) -> zbus::Result<Vec<OwnedObjectPath>>;

    /// Counters of the kernel, as they are now.
    #[zbus(property(emits_changed_signal = "false"))]
    fn statistics(&self) -> zbus::Result<HashMap<String, u64>>;
}

/// The `ObjectManager` of the daemon: all Components and Jobs with their properties in one call, and signals when
/// they appear and vanish. Paths between the root and an object come with no interfaces; skip them.
pub async fn objects(connection: &zbus::Connection) -> zbus::Result<ObjectManagerProxy<'static>> {
    ObjectManagerProxy::builder(connection).destination(BUS_NAME).path(ROOT_PATH).build().await
}

/// A Job whose properties are asked for at each read. After [`JobProxy::wait`] they are final; a caching proxy, which
/// the `receive_*_changed` streams need (`JobProxy::builder`), may lag behind the reply of `wait`.
pub async fn job(connection: &zbus::Connection, path: OwnedObjectPath) -> zbus::Result<JobProxy<'static>> {
    JobProxy::builder(connection).path(path).cache_properties(zbus::proxy::CacheProperties::No).build().await
}

/// A Component whose properties are asked for at each read; `path` as in [`ManagedObjects`].
pub async fn component(connection: &zbus::Connection, path: OwnedObjectPath) -> zbus::Result<ComponentProxy<'static>> {
    ComponentProxy::builder(connection).path(path).cache_properties(zbus::proxy::CacheProperties::No).build().await
}

/// Error name and message of an error reply; `None` for an error that did not come from the other side.
///
/// zbus keeps the names that every D-Bus service shares in a variant of their own, hence this.
pub fn error_reply(error: &zbus::Error) -> Option<ErrorPair> {
    let pair = |error: &dyn DBusError| {
        (error.name().to_string(), error.description().map(ToOwned::to_owned).unwrap_or_default())
    };
    match error {
        zbus::Error::MethodError(name, message, _) => Some((name.to_string(), message.clone().unwrap_or_default())),
        zbus::Error::FDO(error) => Some(pair(error.as_ref())),
        zbus::Error::DBus(error) => Some(pair(error.as_ref())),
        _ => None,
    }
}
