//! The command line of orchestratord.
//!
//! Under its own name it is `orchestratorctl`; called as `mender-orchestrator`, through a link of that name, it behaves
//! as that program.

mod args;
mod artifact;
mod check;
mod client;
mod commands;
mod component;
mod deploy;
mod failure;
mod follow;
mod hardware;
mod input;
mod interrupt;
mod links;
mod mender;
mod mirror;
mod nics;
mod output;
mod plan;
mod programs;
mod progress;
mod provides;
mod pursuit;
mod records;
mod session;
mod shell;
mod story;
mod told;
mod view;
mod vplcs;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use orchestratord::core::error::Kind;

use args::{Arguments, Command, ManifestCommand};
use failure::Failure;

/// Name of this program in its own messages.
const PROGRAM: &str = "orchestratorctl";

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    let name = name.as_deref().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    if name == "mender-orchestrator" {
        return ExitCode::from(mender::main(std::env::args_os()));
    }
    let arguments = Arguments::parse();
    let json = arguments.json;
    let outcome = match arguments.command {
        Command::Artifact { command } => artifact::run(command, json),
        Command::Manifest { command: ManifestCommand::Check(arguments) } => check::run(&arguments, json),
        Command::Completions { shell, program } => shell::completions(shell, &program),
        Command::Man { directory } => shell::man(&directory),
        Command::Interface { kind, name, words } => component::run(kind, &name, &words),
        command => block_on(commands::run(command, json)),
    };
    let code = outcome.unwrap_or_else(|failure| {
        if failure != Failure::BrokenPipe {
            output::complain(PROGRAM, &failure.to_string());
        }
        failure.exit_code()
    });
    ExitCode::from(code)
}

/// Runs a future to its end on this thread.
fn block_on(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Kind::Failed, format!("Cannot start: {error}.")))?;
    runtime.block_on(work)
}
