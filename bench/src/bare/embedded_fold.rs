//! SQLite: the log is parsed and folded in memory while it is read, and the documents are written by statements for a thousand of
//! them, in one transaction or after each page.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use async_trait::async_trait;
use es_core::Event;
use futures::TryStreamExt;
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, sqlite::SqliteRow};

use crate::{
    account::{Account, AccountEvent},
    contender::{Client, Contender, Task},
    embedded,
    history::History,
    ours,
};

/// The documents of a statement.
const AT_ONCE: usize = 1_000;

/// Works on a file with the tables of ours.
pub(crate) struct EmbeddedFold {
    url: String,
}

impl EmbeddedFold {
    pub(crate) fn new(task: &Task) -> Self {
        Self { url: task.url.clone() }
    }
}

#[async_trait]
impl Contender for EmbeddedFold {
    async fn client(&self) -> Result<Box<dyn Client>> {
        // As ours: the number of rows that SQLite's thread hands over at a time.
        let connection = embedded::options(&self.url).row_buffer_size(256).connect().await?;
        Ok(Box::new(Folder { url: self.url.clone(), connection, accounts: HashMap::new() }))
    }
}

struct Folder {
    url: String,
    connection: SqliteConnection,
    accounts: HashMap<String, Account>,
}

impl Folder {
    /// Folds the event of a row, and returns the key of its document.
    fn fold<'r>(accounts: &mut HashMap<String, Account>, row: &'r SqliteRow) -> Result<&'r str> {
        let schema = AccountEvent::SCHEMAS[0];
        let (stream, payload): (&str, &[u8]) = (row.try_get(1)?, row.try_get(2)?);
        let (_, key) = stream.split_once('-').context("a stream")?;
        let event = AccountEvent::decode(schema.name, schema.version, payload)?;
        match accounts.get_mut(key) {
            Some(account) => account.fold(&event),
            None => accounts.entry(key.to_owned()).or_default().fold(&event),
        }
        Ok(key)
    }
}

/// Writes the documents under `keys` with one statement.
async fn write(
    connection: &mut SqliteConnection,
    accounts: &HashMap<String, Account>,
    keys: &[impl AsRef<str>],
) -> Result<()> {
    let row = |key: &str| Ok((key.to_owned(), serde_json::to_string(&accounts[key])?));
    let rows = keys.iter().map(|key| row(key.as_ref())).collect::<Result<Vec<_>>>()?;
    let upsert = sqlx::query(include_str!("../sql/bare_embedded_upsert.sql"));
    upsert.bind(serde_json::to_string(&rows)?).execute(connection).await?;
    Ok(())
}

#[async_trait]
impl Client for Folder {
    async fn import(&mut self, _: &str, history: History) -> Result<()> {
        ours::append(&ours::open_file(&self.url).await?, history).await?;
        // The documents belong to it.
        sqlx::query(include_str!("../sql/bare_embedded_reader.sql")).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn rebuild(&mut self) -> Result<()> {
        let Self { connection, accounts, .. } = self;
        let mut rows = sqlx::query(include_str!("../sql/bare_embedded_log.sql")).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            Self::fold(accounts, &row)?;
        }
        drop(rows);
        let mut keys: Vec<_> = accounts.keys().collect();
        keys.sort_unstable();
        let mut transaction = connection.begin().await?;
        for keys in keys.chunks(AT_ONCE) {
            write(&mut transaction, accounts, keys).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn catch_up(&mut self) -> Result<()> {
        let Self { connection, accounts, .. } = self;
        let mut after = 0_i64;
        loop {
            let page = sqlx::query(include_str!("../sql/bare_embedded_page.sql")).bind(after);
            let page = page.fetch_all(&mut *connection).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.try_get(0)?;
            let keys = page.iter().map(|row| Self::fold(accounts, row)).collect::<Result<BTreeSet<_>>>()?;
            write(connection, accounts, &keys.into_iter().collect::<Vec<_>>()).await?;
        }
    }
}
