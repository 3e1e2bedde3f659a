//! Writes the appends of one transaction in a fixed number of statements, however many appends there are.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use es_core::{Append, AppendError, Appended, Position, Tag};
use sqlx::{Connection, Row, SqliteConnection};

use crate::{
    error::is_refusal,
    packed::{Packed, items, json},
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
            Ok(written) => {
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

/// Writes `batch` in a transaction of its own and returns the outcome of each entry, in order. After an error the transaction
/// may still be open.
///
/// Each query is a message to the thread of the connection and back, for which a single client would wait longer than for
/// the writing itself. So the transaction begins with the first query and ends with the last.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
    own: &mut Written,
) -> Result<Vec<Outcome>, sqlx::Error> {
    // The lock is taken before any position is computed, so positions equal commit order (R3).
    let state = concat!("BEGIN IMMEDIATE;\n", include_str!("sql/append_state.sql"));
    let (mut outcomes, now) = decide(connection, batch, state).await?;
    own.recognise(&mut outcomes);
    let accepted: Vec<_> = batch.iter().zip(&outcomes).flat_map(accepted).collect();
    if accepted.is_empty() {
        sqlx::query("COMMIT").execute(connection).await?;
    } else {
        let insert_and_commit = concat!(include_str!("sql/append_accepted.sql"), ";\nCOMMIT");
        insert(connection, &accepted, now, insert_and_commit).await?;
    }
    Ok(outcomes)
}

/// Writes `batch` within the caller's transaction.
async fn write_within(connection: &mut SqliteConnection, batch: &[Prepared]) -> Result<Vec<Outcome>, sqlx::Error> {
    let (outcomes, now) = decide(connection, batch, include_str!("sql/append_state.sql")).await?;
    let accepted: Vec<_> = batch.iter().zip(&outcomes).flat_map(accepted).collect();
    if !accepted.is_empty() {
        insert(connection, &accepted, now, include_str!("sql/append_accepted.sql")).await?;
    }
    Ok(outcomes)
}

/// The outcomes of a batch, and the time of the events that are accepted. `state` is the query for what the log holds.
async fn decide(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
    state: &'static str,
) -> Result<(Vec<Outcome>, DateTime<Utc>), sqlx::Error> {
    let (head, known) = known(connection, batch, state).await?;
    let now = Utc::now().duration_trunc(TimeDelta::microseconds(1)).unwrap_or_default();
    let (mut judge, mut known) = (Judge::new(head, now), &known[..]);
    let mut outcomes = Vec::with_capacity(batch.len());
    for prepared in batch {
        let (of_this, of_later) = known.split_at(prepared.appends.len());
        outcomes.push(judge.decide(prepared, of_this));
        known = of_later;
    }
    Ok((outcomes, now))
}

/// An accepted append, and the version and position that it gets.
type Accepted<'a> = (&'a Append, &'a Encoded, Appended);

fn accepted<'a>((prepared, outcome): (&'a Prepared, &'a Outcome)) -> impl Iterator<Item = Accepted<'a>> {
    let appended = outcome.iter().flatten().filter(|appended| !appended.repeated);
    prepared.members().zip(appended).map(|((append, encoded), appended)| (append, encoded, *appended))
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

/// Writes what was accepted, in one message to the connection's thread.
async fn insert(
    connection: &mut SqliteConnection,
    accepted: &[Accepted<'_>],
    now: DateTime<Utc>,
    statements: &'static str,
) -> Result<(), sqlx::Error> {
    let (events, bytes) = events(accepted);
    let (commands, fingerprints) = commands(accepted);
    sqlx::query(statements)
        .bind(events)
        .bind(bytes)
        .bind(now.timestamp_micros())
        .bind(commands)
        .bind(fingerprints)
        .execute(connection)
        .await?;
    Ok(())
}

fn events(accepted: &[Accepted<'_>]) -> (String, Vec<u8>) {
    let mut packed = Packed::with_capacity(accepted.iter().map(|(_, encoded, _)| encoded.bytes).sum());
    let mut rows = Vec::new();
    for (append, Encoded { metadata, .. }, appended) in accepted {
        let events = append.events.len() as u64;
        let (position, version) = (appended.position.get() - events, appended.version.get() - events);
        for ((new, metadata), nth) in append.events.iter().zip(metadata).zip(1..) {
            let payload = packed.push(&new.data.payload);
            let metadata = packed.push(metadata);
            rows.push((
                position + nth,
                append.stream.as_str(),
                version + nth,
                new.id.simple().to_string(),
                &*new.data.name,
                new.data.schema_version,
                payload.start,
                payload.length,
                metadata.start,
                metadata.length,
                new.tags.iter().map(Tag::as_str).collect::<Vec<_>>(),
            ));
        }
    }
    (json(&rows), packed.into_bytes())
}

fn commands(accepted: &[Accepted<'_>]) -> (String, Vec<u8>) {
    let (mut packed, mut rows) = (Packed::with_capacity(0), Vec::new());
    for (_, encoded, appended) in accepted {
        if let Some(remembered) = encoded.remembered {
            let id = remembered.id.simple().to_string();
            let fingerprint = packed.push(remembered.fingerprint.as_bytes());
            rows.push((id, fingerprint.start, fingerprint.length, appended.version.get(), appended.position.get()));
        }
    }
    (json(&rows), packed.into_bytes())
}
