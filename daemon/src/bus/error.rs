//! From the one table of errors to a D-Bus error reply.

use std::fmt;

use zbus::message::Header;
use zbus::names::ErrorName;
use zbus::{DBusError, Message};

use super::view::text;
use crate::core::error::Error;

/// An error reply: the name comes from the table, the message is the one of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(Error);

impl Refusal {
    /// What is wrong.
    pub(super) fn error(&self) -> &Error {
        &self.0
    }
}

impl From<Error> for Refusal {
    fn from(mut error: Error) -> Self {
        // A message may quote what an Interface or a caller said, and D-Bus strings cannot hold NUL.
        error.message = text(error.message);
        Self(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Refusal {}

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.0.message.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.0.kind.dbus_name())
    }

    fn description(&self) -> Option<&str> {
        Some(&self.0.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::error::Kind;

    #[test]
    fn every_name_of_the_table_is_a_valid_error_name() {
        for kind in Kind::ALL {
            assert_eq!(
                ErrorName::try_from(kind.dbus_name()).map(|name| name.to_string()).as_deref(),
                Ok(kind.dbus_name())
            );
        }
    }

    #[test]
    fn a_message_with_nul_can_be_sent() {
        let refusal = Refusal::from(Error::new(Kind::Failed, "a\0b"));
        assert_eq!(refusal.description(), Some("a\u{fffd}b"));
    }
}
