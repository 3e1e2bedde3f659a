//! Checkpoints and the leases on them. A lease spares work; what keeps zombies out is the compare-and-set (R9).

use std::time::Duration;

use chrono::{DateTime, Utc};
use es_core::{Changeover, Checkpoint, Generation, Lease, Position, Shard, Takeover, Witness};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use crate::packed::json;

/// Gives each of `shards` a checkpoint; where another source fed the generation, they take over from its shards.
pub(crate) async fn ensure_shards(
    connection: &mut SqliteConnection,
    generation: i64,
    shards: &[Shard],
) -> Result<Changeover, sqlx::Error> {
    let Some(source) = shards.first().map(Shard::source) else { return Ok(Changeover::Ready) };
    let query = sqlx::query(include_str!("sql/changeover.sql"))
        .bind(generation)
        .bind(source)
        .bind(Utc::now().timestamp_millis());
    let former = query.fetch_one(&mut *connection).await?;
    let (mut position, mut token) = (0_i64, 0_i64);
    if former.try_get::<i64, _>("others")? > 0 {
        if former.try_get::<i64, _>("leased")? > 0 {
            return Ok(Changeover::Busy);
        }
        position = former.try_get("fastest")?;
        if position != former.try_get::<i64, _>("slowest")? {
            return Ok(Changeover::Uneven);
        }
        // A former lease does not come to life again when its source feeds the generation again.
        token = former.try_get::<i64, _>("token")? + 1;
        sqlx::query(include_str!("sql/fence.sql")).bind(generation).execute(&mut *connection).await?;
    }
    let names: Vec<_> = shards.iter().map(|shard| &shard.0).collect();
    let query = sqlx::query(include_str!("sql/ensure_shards.sql"))
        .bind(generation)
        .bind(json(&names))
        .bind(position)
        .bind(token);
    query.execute(connection).await?;
    Ok(Changeover::Ready)
}

/// Takes the lease on `shard`; `None` when another owner holds it or there is no such shard.
pub(crate) async fn acquire(
    connection: &mut SqliteConnection,
    generation: Generation,
    shard: Shard,
    owner: Uuid,
    takeover: Takeover,
    ttl: Duration,
) -> Result<Option<Lease>, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/acquire.sql"))
        .bind(generation.id)
        .bind(&shard.0)
        .bind(owner)
        .bind(takeover == Takeover::Always)
        .bind(Utc::now().timestamp_millis())
        .bind(end_ms(ttl));
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
    let checkpoint = Checkpoint {
        position: Position::from_i64(row.try_get("position")?),
        witness: witness(&row)?,
        cursor: row.try_get("cursor")?,
    };
    let token = row.try_get("token")?;
    Ok(Some(Lease { generation, shard, owner, token, checkpoint }))
}

fn witness(row: &SqliteRow) -> Result<Option<Witness>, sqlx::Error> {
    let recorded_at = row.try_get::<Option<i64>, _>("recorded_at_us")?.and_then(DateTime::from_timestamp_micros);
    let event_id: Option<Uuid> = row.try_get("event_id")?;
    Ok(event_id.zip(recorded_at).map(|(event_id, recorded_at)| Witness { event_id, recorded_at }))
}

/// Prolongs `lease`; `false` when it is lost.
pub(crate) async fn renew(
    connection: &mut SqliteConnection,
    lease: &Lease,
    ttl: Duration,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/renew.sql"))
        .bind(lease.generation.id)
        .bind(&lease.shard.0)
        .bind(lease.token)
        .bind(lease.owner)
        .bind(end_ms(ttl));
    Ok(query.execute(connection).await?.rows_affected() == 1)
}

/// Gives `lease` back.
pub(crate) async fn release(connection: &mut SqliteConnection, lease: &Lease) -> Result<(), sqlx::Error> {
    let query =
        sqlx::query(include_str!("sql/release.sql")).bind(lease.generation.id).bind(&lease.shard.0).bind(lease.token);
    query.execute(connection).await?;
    Ok(())
}

/// Moves the checkpoint of `lease` to `after`; `false`, with nothing written, when it is not where the lease says.
pub(crate) async fn advance(
    connection: &mut SqliteConnection,
    lease: &Lease,
    after: &Checkpoint,
    ttl: Duration,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/advance.sql"))
        .bind(lease.generation.id)
        .bind(&lease.shard.0)
        .bind(lease.token)
        .bind(lease.checkpoint.position.to_i64())
        .bind(after.position.to_i64())
        .bind(after.witness.map(|witness| witness.event_id))
        .bind(after.witness.map(|witness| witness.recorded_at.timestamp_micros()))
        .bind(after.cursor.as_deref())
        .bind(lease.owner)
        .bind(end_ms(ttl));
    Ok(query.execute(connection).await?.rows_affected() == 1)
}

/// The position up to which `generation` holds everything.
pub(crate) async fn reached(connection: &mut SqliteConnection, generation: i64) -> Result<Position, sqlx::Error> {
    let query = sqlx::query_scalar(include_str!("sql/reached.sql")).bind(generation);
    query.fetch_one(connection).await.map(Position::from_i64)
}

/// When a lease that is taken now ends, by the clock of the host: all processes that share the file share it too.
fn end_ms(ttl: Duration) -> i64 {
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    Utc::now().timestamp_millis().saturating_add(ttl_ms)
}
