use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const VERSION: &str = "rootfs-image.rtos-interface.version";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn rtos() -> ComponentKey {
    ComponentKey { component_type: "rtos".to_owned(), id: "R123".to_owned() }
}

/// What `mender-artifact write module-image` makes for `rtos-interface`.
fn artifact(version: &str) -> Candidate {
    Candidate {
        source: format!("{version}.mender"),
        size: 5_120,
        device_types: vec!["rtos".to_owned()],
        artifact_name: version.to_owned(),
        artifact_group: None,
        provides: map(&[(VERSION, version)]),
        depends: BTreeMap::new(),
        clears_provides: Some(vec!["rootfs-image.rtos-interface.*".to_owned()]),
        payload_type: "rtos-interface".to_owned(),
    }
}

fn depends(mut candidate: Candidate, key: &str, values: &[&str]) -> Candidate {
    candidate.depends.insert(key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect());
    candidate
}

fn choose(provides: &[(&str, &str)], candidates: &[Candidate]) -> Result<Selection, NoSuitableArtifact> {
    select(&rtos(), "rtos-interface", &map(provides), candidates)
}

#[test]
fn the_example_of_the_documentation() {
    let candidates = [depends(artifact("rtos-v2"), VERSION, &["rtos-v1"])];
    assert_eq!(choose(&[(VERSION, "rtos-v1")], &candidates), Ok(Selection::Install(0)));
    assert_eq!(choose(&[(VERSION, "rtos-v2")], &candidates), Ok(Selection::Unchanged { because: 0 }));
    let error = choose(&[(VERSION, "rtos-v0")], &candidates).unwrap_err();
    assert_eq!(
        error.to_string(),
        "No Artifact suits the Component \"rtos.R123\": not \"rtos-v2.mender\", because it depends on \
         \"rootfs-image.rtos-interface.version\" being \"rtos-v1\", but the Component has \"rtos-v0\"."
    );
    assert_eq!(Error::from(error).kind, Kind::NoSuitableArtifact);
}

#[test]
fn every_refusal_says_why() {
    let with = |change: &dyn Fn(&mut Candidate)| {
        let mut candidate = artifact("rtos-v2");
        change(&mut candidate);
        choose(&[(VERSION, "rtos-v1"), ("bootloader", "3")], &[candidate]).unwrap_err().to_string()
    };
    let head = "No Artifact suits the Component \"rtos.R123\": not \"rtos-v2.mender\", because";
    let depends_on = |candidate: &mut Candidate, key: &str, values: &[&str]| {
        *candidate = depends(candidate.clone(), key, values);
    };
    assert_eq!(
        with(&|candidate| candidate.device_types = vec!["RTOS".to_owned(), "rt*".to_owned()]),
        format!("{head} it is for the device type \"RTOS\" or \"rt*\".")
    );
    assert_eq!(with(&|candidate| candidate.device_types.clear()), format!("{head} it is for the device type nothing."));
    assert_eq!(
        with(&|candidate| candidate.payload_type = "esp32".to_owned()),
        format!("{head} its payload type \"esp32\" is not the Interface \"rtos-interface\".")
    );
    assert_eq!(
        with(&|candidate| depends_on(candidate, "radio", &["1"])),
        format!("{head} it depends on \"radio\", which the Component does not provide.")
    );
    assert_eq!(
        with(&|candidate| depends_on(candidate, "bootloader", &["4", "5"])),
        format!("{head} it depends on \"bootloader\" being \"4\" or \"5\", but the Component has \"3\".")
    );
    assert_eq!(
        with(&|candidate| depends_on(candidate, "bootloader", &[])),
        format!("{head} it depends on \"bootloader\" being nothing, but the Component has \"3\".")
    );
    // A header may ask for a name or group; a Component that does not keep them cannot fulfil that.
    assert_eq!(
        with(&|candidate| depends_on(candidate, "artifact_name", &["rtos-v1"])),
        format!("{head} it depends on \"artifact_name\", which the Component does not provide.")
    );
    // The device type is that of the Topology, whatever is asked.
    assert_eq!(
        with(&|candidate| depends_on(candidate, "device_type", &["gateway"])),
        format!("{head} it depends on \"device_type\" being \"gateway\", but the Component has \"rtos\".")
    );
    assert_eq!(
        choose(&[(VERSION, "rtos-v1")], &[]).unwrap_err().to_string(),
        "There is no Artifact for the Component \"rtos.R123\"."
    );
}

#[test]
fn a_long_list_of_refusals_is_cut() {
    let candidates: Vec<_> = (10..25)
        .map(|number| Candidate { device_types: Vec::new(), ..artifact(&format!("a{number}")) })
        .rev()
        .collect();
    let error = choose(&[(VERSION, "0")], &candidates).unwrap_err();
    assert_eq!(error.refusals.len(), 15);
    let message = error.to_string();
    assert!(message.contains("not \"a10.mender\", because"), "{message}");
    assert!(message.ends_with("nothing; and 5 more."), "{message}");
}

#[test]
fn the_smallest_that_fits_is_taken() {
    let full = Candidate { size: 900, source: "full".to_owned(), ..artifact("v2") };
    let patch = Candidate { size: 100, source: "patch".to_owned(), ..depends(artifact("v2"), VERSION, &["v1"]) };
    let candidates = [full.clone(), patch.clone()];
    assert_eq!(choose(&[(VERSION, "v1")], &candidates), Ok(Selection::Install(1)));
    assert_eq!(choose(&[(VERSION, "v0")], &candidates), Ok(Selection::Install(0)));
    // Of equal size, the source decides.
    let twins = [Candidate { source: "b".to_owned(), ..full.clone() }, Candidate { source: "a".to_owned(), ..full }];
    assert_eq!(choose(&[(VERSION, "v1")], &twins), Ok(Selection::Install(1)));
}

#[test]
fn one_installed_candidate_leaves_the_component_unchanged() {
    // The full image is installed; the patch of the same Release adds a mark and would go on, and then the full image again.
    let full = Candidate { size: 900, source: "full".to_owned(), ..artifact("v2") };
    let mut patch = Candidate { size: 100, source: "patch".to_owned(), ..artifact("v2") };
    patch.provides.insert("rootfs-image.rtos-interface.patched".to_owned(), "yes".to_owned());
    let candidates = [patch, full];
    assert_eq!(choose(&[(VERSION, "v2")], &candidates), Ok(Selection::Unchanged { because: 1 }));
}

#[test]
fn an_artifact_is_installed_if_applying_it_changes_nothing() {
    let artifact = artifact("v1");
    for (provides, installed) in [
        (&[(VERSION, "v1")][..], true),
        // The name does not count; what the Artifact does not clear stays.
        (&[(VERSION, "v1"), ("artifact_name", "other")], true),
        (&[(VERSION, "v1"), ("bootloader", "3")], true),
        (&[(VERSION, "v2")], false),
        // This would be cleared.
        (&[(VERSION, "v1"), ("rootfs-image.rtos-interface.checksum", "1")], false),
        (&[("bootloader", "3")], false),
        (&[], false),
    ] {
        assert_eq!(is_installed(&map(provides), &artifact), installed, "{provides:?}");
    }
}

#[test]
fn without_patterns_everything_is_cleared() {
    let artifact = Candidate { clears_provides: None, ..artifact("v1") };
    assert!(is_installed(&map(&[(VERSION, "v1")]), &artifact));
    assert!(!is_installed(&map(&[(VERSION, "v1"), ("bootloader", "3")]), &artifact));
}

#[test]
fn the_name_counts_where_there_is_nothing_else() {
    let bare = Candidate { provides: BTreeMap::new(), clears_provides: None, ..artifact("v1") };
    assert!(is_installed(&map(&[("artifact_name", "v1")]), &bare));
    assert!(!is_installed(&map(&[("artifact_name", "v0")]), &bare));
    // Here only the later side has nothing but a name.
    assert!(!is_installed(&map(&[]), &bare));
    assert!(!is_installed(&map(&[("artifact_name", "v1"), (VERSION, "v1")]), &bare));
    // And here only the current one.
    assert!(!is_installed(&map(&[("artifact_name", "v1")]), &artifact("v1")));
}

#[test]
fn provides_after_an_install() {
    let current = [("artifact_name", "old"), ("artifact_group", "stable"), ("app.version", "1"), ("boot", "3")];
    let provides = map(&[("app.version", "2")]);
    let clears = Some(vec!["app.*".to_owned(), "artifact_group".to_owned()]);
    let name = ("artifact_name", "new");
    for (provides, clears, expected) in [
        (BTreeMap::new(), None, &[name][..]),
        (BTreeMap::new(), clears.clone(), &[name, ("boot", "3")]),
        (provides.clone(), None, &[name, ("app.version", "2")]),
        (provides, clears, &[name, ("boot", "3"), ("app.version", "2")]),
    ] {
        let candidate = Candidate { provides, clears_provides: clears, ..artifact("new") };
        assert_eq!(provides_after(&map(&current), &candidate), map(expected));
    }
    let grouped =
        Candidate { artifact_group: Some("beta".to_owned()), clears_provides: Some(Vec::new()), ..artifact("new") };
    assert_eq!(provides_after(&map(&current), &grouped).get("artifact_group").map(String::as_str), Some("beta"));
    // Nothing to say is not an empty name or group.
    let silent = Candidate {
        artifact_name: String::new(),
        artifact_group: Some(String::new()),
        clears_provides: Some(Vec::new()),
        ..artifact("new")
    };
    let after = provides_after(&map(&current), &silent);
    assert_eq!(after.get("artifact_name").map(String::as_str), Some("old"));
    assert_eq!(after.get("artifact_group").map(String::as_str), Some("stable"));
}

#[test]
fn patterns_match_as_the_format_says() {
    for (pattern, key, matches) in [
        ("", "", true),
        ("", "a", false),
        ("*", "", true),
        ("*", "anything.at-all", true),
        ("***", "", true),
        ("***", "anything", true),
        ("abc", "abc", true),
        ("abc*def*ghi", "abc_123_def_456_ghi", true),
        ("abc*def*ghi", "abcdefghi", true),
        ("abc*def*ghi", "abc_123_def_456_gh", false),
        ("test_", "test_key_1", false),
        ("test_*", "test_key_1", true),
        ("test_*", "test_", true),
        ("*_1", "test_key_1", true),
        ("*_1", "test_key_2", false),
        ("a*c*b", "a_b_c", false),
        ("test_*test_*", "test_string", false),
        ("test_*test_*", "test_test_", true),
        // Prefix and suffix must not share characters, and a literal must not match by them alone.
        ("a", "aba", false),
        ("ab*ba", "aba", false),
        ("a*a", "a", false),
        ("a*longer-than-the-key", "a", false),
        // No other character is special.
        ("a?c", "abc", false),
        ("a?c", "a?c", true),
        ("[ab]", "a", false),
        ("rootfs-image.*", "rootfs-image.version", true),
        ("rootfs-image.*", "rootfs-imagexversion", false),
        ("Ä*ö", "Äxö", true),
    ] {
        assert_eq!(glob_matches(pattern, key), matches, "\"{pattern}\" and \"{key}\"");
    }
}

#[test]
fn a_hostile_pattern_takes_no_time() {
    // Exponential for a matcher that tries every possibility.
    assert!(!glob_matches(&"a*".repeat(20_000), &"a".repeat(10_000)));
    assert!(!glob_matches(&format!("{}b", "*a".repeat(5_000)), &"a".repeat(10_000)));
}

#[test]
fn the_payload_type_names_the_interface() {
    let own = map(&[("rootfs-image.rtos.version", "1")]);
    assert!(accepts_payload_type("rtos", &own, "rtos"));
    assert!(!accepts_payload_type("rtos", &own, "rootfs-image"));
    assert!(!accepts_payload_type("rtos", &map(&[]), "rootfs-image"));
    assert!(!accepts_payload_type("rtos", &own, "rtos "));
    // A Mender Client behind the Interface takes whatever it has an Update Module for.
    let mender = map(&[("rootfs-image.version", "1")]);
    assert!(accepts_payload_type("over-ssh", &mender, "rootfs-image"));
    assert!(accepts_payload_type("over-ssh", &mender, "single-file"));
}

/// Matches character by character, trying everything.
fn naive(pattern: &[char], key: &[char]) -> bool {
    match pattern {
        [] => key.is_empty(),
        ['*', rest @ ..] => (0..=key.len()).any(|skip| naive(rest, &key[skip..])),
        [first, rest @ ..] => key.first() == Some(first) && naive(rest, &key[1..]),
    }
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let words = || prop::sample::select(vec!["v1", "v2", "v3"]);
    let keys = prop::sample::select(vec!["a", "b", VERSION]);
    let clears = prop::option::of(prop::collection::vec(prop::sample::select(vec!["a", "*", "rootfs-image.*"]), 0..2));
    (
        0_u64..3,
        prop::sample::select(vec!["x", "y", "z"]),
        prop::bool::weighted(0.8),
        prop::collection::btree_map(keys.clone(), words(), 0..3),
        prop::collection::btree_map(keys, prop::collection::vec(words(), 0..3), 0..2),
        clears,
    )
        .prop_map(|(size, source, fits, provides, depends, clears)| Candidate {
            size,
            source: source.to_owned(),
            device_types: vec![if fits { "rtos" } else { "gateway" }.to_owned()],
            provides: provides.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            depends: depends
                .into_iter()
                .map(|(key, values)| (key.to_owned(), values.into_iter().map(str::to_owned).collect()))
                .collect(),
            clears_provides: clears.map(|patterns| patterns.into_iter().map(str::to_owned).collect()),
            ..artifact("name")
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patterns_match_as_the_naive_matcher_says(pattern in "[ab*]{0,8}", key in "[ab]{0,10}") {
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(glob_matches(&pattern, &key), naive(&characters(&pattern), &characters(&key)));
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(
        provides in prop::collection::btree_map(
            prop::sample::select(vec!["a", "b", VERSION]).prop_map(str::to_owned),
            prop::sample::select(vec!["v1", "v2"]).prop_map(str::to_owned),
            0..3,
        ),
        candidates in prop::collection::vec(any_candidate(), 0..6),
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..6),
    ) {
        let mut shuffled = candidates.clone();
        for (left, right) in swaps {
            if !shuffled.is_empty() {
                let (left, right) = (left.index(shuffled.len()), right.index(shuffled.len()));
                shuffled.swap(left, right);
            }
        }
        let outcome = |candidates: &[Candidate]| match select(&rtos(), "rtos-interface", &provides, candidates) {
            Ok(Selection::Install(index)) => Ok((true, candidates[index].clone())),
            Ok(Selection::Unchanged { because }) => Ok((false, candidates[because].clone())),
            Err(error) => Err(error),
        };
        prop_assert_eq!(outcome(&candidates), outcome(&shuffled));
    }

    #[test]
    fn what_was_just_installed_is_installed(
        provides in prop::collection::btree_map("[a-c.*]{0,3}", "[xy]", 0..4),
        candidate in any_candidate(),
    ) {
        prop_assert!(is_installed(&provides_after(&provides, &candidate), &candidate));
    }
}
