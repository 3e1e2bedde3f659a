//! Parked keys and dead letters.

use chrono::Utc;
use es_core::{
    DeadLetter, LetterPage, Pause,
    backend::{Acts, Lease, NewLetter, PAGE_BYTES, ReadModelError, Reader, Redemption, Shard, Situation},
};
use futures_util::TryStreamExt;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use crate::{SqliteStore, error::Failure, log::rows_limit, rows};

/// What the worker of `lease` must know; `None` when the lease is lost.
pub(crate) async fn situation(
    connection: &mut SqliteConnection,
    lease: &Lease,
) -> Result<Option<Situation>, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/situation.sql"))
        .bind(lease.reader.id)
        .bind(lease.shard.to_string())
        .bind(lease.fencing_token)
        .bind(&lease.reader.name);
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
    let keys = |column| -> Result<Vec<String>, sqlx::Error> {
        let keys: &str = row.try_get(column)?;
        serde_json::from_str(keys).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    let letters = usize::try_from(row.try_get::<i64, _>("letters")?).unwrap_or(usize::MAX);
    let (acts, paused) = (Acts(row.try_get("acts")?), pause(&row)?);
    let (parked, retries, is_asked_for) = (keys("parked")?, keys("retries")?, row.try_get("is_asked_for")?);
    Ok(Some(Situation { acts, paused, parked, retries, letters, is_asked_for }))
}

/// The pause in a row; `None` where its columns are null.
pub(crate) fn pause(row: &SqliteRow) -> Result<Option<Pause>, sqlx::Error> {
    let (actor, reason) = (row.try_get("actor")?, row.try_get("reason")?);
    let at: Option<i64> = row.try_get("paused_at_us")?;
    Ok(match (actor, reason, at) {
        (Some(actor), Some(reason), Some(at)) => Some(Pause { actor, reason, at: rows::time(at) }),
        _ => None,
    })
}

/// Parks the keys of `letters` and keeps them. The caller's transaction also moves the checkpoint.
pub(crate) async fn park(
    connection: &mut SqliteConnection,
    lease: &Lease,
    letters: &[NewLetter],
) -> Result<(), sqlx::Error> {
    let now = Utc::now().timestamp_micros();
    for NewLetter { key, event, cause, attempts } in letters {
        let query =
            sqlx::query(include_str!("sql/park_key.sql")).bind(lease.reader.id).bind(key).bind(lease.shard.to_string());
        query.execute(&mut *connection).await?;
        let query = sqlx::query(include_str!("sql/park_letter.sql"))
            .bind(lease.reader.id)
            .bind(key)
            .bind(event.position.to_i64())
            .bind(event.stream.as_str())
            .bind(event.version.to_i64())
            .bind(event.id)
            .bind(&*event.data.name)
            .bind(event.data.schema_version)
            .bind(&event.data.payload[..])
            .bind(event.metadata.encode())
            .bind(event.recorded_at.timestamp_micros())
            .bind(cause.as_deref())
            .bind(*attempts)
            .bind(now);
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Whether each letter of `redemption` still has the revision that the worker read. The caller holds the write lock.
pub(crate) async fn are_as_read(
    connection: &mut SqliteConnection,
    reader: i64,
    redemption: &Redemption,
) -> Result<bool, sqlx::Error> {
    let failed = redemption.failed.as_ref().map(|failed| (failed.position, failed.revision));
    for (position, revision) in redemption.handled.iter().copied().chain(failed) {
        let query = sqlx::query_scalar::<_, i64>(include_str!("sql/letter_revision.sql"))
            .bind(reader)
            .bind(&redemption.key)
            .bind(position.to_i64());
        if query.fetch_optional(&mut *connection).await? != Some(revision) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes the letters that were handled again, and keeps the one that failed again. The caller's transaction also writes what
/// follows from them.
pub(crate) async fn redeem(
    connection: &mut SqliteConnection,
    reader: i64,
    Redemption { key, handled, failed, is_whole }: &Redemption,
) -> Result<(), sqlx::Error> {
    for (position, _) in handled {
        let query = sqlx::query(include_str!("sql/letter_handled.sql")).bind(reader).bind(key);
        query.bind(position.to_i64()).execute(&mut *connection).await?;
    }
    if let Some(failed) = failed {
        let query = sqlx::query(include_str!("sql/letter_failed.sql")).bind(reader).bind(key);
        query.bind(failed.position.to_i64()).bind(&failed.cause).execute(&mut *connection).await?;
        sqlx::query(include_str!("sql/end_retry.sql")).bind(reader).bind(key).execute(&mut *connection).await?;
    }
    if *is_whole {
        sqlx::query(include_str!("sql/free_key.sql")).bind(reader).bind(key).execute(connection).await?;
    }
    Ok(())
}

/// Gives the parked keys of `reader` to its new source; `false` if that has several shards, one of which is theirs. The
/// caller holds the write lock.
pub(crate) async fn follow(
    connection: &mut SqliteConnection,
    reader: i64,
    shards: &[Shard],
) -> Result<bool, sqlx::Error> {
    if let [shard] = shards {
        let query = sqlx::query(include_str!("sql/move_parked_keys.sql")).bind(reader).bind(shard.to_string());
        query.execute(connection).await?;
        return Ok(true);
    }
    let query = sqlx::query(include_str!("sql/has_parked_keys.sql")).bind(reader);
    Ok(query.fetch_optional(connection).await?.is_none())
}

impl SqliteStore {
    /// The letters of the readers of this `name` on `page`, up to the one with which their payloads reach [`PAGE_BYTES`]; only those
    /// of the reader `id`, if it is given.
    pub(crate) async fn dead_letters_of(
        &self,
        name: &str,
        LetterPage { key, after, limit }: &LetterPage,
        id: Option<i64>,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        let query = sqlx::query(include_str!("sql/letters.sql"))
            .bind(name)
            .bind(key.as_deref())
            .bind(after.as_ref().map(|after| after.reader))
            .bind(after.as_ref().map(|after| after.key.as_str()))
            .bind(after.as_ref().map(|after| after.position.to_i64()))
            .bind(id)
            .bind(rows_limit(*limit));
        let mut connection = self.connections().reader().await?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        let mut found = query.fetch(connection.connection());
        while bytes < PAGE_BYTES
            && let Some(row) = found.try_next().await.map_err(Failure::from)?
        {
            let letter = letter(&row, name)?;
            bytes += letter.event.data.payload.len() + letter.edited.as_ref().map_or(0, bytes::Bytes::len);
            letters.push(letter);
        }
        drop(found);
        connection.give_back();
        Ok(letters)
    }
}

fn letter(row: &SqliteRow, name: &str) -> Result<DeadLetter, ReadModelError> {
    let event = rows::event(row).map_err(|error| ReadModelError(error.into()))?;
    let letter = || {
        Ok(DeadLetter {
            reader: Reader { id: row.try_get("reader")?, name: name.to_owned() },
            shard: Shard::from(row.try_get::<&str, _>("shard")?),
            key: row.try_get("key")?,
            event,
            edited: row.try_get::<Option<Vec<u8>>, _>("edited")?.map(Into::into),
            cause: row.try_get("cause")?,
            attempts: row.try_get("attempts")?,
            parked_at: rows::time(row.try_get("parked_at_us")?),
            revision: row.try_get("revision")?,
        })
    };
    letter().map_err(|error: sqlx::Error| Failure::from(error).into())
}
