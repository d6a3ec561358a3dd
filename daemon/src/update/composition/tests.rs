use super::*;
use crate::core::document::Document;

const HEAD: &str =
    "api_version: orchestrator/v1\nkind: manifest\nname: m\nsystem_types_compatible: [s]\ncomponent_types:\n";

fn candidate(component_type: &str, version: &str) -> Candidate {
    let key = format!("rootfs-image.{component_type}.version");
    Candidate {
        size: 1,
        source: format!("{component_type}-{version}.mender"),
        device_types: vec![component_type.to_owned()],
        artifact_name: format!("{component_type}-{version}"),
        artifact_group: None,
        provides: BTreeMap::from([(key.clone(), version.to_owned())]),
        depends: BTreeMap::new(),
        clears_provides: Some(vec![key]),
        payload_type: component_type.to_owned(),
    }
}

/// Composes for Components `(type, version)`; the Artifacts bring the versions that the Manifest names.
fn composed(types: &str, components: &[(&str, &str)], change: impl Fn(&mut Candidate)) -> Result<Composition, String> {
    let manifest = Manifest::parse(&Document::new("m.yaml", format!("{HEAD}{types}"))).unwrap();
    let artifacts = manifest.component_types.iter().map(|(name, entry)| {
        let entries = std::iter::once(&entry.artifact).chain(&entry.intermediates);
        let candidates = entries.map(|entry| {
            let mut candidate = candidate(name, entry.version.as_deref().unwrap_or("v2"));
            change(&mut candidate);
            candidate
        });
        (name.clone(), candidates.collect())
    });
    let known: Vec<(ComponentKey, BTreeMap<String, String>)> = components
        .iter()
        .enumerate()
        .map(|(number, (name, version))| {
            let key = ComponentKey { component_type: (*name).to_owned(), id: number.to_string() };
            (key, BTreeMap::from([(format!("rootfs-image.{name}.version"), (*version).to_owned())]))
        })
        .collect();
    let parts: Vec<Part<'_>> =
        known.iter().map(|(key, provides)| Part { key, interface: &key.component_type, provides }).collect();
    compose(&manifest, &parts, &artifacts.collect()).map_err(|error| error.message)
}

/// Step, part and version of each move, by Component.
fn told(composition: &Composition) -> Vec<String> {
    let of = |moves: &Vec<Move>| {
        let words: Vec<String> =
            moves.iter().map(|made| format!("{}/{} {}", made.step, made.leg, made.to_version)).collect();
        words.join(", ")
    };
    composition.iter().map(of).collect()
}

#[test]
fn without_constraints_everything_moves_at_once_and_orders_are_kept() {
    let types = "  a: {artifact_name: a}\n  b: {artifact_name: b}\n";
    let composition = composed(types, &[("a", "v1"), ("b", "v1"), ("a", "v2")], |_| {}).unwrap();
    assert_eq!(told(&composition), ["1/0 v2", "1/0 v2", ""]);
    let types =
        "  a: {artifact_name: a, update_strategy: {order: 20}}\n  b: {artifact_name: b, update_strategy: {order: 3}}\n";
    let composition = composed(types, &[("a", "v1"), ("b", "v1")], |_| {}).unwrap();
    assert_eq!(told(&composition), ["2/0 v2", "1/0 v2"]);
    assert_eq!(composition[0][0].reasons, ["after b.1, because of its lower \"order\""]);
}

#[test]
fn intermediates_are_passed_if_the_artifacts_or_the_manifest_ask_for_it() {
    let chain = "  a:\n    artifact_name: a\n    version: v3\n    from: v2\n    intermediates:\n      - {artifact_name: a, version: v2}\n";
    let composition = composed(chain, &[("a", "v1"), ("a", "v2")], |_| {}).unwrap();
    assert_eq!(told(&composition), ["1/0 v2, 2/1 v3", "1/0 v3"]);
    assert_eq!(composition[0][1].from_version, "v2");
    assert_eq!(composition[0][1].before["artifact_name"], "a-v2");

    let free = chain.replace("    from: v2\n", "");
    assert_eq!(told(&composed(&free, &[("a", "v1")], |_| {}).unwrap()), ["1/0 v3"]);
    let needs_v2 = |candidate: &mut Candidate| {
        if candidate.source == "a-v3.mender" {
            candidate.depends.insert("rootfs-image.a.version".to_owned(), vec!["v2".to_owned()]);
        }
    };
    assert_eq!(told(&composed(&free, &[("a", "v1")], needs_v2).unwrap()), ["1/0 v2, 2/1 v3"]);
}

#[test]
fn components_without_a_way_are_told_why() {
    let types = "  a:\n    artifact_name: a\n    version: v3\n    from: v2\n";
    let message = composed(types, &[("a", "v1")], |_| {}).unwrap_err();
    assert_eq!(
        message,
        "m.yaml:6:3: \"component_types.a\" may be installed from v2 only, but the Component \"a.0\" has \"v1\"."
    );
    let types = "  a: {artifact_name: a, intermediates: [{artifact_name: a, version: v9}]}\n";
    let other = |candidate: &mut Candidate| candidate.device_types = vec!["z".to_owned()];
    let message = composed(types, &[("a", "v1")], other).unwrap_err();
    assert!(
        message.starts_with("No Artifact suits the Component \"a.0\"") && message.ends_with("no way either."),
        "{message}"
    );
    let types = "  a: {artifact_name: a, version: v3}\n";
    let lies =
        |candidate: &mut Candidate| candidate.provides.values_mut().for_each(|version| *version = "v4".to_owned());
    let message = composed(types, &[("a", "v1")], lies).unwrap_err();
    assert_eq!(
        message,
        "m.yaml:6:3: \"component_types.a.version\" is \"v3\", but the Artifact \"a-v3.mender\" makes it \"v4\"."
    );
    let types = "  a: {artifact_name: a, from: '>=2'}\n";
    let message = composed(types, &[("a", "unknown")], |_| {}).unwrap_err();
    assert!(message.contains("\"component_types.a.from\" cannot be judged for \"a.0\""), "{message}");
    let many: Vec<String> = (0..12).map(|number| format!("{{artifact_name: a, version: w{number}}}")).collect();
    let types = format!("  a: {{artifact_name: a, intermediates: [{}]}}\n", many.join(", "));
    let message = composed(&types, &[("a", "v1")], |_| {}).unwrap_err();
    assert!(message.contains("more than 64 ways"), "{message}");
}
