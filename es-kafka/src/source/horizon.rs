//! Many partitions merged into the order of the log: pure arithmetic, no Kafka.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use es_core::{
    Position, ReadError, RecordedEvent,
    backend::{Batch, BatchEvents, Categories, Checkpoint, Shard, SourceError, check_contiguous},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    begin::Begin,
    chain::Chain,
    mark::{Mark, Written},
};
use crate::{
    offsets::Offsets,
    payloads::Payloads,
    progress::Progress,
    topics::{Topics, merged},
    weight::weight,
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
    /// Where reading continues in partitions that have no chain yet.
    cursor: Cursor,
    chains: BTreeMap<String, BTreeMap<i32, Chain>>,
    progress: Option<Progress>,
    /// Whether `progress` is all that the relay has said: only then can there be an end.
    pub(crate) newest: bool,
    delivered: Mark,
    /// The checkpoint that the reader has.
    checkpoint: Checkpoint,
    /// Whether the reader knows that it has everything.
    said_end: bool,
    pub(crate) payloads: Payloads,
}

/// The cursor of the merged shard: the next offsets, in one filling of the topics.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Cursor {
    incarnation: Option<Uuid>,
    offsets: Offsets,
}

/// The next offsets that a checkpoint of the merged shard stands for: perhaps earlier ones, none that is ahead of it.
pub(crate) fn offsets_of(_: &Shard, checkpoint: &Checkpoint) -> Offsets {
    let cursor = checkpoint.cursor.as_deref().and_then(|text| es_core::codec::decode::<Cursor>(text.as_bytes()).ok());
    cursor.map(|cursor| cursor.offsets).unwrap_or_default()
}

/// A partition that must be read from now on, after its cursor if there is one.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) cursor: Option<i64>,
    pub(crate) written: Written,
}

impl Horizon {
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
            chains: BTreeMap::new(),
            progress: None,
            newest: false,
            delivered: Mark::of(checkpoint),
            checkpoint: checkpoint.clone(),
            said_end: false,
            payloads: Payloads::default(),
        })
    }

    /// Learns from `progress` in which topics the events are.
    ///
    /// # Errors
    /// When they are in others than those that are read; and when the reader listens to events that are not published.
    pub(crate) fn learn(&mut self, progress: &Progress) -> Result<&Topics, SourceError> {
        if self.topics.targets() != &progress.targets {
            if self.progress.is_some() {
                return Err(SourceError::Unavailable("the relay has other routes now".into()));
            }
            self.topics = self.topics.clone().with_targets(progress.targets.clone());
        }
        self.topics.check(&self.categories)?;
        Ok(&self.topics)
    }

    /// The filling of the topics that is read.
    pub(crate) fn incarnation(&self) -> Option<Uuid> {
        self.cursor.incarnation
    }

    pub(crate) fn delivered(&self) -> Mark {
        self.delivered
    }

    /// The partitions of which `progress` speaks and that have no chain yet. They must be assigned and
    /// [added](Self::add) before [`adopt`](Self::adopt) lets the horizon pass: below the progress that was
    /// adopted before, they hold nothing that was not delivered.
    ///
    /// # Errors
    /// When the topics were filled again while they were read: a new reader continues by position.
    pub(crate) fn missing(&mut self, progress: &Progress) -> Result<Vec<Missing>, SourceError> {
        if self.cursor.incarnation != Some(progress.incarnation) {
            if !self.chains.is_empty() {
                return Err(SourceError::Unavailable("the relay fills the topics again".into()));
            }
            // Offsets of another filling say nothing.
            self.cursor = Cursor { incarnation: Some(progress.incarnation), offsets: Offsets::default() };
        }
        let offsets = &self.cursor.offsets;
        let partitions: BTreeSet<_> =
            progress.offsets.iter().chain(offsets.iter()).map(|(topic, partition, _)| (topic, partition)).collect();
        let mut missing = Vec::new();
        for (topic, partition) in partitions {
            let is_read = self.chains.get(topic).is_some_and(|chains| chains.contains_key(&partition));
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
        let chain = Chain::new(topic, partition, begin, self.delivered).with_payloads(self.payloads.clone());
        self.chains.entry(topic.to_owned()).or_default().insert(partition, chain);
    }

    /// Lets the horizon move up to `progress`.
    pub(crate) fn adopt(&mut self, progress: Progress) -> Result<(), SourceError> {
        self.delivered.agrees(progress.position, progress.witness())?;
        if let Some(known) = &self.progress {
            progress.continues_from(known)?;
        }
        self.progress = Some(progress);
        Ok(())
    }

    pub(crate) fn chain(&mut self, topic: &str, partition: i32) -> Option<&mut Chain> {
        self.chains.get_mut(topic)?.get_mut(&partition)
    }

    pub(crate) fn chains(&mut self) -> impl Iterator<Item = (&str, i32, &mut Chain)> {
        self.chains.iter_mut().flat_map(|(topic, chains)| {
            chains.iter_mut().map(move |(partition, chain)| (topic.as_str(), *partition, chain))
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.chains.values().map(BTreeMap::len).sum()
    }

    /// Whether an event may be delivered at this moment.
    pub(crate) fn has_events(&self) -> bool {
        let horizon = self.horizon().position;
        let mut chains = self.chains.values().flat_map(BTreeMap::values);
        chains.any(|chain| chain.front().is_some_and(|event| event.position <= horizon))
    }

    fn horizon(&self) -> Mark {
        let Some(progress) = &self.progress else { return self.delivered };
        let mut horizon = Mark::from(progress);
        for (topic, chains) in &self.chains {
            for (partition, chain) in chains {
                let complete = chain.complete(Written::of(Some(progress), self.newest, topic, *partition));
                if complete.position < horizon.position {
                    horizon = complete;
                }
            }
        }
        // It never goes back, for example to a progress that is older than the checkpoint.
        if horizon.position > self.delivered.position { horizon } else { self.delivered }
    }

    /// Up to `limit` events below the horizon, or as many as take `most_bytes` of memory, if it has moved.
    pub(crate) fn advance(&mut self, limit: usize, most_bytes: usize) -> Result<Option<Batch>, SourceError> {
        self.check()?;
        let horizon = self.horizon();
        if horizon.position <= self.delivered.position {
            return Ok(None);
        }
        let (events, reached) = self.below(horizon, limit, most_bytes);
        self.check_density(&events, reached)?;
        self.delivered = reached;
        let mut cursor = self.cursor.clone();
        for (topic, chains) in &self.chains {
            for (partition, chain) in chains {
                cursor.offsets.set(topic, *partition, chain.cursor());
            }
        }
        self.cursor = cursor;
        let text = serde_json::to_string(&self.cursor).expect("topic names and numbers");
        self.checkpoint = reached.checkpoint(Some(text));
        let end = self.log_end();
        self.said_end = end.is_some();
        Ok(Some(Batch { shard: merged(), events: events.into(), checkpoint: self.checkpoint.clone(), end }))
    }

    /// Compares each partition with what the relay says that it has written.
    fn check(&mut self) -> Result<(), SourceError> {
        for (topic, chains) in &mut self.chains {
            for (partition, chain) in chains {
                chain.check(Written::of(self.progress.as_ref(), self.newest, topic, *partition))?;
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
        let (shard, checkpoint) = (merged(), self.checkpoint.clone());
        Some(Batch { shard, events: BatchEvents::default(), checkpoint, end })
    }

    /// Where the log ends, when everything is delivered that is in Kafka. A relay that has said nothing yet may have
    /// a whole log to publish.
    fn log_end(&self) -> Option<Position> {
        let progress = self.progress.as_ref().filter(|_| self.newest)?;
        let mut chains = self.chains.values().flat_map(BTreeMap::values);
        let at_end = progress.position <= self.delivered.position && chains.all(Chain::is_empty);
        at_end.then_some(progress.head)
    }

    fn below(&mut self, horizon: Mark, limit: usize, most_bytes: usize) -> (Vec<RecordedEvent>, Mark) {
        let mut chains: Vec<&mut Chain> = self.chains.values_mut().flat_map(BTreeMap::values_mut).collect();
        let front = |chain: &Chain| chain.front().map(|event| event.position);
        let mut heads: BinaryHeap<Reverse<(Position, usize)>> =
            chains.iter().enumerate().filter_map(|(index, chain)| Some(Reverse((front(chain)?, index)))).collect();
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(Reverse((position, index))) = heads.pop() {
            if position > horizon.position {
                break;
            }
            if events.len() == limit || bytes >= most_bytes {
                // Cut between two events: everything up to the last one is delivered.
                let last: Option<&RecordedEvent> = events.last();
                let reached = last.map_or(self.delivered, Mark::event);
                return (events, reached);
            }
            let event = chains[index].pop();
            bytes += event.as_ref().map_or(0, weight);
            events.extend(event);
            heads.extend(front(chains[index]).map(|next| Reverse((next, index))));
        }
        (events, horizon)
    }

    /// A reader of all categories sees every position: that turns any loss into an alarm (R3).
    fn check_density(&self, events: &[RecordedEvent], reached: Mark) -> Result<(), SourceError> {
        if self.categories != Categories::All {
            return Ok(());
        }
        let after = check_contiguous(self.delivered.position, events)?;
        if after == reached.position { Ok(()) } else { Err(ReadError::Gap { after, found: reached.position }.into()) }
    }
}

#[cfg(test)]
mod tests;
