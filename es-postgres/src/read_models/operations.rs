//! What operators do to readers and dead letters.

use async_trait::async_trait;
use bytes::Bytes;
use es_core::{
    Act, ActError, ActRecord, DeadLetter, DeadLetters, LetterPage, Operations, ParkedKey, Position, StoppedAt,
    backend::{Amendment, Exceptions, Extent, ReadModelError, Reader, Shard, check_payload},
};
use sqlx::{
    Decode, Postgres, Row, Type,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use super::{letters, one};
use crate::{error, store::PostgresStore};

#[async_trait]
impl DeadLetters for PostgresStore {
    async fn dead_letters(&self, reader: &str, page: &LetterPage) -> Result<Vec<DeadLetter>, ReadModelError> {
        letters::read(&self.inner.connections, reader, page, None).await
    }

    async fn parked_keys(&self, reader: &str) -> Result<Vec<ParkedKey>, ReadModelError> {
        let query = || sqlx::query(include_str!("../sql/parked_keys.sql")).bind(reader);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        rows.iter().map(parked_key).collect::<Result<_, _>>().map_err(error::read_model)
    }

    async fn request_retry(&self, reader: &str, key: &str, act: &Act) -> Result<(), ActError> {
        let query = sqlx::query(include_str!("../sql/request_retry.sql")).bind(reader).bind(key);
        let is_parked = self.act(query, act).await?;
        let refused = || ActError::NotParked { reader: reader.to_owned(), key: key.to_owned() };
        done(is_parked, refused)
    }

    async fn discard_letters(
        &self,
        reader: &str,
        key: &str,
        position: Option<Position>,
        act: &Act,
    ) -> Result<u64, ActError> {
        let query = sqlx::query(include_str!("../sql/discard_letters.sql"))
            .bind(reader)
            .bind(key)
            .bind(position.map(Position::to_i64));
        let discarded: Option<i64> = self.act(query, act).await?;
        let (reader, key) = (reader.to_owned(), key.to_owned());
        match (discarded, position) {
            (None, _) => Err(ActError::NotParked { reader, key }),
            (Some(0), Some(position)) => Err(ActError::NoLetter { reader, key, position }),
            (Some(discarded), _) => Ok(discarded.unsigned_abs()),
        }
    }

    async fn edit_letter(
        &self,
        reader: &str,
        key: &str,
        position: Position,
        payload: Bytes,
        act: &Act,
    ) -> Result<(), ActError> {
        check_payload(&payload)?;
        let query = sqlx::query(include_str!("../sql/edit_letter.sql"))
            .bind(reader)
            .bind(key)
            .bind(position.to_i64())
            .bind(&payload[..]);
        let is_there = self.act(query, act).await?;
        done(is_there, || ActError::NoLetter { reader: reader.to_owned(), key: key.to_owned(), position })
    }
}

#[async_trait]
impl Operations for PostgresStore {
    async fn pause(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let is_known = self.act(sqlx::query(include_str!("../sql/pause.sql")).bind(reader), act).await?;
        done(is_known, || ActError::UnknownReader(reader.to_owned()))
    }

    async fn resume(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let was_paused = self.act(sqlx::query(include_str!("../sql/resume.sql")).bind(reader), act).await?;
        done(was_paused, || ActError::NotPaused(reader.to_owned()))
    }

    async fn skip(
        &self,
        reader: &str,
        shard: &Shard,
        position: Position,
        event_id: Uuid,
        act: &Act,
    ) -> Result<(), ActError> {
        let query = sqlx::query(include_str!("../sql/skip.sql"))
            .bind(reader)
            .bind(shard.to_string())
            .bind(position.to_i64())
            .bind(event_id);
        let is_there = self.act(query, act).await?;
        let refused = || ActError::NotStopped { reader: reader.to_owned(), shard: shard.clone(), position, event_id };
        done(is_there, refused)
    }

    async fn cancel_rebuild(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let was_building = self.act(sqlx::query(include_str!("../sql/cancel_rebuild.sql")).bind(reader), act).await?;
        done(was_building, || ActError::NotBuilding(reader.to_owned()))?;
        self.sweep();
        Ok(())
    }

    async fn stops(&self, reader: &str) -> Result<Vec<StoppedAt>, ReadModelError> {
        let query = || sqlx::query(include_str!("../sql/stops.sql")).bind(reader);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        rows.iter().map(stopped_at).collect::<Result<_, _>>().map_err(error::read_model)
    }

    async fn exceptions(&self, reader: &Reader) -> Result<Exceptions, ReadModelError> {
        let query = || sqlx::query(include_str!("../sql/exceptions.sql")).bind(reader.id);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        let mut exceptions = Exceptions::default();
        for row in &rows {
            except(&mut exceptions, row).map_err(error::read_model)?;
        }
        Ok(exceptions)
    }

    async fn record(&self, what: &str, reader: &str, act: &Act) -> Result<(), ReadModelError> {
        let query = sqlx::query(include_str!("../sql/record_act.sql")).bind(what).bind(reader);
        let query = query.bind(act.actor()).bind(act.reason());
        self.inner.connections.execute(query).await.map(drop).map_err(error::read_model)
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, ReadModelError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = || sqlx::query(include_str!("../sql/acts.sql")).bind(before).bind(limit);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        rows.iter().map(act_record).collect::<Result<_, _>>().map_err(error::read_model)
    }
}

impl PostgresStore {
    /// What the function of `query` returns for `act`.
    async fn act<'q, T>(&self, query: Query<'q, Postgres, PgArguments>, act: &'q Act) -> Result<T, ReadModelError>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let query = query.bind(act.actor()).bind(act.reason());
        let rows = self.inner.connections.write(query).await.map_err(error::read_model)?;
        one(&rows).and_then(|row| row.try_get(0)).map_err(error::read_model)
    }
}

fn done(is_done: bool, refused: impl FnOnce() -> ActError) -> Result<(), ActError> {
    if is_done { Ok(()) } else { Err(refused()) }
}

fn parked_key(row: &PgRow) -> Result<ParkedKey, sqlx::Error> {
    Ok(ParkedKey {
        reader: row.try_get(0)?,
        shard: Shard::from(row.try_get::<&str, _>(1)?),
        key: row.try_get(2)?,
        is_retry_requested: row.try_get(3)?,
        letters: row.try_get::<i64, _>(4)?.unsigned_abs(),
    })
}

/// Adds what `row` tells.
fn except(exceptions: &mut Exceptions, row: &PgRow) -> Result<(), sqlx::Error> {
    let (key, shard): (&str, &str) = (row.try_get("key")?, row.try_get("shard")?);
    let position = Position::from_i64(row.try_get("position")?);
    match row.try_get("kind")? {
        "parked" => exceptions.park(key, position),
        "stopped" => exceptions.stop(Shard::from(shard), position),
        _ => {
            let extent = if key.is_empty() { Extent::Shard(Shard::from(shard)) } else { Extent::Key(key.to_owned()) };
            let payload = row.try_get::<Option<Vec<u8>>, _>("payload")?.map(Bytes::from);
            exceptions.amend(Amendment { position, extent, payload });
        }
    }
    Ok(())
}

fn stopped_at(row: &PgRow) -> Result<StoppedAt, sqlx::Error> {
    Ok(StoppedAt {
        reader: row.try_get(0)?,
        shard: Shard::from(row.try_get::<&str, _>(1)?),
        position: Position::from_i64(row.try_get(2)?),
        event_id: row.try_get(3)?,
        recorded_at: row.try_get(4)?,
        cause: row.try_get(5)?,
        at: row.try_get(6)?,
    })
}

fn act_record(row: &PgRow) -> Result<ActRecord, sqlx::Error> {
    Ok(ActRecord {
        id: row.try_get(0)?,
        at: row.try_get(1)?,
        actor: row.try_get(2)?,
        reason: row.try_get(3)?,
        what: row.try_get(4)?,
        reader: row.try_get(5)?,
        target: row.try_get(6)?,
        position: row.try_get::<Option<i64>, _>(7)?.map(Position::from_i64),
    })
}
