//! The settings of the daemon, whatever they were read from.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Every step of the protocols.
    Trace,
    /// What helps to find a defect.
    Debug,
    /// What happens to the System.
    #[default]
    Info,
    /// What works, but not as it should.
    Warning,
    /// What does not work.
    Error,
    /// What ends the daemon; nothing is logged above `Error`, so this is the same.
    Fatal,
}

impl LogLevel {
    /// Every level.
    pub const ALL: [Self; 6] = [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Fatal];

    /// The word in the file and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// The most verbose level that passes.
    pub const fn level(self) -> tracing::Level {
        match self {
            Self::Trace => tracing::Level::TRACE,
            Self::Debug => tracing::Level::DEBUG,
            Self::Info => tracing::Level::INFO,
            Self::Warning => tracing::Level::WARN,
            Self::Error | Self::Fatal => tracing::Level::ERROR,
        }
    }
}

/// What runs the programs of Interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunnerChoice {
    /// Transient systemd units where systemd is the init system, processes elsewhere.
    #[default]
    Auto,
    /// Transient systemd units.
    Systemd,
    /// Processes of the daemon.
    Process,
}

/// The cache of Artifacts that were downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactsCache {
    /// Whether there is one.
    pub enabled: bool,
    /// Its directory, which must exist.
    pub path: PathBuf,
    /// How large it may get, in bytes; 0 is unlimited.
    pub max_size: u64,
    /// Whether an Artifact that cannot be cached fails its download.
    pub strict: bool,
}

/// How the daemon shows who it is to servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpsClient {
    /// PEM file with the certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key.
    pub key: Option<PathBuf>,
}

/// Where Artifacts are looked for that a Manifest names by name only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArtifactSources {
    /// Directory of files `<name>.mender`.
    pub directory: Option<PathBuf>,
    /// Address that `<name>.mender` is below.
    pub url: Option<String>,
    /// Address of the Mender server; none: the one that comes with the token.
    pub server_url: Option<String>,
    /// File with the token for the Mender server; none: the authentication service of the Mender client is asked.
    pub token_file: Option<PathBuf>,
}

/// Proxies on the way to servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    /// Address of the one for http.
    pub http: Option<String>,
    /// Address of the one for https.
    pub https: Option<String>,
    /// Hosts that are reached without one, with commas between them. Those of this machine are always among them.
    pub except: String,
}

/// All settings, valid and complete. Every path is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Public keys; an Artifact must be signed with one of them. Empty: signatures are not looked at.
    pub verify_keys: Vec<PathBuf>,
    /// How long one call of an Interface may take.
    pub interface_timeout: Duration,
    /// How long one query may take that belongs to no deployment, such as those of an inventory.
    pub query_timeout: Duration,
    /// How long the host may take to go down once a reboot was asked for.
    pub reboot_timeout: Duration,
    /// How many Interfaces may run at once; none is unlimited.
    pub max_parallel: Option<NonZeroUsize>,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Directory of installed Manifests.
    pub manifest_store: PathBuf,
    /// Directory of `topology.yaml`.
    pub topology_dir: PathBuf,
    /// File with the Components of a split Topology.
    pub topology_components: Option<PathBuf>,
    /// Directory with what was installed, among it the Interfaces.
    pub data_dir: PathBuf,
    /// Directory with what the daemon keeps.
    pub datastore_dir: PathBuf,
    /// Directory of the main configuration file.
    pub conf_dir: PathBuf,
    /// The cache of Artifacts.
    pub artifacts_cache: ArtifactsCache,
    /// Client certificate and key.
    pub https_client: HttpsClient,
    /// PEM file with the certificate of the server, beside those the system trusts.
    pub server_certificate: Option<PathBuf>,
    /// Where Artifacts are looked for by name.
    pub artifact_sources: ArtifactSources,
    /// How often a download is tried again without having got on.
    pub download_retries: u32,
    /// How long a server may keep a download waiting.
    pub download_timeout: Duration,
    /// Proxies on the way to servers.
    pub proxies: Proxies,
    /// What runs Interfaces.
    pub runner: RunnerChoice,
    /// Program and arguments that reboot the host; none: logind is asked.
    pub reboot_command: Option<Vec<String>>,
    /// Whether the figures of the host are recorded.
    pub host_history: bool,
    /// Unix socket of the container engine, Docker or Podman.
    pub engine_socket: PathBuf,
    /// Unix socket on which the figures of the host are served as `OpenMetrics` text.
    pub metrics_socket: Option<PathBuf>,
}

impl Settings {
    /// Directory of the Interfaces, for version 1 of their protocol.
    pub fn interfaces_dir(&self) -> PathBuf {
        self.data_dir.join("interfaces").join("v1")
    }

    /// The main Topology file.
    pub fn topology_file(&self) -> PathBuf {
        self.topology_dir.join("topology.yaml")
    }
}
