use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;
use crate::core::document::{Document, WARNINGS_LIMIT};

/// A configuration directory and a datastore of their own, and an environment that leads there.
struct Host {
    directory: tempfile::TempDir,
    environment: BTreeMap<String, String>,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut host = Self { directory, environment: BTreeMap::new() };
        for (variable, name) in [("CONF", "etc"), ("DATA", "usr"), ("DATASTORE", "var")] {
            std::fs::create_dir(host.path(name)).unwrap();
            host.set(&format!("MENDER_ORCHESTRATOR_{variable}_DIR"), host.path(name).to_str().unwrap());
        }
        host
    }

    fn with(main: &str, fallback: &str) -> Self {
        let host = Self::new();
        if !main.is_empty() {
            std::fs::write(host.main(), main).unwrap();
        }
        if !fallback.is_empty() {
            std::fs::write(host.fallback(), fallback).unwrap();
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn main(&self) -> PathBuf {
        self.path("etc").join(FILE_NAME)
    }

    fn fallback(&self) -> PathBuf {
        self.path("var").join(FILE_NAME)
    }

    fn set(&mut self, variable: &str, value: &str) {
        self.environment.insert(variable.to_owned(), value.to_owned());
    }

    fn load(&self) -> Result<(Settings, Vec<String>), ConfigError> {
        Settings::load(&|variable| self.environment.get(variable).cloned())
    }

    fn settings(&self) -> Settings {
        let (settings, warnings) = self.load().unwrap();
        assert_eq!(warnings, [""; 0]);
        settings
    }

    /// A text with the real paths of both files replaced by `main` and `fallback`.
    fn shortened(&self, text: &str) -> String {
        let text = text.replace(self.main().to_str().unwrap(), "main");
        text.replace(self.fallback().to_str().unwrap(), "fallback")
    }

    fn refused(&self) -> String {
        let error = self.load().unwrap_err();
        let message = error.to_string();
        assert_eq!(Error::from(error), Error::new(Kind::InvalidConfiguration, message.clone()));
        self.shortened(&message)
    }
}

#[test]
fn without_files_and_environment_there_are_defaults() {
    // The real directories of a machine may hold files, so only these two lead elsewhere.
    let host = Host::new();
    let settings = host.settings();
    let datastore = host.path("var");
    assert_eq!(
        settings,
        Settings {
            verify_keys: Vec::new(),
            interface_timeout: Duration::from_hours(4),
            query_timeout: Duration::from_secs(8),
            reboot_timeout: Duration::from_mins(10),
            max_parallel: None,
            log_level: LogLevel::Info,
            manifest_store: datastore.join("manifests"),
            topology_dir: datastore.clone(),
            topology_components: None,
            data_dir: host.path("usr"),
            datastore_dir: datastore.clone(),
            conf_dir: host.path("etc"),
            artifacts_cache: ArtifactsCache {
                enabled: false,
                path: datastore.join("artifacts"),
                max_size: 0,
                strict: false,
            },
            https_client: HttpsClient::default(),
            server_certificate: None,
            artifact_sources: ArtifactSources::default(),
            download_retries: 10,
            download_timeout: Duration::from_mins(1),
            proxies: Proxies { except: "localhost,127.0.0.0/8,::1".to_owned(), ..Proxies::default() },
            runner: RunnerChoice::Auto,
            reboot_command: None,
            host_history: false,
            engine_socket: PathBuf::from("/run/docker.sock"),
            metrics_socket: None,
        }
    );
    assert_eq!(settings.interfaces_dir(), host.path("usr").join("interfaces/v1"));
    assert_eq!(settings.topology_file(), datastore.join("topology.yaml"));
}

#[test]
fn without_an_environment_the_directories_are_those_of_mender() {
    if Path::new("/etc/mender-orchestrator").exists() || Path::new("/var/lib/mender-orchestrator").exists() {
        eprintln!("skipped: this machine has a configuration of mender-orchestrator, which would be read");
        return;
    }
    let (settings, _) = Settings::load(&|_| None).unwrap();
    assert_eq!(settings.conf_dir, Path::new("/etc/mender-orchestrator"));
    assert_eq!(settings.data_dir, Path::new("/usr/share/mender-orchestrator"));
    assert_eq!(settings.datastore_dir, Path::new("/var/lib/mender-orchestrator"));
    assert_eq!(settings.topology_dir, Path::new("/var/lib/mender-orchestrator"));
    assert_eq!(settings.manifest_store, Path::new("/var/lib/mender-orchestrator/manifests"));
    assert_eq!(settings.artifacts_cache.path, Path::new("/var/lib/mender-orchestrator/artifacts"));
}

#[test]
fn every_option_is_read() {
    let host = Host::with(
        r#"{
            "ArtifactVerifyKeys": ["/keys/new.pem", "/keys/old.pem"],
            "ArtifactsCache": {"Enabled": true, "Path": "/cache", "MaxSizeBytes": 2147483648, "Strict": true},
            "ArtifactSources": {"Directory": "/media/usb", "Url": "https://h/a", "ServerUrl": "https://m", "TokenFile": "/t"},
            "RetryDownloadCount": 3,
            "DownloadTimeoutSeconds": 7,
            "HttpsClient": {"Certificate": "/certs/cert.pem", "Key": "/certs/key.pem"},
            "InterfaceTimeoutSeconds": 60,
            "LogLevel": "warning",
            "ManifestStore": "/manifests",
            "ServerCertificate": "/certs/server.pem",
            "TopologyComponents": "/etc/components.yaml",
            "Runner": "process",
            "RebootCommand": ["/sbin/reboot", "-f", ""],
            "RebootTimeoutSeconds": 30,
            "MaxParallel": 4,
            "QueryTimeoutSeconds": 5,
            "HostHistory": true,
            "EngineSocket": "/run/podman/podman.sock",
            "MetricsSocket": "/run/orchestrator/metrics"
        }"#,
        "",
    );
    let (settings, warnings) = host.load().unwrap();
    assert_eq!(settings.verify_keys, [Path::new("/keys/new.pem"), Path::new("/keys/old.pem")]);
    let cache = ArtifactsCache { enabled: true, path: PathBuf::from("/cache"), max_size: 2_147_483_648, strict: true };
    assert_eq!(settings.artifacts_cache, cache);
    let client =
        HttpsClient { certificate: Some(PathBuf::from("/certs/cert.pem")), key: Some(PathBuf::from("/certs/key.pem")) };
    assert_eq!(settings.https_client, client);
    assert_eq!(settings.interface_timeout, Duration::from_mins(1));
    assert_eq!(settings.log_level, LogLevel::Warning);
    assert_eq!(settings.manifest_store, Path::new("/manifests"));
    assert_eq!(settings.server_certificate.as_deref(), Some(Path::new("/certs/server.pem")));
    assert_eq!(settings.topology_components.as_deref(), Some(Path::new("/etc/components.yaml")));
    assert_eq!(settings.runner, RunnerChoice::Process);
    assert_eq!(settings.reboot_command, Some(vec!["/sbin/reboot".to_owned(), "-f".to_owned(), String::new()]));
    assert_eq!(settings.reboot_timeout, Duration::from_secs(30));
    assert_eq!(settings.max_parallel, NonZeroUsize::new(4));
    assert_eq!(settings.query_timeout, Duration::from_secs(5));
    let sources = ArtifactSources {
        directory: Some(PathBuf::from("/media/usb")),
        url: Some("https://h/a".to_owned()),
        server_url: Some("https://m".to_owned()),
        token_file: Some(PathBuf::from("/t")),
    };
    assert_eq!(settings.artifact_sources, sources);
    assert_eq!((settings.download_retries, settings.download_timeout), (3, Duration::from_secs(7)));
    assert!(settings.host_history);
    assert_eq!(settings.engine_socket, Path::new("/run/podman/podman.sock"));
    assert_eq!(settings.metrics_socket.as_deref(), Some(Path::new("/run/orchestrator/metrics")));
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn the_main_file_wins_option_by_option() {
    let host = Host::with(
        r#"{"LogLevel": "debug", "ArtifactsCache": {"MaxSizeBytes": 1}, "ArtifactVerifyKey": "/main.pem"}"#,
        r#"{"LogLevel": "error", "ArtifactsCache": {"MaxSizeBytes": 2, "Path": "/cache"}, "MaxParallel": 3,
            "ArtifactVerifyKey": "/fallback.pem"}"#,
    );
    let settings = host.settings();
    assert_eq!(settings.log_level, LogLevel::Debug);
    assert_eq!((settings.artifacts_cache.max_size, &*settings.artifacts_cache.path), (1, Path::new("/cache")));
    assert_eq!(settings.max_parallel, NonZeroUsize::new(3));
    assert_eq!(settings.verify_keys, [Path::new("/main.pem")]);
}

#[test]
fn the_environment_stands_behind_the_files_except_for_the_topology() {
    let file = r#"{"ManifestStore": "/file/manifests", "ArtifactsCache": {"Path": "/file/artifacts"},
                   "TopologyComponents": "/file/components.yaml"}"#;
    for (file, manifests, artifacts) in
        [(file, "/file/manifests", "/file/artifacts"), ("", "/environment/manifests", "/environment/artifacts")]
    {
        let mut host = Host::with(file, "");
        host.set("MENDER_ORCHESTRATOR_MANIFEST_STORE_DIR", "/environment/manifests");
        host.set("MENDER_ORCHESTRATOR_ARTIFACTS_CACHE_DIR", "/environment/artifacts");
        host.set("MENDER_ORCHESTRATOR_TOPOLOGY_DIR", "/environment/topology");
        host.set("MENDER_ORCHESTRATOR_TOPOLOGY_COMPONENTS_FILE", "/environment/components.yaml");
        let settings = host.settings();
        assert_eq!(settings.manifest_store, Path::new(manifests));
        assert_eq!(settings.artifacts_cache.path, Path::new(artifacts));
        assert_eq!(settings.topology_file(), Path::new("/environment/topology/topology.yaml"));
        assert_eq!(settings.topology_components.as_deref(), Some(Path::new("/environment/components.yaml")));
    }
    let mut host = Host::with(file, "");
    // An empty variable is none.
    host.set("MENDER_ORCHESTRATOR_TOPOLOGY_COMPONENTS_FILE", "");
    assert_eq!(host.settings().topology_components.as_deref(), Some(Path::new("/file/components.yaml")));
}

#[test]
fn paths_of_the_environment_are_absolute() {
    for variable in [
        "MENDER_ORCHESTRATOR_CONF_DIR",
        "MENDER_ORCHESTRATOR_DATA_DIR",
        "MENDER_ORCHESTRATOR_DATASTORE_DIR",
        "MENDER_ORCHESTRATOR_TOPOLOGY_DIR",
        "MENDER_ORCHESTRATOR_TOPOLOGY_COMPONENTS_FILE",
        "MENDER_ORCHESTRATOR_MANIFEST_STORE_DIR",
        "MENDER_ORCHESTRATOR_ARTIFACTS_CACHE_DIR",
    ] {
        let mut host = Host::new();
        host.set(variable, "some/where");
        assert_eq!(
            host.refused(),
            format!("The environment variable \"{variable}\" is \"some/where\"; expected an absolute path.")
        );
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table with one row for each rule")]
fn every_rule_has_its_message() {
    let long = format!("{{\"ManifestStore\": \"/{}\"}}", "x".repeat(4_096));
    let many = format!("{{\"ArtifactVerifyKeys\": [{}\"/k\"]}}", "\"/k\", ".repeat(64));
    for (file, expected) in [
        ("nonsense", "main:1:2: The JSON is malformed: expected ident."),
        (" ", "main:1:1: The JSON is malformed: EOF while parsing a value."),
        ("{\n  \"LogLevel\": \"info\",\n}\n", "main:3:1: The JSON is malformed: trailing comma."),
        ("{\"LogLevel\": \"info\"", "main:1:19: The JSON is malformed: EOF while parsing an object."),
        ("{} {}", "main:1:4: The JSON is malformed: trailing characters."),
        ("[]", "main:1:1: The JSON is malformed: invalid type: sequence, expected an object."),
        ("{\"LogLevel\": nothing}", "main:1:15: The JSON is malformed: expected ident."),
        (
            "{\"LogLevel\": \"info\",\n \"LogLevel\": \"debug\"}",
            "main:2:2: \"LogLevel\" stands here for the second time.",
        ),
        (
            "{\"ArtifactsCache\": {},\n \"ArtifactsCache\": {}}",
            "main:2:2: \"ArtifactsCache\" stands here for the second time.",
        ),
        (
            "{\"HttpsClient\": {\"Key\": \"/a\", \"Key\": \"/b\"}}",
            "main:1:31: \"HttpsClient.Key\" stands here for the second time.",
        ),
        ("{\"ArtifactsCache\": true}", "main:1:20: \"ArtifactsCache\" must be an object, but it is a boolean."),
        ("{\"HttpsClient\": \"x\"}", "main:1:17: \"HttpsClient\" must be an object, but it is a string."),
        (
            "{\"ArtifactsCache\": {\"Enabled\": 1}}",
            "main:1:32: \"ArtifactsCache.Enabled\" must be a boolean, but it is a number.",
        ),
        (
            "{\"ArtifactsCache\": {\"Enabled\": \"true\"}}",
            "main:1:32: \"ArtifactsCache.Enabled\" must be a boolean, but it is a string.",
        ),
        (
            "{\"ArtifactsCache\": {\"Path\": \"cache\"}}",
            "main:1:29: \"ArtifactsCache.Path\" must be an absolute path, but it is \"cache\".",
        ),
        (
            "{\"ArtifactsCache\": {\"MaxSizeBytes\": -1}}",
            "main:1:37: \"ArtifactsCache.MaxSizeBytes\" must be an integer from 0 to 18446744073709551615, but it is -1.",
        ),
        (
            "{\n  \"InterfaceTimeoutSeconds\": \"60\"\n}",
            "main:2:30: \"InterfaceTimeoutSeconds\" must be an integer, but it is a string.",
        ),
        (
            "{\"InterfaceTimeoutSeconds\": 0}",
            "main:1:29: \"InterfaceTimeoutSeconds\" must be an integer from 1 to 31536000, but it is 0.",
        ),
        (
            "{\"InterfaceTimeoutSeconds\": 31536001}",
            "main:1:29: \"InterfaceTimeoutSeconds\" must be an integer from 1 to 31536000, but it is 31536001.",
        ),
        (
            "{\"InterfaceTimeoutSeconds\": 1.5}",
            "main:1:29: \"InterfaceTimeoutSeconds\" must be an integer from 1 to 31536000, but it is 1.5.",
        ),
        (
            "{\"QueryTimeoutSeconds\": 3601}",
            "main:1:25: \"QueryTimeoutSeconds\" must be an integer from 1 to 3600, but it is 3601.",
        ),
        (
            "{\"RebootTimeoutSeconds\": 86401}",
            "main:1:26: \"RebootTimeoutSeconds\" must be an integer from 1 to 86400, but it is 86401.",
        ),
        ("{\"MaxParallel\": 1001}", "main:1:17: \"MaxParallel\" must be an integer from 0 to 1000, but it is 1001."),
        ("{\"MaxParallel\": null}", "main:1:17: \"MaxParallel\" must be an integer, but it is null."),
        (
            "{\"LogLevel\": \"Info\"}",
            "main:1:14: \"LogLevel\" is \"Info\"; expected \"trace\", \"debug\", \"info\", \"warning\", \"error\", \"fatal\".",
        ),
        ("{\"LogLevel\": 3}", "main:1:14: \"LogLevel\" must be a string, but it is a number."),
        (
            "{\"Runner\": \"docker\"}",
            "main:1:12: \"Runner\" is \"docker\"; expected \"auto\", \"systemd\", \"process\".",
        ),
        ("{\"ManifestStore\": \"\"}", "main:1:19: \"ManifestStore\" is empty; remove it to have the default."),
        (
            "{\"ManifestStore\": \"store\"}",
            "main:1:19: \"ManifestStore\" must be an absolute path, but it is \"store\".",
        ),
        ("{\"ManifestStore\": \"/a\\u0000\"}", "main:1:19: \"ManifestStore\" contains a NUL character."),
        (&long, "main:1:19: \"ManifestStore\" is longer than 4096 bytes."),
        (
            "{\"TopologyComponents\": \"./c.yaml\"}",
            "main:1:24: \"TopologyComponents\" must be an absolute path, but it is \"./c.yaml\".",
        ),
        (
            "{\"ServerCertificate\": \"server.pem\"}",
            "main:1:23: \"ServerCertificate\" must be an absolute path, but it is \"server.pem\".",
        ),
        (
            "{\"ArtifactVerifyKey\": \"key.pem\"}",
            "main:1:23: \"ArtifactVerifyKey\" must be an absolute path, but it is \"key.pem\".",
        ),
        ("{\"ArtifactVerifyKey\": \"\"}", "main:1:23: \"ArtifactVerifyKey\" is empty; remove it to have the default."),
        ("{\"ArtifactVerifyKey\": [\"/k\"]}", "main:1:23: \"ArtifactVerifyKey\" must be a string, but it is a list."),
        (
            "{\"ArtifactVerifyKeys\": \"/k\"}",
            "main:1:24: \"ArtifactVerifyKeys\" must be a list of strings, but it is a string.",
        ),
        (
            "{\"ArtifactVerifyKeys\": [\"/k\",\n \"k\"]}",
            "main:2:2: \"ArtifactVerifyKeys[1]\" must be an absolute path, but it is \"k\".",
        ),
        ("{\"ArtifactVerifyKeys\": [1]}", "main:1:25: \"ArtifactVerifyKeys[0]\" must be a string, but it is a number."),
        (
            "{\"ArtifactVerifyKeys\": []}",
            "main:1:24: \"ArtifactVerifyKeys\" is an empty list; name a key, or remove it to verify no signatures.",
        ),
        (&many, "main:1:24: \"ArtifactVerifyKeys\" has 65 items; at most 64 are allowed."),
        (
            "{\"HttpsClient\": {\"Key\": \"key.pem\"}}",
            "main:1:25: \"HttpsClient.Key\" must be an absolute path, but it is \"key.pem\".",
        ),
        (
            "{\"HttpsClient\": {\"Certificate\": \"/c\", \"Key\": \"pkcs11:object=k\"}}",
            "main:1:46: \"HttpsClient.Key\" is a PKCS#11 URI; keys in security modules are not supported, only PEM files.",
        ),
        (
            "{\"HttpsClient\": {\"SSLEngine\": \"pkcs11\"}}",
            "main:1:31: \"HttpsClient.SSLEngine\" names an engine of OpenSSL; TLS here is not that of OpenSSL, and keys in \
             security modules are not supported. Remove it, and give a PEM file in \"HttpsClient.Key\".",
        ),
        (
            "{\"ArtifactSources\": {\"Directory\": \"usb\"}}",
            "main:1:35: \"ArtifactSources.Directory\" must be an absolute path, but it is \"usb\".",
        ),
        (
            "{\"ArtifactSources\": {\"Url\": \"ftp://h/a\"}}",
            "main:1:29: \"ArtifactSources.Url\" must be an address such as https://server.example.com/artifacts.",
        ),
        (
            "{\"ArtifactSources\": {\"Url\": \"https://u:p@h/a\"}}",
            "main:1:29: \"ArtifactSources.Url\" must not hold a user name or password.",
        ),
        (
            "{\"ArtifactSources\": {\"Url\": \"https://h/a?b=c\"}}",
            "main:1:29: \"ArtifactSources.Url\" must not have a query (?...) or fragment (#...).",
        ),
        (
            "{\"ArtifactSources\": {\"TokenFile\": \"/t\"}}",
            "main:1:35: \"ArtifactSources.TokenFile\" is of no use without \"ArtifactSources.ServerUrl\".",
        ),
        (
            "{\"RetryDownloadCount\": 0}",
            "main:1:24: \"RetryDownloadCount\" must be an integer from 1 to 10000, but it is 0.",
        ),
        (
            "{\"DownloadTimeoutSeconds\": 0}",
            "main:1:28: \"DownloadTimeoutSeconds\" must be an integer from 1 to 3600, but it is 0.",
        ),
        (
            "{\"HttpsClient\": {\"Key\": \"/key.pem\"}}",
            "main:1:25: \"HttpsClient.Key\" is of no use without \"HttpsClient.Certificate\".",
        ),
        (
            "{\"HttpsClient\": {\"Certificate\": \"/cert.pem\"}}",
            "main:1:33: \"HttpsClient.Certificate\" is of no use without \"HttpsClient.Key\".",
        ),
        (
            "{\"HttpsClient\": {\"SSLEngine\": {}}}",
            "main:1:31: \"HttpsClient.SSLEngine\" must be a string, but it is an object.",
        ),
        (
            "{\"RebootCommand\": \"/sbin/reboot\"}",
            "main:1:19: \"RebootCommand\" must be a list of strings, but it is a string.",
        ),
        (
            "{\"RebootCommand\": []}",
            "main:1:19: \"RebootCommand\" is an empty list; name a program, or remove it to ask logind.",
        ),
        (
            "{\"RebootCommand\": [\"reboot\"]}",
            "main:1:20: \"RebootCommand[0]\" must be an absolute path, but it is \"reboot\".",
        ),
        (
            "{\"RebootCommand\": [\"/sbin/reboot\", true]}",
            "main:1:36: \"RebootCommand[1]\" must be a string, but it is a boolean.",
        ),
    ] {
        assert_eq!(Host::with(file, "").refused(), expected, "{file}");
        // A defect in the fallback file is told just the same.
        assert_eq!(Host::with("", file).refused(), expected.replacen("main", "fallback", 1), "{file}");
    }
}

#[test]
fn an_unparsable_fallback_file_is_an_error_although_the_main_file_has_everything() {
    let host = Host::with("{\"ArtifactVerifyKey\": \"/k\"}", "{");
    assert_eq!(host.refused(), "fallback:1:1: The JSON is malformed: EOF while parsing an object.");
}

#[test]
fn one_key_option_excludes_the_other() {
    let (one, many) = (r#"{"ArtifactVerifyKey": "/one"}"#, r#"{"ArtifactVerifyKeys": ["/a", "/b"]}"#);
    let both = r#"{"ArtifactVerifyKey": "/one", "ArtifactVerifyKeys": ["/a", "/b"]}"#;
    let refusal = |file: &str, other: &str| {
        format!(
            "{file}:1:23: \"ArtifactVerifyKey\" and \"ArtifactVerifyKeys\" (in {other}) are both set; only one of them \
             may be."
        )
    };
    assert_eq!(Host::with(both, "").refused(), refusal("main", "main"));
    assert_eq!(Host::with("", both).refused(), refusal("fallback", "fallback"));
    assert_eq!(Host::with(many, both).refused(), refusal("fallback", "fallback"));
    assert_eq!(Host::with(one, many).refused(), refusal("main", "fallback"));

    let host = Host::with(many, one);
    let (settings, warnings) = host.load().unwrap();
    assert_eq!(settings.verify_keys, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(
        host.shortened(&warnings.join("\n")),
        "fallback:1:23: \"ArtifactVerifyKey\" is replaced by \"ArtifactVerifyKeys\" in main."
    );
    assert_eq!(
        Host::with(many, r#"{"ArtifactVerifyKey": 1}"#).refused(),
        "fallback:1:23: \"ArtifactVerifyKey\" must be a string, but it is a number."
    );
}

#[test]
fn unknown_options_are_warnings_and_not_without_end() {
    let host = Host::with(
        "{\"logLevel\": \"debug\",\n \"ArtifactsCache\": {\"Size\": 1}, \"ArtifactsCache.Enabled\": true}",
        "{\"\\u0041\\n\": {}}",
    );
    let (settings, warnings) = host.load().unwrap();
    assert_eq!((settings.log_level, settings.artifacts_cache.enabled), (LogLevel::Info, false));
    let warnings: Vec<String> = warnings.iter().map(|warning| host.shortened(warning)).collect();
    assert_eq!(
        warnings,
        [
            "main:1:2: \"logLevel\" is not a known option and is ignored.",
            "main:2:21: \"ArtifactsCache.Size\" is not a known option and is ignored.",
            "main:2:33: \"ArtifactsCache.Enabled\" is not a known option and is ignored.",
            "fallback:1:2: \"A\\n\" is not a known option and is ignored.",
        ]
    );

    let many: Vec<String> = (0..60).map(|index| format!("\"k{index}\": 0")).collect();
    let (_, warnings) = Host::with(&format!("{{{}}}", many.join(",")), "").load().unwrap();
    assert_eq!(warnings.len(), WARNINGS_LIMIT + 1);
    assert!(warnings.last().unwrap().ends_with("There are 10 more unknown options."));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let host = Host::new();
    std::fs::create_dir(host.main()).unwrap();
    assert_eq!(host.refused(), "\"main\" is not a regular file.");
    let host = Host::with(&" ".repeat(256 * 1024 + 1), "");
    assert_eq!(host.refused(), "\"main\" is larger than 262144 bytes.");
}

#[test]
fn a_link_that_leads_nowhere_does_not_count_as_absent() {
    let host = Host::new();
    symlink("/nonexistent/key.conf", host.main()).unwrap();
    assert_eq!(host.refused(), "Cannot read \"main\": \"main\" is a symbolic link to something that does not exist.");

    // The datastore of Mender is a link to the data partition, which may not be mounted.
    let mut host = Host::new();
    let link = host.path("datastore");
    symlink(host.path("data"), &link).unwrap();
    host.set("MENDER_ORCHESTRATOR_DATASTORE_DIR", link.to_str().unwrap());
    let file = link.join(FILE_NAME);
    assert_eq!(
        host.refused(),
        format!(
            "Cannot read \"{}\": \"{}\" is a symbolic link to something that does not exist.",
            file.display(),
            link.display()
        )
    );
    std::fs::create_dir(host.path("data")).unwrap();
    assert_eq!(host.settings().datastore_dir, link);
}

#[test]
fn one_directory_for_both_files_is_read_once() {
    let mut host = Host::with("{\"surprise\": 1}", "");
    let conf = host.path("etc");
    host.set("MENDER_ORCHESTRATOR_DATASTORE_DIR", conf.to_str().unwrap());
    let (_, warnings) = host.load().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn log_levels_are_words_of_the_command_line_too() {
    for level in LogLevel::ALL {
        assert_eq!(level.as_str().parse(), Ok(level));
    }
    assert_eq!(LogLevel::Fatal.level(), tracing::Level::ERROR);
    assert_eq!(LogLevel::Trace.level(), tracing::Level::TRACE);
    let error = "verbose".parse::<LogLevel>().unwrap_err();
    assert_eq!(error.kind, Kind::InvalidArgs);
    assert_eq!(
        error.message,
        "The log level is \"verbose\"; expected \"trace\", \"debug\", \"info\", \"warning\", \"error\", \"fatal\"."
    );
}

#[test]
fn proxies_come_from_the_environment() {
    let mut host = Host::new();
    host.set("https_proxy", "proxy:3128");
    host.set("HTTP_PROXY", "http://u:secret@proxy");
    host.set("http_proxy", "http://u:secret@proxy");
    host.set("NO_PROXY", ".a.example b.example,c");
    let proxies = host.settings().proxies;
    assert_eq!(proxies.https.as_deref(), Some("http://proxy:3128"));
    assert_eq!(proxies.http.as_deref(), Some("http://u:secret@proxy"));
    assert_eq!(proxies.except, ".a.example,b.example,c,localhost,127.0.0.0/8,::1");

    host.set("http_proxy", "http://other");
    let different = "The environment variable \"HTTP_PROXY\" and \"http_proxy\" are set, to different values.";
    assert_eq!(host.refused(), different);
    host.set("http_proxy", "");
    host.set("HTTP_PROXY", "socks5://u:secret@proxy");
    let kind =
        "The environment variable \"HTTP_PROXY\" is no address of a proxy, such as http://proxy.example.com:3128.";
    assert_eq!(host.refused(), kind);
}

#[test]
fn a_token_that_everybody_can_read_is_a_warning() {
    let text = |url: &str| format!("{{\"ArtifactSources\": {{\"ServerUrl\": \"{url}\"}}}}");
    let host = Host::with(&text("http://mender.example.com"), "");
    let (_, warnings) = host.load().unwrap();
    assert_eq!(
        host.shortened(&warnings.join("")),
        "main:1:35: \"ArtifactSources.ServerUrl\" is not https: everybody on the way can read the device's token."
    );
    for url in ["http://127.0.0.1:8080", "https://mender.example.com"] {
        assert_eq!(Host::with(&text(url), "").load().unwrap().1, [""; 0], "{url}");
    }
}

/// The manual must name what the code reads, and nothing else.
#[test]
fn the_manual_has_every_option_and_the_example_is_valid() {
    let manual = include_str!("../../../docs/configuration.md");
    for key in file::KEYS {
        assert!(manual.contains(&format!("`{key}`")), "\"{key}\" is missing in docs/configuration.md");
    }
    let example = manual.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (settings, warnings) = Host::with(example, "").load().unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(settings.verify_keys.len(), 2);
    let mut unknown = Vec::new();
    let document = Document::new("example", example);
    let file = File::parse(&document, &mut unknown).unwrap();
    for key in file::KEYS {
        let shown = file.get(key).is_some() || ["ArtifactVerifyKey", "HttpsClient.SSLEngine"].contains(&key);
        assert!(shown, "\"{key}\" is missing in the example of docs/configuration.md");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_the_loader_panic(
        text in prop_oneof![
            any::<String>(),
            r#"\{"(LogLevel|ArtifactVerifyKeys?|ArtifactsCache|RebootCommand|MaxParallel)": ?[\[\]{}",:0-9a-z/\\]{0,20}\}?"#,
        ],
    ) {
        let document = Document::new("f", text);
        if let Ok(file) = File::parse(&document, &mut Vec::new()) {
            let files = [file];
            let options = Options { files: &files };
            let results = [
                options.verify_keys(&mut Vec::new()).err(),
                options.reboot_command().err(),
                options.max_parallel().err(),
                options.https_client().err(),
            ];
            for error in results.into_iter().flatten() {
                prop_assert!(error.to_string().starts_with("f:"), "{error}");
            }
        }
    }
}
