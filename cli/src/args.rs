//! The command line of `orchestratorctl`.
#![expect(clippy::doc_markdown, reason = "the comments are the help text, where backticks would be seen")]

pub mod artifact;
pub mod vplc;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

/// States before which a deployment can stop, spelled as the Interface protocol spells them.
pub const STOP_POINTS: [&str; 3] = ["ArtifactCommit", "ArtifactRollback", "Cleanup"];

/// Controls orchestratord
#[derive(Debug, Parser)]
#[command(
    name = "orchestratorctl",
    version,
    about = "Control orchestratord, which updates a System of many Components as one unit",
    long_about = "orchestratorctl controls orchestratord, the daemon that updates a System of many Components as one \
                  unit. It talks to the daemon over the D-Bus system bus, which starts the daemon if need be; the \
                  environment variable DBUS_SYSTEM_BUS_ADDRESS names another bus.\n\n\
                  Results go to standard output, progress and errors to standard error. A deployment belongs to the \
                  daemon: ending orchestratorctl, by Ctrl-C or otherwise, never stops it.",
    after_long_help = EXIT_CODES,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// Print JSON instead of text for people
    ///
    /// Commands that read print one document, "watch" prints one object per line, and "install", "resume" and
    /// "rollback" print the result object when the Job has ended. The shapes are stable: keys are added, never renamed.
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Exit codes, for help and man pages.
const EXIT_CODES: &str = "\
Exit codes:
    0  done, or stopped before the state that was asked for
    1  failed, or the daemon cannot be reached, or left the bus and did not come back
    2  wrong arguments
    4  the host has to be rebooted, or is being rebooted, before the deployment can go on
    5  access denied
    6  not supported, or not now
    7  a deployment is open; resume it or roll it back first
    8  there is no deployment to resume or to roll back
   10  invalid configuration
   11  invalid Manifest
   12  invalid Topology
   13  invalid Artifact
   14  no Artifact fits a Component
   15  an Interface failed
   16  a Component cannot be rolled back
   17  the host did not reboot
   18  the state directory cannot be read or written
   19  cancelled
   20  the System is neither in the old nor in the new state
   21  an Artifact cannot be downloaded
   30  invalid specification of a NIC
   31  there is no such network link
   32  somebody else has the network address
   33  the network link carries the default route of the host
   34  somebody else uses the network link
   35  the network link does not serve the purpose
   40  invalid specification of a vPLC
   41  there is no such vPLC
   42  the container engine cannot be reached
   43  the container engine refused or failed
   44  an image cannot be had
   45  something that is not ours has the name of a container or volume
   46  a vPLC ended by itself too often, or does not get healthy
   47  somebody else has the serial port
   50  invalid PLC program
   51  the runtime of a vPLC does not answer as it should
   52  the runtime of a vPLC is not the one that it was
   53  a PLC program does not compile or does not run
  130  interrupted by Ctrl-C; the deployment goes on
  143  asked to terminate; the deployment goes on";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the System, the deployment and the Components
    ///
    /// Shows what orchestratord is doing, the type of the System, the Manifest that is being or was installed last,
    /// where an open deployment has stopped, what went wrong last, and every Component with its state and version.
    Status,

    /// Show what "install" would do, in order
    ///
    /// Checks the Manifest against the Topology, asks every Component for its identity and what it provides, selects
    /// the Artifacts, and prints one line per Component in the order of the update. Nothing is changed. The exit code
    /// is the one "install" would have had if it had been refused.
    ///
    /// For a Manifest with constraints it says for each step why it is where it is, and where a failure in it would lead.
    Plan {
        /// What to plan.
        #[command(flatten)]
        manifest: ManifestArguments,
        /// Print the steps as a graph instead
        #[arg(long, value_name = "KIND", conflicts_with = "json")]
        graph: Option<Graph>,
    },

    /// Install a Manifest on the System
    ///
    /// Updates every Component of the System to the Artifact that the Manifest selects. If anything fails, the whole
    /// System is rolled back. Components that have what they should have are left alone; if all have, there is nothing
    /// to do, which is a success.
    ///
    /// The Manifest is read here and sent as text. Relative Artifact paths in it start in the directory of the
    /// Manifest, or in the working directory if it comes from standard input.
    Install {
        /// What to install.
        #[command(flatten)]
        manifest: ManifestArguments,
        /// How to go about it.
        #[command(flatten)]
        run: RunArguments,
    },

    /// Go on with the open deployment
    ///
    /// Continues a deployment that stopped before a state, or that waits for a reboot which has happened since. Going
    /// on after a stop before ArtifactCommit commits the update.
    Resume {
        /// How to go about it.
        #[command(flatten)]
        run: RunArguments,
    },

    /// Take the open deployment back
    ///
    /// Returns every Component of the System to its former state. Possible until the cleanup of a deployment begins,
    /// also after the commit.
    Rollback {
        /// How to go about it.
        #[command(flatten)]
        run: RunArguments,
        /// Go on although a Component cannot be rolled back
        ///
        /// The System is inconsistent afterwards, with those Components in the new state and the others in the old.
        #[arg(long)]
        force: bool,
    },

    /// List the Components with state and version
    ///
    /// Lists what orchestratord knows about the Components; no Interface is called.
    Components,

    /// Ask the Components what they provide
    ///
    /// Calls the Interface of every Component and prints what it provides. Components that do not answer are named on
    /// standard error, and the exit code is 15.
    Provides(TopologyArguments),

    /// Ask the Components for their inventory
    ///
    /// As "provides", together with the inventory attributes of every Component. A key with several values is printed
    /// once for each.
    Inventory(TopologyArguments),

    /// List the Jobs that run or ended lately
    ///
    /// A Job is the work on one request. Ended Jobs are remembered for some minutes.
    Jobs,

    /// Follow what happens, until Ctrl-C
    ///
    /// Prints the present state, then every change of the daemon, the deployment, the Components and the Jobs, and the
    /// log lines of the Jobs; or of the network's links and NICs. It outlives restarts of the daemon. Ctrl-C ends it with exit code 0.
    Watch {
        /// What to follow: updates of the System, or the network
        #[arg(value_enum, default_value_t = WatchScope::Update)]
        scope: WatchScope,
    },

    /// Show the network links of the host
    Link {
        /// What to do; they are listed if nothing is said.
        #[command(subcommand)]
        command: Option<LinkCommand>,
    },

    /// Attach NICs to network namespaces
    Nic {
        /// What to do; they are listed if nothing is said.
        #[command(subcommand)]
        command: Option<NicCommand>,
    },

    /// Run virtual PLCs
    Vplc {
        /// What to do.
        #[command(subcommand)]
        command: vplc::VplcCommand,
    },

    /// Print how the host is, as OpenMetrics text
    ///
    /// Prints processor, memory, disks, temperature, load and pressure in the form that Prometheus and others scrape.
    /// With --json the text is the only member of an object.
    Metrics,

    /// Read configuration and Topology again
    ///
    /// Does what "systemctl reload orchestratord" does, but reports what is wrong with the files. An open deployment
    /// keeps the Topology with which it began.
    Reload,

    /// Read, check and write Artifacts; needs no daemon
    Artifact {
        /// What to do.
        #[command(subcommand)]
        command: artifact::ArtifactCommand,
    },

    /// Check Manifests; needs no daemon
    Manifest {
        /// What to do.
        #[command(subcommand)]
        command: ManifestCommand,
    },

    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
        /// Program to complete
        #[arg(long, default_value = "orchestratorctl", value_parser = ["orchestratorctl", "mender-orchestrator"])]
        program: String,
    },

    /// Write man pages into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory.
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },

    /// Answer a call of an Interface program; what those of vPLCs do
    #[command(hide = true)]
    Interface {
        /// What is a Component.
        kind: ComponentKind,
        /// Name of the Interface.
        name: String,
        /// Arguments of the Interface program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// What of a vPLC is a Component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ComponentKind {
    /// Its PLC program.
    VplcProgram,
    /// Its image.
    VplcImage,
}

/// What to do with Manifests.
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Check a Manifest against a Topology, and plan it
    ///
    /// Says what the daemon would refuse: what is malformed, what does not fit the Topology, and, for a Manifest with
    /// constraints, whether the versions it leads to are acceptable together. With --versions it works out the plan from those
    /// versions on, or says why there is none. Artifacts that are not there are judged by the "version" that the Manifest gives
    /// for them. The exit codes are those of "install".
    Check(CheckArguments),
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The Manifest
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// The Topology
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub topology: PathBuf,

    /// File with the Components, if the Topology is split
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub topology_components: Option<PathBuf>,

    /// Versions that the Components of a type have: one for all, or one for each in the order of the Topology
    ///
    /// May be given several times; if it is given at all, then for every type of the Topology.
    #[arg(long, value_name = "TYPE=VERSION[,VERSION...]")]
    pub versions: Vec<String>,

    /// Print the steps as a graph
    #[arg(long, value_name = "KIND", requires = "versions", conflicts_with = "json")]
    pub graph: Option<Graph>,
}

/// A language for graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Graph {
    /// Mermaid, which many Markdown viewers draw
    Mermaid,
    /// DOT, the language of Graphviz
    Dot,
}

/// What to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WatchScope {
    /// Updates of the System.
    Update,
    /// The network.
    Network,
}

/// What to do with links.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// List the links
    List,
    /// Show a link with its counters
    Show {
        /// Name of the link.
        name: String,
    },
}

/// What to do with NICs.
#[derive(Debug, Subcommand)]
pub enum NicCommand {
    /// List the NICs
    List,
    /// Show a NIC
    Show {
        /// Name of the NIC.
        name: String,
    },
    /// Attach a NIC, and wait until it is up
    ///
    /// The specification is read here and sent as text. If the NIC cannot be made right, the command fails with the
    /// reason; the daemon keeps trying until the NIC is detached.
    Attach {
        /// Specification, or "-" for standard input
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Attach it also if its parent or namespace is not there yet, and return at once
        #[arg(long)]
        wait: bool,
    },
    /// Detach a NIC; its link is gone afterwards
    Detach {
        /// Name of the NIC.
        name: String,
    },
}

/// A Manifest and the Topology to plan it for.
#[derive(Debug, Args)]
pub struct ManifestArguments {
    /// Manifest, or "-" for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Where the Components are listed.
    #[command(flatten)]
    pub topology: TopologyArguments,
}

/// The Topology.
#[derive(Debug, Args)]
pub struct TopologyArguments {
    /// File with the Components of a split Topology
    ///
    /// Takes the place of the file that the daemon's configuration names. It may hold nothing but the list of
    /// Components.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub topology_components: Option<PathBuf>,
}

/// How to run a deployment.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Stop before this state; may be given several times
    ///
    /// The deployment stays open; "resume" goes on and "rollback" goes back. ArtifactCommit: everything is installed,
    /// nothing committed. ArtifactRollback: something failed, nothing is rolled back yet. Cleanup: committed or rolled
    /// back, the last chance to go back after a commit.
    #[arg(long, value_name = "STATE", value_parser = STOP_POINTS)]
    pub stop_before: Vec<String>,

    /// Do not reboot the host; end with exit code 4 instead
    ///
    /// Whoever reboots the host calls "orchestratorctl resume" afterwards.
    #[arg(long)]
    pub defer_reboot: bool,

    /// Print the Job and return as soon as the daemon has accepted the request
    #[arg(long)]
    pub detach: bool,

    /// Show all log lines of the Job, not just warnings and errors
    #[arg(short, long)]
    pub verbose: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use orchestratord::core::error::Kind;
    use orchestratord::update::handle::StopPoint;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn stop_points_are_those_of_the_daemon() {
        for word in STOP_POINTS {
            assert_eq!(word.parse::<StopPoint>().unwrap().as_str(), word);
        }
    }

    #[test]
    fn the_help_lists_every_exit_code() {
        for kind in Kind::ALL {
            let code = format!("\n{:>5}  ", kind.exit_code());
            assert!(EXIT_CODES.contains(&code), "{kind:?}");
        }
    }

    #[test]
    fn the_reference_names_every_command_and_exit_code() {
        let reference = include_str!("../../docs/cli.md");
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            let parts = command.get_subcommands().map(|part| format!("`{name} {}", part.get_name()));
            for row in parts.chain([format!("`{name}")]) {
                assert!(reference.contains(&format!("| {row}")), "{row}");
            }
        }
        for kind in Kind::ALL {
            let last = kind.dbus_name().rsplit('.').next().unwrap_or_default();
            let row = reference.lines().find(|line| line.starts_with(&format!("| {} |", kind.exit_code())));
            assert!(row.is_some_and(|row| row.contains(last)), "{kind:?}");
        }
    }

    #[test]
    fn every_command_has_a_page_worth_of_help() {
        for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
            let parts = command.get_subcommands().count();
            assert!(parts > 0 || about.contains("\n\n"), "{}: {about}", command.get_name());
        }
    }

    #[test]
    fn arguments_are_read_as_written() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let arguments = parse(
            "orchestratorctl install --stop-before Cleanup m.yaml --stop-before ArtifactCommit --defer-reboot -t c.yaml \
             --json",
        );
        let arguments = arguments.unwrap();
        assert!(arguments.json);
        let Command::Install { manifest, run } = arguments.command else { panic!("{arguments:?}") };
        assert_eq!(manifest.file, PathBuf::from("m.yaml"));
        assert_eq!(manifest.topology.topology_components, Some(PathBuf::from("c.yaml")));
        assert_eq!(run.stop_before, ["Cleanup", "ArtifactCommit"]);
        assert!(run.defer_reboot && !run.detach && !run.verbose);

        let Command::Rollback { force, .. } = parse("orchestratorctl rollback --force").unwrap().command else {
            panic!()
        };
        assert!(force);
        let Command::Plan { manifest, .. } = parse("orchestratorctl plan -").unwrap().command else { panic!() };
        assert_eq!(manifest.file, PathBuf::from("-"));

        for (line, expected) in [
            ("orchestratorctl", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("orchestratorctl fly", ErrorKind::InvalidSubcommand),
            ("orchestratorctl install", ErrorKind::MissingRequiredArgument),
            ("orchestratorctl install a b", ErrorKind::UnknownArgument),
            ("orchestratorctl install a --stop-before Download", ErrorKind::InvalidValue),
            ("orchestratorctl install a --stop-before artifactcommit", ErrorKind::InvalidValue),
            ("orchestratorctl install a --force", ErrorKind::UnknownArgument),
            ("orchestratorctl resume m.yaml", ErrorKind::UnknownArgument),
            ("orchestratorctl status --detach", ErrorKind::UnknownArgument),
            ("orchestratorctl -V", ErrorKind::DisplayVersion),
            ("orchestratorctl plan --help", ErrorKind::DisplayHelp),
        ] {
            assert_eq!(parse(line).unwrap_err().kind(), expected, "{line}");
        }
    }
}
