//! Table projections: the suite of all SQL stores, and what only a file has.

use async_trait::async_trait;
use es_core::{
    EngineError, LogSource, Recorded, Repository, TableProjection, TableProjector,
    backend::BoxError,
    testing::account::{Account, AccountCommand, AccountEvent},
};
use es_sqlite::{SqliteReading, SqliteStore, SqliteTables};
use es_testing::suites::tables::{Entry, TableFixture};
use sqlx::Row;
use tokio_util::sync::CancellationToken;

use super::fixture::{foreign_connection, new_path, new_store};

struct Fixture;

#[async_trait]
impl TableFixture for Fixture {
    type Store = SqliteStore;

    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE {entries} (position INTEGER PRIMARY KEY, account TEXT NOT NULL, amount INTEGER NOT NULL) STRICT",
        "CREATE INDEX {entries_account} ON {entries} (account);
         CREATE TABLE {others} (id INTEGER PRIMARY KEY REFERENCES {entries} (position)) STRICT",
    ];

    const BROKEN: &'static [&'static str] =
        &["CREATE TABLE {entries} (id INTEGER)", "CREATE TABLE {entries} (id INTEGER)"];

    async fn insert(tables: &mut SqliteTables<'_>, entries: &[Entry]) -> Result<(), BoxError> {
        let rows: Vec<_> = entries.iter().map(|entry| (entry.position, &entry.account, entry.amount)).collect();
        let insert = "INSERT INTO {entries} SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)";
        let rows = serde_json::to_string(&rows)?;
        sqlx::query(tables.sql(insert)).bind(rows).execute(tables.connection()).await?;
        Ok(())
    }

    async fn entries(reading: &mut SqliteReading, after: i64, limit: i64) -> Vec<Entry> {
        let query = "SELECT position, account, amount FROM {entries} WHERE position > ?1 ORDER BY position LIMIT ?2";
        let query = sqlx::query(reading.sql(query)).bind(after).bind(limit);
        let rows = query.fetch_all(reading.connection()).await.unwrap();
        rows.iter().map(|row| Entry { position: row.get(0), account: row.get(1), amount: row.get(2) }).collect()
    }

    async fn remains(store: &SqliteStore, projection: &str) -> usize {
        let debug = format!("{store:?}");
        let mut file = foreign_connection(debug.split('"').nth(1).unwrap().as_ref()).await;
        let remains = "SELECT count(*) FROM sqlite_schema s WHERE s.type = 'table' AND s.name LIKE 'g%_' || ?1 || '_%'
            AND NOT EXISTS (SELECT 1 FROM table_generations JOIN generations ON id = generation
                            WHERE state = 'serving' AND substr(s.name, 1, length(prefix)) = prefix)";
        let remains: i64 = sqlx::query_scalar(remains).bind(projection).fetch_one(&mut file).await.unwrap();
        usize::try_from(remains).unwrap()
    }
}

es_testing::table_suite!(Fixture, new_store());

/// Writes a row and then runs a statement that a projection should not run.
struct Misuse(&'static str);

#[async_trait]
impl TableProjection<SqliteStore> for Misuse {
    const NAME: &'static str = "misuse";
    const MIGRATIONS: &'static [&'static str] = &["CREATE TABLE {seen} (
        position INTEGER PRIMARY KEY, before INTEGER REFERENCES {seen} DEFERRABLE INITIALLY DEFERRED)"];
    type Event = AccountEvent;

    async fn write(&self, tables: &mut SqliteTables<'_>, events: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        for event in events {
            let insert = sqlx::query(tables.sql("INSERT INTO {seen} (position) VALUES (?1)"));
            insert.bind(event.position.to_i64()).execute(tables.connection()).await?;
        }
        sqlx::raw_sql(tables.sql(self.0)).execute(tables.connection()).await?;
        Ok(())
    }
}

/// R9, R11: a write that ends the transaction or leaves a constraint violated is a failure of its event and not one of the store,
/// which would be tried again for ever. Appends go on.
#[tokio::test]
async fn r11_a_write_that_cannot_be_committed_stops_the_projector_at_its_event() {
    for statement in ["SELECT * FROM missing", "COMMIT", "ROLLBACK", "UPDATE {seen} SET before = 77"] {
        let store = new_store().await;
        let accounts = Repository::<Account>::new(store.clone());
        accounts.execute("a", AccountCommand::Deposit(1)).await.unwrap();
        let projector = TableProjector::new(Misuse(statement), LogSource::new(store.clone()), store.clone());
        let ended = projector.run(CancellationToken::new());
        let ended = tokio::time::timeout(std::time::Duration::from_mins(1), ended).await.expect("it is stuck");
        assert!(matches!(ended, Err(EngineError::Unwritten { .. })), "{statement}: {ended:?}");
        accounts.execute("a", AccountCommand::Deposit(1)).await.unwrap();
    }
}

/// People with sqlite3 read the tables that serve under names without a generation.
#[tokio::test]
async fn the_tables_that_serve_have_public_names() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    Repository::<Account>::new(store.clone()).execute("a", AccountCommand::Deposit(1)).await.unwrap();
    for _ in 0..2 {
        let projector = TableProjector::new(Misuse("SELECT 1"), LogSource::new(store.clone()), store.clone());
        projector.rebuild(CancellationToken::new()).await.unwrap();
        let mut people = foreign_connection(&path).await;
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM misuse_seen").fetch_one(&mut people).await.unwrap();
        assert_eq!(seen, 1);
    }
}

/// Both give their tables the public name `daily_sums_rows`.
struct Daily;

#[async_trait]
impl TableProjection<SqliteStore> for Daily {
    const NAME: &'static str = "daily";
    const MIGRATIONS: &'static [&'static str] = &["CREATE TABLE {sums_rows} (id INTEGER PRIMARY KEY)"];
    type Event = AccountEvent;

    async fn write(&self, _: &mut SqliteTables<'_>, _: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        Ok(())
    }
}

struct DailySums;

#[async_trait]
impl TableProjection<SqliteStore> for DailySums {
    const NAME: &'static str = "daily-sums";
    const MIGRATIONS: &'static [&'static str] = &["CREATE TABLE {rows} (id INTEGER PRIMARY KEY)"];
    type Event = AccountEvent;

    async fn write(&self, _: &mut SqliteTables<'_>, _: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Otherwise it could be built, and never promoted.
#[tokio::test]
async fn two_projections_cannot_have_one_public_name() {
    let store = new_store().await;
    let build = async |is_daily: bool| {
        let source = LogSource::new(store.clone());
        if is_daily {
            TableProjector::new(Daily, source, store.clone()).rebuild(CancellationToken::new()).await
        } else {
            TableProjector::new(DailySums, source, store.clone()).rebuild(CancellationToken::new()).await
        }
    };
    build(true).await.expect("the name is free");
    let refused = build(false).await.expect_err("the name is taken");
    let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    assert!(format!("{refused}: {cause}").contains("daily_sums_rows"), "{refused}: {cause}");
    build(true).await.expect("its own name is no other");
}

/// Appends to the store in which it writes.
struct Appends(Repository<Account>);

#[async_trait]
impl TableProjection<SqliteStore> for Appends {
    const NAME: &'static str = "appends";
    const MIGRATIONS: &'static [&'static str] = &["CREATE TABLE {seen} (position INTEGER PRIMARY KEY)"];
    type Event = AccountEvent;

    async fn write(&self, _: &mut SqliteTables<'_>, _: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        self.0.execute("b", AccountCommand::Deposit(1)).await?;
        Ok(())
    }
}

/// R11: a write that waits for what waits for it ends, and appends go on. (Seen to fail: both waited for good, and so did all appends.)
#[tokio::test]
async fn r11_a_write_that_waits_for_an_append_is_interrupted() {
    let store = new_store().await;
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("a", AccountCommand::Deposit(1)).await.unwrap();
    let projector = TableProjector::new(Appends(accounts.clone()), LogSource::new(store.clone()), store.clone());
    let ended = projector.run(CancellationToken::new());
    let ended = tokio::time::timeout(std::time::Duration::from_mins(1), ended).await.expect("it is stuck");
    assert!(matches!(ended, Err(EngineError::TooSlow { .. })), "{ended:?}");
    accounts.execute("a", AccountCommand::Deposit(1)).await.unwrap();
}
