//! What a deployment will do: the Components, what they get, and in which order.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::artifact::Header;
use super::artifact::format::hex;
use super::component::ComponentKey;
use super::handle::PlanStep;
use super::source::Location;

/// A Component that gets an Artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMember {
    /// Type and id.
    pub key: ComponentKey,
    /// Name of the Interface.
    pub interface: String,
    /// Its program; absolute.
    pub program: PathBuf,
    /// What the Topology adds to the arguments of the Interface.
    pub arguments: Vec<String>,
    /// Order group.
    pub order: u32,
    /// Where the Artifact is.
    pub artifact: Location,
    /// [`artifact_digest`] of it: the Artifact that is installed must be the one that was selected.
    pub artifact_digest: String,
    /// Name in its header.
    pub artifact_name: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// Version before; empty if unknown.
    pub from_version: String,
    /// Version afterwards; empty if unknown.
    pub to_version: String,
    /// `artifact_name` that the Component provides now, for the File API.
    pub current_artifact_name: Option<String>,
    /// `artifact_group` that the Component provides now, for the File API.
    pub current_artifact_group: Option<String>,
    /// Part of the deployment, from 0 on; each is committed before the next one begins. Records of earlier versions have one.
    #[serde(default)]
    pub leg: u32,
    /// Why it is not updated earlier; empty if nothing holds it, or if the Manifest gives the order itself.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// What becomes of the System if something fails in this step, as on the bus; empty if nobody has looked.
    #[serde(default)]
    pub way_back: String,
}

/// A Component that has already what the Manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchanged {
    /// Type and id.
    pub key: ComponentKey,
    /// Name of the Interface.
    pub interface: String,
    /// What the Topology adds to the arguments of the Interface.
    pub arguments: Vec<String>,
    /// Order group.
    pub order: u32,
    /// Version it has; empty if unknown.
    pub version: String,
}

/// A Plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Names the deployment; part of the tags of its calls.
    pub id: String,
    /// Name of the Manifest.
    pub manifest: String,
    /// SHA-256 of the Manifest's text, hexadecimal.
    pub manifest_digest: String,
    /// System type of the Topology.
    pub system_type: String,
    /// The Components that get an Artifact, order groups ascending, in the order of the Topology within one.
    pub members: Vec<PlannedMember>,
    /// The other Components.
    pub unchanged: Vec<Unchanged>,
}

/// Tells Artifacts apart by everything that their checksums cover: SHA-256 over them, hexadecimal.
pub fn artifact_digest(header: &Header) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for info in [&header.raw_header_info, &header.raw_type_info, &header.raw_meta_data] {
        context.update(&(info.len() as u64).to_le_bytes());
        context.update(info);
    }
    for (name, sum) in header.checksums.files() {
        context.update(sum);
        context.update(name.as_bytes());
        context.update(&[0]);
    }
    hex(context.finish().as_ref())
}

impl Plan {
    /// The Plan as the outside sees it: order groups ascending.
    pub fn steps(&self) -> Vec<PlanStep> {
        let install = self.members.iter().map(|member| PlanStep {
            order: member.order,
            component_type: member.key.component_type.clone(),
            id: member.key.id.clone(),
            action: "install".to_owned(),
            interface: member.interface.clone(),
            from_version: member.from_version.clone(),
            to_version: member.to_version.clone(),
            artifact_name: member.artifact_name.clone(),
            artifact: member.artifact.to_string(),
            size: member.size,
            leg: member.leg + 1,
            reasons: member.reasons.clone(),
            way_back: member.way_back.clone(),
        });
        let unchanged = self.unchanged.iter().map(|component| PlanStep {
            order: component.order,
            component_type: component.key.component_type.clone(),
            id: component.key.id.clone(),
            action: "unchanged".to_owned(),
            interface: component.interface.clone(),
            from_version: component.version.clone(),
            to_version: component.version.clone(),
            artifact_name: String::new(),
            artifact: String::new(),
            size: 0,
            leg: 0,
            reasons: Vec::new(),
            way_back: String::new(),
        });
        let mut steps: Vec<PlanStep> = install.chain(unchanged).collect();
        steps.sort_by_key(|step| step.order);
        steps
    }

    #[cfg(test)]
    pub(super) fn for_tests(members: usize) -> Self {
        let member = |index: usize| PlannedMember {
            key: ComponentKey { component_type: "rtos".into(), id: format!("R{index}") },
            interface: "rtos".into(),
            program: "/bin/true".into(),
            arguments: Vec::new(),
            order: 1,
            artifact: Location::File("/a.mender".into()),
            artifact_digest: String::new(),
            artifact_name: "a".into(),
            size: 1,
            from_version: String::new(),
            to_version: String::new(),
            current_artifact_name: None,
            current_artifact_group: None,
            leg: 0,
            reasons: Vec::new(),
            way_back: String::new(),
        };
        Self { members: (0..members).map(member).collect(), ..Self::default() }
    }
}
