//! The leases of this process, renewed by one statement (R18).

use std::{collections::HashSet, sync::Arc, thread, time::Duration};

use es_core::read::heartbeat::{Beat, Heartbeat};
use sqlx::{Row, postgres::types::PgInterval};

use crate::{guard::Guarded, session::Session};

/// How long one renewal may take: by then the leases have ended.
const WITHIN: Duration = Duration::from_secs(2);

/// How long it waits after one that failed: twice as long after each further one, up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Renewals that failed, one after the other.
#[derive(Default)]
struct Failures {
    pause: Option<Duration>,
    /// The last cause that was reported.
    told: Option<String>,
}

impl Failures {
    /// Takes note of one: whether its cause is to be reported, since the one before had another cause, and how long to wait.
    fn note(&mut self, cause: &sqlx::Error) -> (bool, Duration) {
        let pause = self.pause.map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1));
        self.pause = Some(pause);
        let cause = cause.to_string();
        let is_news = self.told.as_ref() != Some(&cause);
        self.told = Some(cause);
        (is_news, pause)
    }
}

/// How long a lease lasts, as the server is told.
pub(crate) fn interval(ttl: Duration) -> PgInterval {
    // Beyond ten years a lease is forever, and the sum with the clock still is a timestamp.
    let ttl = ttl.min(Duration::from_hours(10 * 365 * 24));
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX) }
}

/// Starts what renews leases, on a thread of its own: a `fold` that computes for longer than a lease may hold up the
/// threads of the application's runtime, and with them its timers and connections. Where the system gives no thread, it
/// runs among the other tasks.
pub(crate) fn start(leases: Arc<Heartbeat>, session: Session) {
    let application = tokio::runtime::Handle::current();
    let (spare_leases, spare_session) = (leases.clone(), session.clone());
    let own = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(leases, session)),
        Err(_) => drop(application.spawn(run(leases, session))),
    };
    if thread::Builder::new().name("evenfold-leases".into()).spawn(own).is_err() {
        tokio::spawn(run(spare_leases, spare_session));
    }
}

/// Renews what is due, until the store is closed or dropped.
///
/// It has a connection of its own, opened with the first lease: while all others are busy with commits, leases must
/// not end.
async fn run(leases: Arc<Heartbeat>, session: Session) {
    let mut connection = None;
    let mut failures = Failures::default();
    while let Some(beats) = leases.due().await {
        let renewed = tokio::time::timeout(WITHIN, renew(&session, &mut connection, &beats)).await;
        let renewed = renewed.unwrap_or_else(|_| Err(crate::session::timed_out("the server did not answer in time")));
        match renewed {
            Ok(held) => {
                failures = Failures::default();
                let lost = beats.iter().zip(1..).filter(|(_, number)| !held.contains(number));
                lost.for_each(|(beat, _)| leases.lost(beat));
            }
            Err(error) => {
                let (is_news, pause) = failures.note(&error);
                if is_news {
                    tracing::warn!(schema = session.schema(), %error, "leases were not renewed in time and may be lost");
                }
                connection = None;
                leases.failed(&beats);
                tokio::time::sleep(pause).await;
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
    let shards: Vec<_> = beats.iter().map(|beat| beat.shard.to_string()).collect();
    let fencing_tokens: Vec<i64> = beats.iter().map(|beat| beat.fencing_token).collect();
    let ttls: Vec<_> = beats.iter().map(|beat| interval(beat.ttl)).collect();
    // Taken out while it is in use: one that is dropped in the middle of a statement is not used again.
    let mut open = match connection.take() {
        Some(open) => open,
        None => session.open_within(WITHIN).await?,
    };
    let renew =
        sqlx::query(include_str!("../sql/renew.sql")).bind(generations).bind(shards).bind(fencing_tokens).bind(ttls);
    let rows = open.rows(renew).await?;
    *connection = Some(open);
    rows.iter().map(|row| row.try_get(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_stays_is_reported_once_and_the_pauses_grow_to_a_second() {
        let mut failures = Failures::default();
        let noted: Vec<_> = (0..6).map(|_| failures.note(&sqlx::Error::PoolClosed)).collect();
        let millis: Vec<_> = noted.iter().map(|(_, pause)| pause.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(noted.iter().filter(|(is_news, _)| *is_news).count(), 1);
        assert_eq!(failures.note(&sqlx::Error::RowNotFound), (true, PAUSES.1), "another cause is news");
    }
}
