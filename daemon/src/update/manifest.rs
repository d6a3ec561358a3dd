//! The Manifest: the state that a System is to have.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ring::digest::{SHA256, digest};

use super::constraint::{CONSTRAINTS_LIMIT, Constraint};
use super::topology::Topology;
use super::version::Condition;
use crate::core::document::{Document, DocumentError, DocumentKind, Field, NAME_LIMIT, Section, Warnings, excerpt};
use crate::core::error::{Error, Kind};

/// The version of the document format that Manifest and Topology name in `api_version`.
pub const API_VERSION: &str = "mender/v1";
/// The version of Manifests that say what is acceptable; see `docs/constraints.md`.
pub const CONSTRAINTS_API_VERSION: &str = "orchestrator/v1";
/// A Component type may have this many intermediate Artifacts.
pub const INTERMEDIATES_LIMIT: usize = 16;
/// A Manifest may name this many Component types.
pub const COMPONENT_TYPES_LIMIT: usize = 10_000;
/// A Manifest may name this many System types.
pub const SYSTEM_TYPES_LIMIT: usize = 1_000;
/// An `artifact_path` may have this many bytes.
pub const PATH_LIMIT: usize = 4_096;

/// A Manifest that is well-formed. Whether it fits a System is for [`Manifest::check_system`] to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its name; free text of one line.
    pub name: String,
    /// The System types it is made for; at least one.
    pub system_types_compatible: Vec<String>,
    /// What each Component type is to have; at least one.
    pub component_types: BTreeMap<String, ComponentType>,
    /// Who decides on the order of the work.
    pub dialect: Dialect,
    /// Which combinations of versions are acceptable; none in [`Dialect::Mender`].
    pub constraints: Vec<Constraint>,
    /// Remarks with their place, such as unknown keys.
    pub warnings: Vec<String>,
    /// SHA-256 of the text, in lower-case hex; names the Manifest in the store.
    pub digest: String,
}

/// Which documents this is one of, and so who decides on the order of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `mender/v1`: the Manifest, by `order`.
    Mender,
    /// `orchestrator/v1`: the planner, by the constraints.
    Orchestrator,
}

/// What the Components of one type are to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComponentType {
    /// The Artifact that they are to have in the end.
    pub artifact: ArtifactEntry,
    /// Order group, 1 to 100; lower ones are updated earlier. Equal ones side by side in [`Dialect::Mender`], where it is always
    /// there.
    pub order: Option<u32>,
    /// Artifacts that may be installed on the way.
    pub intermediates: Vec<ArtifactEntry>,
    /// An update of such a Component is expected to reboot the host.
    pub reboots_host: bool,
    /// Such a Component is expected not to support rollback.
    pub stays: bool,
}

/// An Artifact as a Manifest names it. At least one of path and name is set; the path wins if its file exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArtifactEntry {
    /// Name of the Artifact, that is of the Release on a server.
    pub artifact_name: Option<String>,
    /// An Artifact in a local file; a relative path starts at the place of the Manifest.
    pub artifact_path: Option<PathBuf>,
    /// The version it brings, for whoever cannot read the Artifact.
    pub version: Option<String>,
    /// On which versions it may be installed, besides what the Artifact itself depends on.
    pub from: Option<Condition>,
    /// Key in the Manifest, such as `component_types.rtos.intermediates[0]`.
    pub key: String,
    /// Where it stands, as `origin:line:column`.
    pub position: String,
}

/// A Manifest that does not fit the System.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is made for other System types.
    #[error(
        "The Manifest \"{manifest}\" is not for this System: its \"system_types_compatible\" has {}, but the Topology \
         has the system_type \"{system_type}\".",
        names(compatible)
    )]
    SystemType {
        /// Name of the Manifest.
        manifest: String,
        /// The System type of the Topology.
        system_type: String,
        /// The System types of the Manifest.
        compatible: Vec<String>,
    },
    /// It says nothing about Component types that the System has.
    #[error(
        "The Manifest \"{manifest}\" has no entry in \"component_types\" for {} of the Topology; every Component must be \
         covered.",
        names(missing)
    )]
    ComponentTypes {
        /// Name of the Manifest.
        manifest: String,
        /// All Component types that are missing, sorted.
        missing: Vec<String>,
    },
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        Self::new(Kind::InvalidManifest, error.to_string())
    }
}

impl Manifest {
    /// Reads a Manifest. Fields and ranges are those of the Mender documentation; empty lists are refused, unknown keys
    /// are warnings.
    pub fn parse(document: &Document) -> Result<Self, DocumentError> {
        let mut warnings = Warnings::default();
        let mut manifest = document.load(DocumentKind::Manifest, &mut warnings, Self::read)?;
        manifest.warnings = warnings.into_vec();
        manifest.digest = sha256(&document.text);
        Ok(manifest)
    }

    fn read(section: &mut Section<'_>, warnings: &mut Warnings) -> Result<Self, DocumentError> {
        let field = section.required("api_version")?;
        let dialect = if field.text()? == CONSTRAINTS_API_VERSION {
            Dialect::Orchestrator
        } else {
            field.constant(API_VERSION)?;
            Dialect::Mender
        };
        section.required("kind")?.constant("manifest")?;
        let name = section.required("name")?.name(NAME_LIMIT)?.to_owned();

        let field = section.required("system_types_compatible")?;
        let types = field.list(SYSTEM_TYPES_LIMIT)?;
        if types.is_empty() {
            return Err(field.invalid("is empty; name at least one System type."));
        }
        let system_types_compatible =
            types.iter().map(|field| field.name(NAME_LIMIT).map(str::to_owned)).collect::<Result<_, _>>()?;

        let mut types = section.required("component_types")?.section()?;
        let entries = types.all();
        if entries.is_empty() {
            return Err(types.invalid("is empty; name at least one Component type."));
        }
        if entries.len() > COMPONENT_TYPES_LIMIT {
            let count = entries.len();
            return Err(
                types.invalid(format!("has {count} Component types; at most {COMPONENT_TYPES_LIMIT} are allowed."))
            );
        }
        let mut component_types = BTreeMap::new();
        for (component_type, field) in entries {
            field.check_key(component_type)?;
            component_types.insert(component_type.to_owned(), ComponentType::read(field, dialect, warnings)?);
        }
        let mut constraints = Vec::new();
        if dialect == Dialect::Orchestrator {
            if let Some(list) = section.optional("constraints") {
                for field in list.list(CONSTRAINTS_LIMIT)? {
                    constraints.push(read_constraint(field, &component_types)?);
                }
            }
            section.refuse_unknown_keys()?;
        }
        let (warnings, digest) = (Vec::new(), String::new());
        Ok(Self { name, system_types_compatible, component_types, dialect, constraints, warnings, digest })
    }

    /// Whether this Manifest fits a System: it names the System type and covers every Component type of the Topology.
    /// Component types that the System does not have are allowed, one Manifest may serve several Systems.
    pub fn check_system(&self, topology: &Topology) -> Result<(), ManifestError> {
        if !self.system_types_compatible.contains(&topology.system_type) {
            return Err(ManifestError::SystemType {
                manifest: self.name.clone(),
                system_type: topology.system_type.clone(),
                compatible: self.system_types_compatible.clone(),
            });
        }
        let present: BTreeSet<&String> =
            topology.components.iter().map(|component| &component.component_type).collect();
        let missing: Vec<String> =
            present.into_iter().filter(|name| !self.component_types.contains_key(*name)).cloned().collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(ManifestError::ComponentTypes { manifest: self.name.clone(), missing })
        }
    }

    /// The Component types of this Manifest that the System does not have, sorted; worth a line in the log.
    pub fn unused_types<'m>(&'m self, topology: &Topology) -> Vec<&'m str> {
        let present: BTreeSet<&str> =
            topology.components.iter().map(|component| component.component_type.as_str()).collect();
        self.component_types.keys().map(String::as_str).filter(|name| !present.contains(name)).collect()
    }
}

/// Reads a constraint, which may speak of Component types of this Manifest only.
fn read_constraint(
    field: Field<'_>,
    component_types: &BTreeMap<String, ComponentType>,
) -> Result<Constraint, DocumentError> {
    let place = field.place();
    let constraint = Constraint::read(field)?;
    match constraint.types.iter().find(|name| !component_types.contains_key(*name)) {
        None => Ok(constraint),
        Some(name) => {
            let name = excerpt(name);
            Err(place.invalid(format!("speaks of \"{name}\", which has no entry in \"component_types\".")))
        }
    }
}

impl ComponentType {
    fn read(field: Field<'_>, dialect: Dialect, warnings: &mut Warnings) -> Result<Self, DocumentError> {
        let (key, position) = (field.key().to_owned(), field.position());
        let mut section = field.section()?;
        let mut artifact = ArtifactEntry::read_names(&mut section)?;
        (artifact.key, artifact.position) = (key, position);
        if dialect == Dialect::Mender {
            let mut strategy = section.required("update_strategy")?.section()?;
            let order = Some(strategy.required("order")?.integer(1..=100)?);
            artifact.check(&section)?;
            section.warn_of_unknown_keys(warnings);
            strategy.warn_of_unknown_keys(warnings);
            return Ok(Self { artifact, order, ..Self::default() });
        }
        let mut order = None;
        if let Some(field) = section.optional("update_strategy") {
            let mut strategy = field.section()?;
            order = strategy.optional("order").map(|field| field.integer(1..=100)).transpose()?;
            strategy.refuse_unknown_keys()?;
        }
        artifact.check(&section)?;
        artifact.read_versions(&mut section)?;
        let reboots_host = word(&mut section, "reboot", ["none", "host"])? == Some("host");
        let stays = word(&mut section, "rollback", ["supported", "unsupported"])? == Some("unsupported");
        let mut intermediates = Vec::new();
        if let Some(list) = section.optional("intermediates") {
            for field in list.list(INTERMEDIATES_LIMIT)? {
                intermediates.push(ArtifactEntry::read(field)?);
            }
        }
        section.refuse_unknown_keys()?;
        Ok(Self { artifact, order, intermediates, reboots_host, stays })
    }
}

/// One of two words, if the key is there.
fn word<'w>(section: &mut Section<'_>, key: &str, words: [&'w str; 2]) -> Result<Option<&'w str>, DocumentError> {
    let Some(field) = section.optional(key) else { return Ok(None) };
    let text = field.text()?;
    let [first, second] = words;
    let refused = || field.invalid(format!("is \"{}\"; expected \"{first}\" or \"{second}\".", excerpt(text)));
    words.into_iter().find(|word| *word == text).map(Some).ok_or_else(refused)
}

impl ArtifactEntry {
    /// An intermediate Artifact.
    fn read(field: Field<'_>) -> Result<Self, DocumentError> {
        let (key, position) = (field.key().to_owned(), field.position());
        let mut section = field.section()?;
        let mut entry = Self { key, position, ..Self::read_names(&mut section)? };
        entry.check(&section)?;
        entry.read_versions(&mut section)?;
        section.refuse_unknown_keys()?;
        Ok(entry)
    }

    fn read_names(section: &mut Section<'_>) -> Result<Self, DocumentError> {
        let artifact_name = match section.optional("artifact_name") {
            Some(field) => Some(field.name(NAME_LIMIT)?.to_owned()),
            None => None,
        };
        let artifact_path = match section.optional("artifact_path") {
            Some(field) => Some(PathBuf::from(field.name(PATH_LIMIT)?)),
            None => None,
        };
        Ok(Self { artifact_name, artifact_path, ..Self::default() })
    }

    fn read_versions(&mut self, section: &mut Section<'_>) -> Result<(), DocumentError> {
        self.version =
            section.optional("version").map(|field| field.name(NAME_LIMIT).map(str::to_owned)).transpose()?;
        self.from = section.optional("from").map(|field| Condition::read(&field)).transpose()?;
        Ok(())
    }

    fn check(&self, section: &Section<'_>) -> Result<(), DocumentError> {
        if self.artifact_name.is_none() && self.artifact_path.is_none() {
            return Err(section.invalid("must have an \"artifact_name\" or an \"artifact_path\"."));
        }
        Ok(())
    }
}

/// Checks `api_version` and `kind`, the head of every document.
pub(super) fn check_header(section: &mut Section<'_>, kind: &str) -> Result<(), DocumentError> {
    section.required("api_version")?.constant(API_VERSION)?;
    section.required("kind")?.constant(kind)
}

fn sha256(text: &str) -> String {
    use std::fmt::Write as _;

    let mut hex = String::with_capacity(64);
    for byte in digest(&SHA256, text.as_bytes()).as_ref() {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Names for a message: quoted, the first ten of them.
fn names(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("\"{}\"", excerpt(name))).collect();
    let rest = names.len().saturating_sub(SHOWN);
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}
