//! Follows the progress of a relay.

use std::time::{Duration, Instant};

use es_core::backend::SourceError;
use rdkafka::{
    ClientConfig, Message, Offset,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use uuid::Uuid;

use crate::{
    client::{self, Quiet, is_out_of_range, told, unavailable},
    config::KafkaSourceConfig,
    progress::{self, Progress, ProgressError},
    record,
    topics::Topics,
};

/// How often the topic is looked for before it exists.
const LOOK: Duration = Duration::from_millis(500);
/// How long a topic that exists may be unknown to a broker that has just started. Each question may go to another one.
const NEW: Duration = Duration::from_secs(5);
/// How long brokers may take to answer a question about the topic.
const ASKED: Duration = Duration::from_secs(5);
/// How long the progress may take to be looked up.
const LOOK_UP: Duration = Duration::from_secs(30);
/// Progress records read at once; compaction keeps the topic short, but it may lag.
const AT_ONCE: usize = 10_000;

/// Reads the progress topic on the thread of a consumer, which polls it.
pub(crate) struct Follower {
    consumer: BaseConsumer<Quiet>,
    topic: String,
    relay: String,
    /// Where the topic ended when it was first read. Under a relay that never rests the client does not tell of an end.
    following: Option<i64>,
    looked: Option<Instant>,
    /// Since when all brokers that were asked have not known the topic.
    unknown_since: Option<Instant>,
    newest: bool,
    /// Read before the end of the topic was reached: it may be an old one.
    held: Option<Progress>,
    /// How the progress is looked up beside this consumer.
    lookup: ClientConfig,
}

impl Follower {
    pub(crate) fn new(config: &KafkaSourceConfig, reader: &str) -> Result<Self, SourceError> {
        let lookup = client::of_leaders(&config.observer(reader));
        let mut consumer = lookup.clone();
        consumer.set("enable.partition.eof", "true");
        let consumer = consumer.create_with_context(Quiet).map_err(unavailable)?;
        let (topic, relay) = (Topics::new(&config.topic_prefix).progress(), config.relay.clone());
        Ok(Self {
            consumer,
            topic,
            relay,
            following: None,
            looked: None,
            unknown_since: None,
            newest: false,
            held: None,
            lookup,
        })
    }

    /// Whether the topic was read to its end: what came before that may have been an old progress,
    /// and now also that there was none means something. A topic that no broker has known for a while holds none.
    pub(crate) fn knows_newest(&self) -> bool {
        self.newest
    }

    /// The newest progress since the last call, without waiting; none before the topic was read to its end.
    pub(crate) fn newest(&mut self) -> Result<Option<Progress>, SourceError> {
        if self.following.is_none() {
            self.follow()?;
        }
        let Some(end) = self.following else { return Ok(None) };
        let mut newest = self.held.take();
        for _ in 0..AT_ONCE {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(record)) => {
                    self.newest |= record.offset() + 1 >= end;
                    let progress = Progress::of(&record, &self.relay)
                        .map_err(|reason| SourceError::Damaged { place: record::place(&record), reason })?;
                    newest = progress.or(newest);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.newest = true,
                // The topic was created again. librdkafka has stopped reading it: without an error the
                // reader would wait for ever.
                Some(Err(error)) if is_out_of_range(&error) => return Err(unavailable(error)),
                Some(Err(error)) => client::check_reading(error, "while following the relay").map_err(unavailable)?,
                None => break,
            }
        }
        if self.newest {
            return Ok(newest);
        }
        self.held = newest;
        Ok(None)
    }

    /// The progress that the relay has committed by now, once every transaction is decided that was open
    /// when it was asked: what it does not speak of, the relay has not written.
    pub(crate) fn look_up(&self) -> Result<Option<Progress>, SourceError> {
        progress::read_last(&self.lookup, &self.topic, &self.relay, LOOK_UP).map_err(|error| match error {
            ProgressError::Kafka(error) => unavailable(error),
            ProgressError::Undecided(open) => SourceError::Unavailable(open.into()),
            ProgressError::Damaged { offset, reason } => {
                SourceError::Damaged { place: record::place_of(&self.topic, 0, offset), reason }
            }
        })
    }

    /// What `error` is. Where events are missing or foreign since the topics were deleted and the relay fills them
    /// again, and not in the filling `read`, the next reader continues by its positions.
    pub(crate) fn explained(&self, error: SourceError, read: Option<Uuid>) -> SourceError {
        if !matches!(error, SourceError::Missing { .. } | SourceError::Foreign { .. } | SourceError::Expired { .. }) {
            return error;
        }
        match self.look_up() {
            Ok(progress) if progress.as_ref().map(|progress| progress.incarnation) != read => {
                SourceError::Unavailable(format!("the relay fills the topics again: {error}").into())
            }
            Err(unknown @ SourceError::Unavailable(_)) => unknown,
            Ok(_) | Err(_) => error,
        }
    }

    /// Starts at the beginning, once the topic exists: before its first relay runs it does not.
    fn follow(&mut self) -> Result<(), SourceError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), ASKED)
            .map_err(|error| unavailable(told(&self.consumer).unwrap_or(error)))?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        found.map_or(Ok(()), client::check_visible).map_err(unavailable)?;
        let exists = found.is_some_and(|topic| !topic.partitions().is_empty());
        let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        if found.is_some_and(|topic| topic.error() == Some(unknown)) {
            self.newest = self.unknown_since.get_or_insert_with(Instant::now).elapsed() >= NEW;
        } else {
            (self.unknown_since, self.newest) = (None, false);
        }
        if exists {
            let (_, end) = self.consumer.fetch_watermarks(&self.topic, 0, ASKED).map_err(unavailable)?;
            let list = progress::partition(&self.topic, 0, Offset::Beginning).map_err(unavailable)?;
            self.consumer.assign(&list).map_err(unavailable)?;
            self.following = Some(end);
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use rdkafka::{
        mocking::MockCluster,
        producer::{BaseProducer, BaseRecord, Producer},
    };

    use super::*;

    /// Seen to fail where one answer counts: the progress was taken for one that does not exist.
    #[test]
    fn r12_a_broker_that_does_not_know_the_topic_yet_is_asked_again() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("relay-progress", 1, 1).unwrap();
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        let id = Uuid::nil();
        let value = format!(
            r#"{{"incarnation":"{id}","position":7,"head":9,"event_id":"{id}","recorded_at":"2026-01-01T00:00:00Z","offsets":{{}},"positions":{{}},"partitions":{{}}}}"#
        );
        producer.send(BaseRecord::to("relay-progress").partition(0).key("relay").payload(&value)).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
        let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.topic_error("relay-progress", unknown).unwrap();

        let config = KafkaSourceConfig::new(cluster.bootstrap_servers(), "relay");
        let mut follower = Follower::new(&config, "reader").unwrap();
        let began = Instant::now();
        let mut asked = 0;
        while asked < 2 {
            assert!(follower.newest().unwrap().is_none() && !follower.knows_newest());
            asked += usize::from(std::mem::take(&mut follower.looked).is_some());
        }
        cluster.topic_error("relay-progress", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
        let progress = loop {
            follower.looked = None;
            if let Some(progress) = follower.newest().unwrap() {
                break progress;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it is never read");
        };
        assert!(follower.knows_newest() && progress.position.get() == 7, "{progress:?}");
    }

    #[test]
    fn a_topic_that_no_broker_knows_for_a_while_holds_no_progress() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.topic_error("relay-progress", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
        let config = KafkaSourceConfig::new(cluster.bootstrap_servers(), "relay");
        let mut follower = Follower::new(&config, "reader").unwrap();
        let began = Instant::now();
        while !follower.knows_newest() {
            assert!(follower.newest().unwrap().is_none() && began.elapsed() < Duration::from_mins(1));
            std::thread::sleep(LOOK);
        }
        assert!(began.elapsed() >= NEW);
    }
}
