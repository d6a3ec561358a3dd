//! One blocking HTTP client: time limits, redirects, proxies, and what an error means.
//!
//! Each client has a runtime of its own and drives it only while somebody waits in a call. So the work of TLS is done on the
//! thread that wants the bytes, and not on the one that serves the bus.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, NoProxy, Proxy, Response, Url, redirect};
use rustls::RootCertStore;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::tls::Tls;
use crate::core::error::{Error, Kind};
use crate::core::settings::{Proxies, Settings};

/// How many redirects are followed.
const REDIRECTS: usize = 10;
/// A server has this long to take a connection, unless less is configured.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// In the time of `DownloadTimeoutSeconds` at least this much has to come. Less is a server that only pretends.
pub(super) const LEAST: u64 = 64 * 1024;
/// The first pause before another try; it doubles from try to try.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, also if a server wishes for more.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What went wrong with a request.
#[derive(Debug)]
pub(in crate::update::source) enum Failure {
    /// Another try may go better.
    Passing {
        /// What is wrong, as part of a sentence.
        reason: String,
        /// When the server wants to be asked again.
        after: Option<Duration>,
    },
    /// Another try will not.
    Lasting(String),
    /// Nobody wants the answer any more.
    Cancelled,
}

impl Failure {
    pub(in crate::update::source) fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), after: None }
    }

    /// As an error about this address.
    pub(in crate::update::source) fn about(self, what: &str) -> Error {
        match self {
            Self::Passing { reason, .. } | Self::Lasting(reason) => {
                Error::new(Kind::DownloadFailed, format!("Cannot get \"{what}\": {reason}."))
            }
            Self::Cancelled => Error::new(Kind::Cancelled, format!("Getting \"{what}\" was cancelled.")),
        }
    }
}

/// Makes clients.
#[derive(Debug)]
pub(in crate::update::source) struct Connector {
    tls: Tls,
    proxies: Proxies,
    patience: Duration,
}

impl Connector {
    pub(in crate::update::source) fn new(settings: &Settings) -> Self {
        Self {
            tls: Tls::new(settings.https_client.clone(), settings.server_certificate.clone()),
            proxies: settings.proxies.clone(),
            patience: settings.download_timeout,
        }
    }

    /// A client. It blocks, so it is of use on a thread only that may wait.
    pub(in crate::update::source) fn client(&self) -> Result<Http, Error> {
        let failed =
            |error: &dyn std::fmt::Display| Error::new(Kind::Failed, format!("No HTTP client can be set up: {error}."));
        let (tls, system) = self.tls.configuration()?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .user_agent(concat!("orchestratord/", env!("CARGO_PKG_VERSION")))
            // The address of a signed link is a secret, and would be told to the host that it redirects to.
            .referer(false)
            .redirect(redirect::Policy::custom(follow))
            .connect_timeout(self.patience.min(CONNECT_LIMIT))
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(1)
            // The variables have been read with the other settings; here is no second reading of them.
            .no_proxy();
        for (proxy, of) in [(&self.proxies.http, Proxy::http as fn(Url) -> _), (&self.proxies.https, Proxy::https)] {
            if let Some(address) = proxy {
                let url = Url::parse(address).map_err(|error| failed(&error))?;
                let proxy: Proxy = of(url).map_err(|error| failed(&error))?;
                builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&self.proxies.except)));
            }
        }
        let client = builder.build().map_err(|error| failed(&error))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
        Ok(Http { runtime: Some(runtime), client, patience: self.patience, _system: system })
    }
}

/// Whether a redirect is followed.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_https = attempt.previous().iter().any(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS {
        return attempt.error(format!("it redirects more than {REDIRECTS} times"));
    }
    if from_https && attempt.url().scheme() != "https" {
        return attempt.error("it redirects from https to a connection that is not encrypted");
    }
    attempt.follow()
}

/// A client with its runtime.
#[derive(Debug)]
pub(in crate::update::source) struct Http {
    runtime: Option<Runtime>,
    client: Client,
    patience: Duration,
    _system: Arc<RootCertStore>,
}

impl Http {
    fn block_on<T>(
        &self,
        stop: &CancellationToken,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Some(runtime) = &self.runtime else { return Err(Failure::Cancelled) };
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(Failure::Cancelled),
                done = work => done,
            }
        })
    }

    /// Asks for an address and waits for the head of the answer, whatever its status is.
    pub(in crate::update::source) fn get(
        &self,
        url: &Url,
        headers: &[(HeaderName, String)],
        stop: &CancellationToken,
    ) -> Result<Response, Failure> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| Failure::Lasting(format!("the header \"{name}\" would be malformed")))?;
            // Not to be shown, should anybody print a request.
            value.set_sensitive(true);
            map.insert(name, value);
        }
        let request = self.client.get(url.clone()).headers(map);
        self.block_on(stop, async {
            match timeout(self.patience, request.send()).await {
                Ok(answer) => answer.map_err(failure),
                Err(_elapsed) => Err(Failure::passing(format!("no answer within {} s", self.patience.as_secs()))),
            }
        })
    }

    /// The next bytes of an answer; empty at its end.
    pub(in crate::update::source) fn chunk(
        &self,
        answer: &mut Response,
        pace: &mut Pace,
        stop: &CancellationToken,
    ) -> Result<Bytes, Failure> {
        self.block_on(stop, async {
            loop {
                let begun = Instant::now();
                let left = self.patience.saturating_sub(pace.waited);
                let chunk = timeout(left, answer.chunk()).await;
                pace.waited += begun.elapsed();
                if let Ok(chunk) = chunk {
                    let chunk = chunk.map_err(failure)?.unwrap_or_default();
                    pace.bytes += chunk.len() as u64;
                    // A server that lets wait has to bring enough; one that does not let wait cannot bring too little.
                    if pace.waited < self.patience || pace.is_enough() {
                        return Ok(chunk);
                    }
                }
                if !pace.is_enough() {
                    return Err(pace.too_slow(self.patience));
                }
                *pace = Pace::default();
            }
        })
    }

    /// The whole of an answer that is small.
    pub(in crate::update::source) fn text(
        &self,
        answer: &mut Response,
        limit: usize,
        stop: &CancellationToken,
    ) -> Result<Vec<u8>, Failure> {
        let (mut text, mut pace) = (Vec::new(), Pace::default());
        loop {
            let chunk = self.chunk(answer, &mut pace, stop)?;
            if chunk.is_empty() {
                return Ok(text);
            }
            if text.len() + chunk.len() > limit {
                return Err(Failure::Lasting(format!("the answer has more than {limit} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
    }

    /// Waits before another try, the longer the more tries there were.
    pub(in crate::update::source) fn pause(
        &self,
        tries: u32,
        after: Option<Duration>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let pause = after.unwrap_or_else(|| jittered(tries)).min(LONGEST_PAUSE);
        self.block_on(stop, async {
            sleep(pause).await;
            Ok(())
        })
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A name server that does not answer must not keep whoever has lost interest.
            runtime.shutdown_background();
        }
    }
}

/// How much a server has brought in how much time that was spent waiting for it.
#[derive(Debug, Default)]
pub(in crate::update::source) struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn is_enough(&self) -> bool {
        self.bytes >= LEAST
    }

    fn too_slow(&self, patience: Duration) -> Failure {
        let seconds = patience.as_secs();
        Failure::passing(match self.bytes {
            0 => format!("the server has sent nothing for {seconds} s"),
            bytes => format!("the server has sent no more than {bytes} bytes in {seconds} s"),
        })
    }
}

/// Half of the pause is certain, the other half is dice: a fleet that lost its server together must not return together.
fn jittered(tries: u32) -> Duration {
    let whole =
        FIRST_PAUSE.saturating_mul(1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
    let mut dice = [0; 2];
    // Without random numbers there is no jitter, which is no reason to give up.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut dice);
    whole / 2 + whole.mul_f64(f64::from(u16::from_le_bytes(dice)) / f64::from(u16::MAX) / 2.0)
}

/// What a status says that is not what was hoped for.
pub(in crate::update::source) fn refused(answer: &Response) -> Failure {
    let status = answer.status();
    let reason = format!("the server answers {status}");
    match status.as_u16() {
        408 | 425 | 429 | 500 | 502..=504 => {
            let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Failure::Passing { reason, after: seconds.map(Duration::from_secs) }
        }
        _ => Failure::Lasting(reason),
    }
}

/// Why a request failed: the innermost reason, which is the one that helps.
fn failure(error: reqwest::Error) -> Failure {
    // The address may be a secret.
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason = inner.to_string();
        if let Some(tls) = tls_error(inner) {
            return Failure::Lasting(format!("TLS: {tls}"));
        }
        source = inner.source();
    }
    let reason = reason.trim_end_matches('.').to_owned();
    if error.is_redirect() || error.is_builder() { Failure::Lasting(reason) } else { Failure::passing(reason) }
}

/// The error of TLS in another one. What an [`io::Error`] wraps is not among its sources.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let within = |error: &'e io::Error| error.get_ref().and_then(|inner| tls_error(inner));
    error.downcast_ref().or_else(|| error.downcast_ref::<io::Error>().and_then(within))
}

/// An address as it may be shown: what may be a secret (user, password, query) is left out.
pub(in crate::update::source) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // An error means that this kind of address has no such part.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    let query = url.query().is_some();
    url.set_query(None);
    if query { format!("{url}?...") } else { url.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_an_address_is_shown() {
        let url = Url::parse("https://user:word@host:8443/a/b.mender?X-Signature=abc#x").unwrap();
        assert_eq!(shown(&url), "https://host:8443/a/b.mender?...");
        assert_eq!(shown(&Url::parse("http://host/a").unwrap()), "http://host/a");
    }

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for tries in 1..=40 {
            let whole = FIRST_PAUSE.saturating_mul(1 << (tries - 1).min(10)).min(LONGEST_PAUSE);
            let pause = jittered(tries);
            assert!(pause >= whole / 2 && pause <= whole, "{tries}: {pause:?}");
        }
        let pauses: std::collections::BTreeSet<Duration> = (0..20).map(|_| jittered(5)).collect();
        assert!(pauses.len() > 1);
    }
}
