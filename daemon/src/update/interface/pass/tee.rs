//! The input of an Artifact, which goes to the Components as it is while it is being verified.

use std::io::{self, Read};
use std::sync::Arc;

use ring::digest;

use super::super::download::ArtifactInput;
use super::{Item, Pass};
use crate::update::artifact::Pieces;

/// What becomes of the bytes that the reader of the Artifact has read.
enum Copy {
    /// Kept, until it is known whether they are wanted. The reader takes no more than the header, whose size it limits.
    Kept(Vec<u8>),
    /// Forgotten.
    Dropped,
    /// Passed on.
    Forwarded,
}

/// A reader of the input.
pub(super) struct Tee {
    input: Box<dyn ArtifactInput>,
    pass: Arc<Pass>,
    /// Bytes read so far.
    count: u64,
    copy: Copy,
    pieces: Pieces,
    /// Of what was passed on, as long as a Component may be cut off.
    hash: Option<digest::Context>,
}

impl Tee {
    pub(super) fn new(input: Box<dyn ArtifactInput>, pass: Arc<Pass>) -> Self {
        let hash = pass.queue.shared.then(|| digest::Context::new(&digest::SHA256));
        Self { input, pass, count: 0, copy: Copy::Kept(Vec::new()), pieces: Pieces::default(), hash }
    }

    /// Passes these bytes on.
    fn forward(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (piece, result) = self.pieces.read(&mut bytes, usize::MAX);
            result?;
            if let Some(hash) = &mut self.hash {
                hash.update(&piece);
            }
            let pushed = self.pass.queue.push(Item::Packed(piece, self.hash.clone()));
            pushed.ok_or_else(|| io::Error::other("nobody takes the Artifact any more"))?;
        }
        Ok(())
    }
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pass.queue.is_abandoned() {
            return Err(io::Error::other("reading was cancelled"));
        }
        if let Copy::Kept(bytes) = &mut self.copy {
            match self.pass.queue.wants_packed() {
                None => {}
                Some(false) => self.copy = Copy::Dropped,
                Some(true) => {
                    let bytes = std::mem::take(bytes);
                    self.copy = Copy::Forwarded;
                    self.forward(&bytes)?;
                }
            }
        }
        let count = self.input.read(buffer)?;
        self.count += count as u64;
        match &mut self.copy {
            Copy::Kept(bytes) => bytes.extend_from_slice(&buffer[..count]),
            Copy::Dropped => {}
            Copy::Forwarded => self.forward(&buffer[..count])?,
        }
        self.pass.queue.progress(self.count);
        Ok(count)
    }
}
