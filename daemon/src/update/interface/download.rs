//! The state `Download`: the Artifact is verified, its header laid out, and its content handed over.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io::Read;
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Interface;
use super::error::{CallError, InterfaceError};
use super::feeder::{Delivery, Event, Fed, FeedError, Feeder, Order};
use super::fifo::Gate;
use super::pass::{Leave, Progress, Seat};
use super::state::{DOWNLOAD_WITH_FILE_SIZES, State};
use super::tree::{Tree, TreeContext};
use crate::core::error::Error;
use crate::update::artifact::Header;
use crate::update::runner::{Call, Ended, Exit, RunnerError, Stdout};

/// Where the bytes of an Artifact come from.
///
/// A read has to return in bounded time: a download waits for it before it ends, even when it was cancelled.
pub trait ArtifactInput: Read + Send {
    /// Size of the whole Artifact in bytes, if it is known.
    fn size(&self) -> Option<u64>;

    /// Cancelled when nobody wants the bytes any more: whatever waits then, ends. Input that never waits long needs it not.
    fn stop_with(&mut self, _stop: &CancellationToken) {}
}

/// Says whether the Artifact is the one that is wanted.
pub type HeaderCheck = Box<dyn FnOnce(&Header) -> Result<(), Error> + Send>;

/// What `Download` needs besides the Interface.
pub struct DownloadRequest {
    /// The Artifact: a place in its reading, alone or with other Components.
    pub artifact: Seat,
    /// Looks at the verified header before anything else happens. What came may not be what was selected: a server can
    /// have changed its mind since.
    pub check: HeaderCheck,
    /// What the Component is and has now.
    pub context: TreeContext,
    /// Told how many bytes of the Artifact have been read so far, often, from another thread.
    pub progress: Arc<Progress>,
}

impl fmt::Debug for DownloadRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DownloadRequest").field("context", &self.context).finish_non_exhaustive()
    }
}

/// Tag of the query `NeedsUnpackedArtifact` that belongs to a download.
pub(super) fn unpacked_tag(tag: &str) -> String {
    format!("{tag}.unpacked")
}

/// Tag of the query `ProvidePayloadFileSizes` that belongs to a download.
pub(super) fn sizes_tag(tag: &str) -> String {
    format!("{tag}.sizes")
}

impl Interface {
    /// The whole of `Download`: verifies the Artifact's signature and header, makes the File API tree, asks how the
    /// Interface wants the Artifact, and hands it over. No program is called before header and signature are verified;
    /// success means that every byte has been verified.
    ///
    /// The tag takes up to 9 bytes more for the queries. The tree stays also after a failure, for `Cleanup`.
    pub async fn download(
        &self,
        request: DownloadRequest,
        tag: &str,
        cancel: &CancellationToken,
    ) -> Result<(), InterfaceError> {
        let mut feed = Feed::start(self, request).map_err(|error| self.failed_download(error))?;
        let place = feed.place.clone();
        let leave = async {
            cancel.cancelled().await;
            // The thread may be waiting for a source that has nothing to say.
            place.leave();
            pending::<Infallible>().await
        };
        let result = tokio::select! {
            result = self.hand_over(&mut feed, tag, cancel) => result,
            never = leave => match never {},
        };
        feed.end().await;
        match result {
            Err(_) if cancel.is_cancelled() => Err(self.cancelled(State::Download.as_str())),
            result => result,
        }
    }

    async fn hand_over(&self, feed: &mut Feed, tag: &str, cancel: &CancellationToken) -> Result<(), InterfaceError> {
        let failed = |error| self.failed_download(error);
        let tree = feed.prepared().await.map_err(|error| failed(self.cause(error)))?;
        let unpacked = self.needs_unpacked(&unpacked_tag(tag), cancel).await?;
        let sizes = self.provide_file_sizes(&sizes_tag(tag), cancel).await?;

        let stream_next = tree.open_streams().map_err(|error| failed(error.into()))?;
        let word = if sizes { DOWNLOAD_WITH_FILE_SIZES } else { State::Download.as_str() };
        let call = self.call(word, tag, Stdout::Log);
        feed.order(Order::Feed(Delivery { unpacked, sizes }, stream_next));
        let (ended, outcome) = self.run_fed(&call, feed, cancel).await;
        if let Err(error) = tree.close_streams() {
            tracing::warn!(component = %self.label(), "Streams of a download stay behind: {error}");
        }
        match self.verdict(&call, ended, outcome)? {
            Verdict::Done => Ok(()),
            Verdict::Store => {
                feed.order(Order::Store);
                feed.stored().await.map_err(|error| failed(self.cause(error)))
            }
        }
    }

    /// Runs the program while the thread feeds it.
    async fn run_fed(
        &self,
        call: &Call,
        feed: &mut Feed,
        cancel: &CancellationToken,
    ) -> (Result<Ended, RunnerError>, Result<Fed, FeedFailure>) {
        let end = cancel.child_token();
        let printer = self.printer(&call.word);
        let run = self.runner.run(call, &printer, &end);
        tokio::pin!(run);
        let mut outcome = None;
        let ended = tokio::select! {
            ended = &mut run => ended,
            event = feed.fed() => {
                // Nothing but a call that may end by itself is waited for: it has all, or it left early. Who left early
                // may be about to say why with its exit code; else what is left of the feeding would wait for ever.
                let left_early = matches!(event, Err(FeedFailure::Feed(FeedError::StoppedReading(_))));
                let patience = async {
                    match &event {
                        Ok(_) => pending().await,
                        Err(_) if left_early => sleep(self.patience).await,
                        Err(_) => {}
                    }
                };
                tokio::select! {
                    biased;
                    ended = &mut run => { outcome = Some(event); ended }
                    () = patience => { end.cancel(); outcome = Some(event); run.await }
                }
            }
        };
        feed.gate.release();
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => feed.fed().await,
        };
        (ended, outcome)
    }

    fn verdict(
        &self,
        call: &Call,
        ended: Result<Ended, RunnerError>,
        outcome: Result<Fed, FeedFailure>,
    ) -> Result<Verdict, InterfaceError> {
        let failed = |cause| Err(self.failed(&call.word, cause));
        let program = || call.program.clone();
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return failed(error.into()),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(FeedFailure::Feed(FeedError::StoppedReading(stream))) => {
                // With an exit code of its own the program has failed first. If we ended it, it is for leaving.
                return match ended.exit {
                    Exit::Code(0) | Exit::Cancelled => failed(CallError::StoppedReading { program: program(), stream }),
                    _ => self.succeeded(call, &ended).map(|()| Verdict::Done),
                };
            }
            Err(failure) => return failed(self.cause(failure)),
        };
        self.succeeded(call, &ended)?;
        match outcome {
            Fed::Everything(unread) => match unread.into_iter().find(|(_, rest)| rest.anything()) {
                None => Ok(Verdict::Done),
                Some((stream, _)) => failed(CallError::StoppedReading { program: program(), stream }),
            },
            Fed::Nothing => Ok(Verdict::Store),
            Fed::Part(Some(stream)) => failed(CallError::StoppedReading { program: program(), stream }),
            Fed::Part(None) => failed(CallError::Unfinished { program: program() }),
        }
    }

    fn failed_download(&self, cause: CallError) -> InterfaceError {
        self.failed(State::Download.as_str(), cause)
    }

    fn cause(&self, failure: FeedFailure) -> CallError {
        let program = self.program.clone();
        match failure {
            FeedFailure::Feed(FeedError::Artifact(error)) => error.into(),
            FeedFailure::Feed(FeedError::Tree(error)) => error.into(),
            FeedFailure::Feed(FeedError::Unwanted(error)) => CallError::Unwanted(error),
            FeedFailure::Feed(FeedError::StoppedReading(stream)) => CallError::StoppedReading { program, stream },
            FeedFailure::Feed(FeedError::SizeUnknown) => CallError::SizeUnknown { program },
            FeedFailure::Gone => CallError::NoArtifact,
        }
    }
}

/// What comes after the program has ended well.
enum Verdict {
    Done,
    Store,
}

/// Why the thread does not do what it should.
#[derive(Debug)]
enum FeedFailure {
    Feed(FeedError),
    /// It is gone, or told something else than what it was asked for: a defect.
    Gone,
}

/// The thread that feeds, as seen from outside. Dropped early, it makes the thread end too.
struct Feed {
    gate: Arc<Gate>,
    place: Leave,
    orders: Option<mpsc::Sender<Order>>,
    events: UnboundedReceiver<Event>,
}

impl Feed {
    fn start(interface: &Interface, request: DownloadRequest) -> Result<Self, CallError> {
        let gate = Arc::new(Gate::new().map_err(CallError::System)?);
        let (orders, receiver) = mpsc::channel();
        let (sender, events) = unbounded_channel();
        let feeder = Feeder::new(&interface.root, request, Arc::clone(&gate), sender);
        let place = feeder.leave();
        thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || feeder.work(&receiver))
            .map_err(CallError::System)?;
        Ok(Self { gate, place, orders: Some(orders), events })
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // If the thread is gone, waiting for its next event tells.
            let _ = orders.send(order);
        }
    }

    async fn prepared(&mut self) -> Result<Tree, FeedFailure> {
        match self.events.recv().await {
            Some(Event::Prepared(tree)) => Ok(tree),
            other => Err(failure(other)),
        }
    }

    async fn fed(&mut self) -> Result<Fed, FeedFailure> {
        match self.events.recv().await {
            Some(Event::Fed(outcome)) => Ok(outcome),
            other => Err(failure(other)),
        }
    }

    async fn stored(&mut self) -> Result<(), FeedFailure> {
        match self.events.recv().await {
            Some(Event::Stored) => Ok(()),
            other => Err(failure(other)),
        }
    }

    /// Has the thread end and waits for it, so that nothing touches the tree any more.
    async fn end(mut self) {
        self.abandon();
        while self.events.recv().await.is_some() {}
    }

    fn abandon(&mut self) {
        self.place.leave();
        self.gate.release();
        self.orders = None;
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn failure(event: Option<Event>) -> FeedFailure {
    match event {
        Some(Event::Failed(error)) => FeedFailure::Feed(error),
        _ => FeedFailure::Gone,
    }
}

#[cfg(test)]
mod tests;
