//! How far a relay has come, in its own words: the record that makes exactly-once arithmetic.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use es_core::{
    EventStore, Position, ReadError,
    backend::{SourceError, Witness},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    client::{self, Quiet},
    offsets::{Offsets, PerPartition},
    record::place_of,
    undecided::Undecided,
};

/// Everything up to `position` is in Kafka.
///
/// A relay commits it in one transaction with the events that it speaks of. When the relay starts and the log ends
/// elsewhere than was told, it is committed without events, so that `head` is known before anything is published; and so
/// it is when the log turns out to have lost its end.
///
/// `offsets` is cumulative and comes from delivery reports, so the claim is exact: a reader that has read every
/// partition up to its offset has read everything up to `position`. (Watermarks would not do: the markers of one
/// transaction reach its partitions at different times.)
///
/// # Examples
/// ```
/// use es_kafka::Progress;
///
/// let text = r#"{
///     "incarnation": "01890a5d-ac96-774b-bcce-b302099a8001", "position": 3,
///     "event_id": "01890a5d-ac96-774b-bcce-b302099a8057", "recorded_at": "2026-01-31T12:00:00.000001Z", "head": 3,
///     "offsets": {"order-events": {"0": 4}}, "positions": {"order-events": {"0": 3}},
///     "partitions": {"order-events": 6}
/// }"#;
/// let progress: Progress = serde_json::from_str(text)?;
/// assert_eq!(progress.offsets.next("order-events", 0), 4);
/// assert_eq!(progress.offsets.next("order-events", 1), 0);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which filling of the topics this is: a new one each time that a relay begins at the log's first
    /// event. Offsets of another filling mean nothing in this one.
    pub incarnation: Uuid,
    /// The position of the last published event; 0 where the relay has not published any yet.
    pub position: Position,
    /// Its id; nil at position 0.
    pub event_id: Uuid,
    /// When the log wrote it: together they tell another history from this one ([`Witness`]).
    pub recorded_at: DateTime<Utc>,
    /// The end of the log when the relay last looked: beyond `position` while the relay lags. A read
    /// model that is built from Kafka serves when it has come this far.
    pub head: Position,
    /// The offset after the last event of every partition that was ever written to.
    pub offsets: Offsets,
    /// The position of that last event: what stands in front of its offset.
    pub positions: PerPartition<Position>,
    /// How many partitions each topic had when its first event was published. A stream's partition
    /// follows from it.
    pub partitions: BTreeMap<String, i32>,
    /// The topic of each category whose events do not go to the usual one; `None`: they are not published.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, Option<String>>,
}

impl Progress {
    /// That nothing is published yet.
    pub(crate) fn nothing(incarnation: Uuid) -> Self {
        Self {
            incarnation,
            position: Position::ZERO,
            head: Position::ZERO,
            event_id: Uuid::nil(),
            recorded_at: DateTime::UNIX_EPOCH,
            offsets: Offsets::default(),
            positions: PerPartition::default(),
            partitions: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }

    /// The last published event.
    pub fn witness(&self) -> Witness {
        Witness { event_id: self.event_id, recorded_at: self.recorded_at }
    }

    /// The position of the last event in a partition; 0 where there is none.
    pub fn last(&self, topic: &str, partition: i32) -> Position {
        self.positions.get(topic, partition).unwrap_or_default()
    }

    /// Checks that the log has not lost its end since the relay said `earlier`: what it told of then would not come.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`]: the next reader waits for the end that there is now.
    pub(crate) fn continues_from(&self, earlier: &Self) -> Result<(), SourceError> {
        if self.incarnation == earlier.incarnation && self.head < earlier.head {
            let reason = format!("the log ended at position {}, and ends at {} now", earlier.head, self.head);
            return Err(SourceError::Unavailable(reason.into()));
        }
        Ok(())
    }

    /// What `log` holds at the last published position.
    ///
    /// # Errors
    /// Those of the log.
    pub(crate) async fn found_in(&self, log: &dyn EventStore) -> Result<Option<Witness>, ReadError> {
        let before = Position::new(self.position.get().saturating_sub(1));
        Ok(log.read_log(before, 1).await?.first().map(Witness::of))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, an id and topic names")
    }

    /// The progress of `relay` that `record` holds; `None` when it belongs to another relay.
    pub(crate) fn of(record: &impl Message, relay: &str) -> Result<Option<Self>, String> {
        if record.key() != Some(relay.as_bytes()) {
            return Ok(None);
        }
        let value = record.payload().ok_or("the progress has no value")?;
        es_core::codec::decode(value).map(Some).map_err(|reason| format!("not a relay's progress: {reason}"))
    }
}

/// A progress, and when the relay wrote it.
pub(crate) type Written = (Progress, Option<DateTime<Utc>>);

/// Why the progress of a relay cannot be told.
#[derive(Debug)]
pub(crate) enum ProgressError {
    Kafka(KafkaError),
    Damaged { offset: i64, reason: String },
    Undecided(Undecided),
}

impl From<KafkaError> for ProgressError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// The last committed progress of `relay`. Call it after `init_transactions`, which has decided the
/// fate of the last transaction of that name.
pub(crate) fn read_last(
    consumer: &ClientConfig,
    topic: &str,
    relay: &str,
    patience: Duration,
) -> Result<Option<Progress>, ProgressError> {
    Ok(read_last_record(consumer, topic, relay, patience)?.map(|(progress, _)| progress))
}

/// As [`read_last`], with the time at which it was written.
pub(crate) fn read_last_record(
    consumer: &ClientConfig,
    topic: &str,
    relay: &str,
    patience: Duration,
) -> Result<Option<Written>, ProgressError> {
    let deadline = Instant::now() + patience;

    let mut config = client::of_leaders(consumer);
    let uncommitted: BaseConsumer<Quiet> =
        config.set("isolation.level", "read_uncommitted").create_with_context(Quiet)?;
    let (_, end) = uncommitted.fetch_watermarks(topic, 0, patience)?;
    drop(uncommitted);
    if end == 0 {
        return Ok(None);
    }

    let mut config = client::of_leaders(consumer);
    let consumer: BaseConsumer<Quiet> = config.set("enable.partition.eof", "true").create_with_context(Quiet)?;
    // Another relay's open transaction in this topic hides what was committed after it began: the
    // last record that shows would be an old one. Wait until everything that was there is decided.
    let end = loop {
        let (_, decided) = consumer.fetch_watermarks(topic, 0, patience)?;
        if decided >= end {
            break decided;
        }
        if Instant::now() >= deadline {
            return Err(ProgressError::Undecided(Undecided { place: place_of(topic, 0, decided) }));
        }
        std::thread::sleep(Duration::from_millis(20));
    };

    consumer.assign(&partition(topic, 0, Offset::Beginning)?)?;
    let mut last = None;
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let offset = record.offset();
                let progress =
                    Progress::of(&record, relay).map_err(|reason| ProgressError::Damaged { offset, reason })?;
                let written_at = record.timestamp().to_millis().and_then(DateTime::from_timestamp_millis);
                last = progress.map(|progress| (progress, written_at)).or(last);
                if offset + 1 >= end {
                    return Ok(last);
                }
            }
            // What is left are markers. While records go on coming, the client does not tell of an end.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(last),
            // The deadline bounds the patience.
            Some(Err(error)) => client::check_reading(error, "while reading the relay's progress")?,
            None => {}
        }
    }
    Err(KafkaError::OffsetFetch(RDKafkaErrorCode::OperationTimedOut).into())
}

/// A list of one partition.
pub(crate) fn partition(topic: &str, partition: i32, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, offset)?;
    Ok(list)
}
