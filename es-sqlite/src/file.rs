//! The file: how it is opened, and its schema.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::OpenFlags;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

use crate::error::OpenError;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// How long a connection waits for a lock that another process holds.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A database file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    path: PathBuf,
}

impl File {
    /// The file at `path`, whose directory must exist.
    pub(crate) fn at(path: &Path) -> Result<Self, OpenError> {
        // An absolute path, because names like `:memory:` and `file:…` have a special meaning for SQLite.
        let path = std::path::absolute(path).map_err(|error| OpenError::File(error.into()))?;
        match path.parent() {
            Some(directory) if !directory.is_dir() => Err(OpenError::NoDirectory { directory: directory.to_owned() }),
            _ => Ok(Self { path }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .disable_statement_logging()
    }

    /// A connection that may only read.
    pub(crate) async fn connect_reader(&self) -> Result<SqliteConnection, sqlx::Error> {
        // The number of rows that SQLite's thread hands over at a time.
        self.options().read_only(true).row_buffer_size(256).connect().await
    }

    /// The same for the thread that reads with it.
    pub(crate) fn open_reader(&self) -> Result<rusqlite::Connection, rusqlite::Error> {
        // As that of sqlx, it is used by one thread at a time and needs no mutex of SQLite.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }

    /// A connection that may write.
    pub(crate) async fn connect_writer(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.writer_options().connect().await
    }

    fn writer_options(&self) -> SqliteConnectOptions {
        self.options()
            // In WAL mode only FULL syncs the log at every commit (R5).
            .synchronous(SqliteSynchronous::Full)
            // A huge append makes the write-ahead log grow; at the next reset it is truncated to this size.
            .pragma("journal_size_limit", "67108864")
    }

    /// Creates the file if need be, brings its schema up to date, and returns a connection that may write.
    pub(crate) async fn create(&self) -> Result<SqliteConnection, OpenError> {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            // While another process has the new file open, the change to WAL mode fails at once and ignores
            // busy_timeout. So this loop waits.
            match self.try_create().await {
                Err(OpenError::Locked(_)) if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
                other => return other,
            }
        }
    }

    /// A connection that may write to the file, which must be there, with a schema that is up to date.
    pub(crate) async fn existing(&self) -> Result<SqliteConnection, OpenError> {
        if !self.path.exists() {
            return Err(OpenError::NoFile { file: self.path.clone() });
        }
        let mut connection = self.connect_writer().await?;
        let missing = missing(&mut connection).await?;
        if missing.is_empty() { Ok(connection) } else { Err(OpenError::NotMigrated { missing }) }
    }

    async fn try_create(&self) -> Result<SqliteConnection, OpenError> {
        let options = self.writer_options().create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        let mut connection = options.connect().await?;
        // Under the write lock, because two processes may open a new file at once. (The migration lock of sqlx does
        // nothing on SQLite. Its transactions become savepoints inside this one.)
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // Not `run`: the compiler cannot prove that the future of `run` is Send.
        MIGRATIONS.run_direct(None, &mut *transaction, false).await?;
        transaction.commit().await?;
        Ok(connection)
    }
}

/// The migrations that the schema has not had. It refuses a schema whose migrations are not ours.
async fn missing(connection: &mut SqliteConnection) -> Result<Vec<i64>, OpenError> {
    let is_there: bool = sqlx::query_scalar(include_str!("sql/has_migrations.sql")).fetch_one(&mut *connection).await?;
    let applied: Vec<(i64, bool, Vec<u8>)> = if is_there {
        sqlx::query_as(include_str!("sql/applied.sql")).fetch_all(connection).await?
    } else {
        Vec::new()
    };
    for (version, success, checksum) in &applied {
        let ours = MIGRATIONS.iter().find(|migration| migration.version == *version);
        let ours = ours.ok_or(MigrateError::VersionMissing(*version))?;
        if !success {
            return Err(MigrateError::Dirty(*version).into());
        }
        if *ours.checksum != **checksum {
            return Err(MigrateError::VersionMismatch(*version).into());
        }
    }
    let is_missing = |version: &i64| applied.iter().all(|(applied, ..)| applied != version);
    Ok(MIGRATIONS.iter().map(|migration| migration.version).filter(is_missing).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::File;

    /// What is the same for all connections of a file (its journal) or of no use to those that read (`synchronous`) is left out.
    #[tokio::test]
    async fn both_kinds_of_readers_have_the_same_settings_and_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::at(&directory.path().join("events.db")).unwrap();
        file.create().await.unwrap();
        let (mut reader, in_place) = (file.connect_reader().await.unwrap(), file.open_reader().unwrap());
        for setting in
            ["busy_timeout", "cache_size", "cache_spill", "foreign_keys", "mmap_size", "read_uncommitted", "temp_store"]
        {
            let pragma = format!("PRAGMA {setting}");
            let theirs: i64 = sqlx::query_scalar(AssertSqlSafe(pragma.clone())).fetch_one(&mut reader).await.unwrap();
            let ours: i64 = in_place.query_row(&pragma, [], |row| row.get(0)).unwrap();
            assert_eq!(ours, theirs, "{setting}");
        }
        let refused = in_place.execute_batch("DELETE FROM snapshots").unwrap_err();
        assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::ReadOnly));
    }

    #[tokio::test]
    async fn r5_every_connection_that_writes_syncs_each_commit() {
        const FULL: i64 = 2;
        let directory = tempfile::tempdir().unwrap();
        let file = File::at(&directory.path().join("events.db")).unwrap();
        for mut connection in [file.create().await.unwrap(), file.connect_writer().await.unwrap()] {
            let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.unwrap();
            assert_eq!((synchronous, mode.as_str()), (FULL, "wal"));
        }
    }
}
