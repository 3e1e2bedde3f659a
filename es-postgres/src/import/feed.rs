//! A history on its way into chunks: skipped as far as it is in the log, checked, written out.

use std::pin::pin;

use es_core::{
    Append, Expected, NewEvent, Position, StreamId,
    backend::{BoxError, InvalidAppend, Witness},
};
use futures_util::{Stream, StreamExt};
use sqlx::Row;
use tokio::{
    sync::mpsc,
    task::{JoinSet, coop},
};

use super::{
    Import, ImportError, ImportFailure, ImportProgress, Imported,
    chunk::{self, Chunk},
    streams::Numbers,
    write,
};

impl Import<'_> {
    pub(super) async fn find(&self) -> Result<ImportProgress, sqlx::Error> {
        let find = || sqlx::query(include_str!("../sql/find_import.sql")).bind(&self.name);
        let rows = self.store.inner.connections.read(find).await?;
        let Some(row) = rows.first() else { return Ok(ImportProgress::default()) };
        let (events, position): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (events, position) = (u64::try_from(events).unwrap_or(0), Position::from_i64(position));
        let last = Some(Witness { event_id: row.try_get(2)?, recorded_at: row.try_get(3)? });
        Ok(ImportProgress { events, position, last })
    }

    pub(super) async fn run<E: Into<BoxError>>(
        self,
        events: impl Stream<Item = Result<Imported, E>>,
    ) -> Result<ImportProgress, ImportError> {
        let progress = ImportProgress::default();
        if self.name.is_empty() || self.name.len() > 255 || self.name.chars().any(char::is_control) {
            return Err(ImportError { progress, reason: ImportFailure::Name });
        }
        let progress = self.find().await;
        let progress = progress
            .map_err(|cause| ImportError { progress: ImportProgress::default(), reason: unreachable_store(cause) })?;
        let (full, filled) = mpsc::channel(1);
        let (emptied, empty) = mpsc::channel(2);
        for _ in 0..2 {
            emptied.try_send(Chunk::default()).expect("there is room for two");
        }
        // A set ends its task when it is dropped, and so with this future.
        let mut writer = JoinSet::new();
        writer.spawn(write::write_all(self.store.inner.clone(), self.name.clone(), progress, filled, emptied));
        let fed = self.feed(events, &progress, full, empty).await;
        let (progress, written) = match writer.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(cause)) => (progress, Err(ImportFailure::Unknown(cause.into()))),
            None => (progress, Ok(())),
        };
        // What the writer met came before what the feeder met.
        written.and(fed).map(|()| progress).map_err(|reason| ImportError { progress, reason })
    }

    async fn feed<E: Into<BoxError>>(
        &self,
        events: impl Stream<Item = Result<Imported, E>>,
        progress: &ImportProgress,
        full: mpsc::Sender<Chunk>,
        mut empty: mpsc::Receiver<Chunk>,
    ) -> Result<(), ImportFailure> {
        let mut events = pin!(events.map(|event| event.map_err(|cause| ImportFailure::History(cause.into()))).fuse());
        if self.start > progress.events {
            return Err(ImportFailure::Ahead { start: self.start, imported: progress.events });
        }
        for index in self.start..progress.events {
            let event = events.next().await.transpose()?;
            let is_last = index + 1 == progress.events;
            let witness = |event: Imported| chunk::witness(event.id, chunk::micros(event.recorded_at)?);
            if event.is_none_or(|event| is_last && witness(event) != progress.last) {
                return Err(ImportFailure::OtherHistory { index });
            }
            coop::consume_budget().await;
        }
        let mut desk = Desk::new();
        let mut index = progress.events;
        loop {
            // Where no chunk comes back, or none can be sent, the writer has ended: it says why.
            let Some(mut chunk) = empty.recv().await else { return Ok(()) };
            chunk.clear();
            desk.numbers.begin(&mut chunk.streams);
            // At least one, however small chunks are to be.
            while chunk.events() == 0 || (chunk.events() < self.chunk_events && chunk.bytes() < self.chunk_bytes) {
                let Some(event) = events.next().await.transpose()? else { break };
                desk.add(event, index, &mut chunk)?;
                index += 1;
                coop::consume_budget().await;
            }
            if chunk.events() == 0 {
                return Ok(());
            }
            self.look_up(&mut chunk).await.map_err(unreachable_store)?;
            if full.send(chunk).await.is_err() {
                return Ok(());
            }
            // The writer was woken on this very thread and would wait until the next chunk is full.
            tokio::task::yield_now().await;
        }
    }

    /// Reads the versions of the streams of `chunk` while the chunk before it is being written.
    async fn look_up(&self, chunk: &mut Chunk) -> Result<(), sqlx::Error> {
        let unknown = chunk.streams.unknown();
        let find = || sqlx::query(include_str!("../sql/find_versions.sql")).bind(&unknown);
        let rows = self.store.inner.connections.read(find).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let (names, versions): (Option<Vec<String>>, Option<Vec<i64>>) = (row.try_get(1)?, row.try_get(2)?);
        let found = names.into_iter().flatten().zip(versions.into_iter().flatten()).collect();
        chunk.streams.looked_up(row.try_get(0)?, &found);
        Ok(())
    }
}

fn unreachable_store(cause: sqlx::Error) -> ImportFailure {
    match cause {
        sqlx::Error::PoolClosed => ImportFailure::Closed,
        cause => ImportFailure::Store(cause.into()),
    }
}

/// What an event must pass before it is written: the rules of an append, one event at a time.
struct Desk {
    numbers: Numbers,
    /// Room for one event, used again and again.
    append: Append,
}

impl Desk {
    fn new() -> Self {
        let stream = StreamId::new("import", "rules").expect("a valid name");
        Self { numbers: Numbers::default(), append: Append::new(stream, Expected::Any, Vec::with_capacity(1)) }
    }

    /// Adds the event at `index` to `chunk`, if it breaks no rule.
    fn add(&mut self, event: Imported, index: u64, chunk: &mut Chunk) -> Result<(), ImportFailure> {
        let Imported { stream, id, recorded_at: at, data, metadata, tags } = event;
        let micros = chunk::micros(at).ok_or(ImportFailure::RecordedAt { index, at })?;
        self.append.events.clear();
        self.append.events.push(NewEvent { id, data, metadata, tags });
        self.append.validate().map_err(|reason| ImportFailure::Invalid { index, reason: at_index(reason, index) })?;
        let number = self.numbers.number(&stream, &mut chunk.streams);
        chunk.push(&stream, number, micros, &self.append.events[0]);
        Ok(())
    }
}

/// The same reason with the place in the history: the rules know only one event.
fn at_index(mut reason: InvalidAppend, index: u64) -> InvalidAppend {
    use InvalidAppend::{
        EventName, MetadataTooLarge, NotJson, NotUtf8, Nul, Number, PayloadTooLarge, SchemaVersion, TooDeep,
        TooManyTags,
    };
    if let EventName { event, .. }
    | SchemaVersion { event }
    | PayloadTooLarge { event, .. }
    | MetadataTooLarge { event, .. }
    | NotUtf8 { event }
    | NotJson { event, .. }
    | Nul { event }
    | Number { event }
    | TooDeep { event }
    | TooManyTags { event, .. } = &mut reason
    {
        *event = usize::try_from(index).unwrap_or(usize::MAX);
    }
    reason
}
