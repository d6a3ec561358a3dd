//! Artifacts: read, checked and written here, without the daemon.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use orchestratord::core::document::Document;
use orchestratord::core::error::{Error, Kind};
use orchestratord::update::artifact::format::{META_DATA_LIMIT, hex};
use orchestratord::update::artifact::writer::{SoftwareVersion, source_date_epoch};
use orchestratord::update::artifact::{ArtifactError, ArtifactSpec, SigningKey, Summary, VerifyKeys, verify, write};
use orchestratord::update::manifest::Manifest;
use serde::Serialize;

use crate::args::artifact::{
    ArtifactCommand, ManifestArtifactArguments, ModuleImageArguments, ReadArguments, WriteArguments, WriteCommand,
};
use crate::failure::{Failure, SUCCESS};
use crate::input;
use crate::output::{printable, show, size};
use crate::provides;

impl From<Error> for Failure {
    fn from(Error { kind, message }: Error) -> Self {
        Self::new(kind, message)
    }
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        Error::from(error).into()
    }
}

/// Runs a command; returns the exit code.
pub fn run(command: ArtifactCommand, json: bool) -> Result<u8, Failure> {
    match command {
        ArtifactCommand::Read(arguments) => {
            let contents = Contents::read(&arguments)?;
            show(json, &contents, || contents.text())?;
        }
        ArtifactCommand::Verify(arguments) => {
            let contents = Contents::read(&arguments)?;
            show(json, &contents, || format!("{}\n", contents.verdict(&arguments.file)))?;
        }
        ArtifactCommand::ProvidesAfter { tree } => provides::after(&tree)?,
        ArtifactCommand::Write { kind } => match kind {
            WriteCommand::ModuleImage(arguments) => module_image(*arguments)?,
            WriteCommand::Manifest(arguments) => manifest(&arguments)?,
        },
    }
    Ok(SUCCESS)
}

/// What an Artifact holds. The serialised shape is documented in `docs/cli.md`.
#[derive(Debug, Serialize)]
struct Contents {
    name: String,
    group: Option<String>,
    device_types: Vec<String>,
    payload_type: String,
    provides: BTreeMap<String, String>,
    depends: BTreeMap<String, Vec<String>>,
    clears_provides: Option<Vec<String>>,
    scripts: Vec<String>,
    meta_data: Option<serde_json::Value>,
    /// `none`, `unverified` or `verified`.
    signature: &'static str,
    verified_with: Option<PathBuf>,
    header_compression: String,
    payload_compression: String,
    size: u64,
    files: Vec<FileContents>,
}

#[derive(Debug, Serialize)]
struct FileContents {
    name: String,
    size: u64,
    sha256: String,
}

impl Contents {
    fn read(arguments: &ReadArguments) -> Result<Self, Failure> {
        let keys = if arguments.keys.is_empty() { VerifyKeys::none() } else { VerifyKeys::load(&arguments.keys)? };
        Ok(Self::new(verify(&arguments.file, &keys)?))
    }

    fn new(summary: Summary) -> Self {
        let header = summary.header;
        let signature = match (header.signed, &header.verified_with) {
            (_, Some(_)) => "verified",
            (true, None) => "unverified",
            (false, None) => "none",
        };
        let file = |file: orchestratord::update::artifact::FileSummary| FileContents {
            name: file.name,
            size: file.size,
            sha256: hex(&file.sha256),
        };
        Self {
            name: header.artifact_name,
            group: header.artifact_group,
            device_types: header.device_types,
            payload_type: header.payload_type,
            provides: header.provides,
            depends: header.depends,
            clears_provides: header.clears_provides,
            scripts: header.scripts,
            meta_data: serde_json::from_slice(&header.raw_meta_data).ok(),
            signature,
            verified_with: header.verified_with,
            header_compression: header.compression.to_string(),
            payload_compression: summary.data_compression.to_string(),
            size: summary.size,
            files: summary.files.into_iter().map(file).collect(),
        }
    }

    fn signature_text(&self) -> String {
        match (&self.verified_with, self.signature) {
            (Some(key), _) => format!("verified with \"{}\"", key.display()),
            (None, "none") => "none".to_owned(),
            (None, _) => "present, not verified (no key is given)".to_owned(),
        }
    }

    fn verdict(&self, file: &Path) -> String {
        let signature = match (&self.verified_with, self.signature) {
            (Some(key), _) => format!("signature verified with \"{}\"", key.display()),
            (None, "none") => "not signed".to_owned(),
            (None, _) => "signed, but not verified because no key is given".to_owned(),
        };
        let files = self.files.len();
        let plural = if files == 1 { "" } else { "s" };
        printable(&format!("\"{}\" is sound: {files} payload file{plural}, {signature}.", file.display()))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let list = |values: &[String]| if values.is_empty() { "-".to_owned() } else { values.join(", ") };
        let mut line = |name: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<16}{}", format!("{name}:"), printable(value));
        };
        line("Artifact", &self.name);
        line("Group", self.group.as_deref().unwrap_or("-"));
        line("Device types", &list(&self.device_types));
        line("Payload type", &self.payload_type);
        let compression = format!("header {}, payload {}", self.header_compression, self.payload_compression);
        line("Compression", &compression);
        line("Size", &size(self.size));
        line("Signature", &self.signature_text());
        // What is absent is not the same as what is empty: without a list, everything is cleared.
        line("Clears", &self.clears_provides.as_deref().map_or_else(|| "everything (no list)".to_owned(), list));
        line("State scripts", &list(&self.scripts));
        line("Meta-data", &self.meta_data.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string));
        for (key, value) in &self.provides {
            line("Provides", &format!("{key} = {value}"));
        }
        for (key, values) in &self.depends {
            line("Depends", &format!("{key} = {}", values.join(" | ")));
        }
        for file in &self.files {
            line("File", &format!("{}, {}, sha256 {}", file.name, size(file.size), file.sha256));
        }
        text
    }
}

fn module_image(arguments: ModuleImageArguments) -> Result<(), Failure> {
    let mut spec = ArtifactSpec::module_image(
        &arguments.artifact_name,
        arguments.device_types,
        &arguments.payload_type,
        arguments.files,
    );
    spec.group = arguments.provides_group;
    spec.name_depends = arguments.name_depends;
    spec.group_depends = arguments.group_depends;
    for (key, value) in arguments.depends {
        spec.depends.entry(key).or_default().push(value);
    }
    for (key, value) in arguments.provides {
        if let Some(other) = spec.provides.insert(key.clone(), value) {
            let message = format!("The option \"--provides\" gives the key \"{key}\" twice, first as \"{other}\".");
            return Err(Failure::new(Kind::InvalidArgs, message));
        }
    }
    spec.clears = arguments.clears;
    spec.meta_data = arguments.meta_data.as_deref().map(meta_data).transpose()?;
    spec.scripts = arguments.scripts;
    spec.software = SoftwareVersion {
        filesystem: arguments.software_filesystem,
        name: arguments.software_name,
        version: arguments.software_version,
        no_version: arguments.no_default_software_version,
        no_clears: arguments.no_default_clears_provides,
    };
    save(spec, &arguments.write, &arguments.output_path)
}

fn meta_data(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(META_DATA_LIMIT + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        Failure::new(Kind::Failed, format!("Cannot read the meta-data \"{}\": {error}.", path.display()))
    })?;
    Ok(bytes)
}

fn manifest(arguments: &ManifestArtifactArguments) -> Result<(), Failure> {
    let path = &arguments.manifest;
    let refuse = |message: String| {
        Failure::new(Kind::InvalidManifest, format!("The Manifest \"{}\" {message}.", path.display()))
    };
    // The update module on the System device takes no other name.
    if !path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        return Err(refuse("does not end in \".yaml\" or \".yml\"".to_owned()));
    }
    let text = input::manifest(path)?.text;
    let manifest = Manifest::parse(&Document::new(path.display().to_string(), text)).map_err(Error::from)?;
    let listed = &manifest.system_types_compatible;
    if let Some(missing) = arguments.system_types.iter().find(|given| !listed.contains(given)) {
        return Err(refuse(format!("does not list the System type \"{missing}\" in \"system_types_compatible\"")));
    }
    let name = arguments.artifact_name.as_deref().unwrap_or(&manifest.name);
    let spec = ArtifactSpec::manifest(name, arguments.system_types.clone(), path.clone());
    save(spec, &arguments.write, &arguments.output_path)
}

fn save(mut spec: ArtifactSpec, arguments: &WriteArguments, path: &Path) -> Result<(), Failure> {
    spec.compression = arguments.compression;
    spec.modified = source_date_epoch()?;
    let key = arguments.key.as_deref().map(SigningKey::load).transpose()?;
    Ok(write(&spec, key.as_ref(), path)?)
}
