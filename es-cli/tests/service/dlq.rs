//! The dead letters of the topics that the consumers of a service read.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use es_cli::{CommandError, Outcome};
use es_core::{Consumer, Event, MemoryStore, PolicyError, Recorded, ServiceBuilder};
use es_kafka::KafkaTopic;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{PATIENCE, accounts, run_with};

#[derive(Debug, PartialEq, Event)]
#[event(category = "payment")]
enum Message {
    #[event(name = "captured")]
    Captured,
}

struct Mail;

#[async_trait]
impl Consumer for Mail {
    const NAME: &'static str = "mail";
    type Message = Message;

    async fn handle(&self, _: &Recorded<Message>) -> Result<(), PolicyError> {
        Ok(())
    }
}

struct Stock;

#[async_trait]
impl Consumer for Stock {
    const NAME: &'static str = "stock";
    type Message = Message;

    async fn handle(&self, _: &Recorded<Message>) -> Result<(), PolicyError> {
        Ok(())
    }
}

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("these tests need a broker: set KAFKA_BROKERS, or run `cargo xtask test`")
}

/// A topic with so many dead letters of the consumer `mail`.
async fn topic(letters: usize) -> String {
    let topic = format!("cli{}", Uuid::now_v7().simple());
    let dead = format!("{topic}.dlq");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    let names = [topic.as_str(), dead.as_str()].map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
    let created = admin.create_topics(&names, &AdminOptions::new()).await.unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    for offset in 0..letters {
        let offset = offset.to_string();
        let headers = [
            ("handler", "mail"),
            ("original-topic", &topic),
            ("original-partition", "0"),
            ("original-offset", &offset),
            ("error-class", "refused"),
            ("failed-at", "2026-01-31T12:00:00Z"),
        ];
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        let deadline = Instant::now() + PATIENCE;
        let mut record = BaseRecord::to(&dead).key("a").payload("{}").headers(headers);
        while let Err((error, again)) = producer.send(record) {
            assert!(Instant::now() < deadline, "{error}");
            record = again;
        }
    }
    producer.flush(Duration::from_mins(1)).unwrap();
    topic
}

fn with(store: &MemoryStore, topics: &[&str]) -> ServiceBuilder {
    let source = |name: &str| KafkaTopic::new(brokers(), name);
    match topics {
        [] => accounts(store),
        [mail] => accounts(store).consumer(source(mail), |_| Mail).consumer(Arc::new(source(mail)), |_| Stock),
        [mail, stock, ..] => accounts(store).consumer(source(mail), |_| Mail).consumer(source(stock), |_| Stock),
    }
}

/// Its brokers, their settings and the topic follow from the registration of the consumer.
#[tokio::test]
async fn r22_dead_letters_are_seen_and_discarded_in_the_program_of_the_service() {
    let (store, topic) = (MemoryStore::new(), topic(2).await);
    let (ended, text) = run_with(with(&store, &[&topic]), &["dlq", "list", "--json"]).await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((ended.unwrap(), lines.len(), &lines[0]["handler"]), (Outcome::Well, 2, &json!("mail")));
    let discard = ["dlq", "discard", "--at", "0", "--reason", "ticket 7", "--actor", "ada", "--yes"];
    assert_eq!(run_with(with(&store, &[&topic]), &discard).await.0.unwrap(), Outcome::Well);
    let (ended, text) = run_with(with(&store, &[&topic]), &["dlq", "list", "--most", "0"]).await;
    assert!(text.contains(&format!("1 record waits in {topic}.dlq")), "{text}");
    assert_eq!(ended.unwrap(), Outcome::No);
    let (_, acts) = run_with(accounts(&store), &["actions", "--json"]).await;
    let act: Value = serde_json::from_str(acts.lines().next().unwrap()).unwrap();
    assert_eq!([&act["what"], &act["reader"], &act["actor"]], [&json!("discard"), &json!("mail"), &json!("ada")]);
}

/// What it tells to do is a command of the program that runs.
#[tokio::test]
async fn doctor_tells_what_waits_in_the_dead_letter_topics() {
    let (store, full, empty) = (MemoryStore::new(), topic(2).await, topic(0).await);
    let (ended, text) = run_with(with(&store, &[&full, &empty]), &["doctor"]).await;
    assert_eq!(ended.unwrap(), Outcome::Warnings, "{text}");
    assert!(text.contains(&format!("dead letters: 2 records wait in {full}.dlq, the oldest for ")), "{text}");
    assert!(text.contains(&format!("dlq show --topic {full} --at N`")) && !text.contains("`es "), "{text}");
    assert!(text.contains(&format!("dead letters: no record waits in {empty}.dlq")), "{text}");
}

#[tokio::test]
async fn a_topic_is_named_where_the_consumers_read_several_and_others_are_refused() {
    let (store, first, second) = (MemoryStore::new(), topic(1).await, topic(0).await);
    let both = [first.as_str(), second.as_str()];
    for (topics, arguments, told) in [
        (&[][..], &["dlq", "list"][..], "no consumer of a topic"),
        (&both, &["dlq", "list"], "several topics"),
        (&both, &["dlq", "list", "--topic", "orders"], "reads \"orders\""),
    ] {
        let (ended, _) = run_with(with(&store, topics), arguments).await;
        let error = ended.unwrap_err();
        assert!(matches!(&error, CommandError::Usage { what, .. } if what.contains(told)), "{error:?}");
    }
    let (ended, text) = run_with(with(&store, &both), &["dlq", "list", "--topic", &first]).await;
    assert!(ended.is_ok() && text.contains("1 record waits"), "{text}");
}
