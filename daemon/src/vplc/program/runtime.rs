//! The client of the OpenPLC runtime 4: its REST interface, over a connection that somebody else makes.
//!
//! The runtime belongs to whoever creates its first user, so the daemon does that before anybody else can reach it, with a password
//! that nobody else knows. Its certificate is pinned at the same time. Both are kept in one document of mode 0600.

mod answer;
mod exchange;
mod pin;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use hyper::Method;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

pub use self::answer::{Compilation, CompilationState, PlcState, TaskStatistics};

use self::answer::{Taken, quoted};
use self::exchange::{Asked, Payload, exchange};
use self::pin::Pin;
use super::Patience;
use crate::core::error::{Error, Kind};
use crate::core::store::{Generations, StoreError};

/// Port of the REST interface.
pub const PORT: u16 = 8443;
/// Name of the user that the daemon is.
const USER: &str = "orchestratord";
/// Bytes of an answer. The longest one is the log of a compilation.
const ANSWER_LIMIT: usize = 4 << 20;
/// Bytes of a token.
const TOKEN_LIMIT: usize = 8 << 10;
const CREDENTIALS_LIMIT: u64 = 64 << 10;
/// The first pause after COMMAND:BUSY; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_secs(2);

/// The way to a vPLC.
pub trait Dial: fmt::Debug + Send + Sync {
    /// Connects to a TCP port on the loopback of the vPLC's own network namespace. It has to give up by itself or be dropped.
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// What went wrong between the daemon and a runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It does not answer, or not in time. It may do so later.
    #[error("does not answer: {0}")]
    Unreachable(String),
    /// It answers, but not as it should.
    #[error("does not answer as it should: {0}")]
    Answer(String),
    /// It does not do what it was asked for.
    #[error("refuses: {0}")]
    Refused(String),
    /// It is somebody else.
    #[error("shows the certificate \"{shown}\", but \"{expected}\" is known to be its own")]
    CertificateChanged {
        /// SHA-256 of the certificate that is pinned.
        expected: String,
        /// SHA-256 of the one that was shown.
        shown: String,
    },
    /// The daemon is not its user.
    #[error("does not know the user \"{USER}\" with the password that is kept, but has users")]
    Taken,
    /// What has to be kept cannot be.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RuntimeError {
    /// Whether it may go better later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// As an error about the runtime of this vPLC.
    pub fn about(self, vplc: &str) -> Error {
        let kind = match self {
            Self::Unreachable(_) | Self::Answer(_) => Kind::RuntimeFailed,
            Self::Refused(_) => Kind::ProgramFailed,
            Self::CertificateChanged { .. } | Self::Taken => Kind::RuntimeUntrusted,
            Self::Store(error) => return error.into(),
        };
        Error::new(kind, format!("The runtime of the vPLC \"{vplc}\" {self}."))
    }
}

/// Who the daemon is to a runtime, and who the runtime is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Name of the user.
    pub user: String,
    /// Password of the user.
    pub password: String,
    /// SHA-256 of the certificate, in hexadecimal digits; `None` before the first contact with a new container.
    pub certificate: Option<String>,
    /// What the engine calls the container that was claimed last; `None` if none was.
    #[serde(default)]
    pub container: Option<String>,
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The runtime of one vPLC.
#[derive(Debug)]
pub struct Runtime {
    dial: Arc<dyn Dial>,
    port: u16,
    patience: Patience,
    pin: Pin,
    file: Generations,
    credentials: Mutex<Credentials>,
    token: Mutex<Option<String>>,
}

impl Runtime {
    /// The client with what is kept in this directory. The password of a new one is drawn, and kept before it is ever used.
    pub fn open(directory: &Path, dial: Arc<dyn Dial>, port: u16, patience: Patience) -> Result<Self, StoreError> {
        let file = Generations::new(directory.join("runtime.json"), CREDENTIALS_LIMIT);
        let credentials: Credentials = if let Some(loaded) = file.load()? {
            loaded.document
        } else {
            let mut bytes = [0; 24];
            let random = SystemRandom::new().fill(&mut bytes);
            random.map_err(|_| StoreError::of("draw a password for", directory)(io::Error::other("no randomness")))?;
            let password = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let credentials = Credentials { user: USER.to_owned(), password, certificate: None, container: None };
            file.save(&credentials)?;
            // Twice, so that the document survives the loss of one generation from the beginning.
            file.save(&credentials)?;
            credentials
        };
        let pin = Pin::new(credentials.certificate.clone());
        Ok(Self { dial, port, patience, pin, file, credentials: Mutex::new(credentials), token: Mutex::new(None) })
    }

    /// Who the daemon is to the runtime.
    pub fn credentials(&self) -> Credentials {
        lock(&self.credentials).clone()
    }

    /// A new container has been made, which makes a new certificate: the next one that is shown is pinned. To be called while nobody
    /// else can answer in place of the runtime.
    pub fn expect_new_certificate(&self) -> Result<(), StoreError> {
        self.keep_certificate(None)
    }

    /// Which container was claimed last.
    pub fn claimed(&self) -> Option<String> {
        lock(&self.credentials).container.clone()
    }

    /// This container is claimed.
    pub fn keep_claimed(&self, container: &str) -> Result<(), StoreError> {
        let mut credentials = lock(&self.credentials);
        let changed = Credentials { container: Some(container.to_owned()), ..credentials.clone() };
        self.file.save(&changed)?;
        *credentials = changed;
        Ok(())
    }

    fn keep_certificate(&self, certificate: Option<String>) -> Result<(), StoreError> {
        let mut credentials = lock(&self.credentials);
        let changed = Credentials { certificate: certificate.clone(), ..credentials.clone() };
        self.file.save(&changed)?;
        *credentials = changed;
        self.pin.expect(certificate);
        *lock(&self.token) = None;
        Ok(())
    }

    /// Makes the runtime the daemon's own: pins its certificate, creates its first user, or sees that this was done before. To be
    /// called before anybody else can reach the runtime.
    pub async fn claim(&self) -> Result<(), RuntimeError> {
        self.login().await.map(drop)
    }

    /// The version of the runtime. Needs no user, so it tells whether the web server answers at all.
    pub async fn version(&self) -> Result<String, RuntimeError> {
        let (status, body) = self.ask(Method::GET, "/api/version", None, Payload::Nothing).await?;
        let value = json_of("/api/version", status, &body)?;
        value["version"].as_str().map(quoted).ok_or_else(|| unexpected("/api/version", status))
    }

    /// What the PLC does.
    pub async fn plc(&self) -> Result<PlcState, RuntimeError> {
        let value = self.get("/api/status").await?;
        value["status"].as_str().and_then(PlcState::parse).ok_or_else(|| unexpected("/api/status", 200))
    }

    /// What the PLC does, with the figures of its tasks. They take a lock that the scan takes, too, so they are not for every second.
    pub async fn statistics(&self) -> Result<(PlcState, Vec<TaskStatistics>), RuntimeError> {
        let value = self.get("/api/status?include_stats=true").await?;
        let state = value["status"].as_str().and_then(PlcState::parse);
        Ok((state.ok_or_else(|| unexpected("/api/status", 200))?, TaskStatistics::parse(&value)))
    }

    /// Where the compilation is.
    pub async fn compilation(&self) -> Result<Compilation, RuntimeError> {
        let value = self.get("/api/compilation-status").await?;
        Compilation::parse(&value).ok_or_else(|| unexpected("/api/compilation-status", 200))
    }

    /// The last lines of the runtime's own log, the oldest first.
    pub async fn log(&self) -> Result<Vec<String>, RuntimeError> {
        let value = self.get("/api/runtime-logs").await?;
        let lines = value["runtime-logs"].as_array().ok_or_else(|| unexpected("/api/runtime-logs", 200))?;
        let word = |line: &Value, key: &str| quoted(line[key].as_str().unwrap_or_default());
        let line = |line| [word(line, "timestamp"), word(line, "level"), word(line, "message")].join(" ");
        Ok(lines.iter().take(1000).map(line).collect())
    }

    /// Has the program run. It is begun when this returns, and may take seconds.
    pub async fn start(&self) -> Result<(), RuntimeError> {
        match self.command("/api/start-plc", "START").await? {
            Taken::Refused(reason) => Err(RuntimeError::Refused(format!("the program is not started, {reason}"))),
            _ => Ok(()),
        }
    }

    /// Has the program end, if it runs. It is begun when this returns.
    pub async fn stop(&self) -> Result<(), RuntimeError> {
        match self.command("/api/stop-plc", "STOP").await? {
            // What does not run is refused, too.
            Taken::Refused(_) if self.plc().await? != PlcState::Running => Ok(()),
            Taken::Refused(reason) => Err(RuntimeError::Refused(format!("the program is not stopped, {reason}"))),
            _ => Ok(()),
        }
    }

    /// Sends a command, again and again while the runtime is busy.
    async fn command(&self, path: &str, word: &str) -> Result<Taken, RuntimeError> {
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let value = self.get(path).await?;
            match Taken::parse(word, value["status"].as_str().ok_or_else(|| unexpected(path, 200))?) {
                Taken::Busy if begun.elapsed() < self.patience.silence => {}
                Taken::Busy => {
                    let seconds = self.patience.silence.as_secs();
                    return Err(RuntimeError::Unreachable(format!("it is busy for more than {seconds} s")));
                }
                taken => return Ok(taken),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Uploads an archive. On success the runtime has stopped the program that ran, and compiles.
    pub async fn upload(&self, archive: &File) -> Result<(), RuntimeError> {
        let path = "/api/upload-file";
        let (status, body) = self
            .authorised(Method::POST, path, &|| {
                let again = || {
                    let mut file = archive.try_clone()?;
                    io::Seek::rewind(&mut file)?;
                    let size = file.metadata()?.len();
                    Ok(Payload::File(file, size))
                };
                again()
                    .map_err(|error: io::Error| RuntimeError::Refused(format!("the archive cannot be read: {error}")))
            })
            .await?;
        let value = json_of(path, status, &body)?;
        match value["UploadFileFail"].as_str() {
            Some("") => Ok(()),
            Some(reason) => Err(RuntimeError::Refused(format!("the program is not taken, \"{}\"", quoted(reason)))),
            None => Err(unexpected(path, status)),
        }
    }

    async fn get(&self, path: &str) -> Result<Value, RuntimeError> {
        let (status, body) = self.authorised(Method::GET, path, &|| Ok(Payload::Nothing)).await?;
        json_of(path, status, &body)
    }

    /// A request with a token; if the token is not good any more, once more with a new one.
    async fn authorised(
        &self,
        method: Method,
        path: &str,
        payload: &(dyn Fn() -> Result<Payload, RuntimeError> + Send + Sync),
    ) -> Result<(u16, Vec<u8>), RuntimeError> {
        let kept = lock(&self.token).clone();
        let token = match kept {
            Some(token) => token,
            None => self.login().await?,
        };
        let answer = self.ask(method.clone(), path, Some(&token), payload()?).await?;
        if answer.0 != 401 {
            return Ok(answer);
        }
        // The runtime forgets its tokens with each start, and after 15 minutes.
        let token = self.login().await?;
        self.ask(method, path, Some(&token), payload()?).await
    }

    /// Gets a token, and creates the first user if there is none.
    async fn login(&self) -> Result<String, RuntimeError> {
        *lock(&self.token) = None;
        let path = "/api/get-users-info";
        let (status, body) = self.ask(Method::GET, path, None, Payload::Nothing).await?;
        if let Some(shown) = self.pin.shown().filter(|_| self.pin.expected().is_none()) {
            // Before the password goes to whoever showed it.
            self.keep_certificate(Some(shown))?;
        }
        let virgin = match status {
            404 => true,
            200 => false,
            _ => return json_of(path, status, &body).and_then(|_| Err(unexpected(path, status))),
        };
        let Credentials { user, password, .. } = self.credentials();
        let word = json!({"username": user, "password": password});
        if virgin {
            // A 404 of anything else than the runtime says something else.
            if json_body(&body).is_none_or(|value| value["msg"].as_str().is_none()) {
                return Err(unexpected(path, status));
            }
            let path = "/api/create-user";
            let (status, _) = self.ask(Method::POST, path, None, Payload::Json(word.clone())).await?;
            match status {
                201 => {}
                // Somebody was faster.
                400 | 401 | 403 | 409 => return Err(RuntimeError::Taken),
                _ => return Err(unexpected(path, status)),
            }
        }
        let path = "/api/login";
        let (status, body) = self.ask(Method::POST, path, None, Payload::Json(word)).await?;
        if status == 401 {
            return Err(RuntimeError::Taken);
        }
        let value = json_of(path, status, &body)?;
        let token = value["access_token"].as_str().filter(|token| token.len() <= TOKEN_LIMIT);
        let token = token.ok_or_else(|| unexpected(path, status))?.to_owned();
        *lock(&self.token) = Some(token.clone());
        Ok(token)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        payload: Payload,
    ) -> Result<(u16, Vec<u8>), RuntimeError> {
        let time = if matches!(payload, Payload::File(..)) { self.patience.upload } else { self.patience.answer };
        let asked = Asked { method, path, token, payload, time, limit: ANSWER_LIMIT };
        exchange(&self.dial, self.port, &self.pin, asked).await
    }
}

fn json_body(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

/// The body of an answer that has to be a good one.
fn json_of(path: &str, status: u16, body: &[u8]) -> Result<Value, RuntimeError> {
    if !(200..300).contains(&status) {
        return Err(unexpected(path, status));
    }
    json_body(body).ok_or_else(|| RuntimeError::Answer(format!("its answer to \"{path}\" is no JSON")))
}

fn unexpected(path: &str, status: u16) -> RuntimeError {
    RuntimeError::Answer(format!("its answer to \"{path}\", with status {status}, is not understood"))
}

/// The data behind these locks is valid after every single statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
