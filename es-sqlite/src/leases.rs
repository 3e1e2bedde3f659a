//! Checkpoints and the leases on them. A lease only avoids double work; the compare-and-set at commit is what shuts out a
//! former lease holder (R9).

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use es_core::{
    Position,
    backend::{Acts, Changeover, Checkpoint, InlineState, Lease, Reader, Shard, Share, Takeover, Witness},
    read::heartbeat::{AFTER_FAILURE, Beat, Heartbeat},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    connections::Connections,
    error::Failure,
    holders::{Holder, Holders},
    letters,
    packed::json,
};

/// Gives each of `shards` a checkpoint. If another source fed the reader before, the new shards start from the
/// checkpoints of that source.
pub(crate) async fn ensure_shards(
    connection: &mut SqliteConnection,
    holders: &Holders,
    reader: i64,
    shards: &[Shard],
) -> Result<Changeover, sqlx::Error> {
    if shards.is_empty() {
        return Ok(Changeover::Ready);
    }
    let mut former = self::holders(connection, reader).await?;
    // Not another source: the same one, or one more topic.
    if former.iter().any(|(holder, _)| shards.iter().any(|shard| shard.source == holder.shard.source)) {
        former.clear();
    }
    let (mut position, mut fencing_token, mut last) = (0, 0, None);
    if let Some((_, first)) = former.first() {
        if former.iter().any(|(holder, _)| holders.is_held(holder)) {
            return Ok(Changeover::Busy);
        }
        position = *first;
        if former.iter().any(|(_, other)| *other != position) {
            return Ok(Changeover::Uneven);
        }
        if !letters::follow(connection, reader, shards).await? {
            return Ok(Changeover::Parked);
        }
        // A former lease must not become valid again when its source feeds the reader again.
        fencing_token = former.iter().map(|(holder, _)| holder.fencing_token + 1).max().unwrap_or_default();
        last = last_event(connection, reader).await?;
        sqlx::query(include_str!("sql/fence.sql")).bind(reader).execute(&mut *connection).await?;
    }
    let names: Vec<_> = shards.iter().map(Shard::to_string).collect();
    let query = sqlx::query(include_str!("sql/ensure_shards.sql"))
        .bind(reader)
        .bind(json(&names))
        .bind(position)
        .bind(fencing_token)
        .bind(last.map(|last| last.event_id))
        .bind(last.map(|last| last.recorded_at.timestamp_micros()));
    query.execute(connection).await?;
    Ok(Changeover::Ready)
}

/// The last event that `reader` has folded, where all of its shards are at one position.
async fn last_event(connection: &mut SqliteConnection, reader: i64) -> Result<Option<Witness>, sqlx::Error> {
    let row = sqlx::query(include_str!("sql/last_event.sql")).bind(reader).fetch_optional(connection).await?;
    row.map_or(Ok(None), |row| witness(&row))
}

/// Who holds the shards of `reader`, and their positions.
async fn holders(connection: &mut SqliteConnection, reader: i64) -> Result<Vec<(Holder, i64)>, sqlx::Error> {
    let rows = sqlx::query(include_str!("sql/holders.sql")).bind(reader).fetch_all(connection).await?;
    rows.iter().map(|row| holder(reader, row)).collect()
}

fn holder(reader: i64, row: &SqliteRow) -> Result<(Holder, i64), sqlx::Error> {
    let holder = Holder {
        reader,
        shard: Shard::from(row.try_get::<&str, _>("shard")?),
        owner: row.try_get("owner")?,
        process: row.try_get("process")?,
        fencing_token: row.try_get("fencing_token")?,
        beats: row.try_get("beats")?,
        ttl: Duration::from_millis(row.try_get::<i64, _>("ttl_ms")?.unsigned_abs()),
    };
    Ok((holder, row.try_get("position")?))
}

/// The shards of `reader` whose leases hold. Without the write lock, so a commit in flight may be missed: a worker that is
/// asked for nothing loses nothing.
pub(crate) async fn shares(
    connection: &mut SqliteConnection,
    holders: &Holders,
    reader: i64,
) -> Result<Vec<Share>, sqlx::Error> {
    let rows = sqlx::query(include_str!("sql/holders.sql")).bind(reader).fetch_all(connection).await?;
    let mut shares = Vec::new();
    for row in &rows {
        let (holder, _) = holder(reader, row)?;
        if let Some(owner) = holder.owner
            && holders.is_held(&holder)
        {
            shares.push(Share { shard: holder.shard, owner, is_asked_for: row.try_get("is_asked_for")? });
        }
    }
    Ok(shares)
}

/// Asks the workers that hold `shards` to give them back.
pub(crate) async fn ask_for(
    connection: &mut SqliteConnection,
    reader: i64,
    shards: &[Shard],
) -> Result<(), sqlx::Error> {
    let names: Vec<_> = shards.iter().map(Shard::to_string).collect();
    let query = sqlx::query(include_str!("sql/ask_for.sql")).bind(reader).bind(json(&names));
    query.execute(connection).await.map(drop)
}

/// Takes the lease on `shard`; `None` when another owner holds it or there is no such shard.
pub(crate) async fn acquire(
    connection: &mut SqliteConnection,
    holders: &Holders,
    (reader, shard): (Reader, Shard),
    owner: Uuid,
    takeover: Takeover,
    ttl: Duration,
) -> Result<Option<Lease>, sqlx::Error> {
    if takeover == Takeover::WhenFree {
        let all = self::holders(connection, reader.id).await?;
        let other = |(holder, _): &&(Holder, i64)| holder.shard == shard && holder.owner != Some(owner);
        if all.iter().find(other).is_some_and(|(holder, _)| holders.is_held(holder)) {
            return Ok(None);
        }
    }
    let query = sqlx::query(include_str!("sql/acquire.sql"))
        .bind(reader.id)
        .bind(shard.to_string())
        .bind(owner)
        .bind(holders.process())
        .bind(milliseconds(ttl));
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
    let checkpoint = Checkpoint {
        position: Position::from_i64(row.try_get("position")?),
        witness: witness(&row)?,
        cursor: row.try_get("cursor")?,
    };
    let fencing_token = row.try_get("fencing_token")?;
    let lease = Lease::new(reader, shard, owner, fencing_token, ttl, checkpoint);
    // Recorded before the next caller gets the write lock and looks.
    holders.heartbeat.written(&lease, Instant::now());
    Ok(Some(lease))
}

pub(crate) fn witness(row: &SqliteRow) -> Result<Option<Witness>, sqlx::Error> {
    let recorded_at = row.try_get::<Option<i64>, _>("recorded_at_us")?.and_then(DateTime::from_timestamp_micros);
    let event_id: Option<Uuid> = row.try_get("event_id")?;
    Ok(event_id.zip(recorded_at).map(|(event_id, recorded_at)| Witness { event_id, recorded_at }))
}

/// Whether `lease` still holds.
pub(crate) async fn holds(connection: &mut SqliteConnection, lease: &Lease) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/holds.sql"))
        .bind(lease.reader.id)
        .bind(lease.shard.to_string())
        .bind(lease.fencing_token);
    Ok(query.fetch_optional(connection).await?.is_some())
}

/// Renews the leases that are due, with one write for all of the store, until the store is closed or dropped (R18).
pub(crate) async fn keep_alive(holders: Arc<Holders>, connections: Arc<Connections>) {
    let mut failures = 0;
    while let Some(beats) = holders.heartbeat.due().await {
        let (due, renewing) = (beats.clone(), holders.clone());
        let renewed = connections
            .write(move |connection| Box::pin(async move { renew(connection, &renewing.heartbeat, &due).await }));
        match renewed.await {
            Ok(()) => failures = 0,
            Err(Failure::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "leases were not renewed and may be lost");
                holders.heartbeat.failed(&beats);
                failures += 1;
                sleep(AFTER_FAILURE.pause(failures)).await;
            }
        }
    }
}

async fn renew(connection: &mut SqliteConnection, heartbeat: &Heartbeat, beats: &[Beat]) -> Result<(), sqlx::Error> {
    for beat in beats {
        let query = sqlx::query_scalar(include_str!("sql/renew.sql"))
            .bind(beat.reader)
            .bind(beat.shard.to_string())
            .bind(beat.fencing_token);
        match query.fetch_optional(&mut *connection).await? {
            Some(acts) => heartbeat.renewed(beat, Acts(acts)),
            None => heartbeat.lost(beat),
        }
    }
    Ok(())
}

/// Releases `lease`.
pub(crate) async fn release(connection: &mut SqliteConnection, lease: &Lease) -> Result<(), sqlx::Error> {
    let query = sqlx::query(include_str!("sql/release.sql"))
        .bind(lease.reader.id)
        .bind(lease.shard.to_string())
        .bind(lease.fencing_token);
    query.execute(connection).await?;
    Ok(())
}

/// Moves the checkpoint of `lease` to `after`, and returns the acts of operators. Returns `None`, with nothing written, when the
/// checkpoint is not where the lease says.
pub(crate) async fn advance(
    connection: &mut SqliteConnection,
    holders: &Holders,
    lease: &Lease,
    after: &Checkpoint,
) -> Result<Option<Acts>, sqlx::Error> {
    let query = sqlx::query_scalar(include_str!("sql/advance.sql"))
        .bind(lease.reader.id)
        .bind(lease.shard.to_string())
        .bind(lease.fencing_token)
        .bind(lease.checkpoint.position.to_i64())
        .bind(after.position.to_i64())
        .bind(after.witness.map(|witness| witness.event_id))
        .bind(after.witness.map(|witness| witness.recorded_at.timestamp_micros()))
        .bind(after.cursor.as_deref())
        .bind(lease.owner)
        .bind(holders.process())
        .bind(milliseconds(lease.ttl));
    let acts = query.fetch_optional(connection).await?.map(Acts);
    if acts.is_some() {
        // Recorded before the next caller gets the write lock and looks.
        holders.heartbeat.written(lease, Instant::now());
    }
    Ok(acts)
}

/// Moves the checkpoint of a generation from where it was found to `after`, and fences the worker that holds its lease.
pub(crate) async fn advance_inline(
    connection: &mut SqliteConnection,
    at: &mut InlineState,
    after: &Checkpoint,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(include_str!("sql/inline_advance.sql"))
        .bind(at.reader.id)
        .bind(InlineState::shard().to_string())
        .bind(at.fencing_token)
        .bind(at.reached().to_i64())
        .bind(after.position.to_i64())
        .bind(after.witness.map(|witness| witness.event_id))
        .bind(after.witness.map(|witness| witness.recorded_at.timestamp_micros()));
    // It was found in this transaction, which holds the write lock. (To the last row: only then the statement is done.)
    let rows = query.fetch_all(connection).await?;
    at.fencing_token = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("fencing_token")?;
    at.checkpoint = Some(after.clone());
    Ok(())
}

fn milliseconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
}
