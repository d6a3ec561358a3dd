//! The queue between the one who reads an Artifact and those who take it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Failure, Form, Item, Progress};
use crate::update::artifact::Header;

/// Bytes that may wait for the slowest.
const LIMIT: usize = 512 * 1024;
/// Items that may: files may be small.
const ITEMS: usize = 64;

/// Header and size of an Artifact that is open.
pub(super) type Opened = (Arc<Header>, Option<u64>);

/// What there is for a Component.
#[allow(clippy::large_enum_variant, reason = "it is on the stack only, and the large one is the usual one")]
pub(super) enum Taken {
    Item(Item),
    /// There is nothing more, and all is verified.
    End,
    Failed(Failure),
    /// It took nothing for too long.
    CutOff,
    /// It has left.
    Left,
}

/// A Component on its way through the queue.
struct Taker {
    place: Place,
    /// Number of the item it takes next.
    next: u64,
    /// Since when it could have taken something.
    idle_since: Instant,
    progress: Option<Arc<Progress>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has not said yet what it wants.
    Undecided,
    Takes(Form),
    CutOff,
    Left,
}

impl Taker {
    fn wants(&self, item: &Item) -> bool {
        self.place == Place::Takes(item.form())
    }

    fn is_here(&self) -> bool {
        matches!(self.place, Place::Undecided | Place::Takes(_))
    }
}

struct State {
    takers: Vec<Taker>,
    items: VecDeque<Item>,
    /// Number of the first of them.
    first: u64,
    /// Their bytes.
    bytes: usize,
    /// Header and size of the Artifact.
    opened: Option<Opened>,
    /// Nobody who has not said what it wants is waited for any more.
    forms_known: bool,
    end: Option<Result<(), Failure>>,
}

impl State {
    fn is_abandoned(&self) -> bool {
        !self.takers.iter().any(Taker::is_here)
    }

    fn wants(&self, form: Form) -> bool {
        self.takers.iter().any(|taker| taker.place == Place::Takes(form))
    }

    /// Moves everybody past what it does not want, and forgets what nobody wants any more.
    fn trim(&mut self) {
        let (first, count) = (self.first, self.items.len() as u64);
        let mut oldest = first + count;
        for taker in self.takers.iter_mut().filter(|taker| matches!(taker.place, Place::Takes(_))) {
            taker.next = taker.next.max(first);
            let from = usize::try_from(taker.next - first).unwrap_or(usize::MAX);
            let skipped = self.items.iter().skip(from).take_while(|item| !taker.wants(item)).count();
            taker.next += skipped as u64;
            oldest = oldest.min(taker.next);
        }
        while self.first < oldest
            && let Some(item) = self.items.pop_front()
        {
            self.first += 1;
            self.bytes -= item.size();
        }
    }

    /// Cuts off who has taken nothing for this long. Returns how long it takes until the next one is due.
    fn cut_off(&mut self, patience: Duration) -> Option<Duration> {
        // Nobody waits for the only one.
        if self.takers.iter().filter(|taker| taker.is_here()).count() < 2 {
            return None;
        }
        let oldest = self.first;
        let holds_up = |taker: &&mut Taker| match taker.place {
            Place::Undecided => true,
            Place::Takes(_) => taker.next == oldest,
            Place::CutOff | Place::Left => false,
        };
        let mut due: Option<Duration> = None;
        for taker in self.takers.iter_mut().filter(holds_up) {
            let idle = taker.idle_since.elapsed();
            let left = patience.saturating_sub(idle);
            if left.is_zero() {
                taker.place = Place::CutOff;
            } else {
                due = Some(due.map_or(left, |due| due.min(left)));
            }
        }
        due
    }
}

/// Filled by who reads the Artifact, emptied by the Components.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    patience: Duration,
    /// More than one Component takes it, so one of them may be cut off.
    pub(super) shared: bool,
}

impl Queue {
    pub(super) fn new(takers: usize, patience: Duration) -> Self {
        let taker = || Taker { place: Place::Undecided, next: 0, idle_since: Instant::now(), progress: None };
        let state = State {
            takers: (0..takers).map(|_| taker()).collect(),
            items: VecDeque::new(),
            first: 0,
            bytes: 0,
            opened: None,
            forms_known: false,
            end: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), patience, shared: takers > 1 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every field is valid after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Option<Duration>) -> MutexGuard<'a, State> {
        match limit {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// The Artifact is open and its header is verified.
    pub(super) fn opened(&self, header: Header, size: Option<u64>) {
        let mut state = self.lock();
        state.opened = Some((Arc::new(header), size));
        let now = Instant::now();
        for taker in &mut state.takers {
            taker.idle_since = now;
        }
        self.changed.notify_all();
    }

    /// Waits until every Component has said in which form it wants the Artifact; `false`: none of them is left.
    pub(super) fn wait_for_forms(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_abandoned() {
                return false;
            }
            let undecided = state.takers.iter().filter(|taker| taker.place == Place::Undecided).count();
            if undecided == 0 {
                let now = Instant::now();
                for taker in &mut state.takers {
                    taker.idle_since = now;
                }
                state.forms_known = true;
                return true;
            }
            // Nobody is held up as long as all think about it.
            let all = undecided == state.takers.iter().filter(|taker| taker.is_here()).count();
            let due = if all { None } else { state.cut_off(self.patience) };
            if !all && due.is_none() {
                self.changed.notify_all();
                continue;
            }
            state = self.wait(state, due);
        }
    }

    /// Whether the Artifact is wanted as it is; `None`: that is not known yet.
    pub(super) fn wants_packed(&self) -> Option<bool> {
        let state = self.lock();
        state.forms_known.then(|| state.wants(Form::Packed))
    }

    /// Adds an item when there is room. `None`: nobody is left.
    pub(super) fn push(&self, item: Item) -> Option<()> {
        let mut state = self.lock();
        loop {
            if state.is_abandoned() {
                return None;
            }
            if !state.wants(item.form()) {
                return Some(());
            }
            state.trim();
            if state.items.is_empty() || state.bytes + item.size() <= LIMIT && state.items.len() < ITEMS {
                break;
            }
            let due = state.cut_off(self.patience);
            let is_held_up = state.takers.iter().any(|taker| taker.is_here() && taker.next == state.first);
            if is_held_up {
                state = self.wait(state, due);
            } else {
                self.changed.notify_all();
            }
        }
        let number = state.first + state.items.len() as u64;
        let now = Instant::now();
        for taker in &mut state.takers {
            // Who had taken everything was not idle, but out of work.
            if taker.next >= number {
                taker.idle_since = now;
            }
        }
        state.bytes += item.size();
        state.items.push_back(item);
        self.changed.notify_all();
        Some(())
    }

    /// There will be nothing more.
    pub(super) fn end(&self, end: Result<(), Failure>) {
        self.lock().end = Some(end);
        self.changed.notify_all();
    }

    /// Tells everybody who is here how much was read.
    pub(super) fn progress(&self, count: u64) {
        let told: Vec<_> = {
            let state = self.lock();
            state.takers.iter().filter(|taker| taker.is_here()).filter_map(|taker| taker.progress.clone()).collect()
        };
        for progress in told {
            progress(count);
        }
    }

    /// Whether nobody is left.
    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().is_abandoned()
    }

    /// A Component wants to be told of the progress.
    pub(super) fn tell(&self, index: usize, progress: Arc<Progress>) {
        if let Some(taker) = self.lock().takers.get_mut(index) {
            taker.progress = Some(progress);
        }
    }

    /// Waits until the header is known. `None`: it has left.
    pub(super) fn header(&self, index: usize) -> Option<Result<Opened, Failure>> {
        let mut state = self.lock();
        loop {
            if state.takers.get(index).is_none_or(|taker| taker.place == Place::Left) {
                return None;
            }
            match (&state.opened, &state.end) {
                (Some(opened), _) => return Some(Ok(opened.clone())),
                (None, Some(Err(failure))) => return Some(Err(failure.clone())),
                _ => state = self.wait(state, None),
            }
        }
    }

    /// A Component says in which form it wants the Artifact.
    pub(super) fn decide(&self, index: usize, form: Form) {
        let mut state = self.lock();
        if let Some(taker) = state.takers.get_mut(index)
            && taker.place == Place::Undecided
        {
            taker.place = Place::Takes(form);
            taker.idle_since = Instant::now();
            self.changed.notify_all();
        }
    }

    /// Waits for what comes next for a Component.
    pub(super) fn take(&self, index: usize) -> Taken {
        let mut state = self.lock();
        loop {
            let first = state.first;
            let (place, next) = match state.takers.get(index) {
                Some(taker) => (taker.place, taker.next),
                None => return Taken::Left,
            };
            match place {
                Place::Left => return Taken::Left,
                Place::CutOff => return Taken::CutOff,
                Place::Undecided | Place::Takes(_) => {}
            }
            let from = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
            let wanted = state.items.iter().enumerate().skip(from);
            let wanted =
                wanted.filter(|(_, item)| place == Place::Takes(item.form())).map(|(at, item)| (at, item.clone()));
            if let Some((at, item)) = wanted.take(1).next() {
                if let Some(taker) = state.takers.get_mut(index) {
                    taker.next = first + at as u64 + 1;
                    taker.idle_since = Instant::now();
                }
                // Only the slowest makes room for more.
                if next <= first {
                    state.trim();
                    self.changed.notify_all();
                }
                return Taken::Item(item);
            }
            match &state.end {
                Some(Ok(())) => return Taken::End,
                Some(Err(failure)) => return Taken::Failed(failure.clone()),
                None => state = self.wait(state, None),
            }
        }
    }

    /// A Component wants nothing more.
    pub(super) fn leave(&self, index: usize) {
        let mut state = self.lock();
        if let Some(taker) = state.takers.get_mut(index) {
            taker.place = Place::Left;
            taker.progress = None;
        }
        state.trim();
        self.changed.notify_all();
    }
}
