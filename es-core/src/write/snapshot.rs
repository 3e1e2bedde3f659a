//! Cached folds of the beginning of a stream, and how wrong ones are recognised.

mod program;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    codec,
    counted::counted,
    error::{BoxError, StoreMoved},
    event::{Event, EventData, RecordedEvent},
    stream::{StreamId, Version},
    witness::{Ending, Witness},
    write::{
        aggregate::Aggregate,
        store::{EventStore, ReadError, is_last_page},
    },
};

/// Keeps one snapshot for each stream. A lost snapshot costs time and nothing else (R8).
#[async_trait]
pub trait SnapshotStore: fmt::Debug + Send + Sync + 'static {
    /// The snapshot of `stream`.
    ///
    /// # Errors
    /// [`SnapshotError`].
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError>;

    /// Keeps `snapshot` and replaces an existing one of its stream. (The later of two callers wins, also with an older version,
    /// so a damaged snapshot is replaced.)
    ///
    /// # Errors
    /// [`SnapshotError`].
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError>;
}

#[async_trait]
impl<T: SnapshotStore + ?Sized> SnapshotStore for Arc<T> {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError> {
        (**self).load_snapshot(stream).await
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        (**self).save_snapshot(snapshot).await
    }
}

/// What a [`Repository`](crate::Repository) needs: events and snapshots.
///
/// The default reads the snapshot first and then the events. A store that can return both in one round trip does so, since round
/// trips take most of the time of a load.
#[async_trait]
pub trait AggregateStore: EventStore + SnapshotStore {
    /// The snapshot of `stream`, if `snapshots` is true, and up to `limit` events after it; without a snapshot, from the first
    /// event.
    ///
    /// A snapshot only saves time. If it cannot be read, or its last event is not the stream's event of that version, it is left
    /// out (R8).
    ///
    /// # Errors
    /// [`ReadError`] when the events cannot be read.
    async fn load_stream(&self, stream: &StreamId, snapshots: bool, limit: usize) -> Result<LoadedStream, ReadError> {
        let snapshot = if snapshots { self.load_snapshot(stream).await } else { Ok(None) };
        let snapshot = snapshot.unwrap_or_else(|error| {
            tracing::warn!(%stream, error = &error as &dyn std::error::Error, "cannot load the snapshot");
            None
        });
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.version > Version::ZERO) {
            let before = Version::new(snapshot.version.get() - 1);
            let mut events = self.read_stream(stream, before, limit.saturating_add(1)).await?;
            let more = !is_last_page(&events, limit.saturating_add(1));
            if events.first().is_some_and(|event| snapshot.last.is(&Witness::of(event))) {
                events.remove(0);
                return Ok(LoadedStream::of(Some(snapshot), events, more));
            }
        }
        let events = self.read_stream(stream, Version::ZERO, limit).await?;
        let more = !is_last_page(&events, limit);
        Ok(LoadedStream::of(None, events, more))
    }
}

#[async_trait]
impl<T: AggregateStore + ?Sized> AggregateStore for Arc<T> {
    async fn load_stream(&self, stream: &StreamId, snapshots: bool, limit: usize) -> Result<LoadedStream, ReadError> {
        (**self).load_stream(stream, snapshots, limit).await
    }
}

/// What [`AggregateStore::load_stream`] returns: the input of the fold of an aggregate.
#[derive(Debug, Clone, Default)]
pub struct LoadedStream {
    /// The snapshot.
    pub snapshot: Option<Snapshot>,
    /// The events after it, without a gap.
    pub events: Vec<EventData>,
    /// The last of them; if there are none, it may be that of the snapshot.
    pub last: Option<Witness>,
    /// Whether there may be more events. (A store may return fewer than the limit.)
    pub more: bool,
}

impl LoadedStream {
    /// `events` after `snapshot`.
    pub fn of(snapshot: Option<Snapshot>, events: Vec<RecordedEvent>, more: bool) -> Self {
        let last = events.last().map(Witness::of);
        Self { snapshot, events: events.into_iter().map(|event| event.data).collect(), last, more }
    }
}

/// Why a snapshot could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot store failed")]
pub struct SnapshotError(#[source] pub BoxError);

impl SnapshotError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        !StoreMoved::is_in(&self.0)
    }
}

/// A cached state, as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The stream whose state it is.
    pub stream: StreamId,
    /// The version of the stream in this state.
    pub version: Version,
    /// The event of that version. It shows whether the snapshot is of another history, for example after the restore of an older
    /// log.
    pub last: Ending,
    /// [`Aggregate::STATE_VERSION`] of the code that wrote it.
    pub state_version: u32,
    /// The state as JSON.
    pub state: Bytes,
    /// CRC-32 over all fields above but the time in `last`, which must be that of the stream's event. It also covers the names and
    /// schema versions that the code knows, and for a state that was [`Folded::Upcast`] the whole program.
    pub checksum: u32,
}

/// The kind of events from which a state was folded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Folded {
    /// Events as they were written.
    #[default]
    AsWritten,
    /// At least one event was upcast. A corrected upcaster changes the state, and only the program shows that it was corrected. So
    /// the snapshot is valid for this program only.
    Upcast,
}

impl Folded {
    /// The kind after `event`, which was stored as `data`.
    pub(crate) fn with<E: Event>(self, event: &E, data: &EventData) -> Self {
        let schema = event.schema();
        let as_written = schema.version == data.schema_version && *schema.name == *data.name;
        if as_written { self } else { Self::Upcast }
    }
}

impl Snapshot {
    /// The snapshot of `state`. `None` when it would be read back as another state, or must be bound to the program and the
    /// program cannot be identified. Then there is no snapshot, which only costs time.
    pub fn of<A: Aggregate>(
        stream: StreamId,
        version: Version,
        last: Ending,
        state: &A,
        folded: Folded,
    ) -> Option<Self> {
        let program = match folded {
            Folded::AsWritten => None,
            Folded::Upcast => Some(program::mark()?),
        };
        let state = codec::encode("snapshot", state).ok()?;
        let mut snapshot = Self { stream, version, last, state_version: A::STATE_VERSION, state, checksum: 0 };
        snapshot.checksum = snapshot.sum::<A>(program);
        Some(snapshot)
    }

    /// The state and its kind; `None` when the snapshot is damaged or was written by other code (R8).
    pub fn open<A: Aggregate>(&self) -> Option<(A, Folded)> {
        if self.state_version != A::STATE_VERSION {
            return None;
        }
        let folded = if self.checksum == self.sum::<A>(None) {
            Folded::AsWritten
        } else if self.checksum == self.sum::<A>(Some(program::mark()?)) {
            Folded::Upcast
        } else {
            return None;
        };
        Some((codec::decode(&self.state).ok()?, folded))
    }

    fn sum<A: Aggregate>(&self, program: Option<u64>) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for schema in A::Event::SCHEMAS {
            hasher.update(schema.name.as_bytes());
            hasher.update(&schema.version.to_be_bytes());
        }
        if let Some(program) = program {
            hasher.update(&program.to_be_bytes());
        }
        hasher.update(self.stream.as_str().as_bytes());
        hasher.update(&self.version.get().to_be_bytes());
        hasher.update(self.last.event_id.as_bytes());
        hasher.update(&self.state_version.to_be_bytes());
        hasher.update(&self.state);
        hasher.finalize()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, version, state_version, state, .. } = self;
        // The state may be large, or hold personal data.
        write!(
            f,
            "snapshot of {stream} at version {version} (state version {state_version}, {})",
            counted(state.len(), "byte")
        )
    }
}
