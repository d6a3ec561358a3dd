//! What the commands of `orchestratorctl` do.

use std::fmt::Write;
use std::path::Path;

use orchestratord::core::error::Kind;
use orchestratord_dbus::Options;
use serde::Serialize;
use serde_json::json;

use crate::args::{Command, Graph, LinkCommand, ManifestArguments, NicCommand, TopologyArguments};
use crate::client::{Client, run_options};
use crate::deploy::{self, Request};
use crate::failure::{Failure, SUCCESS};
use crate::input::{self, Manifest};
use crate::output::{Moment, Table, complain, print, printable, show};
use crate::plan::{self, Step};
use crate::progress::percent;
use crate::view::{ComponentView, JobView, UpdateView, View};
use crate::{PROGRAM, links, nics, vplcs, watch};

/// Runs a command that needs the daemon; returns the exit code.
pub async fn run(command: Command, json: bool) -> Result<u8, Failure> {
    match command {
        Command::Status => status(json).await,
        Command::Plan { manifest, graph } => plan(&manifest, graph, json).await,
        Command::Install { manifest, run } => {
            let Document { manifest, components } = Document::read(&manifest)?;
            let mut options = run_options(&run.stop_before, run.defer_reboot);
            options.insert("base-directory", manifest.base_directory.as_str().into());
            if let Some(components) = &components {
                options.insert("topology-components", components.as_str().into());
            }
            deploy::run(&run, json, Request::Install(&manifest.text, options)).await
        }
        Command::Resume { run } => {
            deploy::run(&run, json, Request::Resume(run_options(&run.stop_before, run.defer_reboot))).await
        }
        Command::Rollback { run, force } => {
            let mut options = run_options(&run.stop_before, run.defer_reboot);
            if force {
                options.insert("force", true.into());
            }
            deploy::run(&run, json, Request::Rollback(options)).await
        }
        Command::Components => components(json).await,
        Command::Provides(topology) => inventory(&topology, "provides", json).await,
        Command::Inventory(topology) => inventory(&topology, "all", json).await,
        Command::Jobs => jobs(json).await,
        Command::Watch { scope } => watch::run(scope, json).await,
        Command::Link { command: None | Some(LinkCommand::List) } => links::list(json).await,
        Command::Link { command: Some(LinkCommand::Show { name }) } => links::show_link(&name, json).await,
        Command::Nic { command: None | Some(NicCommand::List) } => nics::list(json).await,
        Command::Nic { command: Some(NicCommand::Show { name }) } => nics::show_nic(&name, json).await,
        Command::Nic { command: Some(NicCommand::Attach { file, wait }) } => nics::attach(&file, wait, json).await,
        Command::Nic { command: Some(NicCommand::Detach { name }) } => nics::detach(&name).await,
        Command::Vplc { command } => Box::pin(vplcs::run(command, json)).await,
        Command::Metrics => metrics(json).await,
        Command::Reload => {
            let update = Client::connect().await?.update().await?;
            update.reload(Options::new()).await.map_err(|error| Failure::from_bus(&error))?;
            Ok(SUCCESS)
        }
        Command::Artifact { .. }
        | Command::Manifest { .. }
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Interface { .. } => Err(Failure::new(Kind::Failed, "This command needs no daemon.")),
    }
}

/// The documents of a call.
struct Document {
    manifest: Manifest,
    components: Option<String>,
}

impl Document {
    fn read(arguments: &ManifestArguments) -> Result<Self, Failure> {
        let manifest = if arguments.file == Path::new("-") {
            input::manifest_from_stdin()?
        } else {
            input::manifest(&arguments.file)?
        };
        Ok(Self { manifest, components: topology_text(&arguments.topology)? })
    }
}

fn topology_text(arguments: &TopologyArguments) -> Result<Option<String>, Failure> {
    arguments.topology_components.as_deref().map(input::topology_components).transpose()
}

#[derive(Serialize)]
struct Status<'a> {
    version: String,
    state: String,
    update: UpdateView,
    active_job: Option<&'a JobView>,
    components: Vec<&'a ComponentView>,
}

async fn status(json: bool) -> Result<u8, Failure> {
    let client = Client::connect().await?;
    let manager = client.manager_properties().await?;
    let text = |name| manager.text(name).unwrap_or_default();
    let (version, state) = (text("Version"), text("State"));
    let update = UpdateView::new(&client.update_properties().await?);
    let view = View::new(client.objects().await?);
    let active_job = view.job(&update.active_job);
    let status = Status { version, state, active_job, components: view.components(), update };
    show(json, &status, || status_text(&status))?;
    Ok(SUCCESS)
}

fn status_text(status: &Status<'_>) -> String {
    let update = &status.update;
    let state = if status.state == update.state || update.state.is_empty() {
        printable(&status.state)
    } else {
        format!("{} (deployment: {})", printable(&status.state), printable(&update.state))
    };
    let job = status.active_job.map(|job| {
        let step = if job.step.is_empty() { String::new() } else { format!(", {}", printable(&job.step)) };
        format!("{} ({}, {} %{step})", job.id, printable(&job.kind), percent(job.progress))
    });
    let error = update.last_error.as_ref().map(|error| printable(&error.message));
    let text = |text: &str| (!text.is_empty()).then(|| printable(text));
    let mut lines = String::new();
    for (name, value) in [
        ("State", Some(state)),
        ("System type", text(&update.system_type)),
        ("Manifest", text(&update.manifest)),
        ("Stopped before", text(&update.stopped_before)),
        ("Active job", job),
        ("Last error", error),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{:<16}{}", format!("{name}:"), value.unwrap_or_else(|| "-".to_owned()));
    }
    if !status.components.is_empty() {
        lines.push('\n');
        lines.push_str(&components_text(&status.components));
    }
    lines
}

fn components_text(components: &[&ComponentView]) -> String {
    let mut table = Table::new(&["COMPONENT", "STATE", "VERSION", "INTERFACE", "LAST ERROR"]);
    for component in components {
        let error = component.last_error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
        table.row(&[&component.label(), &component.state, &component.version, &component.interface, error]);
    }
    table.render()
}

async fn components(json: bool) -> Result<u8, Failure> {
    let client = Client::connect().await?;
    let view = View::new(client.objects().await?);
    let components = view.components();
    show(json, &json!({ "components": components }), || components_text(&components))?;
    Ok(SUCCESS)
}

async fn jobs(json: bool) -> Result<u8, Failure> {
    let client = Client::connect().await?;
    let view = View::new(client.objects().await?);
    let jobs = view.jobs();
    show(json, &json!({ "jobs": jobs }), || jobs_text(&jobs))?;
    Ok(SUCCESS)
}

async fn metrics(json: bool) -> Result<u8, Failure> {
    let host = Client::connect().await?.host().await?;
    let text = host.metrics().await.map_err(|error| Failure::from_bus(&error))?;
    if json {
        show(true, &json!({ "metrics": text }), String::new)?;
    } else {
        print(&text)?;
    }
    Ok(SUCCESS)
}

fn jobs_text(jobs: &[&JobView]) -> String {
    let mut table = Table::new(&["JOB", "KIND", "STARTED", "STATE", "PROGRESS", "RESULT", "ERROR"]);
    for job in jobs {
        let started = Moment::from_micros(job.started).rfc3339();
        let progress = format!("{} %", percent(job.progress));
        let error = job.error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
        table.row(&[&job.id.to_string(), &job.kind, &started, &job.state, &progress, &job.result, error]);
    }
    table.render()
}

async fn plan(arguments: &ManifestArguments, graph: Option<Graph>, json: bool) -> Result<u8, Failure> {
    let Document { manifest, components } = Document::read(arguments)?;
    let mut options = Options::from([("base-directory", manifest.base_directory.as_str().into())]);
    if let Some(components) = &components {
        options.insert("topology-components", components.as_str().into());
    }
    let update = Client::connect().await?.update().await?;
    let steps = update.plan(&manifest.text, options).await.map_err(|error| Failure::from_bus(&error))?;
    let steps: Vec<Step> = steps.into_iter().map(Step::new).collect();
    if let Some(kind) = graph {
        print(&plan::graph(&steps, kind))?;
        return Ok(SUCCESS);
    }
    show(json, &json!({ "steps": steps }), || plan::text(&steps))?;
    Ok(SUCCESS)
}

async fn inventory(arguments: &TopologyArguments, scope: &str, json: bool) -> Result<u8, Failure> {
    let components = topology_text(arguments)?;
    let mut options = Options::from([("scope", scope.into())]);
    if let Some(components) = &components {
        options.insert("topology-components", components.as_str().into());
    }
    let update = Client::connect().await?.update().await?;
    let answer = update.inventory(options).await.map_err(|error| Failure::from_bus(&error))?;
    let (mut entries, errors) = answer;
    entries.sort();
    let listed: Vec<_> = entries
        .iter()
        .map(|(component, key, value)| {
            let (component_type, id) = component.split_once('/').unwrap_or((component, ""));
            json!({ "type": component_type, "id": id, "key": key, "value": value })
        })
        .collect();
    show(json, &json!({ "entries": listed, "errors": errors }), || {
        let mut table = Table::new(&["COMPONENT", "KEY", "VALUE"]);
        for (component, key, value) in &entries {
            table.row(&[&component.replacen('/', ".", 1), key, value]);
        }
        table.render()
    })?;
    for error in &errors {
        complain(PROGRAM, error);
    }
    Ok(if errors.is_empty() { SUCCESS } else { Kind::InterfaceFailed.exit_code() })
}
