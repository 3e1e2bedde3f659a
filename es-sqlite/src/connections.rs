//! The connections to the file: one for writes, a few for reads.

use std::{
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Mutex as TurnLock, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::{
    error::Failure,
    file::File,
    identity::{FileReplaced, Identity},
};

/// What a write does inside its transaction.
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;

/// All connections of one store.
///
/// One connection makes all writes, of appends and of read models. SQLite admits one writer at a time anyway and makes
/// the others poll with growing pauses: with a connection of its own for each, a busy appender would starve a
/// projector. Here they wait in a fair queue. `BEGIN IMMEDIATE` locks out other processes.
///
/// A connection whose query failed or was cancelled is closed and not used again, so that no caller continues a
/// transaction of another one.
#[derive(Debug)]
pub(crate) struct Connections {
    file: File,
    identity: Arc<Identity>,
    writer: Arc<TurnLock<Writer>>,
    readers: Arc<Semaphore>,
    idle: Mutex<Vec<SqliteConnection>>,
}

#[derive(Debug)]
enum Writer {
    Open(SqliteConnection),
    /// `None` while it is in use, or after a failure closed it: then the next turn opens a new one.
    Absent,
    Closed,
}

impl Connections {
    /// The file has just been opened by `writer`. At most `readers` queries run at once.
    pub(crate) fn new(file: File, writer: SqliteConnection, readers: usize) -> io::Result<Self> {
        Ok(Self {
            identity: Arc::new(Identity::of(file.path())?),
            file,
            writer: Arc::new(TurnLock::new(Writer::Open(writer))),
            readers: Arc::new(Semaphore::new(readers)),
            idle: Mutex::default(),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// A connection to read with, as soon as one is free.
    pub(crate) async fn reader(&self) -> Result<Reader<'_>, Failure> {
        let permit = self.readers.acquire().await.map_err(|_| Failure::Closed)?;
        Ok(Reader { connections: self, connection: self.connection().await?, _permit: permit })
    }

    /// The same, which keeps the connections alive.
    pub(crate) async fn owned_reader(self: &Arc<Self>) -> Result<OwnedReader, Failure> {
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| Failure::Closed)?;
        Ok(OwnedReader { connections: self.clone(), connection: self.connection().await?, _permit: permit })
    }

    async fn connection(&self) -> Result<SqliteConnection, Failure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Otherwise reads of a removed file would succeed, and the service would count as ready.
        self.identity.check()?;
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let connection = self.file.connect_reader().await?;
            // Another file may have this name by now.
            self.identity.check()?;
            connection
        };
        Ok(connection)
    }

    /// Keeps `connection` for the next query.
    fn keep(&self, connection: SqliteConnection) {
        // The lock is taken before the check: `close` takes the lock last, so it finds each connection pushed here.
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.readers.is_closed() {
            idle.push(connection);
        }
    }

    /// The connection for writes, once all callers that asked earlier are done.
    pub(crate) async fn turn(&self) -> Result<Turn, Failure> {
        let mut writer = self.writer.clone().lock_owned().await;
        if matches!(*writer, Writer::Closed) {
            return Err(Failure::Closed);
        }
        self.identity.check()?;
        let connection = match mem::replace(&mut *writer, Writer::Absent) {
            Writer::Open(connection) => connection,
            Writer::Absent | Writer::Closed => {
                let connection = self.file.connect_writer().await?;
                // Another file may have this name by now.
                self.identity.check()?;
                connection
            }
        };
        Ok(Turn { writer, connection, identity: self.identity.clone() })
    }

    /// Runs `work` in a transaction that holds the write lock.
    ///
    /// A caller that is dropped before its turn leaves nothing. From then on a separate task runs the transaction to its
    /// end (R7). The task holds the turn, so there is never more than one such task.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        let mut turn = self.turn().await?;
        let task = tokio::spawn(async move {
            let mut transaction = turn.connection().begin_with("BEGIN IMMEDIATE").await?;
            let outcome = work(&mut transaction).await?;
            transaction.commit().await?;
            turn.committed()?;
            Ok(outcome)
        });
        task.await.map_err(|_| Failure::Interrupted)?
    }

    /// Ends all reading, waits for the writer's turn, and moves the write-ahead log into the file.
    pub(crate) async fn close(&self) -> Result<(), Failure> {
        self.readers.close();
        let idle = mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for reader in idle {
            // The connection has no transaction open.
            let _ = reader.close().await;
        }
        let mut writer = self.writer.lock().await;
        let connection = match mem::replace(&mut *writer, Writer::Closed) {
            Writer::Open(connection) => Some(connection),
            Writer::Absent => {
                self.identity.check()?;
                self.file.connect_writer().await.map(Some)?
            }
            Writer::Closed => None,
        };
        if let Some(mut connection) = connection {
            sqlx::query(include_str!("sql/checkpoint_wal.sql")).execute(&mut connection).await?;
            connection.close().await?;
            self.identity.check()?;
        }
        Ok(())
    }
}

/// A connection to read with.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    connections: &'a Connections,
    connection: SqliteConnection,
    _permit: SemaphorePermit<'a>,
}

impl Reader<'_> {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Keeps the connection for the next query. A connection that is dropped without this call is closed.
    pub(crate) fn give_back(self) {
        self.connections.keep(self.connection);
    }
}

/// As [`Reader`], for a reading that lasts.
#[derive(Debug)]
pub(crate) struct OwnedReader {
    connections: Arc<Connections>,
    connection: SqliteConnection,
    _permit: OwnedSemaphorePermit,
}

impl OwnedReader {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// As [`Reader::give_back`].
    pub(crate) fn give_back(self) {
        self.connections.keep(self.connection);
    }
}

/// The right to write, and the connection to do it with.
#[derive(Debug)]
pub(crate) struct Turn {
    writer: OwnedMutexGuard<Writer>,
    connection: SqliteConnection,
    identity: Arc<Identity>,
}

impl Turn {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Ends a turn that has committed, and checks that the files written to still have their names, so that other
    /// processes find the commit. The connection is kept for the next turn; if a turn ends in any other way, its
    /// connection is closed.
    pub(crate) fn committed(mut self) -> Result<(), FileReplaced> {
        let there = self.identity.check().and_then(|()| self.identity.check_log());
        *self.writer = Writer::Open(self.connection);
        there
    }
}
