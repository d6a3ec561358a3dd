//! A Component with a script for its Interface, for tests.

use std::fs::{self, Permissions};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::pass::{self, Seat};
use super::{ArtifactInput, DownloadRequest, Interface, InterfaceError, LogSink, Tree, TreeContext};
use crate::core::error::Error;
use crate::update::artifact::{self, ArtifactSpec, Header, VerifyKeys};
use crate::update::component::ComponentKey;
use crate::update::runner::TAG_VARIABLE;
use crate::update::runner::process::ProcessRunner;

pub(super) const LONG: Duration = Duration::from_mins(1);

pub(super) struct Bench {
    directory: TempDir,
    pub(super) interface: Interface,
    pub(super) tag: String,
    pub(super) cancel: CancellationToken,
    pub(super) keys: VerifyKeys,
    pub(super) log: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    /// With the Interface "gw", whose script has this body, and the Component "gateway.R:1".
    pub(super) fn new(body: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let name = directory.path().file_name().unwrap().to_str().unwrap().replace(|c: char| !c.is_alphanumeric(), "");
        let interfaces = directory.path().join("interfaces/v1");
        fs::create_dir_all(&interfaces).unwrap();
        let program = interfaces.join("gw");
        write_script(&program, body);
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&log);
        let component = ComponentKey { component_type: "gateway".into(), id: "R:1".into() };
        let root = Tree::path(&directory.path().join("store"), &component);
        let interface = Interface {
            name: "gw".into(),
            program,
            component,
            arguments: vec![directory.path().to_str().unwrap().to_owned()],
            root,
            runner: Arc::new(ProcessRunner::with_grace(LONG)),
            timeout: LONG,
            patience: LONG,
            log: LogSink::new(move |line| sink.lock().unwrap().push(format!("{}: {}", line.component, line.message))),
        };
        Self {
            directory,
            interface,
            tag: format!("bench-{}-{name}", std::process::id()),
            cancel: CancellationToken::new(),
            keys: VerifyKeys::default(),
            log,
        }
    }

    /// A path outside the tree; scripts know the directory as `$4`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| format!("{name}: {error}"))
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Lines the script wrote into `$4/calls`.
    pub(super) fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub(super) fn in_tree(&self, name: &str) -> PathBuf {
        self.interface.root.join(name)
    }

    /// Waits until the script has made this file.
    pub(super) async fn wait_for(&self, name: &str) {
        while !self.path(name).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An Artifact with these files, not compressed.
    pub(super) fn artifact(&self, files: &[(&str, &[u8])]) -> Vec<u8> {
        let payload = self.path("payload");
        fs::create_dir_all(&payload).unwrap();
        let files = files
            .iter()
            .map(|(name, content)| {
                fs::write(payload.join(name), content).unwrap();
                payload.join(name)
            })
            .collect();
        let spec = ArtifactSpec {
            group: Some("stable".into()),
            compression: artifact::Compression::None,
            meta_data: Some(br#"{"slot": "b"}"#.to_vec()),
            ..ArtifactSpec::module_image("gateway-v2", vec!["gateway".into()], "gw", files)
        };
        let path = self.path("made.mender");
        artifact::write(&spec, None, &path).unwrap();
        fs::read(path).unwrap()
    }

    pub(super) fn request(&self, input: impl Read + Send + 'static, size: Option<u64>) -> DownloadRequest {
        Self::request_of(self.seat(input, size))
    }

    /// Takes what comes to this place.
    pub(super) fn request_of(seat: Seat) -> DownloadRequest {
        DownloadRequest { artifact: seat, check: Box::new(|_| Ok(())), context: context(), progress: Arc::new(drop) }
    }

    /// The only place in a reading of this.
    fn seat(&self, input: impl Read + Send + 'static, size: Option<u64>) -> Seat {
        let input = Mutex::new(Some(Box::new(Input { input, size })));
        let open = move |_: &CancellationToken| -> Result<Box<dyn ArtifactInput>, Error> {
            Ok(input.lock().unwrap().take().unwrap())
        };
        pass::seats(Arc::new(open), self.keys.clone(), 1).remove(0)
    }

    pub(super) async fn make(&self, request: DownloadRequest) -> Result<(), InterfaceError> {
        let result = self.interface.download(request, &self.tag, &self.cancel).await;
        // Whatever happened: nothing is left but what belongs into a tree at rest.
        assert!(!self.in_tree("stream-next").exists());
        assert!(!self.in_tree("streams").exists());
        assert!(!self.in_tree("files.partial").exists());
        assert!(result.is_ok() || !self.in_tree("files").exists());
        assert_eq!(self.running(), Vec::<String>::new());
        result
    }

    pub(super) async fn download(&self, artifact: &[u8]) -> Result<(), InterfaceError> {
        let size = u64::try_from(artifact.len()).unwrap();
        self.make(self.request(Cursor::new(artifact.to_vec()), Some(size))).await
    }

    /// The message of a download that fails, with `PROGRAM` and `ROOT` for the paths.
    pub(super) async fn failure(&self, artifact: &[u8]) -> String {
        let error = self.download(artifact).await.unwrap_err();
        self.plain(&error)
    }

    pub(super) fn plain(&self, error: &InterfaceError) -> String {
        error
            .to_string()
            .replace(self.interface.program.to_str().unwrap(), "PROGRAM")
            .replace(self.interface.root.to_str().unwrap(), "ROOT")
    }

    /// Command lines of the processes that carry a tag of this bench.
    fn running(&self) -> Vec<String> {
        let mark = format!("{TAG_VARIABLE}={}", self.tag);
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| {
                let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
                environment.split(|&byte| byte == 0).any(|entry| entry.starts_with(mark.as_bytes()))
            })
            .map(|entry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default())
            .collect()
    }
}

pub(super) fn write_script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\nset -e\n{body}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

pub(super) fn context() -> TreeContext {
    TreeContext { artifact_name: Some("gateway-v1".into()), artifact_group: None, component_type: "gateway".into() }
}

pub(super) fn header_of(artifact: &[u8]) -> Header {
    artifact::open(artifact, &VerifyKeys::default()).unwrap().into_header()
}

struct Input<R> {
    input: R,
    size: Option<u64>,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl<R: Read + Send> ArtifactInput for Input<R> {
    fn size(&self) -> Option<u64> {
        self.size
    }
}
