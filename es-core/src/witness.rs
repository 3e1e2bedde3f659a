//! What distinguishes one history from another one that shares events with it.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

/// The identity of an event. Two logs that hold it at the same position share all events before it.
///
/// The id alone does not prove that. After an older copy of the log was restored, a client may send a lost event again: it has
/// the same id and may get the same position, after other events. But the store writes it at another time.
///
/// Two cases remain in which another history is not noticed: the clock was set back, and the event was written again at the same
/// microsecond; and an import copied the event, because imports keep the times of their source.
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

/// The last event of the known history of a stream. All events before it are known too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ending {
    /// Its id.
    pub event_id: Uuid,
    /// When the store wrote it, as in a [`Witness`]. `None` if that is not known because the event was sent and not read: then the
    /// id alone is enough, see [`Ending::sent`].
    pub recorded_at: Option<DateTime<Utc>>,
}

impl Ending {
    /// The end of a history that was read.
    pub fn read(witness: Witness) -> Self {
        Self { event_id: witness.event_id, recorded_at: Some(witness.recorded_at) }
    }

    /// The end of a history that was sent, and is perhaps not written yet. The event must have been sent in one append only, and
    /// the append must expect an empty stream ([`Expected::NoStream`](crate::Expected::NoStream)) or the end of the history
    /// before it ([`Expected::Last`](crate::Expected::Last)).
    ///
    /// Such an event needs no time: wherever its id is, the same events are before it. The reason: each time the append is sent,
    /// the store checks what it expects. A writer that has lost an answer sends the append again under the same ids, perhaps to
    /// a server that took over and lacks the end of the log. There the append is written after the same history, or refused: if
    /// the stream has other events in place of the expected end or after it, the stream is not as expected. If the expected end
    /// was itself only sent, the same argument holds for it: in that log it is after its own history, or missing. And so on, back
    /// to an event that was read, or to the beginning.
    ///
    /// This does not hold for an event that was sent with a weaker expectation, or with different ones: read such an event. It
    /// also does not hold after an import, which keeps ids, if the imported history lacks events of the lost log.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_ends_with_an_event_of_the_same_id_and_time() {
        let at = |micros| DateTime::from_timestamp_micros(micros).expect("a time");
        let witness = Witness { event_id: Uuid::from_u128(7), recorded_at: at(1_500_000) };
        let other_time = Witness { recorded_at: at(1_500_001), ..witness };
        let other_id = Witness { event_id: Uuid::from_u128(8), ..witness };
        let (read, sent) = (Ending::read(witness), Ending::sent(witness.event_id));
        assert_eq!([witness, other_time, other_id].map(|event| read.is(&event)), [true, false, false]);
        assert_eq!([witness, other_time, other_id].map(|event| sent.is(&event)), [true, true, false]);
        let text = "event 00000000-0000-0000-0000-000000000007 of 1970-01-01T00:00:01.500000Z";
        assert_eq!((witness.to_string(), read.to_string()), (text.to_owned(), text.to_owned()));
        assert_eq!(sent.to_string(), "event 00000000-0000-0000-0000-000000000007");
    }
}
