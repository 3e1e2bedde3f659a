//! An aggregate's state from its events: a snapshot or a known state, and the events after it.

use crate::{
    event::{Event, EventSet, RecordedEvent},
    schema::DecodeError,
    stream::{Expected, InvalidStream, StreamId, Version},
    witness::{Ending, Witness},
    write::{
        aggregate::Aggregate,
        snapshot::{AggregateStore, Folded, LoadedStream},
        store::{ReadError, is_last_page},
    },
};

/// How many events are read at once while an aggregate is loaded. (es-postgres returns them in eight rows. A thousand events, a
/// usual number in measurements, fit into one page.)
const PAGE: usize = 1_024;

/// An aggregate's state at a version.
#[derive(Debug, Clone, Default)]
pub struct Loaded<A> {
    /// The fold of its events.
    pub state: A,
    /// The number of these events.
    pub version: Version,
    /// The last of them; `None` where there are none.
    last: Option<Ending>,
    /// Whether an upcaster was applied to one of them.
    folded: Folded,
    size: Size,
}

/// The estimated size of a state, from the bytes that it was folded from.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// Its snapshot, or its JSON when it was last looked at.
    known: usize,
    /// The payloads that were folded since.
    folded: usize,
}

/// How many bytes may be folded into a small state before its size is measured again.
const FOLDED_BYTES: usize = 64 * 1024;

impl<A: Aggregate> Loaded<A> {
    /// Folds an event, which is now the `last` one and whose payload has `bytes` bytes.
    pub(super) fn apply(&mut self, event: &A::Event, last: Ending, bytes: usize) {
        self.state.apply(event);
        self.version = self.version.next();
        self.last = Some(last);
        self.size.folded += bytes;
    }

    /// An estimate of the memory that the state takes: the bytes that it was folded from. A state need not grow with its events, so
    /// its JSON is measured again when more was folded into it than its size was.
    pub(super) fn bytes(&self) -> usize {
        self.size.known + self.size.folded
    }

    /// Measures the size again if the estimate may be wrong.
    pub(super) fn measured(mut self) -> Self {
        if self.size.folded > self.size.known.max(FOLDED_BYTES) {
            let mut json = Counted(0);
            let known = serde_json::to_writer(&mut json, &self.state).map_or(self.bytes(), |()| json.0);
            self.size = Size { known, folded: 0 };
        }
        self
    }

    /// The last of its events.
    pub(super) fn last(&self) -> Option<Ending> {
        self.last
    }

    /// Whether an upcaster was applied to one of them.
    pub(super) fn folded(&self) -> Folded {
        self.folded
    }

    /// What an append that was decided on this state expects.
    pub(super) fn expected(&self) -> Expected {
        match self.last {
            Some(last) => Expected::Last { version: self.version, last },
            None => Expected::NoStream,
        }
    }

    fn fold(&mut self, event: &RecordedEvent) -> Result<(), LoadError> {
        if event.version != self.version.next() {
            return Err(LoadError::Gap { stream: event.stream.clone(), after: self.version, found: event.version });
        }
        let decoded = A::Event::from_recorded(event).map_err(|reason| DecodeError::new(event, reason))?;
        if let Some(decoded) = decoded {
            self.folded = self.folded.with(&decoded, &event.data);
            self.apply(&decoded, Ending::read(Witness::of(event)), event.data.payload.len());
        }
        Ok(())
    }

    /// The events after this state in `page`, which begins with the last event of the state if it is of the same history.
    fn tail<'a>(&self, page: &'a [RecordedEvent]) -> Option<&'a [RecordedEvent]> {
        let Some(last) = self.last else { return (self.version == Version::ZERO).then_some(page) };
        let (first, tail) = page.split_first()?;
        (first.version == self.version && last.is(&Witness::of(first))).then_some(tail)
    }

    fn fold_all(&mut self, events: &[RecordedEvent]) -> Result<(), LoadError> {
        events.iter().try_for_each(|event| self.fold(event))
    }
}

/// Counts what is written to it.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The current state, from a snapshot (if snapshots are used) and the events after it.
pub(super) async fn load<A: Aggregate>(
    store: &dyn AggregateStore,
    stream: &StreamId,
    snapshots: bool,
) -> Result<Loaded<A>, LoadError> {
    let LoadedStream { snapshot, events, last, more } = store.load_stream(stream, snapshots, PAGE).await?;
    let opened: Option<Loaded<A>> = match &snapshot {
        None => Some(Loaded::default()),
        Some(snapshot) => snapshot.open().filter(|_| snapshot.stream == *stream).map(|(state, folded)| Loaded {
            state,
            version: snapshot.version,
            last: Some(snapshot.last),
            folded,
            size: Size { known: snapshot.state.len(), folded: 0 },
        }),
    };
    // A snapshot that is damaged or was written by other code is ignored (R8).
    let Some(mut loaded) = opened else { return catch_up(store, stream, Loaded::default()).await };
    for data in &events {
        let Ok(event) = A::Event::decode(&data.name, data.schema_version, &data.payload) else {
            // The whole stream is read again, so the error names the place (R14), unless the history is another one by now.
            loaded.fold_all(&store.read_stream(stream, loaded.version, 1).await?)?;
            return catch_up(store, stream, Loaded::default()).await;
        };
        loaded.folded = loaded.folded.with(&event, data);
        loaded.state.apply(&event);
        loaded.size.folded += data.payload.len();
        loaded.version = loaded.version.next();
    }
    loaded.last = last.map(Ending::read).or(loaded.last);
    if more { catch_up(store, stream, loaded).await } else { Ok(loaded) }
}

/// The current state, from the earlier state `known`.
///
/// Each page begins with the last event that is known, because a server that lacks the end of the log may take over also between
/// two pages. A state of another history is ignored (R8).
pub(super) async fn catch_up<A: Aggregate>(
    store: &dyn AggregateStore,
    stream: &StreamId,
    mut known: Loaded<A>,
) -> Result<Loaded<A>, LoadError> {
    loop {
        let after = known.version.get().saturating_sub(1);
        let page = store.read_stream(stream, Version::new(after), PAGE).await?;
        let Some(tail) = known.tail(&page) else {
            known = Loaded::default();
            continue;
        };
        known.fold_all(tail)?;
        if is_last_page(&page, PAGE) {
            return Ok(known);
        }
    }
}

/// The state as of `version`; `None` when the stream has fewer events.
pub(super) async fn load_at<A: Aggregate>(
    store: &dyn AggregateStore,
    stream: &StreamId,
    version: Version,
) -> Result<Option<Loaded<A>>, LoadError> {
    let mut loaded = Loaded::default();
    while loaded.version < version {
        let after = loaded.version.get().saturating_sub(1);
        let missing = usize::try_from(version.get() - after).unwrap_or(PAGE);
        let page = store.read_stream(stream, Version::new(after), missing.min(PAGE)).await?;
        let Some(tail) = loaded.tail(&page) else {
            loaded = Loaded::default();
            continue;
        };
        if tail.is_empty() {
            return Ok(None);
        }
        loaded.fold_all(tail)?;
    }
    Ok(Some(loaded))
}

/// Why an aggregate could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The id cannot be part of a stream's name.
    #[error("the aggregate's id is invalid")]
    Stream(#[from] InvalidStream),
    /// The store failed.
    #[error("the stream cannot be read")]
    Read(#[from] ReadError),
    /// An event cannot be read (R14).
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The stream is not contiguous: an event is missing where density promises one (R3).
    #[error("stream {stream} has a gap: version {found} follows {after}")]
    Gap {
        /// Which stream.
        stream: StreamId,
        /// The last version before the gap.
        after: Version,
        /// The first version after it.
        found: Version,
    },
}

impl LoadError {
    /// Whether loading again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Read(error) if error.is_transient())
    }
}
