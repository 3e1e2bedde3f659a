//! The store: one writer, a few readers, and the ports they serve.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use es_core::{
    Append, AppendError, Appended, EventQuery, EventStore, IdempotencyKey, Position, ReadError, RecordedEvent,
    ServiceStore, StreamId, Version,
    backend::{CommandRecord, Inline, InlineModels, KnownHead, validate_together},
    error::BoxError,
    read::heartbeat::Heartbeat,
    telemetry::AppendMeter,
    write::rooms::Rooms,
};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    connect::{self, ConnectError},
    connections::Connections,
    error::{self, CloseError, Stopped, UnexpectedAnswer},
    import::line::Line,
    options::PostgresOptions,
    read::{
        head::Head,
        loader::Loader,
        log,
        matching::{self, Matching},
    },
    read_models::heartbeat,
    session::Session,
    write::{
        append::Prepared,
        parcel::{Caller, Queued},
        probe::Probe,
        request::Request,
        writer::Writer,
    },
};

/// An event store, snapshot store and read model store in one schema of a Postgres database. Clones
/// share its writer and its connections.
///
/// # Delivery
/// When the connection breaks under an append, the store sends it again by itself. If it turns out that
/// the lost attempt was committed, its caller gets [`Appended::repeated`] as `true`: whose work it was
/// cannot be told from that of another process which sent the same.
///
/// Dropping the last clone lets the writer finish what is queued; [`close`](Self::close) waits for that.
///
/// # Panics
/// All its futures panic outside of a tokio runtime with I/O and time enabled; it stays bound to the runtime in which
/// it was opened.
#[derive(Clone)]
pub struct PostgresStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) schema: String,
    pub(crate) schema_oid: i64,
    /// The way to the writer; `None` once the store is closed.
    queue: Mutex<Option<mpsc::Sender<Queued>>>,
    meter: Arc<AppendMeter>,
    rooms: Rooms,
    writer: AsyncMutex<Option<JoinHandle<()>>>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) leases: Arc<Heartbeat>,
    pub(crate) loader: Loader,
    matching: Matching,
    pub(crate) imports: Line,
    most_connections: usize,
    close_within: Duration,
    pub(crate) head: Head,
    pub(crate) inline: Inline,
    probe: Probe,
}

impl PostgresOptions {
    /// A store that is ready: the schema is up to date, and the server has shown that it keeps the
    /// append lock.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the migrations that are done, each whole.
    pub async fn connect(self) -> Result<PostgresStore, ConnectError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(ConnectError::NoRuntime);
        }
        let session = self.session()?;
        let (oid, head) = connect::prepare(&session, self.migrate).await?;
        Ok(PostgresStore::start(&session.of_schema(oid), &self, head))
    }
}

impl PostgresStore {
    /// A store in the database at `url`, with default [options](Self::options).
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the migrations that are done, each whole.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::options(url).connect().await
    }

    /// Options for a store in the database at `url` (`postgres://user:password@host:port/database`,
    /// with the driver's parameters and `schema`).
    pub fn options(url: &str) -> PostgresOptions {
        PostgresOptions::new(url)
    }

    pub(crate) fn start(session: &Session, options: &PostgresOptions, head: Position) -> Self {
        let (queue, queued) = mpsc::channel(options.queue_appends);
        let head = KnownHead::new(head);
        let meter = Arc::new(AppendMeter::default());
        let inline = Inline::default();
        let writer = Writer::new(session.clone(), options, queued, head.clone(), meter.clone(), inline.clone());
        let connections = Arc::new(Connections::new(session.clone(), options.reader_connections));
        let leases = Arc::new(Heartbeat::default());
        es_core::read::heartbeat::spawn(heartbeat::run(leases.clone(), session.clone()));
        let inner = Inner {
            schema: session.schema().to_owned(),
            schema_oid: session.schema_oid(),
            queue: Mutex::new(Some(queue)),
            meter,
            rooms: Rooms::new(options.queue_bytes, options.queue_bytes),
            writer: AsyncMutex::new(Some(tokio::spawn(writer.run()))),
            loader: Loader::start(connections.clone()),
            matching: Matching::start(connections.clone()),
            connections,
            leases,
            imports: Line::new(session.clone(), options.patience),
            most_connections: options.reader_connections,
            close_within: options.close_within,
            head: Head::new(session.schema().to_owned(), head),
            inline,
            probe: Probe::new(session.clone()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Finishes what is queued and closes all connections, in bounded time (R16): each of its steps waits no longer than
    /// [`close_within`](PostgresOptions::close_within). Later appends get [`AppendError::Closed`], and later reads fail; closing
    /// again does nothing. Callers that still wait when the time is over get [`AppendError::Store`], since the outcome of what they
    /// asked for is unknown.
    ///
    /// A store that is dropped without `close` finishes its queued appends too, as long as the runtime lives.
    ///
    /// # Errors
    /// [`CloseError`] when the store did not close cleanly. It is closed in this case too.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a store that takes no more appends. Call `close` again to finish the rest.
    pub async fn close(&self) -> Result<(), CloseError> {
        let inner = &*self.inner;
        drop(inner.queue.lock().expect("nothing panics while it holds the lock").take());
        inner.rooms.close();
        inner.leases.close();
        let mut finished = inner.imports.close(inner.close_within).await;
        // Under the lock, so that of two callers both return when it is done.
        let mut writer = inner.writer.lock().await;
        if let Some(task) = writer.as_mut() {
            finished &= tokio::time::timeout(inner.close_within, &mut *task).await.is_ok();
            task.abort();
            *writer = None;
        }
        inner.probe.close(inner.close_within).await;
        finished &= inner.connections.close(inner.most_connections, inner.close_within).await;
        if finished { Ok(()) } else { Err(CloseError::Unfinished) }
    }

    async fn queue(&self, request: Request) -> Result<Vec<Appended>, AppendError> {
        let inner = &*self.inner;
        let mut entrance = inner.rooms.enter(request.streams(), request.bytes());
        let room = entrance.room().await.ok_or(AppendError::Closed)?;
        let queue = inner.queue.lock().expect("nothing panics while it holds the lock").clone();
        let (answer, outcome) = oneshot::channel();
        let queue = queue.ok_or(AppendError::Closed)?;
        // From here on the writer owns the append: dropping this future changes nothing (R7).
        let caller = Caller { answer, _room: room };
        queue.send(Queued { request, caller }).await.map_err(|_| AppendError::Closed)?;
        drop((entrance, queue));
        outcome.await.unwrap_or_else(|_| Err(AppendError::Store(Stopped.into())))
    }
}

/// The outcome of the only append.
pub(crate) fn only(appended: &[Appended]) -> Result<Appended, AppendError> {
    appended.first().copied().ok_or_else(|| UnexpectedAnswer::Missing.into())
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leases.close();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("schema", &self.inner.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let appended = async { self.queue(Request::of_one(append)?).await };
        only(&self.inner.meter.measure(appended).await?)
    }

    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let appended = async {
            validate_together(&appends)?;
            self.queue(Request::new(appends.into_iter().map(Prepared::checked).collect())).await
        };
        self.inner.meter.measure(appended).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        log::read_stream(&self.inner.connections, stream, after, limit).await
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        log::read_log(&self.inner.connections, &self.inner.head, after, limit).await
    }

    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        matching::read_matching(&self.inner.connections, &self.inner.matching, query, after, limit).await
    }

    async fn head(&self) -> Result<Position, ReadError> {
        self.inner.head.ask(&self.inner.connections).await
    }

    async fn wait_past(&self, after: Position) -> Result<(), ReadError> {
        self.inner.head.wait_past(&self.inner.connections, after).await
    }

    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError> {
        log::find_command(&self.inner.connections, stream, key).await
    }

    async fn probe(&self) -> Result<Duration, ReadError> {
        self.inner.probe.take().await.map_err(error::read)
    }

    async fn now(&self) -> Result<DateTime<Utc>, ReadError> {
        log::now(&self.inner.connections).await
    }
}

#[async_trait]
impl ServiceStore for PostgresStore {
    async fn close(&self) -> Result<(), BoxError> {
        Ok(self.close().await?)
    }

    fn inline_models(&self) -> Option<&InlineModels> {
        Some(&self.inner.inline.models)
    }
}
