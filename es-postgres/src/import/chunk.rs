//! Events as the rows of a binary `COPY`, complete but for two numbers.
//!
//! A row's position and version are known only under the append lock, and while one session holds it all appends wait. So a
//! chunk is checked and written out beforehand, with eight empty bytes for each, its streams are
//! looked up, and under the append lock only what has changed since is learnt and the numbers are filled in.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use es_core::{NewEvent, StreamId, Tag, backend::Witness};
use uuid::Uuid;

use super::streams::ChunkStreams;

/// Signature, no flags, no extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const COLUMNS: [u8; 2] = 9_i16.to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// From the start of a row: the number of columns, a length, the position, a length, the version.
const POSITION: usize = 2 + 4;
const VERSION: usize = POSITION + 8 + 4;

/// 2000-01-01, from which Postgres counts, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The first instant that Postgres has, 4714-11-24 BC, in microseconds from its epoch.
const FIRST_INSTANT: i64 = -211_813_488_000_000_000;

/// Some events of a history, ready to be written. It is emptied and used again.
#[derive(Default)]
pub(super) struct Chunk {
    rows: Vec<u8>,
    /// For each event: where its row starts, and the number of its stream.
    events: Vec<(usize, usize)>,
    /// Each tag, with the number of its event, from 1, and that one's name.
    tags: Vec<(i64, Arc<str>, Tag)>,
    tag_bytes: usize,
    pub(super) streams: ChunkStreams,
    last: Option<Witness>,
}

/// The log or a stream has no room below 2^63.
pub(super) struct Full;

impl Chunk {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.rows.extend_from_slice(HEADER);
        self.events.clear();
        self.tags.clear();
        self.tag_bytes = 0;
    }

    /// How many events it holds.
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.len() + self.tag_bytes
    }

    /// The tags of its events: numbers of the events, from 1, their names, and the tags.
    pub(super) fn tags(&self) -> (Vec<i64>, Vec<&str>, Vec<&str>) {
        let tags = self.tags.iter();
        let columns = tags.map(|(event, name, tag)| (*event, (&**name, tag.as_str())));
        let (events, (names, tags)): (Vec<_>, (Vec<_>, Vec<_>)) = columns.unzip();
        (events, names, tags)
    }

    /// Its last event.
    pub(super) fn last(&self) -> Option<Witness> {
        self.last
    }

    /// Adds `event`, which has passed its checks and was recorded at `micros`, to the stream `number`.
    pub(super) fn push(&mut self, stream: &StreamId, number: usize, micros: i64, event: &NewEvent) {
        self.events.push((self.rows.len(), number));
        self.last = witness(event.id, micros);
        let number = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
        for tag in &event.tags {
            self.tag_bytes += tag.as_str().len();
            self.tags.push((number, event.data.name.clone(), tag.clone()));
        }
        self.rows.extend_from_slice(&COLUMNS);
        self.column(&[0; 8]);
        self.column(&[0; 8]);
        self.column(&micros.to_be_bytes());
        self.column(event.id.as_bytes());
        self.column(&event.data.schema_version.to_be_bytes());
        self.column(stream.as_str().as_bytes());
        self.column(event.data.name.as_bytes());
        self.column(&event.data.payload);
        match event.metadata.encode() {
            Some(metadata) => self.column(&metadata),
            None => self.rows.extend_from_slice(&NULL),
        }
    }

    fn column(&mut self, bytes: &[u8]) {
        // No column is longer than the limits of an event.
        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        self.rows.extend_from_slice(&length.to_be_bytes());
        self.rows.extend_from_slice(bytes);
    }

    /// Gives the events their positions after `head` and their versions after `versions`, by the number
    /// of the stream; returns what `COPY` takes, and the last position.
    pub(super) fn number(&mut self, head: i64, versions: &mut [i64]) -> Result<(&[u8], i64), Full> {
        let mut position = head;
        for (row, stream) in &self.events {
            position = position.checked_add(1).ok_or(Full)?;
            let version = versions[*stream].checked_add(1).ok_or(Full)?;
            versions[*stream] = version;
            self.rows[row + POSITION..][..8].copy_from_slice(&position.to_be_bytes());
            self.rows[row + VERSION..][..8].copy_from_slice(&version.to_be_bytes());
        }
        self.rows.extend_from_slice(&TRAILER);
        Ok((&self.rows, position))
    }
}

/// The event `event_id` that was recorded at `micros` from the epoch of Postgres.
pub(super) fn witness(event_id: Uuid, micros: i64) -> Option<Witness> {
    let recorded_at = DateTime::from_timestamp_micros(micros.checked_add(POSTGRES_EPOCH_MICROS)?)?;
    Some(Witness { event_id, recorded_at })
}

/// `instant` in microseconds from the epoch of Postgres; `None` before its first instant. (Its last one
/// lies behind that of any `DateTime`.)
pub(super) fn micros(instant: DateTime<Utc>) -> Option<i64> {
    let micros = instant.timestamp_micros().checked_sub(POSTGRES_EPOCH_MICROS)?;
    (micros >= FIRST_INSTANT).then_some(micros)
}
