//! What a Component is, and what the outside sees of one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::error::Error;

/// What names a Component in its System: the pair is unique, the type may repeat.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ComponentKey {
    /// Component type of the Topology.
    pub component_type: String,
    /// What the Interface answers to `Identity`.
    pub id: String,
}

impl fmt::Display for ComponentKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.component_type, self.id)
    }
}

/// A Component as readers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentStatus {
    /// Type and id.
    pub key: ComponentKey,
    /// Name of its Interface.
    pub interface: String,
    /// Arguments the Topology gives to the Interface.
    pub arguments: Vec<String>,
    /// `idle` if no deployment is open; else `selected`, `unchanged`, the state or query of the Interface protocol that
    /// runs or ran last, such as `ArtifactInstall`, or `failed`.
    pub state: String,
    /// Value of the version key of its Provides; empty if it has none.
    pub version: String,
    /// What it said it provides when it was asked last.
    pub provides: BTreeMap<String, String>,
    /// Share of the current deployment that is behind this Component, 0 to 1.
    pub progress: f64,
    /// What went wrong with it last; none after a success.
    pub last_error: Option<Error>,
}
