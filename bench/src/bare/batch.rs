//! Many clients: one task with one connection inserts all appends that have arrived with one statement, and gives each caller a
//! verdict of its own.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, bail};
use async_trait::async_trait;
use es_core::Event;
use sqlx::{Connection, PgConnection, Row as _};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    account::{Account, AccountEvent},
    bare::{self, Row},
    contender::{Client, Contender, Task},
};

/// The most rows of one statement: as many as ours.
pub(crate) const MOST: usize = 1_000;

struct Queued {
    row: Row,
    verdict: oneshot::Sender<Option<i64>>,
}

/// How it writes. All take the arrays of [`insert`] and have its result.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Statement {
    /// As one `INSERT`.
    Plain,
    /// The same under a lock.
    Locked,
    /// With two tags for each event: its account's, and one that its client uses again and again.
    Tagged,
    /// In a transaction with an upsert of the accounts' documents, which are kept in memory.
    Folded,
}

impl Statement {
    fn sql(self) -> &'static str {
        match self {
            Self::Plain | Self::Folded => include_str!("../sql/bare_batch.sql"),
            Self::Locked => include_str!("../sql/bare_locked_batch.sql"),
            Self::Tagged => include_str!("../sql/bare_tagged_batch.sql"),
        }
    }
}

pub(crate) struct Batch {
    queue: mpsc::Sender<Queued>,
    statement: Statement,
}

impl Batch {
    pub(crate) async fn connect(task: &Task, statement: Statement) -> Result<Self> {
        let (queue, queued) = mpsc::channel(MOST);
        tokio::spawn(write(statement, bare::connect(&task.url).await?, queued));
        Ok(Self { queue, statement })
    }
}

async fn write(statement: Statement, mut connection: PgConnection, mut queue: mpsc::Receiver<Queued>) -> Result<()> {
    let (mut batch, mut accounts) = (Vec::new(), HashMap::new());
    while queue.recv_many(&mut batch, MOST).await > 0 {
        let rows = batch.iter().map(|queued: &Queued| &queued.row);
        let written = if matches!(statement, Statement::Folded) {
            insert_and_fold(&mut connection, rows, &mut accounts).await?
        } else {
            insert_by(statement, &mut connection, rows).await?
        };
        // What was written comes in the order of the batch, so a verdict is found by walking along.
        let mut written = written.into_iter().peekable();
        for queued in batch.drain(..) {
            let position = written.next_if(|(id, _)| *id == queued.row.id).map(|(_, position)| position);
            // A client that is gone needs no verdict.
            let _ = queued.verdict.send(position);
        }
    }
    Ok(())
}

/// Inserts the rows, and writes what each account is after them, in one transaction.
async fn insert_and_fold(
    connection: &mut PgConnection,
    rows: impl Iterator<Item = &Row> + Clone,
    accounts: &mut HashMap<String, Account>,
) -> Result<Vec<(Uuid, i64)>> {
    let mut transaction = connection.begin().await?;
    let written = insert(&mut transaction, rows.clone()).await?;
    let schema = AccountEvent::SCHEMAS[0];
    let mut touched = BTreeSet::new();
    for row in rows {
        let event = AccountEvent::decode(schema.name, schema.version, &row.payload)?;
        accounts.entry(row.stream.clone()).or_default().fold(&event);
        touched.insert(row.stream.as_str());
    }
    let documents = touched.iter().map(|key| serde_json::to_vec(&accounts[*key])).collect::<Result<Vec<_>, _>>()?;
    let upsert = sqlx::query(include_str!("../sql/bare_upsert.sql"));
    upsert.bind(touched.into_iter().collect::<Vec<_>>()).bind(documents).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(written)
}

/// Inserts the rows as one statement; gives the ids and positions of those that met no conflict, in their order.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    rows: impl Iterator<Item = &Row>,
) -> Result<Vec<(Uuid, i64)>> {
    insert_by(Statement::Plain, connection, rows).await
}

/// The same by a statement with the same arrays and the same result.
async fn insert_by(
    statement: Statement,
    connection: &mut PgConnection,
    rows: impl Iterator<Item = &Row>,
) -> Result<Vec<(Uuid, i64)>> {
    let (mut versions, mut ids, mut schemas) = (Vec::new(), Vec::new(), Vec::new());
    let (mut streams, mut names, mut payloads, mut metadata) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut tags, mut tagged) = (Vec::new(), Vec::new());
    for row in rows {
        versions.push(row.version);
        ids.push(row.id);
        schemas.push(row.schema_version);
        streams.push(row.stream.as_str());
        names.push(row.name);
        payloads.push(row.payload.as_slice());
        metadata.push(None::<&[u8]>);
        tags.extend(row.tags.iter().map(String::as_str));
        tagged.extend(row.tags.iter().map(|_| row.id));
    }
    let query = sqlx::query(statement.sql()).bind(versions).bind(ids).bind(schemas).bind(streams);
    let query = query.bind(names).bind(payloads).bind(metadata);
    let query = if matches!(statement, Statement::Tagged) { query.bind(tagged).bind(tags) } else { query };
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

#[async_trait]
impl Contender for Batch {
    async fn client(&self) -> Result<Box<dyn Client>> {
        let holder = matches!(self.statement, Statement::Tagged).then(|| format!("holder:{}", Uuid::now_v7()));
        Ok(Box::new(Caller { queue: self.queue.clone(), holder }))
    }
}

struct Caller {
    queue: mpsc::Sender<Queued>,
    /// The tag that it uses again and again, if it writes tags.
    holder: Option<String>,
}

#[async_trait]
impl Client for Caller {
    async fn execute(&mut self, account: Uuid, version: u64) -> Result<()> {
        let (verdict, answer) = oneshot::channel();
        let mut row = Row::deposit(account, version)?;
        if let Some(holder) = &self.holder {
            row.tags = vec![format!("account:{account}"), holder.clone()];
        }
        if self.queue.send(Queued { row, verdict }).await.is_err() {
            bail!("the bare writer has ended");
        }
        match answer.await? {
            Some(_position) => Ok(()),
            None => bail!("a conflict on a stream that no other client writes to"),
        }
    }
}
