//! The Topology: what a System consists of.

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::check_header;
use crate::core::document::{Document, DocumentError, DocumentKind, Field, NAME_LIMIT, Warnings};

/// A System may have this many Components.
pub const COMPONENTS_LIMIT: usize = 10_000;
/// A Component may have this many `interface_args`.
pub const ARGUMENTS_LIMIT: usize = 256;
/// One of the `interface_args` may have this many bytes.
pub const ARGUMENT_LIMIT: usize = 4_096;
/// All `interface_args` of a Component together may have this many bytes; the kernel's own limit is further away.
pub const ARGUMENTS_SIZE_LIMIT: usize = 64 * 1024;

/// A Topology that is well-formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The System type.
    pub system_type: String,
    /// The Components, in the order of the file; at least one.
    pub components: Vec<TopologyComponent>,
    /// Remarks with their place, such as unknown keys.
    pub warnings: Vec<String>,
}

/// One Component of a Topology. The type may occur several times; what tells such Components apart is their identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyComponent {
    /// Component type; also the device type that its Artifacts must be made for.
    pub component_type: String,
    /// Name of the Interface, a single path component.
    pub interface: String,
    /// Arguments for the Interface, in order.
    pub interface_args: Vec<String>,
}

impl Topology {
    /// Reads a Topology. Its `components` stand either in the main document or in the other one; both or neither is an
    /// error, and so are the keys of the main document in the other one.
    pub fn parse(main: &Document, components: Option<&Document>) -> Result<Self, DocumentError> {
        let mut warnings = Warnings::default();
        let (system_type, mut list) = main.load(DocumentKind::Topology, &mut warnings, |section, warnings| {
            check_header(section, "topology")?;
            let system_type = section.required("system_type")?.name(NAME_LIMIT)?.to_owned();
            let list = match (section.optional("components"), components) {
                (Some(field), None) => Some(read_components(&field, warnings)?),
                (None, Some(_)) => None,
                (None, None) => {
                    return Err(section.invalid("has no \"components\", and no other file is named that has them."));
                }
                (Some(field), Some(other)) => {
                    return Err(field.invalid_key(format!(
                        "must not stand here, because \"{}\" has the Components; they belong in exactly one place.",
                        other.origin
                    )));
                }
            };
            Ok((system_type, list))
        })?;
        if let Some(document) = components {
            list = Some(document.load(DocumentKind::Topology, &mut warnings, |section, warnings| {
                for key in ["api_version", "kind", "system_type"] {
                    if let Some(field) = section.optional(key) {
                        return Err(field.invalid_key(format!("must stand in \"{}\" only.", main.origin)));
                    }
                }
                read_components(&section.required("components")?, warnings)
            })?);
        }
        Ok(Self { system_type, components: list.unwrap_or_default(), warnings: warnings.into_vec() })
    }

    /// Reads and parses the files of a Topology. Blocks on the disk.
    pub fn read(main: &Path, components: Option<&Path>) -> Result<Self, DocumentError> {
        let components = components.map(|path| Document::read(path, DocumentKind::Topology)).transpose()?;
        Self::parse(&Document::read(main, DocumentKind::Topology)?, components.as_ref())
    }
}

fn read_components(field: &Field<'_>, warnings: &mut Warnings) -> Result<Vec<TopologyComponent>, DocumentError> {
    let items = field.list(COMPONENTS_LIMIT)?;
    if items.is_empty() {
        return Err(field.invalid("is empty; a System has at least one Component."));
    }
    items.into_iter().map(|item| TopologyComponent::read(item, warnings)).collect()
}

impl TopologyComponent {
    fn read(field: Field<'_>, warnings: &mut Warnings) -> Result<Self, DocumentError> {
        let mut section = field.section()?;
        let field = section.required("component_type")?;
        let component_type = field.path_component()?.to_owned();
        if component_type.contains('.') {
            field.remark(
                warnings,
                "contains \".\", which makes the lines of show-provides and show-inventory ambiguous.",
            );
        }
        let interface = match section.optional("interface") {
            Some(field) => field.path_component()?.to_owned(),
            None => component_type.clone(),
        };
        let interface_args = match section.optional("interface_args") {
            Some(field) => read_arguments(&field)?,
            None => Vec::new(),
        };
        section.warn_of_unknown_keys(warnings);
        Ok(Self { component_type, interface, interface_args })
    }
}

fn read_arguments(field: &Field<'_>) -> Result<Vec<String>, DocumentError> {
    let mut size = 0_usize;
    let mut arguments = Vec::new();
    for item in field.list(ARGUMENTS_LIMIT)? {
        let argument = item.text()?;
        if argument.len() > ARGUMENT_LIMIT {
            return Err(item.invalid(format!("is longer than {ARGUMENT_LIMIT} bytes.")));
        }
        // Only an escape can bring one here, and no program can be given one.
        if argument.contains('\0') {
            return Err(item.invalid("contains a NUL character."));
        }
        size += argument.len();
        arguments.push(argument.to_owned());
    }
    if size > ARGUMENTS_SIZE_LIMIT {
        return Err(field.invalid(format!("has {size} bytes in all; at most {ARGUMENTS_SIZE_LIMIT} are allowed.")));
    }
    Ok(arguments)
}
