//! Docker, or Podman as it speaks Docker's language, on a Unix socket.

mod body;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::errors::Error as Fault;
use bollard::exec::{ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum, ProgressDetail};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, EventsOptions, ImportImageOptions, LogsOptions, RemoveContainerOptions,
    RemoveVolumeOptions, StopContainerOptions,
};
use bollard::{ClientVersion, Docker, body_try_stream};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};

use super::{
    Answer, Attached, Condition, Container, Engine, EngineError, Errand, Exit, Fate, GENERATION_LABEL, Happening,
    Piece, Plan, Progress, ROLE_LABEL, Role, Size, VPLC_LABEL, Version, Wellness, volume,
};
use crate::core::document::{excerpt, reason};
use crate::vplc::serial::DIRECTORY;
use crate::vplc::store::Pinned;

/// How long the engine may think about a request that is no long work.
const LIMIT: Duration = Duration::from_mins(2);
/// The newest API that this is written for; the engine may know an older one. Docker 20.10 and Podman 4 know 1.41.
const API: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };
/// What of the life of a container is told. Its health checks would be told one by one, too. Podman says "died" and "remove".
const EVENTS: [&str; 7] = ["start", "die", "died", "oom", "destroy", "remove", "health_status"];
/// Bytes of an archive that are read at once.
const BLOCK: usize = 1 << 16;
/// Lines of output that are read at most.
const LINES_LIMIT: usize = 10_000;
/// Bytes of one of them.
const LINE_LIMIT: usize = 4096;

/// An engine behind a socket.
#[derive(Debug)]
pub struct DockerEngine {
    socket: PathBuf,
    client: Mutex<Option<Docker>>,
    /// It said that it is Podman.
    podman: AtomicBool,
}

impl DockerEngine {
    /// The engine behind this socket; nobody asks it anything yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), client: Mutex::new(None), podman: AtomicBool::new(false) }
    }

    fn client(&self) -> Result<Docker, EngineError> {
        let mut client = self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(docker) = &*client {
            return Ok(docker.clone());
        }
        let socket = self.socket.to_string_lossy();
        // Each request has a connection of its own, so this one client outlives restarts of the engine.
        let docker = Docker::connect_with_unix(&socket, LIMIT.as_secs(), &API)
            .map_err(|_| self.unreachable("there is no such socket".to_owned()))?;
        Ok(client.insert(docker).clone())
    }

    fn unreachable(&self, reason: String) -> EngineError {
        EngineError::Unreachable { socket: self.socket.display().to_string(), reason }
    }

    /// What a fault of a request means.
    fn fault(&self, what: impl Into<String>, fault: Fault) -> EngineError {
        let what = what.into();
        match fault {
            Fault::RequestTimeoutError => EngineError::Slow { what },
            Fault::DockerResponseServerError { message, .. } | Fault::DockerStreamError { error: message } => {
                EngineError::Refused { what, reason: sentence(&message) }
            }
            Fault::SocketNotFoundError(_) => self.unreachable("there is no such socket".to_owned()),
            Fault::IOError { err } => self.unreachable(reason(&err)),
            Fault::HyperLegacyError { err } => {
                let source = std::error::Error::source(&err).map_or_else(|| err.to_string(), ToString::to_string);
                self.unreachable(sentence(&source))
            }
            Fault::HyperResponseError { err } => self.unreachable(sentence(&err.to_string())),
            other => EngineError::Refused { what, reason: sentence(&other.to_string()) },
        }
    }

    /// The container, if it is ours; an error if somebody else has its name.
    async fn inspect(&self, vplc: &str, role: Role) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let name = role.container(vplc);
        match self.client()?.inspect_container(&name, None).await {
            Ok(found) => {
                let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
                let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
                if label(VPLC_LABEL) == Some(vplc) && label(ROLE_LABEL) == Some(role.as_str()) {
                    return Ok(Some(found));
                }
                Err(EngineError::NameTaken { what: "container", name })
            }
            Err(Fault::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(fault) => Err(self.fault(format!("look at the container \"{name}\""), fault)),
        }
    }

    /// The id of a container of ours. What is done by it is not done to another container that got the name meanwhile.
    async fn id(&self, vplc: &str, role: Role) -> Result<Option<String>, EngineError> {
        Ok(self.inspect(vplc, role).await?.and_then(|found| found.id))
    }

    /// Whether the volume is there and ours.
    async fn owns_volume(&self, vplc: &str) -> Result<bool, EngineError> {
        let name = volume(vplc);
        match self.client()?.inspect_volume(&name).await {
            Ok(found) if found.labels.get(VPLC_LABEL).is_some_and(|label| label == vplc) => Ok(true),
            Ok(_) => Err(EngineError::NameTaken { what: "volume", name }),
            Err(Fault::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(fault) => Err(self.fault(format!("look at the volume \"{name}\""), fault)),
        }
    }

    async fn make(&self, plan: &Plan) -> Result<(), EngineError> {
        let name = plan.role.container(&plan.vplc);
        if self.id(&plan.vplc, plan.role).await?.is_some() {
            return Ok(());
        }
        let what = || format!("create the container \"{name}\"");
        let refused = |reason: &str| EngineError::Refused { what: what(), reason: reason.to_owned() };
        let (network, ports) = match plan.role {
            Role::Holder => ("none".to_owned(), None),
            Role::Runtime => {
                let holder = self.inspect(&plan.vplc, Role::Holder).await?;
                let holder = holder.ok_or_else(|| refused("the holder of its network is not there"))?;
                let mounts = holder.mounts.unwrap_or_default();
                let ports = mounts.into_iter().find(|mount| mount.destination.as_deref() == Some(DIRECTORY));
                (format!("container:{}", holder.id.unwrap_or_default()), ports.and_then(|mount| mount.name))
            }
        };
        if plan.ports.is_some() && plan.role == Role::Runtime && ports.is_none() {
            return Err(refused("its holder has no directory for serial ports"));
        }
        if plan.volume.is_some() && !self.owns_volume(&plan.vplc).await? {
            let made = self.client()?.create_volume(body::volume(&plan.vplc)).await;
            made.map_err(|fault| self.fault(format!("create the volume \"{}\"", volume(&plan.vplc)), fault))?;
        }
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        match self.client()?.create_container(Some(options), body::container(plan, network, ports)).await {
            Ok(made) => {
                for warning in made.warnings.iter().filter(|warning| !warning.is_empty()) {
                    tracing::warn!(vplc = plan.vplc, "The container engine warns: {}", excerpt(warning));
                }
                Ok(())
            }
            Err(Fault::DockerResponseServerError { status_code: 404, message }) => {
                Err(EngineError::NoImage { image: plan.image.clone(), reason: sentence(&message) })
            }
            Err(Fault::DockerResponseServerError { status_code: 409, .. }) => {
                Err(EngineError::NameTaken { what: "container", name })
            }
            Err(fault) => Err(self.fault(what(), fault)),
        }
    }
}

impl Engine for DockerEngine {
    fn version(&self) -> Answer<'_, Version> {
        async {
            let version = self.client()?.version().await.map_err(|fault| self.fault("say who it is", fault))?;
            let components = version.components.unwrap_or_default();
            let podman = components.iter().find(|component| component.name.contains("Podman"));
            self.podman.store(podman.is_some(), Ordering::Relaxed);
            let name = if podman.is_some() { "podman" } else { "docker" };
            let number = podman.map(|component| component.version.clone()).or(version.version).unwrap_or_default();
            Ok(Version { name: name.to_owned(), version: excerpt(&number) })
        }
        .boxed()
    }

    fn happenings(&self) -> BoxStream<'static, Happening> {
        let Ok(client) = self.client() else { return stream::empty().boxed() };
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut filters =
            HashMap::from([("type".to_owned(), words(&["container"])), ("event".to_owned(), words(&EVENTS))]);
        // Podman 4 knows no label without its value, and would say nothing at all.
        if !self.podman.load(Ordering::Relaxed) {
            filters.insert("label".to_owned(), words(&[VPLC_LABEL]));
        }
        // The stream is asked for when it is read for the first time; what happens until then is handed in later.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let options = EventsOptions { filters: Some(filters), since: Some(now.to_string()), until: None };
        let events = client.events(Some(options));
        events
            .take_while(|event| std::future::ready(event.is_ok()))
            .filter_map(|event| async {
                let attributes = event.ok()?.actor?.attributes?;
                Some(Happening { vplc: attributes.get(VPLC_LABEL)?.clone() })
            })
            .boxed()
    }

    fn find<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, Option<Container>> {
        async move { Ok(self.inspect(vplc, role).await?.map(container)) }.boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Pinned>> {
        async move {
            match self.client()?.inspect_image(reference).await {
                Ok(image) => {
                    let digests = image.repo_digests.unwrap_or_default();
                    // With the name it was asked for, if it came under several.
                    let wanted = reference.split(['@']).next().unwrap_or_default();
                    let repository =
                        wanted.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(wanted, |(name, _)| name);
                    let digest = digests.iter().find(|digest| digest.split('@').next() == Some(repository));
                    let digest = digest.or(digests.first()).cloned().unwrap_or_default();
                    Ok(image.id.map(|id| Pinned { id, digest }))
                }
                Err(Fault::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
                Err(fault) => Err(self.fault(format!("look at the image \"{reference}\""), fault)),
            }
        }
        .boxed()
    }

    fn pull<'a>(&'a self, reference: &'a str, progress: Progress<'a>) -> Answer<'a, ()> {
        async move {
            let (name, tag) = match reference.split_once('@') {
                Some((name, digest)) => (name, digest),
                None => reference.rsplit_once(':').unwrap_or((reference, "latest")),
            };
            let options = CreateImageOptions {
                from_image: Some(name.to_owned()),
                tag: Some(tag.to_owned()),
                ..Default::default()
            };
            let client = self.client()?;
            let mut layers = Layers::default();
            let mut steps = std::pin::pin!(client.create_image(Some(options), None, None));
            while let Some(step) = steps.next().await {
                let step = step.map_err(|fault| no_image(reference, self.fault("fetch it", fault)))?;
                if let (Some(layer), Some(detail)) = (step.id, step.progress_detail) {
                    layers.take(layer, &detail);
                }
                progress(layers.share(), &format!("fetching {reference}"));
            }
            Ok(())
        }
        .boxed()
    }

    fn load<'a>(&'a self, archive: File, progress: Progress<'a>) -> Answer<'a, Vec<String>> {
        async move {
            let size = archive.metadata().map_or(0, |metadata| metadata.len());
            let counted = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
            let blocks = blocks(archive, counted.clone());
            let options = ImportImageOptions { quiet: true, ..Default::default() };
            let client = self.client()?;
            let mut steps = std::pin::pin!(client.import_image(options, body_try_stream(blocks), None));
            let mut ticks = tokio::time::interval(Duration::from_millis(200));
            let mut loaded = Vec::new();
            loop {
                tokio::select! {
                    step = steps.next() => match step {
                        None => return Ok(loaded),
                        Some(step) => {
                            let said = step.map_err(|fault| self.fault("load the archive", fault))?.stream;
                            loaded.extend(said.as_deref().and_then(loaded_image).map(ToOwned::to_owned));
                        }
                    },
                    _ = ticks.tick() => {
                        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
                        let share = counted.load(Ordering::Relaxed) as f64 / size.max(1) as f64;
                        progress(share.min(1.0), "loading the archive");
                    }
                }
            }
        }
        .boxed()
    }

    fn create<'a>(&'a self, plan: &'a Plan) -> Answer<'a, ()> {
        self.make(plan).boxed()
    }

    fn start<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, ()> {
        async move {
            let what = || format!("start the container \"{}\"", role.container(vplc));
            let missing = || EngineError::Refused { what: what(), reason: "it is not there".to_owned() };
            let id = self.id(vplc, role).await?.ok_or_else(missing)?;
            self.client()?.start_container(&id, None).await.map_err(|fault| self.fault(what(), fault))
        }
        .boxed()
    }

    fn stop<'a>(&'a self, vplc: &'a str, role: Role, grace: Duration) -> Answer<'a, ()> {
        async move {
            let Some(id) = self.id(vplc, role).await? else { return Ok(()) };
            let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
            let options = StopContainerOptions { t: Some(seconds), ..Default::default() };
            // The engine answers when the container has ended.
            let client = self.client()?.with_timeout(grace + LIMIT);
            match client.stop_container(&id, Some(options)).await {
                Ok(()) | Err(Fault::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
                Err(fault) => Err(self.fault(format!("stop the container \"{}\"", role.container(vplc)), fault)),
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, vplc: &'a str, role: Role) -> Answer<'a, ()> {
        async move {
            let Some(id) = self.id(vplc, role).await? else { return Ok(()) };
            // With the volumes that have no name, which the image may declare; ours has one.
            let options = RemoveContainerOptions { v: true, force: true, link: false };
            match self.client()?.remove_container(&id, Some(options)).await {
                Ok(()) | Err(Fault::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
                Err(fault) => Err(self.fault(format!("remove the container \"{}\"", role.container(vplc)), fault)),
            }
        }
        .boxed()
    }

    fn has_volume<'a>(&'a self, vplc: &'a str) -> Answer<'a, bool> {
        self.owns_volume(vplc).boxed()
    }

    fn remove_volume<'a>(&'a self, vplc: &'a str) -> Answer<'a, ()> {
        async move {
            if !self.owns_volume(vplc).await? {
                return Ok(());
            }
            let name = volume(vplc);
            match self.client()?.remove_volume(&name, None::<RemoveVolumeOptions>).await {
                Ok(()) | Err(Fault::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
                Err(fault) => Err(self.fault(format!("remove the volume \"{name}\""), fault)),
            }
        }
        .boxed()
    }

    fn last_lines<'a>(&'a self, vplc: &'a str, lines: u32) -> Answer<'a, Vec<String>> {
        async move {
            let Some(id) = self.id(vplc, Role::Runtime).await? else { return Ok(Vec::new()) };
            let tail = lines.to_string();
            let options = LogsOptions { stdout: true, stderr: true, tail, ..Default::default() };
            let client = self.client()?;
            let mut output = std::pin::pin!(client.logs(&id, Some(options)));
            let mut found = Vec::new();
            while let Some(part) = output.next().await {
                let part = part.map_err(|fault| self.fault("show the output", fault))?.into_bytes();
                let text = String::from_utf8_lossy(&part);
                found.extend(text.lines().map(|line| line.chars().take(LINE_LIMIT).collect::<String>()));
                if found.len() > LINES_LIMIT {
                    break;
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn follow<'a>(&'a self, vplc: &'a str, lines: u32) -> Answer<'a, BoxStream<'static, Result<Piece, EngineError>>> {
        async move {
            let Some(id) = self.id(vplc, Role::Runtime).await? else { return Ok(stream::empty().boxed()) };
            let tail = lines.to_string();
            let options = LogsOptions { follow: true, stdout: true, stderr: true, tail, ..Default::default() };
            Ok(self.client()?.logs(&id, Some(options)).map(piece).boxed())
        }
        .boxed()
    }

    fn attach<'a>(&'a self, vplc: &'a str, errand: &'a Errand) -> Answer<'a, Attached> {
        async move {
            let what = || format!("run \"{}\" in the vPLC \"{vplc}\"", errand.command.join(" "));
            let missing = || EngineError::Refused { what: what(), reason: "it has no container".to_owned() };
            let container = self.id(vplc, Role::Runtime).await?.ok_or_else(missing)?;
            let client = self.client()?;
            let made = client.create_exec(&container, body::errand(errand)).await;
            let id = made.map_err(|fault| self.fault(what(), fault))?.id;
            let options = StartExecOptions { tty: errand.terminal.is_some(), ..Default::default() };
            let started = client.start_exec(&id, Some(options)).await.map_err(|fault| self.fault(what(), fault))?;
            let StartExecResults::Attached { output, input } = started else {
                return Err(EngineError::Refused { what: what(), reason: "its streams are not there".to_owned() });
            };
            if let Some(terminal) = &errand.terminal {
                // Another try follows when the size changes.
                if let Err(error) = self.resize(&id, terminal.size).await {
                    tracing::debug!("{error}");
                }
            }
            Ok(Attached { id, input, output: output.map(piece).boxed() })
        }
        .boxed()
    }

    fn resize<'a>(&'a self, id: &'a str, size: Size) -> Answer<'a, ()> {
        async move {
            let options = ResizeExecOptions { height: size.rows, width: size.columns };
            let resized = self.client()?.resize_exec(id, options).await;
            resized.map_err(|fault| self.fault("change the size of a terminal", fault))
        }
        .boxed()
    }

    fn fate<'a>(&'a self, id: &'a str) -> Answer<'a, Fate> {
        async move {
            let what = "say how a command has ended";
            let found = self.client()?.inspect_exec(id).await.map_err(|fault| self.fault(what, fault))?;
            match (found.running, found.pid.and_then(|pid| i32::try_from(pid).ok()), found.exit_code) {
                (Some(true), Some(pid), _) if pid > 0 => Ok(Fate::Runs(pid)),
                (_, _, Some(code)) => Ok(Fate::Ended(code)),
                _ => Err(EngineError::Refused { what: what.to_owned(), reason: "it does not know".to_owned() }),
            }
        }
        .boxed()
    }
}

/// What a stream of the engine has brought.
fn piece(output: Result<LogOutput, Fault>) -> Result<Piece, EngineError> {
    match output {
        Ok(LogOutput::StdErr { message }) => Ok(Piece::Errors(message)),
        Ok(output) => Ok(Piece::Output(output.into_bytes())),
        Err(fault) => {
            Err(EngineError::Refused { what: "show the output".to_owned(), reason: sentence(&fault.to_string()) })
        }
    }
}

/// What the engine says about a container that is ours.
fn container(found: ContainerInspectResponse) -> Container {
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let state = found.state.unwrap_or_default();
    let exit = Exit { code: state.exit_code.unwrap_or_default(), out_of_memory: state.oom_killed.unwrap_or_default() };
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let wellness = match state.health.and_then(|health| health.status) {
        Some(HealthStatusEnum::STARTING) => Wellness::Starting,
        Some(HealthStatusEnum::HEALTHY) => Wellness::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Wellness::Unhealthy,
        _ => Wellness::Unknown,
    };
    let condition = match (state.status, pid) {
        (Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED), Some(pid)) => {
            Condition::Running { pid, wellness }
        }
        (Some(ContainerStateStatusEnum::CREATED), _) => Condition::Created,
        _ => Condition::Exited(exit),
    };
    let generation = labels.get(GENERATION_LABEL).and_then(|label| label.parse().ok()).unwrap_or_default();
    Container { id: found.id.unwrap_or_default(), generation, condition }
}

/// An image that cannot be fetched is missing, whatever the reason; an engine that is away is another matter.
fn no_image(reference: &str, error: EngineError) -> EngineError {
    match error {
        EngineError::Refused { reason, .. } => EngineError::NoImage { image: reference.to_owned(), reason },
        other => other,
    }
}

/// The words of the engine, fit to stand in a sentence of ours.
fn sentence(message: &str) -> String {
    excerpt_of(message.trim().trim_end_matches('.'))
}

/// Longer than usual: the engine packs the words of the runtime and of the kernel into one message.
fn excerpt_of(message: &str) -> String {
    let flat: String = message.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let mut shown: String = flat.chars().take(400).collect();
    if shown.len() < flat.len() {
        shown.push('…');
    }
    shown
}

/// How much of each layer is here.
#[derive(Debug, Default)]
struct Layers(HashMap<String, (i64, i64)>);

impl Layers {
    fn take(&mut self, layer: String, detail: &ProgressDetail) {
        if let (Some(current), Some(total)) = (detail.current, detail.total)
            && (self.0.len() < 1024 || self.0.contains_key(&layer))
        {
            self.0.insert(layer, (current, total));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    fn share(&self) -> f64 {
        let (current, total) = self
            .0
            .values()
            .fold((0.0, 0.0), |(current, total), (one, all)| (current + (*one).min(*all) as f64, total + *all as f64));
        if total > 0.0 { current / total } else { 0.0 }
    }
}

/// The file in blocks, each read on a thread where it may block.
fn blocks(
    archive: File,
    counted: std::sync::Arc<std::sync::atomic::AtomicU64>,
) -> impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static {
    stream::try_unfold(archive, move |mut archive| {
        let counted = counted.clone();
        async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut block = vec![0; BLOCK];
                let length = std::io::Read::read(&mut archive, &mut block)?;
                block.truncate(length);
                Ok::<_, std::io::Error>((block, archive))
            });
            let (block, archive) = read.await.map_err(std::io::Error::other)??;
            counted.fetch_add(block.len() as u64, Ordering::Relaxed);
            Ok((!block.is_empty()).then(|| (bytes::Bytes::from(block), archive)))
        }
    })
}

/// The image that a line of the engine says is loaded.
fn loaded_image(line: &str) -> Option<&str> {
    ["Loaded image: ", "Loaded image ID: "].into_iter().find_map(|said| line.trim().strip_prefix(said))
}
