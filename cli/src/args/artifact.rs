//! The command line of `orchestratorctl artifact`; the options that write have the names that `mender-artifact` has.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use orchestratord::update::artifact::Compression;

/// What to do with Artifacts.
#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// Show what an Artifact is, needs, provides and holds
    ///
    /// Reads the whole Artifact and checks everything that can be checked, then prints its header, its payload files with
    /// sizes and checksums, and whether it is signed. With a key, an Artifact that is not signed by it is refused.
    Read(ReadArguments),

    /// Check an Artifact and say in one line what is known about it
    ///
    /// Reads the whole Artifact: its structure, the checksums of all its members, and with a key its signature. The exit
    /// code is 13 if anything is wrong.
    Verify(ReadArguments),

    /// Print what a Component provides once an Artifact is installed; for Interface programs
    ///
    /// Reads what the Component provides now from standard input, one key=value per line, and the header of the Artifact
    /// from the File API directory that the Interface program was called with. Prints what the Component provides
    /// afterwards: what the Artifact clears goes, what it provides comes, then its name and group.
    ProvidesAfter {
        /// The File API directory
        #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
        tree: PathBuf,
    },

    /// Write an Artifact
    Write {
        /// What kind.
        #[command(subcommand)]
        kind: WriteCommand,
    },
}

/// An Artifact to read.
#[derive(Debug, Args)]
pub struct ReadArguments {
    /// The Artifact
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// PEM file with a public key that may have signed it; may be given several times
    #[arg(short, long = "key", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub keys: Vec<PathBuf>,
}

/// Kinds of Artifact.
#[derive(Debug, Subcommand)]
pub enum WriteCommand {
    /// Write an Artifact for an Interface or update module
    ///
    /// The options are those of "mender-artifact write module-image". With SOURCE_DATE_EPOCH in the environment, or
    /// without, the same input makes the same bytes, apart from ECDSA signatures.
    ModuleImage(Box<ModuleImageArguments>),

    /// Write an Artifact that carries a Manifest to the System device
    ///
    /// Does what "mender-orchestrator-manifest-gen" does: the payload type is mender-orchestrator-manifest, and every
    /// System type has to stand in the Manifest's system_types_compatible.
    Manifest(ManifestArtifactArguments),
}

/// Output of a written Artifact.
#[derive(Debug, Args)]
pub struct WriteArguments {
    /// PEM file with the private key that signs the Artifact: RSA, or ECDSA on P-256
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,

    /// Compression of header and payload: none, gzip, lzma (xz) or zstd
    #[arg(long, value_name = "NAME", default_value = "gzip")]
    pub compression: Compression,
}

/// An Artifact for an Interface or update module.
#[derive(Debug, Args)]
pub struct ModuleImageArguments {
    /// Name of the Artifact
    #[arg(short = 'n', long, value_name = "NAME")]
    pub artifact_name: String,

    /// Type of device or Component that the Artifact fits; may be given several times
    #[arg(short = 't', long = "device-type", value_name = "TYPE", required = true)]
    pub device_types: Vec<String>,

    /// Type of payload: the name of the Interface or update module
    #[arg(short = 'T', long = "type", value_name = "TYPE")]
    pub payload_type: String,

    /// File to include in the payload; may be given several times
    #[arg(short, long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,

    /// File for the Artifact
    #[arg(short, long, value_name = "FILE", default_value = "artifact.mender", value_hint = ValueHint::FilePath)]
    pub output_path: PathBuf,

    /// Name of an Artifact that has to be installed before; of several, one has to be
    #[arg(short = 'N', long = "artifact-name-depends", value_name = "NAME")]
    pub name_depends: Vec<String>,

    /// Group of which the device has to be a member; of several, one is enough
    #[arg(short = 'G', long = "depends-groups", value_name = "GROUP")]
    pub group_depends: Vec<String>,

    /// Group that the Artifact provides
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub provides_group: Option<String>,

    /// What the target has to provide; the same key with several values means one of them
    #[arg(short, long, value_name = "KEY:VALUE", value_parser = pair)]
    pub depends: Vec<(String, String)>,

    /// What the target provides once the Artifact is installed
    #[arg(short, long, value_name = "KEY:VALUE", value_parser = pair)]
    pub provides: Vec<(String, String)>,

    /// Pattern of the keys that the target provides no longer; may be given several times
    #[arg(long = "clears-provides", value_name = "PATTERN")]
    pub clears: Vec<String>,

    /// File with the meta-data, a JSON object
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub meta_data: Option<PathBuf>,

    /// State script, for Mender clients; may be given several times
    #[arg(short, long = "script", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub scripts: Vec<PathBuf>,

    /// First part of the key with the software version, in place of rootfs-image
    #[arg(long, value_name = "NAME")]
    pub software_filesystem: Option<String>,

    /// Second part of the key with the software version, in place of the payload type
    #[arg(long, value_name = "NAME")]
    pub software_name: Option<String>,

    /// The software version, in place of the Artifact's name
    #[arg(long, value_name = "VERSION")]
    pub software_version: Option<String>,

    /// Provide no software version
    #[arg(long)]
    pub no_default_software_version: bool,

    /// Do not clear the key of the software version
    #[arg(long)]
    pub no_default_clears_provides: bool,

    /// Key and compression.
    #[command(flatten)]
    pub write: WriteArguments,
}

/// An Artifact that carries a Manifest.
#[derive(Debug, Args)]
pub struct ManifestArtifactArguments {
    /// The Manifest, a file that ends in .yaml or .yml
    #[arg(value_name = "MANIFEST", value_hint = ValueHint::FilePath)]
    pub manifest: PathBuf,

    /// Type of System that the Artifact fits; may be given several times
    #[arg(short = 't', long = "system-type", value_name = "TYPE", required = true)]
    pub system_types: Vec<String>,

    /// Name of the Artifact, in place of the Manifest's own
    #[arg(short = 'n', long, value_name = "NAME")]
    pub artifact_name: Option<String>,

    /// File for the Artifact
    #[arg(
        short, long, value_name = "FILE", default_value = "orchestrator-manifest.mender", value_hint = ValueHint::FilePath
    )]
    pub output_path: PathBuf,

    /// Key and compression.
    #[command(flatten)]
    pub write: WriteArguments,
}

/// Splits at the first colon, as `mender-artifact` does: a value may have colons, a key may not.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected a key, a colon and a value".to_owned()),
    }
}
