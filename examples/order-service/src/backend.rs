//! The real parts behind the ports: an embedded file or Postgres, the log itself or Kafka.

use std::{sync::Arc, time::Duration};

use es_core::{Aggregate, AggregateStore, EventSource, LogSource, ReadModelStore, Repository, STANDBY_LIMIT};
use es_postgres::{ConnectError, PostgresStore};
use es_sqlite::{OpenError, SqliteStore};

use crate::{
    cli::Parts,
    kafka::{Kafka, Relay},
};

/// What the service runs on. Clones share it.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The event log, and the snapshots beside it.
    pub log: Arc<dyn AggregateStore>,
    /// The read models, and the checkpoints of all workers.
    pub read_models: Arc<dyn ReadModelStore>,
    /// How long workers stand by at an event that this program does not know.
    pub standby_limit: Duration,
    store: Store,
    kafka: Option<Kafka>,
}

#[derive(Debug, Clone)]
enum Store {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Backend {
    /// Opens the parts that were asked for.
    ///
    /// # Errors
    /// [`BackendError`] when the store cannot be opened, or this program knows no Kafka.
    pub async fn open(parts: &Parts) -> Result<Self, BackendError> {
        let kafka = Kafka::of(parts)?;
        let standby_limit = parts.standby_limit.map_or(STANDBY_LIMIT, Duration::from_secs);
        if let Some(url) = &parts.store {
            let store = PostgresStore::connect(url).await?;
            Ok(Self::of(&store, Store::Postgres(store.clone()), kafka, standby_limit))
        } else {
            let file = parts.data.as_deref().unwrap_or("orders.db".as_ref());
            let store = SqliteStore::open(file).await?;
            Ok(Self::of(&store, Store::Sqlite(store.clone()), kafka, standby_limit))
        }
    }

    fn of<S>(ports: &S, store: Store, kafka: Option<Kafka>, standby_limit: Duration) -> Self
    where
        S: AggregateStore + ReadModelStore + Clone,
    {
        Self { log: Arc::new(ports.clone()), read_models: Arc::new(ports.clone()), standby_limit, store, kafka }
    }

    /// The aggregates of one kind.
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        Repository::new(self.log.clone())
    }

    /// Where projectors and policies read: Kafka, if it is there, else the log.
    pub fn source(&self) -> Arc<dyn EventSource> {
        self.kafka_source().unwrap_or_else(|| self.log_source())
    }

    /// The log as a source.
    pub fn log_source(&self) -> Arc<dyn EventSource> {
        Arc::new(LogSource::new(self.log.clone()))
    }

    /// Kafka as a source, if it is there.
    pub fn kafka_source(&self) -> Option<Arc<dyn EventSource>> {
        self.kafka.as_ref().map(Kafka::source)
    }

    /// What carries the log to Kafka, if that is there.
    pub fn relay(&self) -> Option<Relay> {
        self.kafka.as_ref().map(|kafka| kafka.relay(self.log.clone()))
    }

    /// Finishes what is in flight and closes all connections (R16).
    pub async fn close(&self) {
        match &self.store {
            Store::Sqlite(store) => {
                if let Err(error) = store.close().await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the file was not closed in good order");
                }
            }
            Store::Postgres(store) => store.close().await,
        }
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The embedded file.
    #[error("the file cannot be opened")]
    Sqlite(#[from] OpenError),
    /// The Postgres server.
    #[error("the Postgres server cannot be used")]
    Postgres(#[from] ConnectError),
    /// Kafka was asked for, and this program was built without it.
    #[error("this program was built without Kafka: build it with `--features kafka`")]
    WithoutKafka,
}
