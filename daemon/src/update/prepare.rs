//! From a Manifest to a Plan: reads the documents, asks the Components who they are, selects Artifacts. Touches nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;

use super::component::ComponentKey;
use super::composition::{Composition, Move, Part, compose};
use super::environment::Environment;
use super::handle::ManifestRequest;
use super::manifest::{ArtifactEntry, Dialect, Manifest};
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
    // Judging all combinations may take a second; nothing else should wait for that.
    let surveyed = survey.found;
    let planned = tokio::task::spawn_blocking(move || {
        let plan = select(&manifest, &topology, &surveyed, &artifacts)?;
        Ok::<_, Error>((plan, artifacts, surveyed))
    });
    let (mut plan, artifacts, surveyed) =
        planned.await.map_err(|error| Error::new(Kind::Failed, format!("Planning was lost: {error}.")))??;
    confirm(&mut plan, &artifacts, environment).await?;
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

/// The Artifacts of a Manifest, by Component type, looked for once for all Components of the type: what there is for the last
/// one, then the intermediate ones, one for each.
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
            let entries = std::iter::once(&entry.artifact).chain(&entry.intermediates);
            let found = try_join_all(entries.map(|entry| offers(name, entry, base, environment))).await?;
            if manifest.dialect == Dialect::Orchestrator {
                let all = std::iter::once(&entry.artifact).chain(&entry.intermediates);
                only_one_each(all.zip(&found))?;
            }
            Ok((name.clone(), found.into_iter().flatten().collect()))
        });
        try_join_all(read).await.map(|found| Self(found.into_iter().collect()))
    }
}

/// What there is for an entry of a Component type.
async fn offers(
    name: &str,
    entry: &ArtifactEntry,
    base: Option<&Path>,
    environment: &Environment,
) -> Result<Vec<Offer>, Error> {
    match locate(entry, base)? {
        Place::File(path) => Ok(vec![environment.sources.at(&path, &environment.keys).await?]),
        Place::Name(artifact) => environment.sources.named(artifact, name, &environment.keys).await,
    }
}

/// Constraints judge one version for each entry; with several Artifacts of a Release it would be open which one is meant.
fn only_one_each<'a>(mut found: impl Iterator<Item = (&'a ArtifactEntry, &'a Vec<Offer>)>) -> Result<(), Error> {
    found.find(|(_, offers)| offers.len() > 1).map_or(Ok(()), |(entry, offers)| {
        let text = format!(
            "{}: there are {} Artifacts of this name; a Manifest with constraints needs names that only one has.",
            entry.key,
            offers.len()
        );
        Err(Error::new(Kind::NoSuitableArtifact, text))
    })
}

/// How the Artifact of an entry is named.
enum Place<'m> {
    File(PathBuf),
    Name(&'m str),
}

/// The file of the Artifact, or if there is none, its name. The file must be there now: nothing may be touched before that
/// is certain.
fn locate<'m>(entry: &'m ArtifactEntry, base: Option<&Path>) -> Result<Place<'m>, Error> {
    let refuse = |text: String| Err(Error::new(Kind::NoSuitableArtifact, text));
    let by_name = entry.artifact_name.as_deref().map(Place::Name);
    let path = match (&entry.artifact_path, by_name, base) {
        (None, Some(by_name), _) => return Ok(by_name),
        // The Manifest is refused without either.
        (None, None, _) => return refuse(format!("{}: the Manifest names no Artifact.", entry.key)),
        (Some(path), _, _) if path.is_absolute() => path.clone(),
        (Some(path), _, Some(base)) => base.join(path),
        (Some(path), _, None) => {
            return refuse(format!(
                "{}.artifact_path: \"{}\" is relative, and no base-directory was given.",
                entry.key,
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
        None => refuse(format!("{}.artifact_path: there is no file \"{}\".", entry.key, path.display())),
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
            let offer = artifacts.0.get(&component.key.component_type).and_then(|all| all.get(made.artifact));
            plan.members.extend(offer.map(|offer| member(component, offer, made)));
        }
    }
    plan.members.sort_by_key(|member| member.order);
    plan.unchanged.sort_by_key(|component| component.order);
    Ok(plan)
}

fn member(component: &Surveyed, offer: &Offer, made: Move) -> PlannedMember {
    PlannedMember {
        key: component.key.clone(),
        interface: component.interface.clone(),
        program: component.program.clone(),
        arguments: component.arguments.clone(),
        order: made.step,
        artifact: offer.location.clone(),
        artifact_digest: offer.digest.clone().unwrap_or_default(),
        artifact_name: offer.candidate.artifact_name.clone(),
        size: offer.candidate.size,
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
        let (Some(entry), Some(offers)) = (manifest.component_types.get(name), artifacts.0.get(name)) else {
            // `check_system` has made sure that there is one.
            return Err(Error::new(Kind::InvalidManifest, format!("The Manifest has no entry for \"{name}\".")));
        };
        let candidates: Vec<Candidate> = offers.iter().map(|offer| offer.candidate.clone()).collect();
        let version = |provides: &BTreeMap<String, String>| {
            answers::version_key(provides, &component.interface).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        composition.push(
            match selection::select(&component.key, &component.interface, &component.provides, &candidates)? {
                Selection::Unchanged { .. } => Vec::new(),
                Selection::Install(index) => vec![Move {
                    artifact: index,
                    step: entry.order.unwrap_or_default(),
                    leg: 0,
                    before: component.provides.clone(),
                    from_version: version(&component.provides),
                    to_version: version(&selection::provides_after(&component.provides, &candidates[index])),
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
        .map(|(name, all)| (name.clone(), all.iter().map(|offer| offer.candidate.clone()).collect::<Vec<_>>()));
    compose(manifest, &parts, &candidates.collect())
}

/// Whether two Components have one name; then nobody could tell which of them an error is about.
pub(super) fn duplicate(keys: &[&ComponentKey]) -> Option<ComponentKey> {
    let mut sorted: Vec<&ComponentKey> = keys.to_vec();
    sorted.sort();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
}
