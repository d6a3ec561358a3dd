//! `org.orchestratord1.Vplcs`: all vPLCs, and the engine that runs them.

#![allow(
    clippy::doc_markdown,
    reason = "the documentation of the members is read as comments of the introspection data"
)]

use std::collections::HashMap;

use tokio::sync::watch;
use zbus::message::Header;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, interface};

use super::auth::Action;
use super::gate::Gate;
use super::options::Options;
use super::view::{job_path, text, view};
use super::{Publisher, Refusal};
use crate::core::document::DocumentKind;
use crate::core::error::{Error, Kind};
use crate::vplc::handle::{Application, Order, VplcHandle, VplcsStatus};

view! {
    /// What Vplcs shows.
    VplcsView of "org.orchestratord1.Vplcs" {
        "Engine" engine: String,
        "EngineVersion" engine_version: String,
    }
}

impl From<&VplcsStatus> for VplcsView {
    fn from(status: &VplcsStatus) -> Self {
        Self { engine: text(status.engine.as_str()), engine_version: text(status.engine_version.as_str()) }
    }
}

/// All vPLCs.
pub(super) struct Vplcs {
    handle: VplcHandle,
    publisher: Publisher,
    gate: Gate,
    view: watch::Receiver<VplcsView>,
}

impl Vplcs {
    pub(super) fn new(handle: VplcHandle, publisher: Publisher, gate: Gate, view: watch::Receiver<VplcsView>) -> Self {
        Self { handle, publisher, gate, view }
    }
}

// The documentation comments below are part of the interface: they come out as comments of the introspection data.
/// All vPLCs, and the engine that runs them.
#[interface(name = "org.orchestratord1.Vplcs")]
impl Vplcs {
    /// Makes a vPLC, or changes it, to be as specified. The reply means that the specification was accepted and the container
    /// engine answers. If the Job fails, what it has done is taken back: a vPLC that is new is gone, another one is as before.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @spec: the specification as YAML, 64 KiB at most
    /// @options: "image" h: an archive as "docker save" writes it, from which the image is loaded first
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn apply(
        &self,
        spec: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let apply = |caller| async move {
            let mut options = Options::new("Apply", &["image"], options)?;
            check_size("Apply", spec)?;
            let application = Application { spec: spec.to_owned(), archive: options.image()?, pin: None, caller };
            let id = self.handle.apply(application).await?;
            tracing::info!(job = id, caller, "A vPLC is applied over the bus");
            self.publisher.flush().await?;
            Ok(job_path(id))
        };
        self.gate.begin(connection, &call, Action::Vplc, apply).await
    }

    /// What Apply would change; changes nothing.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @spec: the specification as YAML, 64 KiB at most
    /// @options: none
    /// @changes: key of the specification, value now, value afterwards; an empty value is none
    #[zbus(out_args("changes"))]
    async fn plan(
        &self,
        spec: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, String, String)>, Refusal> {
        self.gate.inspect(connection, &call, Action::Vplc).await?;
        Options::new("Plan", &[], options)?;
        check_size("Plan", spec)?;
        let changes = self.handle.plan(spec.to_owned()).await?;
        Ok(changes.into_iter().map(|change| (text(change.key), text(change.from), text(change.to))).collect())
    }

    /// Stops and removes a vPLC, its NICs, its containers and, unless that is to stay, its data.
    /// Needs the polkit action org.orchestratord1.vplc.
    /// @name: name of the vPLC
    /// @options: "keep-data" b: the volume with its data stays, for a vPLC of the same name
    /// @job: the Job that does the work
    #[zbus(out_args("job"))]
    async fn delete(
        &self,
        name: &str,
        options: HashMap<String, OwnedVariant>,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        let delete = |caller| async move {
            let mut options = Options::new("Delete", &["keep-data"], options)?;
            let order = Order::Delete { keep_data: options.keep_data()? };
            let id = self.handle.order(name.chars().take(256).collect(), order, caller).await?;
            tracing::info!(job = id, vplc = name, caller, "A vPLC is deleted over the bus");
            self.publisher.flush().await?;
            Ok(job_path(id))
        };
        self.gate.begin(connection, &call, Action::Vplc, delete).await
    }

    /// "docker" or "podman"; empty while none is connected. It is looked for only if there is a vPLC. More words may come.
    #[zbus(property)]
    fn engine(&self) -> String {
        self.view.borrow().engine.clone()
    }

    /// Version of the engine; empty while none is connected.
    #[zbus(property)]
    fn engine_version(&self) -> String {
        self.view.borrow().engine_version.clone()
    }
}

fn check_size(method: &str, spec: &str) -> Result<(), Error> {
    let limit = DocumentKind::Vplc.limit();
    if spec.len() <= limit {
        return Ok(());
    }
    let length = spec.len();
    let message = format!("The argument \"spec\" of {method} has {length} bytes, but at most {limit} are allowed.");
    Err(Error::new(Kind::InvalidArgs, message))
}
