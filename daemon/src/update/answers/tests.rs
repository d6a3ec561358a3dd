use proptest::prelude::*;

use super::*;

fn refused<T: std::fmt::Debug>(result: Result<T, AnswerError>) -> String {
    let error = result.unwrap_err();
    let message = error.to_string();
    assert_eq!(Error::from(error), Error::new(Kind::InterfaceFailed, message.clone()));
    message
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn each_choice_has_its_words_and_its_default() {
    for (answer, expected) in [(&b""[..], true), (b"\n", true), (b"Yes", true), (b"Yes\n", true), (b"No\n", false)] {
        assert_eq!(parse_needs_unpacked_artifact(answer), Ok(expected));
    }
    for (answer, expected) in [(&b""[..], false), (b"\n", false), (b"Yes\n", true), (b"No", false)] {
        assert_eq!(parse_provide_payload_file_sizes(answer), Ok(expected));
        assert_eq!(parse_supports_rollback(answer), Ok(expected));
    }
    for (answer, expected) in [
        (&b""[..], NeedsReboot::No),
        (b"\n", NeedsReboot::No),
        (b"No\n", NeedsReboot::No),
        (b"Automatic\n", NeedsReboot::Automatic),
        (b"Yes\n", NeedsReboot::Yes),
    ] {
        assert_eq!(parse_needs_artifact_reboot(answer), Ok(expected));
    }
}

#[test]
fn any_other_word_is_refused() {
    for (answer, expected) in [
        (
            refused(parse_supports_rollback(b"yes\n")),
            "The answer to \"SupportsRollback\" is \"yes\" in line 1; expected \"Yes\" or \"No\".",
        ),
        (
            refused(parse_supports_rollback(b"Automatic\n")),
            "The answer to \"SupportsRollback\" is \"Automatic\" in line 1; expected \"Yes\" or \"No\".",
        ),
        (
            refused(parse_needs_unpacked_artifact(b"Yes \n")),
            "The answer to \"NeedsUnpackedArtifact\" is \"Yes \" in line 1; expected \"Yes\" or \"No\".",
        ),
        (
            refused(parse_needs_artifact_reboot(b"Maybe")),
            "The answer to \"NeedsArtifactReboot\" is \"Maybe\" in line 1; expected \"No\" or \"Automatic\" or \"Yes\".",
        ),
        (
            refused(parse_provide_payload_file_sizes(b"Yes\nYes\n")),
            "The answer to \"ProvidePayloadFileSizes\" has 2 lines; at most 1 are allowed.",
        ),
        (
            refused(parse_provide_payload_file_sizes(b"Yes\n\n")),
            "The answer to \"ProvidePayloadFileSizes\" has 2 lines; at most 1 are allowed.",
        ),
        (
            refused(parse_provide_payload_file_sizes(b"\nYes\n")),
            "The answer to \"ProvidePayloadFileSizes\" has 2 lines; at most 1 are allowed.",
        ),
    ] {
        assert_eq!(answer, expected);
    }
}

#[test]
fn no_answer_may_hold_what_is_no_text() {
    let long = vec![b'x'; ANSWER_LIMIT + 1];
    for (answer, expected) in [
        (
            refused(parse_supports_rollback(b"Yes\r\n")),
            "The answer to \"SupportsRollback\" has the control character '\\r' in line 1.",
        ),
        (
            refused(parse_provides(b"a=1\nb=\x1b[0m\n", "rtos")),
            "The answer to \"Provides\" has the control character '\\u{1b}' in line 2.",
        ),
        (refused(parse_inventory(b"a=\0")), "The answer to \"Inventory\" has the control character '\\0' in line 1."),
        (refused(parse_identity(b"\n\nid=\xff\n")), "The answer to \"Identity\" is not valid UTF-8 in line 3."),
        (refused(parse_inventory(&long)), "The answer to \"Inventory\" has 65537 bytes; at most 65536 are allowed."),
    ] {
        assert_eq!(answer, expected);
    }
}

#[test]
fn an_identity_is_one_line() {
    let longest = "x".repeat(128);
    for id in ["R123", "52:54:00:1d:94:82", "a b", "a=b", "...", "Gerät 1", &longest] {
        assert_eq!(parse_identity(format!("id={id}").as_bytes()), Ok(id.to_owned()));
        assert_eq!(parse_identity(format!("\nid={id}\n\n").as_bytes()), Ok(id.to_owned()));
    }
    let long = format!("id={}", "x".repeat(129));
    let escaped = format!("id={}", "ö".repeat(41));
    let line = "The answer to \"Identity\" is malformed in line";
    let expected_id = "expected \"id=\" and the id of the Component";
    for (answer, expected) in [
        ("", format!("The answer to \"Identity\" is empty; {expected_id}.")),
        (" \n\n", format!("The answer to \"Identity\" is empty; {expected_id}.")),
        ("R123\n", format!("{line} 1, \"R123\": {expected_id}.")),
        ("\nID=R123\n", format!("{line} 2, \"ID=R123\": {expected_id}.")),
        (" id=R123\n", format!("{line} 1, \" id=R123\": {expected_id}.")),
        ("id = R123\n", format!("{line} 1, \"id = R123\": {expected_id}.")),
        ("id=R1\nid=R2\n", "The answer to \"Identity\" has 2 lines; at most 1 are allowed.".to_owned()),
        ("mac=x\nid=R1\nserial=1", "The answer to \"Identity\" has 3 lines; at most 1 are allowed.".to_owned()),
        ("id=\n", format!("{line} 1, \"id=\": the id is empty.")),
        ("id= R1\n", format!("{line} 1, \"id= R1\": the id begins or ends with blanks.")),
        ("id=.\n", format!("{line} 1, \"id=.\": the id must not contain \"/\" or be \".\" or \"..\".")),
        ("id=..\n", format!("{line} 1, \"id=..\": the id must not contain \"/\" or be \".\" or \"..\".")),
        ("id=../../etc\n", format!("{line} 1, \"id=../../etc\": the id must not contain \"/\" or be \".\" or \"..\".")),
        (&long, format!("{line} 1, \"id={}…\": the id is longer than 128 bytes.", "x".repeat(77))),
        (
            &escaped,
            format!("{line} 1, \"{escaped}\": the id is longer than 240 bytes once it is escaped for a directory."),
        ),
    ] {
        assert_eq!(refused(parse_identity(answer.as_bytes())), expected);
    }
}

#[test]
fn provides_are_pairs() {
    assert_eq!(parse_provides(b"", "rtos"), Ok(map(&[])));
    assert_eq!(
        parse_provides(b"\nrootfs-image.rtos.version=rtos=v1\n\nempty=\nwith space=a b \n", "rtos"),
        Ok(map(&[("rootfs-image.rtos.version", "rtos=v1"), ("empty", ""), ("with space", "a b ")]))
    );
    // A version of something else is a key like any other.
    assert!(parse_provides(b"rootfs-image.version=1\nrootfs-image.app.version=2\n", "rtos").is_ok());
}

#[test]
fn malformed_provides_are_refused() {
    let long_key = format!("{}=1", "k".repeat(257));
    let long_value = format!("k={}", "v".repeat(4_097));
    let many = (0..2_049).map(|index| format!("k{index}=v\n")).collect::<Vec<_>>().concat();
    let line = "The answer to \"Provides\" is malformed in line";
    for (answer, expected) in [
        ("a=1\nb\n", format!("{line} 2, \"b\": there is no \"=\".")),
        ("=1\n", format!("{line} 1, \"=1\": the key is empty.")),
        (" =1\n", format!("{line} 1, \" =1\": the key is empty.")),
        (" a=1\n", format!("{line} 1, \" a=1\": the key begins or ends with blanks.")),
        ("a =1\n", format!("{line} 1, \"a =1\": there must be no spaces around \"=\".")),
        ("a= 1\n", format!("{line} 1, \"a= 1\": there must be no spaces around \"=\".")),
        ("a=1\nb=2\na=1\n", format!("{line} 3, \"a=1\": the key repeats, and lists are prohibited.")),
        (
            "device_type=rtos\n",
            format!(
                "{line} 1, \"device_type=rtos\": \"device_type\" is prohibited, it is the Component type of the Topology."
            ),
        ),
        (
            "rootfs-image.rtos.version=1\na=b\nrootfs-image.version=1\n",
            "The answer to \"Provides\" has both \"rootfs-image.version\" and \"rootfs-image.rtos.version\" (line 3); \
             exactly one of them is allowed."
                .to_owned(),
        ),
        (&long_key, format!("{line} 1, \"{}…\": the key is longer than 256 bytes.", "k".repeat(80))),
        (&long_value, format!("{line} 1, \"k={}…\": the value is longer than 4096 bytes.", "v".repeat(78))),
        (&many, "The answer to \"Provides\" has 2049 lines; at most 2048 are allowed.".to_owned()),
    ] {
        assert_eq!(refused(parse_provides(answer.as_bytes(), "rtos")), expected);
    }
}

#[test]
fn the_version_key_is_that_of_the_interface_or_of_mender() {
    let own = map(&[("rootfs-image.rtos.version", "v1"), ("a", "b")]);
    assert_eq!(version_key(&own, "rtos"), Some(("rootfs-image.rtos.version", "v1")));
    assert_eq!(require_version_key(&own, "rtos"), Ok(("rootfs-image.rtos.version", "v1")));
    let mender = map(&[("rootfs-image.version", "unknown")]);
    assert_eq!(version_key(&mender, "rootfs-image"), Some(("rootfs-image.version", "unknown")));
    assert_eq!(version_key(&own, "esp32"), None);
    assert_eq!(
        refused(require_version_key(&own, "esp32")),
        "The answer to \"Provides\" has no version key: expected \"rootfs-image.esp32.version\", or \
         \"rootfs-image.version\" if the Component runs Mender."
    );
}

#[test]
fn an_inventory_keeps_order_and_lists() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        parse_inventory(b"b=1\na=x=y\n\nb=2\nb=2\nspaced = text\n"),
        Ok(vec![pair("b", "1"), pair("a", "x=y"), pair("b", "2"), pair("b", "2"), pair("spaced", " text")])
    );
    assert_eq!(
        refused(parse_inventory(b"a=1\nnonsense\n")),
        "The answer to \"Inventory\" is malformed in line 2, \"nonsense\": there is no \"=\"."
    );
    assert_eq!(
        refused(parse_inventory("k=v\n".repeat(2_049).as_bytes())),
        "The answer to \"Inventory\" has 2049 lines; at most 2048 are allowed."
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_answered_nothing_panics_and_no_id_leaves_its_directory(
        answer in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(id=)?[a./\\n =]{0,12}".prop_map(String::into_bytes),
        ],
    ) {
        let _ = parse_needs_artifact_reboot(&answer);
        let _ = parse_inventory(&answer);
        if let Ok(id) = parse_identity(&answer) {
            let path = std::path::Path::new("/datastore").join(&id);
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/datastore")));
            prop_assert_eq!(path.file_name(), Some(std::ffi::OsStr::new(&id)));
        }
        if let Ok(provides) = parse_provides(&answer, "rtos") {
            prop_assert!(!provides.contains_key("device_type"));
        }
    }

    #[test]
    fn provides_survive_being_printed_and_read(
        provides in prop::collection::btree_map("[a-z][a-z.-]{0,9}", "[!-~]([ -~]{0,9}[!-~])?", 0..9),
    ) {
        let text = provides.iter().map(|(key, value)| format!("{key}={value}\n")).collect::<Vec<_>>().concat();
        prop_assert_eq!(parse_provides(text.as_bytes(), "rtos"), Ok(provides));
    }
}
