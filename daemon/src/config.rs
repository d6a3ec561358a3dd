//! The settings of the daemon, from two files and the environment.
//!
//! Names, defaults and precedence are those of Mender Orchestrator, whose files are taken as they are; `docs/configuration.md`
//! has them all. A file that is there but cannot be understood is an error, never a warning: it may hold the keys that
//! Artifacts are verified with.

mod file;
mod net;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use self::file::{File, Value, read_optional};
use crate::core::document::{DocumentError, Place, excerpt};
use crate::core::error::{Error, Kind};
pub use crate::core::settings::{
    ArtifactSources, ArtifactsCache, HttpsClient, LogLevel, Proxies, RunnerChoice, Settings,
};

/// Name of the configuration file in its two directories.
pub const FILE_NAME: &str = "mender-orchestrator.conf";
/// A path or other string may have this many bytes.
pub const STRING_LIMIT: usize = 4_096;
/// A list may have this many items.
pub const LIST_LIMIT: usize = 64;

/// A configuration that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is there, but cannot be read.
    #[error(transparent)]
    File(#[from] DocumentError),
    /// A file is not there because a symbolic link on the way leads nowhere, for example because its file system is not
    /// mounted. To go on without the file could be to go on without the keys in it.
    #[error("Cannot read \"{}\": \"{}\" is a symbolic link to something that does not exist.", file.display(), link.display())]
    DanglingLink {
        /// The file.
        file: PathBuf,
        /// The link.
        link: PathBuf,
    },
    /// A file is not JSON, or no JSON object.
    #[error("{file}:{}:{}: The JSON is malformed: {reason}.", place.line, place.column)]
    Json {
        /// The file.
        file: String,
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// The value of an option is wrong.
    #[error("{file}:{}:{}: \"{key}\" {reason}.", place.line, place.column)]
    Value {
        /// The file.
        file: String,
        /// Where the value stands.
        place: Place,
        /// The option, such as `ArtifactsCache.Path`.
        key: String,
        /// What is wrong; goes on after the key.
        reason: String,
    },
    /// Both options for keys are set.
    #[error(
        "{file}:{}:{}: \"ArtifactVerifyKey\" and \"ArtifactVerifyKeys\" (in {other}) are both set; only one of them may be.",
        place.line, place.column
    )]
    TwoKeyOptions {
        /// The file with `ArtifactVerifyKey`.
        file: String,
        /// Where `ArtifactVerifyKey` stands.
        place: Place,
        /// The file with `ArtifactVerifyKeys`.
        other: String,
    },
    /// An environment variable is wrong.
    #[error("The environment variable \"{variable}\" is \"{value}\"; expected an absolute path.")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// A variable that names a proxy is wrong. It may hold a password, so its value is not shown.
    #[error("The environment variable \"{variable}\" {reason}.")]
    Proxy {
        /// The variable.
        variable: &'static str,
        /// What is wrong; goes on after the variable.
        reason: String,
    },
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(Kind::InvalidConfiguration, error.to_string())
    }
}

impl FromStr for LogLevel {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        word_of(&Self::ALL.map(|level| (level.as_str(), level)), word)
            .map_err(|reason| Error::new(Kind::InvalidArgs, format!("The log level {reason}.")))
    }
}

const RUNNERS: [(&str, RunnerChoice); 3] =
    [("auto", RunnerChoice::Auto), ("systemd", RunnerChoice::Systemd), ("process", RunnerChoice::Process)];

/// Reads the environment.
type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Reads both files and the environment: settings and warnings. `environment` gives the value of a variable; an empty
    /// one counts as unset. Blocks on the disk.
    pub fn load(environment: Environment<'_>) -> Result<(Self, Vec<String>), ConfigError> {
        let directory = |variable, default: &str| {
            variable_path(environment, variable).map(|path| path.unwrap_or_else(|| PathBuf::from(default)))
        };
        let conf_dir = directory("MENDER_ORCHESTRATOR_CONF_DIR", "/etc/mender-orchestrator")?;
        let data_dir = directory("MENDER_ORCHESTRATOR_DATA_DIR", "/usr/share/mender-orchestrator")?;
        let datastore_dir = directory("MENDER_ORCHESTRATOR_DATASTORE_DIR", "/var/lib/mender-orchestrator")?;

        let main = read_optional(&conf_dir.join(FILE_NAME))?;
        let fallback = if conf_dir == datastore_dir { None } else { read_optional(&datastore_dir.join(FILE_NAME))? };
        let mut warnings = Vec::new();
        let mut files = Vec::new();
        for document in [&main, &fallback].into_iter().flatten() {
            files.push(File::parse(document, &mut warnings)?);
        }
        let options = Options { files: &files };
        let below = |variable, name: &str| -> Result<PathBuf, ConfigError> {
            Ok(variable_path(environment, variable)?.unwrap_or_else(|| datastore_dir.join(name)))
        };

        let settings = Self {
            verify_keys: options.verify_keys(&mut warnings)?,
            interface_timeout: options.seconds("InterfaceTimeoutSeconds", 365 * 24 * 3600, 4 * 3600)?,
            query_timeout: options.seconds("QueryTimeoutSeconds", 3600, 8)?,
            reboot_timeout: options.seconds("RebootTimeoutSeconds", 24 * 3600, 600)?,
            max_parallel: options.max_parallel()?,
            log_level: options.word("LogLevel", &LogLevel::ALL.map(|level| (level.as_str(), level)))?,
            manifest_store: match options.path("ManifestStore")? {
                Some(path) => path,
                None => below("MENDER_ORCHESTRATOR_MANIFEST_STORE_DIR", "manifests")?,
            },
            topology_dir: variable_path(environment, "MENDER_ORCHESTRATOR_TOPOLOGY_DIR")?
                .unwrap_or_else(|| datastore_dir.clone()),
            // Here the environment wins: it stands for an option of the command line.
            topology_components: match variable_path(environment, "MENDER_ORCHESTRATOR_TOPOLOGY_COMPONENTS_FILE")? {
                Some(path) => Some(path),
                None => options.path("TopologyComponents")?,
            },
            artifacts_cache: ArtifactsCache {
                enabled: options.get("ArtifactsCache.Enabled").map_or(Ok(false), |value| value.boolean())?,
                path: match options.path("ArtifactsCache.Path")? {
                    Some(path) => path,
                    None => below("MENDER_ORCHESTRATOR_ARTIFACTS_CACHE_DIR", "artifacts")?,
                },
                max_size: options
                    .get("ArtifactsCache.MaxSizeBytes")
                    .map_or(Ok(0), |value| value.integer(0..=u64::MAX))?,
                strict: options.get("ArtifactsCache.Strict").map_or(Ok(false), |value| value.boolean())?,
            },
            artifact_sources: options.artifact_sources(&mut warnings)?,
            download_retries: options.download_retries()?,
            download_timeout: options.seconds("DownloadTimeoutSeconds", 3600, 60)?,
            proxies: net::proxies(environment)?,
            https_client: options.https_client()?,
            server_certificate: options.path("ServerCertificate")?,
            runner: options.word("Runner", &RUNNERS)?,
            reboot_command: options.reboot_command()?,
            engine_socket: options.path("EngineSocket")?.unwrap_or_else(|| PathBuf::from("/run/docker.sock")),
            host_history: options.get("HostHistory").map_or(Ok(false), |value| value.boolean())?,
            metrics_socket: options.path("MetricsSocket")?,
            data_dir,
            datastore_dir,
            conf_dir,
        };
        Ok((settings, warnings))
    }
}

fn variable_path(environment: Environment<'_>, variable: &'static str) -> Result<Option<PathBuf>, ConfigError> {
    match environment(variable).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) if Path::new(&value).is_absolute() => Ok(Some(PathBuf::from(value))),
        Some(value) => Err(ConfigError::Environment { variable, value: excerpt(&value) }),
    }
}

/// The value that belongs to a word, or what to say about a word that is not among them.
fn word_of<T: Copy>(words: &[(&str, T)], word: &str) -> Result<T, String> {
    words.iter().find(|(candidate, _)| *candidate == word).map(|(_, value)| *value).ok_or_else(|| {
        let expected: Vec<String> = words.iter().map(|(candidate, _)| format!("\"{candidate}\"")).collect();
        format!("is \"{}\"; expected {}", excerpt(word), expected.join(", "))
    })
}

/// The options of all files: the first file that has one wins.
struct Options<'f> {
    files: &'f [File<'f>],
}

impl Options<'_> {
    fn get(&self, key: &str) -> Option<Value<'_>> {
        self.files.iter().find_map(|file| file.get(key))
    }

    fn path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.get(key).map(|value| value.path()).transpose()
    }

    fn seconds(&self, key: &str, most: u64, default: u64) -> Result<Duration, ConfigError> {
        let seconds = self.get(key).map_or(Ok(default), |value| value.integer(1..=most))?;
        Ok(Duration::from_secs(seconds))
    }

    fn word<T: Copy + Default>(&self, key: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let Some(value) = self.get(key) else { return Ok(T::default()) };
        word_of(words, &value.string()?).map_err(|reason| value.invalid(reason))
    }

    fn max_parallel(&self) -> Result<Option<NonZeroUsize>, ConfigError> {
        let number = self.get("MaxParallel").map_or(Ok(0), |value| value.integer(0..=1_000))?;
        Ok(usize::try_from(number).ok().and_then(NonZeroUsize::new))
    }

    /// The two options exclude each other. Between the files it is as in the Mender Client, which reads the fallback file
    /// first and then lets the main one change the result: a list in the main file replaces a single key of the fallback
    /// file, but a single key beside a list is an error.
    fn verify_keys(&self, warnings: &mut Vec<String>) -> Result<Vec<PathBuf>, ConfigError> {
        let (mut one, mut many) = (None, None);
        for file in self.files {
            let (single, list) = (file.get("ArtifactVerifyKey"), file.get("ArtifactVerifyKeys"));
            // From the main file down: `one` and `many` are set only by files that this one is the fallback of.
            if let (Some(single), Some(list)) = (single.as_ref().or(one.as_ref()), &list) {
                return Err(ConfigError::TwoKeyOptions {
                    file: single.file().to_owned(),
                    place: single.place(),
                    other: list.file().to_owned(),
                });
            }
            if let (Some(single), Some(list)) = (&single, &many) {
                let list: &Value<'_> = list;
                single.path()?;
                warnings.push(single.remark(&format!("is replaced by \"ArtifactVerifyKeys\" in {}.", list.file())));
                continue;
            }
            one = one.or(single);
            many = many.or(list);
        }
        match (one, many) {
            (_, Some(many)) => {
                let items = many.list()?;
                if items.is_empty() {
                    return Err(many.invalid("is an empty list; name a key, or remove it to verify no signatures"));
                }
                items.iter().map(Value::path).collect()
            }
            (Some(one), None) => Ok(vec![one.path()?]),
            (None, None) => Ok(Vec::new()),
        }
    }

    fn reboot_command(&self) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(value) = self.get("RebootCommand") else { return Ok(None) };
        let items = value.list()?;
        let Some(program) = items.first() else {
            return Err(value.invalid("is an empty list; name a program, or remove it to ask logind"));
        };
        program.path()?;
        items.iter().map(Value::string_or_empty).collect::<Result<_, _>>().map(Some)
    }
}
