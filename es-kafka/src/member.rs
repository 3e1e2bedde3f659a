//! A partition that this member of a group reads, and what its reader should be told of it.

use std::time::{Duration, Instant};

use es_core::{Batch, Checkpoint, Shard, SourceError};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};

use crate::{
    lane::{self, Lane, Mark},
    progress::Progress,
};

/// What is known of the relay at this moment.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) progress: Option<&'a Progress>,
    /// Whether this is all that the relay has said: only then can there be an end.
    pub(crate) newest: bool,
}

impl Known<'_> {
    /// Up to where the relay has written to a partition, if that can be told. A relay that has said
    /// nothing yet has written nothing.
    pub(crate) fn of(self, topic: &str, partition: i32) -> Written {
        let next = match self.progress {
            Some(progress) => Some(progress.offsets.next(topic, partition)),
            None => self.newest.then_some(0),
        };
        Written { next, published: self.progress.map(Mark::from).unwrap_or_default(), newest: self.newest }
    }
}

/// What the relay says of one partition.
#[derive(Clone, Copy)]
pub(crate) struct Written {
    next: Option<i64>,
    published: Mark,
    newest: bool,
}

/// Why a reader should hear of a partition; the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Events,
    End,
    Advance,
}

pub(crate) struct Member {
    pub(crate) lane: Lane,
    /// What the reader has been told last.
    told: Mark,
    pub(crate) told_at: Option<Instant>,
    at_end: bool,
}

impl Member {
    pub(crate) fn new(next: i64, mark: Mark) -> Self {
        Self { lane: Lane::new(next, mark), told: mark, told_at: None, at_end: false }
    }

    /// The partition as the checkpoint knows it, and the offset to read it from.
    pub(crate) fn start<C: ConsumerContext>(
        consumer: &BaseConsumer<C>,
        topic: &str,
        partition: i32,
        checkpoint: &Checkpoint,
    ) -> Result<(Self, i64), SourceError> {
        let next = match &checkpoint.cursor {
            Some(cursor) => cursor.parse().map_err(|reason: std::num::ParseIntError| SourceError::Damaged {
                place: format!("the checkpoint of shard {topic}/{partition}"),
                reason: reason.to_string(),
            })?,
            // Nothing was read from Kafka yet: begin at the beginning, and skip what is folded.
            None => 0,
        };
        let mark = Mark::of(checkpoint);
        let begin = lane::begin(consumer, topic, partition, next, mark)?;
        Ok((Self::new(next, mark), begin))
    }

    fn complete(&self, written: Written) -> Mark {
        written.next.map_or(self.lane.mark, |next| self.lane.complete(next, written.published))
    }

    fn ends(&self, written: Written) -> bool {
        written.newest && written.next.is_some_and(|next| self.lane.next >= next)
    }

    /// What the reader does not know yet: events, that there are no more, or just that none is missing.
    pub(crate) fn need(&self, written: Written, advance_every: Duration) -> Option<Need> {
        let due = self.told_at.is_none_or(|told_at| told_at.elapsed() >= advance_every);
        if !self.lane.buffer.is_empty() {
            Some(Need::Events)
        } else if self.ends(written) && !self.at_end {
            Some(Need::End)
        } else {
            (due && self.complete(written).position > self.told.position).then_some(Need::Advance)
        }
    }

    /// Everything that was read of the partition; the reader takes it for told.
    pub(crate) fn batch(&mut self, shard: Shard, written: Written) -> Batch {
        self.lane.bytes = 0;
        let events = self.lane.buffer.drain(..).map(|(_, event)| event).collect();
        self.told = self.complete(written);
        self.told_at = Some(Instant::now());
        self.at_end = self.ends(written);
        let checkpoint = self.told.checkpoint(self.lane.next.to_string());
        Batch { shard, events, checkpoint, at_end: self.at_end }
    }
}
