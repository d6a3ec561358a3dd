//! Who may do what: root may do everything, everybody else needs polkit's word, asked anew for each call.
//!
//! The user whom the daemon runs as counts as root does: on a private bus that is somebody who could do all of it
//! without the daemon.
//!
//! Root is not asked about because polkit answers "yes" for uid 0 without looking at any rule. So a machine without
//! polkit is root's alone, and a machine whose polkit is broken can still be updated by root.

use std::collections::HashMap;
use std::time::Duration;

use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use crate::core::error::{Error, Kind};

/// How long polkit may think when it cannot ask anybody.
const SILENT_LIMIT: Duration = Duration::from_secs(30);
/// How long a user may take to answer polkit's prompt.
const PROMPT_LIMIT: Duration = Duration::from_mins(5);

/// What can be allowed: one action per consequence, each described in `org.orchestratord1.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Change the System: install, resume, roll back, cancel, reload.
    Update,
    /// Run the questions of the Interfaces, which change nothing but run as root: plan, inventory.
    Inspect,
    /// Change the network: attach and detach NICs.
    Network,
    /// Change vPLCs: apply, delete, start, stop; read what is secret of them.
    Vplc,
    /// Run any command in a vPLC.
    VplcShell,
}

impl Action {
    /// Every action, for tests.
    pub const ALL: [Self; 5] = [Self::Update, Self::Inspect, Self::Network, Self::Vplc, Self::VplcShell];

    /// The action's id in polkit.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Update => "org.orchestratord1.update",
            Self::Inspect => "org.orchestratord1.inspect",
            Self::Network => "org.orchestratord1.network",
            Self::Vplc => "org.orchestratord1.vplc",
            Self::VplcShell => "org.orchestratord1.vplc-shell",
        }
    }

    /// What it is about, for messages.
    const fn subject(self) -> &'static str {
        match self {
            Self::Update => "change the System",
            Self::Inspect => "inspect the System",
            Self::Network => "change the network",
            Self::Vplc => "change vPLCs",
            Self::VplcShell => "run commands in vPLCs",
        }
    }
}

/// Lets a call of this user pass or not.
///
/// A refusal is `AccessDenied`; `InteractiveAuthorizationRequired` if the caller could have passed by answering a
/// prompt, but did not set the message flag that allows one. Any other trouble is a refusal, too.
pub(super) async fn authorise(
    connection: &Connection,
    call: &Header<'_>,
    uid: u32,
    action: Action,
) -> Result<(), Error> {
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let prompt = call.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
    let flags = if prompt { CheckAuthorizationFlags::ALLOW_USER_INTERACTION } else { CheckAuthorizationFlags::empty() };
    let limit = if prompt { PROMPT_LIMIT } else { SILENT_LIMIT };

    let subject = Subject::new_for_message_header(call).map_err(|error| denied(uid, action, &error.to_string()))?;
    let details = HashMap::new();
    let question = async {
        let authority = AuthorityProxy::new(connection).await?;
        authority.check_authorization(&subject, action.id(), &details, flags, "").await
    };
    match tokio::time::timeout(limit, question).await {
        Ok(Ok(answer)) if answer.is_authorized => Ok(()),
        Ok(Ok(answer)) if answer.is_challenge && !prompt => Err(Error::new(
            Kind::InteractiveAuthorizationRequired,
            format!(
                "User {uid} may {} only after authentication (polkit action \"{}\"), and the call allows no prompt.",
                action.subject(),
                action.id()
            ),
        )),
        Ok(Ok(_)) => Err(Error::new(
            Kind::AccessDenied,
            format!("User {uid} may not {} (polkit action \"{}\").", action.subject(), action.id()),
        )),
        Ok(Err(error)) => Err(denied(uid, action, &error.to_string())),
        Err(_) => Err(denied(uid, action, &format!("no answer within {} s", limit.as_secs()))),
    }
}

/// User id of the one who sent this message, as the bus daemon knows it, and the process if it tells.
pub(super) async fn credentials(connection: &Connection, call: &Header<'_>) -> Result<(u32, Option<u32>), Error> {
    let refused = |reason: &str| {
        Error::new(Kind::AccessDenied, format!("The caller cannot be identified, so the call is refused: {reason}."))
    };
    let sender = call.sender().ok_or_else(|| refused("the message names no sender"))?;
    let bus = DBusProxy::new(connection).await.map_err(|error| refused(&error.to_string()))?;
    let told = bus.get_connection_credentials(sender.clone().into()).await;
    let told = told.map_err(|error| refused(&error.to_string()))?;
    let uid = told.unix_user_id().ok_or_else(|| refused("the bus does not tell its user"))?;
    Ok((uid, told.process_id()))
}

fn denied(uid: u32, action: Action, reason: &str) -> Error {
    Error::new(
        Kind::AccessDenied,
        format!(
            "User {uid} may not {}: without an answer from polkit only root and the daemon's own user may (polkit action \"{}\": {reason}).",
            action.subject(),
            action.id()
        ),
    )
}
