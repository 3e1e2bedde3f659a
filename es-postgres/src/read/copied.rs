//! Events in a binary `COPY`: cut out of what the server has sent, without a copy of what is large.

use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use chrono::DateTime;
use es_core::{EventData, Metadata, Position, ReadError, Recorded, RecordedEvent, Version, backend::PAGE_BYTES};
use sqlx::error::BoxDynError;
use uuid::Uuid;

use super::log::shared;
use crate::error;

/// What stands before the first row: signature, flags, extension.
const HEADER: usize = 19;

/// Microseconds from 1970 to 2000, when the server's time begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The events of a `COPY` of `read_log.sql` or `read_small.sql`, whose server sends each row, and the end, as a piece of its own.
#[derive(Default)]
pub(super) struct Copied {
    has_begun: bool,
    names: HashSet<Arc<str>>,
    events: Vec<RecordedEvent>,
    /// Of their payloads.
    bytes: usize,
    failure: Option<ReadError>,
}

impl Copied {
    /// Adds the event of `piece`; ends with the event with which the payloads reach [`PAGE_BYTES`].
    pub(super) fn take(&mut self, piece: &Bytes) -> ControlFlow<()> {
        if self.bytes >= PAGE_BYTES {
            // The end has no columns. If it comes now, the connection is of use.
            return if is_end(piece) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        }
        match self.add(piece) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    fn add(&mut self, piece: &Bytes) -> Result<(), ReadError> {
        // The first row stands behind the header.
        let header = if std::mem::replace(&mut self.has_begun, true) { 0 } else { HEADER };
        let row = piece.get(header..).ok_or_else(|| damaged("no header".into()))?;
        if !row.is_empty() && !is_end(row) {
            let event = event(piece, row, &mut self.names)?;
            self.bytes += event.data.payload.len();
            self.events.push(event);
        }
        Ok(())
    }

    /// The events, and how many bytes their payloads have.
    pub(super) fn events(self) -> Result<(Vec<RecordedEvent>, usize), ReadError> {
        self.failure.map_or(Ok((self.events, self.bytes)), Err)
    }
}

fn is_end(row: &[u8]) -> bool {
    row == (-1_i16).to_be_bytes()
}

fn event(piece: &Bytes, row: &[u8], names: &mut HashSet<Arc<str>>) -> Result<RecordedEvent, ReadError> {
    let mut row = Row(row);
    let position = row.position().map_err(damaged)?;
    let (metadata, event) = row.event(position, piece, names).map_err(damaged)?;
    let metadata = Metadata::decode(metadata).map_err(|reason| ReadError::Damaged { position, reason })?;
    Ok(Recorded { metadata, ..event })
}

fn damaged(reason: BoxDynError) -> ReadError {
    error::read(sqlx::Error::Decode(reason))
}

/// The rest of a row.
struct Row<'a>(&'a [u8]);

impl<'a> Row<'a> {
    fn position(&mut self) -> Result<Position, BoxDynError> {
        let _columns: [u8; 2] = self.take(2)?.try_into()?;
        self.long().map(Position::from_i64)
    }

    /// What follows the position, without the metadata, which are returned as they are stored.
    fn event(
        &mut self,
        position: Position,
        piece: &Bytes,
        names: &mut HashSet<Arc<str>>,
    ) -> Result<(Option<&'a [u8]>, RecordedEvent), BoxDynError> {
        let version = Version::from_i64(self.long()?);
        let id = Uuid::from_slice(self.some()?)?;
        let micros = self.long()?.checked_add(EPOCH_MICROS);
        let recorded_at = micros.and_then(DateTime::from_timestamp_micros).ok_or("a time out of range")?;
        let schema_version = u32::try_from(i32::from_be_bytes(self.some()?.try_into()?))?;
        let name = shared(names, std::str::from_utf8(self.some()?)?);
        let payload = piece.slice_ref(self.some()?);
        let metadata = self.column()?;
        let stream = std::str::from_utf8(self.some()?)?.parse()?;
        let data = EventData { name, schema_version, payload };
        Ok((metadata, Recorded { position, stream, version, id, recorded_at, metadata: Metadata::default(), data }))
    }

    fn long(&mut self) -> Result<i64, BoxDynError> {
        Ok(i64::from_be_bytes(self.some()?.try_into()?))
    }

    fn some(&mut self) -> Result<&'a [u8], BoxDynError> {
        self.column()?.ok_or_else(|| "a null".into())
    }

    /// The next column; `None` for a null.
    fn column(&mut self) -> Result<Option<&'a [u8]>, BoxDynError> {
        let length = i32::from_be_bytes(self.take(4)?.try_into()?);
        usize::try_from(length).ok().map(|length| self.take(length)).transpose()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BoxDynError> {
        self.0.split_off(..length).ok_or_else(|| "a row that ends too early".into())
    }
}
