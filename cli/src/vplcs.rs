//! Virtual PLCs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use orchestratord::core::error::Kind;
use orchestratord_dbus::{ManagedObjects, Options, VplcProxy, VplcsProxy};
use serde::Serialize;
use serde_json::json;
use zbus::OwnedObjectPath;

use crate::PROGRAM;
use crate::args::vplc::VplcCommand;
use crate::client::{Client, Properties, interface};
use crate::failure::{FAILED, Failure, SUCCESS};
use crate::hardware::{SerialView, UsageView};
use crate::input;
use crate::interrupt::Interrupt;
use crate::output::{Moment, Table, complain, print, printable, show};
use crate::programs::{self, ProgramView};
use crate::progress::{self, Reporter};
use crate::session;
use crate::view::{Change, ErrorView, View};

/// A vPLC. The serialised shape is documented in `docs/cli.md`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct VplcView {
    /// Object path.
    #[serde(skip)]
    pub path: String,
    /// Name.
    pub name: String,
    /// `running`, `stopped` or `deleted`.
    pub desired: String,
    /// What its container does.
    pub container: String,
    /// How well the runtime is; empty if nobody asks it.
    pub runtime: String,
    /// Name of its image, a blank, and its digest.
    pub image: String,
    since: String,
    restarts: u64,
    /// What the PLC does; empty if that is not known.
    pub plc: String,
    /// The program that is on the runtime.
    pub program: Option<ProgramView>,
    versions: Vec<ProgramView>,
    serial: Vec<SerialView>,
    real_time: String,
    real_time_reason: String,
    usage: UsageView,
    spec: String,
    last_error: Option<ErrorView>,
}

impl VplcView {
    fn new(path: &str, properties: &Properties) -> Self {
        let text = |name| properties.text(name).unwrap_or_default();
        Self {
            path: path.to_owned(),
            name: text("Name"),
            desired: text("Desired"),
            container: text("Container"),
            runtime: text("Runtime"),
            image: text("Image"),
            since: Moment::from_micros(properties.number("Since").unwrap_or_default()).rfc3339(),
            restarts: properties.number("Restarts").unwrap_or_default(),
            plc: text("Plc"),
            program: properties.dictionary("Program").and_then(|program| ProgramView::new(&program)),
            versions: properties.dictionaries("Versions").iter().filter_map(ProgramView::new).collect(),
            serial: properties.dictionaries("Serial").iter().map(SerialView::new).collect(),
            real_time: text("RealTime"),
            real_time_reason: text("RealTimeReason"),
            usage: properties.dictionary("Usage").map(|usage| UsageView::new(&usage)).unwrap_or_default(),
            spec: text("Spec"),
            last_error: properties.error("LastError").and_then(ErrorView::from_pair),
        }
    }

    fn error(&self) -> &str {
        self.last_error.as_ref().map(|error| error.message.as_str()).unwrap_or_default()
    }

    /// The name of the image without its digest.
    fn image_name(&self) -> &str {
        self.image.split(' ').next().unwrap_or_default()
    }
}

/// The vPLCs among all objects, by name.
pub fn vplcs(objects: ManagedObjects) -> BTreeMap<String, VplcView> {
    let mut vplcs = BTreeMap::new();
    for (path, mut interfaces) in objects {
        if let Some(properties) = interfaces.remove(interface::<VplcProxy<'_>>()) {
            let vplc = VplcView::new(path.as_str(), &Properties::new(properties));
            vplcs.insert(vplc.name.clone(), vplc);
        }
    }
    vplcs
}

/// Runs a command; returns the exit code.
pub async fn run(command: VplcCommand, json: bool) -> Result<u8, Failure> {
    let client = Client::connect().await?;
    match command {
        VplcCommand::List => list(&client, json).await,
        VplcCommand::Show { name } => print_vplc(&find(&client, &name).await?, json),
        VplcCommand::Apply { file, dry_run: true, .. } => plan(&client, &file, json).await,
        VplcCommand::Apply { file, image, .. } => {
            let spec = text(&file)?;
            let archive = image.as_deref().map(|file| open(file, "image")).transpose()?;
            let mut options = Options::new();
            if let Some(archive) = &archive {
                options.insert("image", zbus::Fd::from(archive).into());
            }
            let vplcs = client.vplcs().await?;
            follow(&client, json, vplcs.apply(&spec, options)).await
        }
        VplcCommand::Start { name } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            follow(&client, json, vplc.start(Options::new())).await
        }
        VplcCommand::Stop { name } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            follow(&client, json, vplc.stop(Options::new())).await
        }
        VplcCommand::Restart { name } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            follow(&client, json, vplc.restart(Options::new())).await
        }
        VplcCommand::Deploy { name, file } => {
            let program = open(&file, "program")?;
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            follow(&client, json, vplc.deploy(zbus::Fd::from(&program), Options::new())).await
        }
        VplcCommand::Upgrade { name, reference, archive, pin } => {
            let archive = archive.as_deref().map(|file| open(file, "image")).transpose()?;
            let mut options = Options::new();
            if let Some(archive) = &archive {
                options.insert("image", zbus::Fd::from(archive).into());
            }
            if let Some(pin) = &pin {
                options.insert("pin", pin.as_str().into());
            }
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            follow(&client, json, vplc.upgrade(&reference, options)).await
        }
        VplcCommand::Rollback { name, version } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            follow(&client, json, vplc.rollback_program(programs::of_version(version))).await
        }
        VplcCommand::Export { name, version, file } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            programs::export(&vplc, version, &file).await
        }
        VplcCommand::Credentials { name } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            programs::credentials(&vplc, json).await
        }
        VplcCommand::Delete { name, keep_data } => {
            let options = Options::from([("keep-data", keep_data.into())]);
            let vplcs = client.vplcs().await?;
            follow(&client, json, vplcs.delete(&name, options)).await
        }
        VplcCommand::Logs { name, lines, follow: true } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            session::follow(vplc.follow_logs(Options::from([("lines", lines.into())])), json).await
        }
        VplcCommand::Shell { name, command } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            session::shell(&vplc, &command, json).await
        }
        VplcCommand::Logs { name, lines, .. } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            let options = Options::from([("lines", lines.into())]);
            let lines = vplc.logs(options).await.map_err(|error| Failure::from_bus(&error))?;
            if json {
                show(true, &json!({ "lines": lines }), String::new)?;
            } else {
                let shown: Vec<_> = lines.iter().map(|line| printable(line)).collect();
                print(&(shown.join("\n") + if shown.is_empty() { "" } else { "\n" }))?;
            }
            Ok(SUCCESS)
        }
        VplcCommand::Reset { name } => {
            let vplc = client.vplc(find(&client, &name).await?.path).await?;
            vplc.reset_failed(Options::new()).await.map_err(|error| Failure::from_bus(&error))?;
            Ok(SUCCESS)
        }
    }
}

async fn find(client: &Client, name: &str) -> Result<VplcView, Failure> {
    let found = vplcs(client.objects().await?).remove(name);
    found.ok_or_else(|| Failure::new(Kind::UnknownVplc, format!("There is no vPLC \"{name}\".")))
}

fn text(file: &Path) -> Result<String, Failure> {
    input::document(file, "specification", Kind::InvalidVplc)
}

fn open(file: &Path, what: &str) -> Result<File, Failure> {
    File::open(file)
        .map_err(|error| Failure::new(Kind::Failed, format!("Cannot read the {what} \"{}\": {error}.", file.display())))
}

async fn list(client: &Client, json: bool) -> Result<u8, Failure> {
    let root = client.properties(orchestratord_dbus::ROOT_PATH, interface::<VplcsProxy<'_>>()).await?;
    let (engine, version) = (root.text("Engine").unwrap_or_default(), root.text("EngineVersion").unwrap_or_default());
    let vplcs = vplcs(client.objects().await?);
    let vplcs: Vec<&VplcView> = vplcs.values().collect();
    show(json, &json!({ "engine": engine, "engine_version": version, "vplcs": vplcs }), || {
        let mut table = Table::new(&[
            "VPLC",
            "DESIRED",
            "CONTAINER",
            "RUNTIME",
            "REAL TIME",
            "SINCE",
            "RESTARTS",
            "IMAGE",
            "LAST ERROR",
        ]);
        for vplc in &vplcs {
            let restarts = vplc.restarts.to_string();
            let (since, image) = (&vplc.since, vplc.image_name());
            table.row(&[
                &vplc.name,
                &vplc.desired,
                &vplc.container,
                &vplc.runtime,
                &vplc.real_time,
                since,
                &restarts,
                image,
                vplc.error(),
            ]);
        }
        table.render()
    })?;
    Ok(SUCCESS)
}

fn print_vplc(vplc: &VplcView, json: bool) -> Result<u8, Failure> {
    show(json, &json!({ "vplc": vplc }), || {
        let restarts = vplc.restarts.to_string();
        let program = vplc.program.as_ref().map(ProgramView::line).unwrap_or_default();
        let reason = if vplc.real_time_reason.is_empty() { "" } else { ": " };
        let real_time = [vplc.real_time.as_str(), reason, &vplc.real_time_reason].concat();
        let usage = vplc.usage.line();
        let serial: Vec<String> = vplc.serial.iter().map(SerialView::line).collect();
        let serial = serial.join("; ");
        let lines = [
            ("vPLC", vplc.name.as_str()),
            ("Desired", &vplc.desired),
            ("Container", &vplc.container),
            ("Runtime", &vplc.runtime),
            ("Since", &vplc.since),
            ("Restarts", &restarts),
            ("Image", &vplc.image),
            ("PLC", &vplc.plc),
            ("Program", &program),
            ("Serial", &serial),
            ("Real time", &real_time),
            ("Usage", &usage),
            ("Last error", vplc.error()),
        ];
        let line = |(name, value): &(&str, &str)| {
            let value = if value.is_empty() { "-".to_owned() } else { printable(value) };
            format!("{:<12}{value}\n", format!("{name}:"))
        };
        let mut text: String = lines.iter().map(line).collect();
        if !vplc.versions.is_empty() {
            text.push('\n');
            text.push_str(&programs::table(&vplc.versions, vplc.program.as_ref()));
        }
        text
    })?;
    Ok(SUCCESS)
}

async fn plan(client: &Client, file: &Path, json: bool) -> Result<u8, Failure> {
    let spec = text(file)?;
    let changes = client.vplcs().await?.plan(&spec, Options::new()).await;
    let changes = changes.map_err(|error| Failure::from_bus(&error))?;
    let listed: Vec<_> = changes.iter().map(|(key, from, to)| json!({ "key": key, "from": from, "to": to })).collect();
    show(json, &json!({ "changes": listed }), || {
        if changes.is_empty() {
            return "Nothing would change.\n".to_owned();
        }
        let sign = |from: &str, to: &str| match (from.is_empty(), to.is_empty()) {
            (true, _) => '+',
            (_, true) => '-',
            _ => '~',
        };
        let line = |(key, from, to): &(String, String, String)| match sign(from, to) {
            '~' => format!("~ {}: {} -> {}\n", printable(key), printable(from), printable(to)),
            sign => format!("{sign} {}: {}{}\n", printable(key), printable(from), printable(to)),
        };
        changes.iter().map(line).collect()
    })?;
    Ok(SUCCESS)
}

/// Sends a request that makes a Job and follows it to its end. Ending this program never stops the Job.
async fn follow(
    client: &Client,
    json: bool,
    request: impl Future<Output = zbus::Result<OwnedObjectPath>>,
) -> Result<u8, Failure> {
    let mut interrupt = Interrupt::new()?;
    tokio::select! {
        biased;
        signal = interrupt.wait() => {
            complain(PROGRAM, "Interrupted; orchestratord goes on with what it was asked for.");
            Ok(signal)
        }
        outcome = followed(client, json, request) => outcome,
    }
}

async fn followed(
    client: &Client,
    json: bool,
    request: impl Future<Output = zbus::Result<OwnedObjectPath>>,
) -> Result<u8, Failure> {
    let mut listener = client.listen().await?;
    let mut reporter = progress::reporter(false);
    let mut view = View::new(ManagedObjects::new());
    let request = async { request.await.map_err(|error| Failure::from_bus(&error)) };
    let path = listener
        .during(request, |event| {
            view.apply(event);
            Ok(())
        })
        .await?;
    let path = path.as_str();
    if let Some(job) = view.job(path) {
        reporter.begin(job);
    }
    while view.job(path).is_none_or(|job| job.state != "done") {
        if listener.has_left() {
            return Err(Failure::left());
        }
        let changes = view.apply(listener.next().await?);
        tell(reporter.as_mut(), &view, path, &changes);
    }
    reporter.end();
    drop(reporter);
    let Some(job) = view.job(path) else { return Err(Failure::left()) };
    let code = match &job.error {
        Some(error) => {
            complain(PROGRAM, &error.message);
            Failure::from_error(&error.name, &error.message).exit_code()
        }
        None if job.result == "done" => SUCCESS,
        None => FAILED,
    };
    show(json, &json!({ "job": job, "exit_code": code }), String::new)?;
    Ok(code)
}

fn tell(reporter: &mut dyn Reporter, view: &View, path: &str, changes: &[Change]) {
    let Some(job) = view.job(path) else { return };
    for change in changes {
        if let Change::Job(changed, change) = change
            && changed.path == path
        {
            reporter.job(job, change);
        }
    }
}
