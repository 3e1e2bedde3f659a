//! One partition as a reader sees it: a chain of events that each name the one before them.
//!
//! The relay vouches for an event twice: the next event in the partition names it, and the progress
//! names the last one. Only then is it handed on. So what is missing, was put between, or comes from
//! another writer is found before anything is folded that should not be.

mod search;
mod vouch;
mod waiting;
mod withheld;

use std::{collections::VecDeque, time::Instant};

use es_core::{Position, RecordedEvent, backend::SourceError};
use rdkafka::Message;

pub(crate) use self::waiting::patience;
use super::{begin::Begin, mark::Mark};
use crate::{
    payloads::Payloads,
    record::{Heading, place_of},
    weight::weight,
};

/// The last record that was read.
#[derive(Debug, Clone, Copy)]
struct Link {
    offset: i64,
    position: Position,
    previous: Position,
}

/// What was read of a partition and not yet handed on.
#[derive(Debug)]
pub(crate) struct Chain {
    topic: String,
    partition: i32,
    begin: Begin,
    /// The offset of the next record that is wanted.
    next: i64,
    /// The last event for which the relay has vouched, or what was folded before.
    mark: Mark,
    buffer: VecDeque<(i64, RecordedEvent)>,
    /// What `buffer` takes in memory.
    bytes: usize,
    /// The last event of `buffer`, as long as the relay has not vouched for it.
    tip: Option<Mark>,
    seen: Option<Link>,
    /// What was found below `search_until` and is an error if it turns out to be new.
    doubt: Option<(Option<Position>, SourceError)>,
    uncovered_since: Option<Instant>,
    /// The next offset at the last call of [`passes`](Self::passes).
    passed: i64,
    pub(crate) paused: bool,
    payloads: Payloads,
    /// Whether the payload of the next event cannot be had: nothing more is taken in.
    withheld: bool,
}

impl Chain {
    pub(crate) fn new(topic: &str, partition: i32, begin: Begin, mark: Mark) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            begin,
            next: begin.offset,
            mark,
            buffer: VecDeque::new(),
            bytes: 0,
            tip: None,
            seen: None,
            doubt: None,
            uncovered_since: None,
            passed: begin.offset,
            paused: false,
            payloads: Payloads::default(),
            withheld: false,
        }
    }

    /// Where the payloads are that are not in its records.
    pub(crate) fn with_payloads(self, payloads: Payloads) -> Self {
        Self { payloads, ..self }
    }

    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    fn place(&self, offset: i64) -> String {
        place_of(&self.topic, self.partition, offset)
    }

    fn foreign(&self, offset: i64, reason: String) -> SourceError {
        SourceError::Foreign { place: self.place(offset), reason }
    }

    /// Takes in a record. It waits for the object storage where the payload of a new event is there.
    ///
    /// # Errors
    /// What is wrong. Where only the payload cannot be had, what comes before it may still be [handed on](Self::is_withheld).
    pub(crate) fn take(&mut self, record: &impl Message) -> Result<(), SourceError> {
        let offset = record.offset();
        if offset < self.next || self.withheld {
            return Ok(());
        }
        self.next = offset + 1;
        let heading = Heading::of(record);
        if self.is_searching() {
            if offset < self.begin.search_until {
                return self.search(record, heading);
            }
            self.begin.search_until = 0;
            // As in the search: it names what is known, so the relay did not write the event before it.
            let contradicts = |tip: Mark| heading.as_ref().is_ok_and(|heading| self.passes_over(tip, heading));
            if self.tip.is_some_and(contradicts) {
                self.reject_tip();
            }
            if self.tip.is_none() {
                self.seen = None;
            }
        }
        let heading = heading.map_err(|reason| SourceError::Damaged { place: self.place(offset), reason })?;
        self.follows(offset, heading)?;
        self.doubt = None;
        let event = self.accept(record, heading).map_err(|error| self.withhold(offset, error))?;
        self.keep(offset, event);
        Ok(())
    }

    /// Each record names the one before it; of the first one it is enough that what it names is known.
    fn follows(&mut self, offset: i64, heading: Heading) -> Result<(), SourceError> {
        let Some(seen) = self.seen else {
            let known = heading.position <= self.mark.position || heading.previous <= self.mark.position;
            return if known { Ok(()) } else { Err(self.gap(offset, heading)) };
        };
        if heading.previous == seen.position {
            return Ok(());
        }
        if let Some((_, error)) = self.doubt.take() {
            return Err(error);
        }
        let Heading { position, previous, .. } = heading;
        Err(if previous > seen.position {
            let reason =
                format!("position {position} follows position {previous}, and {} was read last", seen.position);
            SourceError::Missing { place: self.place(offset), reason }
        } else if previous == seen.previous {
            let reason = format!(
                "it claims position {}, and the record after it follows position {previous} directly",
                seen.position
            );
            self.foreign(seen.offset, reason)
        } else {
            let reason = format!(
                "it claims position {position} directly after {previous}, and position {} was read before it",
                seen.position
            );
            self.foreign(offset, reason)
        })
    }

    /// What comes before the first record is neither folded nor here.
    fn gap(&self, offset: i64, heading: Heading) -> SourceError {
        let (place, known) = (self.place(offset), self.mark.position);
        if self.begin.truncated {
            return SourceError::Expired { place };
        }
        let Heading { position, previous, .. } = heading;
        let reason = format!("position {position} follows position {previous}, and the checkpoint is {known}");
        SourceError::Missing { place, reason }
    }

    /// What comes next is deleted.
    pub(crate) fn expired(&self) -> SourceError {
        SourceError::Expired { place: self.place(self.next) }
    }

    /// The event of a record whose place is right, unless it is known already: exactly-once is this comparison.
    fn accept(&mut self, record: &impl Message, heading: Heading) -> Result<Option<RecordedEvent>, SourceError> {
        let Heading { position, previous, witness } = heading;
        self.mark.agrees(position, witness)?;
        let event = if position > self.mark.position { Some(self.payloads.decode(record)?) } else { None };
        self.seen = Some(Link { offset: record.offset(), position, previous });
        Ok(event)
    }

    fn keep(&mut self, offset: i64, event: Option<RecordedEvent>) {
        let Some(event) = event else { return };
        // The one before it is named by this one.
        if let Some(vouched) = self.tip.replace(Mark::event(&event)) {
            self.mark = vouched;
        }
        self.uncovered_since = None;
        self.bytes += weight(&event);
        self.buffer.push_back((offset, event));
    }
}

#[cfg(test)]
mod tests;
