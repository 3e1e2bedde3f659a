//! Reading the log.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use es_core::{
    Appended, CommandRecord, EventData, Fingerprint, IdempotencyKey, Metadata, Position, ReadError, Recorded,
    RecordedEvent, StreamId, Version, command_id,
};
use sqlx::{Row, postgres::PgRow};

use crate::{error, store::Inner};

/// How often other processes' news are looked for: at first, and after a long silence.
pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn read_stream(
    inner: &Inner,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let rows = inner.connections.read(|| {
        sqlx::query(include_str!("sql/read_stream.sql")).bind(stream.as_str()).bind(after.to_i64()).bind(rows(limit))
    });
    decode(&rows.await.map_err(error::read)?, Some(stream))
}

pub(crate) async fn read_log(inner: &Inner, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
    let rows =
        inner.connections.read(|| sqlx::query(include_str!("sql/read_log.sql")).bind(after.to_i64()).bind(rows(limit)));
    let events = decode(&rows.await.map_err(error::read)?, None)?;
    // Every snapshot is a prefix of the log, so whatever is missing here is missing for good (R3).
    let mut last = after;
    for event in &events {
        if event.position.get() - 1 != last.get() {
            return Err(ReadError::Gap { after: last, found: event.position });
        }
        last = event.position;
    }
    if let Some(last) = events.last() {
        publish(inner, last.position);
    }
    Ok(events)
}

pub(crate) async fn head(inner: &Inner) -> Result<Position, ReadError> {
    let rows = inner.connections.read(|| sqlx::query(include_str!("sql/head.sql"))).await.map_err(error::read)?;
    let head = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(error::read)?;
    let head = Position::from_i64(head);
    publish(inner, head);
    Ok(head)
}

pub(crate) async fn find_command(
    inner: &Inner,
    stream: &StreamId,
    key: &IdempotencyKey,
) -> Result<Option<CommandRecord>, ReadError> {
    let id = command_id(stream, key);
    let rows = inner.connections.read(|| sqlx::query(include_str!("sql/find_command.sql")).bind(id)).await;
    let rows = rows.map_err(error::read)?;
    rows.first().map(command).transpose().map_err(error::read)
}

/// This process's own news come through the watch at once; those of other processes are polled for.
/// There is no `NOTIFY`: its lock at commit would make all commits of the cluster serial.
pub(crate) async fn wait_past(inner: &Inner, after: Position) -> Result<(), ReadError> {
    let mut known = inner.head.subscribe();
    tokio::select! {
        biased;
        // The sender lives as long as the store.
        _ = known.wait_for(|head| *head > after) => Ok(()),
        failed = poll(inner) => failed.map(|never| match never {}),
    }
}

/// Looks for other processes' news until it is dropped. One at a time does, for all waiters of the
/// process; when it leaves, because its news have come or its future is dropped, the next takes over.
async fn poll(inner: &Inner) -> Result<Infallible, ReadError> {
    let mut pause = inner.poll_pause.lock().await;
    loop {
        let before = *inner.head.borrow();
        if head(inner).await? > before {
            *pause = SHORTEST_PAUSE;
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
    }
}

fn publish(inner: &Inner, position: Position) {
    inner.head.send_if_modified(|head| {
        let news = position > *head;
        *head = position.max(*head);
        news
    });
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn command(row: &PgRow) -> Result<CommandRecord, sqlx::Error> {
    let fingerprint: [u8; 32] = row.try_get(0)?;
    let version = Version::from_i64(row.try_get(1)?);
    let position = Position::from_i64(row.try_get(2)?);
    let appended = Appended { version, position, repeated: false };
    Ok(CommandRecord { fingerprint: Fingerprint::from(fingerprint), appended })
}

/// The rows as events; `stream` where all belong to the same.
fn decode(rows: &[PgRow], stream: Option<&StreamId>) -> Result<Vec<RecordedEvent>, ReadError> {
    // A page names few kinds of events many times.
    let mut names = HashSet::<Arc<str>>::new();
    rows.iter().map(|row| event(row, stream, &mut names)).collect()
}

fn event(row: &PgRow, stream: Option<&StreamId>, names: &mut HashSet<Arc<str>>) -> Result<RecordedEvent, ReadError> {
    let position = Position::from_i64(row.try_get(0).map_err(error::read)?);
    let metadata: Option<&[u8]> = row.try_get(7).map_err(error::read)?;
    let metadata = Metadata::decode(metadata).map_err(|reason| ReadError::Damaged { position, reason })?;
    recorded(row, position, stream, metadata, names).map_err(error::read)
}

fn recorded(
    row: &PgRow,
    position: Position,
    stream: Option<&StreamId>,
    metadata: Metadata,
    names: &mut HashSet<Arc<str>>,
) -> Result<RecordedEvent, sqlx::Error> {
    let schema_version: i32 = row.try_get(4)?;
    let name: &str = row.try_get(5)?;
    let name = names.get(name).cloned().unwrap_or_else(|| {
        let name = Arc::<str>::from(name);
        names.insert(name.clone());
        name
    });
    let data = EventData {
        name,
        schema_version: u32::try_from(schema_version).map_err(|reason| sqlx::Error::Decode(reason.into()))?,
        payload: Bytes::copy_from_slice(row.try_get(6)?),
    };
    let stream = match stream {
        Some(stream) => stream.clone(),
        None => row.try_get::<&str, _>(8)?.parse().map_err(|reason| sqlx::Error::Decode(Box::new(reason)))?,
    };
    let version = Version::from_i64(row.try_get(1)?);
    Ok(Recorded { position, stream, version, id: row.try_get(2)?, recorded_at: row.try_get(3)?, metadata, data })
}
