//! Aggregates are loaded together: loads share statements (`shared.rs`).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use es_core::{
    EventData, ReadError, StreamId,
    backend::{Ending, LoadedStream, PAGE_BYTES, Witness},
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    connections::Connections,
    error,
    read::{
        sealed,
        shared::{Asked, Shareable, Shared},
    },
};

/// How many events of each stream, at least, however many streams the statement serves.
const FEWEST_EVENTS: usize = 32;

/// How many events a row of `load_whole_streams.sql` has, at most.
const EVENTS_OF_A_ROW: usize = 128;

/// How many columns a row of `load_streams.sql` has.
const OF_A_WHOLE_STREAM: usize = 11;

/// Room for an event that is read, to begin with.
const USUAL_BYTES: usize = 256;

/// The way of loads to the server.
pub(crate) type Loader = Shared<Load>;

/// A stream that a caller waits for.
pub(crate) struct Load {
    pub(crate) stream: StreamId,
    pub(crate) snapshot: bool,
    pub(crate) limit: usize,
}

impl Shareable for Load {
    type Found = LoadedStream;

    async fn alone(&self, connections: &Connections) -> Result<LoadedStream, ReadError> {
        let Self { stream, snapshot, limit } = self;
        let fetched = fetch(connections, &[stream.as_str()], *snapshot, *limit).await;
        let (rows, limit) = fetched.map_err(error::read)?;
        loaded(&rows, stream, *snapshot, limit)
    }

    async fn together(connections: &Connections, asked: Vec<Asked<Self>>) {
        let (with_snapshots, without): (Vec<_>, Vec<_>) = asked.into_iter().partition(|asked| asked.read.snapshot);
        for asked in [with_snapshots, without].into_iter().filter(|asked| !asked.is_empty()) {
            read(connections, asked).await;
        }
    }
}

/// Reads what is `asked`, all of it with snapshots or all of it without, and answers each caller.
async fn read(connections: &Connections, asked: Vec<Asked<Load>>) {
    let streams: Vec<&str> = asked.iter().map(|asked| asked.read.stream.as_str()).collect();
    let limit = asked.iter().map(|asked| asked.read.limit).max().unwrap_or_default();
    // Those who are served together share what one of them would get.
    let limit = (limit / asked.len().max(1)).max(FEWEST_EVENTS).min(limit);
    let snapshots = asked.iter().all(|asked| asked.read.snapshot);
    let fetched = fetch(connections, &streams, snapshots, limit).await.map_err(Arc::new);
    let is_alone = streams.len() == 1;
    let mut fetched = fetched.as_ref().map(|(rows, limit)| (&rows[..], *limit));
    for (asked, ordinal) in asked.into_iter().zip(1_i32..) {
        // The rows of a stream stand side by side, and the streams in the order of the array; the last column tells.
        let is_own = |row: &&PgRow| is_alone || row.try_get::<i32, _>(row.len() - 1).is_ok_and(|row| row == ordinal);
        let answer = match &mut fetched {
            Ok((rows, limit)) => {
                let (own, others) = rows.split_at(rows.iter().take_while(is_own).count());
                *rows = others;
                loaded(own, &asked.read.stream, snapshots, *limit)
            }
            Err(cause) => Err(ReadError::Store(cause.clone().into())),
        };
        asked.answer(answer);
    }
}

/// What the server has of `streams`, at most `limit` events of each, and how many events of each that may be. It ends with the row
/// whose payloads reach [`PAGE_BYTES`] (R17). Rows of several events leave out those that are larger than their share of a page.
///
/// (A sum of bytes in the statement, as pages of the log have it, would make the server sort and add up a thousand events.)
async fn fetch(
    connections: &Connections,
    streams: &[&str],
    snapshots: bool,
    limit: usize,
) -> Result<(Vec<PgRow>, usize), sqlx::Error> {
    // The server adds it to a version: the sum must fit into a bigint.
    let most = i64::from(u32::try_from(limit).unwrap_or(u32::MAX));
    let share = |events: usize| i64::try_from(PAGE_BYTES / events.max(1)).unwrap_or(i64::MAX);
    if let ([stream], true) = (streams, snapshots) {
        let query = || sqlx::query(include_str!("../sql/load_stream.sql")).bind(*stream).bind(most);
        let (rows, are_all) = connections.read_first(query, PAGE_BYTES, |row| bytes(row, 4)).await?;
        // Each row has what the rest is read from.
        let limit = if are_all { limit } else { rows.len() };
        return Ok((rows, limit));
    }
    let (text, share, payloads): (_, _, fn(&PgRow) -> usize) = if snapshots {
        (include_str!("../sql/load_streams.sql"), share(limit), |row| bytes(row, 9))
    } else {
        (include_str!("../sql/load_whole_streams.sql"), share(EVENTS_OF_A_ROW), |row| bytes(row, 4))
    };
    let query = || sqlx::query(text).bind(streams).bind(most).bind(share);
    // A stream of which rows are missing is to be read in pages.
    connections.read_first(query, PAGE_BYTES, payloads).await.map(|(rows, _)| (rows, limit))
}

/// How many bytes stand in a column of `row`.
pub(super) fn bytes(row: &PgRow, column: usize) -> usize {
    row.try_get_raw(column).ok().and_then(|value| value.as_bytes().ok()).map_or(0, <[u8]>::len)
}

/// What the `rows` of a stream say.
fn loaded(rows: &[PgRow], stream: &StreamId, snapshots: bool, limit: usize) -> Result<LoadedStream, ReadError> {
    let loaded = match rows {
        _ if !snapshots => from_whole(rows, limit),
        [row] if row.len() == OF_A_WHOLE_STREAM => from_joined(row, stream, limit),
        _ => from_rows(rows, stream, limit),
    };
    loaded.map(|loaded| loaded.unwrap_or_else(unread)).map_err(error::read)
}

/// Everything is still to be read, in pages: they tell of what is wrong with the stream, if it is that.
pub(super) fn unread() -> LoadedStream {
    LoadedStream { more: true, ..LoadedStream::default() }
}

/// The rows of `load_stream.sql`; `None` if they do not go together.
fn from_rows(rows: &[PgRow], stream: &StreamId, limit: usize) -> Result<Option<LoadedStream>, sqlx::Error> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
    let version: Option<i64> = first.try_get(0)?;
    let Some(witness) = id_and_time(first, 1, 6)? else {
        return Ok(version.is_none().then(LoadedStream::default));
    };
    let (snapshot, rows, from) = match first.try_get(5)? {
        Some(sealed) => {
            let version = version.unwrap_or_default();
            let opened = sealed::open(stream, version, Ending::read(witness), sealed);
            let Some(snapshot) = opened else { return Ok(None) };
            (Some(snapshot), &rows[1..], version + 1)
        }
        None => (None, rows, 1),
    };
    let (mut events, mut names) = (Vec::with_capacity(rows.len()), Names::default());
    let mut payloads = BytesMut::with_capacity(rows.len() * USUAL_BYTES);
    for (row, version) in rows.iter().zip(from..) {
        // Unchecked: that the statement gives these types need not be found out for every event.
        if row.try_get_unchecked::<i64, _>(0)? != version {
            return Ok(None);
        }
        let schema_version: Option<i32> = row.try_get_unchecked(2)?;
        payloads.extend_from_slice(row.try_get_unchecked(4)?);
        events.push(EventData {
            name: names.shared(row.try_get_unchecked(3)?),
            schema_version: schema_version.map_or(1, |version| u32::try_from(version).unwrap_or(0)),
            payload: payloads.split().freeze(),
        });
    }
    let (last, more) = (id_and_time(last, 1, 6)?, events.len() + usize::from(snapshot.is_some()) >= limit);
    Ok(Some(LoadedStream { snapshot, events, last, more }))
}

/// The row of one stream of `load_streams.sql`; `None` if its events do not go together.
fn from_joined(row: &PgRow, stream: &StreamId, limit: usize) -> Result<Option<LoadedStream>, sqlx::Error> {
    let (first, last): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let (Some(first), Some(last)) = (first, last) else { return Ok(first.is_none().then(LoadedStream::default)) };
    let count: i32 = row.try_get(2)?;
    let snapshot = match (row.try_get(5)?, id_and_time(row, 3, 4)?) {
        (Some(sealed), Some(witness)) => {
            let opened = sealed::open(stream, first, Ending::read(witness), sealed);
            let Some(snapshot) = opened else { return Ok(None) };
            Some(snapshot)
        }
        _ if first == 1 => None,
        _ => return Ok(None),
    };
    let mut events = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    if last - first + 1 != i64::from(count) || !push_events(row.try_get(8)?, row.try_get(9)?, &mut events) {
        return Ok(None);
    }
    let more = events.len() >= limit;
    if snapshot.is_some() {
        events.remove(0);
    }
    Ok(Some(LoadedStream { snapshot, events, last: id_and_time(row, 6, 7)?, more }))
}

/// The witness whose id and time stand in these columns of `row`.
fn id_and_time(row: &PgRow, event_id: usize, recorded_at: usize) -> Result<Option<Witness>, sqlx::Error> {
    let (event_id, recorded_at): (Option<Uuid>, Option<_>) = (row.try_get(event_id)?, row.try_get(recorded_at)?);
    Ok(event_id.zip(recorded_at).map(|(event_id, recorded_at)| Witness { event_id, recorded_at }))
}

/// The rows of one stream of `load_whole_streams.sql`; `None` if they do not go together.
fn from_whole(rows: &[PgRow], limit: usize) -> Result<Option<LoadedStream>, sqlx::Error> {
    let Some(first) = rows.first() else { return Ok(None) };
    let (version, last): (Option<i64>, _) = (first.try_get(0)?, id_and_time(first, 1, 2)?);
    let Some(wanted) = version.and_then(|version| usize::try_from(version).ok()) else {
        return Ok(Some(LoadedStream::default()));
    };
    let mut events = Vec::with_capacity(wanted);
    for row in rows {
        if !push_events(row.try_get(3)?, row.try_get(4)?, &mut events) {
            return Ok(None);
        }
    }
    let loaded = LoadedStream { snapshot: None, more: wanted >= limit, last, events };
    Ok((loaded.events.len() == wanted).then_some(loaded))
}

/// Takes apart what the server has put together; `false` if there are not as many names as payloads, since some are too large.
fn push_events(joined_names: &str, payloads: Option<&[u8]>, events: &mut Vec<EventData>) -> bool {
    let Some(payloads) = payloads.map(Bytes::copy_from_slice) else { return false };
    let mut ends = memchr::memchr_iter(0, &payloads).chain([payloads.len()]);
    let mut names = Names::default();
    let mut start = 0;
    for name in joined_names.split(' ') {
        let Some(end) = ends.next() else { return false };
        let (name, version) = name.rsplit_once('/').unwrap_or((name, "1"));
        let schema_version = version.parse().unwrap_or_default();
        events.push(EventData { name: names.shared(name), schema_version, payload: payloads.slice(start..end) });
        start = end + 1;
    }
    ends.next().is_none()
}

/// Names that are shared by events: an aggregate's are of few kinds, and often one comes after its like.
#[derive(Default)]
struct Names(Option<Arc<str>>);

impl Names {
    fn shared(&mut self, name: &str) -> Arc<str> {
        match &self.0 {
            Some(last) if **last == *name => last.clone(),
            _ => self.0.insert(name.into()).clone(),
        }
    }
}
