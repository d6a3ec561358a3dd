//! The input of an Artifact, which can be passed on as it is while it is being verified.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::download::ArtifactInput;

/// What becomes of the bytes that the reader of the Artifact has read.
enum Copy {
    /// Kept, until it is known whether they are to be passed on. The reader takes no more than the header, whose size
    /// it limits.
    Kept(Vec<u8>),
    /// Forgotten.
    Dropped,
    /// Passed on.
    Forwarded(Box<dyn Write>),
}

struct Inner {
    input: Box<dyn ArtifactInput>,
    /// Bytes read so far.
    count: u64,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
    stop: CancellationToken,
    copy: Copy,
    /// Why the bytes cannot be passed on any more.
    failure: Option<io::Error>,
}

/// A reader of the input; its clones share it.
#[derive(Clone)]
pub(super) struct Tee(Rc<RefCell<Inner>>);

impl Tee {
    /// Reads from this input and keeps what was read.
    pub(super) fn new(
        input: Box<dyn ArtifactInput>,
        progress: Arc<dyn Fn(u64) + Send + Sync>,
        stop: CancellationToken,
    ) -> Self {
        let copy = Copy::Kept(Vec::new());
        Self(Rc::new(RefCell::new(Inner { input, count: 0, progress, stop, copy, failure: None })))
    }

    /// Size of the whole input in bytes, if it is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.0.borrow().input.size()
    }

    /// Forgets what was kept and passes nothing on.
    pub(super) fn drop_copy(&self) {
        self.0.borrow_mut().copy = Copy::Dropped;
    }

    /// Passes on what was kept, and from now on all that is read. If that fails, every read fails.
    pub(super) fn forward(&self, mut to: impl Write + 'static) {
        let mut inner = self.0.borrow_mut();
        if let Copy::Kept(bytes) = std::mem::replace(&mut inner.copy, Copy::Dropped) {
            inner.failure = to.write_all(&bytes).err();
        }
        // Also after a failure: closing it would look to a script like the end of the Artifact.
        inner.copy = Copy::Forwarded(Box::new(to));
    }

    /// Why passing on failed; then the error that the reader of the Artifact reports is only its consequence.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.0.borrow_mut().failure.take()
    }
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let inner = &mut *self.0.borrow_mut();
        if inner.failure.is_some() {
            return Err(io::Error::other("the Artifact cannot be passed on"));
        }
        if inner.stop.is_cancelled() {
            return Err(io::Error::other("reading was cancelled"));
        }
        let count = inner.input.read(buffer)?;
        inner.count += u64::try_from(count).unwrap_or(u64::MAX);
        match &mut inner.copy {
            Copy::Kept(bytes) => bytes.extend_from_slice(&buffer[..count]),
            Copy::Dropped => {}
            Copy::Forwarded(to) => {
                if let Err(error) = to.write_all(&buffer[..count]) {
                    inner.failure = Some(error);
                    return Err(io::Error::other("the Artifact cannot be passed on"));
                }
            }
        }
        (inner.progress)(inner.count);
        Ok(count)
    }
}
