//! A topic that another system fills, and a consumer of it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use es_core::{
    Consumer, ConsumerRunner, EngineError, Event, MemoryStore, PolicyError, Position, Recorded, Repository,
    backend::{Inspect, Leases, Shard},
    reaction,
    testing::account::{Account, AccountCommand},
};
use es_kafka::{KafkaTopic, RecordField};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::setup::{House, PATIENCE, brokers};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "payment")]
pub(crate) enum PaymentMessage {
    #[event(name = "captured")]
    Captured { account: String, cents: u64 },
    #[event(name = "deleted")]
    Deleted,
}

/// Puts captured payments on accounts.
pub(crate) struct Payments {
    pub(crate) accounts: Repository<Account>,
    pub(crate) seen: Arc<Mutex<Vec<Recorded<PaymentMessage>>>>,
    /// After the effect of a payment of so much, it never returns, and tells.
    pub(crate) hangs: Option<(u64, Arc<Notify>)>,
    /// A payment of so much is refused.
    pub(crate) refuses: Option<u64>,
}

#[async_trait]
impl Consumer for Payments {
    const NAME: &'static str = "payments";
    type Message = PaymentMessage;

    async fn handle(&self, message: &Recorded<PaymentMessage>) -> Result<(), PolicyError> {
        if let PaymentMessage::Captured { account, cents } = &message.data {
            if self.refuses == Some(*cents) {
                return Err(PolicyError::Permanent("no".into()));
            }
            let context = reaction(message, Self::NAME, "deposit")?;
            self.accounts.execute_with(account.as_str(), AccountCommand::Deposit(*cents), context).await?;
            if let Some((_, reached)) = self.hangs.as_ref().filter(|(hangs, _)| hangs == cents) {
                reached.notify_one();
                std::future::pending::<()>().await;
            }
        }
        self.seen.lock().unwrap().push(message.clone());
        Ok(())
    }
}

/// A topic of its own, and a store.
pub(crate) struct Foreign {
    pub(crate) store: MemoryStore,
    pub(crate) topic: String,
    pub(crate) producer: BaseProducer,
}

impl Foreign {
    pub(crate) async fn new(partitions: i32) -> Self {
        let House { store, prefix } = House::new();
        let topic = format!("{prefix}payments");
        House::new().create_topic(&topic, partitions).await;
        let producer = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
        Self { store, topic, producer }
    }

    /// The topic as a source of plain JSON, and of `CloudEvents`.
    pub(crate) fn source(&self) -> KafkaTopic {
        KafkaTopic::new(brokers(), &*self.topic)
            .named_by(RecordField::json("/type"))
            .identified_by(RecordField::json("/id"))
    }

    /// Writes a record, and waits until it is there.
    pub(crate) fn send(&self, partition: i32, key: Option<&str>, headers: &[(&str, &str)], value: Option<&str>) {
        self.send_to(&self.topic, partition, key, headers, value);
    }

    /// Writes a record to another topic.
    pub(crate) fn send_to(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&str>,
        headers: &[(&str, &str)],
        value: Option<&str>,
    ) {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        let mut record = BaseRecord::<str, str>::to(topic).partition(partition).headers(headers);
        (record.key, record.payload) = (key, value);
        let deadline = Instant::now() + PATIENCE;
        while let Err((error, again)) = self.producer.send(record) {
            // It has just been added.
            assert!(error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition), "{error}");
            assert!(Instant::now() < deadline, "{error}");
            self.producer.client().fetch_metadata(Some(topic), PATIENCE).unwrap();
            record = again;
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    /// A payment in plain JSON to the account that is its key.
    pub(crate) fn pay(&self, partition: i32, account: &str, id: u64, cents: u64) {
        let value = format!(r#"{{"type":"captured","id":{id},"account":"{account}","cents":{cents}}}"#);
        self.send(partition, Some(account), &[], Some(&value));
    }

    pub(crate) fn payments(&self) -> Payments {
        let accounts = Repository::<Account>::new(self.store.clone()).attempts(1_000);
        Payments { accounts, seen: Arc::default(), hangs: None, refuses: None }
    }

    pub(crate) fn runner(&self, consumer: Payments, source: KafkaTopic) -> ConsumerRunner<Payments> {
        ConsumerRunner::new(consumer, source, self.store.clone())
    }

    pub(crate) async fn balance(&self, account: &str) -> u64 {
        Repository::<Account>::new(self.store.clone()).load(account).await.unwrap().state.balance
    }

    pub(crate) fn shard(&self, partition: u32) -> Shard {
        Shard::partition(&*self.topic, partition)
    }

    /// The checkpoint of a partition, if there is one.
    pub(crate) async fn checkpoint(&self, partition: u32) -> Option<Position> {
        let (readers, shard) = (self.store.list_readers().await.unwrap(), self.shard(partition));
        let shards = readers.into_iter().find(|found| found.reader.name == Payments::NAME)?.shards;
        shards.into_iter().find(|found| found.shard == shard).map(|found| found.position)
    }

    /// Waits until everything of a partition up to this offset is handled.
    pub(crate) async fn reaches(&self, partition: u32, offset: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.checkpoint(partition).await.is_none_or(|position| position.get() < offset) {
            assert!(Instant::now() < deadline, "{:?} of {offset}", self.checkpoint(partition).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the consumer's group knows this offset of a partition.
    pub(crate) async fn group_knows(&self, partition: i32, offset: i64) {
        let group = format!("{}-{}", Payments::NAME, self.store.id().await.unwrap());
        let topic = self.topic.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut client = ClientConfig::new();
            let consumer: BaseConsumer =
                client.set("bootstrap.servers", brokers()).set("group.id", group).create().unwrap();
            let deadline = Instant::now() + PATIENCE;
            loop {
                let mut list = TopicPartitionList::new();
                list.add_partition(&topic, partition);
                let found = consumer.committed_offsets(list, PATIENCE).unwrap();
                let found = found.find_partition(&topic, partition).unwrap().offset().to_raw();
                if found == Some(offset) {
                    return;
                }
                assert!(Instant::now() < deadline, "the group is at {found:?}, not at {offset}");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        asked.await.unwrap();
    }
}

/// A consumer in a task; dropping it asks for its shutdown.
pub(crate) struct Consuming {
    pub(crate) task: JoinHandle<Result<(), EngineError>>,
    _shutdown: DropGuard,
    shutdown: CancellationToken,
}

impl Consuming {
    pub(crate) fn start(runner: ConsumerRunner<Payments>) -> Self {
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let task = tokio::spawn(async move { runner.run(token).await });
        Self { task, _shutdown: shutdown.clone().drop_guard(), shutdown }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.ends().await.unwrap();
    }

    pub(crate) async fn ends(self) -> Result<(), EngineError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the consumer does not end").unwrap()
    }
}
