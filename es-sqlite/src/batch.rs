//! Writes the appends of one transaction in a fixed number of statements, however many appends there are.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use es_core::{Append, AppendError, Appended, Position};
use sqlx::{Connection, Row, SqliteConnection};

use crate::{
    error::is_refusal,
    packed::{Packed, items, json},
    queue::{Encoded, Outcome, Prepared},
    rows,
    verdict::{Judge, Known},
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
        match write(&mut savepoint, part).await {
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

/// Writes `batch` and returns the outcome of each entry, in order. The caller holds the write lock, and rolls everything back
/// if SQLite refuses it.
///
/// There is no savepoint: each statement is a message to the thread of the connection and back, and most batches of a single
/// client would be on their way for longer than they are written.
pub(crate) async fn write(connection: &mut SqliteConnection, batch: &[Prepared]) -> Result<Vec<Outcome>, sqlx::Error> {
    let (head, known) = known(connection, batch).await?;
    let now = Utc::now().duration_trunc(TimeDelta::microseconds(1)).unwrap_or_default();
    let (mut judge, mut known) = (Judge::new(head, now), &known[..]);
    let mut outcomes = Vec::with_capacity(batch.len());
    for prepared in batch {
        let (of_this, of_later) = known.split_at(prepared.appends.len());
        outcomes.push(judge.decide(prepared, of_this));
        known = of_later;
    }
    let accepted: Vec<_> = batch.iter().zip(&outcomes).flat_map(accepted).collect();
    if !accepted.is_empty() {
        insert_events(connection, &accepted, now).await?;
        insert_tags(connection, &accepted).await?;
        insert_commands(connection, &accepted).await?;
    }
    Ok(outcomes)
}

/// An accepted append, and the version and position that it gets.
type Accepted<'a> = (&'a Append, &'a Encoded, Appended);

fn accepted<'a>((prepared, outcome): (&'a Prepared, &'a Outcome)) -> impl Iterator<Item = Accepted<'a>> {
    let appended = outcome.iter().flatten().filter(|appended| !appended.repeated);
    prepared.members().zip(appended).map(|((append, encoded), appended)| (append, encoded, *appended))
}

/// The position of the last event, and what the log holds that decides each append.
async fn known(connection: &mut SqliteConnection, batch: &[Prepared]) -> Result<(Position, Vec<Known>), sqlx::Error> {
    let members = || batch.iter().flat_map(Prepared::members);
    let questions: Vec<_> = members()
        .map(|(append, Encoded { remembered, .. })| {
            let next = append.expected.version().map(|version| version.next().to_i64());
            (append.stream.as_str(), next, remembered.map(|remembered| remembered.id.simple().to_string()))
        })
        .collect();
    let state = sqlx::query(include_str!("sql/append_state.sql")).bind(json(&questions));
    let rows = state.fetch_all(&mut *connection).await?;
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

async fn insert_events(
    connection: &mut SqliteConnection,
    accepted: &[Accepted<'_>],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
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
            ));
        }
    }
    sqlx::query(include_str!("sql/append_events.sql"))
        .bind(json(&rows))
        .bind(packed.into_bytes())
        .bind(now.timestamp_micros())
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_tags(connection: &mut SqliteConnection, accepted: &[Accepted<'_>]) -> Result<(), sqlx::Error> {
    let mut rows = Vec::new();
    for (append, _, appended) in accepted {
        let before = appended.position.get() - append.events.len() as u64;
        for (new, nth) in append.events.iter().zip(1..) {
            rows.extend(new.tags.iter().map(|tag| (tag.as_str(), before + nth, &*new.data.name)));
        }
    }
    if !rows.is_empty() {
        sqlx::query(include_str!("sql/append_tags.sql")).bind(json(&rows)).execute(connection).await?;
    }
    Ok(())
}

async fn insert_commands(connection: &mut SqliteConnection, accepted: &[Accepted<'_>]) -> Result<(), sqlx::Error> {
    let (mut packed, mut rows) = (Packed::with_capacity(0), Vec::new());
    for (_, encoded, appended) in accepted {
        if let Some(remembered) = encoded.remembered {
            let id = remembered.id.simple().to_string();
            let fingerprint = packed.push(remembered.fingerprint.as_bytes());
            rows.push((id, fingerprint.start, fingerprint.length, appended.version.get(), appended.position.get()));
        }
    }
    if !rows.is_empty() {
        let query = sqlx::query(include_str!("sql/append_commands.sql")).bind(json(&rows)).bind(packed.into_bytes());
        query.execute(connection).await?;
    }
    Ok(())
}
