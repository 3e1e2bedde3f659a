//! One transaction's worth of appends, written in a handful of statements however many there are.

use chrono::Utc;
use es_core::{AppendError, Appended};
use sqlx::{Connection, SqliteConnection};

use crate::{
    error::is_refusal,
    packed::{Packed, json},
    queue::{Prepared, Verdict},
    rows,
    verdict::{Judge, Known},
};

/// Writes `batch` and returns a verdict for each append, in order. The caller holds the write lock.
///
/// All are tried together. If SQLite refuses one of them, the savepoint takes back the whole try and its halves are
/// tried apart, until the bad one stands alone and fails alone (R4).
pub(crate) async fn write(connection: &mut SqliteConnection, batch: &[Prepared]) -> Result<Vec<Verdict>, sqlx::Error> {
    let mut verdicts = Vec::with_capacity(batch.len());
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        let mut savepoint = connection.begin().await?;
        match try_write(&mut savepoint, part).await {
            Ok(written) => {
                savepoint.commit().await?;
                verdicts.extend(written);
            }
            Err(error) if is_refusal(&error) => {
                savepoint.rollback().await?;
                if part.len() == 1 {
                    verdicts.push(Err(AppendError::Refused(error.into())));
                } else {
                    let (first, second) = part.split_at(part.len() / 2);
                    // The first half on top: what comes later in the queue must see what came earlier.
                    parts.extend([second, first]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(verdicts)
}

async fn try_write(connection: &mut SqliteConnection, batch: &[Prepared]) -> Result<Vec<Verdict>, sqlx::Error> {
    let head = rows::head(connection).await?;
    let known = known(connection, batch).await?;
    let mut judge = Judge::new(head);
    let verdicts: Vec<_> = batch.iter().zip(known).map(|(prepared, known)| judge.decide(prepared, known)).collect();
    let accepted = || {
        batch.iter().zip(&verdicts).filter_map(|(prepared, verdict)| match verdict {
            Ok(appended) if !appended.repeated => Some((prepared, *appended)),
            _ => None,
        })
    };
    if accepted().next().is_none() {
        return Ok(verdicts);
    }
    insert_events(connection, accepted()).await?;
    insert_commands(connection, accepted()).await?;
    Ok(verdicts)
}

/// What the log knows of each append.
async fn known(connection: &mut SqliteConnection, batch: &[Prepared]) -> Result<Vec<Known>, sqlx::Error> {
    let questions: Vec<_> = batch
        .iter()
        .map(|Prepared { append, remembered, .. }| {
            let next = append.expected.version().map(|version| version.next().to_i64());
            (append.stream.as_str(), next, remembered.map(|remembered| remembered.id.simple().to_string()))
        })
        .collect();
    let rows = sqlx::query(include_str!("sql/append_state.sql")).bind(json(&questions)).fetch_all(connection).await?;
    rows.iter().map(rows::known).collect()
}

async fn insert_events<'a>(
    connection: &mut SqliteConnection,
    accepted: impl Iterator<Item = (&'a Prepared, Appended)> + Clone,
) -> Result<(), sqlx::Error> {
    let mut packed = Packed::with_capacity(accepted.clone().map(|(prepared, _)| prepared.bytes).sum());
    let mut rows = Vec::new();
    for (Prepared { append, metadata, .. }, appended) in accepted {
        let before = append.events.len() as u64;
        let (position, version) = (appended.position.get() - before, appended.version.get() - before);
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
        .bind(Utc::now().timestamp_micros())
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_commands(
    connection: &mut SqliteConnection,
    accepted: impl Iterator<Item = (&Prepared, Appended)>,
) -> Result<(), sqlx::Error> {
    let (mut packed, mut rows) = (Packed::with_capacity(0), Vec::new());
    for (prepared, appended) in accepted {
        if let Some(remembered) = prepared.remembered {
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
