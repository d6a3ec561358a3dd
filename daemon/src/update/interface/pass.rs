//! One reading of an Artifact for all Components that take it.
//!
//! The Artifact is read once, decompressed once and hashed once. What comes out goes into a queue of bounded size that every
//! Component reads at its own pace: the slowest one sets the pace of all, within the bound of the queue. Who takes nothing
//! for [`PATIENCE`] while others wait for it is cut off, and goes on with a reading of its own when it wants more.
//!
//! Threads: one reads and decompresses ([`Artifact::read_ahead`]), one hashes and fills the queue (here), and one for each
//! Component takes from the queue and hands over (`super::feeder`).

mod queue;
mod seat;
mod tee;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ring::digest;
use tokio_util::sync::CancellationToken;

use self::queue::Queue;
pub use self::seat::Seat;
pub(super) use self::seat::{Ended, Leave};
use self::tee::Tee;
use super::download::ArtifactInput;
use crate::core::error::Error;
use crate::update::artifact::{self, Artifact, ArtifactError, Piece, VerifyKeys};

/// How long a Component may take nothing while others wait for it.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// An Artifact that is smaller is not worth a thread that decompresses ahead.
const AHEAD_FROM: u64 = 1024 * 1024;

/// Opens the Artifact, from its beginning. It may block until the token is cancelled, because nobody wants the Artifact any
/// more, and may be called more than once: for a Component that was cut off.
pub type OpenArtifact = dyn Fn(&CancellationToken) -> Result<Box<dyn ArtifactInput>, Error> + Send + Sync;

/// Told how many bytes of the Artifact have been read so far, often, from another thread.
pub type Progress = dyn Fn(u64) + Send + Sync;

/// What a Component wants of an Artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Its bytes as they are.
    Packed,
    /// The files of its payload.
    Files,
}

/// Something that goes to the Components.
#[derive(Clone)]
pub(super) enum Item {
    /// Bytes of the Artifact.
    Packed(Piece, Reached),
    /// A payload file begins; it has this name and size.
    File(Arc<str>, u64),
    /// Bytes of the payload file. The last ones of a file are verified.
    Data(Piece, Reached),
}

/// SHA-256 of all bytes up to and with these; `None` where it is known to be right, or nobody could ask for it.
type Reached = Option<digest::Context>;

impl Item {
    fn form(&self) -> Form {
        match self {
            Self::Packed(..) => Form::Packed,
            Self::File(..) | Self::Data(..) => Form::Files,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Packed(piece, _) | Self::Data(piece, _) => piece.len(),
            Self::File(..) => 0,
        }
    }
}

/// Why there is nothing to hand over.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// It cannot be opened.
    Open(Error),
    /// It is refused or cannot be read.
    Artifact(Arc<ArtifactError>),
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        Self::Artifact(Arc::new(error))
    }
}

/// How an Artifact is read.
#[derive(Clone)]
struct Way {
    open: Arc<OpenArtifact>,
    keys: VerifyKeys,
    patience: Duration,
}

/// A reading that takes place now, or will.
struct Pass {
    way: Way,
    queue: Queue,
    begun: AtomicBool,
    /// Cancelled when nobody is left.
    stop: CancellationToken,
}

/// Prepares one reading of an Artifact for so many Components; each gets a seat. With keys, the Artifact has to be signed
/// with one of them.
pub fn seats(open: Arc<OpenArtifact>, keys: VerifyKeys, count: usize) -> Vec<Seat> {
    seats_of(Way { open, keys, patience: PATIENCE }, count)
}

fn seats_of(way: Way, count: usize) -> Vec<Seat> {
    let pass = Pass::new(way, count);
    (0..count).map(|index| Seat::new(Arc::clone(&pass), index)).collect()
}

impl Pass {
    fn new(way: Way, seats: usize) -> Arc<Self> {
        let queue = Queue::new(seats, way.patience);
        Arc::new(Self { way, queue, begun: AtomicBool::new(false), stop: CancellationToken::new() })
    }

    /// A Component wants nothing more. Without any, the reading ends, also where it waits for its input.
    fn leave(&self, index: usize) {
        self.queue.leave(index);
        if self.queue.is_abandoned() {
            self.stop.cancel();
        }
    }

    /// Has the reading begin, unless it has.
    fn begin(self: &Arc<Self>) {
        if self.begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let pass = Arc::clone(self);
        let spawned = thread::Builder::new().name("artifact".to_owned()).spawn(move || {
            let end = pass.read();
            pass.queue.end(end);
        });
        if let Err(error) = spawned {
            self.queue.end(Err(ArtifactError::Input(error).into()));
        }
    }

    fn read(self: &Arc<Self>) -> Result<(), Failure> {
        let mut input = (self.way.open)(&self.stop).map_err(Failure::Open)?;
        input.stop_with(&self.stop);
        let size = input.size();
        let mut artifact = artifact::open(Tee::new(input, Arc::clone(self)), &self.way.keys)?;
        self.queue.opened(artifact.header().clone(), size);
        if !self.queue.wait_for_forms() {
            return Ok(());
        }
        if size.is_none_or(|size| size >= AHEAD_FROM) {
            artifact.read_ahead();
        }
        Ok(self.hand_out(artifact)?)
    }

    fn hand_out(&self, mut artifact: Artifact<Tee>) -> Result<(), ArtifactError> {
        let gone = || ArtifactError::Input(std::io::Error::other("nobody takes it any more"));
        while let Some(mut file) = artifact.next_file()? {
            self.queue.push(Item::File(file.name().into(), file.size())).ok_or_else(gone)?;
            loop {
                let piece = file.next_piece()?;
                if piece.is_empty() {
                    break;
                }
                self.queue.push(Item::Data(piece, file.hash_so_far())).ok_or_else(gone)?;
            }
        }
        artifact.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
