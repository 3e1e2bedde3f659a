//! What a run has of its own: a schema of Postgres, topics, and the service on both.

use std::{env, time::Duration};

use es_core::{
    Backoff, ConsumerRunner, FailurePolicy, Position, Service, ServiceBuilder, UnknownTypes,
    service::Parts,
    testing::account::{Account, Histories, Turnover},
};
use es_kafka::{KafkaRelay, KafkaTopic, RecordField, RelayConfig, Settings};
use es_postgres::PostgresStore;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::{
    domain::{Bank, Copying},
    naive::NaiveRelay,
    plant::Plant,
};

/// The name of the service.
pub(crate) const SERVICE: &str = "chaos";

/// How long a lease, and a session of a consumer group, last after their holder stalls.
pub(crate) const SESSION: Duration = Duration::from_secs(2);

/// How long a member of a group may take between two polls, and a relay for a transaction.
pub(crate) const STALL: Duration = Duration::from_secs(4);

/// Where a run takes place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ground {
    /// The schema of the store.
    pub schema: String,
    /// What clients connect to.
    pub brokers: String,
    /// How many brokers hold each partition.
    pub replication: i32,
    /// What is wrong on purpose.
    pub plant: Option<Plant>,
}

impl Ground {
    pub(crate) fn new(brokers: String, replication: i32, plant: Option<Plant>) -> Self {
        let schema = format!("chaos{}", &Uuid::now_v7().simple().to_string()[16..]);
        Self { schema, brokers, replication, plant }
    }

    /// The service, not started yet. Its tables are made by the first who asks.
    pub(crate) async fn builder(&self) -> ServiceBuilder {
        let options = PostgresStore::options(&url()).schema(&self.schema).patience(Duration::from_mins(1));
        let store = options.connect().await.expect("Postgres is up");
        let relay = self.relay();
        let builder = Service::builder(SERVICE, store)
            .aggregate::<Account>()
            .projection(Histories)
            .projection(Turnover)
            .policy(Copying::new)
            .consumer_with(self.foreign(), Bank::new, |runner: ConsumerRunner<_>| {
                let pauses = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
                runner.unknown_types(UnknownTypes::Ignore).on_failure(FailurePolicy::retry(pauses, 1).then_park())
            })
            .lease(SESSION)
            .backoff(Backoff::new(Duration::from_millis(100), Duration::from_secs(2)));
        match self.plant {
            Some(Plant::NoTransactions) => builder.relay(NaiveRelay::new(relay)),
            _ => builder.relay(relay),
        }
    }

    /// The service with these parts.
    pub(crate) async fn start(&self, parts: Parts) -> Service {
        self.builder().await.parts(parts).start().await.expect("it can be started")
    }

    fn relay(&self) -> KafkaRelay {
        let partitions = if self.plant == Some(Plant::NoTransactions) { 1 } else { 3 };
        let replication = self.replication;
        KafkaRelay::new(&self.brokers)
            .topic_prefix(&self.schema)
            .relay(move |relay| {
                relay.partitions = partitions;
                relay.replication = replication;
                relay.settings = producing();
            })
            .source(|source| source.settings = consuming())
    }

    /// How the log is published.
    pub(crate) fn relay_config(&self) -> RelayConfig {
        self.relay().config(SERVICE)
    }

    /// The topic of the other system.
    pub(crate) fn foreign_topic(&self) -> String {
        format!("{}-bank", self.schema)
    }

    fn foreign(&self) -> KafkaTopic {
        KafkaTopic::new(&self.brokers, self.foreign_topic())
            .named_by(RecordField::json("/type"))
            .identified_by(RecordField::json("/id"))
            .settings(consuming())
            .source(|source| source.group_prefix = format!("{}-", self.schema))
    }

    /// Runs statements in the schema.
    pub(crate) async fn run(&self, sql: &str) {
        let mut session = PgConnection::connect(&url()).await.expect("Postgres is up");
        let sql = format!("SET search_path = {}; {sql}", self.schema);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.expect("the statements can be run");
    }

    /// Removes what the run has left in Postgres.
    pub(crate) async fn remove(&self) {
        self.run(&format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }

    /// The least that all readers of the log have reached.
    pub(crate) async fn reached(service: &Service) -> Position {
        use es_core::{Policy, Projection};
        let mut least = None;
        for name in [Histories::NAME, Turnover::NAME, Copying::NAME] {
            let reached = service.store().reached(name).await.expect("Postgres is up");
            least = Some(least.map_or(reached, |least: Position| least.min(reached)));
        }
        least.unwrap_or_default()
    }
}

fn url() -> String {
    env::var("DATABASE_URL").expect("DATABASE_URL is not set: run `cargo xtask chaos` or `cargo xtask test`")
}

/// Short limits, so that each is exceeded within seconds.
fn consuming() -> Settings {
    let mut settings = reconnecting();
    settings.insert("session.timeout.ms", SESSION.as_millis().to_string());
    settings.insert("heartbeat.interval.ms", "300");
    settings.insert("max.poll.interval.ms", STALL.as_millis().to_string());
    settings
}

fn producing() -> Settings {
    let mut settings = reconnecting();
    settings.insert("transaction.timeout.ms", STALL.as_millis().to_string());
    settings
}

/// After a fault a client is back soon.
fn reconnecting() -> Settings {
    Settings::from([("reconnect.backoff.max.ms", "500"), ("retry.backoff.max.ms", "500")])
}
