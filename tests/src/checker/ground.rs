//! The store of a run: a schema, a file or a store in memory that no other run uses.

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use es_core::{EventStore, MemoryStore};
use es_postgres::PostgresStore;
use es_sqlite::SqliteStore;
use es_testing::checker::REFUSED_NAME;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

/// `cargo xtask` sets it when it has started the server itself. No other server is crashed.
const MAY_CRASH: &str = "ES_POSTGRES_MAY_CRASH";

/// How long a store tries: longer than a server takes to recover on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long every second store tries: shorter than many recoveries, so that its callers get no outcome and send again, and
/// longer than a task waits to run on a busy machine.
const IMPATIENCE: Duration = Duration::from_millis(500);

/// Which store, and its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ground {
    /// In the memory of one process.
    Memory,
    /// In this file.
    Sqlite(PathBuf),
    /// In this schema of the server at `DATABASE_URL`, whose name the sessions carry.
    Postgres(String),
}

impl Ground {
    /// A schema that was never used before.
    pub fn postgres() -> Self {
        Self::Postgres(format!("check_{}", Uuid::now_v7().simple()))
    }

    /// Whether the server of this store may be crashed.
    pub fn may_crash(&self) -> bool {
        matches!(self, Self::Postgres(_)) && env::var_os(MAY_CRASH).is_some()
    }

    /// The store, opened `count` times, as that many processes would open it.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn open(&self, count: usize) -> Vec<Arc<dyn EventStore>> {
        let mut stores: Vec<Arc<dyn EventStore>> = Vec::new();
        let memory = MemoryStore::new();
        for number in 0..count {
            stores.push(match self {
                Self::Memory => Arc::new(memory.clone()),
                Self::Sqlite(path) => Arc::new(SqliteStore::open(path).await.expect("the file can be opened")),
                Self::Postgres(schema) => {
                    let (url, separator) = url();
                    let url = format!("{url}{separator}application_name={schema}&schema={schema}");
                    let patience = if number % 2 == 0 { PATIENCE } else { IMPATIENCE };
                    let options = PostgresStore::options(&url).patience(patience);
                    Arc::new(options.connect().await.expect("the server is up"))
                }
            });
        }
        stores
    }

    /// Gives the store a constraint that refuses events named [`REFUSED_NAME`]; false where it can have none.
    pub(crate) async fn refuse(&self) -> bool {
        match self {
            Self::Memory => return false,
            Self::Sqlite(path) => {
                let sql = format!(
                    "CREATE TRIGGER refused BEFORE INSERT ON events WHEN NEW.name = '{REFUSED_NAME}'
                     BEGIN SELECT RAISE(ABORT, 'refused'); END"
                );
                let options = SqliteConnectOptions::new().filename(path).busy_timeout(PATIENCE);
                let mut connection = options.connect().await.expect("the file is there");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a trigger");
                connection.close().await.expect("it is closed");
            }
            Self::Postgres(_) => {
                self.run(&format!("ALTER TABLE events ADD CONSTRAINT refused CHECK (type <> '{REFUSED_NAME}')")).await;
            }
        }
        true
    }

    /// Runs statements in the schema.
    ///
    /// # Panics
    /// When they fail, or the store has no schema.
    pub async fn run(&self, sql: &str) {
        let Self::Postgres(schema) = self else { panic!("there is no schema") };
        let mut session = session().await.expect("the server is up");
        let sql = format!("SET search_path = {schema}; {sql}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.expect("the statements can be run");
    }

    /// Removes it after a run without a finding.
    pub(crate) async fn remove(&self) {
        match self {
            Self::Postgres(schema) => self.run(&format!("DROP SCHEMA {schema} CASCADE")).await,
            // The file lies in the directory of the run.
            Self::Sqlite(_) | Self::Memory => {}
        }
    }
}

/// The server's address, and the separator before a further parameter.
fn url() -> (String, char) {
    let url = env::var("DATABASE_URL").expect("DATABASE_URL is not set: run `cargo xtask check` or `cargo xtask test`");
    let separator = if url.contains('?') { '&' } else { '?' };
    (url, separator)
}

/// A session that belongs to no store.
pub(crate) async fn session() -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect(&url().0).await
}
