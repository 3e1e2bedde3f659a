//! Databases that are files of their own.

use std::{fs, path::PathBuf};

use anyhow::Result;
use sqlx::{
    ConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

/// What a URL of such a database begins with.
const SCHEME: &str = "sqlite:";

/// The directory of the files of a workload, which goes with it. It is on the disk of the build directory: a file in memory
/// would show what no deployment has.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Result<Self> {
        let directory = PathBuf::from(format!("../target/bench/sqlite-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// The URL of the contender's database.
    pub(crate) fn create(&self, contender: &str) -> String {
        format!("{SCHEME}{}", self.0.join(contender).with_extension("db").display())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether a URL is one of [`Files::create`].
pub(crate) fn is_file(url: &str) -> bool {
    url.starts_with(SCHEME)
}

/// How a file is opened by all that are compared with ours: with its settings. The log is synced at every commit.
pub(crate) fn options(url: &str) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path(url))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging()
}

/// The same file, read and written by the thread that asks: sqlx would send each row from a thread of its own.
pub(crate) fn open(url: &str) -> rusqlite::Result<rusqlite::Connection> {
    let connection = rusqlite::Connection::open(path(url))?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864")?;
    Ok(connection)
}

/// The file that a URL of [`Files::create`] names.
pub(crate) fn path(url: &str) -> &str {
    url.strip_prefix(SCHEME).unwrap_or(url)
}
