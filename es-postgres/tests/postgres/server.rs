//! The server, and what tests do to it without the store.

use std::{future::Future, time::Duration};

use es_core::{Append, Appended, EventData, EventStore, Expected, NewEvent, Position, StreamId, Version};
use es_postgres::{PostgresOptions, PostgresStore};
use es_testing::wire::Wire;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};
use uuid::Uuid;

/// How long something may take that happens at once unless it never does.
pub(crate) const SOON: Duration = Duration::from_mins(2);

pub(crate) fn url() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL must name a Postgres server; `cargo xtask test` starts one")
}

/// One test's schema. It is not removed: its name is never used again.
pub(crate) struct Schema(pub(crate) String);

impl Schema {
    pub(crate) fn new() -> Self {
        Self(format!("t_{}", Uuid::now_v7().simple()))
    }

    /// Options for a store in it. Its sessions carry the schema's name, so that a test finds them.
    pub(crate) fn options(&self) -> PostgresOptions {
        self.options_with("")
    }

    /// The same by way of a [`Wire`].
    pub(crate) fn options_through(&self, port: u16) -> PostgresOptions {
        self.options_with(&format!("&host=127.0.0.1&port={port}"))
    }

    /// The same with further parameters of the URL.
    pub(crate) fn options_with(&self, parameters: &str) -> PostgresOptions {
        // Patience for a machine that does a hundred other things.
        PostgresStore::options(&self.url_with(&format!("&schema={}{parameters}", self.0)))
            .patience(SOON)
            .close_within(SOON)
    }

    /// The server's URL with the schema's name for its sessions and further parameters.
    pub(crate) fn url_with(&self, parameters: &str) -> String {
        let url = url();
        let separator = if url.contains('?') { '&' } else { '?' };
        format!("{url}{separator}application_name={}{parameters}", self.0)
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        self.options().connect().await.expect("a server to connect to")
    }

    /// A session of the test's own that sees the schema.
    pub(crate) async fn session(&self) -> Session {
        let mut session = Session(PgConnection::connect(&url()).await.expect("a server to connect to"));
        session.run(&format!("SET search_path = {}", self.0)).await;
        session
    }
}

/// A store in a new schema.
pub(crate) async fn store() -> PostgresStore {
    Schema::new().store().await
}

/// A session that knows nothing of the store but its tables.
pub(crate) struct Session(pub(crate) PgConnection);

impl Session {
    pub(crate) async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.0).await.expect(sql);
    }

    pub(crate) async fn rows(&mut self, sql: &str) -> Vec<PgRow> {
        sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.0).await.expect(sql)
    }

    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        self.rows(sql).await[0].get(0)
    }

    pub(crate) async fn text(&mut self, sql: &str) -> String {
        self.rows(sql).await[0].get(0)
    }

    /// Takes the append lock and keeps it until the session's transaction ends.
    pub(crate) async fn hold_append_lock(&mut self) {
        self.run("BEGIN; SELECT take_append_lock()").await;
    }

    /// Returns when `sql` counts at least `least`.
    pub(crate) async fn until(&mut self, sql: &str, least: i64) {
        soon(async {
            while self.number(sql).await < least {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Returns when a session of `schema` waits for a lock.
    pub(crate) async fn until_blocked(&mut self, schema: &Schema, sessions: i64) {
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'",
            schema.0
        );
        // The view is a snapshot within a transaction.
        self.run("SELECT pg_stat_clear_snapshot()").await;
        soon(async {
            while self.number(&waiting).await < sessions {
                self.run("SELECT pg_stat_clear_snapshot()").await;
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A wire to the server.
pub(crate) async fn wire() -> Wire {
    let server: PgConnectOptions = url().parse().unwrap();
    Wire::to((server.get_host().to_owned(), server.get_port())).await.unwrap()
}

/// `future`, which is stuck if it is not done soon.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it is stuck")
}

pub(crate) fn stream(id: &str) -> StreamId {
    StreamId::new("test", id).unwrap()
}

pub(crate) fn event(payload: &str) -> NewEvent {
    let data = EventData { name: "test.happened".into(), schema_version: 1, payload: payload.to_owned().into() };
    NewEvent::new(data)
}

pub(crate) fn append(id: &str, expected: Expected, events: usize) -> Append {
    Append::new(stream(id), expected, (0..events).map(|n| event(&format!("{{\"n\":{n}}}"))).collect())
}

pub(crate) fn exact(version: u64) -> Expected {
    Expected::Exact(Version::new(version))
}

pub(crate) fn appended(version: u64, position: u64) -> Appended {
    Appended { version: Version::new(version), position: Position::new(position), repeated: false }
}

/// The positions and streams of the whole log.
pub(crate) async fn log(store: &PostgresStore) -> Vec<(u64, String)> {
    let events = store.read_log(Position::ZERO, 100_000).await.unwrap();
    events.into_iter().map(|event| (event.position.get(), event.stream.id().to_owned())).collect()
}
