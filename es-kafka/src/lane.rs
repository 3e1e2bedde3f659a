//! One partition as a reader sees it: positions that only grow.

use std::{collections::VecDeque, time::Duration};

use es_core::{Checkpoint, Position, RecordedEvent, SourceError, Witness};
use rdkafka::{
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{follower::unavailable, progress::Progress};

/// A place in the log that is known to be reached, with the event that stands there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    pub(crate) witness: Option<Witness>,
}

impl Mark {
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        Self { position: checkpoint.position, witness: checkpoint.witness }
    }

    pub(crate) fn checkpoint(self, cursor: String) -> Checkpoint {
        Checkpoint { position: self.position, witness: self.witness, cursor: Some(cursor) }
    }

    /// Two marks at one position must be the same event.
    pub(crate) fn agrees(self, position: Position, witness: Witness) -> Result<(), SourceError> {
        let differs = position == self.position && self.witness.is_some_and(|known| known != witness);
        if differs { Err(SourceError::OtherHistory { position }) } else { Ok(()) }
    }
}

impl From<&Progress> for Mark {
    fn from(progress: &Progress) -> Self {
        Self { position: progress.position, witness: Some(progress.witness()) }
    }
}

/// What was read of a partition and not yet handed on.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The offset of the next record that is wanted.
    pub(crate) next: i64,
    /// The last event that was read: what comes in this partition lies behind it.
    pub(crate) mark: Mark,
    pub(crate) buffer: VecDeque<(i64, RecordedEvent)>,
    pub(crate) bytes: usize,
    pub(crate) paused: bool,
}

impl Lane {
    pub(crate) fn new(next: i64, mark: Mark) -> Self {
        Self { next, mark, buffer: VecDeque::new(), bytes: 0, paused: false }
    }

    /// Takes in a record.
    pub(crate) fn take(&mut self, offset: i64, event: RecordedEvent) -> Result<(), SourceError> {
        let witness = Witness::of(&event);
        self.mark.agrees(event.position, witness)?;
        let known = event.position <= self.mark.position;
        if offset < self.next {
            // Reading starts one record early, to see that the topic is the one that was read before.
            return if known { Ok(()) } else { Err(SourceError::OtherHistory { position: self.mark.position }) };
        }
        self.next = offset + 1;
        if known {
            // Published twice, or folded before from the log itself: exactly-once is this comparison.
            return Ok(());
        }
        self.mark = Mark { position: event.position, witness: Some(witness) };
        self.bytes += event.data.payload.len();
        self.buffer.push_back((offset, event));
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<RecordedEvent> {
        let (_, event) = self.buffer.pop_front()?;
        self.bytes -= event.data.payload.len();
        Some(event)
    }

    /// Up to where nothing of this partition is missing: its last event, or everything that the
    /// relay has published, when all that it wrote to this partition is read.
    pub(crate) fn complete(&self, written: i64, published: Mark) -> Mark {
        if self.next >= written && published.position > self.mark.position { published } else { self.mark }
    }

    /// The offset behind what was handed on.
    pub(crate) fn cursor(&self) -> i64 {
        self.buffer.front().map_or(self.next, |(offset, _)| *offset)
    }
}

/// How long a question to the broker may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to start reading for everything from offset `next` on, checked against what the partition
/// holds. It is one record early, so that [`Lane::take`] can tell another history.
pub(crate) fn begin<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    next: i64,
    mark: Mark,
) -> Result<i64, SourceError> {
    let (low, high) = watermarks(consumer, topic, partition)?;
    if next < low {
        let place = format!("{topic}/{partition} offset {next}: the first one there is {low}");
        return Err(SourceError::Expired { place });
    }
    if next > high {
        // Shorter than what was read: deleted and created anew, or another cluster.
        return Err(SourceError::OtherHistory { position: mark.position });
    }
    Ok((next - 1).max(low))
}

/// A partition was asked for an offset that it did not hold, and now it does. librdkafka has stopped
/// reading that partition all the same: only a new consumer goes on.
pub(crate) fn was_out_of_range() -> SourceError {
    SourceError::Unavailable("a partition did not hold the offset that was asked for, and holds it now".into())
}

fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Result<(i64, i64), SourceError> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Ok(watermarks) => return Ok(watermarks),
            // Not every broker knows a new topic at once.
            Err(error) if is_unknown(&error) && std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(unavailable(error)),
        }
    }
}

fn is_unknown(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopic | Code::LeaderNotAvailable)
    )
}
