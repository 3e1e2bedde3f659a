//! The port of operators.

mod examine;

use std::time::Duration;

use async_trait::async_trait;
use es_core::{
    KeyRange, Position, ReadError, Version,
    backend::{
        Finding, GenerationState, GenerationSummary, Inspect, LeaseSummary, ReadModelError, Reader, ReaderSummary,
        Shard, ShardSummary, StreamSummary,
    },
    error::BoxError,
};
use sqlx::{Row, error::BoxDynError, sqlite::SqliteRow};

use crate::{
    SqliteStore,
    error::Failure,
    holders::{Holder, Holders},
    log::rows_limit,
    rows,
};

#[async_trait]
impl Inspect for SqliteStore {
    async fn list_streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StreamSummary>, ReadError> {
        let (from, inclusive) = match after {
            Some(after) if after >= prefix => (after, false),
            _ => (prefix, true),
        };
        let mut reader = self.connections().reader().await?;
        let query = sqlx::query(include_str!("sql/list_streams.sql"))
            .bind(from)
            .bind(inclusive)
            .bind(KeyRange::prefix(prefix).end())
            .bind(rows_limit(limit));
        let rows = query.fetch_all(reader.connection()).await.map_err(Failure::from)?;
        let streams = rows.iter().map(stream).collect::<Result<_, _>>().map_err(Failure::from)?;
        reader.give_back();
        Ok(streams)
    }

    async fn list_readers(&self) -> Result<Vec<ReaderSummary>, ReadModelError> {
        let mut reader = self.connections().reader().await?;
        let query = sqlx::query(include_str!("sql/list_readers.sql"));
        let rows = query.fetch_all(reader.connection()).await.map_err(Failure::from)?;
        let readers = readers(self.holders(), &rows).map_err(Failure::from)?;
        reader.give_back();
        Ok(readers)
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BoxError> {
        let mut reader = self.connections().reader().await?;
        let findings = examine::all(reader.connection(), self.connections().file().path(), self.holders()).await?;
        reader.give_back();
        Ok(findings)
    }
}

fn stream(row: &SqliteRow) -> Result<StreamSummary, sqlx::Error> {
    Ok(StreamSummary {
        stream: row.try_get::<&str, _>("stream")?.parse().map_err(|reason| damaged("stream", reason))?,
        version: Version::from_i64(row.try_get("version")?),
        position: Position::from_i64(row.try_get("position")?),
        recorded_at: rows::time(row.try_get("recorded_at_us")?),
    })
}

/// The rows of one reader follow each other.
fn readers(holders: &Holders, rows: &[SqliteRow]) -> Result<Vec<ReaderSummary>, sqlx::Error> {
    let mut readers: Vec<ReaderSummary> = Vec::new();
    for row in rows {
        let id: i64 = row.try_get("id")?;
        if readers.last().is_none_or(|last| last.reader.id != id) {
            readers.push(ReaderSummary {
                reader: Reader { id, name: row.try_get("name")? },
                generation: generation(row)?,
                definition: row.try_get("definition")?,
                shards: Vec::new(),
            });
        }
        if let (Some(reader), Some(shard)) = (readers.last_mut(), row.try_get::<Option<&str>, _>("shard")?) {
            reader.shards.push(shard_of(holders, row, id, Shard::from(shard))?);
        }
    }
    for reader in &mut readers {
        reader.shards.sort_unstable_by(|one, other| one.shard.cmp(&other.shard));
    }
    Ok(readers)
}

fn generation(row: &SqliteRow) -> Result<Option<GenerationSummary>, sqlx::Error> {
    let Some(state) = row.try_get::<Option<&str>, _>("state")? else { return Ok(None) };
    let state = GenerationState::from_stored(state);
    let state = state.ok_or_else(|| damaged("state", "a generation has no such state"))?;
    Ok(Some(GenerationSummary { version: row.try_get("version")?, state }))
}

fn shard_of(holders: &Holders, row: &SqliteRow, reader: i64, shard: Shard) -> Result<ShardSummary, sqlx::Error> {
    let holder = Holder {
        reader,
        shard: shard.clone(),
        owner: row.try_get("owner")?,
        process: row.try_get("process")?,
        fencing_token: row.try_get("fencing_token")?,
        beats: row.try_get("beats")?,
        ttl: Duration::from_millis(row.try_get::<i64, _>("ttl_ms")?.unsigned_abs()),
    };
    let lease = match holder.owner {
        // Without the write lock, so a commit in flight may be missed: it is only shown.
        Some(owner) if holders.is_held(&holder) => Some(LeaseSummary {
            owner,
            fencing_token: holder.fencing_token,
            since: rows::time(row.try_get("leased_at_us")?),
        }),
        _ => None,
    };
    let recorded_at: Option<i64> = row.try_get("recorded_at_us")?;
    Ok(ShardSummary {
        shard,
        position: Position::from_i64(row.try_get("position")?),
        recorded_at: recorded_at.map(rows::time),
        lease,
    })
}

fn damaged(column: &str, reason: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: reason.into() }
}
