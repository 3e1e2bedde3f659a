//! The store: an open file, and the task that writes to it.

use std::{collections::VecDeque, fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use es_core::{
    ServiceStore,
    backend::{Inline, InlineModels, KnownHead, KnownProgress},
    error::BoxError,
    telemetry::AppendMeter,
};
use sqlx::SqliteConnection;
use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    connections::Connections,
    end::End,
    error::{CloseError, Failure, OpenError},
    file::File,
    generations,
    holders::Holders,
    leases,
    options::SqliteOptions,
    queue::Queue,
    writer::AppendWriter,
};

/// Event store, snapshots and read models on one SQLite file. Clones share its connections.
///
/// Concurrent appends of one process are written together, so that they share one sync of the disk. Several processes
/// may open the file at the same time; they must run on one machine, and the file must not lie on a network drive.
/// While a store is open, a file `<file>-live-<id>` beside the database shows other processes that it is open.
///
/// If the database file is removed or replaced while it is open, all later reads and writes and [`close`](Self::close) fail with
/// [`FileReplaced`](crate::FileReplaced), and projections and policies stop. What was acknowledged before may be lost with the file.
///
/// An append of more than 1 MiB gets a transaction of its own. All other writes wait while it runs (64 MB: some tenths
/// of a second), since a file has one writer. After it, small appends get as much time as it took before the next large
/// append begins.
///
/// # Backups
/// While the store is open, the newest events are in a second file, `<file>-wal`, and a copy of `<file>` alone misses
/// them. Let SQLite make the copy, which stops neither readers nor writers: `sqlite3 seats.db ".backup seats.bak"`.
///
/// To restore it, stop every process that has the file open. Delete `<file>-wal` and `<file>-shm`, which are left over
/// after a `kill -9` or when the file was removed. Then put the copy in the place of the file. SQLite takes a `-wal`
/// beside a file for changes that are not in the file yet, and writes them into it: an old one damages a restored file.
///
/// # Panics
/// All its futures panic outside of a tokio runtime with time enabled. A store stays bound to the runtime in which it
/// was opened.
#[derive(Clone)]
pub struct SqliteStore {
    open: Arc<Open>,
}

struct Open {
    connections: Arc<Connections>,
    holders: Arc<Holders>,
    queue: Queue,
    meter: Arc<AppendMeter>,
    head: KnownHead,
    inline: Inline,
    closing: Arc<Notify>,
    close_within: Duration,
    /// The task that writes appends; `None` once it has ended.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteOptions {
    /// The store in the file: it is created if it is missing, and its schema is brought up to date, unless
    /// [told otherwise](Self::migrate).
    ///
    /// # Errors
    /// [`OpenError`] when there is no tokio runtime, the directory is missing, or the file is not an SQLite database, is
    /// locked, or has the schema of a newer program.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a file that can be opened.
    pub async fn open(self) -> Result<SqliteStore, OpenError> {
        if Handle::try_current().is_err() {
            return Err(OpenError::NoRuntime);
        }
        let file = File::at(&self.path)?;
        if !self.migrate {
            let writer = file.existing().await?;
            return SqliteStore::start(file, writer, self);
        }
        let writer = file.create().await?;
        let store = SqliteStore::start(file, writer, self)?;
        // A crash after a promotion may have left documents of a retired generation.
        generations::sweep(store.connections()).await.map_err(|failure| OpenError::File(failure.into()))?;
        Ok(store)
    }
}

impl SqliteStore {
    /// The store in the file at `path`, with default [options](Self::options).
    ///
    /// # Errors
    /// [`OpenError`], as [`SqliteOptions::open`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves a file that can be opened.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options(path).open().await
    }

    /// Options for a store in the file at `path`.
    pub fn options(path: impl AsRef<Path>) -> SqliteOptions {
        SqliteOptions::new(path.as_ref())
    }

    fn start(file: File, writer: SqliteConnection, options: SqliteOptions) -> Result<Self, OpenError> {
        let holders = Arc::new(Holders::announce(file.path()).map_err(|error| OpenError::File(error.into()))?);
        let connections = Connections::new(file, writer, options.reader_connections);
        let connections = Arc::new(connections.map_err(|error| OpenError::File(error.into()))?);
        let (queue, queued) = Queue::new(&options);
        let head = KnownHead::default();
        let closing = Arc::new(Notify::new());
        let meter = Arc::new(AppendMeter::default());
        let inline = Inline::default();
        let close_within = options.close_within;
        // The task does not keep the store open: once all clones are dropped, the queue ends, and with it the task.
        let writer = AppendWriter {
            options,
            queue: queued,
            deferred: VecDeque::new(),
            connections: connections.clone(),
            head: head.clone(),
            end: End::default(),
            meter: meter.clone(),
            inline: inline.clone(),
            closing: closing.clone(),
        };
        let writer = Mutex::new(Some(tokio::spawn(writer.run())));
        // The same for this task: dropping the last clone ends it.
        es_core::read::heartbeat::spawn(leases::keep_alive(holders.clone(), connections.clone()));
        let open = Open { connections, holders, queue, meter, head, inline, closing, close_within, writer };
        Ok(Self { open: Arc::new(open) })
    }

    /// Finishes what is queued, moves the write-ahead log into the file, and closes all connections, in bounded time (R16): each
    /// of these steps waits no longer than [`close_within`](SqliteOptions::close_within). Later appends get
    /// [`AppendError::Closed`](es_core::AppendError::Closed), and later reads fail; closing again does nothing.
    ///
    /// A store that is dropped without `close` finishes its queued appends too, as long as the runtime lives.
    ///
    /// # Errors
    /// [`CloseError`] when the store did not close cleanly. It is closed in this case too.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a store that takes no more appends. Call `close` again to finish the rest.
    pub async fn close(&self) -> Result<(), CloseError> {
        let limit = self.open.close_within;
        self.open.closing.notify_one();
        let mut writer = self.open.writer.lock().await;
        let finished = match &mut *writer {
            Some(task) => {
                let finished = timeout(limit, &mut *task).await.is_ok();
                task.abort();
                finished
            }
            None => true,
        };
        *writer = None;
        let closed = timeout(limit, self.open.connections.close()).await;
        self.open.holders.end();
        match closed {
            Ok(Err(Failure::Replaced(replaced))) => Err(replaced.into()),
            Ok(Err(failure)) => Err(CloseError::Checkpoint(failure.into())),
            Ok(Ok(())) if finished => Ok(()),
            _ => Err(CloseError::Unfinished),
        }
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.open.connections
    }

    pub(crate) fn holders(&self) -> &Arc<Holders> {
        &self.open.holders
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.open.queue
    }

    /// What it reports of its appends.
    pub(crate) fn meter(&self) -> &AppendMeter {
        &self.open.meter
    }

    /// The last position that this process has written, and a notification of each later one.
    pub(crate) fn head_of_this_process(&self) -> &KnownHead {
        &self.open.head
    }

    /// The read models for which callers in this process wait.
    pub(crate) fn progress(&self) -> &KnownProgress {
        &self.open.inline.progress
    }

    /// The read models that appends fold.
    pub(crate) fn inline(&self) -> &Inline {
        &self.open.inline
    }
}

#[async_trait]
impl ServiceStore for SqliteStore {
    async fn close(&self) -> Result<(), BoxError> {
        Ok(self.close().await?)
    }

    fn inline_models(&self) -> Option<&InlineModels> {
        Some(&self.open.inline.models)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.holders.end();
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.open.connections.file().path()).finish_non_exhaustive()
    }
}
