//! The REST interface, and what can be wrong with its answers.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use orchestratord::core::store;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hmac, pbkdf2};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::plc::Plc;

const BODY_LIMIT: usize = 118 << 20;

/// What is wrong with an answer, by the word in `STUB_FAULT` or in the file `fault`.
///
/// `redirect`, `huge` (no end, fast), `drip` (no end, slow), `hang`, `reset`, `garbage` (no JSON), `error` (status 500), `busy` (commands
/// only: COMMAND:BUSY, once), `revoke` (no token is good, once). What is once removes the file.
type Fault = String;

/// A certificate that signs itself, made if there is none.
pub fn tls(work: &Path) -> rustls::ServerConfig {
    let (certificate, key) = (work.join("certOPENPLC.pem"), work.join("keyOPENPLC.pem"));
    if !certificate.exists() {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::CertificateParams::new(names).expect("names").self_signed(&pair).expect("a certificate");
        std::fs::write(&key, pem("PRIVATE KEY", &pair.serialize_der())).expect("a file");
        std::fs::write(&certificate, pem("CERTIFICATE", made.der())).expect("a file");
    }
    let chain = vec![CertificateDer::from_pem_file(&certificate).expect("the certificate")];
    let key = PrivateKeyDer::from_pem_file(&key).expect("the key");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.expect("TLS").with_no_client_auth().with_single_cert(chain, key).expect("a certificate that fits")
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64(der, *b"+/", true))
}

fn base64(bytes: &[u8], last: [u8; 2], padded: bool) -> String {
    let mut digits: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    digits.extend(last);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            match place <= chunk.len() {
                true => text.push(char::from(digits[(word >> (18 - 6 * place)) as usize & 63])),
                false if padded => text.push('='),
                false => {}
            }
        }
    }
    text
}

/// A body without an end.
struct Endless {
    bytes: &'static [u8],
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.bytes;
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            pause.set(tokio::time::sleep(Duration::from_millis(50)));
            // It is polled again when the next byte is due.
            context.waker().wake_by_ref();
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(bytes)))))
    }
}

type Answer = Response<Either<Full<Bytes>, Endless>>;

pub struct Rest {
    plc: Plc,
    data: PathBuf,
    work: PathBuf,
    secret: hmac::Key,
    lock: Mutex<()>,
}

impl Rest {
    pub fn new(plc: Plc, data: PathBuf, work: PathBuf) -> Self {
        let mut secret = [0; 32];
        let kept = store::read(&data.join(".env"), 64).expect("the secrets");
        if let Some(kept) = kept.as_deref() {
            secret.copy_from_slice(&kept[..32]);
        } else {
            SystemRandom::new().fill(&mut secret).expect("randomness");
            store::replace(&data.join(".env"), &secret).expect("the secrets are kept");
            // As the real one: new secrets fit no old user.
            store::remove_file(&data.join("restapi.json")).expect("the users are gone");
        }
        Self { plc, data, work, secret: hmac::Key::new(hmac::HMAC_SHA256, &secret), lock: Mutex::new(()) }
    }

    pub async fn connection(&self, stream: TlsStream<TcpStream>) {
        let service = service_fn(|request| async move { self.answer(request).await });
        // A caller who has had enough is no error.
        drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
    }

    fn fault(&self) -> Fault {
        let file = std::fs::read_to_string(self.work.join("fault")).ok();
        file.unwrap_or_else(|| std::env::var("STUB_FAULT").unwrap_or_default()).trim().to_owned()
    }

    /// Whether this fault is to be, this once.
    fn once(&self, word: &str) -> bool {
        self.fault() == word && std::fs::remove_file(self.work.join("fault")).is_ok()
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, std::io::Error> {
        let endless = |bytes, pause| {
            let pause = Option::map(pause, |pause| Box::pin(tokio::time::sleep(pause)));
            Ok(Response::new(Either::Right(Endless { bytes, pause })))
        };
        match self.fault().as_str() {
            "redirect" => {
                let answer = Response::builder().status(302).header("Location", "https://127.0.0.1:1/api/status");
                return Ok(answer.body(Either::Left(Full::default())).unwrap());
            }
            "huge" => return endless(&[b' '; 16_384], None),
            "drip" => return endless(b" ", Some(Duration::from_millis(50))),
            "hang" => std::future::pending().await,
            "reset" => return Err(std::io::ErrorKind::ConnectionReset.into()),
            "garbage" => return Ok(Response::new(Either::Left(Full::from("<html>no")))),
            "error" => return Ok(json_answer(500, &json!({"error": "internal"}))),
            _ => {}
        }
        let (status, value) = self.route(request).await;
        Ok(json_answer(status, &value))
    }

    async fn route(&self, request: Request<Incoming>) -> (u16, Value) {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
            return (413, json!({"error": "Request Entity Too Large"}));
        };
        let body = body.to_bytes();
        let token = head.headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let user = token.and_then(|token| self.token_of(token));
        let path = head.uri.path().strip_prefix("/api/").unwrap_or_default();
        match (&head.method, path) {
            (&Method::GET, "version") => return (200, json!({"version": version()})),
            (&Method::GET, "get-users-info") if token.is_none() => {
                return if self.users().is_empty() {
                    (404, json!({"msg": "No users found"}))
                } else {
                    (200, json!({"msg": "Users found"}))
                };
            }
            (&Method::POST, "create-user") => return self.create_user(&body, user.is_some()),
            (&Method::POST, "login") => return self.login(&body),
            _ => {}
        }
        if user.is_none() || self.once("revoke") {
            return (401, json!({"msg": "Token has expired"}));
        }
        let command = |answer: &str| (200, json!({"status": answer}));
        match (&head.method, path) {
            (&Method::GET, "start-plc" | "stop-plc") if self.once("busy") => command("COMMAND:BUSY\n"),
            (&Method::GET, "start-plc") => command(self.plc.start()),
            (&Method::GET, "stop-plc") => command(self.plc.stop()),
            (&Method::GET, "ping") => command("PING:OK\n"),
            (&Method::GET, "status") => match self.plc.status() {
                "gone" => command("No response from runtime"),
                status => {
                    let mut value = json!({"status": format!("STATUS:{status}\n"), "switchPosition": "run"});
                    if head.uri.query() == Some("include_stats=true") {
                        value["timing_stats"] = self.plc.statistics();
                    }
                    (200, value)
                }
            },
            (&Method::GET, "compilation-status") => (200, self.plc.compilation()),
            (&Method::GET, "runtime-logs") => {
                let line = json!({"id": 1, "timestamp": "2026-01-01T00:00:00Z", "level": "INFO", "message": "stub"});
                (200, json!({"runtime-logs": [line]}))
            }
            (&Method::POST, "upload-file") => {
                let kind = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
                let done = file_of(kind, &body).and_then(|file| self.plc.upload(file));
                (
                    200,
                    json!({
                        "UploadFileFail": done.err().unwrap_or_default(),
                        "CompilationStatus": self.plc.compilation()["status"],
                    }),
                )
            }
            (&Method::GET, _) => (200, json!({"error": "Unknown argument"})),
            _ => (404, json!({"error": "Not Found"})),
        }
    }

    fn users(&self) -> serde_json::Map<String, Value> {
        let kept = store::read(&self.data.join("restapi.json"), 1 << 20).expect("the users");
        kept.and_then(|kept| serde_json::from_slice(&kept).ok()).unwrap_or_default()
    }

    fn create_user(&self, body: &[u8], authorised: bool) -> (u16, Value) {
        let _lock = self.lock.lock().unwrap();
        let mut users = self.users();
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let (Some(name), Some(word)) = (value["username"].as_str(), value["password"].as_str()) else {
            return (400, json!({"msg": "Missing username or password"}));
        };
        if !users.is_empty() && !authorised {
            return (401, json!({"msg": "User already created!"}));
        }
        if users.contains_key(name) {
            return (409, json!({"msg": "Username already exists"}));
        }
        users.insert(name.to_owned(), Value::String(hash(name, word)));
        store::replace(&self.data.join("restapi.json"), Value::Object(users.clone()).to_string().as_bytes())
            .expect("kept");
        (201, json!({"msg": "User created", "id": users.len(), "role": "admin"}))
    }

    fn login(&self, body: &[u8]) -> (u16, Value) {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let (name, word) =
            (value["username"].as_str().unwrap_or_default(), value["password"].as_str().unwrap_or_default());
        if self.users().get(name).and_then(Value::as_str) != Some(hash(name, word).as_str()) {
            return (401, Value::String("Wrong username or password".to_owned()));
        }
        let valid: u64 = crate::variable("STUB_TOKEN_SECONDS", "900").parse().expect("seconds");
        let head = base64(br#"{"alg":"HS256","typ":"JWT"}"#, *b"-_", false);
        let claims = base64(json!({"sub": name, "exp": now() + valid}).to_string().as_bytes(), *b"-_", false);
        let signed = hmac::sign(&self.secret, format!("{head}.{claims}").as_bytes());
        (200, json!({"access_token": format!("{head}.{claims}.{}", base64(signed.as_ref(), *b"-_", false))}))
    }

    /// Whose token this is, if it is a good one.
    fn token_of(&self, token: &str) -> Option<String> {
        let (signed, signature) = token.rsplit_once('.')?;
        if base64(hmac::sign(&self.secret, signed.as_bytes()).as_ref(), *b"-_", false) != signature {
            return None;
        }
        let claims = from_base64url(signed.split_once('.')?.1)?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        (claims["exp"].as_u64()? > now()).then(|| claims["sub"].as_str().unwrap_or_default().to_owned())
    }
}

fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut word = 0_u32;
        for byte in chunk {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            word = word << 6 | u32::from(digit);
        }
        word <<= 6 * (4 - chunk.len());
        bytes.extend(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

/// Not the 600 000 rounds of the real one, which a test would wait for.
fn hash(name: &str, word: &str) -> String {
    let mut out = [0; 32];
    let rounds = NonZeroU32::new(1000).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, name.as_bytes(), word.as_bytes(), &mut out);
    base64(&out, *b"+/", false)
}

fn version() -> String {
    crate::variable("STUB_VERSION", "4.1.9")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn json_answer(status: u16, value: &Value) -> Answer {
    let answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
    let answer = answer.header("Content-Type", "application/json").header("X-OpenPLC-Runtime-Version", version());
    answer.body(Either::Left(Full::from(value.to_string()))).unwrap()
}

/// The part `file` of a multipart form.
fn file_of<'b>(kind: &str, body: &'b [u8]) -> Result<&'b [u8], String> {
    let missing = || "No file part in the request".to_owned();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").ok_or_else(missing)?;
    let find = |from: usize, what: &[u8]| {
        body[from..].windows(what.len()).position(|window| window == what).map(|place| from + place)
    };
    let head = find(0, format!("--{boundary}\r\n").as_bytes()).ok_or_else(missing)?;
    let start = find(head, b"\r\n\r\n").ok_or_else(missing)? + 4;
    if !String::from_utf8_lossy(&body[head..start]).contains("name=\"file\"; filename=\"") {
        return Err(missing());
    }
    let end = find(start, format!("\r\n--{boundary}--").as_bytes()).ok_or_else(missing)?;
    Ok(&body[start..end])
}
