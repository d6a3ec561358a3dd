//! The bytes of one Artifact, over as many connections as it takes.
//!
//! The first answer says how long the Artifact is and which version of it this is. When a connection breaks, the rest is
//! asked for, of the same version, from where it broke. What the server then says has to fit what it said first, to the byte.

use std::fmt;
use std::io::{self, Read};

use bytes::{Buf, Bytes};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode, Url};
use tokio_util::sync::CancellationToken;

use super::client::{Failure, Http, LEAST, Pace, refused, shown};
use crate::core::error::{Error, Kind};
use crate::update::interface::ArtifactInput;

/// Says at which address an Artifact is.
pub(in crate::update::source) trait Origin: fmt::Debug + Send {
    /// The address. `expired` says that the server takes the last one no more; `None` then means that there is no other.
    fn address(&mut self, http: &Http, expired: bool, stop: &CancellationToken) -> Result<Option<Url>, Error>;
    /// What to call the Artifact in messages.
    fn shown(&self) -> String;
}

/// An Artifact that is being downloaded.
#[derive(Debug)]
pub(in crate::update::source) struct Download {
    http: Http,
    origin: Box<dyn Origin>,
    url: Option<Url>,
    /// Size of the whole in bytes.
    size: u64,
    /// Tells versions apart: what the server said first, for `If-Range`.
    version: Version,
    answer: Option<Response>,
    pace: Pace,
    /// Bytes that have come from the server.
    received: u64,
    /// Bytes of this answer that have come before.
    skip: u64,
    /// What has come and was not taken yet.
    chunk: Bytes,
    retries: u32,
    /// Failures since the last progress.
    failures: u32,
    /// Where the last failure was.
    failed_at: u64,
    stop: CancellationToken,
}

impl Download {
    /// Asks for the Artifact and waits until the server has told its size. `expected` is the size that it has to have.
    pub(in crate::update::source) fn open(
        http: Http,
        origin: Box<dyn Origin>,
        expected: Option<u64>,
        retries: u32,
        stop: &CancellationToken,
    ) -> Result<Self, Error> {
        let mut download = Self {
            http,
            origin,
            url: None,
            size: expected.unwrap_or(0),
            version: Version::default(),
            answer: None,
            pace: Pace::default(),
            received: 0,
            skip: 0,
            chunk: Bytes::new(),
            retries,
            failures: 0,
            failed_at: 0,
            stop: stop.clone(),
        };
        download.reopen(|download, answer| download.take_first(answer, expected))?;
        Ok(download)
    }

    /// Size of the whole in bytes.
    pub(in crate::update::source) fn size(&self) -> u64 {
        self.size
    }

    /// Asks for what is missing until an answer comes that can be taken.
    fn reopen(&mut self, take: impl Fn(&mut Self, &Response) -> Result<u64, Failure>) -> Result<(), Error> {
        let mut expired = false;
        loop {
            match self.request(expired, &take)? {
                Ok(()) => return Ok(()),
                Err(Refusal::Expired) if !expired => expired = true,
                Err(Refusal::Expired) => {
                    return Err(self.error("the server answers 403 Forbidden, also to a new link"));
                }
                Err(Refusal::Absent) => {
                    let text = format!("There is no Artifact at \"{}\".", self.place());
                    return Err(Error::new(Kind::NoSuitableArtifact, text));
                }
                Err(Refusal::Failure(failure)) => {
                    expired = false;
                    self.failed(failure)?;
                }
            }
        }
    }

    /// One request. The outer error is one that nothing can be done about here.
    fn request(
        &mut self,
        expired: bool,
        take: &impl Fn(&mut Self, &Response) -> Result<u64, Failure>,
    ) -> Result<Result<(), Refusal>, Error> {
        if self.url.is_none() || expired {
            match self.origin.address(&self.http, expired, &self.stop)? {
                Some(url) => self.url = Some(url),
                None => {
                    return Ok(Err(Refusal::Failure(Failure::Lasting("the server answers 403 Forbidden".to_owned()))));
                }
            }
        }
        let Some(url) = &self.url else { return Ok(Err(Refusal::Absent)) };
        let answer = match self.http.get(url, &self.headers(), &self.stop) {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(failure.into())),
        };
        match answer.status() {
            StatusCode::FORBIDDEN => return Ok(Err(Refusal::Expired)),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Err(Refusal::Absent)),
            _ => {}
        }
        Ok(match take(self, &answer) {
            Ok(skip) => {
                self.skip = skip;
                self.pace = Pace::default();
                self.answer = Some(answer);
                Ok(())
            }
            Err(failure) => Err(failure.into()),
        })
    }

    fn headers(&self) -> Vec<(HeaderName, String)> {
        // The bytes themselves are wanted; a proxy that compresses them would change their number.
        let mut headers = vec![(ACCEPT_ENCODING, "identity".to_owned())];
        if self.received > 0 {
            headers.push((RANGE, format!("bytes={}-{}", self.received, self.size.saturating_sub(1))));
            if let Some(version) = self.version.for_if_range() {
                headers.push((IF_RANGE, version.to_owned()));
            }
        }
        headers
    }

    /// Looks at the first answer.
    fn take_first(&mut self, answer: &Response, expected: Option<u64>) -> Result<u64, Failure> {
        check_encoding(answer)?;
        if answer.status() != StatusCode::OK {
            return Err(refused(answer));
        }
        let Some(size) = length(answer.headers()) else {
            return Err(Failure::Lasting("the server does not tell its size".to_owned()));
        };
        if let Some(expected) = expected.filter(|expected| *expected != size) {
            let text = format!("the server offers {size} bytes, but its size was told to be {expected} bytes");
            return Err(Failure::Lasting(text));
        }
        self.size = size;
        self.version = Version::of(answer.headers());
        Ok(0)
    }

    /// Looks at an answer to a request for the rest; tells how many of its bytes have come before.
    fn take_rest(&mut self, answer: &Response) -> Result<u64, Failure> {
        check_encoding(answer)?;
        let changed = || Failure::Lasting("it has changed on the server while it was downloaded".to_owned());
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.headers().get(CONTENT_RANGE).and_then(|value| Range::parse(value.to_str().ok()?));
                let Some(range) = range else {
                    return Err(Failure::Lasting("the server does not say which part it sends".to_owned()));
                };
                if range.total.is_some_and(|total| total != self.size) || !self.version.agrees(answer.headers()) {
                    return Err(changed());
                }
                let wanted = (self.received, self.size.saturating_sub(1));
                let announced = length(answer.headers()).is_none_or(|length| length == self.size - self.received);
                if (range.first, range.last) != wanted || !announced {
                    let (first, last) = wanted;
                    return Err(Failure::Lasting(format!(
                        "the server sends bytes {} to {} where {first} to {last} were asked for",
                        range.first, range.last
                    )));
                }
                Ok(0)
            }
            // It knows no ranges, or the version is another one. Bytes that came before are passed over: should they not be
            // the same after all, the checksums of the Artifact tell.
            StatusCode::OK => {
                if length(answer.headers()) != Some(self.size) || !self.version.agrees(answer.headers()) {
                    return Err(changed());
                }
                Ok(self.received)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let total = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let total = total.and_then(|text| text.strip_prefix("bytes */")?.parse::<u64>().ok());
                if total.is_some_and(|total| total != self.size) {
                    return Err(changed());
                }
                Err(Failure::Lasting(format!("the server refuses the bytes from {} on", self.received)))
            }
            _ => Err(refused(answer)),
        }
    }

    /// Takes bytes from the server, through breaks and pauses; at least one, unless all have come.
    fn receive(&mut self) -> Result<(), Error> {
        while self.chunk.is_empty() && self.received < self.size {
            let Some(answer) = &mut self.answer else {
                self.reopen(Self::take_rest)?;
                continue;
            };
            let came = self.http.chunk(answer, &mut self.pace, &self.stop);
            let mut chunk = match came {
                Ok(chunk) if chunk.is_empty() => {
                    self.answer = None;
                    self.failed(Failure::passing("the connection ended too early"))?;
                    continue;
                }
                Ok(chunk) => chunk,
                Err(failure) => {
                    self.answer = None;
                    self.failed(failure)?;
                    continue;
                }
            };
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
            self.skip -= skipped as u64;
            chunk.advance(skipped);
            let count = chunk.len() as u64;
            if count > self.size - self.received {
                return Err(self.error("the server sends more bytes than it has announced"));
            }
            self.received += count;
            self.chunk = chunk;
        }
        Ok(())
    }

    /// Waits before another try, or gives up.
    fn failed(&mut self, failure: Failure) -> Result<(), Error> {
        if self.received - self.failed_at >= LEAST {
            self.failures = 0;
        }
        self.failed_at = self.received;
        let place = self.place();
        let Failure::Passing { reason, after } = failure else {
            return Err(failure.about(&place));
        };
        self.failures += 1;
        if self.failures > self.retries {
            let tries = match self.failures {
                1 => String::new(),
                tries => format!(" (tried {tries} times)"),
            };
            return Err(Failure::Lasting(format!("{reason}{tries}")).about(&place));
        }
        tracing::warn!("\"{place}\": {reason}; trying again from byte {}.", self.received);
        self.http.pause(self.failures, after, &self.stop).map_err(|failure| failure.about(&place))
    }

    fn error(&self, reason: &str) -> Error {
        Failure::Lasting(reason.to_owned()).about(&self.place())
    }

    fn place(&self) -> String {
        match &self.url {
            Some(url) => shown(url),
            None => self.origin.shown(),
        }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.stop.is_cancelled() {
            return Err(io::Error::other(Failure::Cancelled.about(&self.place())));
        }
        self.receive().map_err(io::Error::other)?;
        let count = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl ArtifactInput for Download {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn stop_with(&mut self, stop: &CancellationToken) {
        self.stop = stop.clone();
    }
}

/// Why there is no answer to read from.
enum Refusal {
    /// The address is not valid any more.
    Expired,
    /// There is nothing.
    Absent,
    Failure(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn check_encoding(answer: &Response) -> Result<(), Failure> {
    match answer.headers().get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(Failure::Lasting(format!("the server sends it encoded ({encoding:?}), which nobody asked for")))
        }
        _ => Ok(()),
    }
}

/// What tells versions of a file on a server apart.
#[derive(Debug, Default)]
struct Version {
    etag: Option<String>,
    modified: Option<String>,
}

impl Version {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        Self { etag: text(ETAG), modified: text(LAST_MODIFIED) }
    }

    /// A weak tag says that two versions mean the same, not that they are the same bytes; it is of no use here.
    fn for_if_range(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| etag.starts_with('"')).or(self.modified.as_deref())
    }

    /// Whether an answer may be of the same version: what both have must be equal.
    fn agrees(&self, headers: &HeaderMap) -> bool {
        let other = Self::of(headers);
        let same = |one: &Option<String>, other: &Option<String>| one.is_none() || other.is_none() || one == other;
        same(&self.etag, &other.etag) && (self.etag.is_some() || same(&self.modified, &other.modified))
    }
}

/// `Content-Range` of an answer with a part.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = if total == "*" { None } else { Some(total.parse().ok()?) };
        Some(Self { first: first.parse().ok()?, last: last.parse().ok()?, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        assert_eq!(Range::parse("bytes 5-9/10"), Some(Range { first: 5, last: 9, total: Some(10) }));
        assert_eq!(Range::parse("bytes 0-0/*"), Some(Range { first: 0, last: 0, total: None }));
        for bad in ["", "bytes */10", "bytes 5-9", "bytes 5-/10", "items 5-9/10", "bytes -9/10", "bytes 5-9/x"] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_weak_tag_is_no_condition_for_a_range() {
        let headers = |pairs: &[(HeaderName, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        let strong = Version::of(&headers(&[(ETAG, "\"a\""), (LAST_MODIFIED, "x")]));
        assert_eq!(strong.for_if_range(), Some("\"a\""));
        assert!(strong.agrees(&headers(&[(ETAG, "\"a\""), (LAST_MODIFIED, "y")])));
        assert!(!strong.agrees(&headers(&[(ETAG, "\"b\"")])) && strong.agrees(&headers(&[])));
        let weak = Version::of(&headers(&[(ETAG, "W/\"a\""), (LAST_MODIFIED, "x")]));
        assert_eq!(weak.for_if_range(), Some("x"));
        assert_eq!(Version::of(&headers(&[(ETAG, "W/\"a\"")])).for_if_range(), None);
        let dated = Version::of(&headers(&[(LAST_MODIFIED, "x")]));
        assert!(!dated.agrees(&headers(&[(LAST_MODIFIED, "y")])));
    }
}
