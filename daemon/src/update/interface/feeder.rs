//! The thread that reads the Artifact and hands it over: into the streams while the Interface runs, or into `files/`
//! when it has ended without touching them.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::download::{DownloadRequest, HeaderCheck};
use super::fifo::{Fifo, FifoWriter, Gate, OpenError, Released, Unread};
use super::tee::Tee;
use super::tree::{Tree, TreeContext, TreeError, new_file, refused};
use crate::core::error::Error;
use crate::update::artifact::{self, Artifact, ArtifactError, VerifyKeys};

/// Name of the one stream, or file, of an Artifact that is not taken apart.
const PACKED_NAME: &str = "artifact.mender";
/// How many streams may be waiting for a reader in the background; each holds a file descriptor.
const UNREAD_LIMIT: usize = 64;
const BUFFER_SIZE: usize = 64 * 1024;

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

impl From<ArtifactError> for FeedError {
    fn from(error: ArtifactError) -> Self {
        Self::Artifact(error)
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
    keys: VerifyKeys,
    check: HeaderCheck,
    input: Box<dyn super::ArtifactInput>,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
    stop: CancellationToken,
    gate: Arc<Gate>,
    events: UnboundedSender<Event>,
}

impl Feeder {
    pub(super) fn new(
        root: &Path,
        request: DownloadRequest,
        stop: CancellationToken,
        gate: Arc<Gate>,
        events: UnboundedSender<Event>,
    ) -> Self {
        let DownloadRequest { artifact: input, keys, check, context, progress } = request;
        Self { root: root.to_owned(), context, keys, check, input, progress, stop, gate, events }
    }

    /// Does what it is told until there is nothing more to do; the end of the thread closes the channel of events.
    pub(super) fn work(self, orders: &mpsc::Receiver<Order>) {
        let Self { root, context, keys, check, input, progress, stop, gate, events } = self;
        // Nobody listens any more if the deployment was abandoned; then the next order does not come either.
        let tell = |event| drop(events.send(event));

        let source = Tee::new(input, progress, stop);
        let prepared = prepare(&root, &context, &keys, check, &source);
        let (artifact, tree) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return tell(Event::Failed(error)),
        };
        tell(Event::Prepared(tree.clone()));

        let Ok(Order::Feed(delivery, stream_next)) = orders.recv() else { return };
        let mut handover = Handover {
            tree,
            source,
            gate: Arc::clone(&gate),
            delivery,
            artifact: Some(artifact),
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
    keys: &VerifyKeys,
    check: HeaderCheck,
    source: &Tee,
) -> Result<(Artifact<Tee>, Tree), FeedError> {
    let artifact = artifact::open(source.clone(), keys)?;
    check(artifact.header()).map_err(FeedError::Unwanted)?;
    let tree = Tree::create(root, context, artifact.header())?;
    Ok((artifact, tree))
}

/// The Artifact on its way to the Interface.
struct Handover {
    tree: Tree,
    source: Tee,
    gate: Arc<Gate>,
    delivery: Delivery,
    /// Taken by the last step, which checks the end of it.
    artifact: Option<Artifact<Tee>>,
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

impl From<ArtifactError> for WriteEnd {
    fn from(error: ArtifactError) -> Self {
        Self::Failed(error.into())
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
            (false, true) => Some(self.source.size().ok_or(FeedError::SizeUnknown)?),
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
        self.source.drop_copy();
        let mut artifact = self.artifact.take().ok_or(ArtifactError::Unusable)?;
        while let Some(mut file) = artifact.next_file()? {
            let entry = format!("streams/{}", file.name());
            let mut stream = self.announce(&entry, self.delivery.sizes.then(|| file.size()))?;
            let copied = pump(&mut file, &mut stream);
            self.stream = Some(stream);
            match copied {
                Ok(()) => {}
                Err(Pump::Read(error)) => return Err(ArtifactError::from_io(error).into()),
                Err(Pump::Write(error)) => return Err(write_end(&entry, error)),
            }
            self.close_stream(entry)?;
            self.next_entry(stream_next)?;
        }
        artifact.finish()?;
        Ok(())
    }

    fn feed_whole(&mut self, stream_next: &Fifo, size: Option<u64>) -> Result<(), WriteEnd> {
        let entry = format!("streams/{PACKED_NAME}");
        let stream = self.announce(&entry, size)?;
        // The one that is closed at the end is kept here, the other goes with the copy.
        let copy = stream.try_clone().map_err(refused("open", Path::new(&entry)))?;
        self.stream = Some(stream);
        let artifact = self.artifact.take().ok_or(ArtifactError::Unusable)?;
        self.source.forward(copy);
        let passed = artifact.finish();
        if let Some(failure) = self.source.failure() {
            return Err(write_end(&entry, failure));
        }
        passed?;
        self.source.drop_copy();
        self.close_stream(entry)?;
        self.next_entry(stream_next)
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
        let mut artifact = self.artifact.take().ok_or(ArtifactError::Unusable)?;
        if self.delivery.unpacked {
            self.source.drop_copy();
            while let Some(mut file) = artifact.next_file()? {
                let place = self.tree.files().join(file.name());
                let mut to = self.new_file(file.name(), Some(file.size()))?;
                match pump(&mut file, &mut to) {
                    Ok(()) => to.sync_all().map_err(refused("write", &place))?,
                    Err(Pump::Read(error)) => return Err(ArtifactError::from_io(error).into()),
                    Err(Pump::Write(error)) => return Err(refused("write", &place)(error).into()),
                }
            }
            artifact.finish()?;
        } else {
            let place = self.tree.files().join(PACKED_NAME);
            let to = self.new_file(PACKED_NAME, self.source.size())?;
            let copy = to.try_clone().map_err(refused("open", &place))?;
            self.source.forward(copy);
            let passed = artifact.finish();
            if let Some(failure) = self.source.failure() {
                return Err(refused("write", &place)(failure).into());
            }
            passed?;
            to.sync_all().map_err(refused("write", &place))?;
        }
        Ok(self.tree.keep_partial_files()?)
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

/// Which side of a copy failed.
enum Pump {
    Read(io::Error),
    Write(io::Error),
}

fn pump(from: &mut impl Read, to: &mut impl Write) -> Result<(), Pump> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        match from.read(&mut buffer).map_err(Pump::Read)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count]).map_err(Pump::Write)?,
        }
    }
}
