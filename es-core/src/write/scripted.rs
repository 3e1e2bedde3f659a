//! A store for the tests of the write side: the test says what becomes of the next appends.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::{
    event::RecordedEvent,
    memory::MemoryStore,
    stream::{Position, StreamId, Version},
    tag::EventQuery,
    write::{
        append::{Append, IdempotencyKey},
        snapshot::{AggregateStore, LoadedStream, Snapshot, SnapshotError, SnapshotStore},
        store::{AppendError, Appended, CommandRecord, EventStore, ReadError},
    },
};

/// What becomes of an append.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is written after this one of another program.
    After(Append),
    /// It ends with this error.
    Fails(AppendError),
    /// The store breaks, also for all reads that follow.
    Breaks,
    /// It is written when [`Scripted::let_through`] is called.
    Waits,
}

/// A memory store behind which appends meet the fates of a test, and are written where there is none.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) memory: MemoryStore,
    fates: Mutex<VecDeque<Fate>>,
    appends: AtomicUsize,
    pages: AtomicUsize,
    through: Notify,
    is_broken: AtomicBool,
    on_page: OnPage,
}

/// Called with each page of the log that is read.
struct OnPage(Box<Note>);

type Note = dyn Fn(&[RecordedEvent]) + Send + Sync;

impl fmt::Debug for OnPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnPage")
    }
}

impl Scripted {
    pub(crate) fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
        let fates = Mutex::new(fates.into_iter().collect());
        let (appends, pages) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (memory, through, is_broken) = (MemoryStore::new(), Notify::new(), AtomicBool::new(false));
        let on_page = OnPage(Box::new(|_| {}));
        Self { memory, fates, appends, pages, through, is_broken, on_page }
    }

    /// The log of `memory`, with a call for each page of it that is read.
    pub(crate) fn noting(memory: MemoryStore, on_page: impl Fn(&[RecordedEvent]) + Send + Sync + 'static) -> Self {
        Self { memory, on_page: OnPage(Box::new(on_page)), ..Self::new([]) }
    }

    /// The number of appends that have reached it.
    pub(crate) fn appends(&self) -> usize {
        self.appends.load(Ordering::SeqCst)
    }

    /// The number of pages of the log that were asked for.
    pub(crate) fn pages(&self) -> usize {
        self.pages.load(Ordering::SeqCst)
    }

    /// Writes one of the appends that wait, now or as soon as one does.
    pub(crate) fn let_through(&self) {
        self.through.notify_one();
    }

    fn reader(&self) -> Result<&MemoryStore, ReadError> {
        if self.is_broken.load(Ordering::SeqCst) {
            Err(ReadError::Store("it is broken".into()))
        } else {
            Ok(&self.memory)
        }
    }
}

#[async_trait]
impl EventStore for Scripted {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        Ok(self.append_together(vec![append]).await?.remove(0))
    }

    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        let fate = self.fates.lock().expect("nothing panics under it").pop_front();
        match fate {
            None => {}
            Some(Fate::After(rival)) => drop(self.memory.append(rival).await?),
            Some(Fate::Fails(error)) => return Err(error),
            Some(Fate::Breaks) => {
                self.is_broken.store(true, Ordering::SeqCst);
                return Err(AppendError::Store("it is broken".into()));
            }
            Some(Fate::Waits) => self.through.notified().await,
        }
        self.memory.append_together(appends).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.reader()?.read_stream(stream, after, limit).await
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        let page = self.reader()?.read_log(after, limit).await?;
        (self.on_page.0)(&page);
        Ok(page)
    }

    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        self.reader()?.read_matching(query, after, limit).await
    }

    async fn head(&self) -> Result<Position, ReadError> {
        self.reader()?.head().await
    }

    async fn wait_past(&self, after: Position) -> Result<(), ReadError> {
        self.reader()?.wait_past(after).await
    }

    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError> {
        self.reader()?.find_command(stream, key).await
    }

    async fn probe(&self) -> Result<Duration, ReadError> {
        self.reader()?.probe().await
    }

    async fn now(&self) -> Result<DateTime<Utc>, ReadError> {
        self.reader()?.now().await
    }
}

#[async_trait]
impl SnapshotStore for Scripted {
    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, SnapshotError> {
        self.memory.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), SnapshotError> {
        self.memory.save_snapshot(snapshot).await
    }
}

#[async_trait]
impl AggregateStore for Scripted {
    async fn load_stream(&self, stream: &StreamId, snapshots: bool, limit: usize) -> Result<LoadedStream, ReadError> {
        self.reader()?.load_stream(stream, snapshots, limit).await
    }
}
