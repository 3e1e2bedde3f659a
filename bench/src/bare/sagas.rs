//! What sagas and their timers write, by hand: one task with one connection inserts all rows that have arrived with one statement, and
//! keeps a row for each instance, or timer, in the same transaction.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use uuid::Uuid;

use super::{Row, batch};
use crate::{bare, sagas::STEPS};

/// When timers are due after they were set.
pub(crate) const AFTER: Duration = Duration::from_secs(1);
/// How many clients there are: as many instances ours has under way.
const CLIENTS: usize = 64;
/// How many timers fire with one statement.
const FIRED: i64 = 1_000;
/// The bytes of what ours writes when an instance begins, when it has an answer, when it ends, and of its document.
const BEGUN: usize = 700;
const ANSWERED: usize = 250;
const ENDED: usize = 60;
const DOCUMENT: usize = 300;

/// A table of timers.
pub(crate) async fn create_tables(url: &str) -> Result<()> {
    let sql = "CREATE TABLE timers (id uuid PRIMARY KEY, due timestamptz NOT NULL); CREATE INDEX ON timers (due)";
    bare::connect(url).await?.execute(sql).await?;
    Ok(())
}

/// Rows, and what is kept beside them: a document of the instance, or a timer.
struct Queued {
    rows: Vec<Row>,
    document: Option<String>,
    timer: Option<Uuid>,
    done: oneshot::Sender<()>,
}

async fn write(mut connection: PgConnection, mut queue: mpsc::Receiver<Queued>) -> Result<()> {
    let mut queued = Vec::new();
    while queue.recv_many(&mut queued, batch::MOST).await > 0 {
        let mut transaction = connection.begin().await?;
        batch::insert(&mut transaction, queued.iter().flat_map(|queued: &Queued| &queued.rows)).await?;
        let keys: Vec<_> = queued.iter().filter_map(|queued| queued.document.as_deref()).collect();
        let documents: Vec<_> = keys.iter().map(|_| filled(DOCUMENT)).collect();
        if !keys.is_empty() {
            let upsert = sqlx::query(include_str!("../sql/bare_upsert.sql")).bind(keys).bind(documents);
            upsert.execute(&mut *transaction).await?;
        }
        let timers: Vec<_> = queued.iter().filter_map(|queued| queued.timer).collect();
        if !timers.is_empty() {
            let set = "INSERT INTO timers SELECT id, now() + $2 FROM unnest($1::uuid[]) id";
            let after = sqlx::postgres::types::PgInterval::try_from(AFTER).map_err(anyhow::Error::from_boxed)?;
            sqlx::query(set).bind(timers).bind(after).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        for queued in queued.drain(..) {
            // None waits if the measurement has ended.
            let _ = queued.done.send(());
        }
    }
    Ok(())
}

/// JSON of so many bytes.
fn filled(bytes: usize) -> Vec<u8> {
    format!("\"{}\"", "x".repeat(bytes - 2)).into_bytes()
}

fn row(stream: &str, version: usize, bytes: usize) -> Result<Row> {
    Ok(Row {
        stream: stream.to_owned(),
        version: i64::try_from(version)?,
        id: Uuid::now_v7(),
        name: "saga.advanced",
        schema_version: 1,
        payload: filled(bytes),
        tags: Vec::new(),
    })
}

/// Does `work` for all ids, in so many clients at once.
async fn clients<F>(
    ids: Vec<Uuid>,
    queue: mpsc::Sender<Queued>,
    work: impl Fn(Uuid, mpsc::Sender<Queued>) -> F + Copy + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (ids, next) = (Arc::new(ids), Arc::new(AtomicUsize::new(0)));
    let mut all = JoinSet::new();
    for _ in 0..CLIENTS {
        let (ids, next, queue) = (ids.clone(), next.clone(), queue.clone());
        all.spawn(async move {
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(*id, queue.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    drop(queue);
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    Ok(())
}

async fn written(
    queue: &mpsc::Sender<Queued>,
    rows: Vec<Row>,
    document: Option<String>,
    timer: Option<Uuid>,
) -> Result<()> {
    let (done, is_done) = oneshot::channel();
    queue.send(Queued { rows, document, timer, done }).await.ok().context("the writer has ended")?;
    Ok(is_done.await?)
}

/// For each instance what ours writes: its beginning, and for each step the command's event and the reaction to its answer.
pub(crate) async fn run(url: &str, ids: Vec<Uuid>) -> Result<()> {
    let (queue, queued) = mpsc::channel(batch::MOST);
    let writer = tokio::spawn(write(bare::connect(url).await?, queued));
    clients(ids, queue, |id, queue| async move {
        let stream = format!("saga_sending-{id}");
        written(&queue, vec![row(&stream, 1, BEGUN)?], Some(stream.clone()), None).await?;
        for step in 1..=STEPS {
            let deposit = Row { stream: format!("account-{step}-{id}"), ..Row::deposit(id, 0)? };
            written(&queue, vec![deposit], None, None).await?;
            let mut rows = vec![row(&stream, step + 1, ANSWERED)?];
            if step == STEPS {
                rows.push(row(&stream, step + 2, ENDED)?);
            }
            written(&queue, rows, Some(stream.clone()), None).await?;
        }
        Ok(())
    })
    .await?;
    writer.await?
}

/// Sets all timers, each with an event; fires those that are due, each with an event, until none is left.
pub(crate) async fn wake(url: &str, ids: Vec<Uuid>) -> Result<()> {
    let (queue, queued) = mpsc::channel(batch::MOST);
    let writer = tokio::spawn(write(bare::connect(url).await?, queued));
    let (mut left, mut connection) = (ids.len(), bare::connect(url).await?);
    let set = tokio::spawn(async move {
        clients(ids, queue, |id, queue| async move {
            written(&queue, vec![row(&format!("saga_waking-{id}"), 1, BEGUN)?], None, Some(id)).await
        })
        .await
    });
    while left > 0 {
        let mut transaction = connection.begin().await?;
        let fired: Vec<Uuid> =
            sqlx::query_scalar(include_str!("../sql/bare_timers.sql")).bind(FIRED).fetch_all(&mut *transaction).await?;
        let rows = fired.iter().map(|id| row(&format!("saga_waking-{id}"), 2, ANSWERED)).collect::<Result<Vec<_>>>()?;
        batch::insert(&mut transaction, rows.iter()).await?;
        transaction.commit().await?;
        left -= fired.len();
        if fired.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    set.await??;
    writer.await?
}
