//! A real pooler (`PgBouncer`) between the stores and the server.

use std::{fs, path::Path, time::Duration};

use es_core::{EventStore, Expected, Position};
use es_postgres::{ConnectError, PostgresStore};
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{
    process::{self, Process},
    server::{Schema, append, exact, soon, url},
};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// It ends when this is dropped.
struct Pooler {
    port: u16,
    directory: TempDir,
    _process: Process,
}

impl Pooler {
    /// A pooler in front of the tests' server, with few connections that its clients must share.
    async fn start(mode: &str) -> Self {
        assert!(Path::new(PROGRAM).exists(), "these tests need `pgbouncer`: apt-get install pgbouncer");
        let (directory, port) = (process::directory(), process::free_port());
        write_settings(&directory, port, mode);
        let settings = directory.path().join("pgbouncer.ini");
        let log = directory.path().join("log");
        let process = Process::start(Path::new(PROGRAM), &[settings.to_str().unwrap()], "TERM", &log);
        let pooler = Self { port, directory, _process: process };
        soon(async {
            while PgConnection::connect_with(&pooler.console()).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        pooler
    }

    fn console(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port).username("postgres");
        options.database("pgbouncer").ssl_mode(PgSslMode::Disable)
    }

    /// From now on connections are shared as `mode` says, also those of clients that are connected.
    async fn switch(&self, mode: &str) {
        write_settings(&self.directory, self.port, mode);
        let mut console = PgConnection::connect_with(&self.console()).await.unwrap();
        sqlx::raw_sql("RELOAD").execute(&mut console).await.unwrap();
    }
}

fn write_settings(directory: &TempDir, port: u16, mode: &str) {
    let server: PgConnectOptions = url().parse().unwrap();
    let settings = format!(
        "[databases]\n* = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = any\nadmin_users = postgres\npool_mode = {mode}\ndefault_pool_size = 40\nmax_client_conn = 500\n\
         ignore_startup_parameters = extra_float_digits\nlog_connections = 0\nlog_disconnections = 0\n",
        server.get_host(),
        server.get_port()
    );
    fs::write(directory.path().join("pgbouncer.ini"), settings).unwrap();
}

/// Many callers append to `store` in every way there is; gives the ids of the streams whose event was acknowledged.
async fn hammer(store: &PostgresStore, name: &str) -> Vec<String> {
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (store, name) = (store.clone(), name.to_owned());
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..25 {
                let id = format!("{name}{writer}x{number}");
                let expected = if number % 2 == 0 { Expected::Any } else { exact(0) };
                if store.append(append(&id, expected, 2)).await.is_ok() {
                    acknowledged.push(id);
                }
                let _ =
                    store.read_stream(&super::server::stream(&format!("{name}0x0")), es_core::Version::ZERO, 5).await;
                // In the end by `COPY`.
                for event in store.read_log(Position::ZERO, 1_000).await.unwrap_or_default() {
                    assert!(event.stream.id().starts_with(&name), "{} was read in {name}", event.stream);
                }
            }
            acknowledged
        });
    }
    writers.join_all().await.concat()
}

/// The ids of the streams that the table holds.
async fn written(schema: &Schema) -> Vec<String> {
    let rows = schema.session().await.rows("SELECT substr(stream, 6) FROM events ORDER BY position").await;
    rows.iter().map(|row| sqlx::Row::get(row, 0)).collect()
}

async fn two_stores(schemas: &[Schema; 2], pooler: &Pooler) -> [PostgresStore; 2] {
    let [a, b] = schemas;
    let connect = |schema: &Schema| schema.options_through(pooler.port).patience(Duration::from_millis(300)).connect();
    [connect(a).await.unwrap(), connect(b).await.unwrap()]
}

/// Each log holds its own store's events, and all that were acknowledged.
async fn assert_apart(schemas: &[Schema; 2], acknowledged: [Vec<String>; 2]) {
    for ((schema, acknowledged), name) in schemas.iter().zip(acknowledged).zip(["a", "b"]) {
        let written = written(schema).await;
        let foreign: Vec<_> = written.iter().filter(|id| !id.starts_with(name)).collect();
        assert!(foreign.is_empty(), "{} of {} events are another store's", foreign.len(), written.len());
        let lost: Vec<_> = acknowledged.iter().filter(|id| !written.contains(id)).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged events are not there", lost.len(), acknowledged.len());
    }
}

/// In session mode a client keeps its connection, and everything holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_stores_behind_a_pooler_in_session_mode_lose_nothing() {
    let (schemas, pooler) = ([Schema::new(), Schema::new()], Pooler::start("session").await);
    let [a, b] = two_stores(&schemas, &pooler).await;
    let (in_a, in_b) = soon(async { tokio::join!(hammer(&a, "a"), hammer(&b, "b")) }).await;
    assert_eq!((in_a.len(), in_b.len()), (200, 200));
    assert_apart(&schemas, [in_a, in_b]).await;
    assert_eq!(a.head().await.unwrap(), Position::new(400));
}

/// A pooler that was switched to transaction mode gives each statement any connection, with the settings and prepared
/// statements of any client. What is acknowledged is written where it belongs; the rest are errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_stores_behind_a_pooler_in_transaction_mode_never_mix() {
    let (schemas, pooler) = ([Schema::new(), Schema::new()], Pooler::start("session").await);
    let [a, b] = two_stores(&schemas, &pooler).await;
    pooler.switch("transaction").await;
    let (in_a, in_b) = soon(async { tokio::join!(hammer(&a, "a"), hammer(&b, "b")) }).await;
    assert_apart(&schemas, [in_a, in_b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_pooler_in_transaction_mode_is_refused() {
    let pooler = Pooler::start("transaction").await;
    for mode in ["transaction", "statement"] {
        pooler.switch(mode).await;
        let outcome = soon(Schema::new().options_through(pooler.port).connect()).await;
        assert!(matches!(outcome, Err(ConnectError::SharedSession)), "{outcome:?}");
    }
}
