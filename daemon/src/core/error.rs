//! The one table of errors: what went wrong, its D-Bus name, and the exit code of the command line.
//!
//! Every domain has an error enum of its own; at the edge of the domain it becomes an [`Error`], which is what the bus
//! and the command line show. `busctl` prints only the message, so each message is a full sentence with its subject
//! in quotes.

use serde::{Deserialize, Serialize};

/// Prefix of the D-Bus error names that are ours.
pub const PREFIX: &str = "org.orchestratord1.Error.";

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An argument or option of the call is malformed or unknown.
    InvalidArgs,
    /// The caller may not do this.
    AccessDenied,
    /// The caller may do this after answering a prompt, and did not allow one.
    InteractiveAuthorizationRequired,
    /// The request makes sense, but not for this thing or not now.
    NotSupported,
    /// A deployment is open; it must be resumed or rolled back first.
    Busy,
    /// There is no deployment to resume or roll back.
    NothingInProgress,
    /// The configuration is malformed.
    InvalidConfiguration,
    /// The Manifest is malformed or does not fit the System.
    InvalidManifest,
    /// The Topology is malformed.
    InvalidTopology,
    /// An Artifact is malformed, damaged or not signed as required.
    InvalidArtifact,
    /// No Artifact fits a Component.
    NoSuitableArtifact,
    /// An Artifact cannot be had from where it is: the network, a server or a server's answer is at fault.
    DownloadFailed,
    /// An Interface is missing, failed, ran out of time or gave a malformed answer.
    InterfaceFailed,
    /// A Component cannot be rolled back.
    RollbackNotSupported,
    /// The host did not reboot although it was asked to.
    RebootFailed,
    /// The state directory cannot be read or written.
    Storage,
    /// The operation was cancelled.
    Cancelled,
    /// The System is neither in the old nor in the new state.
    Inconsistent,
    /// The specification of a NIC is malformed, or its namespace cannot be opened.
    InvalidNic,
    /// There is no such network link.
    UnknownLink,
    /// Somebody else has the network address.
    AddressInUse,
    /// The network link carries the default route of the host.
    DefaultRoute,
    /// Somebody else uses the network link.
    LinkInUse,
    /// The network link is of a kind that does not serve the purpose.
    UnsuitableLink,
    /// The specification of a vPLC is malformed.
    InvalidVplc,
    /// There is no such vPLC.
    UnknownVplc,
    /// The container engine cannot be reached.
    EngineUnavailable,
    /// The container engine refused or failed.
    EngineFailed,
    /// An image is neither here nor to be had.
    ImageUnavailable,
    /// Something that is not ours has the name of a container or volume that is to be made.
    NameInUse,
    /// A vPLC ended by itself too often, or does not get healthy.
    VplcFailed,
    /// Somebody else has the serial port.
    SerialPortInUse,
    /// A PLC program is malformed, too large or holds what it must not.
    InvalidProgram,
    /// The runtime of a vPLC does not answer, or not as it should.
    RuntimeFailed,
    /// The runtime of a vPLC is not the one that it was: another certificate, or users that are not ours.
    RuntimeUntrusted,
    /// A PLC program does not compile or does not run.
    ProgramFailed,
    /// Anything else.
    Failed,
}

impl Kind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 37] = [
        Self::InvalidArgs,
        Self::AccessDenied,
        Self::InteractiveAuthorizationRequired,
        Self::NotSupported,
        Self::Busy,
        Self::NothingInProgress,
        Self::InvalidConfiguration,
        Self::InvalidManifest,
        Self::InvalidTopology,
        Self::InvalidArtifact,
        Self::NoSuitableArtifact,
        Self::InterfaceFailed,
        Self::RollbackNotSupported,
        Self::RebootFailed,
        Self::Storage,
        Self::Cancelled,
        Self::Inconsistent,
        Self::DownloadFailed,
        Self::InvalidNic,
        Self::UnknownLink,
        Self::AddressInUse,
        Self::DefaultRoute,
        Self::LinkInUse,
        Self::UnsuitableLink,
        Self::InvalidVplc,
        Self::UnknownVplc,
        Self::EngineUnavailable,
        Self::EngineFailed,
        Self::ImageUnavailable,
        Self::NameInUse,
        Self::VplcFailed,
        Self::SerialPortInUse,
        Self::InvalidProgram,
        Self::RuntimeFailed,
        Self::RuntimeUntrusted,
        Self::ProgramFailed,
        Self::Failed,
    ];

    /// D-Bus error name and exit code of `orchestratorctl`.
    ///
    /// Generic conditions carry the names that every D-Bus client knows. `mender-orchestrator` has only 0, 1 and 4.
    const fn row(self) -> (&'static str, u8) {
        match self {
            Self::InvalidArgs => ("org.freedesktop.DBus.Error.InvalidArgs", 2),
            Self::AccessDenied => ("org.freedesktop.DBus.Error.AccessDenied", 5),
            Self::InteractiveAuthorizationRequired => {
                ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", 5)
            }
            Self::NotSupported => ("org.freedesktop.DBus.Error.NotSupported", 6),
            Self::Busy => ("org.orchestratord1.Error.Busy", 7),
            Self::NothingInProgress => ("org.orchestratord1.Error.NothingInProgress", 8),
            Self::InvalidConfiguration => ("org.orchestratord1.Error.InvalidConfiguration", 10),
            Self::InvalidManifest => ("org.orchestratord1.Error.InvalidManifest", 11),
            Self::InvalidTopology => ("org.orchestratord1.Error.InvalidTopology", 12),
            Self::InvalidArtifact => ("org.orchestratord1.Error.InvalidArtifact", 13),
            Self::NoSuitableArtifact => ("org.orchestratord1.Error.NoSuitableArtifact", 14),
            Self::InterfaceFailed => ("org.orchestratord1.Error.InterfaceFailed", 15),
            Self::RollbackNotSupported => ("org.orchestratord1.Error.RollbackNotSupported", 16),
            Self::RebootFailed => ("org.orchestratord1.Error.RebootFailed", 17),
            Self::Storage => ("org.orchestratord1.Error.Storage", 18),
            Self::Cancelled => ("org.orchestratord1.Error.Cancelled", 19),
            Self::Inconsistent => ("org.orchestratord1.Error.Inconsistent", 20),
            Self::DownloadFailed => ("org.orchestratord1.Error.DownloadFailed", 21),
            Self::InvalidNic => ("org.orchestratord1.Error.InvalidNic", 30),
            Self::UnknownLink => ("org.orchestratord1.Error.UnknownLink", 31),
            Self::AddressInUse => ("org.orchestratord1.Error.AddressInUse", 32),
            Self::DefaultRoute => ("org.orchestratord1.Error.DefaultRoute", 33),
            Self::LinkInUse => ("org.orchestratord1.Error.LinkInUse", 34),
            Self::UnsuitableLink => ("org.orchestratord1.Error.UnsuitableLink", 35),
            Self::InvalidVplc => ("org.orchestratord1.Error.InvalidVplc", 40),
            Self::UnknownVplc => ("org.orchestratord1.Error.UnknownVplc", 41),
            Self::EngineUnavailable => ("org.orchestratord1.Error.EngineUnavailable", 42),
            Self::EngineFailed => ("org.orchestratord1.Error.EngineFailed", 43),
            Self::ImageUnavailable => ("org.orchestratord1.Error.ImageUnavailable", 44),
            Self::NameInUse => ("org.orchestratord1.Error.NameInUse", 45),
            Self::VplcFailed => ("org.orchestratord1.Error.VplcFailed", 46),
            Self::SerialPortInUse => ("org.orchestratord1.Error.SerialPortInUse", 47),
            Self::InvalidProgram => ("org.orchestratord1.Error.InvalidProgram", 50),
            Self::RuntimeFailed => ("org.orchestratord1.Error.RuntimeFailed", 51),
            Self::RuntimeUntrusted => ("org.orchestratord1.Error.RuntimeUntrusted", 52),
            Self::ProgramFailed => ("org.orchestratord1.Error.ProgramFailed", 53),
            Self::Failed => ("org.orchestratord1.Error.Failed", 1),
        }
    }

    /// D-Bus error name.
    pub const fn dbus_name(self) -> &'static str {
        self.row().0
    }

    /// Exit code of `orchestratorctl`.
    pub const fn exit_code(self) -> u8 {
        self.row().1
    }

    /// The kind behind a D-Bus error name, if it is one of the table.
    pub fn from_dbus_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.dbus_name() == name)
    }
}

/// An error as users see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    /// What kind of thing went wrong.
    pub kind: Kind,
    /// A full sentence that names the thing and the place.
    pub message: String,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_dbus_name(kind.dbus_name()), Some(kind));
        }
        assert_eq!(Kind::from_dbus_name("org.freedesktop.DBus.Error.NoReply"), None);
    }

    #[test]
    fn no_exit_code_collides_with_success_or_reboot_required() {
        for kind in Kind::ALL {
            assert!(![0, 4].contains(&kind.exit_code()), "{kind:?}");
        }
    }
}
