//! The place of one Component in the reading of an Artifact.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest;

use super::queue::Taken;
use super::{Failure, Form, Item, Pass, Progress, Reached};
use crate::update::artifact::{ArtifactError, Header, Piece};

/// Why a Component gets nothing more.
#[derive(Debug)]
pub(in super::super) enum Ended {
    /// The reading has failed.
    Failed(Failure),
    /// The Component has left.
    Left,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where a Component is, for who wants it to leave from another thread.
#[derive(Clone)]
pub(in super::super) struct Leave(Arc<Mutex<Where>>);

struct Where {
    pass: Arc<Pass>,
    index: usize,
    left: bool,
}

impl Leave {
    /// Whoever waits for an item for this Component gets none, and the others go on without it.
    pub(in super::super) fn leave(&self) {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.left = true;
        place.pass.leave(place.index);
    }

    /// It goes on elsewhere, unless it has left.
    fn go_on(&self, pass: &Arc<Pass>) -> bool {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.pass = Arc::clone(pass);
        place.index = 0;
        !place.left
    }
}

/// How far a Component has come.
#[derive(Default)]
struct Progressed {
    /// Files that have begun.
    files: usize,
    /// Bytes of the last of them, or of the Artifact.
    bytes: u64,
    /// Hash of these bytes, if they are not verified yet.
    hash: Reached,
}

/// The place of one Component. Dropped, it is left.
pub struct Seat {
    pass: Arc<Pass>,
    index: usize,
    leave: Leave,
    form: Option<Form>,
    progress: Option<Arc<Progress>>,
    header: Option<Arc<Header>>,
    come: Progressed,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Seat").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Seat {
    pub(super) fn new(pass: Arc<Pass>, index: usize) -> Self {
        let leave = Leave(Arc::new(Mutex::new(Where { pass: Arc::clone(&pass), index, left: false })));
        Self { pass, index, leave, form: None, progress: None, header: None, come: Progressed::default() }
    }

    /// For who wants it to leave.
    pub(in super::super) fn leave(&self) -> Leave {
        self.leave.clone()
    }

    /// Has the reading begin, and waits for the verified header and the size of the Artifact.
    pub(in super::super) fn open(&mut self, progress: Arc<Progress>) -> Result<(Arc<Header>, Option<u64>), Ended> {
        self.pass.queue.tell(self.index, Arc::clone(&progress));
        self.progress = Some(progress);
        self.pass.begin();
        let (header, size) = self.pass.queue.header(self.index).ok_or(Ended::Left)??;
        self.header = Some(Arc::clone(&header));
        Ok((header, size))
    }

    /// Says in which form the Artifact is wanted. The others may be waiting for this.
    pub(in super::super) fn decide(&mut self, form: Form) {
        self.form = Some(form);
        self.pass.queue.decide(self.index, form);
    }

    /// Waits for the next item. `None`: there is nothing more, and all is verified.
    pub(in super::super) fn take(&mut self) -> Result<Option<Item>, Ended> {
        loop {
            match self.pass.queue.take(self.index) {
                Taken::Item(item) => {
                    self.note(&item);
                    return Ok(Some(item));
                }
                Taken::End => return Ok(None),
                Taken::Failed(failure) => return Err(failure.into()),
                Taken::Left => return Err(Ended::Left),
                Taken::CutOff => {
                    if let Some(item) = self.go_on_alone()? {
                        self.note(&item);
                        return Ok(Some(item));
                    }
                }
            }
        }
    }

    fn note(&mut self, item: &Item) {
        match item {
            Item::File(..) => self.come = Progressed { files: self.come.files + 1, ..Progressed::default() },
            Item::Packed(piece, hash) | Item::Data(piece, hash) => {
                self.come.bytes += piece.len() as u64;
                self.come.hash.clone_from(hash);
            }
        }
    }

    /// Begins a reading of its own and goes on in it where it was. What it has taken has to be there again, byte by byte:
    /// of the file it is in, only part was verified. Returns what follows of the piece that it is in the middle of.
    fn go_on_alone(&mut self) -> Result<Option<Item>, Ended> {
        tracing::debug!("A Component that held others up goes on with a reading of the Artifact of its own.");
        let pass = Pass::new(self.pass.way.clone(), 1);
        if !self.leave.go_on(&pass) {
            return Err(Ended::Left);
        }
        (self.pass, self.index) = (pass, 0);
        let before = self.header.clone();
        if let Some(progress) = self.progress.clone() {
            self.open(progress)?;
        }
        if self.header != before {
            return Err(changed());
        }
        if let Some(form) = self.form {
            self.pass.queue.decide(0, form);
        }
        self.skip()
    }

    fn skip(&mut self) -> Result<Option<Item>, Ended> {
        let Progressed { files, bytes, hash } = &self.come;
        let (mut files_left, mut bytes_left) = (*files, *bytes);
        let expected = hash.clone().map(digest::Context::finish);
        let mut hash = digest::Context::new(&digest::SHA256);
        while files_left > 0 || bytes_left > 0 {
            let piece = match self.pass.queue.take(0) {
                Taken::Item(Item::File(..)) => {
                    files_left = files_left.saturating_sub(1);
                    continue;
                }
                Taken::Item(Item::Data(_, _)) if files_left > 0 => continue,
                Taken::Item(Item::Packed(piece, _) | Item::Data(piece, _)) => piece,
                Taken::Failed(failure) => return Err(failure.into()),
                Taken::End | Taken::CutOff => return Err(changed()),
                Taken::Left => return Err(Ended::Left),
            };
            let known = usize::try_from(bytes_left).unwrap_or(usize::MAX).min(piece.len());
            hash.update(&piece[..known]);
            bytes_left -= known as u64;
            if bytes_left == 0 {
                if expected.is_some_and(|expected| expected.as_ref() != hash.finish().as_ref()) {
                    return Err(changed());
                }
                let rest = piece.without_front(known);
                return Ok((!rest.is_empty()).then(|| self.item(rest)));
            }
        }
        Ok(None)
    }

    fn item(&self, piece: Piece) -> Item {
        match self.form {
            Some(Form::Packed) => Item::Packed(piece, None),
            _ => Item::Data(piece, None),
        }
    }
}

/// What it was and what it is now is not the same.
fn changed() -> Ended {
    let error = io::Error::other("it has changed while it was being read");
    Ended::Failed(ArtifactError::Input(error).into())
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave.leave();
    }
}
