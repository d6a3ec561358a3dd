//! The states of the Interface protocol.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an Interface is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Take the Artifact. The word is `DownloadWithFileSizes` if the Interface asked for the sizes.
    Download,
    /// Install it, so that it can be taken back if possible.
    ArtifactInstall,
    /// Reboot the Component.
    ArtifactReboot,
    /// Find out whether the reboot led into the new version.
    ArtifactVerifyReboot,
    /// Make the installation last.
    ArtifactCommit,
    /// Bring the former version back.
    ArtifactRollback,
    /// Reboot the Component into the former version.
    ArtifactRollbackReboot,
    /// Find out whether the reboot led into the former version.
    ArtifactVerifyRollbackReboot,
    /// Take note that the installation failed.
    ArtifactFailure,
    /// Leave nothing behind.
    Cleanup,
}

impl State {
    /// All states.
    pub const ALL: [Self; 10] = [
        Self::Download,
        Self::ArtifactInstall,
        Self::ArtifactReboot,
        Self::ArtifactVerifyReboot,
        Self::ArtifactCommit,
        Self::ArtifactRollback,
        Self::ArtifactRollbackReboot,
        Self::ArtifactVerifyRollbackReboot,
        Self::ArtifactFailure,
        Self::Cleanup,
    ];

    /// The first argument of the Interface program.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Download => "Download",
            Self::ArtifactInstall => "ArtifactInstall",
            Self::ArtifactReboot => "ArtifactReboot",
            Self::ArtifactVerifyReboot => "ArtifactVerifyReboot",
            Self::ArtifactCommit => "ArtifactCommit",
            Self::ArtifactRollback => "ArtifactRollback",
            Self::ArtifactRollbackReboot => "ArtifactRollbackReboot",
            Self::ArtifactVerifyRollbackReboot => "ArtifactVerifyRollbackReboot",
            Self::ArtifactFailure => "ArtifactFailure",
            Self::Cleanup => "Cleanup",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The word for [`State::Download`] when the Interface asked for the sizes of the files.
pub(super) const DOWNLOAD_WITH_FILE_SIZES: &str = "DownloadWithFileSizes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_on_disk_is_the_word_of_the_protocol() {
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }
}
