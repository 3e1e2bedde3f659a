//! The measurement of the way through Kafka: one piece of work in each round, from a log that was filled before to topics, or from topics
//! that a relay has filled before to a read model. All participants work on the same broker, each in topics of its own.

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use es_core::{Event, EventStore, Position, Projection, Projector, QueryError, ReadModel, ReadToken, RecordedEvent};
use es_kafka::{KafkaSource, KafkaSourceConfig, Relay, RelayConfig};
use es_postgres::PostgresStore;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    account::AccountEvent,
    bare,
    contender::Work,
    database::{Database, Server},
    entrant::{Entrant, Sending},
    history::{EVENTS_PER_STREAM, History},
    measure::{self, Measurement},
    ours::{Balances, Merged},
};

/// The streams of the history, each with a document of its own.
const STREAMS: usize = 20_000;

/// The events of the history.
const EVENTS: usize = STREAMS * EVENTS_PER_STREAM;

/// The partitions of a topic.
const PARTITIONS: i32 = 3;

/// How long a piece of work may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// Where a participant works.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    pub(crate) brokers: String,
    prefix: String,
}

impl Topics {
    /// New ones.
    pub(crate) async fn create() -> Result<Self> {
        let brokers = env::var("KAFKA_BROKERS").context("KAFKA_BROKERS names no broker")?;
        let topics = Self { brokers, prefix: format!("bench-{}.", Uuid::now_v7().simple()) };
        let admin: AdminClient<DefaultClientContext> = topics.client().create()?;
        let (events, progress) = (topics.events(), topics.progress());
        let new = [(&events, PARTITIONS), (&progress, 1)];
        let new = new.map(|(name, partitions)| NewTopic::new(name, partitions, TopicReplication::Fixed(1)));
        for created in admin.create_topics(&new, &AdminOptions::new()).await? {
            created.map_err(|(topic, code)| anyhow!("{topic}: {code}"))?;
        }
        Ok(topics)
    }

    pub(crate) async fn delete(&self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        admin.delete_topics(&[&self.events(), &self.progress()], &AdminOptions::new()).await?;
        Ok(())
    }

    /// A client without further settings.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }

    /// The topic of all events: they are of one category.
    pub(crate) fn events(&self) -> String {
        es_kafka::Topics::new(&self.prefix).events(AccountEvent::CATEGORY)
    }

    /// The topic of the relay's progress.
    pub(crate) fn progress(&self) -> String {
        es_kafka::Topics::new(&self.prefix).progress()
    }

    /// The settings of the relay: those that it has by itself.
    pub(crate) fn relay(&self) -> RelayConfig {
        RelayConfig { topic_prefix: self.prefix.clone(), ..RelayConfig::new(&self.brokers, "bench") }
    }

    /// The settings of the relay of `entrant`.
    fn relay_of(&self, entrant: Entrant) -> RelayConfig {
        let mut config = self.relay();
        match entrant {
            Entrant::Relayed(Sending::Uncompressed) => config.settings.insert("compression.type", "none"),
            Entrant::Relayed(Sending::Zstd) => config.settings.insert("compression.type", "zstd"),
            Entrant::Relayed(Sending::Batches(events)) => config.batch_events = events,
            _ => {}
        }
        config
    }

    pub(crate) fn source(&self) -> KafkaSource {
        let config = KafkaSourceConfig::new(&self.brokers, "bench");
        let (topic_prefix, group_prefix) = (self.prefix.clone(), self.prefix.clone());
        KafkaSource::new(KafkaSourceConfig { topic_prefix, group_prefix, ..config })
    }
}

/// Measures the work from its first event until the last one is in Kafka, or in the read model.
///
/// Fails unless each event was published once, or each document is the fold of its stream.
pub(crate) async fn measure(server: &Server, entrant: Entrant, work: Work) -> Result<Measurement> {
    let url = server.create(entrant.name(), Duration::ZERO).await?;
    let store = PostgresStore::options(&url).schema("public").connect().await?;
    let topics = Topics::create().await?;
    let measured = if work == Work::Publish {
        published(&url, &store, &topics, entrant).await?
    } else {
        followed(&url, &store, &topics, entrant).await?
    };
    store.close().await?;
    topics.delete().await?;
    server.drop(entrant.name()).await?;
    Ok(measured)
}

async fn published(url: &str, store: &PostgresStore, topics: &Topics, entrant: Entrant) -> Result<Measurement> {
    let head = import(store, STREAMS).await?;
    let mut database = Database::open(url).await?;
    database.analyze().await?;
    let measured = if matches!(entrant, Entrant::Bare(_)) {
        let (events, topics) = (log(store, head).await?, topics.clone());
        let work = tokio::task::spawn_blocking(move || bare::kafka::publish(&topics, &events));
        measure::piece(&mut database, EVENTS, async { work.await? }).await?
    } else {
        let work = tokio::spawn(publish(store.clone(), topics.relay_of(entrant), head));
        measure::piece(&mut database, EVENTS, async { work.await? }).await?
    };
    let topics = topics.clone();
    let found = tokio::task::spawn_blocking(move || bare::kafka::count(&topics, EVENTS)).await??;
    ensure!(found == EVENTS, "{found} of {EVENTS} events are in Kafka");
    Ok(measured)
}

async fn followed(url: &str, store: &PostgresStore, topics: &Topics, entrant: Entrant) -> Result<Measurement> {
    let is_bare = matches!(entrant, Entrant::Bare(_));
    let mut database = Database::open(url).await?;
    // A read model that does not serve yet would be built in memory.
    let begun = import(store, 1).await?;
    if !is_bare {
        publish(store.clone(), topics.relay(), begun).await?;
        follow(entrant, store.clone(), topics, begun).await?;
    }
    let head = import(store, STREAMS).await?;
    publish(store.clone(), topics.relay(), head).await?;
    database.analyze().await?;
    let measured = if is_bare {
        let mut connection = bare::connect(url).await?;
        let (topics, all) = (topics.clone(), usize::try_from(head.get())?);
        let work = tokio::spawn(async move { bare::kafka::follow(&topics, all, &mut connection).await });
        measure::piece(&mut database, EVENTS, async { work.await? }).await?
    } else {
        let (store, topics) = (store.clone(), topics.clone());
        let work = tokio::spawn(async move { follow(entrant, store, &topics, head).await });
        measure::piece(&mut database, EVENTS, async { work.await? }).await?
    };
    let Database::Server(connection) = &mut database else { return Err(anyhow!("the database is a file")) };
    let found: (i64, i64) = sqlx::query_as(include_str!("sql/documents.sql")).fetch_one(connection).await?;
    ensure!(
        found == (i64::try_from(STREAMS + 1)?, i64::try_from(head.get())?),
        "documents and the events they tell of: {found:?}"
    );
    Ok(measured)
}

/// Writes a history, and returns where the log ends then.
async fn import(store: &PostgresStore, streams: usize) -> Result<Position> {
    store.import(&format!("{streams} streams")).events(History::of(streams)?.events).await?;
    Ok(store.head().await?)
}

async fn log(store: &PostgresStore, head: Position) -> Result<Vec<RecordedEvent>> {
    let mut events: Vec<RecordedEvent> = Vec::with_capacity(EVENTS);
    loop {
        let after = events.last().map_or(Position::ZERO, |event| event.position);
        if after >= head {
            return Ok(events);
        }
        events.extend(store.read_log(after, 10_000).await?);
    }
}

/// Runs the relay until it has published the log up to `head`.
async fn publish(store: PostgresStore, config: RelayConfig, head: Position) -> Result<()> {
    let relay = Arc::new(Relay::new(store, config));
    let (mut published, stop) = (relay.published(), CancellationToken::new());
    let running = tokio::spawn({
        let (relay, stop) = (relay.clone(), stop.clone());
        async move { relay.run(stop).await }
    });
    tokio::time::timeout(PATIENCE, published.wait_for(|position| *position >= head)).await??;
    stop.cancel();
    Ok(running.await??)
}

async fn follow(entrant: Entrant, store: PostgresStore, topics: &Topics, head: Position) -> Result<()> {
    match entrant {
        Entrant::Merged => project(Merged, store, topics, head).await,
        _ => project(Balances::<0>, store, topics, head).await,
    }
}

/// Runs a projector from Kafka until its read model has reached `head`.
async fn project<P: Projection>(projection: P, store: PostgresStore, topics: &Topics, head: Position) -> Result<()> {
    let projector = Projector::new(projection, topics.source(), store.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { projector.run(stop).await }
    });
    let model = ReadModel::<P>::new(store);
    while let Err(QueryError::Building { .. }) = model.wait_for(ReadToken(head), PATIENCE).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    Ok(running.await??)
}
