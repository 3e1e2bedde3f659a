//! The events of a batch. Readers that have the same ones share them, and what their contents are decoded to.

#[cfg(test)]
mod tests;

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    ops::{Deref, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use crate::{
    counted::counted,
    event::{Categories, EventSet, Recorded, RecordedEvent},
    read::{panics::caught, read_model::Slice},
    stream::Position,
};

/// How many bytes of payload a page may have to be decoded for all its readers: what they are decoded to stays in memory for as long
/// as the page does, and takes a few times as much.
const MOST_DECODED: usize = 2 << 20;

/// How many events are decoded before other tasks of the runtime get a turn.
const TURN: usize = 500;

/// Events in position order. Clones share them.
#[derive(Clone, Default)]
pub struct BatchEvents {
    page: Arc<Page>,
    range: Range<usize>,
}

/// The events of a page of the log, or those of them that some readers want.
#[derive(Default)]
pub(super) struct Page {
    events: Vec<RecordedEvent>,
    /// `None` where there is one reader only.
    shared: Option<Shared>,
}

/// What the readers of a page have in common.
#[derive(Default)]
struct Shared {
    /// The events that some of them want.
    parts: Mutex<Vec<(Wanted, Arc<Page>)>>,
    /// The events with their contents, a [`Decoded`] for each kind of content.
    decoded: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// The events with their contents. The first reader that needs them decodes them, and the others wait for that.
type Decoded<S> = OnceCell<Arc<[Option<Recorded<S>>]>>;

/// Which events a reader wants of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) categories: Categories,
    /// The ids of their streams.
    pub(super) streams: Slice,
}

impl Wanted {
    fn has(&self, event: &RecordedEvent) -> bool {
        self.categories.contains(event.stream.category()) && self.streams.holds(event.stream.id())
    }
}

impl Page {
    pub(super) fn new(events: Vec<RecordedEvent>, is_shared: bool) -> Arc<Self> {
        Arc::new(Self { events, shared: is_shared.then(Shared::default) })
    }

    pub(super) fn events(&self) -> &[RecordedEvent] {
        &self.events
    }

    /// Those of its events from number `first` on that are wanted.
    pub(super) fn part(self: Arc<Self>, first: usize, wanted: &Wanted) -> BatchEvents {
        let rest = &self.events[first..];
        if rest.iter().all(|event| wanted.has(event)) {
            let range = first..self.events.len();
            return BatchEvents { page: self, range };
        }
        let Some(shared) = &self.shared else {
            return match Arc::try_unwrap(self) {
                Ok(page) => page.events.into_iter().skip(first).filter(|event| wanted.has(event)).collect(),
                // Another shard of the reader has the same events.
                Err(page) => page.events[first..].iter().filter(|event| wanted.has(event)).cloned().collect(),
            };
        };
        let after = first.checked_sub(1).map(|last| self.events[last].position);
        let mut parts = lock(&shared.parts);
        let page = if let Some((_, page)) = parts.iter().find(|(known, _)| known == wanted) {
            page.clone()
        } else {
            let events = self.events.iter().filter(|event| wanted.has(event)).cloned().collect();
            let page = Self::new(events, true);
            parts.push((wanted.clone(), page.clone()));
            page
        };
        let mut events = BatchEvents { range: 0..page.events.len(), page };
        events.pass(after.unwrap_or_default());
        events
    }
}

impl BatchEvents {
    /// Leaves out those up to `position`.
    pub(crate) fn pass(&mut self, position: Position) {
        let passed = self.iter().take_while(|event| event.position <= position).count();
        self.pass_first(passed);
    }

    /// Leaves out the first `count` of them.
    pub(crate) fn pass_first(&mut self, count: usize) {
        self.range.start = self.range.end.min(self.range.start + count);
    }

    /// The first `count` of them.
    pub(crate) fn first_of(&self, count: usize) -> Self {
        let end = self.range.end.min(self.range.start + count);
        Self { page: self.page.clone(), range: self.range.start..end }
    }

    /// The events, decoded as events of the set `S`: once for all readers that share them. `None` if there is only one reader, or if
    /// the page is too large for its decoded events to be kept.
    pub(crate) async fn decoded<S: EventSet>(&self) -> Option<DecodedEvents<S>> {
        let decoded = self.page.decoded::<S>()?;
        let all = decoded.get_or_init(|| self.page.decode()).await.clone();
        Some(DecodedEvents { all, first: self.range.start })
    }
}

impl Page {
    fn decoded<S: EventSet>(&self) -> Option<Arc<Decoded<S>>> {
        let shared = self.shared.as_ref()?;
        if self.events.iter().map(|event| event.data.payload.len()).sum::<usize>() > MOST_DECODED {
            return None;
        }
        let mut decoded = lock(&shared.decoded);
        let of_kind = decoded.entry(TypeId::of::<S>()).or_insert_with(|| Arc::new(Decoded::<S>::new()));
        of_kind.clone().downcast().ok()
    }

    async fn decode<S: EventSet>(&self) -> Arc<[Option<Recorded<S>>]> {
        let mut decoded = Vec::with_capacity(self.events.len());
        for turn in self.events.chunks(TURN) {
            // What cannot be decoded fails where a reader comes to it, with its own failure policy.
            let decode = |event: &RecordedEvent| caught(|| event.decode().ok().flatten()).ok().flatten();
            decoded.extend(turn.iter().map(decode));
            tokio::task::yield_now().await;
        }
        decoded.into()
    }
}

/// The events of a [`BatchEvents`] with their contents.
pub(crate) struct DecodedEvents<S> {
    all: Arc<[Option<Recorded<S>>]>,
    first: usize,
}

impl<S> DecodedEvents<S> {
    /// That of event number `nth`; `None` where it cannot be decoded, or does not belong to the set.
    pub(crate) fn get(&self, nth: usize) -> Option<&Recorded<S>> {
        self.all.get(self.first + nth)?.as_ref()
    }
}

impl Deref for BatchEvents {
    type Target = [RecordedEvent];

    fn deref(&self) -> &[RecordedEvent] {
        &self.page.events[self.range.clone()]
    }
}

impl From<Vec<RecordedEvent>> for BatchEvents {
    fn from(events: Vec<RecordedEvent>) -> Self {
        Self { range: 0..events.len(), page: Page::new(events, false) }
    }
}

impl FromIterator<RecordedEvent> for BatchEvents {
    fn from_iter<I: IntoIterator<Item = RecordedEvent>>(events: I) -> Self {
        events.into_iter().collect::<Vec<_>>().into()
    }
}

impl fmt::Debug for BatchEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// It shows no events.
impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page of {}", counted(self.events.len(), "event"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
