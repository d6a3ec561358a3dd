//! Man pages and shell completions, made from the definitions of the command lines.

use std::path::Path;

use clap::CommandFactory;
use orchestratord::core::error::Kind;

use crate::failure::{Failure, SUCCESS};
use crate::output::print;
use crate::{args, mender};

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell, program: &str) -> Result<u8, Failure> {
    let mut command =
        if program == "mender-orchestrator" { mender::Arguments::command() } else { args::Arguments::command() };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(SUCCESS)
}

/// Writes one page per command and subcommand.
pub fn man(directory: &Path) -> Result<u8, Failure> {
    for command in [args::Arguments::command(), mender::Arguments::command()] {
        clap_mangen::generate_to(command, directory).map_err(|error| {
            Failure::new(Kind::Failed, format!("Cannot write man pages to \"{}\": {error}.", directory.display()))
        })?;
    }
    Ok(SUCCESS)
}
