//! The leases of this process, renewed by one statement (R18).

use std::{collections::HashSet, sync::Arc, time::Duration};

use es_core::heartbeat::{Beat, Heartbeat};
use sqlx::Row;

use crate::{guard::Guarded, read_models::interval, session::Session};

/// How long one renewal may take: by then the leases have ended.
const WITHIN: Duration = Duration::from_secs(2);

/// How long it waits after one that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Renews what is due, until the store is closed or dropped.
///
/// It has a connection of its own, opened with the first lease: while all others are busy with commits, leases must
/// not end.
pub(crate) async fn run(leases: Arc<Heartbeat>, session: Session) {
    let mut connection = None;
    while let Some(beats) = leases.due().await {
        let renewed = tokio::time::timeout(WITHIN, renew(&session, &mut connection, &beats)).await;
        let renewed = renewed.unwrap_or_else(|_| Err(crate::session::timed_out("the server did not answer in time")));
        match renewed {
            Ok(held) => {
                let lost = beats.iter().zip(1..).filter(|(_, number)| !held.contains(number));
                lost.for_each(|(beat, _)| leases.lost(beat));
            }
            Err(error) => {
                tracing::warn!(schema = session.schema(), %error, "leases were not renewed in time and may be lost");
                connection = None;
                leases.failed(&beats);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if let Some(connection) = connection {
        // Best effort: the server notices its end by itself.
        let _ = tokio::time::timeout(WITHIN, connection.close()).await;
    }
}

/// The numbers, from 1, of those that still hold.
async fn renew(
    session: &Session,
    connection: &mut Option<Guarded>,
    beats: &[Beat],
) -> Result<HashSet<i64>, sqlx::Error> {
    let generations: Vec<i64> = beats.iter().map(|beat| beat.generation).collect();
    let shards: Vec<&str> = beats.iter().map(|beat| &*beat.shard.0).collect();
    let tokens: Vec<i64> = beats.iter().map(|beat| beat.token).collect();
    let ttls: Vec<_> = beats.iter().map(|beat| interval(beat.ttl)).collect();
    // Taken out while it is in use: one that is dropped in the middle of a statement is not used again.
    let mut open = match connection.take() {
        Some(open) => open,
        None => session.open_within(WITHIN).await?,
    };
    let renew = sqlx::query(include_str!("sql/renew.sql")).bind(generations).bind(shards).bind(tokens).bind(ttls);
    let rows = open.rows(renew).await?;
    *connection = Some(open);
    rows.iter().map(|row| row.try_get(0)).collect()
}
