//! Places in the log: what was reached, and what the relay says that it has written.

use es_core::{
    Position, RecordedEvent,
    backend::{Checkpoint, SourceError, Witness},
};

use crate::progress::Progress;

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

    pub(crate) fn event(event: &RecordedEvent) -> Self {
        Self { position: event.position, witness: Some(Witness::of(event)) }
    }

    pub(crate) fn checkpoint(self, cursor: Option<String>) -> Checkpoint {
        Checkpoint { position: self.position, witness: self.witness, cursor }
    }

    /// Two marks at one position must be the same event.
    pub(crate) fn agrees(self, position: Position, witness: Witness) -> Result<(), SourceError> {
        let differs = position == self.position && self.witness.is_some_and(|known| known != witness);
        if differs { Err(SourceError::OtherHistory { position }) } else { Ok(()) }
    }

    pub(crate) fn later(self, other: Self) -> Self {
        if other.position > self.position { other } else { self }
    }
}

impl From<&Progress> for Mark {
    fn from(progress: &Progress) -> Self {
        let witness = (progress.position > Position::ZERO).then(|| progress.witness());
        Self { position: progress.position, witness }
    }
}

/// What the relay says of one partition.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// The offset after its last event; `None` if that is not known.
    pub(crate) next: Option<i64>,
    /// The position of that event.
    pub(crate) last: Position,
    /// What is published in all partitions.
    pub(crate) published: Mark,
}

impl Written {
    /// A relay that has said nothing (`newest`: and that is all there is) has written nothing.
    pub(crate) fn of(progress: Option<&Progress>, newest: bool, topic: &str, partition: i32) -> Self {
        match progress {
            Some(progress) => Self {
                next: Some(progress.offsets.next(topic, partition)),
                last: progress.last(topic, partition),
                published: Mark::from(progress),
            },
            None => Self { next: newest.then_some(0), ..Self::default() },
        }
    }
}
