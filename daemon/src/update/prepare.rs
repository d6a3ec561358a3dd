//! From a Manifest to a Plan: reads the documents, asks the Components who they are, selects Artifacts. Touches nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;

use super::artifact::{self, VerifyKeys};
use super::component::ComponentKey;
use super::composition::{Composition, Move, Part, compose};
use super::environment::Environment;
use super::handle::ManifestRequest;
use super::manifest::{ArtifactEntry, Dialect, Manifest};
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
    // Judging all combinations may take a second; nothing else should wait for that.
    let surveyed = survey.found;
    let planned = tokio::task::spawn_blocking(move || {
        let plan = select(&manifest, &topology, &surveyed, &artifacts)?;
        Ok::<_, Error>((plan, surveyed))
    });
    let (plan, surveyed) =
        planned.await.map_err(|error| Error::new(Kind::Failed, format!("Planning was lost: {error}.")))??;
    for member in plan.members.iter().filter(|member| member.way_back == "broken") {
        tracing::warn!(component = %member.key, "{}", member.reasons.join("; "));
    }
    Ok(Prepared { plan, surveyed })
}

fn note_unused(manifest: &Manifest, topology: &Topology) {
    for name in manifest.unused_types(topology) {
        tracing::info!("The Manifest \"{}\" names \"{name}\", which no Component of the Topology is.", manifest.name);
    }
}

/// An Artifact that was found, and what its header says.
struct Available {
    path: PathBuf,
    candidate: Candidate,
    digest: String,
}

/// The Artifacts of a Manifest, by Component type, read once for all Components of the type: the last one, then the intermediate
/// ones.
struct Artifacts(BTreeMap<String, Vec<Available>>);

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
        let read = wanted.map(|(name, entry)| async move {
            let entries = std::iter::once(&entry.artifact).chain(&entry.intermediates);
            let read = join_all(entries.map(|entry| Available::read(entry, base, keys))).await;
            Ok((name.clone(), read.into_iter().collect::<Result<Vec<_>, Error>>()?))
        });
        join_all(read).await.into_iter().collect::<Result<_, Error>>().map(Self)
    }
}

impl Available {
    async fn read(entry: &ArtifactEntry, base: Option<&Path>, keys: &Arc<VerifyKeys>) -> Result<Self, Error> {
        let path = locate(entry, base)?;
        let blocking = {
            let (path, keys) = (path.clone(), keys.clone());
            tokio::task::spawn_blocking(move || artifact::read_header(&path, &keys))
        };
        let (header, size) = blocking
            .await
            .map_err(|error| Error::new(Kind::Failed, format!("Reading \"{}\": {error}.", path.display())))??;
        Ok(Self { candidate: Candidate::of(&path, &header, size), digest: artifact_digest(&header), path })
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

/// The order of the Manifest, or the one that its constraints leave.
fn select(
    manifest: &Manifest,
    topology: &Topology,
    surveyed: &[Surveyed],
    artifacts: &Artifacts,
) -> Result<Plan, Error> {
    for component in surveyed {
        answers::require_version_key(&component.provides, &component.interface)
            .map_err(|error| Error::new(Kind::InterfaceFailed, format!("Component \"{}\": {error}", component.key)))?;
    }
    let composition = match manifest.dialect {
        Dialect::Mender => by_order(manifest, surveyed, artifacts)?,
        Dialect::Orchestrator => by_constraints(manifest, surveyed, artifacts)?,
    };
    let mut plan = Plan {
        id: super::environment::unique_tag("deployment"),
        manifest: manifest.name.clone(),
        manifest_digest: manifest.digest.clone(),
        system_type: topology.system_type.clone(),
        ..Plan::default()
    };
    for (component, moves) in surveyed.iter().zip(composition) {
        let version = answers::version_key(&component.provides, &component.interface).map(|(_, version)| version);
        if moves.is_empty() {
            let entry = manifest.component_types.get(&component.key.component_type);
            plan.unchanged.push(Unchanged {
                key: component.key.clone(),
                interface: component.interface.clone(),
                arguments: component.arguments.clone(),
                // Where the steps come from the constraints, who is in none of them has no number.
                order: entry.filter(|_| manifest.dialect == Dialect::Mender).and_then(|entry| entry.order).unwrap_or(0),
                version: version.unwrap_or_default().to_owned(),
            });
        }
        for made in moves {
            let available = artifacts.0.get(&component.key.component_type).and_then(|all| all.get(made.artifact));
            plan.members.extend(available.map(|available| member(component, available, made)));
        }
    }
    plan.members.sort_by_key(|member| member.order);
    plan.unchanged.sort_by_key(|component| component.order);
    Ok(plan)
}

fn member(component: &Surveyed, available: &Available, made: Move) -> PlannedMember {
    PlannedMember {
        key: component.key.clone(),
        interface: component.interface.clone(),
        program: component.program.clone(),
        arguments: component.arguments.clone(),
        order: made.step,
        artifact: available.path.clone(),
        artifact_digest: available.digest.clone(),
        artifact_name: available.candidate.artifact_name.clone(),
        size: available.candidate.size,
        from_version: made.from_version,
        to_version: made.to_version,
        current_artifact_name: made.before.get(ARTIFACT_NAME).cloned(),
        current_artifact_group: made.before.get(ARTIFACT_GROUP).cloned(),
        leg: made.leg,
        reasons: made.reasons,
        way_back: made.way_back.to_owned(),
    }
}

/// Who is updated when, by the numbers of the Manifest.
fn by_order(manifest: &Manifest, surveyed: &[Surveyed], artifacts: &Artifacts) -> Result<Composition, Error> {
    let mut composition = Composition::new();
    for component in surveyed {
        let name = &component.key.component_type;
        let (Some(entry), Some([Available { candidate, .. }, ..])) =
            (manifest.component_types.get(name), artifacts.0.get(name).map(Vec::as_slice))
        else {
            // `check_system` has made sure that there is one.
            return Err(Error::new(Kind::InvalidManifest, format!("The Manifest has no entry for \"{name}\".")));
        };
        let candidates = std::slice::from_ref(candidate);
        let version = |provides: &BTreeMap<String, String>| {
            answers::version_key(provides, &component.interface).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        composition.push(
            match selection::select(&component.key, &component.interface, &component.provides, candidates)? {
                Selection::Unchanged { .. } => Vec::new(),
                Selection::Install(_) => vec![Move {
                    artifact: 0,
                    step: entry.order.unwrap_or_default(),
                    leg: 0,
                    before: component.provides.clone(),
                    from_version: version(&component.provides),
                    to_version: version(&selection::provides_after(&component.provides, candidate)),
                    reasons: Vec::new(),
                    way_back: "",
                }],
            },
        );
    }
    Ok(composition)
}

/// Who is updated when, by the constraints of the Manifest.
fn by_constraints(manifest: &Manifest, surveyed: &[Surveyed], artifacts: &Artifacts) -> Result<Composition, Error> {
    let parts: Vec<Part<'_>> = surveyed
        .iter()
        .map(|component| Part { key: &component.key, interface: &component.interface, provides: &component.provides })
        .collect();
    let candidates = artifacts
        .0
        .iter()
        .map(|(name, all)| (name.clone(), all.iter().map(|available| available.candidate.clone()).collect::<Vec<_>>()));
    compose(manifest, &parts, &candidates.collect())
}

/// Whether two Components have one name; then nobody could tell which of them an error is about.
pub(super) fn duplicate(keys: &[&ComponentKey]) -> Option<ComponentKey> {
    let mut sorted: Vec<&ComponentKey> = keys.to_vec();
    sorted.sort();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
}
