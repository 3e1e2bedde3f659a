//! What relays and sources are told: where, under which name, and how much at once.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use es_core::backend::Subscription;
use rdkafka::ClientConfig;

use crate::{
    claim_check::ClaimCheck,
    client::{self, Settings},
    routes::{Route, Routes},
    topic_settings::TopicSettings,
    topics::{Topics, separated},
};

/// Where a relay publishes to, and under which name.
///
/// ```
/// use es_kafka::RelayConfig;
///
/// let config = RelayConfig { partitions: 6, ..RelayConfig::new("127.0.0.1:9092", "orders") };
/// assert_eq!(config.topic_prefix, "");
/// ```
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The relay's stable name. Of two relays of one name and prefix one publishes and the other stands by
    /// ([`Relay::run`](crate::Relay::run)); two names under one prefix would publish everything twice.
    pub name: String,
    /// What the names of all topics start with, and the transactional id too; it ends in `.` or `-`, or
    /// gets a dot ([`Topics`]).
    pub topic_prefix: String,
    /// The `ce_source` of the events: who writes them, as a URI reference.
    pub source: String,
    /// How many partitions a topic of events gets. Never change the number of a topic in use: its
    /// keys would move, and with them their order.
    pub partitions: i32,
    /// How many brokers hold each partition; -1 is the cluster's default.
    pub replication: i32,
    /// Whether missing topics are created.
    pub create_topics: bool,
    /// How topics of events are created, and what those that exist are compared with.
    pub topics: TopicSettings,
    /// Categories whose events go to another topic than `<prefix><category>-events`, or to none, and those whose topic has partitions
    /// or settings of its own.
    pub routes: Routes,
    /// How often a running relay looks whether its topics are still there, and as they were.
    pub check_topics_every: Duration,
    /// The most events of one transaction.
    pub batch_events: usize,
    /// The most payload of one transaction, in bytes; a single event may be larger.
    pub batch_bytes: usize,
    /// Where payloads go that are too large for the topics. `None`: all are in the topics. Readers must have it too
    /// ([`KafkaRelay::claim_check`](crate::KafkaRelay::claim_check) declares it for both).
    pub claim_check: Option<ClaimCheck>,
    /// Further properties of librdkafka, for example for TLS and SASL.
    pub settings: Settings,
}

impl RelayConfig {
    /// A relay `name` with three partitions a topic, the cluster's replication and no prefix.
    pub fn new(brokers: impl Into<String>, name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            brokers: brokers.into(),
            source: format!("/{name}"),
            name,
            topic_prefix: String::new(),
            partitions: 3,
            replication: -1,
            create_topics: true,
            topics: TopicSettings::default(),
            routes: Routes::default(),
            check_topics_every: Duration::from_mins(1),
            batch_events: 2_000,
            batch_bytes: 8 * 1024 * 1024,
            claim_check: None,
            settings: Settings::new(),
        }
    }

    /// The topics that it declares.
    pub(crate) fn names(&self) -> Topics {
        let names = Topics::new(&self.topic_prefix);
        let targets = self.routes.targets(names.prefix());
        names.with_targets(targets)
    }

    fn route(&self, topic: &str) -> Option<&Route> {
        self.routes.of(self.names().category(topic)?)
    }

    /// What is declared of a topic of events.
    pub(crate) fn settings_of(&self, topic: &str) -> &TopicSettings {
        self.route(topic).and_then(|route| route.settings.as_ref()).unwrap_or(&self.topics)
    }

    /// How many partitions are declared for a topic of events.
    pub(crate) fn partitions_of(&self, topic: &str) -> i32 {
        self.route(topic).and_then(|route| route.partitions).unwrap_or(self.partitions)
    }

    /// No topic has a slash in its name: so that of two relays with prefixes and names that run into each
    /// other to the same text, neither fences the other.
    pub(crate) fn transactional_id(&self) -> String {
        format!("{}/{}", Topics::new(&self.topic_prefix).progress(), self.name)
    }
}

/// Where a transaction stands, for tests that end a relay there.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The events are in the producer's queue.
    Sent,
    /// The events are in Kafka, uncommitted.
    BeforeProgress,
    /// The progress is in Kafka too, uncommitted.
    BeforeCommit,
    /// The transaction is committed, and the relay does not know it yet.
    Committed,
}

#[derive(Clone)]
pub(crate) struct StepHook(pub(crate) Arc<dyn Fn(Step) -> ControlFlow<()> + Send + Sync>);

/// How much the client of a merge reads ahead: until it has so many records or kilobytes, and no more than that with one answer.
const MERGING: [(&str, &str); 3] =
    [("queued.min.messages", "5000"), ("queued.max.messages.kbytes", "8192"), ("fetch.max.bytes", "4194304")];

/// How much a client beside a reader reads ahead.
const OBSERVED_KILOBYTES: &str = "1024";

/// Where a source reads, and how much it keeps in memory.
#[derive(Debug, Clone)]
pub struct KafkaSourceConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// What the names of all topics start with: that of the relay.
    pub topic_prefix: String,
    /// The name of the relay that fills the topics; its progress tells what is complete.
    pub relay: String,
    /// What the names of the consumer groups start with; it ends in `.` or `-`, or gets a dot, as that of the topics. The reader's name
    /// and the id of its store follow.
    pub group_prefix: String,
    /// The most events of one batch.
    pub batch_events: usize,
    /// A batch is closed when its events take this many bytes: in a merge with all that an event takes in memory, in a group their
    /// payloads.
    pub batch_bytes: usize,
    /// The most events of one partition that wait for their turn in a merge.
    pub buffer_events: usize,
    /// The most memory that events take which wait in a merge, in bytes, all partitions together: payloads, names, metadata and what
    /// the allocator adds.
    ///
    /// A reader in log order takes this (32 MiB by default), up to six batches of [`batch_bytes`](Self::batch_bytes) on their way to it,
    /// and what the client reads ahead: 5,000 records or 8 MiB, and one answer of 4 MiB, unless `settings` say otherwise
    /// (`queued.min.messages`, `queued.max.messages.kbytes`, `fetch.max.bytes`). That is 72 MiB in all, for each reader of a process; a test
    /// measures it. Events that are larger than their limit come one by one.
    pub buffer_bytes: usize,
    /// Where the payloads are that the relay has put into object storage. They count to all limits here as if they were in the
    /// topics. A reader without it stops at the first of them ([`ClaimError::Undeclared`](crate::ClaimError::Undeclared)).
    pub claim_check: Option<ClaimCheck>,
    /// How often at most a shard without news moves its checkpoint.
    pub advance_every: Duration,
    /// How long a shard may stand still although the relay has published more, before the clients are
    /// replaced by new ones.
    pub reopen_after: Duration,
    /// Further properties of librdkafka, for example for TLS and SASL.
    ///
    /// `group.protocol` `consumer` lets the members of a group use the protocol of Kafka 4 (KIP-848), where the brokers assign
    /// partitions. Then `session.timeout.ms`, `heartbeat.interval.ms` and `partition.assignment.strategy` must not be set: the brokers'
    /// `group.consumer.session.timeout.ms` and `group.consumer.heartbeat.interval.ms` count. The first is 45 s by default, so the
    /// partitions of a member that was killed are read again after that time, and not within 10 s (R18); to lower it, lower
    /// `group.consumer.min.session.timeout.ms` of the brokers too. The default is the classic protocol, since librdkafka before 2.15 has
    /// two faults in the new one: a member that did not poll for `max.poll.interval.ms` may get a fatal `INVALID_REQUEST` (librdkafka
    /// 5541; the reader is opened again), and members that come and go quickly may stall for minutes (node-rdkafka 1146).
    pub settings: Settings,
}

impl KafkaSourceConfig {
    /// Reads what the relay `relay` publishes without a prefix.
    pub fn new(brokers: impl Into<String>, relay: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic_prefix: String::new(),
            relay: relay.into(),
            group_prefix: String::new(),
            batch_events: 1_000,
            batch_bytes: 4 * 1024 * 1024,
            buffer_events: 5_000,
            buffer_bytes: 32 * 1024 * 1024,
            claim_check: None,
            advance_every: Duration::from_millis(20),
            reopen_after: Duration::from_secs(30),
            settings: Settings::new(),
        }
    }

    /// Its group is the store's own: a service of another one that has a reader of this name shares nothing with it.
    pub(crate) fn consumer(&self, subscription: &Subscription) -> ClientConfig {
        let Subscription { reader, store, .. } = subscription;
        self.client(&format!("{reader}-{store}"))
    }

    fn client(&self, name: &str) -> ClientConfig {
        client::consumer(&self.brokers, &format!("{}{name}", separated(self.group_prefix.as_str())), &self.settings)
    }

    /// The same as a member of the group, by the protocol that `settings` choose.
    pub(crate) fn member(&self, subscription: &Subscription) -> ClientConfig {
        let mut client = self.consumer(subscription);
        if self.settings.get("group.protocol") == Some("consumer") {
            client.set("group.protocol", "consumer");
            // The brokers decide, and the client refuses these. If the user has set one, it says so.
            for name in ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"] {
                if !self.settings.has(name) {
                    client.remove(name);
                }
            }
        }
        client
    }

    /// The consumer of a merge, which has a buffer of its own and need not read far ahead.
    ///
    /// The limit of librdkafka in bytes counts keys and values only. With headers and its own records, a short event takes
    /// several times as much, so there is a limit in records as well.
    pub(crate) fn merging(&self, subscription: &Subscription) -> ClientConfig {
        let mut client = self.consumer(subscription);
        for (name, value) in MERGING {
            if !self.settings.has(name) {
                client.set(name, value);
            }
        }
        client
    }

    /// A consumer that joins no group.
    pub(crate) fn observer(&self, name: &str) -> ClientConfig {
        let mut client = self.client(name);
        // It reads short records one after the other, or asks a question.
        client.set("queued.max.messages.kbytes", OBSERVED_KILOBYTES);
        client
    }
}
