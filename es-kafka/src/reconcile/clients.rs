//! Questions to the brokers. All of them block.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
    metadata::MetadataPartition,
};
use tokio_util::sync::CancellationToken;

use super::error::ReconcileError;
use crate::{
    client::{self, Quiet, is_out_of_range, told},
    config::RelayConfig,
    progress::{self, Progress},
    topics::Topics,
};

/// How long a step may bring nothing before the brokers count as unreachable.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(100);

/// Makes clients, and asks them.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    config: ClientConfig,
    progress: String,
    relay: String,
    pub(super) patience: Duration,
    stop: CancellationToken,
}

/// Records of one partition that are to be read, by their offsets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) partition: i32,
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Clients {
    pub(super) fn new(config: &RelayConfig, patience: Duration, stop: CancellationToken) -> Self {
        let mut client = client::consumer(&config.brokers, &config.transactional_id(), &config.settings);
        client.set("enable.partition.eof", "true");
        let progress = Topics::new(&config.topic_prefix).progress();
        Self { config: client, progress, relay: config.name.clone(), patience, stop }
    }

    pub(super) fn consumer(&self) -> KafkaResult<BaseConsumer<Quiet>> {
        self.config.create_with_context(Quiet)
    }

    /// Ends the work when its caller is gone.
    pub(super) fn go_on(&self) -> Result<(), ReconcileError> {
        if self.stop.is_cancelled() { Err(ReconcileError::Stopped) } else { Ok(()) }
    }

    /// All partitions of the topics of events, and whether there is the topic of the progress.
    pub(super) fn topics(&self, topics: &Topics) -> Result<(BTreeMap<String, Vec<i32>>, bool), ReconcileError> {
        let consumer = self.consumer()?;
        let metadata = match consumer.fetch_metadata(None, PATIENCE) {
            Ok(metadata) => metadata,
            Err(error) => return Err(told(&consumer).unwrap_or(error).into()),
        };
        let of_events = metadata.topics().iter().filter(|topic| topics.category(topic.name()).is_some());
        let found = of_events
            .map(|topic| (topic.name().to_owned(), topic.partitions().iter().map(MetadataPartition::id).collect()));
        let has_progress = metadata.topics().iter().any(|topic| topic.name() == self.progress)
            || client::exists(&consumer, &self.progress, PATIENCE)?;
        Ok((found.collect(), has_progress))
    }

    /// What the relay has committed by now.
    pub(super) fn progress(&self) -> Result<Option<Progress>, ReconcileError> {
        Ok(progress::read_last(&self.config, &self.progress, &self.relay, self.patience)?)
    }

    /// The first offset, and the one after everything that is decided.
    pub(super) fn watermarks(
        consumer: &BaseConsumer<Quiet>,
        topic: &str,
        partition: i32,
    ) -> Result<(i64, i64), ReconcileError> {
        Ok(consumer.fetch_watermarks(topic, partition, PATIENCE)?)
    }

    /// The offset after the last record, decided or not.
    pub(super) fn end(&self, topic: &str, partition: i32) -> Result<i64, ReconcileError> {
        let mut config = self.config.clone();
        let consumer: BaseConsumer<Quiet> =
            config.set("isolation.level", "read_uncommitted").create_with_context(Quiet)?;
        Ok(consumer.fetch_watermarks(topic, partition, PATIENCE)?.1)
    }

    /// Shows `visit` the committed records of `stretches`, in the order of each partition, until it breaks.
    pub(super) fn scan(
        &self,
        topic: &str,
        stretches: &[Stretch],
        mut visit: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReconcileError> {
        let consumer = self.consumer()?;
        let (mut list, mut open) = (TopicPartitionList::new(), BTreeMap::new());
        for Stretch { partition, from, until } in stretches.iter().filter(|stretch| stretch.from < stretch.until) {
            list.add_partition_offset(topic, *partition, Offset::Offset(*from))?;
            open.insert(*partition, *until);
        }
        consumer.assign(&list)?;
        let (mut heard, mut ended) = (Instant::now(), BTreeSet::new());
        while ended.len() < open.len() {
            self.go_on()?;
            match consumer.poll(POLL) {
                Some(Ok(record)) => {
                    heard = Instant::now();
                    let until = open.get(&record.partition()).copied().unwrap_or_default();
                    if record.offset() + 1 >= until {
                        ended.insert(record.partition());
                    }
                    if record.offset() < until && visit(&record).is_break() {
                        return Ok(());
                    }
                }
                // One topic alone is assigned: the number says which partition.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    ended.insert(partition);
                }
                Some(Err(error)) => check(error)?,
                None if heard.elapsed() >= self.patience => return Err(late()),
                None => {}
            }
        }
        Ok(())
    }
}

/// Errors that a consumer does not mend itself.
pub(super) fn check(error: KafkaError) -> Result<(), ReconcileError> {
    if is_out_of_range(&error) || matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Err(error.into());
    }
    client::report(&error, "while comparing with the log");
    if !client::concerns_questions(&error) {
        return Ok(());
    }
    match ReconcileError::from(error) {
        refused @ ReconcileError::Refused { .. } => Err(refused),
        _ => Ok(()),
    }
}

/// The brokers do not answer.
pub(super) fn late() -> ReconcileError {
    KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut).into()
}
