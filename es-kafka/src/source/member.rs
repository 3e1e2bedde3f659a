//! A partition that this member of a group reads, and what its reader should be told of it.

use std::time::{Duration, Instant};

use es_core::{
    Position,
    backend::{Batch, Checkpoint, Shard, SourceError},
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, ConsumerContext},
};
use uuid::Uuid;

use super::{
    begin::{Begin, begin},
    chain::Chain,
    group::Told,
    mark::{Mark, Written},
};
use crate::{offsets::Offsets, payloads::Payloads, progress::Progress};

/// What is known of the relay at this moment.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// Where there is none, the relay has said nothing yet: its topic was read to the end.
    pub(crate) progress: Option<&'a Progress>,
    /// Whether the reader knows all partitions of which the progress speaks. Before that, it is told neither
    /// of progress nor of an end.
    pub(crate) all: bool,
}

impl Known<'_> {
    /// What the relay has written to a partition.
    pub(crate) fn of(self, topic: &str, partition: i32) -> Written {
        Written::of(self.progress, true, topic, partition)
    }

    fn incarnation(self) -> Option<Uuid> {
        self.progress.map(|progress| progress.incarnation)
    }
}

/// Why a reader should hear of a partition; the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Events,
    End,
    Advance,
}

pub(crate) struct Member {
    pub(crate) chain: Chain,
    /// What the reader has been told last.
    told: Mark,
    told_at: Option<Instant>,
    /// Whether the reader knows that it has everything.
    said_end: bool,
}

impl Member {
    pub(crate) fn new(topic: &str, partition: i32, begin: Begin, mark: Mark) -> Self {
        Self { chain: Chain::new(topic, partition, begin, mark), told: mark, told_at: None, said_end: false }
    }

    pub(crate) fn with_payloads(self, payloads: Payloads) -> Self {
        Self { chain: self.chain.with_payloads(payloads), ..self }
    }

    /// The partition as the checkpoint knows it, and the offset to read it from.
    pub(crate) fn start<C: ConsumerContext>(
        clients: (&BaseConsumer<C>, &ClientConfig),
        (topic, partition): (&str, i32),
        checkpoint: &Checkpoint,
        known: Known<'_>,
    ) -> Result<(Self, i64), SourceError> {
        let cursor = match &checkpoint.cursor {
            Some(cursor) => {
                let (incarnation, next) = parse(cursor).map_err(|reason| SourceError::Damaged {
                    place: format!("the checkpoint of shard {topic}/{partition}"),
                    reason,
                })?;
                // An offset of another filling of the topic says nothing: the position does.
                (known.incarnation() == Some(incarnation)).then_some(next)
            }
            None => None,
        };
        let mark = Mark::of(checkpoint);
        let begin = begin(clients, (topic, partition), cursor, mark, known.of(topic, partition))?;
        Ok((Self::new(topic, partition, begin, mark), begin.offset))
    }

    /// Where the log ends, when everything is read that is in Kafka.
    fn log_end(&self, written: Written, known: Known<'_>) -> Option<Position> {
        let progress = known.progress.filter(|_| known.all && self.chain.is_complete(written))?;
        Some(progress.head)
    }

    /// What the reader does not know yet: events, that there are no more, or just that none is missing.
    pub(crate) fn need(&self, written: Written, known: Known<'_>, advance_every: Duration) -> Option<Need> {
        let due = self.told_at.is_none_or(|told_at| told_at.elapsed() >= advance_every);
        if self.chain.ready(written) > 0 {
            Some(Need::Events)
        } else if !self.said_end && self.log_end(written, known).is_some() {
            Some(Need::End)
        } else {
            let further = written.published.position > self.told.position;
            (due && further && known.all && self.chain.is_complete(written)).then_some(Need::Advance)
        }
    }

    /// Everything of the partition that may be handed on; the reader takes it for told.
    pub(crate) fn batch(&mut self, shard: Shard, written: Written, known: Known<'_>) -> Batch {
        let ready = self.chain.ready(written);
        let events: Vec<_> = std::iter::from_fn(|| self.chain.pop()).take(ready).collect();
        if let Some(last) = events.last() {
            self.told = Mark::event(last);
        }
        if known.all && self.chain.is_complete(written) {
            self.told = self.told.later(written.published);
        }
        self.told_at = Some(Instant::now());
        let end = self.log_end(written, known);
        self.said_end = end.is_some();
        let cursor = known.incarnation().map(|incarnation| format!("{incarnation}/{}", self.chain.cursor()));
        Batch { shard, events: events.into(), checkpoint: self.told.checkpoint(cursor), end }
    }
}

impl Told for Member {
    fn told_at(&self) -> Option<Instant> {
        self.told_at
    }
}

/// The next offset that a checkpoint of a partition stands for: perhaps an earlier one, never one that is ahead of it.
pub(crate) fn offsets_of(shard: &Shard, checkpoint: &Checkpoint) -> Offsets {
    let partition = shard.partition.and_then(|partition| i32::try_from(partition).ok());
    let next = checkpoint.cursor.as_deref().and_then(|cursor| parse(cursor).ok()).map(|(_, next)| next);
    partition.zip(next).map(|(partition, next)| Offsets::one(&shard.source, partition, next)).unwrap_or_default()
}

/// The cursor of a shard: a filling of the topics, and the next offset in it.
fn parse(cursor: &str) -> Result<(Uuid, i64), String> {
    let (incarnation, next) = cursor.split_once('/').ok_or("the cursor names no filling of the topics")?;
    let incarnation = incarnation.parse().map_err(|reason| format!("the cursor: {reason}"))?;
    Ok((incarnation, next.parse().map_err(|reason| format!("the cursor: {reason}"))?))
}
