//! Events in a binary `COPY`: cut out of what the server has sent, without a copy of what is large.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use chrono::DateTime;
use es_core::{EventData, Metadata, Position, ReadError, Recorded, RecordedEvent, Version};
use sqlx::error::BoxDynError;
use uuid::Uuid;

use super::log::shared;
use crate::error;

/// What stands before the first row: signature, flags, extension.
const HEADER: usize = 19;

/// Microseconds from 1970 to 2000, when the server's time begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The events of a `COPY` of `read_log.sql`, whose server sends each row, and the end, as a piece of its own. The first row stands
/// behind the header.
pub(super) fn decode(pieces: &[Bytes]) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut names = HashSet::<Arc<str>>::new();
    let mut events = Vec::with_capacity(pieces.len());
    for (nth, piece) in pieces.iter().enumerate() {
        let header = if nth == 0 { HEADER } else { 0 };
        let row = piece.get(header..).ok_or_else(|| damaged("no header".into()))?;
        // The end of the copy has no columns.
        if !row.is_empty() && row != (-1_i16).to_be_bytes() {
            events.push(event(piece, row, &mut names)?);
        }
    }
    Ok(events)
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
