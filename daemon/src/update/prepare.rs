//! From a Manifest to a Plan: reads the documents, asks the Components who they are, selects Artifacts. Touches nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;

use super::artifact::{self, Header, VerifyKeys};
use super::component::ComponentKey;
use super::environment::Environment;
use super::handle::ManifestRequest;
use super::manifest::{ArtifactEntry, Manifest};
use super::plan::{Plan, PlannedMember, Unchanged, artifact_digest};
use super::selection::{self, ARTIFACT_GROUP, ARTIFACT_NAME, Candidate, Selection};
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
    let artifacts = Artifacts::read(&manifest, &topology, request.base_directory.as_deref(), &environment.keys).await?;
    let plan = select(&manifest, &topology, &survey.found, &artifacts)?;
    Ok(Prepared { plan, surveyed: survey.found })
}

fn note_unused(manifest: &Manifest, topology: &Topology) {
    for name in manifest.unused_types(topology) {
        tracing::info!("The Manifest \"{}\" names \"{name}\", which no Component of the Topology is.", manifest.name);
    }
}

/// The Artifacts of a Manifest, by Component type, read once for all Components of the type.
struct Artifacts(BTreeMap<String, (PathBuf, Candidate, String)>);

impl Artifacts {
    async fn read(
        manifest: &Manifest,
        topology: &Topology,
        base: Option<&Path>,
        keys: &Arc<VerifyKeys>,
    ) -> Result<Self, Error> {
        let wanted = manifest.component_types.iter().filter(|(name, _)| {
            let occurs = |component: &super::topology::TopologyComponent| component.component_type == **name;
            topology.components.iter().any(occurs)
        });
        let read = wanted.map(|(name, entry)| {
            let keys = keys.clone();
            async move {
                let path = locate(&entry.artifact, base)?;
                let blocking = {
                    let path = path.clone();
                    tokio::task::spawn_blocking(move || artifact::read_header(&path, &keys))
                };
                let (header, size) = blocking
                    .await
                    .map_err(|error| Error::new(Kind::Failed, format!("Reading \"{}\": {error}.", path.display())))??;
                let (candidate, digest) = (candidate(&path, &header, size), artifact_digest(&header));
                Ok((name.clone(), (path, candidate, digest)))
            }
        });
        join_all(read).await.into_iter().collect::<Result<_, Error>>().map(Self)
    }
}

/// The file of the Artifact. It must be there now: nothing may be touched before that is certain.
fn locate(entry: &ArtifactEntry, base: Option<&Path>) -> Result<PathBuf, Error> {
    let refuse = |text: String| Err(Error::new(Kind::NoSuitableArtifact, text));
    let Some(path) = &entry.artifact_path else {
        return refuse(format!(
            "The Manifest names the Artifact of \"{}\" by artifact_name \"{}\" only, and no server is configured \
             to get it from.",
            entry.key.strip_prefix("component_types.").unwrap_or(&entry.key),
            entry.artifact_name.as_deref().unwrap_or_default()
        ));
    };
    let path = match base {
        _ if path.is_absolute() => path.clone(),
        Some(base) => base.join(path),
        None => {
            return refuse(format!(
                "{}.artifact_path: \"{}\" is relative, and no base-directory was given.",
                entry.key,
                path.display()
            ));
        }
    };
    if path.try_exists().unwrap_or(false) {
        return Ok(path);
    }
    refuse(format!("{}.artifact_path: there is no file \"{}\".", entry.key, path.display()))
}

fn candidate(path: &Path, header: &Header, size: u64) -> Candidate {
    Candidate {
        size,
        source: path.display().to_string(),
        device_types: header.device_types.clone(),
        artifact_name: header.artifact_name.clone(),
        artifact_group: header.artifact_group.clone(),
        provides: header.provides.clone(),
        depends: header.depends.clone(),
        clears_provides: header.clears_provides.clone(),
        payload_type: header.payload_type.clone(),
    }
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
        let (Some(entry), Some((path, candidate, digest))) =
            (manifest.component_types.get(name), artifacts.0.get(name))
        else {
            // `check_system` has made sure that there is one.
            return Err(Error::new(Kind::InvalidManifest, format!("The Manifest has no entry for \"{name}\".")));
        };
        answers::require_version_key(&component.provides, &component.interface)
            .map_err(|error| Error::new(Kind::InterfaceFailed, format!("Component \"{}\": {error}", component.key)))?;
        let candidates = std::slice::from_ref(candidate);
        let version = |provides: &BTreeMap<String, String>| {
            answers::version_key(provides, &component.interface).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        match selection::select(&component.key, &component.interface, &component.provides, candidates)? {
            Selection::Unchanged { .. } => plan.unchanged.push(Unchanged {
                key: component.key.clone(),
                interface: component.interface.clone(),
                arguments: component.arguments.clone(),
                order: entry.order.unwrap_or_default(),
                version: version(&component.provides),
            }),
            Selection::Install(_) => plan.members.push(PlannedMember {
                key: component.key.clone(),
                interface: component.interface.clone(),
                program: component.program.clone(),
                arguments: component.arguments.clone(),
                order: entry.order.unwrap_or_default(),
                artifact: path.clone(),
                artifact_digest: digest.clone(),
                artifact_name: candidate.artifact_name.clone(),
                size: candidate.size,
                from_version: version(&component.provides),
                to_version: version(&selection::provides_after(&component.provides, candidate)),
                current_artifact_name: component.provides.get(ARTIFACT_NAME).cloned(),
                current_artifact_group: component.provides.get(ARTIFACT_GROUP).cloned(),
            }),
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
