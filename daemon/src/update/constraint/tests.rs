use super::*;
use crate::core::document::Document;
use crate::update::manifest::Manifest;

const HEAD: &str = "\
api_version: orchestrator/v1
kind: manifest
name: m
system_types_compatible: [s]
component_types:
  a: {artifact_name: a}
  b: {artifact_name: b}
";

fn read(constraints: &str) -> Result<Vec<Constraint>, String> {
    let text = format!("{HEAD}constraints:\n{constraints}");
    let manifest = Manifest::parse(&Document::new("m.yaml", text)).map_err(|error| error.to_string())?;
    Ok(manifest.constraints)
}

fn one(constraint: &str) -> Constraint {
    read(&format!("  - {constraint}\n")).unwrap().remove(0)
}

/// At the end, on the way.
fn judge(constraint: &Constraint, a: &str, b: &str) -> (bool, bool) {
    let allows = |moment| constraint.allows(moment, &[a, b]).unwrap();
    (allows(Moment::End), allows(Moment::Transition))
}

#[test]
fn rows_of_the_end_hold_on_the_way_too_and_a_missing_list_says_nothing() {
    let both = one("combinations: {types: [a, b], end: [[v1, v1], [v2, v2]], transition: [[v2, v1]]}");
    for (a, b, expected) in [
        ("v1", "v1", (true, true)),
        ("v2", "v2", (true, true)),
        ("v2", "v1", (false, true)),
        ("v1", "v2", (false, false)),
        ("v3", "v3", (false, false)),
    ] {
        assert_eq!(judge(&both, a, b), expected, "{a} {b}");
    }
    let end = one("combinations: {types: [a, b], end: [[v1, '*']]}");
    assert_eq!((judge(&end, "v1", "x"), judge(&end, "v2", "x")), ((true, true), (false, true)));
    let way = one("combinations: {types: [a, b], transition: [[['v1', 'v2'], '>=2']]}");
    assert_eq!((judge(&way, "v2", "2.1"), judge(&way, "v3", "2.1")), ((true, true), (true, false)));
    let strict = one("combinations: {types: [a, b], end: [[v1, v1]], transition: []}");
    assert_eq!((judge(&strict, "v1", "v1"), judge(&strict, "v2", "v1")), ((true, true), (false, false)));
}

#[test]
fn requires_and_conflicts_hold_in_their_scope() {
    let requires = one("{when: {a: '>=2'}, requires: {b: '>=1.5 <3 !=1.7'}}");
    for (a, b, expected) in [
        ("1", "1", true),
        ("2", "1.4", false),
        ("2", "1.5", true),
        ("2", "1.7", false),
        ("2", "3", false),
        ("2", "2.9", true),
    ] {
        assert_eq!(judge(&requires, a, b), (expected, expected), "{a} {b}");
    }
    let conflicts = one("{conflicts: {a: v1, b: [v2, v3]}, scope: transition}");
    assert_eq!((judge(&conflicts, "v1", "v3"), judge(&conflicts, "v1", "v1")), ((true, false), (true, true)));
    let conflicts = one("{conflicts: {a: v1, b: [v2, v3]}, scope: end}");
    assert_eq!(judge(&conflicts, "v1", "v3"), (false, true));
}

#[test]
fn versions_without_an_order_are_an_error_unless_another_alternative_holds() {
    let constraint = one("{conflicts: {a: '<2', b: '*'}}");
    let error = constraint.allows(Moment::End, &["unknown", "v1"]).unwrap_err();
    assert_eq!(error.to_string(), "the version \"unknown\" cannot be compared with \"2\"");
    let constraint = one("{conflicts: {a: [unknown, '<2'], b: '*'}}");
    assert!(!constraint.allows(Moment::End, &["unknown", "v1"]).unwrap());
}

#[test]
fn a_constraint_is_told_by_name_place_and_words() {
    let constraint = one("{name: n, reason: because, when: {a: '>=2'}, requires: {b: [x, y]}, scope: end}");
    assert_eq!(constraint.label(), "\"n\" (m.yaml:9:5)");
    assert_eq!(constraint.words(), "a >=2 requires b x or y at the end (because)");
    let constraint = one("combinations: {types: [a, b], end: [[v1, v1]], transition: []}");
    assert_eq!(constraint.label(), "the constraint at m.yaml:9:5");
    assert_eq!(constraint.words(), "combinations of a, b: at the end (v1, v1); no others on the way");
}

#[test]
fn every_defect_is_told_with_its_place() {
    for (constraint, expected) in [
        (
            "{}",
            "m.yaml:9:5: \"constraints[0]\" must have exactly one of \"combinations\", \"requires\" and \"conflicts\".",
        ),
        ("{requires: {a: v1}}", "m.yaml:9:5: The key \"constraints[0].when\" is missing."),
        ("{conflicts: {a: v1}, when: {b: v1}}", "m.yaml:9:26: \"constraints[0].when\" is not a known key."),
        ("{conflicts: {a: v1}, scop: end}", "m.yaml:9:26: \"constraints[0].scop\" is not a known key."),
        ("{conflicts: {}}", "m.yaml:9:17: \"constraints[0].conflicts\" is empty; name at least one Component type."),
        (
            "{conflicts: {c: v1}}",
            "m.yaml:9:5: \"constraints[0]\" speaks of \"c\", which has no entry in \"component_types\".",
        ),
        (
            "{conflicts: {a: v1}, scope: way}",
            "m.yaml:9:33: \"constraints[0].scope\" is \"way\"; expected \"end\", \"transition\" or \"always\".",
        ),
        (
            "{when: {a: v1}, requires: {a: v2}}",
            "m.yaml:9:32: \"constraints[0].requires.a\" stands in \"when\" already; a constraint names a Component type once.",
        ),
        ("{conflicts: {a: []}}", "m.yaml:9:21: \"constraints[0].conflicts.a\" is empty; name at least one version."),
        (
            "{conflicts: {a: '>=x'}}",
            "m.yaml:9:21: \"constraints[0].conflicts.a\" compares with \"x\", which has no order; only numbers with dots \
             have one.",
        ),
        (
            "{conflicts: {a: '>= 2'}}",
            "m.yaml:9:21: \"constraints[0].conflicts.a\" has \">=\" without a version; write them without a blank between.",
        ),
        (
            "{conflicts: {a: '>=2 3'}}",
            "m.yaml:9:21: \"constraints[0].conflicts.a\" has \"3\" in a range; expected <, <=, >, >=, = or != with a version.",
        ),
        (
            "{combinations: {types: [a, b], end: [[v1]]}}",
            "m.yaml:9:42: \"constraints[0].combinations.end[0]\" has 1 versions, but \"types\" has 2 Component types.",
        ),
        (
            "{combinations: {types: [a, a], end: []}}",
            "m.yaml:9:32: \"constraints[0].combinations.types[1]\" stands here for the second time.",
        ),
        (
            "{combinations: {types: [a, b]}}",
            "m.yaml:9:20: \"constraints[0].combinations\" must have \"end\" or \"transition\".",
        ),
        (
            "{combinations: {types: [a, b], ende: []}}",
            "m.yaml:9:20: \"constraints[0].combinations\" must have \"end\" or \"transition\".",
        ),
        (
            "{combinations: {types: [a, b], end: [], transitions: []}}",
            "m.yaml:9:45: \"constraints[0].combinations.transitions\" is not a known key.",
        ),
    ] {
        assert_eq!(read(&format!("  - {constraint}\n")).unwrap_err(), expected, "{constraint}");
    }
    assert_eq!(read("  {a: b}\n").unwrap_err(), "m.yaml:9:3: \"constraints\" must be a list, but it is a mapping.");
}

/// What a Manifest of `mender/v1` says is what it said before; a slip of the pen in one of `orchestrator/v1` is an error.
#[test]
fn the_dialects_are_kept_apart() {
    let mender = HEAD.replace("orchestrator/v1", "mender/v1");
    let mender = mender.replace("_name: a}", "_name: a, update_strategy: {order: 1}}");
    let mender = mender.replace("_name: b}", "_name: b, update_strategy: {order: 2}}");
    let parse = |text: &str| Manifest::parse(&Document::new("m.yaml", text)).map_err(|error| error.to_string());
    let manifest = parse(&format!("{mender}constraints: nonsense\n")).unwrap();
    assert_eq!(manifest.warnings, ["m.yaml:8:1: \"constraints\" is not a known key and is ignored."]);
    assert!(manifest.constraints.is_empty());
    let missing = parse(&HEAD.replace("orchestrator/v1", "mender/v1")).unwrap_err();
    assert_eq!(missing, "m.yaml:6:6: The key \"component_types.a.update_strategy\" is missing.");
    for (what, by, expected) in [
        ("_name: a}", "_name: a, oder: 1}", "m.yaml:6:25: \"component_types.a.oder\" is not a known key."),
        (
            "_name: a}",
            "_name: a, reboot: maybe}",
            "m.yaml:6:33: \"component_types.a.reboot\" is \"maybe\"; expected \"none\" or \"host\".",
        ),
        (
            "_name: a}",
            "_name: a, intermediates: [{version: v1}]}",
            "m.yaml:6:41: \"component_types.a.intermediates[0]\" must have an \"artifact_name\" or an \"artifact_path\".",
        ),
        ("name: m\n", "name: m\nnmae: m\n", "m.yaml:4:1: \"nmae\" is not a known key."),
        (
            "orchestrator/v1",
            "orchestrator/v2",
            "m.yaml:1:14: \"api_version\" is \"orchestrator/v2\"; expected \"mender/v1\".",
        ),
    ] {
        assert_eq!(parse(&HEAD.replace(what, by)).unwrap_err(), expected);
    }
}
