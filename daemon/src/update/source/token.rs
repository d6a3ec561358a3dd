//! Who says to a Mender server which device this is.

use std::fmt;
use std::path::PathBuf;

use futures_util::future::BoxFuture;

use crate::core::error::{Error, Kind};

/// A token file may have this many bytes.
const TOKEN_LIMIT: u64 = 64 * 1024;

/// A JSON Web Token, as the server gave it to this device. It is a secret: it is never logged nor shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    token: String,
    /// The address of the server it is for; empty if whoever has the token does not know.
    pub server: String,
}

impl Token {
    /// The token for a server. White space around it does not belong to it; an empty one is none.
    pub fn new(token: &str, server: &str) -> Option<Self> {
        let token = token.trim();
        // What else stands in a header would end it, or begin another.
        let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| Self { token: token.to_owned(), server: server.trim().to_owned() })
    }

    /// What goes into the header `Authorization`.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Gives tokens.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// A token that is valid now. `refused` is one that the server has not taken: it is never given again.
    fn token(&self, refused: Option<Token>) -> BoxFuture<'_, Result<Token, Error>>;
}

/// A token in a file that somebody else keeps current. It is read anew each time.
#[derive(Debug, Clone)]
pub struct TokenFile {
    /// The file.
    pub path: PathBuf,
}

impl TokenSource for TokenFile {
    fn token(&self, refused: Option<Token>) -> BoxFuture<'_, Result<Token, Error>> {
        Box::pin(async move {
            let path = self.path.clone();
            let read = tokio::task::spawn_blocking(move || crate::core::store::read(&path, TOKEN_LIMIT));
            let fault = |reason: &str| {
                let text = format!("The token file \"{}\" {reason}.", self.path.display());
                Error::new(Kind::DownloadFailed, text)
            };
            let bytes = read
                .await
                .map_err(|error| fault(&format!("cannot be read: {error}")))?
                .map_err(|error| fault(&format!("cannot be read: {}", error.io())))?
                .ok_or_else(|| fault("does not exist"))?;
            let token = std::str::from_utf8(&bytes).ok().and_then(|text| Token::new(text, ""));
            let token = token.ok_or_else(|| fault("holds no token: it must be one word of printable ASCII"))?;
            if refused.is_some_and(|refused| refused.token == token.token) {
                return Err(fault("holds a token that the server does not accept"));
            }
            Ok(token)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_never_shown() {
        let token = Token::new(" eyJ.x.y\n", "https://s").unwrap();
        assert_eq!(token.authorization(), "Bearer eyJ.x.y");
        assert!(!format!("{token:?}").contains("eyJ"));
        for bad in ["", " \n", "a b", "a\r\nX: y", "ä"] {
            assert_eq!(Token::new(bad, ""), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_file_is_read_anew_and_a_refused_token_is_not_given_again() {
        let directory = tempfile::tempdir().unwrap();
        let source = TokenFile { path: directory.path().join("token") };
        assert!(source.token(None).await.unwrap_err().message.contains("does not exist"));
        std::fs::write(&source.path, "one\n").unwrap();
        let one = source.token(None).await.unwrap();
        let error = source.token(Some(one.clone())).await.unwrap_err();
        assert!(error.message.contains("does not accept") && !error.message.contains("one"), "{error}");
        std::fs::write(&source.path, "two\n").unwrap();
        assert_eq!(source.token(Some(one)).await.unwrap().authorization(), "Bearer two");
        std::fs::write(&source.path, "a b").unwrap();
        assert!(source.token(None).await.unwrap_err().message.contains("holds no token"));
    }
}
