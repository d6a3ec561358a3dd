//! Where one Artifact lies, in words that outlive the daemon.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The place of an Artifact. It stands in the record of a deployment: a daemon that comes back opens it from this alone.
///
/// No secret is part of it. The link to download a Release by is asked for at each opening, and is never on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
// A file is a bare string, as in the records of the first version, which knew nothing else.
#[serde(untagged)]
pub enum Location {
    /// A local file; absolute.
    File(PathBuf),
    /// A file on an HTTP server.
    Url {
        /// Its address, without user, password, query and fragment.
        url: String,
    },
    /// An Artifact on a Mender server.
    Release {
        /// Name of the Release.
        release: String,
        /// Id of the Artifact on the server: one Release may have several.
        id: String,
    },
}

impl Location {
    /// Whether it takes a network to get there.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::File(_))
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Url { url } => formatter.write_str(url),
            Self::Release { release, id } => write!(formatter, "{release} (Artifact {id} of the Mender server)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of a daemon that knew files only have to be read for ever.
    #[test]
    fn a_location_is_written_as_it_always_was() {
        for (location, text) in [
            (Location::File("/a/b.mender".into()), r#""/a/b.mender""#),
            (Location::Url { url: "https://h/b.mender".into() }, r#"{"url":"https://h/b.mender"}"#),
            (Location::Release { release: "b".into(), id: "7".into() }, r#"{"release":"b","id":"7"}"#),
        ] {
            assert_eq!(serde_json::to_string(&location).unwrap(), text);
            assert_eq!(serde_json::from_str::<Location>(text).unwrap(), location);
        }
    }
}
