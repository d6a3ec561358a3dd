//! Pieces of a payload that are lent instead of copied, and the thread that decompresses ahead of who takes them.

use std::io::{self, Read};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use super::compression::Decoder;
use super::error::ArtifactError;

/// Largest piece, in bytes. Handing one over costs a switch between threads, and a few have to fit into the cache.
const PIECE: usize = 128 * 1024;
/// Pieces that are decompressed ahead.
const AHEAD: usize = 2;

/// Some bytes of a payload; clones share them.
#[derive(Clone, Default)]
pub struct Piece {
    block: Arc<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Piece {
    /// Takes bytes from the front.
    fn split_front(&mut self, limit: usize) -> Self {
        let middle = self.start + limit.min(self.end - self.start);
        let front = Self { block: Arc::clone(&self.block), start: self.start, end: middle };
        self.start = middle;
        front
    }

    /// What is left without so many bytes at the front.
    #[must_use]
    pub fn without_front(&self, count: usize) -> Self {
        Self { start: self.end.min(self.start + count), ..self.clone() }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Piece of {} bytes", self.len())
    }
}

/// Makes pieces in blocks of memory that are used again when nobody has the piece any more.
#[derive(Debug, Default)]
pub struct Pieces {
    blocks: Vec<Arc<Vec<u8>>>,
}

impl Pieces {
    /// A piece that holds what this reads, until it is full or there is no more.
    pub fn read(&mut self, from: &mut impl Read, limit: usize) -> (Piece, io::Result<()>) {
        let mut block = self.free();
        let mut filled = 0;
        let mut result = Ok(());
        // Only we have it, see `free`.
        if let Some(bytes) = Arc::get_mut(&mut block) {
            let limit = limit.min(bytes.len());
            while filled < limit {
                match from.read(&mut bytes[filled..limit]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
        }
        self.blocks.push(Arc::clone(&block));
        (Piece { block, start: 0, end: filled }, result)
    }

    /// A block that nobody else has.
    fn free(&mut self) -> Arc<Vec<u8>> {
        let unused = self.blocks.iter_mut().position(|block| Arc::get_mut(block).is_some());
        unused.map_or_else(|| Arc::new(vec![0; PIECE]), |index| self.blocks.swap_remove(index))
    }
}

/// An input that lends what it has read.
pub(super) trait Lend: Read {
    /// At most so many bytes, at least one; none at the end.
    fn lend(&mut self, limit: usize) -> io::Result<Piece>;
}

/// The content of a compressed member.
pub(super) enum Content<R> {
    /// Decompressed by who reads it; with an error that came after bytes that were lent first.
    Here(Decoder<R>, Pieces, Option<io::Error>),
    /// Decompressed by a thread of its own.
    Ahead(Ahead<R>),
}

impl<R: Read> Content<R> {
    /// Decompresses as it is read.
    #[allow(clippy::unnecessary_wraps, reason = "the other way, in place of which it stands, can fail")]
    pub(super) fn here(decoder: Decoder<R>) -> io::Result<Self> {
        Ok(Self::Here(decoder, Pieces::default(), None))
    }

    /// Gives the input back. Everything has to have been read.
    pub(super) fn into_inner(self) -> Result<R, ArtifactError> {
        match self {
            Self::Here(decoder, ..) => decoder.into_inner(),
            Self::Ahead(ahead) => ahead.into_inner(),
        }
    }
}

impl<R: Read + Send + 'static> Content<R> {
    /// Decompresses in a thread of its own.
    pub(super) fn ahead(decoder: Decoder<R>) -> io::Result<Self> {
        Ahead::start(decoder).map(Self::Ahead)
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Here(decoder, ..) => decoder.read(buffer),
            Self::Ahead(ahead) => {
                let piece = ahead.lend(buffer.len())?;
                buffer[..piece.len()].copy_from_slice(&piece);
                Ok(piece.len())
            }
        }
    }
}

impl<R: Read> Lend for Content<R> {
    fn lend(&mut self, limit: usize) -> io::Result<Piece> {
        match self {
            Self::Here(decoder, pieces, failure) => {
                if let Some(error) = failure.take() {
                    return Err(error);
                }
                let (piece, result) = pieces.read(decoder, limit);
                match result {
                    Err(error) if piece.is_empty() => return Err(error),
                    result => *failure = result.err(),
                }
                Ok(piece)
            }
            Self::Ahead(ahead) => ahead.lend(limit),
        }
    }
}

/// A decoder in a thread of its own. Dropped early, it has the thread end at its next piece.
pub(super) struct Ahead<R> {
    pieces: Receiver<io::Result<Piece>>,
    current: Piece,
    thread: JoinHandle<Decoder<R>>,
}

impl<R: Read + Send + 'static> Ahead<R> {
    fn start(mut decoder: Decoder<R>) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(AHEAD);
        let work = move || {
            let mut pool = Pieces::default();
            loop {
                let (piece, result) = pool.read(&mut decoder, PIECE);
                let is_last = piece.is_empty() || result.is_err();
                // An error in sending means that nobody wants the rest.
                if !piece.is_empty() && sender.send(Ok(piece)).is_err() {
                    return decoder;
                }
                if let Err(error) = result {
                    drop(sender.send(Err(error)));
                }
                if is_last {
                    return decoder;
                }
            }
        };
        let thread = thread::Builder::new().name("decompress".to_owned()).spawn(work)?;
        Ok(Self { pieces, current: Piece::default(), thread })
    }
}

impl<R> Ahead<R> {
    fn lend(&mut self, limit: usize) -> io::Result<Piece> {
        if self.current.is_empty() {
            match self.pieces.recv() {
                Ok(piece) => self.current = piece?,
                // The end, or a thread that is lost; that shows when it is asked for its input.
                Err(_) => return Ok(Piece::default()),
            }
        }
        Ok(self.current.split_front(limit))
    }
}

impl<R: Read> Ahead<R> {
    fn into_inner(self) -> Result<R, ArtifactError> {
        match self.thread.join() {
            Ok(decoder) => decoder.into_inner(),
            Err(_) => Err(ArtifactError::Unusable),
        }
    }
}
