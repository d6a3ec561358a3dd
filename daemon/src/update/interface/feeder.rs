//! The thread that takes what was read of the Artifact and hands it over: into the streams while the Interface runs, or
//! into `files/` when it has ended without touching them.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;
use tokio::sync::mpsc::UnboundedSender;

use super::download::{DownloadRequest, HeaderCheck};
use super::fifo::{Fifo, FifoWriter, Gate, OpenError, Released, Unread};
use super::pass::{Ended, Failure, Form, Item, Leave, Progress, Seat};
use super::tree::{Tree, TreeContext, TreeError, begin_to_write_back, new_file, refused};
use crate::core::error::Error;
use crate::update::artifact::{ArtifactError, Piece};

/// Name of the one stream, or file, of an Artifact that is not taken apart.
const PACKED_NAME: &str = "artifact.mender";
/// How many streams may be waiting for a reader in the background; each holds a file descriptor.
const UNREAD_LIMIT: usize = 64;
/// After so many bytes of a stored file the system is told to begin to write them to the medium.
const WRITE_BACK: i64 = 8 * 1024 * 1024;

/// How the Interface wants the Artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    /// File by file.
    pub(super) unpacked: bool,
    /// With the size after each name.
    pub(super) sizes: bool,
}

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Feed the streams, named through this `stream-next`.
    Feed(Delivery, Fifo),
    /// Store the files.
    Store,
}

/// What the thread tells.
#[derive(Debug)]
pub(super) enum Event {
    /// The header has been verified and the tree been made.
    Prepared(Tree),
    /// Feeding has come to its end.
    Fed(Fed),
    /// The files are in their place, verified and on disk.
    Stored,
    /// It cannot go on. The streams stay open until the gate is released.
    Failed(FeedError),
}

/// How far feeding came.
#[derive(Debug)]
pub(super) enum Fed {
    /// The Interface took everything and the Artifact is sound. What it has not read yet is here, by stream.
    Everything(Vec<(String, Unread)>),
    /// The Interface ended without opening `stream-next`.
    Nothing,
    /// The Interface ended between: in this stream, or else before the empty entry.
    Part(Option<String>),
}

/// Why feeding or storing cannot go on.
#[derive(Debug)]
pub(super) enum FeedError {
    Artifact(ArtifactError),
    Tree(TreeError),
    Unwanted(Error),
    /// The reader of this entry left before its end.
    StoppedReading(String),
    /// The size is asked for and not known.
    SizeUnknown,
}

impl From<Ended> for FeedError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Failed(Failure::Open(error)) => Self::Unwanted(error),
            Ended::Failed(Failure::Artifact(error)) => Self::Artifact(ArtifactError::Shared(error)),
            // Whoever had it leave knows why.
            Ended::Left => Self::Artifact(ArtifactError::Unusable),
        }
    }
}

impl From<TreeError> for FeedError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

/// What the thread needs.
pub(super) struct Feeder {
    /// Root of the tree to make.
    root: PathBuf,
    context: TreeContext,
    check: HeaderCheck,
    seat: Seat,
    progress: Arc<Progress>,
    gate: Arc<Gate>,
    events: UnboundedSender<Event>,
}

impl Feeder {
    pub(super) fn new(root: &Path, request: DownloadRequest, gate: Arc<Gate>, events: UnboundedSender<Event>) -> Self {
        let DownloadRequest { artifact: seat, check, context, progress } = request;
        Self { root: root.to_owned(), context, check, seat, progress, gate, events }
    }

    /// Makes the thread stop waiting for more of the Artifact.
    pub(super) fn leave(&self) -> Leave {
        self.seat.leave()
    }

    /// Does what it is told until there is nothing more to do; the end of the thread closes the channel of events.
    pub(super) fn work(self, orders: &mpsc::Receiver<Order>) {
        let Self { root, context, check, mut seat, progress, gate, events } = self;
        // Nobody listens any more if the deployment was abandoned; then the next order does not come either.
        let tell = |event| drop(events.send(event));

        let prepared = prepare(&root, &context, check, &mut seat, progress);
        let (tree, size) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return tell(Event::Failed(error)),
        };
        tell(Event::Prepared(tree.clone()));

        let Ok(Order::Feed(delivery, stream_next)) = orders.recv() else { return };
        seat.decide(if delivery.unpacked { Form::Files } else { Form::Packed });
        let mut handover = Handover {
            tree,
            seat,
            size,
            gate: Arc::clone(&gate),
            delivery,
            entry: None,
            stream: None,
            unread: Vec::new(),
        };
        let fed = match handover.feed(&stream_next) {
            Ok(fed) => fed,
            Err(error) => {
                tell(Event::Failed(error));
                // Closing a stream now would look like its end. The script is ended first.
                return gate.wait();
            }
        };
        let untouched = matches!(fed, Fed::Nothing);
        tell(Event::Fed(fed));
        if !untouched {
            return;
        }

        let Ok(Order::Store) = orders.recv() else { return };
        let stored = handover.store();
        if stored.is_err()
            && let Err(error) = handover.tree.discard_partial_files()
        {
            tracing::warn!("Partial files of an Artifact stay behind: {error}");
        }
        tell(stored.map_or_else(Event::Failed, |()| Event::Stored));
    }
}

fn prepare(
    root: &Path,
    context: &TreeContext,
    check: HeaderCheck,
    seat: &mut Seat,
    progress: Arc<Progress>,
) -> Result<(Tree, Option<u64>), FeedError> {
    let (header, size) = seat.open(progress)?;
    check(&header).map_err(FeedError::Unwanted)?;
    Ok((Tree::create(root, context, &header)?, size))
}

/// The Artifact on its way to the Interface.
struct Handover {
    tree: Tree,
    seat: Seat,
    /// Size of the whole Artifact, if it is known.
    size: Option<u64>,
    gate: Arc<Gate>,
    delivery: Delivery,
    /// `stream-next`, while it is open. It stays open after an error.
    entry: Option<FifoWriter>,
    /// The stream, likewise.
    stream: Option<FifoWriter>,
    /// Streams that are written completely and perhaps not read completely.
    unread: Vec<(String, Unread)>,
}

/// Why writing into a FIFO ended early.
enum WriteEnd {
    /// The Interface has ended before this stream was taken, or before the empty entry.
    Released(Option<String>),
    Failed(FeedError),
}

impl From<Ended> for WriteEnd {
    fn from(ended: Ended) -> Self {
        Self::Failed(ended.into())
    }
}

impl From<TreeError> for WriteEnd {
    fn from(error: TreeError) -> Self {
        Self::Failed(error.into())
    }
}

impl Handover {
    fn feed(&mut self, stream_next: &Fifo) -> Result<Fed, FeedError> {
        // The size of the whole is asked of the source, of a file it stands in the Artifact.
        let size = match (self.delivery.unpacked, self.delivery.sizes) {
            (false, true) => Some(self.size.ok_or(FeedError::SizeUnknown)?),
            _ => None,
        };
        match stream_next.open(&self.gate) {
            Ok(entry) => self.entry = Some(entry),
            Err(OpenError::Released) => return Ok(Fed::Nothing),
            Err(OpenError::Refused(error)) => return Err(error.into()),
        }
        let fed =
            if self.delivery.unpacked { self.feed_files(stream_next) } else { self.feed_whole(stream_next, size) };
        match fed {
            Ok(()) => {
                // Only now, when all is verified, does the Interface learn that there is nothing more.
                self.entry = None;
                Ok(Fed::Everything(std::mem::take(&mut self.unread)))
            }
            Err(WriteEnd::Released(stream)) => {
                // Nobody reads any more, so what was not read before will not be.
                let before = self.unread.iter().find(|(_, rest)| rest.anything()).map(|(name, _)| name.clone());
                Ok(Fed::Part(before.or(stream)))
            }
            Err(WriteEnd::Failed(error)) => Err(error),
        }
    }

    fn feed_files(&mut self, stream_next: &Fifo) -> Result<(), WriteEnd> {
        while let Some((name, size)) = self.next_file()? {
            let entry = format!("streams/{name}");
            self.stream = Some(self.announce(&entry, self.delivery.sizes.then_some(size))?);
            let mut left = size;
            while left > 0
                && let Some(piece) = self.next_piece()?
            {
                left = left.saturating_sub(piece.len() as u64);
                self.write(&entry, &piece)?;
            }
            self.close_stream(entry)?;
            self.next_entry(stream_next)?;
        }
        Ok(())
    }

    fn feed_whole(&mut self, stream_next: &Fifo, size: Option<u64>) -> Result<(), WriteEnd> {
        let entry = format!("streams/{PACKED_NAME}");
        self.stream = Some(self.announce(&entry, size)?);
        while let Some(piece) = self.next_piece()? {
            self.write(&entry, &piece)?;
        }
        self.close_stream(entry)?;
        self.next_entry(stream_next)
    }

    /// The next file; `None` after the last, when all is verified.
    fn next_file(&mut self) -> Result<Option<(Arc<str>, u64)>, Ended> {
        loop {
            match self.seat.take()? {
                None => return Ok(None),
                Some(Item::File(name, size)) => return Ok(Some((name, size))),
                // All bytes of the file before were taken.
                Some(_) => {}
            }
        }
    }

    /// The next bytes.
    fn next_piece(&mut self) -> Result<Option<Piece>, Ended> {
        match self.seat.take()? {
            Some(Item::Packed(piece, _) | Item::Data(piece, _)) => Ok(Some(piece)),
            None | Some(Item::File(..)) => Ok(None),
        }
    }

    fn write(&mut self, entry: &str, piece: &Piece) -> Result<(), WriteEnd> {
        match &mut self.stream {
            Some(stream) => stream.write_all(piece).map_err(|error| write_end(entry, error)),
            None => Ok(()),
        }
    }

    /// Makes the stream, names it, and waits until it is opened. When the Interface knows the name, the stream is there.
    fn announce(&mut self, entry: &str, size: Option<u64>) -> Result<FifoWriter, WriteEnd> {
        let fifo = Fifo::create(&self.tree.root().join(entry))?;
        let line = size.map_or_else(|| format!("{entry}\n"), |size| format!("{entry} {size}\n"));
        if let Some(stream_next) = &mut self.entry {
            stream_next.write_all(line.as_bytes()).map_err(|error| write_end("stream-next", error))?;
        }
        self.entry = None;
        fifo.open(&self.gate).map_err(|error| open_end(Some(entry), error))
    }

    fn close_stream(&mut self, entry: String) -> Result<(), WriteEnd> {
        if let Some(stream) = self.stream.take() {
            let rest = stream.close().map_err(refused("open", Path::new(&entry)))?;
            self.unread.push((entry, rest));
        }
        Ok(())
    }

    /// Waits until the Interface asks for the next name.
    fn next_entry(&mut self, stream_next: &Fifo) -> Result<(), WriteEnd> {
        self.entry = Some(stream_next.open(&self.gate).map_err(|error| open_end(None, error))?);
        self.unread.retain(|(_, rest)| rest.anything());
        match self.unread.first() {
            Some((entry, _)) if self.unread.len() > UNREAD_LIMIT => {
                Err(WriteEnd::Failed(FeedError::StoppedReading(entry.clone())))
            }
            _ => Ok(()),
        }
    }

    /// Puts everything into `files/`, all of it or nothing.
    fn store(&mut self) -> Result<(), FeedError> {
        self.tree.open_partial_files()?;
        if self.delivery.unpacked {
            while let Some((name, size)) = self.next_file()? {
                self.store_file(&name, Some(size), Some(size))?;
            }
        } else {
            self.store_file(PACKED_NAME, self.size, None)?;
        }
        Ok(self.tree.keep_partial_files()?)
    }

    /// Stores a file of this size as far as that is known, from so many bytes, or from all there are.
    fn store_file(&mut self, name: &str, size: Option<u64>, bytes: Option<u64>) -> Result<(), FeedError> {
        let place = self.tree.files().join(name);
        let mut to = self.new_file(name, size)?;
        let mut left = bytes.unwrap_or(u64::MAX);
        let (mut written, mut begun): (i64, i64) = (0, 0);
        while left > 0
            && let Some(piece) = self.next_piece()?
        {
            left = left.saturating_sub(piece.len() as u64);
            to.write_all(&piece).map_err(refused("write", &place))?;
            written = written.saturating_add_unsigned(piece.len() as u64);
            // The medium need not wait for the last byte to begin.
            if written - begun >= WRITE_BACK {
                begin_to_write_back(&to, begun);
                begun = written;
            }
        }
        to.sync_all().map_err(refused("write", &place))?;
        Ok(())
    }

    /// A file among the partial ones. If there is no room for it, that shows before the download and not after it.
    #[allow(clippy::useless_conversion, reason = "the figures of a file system are narrower on 32-bit machines")]
    fn new_file(&self, name: &str, size: Option<u64>) -> Result<File, TreeError> {
        let file = new_file(&self.tree.partial_files().join(name))?;
        let room = fstatvfs(&file).map(|system| {
            let fragments: u64 = system.blocks_available().into();
            fragments.saturating_mul(system.fragment_size().into())
        });
        match (room, size) {
            (Ok(room), Some(size)) if room < size => {
                let full = io::Error::from(Errno::ENOSPC);
                Err(refused("write", &self.tree.files().join(name))(full))
            }
            _ => Ok(file),
        }
    }
}

/// What it means that nobody opened a FIFO.
fn open_end(stream: Option<&str>, error: OpenError) -> WriteEnd {
    match error {
        OpenError::Released => WriteEnd::Released(stream.map(str::to_owned)),
        OpenError::Refused(error) => error.into(),
    }
}

/// What a failed write into a FIFO means.
fn write_end(entry: &str, error: io::Error) -> WriteEnd {
    if matches!(error.get_ref(), Some(inner) if inner.is::<Released>()) {
        WriteEnd::Released(Some(entry.to_owned()))
    } else if error.kind() == ErrorKind::BrokenPipe {
        WriteEnd::Failed(FeedError::StoppedReading(entry.to_owned()))
    } else {
        WriteEnd::Failed(refused("write", Path::new(entry))(error).into())
    }
}
