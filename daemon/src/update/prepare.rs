//! From a Manifest to a Plan: reads the documents, asks the Components who they are, selects Artifacts. Touches nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;

use super::component::ComponentKey;
use super::environment::Environment;
use super::handle::ManifestRequest;
use super::manifest::{ComponentType, Manifest};
use super::plan::{Plan, PlannedMember, Unchanged};
use super::selection::{self, ARTIFACT_GROUP, ARTIFACT_NAME, Candidate, Selection};
use super::source::{Location, Offer};
use super::survey::{Surveyed, survey};
use super::{answers, topology::Topology};
use crate::core::document::Document;
use crate::core::error::{Error, Kind};

/// All that is known before anything is touched.
#[derive(Debug)]
pub struct Prepared {
    /// What will be done.
    pub plan: Plan,
    /// The Components of the Topology as they are.
    pub surveyed: Vec<Surveyed>,
}

/// Works out the Plan. Any defect of the Manifest, the Topology, an Interface or an Artifact is an error.
pub async fn prepare(request: &ManifestRequest, environment: &Environment) -> Result<Prepared, Error> {
    let manifest = Manifest::parse(&Document::new("manifest", request.text.clone()))?;
    for warning in &manifest.warnings {
        tracing::warn!("{warning}");
    }
    let topology = environment.topology(request.topology_components.as_deref())?;
    manifest.check_system(&topology)?;
    note_unused(&manifest, &topology);
    let survey = survey(&topology, environment).await;
    if let Some(error) = survey.errors.into_iter().next() {
        return Err(error);
    }
    environment.sources.begin().await?;
    let artifacts = Artifacts::read(&manifest, &topology, request.base_directory.as_deref(), environment).await?;
    let mut plan = select(&manifest, &topology, &survey.found, &artifacts)?;
    confirm(&mut plan, &artifacts, environment).await?;
    Ok(Prepared { plan, surveyed: survey.found })
}

fn note_unused(manifest: &Manifest, topology: &Topology) {
    for name in manifest.unused_types(topology) {
        tracing::info!("The Manifest \"{}\" names \"{name}\", which no Component of the Topology is.", manifest.name);
    }
}

/// The Artifacts of a Manifest, by Component type, looked for once for all Components of the type.
struct Artifacts(BTreeMap<String, Vec<Offer>>);

impl Artifacts {
    async fn read(
        manifest: &Manifest,
        topology: &Topology,
        base: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let wanted = manifest.component_types.iter().filter(|(name, _)| {
            let occurs = |component: &super::topology::TopologyComponent| component.component_type == **name;
            topology.components.iter().any(occurs)
        });
        let read = wanted.map(|(name, entry)| async move {
            let offers = match locate(name, entry, base)? {
                Place::File(path) => vec![environment.sources.at(&path, &environment.keys).await?],
                Place::Name(artifact) => environment.sources.named(artifact, name, &environment.keys).await?,
            };
            Ok((name.clone(), offers))
        });
        try_join_all(read).await.map(|found| Self(found.into_iter().collect()))
    }
}

/// How the Artifact of a Component type is named.
enum Place<'m> {
    File(PathBuf),
    Name(&'m str),
}

/// The file of the Artifact, or if there is none, its name. The file must be there now: nothing may be touched before that
/// is certain.
fn locate<'m>(name: &str, entry: &'m ComponentType, base: Option<&Path>) -> Result<Place<'m>, Error> {
    let refuse = |text: String| Err(Error::new(Kind::NoSuitableArtifact, text));
    let by_name = entry.artifact_name.as_deref().map(Place::Name);
    let path = match (&entry.artifact_path, by_name, base) {
        (None, Some(by_name), _) => return Ok(by_name),
        // The Manifest is refused without either.
        (None, None, _) => return refuse(format!("The Manifest names no Artifact for \"{name}\".")),
        (Some(path), _, _) if path.is_absolute() => path.clone(),
        (Some(path), _, Some(base)) => base.join(path),
        (Some(path), _, None) => {
            return refuse(format!(
                "component_types.{name}.artifact_path: \"{}\" is relative, and no base-directory was given.",
                path.display()
            ));
        }
    };
    if path.try_exists().unwrap_or(false) {
        return Ok(Place::File(path));
    }
    match &entry.artifact_name {
        Some(artifact) => {
            tracing::info!("There is no file \"{}\"; looking for \"{artifact}\".", path.display());
            Ok(Place::Name(artifact))
        }
        None => refuse(format!("component_types.{name}.artifact_path: there is no file \"{}\".", path.display())),
    }
}

/// Reads the header of each selected Artifact that only a server has told about: what is wrong with it shows before anything
/// is touched.
async fn confirm(plan: &mut Plan, artifacts: &Artifacts, environment: &Environment) -> Result<(), Error> {
    let offers = artifacts.0.values().flatten().filter(|offer| offer.digest.is_none());
    let selected: BTreeMap<&Location, &Offer> = offers
        .filter(|offer| plan.members.iter().any(|member| member.artifact == offer.location))
        .map(|offer| (&offer.location, offer))
        .collect();
    let confirmed = selected.into_iter().map(|(location, offer)| async move {
        let digest = environment.sources.confirm(offer, &environment.keys).await?;
        Ok::<_, Error>((location, digest))
    });
    for (location, digest) in try_join_all(confirmed).await? {
        for member in plan.members.iter_mut().filter(|member| member.artifact == *location) {
            member.artifact_digest.clone_from(&digest);
        }
    }
    Ok(())
}

fn select(
    manifest: &Manifest,
    topology: &Topology,
    surveyed: &[Surveyed],
    artifacts: &Artifacts,
) -> Result<Plan, Error> {
    let mut plan = Plan {
        id: super::environment::unique_tag("deployment"),
        manifest: manifest.name.clone(),
        manifest_digest: manifest.digest.clone(),
        system_type: topology.system_type.clone(),
        ..Plan::default()
    };
    for component in surveyed {
        let name = &component.key.component_type;
        let (Some(entry), Some(offers)) = (manifest.component_types.get(name), artifacts.0.get(name)) else {
            // `check_system` has made sure that there is one.
            return Err(Error::new(Kind::InvalidManifest, format!("The Manifest has no entry for \"{name}\".")));
        };
        answers::require_version_key(&component.provides, &component.interface)
            .map_err(|error| Error::new(Kind::InterfaceFailed, format!("Component \"{}\": {error}", component.key)))?;
        let candidates: Vec<Candidate> = offers.iter().map(|offer| offer.candidate.clone()).collect();
        let version = |provides: &BTreeMap<String, String>| {
            answers::version_key(provides, &component.interface).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        match selection::select(&component.key, &component.interface, &component.provides, &candidates)? {
            Selection::Unchanged { .. } => plan.unchanged.push(Unchanged {
                key: component.key.clone(),
                interface: component.interface.clone(),
                arguments: component.arguments.clone(),
                order: entry.order,
                version: version(&component.provides),
            }),
            Selection::Install(index) => {
                let Offer { location, candidate, digest } = &offers[index];
                plan.members.push(PlannedMember {
                    key: component.key.clone(),
                    interface: component.interface.clone(),
                    program: component.program.clone(),
                    arguments: component.arguments.clone(),
                    order: entry.order,
                    artifact: location.clone(),
                    artifact_digest: digest.clone().unwrap_or_default(),
                    artifact_name: candidate.artifact_name.clone(),
                    size: candidate.size,
                    from_version: version(&component.provides),
                    to_version: version(&selection::provides_after(&component.provides, candidate)),
                    current_artifact_name: component.provides.get(ARTIFACT_NAME).cloned(),
                    current_artifact_group: component.provides.get(ARTIFACT_GROUP).cloned(),
                });
            }
        }
    }
    plan.members.sort_by_key(|member| member.order);
    plan.unchanged.sort_by_key(|component| component.order);
    Ok(plan)
}

/// Whether two Components have one name; then nobody could tell which of them an error is about.
pub(super) fn duplicate(keys: &[&ComponentKey]) -> Option<ComponentKey> {
    let mut sorted: Vec<&ComponentKey> = keys.to_vec();
    sorted.sort();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
}
