//! The connections to the file: one for writes, a few for reads.

use std::{io, mem, pin::Pin, sync::Arc};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Mutex as TurnLock, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::{
    error::Failure,
    file::File,
    identity::{FileReplaced, Identity},
    idle::Idle,
    in_place::ReadingThread,
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
    idle: Idle<SqliteConnection>,
    in_place: Idle<ReadingThread>,
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
            idle: Idle::new(),
            in_place: Idle::new(),
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

    /// Reads on a thread of its own, as soon as a connection is free. sqlx sends each row from the thread of its connection to the
    /// task that asked for it, with a copy of each value. Here `work` sees the rows in place, and only its result changes threads.
    ///
    /// If the caller is dropped, `work` still goes on to its end.
    pub(crate) async fn read_in_place<T, E, F>(self: &Arc<Self>, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failure> + Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, E> + Send + 'static,
    {
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| Failure::Closed)?;
        let thread = self.in_place.take().map_or_else(ReadingThread::start, Ok);
        let thread = thread.map_err(|error| Failure::from(sqlx::Error::from(error)))?;
        let connections = self.clone();
        let reading = thread.run(move |connection, thread| {
            let _permit = permit;
            let read = connections.opened(connection).map_err(E::from).and_then(work);
            if read.is_err() || !connections.in_place.keep(thread) {
                *connection = None;
            }
            read
        });
        reading.await?
    }

    fn opened<'c>(
        &self,
        connection: &'c mut Option<rusqlite::Connection>,
    ) -> Result<&'c rusqlite::Connection, Failure> {
        // As below.
        self.identity.check()?;
        let connection = match connection {
            Some(connection) => connection,
            closed => {
                let open = self.file.open_reader()?;
                self.identity.check()?;
                closed.insert(open)
            }
        };
        Ok(connection)
    }

    async fn connection(&self) -> Result<SqliteConnection, Failure> {
        let idle = self.idle.take();
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
        for thread in self.in_place.close() {
            let _ = thread.close().await;
        }
        for reader in self.idle.close() {
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
        self.connections.idle.keep(self.connection);
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
        self.connections.idle.keep(self.connection);
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::sync::mpsc;

    use tempfile::TempDir;
    use tokio::sync::oneshot;

    use super::*;

    /// The connections to a new file, of which one reads.
    async fn opened() -> (TempDir, Arc<Connections>) {
        let directory = tempfile::tempdir().unwrap();
        let file = File::at(&directory.path().join("events.db")).unwrap();
        let writer = file.create().await.unwrap();
        (directory, Arc::new(Connections::new(file, writer, 1).unwrap()))
    }

    fn head(connection: &rusqlite::Connection) -> Result<i64, Failure> {
        Ok(connection.query_row(include_str!("sql/head.sql"), [], |row| row.get(0))?)
    }

    /// (Seen to fail where a connection was kept although the idle ones had been closed.)
    #[tokio::test]
    async fn r16_what_is_being_read_when_the_store_closes_is_read_to_its_end_and_its_connection_is_closed() {
        let (_directory, connections) = opened().await;
        let (begun, has_begun) = oneshot::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let reading = tokio::spawn({
            let connections = connections.clone();
            async move {
                let work = move |connection: &rusqlite::Connection| {
                    let before = head(connection)?;
                    begun.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    Ok::<_, Failure>(before + head(connection)?)
                };
                connections.read_in_place(work).await
            }
        });
        has_begun.await.unwrap();
        connections.close().await.unwrap();
        assert!(matches!(connections.read_in_place(head).await, Err(Failure::Closed)));
        go_on.send(()).unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), 0);
        // SQLite allows this to the only connection of a file.
        let alone = rusqlite::Connection::open(connections.file().path()).unwrap();
        let mode: String = alone.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "delete");
    }

    /// (Seen to fail where each connection was kept: the next reading was in the transaction of this one.)
    #[tokio::test]
    async fn a_connection_whose_reading_failed_is_not_used_again() {
        let (_directory, connections) = opened().await;
        let failed = connections.read_in_place(|connection| {
            connection.execute_batch("BEGIN")?;
            Err::<(), _>(Failure::from(rusqlite::Error::QueryReturnedNoRows))
        });
        assert!(matches!(failed.await, Err(Failure::InPlace(_))));
        let is_fresh = connections.read_in_place(|connection| Ok::<_, Failure>(connection.is_autocommit()));
        assert!(is_fresh.await.unwrap());
    }

    /// (Seen to fail where the place was given up when the reading began: a caller that asks again and again would have any number of
    /// threads at work.)
    #[tokio::test]
    async fn r17_a_dropped_reading_keeps_its_place_until_it_ends() {
        let (_directory, connections) = opened().await;
        let (begun, has_begun) = oneshot::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let dropped = connections.read_in_place(move |_| {
            begun.send(()).unwrap();
            may_go_on.recv().unwrap();
            Ok::<_, Failure>(())
        });
        tokio::select! {
            _ = dropped => panic!("it waits"),
            begun = has_begun => begun.unwrap(),
        }
        assert_eq!(connections.readers.available_permits(), 0);
        go_on.send(()).unwrap();
        assert_eq!(connections.read_in_place(head).await.unwrap(), 0);
    }
}
