//! SQLite: the log is parsed and folded in memory while it is read, and the documents are written by statements for a thousand of
//! them, in one transaction or after each page.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use async_trait::async_trait;
use es_core::Event;
use rusqlite::{Connection, Row};
use tokio::task::block_in_place;

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
        let connection = embedded::open(&self.url)?;
        Ok(Box::new(Folder { url: self.url.clone(), connection, accounts: HashMap::new() }))
    }
}

struct Folder {
    url: String,
    connection: Connection,
    accounts: HashMap<String, Account>,
}

/// Folds the event of a row, and returns the key of its document.
fn fold<'r>(accounts: &mut HashMap<String, Account>, row: &'r Row<'_>) -> Result<&'r str> {
    let schema = AccountEvent::SCHEMAS[0];
    let (stream, payload) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_blob()?);
    let (_, key) = stream.split_once('-').context("a stream")?;
    let event = AccountEvent::decode(schema.name, schema.version, payload)?;
    match accounts.get_mut(key) {
        Some(account) => account.fold(&event),
        None => accounts.entry(key.to_owned()).or_default().fold(&event),
    }
    Ok(key)
}

/// Writes the documents under `keys` with one statement.
fn write(connection: &Connection, accounts: &HashMap<String, Account>, keys: &[impl AsRef<str>]) -> Result<()> {
    let row = |key: &str| Ok((key.to_owned(), serde_json::to_string(&accounts[key])?));
    let rows = keys.iter().map(|key| row(key.as_ref())).collect::<Result<Vec<_>>>()?;
    let mut upsert = connection.prepare_cached(include_str!("../sql/bare_embedded_upsert.sql"))?;
    upsert.execute([serde_json::to_string(&rows)?])?;
    Ok(())
}

impl Folder {
    fn rebuild_here(&mut self) -> Result<()> {
        let Self { connection, accounts, .. } = self;
        let mut log = connection.prepare(include_str!("../sql/bare_embedded_log.sql"))?;
        let mut rows = log.query([])?;
        while let Some(row) = rows.next()? {
            fold(accounts, row)?;
        }
        drop(rows);
        drop(log);
        let mut keys: Vec<_> = accounts.keys().collect();
        keys.sort_unstable();
        let transaction = connection.transaction()?;
        for keys in keys.chunks(AT_ONCE) {
            write(&transaction, accounts, keys)?;
        }
        Ok(transaction.commit()?)
    }

    fn catch_up_here(&mut self) -> Result<()> {
        let Self { connection, accounts, .. } = self;
        let mut page = connection.prepare(include_str!("../sql/bare_embedded_page.sql"))?;
        let mut after = 0_i64;
        loop {
            let (before, mut keys) = (after, BTreeSet::new());
            let mut rows = page.query([after])?;
            while let Some(row) = rows.next()? {
                after = row.get(0)?;
                let key = fold(accounts, row)?;
                if !keys.contains(key) {
                    keys.insert(key.to_owned());
                }
            }
            drop(rows);
            if after == before {
                return Ok(());
            }
            write(connection, accounts, &keys.into_iter().collect::<Vec<_>>())?;
        }
    }
}

#[async_trait]
impl Client for Folder {
    async fn import(&mut self, _: &str, history: History) -> Result<()> {
        ours::append(&ours::open_file(&self.url).await?, history).await?;
        // The documents belong to it.
        self.connection.execute(include_str!("../sql/bare_embedded_reader.sql"), [])?;
        Ok(())
    }

    async fn rebuild(&mut self) -> Result<()> {
        block_in_place(|| self.rebuild_here())
    }

    async fn catch_up(&mut self) -> Result<()> {
        block_in_place(|| self.catch_up_here())
    }
}
