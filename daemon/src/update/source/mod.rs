//! Where Artifacts come from: local files, a directory, an HTTP server, a Mender server; and the cache before the last two.
//!
//! What is in here blocks, on threads that may; [`Sources`] is the way to it from asynchronous code.

mod cache;
mod http;
mod local;
mod location;
mod mender;
mod token;
mod web;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::cache::{Cache, Found};
use self::http::Connector;
pub use self::location::Location;
use self::mender::Mender;
pub use self::token::{Token, TokenFile, TokenSource};
use self::web::Web;
use super::artifact::{self, Header, VerifyKeys};
use super::interface::ArtifactInput;
use super::plan::{Plan, PlannedMember, artifact_digest};
use super::selection::Candidate;
use crate::core::error::{Error, Kind};
use crate::core::settings::Settings;

/// While an install is prepared its caller waits for the answer, so a server gets this many more chances at most.
const PREPARING_RETRIES: u32 = 2;
/// How many servers are asked at once while an install is prepared.
const ASKED_AT_ONCE: usize = 8;

/// An Artifact that a source has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where it is.
    pub location: Location,
    /// What is to be known of it to select it.
    pub candidate: Candidate,
    /// [`artifact_digest`] of it; `None` as long as only a server has told about it.
    pub digest: Option<String>,
}

impl Offer {
    fn of_header(location: Location, header: &Header, size: u64) -> Self {
        let candidate = Candidate::of(&location.to_string(), header, size);
        Self { location, candidate, digest: Some(artifact_digest(header)) }
    }
}

/// What is looked for.
struct Wanted<'w> {
    /// Name of the Artifact, that is of the Release.
    name: &'w str,
    component_type: &'w str,
    keys: &'w VerifyKeys,
    retries: u32,
    /// Cancelled when nobody wants it any more.
    stop: &'w CancellationToken,
}

/// A place where Artifacts can be had by name.
trait Source: fmt::Debug + Send + Sync {
    /// The Artifacts of this name; empty if it has none. Blocks.
    fn find(&self, wanted: &Wanted<'_>) -> Result<Vec<Offer>, Error>;

    /// What to call it in messages, as part of a sentence.
    fn name(&self) -> String;
}

/// All sources that are configured. Nothing is opened or asked before an Artifact is wanted.
#[derive(Debug, Clone)]
pub struct Sources(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// In the order in which they are asked for a name.
    by_name: Vec<Arc<dyn Source>>,
    connector: Arc<Connector>,
    mender: Arc<Mender>,
    cache: Option<Arc<Cache>>,
    retries: u32,
    asked: Semaphore,
}

impl Sources {
    /// The sources of these settings. `tokens` are for the Mender server, unless the settings name a file with one. Has to be
    /// called on the runtime that serves `tokens`.
    pub fn new(settings: &Settings, tokens: Arc<dyn TokenSource>) -> Result<Self, Error> {
        let sources = &settings.artifact_sources;
        let connector = Arc::new(Connector::new(settings));
        let tokens = match &sources.token_file {
            Some(path) => Arc::new(TokenFile { path: path.clone() }),
            None => tokens,
        };
        let mender = Mender::new(connector.clone(), tokens, Handle::current(), sources.server_url.clone());
        let mender = Arc::new(mender);
        let mut by_name: Vec<Arc<dyn Source>> = Vec::new();
        if let Some(directory) = &sources.directory {
            by_name.push(Arc::new(local::Directory(directory.clone())));
        }
        if let Some(base) = &sources.url {
            by_name.push(Arc::new(Web::new(connector.clone(), base)?));
        }
        by_name.push(mender.clone());
        let cache = settings.artifacts_cache.enabled.then(|| Cache::new(settings.artifacts_cache.clone()));
        let retries = settings.download_retries;
        Ok(Self(Arc::new(Shared { by_name, connector, mender, cache, retries, asked: Semaphore::new(ASKED_AT_ONCE) })))
    }

    /// What the file at this path has to offer.
    pub async fn at(&self, path: &Path, keys: &Arc<VerifyKeys>) -> Result<Offer, Error> {
        let (path, keys) = (path.to_owned(), keys.clone());
        let place = path.display().to_string();
        blocking(&place, move || local::look_into(&path, &keys)).await
    }

    /// What there is under this name for a Component type: of the first source that has anything. A source that cannot be
    /// asked is an error, because it may have it.
    pub async fn named(&self, name: &str, component_type: &str, keys: &Arc<VerifyKeys>) -> Result<Vec<Offer>, Error> {
        let _place = self.0.asked.acquire().await;
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let (shared, keys) = (self.0.clone(), keys.clone());
        let (name, component_type) = (name.to_owned(), component_type.to_owned());
        blocking(&name.clone(), move || {
            let retries = shared.retries.min(PREPARING_RETRIES);
            let wanted = Wanted { name: &name, component_type: &component_type, keys: &keys, retries, stop: &stop };
            let mut remarks = String::new();
            for source in &shared.by_name {
                match source.find(&wanted) {
                    Ok(offers) if offers.is_empty() => {}
                    // Such as that there is no Mender client, which is quite usual beside another source.
                    Err(error) if error.kind == Kind::NoSuitableArtifact => remarks = format!("{remarks} {error}"),
                    found => return found,
                }
            }
            let asked: Vec<String> = shared.by_name.iter().map(|source| source.name()).collect();
            let asked = asked.join(" or ");
            let text = format!(
                "There is no Artifact \"{name}\" for the Component type \"{component_type}\" in {asked}.{remarks}"
            );
            Err(Error::new(Kind::NoSuitableArtifact, text))
        })
        .await
    }

    /// Reads the header of an Artifact that only a server has told about, and compares the two. Returns its
    /// [`artifact_digest`].
    pub async fn confirm(&self, offer: &Offer, keys: &Arc<VerifyKeys>) -> Result<String, Error> {
        let _place = self.0.asked.acquire().await;
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let (shared, offer, keys) = (self.0.clone(), offer.clone(), keys.clone());
        let place = offer.location.to_string();
        blocking(&place.clone(), move || {
            let retries = shared.retries.min(PREPARING_RETRIES);
            let size = offer.candidate.size;
            let header = header_of(shared.open(&offer.location, size, retries, &stop)?, &keys, &place)?;
            let told = Offer::of_header(offer.location.clone(), &header, size).candidate;
            match difference(&offer.candidate, &told) {
                None => Ok(artifact_digest(&header)),
                Some(what) => {
                    let text = format!("The Artifact \"{place}\" has other {what} than the server says.");
                    Err(Error::new(Kind::InvalidArtifact, text))
                }
            }
        })
        .await
    }

    /// Opens the Artifact of a member, from the cache if it is there.
    pub async fn open(
        &self,
        member: &PlannedMember,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn ArtifactInput>, Error> {
        let (location, size) = (member.artifact.clone(), member.size);
        let place = location.to_string();
        let (Some(cache), Some(key)) = (&self.0.cache, cache::key(&location, &member.artifact_digest, size)) else {
            return self.open_uncached(location, size, cancel).await;
        };
        loop {
            let (cache, key) = (cache.clone(), key.clone());
            let looking = cache.clone();
            match blocking(&place, move || Ok(looking.look_for(&key, size))).await? {
                Found::Whole(artifact) => {
                    tracing::info!("\"{place}\" comes from the cache.");
                    return Ok(Box::new(artifact));
                }
                Found::Awaited(mut end) => {
                    tracing::debug!("waiting for \"{place}\", which is being written to the cache");
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => {
                            let text = format!("Waiting for \"{place}\" was cancelled.");
                            return Err(Error::new(Kind::Cancelled, text));
                        }
                        // It never changes; it closes.
                        _ = end.changed() => {}
                    }
                }
                Found::Nothing(ticket) => {
                    let input = self.open_uncached(location, size, cancel).await?;
                    return blocking(&place, move || cache.write(ticket, input, size)).await;
                }
            }
        }
    }

    async fn open_uncached(
        &self,
        location: Location,
        size: u64,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn ArtifactInput>, Error> {
        let (shared, cancel) = (self.0.clone(), cancel.clone());
        blocking(&location.to_string(), move || shared.open(&location, size, shared.retries, &cancel)).await
    }

    /// Makes sure, before a deployment begins, that the cache can be used.
    pub async fn begin(&self) -> Result<(), Error> {
        let Some(cache) = self.0.cache.clone() else { return Ok(()) };
        blocking("the cache", move || cache.begin()).await
    }

    /// Removes what an earlier daemon left half downloaded.
    pub fn sweep(&self) {
        if let Some(Err(error)) = self.0.cache.as_ref().map(|cache| cache.remove_partial()) {
            // At the begin of a deployment this is an error.
            tracing::debug!("the cache cannot be read: {error}");
        }
    }

    /// A deployment is over: what it did not use leaves the cache.
    pub fn end(&self, plan: &Plan) {
        let Some(cache) = &self.0.cache else { return };
        let keys = plan.members.iter().filter_map(key_of);
        cache.keep(&keys.collect::<Vec<_>>());
    }

    /// The Artifact of a member is not sound, so nobody gets it from the cache again.
    pub fn forget(&self, member: &PlannedMember) {
        if let (Some(cache), Some(key)) = (&self.0.cache, key_of(member)) {
            cache.forget(&key);
        }
    }
}

fn key_of(member: &PlannedMember) -> Option<String> {
    cache::key(&member.artifact, &member.artifact_digest, member.size)
}

impl Shared {
    fn open(
        &self,
        location: &Location,
        size: u64,
        retries: u32,
        stop: &CancellationToken,
    ) -> Result<Box<dyn ArtifactInput>, Error> {
        Ok(match location {
            Location::File(path) => Box::new(local::open(path)?),
            Location::Url { url } => Box::new(web::open(&self.connector, url, Some(size), retries, stop)?),
            Location::Release { release, id } => Box::new(self.mender.open(release, id, size, retries, stop)?),
        })
    }
}

/// Reads the header of an Artifact.
fn header_of(input: Box<dyn ArtifactInput>, keys: &VerifyKeys, place: &str) -> Result<Header, Error> {
    Ok(artifact::open(input, keys).map_err(|error| error.in_file(place))?.into_header())
}

/// In what a header differs from what a server has told. The server does not tell an empty list of what is cleared from none.
fn difference(told: &Candidate, found: &Candidate) -> Option<&'static str> {
    let sorted = |values: &[String]| {
        let mut values = values.to_vec();
        values.sort();
        values
    };
    let depends = |candidate: &Candidate| {
        candidate.depends.iter().map(|(key, values)| (key.clone(), sorted(values))).collect::<Vec<_>>()
    };
    let clears = |candidate: &Candidate| sorted(candidate.clears_provides.as_deref().unwrap_or_default());
    let differences = [
        (told.artifact_name != found.artifact_name, "name"),
        (told.provides != found.provides || told.artifact_group != found.artifact_group, "Provides"),
        (depends(told) != depends(found), "Depends"),
        (clears(told) != clears(found), "clears_artifact_provides"),
        (sorted(&told.device_types) != sorted(&found.device_types), "device types"),
        (told.payload_type != found.payload_type, "payload type"),
    ];
    differences.into_iter().find_map(|(differs, what)| differs.then_some(what))
}

/// Text from outside for a message.
fn quoted(text: &str) -> String {
    format!("\"{}\"", crate::core::document::excerpt(text))
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let lost = |error| Error::new(Kind::Failed, format!("Reading \"{what}\": {error}."));
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}
