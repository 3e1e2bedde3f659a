//! Snapshots: one row a stream, read alone or with the events behind it.

use async_trait::async_trait;
use bytes::Bytes;
use es_core::{AggregateStore, LoadedStream, ReadError, Snapshot, SnapshotError, SnapshotStore, StreamId, Version};
use sqlx::{Row, postgres::PgRow};

use crate::{error, store::PostgresStore};

#[async_trait]
impl SnapshotStore for PostgresStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError> {
        let rows = self
            .inner
            .connections
            .read(|| sqlx::query(include_str!("sql/load_snapshot.sql")).bind(stream.as_str()))
            .await
            .map_err(error::snapshot)?;
        // A row with numbers that nobody writes is damaged, and a damaged snapshot is no snapshot (R8).
        Ok(rows.first().and_then(|row| decode(stream, row)))
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        let save = sqlx::query(include_str!("sql/save_snapshot.sql"))
            .bind(snapshot.stream.as_str())
            .bind(snapshot.version.to_i64())
            .bind(snapshot.event_id)
            .bind(i64::from(snapshot.state_version))
            .bind(i64::from(snapshot.checksum))
            .bind(&snapshot.state[..]);
        self.inner.connections.execute(save).await.map(drop).map_err(error::snapshot)
    }
}

/// The snapshot in a row of `load_streams.sql`; `None` when it holds what nobody writes.
pub(crate) fn decode(stream: &StreamId, row: &PgRow) -> Option<Snapshot> {
    Some(Snapshot {
        stream: stream.clone(),
        version: Version::new(row.try_get::<i64, _>(0).ok()?.unsigned_abs()),
        event_id: row.try_get(1).ok()?,
        state_version: u32::try_from(row.try_get::<i64, _>(2).ok()?).ok()?,
        checksum: row.try_get::<&str, _>(3).ok()?.parse().ok()?,
        state: Bytes::copy_from_slice(row.try_get(4).ok()?),
    })
}

#[async_trait]
impl AggregateStore for PostgresStore {
    async fn load_stream(&self, stream: &StreamId, snapshots: bool, limit: usize) -> Result<LoadedStream, ReadError> {
        self.inner.loader.load(stream, snapshots, limit).await
    }
}
