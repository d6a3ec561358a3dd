//! `org.orchestratord1.Component`: one Component of the System.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

use std::collections::BTreeMap;

use tokio::sync::watch;
use zbus::interface;

use super::view::{error_pair, share, text, texts, view};
use crate::update::component::ComponentStatus;

view! {
    /// What a Component shows.
    ComponentView of "org.orchestratord1.Component" {
        "State" state: String,
        "Version" version: String,
        "Provides" provides: BTreeMap<String, String>,
        "Progress" progress: f64,
        "LastError" last_error: (String, String),
    }
}

impl From<&ComponentStatus> for ComponentView {
    fn from(status: &ComponentStatus) -> Self {
        Self {
            state: text(status.state.as_str()),
            version: text(status.version.as_str()),
            provides: texts(&status.provides),
            progress: share(status.progress),
            last_error: error_pair(status.last_error.as_ref()),
        }
    }
}

/// One Component of the System.
pub(super) struct Component {
    kind: String,
    id: String,
    interface: String,
    arguments: Vec<String>,
    view: watch::Receiver<ComponentView>,
}

impl Component {
    pub(super) fn new(status: &ComponentStatus, view: watch::Receiver<ComponentView>) -> Self {
        Self {
            kind: text(status.key.component_type.as_str()),
            id: text(status.key.id.as_str()),
            interface: text(status.interface.as_str()),
            arguments: status.arguments.iter().map(text).collect(),
            view,
        }
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// One Component of the System.
#[interface(name = "org.orchestratord1.Component")]
impl Component {
    /// Component type.
    #[zbus(property(emits_changed_signal = "const"), name = "Type")]
    fn component_type(&self) -> &str {
        &self.kind
    }

    /// What the Interface answered to Identity.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> &str {
        &self.id
    }

    /// Name of the Interface.
    #[zbus(property(emits_changed_signal = "const"))]
    fn interface(&self) -> &str {
        &self.interface
    }

    /// Arguments that the Topology gives to the Interface.
    #[zbus(property(emits_changed_signal = "const"))]
    fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// "idle", "selected", "unchanged", "failed", or the state of the Interface protocol that runs or ran last, such as
    /// "ArtifactInstall". More words may come.
    #[zbus(property)]
    fn state(&self) -> String {
        self.view.borrow().state.clone()
    }

    /// Version that the Component said it has; empty if unknown.
    #[zbus(property)]
    fn version(&self) -> String {
        self.view.borrow().version.clone()
    }

    /// What the Component said it provides when it was asked last.
    #[zbus(property)]
    fn provides(&self) -> BTreeMap<String, String> {
        self.view.borrow().provides.clone()
    }

    /// Share of the current deployment that is behind the Component, 0 to 1; signalled every 100 ms at most.
    #[zbus(property)]
    fn progress(&self) -> f64 {
        self.view.borrow().progress
    }

    /// Error name and message of what went wrong with the Component last; both are empty after a success.
    #[zbus(property)]
    fn last_error(&self) -> (String, String) {
        self.view.borrow().last_error.clone()
    }
}
