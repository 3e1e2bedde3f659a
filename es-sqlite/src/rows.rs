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
    Row, Sqlite, SqliteConnection,
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

/// The names of the events of a page: few, each many times.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<Arc<str>>);

impl Names {
    fn shared(&mut self, name: &str) -> Arc<str> {
        self.0.get(name).cloned().unwrap_or_else(|| {
            let name = Arc::<str>::from(name);
            self.0.insert(name.clone());
            name
        })
    }
}

/// The events of a query, up to the one with which their payloads reach [`PAGE_BYTES`] (R17). The outer error is one of the database.
pub(crate) async fn page(
    query: Query<'_, Sqlite, SqliteArguments>,
    connection: &mut SqliteConnection,
) -> Result<Result<Vec<RecordedEvent>, ReadError>, sqlx::Error> {
    let (mut events, mut names, mut bytes) = (Vec::new(), Names::default(), 0);
    let mut rows = query.fetch(connection);
    while bytes < PAGE_BYTES
        && let Some(row) = rows.try_next().await?
    {
        match event(&row, &mut names) {
            Ok(event) => {
                bytes += event.data.payload.len();
                events.push(event);
            }
            Err(damaged) => return Ok(Err(damaged)),
        }
    }
    Ok(Ok(events))
}

/// The event of a row that begins with the columns position, stream, version, id, name, schema version, payload, metadata, time:
/// to find a column by its name costs a hash.
pub(crate) fn event(row: &SqliteRow, names: &mut Names) -> Result<RecordedEvent, ReadError> {
    let position = Position::from_i64(get(row, 0)?);
    let metadata: Option<&[u8]> = get(row, 7)?;
    Ok(RecordedEvent {
        position,
        stream: get::<&str>(row, 1)?.parse().map_err(|reason| damaged("stream", reason))?,
        version: Version::from_i64(get(row, 2)?),
        id: get(row, 3)?,
        recorded_at: time(get(row, 8)?),
        metadata: Metadata::decode(metadata).map_err(|reason| ReadError::Damaged { position, reason })?,
        data: EventData {
            name: names.shared(get(row, 4)?),
            schema_version: get(row, 5)?,
            payload: Bytes::copy_from_slice(get(row, 6)?),
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

fn get<'r, T>(row: &'r SqliteRow, column: usize) -> Result<T, ReadError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(|error| Failure::from(error).into())
}

fn damaged(column: &str, reason: impl Into<BoxDynError>) -> ReadError {
    Failure::from(decode_error(column, reason)).into()
}

fn decode_error(column: &str, reason: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: reason.into() }
}
