//! What a difference between the log and Kafka means.

use es_core::{Position, RecordedEvent, backend::Witness};

use super::{
    compare::{At, Mismatch, Wanted},
    violation::Violation,
};

/// What was looked up to explain a difference.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// What the log holds at the position that the record claims, and where that belongs.
    pub(super) logged: Option<(RecordedEvent, Wanted)>,
    /// The records of the topic that have the position that was wanted.
    pub(super) elsewhere: Vec<At>,
}

impl Mismatch {
    /// The position at which the log is to be read for the [`Evidence`].
    pub(super) fn claimed(&self) -> Option<Position> {
        match self {
            Self::Instead { event, .. } => Some(event.position),
            Self::Plain(_) | Self::Absent { .. } => None,
        }
    }

    /// The event whose records are to be looked for.
    pub(super) fn wanted(&self) -> Option<&Wanted> {
        match self {
            Self::Absent { wanted } => Some(wanted),
            Self::Instead { wanted, .. } => wanted.as_ref(),
            Self::Plain(_) => None,
        }
    }

    /// What it means. `published` is how far the relay has come.
    pub(super) fn judge(self, evidence: Evidence, published: Position) -> Violation {
        let Evidence { logged, elsewhere } = evidence;
        let (wanted, at, event, last) = match self {
            Self::Plain(violation) => return violation,
            Self::Absent { wanted } => return absent(wanted, elsewhere),
            Self::Instead { wanted, at, event, last } => (wanted, at, event, last),
        };
        let position = event.position;
        let Some((logged, place)) = logged.filter(|(logged, _)| Witness::of(logged) == Witness::of(&event)) else {
            return at.foreign(format!("it claims position {position}, where the log has no such event"));
        };
        if (&place.topic, place.partition) != (&at.topic, at.partition) {
            return misplaced(place, at);
        }
        if logged.position <= last {
            let At { topic, partition, offset } = at;
            return Violation::Repeated { position, topic, partition, offset };
        }
        match wanted {
            Some(wanted) if wanted.position < position => {
                let same = |found: &At| (&found.topic, found.partition) == (&wanted.topic, wanted.partition);
                match elsewhere.iter().find(|found| same(found)).cloned() {
                    Some(At { topic, partition, offset }) => {
                        let (position, before) = (wanted.position, position);
                        Violation::OutOfOrder { position, before, topic, partition, offset }
                    }
                    None => absent(wanted, elsewhere),
                }
            }
            _ => at.foreign(format!("it claims position {position}, and the relay has published up to {published}")),
        }
    }
}

/// Its partition does not hold it: it is in another one, or missing.
fn absent(wanted: Wanted, elsewhere: Vec<At>) -> Violation {
    let same = |found: &At| (&found.topic, found.partition) == (&wanted.topic, wanted.partition);
    if let Some(found) = elsewhere.into_iter().find(|found| !same(found)) {
        return misplaced(wanted, found);
    }
    let Wanted { position, topic, partition } = wanted;
    Violation::Missing { position, topic, partition }
}

fn misplaced(wanted: Wanted, found: At) -> Violation {
    let Wanted { position, topic: expected_topic, partition: expected } = wanted;
    let At { topic, partition, offset } = found;
    Violation::Partition { position, expected_topic, expected, topic, partition, offset }
}
