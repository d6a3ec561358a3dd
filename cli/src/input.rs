//! Documents that the user names: read here, because they cross the bus as text and never as a path.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use orchestratord::core::error::Kind;

use crate::failure::Failure;

/// Largest Manifest or file of Components, in bytes; the daemon has the same bound.
pub const DOCUMENT_LIMIT: u64 = 1024 * 1024;

/// A Manifest with the place where its relative Artifact paths start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The text.
    pub text: String,
    /// Absolute, without symbolic links.
    pub base_directory: String,
}

/// Reads a Manifest.
pub fn manifest(path: &Path) -> Result<Manifest, Failure> {
    let file = open(path, "Manifest")?;
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let text = text(file, path, "Manifest", Kind::InvalidManifest)?;
    // What a shell's `<(...)` names lies in /proc, where no Artifact is; treat it as standard input.
    let directory = if regular { path.parent() } else { None };
    Ok(Manifest { text, base_directory: base_directory(directory.unwrap_or(Path::new("")))? })
}

/// Reads a Manifest from standard input; relative Artifact paths start in the working directory.
pub fn manifest_from_stdin() -> Result<Manifest, Failure> {
    let text = text(std::io::stdin().lock(), Path::new("standard input"), "Manifest", Kind::InvalidManifest)?;
    Ok(Manifest { text, base_directory: base_directory(Path::new(""))? })
}

/// Reads another document, or standard input if the path is `-`; `what` it is, and the error if it is no text.
pub fn document(path: &Path, what: &str, kind: Kind) -> Result<String, Failure> {
    if path == Path::new("-") {
        return text(std::io::stdin().lock(), Path::new("standard input"), what, kind);
    }
    text(open(path, what)?, path, what, kind)
}

/// Reads the file with the Components of a split Topology.
pub fn topology_components(path: &Path) -> Result<String, Failure> {
    text(open(path, "Topology")?, path, "Topology", Kind::InvalidTopology)
}

fn open(path: &Path, what: &str) -> Result<File, Failure> {
    File::open(path).map_err(|error| unreadable(path, what, &error))
}

fn text(source: impl Read, path: &Path, what: &str, kind: Kind) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    source.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, what, &error))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > DOCUMENT_LIMIT {
        return Err(Failure::new(kind, format!("The {what} \"{}\" is larger than 1 MiB.", path.display())));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        Failure::new(kind, format!("The {what} \"{}\" is not UTF-8 at byte {offset}.", path.display()))
    })?;
    // D-Bus strings end at a zero byte, so the text could not even be sent.
    if let Some(offset) = text.find('\0') {
        let message = format!("The {what} \"{}\" has a zero byte at byte {offset}.", path.display());
        return Err(Failure::new(kind, message));
    }
    Ok(text)
}

fn unreadable(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Kind::Failed, format!("Cannot read the {what} \"{}\": {error}.", path.display()))
}

fn base_directory(directory: &Path) -> Result<String, Failure> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let absolute: PathBuf = directory.canonicalize().map_err(|error| {
        Failure::new(Kind::Failed, format!("Cannot find the directory \"{}\": {error}.", directory.display()))
    })?;
    absolute.into_os_string().into_string().map_err(|name| {
        let message = format!("The name of the directory \"{}\" is not UTF-8.", Path::new(&name).display());
        Failure::new(Kind::Failed, message)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn relative_artifacts_start_beside_the_manifest() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("m.yaml"), "kind: manifest\n").unwrap();
        symlink(&real, place.path().join("link")).unwrap();
        let manifest = manifest(&place.path().join("link/m.yaml")).unwrap();
        assert_eq!(manifest.text, "kind: manifest\n");
        assert_eq!(Path::new(&manifest.base_directory), real);
    }

    #[test]
    fn documents_are_bounded_text() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("m.yaml");
        let limit = usize::try_from(DOCUMENT_LIMIT).unwrap();
        for (bytes, expected) in [
            (vec![b' '; limit + 1], "larger than 1 MiB"),
            (b"a\xff".to_vec(), "not UTF-8 at byte 1"),
            (b"ab\0".to_vec(), "zero byte at byte 2"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let failure = manifest(&path).unwrap_err();
            assert_eq!(failure.exit_code(), Kind::InvalidManifest.exit_code());
            assert!(failure.to_string().contains(expected), "{failure}");
        }
        std::fs::write(&path, vec![b' '; limit]).unwrap();
        assert_eq!(manifest(&path).unwrap().text.len(), limit);
        assert_eq!(topology_components(place.path()).unwrap_err().exit_code(), 1);
        let failure = manifest(&place.path().join("absent.yaml")).unwrap_err();
        assert!(failure.to_string().contains("absent.yaml\": No such file"), "{failure}");
    }
}
