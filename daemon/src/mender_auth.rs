//! Tokens from the authentication service of the Mender client, over its D-Bus API.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use zbus::Connection;
use zbus::proxy::CacheProperties;

use crate::core::error::{Error, Kind};
use crate::update::source::{Token, TokenSource};

const NAME: &str = "io.mender.AuthenticationManager";
/// How long the service has to get a token from its server, as in the Mender client.
const PATIENCE: Duration = Duration::from_mins(1);

#[zbus::proxy(
    interface = "io.mender.Authentication1",
    default_service = "io.mender.AuthenticationManager",
    default_path = "/io/mender/AuthenticationManager"
)]
trait Authentication {
    fn get_jwt_token(&self) -> zbus::Result<(String, String)>;

    fn fetch_jwt_token(&self) -> zbus::Result<bool>;

    #[zbus(signal)]
    fn jwt_token_state_change(&self, token: &str, server_url: &str) -> zbus::Result<()>;
}

/// `mender-auth`, or the Mender client that has it inside.
#[derive(Debug, Clone)]
pub struct AuthenticationManager {
    connection: Connection,
}

impl AuthenticationManager {
    /// The service on this bus. It need not be there before a token is wanted.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    async fn ask(&self, refused: Option<Token>) -> zbus::Result<Option<Token>> {
        let service =
            AuthenticationProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await?;
        // Before anything is asked, so that no answer is missed.
        let mut changes = service.receive_jwt_token_state_change().await?;
        let (token, server) = service.get_jwt_token().await?;
        let token = Token::new(&token, &server).filter(|token| refused.as_ref() != Some(token));
        if token.is_some() {
            return Ok(token);
        }
        let deadline = Instant::now() + PATIENCE;
        if !service.fetch_jwt_token().await? {
            return Ok(None);
        }
        while let Ok(Some(change)) = timeout_at(deadline, changes.next()).await {
            let change = change.args()?;
            let token = Token::new(change.token, change.server_url);
            match token {
                Some(token) if refused.as_ref() != Some(&token) => return Ok(Some(token)),
                // The one that is not accepted goes away before another comes; the first try to get one has no such excuse.
                _ if refused.is_none() => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl TokenSource for AuthenticationManager {
    fn token(&self, refused: Option<Token>) -> BoxFuture<'_, Result<Token, Error>> {
        Box::pin(async move {
            match self.ask(refused).await {
                Ok(Some(token)) => Ok(token),
                Ok(None) => {
                    let text = format!("The Mender client has no token for its server: \"{NAME}\" gives none.");
                    Err(Error::new(Kind::DownloadFailed, text))
                }
                Err(error) if is_absent(&error) => {
                    let text =
                        format!("The Mender client is not there: nobody answers as \"{NAME}\" on the system bus.");
                    Err(Error::new(Kind::NoSuitableArtifact, text))
                }
                Err(error) => {
                    let text = format!("The Mender client gives no token for its server: {error}.");
                    Err(Error::new(Kind::DownloadFailed, text))
                }
            }
        })
    }
}

fn is_absent(error: &zbus::Error) -> bool {
    let absent = ["org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"];
    match error {
        zbus::Error::MethodError(name, ..) => absent.contains(&name.as_str()),
        zbus::Error::FDO(error) => {
            matches!(**error, zbus::fdo::Error::ServiceUnknown(_) | zbus::fdo::Error::NameHasNoOwner(_))
        }
        _ => false,
    }
}
