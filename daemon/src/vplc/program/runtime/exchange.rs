//! One HTTP exchange with a runtime, on a connection of its own: bounded in time and size, and never led elsewhere.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::pin::Pin;
use super::{Dial, RuntimeError};

/// Bytes of the head of an answer.
const HEAD_LIMIT: usize = 64 * 1024;
/// Lines in the head of an answer.
const HEADERS_LIMIT: usize = 64;
/// Separates the parts of a form. An archive that holds it would be cut there, which its 128 random bits make unlikely enough.
const BOUNDARY: &str = "orchestratord-9f0c1a7be5d24c36a1b84e2f7d60c593";

/// What a request carries.
pub(super) enum Payload {
    Nothing,
    Json(Value),
    /// A file of a form, with its size.
    File(File, u64),
}

/// One request.
pub(super) struct Asked<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) token: Option<&'a str>,
    pub(super) payload: Payload,
    /// For everything, from the connection to the last byte of the answer.
    pub(super) time: Duration,
    /// Bytes of the body of the answer.
    pub(super) limit: usize,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Makes the exchange and returns status and body, whatever the status is; but a redirect is an error.
pub(super) async fn exchange(
    dial: &Arc<dyn Dial>,
    port: u16,
    pin: &Pin,
    asked: Asked<'_>,
) -> Result<(u16, Vec<u8>), RuntimeError> {
    let (time, path, limit) = (asked.time, asked.path.to_owned(), asked.limit);
    let work = async {
        let stream = dial.dial(port).await.map_err(|error| RuntimeError::Unreachable(error.to_string()))?;
        let connector = TlsConnector::from(Arc::new(pin.configuration().map_err(|error| tls(&error))?));
        // The name is that of the certificate, and nobody looks at it.
        let name = ServerName::try_from("localhost").map_err(|error| tls(&error))?;
        let stream = connector.connect(name, stream).await.map_err(|error| refused_or(pin, &error))?;
        let http =
            http1::Builder::new().max_buf_size(HEAD_LIMIT).max_headers(HEADERS_LIMIT).handshake(TokioIo::new(stream));
        let (mut sender, connection) = http.await.map_err(|error| broken(&error))?;
        let request = request(asked)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = answer.status();
            if status.is_redirection() {
                return Err(RuntimeError::Answer(format!("it redirects \"{path}\" elsewhere ({status})")));
            }
            let body = Limited::new(answer.into_body(), limit).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return RuntimeError::Answer(format!("its answer to \"{path}\" has more than {limit} bytes"));
                }
                broken(error.as_ref())
            })?;
            Ok((status.as_u16(), body.to_bytes().to_vec()))
        };
        // The connection may end before the last bytes of the answer have been looked at.
        match select(Box::pin(answer), Box::pin(connection)).await {
            Either::Left((done, _)) => done,
            Either::Right((_, answer)) => answer.await,
        }
    };
    let late =
        || RuntimeError::Unreachable(format!("it has not answered \"{path}\" in full within {} s", time.as_secs()));
    timeout(time, work).await.unwrap_or_else(|_| Err(late()))
}

fn request(asked: Asked<'_>) -> Result<Request<Body>, RuntimeError> {
    let mut request = Request::builder().method(asked.method).uri(asked.path);
    request = request.header(HOST, "localhost").header(CONNECTION, "close");
    if let Some(token) = asked.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let whole = |bytes: Vec<u8>| Full::from(bytes).map_err(|never: Infallible| match never {}).boxed_unsync();
    let made = match asked.payload {
        Payload::Nothing => request.body(whole(Vec::new())),
        Payload::Json(value) => {
            request.header(CONTENT_TYPE, "application/json").body(whole(value.to_string().into_bytes()))
        }
        Payload::File(file, size) => {
            let head = format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"program.zip\"\r\n\
                 Content-Type: application/zip\r\n\r\n"
            );
            let tail = format!("\r\n--{BOUNDARY}--\r\n");
            let length = size + (head.len() + tail.len()) as u64;
            let body = StreamBody::new(form(head, file, tail)).boxed_unsync();
            request
                .header(CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"))
                .header(CONTENT_LENGTH, length)
                .body(body)
        }
    };
    made.map_err(|error| RuntimeError::Answer(format!("its token cannot be sent back: {error}")))
}

fn form(head: String, file: File, tail: String) -> impl stream::Stream<Item = io::Result<Frame<Bytes>>> + Send {
    let one = |text: String| stream::once(async move { Ok(Bytes::from(text)) });
    let file = stream::try_unfold(tokio::fs::File::from_std(file), |mut file| async move {
        let mut chunk = Vec::with_capacity(64 * 1024);
        let read = file.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    });
    one(head).chain(file).chain(one(tail)).map_ok(Frame::data)
}

fn tls(error: &dyn std::error::Error) -> RuntimeError {
    RuntimeError::Answer(format!("TLS cannot be used: {error}"))
}

/// Why TLS did not come about: because of the certificate, or of anything else.
fn refused_or(pin: &Pin, error: &io::Error) -> RuntimeError {
    match (pin.expected(), pin.shown()) {
        (Some(expected), Some(shown)) if expected != shown => RuntimeError::CertificateChanged { expected, shown },
        _ => RuntimeError::Unreachable(format!("TLS: {error}")),
    }
}

/// The innermost reason is the one that helps.
fn broken(error: &(dyn std::error::Error + 'static)) -> RuntimeError {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    RuntimeError::Unreachable(inner.to_string())
}
