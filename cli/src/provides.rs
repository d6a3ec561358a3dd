//! What a Component provides once an Artifact is installed, for Interface programs: they get the header of the Artifact in
//! the File API directory, and have to say the result themselves when `Provides` is asked next.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use orchestratord::core::error::Kind;
use orchestratord::update::answers::parse_provides;
use orchestratord::update::selection::{Candidate, provides_after};
use serde::Deserialize;

use crate::failure::Failure;
use crate::output::print;

/// Largest file of a header and largest answer that is read, in bytes; those of the daemon are not larger.
const LIMIT: u64 = 1024 * 1024;

/// The parts of `header/type-info` that decide. The daemon has checked the file before it gave it to the Interface.
#[derive(Debug, Deserialize)]
struct TypeInfo {
    artifact_provides: Option<BTreeMap<String, String>>,
    clears_artifact_provides: Option<Vec<String>>,
}

/// Reads Provides from standard input and prints what they are after the Artifact of this File API directory.
pub fn after(tree: &Path) -> Result<(), Failure> {
    let mut now = Vec::new();
    let read = std::io::stdin().lock().take(LIMIT).read_to_end(&mut now);
    read.map_err(|error| Failure::new(Kind::Failed, format!("Cannot read standard input: {error}.")))?;
    print(&of(tree, &now)?)
}

/// What a Component provides after the Artifact of this File API directory, as lines, if it provides `now` before.
pub fn of(tree: &Path, now: &[u8]) -> Result<String, Failure> {
    let header = tree.join("header");
    let line = |name: &str| text(&header.join(name)).map(|line| line.trim_end_matches('\n').to_owned());
    let payload_type = line("payload_type")?;
    let now = parse_provides(now, &payload_type).map_err(|error| {
        Failure::new(Kind::InterfaceFailed, format!("The Provides on standard input are malformed: {error}"))
    })?;
    let path = header.join("type-info");
    let TypeInfo { artifact_provides, clears_artifact_provides } =
        serde_json::from_str(&text(&path)?).map_err(|error| {
            Failure::new(Kind::InvalidArtifact, format!("\"{}\" is no valid type-info: {error}.", path.display()))
        })?;
    let candidate = Candidate {
        size: 0,
        source: String::new(),
        device_types: Vec::new(),
        artifact_name: line("artifact_name")?,
        artifact_group: Some(line("artifact_group")?),
        provides: artifact_provides.unwrap_or_default(),
        depends: BTreeMap::new(),
        clears_provides: clears_artifact_provides,
        payload_type,
    };
    Ok(provides_after(&now, &candidate).iter().fold(String::new(), |mut lines, (key, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{key}={value}");
        lines
    }))
}

fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
    read.map_err(|error| Failure::new(Kind::Failed, format!("Cannot read \"{}\": {error}.", path.display())))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(type_info: &str) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let header = tree.path().join("header");
        std::fs::create_dir(&header).unwrap();
        for (name, content) in [
            ("artifact_name", "app-2"),
            ("artifact_group", ""),
            ("payload_type", "single-file"),
            ("type-info", type_info),
        ] {
            std::fs::write(header.join(name), content).unwrap();
        }
        tree
    }

    const NOW: &[u8] = b"rootfs-image.single-file.version=1\nartifact_name=app-1\nartifact_group=beta\nboard=a=b\n";

    #[test]
    fn what_the_artifact_clears_goes_and_what_it_provides_comes() {
        let tree = tree(
            r#"{"type":"single-file","artifact_provides":{"rootfs-image.single-file.version":"2"},
                "artifact_depends":{"board":["x"]},"clears_artifact_provides":["rootfs-image.single-file.*"]}"#,
        );
        assert_eq!(
            of(tree.path(), NOW).unwrap(),
            "artifact_group=beta\nartifact_name=app-2\nboard=a=b\nrootfs-image.single-file.version=2\n"
        );
        assert_eq!(of(tree.path(), b"").unwrap(), "artifact_name=app-2\nrootfs-image.single-file.version=2\n");
    }

    #[test]
    fn an_artifact_that_does_not_say_what_it_clears_clears_everything() {
        let tree = tree(r#"{"type":"single-file"}"#);
        assert_eq!(of(tree.path(), NOW).unwrap(), "artifact_name=app-2\n");
    }

    #[test]
    fn what_is_malformed_is_named() {
        let sound = tree("{}");
        let error = of(sound.path(), b"no equals sign\n").unwrap_err();
        assert_eq!(error.exit_code(), Kind::InterfaceFailed.exit_code());
        let error = of(tree("[]").path(), NOW).unwrap_err();
        assert_eq!(error.exit_code(), Kind::InvalidArtifact.exit_code());
        assert!(error.to_string().contains("type-info"), "{error}");
        let error = of(Path::new("/nonexistent"), NOW).unwrap_err();
        assert!(error.to_string().contains("payload_type"), "{error}");
    }
}
