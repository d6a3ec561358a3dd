//! The queries of the Interface protocol.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::{Interface, InterfaceError};
use crate::update::answers::{
    self, AnswerError, NeedsReboot, Query, parse_identity, parse_inventory, parse_needs_artifact_reboot, parse_provides,
};
use crate::update::runner::Stdout;

impl Interface {
    /// Asks whether the Artifact is to be taken apart for the Interface.
    pub async fn needs_unpacked(&self, tag: &str, cancel: &CancellationToken) -> Result<bool, InterfaceError> {
        self.ask(Query::NeedsUnpackedArtifact, tag, cancel, answers::parse_needs_unpacked_artifact).await
    }

    /// Asks whether the Interface wants to know how large the files are.
    pub async fn provide_file_sizes(&self, tag: &str, cancel: &CancellationToken) -> Result<bool, InterfaceError> {
        self.ask(Query::ProvidePayloadFileSizes, tag, cancel, answers::parse_provide_payload_file_sizes).await
    }

    /// Asks what is to be rebooted.
    pub async fn needs_reboot(&self, tag: &str, cancel: &CancellationToken) -> Result<NeedsReboot, InterfaceError> {
        self.ask(Query::NeedsArtifactReboot, tag, cancel, parse_needs_artifact_reboot).await
    }

    /// Asks whether the installation can be taken back.
    pub async fn supports_rollback(&self, tag: &str, cancel: &CancellationToken) -> Result<bool, InterfaceError> {
        self.ask(Query::SupportsRollback, tag, cancel, answers::parse_supports_rollback).await
    }

    /// Asks for the id of the Component.
    pub async fn identity(&self, tag: &str, cancel: &CancellationToken) -> Result<String, InterfaceError> {
        self.ask(Query::Identity, tag, cancel, parse_identity).await
    }

    /// Asks what is installed.
    pub async fn provides(
        &self,
        tag: &str,
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<String, String>, InterfaceError> {
        self.ask(Query::Provides, tag, cancel, |answer| parse_provides(answer, &self.name)).await
    }

    /// Asks for everything else that is worth knowing; a repeated key is a list.
    pub async fn inventory(
        &self,
        tag: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, String)>, InterfaceError> {
        self.ask(Query::Inventory, tag, cancel, parse_inventory).await
    }

    async fn ask<T>(
        &self,
        query: Query,
        tag: &str,
        cancel: &CancellationToken,
        parse: impl FnOnce(&[u8]) -> Result<T, AnswerError>,
    ) -> Result<T, InterfaceError> {
        let call = self.call(query.as_str(), tag, Stdout::Answer);
        let ended = self.make(&call, cancel).await?;
        self.succeeded(&call, &ended)?;
        parse(&ended.answer).map_err(|error| self.failed(query.as_str(), error.into()))
    }
}
