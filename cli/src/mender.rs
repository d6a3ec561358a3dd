//! This program under the name `mender-orchestrator`: the options, output and exit codes of that program.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use orchestratord::core::error::Kind;
use orchestratord_dbus::Options;

use crate::args::STOP_POINTS;
use crate::client::{Client, run_options};
use crate::deploy::{Request, interrupted, summary};
use crate::failure::{FAILED, Failure, REBOOT_REQUIRED, SUCCESS};
use crate::follow::{self, Order, Stage};
use crate::input;
use crate::interrupt::Interrupt;
use crate::output::{complain, print};
use crate::records::{Level, Records};

/// How long to wait for the shutdown, once the daemon reboots the host: as long as the original waits after it has
/// called `reboot`. The caller must take neither success nor failure for the end meanwhile.
const REBOOT_PATIENCE: Duration = Duration::from_mins(10);

/// Updates a System as `mender-orchestrator` does
#[derive(Debug, Parser)]
#[command(
    name = "mender-orchestrator",
    disable_version_flag = true,
    disable_help_subcommand = true,
    about = "Update a System of many Components as one unit",
    long_about = "mender-orchestrator updates a System of many Components as one unit. It is the command line of \
                  orchestratord under the name and with the options that the Mender update module calls; the daemon \
                  does the work. \"orchestratorctl\" is the command line for people.",
    after_long_help = "Exit codes:\n    0  done, or stopped before the state that was asked for\n    1  failed\n    4  \
                       the host has to be rebooted before the deployment can go on",
    max_term_width = 100
)]
pub struct Arguments {
    /// File with the Components of a split Topology
    #[arg(short, long, global = true, value_name = "FILE")]
    topology_components: Option<PathBuf>,
    /// Least level of log records: trace, debug, info, warning, error or fatal
    #[arg(short, long, global = true, value_name = "LEVEL", default_value = "info")]
    log_level: Level,
    /// Write log records to this file, and not to standard error
    #[arg(short = 'L', long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Print the version
    #[arg(short, long)]
    version: bool,

    #[command(flatten)]
    refused: Refused,

    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of the original that belong to the daemon here. They are known, so that they can be refused with a reason:
/// to go on without the configuration a caller has named would be dangerous.
#[derive(Debug, Args)]
struct Refused {
    #[arg(short, long, global = true, hide = true, value_name = "FILE")]
    config: Option<OsString>,
    #[arg(short = 'b', long, global = true, hide = true, value_name = "FILE")]
    fallback_config: Option<OsString>,
    #[arg(short, long, global = true, hide = true, value_name = "DIRECTORY", alias = "datastore")]
    data: Option<OsString>,
    #[arg(short = 'E', long, global = true, hide = true, value_name = "FILE")]
    trusted_certs: Option<OsString>,
    #[arg(long, global = true, hide = true)]
    skipverify: bool,
}

impl Refused {
    fn check(&self) -> Result<(), Failure> {
        let environment = |variable: &str| {
            format!("set {variable} for the daemon instead, with \"systemctl edit orchestratord.service\"")
        };
        let found = [
            (self.config.is_some(), "--config", environment("MENDER_ORCHESTRATOR_CONF_DIR")),
            (self.fallback_config.is_some(), "--fallback-config", environment("MENDER_ORCHESTRATOR_DATASTORE_DIR")),
            (self.data.is_some(), "--data", environment("MENDER_ORCHESTRATOR_DATASTORE_DIR")),
            (
                self.trusted_certs.is_some(),
                "--trusted-certs",
                "name the file as \"ServerCertificate\" in /etc/mender-orchestrator/mender-orchestrator.conf instead"
                    .to_owned(),
            ),
            (
                self.skipverify,
                "--skipverify",
                "server certificates are always verified; \"ServerCertificate\" in \
                 /etc/mender-orchestrator/mender-orchestrator.conf names one to trust"
                    .to_owned(),
            ),
        ];
        match found.into_iter().find(|(given, ..)| *given) {
            Some((_, option, instead)) => Err(Failure::new(
                Kind::InvalidArgs,
                format!(
                    "The option \"{option}\" has no effect here, because the daemon orchestratord does the work: {instead}."
                ),
            )),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install a Manifest on the System
    Install {
        /// Manifest
        #[arg(value_name = "MANIFEST")]
        file: PathBuf,
        #[command(flatten)]
        run: RunArguments,
    },
    /// Go on with the deployment in progress
    Resume {
        #[command(flatten)]
        run: RunArguments,
    },
    /// Take the deployment in progress back
    Rollback {
        #[command(flatten)]
        run: RunArguments,
    },
    /// Print what the Components provide
    ShowProvides,
    /// Print the inventory of the Components
    ShowInventory,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Stop before this state; may be given several times
    #[arg(long, value_name = "STATE", value_parser = STOP_POINTS)]
    stop_before: Vec<String>,
    /// Exit with code 4 when the host has to be rebooted, instead of rebooting it
    #[arg(long)]
    exit_on_reboot: bool,
}

/// Runs the program; returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { FAILED } else { SUCCESS };
            drop(error.print());
            return code;
        }
    };
    if arguments.version {
        return match print(&format!("{}\n", env!("CARGO_PKG_VERSION"))) {
            Ok(()) => SUCCESS,
            Err(_) => FAILED,
        };
    }
    let records = Records::new(arguments.log_level, arguments.log_file.as_deref());
    let mut records = match records {
        Ok(records) => records,
        Err(failure) => {
            complain("mender-orchestrator", &failure.to_string());
            return FAILED;
        }
    };
    let outcome = crate::block_on(run(arguments, &mut records));
    match outcome {
        Ok(code) => code,
        Err(Failure::BrokenPipe) => SUCCESS,
        Err(failure) => {
            records.error(&failure.to_string());
            FAILED
        }
    }
}

async fn run(arguments: Arguments, records: &mut Records) -> Result<u8, Failure> {
    arguments.refused.check()?;
    let Some(command) = arguments.command else {
        return Err(Failure::new(Kind::InvalidArgs, "No command is given; \"mender-orchestrator --help\" lists them."));
    };
    let components = arguments.topology_components.as_deref().map(input::topology_components).transpose()?;
    let unused = components.is_some() && matches!(command, Command::Resume { .. } | Command::Rollback { .. });
    if unused {
        let message = "The option \"--topology-components\" has no effect here: a deployment keeps the Topology with \
                       which it began.";
        records.global(Level::Warning, message);
    }
    match command {
        Command::Install { file, run } => {
            let manifest = input::manifest(&file)?;
            let mut options = run_options(&run.stop_before, run.exit_on_reboot);
            options.insert("base-directory", manifest.base_directory.as_str().into());
            if let Some(components) = &components {
                options.insert("topology-components", components.as_str().into());
            }
            deploy(Request::Install(&manifest.text, options), run.exit_on_reboot, records).await
        }
        Command::Resume { run } => {
            let request = Request::Resume(run_options(&run.stop_before, run.exit_on_reboot));
            deploy(request, run.exit_on_reboot, records).await
        }
        Command::Rollback { run } => {
            let request = Request::Rollback(run_options(&run.stop_before, run.exit_on_reboot));
            deploy(request, run.exit_on_reboot, records).await
        }
        Command::ShowProvides => show("provides", components.as_deref(), false, records).await,
        Command::ShowInventory => show("all", components.as_deref(), true, records).await,
    }
}

async fn deploy(request: Request<'_>, exit_on_reboot: bool, records: &mut Records) -> Result<u8, Failure> {
    records.global(Level::Info, &format!("Running mender-orchestrator {}", env!("CARGO_PKG_VERSION")));
    let mut interrupt = Interrupt::new()?;
    let stage = Stage::default();
    let work = async {
        let client = Client::connect().await?;
        let order = Order { kind: request.kind(), deferred: exit_on_reboot, waits_for_reboot: Some(REBOOT_PATIENCE) };
        follow::run(&client, order, || request.send(&client), records, &stage).await
    };
    let ended = tokio::select! {
        biased;
        signal = interrupt.wait() => Err(signal),
        outcome = work => Ok(outcome),
    };
    let outcome = match ended {
        Err(signal) => {
            records.global(Level::Warning, &interrupted(&stage));
            return Ok(signal);
        }
        Ok(outcome) => outcome?,
    };
    if let Some(error) = &outcome.job.error {
        records.error(&error.message);
    }
    records.global(Level::Info, &summary(&outcome));
    Ok(match outcome.exit_code {
        code @ (SUCCESS | REBOOT_REQUIRED) => code,
        _ => FAILED,
    })
}

/// Prints one line per key. A Component that does not answer makes the program fail, unless `lenient` is set and
/// another one did answer: the Mender client drops all output of an inventory script that fails.
async fn show(scope: &str, components: Option<&str>, lenient: bool, records: &mut Records) -> Result<u8, Failure> {
    let mut options = Options::from([("scope", scope.into())]);
    if let Some(components) = components {
        options.insert("topology-components", components.into());
    }
    let update = Client::connect().await?.update().await?;
    let answer = update.inventory(options).await.map_err(|error| Failure::from_bus(&error))?;
    let (entries, errors) = answer;
    let mut lines: Vec<String> = entries.iter().map(line).collect();
    lines.sort();
    print(&lines.concat())?;
    for error in &errors {
        records.error(error);
    }
    let failed = if lenient { lines.is_empty() } else { true };
    Ok(if !errors.is_empty() && failed { FAILED } else { SUCCESS })
}

fn line((component, key, value): &(String, String, String)) -> String {
    // A line break would be read as the end of the value and the beginning of another key.
    let value = value.replace('\n', "\\n");
    format!("{}.{key}={value}\n", component.replacen('/', ".", 1))
}
