use proptest::prelude::*;

use super::super::topology::TopologyComponent;
use super::*;

const GOOD: &str = "\
api_version: mender/v1
kind: manifest
name: system-core-v1
system_types_compatible: [system-core, '7']
component_types:
  gateway:
    artifact_name: gateway-v1
    update_strategy:
      order: 10
  rtos:
    artifact_name: 1.10
    artifact_path: artifacts/rtos-v1.mender
    update_strategy: {order: 100}
";

fn parse(text: &str) -> Result<Manifest, DocumentError> {
    Manifest::parse(&Document::new("manifest", text))
}

fn topology(system_type: &str, types: &[&str]) -> Topology {
    let component = |name: &&str| TopologyComponent {
        component_type: (*name).to_owned(),
        interface: "rtos-interface".to_owned(),
        interface_args: Vec::new(),
    };
    Topology {
        system_type: system_type.to_owned(),
        components: types.iter().map(component).collect(),
        warnings: Vec::new(),
    }
}

#[test]
fn a_manifest_is_read() {
    let manifest = parse(GOOD).unwrap();
    assert_eq!(manifest.name, "system-core-v1");
    assert_eq!(manifest.system_types_compatible, ["system-core", "7"]);
    let component_type = |key: &str, position: &str, name: &str, path: Option<&str>, order| ComponentType {
        artifact: ArtifactEntry {
            artifact_name: Some(name.to_owned()),
            artifact_path: path.map(PathBuf::from),
            key: key.to_owned(),
            position: position.to_owned(),
            ..ArtifactEntry::default()
        },
        order: Some(order),
        ..ComponentType::default()
    };
    let gateway = component_type("component_types.gateway", "manifest:6:3", "gateway-v1", None, 10);
    let path = Some("artifacts/rtos-v1.mender");
    let rtos = component_type("component_types.rtos", "manifest:10:3", "1.10", path, 100);
    assert_eq!(manifest.component_types, BTreeMap::from([("gateway".to_owned(), gateway), ("rtos".to_owned(), rtos)]));
    assert_eq!(manifest.warnings, [""; 0]);
}

#[test]
fn the_digest_is_that_of_the_text() {
    // What `sha256sum` says of the same bytes.
    assert_eq!(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(parse(GOOD).unwrap().digest, sha256(GOOD));
    assert_ne!(parse(&format!("{GOOD}# more\n")).unwrap().digest, sha256(GOOD));
}

/// Defects as changes of the good Manifest: what to replace, by what, and the message.
#[test]
#[expect(clippy::too_many_lines, reason = "a table with one row for each rule")]
fn every_rule_has_its_message() {
    let long = "x".repeat(257);
    let long_name = format!("name: {long}");
    let long_name_message = format!("manifest:3:7: \"name\" is longer than 256 bytes: \"{}…\".", "x".repeat(80));
    for (what, by, expected) in [
        ("api_version: mender/v1\n", "", "manifest:1:1: The key \"api_version\" is missing."),
        ("mender/v1", "mender/v2", "manifest:1:14: \"api_version\" is \"mender/v2\"; expected \"mender/v1\"."),
        ("mender/v1", "[mender/v1]", "manifest:1:14: \"api_version\" must be a string, but it is a list."),
        ("kind: manifest\n", "", "manifest:1:1: The key \"kind\" is missing."),
        ("kind: manifest", "kind: topology", "manifest:2:7: \"kind\" is \"topology\"; expected \"manifest\"."),
        ("kind: manifest", "kind:", "manifest:2:1: \"kind\" must be a string, but it is empty."),
        ("name: system-core-v1\n", "", "manifest:1:1: The key \"name\" is missing."),
        ("name: system-core-v1", "name: ''", "manifest:3:7: \"name\" is empty."),
        ("name: system-core-v1", "name: \"a\\nb\"", "manifest:3:7: \"name\" contains a control character: \"a\\nb\"."),
        ("name: system-core-v1", &long_name, &long_name_message),
        ("name: system-core-v1", "name: {a: b}", "manifest:3:7: \"name\" must be a string, but it is a mapping."),
        (
            "system_types_compatible: [system-core, '7']\n",
            "",
            "manifest:1:1: The key \"system_types_compatible\" is missing.",
        ),
        (
            "[system-core, '7']",
            "system-core",
            "manifest:4:26: \"system_types_compatible\" must be a list, but it is a string.",
        ),
        (
            "[system-core, '7']",
            "[]",
            "manifest:4:26: \"system_types_compatible\" is empty; name at least one System type.",
        ),
        (
            "[system-core, '7']",
            "[system-core, [a]]",
            "manifest:4:40: \"system_types_compatible[1]\" must be a string, but it is a list.",
        ),
        ("[system-core, '7']", "[system-core, '']", "manifest:4:40: \"system_types_compatible[1]\" is empty."),
        ("component_types:", "component_type:", "manifest:1:1: The key \"component_types\" is missing."),
        (
            &GOOD[GOOD.find("\n  gateway").unwrap()..],
            " {}\n",
            "manifest:5:18: \"component_types\" is empty; name at least one Component type.",
        ),
        (
            &GOOD[GOOD.find("\n  gateway").unwrap()..],
            "\n",
            "manifest:5:1: \"component_types\" must be a mapping, but it is empty.",
        ),
        (
            "  gateway:",
            "  \"gate/way\":",
            "manifest:6:3: \"component_types['gate/way']\" is no valid name: it must not contain \"/\" or be \".\" or \"..\".",
        ),
        ("  gateway:", "  \"\":", "manifest:6:3: \"component_types['']\" is no valid name: it is empty."),
        (
            "  gateway:",
            "  rtos: {}\n  gateway:",
            "manifest:11:3: The key \"component_types.rtos\" stands here for the second time; the first is in line 6.",
        ),
        (
            "    artifact_name: gateway-v1\n",
            "",
            "manifest:7:5: \"component_types.gateway\" must have an \"artifact_name\" or an \"artifact_path\".",
        ),
        (
            "artifact_name: gateway-v1",
            "artifact_name:",
            "manifest:7:5: \"component_types.gateway.artifact_name\" must be a string, but it is empty.",
        ),
        (
            "artifact_name: gateway-v1",
            "artifact_name: ''",
            "manifest:7:20: \"component_types.gateway.artifact_name\" is empty.",
        ),
        (
            "artifacts/rtos-v1.mender",
            "\"a\\0\"",
            "manifest:12:20: \"component_types.rtos.artifact_path\" contains a control character: \"a\\u{0}\".",
        ),
        ("artifacts/rtos-v1.mender", "''", "manifest:12:20: \"component_types.rtos.artifact_path\" is empty."),
        (
            "    update_strategy: {order: 100}\n",
            "",
            "manifest:11:5: The key \"component_types.rtos.update_strategy\" is missing.",
        ),
        (
            "update_strategy: {order: 100}",
            "update_strategy: 100",
            "manifest:13:22: \"component_types.rtos.update_strategy\" must be a mapping, but it is a number.",
        ),
        ("{order: 100}", "{}", "manifest:13:22: The key \"component_types.rtos.update_strategy.order\" is missing."),
        (
            "{order: 100}",
            "{order: 101}",
            "manifest:13:30: \"component_types.rtos.update_strategy.order\" must be an integer from 1 to 100, but it is 101.",
        ),
        (
            "      order: 10\n",
            "      order: 0\n",
            "manifest:9:14: \"component_types.gateway.update_strategy.order\" must be an integer from 1 to 100, but it is 0.",
        ),
        (
            "      order: 10\n",
            "      order: \"10\"\n",
            "manifest:9:14: \"component_types.gateway.update_strategy.order\" must be an integer from 1 to 100, but it is \
             a string; write 10 without quotes.",
        ),
    ] {
        let text = GOOD.replacen(what, by, 1);
        assert_ne!(text, GOOD, "{what}");
        let error = parse(&text).expect_err(expected);
        assert_eq!(error.to_string(), expected);
        assert_eq!(Error::from(error).kind, Kind::InvalidManifest);
    }
}

#[test]
fn numbers_of_types_are_bounded() {
    let system_types = GOOD.replace("[system-core, '7']", &format!("[{}]", "a, ".repeat(1_001)));
    assert_eq!(
        parse(&system_types).unwrap_err().to_string(),
        "manifest:4:26: \"system_types_compatible\" has 1001 items; at most 1000 are allowed."
    );
    let types = |count: usize| {
        use std::fmt::Write as _;
        let mut text = GOOD[..GOOD.find("  gateway").unwrap()].to_owned();
        for index in 0..count {
            writeln!(text, "  t{index}: {{artifact_name: a, update_strategy: {{order: 1}}}}").unwrap();
        }
        text
    };
    assert_eq!(parse(&types(10_000)).unwrap().component_types.len(), 10_000);
    assert_eq!(
        parse(&types(10_001)).unwrap_err().to_string(),
        "manifest:6:3: \"component_types\" has 10001 Component types; at most 10000 are allowed."
    );
}

#[test]
fn unknown_keys_are_warnings_wherever_they_stand() {
    let text = GOOD
        .replacen("name: system", "version: 2\nname: system", 1)
        .replacen("artifact_name: gateway-v1", "artifact_name: gateway-v1\n    update_interface: x", 1)
        .replacen("{order: 100}", "{order: 100, parallel: 4}", 1);
    assert_eq!(
        parse(&text).unwrap().warnings,
        [
            "manifest:3:1: \"version\" is not a known key and is ignored.",
            "manifest:9:5: \"component_types.gateway.update_interface\" is not a known key and is ignored.",
            "manifest:15:35: \"component_types.rtos.update_strategy.parallel\" is not a known key and is ignored.",
        ]
    );
}

#[test]
fn a_manifest_must_fit_the_system() {
    let manifest = parse(GOOD).unwrap();
    // One Manifest may serve Systems that lack some of its types, or have several Components of one.
    assert_eq!(manifest.check_system(&topology("system-core", &["rtos", "rtos"])), Ok(()));
    assert_eq!(manifest.unused_types(&topology("system-core", &["rtos"])), ["gateway"]);
    assert_eq!(manifest.check_system(&topology("7", &["gateway", "rtos"])), Ok(()));

    let error = manifest.check_system(&topology("System-Core", &["rtos"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "The Manifest \"system-core-v1\" is not for this System: its \"system_types_compatible\" has \"system-core\", \
         \"7\", but the Topology has the system_type \"System-Core\"."
    );
    assert_eq!(Error::from(error).kind, Kind::InvalidManifest);

    let error = manifest.check_system(&topology("7", &["zonal", "rtos", "brake", "zonal"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "The Manifest \"system-core-v1\" has no entry in \"component_types\" for \"brake\", \"zonal\" of the Topology; \
         every Component must be covered."
    );
    let many: Vec<String> = (10..23).map(|index| format!("t{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = manifest.check_system(&topology("7", &many)).unwrap_err();
    assert!(error.to_string().contains("\"t19\" and 3 more of the Topology"), "{error}");
    assert!(matches!(error, ManifestError::ComponentTypes { missing, .. } if missing == many));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_manifest_never_panics(position in 0..GOOD.len(), length in 0_usize..40, patch in ".{0,8}") {
        let end = (position + length).min(GOOD.len());
        let text = format!("{}{patch}{}", &GOOD[..position], &GOOD[end..]);
        if let Ok(manifest) = parse(&text) {
            prop_assert!(!manifest.component_types.is_empty());
            for component_type in manifest.component_types.values() {
                prop_assert!(component_type.order.is_some_and(|order| (1..=100).contains(&order)));
                let artifact = &component_type.artifact;
                prop_assert!(artifact.artifact_name.is_some() || artifact.artifact_path.is_some());
            }
        }
    }
}
