//! `manifest check`: what the daemon would say of a Manifest, without a daemon and without a System.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use orchestratord::core::document::{Document, DocumentError, DocumentKind};
use orchestratord::core::error::{Error, Kind};
use orchestratord::update::answers::{MENDER_VERSION_KEY, interface_version_key};
use orchestratord::update::artifact::{VerifyKeys, read_header};
use orchestratord::update::component::ComponentKey;
use orchestratord::update::composition::{Move, Part, compose};
use orchestratord::update::manifest::{ArtifactEntry, Dialect, Manifest, ManifestError};
use orchestratord::update::selection::{Candidate, DEVICE_TYPE, provides_after};
use orchestratord::update::topology::Topology;
use serde_json::json;

use crate::PROGRAM;
use crate::args::CheckArguments;
use crate::failure::{Failure, SUCCESS};
use crate::output::{complain, print, printable, show};
use crate::plan::{self, Step};

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        Error::from(error).into()
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        Error::from(error).into()
    }
}

/// Checks a Manifest; returns the exit code.
pub fn run(arguments: &CheckArguments, json: bool) -> Result<u8, Failure> {
    let manifest = Manifest::parse(&Document::read(&arguments.file, DocumentKind::Manifest)?)?;
    let topology = Topology::read(&arguments.topology, arguments.topology_components.as_deref())?;
    let mut warnings = [manifest.warnings.clone(), topology.warnings.clone()].concat();
    manifest.check_system(&topology)?;
    let versions = versions(&arguments.versions, &topology)?;
    let steps = match manifest.dialect {
        Dialect::Mender if versions.is_some() => {
            let text = "Versions say nothing about a Manifest of mender/v1: its order is that of its numbers.";
            return Err(Failure::new(Kind::InvalidArgs, text));
        }
        Dialect::Mender => None,
        Dialect::Orchestrator => {
            let base = arguments.file.parent().unwrap_or(Path::new(""));
            Checked::new(&manifest, &topology, base, &mut warnings)?.plan(versions.as_deref())?
        }
    };
    for warning in &warnings {
        complain(PROGRAM, &format!("warning: {warning}"));
    }
    if let (Some(steps), Some(kind)) = (&steps, arguments.graph) {
        print(&plan::graph(steps, kind))?;
        return Ok(SUCCESS);
    }
    show(json, &json!({ "manifest": manifest.name, "steps": steps, "warnings": warnings }), || match &steps {
        Some(steps) => plan::text(steps),
        None => format!("\"{}\" is sound.\n", printable(&arguments.file.display().to_string())),
    })?;
    Ok(SUCCESS)
}

/// The version of each Component of the Topology, from `TYPE=VERSION[,VERSION...]`; `None`: none is given.
fn versions(given: &[String], topology: &Topology) -> Result<Option<Vec<String>>, Failure> {
    let refuse = |text: String| Failure::new(Kind::InvalidArgs, text);
    let mut by_type: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for given in given {
        let Some((name, versions)) = given.split_once('=') else {
            return Err(refuse(format!("\"{given}\" does not have the form TYPE=VERSION.")));
        };
        if by_type.insert(name, versions.split(',').collect()).is_some() {
            return Err(refuse(format!("The versions of \"{name}\" are given twice.")));
        }
    }
    if by_type.is_empty() {
        return Ok(None);
    }
    let types = || topology.components.iter().map(|component| component.component_type.as_str());
    if let Some(name) = by_type.keys().find(|name| types().all(|known| known != **name)) {
        return Err(refuse(format!("No Component of the Topology is of the type \"{name}\", whose version is given.")));
    }
    for (name, versions) in &mut by_type {
        let count = types().filter(|known| known == name).count();
        match versions.as_slice() {
            [version] => *versions = vec![*version; count],
            given if given.len() == count => {}
            given => {
                let text = format!("{} versions are given for {count} Components of the type \"{name}\".", given.len());
                return Err(refuse(text));
            }
        }
        versions.reverse();
    }
    let next = |name: &str| {
        let version = by_type.get_mut(name).and_then(Vec::pop);
        version.map(str::to_owned).ok_or_else(|| refuse(format!("The version of \"{name}\" is not given.")))
    };
    types().map(next).collect::<Result<_, _>>().map(Some)
}

/// What there is to plan with.
struct Checked<'c> {
    manifest: &'c Manifest,
    /// Type, a stand-in for the id, and Interface of each Component.
    components: Vec<(ComponentKey, String)>,
    artifacts: BTreeMap<String, Vec<Candidate>>,
}

impl<'c> Checked<'c> {
    fn new(
        manifest: &'c Manifest,
        topology: &Topology,
        base: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let (mut components, mut artifacts) = (Vec::new(), BTreeMap::new());
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for component in &topology.components {
            let name = &component.component_type;
            let count = counts.entry(name).or_default();
            *count += 1;
            let key = ComponentKey { component_type: name.clone(), id: format!("#{count}") };
            components.push((key, component.interface.clone()));
            if let (false, Some(entry)) = (artifacts.contains_key(name), manifest.component_types.get(name)) {
                let entries = std::iter::once(&entry.artifact).chain(&entry.intermediates);
                let read = entries.map(|entry| candidate(entry, name, &component.interface, base, warnings));
                artifacts.insert(name.clone(), read.collect::<Result<Vec<_>, _>>()?);
            }
        }
        Ok(Self { manifest, components, artifacts })
    }

    /// The plan from these versions on. Without them only the end can be judged; then there is none.
    fn plan(&self, versions: Option<&[String]>) -> Result<Option<Vec<Step>>, Failure> {
        let target = |(key, _): &(ComponentKey, String)| {
            let artifacts = self.artifacts.get(&key.component_type);
            let target = artifacts.and_then(|artifacts| artifacts.first());
            target.map(|target| provides_after(&BTreeMap::new(), target)).unwrap_or_default()
        };
        let given = |((_, interface), version): (&(ComponentKey, String), &String)| {
            BTreeMap::from([(interface_version_key(interface), version.clone())])
        };
        let provides: Vec<BTreeMap<String, String>> = versions.map_or_else(
            || self.components.iter().map(target).collect(),
            |versions| self.components.iter().zip(versions).map(given).collect(),
        );
        let known = self.components.iter().zip(&provides);
        let parts: Vec<Part<'_>> =
            known.map(|((key, interface), provides)| Part { key, interface, provides }).collect();
        let composition = compose(self.manifest, &parts, &self.artifacts)?;
        if versions.is_none() {
            return Ok(None);
        }
        let mut steps: Vec<Step> = Vec::new();
        for (((key, interface), moves), provides) in self.components.iter().zip(composition).zip(&provides) {
            if moves.is_empty() {
                let version = provides.values().next().cloned().unwrap_or_default();
                steps.push(unchanged(key, interface, version));
            }
            steps.extend(moves.into_iter().map(|made| self.step(key, interface, made)));
        }
        steps.sort_by_key(|step| step.order);
        Ok(Some(steps))
    }

    fn step(&self, key: &ComponentKey, interface: &str, made: Move) -> Step {
        let artifact = self.artifacts.get(&key.component_type).and_then(|all| all.get(made.artifact));
        Step {
            order: u64::from(made.step),
            action: "install".to_owned(),
            from_version: made.from_version,
            to_version: made.to_version,
            artifact_name: artifact.map(|artifact| artifact.artifact_name.clone()).unwrap_or_default(),
            artifact: artifact.map(|artifact| artifact.source.clone()).unwrap_or_default(),
            size: artifact.map(|artifact| artifact.size).unwrap_or_default(),
            leg: u64::from(made.leg) + 1,
            reasons: made.reasons,
            way_back: made.way_back.to_owned(),
            ..unchanged(key, interface, String::new())
        }
    }
}

fn unchanged(key: &ComponentKey, interface: &str, version: String) -> Step {
    Step {
        order: 0,
        component_type: key.component_type.clone(),
        id: key.id.clone(),
        action: "unchanged".to_owned(),
        interface: interface.to_owned(),
        from_version: version.clone(),
        to_version: version,
        artifact_name: String::new(),
        artifact: String::new(),
        size: 0,
        leg: 0,
        reasons: Vec::new(),
        way_back: String::new(),
    }
}

/// The Artifact of an entry: read, if it is there, else as its `version` describes it.
fn candidate(
    entry: &ArtifactEntry,
    component_type: &str,
    interface: &str,
    base: &Path,
    warnings: &mut Vec<String>,
) -> Result<Candidate, Failure> {
    let path = entry.artifact_path.as_ref().map(|path| base.join(path));
    let known: BTreeSet<String> =
        [interface_version_key(interface), MENDER_VERSION_KEY.to_owned(), DEVICE_TYPE.to_owned()].into();
    if let Some(path) = path.filter(|path| path.exists()) {
        let (header, size) = read_header(&path, &VerifyKeys::none())?;
        let mut candidate = Candidate::of(&path.display().to_string(), &header, size);
        for key in candidate.depends.keys().filter(|key| !known.contains(*key)) {
            warnings.push(format!("\"{}\" depends on \"{key}\", which is not looked at here.", path.display()));
        }
        candidate.depends.retain(|key, _| known.contains(key));
        return Ok(candidate);
    }
    let Some(version) = &entry.version else {
        let text = format!(
            "{}: \"{}\" has no \"version\", and its Artifact is not here to be read.",
            entry.position, entry.key
        );
        return Err(Failure::new(Kind::NoSuitableArtifact, text));
    };
    let key = interface_version_key(interface);
    let name = entry.artifact_name.clone().unwrap_or_else(|| format!("{component_type}-{version}"));
    Ok(Candidate {
        size: 0,
        source: String::new(),
        device_types: vec![component_type.to_owned()],
        artifact_name: name,
        artifact_group: None,
        provides: BTreeMap::from([(key.clone(), version.clone())]),
        depends: BTreeMap::new(),
        clears_provides: Some(vec![key]),
        payload_type: interface.to_owned(),
    })
}
