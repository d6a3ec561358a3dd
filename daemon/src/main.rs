//! The daemon: `orchestratord`.
//!
//! Everything but `--help` and `--version` is set by the environment and the configuration files.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use orchestratord::{logging, startup, supervisor};

const HELP: &str = "\
orchestratord updates a machine made of many parts as one unit; it is reached over D-Bus as org.orchestratord1.

Usage: orchestratord [--help | --version]

DBUS_SYSTEM_BUS_ADDRESS names another bus than the system bus; the MENDER_ORCHESTRATOR_* variables name other
directories than the usual ones. See orchestratord(8).
";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [] => serve(),
        [word] if word == "--help" || word == "-h" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        [word] if word == "--version" || word == "-V" => {
            println!("orchestratord {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("orchestratord takes no such arguments.\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> ExitCode {
    let (settings, warnings) = match startup::settings() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("orchestratord: {error}");
            return ExitCode::from(error.kind.exit_code());
        }
    };
    let log_level = match logging::start(settings.log_level.level()) {
        Ok(log_level) => log_level,
        Err(error) => {
            eprintln!("orchestratord cannot start its log: {error}.");
            return ExitCode::FAILURE;
        }
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match supervisor::block_on(async { supervisor::run(startup::parts(settings, log_level).await?).await }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
