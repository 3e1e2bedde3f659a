//! Snapshots: one row a stream, read alone or with the events after it.

use async_trait::async_trait;
use es_core::{
    ReadError, StreamId,
    backend::{AggregateStore, Ending, LoadedStream, Snapshot, SnapshotError, SnapshotStore},
};
use sqlx::Row;

use crate::{
    error,
    read::{
        loader::{Load, unread},
        sealed::{open, seal},
    },
    store::PostgresStore,
};

#[async_trait]
impl SnapshotStore for PostgresStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError> {
        let load = || sqlx::query(include_str!("../sql/load_snapshot.sql")).bind(stream.as_str());
        let rows = self.inner.connections.read(load).await.map_err(error::snapshot)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let opened = || {
            let last = Ending { event_id: row.try_get(1)?, recorded_at: row.try_get(3)? };
            Ok(open(stream, row.try_get(0)?, last, row.try_get(2)?))
        };
        opened().map_err(error::snapshot)
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        let save = sqlx::query(include_str!("../sql/save_snapshot.sql"))
            .bind(snapshot.stream.as_str())
            .bind(snapshot.version.to_i64())
            .bind(snapshot.last.event_id)
            .bind(seal(&snapshot))
            .bind(snapshot.last.recorded_at);
        self.inner.connections.execute(save).await.map(drop).map_err(error::snapshot)
    }
}

#[async_trait]
impl AggregateStore for PostgresStore {
    async fn load_stream(&self, stream: &StreamId, snapshots: bool, limit: usize) -> Result<LoadedStream, ReadError> {
        if limit == 0 {
            return Ok(unread());
        }
        self.inner.loader.read(Load { stream: stream.clone(), snapshot: snapshots, limit }).await
    }
}
