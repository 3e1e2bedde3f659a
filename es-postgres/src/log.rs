//! Reading the log.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use es_core::{
    Appended, CommandRecord, EventData, EventQuery, Fingerprint, IdempotencyKey, Metadata, Position, ReadError,
    Recorded, RecordedEvent, StreamId, Version, command_id,
};
use sqlx::{Row, postgres::PgRow};
use tokio::sync::watch;

use crate::{connections::Connections, error, statements, store::Inner};

/// How often other processes' news are looked for: at first, and after a long silence.
pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn read_stream(
    connections: &Connections,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let rows = connections.read(|| {
        sqlx::query(include_str!("sql/read_stream.sql")).bind(stream.as_str()).bind(after.to_i64()).bind(rows(limit))
    });
    decode(&rows.await.map_err(error::read)?, Some(stream))
}

pub(crate) async fn read_log(inner: &Inner, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
    let before = *inner.head.borrow();
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
    if events.len() < limit {
        // The page shows the end of the log. This is what keeps a reader from being sent for events
        // that are lost, again and again: it does not get as far as to poll.
        correct(inner, before, last);
    }
    if !events.is_empty() {
        publish(inner, last);
    }
    Ok(events)
}

pub(crate) async fn read_matching(
    inner: &Inner,
    query: &EventQuery,
    after: Position,
    limit: usize,
) -> Result<Vec<RecordedEvent>, ReadError> {
    query.validate()?;
    let query = statements::json(query);
    let found = inner.connections.read(|| {
        sqlx::query(include_str!("sql/read_matching.sql")).bind(&query).bind(after.to_i64()).bind(rows(limit))
    });
    decode(&found.await.map_err(error::read)?, None)
}

pub(crate) async fn head(inner: &Inner) -> Result<Position, ReadError> {
    let before = *inner.head.borrow();
    let rows = inner.connections.read(|| sqlx::query(include_str!("sql/head.sql"))).await.map_err(error::read)?;
    let head = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(error::read)?;
    let head = Position::from_i64(head);
    correct(inner, before, head);
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
///
/// The watch may know more than the log holds, when a failover or a restore has lost the tail. Then
/// this returns too early once; the read that follows lowers the watch.
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

pub(crate) fn publish(inner: &Inner, position: Position) {
    inner.head.send_if_modified(|head| {
        let news = position > *head;
        *head = position.max(*head);
        news
    });
}

/// Takes note that the log ended at `end` when it was read, and that this process knew of `before` when
/// it asked.
fn correct(inner: &Inner, before: Position, end: Position) {
    if lower(&inner.head, before, end) {
        let (before, end) = (before.get(), end.get());
        tracing::warn!(schema = inner.schema, before, end, "the log is shorter than it was: its tail was lost");
    }
}

/// Lowers the watch if the log ends before what was known when it was asked: what was committed then is
/// gone. Whoever has raised the watch meanwhile knows better; who has raised it to this very number
/// again, after somebody else had lowered it, raises it once more with the next look.
fn lower(head: &watch::Sender<Position>, before: Position, end: Position) -> bool {
    head.send_if_modified(|head| {
        let lost = end < before && *head == before;
        if lost {
            *head = end;
        }
        lost
    })
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
    let event = || {
        let schema_version: i32 = row.try_get(4)?;
        let data = EventData {
            name: shared(names, row.try_get(5)?),
            schema_version: u32::try_from(schema_version).map_err(|reason| sqlx::Error::Decode(reason.into()))?,
            payload: Bytes::copy_from_slice(row.try_get(6)?),
        };
        let stream = if let Some(stream) = stream {
            stream.clone()
        } else {
            let name: &str = row.try_get(8)?;
            name.parse().map_err(|reason| sqlx::Error::Decode(Box::new(reason)))?
        };
        let version = Version::from_i64(row.try_get(1)?);
        let (id, recorded_at) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Recorded { position, stream, version, id, recorded_at, metadata, data })
    };
    event().map_err(error::read)
}

fn shared(names: &mut HashSet<Arc<str>>, name: &str) -> Arc<str> {
    names.get(name).cloned().unwrap_or_else(|| {
        let name = Arc::<str>::from(name);
        names.insert(name.clone());
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r3_a_look_at_the_log_does_not_take_back_what_was_appended_meanwhile() {
        let [three, five, six] = [3, 5, 6].map(Position::new);
        let head = watch::Sender::new(six);
        assert!(!lower(&head, five, three), "the writer has gone on since");
        assert!(!lower(&head, six, six), "nothing is lost");
        assert_eq!(*head.borrow(), six);
        assert!(lower(&head, six, three));
        assert_eq!(*head.borrow(), three);
    }
}
