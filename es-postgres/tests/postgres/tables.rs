//! Table projections: the suite of all SQL stores, and what only Postgres has.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use es_core::{
    EngineError, EventStore, LogSource, Recorded, Repository, TableProjection, TableProjector, Tables, Version,
    backend::{BoxError, CreateTablesError},
    testing::account::{Account, AccountCommand, AccountEvent},
};
use es_postgres::{PgReading, PgTables, PostgresStore};
use es_testing::suites::tables::{Entry, TableFixture};
use sqlx::{
    Encode, Postgres, Row,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo},
};
use tokio_util::sync::CancellationToken;

use super::server::{SOON, Schema, soon, store};

struct Fixture;

#[async_trait]
impl TableFixture for Fixture {
    type Store = PostgresStore;

    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE entries (position bigint PRIMARY KEY, account text NOT NULL, amount bigint NOT NULL)",
        "CREATE INDEX entries_account ON entries (account); CREATE TABLE others (id bigint)",
    ];

    const BROKEN: &'static [&'static str] =
        &["CREATE TABLE entries (position bigint)", "CREATE TABLE entries (id bigint)"];

    async fn insert(tables: &mut PgTables<'_>, entries: &[Entry]) -> Result<(), BoxError> {
        let positions: Vec<_> = entries.iter().map(|entry| entry.position).collect();
        let accounts: Vec<_> = entries.iter().map(|entry| &*entry.account).collect();
        let amounts: Vec<_> = entries.iter().map(|entry| entry.amount).collect();
        sqlx::query("INSERT INTO entries SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])")
            .bind(positions)
            .bind(accounts)
            .bind(amounts)
            .execute(tables.connection())
            .await?;
        Ok(())
    }

    async fn entries(reading: &mut PgReading, after: i64, limit: i64) -> Vec<Entry> {
        let query = "SELECT position, account, amount FROM entries WHERE position > $1 ORDER BY position LIMIT $2";
        let rows = sqlx::query(query).bind(after).bind(limit).fetch_all(reading.connection()).await.unwrap();
        rows.iter().map(|row| Entry { position: row.get(0), account: row.get(1), amount: row.get(2) }).collect()
    }

    async fn remains(store: &PostgresStore, projection: &str) -> usize {
        let debug = format!("{store:?}");
        let schema = debug.split('"').nth(1).unwrap().to_owned();
        let mut session = Schema(schema.clone()).session().await;
        let name = format!("{schema}_{}", projection.replace('-', "_"));
        let remains = format!("SELECT count(*) FROM pg_namespace WHERE nspname LIKE '{name}\\_g%'");
        usize::try_from(session.number(&remains).await).unwrap()
    }
}

es_testing::table_suite!(Fixture, store());

/// Writes a row and then runs a statement that a projection should not run.
struct Misuse {
    statement: &'static str,
    ignores_errors: bool,
    /// How often it runs it.
    times: AtomicU32,
}

#[async_trait]
impl TableProjection<PostgresStore> for Misuse {
    const NAME: &'static str = "misuse";
    const MIGRATIONS: &'static [&'static str] = &["CREATE TABLE seen (
        position bigint PRIMARY KEY, account text NOT NULL, before bigint REFERENCES seen DEFERRABLE INITIALLY DEFERRED)"];
    type Event = AccountEvent;

    async fn write(&self, tables: &mut PgTables<'_>, events: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        for event in events {
            let insert = sqlx::query("INSERT INTO seen VALUES ($1, $2)").bind(event.position.to_i64());
            insert.bind(event.stream.id()).execute(tables.connection()).await?;
        }
        if self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |times| times.checked_sub(1)).is_err() {
            return Ok(());
        }
        match sqlx::raw_sql(self.statement).execute(tables.connection()).await {
            Err(cause) if !self.ignores_errors => Err(cause.into()),
            _ => Ok(()),
        }
    }
}

/// R9, R11: a write that ends the transaction, ignores the error of a statement, or leaves a constraint violated is a failure of its
/// event and not one of the store, which would be tried again for ever.
#[tokio::test]
async fn r11_a_write_that_cannot_be_committed_stops_the_projector_at_its_event() {
    for (statement, ignores_errors) in [
        ("SELECT 1 / 0", false),
        ("SELECT 1 / 0", true),
        ("COMMIT", true),
        ("ROLLBACK", true),
        ("UPDATE seen SET before = 77", false),
        ("SELECT * FROM events", false),
    ] {
        let store = store().await;
        Repository::<Account>::new(store.clone()).execute("a", AccountCommand::Deposit(1)).await.unwrap();
        let misuse = Misuse { statement, ignores_errors, times: AtomicU32::new(u32::MAX) };
        let projector = TableProjector::new(misuse, LogSource::new(store.clone()), store.clone());
        let ended = soon(projector.run(CancellationToken::new())).await;
        assert!(matches!(ended, Err(EngineError::Unwritten { .. })), "{statement}: {ended:?}");
    }
}

/// The connection was lost in the middle of a write: nothing is counted as a failure, and each event is written once.
#[tokio::test]
async fn r9_a_write_whose_connection_is_lost_is_made_again() {
    let schema = Schema::new();
    let store = schema.store().await;
    Repository::<Account>::new(store.clone()).execute("a", AccountCommand::Deposit(1)).await.unwrap();
    // The first two writes end their own sessions.
    let statement = "SELECT pg_terminate_backend(pg_backend_pid())";
    let misuse = Misuse { statement, ignores_errors: false, times: AtomicU32::new(2) };
    let projector = TableProjector::new(misuse, LogSource::new(store.clone()), store.clone());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { projector.run(shutdown).await }
    });
    let tables = Tables::<Misuse, _>::new(store.clone()).patience(SOON);
    let mut reading = tables.read().await.unwrap();
    let rows = sqlx::query("SELECT position FROM seen").fetch_all(reading.connection()).await.unwrap();
    assert_eq!(rows.len(), 1);
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// A role that may not make schemas is told, and not tried again.
#[tokio::test]
async fn tables_need_a_role_that_may_make_schemas() {
    let schema = Schema::new();
    let store = schema.store().await;
    store.close().await.unwrap();
    let role = format!("r_{}", schema.0);
    let mut owner = schema.session().await;
    owner.run(&format!("CREATE ROLE {role} LOGIN; SELECT grant_application('{role}')")).await;
    let url = schema.url_with(&format!("&user={role}&schema={}", schema.0));
    let store = PostgresStore::options(&url).migrate(false).connect().await.unwrap();
    let misuse = Misuse { statement: "SELECT 1", ignores_errors: false, times: AtomicU32::new(0) };
    let projector = TableProjector::new(misuse, LogSource::new(store.clone()), store);
    let ended = soon(projector.run(CancellationToken::new())).await;
    assert!(matches!(ended, Err(EngineError::Tables(CreateTablesError::Forbidden(_)))), "{ended:?}");
    owner.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// Notes what the session is like, and changes it.
#[derive(Default, Clone)]
struct Sets(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl TableProjection<PostgresStore> for Sets {
    const NAME: &'static str = "sets";
    const MIGRATIONS: &'static [&'static str] = &["SET DateStyle TO 'German'; CREATE TABLE seen (position bigint)"];
    type Event = AccountEvent;

    async fn write(&self, tables: &mut PgTables<'_>, _: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        let look = "SELECT concat_ws(', ', current_user = session_user, current_setting('DateStyle'), current_setting('lock_timeout'),
            current_setting('idle_session_timeout'), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711
            AND pid = pg_backend_pid()), to_regclass('pg_temp.scratch') IS NULL)";
        let seen: String = sqlx::query_scalar(look).fetch_one(tables.connection()).await?;
        self.0.lock().unwrap().push(seen);
        let set = "CREATE TEMP TABLE scratch (id bigint); SET lock_timeout TO '77s'; SET DateStyle TO 'SQL'; SET statement_timeout TO '9s';
            SET idle_session_timeout TO '88s'; SELECT pg_advisory_lock(4711); SET ROLE pg_monitor";
        sqlx::raw_sql(set).execute(tables.connection()).await?;
        Ok(())
    }
}

/// What an application's statements set in the store's session ends with their transaction. (It would fail where it stayed: the next
/// statement of the store on the connection was made by the other role. Seen to fail where a reading left its lock.)
#[tokio::test]
async fn what_a_projection_sets_in_the_session_ends_with_its_transaction() {
    let store = Schema::new().store().await;
    let repository = Repository::<Account>::new(store.clone());
    let sets = Sets::default();
    let projector = TableProjector::new(sets.clone(), LogSource::new(store.clone()), store.clone());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { projector.run(shutdown).await }
    });
    let tables = Tables::<Sets, _>::new(store.clone()).patience(SOON);
    for _ in 0..3 {
        let written = repository.execute("a", AccountCommand::Deposit(1)).await.unwrap();
        tables.wait_for(written.token, SOON).await.unwrap();
        let mut reading = tables.read().await.unwrap();
        let style: String = sqlx::query_scalar("SHOW DateStyle").fetch_one(reading.connection()).await.unwrap();
        assert_eq!(style, "ISO, MDY");
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4712";
        let locks: i64 = sqlx::query_scalar(locks).fetch_one(reading.connection()).await.unwrap();
        assert_eq!(locks, 0);
        let set = "SET DateStyle TO 'SQL'; SELECT pg_advisory_lock(4712)";
        sqlx::raw_sql(set).execute(reading.connection()).await.unwrap();
        reading.end().await.unwrap();
    }
    shutdown.cancel();
    running.await.unwrap().unwrap();
    let seen = sets.0.lock().unwrap();
    assert!(seen.len() >= 3 && seen.iter().all(|seen| *seen == "t, ISO, MDY, 0, 0, 0, t"), "{seen:?}");
}

/// Takes 20 ms for each event.
struct Slow;

#[async_trait]
impl TableProjection<PostgresStore> for Slow {
    const NAME: &'static str = "slow";
    const MIGRATIONS: &'static [&'static str] = &["CREATE TABLE seen (position bigint PRIMARY KEY)"];
    type Event = AccountEvent;

    async fn write(&self, tables: &mut PgTables<'_>, events: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        for event in events {
            let insert = sqlx::query("INSERT INTO seen SELECT $1 FROM pg_sleep(0.02)").bind(event.position.to_i64());
            insert.execute(tables.connection()).await?;
        }
        Ok(())
    }
}

/// R11: what takes longer than the store waits for an answer is written in smaller batches. (Seen to fail where that was an error of
/// the store: the same batch was tried again for ever.)
#[tokio::test]
async fn r11_a_batch_that_takes_too_long_for_the_store_is_halved() {
    let store = Schema::new().options().answer_within(Duration::from_secs(1)).connect().await.unwrap();
    let repository = Repository::<Account>::new(store.clone());
    for _ in 0..80 {
        repository.execute("a", AccountCommand::Deposit(1)).await.unwrap();
    }
    let projector = TableProjector::new(Slow, LogSource::new(store.clone()), store.clone());
    soon(projector.rebuild(CancellationToken::new())).await.unwrap();
    let mut reading = Tables::<Slow, _>::new(store).read().await.unwrap();
    let rows = sqlx::query("SELECT position FROM seen").fetch_all(reading.connection()).await.unwrap();
    assert_eq!(rows.len(), 80);
}

/// R16: a reading that could not begin leaves its connection in a failed transaction. (Seen to fail where the connection was used
/// again: then all reads of the store failed, for good.)
#[tokio::test]
async fn r16_a_connection_whose_reading_could_not_begin_is_not_used_again() {
    let schema = Schema::new();
    let store = schema.options().answer_within(Duration::from_secs(1)).connect().await.unwrap();
    let misuse = Misuse { statement: "SELECT 1", ignores_errors: false, times: AtomicU32::new(0) };
    let projector = TableProjector::new(misuse, LogSource::new(store.clone()), store.clone());
    soon(projector.rebuild(CancellationToken::new())).await.unwrap();
    let mut session = schema.session().await;
    session.run(&format!("BEGIN; LOCK TABLE {}_misuse.es_generation IN ACCESS EXCLUSIVE MODE", schema.0)).await;
    let tables = Tables::<Misuse, _>::new(store.clone());
    tables.read().await.expect_err("the table is locked for longer than the server waits");
    session.run("COMMIT").await;
    store.read_stream(&"account-a".parse().unwrap(), Version::ZERO, 1).await.unwrap();
    tables.read().await.unwrap();
}

/// A type that the migrations make.
struct Mood(&'static str);

impl sqlx::Type<Postgres> for Mood {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("mood")
    }
}

impl Encode<'_, Postgres> for Mood {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <&str as Encode<'_, Postgres>>::encode(self.0, buffer)
    }
}

struct Moods;

#[async_trait]
impl TableProjection<PostgresStore> for Moods {
    const NAME: &'static str = "moods";
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TYPE mood AS ENUM ('well'); CREATE TABLE moods (position bigint PRIMARY KEY, mood mood NOT NULL)"];
    type Event = AccountEvent;

    async fn write(&self, tables: &mut PgTables<'_>, events: &[Recorded<AccountEvent>]) -> Result<(), BoxError> {
        for event in events {
            let insert = sqlx::query("INSERT INTO moods VALUES ($1, $2)").bind(event.position.to_i64());
            insert.bind(Mood("well")).execute(tables.connection()).await?;
        }
        Ok(())
    }
}

/// R12: each generation has types of its own, of which a connection knows those that it has met first. (Seen to fail where a connection
/// worked with the tables of several generations: the rebuild stopped at its first event.)
#[tokio::test]
async fn r12_a_generation_with_types_of_its_own_is_rebuilt_and_read() {
    let store = store().await;
    Repository::<Account>::new(store.clone()).execute("a", AccountCommand::Deposit(1)).await.unwrap();
    let projector = TableProjector::new(Moods, LogSource::new(store.clone()), store.clone());
    let tables = Tables::<Moods, _>::new(store.clone());
    for _ in 0..3 {
        soon(projector.rebuild(CancellationToken::new())).await.unwrap();
        let mut reading = tables.read().await.unwrap();
        let query = sqlx::query("SELECT position FROM moods WHERE mood = $1").bind(Mood("well"));
        assert_eq!(query.fetch_all(reading.connection()).await.unwrap().len(), 1);
        reading.end().await.unwrap();
    }
}
