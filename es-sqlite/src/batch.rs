//! Writes the appends of one transaction in a fixed number of statements, however many there are, and looks up first what
//! decides each of them.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use es_core::{AppendError, Position};
use sqlx::{Connection, Row, SqliteConnection};

use crate::{
    error::is_refusal,
    insert::{Transaction, accepted, insert},
    packed::{items, json},
    queue::{Encoded, Outcome, Prepared},
    rows,
    verdict::{Judge, Known, Written},
};

/// Writes a batch that SQLite has refused as a whole, and returns the outcome of each entry, in order. The caller holds the
/// write lock.
///
/// What is refused is rolled back to its savepoint, and each half is tried on its own, and so on, until the refused entry
/// is alone and fails alone (R4). Appends that are made together are one entry.
pub(crate) async fn write_in_parts(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        let mut savepoint = connection.begin().await?;
        match write_within(&mut savepoint, part).await {
            Ok((written, ..)) => {
                savepoint.commit().await?;
                outcomes.extend(written);
            }
            Err(error) if is_refusal(&error) => {
                savepoint.rollback().await?;
                if part.len() == 1 {
                    outcomes.push(Err(AppendError::Refused(error.into())));
                } else {
                    let (first, second) = part.split_at(part.len() / 2);
                    // The first half on top of the stack: entries must see those that were queued before them.
                    parts.extend([second, first]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(outcomes)
}

/// Writes `batch` in a transaction of its own and returns the outcome of each entry, in order, and the position after which
/// its events are. After an error the transaction may still be open.
///
/// Each query is a message to the thread of the connection and back, for which a single client would wait longer than for
/// the writing itself. So the transaction begins with the first query and ends with the last.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
    own: &mut Written,
) -> Result<(Vec<Outcome>, Position), sqlx::Error> {
    // The lock is taken before any position is computed, so positions equal commit order (R3).
    let state = concat!("BEGIN IMMEDIATE;\n", include_str!("sql/append_state.sql"));
    let (head, known) = known(connection, batch, state).await?;
    let now = now();
    let mut outcomes = decide(batch, head, &known, now);
    own.recognise(&mut outcomes);
    let accepted: Vec<_> = accepted(batch, &outcomes).collect();
    if accepted.is_empty() {
        sqlx::query("COMMIT").execute(connection).await?;
    } else {
        insert(connection, &accepted, now, Transaction::Commit).await?;
    }
    Ok((outcomes, head))
}

/// Writes `batch` within the caller's transaction. Returns also the position after which its events are, and their time.
pub(crate) async fn write_within(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
) -> Result<(Vec<Outcome>, Position, DateTime<Utc>), sqlx::Error> {
    let (head, known) = known(connection, batch, include_str!("sql/append_state.sql")).await?;
    let now = now();
    let outcomes = decide(batch, head, &known, now);
    let accepted: Vec<_> = accepted(batch, &outcomes).collect();
    if !accepted.is_empty() {
        insert(connection, &accepted, now, Transaction::Callers).await?;
    }
    Ok((outcomes, head, now))
}

/// The time of events that are written now.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::microseconds(1)).unwrap_or_default()
}

/// The outcomes of `batch` in a log that ends at `head`; `known` has one entry for each append. Accepted events get the time
/// `now`.
pub(crate) fn decide(batch: &[Prepared], head: Position, mut known: &[Known], now: DateTime<Utc>) -> Vec<Outcome> {
    let mut judge = Judge::new(head, now);
    let mut outcomes = Vec::with_capacity(batch.len());
    for prepared in batch {
        let (of_this, of_later) = known.split_at(prepared.appends.len());
        outcomes.push(judge.decide(prepared, of_this));
        known = of_later;
    }
    outcomes
}

/// The position of the last event, and what the log holds that decides each append.
async fn known(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
    state: &'static str,
) -> Result<(Position, Vec<Known>), sqlx::Error> {
    let members = || batch.iter().flat_map(Prepared::members);
    let questions: Vec<_> = members()
        .map(|(append, Encoded { remembered, .. })| {
            let next = append.expected.version().map(|version| version.next().to_i64());
            (append.stream.as_str(), next, remembered.map(|remembered| remembered.id.simple().to_string()))
        })
        .collect();
    let rows = sqlx::query(state).bind(json(&questions)).fetch_all(&mut *connection).await?;
    // Every entry has an append, and every append a row.
    let head = rows.first().map(|row| row.try_get("head").map(Position::from_i64)).transpose()?.unwrap_or_default();
    let mut known = rows.iter().map(rows::known).collect::<Result<Vec<_>, _>>()?;

    let conditions: Vec<_> = members()
        .enumerate()
        .flat_map(|(place, (append, _))| {
            append.condition_parts().map(move |part| (place, (part.after.to_i64(), items(&part.query))))
        })
        .collect();
    if !conditions.is_empty() {
        let (places, conditions): (Vec<_>, Vec<_>) = conditions.into_iter().unzip();
        let first = sqlx::query_scalar(include_str!("sql/append_conditions.sql")).bind(json(&conditions));
        let matched: Vec<Option<i64>> = first.fetch_all(connection).await?;
        for (place, position) in places.into_iter().zip(matched) {
            // The lowest position of all parts of the condition.
            let position = position.map(Position::from_i64);
            known[place].matched = known[place].matched.into_iter().chain(position).min();
        }
    }
    Ok((head, known))
}
