//! How a deployment begins: from a request to a record, with nothing touched yet.

use std::sync::Arc;

use super::deployment::{OpenDeployment, places};
use super::environment::{Environment, unique_tag};
use super::handle::{ManifestRequest, RunOptions};
use super::machine::Deployment;
use super::manifest::Manifest;
use super::manifests::ManifestStore;
use super::plan::Plan;
use super::prepare::prepare;
use super::record::Record;
use super::view::View;
use crate::core::document::Document;
use crate::core::error::Error;

/// Works out what an install does and writes its record. An install that fails here has touched nothing; if the caller
/// wants stops, it gets a record all the same, so that the calls it will make find something to end.
pub async fn begin(
    manifest: &ManifestRequest,
    options: &RunOptions,
    environment: &Environment,
    view: &View,
) -> Result<(OpenDeployment, String), (Error, Option<Box<OpenDeployment>>)> {
    let prepared = async {
        let boot_id = environment.host.boot_id()?;
        let prepared = prepare(manifest, environment).await?;
        view.surveyed(&prepared.surveyed, true);
        let state = Deployment::in_legs(places(&prepared.plan), options.clone());
        // The record comes last: once it stands, there is a deployment.
        ManifestStore::new(&environment.settings.manifest_store)
            .begin(&prepared.plan.manifest_digest, &manifest.text)
            .map_err(Error::from)?;
        let open = record(environment, &manifest.text, prepared.plan, state)?;
        Ok((open, boot_id))
    };
    let error = match prepared.await {
        Ok(begun) => return Ok(begun),
        Err(error) => error,
    };
    if options.stop_before.is_empty() {
        return Err((error, None));
    }
    let name = Manifest::parse(&Document::new("manifest", &manifest.text)).map(|manifest| manifest.name);
    let plan = Plan { id: unique_tag("failed"), manifest: name.unwrap_or_default(), ..Plan::default() };
    let state = Deployment::failed_early(options.clone(), error.clone());
    match record(environment, &manifest.text, plan, state) {
        Ok(open) => Err((error, Some(Box::new(open)))),
        Err(also) => {
            tracing::error!("{also}");
            Err((error, None))
        }
    }
}

fn record(environment: &Environment, text: &str, plan: Plan, state: Deployment) -> Result<OpenDeployment, Error> {
    let record = Record::create(&environment.settings.datastore_dir, text, &plan, state.clone())?;
    Ok(OpenDeployment { record, plan: Arc::new(plan), state })
}
