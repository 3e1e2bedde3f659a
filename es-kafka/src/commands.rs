//! Commands to aggregates of other services, and what the owner of an aggregate does with them.

mod address;
mod answer;
mod create;
mod envelope;
mod error;
mod remote;
mod replies;
mod topic;

use std::{collections::HashSet, fmt, marker::PhantomData, sync::Arc, time::Duration};

use es_core::{Aggregate, backend::SourceError};
use rdkafka::{ClientConfig, producer::FutureProducer};
use serde::Serialize;
use tokio::sync::Mutex;

use self::{create::Place, replies::Replies};
pub use self::{error::KafkaCommandError, remote::RemoteCommands, topic::KafkaCommandTopic};
use crate::{
    client::{self, Quiet, Settings, unavailable},
    topics::separated,
};

/// Sends commands to aggregates of other services, and waits for the answers.
///
/// It is made once in a process, and gives a [`RemoteCommands`] for each kind of aggregate. A saga that holds it as
/// `Arc<dyn Commands<A>>` does not know that the aggregate is elsewhere.
///
/// ```
/// use std::{sync::Arc, time::Duration};
///
/// use es_core::Commands;
/// # use es_core::testing::account::Account;
/// use es_kafka::KafkaCommands;
///
/// // In the service `orders`, for the accounts of the service `bank`:
/// let commands = KafkaCommands::new("127.0.0.1:9092", "orders").topic_prefix("shop-").time_limit(Duration::from_secs(5));
/// let accounts: Arc<dyn Commands<Account>> = Arc::new(commands.to::<Account>("bank"));
/// ```
///
/// # Topics
/// A command goes to `<prefix><owner>-commands`, with the name of the aggregate's stream as its key: those of one process to one aggregate
/// come in the order in which they were sent. The answer comes to `<prefix><service>-replies`, which is created with the first command if
/// it is missing ([`create_topics`](Self::create_topics)). Each process reads all of that topic, from its end at the first command on, and
/// takes what it waits for.
///
/// # Delivery
/// The owner executes a command once, however often it is sent under the same key (R6), and answers each sending. If no answer comes in
/// time, it is not known whether the command was executed, and the error is transient: sent again, it gets its first outcome. A command
/// whose deadline has passed is not executed any more; so a clock that goes wrong makes commands fail, or lets them be executed later, and
/// never twice.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
#[derive(Clone)]
pub struct KafkaCommands {
    place: Place,
    service: String,
    time_limit: Duration,
    /// What is open, in all clones.
    open: Arc<Mutex<Option<Arc<Open>>>>,
}

/// The clients of a process that sends commands.
struct Open {
    producer: FutureProducer<Quiet>,
    replies: Replies,
    /// The topics that are known to be there.
    known: Mutex<HashSet<String>>,
}

impl fmt::Debug for KafkaCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaCommands")
            .field("service", &self.service)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// For how long the brokers keep answers: a caller waits for seconds.
const REPLIES_KEPT: Duration = Duration::from_hours(24);

impl KafkaCommands {
    /// Commands of `service` through the brokers at `host:port`, separated by commas. They need not be there yet.
    pub fn new(brokers: impl Into<String>, service: impl Into<String>) -> Self {
        let (place, service) = (Place::new(brokers.into()), service.into());
        Self { place, service, time_limit: Duration::from_secs(20), open: Arc::default() }
    }

    fn changed(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        // Clones that were made before stay as they are.
        self.open = Arc::default();
        self
    }

    /// What the names of topics start with (nothing, unless set otherwise). It ends in `.` or `-`, or gets a dot.
    pub fn topic_prefix(self, prefix: impl Into<String>) -> Self {
        let prefix = separated(prefix);
        self.changed(|it| it.place.prefix = prefix)
    }

    /// Further properties of librdkafka, for example for TLS and SASL.
    pub fn settings(self, settings: Settings) -> Self {
        self.changed(|it| it.place.settings = settings)
    }

    /// Until when a command may be executed, from the moment at which it is sent (20 s by default). For the answer, the caller waits 5 s
    /// longer. Both together should take less than [`Retry::time_limit`](es_core::Retry::time_limit), or the saga gives up first. It is a day
    /// at most.
    pub fn time_limit(self, limit: Duration) -> Self {
        self.changed(|it| it.time_limit = limit.min(Duration::from_hours(24)))
    }

    /// Whether the topic of the answers is created if it is missing (it is by default), with one partition.
    pub fn create_topics(self, creates_topics: bool) -> Self {
        self.changed(|it| it.place.creates_topics = creates_topics)
    }

    /// How many brokers hold each partition of a topic that is created; -1, the default, is that of the cluster.
    pub fn replication(self, brokers: i32) -> Self {
        self.changed(|it| it.place.replication = brokers)
    }

    /// Sends commands to the aggregates of one kind, which `service` owns. They are written with serde, as JSON.
    pub fn to<A: Aggregate<Command: Serialize>>(&self, service: &str) -> RemoteCommands<A> {
        let topic = self.place.commands(service);
        RemoteCommands { commands: self.clone(), topic, kind: PhantomData }
    }

    /// The clients, which are made with the first command.
    async fn opened(&self) -> Result<Arc<Open>, SourceError> {
        let mut open = self.open.lock().await;
        if let Some(open) = &*open {
            return Ok(open.clone());
        }
        let topic = self.place.replies(&self.service);
        self.place.ensure(&topic, 1, REPLIES_KEPT).await?;
        let replies = Replies::open(&self.place, &topic).await?;
        let producer = producing(&self.place, self.time_limit).create_with_context(Quiet).map_err(unavailable)?;
        let opened = Arc::new(Open { producer, replies, known: Mutex::default() });
        *open = Some(opened.clone());
        Ok(opened)
    }

    /// Uses these clients for no further command. Those who wait for answers go on waiting.
    async fn close(&self, opened: &Arc<Open>) {
        let mut open = self.open.lock().await;
        open.take_if(|open| Arc::ptr_eq(open, opened));
    }
}

/// A producer whose records are in Kafka once they are delivered, and that sends each at once.
fn producing(place: &Place, time_limit: Duration) -> ClientConfig {
    let timeout = time_limit.as_millis().clamp(1_000, 60_000).to_string();
    let tuning = [
        ("linger.ms", "0"),
        ("partitioner", "murmur2_random"),
        ("queue.buffering.max.kbytes", "65536"),
        ("message.timeout.ms", timeout.as_str()),
        ("topic.metadata.refresh.interval.ms", "5000"),
    ];
    let invariants = [("enable.idempotence", "true"), ("acks", "all")];
    client::layered(&place.brokers, &tuning, &place.settings, &invariants)
}
