//! The leases of this process, renewed by one statement (R18).

use std::{collections::HashMap, sync::Arc, time::Duration};

use es_core::{
    backend::Acts,
    read::heartbeat::{AFTER_FAILURE, Beat, Heartbeat},
};
use sqlx::{Row, postgres::types::PgInterval};

use crate::{guard::Guarded, session::Session};

/// How long one renewal may take: by then the leases have ended.
const WITHIN: Duration = Duration::from_secs(2);

/// How long a lease lasts, as the server is told.
pub(crate) fn interval(ttl: Duration) -> PgInterval {
    // Beyond ten years a lease is forever, and the sum with the clock still is a timestamp.
    let ttl = ttl.min(Duration::from_hours(10 * 365 * 24));
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX) }
}

/// Renews what is due, until the store is closed or dropped.
///
/// It has a connection of its own, opened with the first lease: while all others are busy with commits, and while the
/// server takes long to accept one, leases must not end.
pub(crate) async fn run(leases: Arc<Heartbeat>, session: Session) {
    if !leases.is_needed().await {
        return;
    }
    let mut connection = session.open_within(WITHIN).await.ok();
    let (mut failures, mut reported) = (0, None);
    while let Some(beats) = leases.due().await {
        let renewed = tokio::time::timeout(WITHIN, renew(&session, &mut connection, &beats)).await;
        let renewed = renewed.unwrap_or_else(|_| Err(crate::session::timed_out("the server did not answer in time")));
        match renewed {
            Ok(held) => {
                (failures, reported) = (0, None);
                for (beat, number) in beats.iter().zip(1..) {
                    match held.get(&number) {
                        Some(acts) => leases.renewed(beat, *acts),
                        None => leases.lost(beat),
                    }
                }
            }
            Err(error) => {
                // A cause that stays is reported once.
                let cause = Some(error.to_string());
                if reported != cause {
                    tracing::warn!(schema = session.schema(), %error, "leases were not renewed in time and may be lost");
                }
                (failures, reported) = (failures + 1, cause);
                connection = None;
                leases.failed(&beats);
                tokio::time::sleep(AFTER_FAILURE.pause(failures)).await;
            }
        }
    }
    if let Some(connection) = connection {
        // Best effort: the server notices its end by itself.
        let _ = tokio::time::timeout(WITHIN, connection.close()).await;
    }
}

/// The numbers, from 1, of those that still hold, each with the acts of operators.
async fn renew(
    session: &Session,
    connection: &mut Option<Guarded>,
    beats: &[Beat],
) -> Result<HashMap<i64, Acts>, sqlx::Error> {
    let readers: Vec<i64> = beats.iter().map(|beat| beat.reader).collect();
    let shards: Vec<_> = beats.iter().map(|beat| beat.shard.to_string()).collect();
    let fencing_tokens: Vec<i64> = beats.iter().map(|beat| beat.fencing_token).collect();
    let ttls: Vec<_> = beats.iter().map(|beat| interval(beat.ttl)).collect();
    // Taken out while it is in use: one that is dropped in the middle of a statement is not used again.
    let mut open = match connection.take() {
        Some(open) => open,
        None => session.open_within(WITHIN).await?,
    };
    let renew =
        sqlx::query(include_str!("../sql/renew.sql")).bind(readers).bind(shards).bind(fencing_tokens).bind(ttls);
    let rows = open.rows(renew).await?;
    *connection = Some(open);
    rows.iter().map(|row| Ok((row.try_get(0)?, Acts(row.try_get(1)?)))).collect()
}
