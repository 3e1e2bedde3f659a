//! Reading the log.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use es_core::{
    Appended, EventData, IdempotencyKey, Metadata, Position, ReadError, Recorded, RecordedEvent, StreamId, Version,
    backend::{CommandRecord, Fingerprint, PAGE_BYTES, check_contiguous, command_id, is_last_page},
};
use sqlx::{Row, postgres::PgRow};

use super::copied::Copied;
use crate::{connections::Connections, error, read::head::Head};

/// From so many events on a page is read by a binary `COPY`, whose rows cost the server and the client half as much. The server
/// plans each of them anew.
const LONG: u64 = 250;

pub(crate) async fn read_stream(
    connections: &Connections,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let rows = connections.read(|| {
        sqlx::query(include_str!("../sql/read_stream.sql"))
            .bind(stream.as_str())
            .bind(after.to_i64())
            .bind(rows(limit))
            .bind(rows(PAGE_BYTES))
    });
    decode(&rows.await.map_err(error::read)?, Some(stream))
}

pub(crate) async fn read_log(
    connections: &Connections,
    head: &Head,
    after: Position,
    limit: usize,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let before = head.known.get();
    let exact = include_str!("../sql/read_log.sql");
    let parameters = [after.to_i64(), rows(limit), rows(PAGE_BYTES)];
    let is_long = before.get().saturating_sub(after.get()).min(limit as u64) >= LONG;
    let events = if is_long {
        let sizes = head.sizes.take();
        let sql = if sizes.are_small(limit) { include_str!("../sql/read_small.sql") } else { exact };
        let copied = connections.copy(sql, &parameters, |copied: &mut Copied, piece| copied.take(&piece)).await;
        let (events, bytes) = copied.map_err(error::read)?.events()?;
        head.sizes.put(sizes.after(events.len(), bytes));
        events
    } else {
        let read = || parameters.iter().fold(sqlx::query(exact), |query, parameter| query.bind(*parameter));
        decode(&connections.read(read).await.map_err(error::read)?, None)?
    };
    // Every snapshot is a prefix of the log, so whatever is missing here is missing for good (R3).
    let last = check_contiguous(after, &events)?;
    if is_last_page(&events, limit) {
        // The page shows the end of the log. This is what keeps a reader from being sent for events
        // that are lost, again and again: it does not get as far as to poll.
        head.correct(before, last);
    }
    if !events.is_empty() {
        head.known.raise(last);
    }
    if !is_long && events.len() as u64 >= LONG {
        // Other processes have written so much that the next page may be a long one too.
        head.ask(connections).await?;
    }
    Ok(events)
}

pub(crate) async fn find_command(
    connections: &Connections,
    stream: &StreamId,
    key: &IdempotencyKey,
) -> Result<Option<CommandRecord>, ReadError> {
    let id = command_id(stream, key);
    let rows = connections.read(|| sqlx::query(include_str!("../sql/find_command.sql")).bind(id)).await;
    let rows = rows.map_err(error::read)?;
    rows.first().map(command).transpose().map_err(error::read)
}

pub(crate) async fn now(connections: &Connections) -> Result<DateTime<Utc>, ReadError> {
    let rows = connections.read(|| sqlx::query("SELECT clock_timestamp()")).await.map_err(error::read)?;
    rows[0].try_get(0).map_err(error::read)
}

pub(super) fn rows(limit: usize) -> i64 {
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
pub(crate) fn decode(rows: &[PgRow], stream: Option<&StreamId>) -> Result<Vec<RecordedEvent>, ReadError> {
    // A page names few kinds of events many times.
    let mut names = HashSet::<Arc<str>>::new();
    rows.iter().map(|row| event(row, stream, &mut names)).collect()
}

pub(super) fn event(
    row: &PgRow,
    stream: Option<&StreamId>,
    names: &mut HashSet<Arc<str>>,
) -> Result<RecordedEvent, ReadError> {
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

pub(super) fn shared(names: &mut HashSet<Arc<str>>, name: &str) -> Arc<str> {
    names.get(name).cloned().unwrap_or_else(|| {
        let name = Arc::<str>::from(name);
        names.insert(name.clone());
        name
    })
}
