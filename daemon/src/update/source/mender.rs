//! Artifacts of a Release on a Mender server, through its device API.
//!
//! `GET /api/devices/v1/deployments/artifacts?release_name=..&device_type=..` lists them, `.../artifacts/<id>/download` gives a
//! link for a limited time. Both need the device's token; the link must not get it.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, HeaderName};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::http::{Connector, Download, Failure, Http, Origin, refused, shown};
use super::location::Location;
use super::token::{Token, TokenSource};
use super::{Offer, Source, Wanted, quoted};
use crate::core::error::{Error, Kind};
use crate::update::selection::{ARTIFACT_GROUP, ARTIFACT_NAME, Candidate, DEVICE_TYPE};

/// The answer of the server may have this many bytes; it holds at most a hundred Artifacts.
const ANSWER_LIMIT: usize = 8 * 1024 * 1024;
/// The server lists no more than this.
const PAGE: usize = 100;

/// A Mender server.
#[derive(Debug)]
pub(super) struct Mender {
    connector: Arc<Connector>,
    tokens: Arc<dyn TokenSource>,
    /// Tokens come from services that are served by this runtime.
    runtime: Handle,
    /// Address that goes before the one that comes with the token.
    server: Option<String>,
}

impl Mender {
    pub(super) fn new(
        connector: Arc<Connector>,
        tokens: Arc<dyn TokenSource>,
        runtime: Handle,
        server: Option<String>,
    ) -> Self {
        Self { connector, tokens, runtime, server }
    }

    /// Opens an Artifact of a Release. `size` is what the server has told of it.
    pub(super) fn open(
        self: &Arc<Self>,
        release: &str,
        id: &str,
        size: u64,
        retries: u32,
        stop: &CancellationToken,
    ) -> Result<Download, Error> {
        let what = Location::Release { release: release.to_owned(), id: id.to_owned() }.to_string();
        let link = Link { mender: self.clone(), id: id.to_owned(), what, retries };
        Download::open(self.connector.client()?, Box::new(link), Some(size), retries, stop)
    }

    fn token(&self, refused: Option<Token>, stop: &CancellationToken) -> Result<Token, Error> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(Failure::Cancelled.about("a token for the Mender server")),
                token = self.tokens.token(refused) => token,
            }
        })
    }

    /// Asks the API, with a token that it accepts. `None`: there is no such thing.
    fn ask<T: DeserializeOwned>(
        &self,
        http: &Http,
        path: &[&str],
        query: &[(&str, &str)],
        retries: u32,
        stop: &CancellationToken,
    ) -> Result<Option<T>, Error> {
        let mut token = self.token(None, stop)?;
        let (mut renewed, mut failures) = (false, 0);
        loop {
            // The address belongs to the token: another token may come with another one.
            let url = self.url(&token, path, query)?;
            let failure = match request(http, &url, &token, stop) {
                Ok((StatusCode::OK, text)) => {
                    let answer = serde_json::from_slice(&text).map_err(|error| {
                        Failure::Lasting(format!("the answer makes no sense: {error}")).about(&shown(&url))
                    });
                    return answer.map(Some);
                }
                Ok((StatusCode::NOT_FOUND, _)) => return Ok(None),
                // Any other one is an error of the request.
                Ok(_) if renewed => {
                    let text = "the server answers 401 Unauthorized, also to a new token".to_owned();
                    return Err(Failure::Lasting(text).about(&shown(&url)));
                }
                Ok(_) => {
                    renewed = true;
                    token = self.token(Some(token), stop)?;
                    continue;
                }
                Err(failure) => failure,
            };
            failures += 1;
            match failure {
                Failure::Passing { reason, after } if failures <= retries => {
                    tracing::warn!("\"{}\": {reason}; trying again.", shown(&url));
                    http.pause(failures, after, stop).map_err(|failure| failure.about(&shown(&url)))?;
                }
                failure => return Err(failure.about(&shown(&url))),
            }
        }
    }

    fn url(&self, token: &Token, path: &[&str], query: &[(&str, &str)]) -> Result<Url, Error> {
        let base = self.server.as_deref().unwrap_or(&token.server);
        let malformed = |reason: &str| {
            let text = format!("The address {} of the Mender server cannot be used: {reason}.", quoted(base));
            Error::new(Kind::DownloadFailed, text)
        };
        let mut url = Url::parse(base).map_err(|error| malformed(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(malformed("it must begin with http:// or https://"));
        }
        url.path_segments_mut()
            .map_err(|()| malformed("it has no path"))?
            .pop_if_empty()
            .extend(["api", "devices", "v1", "deployments", "artifacts"])
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }
}

/// The status, which is 200, 401 or 404, and with 200 the answer.
fn request(http: &Http, url: &Url, token: &Token, stop: &CancellationToken) -> Result<(StatusCode, Vec<u8>), Failure> {
    let headers: [(HeaderName, String); 1] = [(AUTHORIZATION, token.authorization())];
    let mut answer: Response = http.get(url, &headers, stop)?;
    match answer.status() {
        StatusCode::OK => Ok((StatusCode::OK, http.text(&mut answer, ANSWER_LIMIT, stop)?)),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) => Ok((status, Vec::new())),
        _ => Err(refused(&answer)),
    }
}

impl Source for Mender {
    fn find(&self, wanted: &Wanted<'_>) -> Result<Vec<Offer>, Error> {
        let http = self.connector.client()?;
        let query = [("release_name", wanted.name), ("device_type", wanted.component_type)];
        let items: Vec<Item> = self.ask(&http, &[], &query, wanted.retries, wanted.stop)?.unwrap_or_default();
        if items.len() >= PAGE {
            tracing::warn!(
                "The Mender server lists {} Artifacts of \"{}\" for \"{}\" and has perhaps more, which are not looked at.",
                items.len(),
                wanted.name,
                wanted.component_type
            );
        }
        let offers = items.into_iter().filter_map(|item| item.offer(wanted.name));
        Ok(offers.collect())
    }

    fn name(&self) -> String {
        "the Mender server".to_owned()
    }
}

/// One Artifact, as the server describes it.
#[derive(Debug, Deserialize)]
struct Item {
    id: String,
    name: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    device_types_compatible: Vec<String>,
    /// Artifacts from before there were Provides have none.
    artifact_provides: Option<BTreeMap<String, String>>,
    artifact_depends: Option<BTreeMap<String, Values>>,
    clears_artifact_provides: Option<Vec<String>>,
    #[serde(default)]
    updates: Vec<Update>,
}

/// One value stands for a list of one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Update {
    type_info: TypeInfo,
}

#[derive(Debug, Deserialize)]
struct TypeInfo {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Item {
    /// What it offers; nothing if the server does not know what it provides, because then nobody can tell whether it is
    /// installed.
    fn offer(self, release: &str) -> Option<Offer> {
        let Some(mut provides) = self.artifact_provides else {
            tracing::info!("The Artifact {} of \"{release}\" has no Provides on the server and is left out.", self.id);
            return None;
        };
        let location = Location::Release { release: release.to_owned(), id: self.id };
        let depends = self.artifact_depends.unwrap_or_default().into_iter().filter(|(key, _)| key != DEVICE_TYPE);
        let list = |values| match values {
            Values::One(value) => vec![value],
            Values::Many(values) => values,
        };
        let candidate = Candidate {
            size: self.size,
            source: location.to_string(),
            device_types: self.device_types_compatible,
            artifact_name: provides.remove(ARTIFACT_NAME).unwrap_or(self.name),
            artifact_group: provides.remove(ARTIFACT_GROUP),
            provides,
            depends: depends.map(|(key, values)| (key, list(values))).collect(),
            clears_provides: self.clears_artifact_provides,
            payload_type: self.updates.into_iter().next().and_then(|update| update.type_info.kind).unwrap_or_default(),
        };
        Some(Offer { location, candidate, digest: None })
    }
}

/// A link that the server gives for a while.
#[derive(Debug)]
struct Link {
    mender: Arc<Mender>,
    id: String,
    what: String,
    retries: u32,
}

#[derive(Deserialize)]
struct Answer {
    uri: String,
}

impl Origin for Link {
    fn address(&mut self, http: &Http, expired: bool, stop: &CancellationToken) -> Result<Option<Url>, Error> {
        if expired {
            tracing::info!("The link to \"{}\" is not valid any more; asking for a new one.", self.what);
        }
        let answer: Option<Answer> = self.mender.ask(http, &[&self.id, "download"], &[], self.retries, stop)?;
        let absent =
            || Error::new(Kind::NoSuitableArtifact, format!("The Mender server has no \"{}\" any more.", self.what));
        // The link is a secret, and so is whatever is wrong with it.
        let url = Url::parse(&answer.ok_or_else(absent)?.uri).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let unusable = |reason: &str| Failure::Lasting(format!("the server gives a link {reason}")).about(&self.what);
        let url = url.ok_or_else(|| unusable("that is no address of an HTTP server"))?;
        let configured = self.mender.server.as_deref().unwrap_or_default();
        if configured.starts_with("https:") && url.scheme() != "https" {
            return Err(unusable("to a connection that is not encrypted"));
        }
        Ok(Some(url))
    }

    fn shown(&self) -> String {
        self.what.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_becomes_a_candidate() {
        let text = r#"[{"id": "7", "name": "rtos-2", "size": 12, "signed": false, "info": {"format": "mender", "version": 3},
            "device_types_compatible": ["rtos"], "modified": "x",
            "artifact_provides": {"artifact_name": "rtos-2", "rootfs-image.rtos.version": "2"},
            "artifact_depends": {"device_type": ["rtos"], "a": ["1", "2"], "b": "3"},
            "clears_artifact_provides": ["rootfs-image.*"], "updates": [{"type_info": {"type": "rtos"}, "files": []}]},
            {"id": "8", "name": "old"}]"#;
        let items: Vec<Item> = serde_json::from_str(text).unwrap();
        let offers: Vec<Offer> = items.into_iter().filter_map(|item| item.offer("rtos-2")).collect();
        let [Offer { location, candidate, digest: None }] = &offers[..] else { panic!("{offers:?}") };
        assert_eq!(*location, Location::Release { release: "rtos-2".into(), id: "7".into() });
        assert_eq!(candidate.depends.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(candidate.provides.len(), 1);
        assert_eq!((candidate.artifact_name.as_str(), candidate.payload_type.as_str()), ("rtos-2", "rtos"));
        assert_eq!(candidate.size, 12);
    }
}
