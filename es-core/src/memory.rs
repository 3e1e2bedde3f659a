//! Every port in memory: the reference that the conformance suites are checked against, and a
//! store for tests. It keeps every promise but durability.

mod clock;
mod event_store;
mod fields;
mod inline;
mod inspect;
mod leases;
mod log;
mod operations;
mod read_model_store;
mod read_models;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    head::KnownHead,
    read::{inline::InlineModels, known_progress::KnownProgress},
    stream::{Position, StreamId},
    telemetry::AppendMeter,
    write::snapshot::{AggregateStore, Snapshot, SnapshotError, SnapshotStore},
};

/// An event store, snapshot store and read model store in memory. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    head: KnownHead,
    progress: KnownProgress,
    pub(crate) inline: InlineModels,
    meter: Arc<AppendMeter>,
}

#[derive(Debug, Default)]
struct State {
    log: log::Log,
    snapshots: HashMap<StreamId, Snapshot>,
    read_models: read_models::ReadModels,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose events are recorded at the times that `now` returns, instead of the system's. A test uses the
    /// store of a `testing::TestClock`.
    pub fn with_clock(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        let log = log::Log { clock: clock::Clock(Arc::new(now)), ..log::Log::default() };
        Self { state: Arc::new(Mutex::new(State { log, ..State::default() })), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl State {
    fn head(&self) -> Position {
        Position::new(self.log.events.len() as u64)
    }
}

impl AggregateStore for MemoryStore {}

#[async_trait]
impl SnapshotStore for MemoryStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError> {
        Ok(self.lock().snapshots.get(stream).cloned())
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        self.lock().snapshots.insert(snapshot.stream.clone(), snapshot);
        Ok(())
    }
}
