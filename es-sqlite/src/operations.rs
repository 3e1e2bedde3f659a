//! What operators do to readers and dead letters, and the record of it.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use es_core::{
    Act, ActError, ActRecord, DeadLetter, DeadLetters, LetterPage, Operations, ParkedKey, Pause, Position,
    RecordedEvent, StoppedAt,
    backend::{
        Amendment, Changes, Exceptions, Extent, GenerationState, Lease, ReadModelError, Reader, Shard, check_payload,
    },
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use crate::{SqliteStore, error::Failure, generations, letters::pause, log::rows_limit, rows};

#[async_trait]
impl DeadLetters for SqliteStore {
    async fn dead_letters(&self, reader: &str, page: &LetterPage) -> Result<Vec<DeadLetter>, ReadModelError> {
        self.dead_letters_of(reader, page, None).await
    }

    async fn parked_keys(&self, reader: &str) -> Result<Vec<ParkedKey>, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let query = sqlx::query(include_str!("sql/parked_keys.sql")).bind(reader);
        let rows = query.fetch_all(connection.connection()).await.map_err(Failure::from)?;
        connection.give_back();
        Ok(rows.iter().map(parked_key).collect::<Result<_, _>>().map_err(Failure::from)?)
    }

    async fn request_retry(&self, reader: &str, key: &str, act: &Act) -> Result<(), ActError> {
        let noted = Note::new("retry", reader, Some(key), None, act);
        let (owner, parked) = (reader.to_owned(), key.to_owned());
        let requested = self.connections().write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query(include_str!("sql/request_retry.sql")).bind(&owner).bind(&parked);
                let requested = query.execute(&mut *connection).await?.rows_affected() > 0;
                noted.write_if(requested, connection).await
            })
        });
        done(requested.await?, || ActError::NotParked { reader: reader.to_owned(), key: key.to_owned() })
    }

    async fn discard_letters(
        &self,
        reader: &str,
        key: &str,
        position: Option<Position>,
        act: &Act,
    ) -> Result<u64, ActError> {
        let noted = Note::new("discard", reader, Some(key), position, act);
        let (reader, key) = (reader.to_owned(), key.to_owned());
        let (owner, parked) = (reader.clone(), key.clone());
        let discarded = self.connections().write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query(include_str!("sql/is_parked.sql")).bind(&owner).bind(&parked);
                if query.fetch_optional(&mut *connection).await?.is_none() {
                    return Ok(None);
                }
                amend_letters(connection, &owner, &parked, position, None).await?;
                let query = sqlx::query(include_str!("sql/discard_letters.sql"))
                    .bind(&owner)
                    .bind(&parked)
                    .bind(position.map(Position::to_i64));
                let discarded = query.execute(&mut *connection).await?.rows_affected();
                let query = sqlx::query(include_str!("sql/retry_without_letters.sql")).bind(&owner).bind(&parked);
                query.execute(&mut *connection).await?;
                noted.write_if(discarded > 0 || position.is_none(), connection).await?;
                Ok(Some(discarded))
            })
        });
        match (discarded.await?, position) {
            (None, _) => Err(ActError::NotParked { reader, key }),
            (Some(0), Some(position)) => Err(ActError::NoLetter { reader, key, position }),
            (Some(discarded), _) => Ok(discarded),
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
        let noted = Note::new("edit", reader, Some(key), Some(position), act);
        let (owner, parked) = (reader.to_owned(), key.to_owned());
        let edited = self.connections().write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query(include_str!("sql/edit_letter.sql"))
                    .bind(&owner)
                    .bind(&parked)
                    .bind(position.to_i64())
                    .bind(&payload[..]);
                let edited = query.execute(&mut *connection).await?.rows_affected() > 0;
                amend_letters(connection, &owner, &parked, Some(position), Some(&payload)).await?;
                noted.write_if(edited, connection).await
            })
        });
        done(edited.await?, || ActError::NoLetter { reader: reader.to_owned(), key: key.to_owned(), position })
    }
}

#[async_trait]
impl Operations for SqliteStore {
    async fn pause(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let noted = Note::new("pause", reader, None, None, act);
        let (name, act) = (reader.to_owned(), act.clone());
        let paused = self.connections().write(move |connection| {
            Box::pin(async move {
                let known = sqlx::query(include_str!("sql/is_reader.sql")).bind(&name);
                if known.fetch_optional(&mut *connection).await?.is_none() {
                    return Ok(false);
                }
                let query = sqlx::query(include_str!("sql/pause.sql")).bind(&name).bind(act.actor());
                query.bind(act.reason()).bind(now()).execute(&mut *connection).await?;
                noted.write_if(true, connection).await
            })
        });
        done(paused.await?, || ActError::UnknownReader(reader.to_owned()))
    }

    async fn resume(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let (noted, name) = (Note::new("resume", reader, None, None, act), reader.to_owned());
        let resumed = self.connections().write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query(include_str!("sql/resume.sql")).bind(&name);
                let resumed = query.execute(&mut *connection).await?.rows_affected() > 0;
                noted.write_if(resumed, connection).await
            })
        });
        done(resumed.await?, || ActError::NotPaused(reader.to_owned()))
    }

    async fn skip(
        &self,
        reader: &str,
        shard: &Shard,
        position: Position,
        event_id: Uuid,
        act: &Act,
    ) -> Result<(), ActError> {
        let place = shard.to_string();
        let (noted, name) = (Note::new("skip", reader, Some(&place), Some(position), act), reader.to_owned());
        let skipped = self.connections().write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query(include_str!("sql/amend_skip.sql")).bind(&name).bind(&place);
                query.bind(position.to_i64()).bind(event_id).execute(&mut *connection).await?;
                let query = sqlx::query(include_str!("sql/skip.sql"))
                    .bind(&name)
                    .bind(&place)
                    .bind(position.to_i64())
                    .bind(event_id);
                let skipped = query.execute(&mut *connection).await?.rows_affected() > 0;
                noted.write_if(skipped, connection).await
            })
        });
        let refused = || ActError::NotStopped { reader: reader.to_owned(), shard: shard.clone(), position, event_id };
        done(skipped.await?, refused)
    }

    async fn cancel_rebuild(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let (noted, name) = (Note::new("cancel-rebuild", reader, None, None, act), reader.to_owned());
        let cancelled = self.connections().write(move |connection| {
            Box::pin(async move {
                let query = sqlx::query_scalar(include_str!("sql/building.sql")).bind(&name);
                let building: Option<i64> = query.fetch_optional(&mut *connection).await?;
                if let Some(building) = building {
                    generations::retire(connection, building, GenerationState::Building).await?;
                }
                noted.write_if(building.is_some(), connection).await
            })
        });
        done(cancelled.await?, || ActError::NotBuilding(reader.to_owned()))?;
        self.sweep().await;
        Ok(())
    }

    async fn stops(&self, reader: &str) -> Result<Vec<StoppedAt>, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let query = sqlx::query(include_str!("sql/stops.sql")).bind(reader);
        let rows = query.fetch_all(connection.connection()).await.map_err(Failure::from)?;
        connection.give_back();
        Ok(rows.iter().map(stopped_at).collect::<Result<_, _>>().map_err(Failure::from)?)
    }

    async fn exceptions(&self, reader: &Reader) -> Result<Exceptions, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let query = sqlx::query(include_str!("sql/exceptions.sql")).bind(reader.id);
        let rows = query.fetch_all(connection.connection()).await.map_err(Failure::from)?;
        connection.give_back();
        let mut exceptions = Exceptions::default();
        for row in &rows {
            except(&mut exceptions, row).map_err(Failure::from)?;
        }
        Ok(exceptions)
    }

    async fn record(&self, what: &str, reader: &str, act: &Act) -> Result<(), ReadModelError> {
        let noted = Note::new(what, reader, None, None, act);
        let recorded =
            self.connections().write(move |connection| Box::pin(async move { noted.write_if(true, connection).await }));
        Ok(recorded.await.map(drop)?)
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, ReadModelError> {
        let mut connection = self.connections().reader().await?;
        let query = sqlx::query(include_str!("sql/acts.sql")).bind(before).bind(rows_limit(limit));
        let rows = query.fetch_all(connection.connection()).await.map_err(Failure::from)?;
        connection.give_back();
        Ok(rows.iter().map(act_record).collect::<Result<_, _>>().map_err(Failure::from)?)
    }
}

/// The record of an act, which is written in the transaction in which the act takes effect.
pub(crate) struct Note {
    what: String,
    reader: String,
    target: Option<String>,
    position: Option<Position>,
    act: Act,
}

/// The records of the documents that `changes` mends, for the transaction that writes them.
pub(crate) fn healed(lease: &Lease, changes: &Changes) -> Vec<Note> {
    let keys = changes.healed_by.iter().flat_map(|act| changes.keys().map(move |key| (key, act)));
    keys.map(|(key, act)| Note::new("heal", &lease.reader.name, Some(key), None, act)).collect()
}

impl Note {
    fn new(what: &str, reader: &str, target: Option<&str>, position: Option<Position>, act: &Act) -> Self {
        let (what, reader, target) = (what.to_owned(), reader.to_owned(), target.map(str::to_owned));
        Self { what, reader, target, position, act: act.clone() }
    }

    /// Records the act if it `is_done`, and lets the workers of the reader know. Returns whether it is done.
    pub(crate) async fn write_if(self, is_done: bool, connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        if is_done {
            sqlx::query(include_str!("sql/add_act.sql"))
                .bind(now())
                .bind(self.act.actor())
                .bind(self.act.reason())
                .bind(&self.what)
                .bind(&self.reader)
                .bind(self.target.as_deref())
                .bind(self.position.map(Position::to_i64))
                .execute(&mut *connection)
                .await?;
            sqlx::query(include_str!("sql/notice_act.sql")).bind(&self.reader).execute(connection).await?;
        }
        Ok(is_done)
    }
}

/// Notes what becomes of the letters of `reader` under `key`, or of the one at `position`, with `payload` in place of theirs or left
/// out. The caller holds the write lock.
async fn amend_letters(
    connection: &mut SqliteConnection,
    reader: &str,
    key: &str,
    position: Option<Position>,
    payload: Option<&[u8]>,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(include_str!("sql/amend_letters.sql")).bind(reader).bind(key);
    query.bind(position.map(Position::to_i64)).bind(payload).execute(connection).await.map(drop)
}

/// Adds what `row` tells.
fn except(exceptions: &mut Exceptions, row: &SqliteRow) -> Result<(), sqlx::Error> {
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

/// Records that the reader of `lease` has stopped at `event`. The caller holds the write lock.
pub(crate) async fn stopped(
    connection: &mut SqliteConnection,
    lease: &Lease,
    event: &RecordedEvent,
    cause: &str,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(include_str!("sql/stopped.sql"))
        .bind(lease.reader.id)
        .bind(lease.shard.to_string())
        .bind(lease.fencing_token)
        .bind(event.position.to_i64())
        .bind(event.id)
        .bind(event.recorded_at.timestamp_micros())
        .bind(cause)
        .bind(now());
    query.execute(connection).await.map(drop)
}

/// The pause of `reader`; `None` when it is not paused.
pub(crate) async fn paused(connection: &mut SqliteConnection, reader: &str) -> Result<Option<Pause>, sqlx::Error> {
    let row = sqlx::query(include_str!("sql/paused.sql")).bind(reader).fetch_optional(connection).await?;
    Ok(row.as_ref().map(pause).transpose()?.flatten())
}

fn now() -> i64 {
    Utc::now().timestamp_micros()
}

fn done(is_done: bool, refused: impl FnOnce() -> ActError) -> Result<(), ActError> {
    if is_done { Ok(()) } else { Err(refused()) }
}

fn parked_key(row: &SqliteRow) -> Result<ParkedKey, sqlx::Error> {
    Ok(ParkedKey {
        reader: row.try_get("reader")?,
        shard: Shard::from(row.try_get::<&str, _>("shard")?),
        key: row.try_get("key")?,
        letters: row.try_get::<i64, _>("letters")?.unsigned_abs(),
        is_retry_requested: row.try_get("is_retry_requested")?,
    })
}

fn stopped_at(row: &SqliteRow) -> Result<StoppedAt, sqlx::Error> {
    Ok(StoppedAt {
        reader: row.try_get("reader")?,
        shard: Shard::from(row.try_get::<&str, _>("shard")?),
        position: Position::from_i64(row.try_get("position")?),
        event_id: row.try_get("event_id")?,
        recorded_at: rows::time(row.try_get("recorded_at_us")?),
        cause: row.try_get("cause")?,
        at: rows::time(row.try_get("stopped_at_us")?),
    })
}

fn act_record(row: &SqliteRow) -> Result<ActRecord, sqlx::Error> {
    Ok(ActRecord {
        id: row.try_get("id")?,
        at: rows::time(row.try_get("acted_at_us")?),
        actor: row.try_get("actor")?,
        reason: row.try_get("reason")?,
        what: row.try_get("what")?,
        reader: row.try_get("reader")?,
        target: row.try_get("target")?,
        position: row.try_get::<Option<i64>, _>("position")?.map(Position::from_i64),
    })
}
