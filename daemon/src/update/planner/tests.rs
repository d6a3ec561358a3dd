#![expect(clippy::format_push_string, reason = "writing to a String cannot fail, and this says so in fewer words")]

use super::*;
use crate::core::document::Document;
use crate::update::manifest::Manifest;

fn constraints(types: &[&str], text: &str) -> Vec<Constraint> {
    let mut document =
        "api_version: orchestrator/v1\nkind: manifest\nname: m\nsystem_types_compatible: [s]\ncomponent_types:\n"
            .to_owned();
    for name in types {
        document.push_str(&format!("  {name}: {{artifact_name: a}}\n"));
    }
    document.push_str(&format!("constraints:\n{text}"));
    Manifest::parse(&Document::new("m.yaml", document)).unwrap().constraints
}

fn unit(component_type: &str) -> Unit {
    Unit {
        component_type: component_type.to_owned(),
        count: 1,
        label: component_type.to_owned(),
        start: "1".to_owned(),
        ways: vec![vec!["2".to_owned()]],
        reboots_host: false,
        stays: false,
        order: None,
    }
}

fn steps(schedule: &Schedule) -> Vec<Vec<u32>> {
    schedule.courses.iter().map(|course| course.steps.clone()).collect()
}

#[test]
fn nothing_to_do_is_a_plan_without_steps() {
    let schedule = plan(&[Unit { ways: vec![Vec::new()], ..unit("a") }], &[], BUDGET).unwrap();
    assert_eq!((schedule.steps, steps(&schedule), schedule.minimal), (0, vec![Vec::new()], true));
    assert_eq!(plan(&[], &[], BUDGET).unwrap().steps, 0);
}

/// What no constraint connects is planned apart and goes side by side; one reboot of the host serves two clusters.
#[test]
fn clusters_run_side_by_side_and_share_reboots_of_the_host() {
    let types = ["a", "b", "c", "d"];
    let constraints =
        constraints(&types, "  - {when: {b: '2'}, requires: {a: '2'}}\n  - {when: {d: '2'}, requires: {c: '2'}}\n");
    let mut units: Vec<Unit> = types.iter().map(|name| unit(name)).collect();
    assert_eq!(steps(&plan(&units, &constraints, BUDGET).unwrap()), [[1], [2], [1], [2]]);
    units.push(unit("e"));
    units[1].reboots_host = true;
    units[4].reboots_host = true;
    let schedule = plan(&units, &constraints, BUDGET).unwrap();
    assert_eq!(steps(&schedule), [[1], [2], [1], [2], [2]]);
    assert_eq!(schedule.courses[4].reasons, ["together with another reboot of the host"]);
}

/// None of the constraints that are named can be left out, and none that has no part in it is named.
#[test]
fn a_conflict_names_what_is_needed_for_it_and_nothing_else() {
    let text = "  - {name: one, when: {b: '2'}, requires: {a: '2'}}\n  - {name: idle, when: {c: '2'}, requires: {a: '2'}}\n  \
                - {name: two, when: {c: '2'}, requires: {b: '2'}}\n  - {name: three, when: {a: '2'}, requires: {c: '2'}}\n";
    let constraints = constraints(&["a", "b", "c"], text);
    let units = ["a", "b", "c"].map(unit);
    let Err(Unplannable::Conflict { causes, minimal }) = plan(&units, &constraints, BUDGET) else { panic!() };
    assert!(minimal);
    // "idle" and "three" make a circle of their own; it is found because the last ones are left out first.
    assert_eq!(causes.len(), 2, "{causes:?}");
    assert!(causes[0].starts_with("\"idle\" (m.yaml:11:5): ") || causes[0].starts_with("\"one\""), "{causes:?}");
    for left_out in &causes {
        let rest: Vec<Constraint> = constraints
            .iter()
            .filter(|known| causes.iter().any(|cause| cause.contains(&known.label()) && cause != left_out))
            .cloned()
            .collect();
        plan(&units, &rest, BUDGET).unwrap();
    }
    let mut units = units;
    (units[0].order, units[1].order) = (Some(2), Some(1));
    let Err(Unplannable::Conflict { causes, .. }) = plan(&units, &constraints[..1], BUDGET) else { panic!() };
    assert_eq!(causes.len(), 2, "{causes:?}");
    assert!(causes[1].contains("\"order\""), "{causes:?}");
}

#[test]
fn a_budget_that_ends_is_told_and_gives_no_wrong_plan() {
    let types: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    let names: Vec<&str> = types.iter().map(String::as_str).collect();
    let mut text = String::new();
    for first in 0..10 {
        for (a, b, c) in [("1", "1", "2"), ("2", "1", "1"), ("2", "1", "2")] {
            text.push_str(&format!(
                "  - {{conflicts: {{t{first}: '{a}', t{}: '{b}', t{}: '{c}'}}, scope: transition}}\n",
                first + 1,
                first + 2
            ));
        }
    }
    let constraints = constraints(&names, &text);
    let units: Vec<Unit> = names.iter().map(|name| unit(name)).collect();
    for budget in [0, 10, 100, 1_000] {
        match plan(&units, &constraints, budget) {
            Err(Unplannable::GaveUp(text)) => assert!(text.contains("too many ways"), "{text}"),
            // Enough after all; what is given out has stood the check.
            Ok(_) | Err(Unplannable::Conflict { .. }) => assert!(budget > 0),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn equal_input_gives_equal_plans() {
    let types = ["a", "b", "c", "d"];
    let text = "  - {conflicts: {a: '2', b: '1', c: '1'}, scope: transition}\n  - {conflicts: {d: '2', b: '1', c: '2'}, scope: transition}\n";
    let constraints = constraints(&types, text);
    let units = types.map(unit);
    let first = plan(&units, &constraints, BUDGET).unwrap();
    for _ in 0..20 {
        assert_eq!(plan(&units, &constraints, BUDGET).unwrap(), first);
    }
}
