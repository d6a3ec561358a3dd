//! Why a command failed: one sentence for the user and an exit code for scripts.

use std::fmt;

use orchestratord::core::error::Kind;
use zbus::DBusError;

/// Exit code of a command that did what it was asked for.
pub const SUCCESS: u8 = 0;
/// Exit code of a failure that has no code of its own.
pub const FAILED: u8 = 1;
/// Exit code when the host has to be rebooted before the deployment can go on.
pub const REBOOT_REQUIRED: u8 = 4;

/// A command failed, or its output has no reader any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Said in one sentence.
    Said {
        /// Exit code of `orchestratorctl`.
        exit_code: u8,
        /// A full sentence that names the thing and the place.
        message: String,
    },
    /// There is no daemon, and none could be started; the text says so.
    Absent(String),
    /// The daemon left the bus, or the bus left us, while an answer was due; the text says which.
    Gone(String),
    /// The reader of standard output went away, as `head` does; nobody wants to hear more.
    BrokenPipe,
}

impl Failure {
    /// A failure of this kind, with the exit code of the table of errors.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::Said { exit_code: kind.exit_code(), message: message.into() }
    }

    /// Exit code of `orchestratorctl`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Said { exit_code, .. } => *exit_code,
            Self::Absent(_) | Self::Gone(_) => FAILED,
            Self::BrokenPipe => SUCCESS,
        }
    }

    /// The daemon left the bus while something was asked of it.
    pub fn left() -> Self {
        Self::Gone(format!("orchestratord left {} before it answered.", bus_address()))
    }

    /// Whether nobody is there to answer.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::Gone(_))
    }

    /// The failure behind a D-Bus error.
    ///
    /// `busctl` prints messages only, so those of the daemon are full sentences already; the errors that the bus makes
    /// by itself are put into words here.
    pub fn from_bus(error: &zbus::Error) -> Self {
        let (name, message) = match error {
            zbus::Error::MethodError(name, message, _) => {
                (name.as_str().to_owned(), message.clone().unwrap_or_default())
            }
            zbus::Error::FDO(error) => match error.as_ref() {
                zbus::fdo::Error::ZBus(inner) => return Self::from_bus(inner),
                error => (error.name().to_string(), error.description().unwrap_or_default().to_owned()),
            },
            zbus::Error::InputOutput(error) => {
                return Self::Gone(format!("The connection to {} broke: {error}.", bus_address()));
            }
            error => return Self::new(Kind::Failed, format!("orchestratord gave an answer out of order: {error}.")),
        };
        Self::from_error(&name, &message)
    }

    /// The failure behind a D-Bus error name and its message.
    pub fn from_error(name: &str, message: &str) -> Self {
        if let Some(kind) = Kind::from_dbus_name(name)
            && !message.is_empty()
        {
            return Self::new(kind, message);
        }
        match name.strip_prefix("org.freedesktop.DBus.Error.").unwrap_or_default() {
            "ServiceUnknown" | "NameHasNoOwner" => Self::Absent(not_running(message)),
            word if word.starts_with("Spawn.") => Self::Absent(not_running(message)),
            "NoReply" | "Disconnected" => Self::left(),
            "UnknownMethod" | "UnknownObject" | "UnknownInterface" | "UnknownProperty" => Self::new(
                Kind::Failed,
                format!("The running orchestratord does not know what was asked for; is it another version? {message}"),
            ),
            _ => Self::new(
                Kind::from_dbus_name(name).unwrap_or(Kind::Failed),
                format!("orchestratord refused: {name}: {message}"),
            ),
        }
    }

    /// The failure of writing to standard output.
    pub fn from_output(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::new(Kind::Failed, format!("Cannot write to standard output: {error}."))
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said { message, .. } | Self::Absent(message) | Self::Gone(message) => formatter.write_str(message),
            Self::BrokenPipe => formatter.write_str("Nobody reads the output any more."),
        }
    }
}

impl std::error::Error for Failure {}

/// The bus, as messages name it.
pub fn bus_address() -> String {
    match std::env::var("DBUS_SYSTEM_BUS_ADDRESS") {
        Ok(address) if !address.is_empty() => format!("the bus \"{address}\""),
        _ => "the system bus".to_owned(),
    }
}

fn not_running(reason: &str) -> String {
    format!(
        "orchestratord does not run, and {} could not start it ({}); see \"systemctl status orchestratord.service\".",
        bus_address(),
        reason.trim_end_matches('.')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_keeps_its_exit_code_and_message() {
        for kind in Kind::ALL {
            let failure = Failure::from_error(kind.dbus_name(), "The thing \"x\" broke.");
            assert_eq!(failure.exit_code(), kind.exit_code(), "{kind:?}");
            assert_eq!(failure.to_string(), "The thing \"x\" broke.");
        }
    }

    #[test]
    fn an_error_without_a_message_still_says_something() {
        let failure = Failure::from_error("org.freedesktop.DBus.Error.AccessDenied", "");
        assert_eq!(failure.exit_code(), 5);
        assert!(failure.to_string().contains("AccessDenied"), "{failure}");
    }

    #[test]
    fn errors_of_the_bus_itself_become_sentences() {
        let failure = Failure::from_error("org.freedesktop.DBus.Error.ServiceUnknown", "The name was not provided.");
        assert_eq!(failure.exit_code(), FAILED);
        assert!(failure.to_string().contains("orchestratord.service"), "{failure}");
        let failure = Failure::from_error("org.freedesktop.DBus.Error.Spawn.ChildExited", "exited with 1");
        assert!(failure.to_string().contains("does not run"), "{failure}");
        let failure = Failure::from_error("org.freedesktop.DBus.Error.NoReply", "x");
        assert!(matches!(failure, Failure::Gone(_)), "{failure:?}");
        let failure = Failure::from_error("org.example.Odd", "x");
        assert_eq!(failure.exit_code(), FAILED);
    }
}
