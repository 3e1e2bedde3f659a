//! `SnapshotStore`.

use async_trait::async_trait;
use es_core::{
    StreamId, Version,
    backend::{AggregateStore, Ending, Snapshot, SnapshotError, SnapshotStore},
};
use sqlx::{Row, sqlite::SqliteRow};

use crate::{SqliteStore, error::Failure, rows};

impl AggregateStore for SqliteStore {}

#[async_trait]
impl SnapshotStore for SqliteStore {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError> {
        let query = sqlx::query(include_str!("sql/load_snapshot.sql")).bind(stream.as_str());
        let mut reader = self.connections().reader().await?;
        let row = query.fetch_optional(reader.connection()).await.map_err(Failure::from)?;
        reader.give_back();
        // A row that cannot be decoded counts as no snapshot (R8).
        Ok(row.and_then(|row| snapshot(stream, &row).ok()))
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        let saved = self.connections().write(move |connection| {
            Box::pin(async move {
                sqlx::query(include_str!("sql/save_snapshot.sql"))
                    .bind(snapshot.stream.as_str())
                    .bind(snapshot.version.to_i64())
                    .bind(snapshot.last.event_id)
                    .bind(snapshot.state_version)
                    .bind(&*snapshot.state)
                    .bind(snapshot.checksum)
                    .bind(snapshot.last.recorded_at.map(|recorded_at| recorded_at.timestamp_micros()))
                    .execute(connection)
                    .await?;
                Ok(())
            })
        });
        Ok(saved.await?)
    }
}

fn snapshot(stream: &StreamId, row: &SqliteRow) -> Result<Snapshot, sqlx::Error> {
    let recorded_at = row.try_get::<Option<i64>, _>("recorded_at_us")?.map(rows::time);
    Ok(Snapshot {
        stream: stream.clone(),
        version: Version::from_i64(row.try_get("version")?),
        last: Ending { event_id: row.try_get("event_id")?, recorded_at },
        state_version: row.try_get("state_version")?,
        state: row.try_get::<Vec<u8>, _>("state")?.into(),
        checksum: row.try_get("checksum")?,
    })
}
