//! SQLite: one task with one connection inserts whatever has arrived as one statement, which is a transaction by itself.

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use es_sqlite::SqliteStore;
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    bare::{Row, batch::MOST},
    contender::{Client, Contender, Task},
    embedded,
};

/// Creates the table `events` like ours, whatever ours looks like today, but without its triggers.
pub(crate) async fn create_table(task: &Task) -> Result<()> {
    let ours = format!("{}-ours", embedded::path(&task.url));
    SqliteStore::open(&ours).await?.close().await?;
    let mut connection = SqliteConnection::connect(&format!("sqlite:{ours}")).await?;
    let table: String = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'events'")
        .fetch_one(&mut connection)
        .await
        .context("cannot see what the table events looks like")?;
    connection.close().await?;
    sqlx::raw_sql(AssertSqlSafe(table)).execute(&mut embedded::options(&task.url).connect().await?).await?;
    Ok(())
}

struct Queued {
    row: Row,
    verdict: oneshot::Sender<bool>,
}

pub(crate) struct Embedded {
    queue: mpsc::Sender<Queued>,
}

impl Embedded {
    pub(crate) async fn connect(task: &Task) -> Result<Self> {
        let (queue, queued) = mpsc::channel(MOST);
        tokio::spawn(write(embedded::options(&task.url).connect().await?, queued));
        Ok(Self { queue })
    }
}

async fn write(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Queued>) -> Result<()> {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, MOST).await > 0 {
        let rows: Vec<_> = batch.iter().map(|Queued { row, .. }| entry(row)).collect::<Result<_>>()?;
        let insert = sqlx::query_scalar(include_str!("../sql/bare_embedded.sql")).bind(serde_json::to_string(&rows)?);
        let written: Vec<Uuid> = insert.fetch_all(&mut connection).await?;
        // What was written comes in the order of the batch, so a verdict is found by walking along.
        let mut written = written.into_iter().peekable();
        for Queued { row, verdict } in batch.drain(..) {
            // A client that is gone needs no verdict.
            let _ = verdict.send(written.next_if_eq(&row.id).is_some());
        }
    }
    Ok(())
}

fn entry(row: &Row) -> Result<serde_json::Value> {
    let payload = std::str::from_utf8(&row.payload)?;
    Ok(json!([row.stream, row.version, row.id.simple().to_string(), row.name, row.schema_version, payload]))
}

#[async_trait]
impl Contender for Embedded {
    async fn client(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(Caller { queue: self.queue.clone() }))
    }
}

struct Caller {
    queue: mpsc::Sender<Queued>,
}

#[async_trait]
impl Client for Caller {
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        let (verdict, answer) = oneshot::channel();
        let row = Row::deposit(account, version)?;
        if self.queue.send(Queued { row, verdict }).await.is_err() {
            bail!("the bare writer has ended");
        }
        if !answer.await? {
            bail!("a conflict on a stream with one writer");
        }
        Ok(())
    }
}
