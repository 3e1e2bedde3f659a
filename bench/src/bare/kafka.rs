//! Kafka: a transactional producer that sends what it is given, and a consumer that folds and writes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use es_core::{Event, Position, RecordedEvent};
use rdkafka::{
    ClientContext, Message,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    account::{Account, AccountEvent},
    kafka::Topics,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// The events after which documents are written.
const BATCH: usize = 1_000;

/// Counts what was delivered.
#[derive(Default)]
struct Delivered(AtomicUsize);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, outcome: &DeliveryResult<'_>, (): ()) {
        self.0.fetch_add(usize::from(outcome.is_ok()), Ordering::Relaxed);
    }
}

/// Publishes the events in transactions as large as those of the relay, each with one record more in another topic, by the
/// client's own partitioner.
pub(crate) fn publish(topics: &Topics, events: &[RecordedEvent]) -> Result<()> {
    let (relay, topic, progress) = (topics.relay(), topics.events(), topics.progress());
    let mut client = topics.client();
    for (name, value) in [
        ("transactional.id", &*Uuid::now_v7().to_string()),
        ("compression.type", "lz4"),
        ("linger.ms", "5"),
        ("partitioner", "murmur2_random"),
    ] {
        client.set(name, value);
    }
    let producer: BaseProducer<Delivered> = client.create_with_context(Delivered::default())?;
    producer.init_transactions(PATIENCE)?;
    let mut previous = Position::ZERO;
    for events in events.chunks(relay.batch_events) {
        producer.begin_transaction()?;
        for event in events {
            let headers = es_kafka::headers(event, &relay.source, previous);
            previous = event.position;
            let record = BaseRecord::to(&topic).key(event.stream.as_str()).payload(event.data.payload.as_ref());
            producer.send(record.headers(headers)).map_err(|(error, _)| error)?;
        }
        let record = BaseRecord::to(&progress).partition(0).key("bare").payload("{}");
        producer.send(record).map_err(|(error, _)| error)?;
        let began = Instant::now();
        while producer.in_flight_count() > 0 {
            ensure!(began.elapsed() < PATIENCE, "the broker has not answered");
            // Without time to wait it only ends the lingering.
            _ = producer.flush(Duration::ZERO);
            producer.poll(Duration::ZERO);
            thread::sleep(Duration::from_micros(250));
        }
        producer.commit_transaction(PATIENCE)?;
    }
    let (delivered, sent) = (producer.context().0.load(Ordering::Relaxed), events.len());
    ensure!(delivered == sent + sent.div_ceil(relay.batch_events), "{delivered} records of {sent} events");
    Ok(())
}

fn consumer(topics: &Topics) -> Result<BaseConsumer> {
    let mut client = topics.client();
    let group = Uuid::now_v7().to_string();
    for (name, value) in [
        ("group.id", &*group),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("isolation.level", "read_committed"),
        ("fetch.wait.max.ms", "100"),
    ] {
        client.set(name, value);
    }
    let consumer: BaseConsumer = client.create()?;
    consumer.subscribe(&[&topics.events()])?;
    Ok(consumer)
}

fn next<'c>(consumer: &'c BaseConsumer) -> Result<BorrowedMessage<'c>> {
    let began = Instant::now();
    loop {
        // It also returns when the group has changed.
        match consumer.poll(Duration::from_secs(1)) {
            Some(record) => return Ok(record?),
            None => ensure!(began.elapsed() < PATIENCE, "no record has come"),
        }
    }
}

/// How many different events the first `events` records tell of.
pub(crate) fn count(topics: &Topics, events: usize) -> Result<usize> {
    let consumer = consumer(topics)?;
    let mut found = BTreeSet::new();
    for _ in 0..events {
        let record = next(&consumer)?;
        let headers = record.headers().context("headers")?;
        let position = headers.iter().find(|header| header.key == "ce_position").and_then(|header| header.value);
        found.insert(position.context("a position")?.to_vec());
    }
    Ok(found.len())
}

/// Folds the records of `events` events in memory, and after each thousand writes the documents that they touch with one statement.
pub(crate) async fn follow(topics: &Topics, events: usize, connection: &mut PgConnection) -> Result<()> {
    let schema = AccountEvent::SCHEMAS[0];
    let (consumer, mut accounts) = (consumer(topics)?, HashMap::<String, Account>::new());
    let mut seen = 0;
    while seen < events {
        let mut touched = BTreeSet::new();
        tokio::task::block_in_place(|| {
            for _ in seen..events.min(seen + BATCH) {
                let record = next(&consumer)?;
                let stream = std::str::from_utf8(record.key().context("a key")?)?;
                let (_, key) = stream.split_once('-').context("a stream")?;
                let event = AccountEvent::decode(schema.name, schema.version, record.payload().context("a payload")?)?;
                match accounts.get_mut(key) {
                    Some(account) => account.fold(&event),
                    None => accounts.entry(key.to_owned()).or_default().fold(&event),
                }
                touched.insert(key.to_owned());
            }
            anyhow::Ok(())
        })?;
        seen = events.min(seen + BATCH);
        let documents = touched.iter().map(|key| serde_json::to_vec(&accounts[key])).collect::<Result<Vec<_>, _>>()?;
        let upsert = sqlx::query(include_str!("../sql/bare_upsert.sql"));
        upsert.bind(touched.into_iter().collect::<Vec<_>>()).bind(documents).execute(&mut *connection).await?;
    }
    Ok(())
}
