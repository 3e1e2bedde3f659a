//! The measurement of a table projection: one piece of work in each round, on a log that was filled before. By hand, the same SQL is
//! run by a program that reads the same log.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use es_core::{
    Append, EventStore, Expected, LogSource, NewEvent, QueryError, ReadToken, Recorded, StreamId, TableProjection,
    TableProjector, Tables,
    backend::{BoxError, TableStore},
};
use es_postgres::{PgTables, PostgresStore};
use es_sqlite::{SqliteStore, SqliteTables};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    account::AccountEvent,
    bare,
    database::{Database, Server},
    embedded::{self, Files},
    entrant::Entrant,
    measure::{self, Measurement},
    workload::Workload,
};

/// The streams of the log, each with a row of its own.
const STREAMS: usize = 20_000;

/// The events of each stream.
const EVENTS_PER_STREAM: usize = 10;

/// The events of a batch.
pub(crate) const BATCH: usize = 1_000;

/// Measures the tables of all streams from the first event until the last row is durable.
///
/// Fails unless the rows tell of all events.
pub(crate) async fn measure(server: &Server, workload: &Workload, entrant: Entrant) -> Result<Measurement> {
    if workload.is_embedded() {
        let files = Files::new()?;
        let url = files.create(entrant.name());
        let store = SqliteStore::open(embedded::path(&url)).await?;
        filled(&store).await?;
        if entrant == workload.ours {
            return timed(&url, "accounts_", async move { catch_up(store).await }).await;
        }
        let connection = bare::tables::open_file(&url)?;
        let work = async move { tokio::task::block_in_place(|| bare::tables::catch_up_file(&connection)) };
        return timed(&url, "", work).await;
    }
    let url = server.create(entrant.name(), Duration::ZERO).await?;
    let store = PostgresStore::options(&url).schema("public").connect().await?;
    filled(&store).await?;
    let measured = if entrant == workload.ours {
        timed(&url, "public_accounts.", async move { catch_up(store).await }).await?
    } else {
        store.close().await?;
        let mut connection = bare::tables::open(&url).await?;
        timed(&url, "", async move { bare::tables::catch_up(&mut connection).await }).await?
    };
    server.drop(entrant.name()).await?;
    Ok(measured)
}

/// Measures `work`, whose table has the name `balances` behind `prefix`.
async fn timed(
    url: &str,
    prefix: &str,
    work: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<Measurement> {
    let mut database = Database::open(url).await?;
    database.analyze().await?;
    let events = STREAMS * EVENTS_PER_STREAM;
    // Where the clients of the closed loops are: on a thread of the pool.
    let work = tokio::spawn(work);
    let measured = measure::piece(&mut database, events, async { work.await? }).await?;
    let rows = database.count(&format!("SELECT count(*) FROM {prefix}balances")).await?;
    let told = database.count(&format!("SELECT CAST(sum(changes) AS bigint) FROM {prefix}balances")).await?;
    ensure!((rows, told) == (STREAMS as u64, events as u64), "{rows} rows tell of {told} events");
    Ok(measured)
}

/// Fills the log with deposits into accounts that take turns. The tables of the projection are there before, and serve: others would
/// be those of a rebuild.
async fn filled<S: TableStore + EventStore + Clone>(store: &S) -> Result<()>
where
    Accounts: TableProjection<S>,
{
    catch_up(store.clone()).await?;
    let stream = |_| Ok(StreamId::new("account", &Uuid::now_v7().to_string())?);
    let streams = (0..STREAMS).map(stream).collect::<Result<Vec<_>>>()?;
    for _ in 0..EVENTS_PER_STREAM {
        for streams in streams.chunks(BATCH) {
            let append = |stream: &StreamId| {
                let event = NewEvent::of(&AccountEvent::deposit())?;
                Ok(Append::new(stream.clone(), Expected::Any, vec![event]))
            };
            store.append_together(streams.iter().map(append).collect::<Result<_>>()?).await?;
        }
    }
    Ok(())
}

/// Runs the projection until it has reached the end of the log.
async fn catch_up<S: TableStore + EventStore + Clone>(store: S) -> Result<()>
where
    Accounts: TableProjection<S>,
{
    let (end, stop) = (ReadToken(store.head().await?), CancellationToken::new());
    let projector = TableProjector::new(Accounts, LogSource::new(store.clone()).batch(BATCH), store.clone());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { projector.run(stop).await }
    });
    let tables = Tables::<Accounts, S>::new(store);
    while let Err(QueryError::Building { .. }) = tables.wait_for(end, Duration::from_mins(10)).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    Ok(running.await??)
}

/// The balance of every account, in a table.
struct Accounts;

#[async_trait]
impl TableProjection<PostgresStore> for Accounts {
    const NAME: &'static str = "accounts";
    const MIGRATIONS: &'static [&'static str] = &[include_str!("sql/tables.sql")];
    type Event = AccountEvent;

    async fn write(&self, tables: &mut PgTables<'_>, events: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        let batch = Batch::of(events.iter().map(|event| (event.stream.id(), &event.data)));
        batch.write(tables.connection()).await?;
        Ok(())
    }
}

#[async_trait]
impl TableProjection<SqliteStore> for Accounts {
    const NAME: &'static str = "accounts";
    const MIGRATIONS: &'static [&'static str] = &[include_str!("sql/tables_file.sql")];
    type Event = AccountEvent;

    async fn write(&self, tables: &mut SqliteTables<'_>, events: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        let batch = Batch::of(events.iter().map(|event| (event.stream.id(), &event.data)));
        let sql = tables.sql(include_str!("sql/tables_file_write.sql"));
        sqlx::query(sql).bind(batch.json()?).execute(tables.connection()).await?;
        Ok(())
    }
}

/// What the events of a batch add to each account: money and changes.
pub(crate) struct Batch<'e>(BTreeMap<&'e str, (i64, i64)>);

impl<'e> Batch<'e> {
    pub(crate) fn of<'a>(events: impl Iterator<Item = (&'e str, &'a AccountEvent)>) -> Self {
        let mut accounts = BTreeMap::new();
        for (account, AccountEvent::Deposited { amount, .. }) in events {
            let (balance, changes): &mut (i64, i64) = accounts.entry(account).or_default();
            *balance += amount.cast_signed();
            *changes += 1;
        }
        Self(accounts)
    }

    /// Writes them with one statement.
    pub(crate) async fn write(&self, connection: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(include_str!("sql/tables_write.sql"))
            .bind(self.0.keys().copied().collect::<Vec<_>>())
            .bind(self.0.values().map(|(balance, _)| *balance).collect::<Vec<_>>())
            .bind(self.0.values().map(|(_, changes)| *changes).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }

    /// The parameter of the same statement on a file.
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(
            &self.0.iter().map(|(account, (balance, changes))| (account, balance, changes)).collect::<Vec<_>>(),
        )
    }
}
