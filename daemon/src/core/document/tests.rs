use proptest::prelude::*;

use super::*;

fn load(text: &str) -> Result<Vec<String>, DocumentError> {
    let mut warnings = Warnings::default();
    Document::new("file.yaml", text).load(DocumentKind::Topology, &mut warnings, |_, _| Ok(()))?;
    Ok(warnings.into_vec())
}

fn message(text: &str) -> String {
    load(text).expect_err(&excerpt(text)).to_string()
}

/// Reads `value` out of a one-line document.
fn value<T>(text: &str, read: impl FnOnce(&Field<'_>) -> Result<T, DocumentError>) -> Result<T, String> {
    Document::new("f", text)
        .load(DocumentKind::Topology, &mut Warnings::default(), |section, _| read(&section.required("value")?))
        .map_err(|error| error.to_string())
}

#[test]
fn what_is_no_single_well_formed_mapping_is_refused_with_its_place() {
    let many = format!("a: [{}]\n", "x, ".repeat(NODES_LIMIT));
    for (text, expected) in [
        ("", "file.yaml:1:1: The document is empty."),
        ("# only a comment\n", "file.yaml:1:1: The document is empty."),
        ("---\n", "file.yaml:1:1: The document is empty."),
        ("~\n", "file.yaml:1:1: The document is empty."),
        ("a: 1\n---\nb: 2\n", "file.yaml:2:1: A second YAML document begins here; only one is allowed."),
        ("a: 1\n...\n---\n", "file.yaml:3:1: A second YAML document begins here; only one is allowed."),
        ("- a\n", "file.yaml:1:1: The document must be a mapping, but it is a list."),
        ("word\n", "file.yaml:1:1: The document must be a mapping, but it is a string."),
        ("a: b\nc: \"\0\"\n", "file.yaml:2:5: The text contains a NUL character."),
        ("a: 1\nb: 2\na: 3\n", "file.yaml:3:1: The key \"a\" stands here for the second time; the first is in line 1."),
        (
            "a:\n  - b: {c: 1,\n      c: 2}\n",
            "file.yaml:3:7: The key \"a[0].b.c\" stands here for the second time; the first is in line 2.",
        ),
        ("1: a\n\"1\": b\n", "file.yaml:2:1: The key \"1\" stands here for the second time; the first is in line 1."),
        ("a: {? [b] : c}\n", "file.yaml:1:7: A key of \"a\" is not a string."),
        (&"? ".repeat(1 << 19), "file.yaml:1:3: A key of the document is not a string."),
        ("? {a: 1}\n: b\n", "file.yaml:1:3: A key of the document is not a string."),
        ("a: &x b\n*x : c\n", "file.yaml:2:1: A key of the document is not a string."),
        ("~: a\n", "file.yaml:1:1: A key of the document is not a string."),
        (
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            "file.yaml:3:3: \"c['<<']\" is a merge key, which is not supported: write the keys out.",
        ),
        ("a: *x\n", "file.yaml:1:4: The YAML is malformed: while parsing node, found unknown anchor."),
        ("a: &x [b, *x]\n", "file.yaml:1:11: \"a[1]\" is an alias of something that contains it."),
        ("a: !!int 1\n", "file.yaml:1:10: \"a\" has the tag \"!!int\", which is not supported."),
        ("a: !secret x\n", "file.yaml:1:12: \"a\" has the tag \"!secret\", which is not supported."),
        ("a: !!map [x]\n", "file.yaml:1:10: \"a\" has the tag \"!!map\", which is not supported."),
        ("a: [1, 2\nb: 3\n", "file.yaml:2:2: The YAML is malformed: illegal placement of ':' indicator."),
        ("a: b: c\n", "file.yaml:1:5: The YAML is malformed: mapping values are not allowed in this context."),
        (
            "a:\n\t- b\n",
            "file.yaml:2:2: The YAML is malformed: tabs disallowed within this context (block indentation).",
        ),
        ("a: \u{1}\n", "file.yaml:1:4: The YAML is malformed: unexpected character: `\\u{1}'."),
        ("%YAML 2.0\n---\na: b\n", "file.yaml:1:1: The YAML is malformed: unsupported YAML major version."),
        (
            &many,
            "file.yaml:1:299999: The document has more than 100000 values or 4194304 bytes of text, aliases replaced.",
        ),
    ] {
        assert_eq!(message(text), expected, "{}", excerpt(text));
    }
}

#[test]
fn deep_nesting_is_refused_in_every_style() {
    let block = (0..100).map(|level| format!("{}a:\n", " ".repeat(level))).collect::<Vec<_>>().concat();
    // Each anchor is shallow, but each stands inside the next one: together they would be 4,000 levels deep.
    let chain = (0..100)
        .map(|link| {
            let inner = if link == 0 { "x".to_owned() } else { format!("*a{}", link - 1) };
            format!("k{link}: &a{link} {}{inner}{}\n", "[".repeat(40), "]".repeat(40))
        })
        .collect::<Vec<_>>()
        .concat();
    for text in [
        "[".repeat(1 << 20),
        "{".repeat(1 << 20),
        "- ".repeat(1 << 19),
        "{a: ".repeat(1 << 18),
        format!("a: {}{}", "[".repeat(64), "]".repeat(64)),
        block,
        chain,
    ] {
        let error = load(&text).expect_err(&excerpt(&text));
        assert_eq!(error.problem, Problem::TooDeep, "{}: {error}", excerpt(&text));
    }
    let deepest = format!("a: {}x{}", "[".repeat(63), "]".repeat(63));
    assert!(load(&deepest).is_ok());
}

#[test]
fn the_place_of_too_deep_a_value_is_told() {
    // The scanner stops at the 65th bracket, before the parser has made anything of the first.
    let text = format!("top:\n  list: {}\n", "[".repeat(70));
    let error = load(&text).unwrap_err();
    assert_eq!(error.place, Some(Place { line: 2, column: 73 }));
    assert!(error.to_string().ends_with("is nested deeper than 64 levels."), "{error}");
}

#[test]
fn aliases_are_counted_in_full() {
    let bomb = (0..9)
        .map(|level| {
            let items = if level == 0 { "x, ".repeat(10) } else { format!("*a{}, ", level - 1).repeat(10) };
            format!("k{level}: &a{level} [{items}]\n")
        })
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(load(&bomb).unwrap_err().problem, Problem::TooMany);

    let text = format!("a: &x {}\nb: [{}]\n", "y".repeat(100_000), "*x, ".repeat(50));
    assert_eq!(load(&text).unwrap_err().problem, Problem::TooMany);
    let text = format!("a: &x {}\nb: [{}]\n", "y".repeat(100_000), "*x, ".repeat(40));
    assert!(load(&text).is_ok());
}

#[test]
fn an_alias_stands_for_its_anchor() {
    let text = "value: [&x {a: one}, *x]\n";
    let texts = value(text, |field| {
        field.list(9)?.into_iter().map(|item| Ok(item.section()?.required("a")?.text()?.to_owned())).collect()
    });
    assert_eq!(texts, Ok(vec!["one".to_owned(), "one".to_owned()]));
}

#[test]
fn strings_stay_what_is_written() {
    for (written, meant) in [
        ("1.10", "1.10"),
        ("yes", "yes"),
        ("010", "010"),
        ("true", "true"),
        ("2026-01-01", "2026-01-01"),
        ("'null'", "null"),
        ("\"\"", ""),
        ("!!str ~", "~"),
        ("! 5", "5"),
        ("\"a\\tb\"", "a\tb"),
        ("|\n  one\n  two\n", "one\ntwo\n"),
    ] {
        assert_eq!(value(&format!("value: {written}"), |field| field.text().map(str::to_owned)), Ok(meant.to_owned()));
    }
    assert_eq!(
        value("value: Null", |field| field.text().map(str::to_owned)),
        Err("f:1:1: \"value\" must be a string, but it is empty.".to_owned())
    );
    assert_eq!(
        value("value: [a]", |field| field.text().map(str::to_owned)),
        Err("f:1:8: \"value\" must be a string, but it is a list.".to_owned())
    );
}

#[test]
fn integers_are_plain_decimal_digits() {
    let refused = |written: &str| value(&format!("value: {written}"), |field| field.integer(1..=100)).unwrap_err();
    assert_eq!(value("value: 1", |field| field.integer(1..=100)), Ok(1));
    assert_eq!(value("value: 100", |field| field.integer(1..=100)), Ok(100));
    let range = "\"value\" must be an integer from 1 to 100, but it is";
    for (written, rest) in [
        ("0", "0."),
        ("101", "101."),
        ("99999999999999999999", "99999999999999999999."),
        ("-1", "-1; write it in decimal digits."),
        ("+1", "+1; write it in decimal digits."),
        ("010", "010; write it in decimal digits."),
        ("0x0A", "0x0A; write it in decimal digits."),
        ("0o12", "0o12; write it in decimal digits."),
        ("1.0", "1.0; write it in decimal digits."),
        ("1e1", "1e1; write it in decimal digits."),
        ("1_0", "1_0."),
        ("ten", "ten."),
        ("true", "true."),
        ("\"10\"", "a string; write 10 without quotes."),
        ("'10'", "a string; write 10 without quotes."),
        ("!!str 10", "a string; write 10 without quotes."),
        ("'ten'", "a string."),
    ] {
        let message = refused(written);
        assert!(message.ends_with(&format!("{range} {rest}")), "{written}: {message}");
    }
    assert_eq!(refused("[1]"), "f:1:8: \"value\" must be an integer, but it is a list.");
    assert_eq!(refused(""), "f:1:1: \"value\" must be an integer, but it is empty.");
}

#[test]
fn names_are_checked() {
    let name = |written: &str| value(&format!("value: {written}"), |field| field.name(8).map(str::to_owned));
    assert_eq!(name("rtos v1"), Ok("rtos v1".to_owned()));
    assert_eq!(name("12345678"), Ok("12345678".to_owned()));
    for (written, expected) in [
        ("\"\"", "f:1:8: \"value\" is empty."),
        ("123456789", "f:1:8: \"value\" is longer than 8 bytes: \"123456789\"."),
        ("ööööö", "f:1:8: \"value\" is longer than 8 bytes: \"ööööö\"."),
        ("\"a\\nb\"", "f:1:8: \"value\" contains a control character: \"a\\nb\"."),
        ("\"a\\0b\"", "f:1:8: \"value\" contains a control character: \"a\\u{0}b\"."),
        ("\" a\"", "f:1:8: \"value\" begins or ends with blanks: \" a\"."),
        ("\"a \"", "f:1:8: \"value\" begins or ends with blanks: \"a \"."),
    ] {
        assert_eq!(name(written), Err(expected.to_owned()));
    }
}

#[test]
fn path_components_lead_nowhere_else() {
    assert_eq!(check_path_component("rootfs-image", 256), Ok(()));
    assert_eq!(check_path_component("...", 256), Ok(()));
    for path in [".", "..", "a/b", "/", "../a"] {
        assert_eq!(check_path_component(path, 256), Err(NameDefect::Path), "{path}");
    }
    // Each byte of these becomes three in a directory.
    assert_eq!(check_path_component(&"ö".repeat(40), 256), Ok(()));
    assert_eq!(check_path_component(&"ö".repeat(41), 256), Err(NameDefect::Entry));
}

#[test]
fn keys_that_would_make_a_path_ambiguous_are_set_apart() {
    for (text, expected) in [
        ("a.b: {c: 1, c: 2}", "\"['a.b'].c\""),
        ("'': {c: 1, c: 2}", "\"[''].c\""),
        ("a: {\"b\\n\": 1, \"b\\n\": 2}", "\"a['b\\n']\""),
        ("52:54:00: {x_y: 1, x_y: 2}", "\"52:54:00.x_y\""),
    ] {
        let message = message(text);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn unknown_keys_are_warnings_and_not_without_end() {
    assert_eq!(
        load("colour: red\n\"x y\": [1]\n").unwrap(),
        [
            "file.yaml:1:1: \"colour\" is not a known key and is ignored.",
            "file.yaml:2:1: \"['x y']\" is not a known key and is ignored.",
        ]
    );
    let text = (0..1_000).map(|index| format!("key{index}: x\n")).collect::<Vec<_>>().concat();
    let warnings = load(&text).unwrap();
    assert_eq!(warnings.len(), WARNINGS_LIMIT + 1);
    assert_eq!(warnings.last().unwrap(), "There are 950 more warnings of this kind.");
}

#[test]
fn positions_count_characters_and_survive_a_byte_order_mark_and_crlf() {
    assert_eq!(message("\u{feff}a: {é: 1, é: 2}").split(' ').next(), Some("file.yaml:1:11:"));
    assert_eq!(message("a: 1\r\nb: 2\r\na: 3\r\n").split(' ').next(), Some("file.yaml:3:1:"));
}

#[test]
fn a_file_is_read_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("topology.yaml");
    let read = || Document::read(&path, DocumentKind::Configuration);
    let name = path.display();

    assert_eq!(read().unwrap_err().to_string(), format!("Cannot read \"{name}\": No such file or directory."));

    let limit = DocumentKind::Configuration.limit();
    std::fs::write(&path, "x".repeat(limit)).unwrap();
    assert_eq!(read().unwrap().text.len(), limit);
    std::fs::write(&path, "x".repeat(limit + 1)).unwrap();
    assert_eq!(read().unwrap_err().to_string(), format!("\"{name}\" is larger than 262144 bytes."));

    std::fs::write(&path, b"a: 1\nb: \xc3\xb6 \xff\n").unwrap();
    assert_eq!(read().unwrap_err().to_string(), format!("{name}:2:6: The text is not valid UTF-8."));

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(read().unwrap_err().to_string(), format!("\"{name}\" is not a regular file."));
    std::fs::remove_dir(&path).unwrap();

    // Nobody ever opens the other end; a plain read would wait for ever.
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(read().unwrap_err().to_string(), format!("\"{name}\" is not a regular file."));

    let below = path.join("x");
    assert_eq!(
        Document::read(&below, DocumentKind::Topology).unwrap_err().to_string(),
        format!("Cannot read \"{}\": Not a directory.", below.display())
    );
}

#[test]
fn a_text_that_came_over_the_bus_is_bounded_too() {
    let text = format!("a: {}", "x".repeat(1024 * 1024));
    assert_eq!(message(&text), "\"file.yaml\" is larger than 1048576 bytes.");
}

#[test]
fn each_kind_of_document_has_its_kind_of_error() {
    for (kind, expected) in [
        (DocumentKind::Manifest, Kind::InvalidManifest),
        (DocumentKind::Topology, Kind::InvalidTopology),
        (DocumentKind::Configuration, Kind::InvalidConfiguration),
    ] {
        let error = Document::new("d", "").load(kind, &mut Warnings::default(), |_, _| Ok(())).unwrap_err();
        assert_eq!(Error::from(error).kind, expected);
    }
}

#[test]
fn excerpts_fit_into_one_line() {
    assert_eq!(excerpt("a\nb\u{1b}[0m\u{2028}"), "a\\nb\\u{1b}[0m\\u{2028}");
    assert_eq!(excerpt(&"x".repeat(81)), format!("{}…", "x".repeat(80)));
}

/// Texts that get further into the parser than random characters do.
fn yaml_like() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "[",
        "]",
        "{",
        "}",
        ": ",
        ":",
        ", ",
        "? ",
        "- ",
        "\n",
        "\n  ",
        "a",
        "b",
        "'",
        "\"",
        "|\n",
        ">-\n",
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        " #c",
        "%YAML 1.2\n",
        "---\n",
        "...\n",
        "\t",
        "\\",
        "<<",
        "~",
        "10",
        "\u{feff}",
        "é",
        "\0",
        "\r",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![any::<String>(), yaml_like()]) {
        if let Err(error) = load(&text) {
            prop_assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn places_lie_inside_the_text(text in yaml_like()) {
        if let Err(DocumentError { place: Some(place), .. }) = load(&text) {
            // Some line breaks of old encodings count for YAML and not here, hence the upper bound only.
            let lines = text.matches(['\n', '\r']).count() + 1;
            prop_assert!((1..=lines).contains(&place.line) && place.column >= 1, "{place:?}");
        }
    }
}

#[test]
fn booleans_are_true_and_false_and_nothing_else() {
    assert_eq!(value("value: true\n", |field| field.boolean()), Ok(true));
    assert_eq!(value("value: false\n", |field| field.boolean()), Ok(false));
    for text in ["yes", "True", "1", "\"true\"", "on"] {
        let error = value(&format!("value: {text}\n"), |field| field.boolean()).unwrap_err();
        assert!(error.starts_with("f:1:8: \"value\" must be true or false, but it is \""), "{error}");
    }
    assert_eq!(
        value("value: []\n", |field| field.boolean()),
        Err("f:1:8: \"value\" must be true or false, but it is a list.".to_owned())
    );
}

#[test]
fn a_section_can_be_read_again_by_somebody_else() {
    let text = "a: 010\nb: 10\nc: [x, \"y: \\\"z\\\"\", {d: ~}]\n\"e, f\": true\n";
    let flow = |text: &str| {
        let document = Document::new("f", text);
        document.load(DocumentKind::Topology, &mut Warnings::default(), |section, _| Ok(section.flow())).unwrap()
    };
    let written = flow(text);
    assert_eq!(written, r#""a": "010", "b": 10, "c": ["x", "y: \"z\"", {"d": null}], "e, f": true"#);
    assert_eq!(flow(&format!("{{{written}}}\n")), written);
}
