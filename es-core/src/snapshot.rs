//! Cached folds of a stream's prefix, and how they are told from false ones.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    error::BoxError,
    event::{EventData, RecordedEvent},
    store::{EventStore, ReadError},
    stream::{StreamId, Version},
};

/// Keeps one snapshot a stream. Losing any of them costs time and nothing else (R8).
#[async_trait]
pub trait SnapshotStore: fmt::Debug + Send + Sync + 'static {
    /// The snapshot of `stream`.
    ///
    /// # Errors
    /// [`SnapshotError`].
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError>;

    /// Keeps `snapshot` in place of whatever is there for its stream. (Of two savers the later
    /// one wins, even with an older version: so a damaged snapshot heals.)
    ///
    /// # Errors
    /// [`SnapshotError`].
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError>;
}

/// What a [`Repository`](crate::Repository) needs: events and snapshots side by side.
///
/// The default reads one after the other; a store that can answer both at once does, since loading an
/// aggregate is little but round trips.
#[async_trait]
pub trait AggregateStore: EventStore + SnapshotStore {
    /// The snapshot of `stream`, if `snapshots` are wanted, and up to `limit` events behind it; without one,
    /// from the start.
    ///
    /// A snapshot only saves time: one that cannot be had, or whose last event is not the stream's event of
    /// that version, is left out (R8).
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
            if events.first().is_some_and(|witness| witness.id == snapshot.event_id) {
                events.remove(0);
                return Ok(LoadedStream::of(Some(snapshot), events, limit));
            }
        }
        Ok(LoadedStream::of(None, self.read_stream(stream, Version::ZERO, limit).await?, limit))
    }
}

/// What [`AggregateStore::load_stream`] returns: what an aggregate is folded from, and no more.
#[derive(Debug, Clone, Default)]
pub struct LoadedStream {
    /// The snapshot.
    pub snapshot: Option<Snapshot>,
    /// The events behind it, without a gap.
    pub events: Vec<EventData>,
    /// The id of the last of them; if there are more it may be missing.
    pub last: Option<Uuid>,
    /// Whether there may be more events. (A store may return fewer than the limit.)
    pub more: bool,
}

impl LoadedStream {
    /// `events` behind `snapshot`, of which there may be more if there are `limit`.
    pub fn of(snapshot: Option<Snapshot>, events: Vec<RecordedEvent>, limit: usize) -> Self {
        let (last, more) = (events.last().map(|event| event.id), events.len() >= limit);
        Self { snapshot, events: events.into_iter().map(|event| event.data).collect(), last, more }
    }
}

/// Why a snapshot could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot store failed")]
pub struct SnapshotError(#[source] pub BoxError);

/// A cached state, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose state.
    pub stream: StreamId,
    /// After how many events.
    pub version: Version,
    /// The last of these events: tells a snapshot of another history, for example one that
    /// survived the restore of an older log.
    pub event_id: Uuid,
    /// [`Aggregate::STATE_VERSION`] of the code that wrote it.
    pub state_version: u32,
    /// The state as JSON.
    pub state: Bytes,
    /// CRC-32 over all of the above.
    pub checksum: u32,
}

impl Snapshot {
    /// The snapshot of `state`; `None` when it cannot be written as JSON, since a snapshot is
    /// only ever a saving.
    pub fn of<A: Aggregate>(stream: StreamId, version: Version, event_id: Uuid, state: &A) -> Option<Self> {
        let state = serde_json::to_vec(state).ok()?.into();
        let mut snapshot = Self { stream, version, event_id, state_version: A::STATE_VERSION, state, checksum: 0 };
        snapshot.checksum = snapshot.sum();
        Some(snapshot)
    }

    /// The state; `None` when the snapshot is damaged or was written by other code (R8).
    pub fn open<A: Aggregate>(&self) -> Option<A> {
        if self.state_version != A::STATE_VERSION || self.checksum != self.sum() {
            return None;
        }
        serde_json::from_slice(&self.state).ok()
    }

    fn sum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.stream.as_str().as_bytes());
        hasher.update(&self.version.get().to_be_bytes());
        hasher.update(self.event_id.as_bytes());
        hasher.update(&self.state_version.to_be_bytes());
        hasher.update(&self.state);
        hasher.finalize()
    }
}
