//! By what one history is told from another one that has an event in common with it.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

/// An event by what makes it one of a kind: two logs that hold it at the same position share everything before it.
///
/// The id alone does not tell that. After an older copy of the log was restored, a client may send a lost event again:
/// it has the same id and may get the same position, behind other events. But the store writes it at another time.
///
/// Two cases remain in which another history goes unnoticed: the clock was set back, and the event was written again at
/// the very same microsecond; and the event was copied by an import, which keeps the times of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// Its id.
    pub event_id: Uuid,
    /// When the store wrote it, in whole microseconds.
    pub recorded_at: DateTime<Utc>,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} of {}", self.event_id, timestamp(self.recorded_at))
    }
}

/// The event with which the known history of a stream ends: what stands before it, is known with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ending {
    /// Its id.
    pub event_id: Uuid,
    /// When the store wrote it, as in a [`Witness`]. `None` where that is not known because the event was sent and not
    /// read: then the id alone tells. See [`Ending::sent`].
    pub recorded_at: Option<DateTime<Utc>>,
}

impl Ending {
    /// The end of a history that was read.
    pub fn read(witness: Witness) -> Self {
        Self { event_id: witness.event_id, recorded_at: Some(witness.recorded_at) }
    }

    /// The end of a history that was sent, whether it is written already or not: an event that was never sent but in one
    /// append, which expects an empty stream ([`Expected::NoStream`](crate::Expected::NoStream)) or the end of the history
    /// behind which it goes ([`Expected::Last`](crate::Expected::Last)).
    ///
    /// Such an event needs no time. Each time that the append is sent, the store looks at what it expects. A writer that
    /// has lost an answer sends it again under the same ids, perhaps to a server that took over and lacks the end of the
    /// log. There the append is written behind the same history, or refused: if other events stand in the place of that
    /// history's end, or stand behind it, the stream is not as expected; and an end that was itself only sent is in that
    /// log behind the history before it, or not at all, and so on down to an event that was read, or to the beginning. So
    /// wherever this id is, the same events stand before it.
    ///
    /// It does not hold for an event that was sent with an expectation of less, or with different ones: read it. Nor does it
    /// hold after an import, which keeps ids, of a history that lacks events of the log that was lost.
    pub fn sent(event_id: Uuid) -> Self {
        Self { event_id, recorded_at: None }
    }

    /// Whether a history that ends with `event` is this one.
    pub fn is(&self, event: &Witness) -> bool {
        self.event_id == event.event_id && self.recorded_at.is_none_or(|recorded_at| recorded_at == event.recorded_at)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.recorded_at {
            Some(recorded_at) => write!(f, "event {} of {}", self.event_id, timestamp(recorded_at)),
            None => write!(f, "event {}", self.event_id),
        }
    }
}

fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
