//! Many partitions merged into the order of the log: pure arithmetic, no Kafka.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use es_core::{Batch, Categories, Checkpoint, Position, ReadError, RecordedEvent, Shard, SourceError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    lane::{Begin, Lane, Mark, Written},
    offsets::Offsets,
    progress::Progress,
    topics::Topics,
};

/// Merges partitions into position order.
///
/// The horizon is the position up to which nothing can be missing: no further than the relay's
/// progress, whose partitions are all read, and no further than each single partition is known to
/// be complete. What lies below it is delivered, in order; what lies beyond waits.
#[derive(Debug)]
pub(crate) struct Horizon {
    topics: Topics,
    categories: Categories,
    /// Where reading goes on in partitions that have no lane yet.
    cursor: Cursor,
    lanes: BTreeMap<String, BTreeMap<i32, Lane>>,
    progress: Option<Progress>,
    /// Whether `progress` is all that the relay has said: only then can there be an end.
    pub(crate) newest: bool,
    delivered: Mark,
    /// The checkpoint that the reader has.
    checkpoint: Checkpoint,
    /// Whether the reader knows that it has everything.
    said_end: bool,
}

/// The cursor of the merged shard: the next offsets, in one filling of the topics.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Cursor {
    incarnation: Option<Uuid>,
    offsets: Offsets,
}

/// A partition that must be read from now on, behind its cursor if there is one.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) cursor: Option<i64>,
    pub(crate) written: Written,
}

impl Horizon {
    /// The one shard of a merged source.
    pub(crate) fn shard() -> Shard {
        Shard("merged".into())
    }

    pub(crate) fn new(topics: Topics, categories: Categories, checkpoint: &Checkpoint) -> Result<Self, SourceError> {
        let cursor = match &checkpoint.cursor {
            Some(text) => es_core::codec::decode(text.as_bytes()).map_err(|reason| SourceError::Damaged {
                place: "the checkpoint of shard merged".into(),
                reason: reason.to_string(),
            })?,
            // Nothing was read from Kafka yet: what is folded is passed by its position.
            None => Cursor::default(),
        };
        Ok(Self {
            topics,
            categories,
            cursor,
            lanes: BTreeMap::new(),
            progress: None,
            newest: false,
            delivered: Mark::of(checkpoint),
            checkpoint: checkpoint.clone(),
            said_end: false,
        })
    }

    /// The filling of the topics that is read.
    pub(crate) fn incarnation(&self) -> Option<Uuid> {
        self.cursor.incarnation
    }

    pub(crate) fn delivered(&self) -> Mark {
        self.delivered
    }

    /// The partitions of which `progress` speaks and that have no lane yet. They must be assigned and
    /// [added](Self::add) before [`adopt`](Self::adopt) lets the horizon pass: below the progress that was
    /// adopted before, they hold nothing that was not delivered.
    ///
    /// # Errors
    /// When the topics were filled anew while they were read: a new reader goes on by position.
    pub(crate) fn missing(&mut self, progress: &Progress) -> Result<Vec<Missing>, SourceError> {
        if self.cursor.incarnation != Some(progress.incarnation) {
            if !self.lanes.is_empty() {
                return Err(SourceError::Unavailable("the relay fills the topics anew".into()));
            }
            // Offsets of another filling say nothing.
            self.cursor = Cursor { incarnation: Some(progress.incarnation), offsets: Offsets::default() };
        }
        let offsets = &self.cursor.offsets;
        let partitions: BTreeSet<_> =
            progress.offsets.iter().chain(offsets.iter()).map(|(topic, partition, _)| (topic, partition)).collect();
        let mut missing = Vec::new();
        for (topic, partition) in partitions {
            let is_read = self.lanes.get(topic).is_some_and(|lanes| lanes.contains_key(&partition));
            if is_read || !self.topics.holds(topic, &self.categories) {
                continue;
            }
            missing.push(Missing {
                topic: topic.to_owned(),
                partition,
                cursor: offsets.get(topic, partition),
                written: Written::of(Some(progress), true, topic, partition),
            });
        }
        Ok(missing)
    }

    /// Merges one more partition, which is read from `begin` on.
    pub(crate) fn add(&mut self, topic: &str, partition: i32, begin: Begin) {
        let lane = Lane::new(topic, partition, begin, self.delivered);
        self.lanes.entry(topic.to_owned()).or_default().insert(partition, lane);
    }

    /// Lets the horizon move up to `progress`.
    pub(crate) fn adopt(&mut self, progress: Progress) -> Result<(), SourceError> {
        self.delivered.agrees(progress.position, progress.witness())?;
        self.progress = Some(progress);
        Ok(())
    }

    pub(crate) fn lane(&mut self, topic: &str, partition: i32) -> Option<&mut Lane> {
        self.lanes.get_mut(topic)?.get_mut(&partition)
    }

    pub(crate) fn lanes(&mut self) -> impl Iterator<Item = (&str, i32, &mut Lane)> {
        self.lanes.iter_mut().flat_map(|(topic, lanes)| {
            lanes.iter_mut().map(move |(partition, lane)| (topic.as_str(), *partition, lane))
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.lanes.values().map(BTreeMap::len).sum()
    }

    /// Whether an event may be delivered at this moment.
    pub(crate) fn has_events(&self) -> bool {
        let horizon = self.horizon().position;
        let mut lanes = self.lanes.values().flat_map(BTreeMap::values);
        lanes.any(|lane| lane.front().is_some_and(|event| event.position <= horizon))
    }

    fn horizon(&self) -> Mark {
        let Some(progress) = &self.progress else { return self.delivered };
        let mut horizon = Mark::from(progress);
        for (topic, lanes) in &self.lanes {
            for (partition, lane) in lanes {
                let complete = lane.complete(Written::of(Some(progress), self.newest, topic, *partition));
                if complete.position < horizon.position {
                    horizon = complete;
                }
            }
        }
        // It never goes back, for example to a progress that is older than the checkpoint.
        if horizon.position > self.delivered.position { horizon } else { self.delivered }
    }

    /// Up to `limit` events below the horizon, if it has moved.
    pub(crate) fn advance(&mut self, limit: usize) -> Result<Option<Batch>, SourceError> {
        self.check()?;
        let horizon = self.horizon();
        if horizon.position <= self.delivered.position {
            return Ok(None);
        }
        let (events, reached) = self.below(horizon, limit);
        self.check_density(&events, reached)?;
        self.delivered = reached;
        let mut cursor = self.cursor.clone();
        for (topic, lanes) in &self.lanes {
            for (partition, lane) in lanes {
                cursor.offsets.set(topic, *partition, lane.cursor());
            }
        }
        self.cursor = cursor;
        let text = serde_json::to_string(&self.cursor).expect("topic names and numbers");
        self.checkpoint = reached.checkpoint(Some(text));
        let end = self.log_end();
        self.said_end = end.is_some();
        Ok(Some(Batch { shard: Self::shard(), events, checkpoint: self.checkpoint.clone(), end }))
    }

    /// Compares each partition with what the relay says that it has written.
    fn check(&mut self) -> Result<(), SourceError> {
        for (topic, lanes) in &mut self.lanes {
            for (partition, lane) in lanes {
                lane.check(Written::of(self.progress.as_ref(), self.newest, topic, *partition))?;
            }
        }
        Ok(())
    }

    /// What a reader must be told once when there is nothing to deliver, for example because its
    /// checkpoint is the end: it has everything.
    pub(crate) fn end(&mut self) -> Option<Batch> {
        if self.said_end {
            return None;
        }
        let end = Some(self.log_end()?);
        self.said_end = true;
        let (shard, checkpoint) = (Self::shard(), self.checkpoint.clone());
        Some(Batch { shard, events: Vec::new(), checkpoint, end })
    }

    /// Where the log ends, when everything is delivered that is in Kafka. A relay that has said nothing yet may have
    /// a whole log to publish.
    fn log_end(&self) -> Option<Position> {
        let progress = self.progress.as_ref().filter(|_| self.newest)?;
        let mut lanes = self.lanes.values().flat_map(BTreeMap::values);
        let at_end = progress.position <= self.delivered.position && lanes.all(Lane::is_empty);
        at_end.then_some(progress.head)
    }

    fn below(&mut self, horizon: Mark, limit: usize) -> (Vec<RecordedEvent>, Mark) {
        let mut lanes: Vec<&mut Lane> = self.lanes.values_mut().flat_map(BTreeMap::values_mut).collect();
        let front = |lane: &Lane| lane.front().map(|event| event.position);
        let mut heads: BinaryHeap<Reverse<(Position, usize)>> =
            lanes.iter().enumerate().filter_map(|(index, lane)| Some(Reverse((front(lane)?, index)))).collect();
        let mut events = Vec::new();
        while let Some(Reverse((position, index))) = heads.pop() {
            if position > horizon.position {
                break;
            }
            if events.len() == limit {
                // Cut between two events: everything up to the last one is delivered.
                let last: Option<&RecordedEvent> = events.last();
                let reached = last.map_or(self.delivered, Mark::event);
                return (events, reached);
            }
            events.extend(lanes[index].pop());
            heads.extend(front(lanes[index]).map(|next| Reverse((next, index))));
        }
        (events, horizon)
    }

    /// Whoever listens to everything sees every position: that turns any loss into an alarm (R3).
    fn check_density(&self, events: &[RecordedEvent], reached: Mark) -> Result<(), SourceError> {
        if self.categories != Categories::All {
            return Ok(());
        }
        let mut after = self.delivered.position;
        for event in events {
            if event.position != after.next() {
                return Err(ReadError::Gap { after, found: event.position }.into());
            }
            after = event.position;
        }
        if after == reached.position { Ok(()) } else { Err(ReadError::Gap { after, found: reached.position }.into()) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::collections::VecDeque;

    use es_core::{EventData, Metadata, StreamId, Version, Witness};
    use rdkafka::{Message, message::OwnedMessage};

    use super::*;
    use crate::{offsets::PerPartition, record};

    fn event(position: u64, category: &str) -> RecordedEvent {
        RecordedEvent {
            position: Position::new(position),
            stream: StreamId::new(category, "1").unwrap(),
            version: Version::new(1),
            id: Uuid::from_u128(u128::from(position)),
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            metadata: Metadata::default(),
            data: EventData { name: "happened".into(), schema_version: 1, payload: bytes::Bytes::from_static(b"{}") },
        }
    }

    fn witness(id: u128) -> Witness {
        Witness { event_id: Uuid::from_u128(id), recorded_at: chrono::DateTime::UNIX_EPOCH }
    }

    /// A log in Kafka: records per partition, and the progress after each transaction.
    #[derive(Default)]
    struct Log {
        partitions: BTreeMap<(String, i32), VecDeque<(i64, RecordedEvent)>>,
        progress: VecDeque<Progress>,
        offsets: Offsets,
        positions: PerPartition<Position>,
        last: u64,
    }

    /// Where reading begins behind a cursor, as the topics of a test are never truncated.
    fn begin(cursor: Option<i64>) -> Begin {
        let floor = cursor.unwrap_or(0);
        Begin { offset: (floor - 1).max(0), search_until: floor, truncated: false, floor }
    }

    impl Log {
        /// The records of a partition from `offset` on.
        fn records(&self, topic: &str, partition: i32, offset: i64) -> VecDeque<OwnedMessage> {
            let mut previous = Position::ZERO;
            let all = self.partitions[&(topic.to_owned(), partition)].iter().map(|(offset, event)| {
                let before = std::mem::replace(&mut previous, event.position);
                record::published(event, topic, partition, *offset, before)
            });
            all.filter(|record| record.offset() >= offset).collect()
        }

        fn transaction(&mut self, events: usize, random: &mut fastrand::Rng) {
            for _ in 0..events {
                self.last += 1;
                let category = ["order", "payment", "shipment"][random.usize(..3)];
                let (topic, partition) = (format!("{category}-events"), random.i32(0..3));
                // Offsets have gaps: markers, aborted records.
                let offset = self.offsets.next(&topic, partition) + random.i64(0..3);
                self.offsets.set(&topic, partition, offset + 1);
                self.positions.set(&topic, partition, Position::new(self.last));
                let event = event(self.last, category);
                self.partitions.entry((topic, partition)).or_default().push_back((offset, event));
            }
            let Witness { event_id, recorded_at } = witness(u128::from(self.last));
            self.progress.push_back(Progress {
                incarnation: Uuid::nil(),
                positions: self.positions.clone(),
                partitions: BTreeMap::new(),
                position: Position::new(self.last),
                head: Position::new(self.last + 2),
                event_id,
                recorded_at,
                offsets: self.offsets.clone(),
            });
        }
    }

    /// Reads `log` in a random interleaving of its partitions and its progress.
    fn read(
        log: &mut Log,
        horizon: &mut Horizon,
        random: &mut fastrand::Rng,
        stop_after: usize,
    ) -> (Vec<u64>, Checkpoint) {
        let mut seen = Vec::new();
        let mut unread: BTreeMap<(String, i32), VecDeque<OwnedMessage>> = BTreeMap::new();
        loop {
            if random.bool()
                && let Some(progress) = log.progress.pop_front()
            {
                for Missing { topic, partition, cursor, .. } in horizon.missing(&progress).unwrap() {
                    let begin = begin(cursor);
                    horizon.add(&topic, partition, begin);
                    let records = log.records(&topic, partition, begin.offset);
                    unread.insert((topic, partition), records);
                }
                horizon.adopt(progress).unwrap();
            }
            let keys: Vec<_> = unread.keys().cloned().collect();
            if !keys.is_empty() {
                let (topic, partition) = &keys[random.usize(..keys.len())];
                if let Some(record) = unread.get_mut(&(topic.clone(), *partition)).unwrap().pop_front() {
                    horizon.lane(topic, *partition).unwrap().take(&record).unwrap();
                }
            }
            horizon.newest = log.progress.is_empty();
            if let Some(batch) = horizon.advance(7).unwrap() {
                seen.extend(batch.events.iter().map(|event| event.position.get()));
                let at_end = log.progress.is_empty() && batch.checkpoint.position.get() == log.last;
                let checkpoint = batch.checkpoint;
                assert_eq!(at_end, batch.end.is_some() && log.progress.is_empty());
                if at_end || seen.len() >= stop_after {
                    return (seen, checkpoint);
                }
            }
        }
    }

    fn twenty_transactions(random: &mut fastrand::Rng) -> Log {
        let mut log = Log::default();
        for _ in 0..20 {
            let events = random.usize(1..12);
            log.transaction(events, random);
        }
        log
    }

    #[test]
    fn any_interleaving_of_partitions_and_progress_is_delivered_in_log_order() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut log = twenty_transactions(&mut random);
            let mut horizon = Horizon::new(Topics::new(""), Categories::All, &Checkpoint::default()).unwrap();
            let (seen, _) = read(&mut log, &mut horizon, &mut random, usize::MAX);
            assert_eq!(seen, (1..=log.last).collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn a_reader_goes_on_at_any_checkpoint_without_loss_or_repetition() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut log = twenty_transactions(&mut random);
            let only = Categories::Only(vec!["order", "shipment"]);
            let kept = log.progress.clone();
            let mut horizon = Horizon::new(Topics::new(""), only.clone(), &Checkpoint::default()).unwrap();
            let (mut seen, checkpoint) = read(&mut log, &mut horizon, &mut random, 30);
            // After compaction only the last progress is left.
            log.progress = kept.into_iter().skip(19).collect();
            let mut horizon = Horizon::new(Topics::new(""), only, &checkpoint).unwrap();
            if checkpoint.position.get() < log.last {
                let (more, _) = read(&mut log, &mut horizon, &mut random, usize::MAX);
                seen.extend(more);
            }
            let all = log.partitions.values().flatten().map(|(_, event)| event);
            let mut wanted: Vec<u64> =
                all.filter(|event| event.stream.category() != "payment").map(|event| event.position.get()).collect();
            wanted.sort_unstable();
            assert_eq!(seen, wanted, "seed {seed}");
        }
    }

    #[test]
    fn r3_a_hole_in_the_log_is_an_alarm_for_whoever_listens_to_everything() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut log = Log::default();
        log.transaction(50, &mut random);
        for records in log.partitions.values_mut() {
            records.retain(|(_, event)| event.position != Position::new(20));
        }
        let mut horizon = Horizon::new(Topics::new(""), Categories::All, &Checkpoint::default()).unwrap();
        let progress = log.progress.pop_front().unwrap();
        for Missing { topic, partition, .. } in horizon.missing(&progress).unwrap() {
            horizon.add(&topic, partition, begin(None));
        }
        horizon.adopt(progress).unwrap();
        for (topic, partition) in log.partitions.keys() {
            for record in log.records(topic, *partition, 0) {
                horizon.lane(topic, *partition).unwrap().take(&record).unwrap();
            }
        }
        let gap = horizon.advance(100).unwrap_err();
        assert!(matches!(gap, SourceError::Read(ReadError::Gap { .. })), "{gap:?}");
    }

    #[test]
    fn r12_the_end_is_said_once_and_only_when_the_newest_progress_is_known() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut log = Log::default();
        log.transaction(3, &mut random);
        let end = Checkpoint { position: Position::new(3), witness: Some(witness(3)), cursor: None };
        let mut horizon = Horizon::new(Topics::new(""), Categories::All, &end).unwrap();
        horizon.adopt(log.progress.pop_front().unwrap()).unwrap();
        assert!(horizon.end().is_none(), "an older progress would look just like this");
        horizon.newest = true;
        let batch = horizon.end().unwrap();
        assert!(batch.end == Some(Position::new(5)) && batch.events.is_empty() && batch.checkpoint == end, "{batch:?}");
        assert!(horizon.end().is_none());
        log.transaction(1, &mut random);
        horizon.said_end = false;
        horizon.adopt(log.progress.pop_front().unwrap()).unwrap();
        assert!(horizon.end().is_none(), "there is an event that was not delivered");
    }

    #[test]
    fn another_event_at_the_folded_position_is_another_history() {
        let folded = Checkpoint { position: Position::new(3), witness: Some(witness(99)), cursor: None };
        let mut random = fastrand::Rng::with_seed(1);
        let mut log = Log::default();
        log.transaction(3, &mut random);
        let mut horizon = Horizon::new(Topics::new(""), Categories::All, &folded).unwrap();
        let refused = horizon.adopt(log.progress.pop_front().unwrap());
        assert!(matches!(refused, Err(SourceError::OtherHistory { .. })), "{refused:?}");
        let mut lane = Lane::new("order-events", 0, begin(None), Mark::of(&folded));
        let refused = lane.take(&record::published(&event(3, "order"), "order-events", 0, 0, Position::new(2)));
        assert!(matches!(refused, Err(SourceError::OtherHistory { .. })), "{refused:?}");
    }
}
