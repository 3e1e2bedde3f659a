//! The events of several places, in the order of the log.

use std::{iter::Peekable, vec};

use super::events::{KeyEvents, Place};
use crate::{
    event::RecordedEvent,
    stream::{Position, Version},
    witness::Witness,
    write::store::{EventStore, ReadError, is_last_page},
};

/// How many events are read at a time. The largest events end a page earlier.
pub(super) const PAGE: usize = 1_000;

/// The last event that was handed out of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    position: Position,
    pub(super) version: Version,
    witness: Witness,
}

impl End {
    fn of(event: &RecordedEvent) -> Self {
        Self { position: event.position, version: event.version, witness: Witness::of(event) }
    }

    fn is(&self, event: &RecordedEvent) -> bool {
        event.position == self.position && event.version == self.version && Witness::of(event) == self.witness
    }
}

/// Why there is no next event.
#[derive(Debug)]
pub(super) enum Interrupted {
    Read(ReadError),
    /// The event with which the known part ends is not in the log any more: an older copy was restored, or a server that lacks
    /// the end of the log took over.
    OtherHistory,
}

/// The events of one document after those that are known, in the order of the log, each once.
pub(super) struct Merged<'a> {
    log: &'a dyn EventStore,
    strands: Vec<Strand<'a>>,
    /// The end of the log before the first of several places was read. An event of a place that is read later may be newer than one
    /// that was missed in an earlier place.
    until: Option<Position>,
}

/// The events of one place.
struct Strand<'a> {
    place: &'a Place,
    end: Option<End>,
    page: Peekable<vec::IntoIter<RecordedEvent>>,
    is_last: bool,
}

impl<'a> Merged<'a> {
    /// The events in the places of `events` after the `ends`, one for each place; without ends, from the first event.
    pub(super) async fn open(
        log: &'a dyn EventStore,
        events: &'a KeyEvents,
        ends: &[Option<End>],
    ) -> Result<Self, ReadError> {
        let until = if events.0.len() > 1 { Some(log.head().await?) } else { None };
        let strand = |(number, place)| {
            let end = ends.get(number).copied().flatten();
            Strand { place, end, page: Vec::new().into_iter().peekable(), is_last: false }
        };
        Ok(Self { log, strands: events.0.iter().enumerate().map(strand).collect(), until })
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> Result<Option<RecordedEvent>, Interrupted> {
        let mut next: Option<Position> = None;
        for strand in &mut self.strands {
            let found = strand.peek(self.log).await?.filter(|found| self.until.is_none_or(|until| *found <= until));
            next = [next, found].into_iter().flatten().min();
        }
        let Some(next) = next else { return Ok(None) };
        // Of all places that hold it, since it counts once.
        Ok(self.strands.iter_mut().filter_map(|strand| strand.take(next)).last())
    }

    /// Where each place has been read to.
    pub(super) fn ends(&self) -> Vec<Option<End>> {
        self.strands.iter().map(|strand| strand.end).collect()
    }
}

impl Strand<'_> {
    /// The position of the next event.
    async fn peek(&mut self, log: &dyn EventStore) -> Result<Option<Position>, Interrupted> {
        if self.page.peek().is_none() && !self.is_last {
            self.read(log).await?;
        }
        Ok(self.page.peek().map(|event| event.position))
    }

    fn take(&mut self, position: Position) -> Option<RecordedEvent> {
        let event = self.page.next_if(|event| event.position == position)?;
        self.end = Some(End::of(&event));
        Some(event)
    }

    /// Each page begins with the last event that is known, because a server that lacks the end of the log may take over also
    /// between two pages.
    async fn read(&mut self, log: &dyn EventStore) -> Result<(), Interrupted> {
        let read = match self.place {
            Place::Stream(stream) => {
                let after = self.end.map_or(0, |end| end.version.get() - 1);
                log.read_stream(stream, Version::new(after), PAGE).await
            }
            Place::Matching(query) => {
                let after = self.end.map_or(0, |end| end.position.get() - 1);
                log.read_matching(query, Position::new(after), PAGE).await
            }
        };
        let page = read.map_err(Interrupted::Read)?;
        self.is_last = is_last_page(&page, PAGE);
        self.page = page.into_iter().peekable();
        if let Some(end) = self.end
            && self.page.next_if(|event| end.is(event)).is_none()
        {
            return Err(Interrupted::OtherHistory);
        }
        // Other tasks of the runtime get a turn between two long pages.
        if !self.is_last {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::testing::{account::AccountEvent, recorded};

    #[test]
    fn r3_an_event_is_known_by_its_place_and_by_itself() {
        let event = recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0);
        let end = End::of(&event);
        assert!(end.is(&event));
        let others = [
            RecordedEvent { position: event.position.next(), ..event.clone() },
            RecordedEvent { version: event.version.next(), ..event.clone() },
            RecordedEvent { id: Uuid::from_u128(7), ..event.clone() },
        ];
        assert!(!others.iter().any(|other| end.is(other)));
    }
}
