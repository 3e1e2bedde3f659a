//! A store with some events and readers, and the program on it.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use es_core::{
    Append, EventData, Expected, Metadata, NewEvent, Position, ServiceStore, StreamId,
    backend::{Changes, Checkpoint, GenerationState, Shard, Takeover},
};
use es_postgres::PostgresStore;
use es_sqlite::SqliteStore;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Where a store is.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) schema: Option<String>,
    /// Its files.
    pub(crate) directory: TempDir,
    pub(crate) runtime: Runtime,
}

/// What the program has done.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// Its lines, each of them JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{}", self.err);
        self.lines()
    }

    /// The same, however it ended.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub(crate) fn server() -> String {
    std::env::var("DATABASE_URL").expect("DATABASE_URL must name a Postgres server; `cargo xtask test` starts one")
}

impl Place {
    /// A file that is not there yet.
    pub(crate) fn on_a_file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("events.db").display());
        Self { url, schema: None, directory, runtime: Runtime::new().unwrap() }
    }

    /// A schema that is not there yet. It is not removed: its name is never used again.
    pub(crate) fn on_a_server() -> Self {
        let schema = Some(format!("cli_{}", Uuid::now_v7().simple()));
        Self { url: server(), schema, directory: tempfile::tempdir().unwrap(), runtime: Runtime::new().unwrap() }
    }

    /// Both kinds, each with the [events](Self::fill).
    pub(crate) fn filled() -> [Self; 2] {
        let places = [Self::on_a_file(), Self::on_a_server()];
        places.iter().for_each(Self::fill);
        places
    }

    pub(crate) async fn store(&self) -> Arc<dyn ServiceStore> {
        match &self.schema {
            Some(schema) => Arc::new(PostgresStore::options(&self.url).schema(schema.clone()).connect().await.unwrap()),
            None => Arc::new(SqliteStore::open(self.url.strip_prefix("sqlite:").unwrap()).await.unwrap()),
        }
    }

    /// Ten events: five of `order-1`, and one each of `order-2` and of `payment-1` to `payment-4`; and two readers: `all`, at
    /// position 4 and without a worker, and `mail`, at the end.
    pub(crate) fn fill(&self) {
        self.runtime.block_on(async {
            let store = self.store().await;
            for number in 1..=5 {
                store.append(event("order-1", number)).await.unwrap();
            }
            for stream in ["order-2", "payment-1", "payment-2", "payment-3", "payment-4"] {
                store.append(event(stream, 1)).await.unwrap();
            }
            reach(&*store, "all", "projection All of all categories in per-key order", 4).await;
            reach(&*store, "mail", "policy Mail of order", 10).await;
            store.close().await.unwrap();
        });
    }

    /// The program with `arguments`, on the store.
    pub(crate) fn es(&self, arguments: &[&str]) -> Run {
        let mut es = self.command();
        run(es.args(arguments))
    }

    /// The same, not started yet.
    pub(crate) fn command(&self) -> Command {
        let mut es = es();
        es.env("ES_URL", &self.url);
        if let Some(schema) = &self.schema {
            es.env("ES_SCHEMA", schema);
        }
        es
    }
}

fn event(stream: &str, number: u64) -> Append {
    let payload = format!("{{\"total\":\"9.90\",\"number\":{number}}}");
    let data = EventData { name: "order.noted".into(), schema_version: 2, payload: payload.into() };
    let metadata = Metadata { actor: Some("ada".into()), ..Metadata::default() };
    let stream: StreamId = stream.parse().unwrap();
    Append::new(stream, Expected::Any, vec![NewEvent::new(data).with_metadata(metadata)])
}

/// Lets the reader `name` reach `position`.
async fn reach(store: &dyn ServiceStore, name: &str, definition: &str, position: u64) {
    let reader = if definition.starts_with("policy") {
        store.ensure_reader(name, definition).await.unwrap().0
    } else {
        store.ensure_generation(name, 3, GenerationState::Serving, definition, &[]).await.unwrap().reader
    };
    let log = Shard::whole("log");
    store.ensure_shards(&reader, std::slice::from_ref(&log)).await.unwrap();
    let ttl = Duration::from_mins(1);
    let lease = store.acquire(&reader, &log, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap();
    let checkpoint = Checkpoint { position: Position::new(position), ..Checkpoint::default() };
    store.commit(&lease, Changes { checkpoint, ..Changes::default() }).await.unwrap();
    store.release(&lease).await.unwrap();
}

/// The program without a store.
pub(crate) fn es() -> Command {
    let mut es = Command::new(env!("CARGO_BIN_EXE_es"));
    es.env_remove("ES_URL").env_remove("ES_SCHEMA").env_remove("DATABASE_URL").stdin(Stdio::null());
    for name in ["BROKERS", "RELAY", "TOPIC_PREFIX", "CONFIG"] {
        es.env_remove(format!("ES_KAFKA_{name}"));
    }
    es
}

pub(crate) fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().expect("it ends by itself"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
