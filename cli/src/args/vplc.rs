//! The command line of `orchestratorctl vplc`.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};

/// What to do with vPLCs.
#[derive(Debug, Subcommand)]
pub enum VplcCommand {
    /// Make a vPLC, or change it, to be as specified, and wait until it runs
    ///
    /// The specification is read here and sent as text. If the vPLC cannot be made, what was begun is taken back.
    Apply {
        /// Specification, or "-" for standard input
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Archive to load the image from, as "docker save" writes it; for sites without a registry
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "dry_run")]
        image: Option<PathBuf>,
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the vPLCs
    List,
    /// Show a vPLC
    Show {
        /// Name of the vPLC.
        name: String,
    },
    /// Start a vPLC, and wait until it runs
    Start {
        /// Name of the vPLC.
        name: String,
    },
    /// Stop a vPLC; it stays so, also after a restart of the host
    Stop {
        /// Name of the vPLC.
        name: String,
    },
    /// Stop and start the runtime of a vPLC; its NICs stay as they are
    Restart {
        /// Name of the vPLC.
        name: String,
    },
    /// Put a PLC program on a vPLC, and prove that it runs
    ///
    /// If it does not run, the program that was there before is put back.
    Deploy {
        /// Name of the vPLC.
        name: String,
        /// The program: a zip archive as the editor makes it
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Give a vPLC another image, and prove that its PLC runs there
    ///
    /// Changes the image in the specification and nothing else. If the runtime of the new image does not get well, or does not run
    /// the program, everything is as before.
    Upgrade {
        /// Name of the vPLC.
        name: String,
        /// Name of the image with a tag or a digest
        #[arg(value_name = "IMAGE")]
        reference: String,
        /// Archive to load the image from, as "docker save" writes it; for sites without a registry
        #[arg(long = "image", value_name = "FILE", value_hint = ValueHint::FilePath)]
        archive: Option<PathBuf>,
        /// Which image the name is to stand for, as "show" has it; to go back to one that was there before
        #[arg(long, value_name = "DIGEST", conflicts_with = "archive")]
        pin: Option<String>,
    },
    /// Put the PLC program back that proved to run before the one that is there
    Rollback {
        /// Name of the vPLC.
        name: String,
        /// Another version that is kept, by its number in "show"
        version: Option<u32>,
    },
    /// Write the archive of a PLC program to a file
    #[command(allow_missing_positional = true)]
    Export {
        /// Name of the vPLC.
        name: String,
        /// Number of the version in "show"; the one that is on the runtime if it is left out
        version: Option<u32>,
        /// New file, or "-" for standard output
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Print user, password and certificate of the runtime of a vPLC
    Credentials {
        /// Name of the vPLC.
        name: String,
    },
    /// Remove a vPLC with its NICs, its containers and its data
    Delete {
        /// Name of the vPLC.
        name: String,
        /// Keep its data for a vPLC of the same name
        #[arg(long)]
        keep_data: bool,
    },
    /// Print the last lines that a vPLC has printed
    Logs {
        /// Name of the vPLC.
        name: String,
        /// How many
        #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        lines: u32,
        /// Go on with what it prints, until it ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Run a command in a vPLC beside its PLC, or a shell
    ///
    /// Ends with the exit code of the command. The command has a terminal if standard input and output are one. If this program
    /// ends before it, it gets SIGHUP.
    Shell {
        /// Name of the vPLC.
        name: String,
        /// Program and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = "sh")]
        command: Vec<String>,
    },
    /// Let a vPLC start again that had ended by itself too often
    Reset {
        /// Name of the vPLC.
        name: String,
    },
}
