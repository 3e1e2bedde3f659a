//! Aggregates are loaded together: whatever is asked for while the server is busy becomes one statement.
//! There is no timer here either.

use std::sync::Arc;

use bytes::Bytes;
use es_core::{EventData, LoadedStream, ReadError, Snapshot, StreamId, Version};
use sqlx::{Row, postgres::PgRow};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task,
};
use uuid::Uuid;

use crate::{connections::Connections, error};

/// How many statements are with the server at once, at most. Whoever comes while there are fewer is served
/// at once and alone.
const MOST_STATEMENTS: usize = 4;

/// How many streams one statement reads, at most.
const MOST_STREAMS: usize = 128;

/// How many events of each stream, at least, whoever else is served by the same statement.
const FEWEST_EVENTS: usize = 32;

/// A stream that somebody waits for.
struct Wanted {
    stream: StreamId,
    snapshot: bool,
    limit: usize,
    answer: oneshot::Sender<Result<LoadedStream, ReadError>>,
}

/// The way to the loader, which ends when this is dropped.
pub(crate) struct Loader {
    connections: Arc<Connections>,
    statements: Arc<Semaphore>,
    queue: mpsc::Sender<Wanted>,
}

impl Loader {
    pub(crate) fn start(connections: Arc<Connections>) -> Self {
        let (queue, wanted) = mpsc::channel(1_024);
        let statements = Arc::new(Semaphore::new(MOST_STATEMENTS));
        tokio::spawn(run(connections.clone(), statements.clone(), wanted));
        Self { connections, statements, queue }
    }

    pub(crate) async fn load(
        &self,
        stream: &StreamId,
        snapshot: bool,
        limit: usize,
    ) -> Result<LoadedStream, ReadError> {
        let (answer, loaded) = oneshot::channel();
        let wanted = Wanted { stream: stream.clone(), snapshot, limit, answer };
        if let Ok(_statement) = self.statements.try_acquire() {
            read(&self.connections, vec![wanted]).await;
        } else if self.queue.send(wanted).await.is_err() {
            return Err(error::read(sqlx::Error::PoolClosed));
        }
        loaded.await.unwrap_or_else(|_| Err(error::read(sqlx::Error::PoolClosed)))
    }
}

/// Serves those who came while all statements were with the server.
async fn run(connections: Arc<Connections>, statements: Arc<Semaphore>, mut queue: mpsc::Receiver<Wanted>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, 1).await > 0 {
        let Ok(statement) = statements.clone().acquire_owned().await else { return };
        // Those who were just answered may want the next one.
        task::yield_now().await;
        while waiting.len() < MOST_STREAMS
            && let Ok(wanted) = queue.try_recv()
        {
            waiting.push(wanted);
        }
        let (with_snapshots, without): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|wanted| wanted.snapshot);
        let connections = connections.clone();
        tokio::spawn(async move {
            for wanted in [with_snapshots, without].into_iter().filter(|wanted| !wanted.is_empty()) {
                read(&connections, wanted).await;
            }
            drop(statement);
        });
    }
}

/// Reads what is `wanted`, all of it with snapshots or all of it without, and tells everybody.
async fn read(connections: &Connections, wanted: Vec<Wanted>) {
    let streams: Vec<&str> = wanted.iter().map(|wanted| wanted.stream.as_str()).collect();
    let limit = wanted.iter().map(|wanted| wanted.limit).max().unwrap_or_default();
    // Those who are served together share what one of them would get.
    let limit = (limit / wanted.len().max(1)).max(FEWEST_EVENTS).min(limit);
    let snapshots = wanted.iter().all(|wanted| wanted.snapshot);
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let query = || match streams[..] {
        [stream] if snapshots => sqlx::query(include_str!("sql/load_stream.sql")).bind(stream).bind(most),
        _ if snapshots => sqlx::query(include_str!("sql/load_streams.sql")).bind(&streams).bind(most),
        _ => sqlx::query(include_str!("sql/load_whole_streams.sql")).bind(&streams).bind(most),
    };
    let rows = match connections.read(query).await {
        Ok(rows) => rows,
        Err(cause) => {
            let cause = Arc::new(cause);
            for wanted in wanted {
                let failed = || Err(ReadError::Store(cause.clone().into()));
                // Together they are more than one answer can hold: they are to be read in pages.
                let _ = wanted.answer.send(if error::is_too_much(&cause) { Ok(unread()) } else { failed() });
            }
            return;
        }
    };
    let mut rows = &rows[..];
    for (wanted, ordinal) in wanted.into_iter().zip(1_i32..) {
        // The rows of a stream stand side by side, and the streams in the order of the array.
        let own = rows.iter().take_while(|row| row.try_get::<i32, _>(0).is_ok_and(|row| row == ordinal)).count();
        let (own, others) = rows.split_at(own);
        rows = others;
        let loaded = if snapshots { from_rows(own, &wanted.stream, limit) } else { from_whole(own, limit) };
        // Whoever asked may have dropped its future.
        let _ = wanted.answer.send(loaded.map(|loaded| loaded.unwrap_or_else(unread)).map_err(error::read));
    }
}

/// Everything is still to be read, in pages: they tell of what is wrong with the stream, if it is that.
fn unread() -> LoadedStream {
    LoadedStream { more: true, ..LoadedStream::default() }
}

/// The rows of one stream of `load_streams.sql`; `None` if they do not go together.
fn from_rows(rows: &[PgRow], stream: &StreamId, limit: usize) -> Result<Option<LoadedStream>, sqlx::Error> {
    let mut loaded = LoadedStream::default();
    let (mut next, mut witness) = (1, None);
    let mut names = Names::default();
    for row in rows {
        let (version, id): (i64, Uuid) = (row.try_get(1)?, row.try_get(2)?);
        let Some(name) = row.try_get::<Option<&str>, _>(5)? else {
            let Some(snapshot) = snapshot(row, stream, version, id)? else { return Ok(None) };
            (next, witness) = (version, Some(id));
            loaded.snapshot = Some(snapshot);
            continue;
        };
        if version != next {
            return Ok(None);
        }
        next += 1;
        // The event with which the snapshot ends: it is of this history if that is still the same (R8).
        if let Some(expected) = witness.take() {
            if expected != id {
                return Ok(None);
            }
            loaded.last = Some(id);
            continue;
        }
        let schema_version: i64 = row.try_get(3)?;
        let payload = Bytes::copy_from_slice(row.try_get(6)?);
        loaded.events.push(EventData {
            name: names.shared(name),
            schema_version: u32::try_from(schema_version).unwrap_or_default(),
            payload,
        });
        loaded.last = Some(id);
    }
    loaded.more = loaded.events.len() + usize::from(loaded.snapshot.is_some()) >= limit;
    Ok(witness.is_none().then_some(loaded))
}

/// The snapshot in a row of `load_streams.sql`; `None` when it holds what nobody writes.
fn snapshot(row: &PgRow, stream: &StreamId, version: i64, event_id: Uuid) -> Result<Option<Snapshot>, sqlx::Error> {
    let (state_version, checksum): (i64, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
    let state: &[u8] = row.try_get(6)?;
    let snapshot = || {
        Some(Snapshot {
            stream: stream.clone(),
            version: Version::new(u64::try_from(version).ok().filter(|version| *version > 0)?),
            event_id,
            state_version: u32::try_from(state_version).ok()?,
            checksum: u32::try_from(checksum?).ok()?,
            state: Bytes::copy_from_slice(state),
        })
    };
    Ok(snapshot())
}

/// The row of one stream of `load_whole_streams.sql`; `None` if its parts do not go together.
fn from_whole(rows: &[PgRow], limit: usize) -> Result<Option<LoadedStream>, sqlx::Error> {
    let Some(row) = rows.first() else { return Ok(None) };
    let (first, last): (Option<i64>, Option<i64>) = (row.try_get(1)?, row.try_get(2)?);
    let (Some(1), Some(last)) = (first, last) else {
        return Ok(first.is_none().then(LoadedStream::default));
    };
    let payloads = Bytes::copy_from_slice(row.try_get(5)?);
    let mut ends = memchr::memchr_iter(0, &payloads).chain([payloads.len()]);
    let mut names = Names::default();
    let mut events = Vec::with_capacity(usize::try_from(last).unwrap_or_default());
    let mut start = 0;
    for name in row.try_get::<&str, _>(4)?.split(' ') {
        let Some(end) = ends.next() else { return Ok(None) };
        let (name, version) = name.rsplit_once('/').unwrap_or((name, "1"));
        let schema_version = version.parse().unwrap_or_default();
        events.push(EventData { name: names.shared(name), schema_version, payload: payloads.slice(start..end) });
        start = end + 1;
    }
    let is_whole = ends.next().is_none() && usize::try_from(last) == Ok(events.len());
    let last = row.try_get(3)?;
    Ok(is_whole.then(|| LoadedStream { snapshot: None, more: events.len() >= limit, events, last }))
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
