//! Tables that are filled from a topic of another system.

use std::time::Duration;

use async_trait::async_trait;
use es_core::{
    EventStore, Recorded, Service, TableProjection, Tables, backend::BoxError, error::with_causes, service::PartState,
};
use es_kafka::{KafkaTopic, RecordField};
use es_postgres::{PgTables, PostgresStore};
use evenfold::Event;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::ground::{Ground, server};

const PATIENCE: Duration = Duration::from_mins(1);

/// How many messages there are, and of these every tenth twice.
const MESSAGES: i64 = 3_000;

#[derive(Debug, PartialEq, Event)]
#[event(category = "capture")]
enum Message {
    #[event(name = "captured")]
    Captured { number: i64, cents: i64 },
}

/// A row for each message; a message that is written twice is refused.
struct Captures<const V: u32>;

#[async_trait]
impl<const V: u32> TableProjection<PostgresStore> for Captures<V> {
    const NAME: &'static str = "captures";
    const VERSION: u32 = V;
    const MIGRATIONS: &'static [&'static str] =
        &["CREATE TABLE captures (number bigint PRIMARY KEY, cents bigint NOT NULL)"];
    type Event = Message;

    async fn write(&self, tables: &mut PgTables<'_>, messages: &[Recorded<Message>]) -> Result<(), BoxError> {
        let rows = messages.iter().map(|message| {
            let Message::Captured { number, cents } = message.data;
            (number, cents * i64::from(V))
        });
        let (numbers, cents): (Vec<_>, Vec<_>) = rows.unzip();
        sqlx::query("INSERT INTO captures SELECT * FROM unnest($1::bigint[], $2::bigint[])")
            .bind(numbers)
            .bind(cents)
            .execute(tables.connection())
            .await?;
        Ok(())
    }
}

async fn start<const V: u32>(url: &str, topic: &KafkaTopic) -> Service {
    let store = PostgresStore::connect(url).await.expect("Postgres is up");
    let service = Service::builder("captures", store.clone()).table_consumer(topic.clone(), Captures::<V>, store);
    service.start().await.expect("it starts")
}

/// How many rows there are, and their sum, once there are all of them.
async fn written<const V: u32>(service: &Service) -> (i64, i64) {
    let tables = service.tables::<Captures<V>, PostgresStore>().expect("it is registered").patience(PATIENCE);
    let all = async {
        loop {
            if let PartState::Stopped { reason } = &service.status().await.part("captures").expect("registered").state {
                panic!("{reason}");
            }
            let found = sums(&tables).await;
            if found.0 >= MESSAGES {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("it is late")
}

async fn sums<const V: u32>(tables: &Tables<Captures<V>, PostgresStore>) -> (i64, i64) {
    let mut reading = tables.read().await.unwrap_or_else(|error| panic!("{}", with_causes(&error)));
    let sums = "SELECT count(*), coalesce(sum(cents), 0)::bigint FROM captures";
    let found = sqlx::query_as(sums).fetch_one(reading.connection()).await.expect("read");
    reading.end().await.expect("ended");
    found
}

/// Two processes share the partitions; one of them is gone in the middle. Then another version is filled beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_r12_messages_of_a_topic_are_in_the_tables_once_and_in_a_new_version_too() {
    let ground = Ground::new().await;
    let (topic, brokers) = (format!("{}captures", ground.parts.topic_prefix), server("KAFKA_BROKERS"));
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &brokers);
    let admin: AdminClient<DefaultClientContext> = client.create().expect("an admin");
    let new = NewTopic::new(&topic, 3, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.expect("the broker is up");
    let producer: BaseProducer = client.create().expect("a producer");
    let send = |number: i64, partition: i64| {
        let value = format!(r#"{{"type":"captured","id":"{number}","number":{number},"cents":{}}}"#, number % 7);
        let partition = i32::try_from(partition % 3).expect("small");
        let key = format!("C-{}", number % 50);
        let record = BaseRecord::to(&topic).partition(partition).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("there is room");
    };
    for number in 0..MESSAGES / 2 {
        send(number, number);
    }
    producer.flush(PATIENCE).expect("the broker is up");

    let url = ground.parts.store.clone().expect("it is set");
    let declared =
        KafkaTopic::new(brokers, &topic).named_by(RecordField::json("/type")).identified_by(RecordField::json("/id"));
    let (gone, stays) = tokio::join!(start::<1>(&url, &declared), start::<1>(&url, &declared));
    let tables = gone.tables::<Captures<1>, PostgresStore>().expect("it is registered").patience(PATIENCE);
    while sums(&tables).await.0 == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop((tables, gone));
    for number in MESSAGES / 2..MESSAGES {
        send(number, number);
        if number % 10 == 0 {
            // Its producer repeats it, to another partition, which another worker has at the same time.
            send(number, number + 1);
        }
    }
    producer.flush(PATIENCE).expect("the broker is up");
    let cents: i64 = (0..MESSAGES).map(|number| number % 7).sum();
    assert_eq!(written::<1>(&stays).await, (MESSAGES, cents));

    let newer = start::<2>(&url, &declared).await;
    assert_eq!(written::<2>(&newer).await, (MESSAGES, 2 * cents));
    let status = newer.status().await;
    let part = status.part("captures").expect("it is registered");
    assert_eq!((part.position, part.lag), (None, None), "{part:?}");
    let nothing = newer.store().head().await.expect("read");
    assert_eq!(nothing.get(), 0, "nothing of it is in the log");
    for service in [stays, newer] {
        service.shutdown(Duration::from_secs(10)).await.expect("it ends in time");
    }
}
