//! Which Artifact a Component gets, if any. Pure: Provides and candidates in, decision out.
//!
//! The rules are those of the Mender documentation on Artifact selection and compatibility, in its order: what is
//! installed already, then what the Artifact depends on, then the size.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use super::answers::{MENDER_VERSION_KEY, version_key};
use super::artifact::Header;
use super::component::ComponentKey;
use crate::core::document::excerpt;
use crate::core::error::{Error, Kind};

/// Key of the Artifact's name, in Provides and in what an Artifact depends on.
pub const ARTIFACT_NAME: &str = "artifact_name";
/// Key of the Artifact's group.
pub const ARTIFACT_GROUP: &str = "artifact_group";
/// Key that is never compared with Provides, but with the Component type.
pub const DEVICE_TYPE: &str = "device_type";

/// An Artifact that may be installed, as far as its headers tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Size of the Artifact in bytes.
    pub size: u64,
    /// Where it comes from, for messages and to choose between Artifacts of one size: a path, address or id.
    pub source: String,
    /// Device types it is made for (`artifact_depends.device_type`).
    pub device_types: Vec<String>,
    /// Name of the Artifact.
    pub artifact_name: String,
    /// Group of the Artifact.
    pub artifact_group: Option<String>,
    /// What it provides, without name and group.
    pub provides: BTreeMap<String, String>,
    /// What it depends on, including header-level `artifact_name` and `artifact_group`: key to acceptable values.
    pub depends: BTreeMap<String, Vec<String>>,
    /// Patterns of what it clears; `None` if it does not say, which clears everything.
    pub clears_provides: Option<Vec<String>>,
    /// Type of its payload.
    pub payload_type: String,
}

impl Candidate {
    /// The Artifact at this place, with this header and size.
    pub fn of(place: &str, header: &Header, size: u64) -> Self {
        Self {
            size,
            source: place.to_owned(),
            device_types: header.device_types.clone(),
            artifact_name: header.artifact_name.clone(),
            artifact_group: header.artifact_group.clone(),
            provides: header.provides.clone(),
            depends: header.depends.clone(),
            clears_provides: header.clears_provides.clone(),
            payload_type: header.payload_type.clone(),
        }
    }
}

/// What is to happen to a Component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Nothing, because this candidate is installed already.
    Unchanged {
        /// Index of the candidate.
        because: usize,
    },
    /// This candidate, by index, is to be installed.
    Install(usize),
}

/// Why a candidate cannot be installed on a Component.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is made for other device types.
    DeviceType {
        /// Those it is made for.
        device_types: Vec<String>,
    },
    /// Its payload is for another Interface.
    PayloadType {
        /// Type of the payload.
        payload_type: String,
        /// Interface of the Component.
        interface: String,
    },
    /// It depends on a key that the Component does not have.
    KeyMissing {
        /// The key.
        key: String,
    },
    /// It depends on other values of a key.
    Value {
        /// The key.
        key: String,
        /// What the Component has.
        value: String,
        /// What would do.
        accepted: Vec<String>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceType { device_types } => {
                write!(formatter, "it is for the device type {}", any_of(device_types))
            }
            Self::PayloadType { payload_type, interface } => write!(
                formatter,
                "its payload type \"{}\" is not the Interface \"{}\"",
                excerpt(payload_type),
                excerpt(interface)
            ),
            Self::KeyMissing { key } => {
                write!(formatter, "it depends on \"{}\", which the Component does not provide", excerpt(key))
            }
            Self::Value { key, value, accepted } => write!(
                formatter,
                "it depends on \"{}\" being {}, but the Component has \"{}\"",
                excerpt(key),
                any_of(accepted),
                excerpt(value)
            ),
        }
    }
}

/// No candidate is installed, and none can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuitableArtifact {
    /// The Component.
    pub component: ComponentKey,
    /// Every candidate's source, with what speaks against it; empty if there was none at all.
    pub refusals: Vec<(String, Refusal)>,
}

impl std::error::Error for NoSuitableArtifact {}

impl fmt::Display for NoSuitableArtifact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        if self.refusals.is_empty() {
            return write!(formatter, "There is no Artifact for the Component \"{}\".", self.component);
        }
        write!(formatter, "No Artifact suits the Component \"{}\": ", self.component)?;
        for (index, (source, refusal)) in self.refusals.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(formatter, "{separator}not \"{}\", because {refusal}", excerpt(source))?;
        }
        match self.refusals.len().saturating_sub(SHOWN) {
            0 => formatter.write_str("."),
            more => write!(formatter, "; and {more} more."),
        }
    }
}

impl From<NoSuitableArtifact> for Error {
    fn from(error: NoSuitableArtifact) -> Self {
        Self::new(Kind::NoSuitableArtifact, error.to_string())
    }
}

/// Decides for one Component with this Interface and these Provides.
///
/// If any candidate is installed, the Component is left unchanged, even if another one would fit: otherwise a full image
/// and a patch of one Release would alternate. Of several that fit, the smallest is taken, then the one whose source
/// comes first; the order of the candidates does not matter.
pub fn select(
    component: &ComponentKey,
    interface: &str,
    provides: &BTreeMap<String, String>,
    candidates: &[Candidate],
) -> Result<Selection, NoSuitableArtifact> {
    let best = |accept: &dyn Fn(&Candidate) -> bool| {
        let accepted = candidates.iter().enumerate().filter(|(_, candidate)| accept(candidate));
        accepted.min_by_key(|(_, candidate)| *candidate).map(|(index, _)| index)
    };
    if let Some(because) = best(&|candidate| is_installed(provides, candidate)) {
        return Ok(Selection::Unchanged { because });
    }
    let refusal = |candidate: &Candidate| refusal(component, interface, provides, candidate);
    if let Some(index) = best(&|candidate| refusal(candidate).is_none()) {
        return Ok(Selection::Install(index));
    }
    let mut refusals: Vec<_> = candidates
        .iter()
        .filter_map(|candidate| refusal(candidate).map(|refusal| (candidate.source.clone(), refusal)))
        .collect();
    refusals.sort();
    Err(NoSuitableArtifact { component: component.clone(), refusals })
}

/// Whether installing the candidate would change nothing in these Provides. `artifact_name` does not count, because
/// Components without Mender do not keep it, unless one side has nothing else.
pub fn is_installed(provides: &BTreeMap<String, String>, candidate: &Candidate) -> bool {
    let after = provides_after(provides, candidate);
    let only_name = |map: &BTreeMap<String, String>| map.len() == 1 && map.contains_key(ARTIFACT_NAME);
    if only_name(provides) || only_name(&after) {
        return *provides == after;
    }
    let rest = |(key, _): &(&String, &String)| key.as_str() != ARTIFACT_NAME;
    provides.iter().filter(rest).eq(after.iter().filter(rest))
}

/// The Provides after the candidate is installed: what it clears goes, everything if it does not say, then what it
/// provides comes, then its name and group.
pub fn provides_after(current: &BTreeMap<String, String>, candidate: &Candidate) -> BTreeMap<String, String> {
    let cleared = |key: &str| match &candidate.clears_provides {
        None => true,
        Some(patterns) => patterns.iter().any(|pattern| glob_matches(pattern, key)),
    };
    let kept = current.iter().filter(|(key, _)| !cleared(key));
    let mut after: BTreeMap<String, String> =
        kept.chain(&candidate.provides).map(|(key, value)| (key.clone(), value.clone())).collect();
    if !candidate.artifact_name.is_empty() {
        after.insert(ARTIFACT_NAME.to_owned(), candidate.artifact_name.clone());
    }
    if let Some(group) = candidate.artifact_group.as_ref().filter(|group| !group.is_empty()) {
        after.insert(ARTIFACT_GROUP.to_owned(), group.clone());
    }
    after
}

/// Whether a pattern of `clears_artifact_provides` matches a key. `*` stands for any characters, also none; everything
/// else stands for itself.
pub fn glob_matches(pattern: &str, key: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == key;
    };
    let Some(mut key) = key.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    // Taking the first occurrence of each part is enough: it leaves most of the key to the parts that follow.
    for part in parts {
        match key.split_once(part) {
            Some((_, after)) => key = after,
            None => return false,
        }
    }
    key.ends_with(last)
}

/// Whether an Artifact with this payload type can go to a Component with this Interface and these Provides.
///
/// An Artifact is made for an Interface by giving it the Interface's name as payload type. A Component that runs Mender
/// (it provides `rootfs-image.version`) hands the whole Artifact to its own client, which has an Update Module for each
/// payload type; there any type may go.
pub fn accepts_payload_type(interface: &str, provides: &BTreeMap<String, String>, payload_type: &str) -> bool {
    let runs_mender = version_key(provides, interface).is_some_and(|(key, _)| key == MENDER_VERSION_KEY);
    payload_type == interface || runs_mender
}

fn refusal(
    component: &ComponentKey,
    interface: &str,
    provides: &BTreeMap<String, String>,
    candidate: &Candidate,
) -> Option<Refusal> {
    if !candidate.device_types.contains(&component.component_type) {
        return Some(Refusal::DeviceType { device_types: candidate.device_types.clone() });
    }
    if !accepts_payload_type(interface, provides, &candidate.payload_type) {
        return Some(Refusal::PayloadType {
            payload_type: candidate.payload_type.clone(),
            interface: interface.to_owned(),
        });
    }
    candidate.depends.iter().find_map(|(key, accepted)| {
        let value = if key == DEVICE_TYPE { Some(&component.component_type) } else { provides.get(key) };
        match value {
            None => Some(Refusal::KeyMissing { key: key.clone() }),
            Some(value) if accepted.contains(value) => None,
            Some(value) => Some(Refusal::Value { key: key.clone(), value: value.clone(), accepted: accepted.clone() }),
        }
    })
}

/// Values for a message: quoted, the first five of them.
fn any_of(values: &[String]) -> String {
    const SHOWN: usize = 5;
    if values.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> = values.iter().take(SHOWN).map(|value| format!("\"{}\"", excerpt(value))).collect();
    let rest = values.len().saturating_sub(SHOWN);
    if rest == 0 { shown.join(" or ") } else { format!("{} or one of {rest} more", shown.join(" or ")) }
}
