//! The port of operators.

mod examine;

use async_trait::async_trait;
use es_core::{
    KeyRange, Position, ReadError, Version,
    backend::{
        Finding, GenerationState, GenerationSummary, Inspect, LeaseSummary, ReadModelError, Reader, ReaderSummary,
        Shard, ShardSummary, StreamSummary,
    },
    error::BoxError,
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{error, read_models::Bounds, store::PostgresStore};

#[async_trait]
impl Inspect for PostgresStore {
    async fn list_streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StreamSummary>, ReadError> {
        let range = KeyRange { after: after.map(str::to_owned), ..KeyRange::prefix(prefix) };
        let Bounds { from, inclusive, below } = Bounds::of(&range);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let list =
            || sqlx::query(include_str!("sql/list_streams.sql")).bind(&from).bind(inclusive).bind(&below).bind(limit);
        let rows = self.inner.connections.read(list).await.map_err(error::read)?;
        rows.iter().map(stream).collect::<Result<_, _>>().map_err(error::read)
    }

    async fn list_readers(&self) -> Result<Vec<ReaderSummary>, ReadModelError> {
        let list = || sqlx::query(include_str!("sql/list_readers.sql"));
        let rows = self.inner.connections.read(list).await.map_err(error::read_model)?;
        readers(&rows).map_err(error::read_model)
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BoxError> {
        examine::all(&self.inner.connections, &self.inner.schema).await.map_err(error::store)
    }
}

fn stream(row: &PgRow) -> Result<StreamSummary, sqlx::Error> {
    Ok(StreamSummary {
        stream: row.try_get::<&str, _>(0)?.parse().map_err(|reason| sqlx::Error::Decode(Box::new(reason)))?,
        version: Version::from_i64(row.try_get(1)?),
        position: Position::from_i64(row.try_get(2)?),
        recorded_at: row.try_get(3)?,
    })
}

/// The rows of one reader follow each other.
fn readers(rows: &[PgRow]) -> Result<Vec<ReaderSummary>, sqlx::Error> {
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
            reader.shards.push(shard_of(row, shard)?);
        }
    }
    for reader in &mut readers {
        reader.shards.sort_unstable_by(|one, other| one.shard.cmp(&other.shard));
    }
    Ok(readers)
}

fn generation(row: &PgRow) -> Result<Option<GenerationSummary>, sqlx::Error> {
    let Some(state) = row.try_get::<Option<&str>, _>("state")? else { return Ok(None) };
    let version = row.try_get::<i64, _>("version")?;
    let version = u32::try_from(version).map_err(|reason| sqlx::Error::Decode(reason.into()))?;
    let state = GenerationState::from_stored(state);
    let state = state.ok_or_else(|| sqlx::Error::Protocol("a generation has no such state".into()))?;
    Ok(Some(GenerationSummary { version, state }))
}

fn shard_of(row: &PgRow, shard: &str) -> Result<ShardSummary, sqlx::Error> {
    let owner: Option<Uuid> = row.try_get("owner")?;
    let lease = match owner {
        Some(owner) => {
            Some(LeaseSummary { owner, fencing_token: row.try_get("fencing_token")?, since: row.try_get("leased_at")? })
        }
        None => None,
    };
    Ok(ShardSummary {
        shard: Shard::from(shard),
        position: Position::from_i64(row.try_get("position")?),
        recorded_at: row.try_get("recorded_at")?,
        lease,
    })
}
