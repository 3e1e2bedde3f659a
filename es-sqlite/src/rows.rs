//! Decodes rows of the log.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use es_core::{
    Appended, EventData, Metadata, Position, ReadError, RecordedEvent, Version,
    backend::{CommandRecord, Fingerprint, PAGE_BYTES, Witness},
};
use futures_util::TryStreamExt;
use sqlx::{
    FromRow, Row, Sqlite, SqliteConnection,
    error::BoxDynError,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};
use uuid::Uuid;

use crate::{
    error::Failure,
    verdict::{Event, Known},
};

/// The position of the last event.
pub(crate) async fn head(connection: &mut SqliteConnection) -> Result<Position, sqlx::Error> {
    sqlx::query_scalar(include_str!("sql/head.sql")).fetch_one(connection).await.map(Position::from_i64)
}

/// The columns with which a row of an event begins: position, stream, version, id, name, schema version, payload, metadata, time.
/// They are found by their places, since to find a column by its name costs a hash.
type Columns<'r> = (i64, &'r str, i64, &'r [u8], &'r str, i64, &'r [u8], Option<&'r [u8]>, i64);

/// Events, up to the one with which their payloads reach [`PAGE_BYTES`] (R17).
#[derive(Debug, Default)]
struct Page {
    events: Vec<RecordedEvent>,
    bytes: usize,
    names: Names,
}

/// The names of the events of a page: few, each many times.
#[derive(Debug, Default)]
struct Names(HashSet<Arc<str>>);

impl Page {
    fn is_full(&self) -> bool {
        self.bytes >= PAGE_BYTES
    }

    fn push(&mut self, columns: Columns<'_>) -> Result<(), ReadError> {
        let event = decode(columns, &mut self.names)?;
        self.bytes += event.data.payload.len();
        self.events.push(event);
        Ok(())
    }
}

impl Names {
    fn shared(&mut self, name: &str) -> Arc<str> {
        self.0.get(name).cloned().unwrap_or_else(|| {
            let name = Arc::<str>::from(name);
            self.0.insert(name.clone());
            name
        })
    }
}

/// The events of a query, no more than a page.
pub(crate) fn page(mut rows: rusqlite::Rows<'_>) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut page = Page::default();
    while !page.is_full()
        && let Some(row) = rows.next().map_err(Failure::from)?
    {
        page.push(columns(row).map_err(Failure::from)?)?;
    }
    Ok(page.events)
}

fn columns<'r>(row: &'r rusqlite::Row<'_>) -> Result<Columns<'r>, rusqlite::Error> {
    Ok((
        row.get_ref(0)?.as_i64()?,
        row.get_ref(1)?.as_str()?,
        row.get_ref(2)?.as_i64()?,
        row.get_ref(3)?.as_blob()?,
        row.get_ref(4)?.as_str()?,
        row.get_ref(5)?.as_i64()?,
        row.get_ref(6)?.as_blob()?,
        row.get_ref(7)?.as_blob_or_null()?,
        row.get_ref(8)?.as_i64()?,
    ))
}

/// The same in the transaction of `connection`. The outer error is one of the database.
pub(crate) async fn page_within(
    query: Query<'_, Sqlite, SqliteArguments>,
    connection: &mut SqliteConnection,
) -> Result<Result<Vec<RecordedEvent>, ReadError>, sqlx::Error> {
    let mut page = Page::default();
    let mut rows = query.fetch(connection);
    while !page.is_full()
        && let Some(row) = rows.try_next().await?
    {
        if let Err(damaged) = page.push(Columns::from_row(&row)?) {
            return Ok(Err(damaged));
        }
    }
    Ok(Ok(page.events))
}

/// The event with which `row` begins.
pub(crate) fn event(row: &SqliteRow) -> Result<RecordedEvent, ReadError> {
    decode(Columns::from_row(row).map_err(Failure::from)?, &mut Names::default())
}

fn decode(columns: Columns<'_>, names: &mut Names) -> Result<RecordedEvent, ReadError> {
    let (position, stream, version, id, name, schema_version, payload, metadata, recorded_at) = columns;
    let position = Position::from_i64(position);
    Ok(RecordedEvent {
        position,
        stream: stream.parse().map_err(|reason| damaged("stream", reason))?,
        version: Version::from_i64(version),
        id: Uuid::from_slice(id).map_err(|reason| damaged("event_id", reason))?,
        recorded_at: time(recorded_at),
        metadata: Metadata::decode(metadata).map_err(|reason| ReadError::Damaged { position, reason })?,
        data: EventData {
            name: names.shared(name),
            schema_version: schema_version.try_into().map_err(|reason| damaged("schema_version", reason))?,
            payload: Bytes::copy_from_slice(payload),
        },
    })
}

/// What a row of `append_state.sql` says about an append.
pub(crate) fn known(row: &SqliteRow) -> Result<Known, sqlx::Error> {
    let version: Option<i64> = row.try_get("version")?;
    let next = match row.try_get::<Option<Uuid>, _>("next_id")? {
        Some(id) => Some(Event { id, position: Position::from_i64(row.try_get("next_position")?) }),
        None => None,
    };
    let command = match row.try_get::<Option<&[u8]>, _>("fingerprint")? {
        Some(fingerprint) => {
            let (version, position) = (row.try_get("command_version")?, row.try_get("command_position")?);
            Some(record(fingerprint, version, position)?)
        }
        None => None,
    };
    let version = version.map(Version::from_i64).unwrap_or_default();
    let last = match row.try_get::<Option<Uuid>, _>("last_id")? {
        Some(event_id) => Some(Witness { event_id, recorded_at: time(row.try_get("last_recorded_at_us")?) }),
        None => None,
    };
    Ok(Known { version, last, next, command, matched: None })
}

/// The time that the log stores as `micros` since 1970.
pub(crate) fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// The record of a row of `find_command.sql`.
pub(crate) fn command(row: &SqliteRow) -> Result<CommandRecord, sqlx::Error> {
    record(row.try_get("fingerprint")?, row.try_get("version")?, row.try_get("position")?)
}

fn record(fingerprint: &[u8], version: i64, position: i64) -> Result<CommandRecord, sqlx::Error> {
    let fingerprint: [u8; 32] = fingerprint.try_into().map_err(|reason| decode_error("fingerprint", reason))?;
    let (version, position) = (Version::from_i64(version), Position::from_i64(position));
    let appended = Appended { version, position, repeated: false };
    Ok(CommandRecord { fingerprint: Fingerprint::from(fingerprint), appended })
}

fn damaged(column: &str, reason: impl Into<BoxDynError>) -> ReadError {
    Failure::from(decode_error(column, reason)).into()
}

fn decode_error(column: &str, reason: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: reason.into() }
}
