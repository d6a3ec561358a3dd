use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::update::interface::bench::{Bench, context, header_of};

fn content(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                found.insert(name, None);
                open.push(path);
            } else {
                found.insert(name, Some(fs::read(path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_entry_has_the_content_the_protocol_asks_for() {
    let bench = Bench::new("");
    let header = header_of(&bench.artifact(&[("a", b"x")]));
    let root = bench.interface.root.clone();
    let tree = Tree::create(&root, &context(), &header).unwrap();
    let expected = [
        ("current_artifact_group", Some(b"".to_vec())),
        ("current_artifact_name", Some(b"gateway-v1\n".to_vec())),
        ("current_device_type", Some(b"gateway\n".to_vec())),
        ("header", None),
        ("header/artifact_group", Some(b"stable".to_vec())),
        ("header/artifact_name", Some(b"gateway-v2".to_vec())),
        ("header/header-info", Some(header.raw_header_info.clone())),
        ("header/meta-data", Some(br#"{"slot": "b"}"#.to_vec())),
        ("header/payload_type", Some(b"gw".to_vec())),
        ("header/type-info", Some(header.raw_type_info.clone())),
        ("tmp", None),
        ("version", Some(b"1\n".to_vec())),
    ];
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
    assert_eq!(content(tree.root()), expected);
    assert_eq!(Tree::open(&root).unwrap(), tree);
}

#[test]
fn only_we_may_look_inside() {
    let bench = Bench::new("");
    let header = header_of(&bench.artifact(&[]));
    let tree = Tree::create(&bench.interface.root, &context(), &header).unwrap();
    tree.open_streams().unwrap();
    let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o777;
    for name in ["", "header", "tmp", "streams"] {
        assert_eq!(mode(&tree.root().join(name)), 0o700, "{name}");
    }
    for name in ["version", "header/type-info", "stream-next"] {
        assert_eq!(mode(&tree.root().join(name)), 0o600, "{name}");
    }
    let work = bench.path("store/work");
    assert_eq!(mode(&work), 0o700);
}

#[test]
fn a_tree_is_made_afresh_and_removed_whole() {
    let bench = Bench::new("");
    let header = header_of(&bench.artifact(&[]));
    let root = bench.interface.root.clone();
    let tree = Tree::create(&root, &context(), &header).unwrap();
    fs::create_dir_all(root.join("files/deep")).unwrap();
    fs::write(root.join("tmp/notes"), "old").unwrap();
    // The remains of two crashes.
    fs::create_dir_all(root.with_added_extension("new").join("header")).unwrap();
    fs::create_dir_all(root.with_added_extension("old").join("header")).unwrap();
    let fresh = Tree::create(&root, &context(), &header).unwrap();
    assert!(!root.join("files").exists());
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);

    fs::write(root.join("tmp/notes"), "new").unwrap();
    fresh.remove().unwrap();
    assert_eq!(fs::read_dir(root.parent().unwrap()).unwrap().count(), 0);
    tree.remove().unwrap();
    assert!(matches!(Tree::open(&root), Err(TreeError::Missing(_))));
}

#[test]
fn removing_follows_no_link() {
    let bench = Bench::new("");
    let header = header_of(&bench.artifact(&[]));
    let tree = Tree::create(&bench.interface.root, &context(), &header).unwrap();
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    std::os::unix::fs::symlink(&outside, tree.root().join("files")).unwrap();
    std::os::unix::fs::symlink(&outside, tree.root().join("streams")).unwrap();
    tree.close_streams().unwrap();
    tree.remove().unwrap();
    assert!(outside.join("precious").exists());
}

#[test]
fn what_is_no_tree_is_missing() {
    let bench = Bench::new("");
    let root = bench.path("queries/x");
    assert!(matches!(Tree::open(&root), Err(TreeError::Missing(_))));
    let queries = Tree::queries_only(&root).unwrap();
    assert!(queries.root().join("tmp").is_dir());
    Tree::queries_only(&root).unwrap();
    assert!(matches!(Tree::open(&root), Err(TreeError::Missing(_))));
}

#[test]
fn names_lead_nowhere_else() {
    let key = ComponentKey { component_type: "..".into(), id: "../../etc".into() };
    let path = Tree::path(Path::new("/store"), &key);
    assert_eq!(path, Path::new("/store/work/%2e%2e/..%2f..%2fetc/tree"));
    assert_eq!(Tree::queries_path(Path::new("/store"), "a/b"), Path::new("/store/queries/a%2fb"));
}

#[test]
fn a_refusal_names_the_path() {
    let bench = Bench::new("");
    let header = header_of(&bench.artifact(&[]));
    fs::write(bench.path("store"), "a file in the way").unwrap();
    let error = Tree::create(&bench.interface.root, &context(), &header).unwrap_err();
    let error = Error::from(error);
    assert_eq!(error.kind, Kind::Storage);
    assert!(error.message.starts_with("Cannot create \"") && error.message.contains("/store\""), "{error}");
}
