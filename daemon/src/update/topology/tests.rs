use proptest::prelude::*;

use super::*;
use crate::core::error::{Error, Kind};

const GOOD: &str = "\
api_version: mender/v1
kind: topology
system_type: system-core
components:
  - component_type: gateway
    interface: rootfs-image
  - component_type: rtos
    interface_args: [\"1\", --address=0x48, 7, '']
  - component_type: rtos
";
const HEAD: &str = "api_version: mender/v1\nkind: topology\nsystem_type: system-core\n";

fn document(text: &str) -> Document {
    Document::new("topology.yaml", text)
}

fn parse(text: &str) -> Result<Topology, DocumentError> {
    Topology::parse(&document(text), None)
}

fn component(component_type: &str, interface: &str, arguments: &[&str]) -> TopologyComponent {
    TopologyComponent {
        component_type: component_type.to_owned(),
        interface: interface.to_owned(),
        interface_args: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
    }
}

#[test]
fn a_topology_is_read_in_one_file_and_in_two() {
    let whole = parse(GOOD).unwrap();
    assert_eq!(whole.system_type, "system-core");
    assert_eq!(
        whole.components,
        [
            component("gateway", "rootfs-image", &[]),
            component("rtos", "rtos", &["1", "--address=0x48", "7", ""]),
            component("rtos", "rtos", &[]),
        ]
    );
    assert_eq!(whole.warnings, [""; 0]);

    let list = &GOOD[HEAD.len()..];
    let split = Topology::parse(&document(HEAD), Some(&Document::new("components.yaml", list))).unwrap();
    assert_eq!(split, whole);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table with one row for each rule")]
fn every_rule_has_its_message() {
    let many_arguments = format!("[{}]", "a, ".repeat(257));
    let long_argument = format!("[{}]", "a".repeat(4_097));
    let large_arguments = format!("[{}]", format!("{}, ", "a".repeat(4_096)).repeat(17));
    let arguments = "[\"1\", --address=0x48, 7, '']";
    for (what, by, expected) in [
        ("api_version: mender/v1\n", "", "topology.yaml:1:1: The key \"api_version\" is missing."),
        ("mender/v1", "mender/v9", "topology.yaml:1:14: \"api_version\" is \"mender/v9\"; expected \"mender/v1\"."),
        ("kind: topology\n", "", "topology.yaml:1:1: The key \"kind\" is missing."),
        ("kind: topology", "kind: manifest", "topology.yaml:2:7: \"kind\" is \"manifest\"; expected \"topology\"."),
        ("system_type: system-core\n", "", "topology.yaml:1:1: The key \"system_type\" is missing."),
        (
            "system_type: system-core",
            "system_type:",
            "topology.yaml:3:1: \"system_type\" must be a string, but it is empty.",
        ),
        ("system_type: system-core", "system_type: ''", "topology.yaml:3:14: \"system_type\" is empty."),
        (
            &GOOD[HEAD.len()..],
            "",
            "topology.yaml:1:1: The document has no \"components\", and no other file is named that has them.",
        ),
        (
            &GOOD[HEAD.len()..],
            "components: []",
            "topology.yaml:4:13: \"components\" is empty; a System has at least one Component.",
        ),
        (&GOOD[HEAD.len()..], "components:", "topology.yaml:4:1: \"components\" must be a list, but it is empty."),
        (
            &GOOD[HEAD.len()..],
            "components: {}",
            "topology.yaml:4:13: \"components\" must be a list, but it is a mapping.",
        ),
        (
            &GOOD[HEAD.len()..],
            "components: [rtos]",
            "topology.yaml:4:14: \"components[0]\" must be a mapping, but it is a string.",
        ),
        (
            "component_type: gateway\n    ",
            "",
            "topology.yaml:5:5: The key \"components[0].component_type\" is missing.",
        ),
        (
            "component_type: gateway",
            "component_type: ..",
            "topology.yaml:5:21: \"components[0].component_type\" must not contain \"/\" or be \".\" or \"..\": \"..\".",
        ),
        (
            "interface: rootfs-image",
            "interface: ../../bin/sh",
            "topology.yaml:6:16: \"components[0].interface\" must not contain \"/\" or be \".\" or \"..\": \"../../bin/sh\".",
        ),
        (
            "interface: rootfs-image",
            "interface: .",
            "topology.yaml:6:16: \"components[0].interface\" must not contain \"/\" or be \".\" or \"..\": \".\".",
        ),
        ("interface: rootfs-image", "interface: ''", "topology.yaml:6:16: \"components[0].interface\" is empty."),
        (
            "interface: rootfs-image",
            "interface:",
            "topology.yaml:6:5: \"components[0].interface\" must be a string, but it is empty.",
        ),
        (
            "interface: rootfs-image",
            "interface: \"a\\0\"",
            "topology.yaml:6:16: \"components[0].interface\" contains a control character: \"a\\u{0}\".",
        ),
        (arguments, "1", "topology.yaml:8:21: \"components[1].interface_args\" must be a list, but it is a number."),
        (
            arguments,
            "[a, ~]",
            "topology.yaml:8:25: \"components[1].interface_args[1]\" must be a string, but it is empty.",
        ),
        (
            arguments,
            "[a, {}]",
            "topology.yaml:8:25: \"components[1].interface_args[1]\" must be a string, but it is a mapping.",
        ),
        (arguments, "[\"a\\0\"]", "topology.yaml:8:22: \"components[1].interface_args[0]\" contains a NUL character."),
        (
            arguments,
            &many_arguments,
            "topology.yaml:8:21: \"components[1].interface_args\" has 257 items; at most 256 are allowed.",
        ),
        (
            arguments,
            &long_argument,
            "topology.yaml:8:22: \"components[1].interface_args[0]\" is longer than 4096 bytes.",
        ),
        (
            arguments,
            &large_arguments,
            "topology.yaml:8:21: \"components[1].interface_args\" has 69632 bytes in all; at most 65536 are allowed.",
        ),
    ] {
        let text = GOOD.replacen(what, by, 1);
        assert_ne!(text, GOOD, "{what}");
        let error = parse(&text).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        assert_eq!(Error::from(error).kind, Kind::InvalidTopology);
    }
}

#[test]
fn components_stand_in_exactly_one_place() {
    let list = &GOOD[HEAD.len()..];
    for (main, components, expected) in [
        (
            GOOD,
            list,
            "topology.yaml:4:1: \"components\" must not stand here, because \"components.yaml\" has the Components; they \
             belong in exactly one place.",
        ),
        (HEAD, "component: []\n", "components.yaml:1:1: The key \"components\" is missing."),
        (
            HEAD,
            "components: []\n",
            "components.yaml:1:13: \"components\" is empty; a System has at least one Component.",
        ),
        (HEAD, GOOD, "components.yaml:1:1: \"api_version\" must stand in \"topology.yaml\" only."),
        (
            HEAD,
            "components: []\nkind: topology\n",
            "components.yaml:2:1: \"kind\" must stand in \"topology.yaml\" only.",
        ),
        (HEAD, "system_type: a\n", "components.yaml:1:1: \"system_type\" must stand in \"topology.yaml\" only."),
        (HEAD, "", "components.yaml:1:1: The document is empty."),
    ] {
        let error = Topology::parse(&document(main), Some(&Document::new("components.yaml", components))).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn odd_but_usable_things_are_warnings() {
    let text = GOOD
        .replacen("component_type: gateway", "component_type: gate.way", 1)
        .replacen("    interface_args", "    interface_arg: [x]\n    interface_args", 1)
        .replacen("kind:", "version: 1\nkind:", 1);
    assert_eq!(
        parse(&text).unwrap().warnings,
        [
            "topology.yaml:2:1: \"version\" is not a known key and is ignored.",
            "topology.yaml:6:5: \"components[0].component_type\" contains \".\", which makes the lines of show-provides and \
         show-inventory ambiguous.",
            "topology.yaml:9:5: \"components[1].interface_arg\" is not a known key and is ignored.",
        ]
    );
}

#[test]
fn the_number_of_components_is_bounded() {
    let text = |count: usize| format!("{HEAD}components:\n{}", "- component_type: rtos\n".repeat(count));
    assert_eq!(parse(&text(10_000)).unwrap().components.len(), 10_000);
    assert_eq!(
        parse(&text(10_001)).unwrap_err().to_string(),
        "topology.yaml:5:3: \"components\" has 10001 items; at most 10000 are allowed."
    );
}

#[test]
fn files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let (main, list) = (directory.path().join("topology.yaml"), directory.path().join("components.yaml"));
    std::fs::write(&main, HEAD).unwrap();
    std::fs::write(&list, &GOOD[HEAD.len()..]).unwrap();
    assert_eq!(Topology::read(&main, Some(&list)).unwrap().components.len(), 3);
    std::fs::remove_file(&list).unwrap();
    assert_eq!(
        Topology::read(&main, Some(&list)).unwrap_err().to_string(),
        format!("Cannot read \"{}\": No such file or directory.", list.display())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_topology_never_panics(position in 0..GOOD.len(), length in 0_usize..40, patch in ".{0,8}") {
        let end = (position + length).min(GOOD.len());
        let text = format!("{}{patch}{}", &GOOD[..position], &GOOD[end..]);
        if let Ok(topology) = parse(&text) {
            for component in topology.components {
                let path = Path::new(&component.interface);
                prop_assert_eq!(path.components().count(), 1);
                prop_assert_eq!(path.file_name(), Some(path.as_os_str()));
            }
        }
    }
}
