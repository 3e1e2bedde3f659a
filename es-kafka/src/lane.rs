//! One partition as a reader sees it: events that each name the one before them.
//!
//! The relay vouches for an event twice: the next event in the partition names it, and the progress
//! names the last one. Only then is it handed on. So what is missing, was put between, or comes from
//! another writer is found before anything is folded that should not be.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use es_core::{Checkpoint, Position, RecordedEvent, SourceError, Witness};
use rdkafka::Message;

use crate::{
    progress::Progress,
    record::{self, Heading, place_of},
};

/// How long an event of which no progress speaks yet may wait for one before the progress is looked up.
const UNCOVERED: Duration = Duration::from_secs(2);

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
    /// The offset behind its last event; `None` where that cannot be told.
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

/// Where a partition is read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Begin {
    /// The first offset.
    pub(crate) offset: i64,
    /// Below this offset lies what is known, and with it records that need not be readable: they are
    /// passed until the first event that is new.
    pub(crate) search_until: i64,
    /// Whether the records before `offset` are deleted.
    pub(crate) truncated: bool,
    /// What lies below this offset need not be read again: the checkpoint's cursor.
    pub(crate) floor: i64,
}

/// The last record that was read.
#[derive(Debug, Clone, Copy)]
struct Link {
    offset: i64,
    position: Position,
    previous: Position,
}

/// What was read of a partition and not yet handed on.
#[derive(Debug)]
pub(crate) struct Lane {
    topic: String,
    partition: i32,
    begin: Begin,
    /// The offset of the next record that is wanted.
    next: i64,
    /// The last event for which the relay has vouched, or what was folded before.
    mark: Mark,
    buffer: VecDeque<(i64, RecordedEvent)>,
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
}

impl Lane {
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
        }
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

    /// Takes in a record.
    pub(crate) fn take(&mut self, record: &impl Message) -> Result<(), SourceError> {
        let offset = record.offset();
        if offset < self.next {
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
        let event = self.accept(record, heading)?;
        self.keep(offset, event);
        Ok(())
    }

    fn is_searching(&self) -> bool {
        self.begin.search_until > 0
    }

    /// Whether a record names an event that is known as the one before it, and not `tip`.
    fn passes_over(&self, tip: Mark, heading: &Heading) -> bool {
        tip.position != heading.previous && heading.previous <= self.mark.position
    }

    /// Whether it has read more of what is known since the last call. Nothing is handed on meanwhile, which
    /// may take long, and yet the partition does not stand still.
    pub(crate) fn passes(&mut self) -> bool {
        let before = std::mem::replace(&mut self.passed, self.next);
        self.is_searching() && self.next > before
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
                "it claims position {}, and the record behind it follows position {previous} directly",
                seen.position
            );
            self.foreign(seen.offset, reason)
        } else {
            let reason = format!(
                "it claims position {position} directly behind {previous}, and position {} was read before it",
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

    /// Among what is known: looks for the first event that is new. A record that cannot be read, or does
    /// not fit, is no matter as long as one comes behind it whose predecessor is known.
    fn search(&mut self, record: &impl Message, heading: Result<Heading, String>) -> Result<(), SourceError> {
        let offset = record.offset();
        let heading = match heading {
            Ok(heading) => heading,
            Err(reason) => {
                let place = self.place(offset);
                self.doubt.get_or_insert((None, SourceError::Damaged { place, reason }));
                return Ok(());
            }
        };
        if self.tip.is_some_and(|tip| tip.position == heading.previous) {
            self.begin.search_until = 0;
            let event = self.accept(record, heading)?;
            self.keep(offset, event);
        } else if heading.position <= self.mark.position || heading.previous <= self.mark.position {
            self.reject_tip();
            self.doubt = None;
            match self.accept(record, heading) {
                Ok(event) => self.keep(offset, event),
                Err(error @ SourceError::Damaged { .. }) => self.doubt = Some((Some(heading.position), error)),
                Err(error) => return Err(error),
            }
        } else {
            let continued = self.doubt.as_ref().is_some_and(|(doubted, _)| *doubted == Some(heading.previous));
            let gap = self.gap(offset, heading);
            let (_, error) = self.doubt.take().unwrap_or((None, gap));
            if continued {
                return Err(error);
            }
            self.doubt = Some((Some(heading.position), error));
        }
        Ok(())
    }

    /// Forgets the last event: the record behind it shows that the relay did not write it.
    fn reject_tip(&mut self) {
        if self.tip.take().is_some()
            && let Some((offset, event)) = self.buffer.pop_back()
        {
            self.bytes -= event.data.payload.len();
            self.uncovered_since = None;
            tracing::warn!(place = self.place(offset), position = %event.position, "passed a foreign record");
        }
    }

    /// The event of a record whose place is right, unless it is known already: exactly-once is this comparison.
    fn accept(&mut self, record: &impl Message, heading: Heading) -> Result<Option<RecordedEvent>, SourceError> {
        let Heading { position, previous, witness } = heading;
        self.mark.agrees(position, witness)?;
        let event = if position > self.mark.position { Some(record::decode(record)?) } else { None };
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
        self.bytes += event.data.payload.len();
        self.buffer.push_back((offset, event));
    }

    /// Compares what was read with what the relay says that it has written.
    pub(crate) fn check(&mut self, written: Written) -> Result<(), SourceError> {
        let Some(next) = written.next else { return Ok(()) };
        if let (Some(tip), Some((offset, _))) = (self.tip, self.buffer.back()) {
            let offset = *offset;
            if offset + 1 == next && tip.position == written.last {
                (self.mark, self.tip, self.uncovered_since) = (tip, None, None);
                self.begin.search_until = 0;
            } else if offset + 1 == next || (offset >= next && tip.position <= written.published.position) {
                let (position, last) = (tip.position, written.last);
                self.refuse_tip(offset, format!("it claims position {position}, and the last one is {last}"))?;
            } else if offset >= next {
                self.uncovered_since.get_or_insert_with(Instant::now);
            }
        }
        let reached = self.tip.unwrap_or(self.mark).position;
        if self.next >= next && written.last > reached {
            let reason = format!("the relay's last event there has position {}, and {reached} was read", written.last);
            let place = self.place(next);
            let missing = if self.begin.truncated && self.seen.is_none() {
                SourceError::Expired { place }
            } else {
                SourceError::Missing { place, reason }
            };
            return Err(self.doubt.take().map_or(missing, |(_, error)| error));
        }
        Ok(())
    }

    /// The offset of an event that has waited for a while for a progress that speaks of it.
    pub(crate) fn uncovered(&self) -> Option<i64> {
        let since = self.uncovered_since?;
        let (offset, _) = self.buffer.back()?;
        (since.elapsed() >= UNCOVERED).then_some(*offset)
    }

    /// The progress was looked up: it speaks of the event, or the event is foreign.
    pub(crate) fn cover(&mut self, offset: i64, progress: Option<&Progress>) -> Result<(), SourceError> {
        if Written::of(progress, true, &self.topic, self.partition).next.is_some_and(|next| next > offset) {
            self.uncovered_since = None;
            return Ok(());
        }
        let position = progress.map(|progress| progress.position).unwrap_or_default();
        self.refuse_tip(offset, format!("it lies beyond the relay's progress, which is position {position}"))
    }

    /// The relay did not write the last event. Among what is known that is no matter.
    fn refuse_tip(&mut self, offset: i64, reason: String) -> Result<(), SourceError> {
        if offset < self.begin.search_until {
            self.reject_tip();
            return Ok(());
        }
        Err(self.foreign(offset, reason))
    }

    /// Whether everything that the relay has written to the partition is read, its last event too: a foreign
    /// record may have taken the place of that one.
    pub(crate) fn is_complete(&self, written: Written) -> bool {
        let has_last = written.last <= self.mark.position || self.tip.is_some_and(|tip| tip.position == written.last);
        has_last && written.next.is_some_and(|next| self.next >= next)
    }

    /// Up to where nothing of this partition is missing: the last event for which the relay has vouched, or
    /// everything that it has published, when all that it wrote to this partition is read.
    pub(crate) fn complete(&self, written: Written) -> Mark {
        if self.is_complete(written) { written.published } else { self.mark }
    }

    /// How many events may be handed on: the relay has vouched for them, and its progress speaks of them.
    pub(crate) fn ready(&self, written: Written) -> usize {
        let Some(next) = written.next else { return 0 };
        let covered = self.buffer.partition_point(|(offset, _)| *offset < next);
        covered.min(self.buffer.len() - usize::from(self.tip.is_some()))
    }

    /// Whether as much as `events` or `bytes` waits, the last event apart: that one waits for the next.
    pub(crate) fn holds(&self, events: usize, bytes: usize) -> bool {
        let last = self.tip.and_then(|_| self.buffer.back()).map_or(0, |(_, event)| event.data.payload.len());
        let waiting = self.buffer.len() - usize::from(self.tip.is_some());
        waiting > 0 && (waiting >= events || self.bytes - last >= bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The first event that waits.
    pub(crate) fn front(&self) -> Option<&RecordedEvent> {
        self.buffer.front().map(|(_, event)| event)
    }

    pub(crate) fn pop(&mut self) -> Option<RecordedEvent> {
        let (_, event) = self.buffer.pop_front()?;
        self.bytes -= event.data.payload.len();
        Some(event)
    }

    /// The offset behind what was handed on.
    pub(crate) fn cursor(&self) -> i64 {
        self.buffer.front().map_or(self.next, |(offset, _)| *offset).max(self.begin.floor)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use es_core::{EventData, Metadata, StreamId, Version};
    use rdkafka::message::OwnedMessage;
    use uuid::Uuid;

    use super::*;

    const TOPIC: &str = "order-events";

    fn record(offset: i64, position: u64, previous: u64) -> OwnedMessage {
        let event = RecordedEvent {
            position: Position::new(position),
            stream: StreamId::new("order", "1").unwrap(),
            version: Version::new(position),
            id: Uuid::from_u128(u128::from(position)),
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            metadata: Metadata::default(),
            data: EventData { name: "happened".into(), schema_version: 1, payload: bytes::Bytes::from_static(b"{}") },
        };
        record::published(&event, TOPIC, 0, offset, Position::new(previous))
    }

    /// A record that cannot be read.
    fn poison(offset: i64) -> OwnedMessage {
        let value = Some(b"?".to_vec());
        OwnedMessage::new(value, None, TOPIC.to_owned(), rdkafka::Timestamp::NotAvailable, 0, offset, None)
    }

    fn mark(position: u64) -> Mark {
        Mark { position: Position::new(position), witness: None }
    }

    fn written(next: i64, last: u64, published: u64) -> Written {
        Written { next: Some(next), last: Position::new(last), published: mark(published) }
    }

    /// Reads from the first record on.
    fn fresh() -> Lane {
        Lane::new(TOPIC, 0, Begin::default(), Mark::default())
    }

    /// Reads behind `position`, to which the read model was rebuilt from the log.
    fn rebuilt(position: u64, search_until: i64) -> Lane {
        Lane::new(TOPIC, 0, Begin { search_until, ..Begin::default() }, mark(position))
    }

    fn positions(lane: &mut Lane, written: Written) -> Vec<u64> {
        let ready = lane.ready(written);
        std::iter::from_fn(|| lane.pop()).take(ready).map(|event| event.position.get()).collect()
    }

    #[test]
    fn r11_an_event_is_handed_on_once_the_next_one_or_the_progress_names_it() {
        let mut lane = fresh();
        for (offset, position, previous) in [(0, 3, 0), (1, 5, 3), (3, 6, 5)] {
            lane.take(&record(offset, position, previous)).unwrap();
        }
        let before = written(2, 5, 5);
        lane.check(before).unwrap();
        assert_eq!(lane.ready(before), 2);
        let all = written(4, 6, 7);
        lane.check(all).unwrap();
        assert_eq!(positions(&mut lane, all), [3, 5, 6]);
        assert_eq!((lane.complete(all).position, lane.cursor()), (Position::new(7), 4));
    }

    #[test]
    fn r11_a_hole_is_an_error_that_names_the_place() {
        let mut lane = fresh();
        lane.take(&record(0, 3, 0)).unwrap();
        let error = lane.take(&record(2, 6, 5)).unwrap_err();
        assert!(matches!(&error, SourceError::Missing { place, .. } if place == "order-events/0 offset 2"), "{error}");
        // At the end of the partition, where no record follows.
        let mut lane = fresh();
        lane.take(&record(0, 3, 0)).unwrap();
        lane.take(&record(1, 4, 3)).unwrap();
        let error = lane.check(written(2, 5, 5)).unwrap_err();
        assert!(matches!(&error, SourceError::Foreign { .. }), "{error}");
        let mut lane = Lane::new(TOPIC, 0, Begin { offset: 3, ..Begin::default() }, mark(1));
        let error = lane.check(written(3, 5, 5)).unwrap_err();
        assert!(matches!(&error, SourceError::Missing { .. }), "{error}");
    }

    /// A well-formed copy of an event under another position: seen to be handed on when the next record alone, or the
    /// offset alone, vouched for it.
    #[test]
    fn r11_a_foreign_record_is_never_handed_on_and_the_error_names_it() {
        for (position, previous) in [(500, 3), (500, 1), (4, 3)] {
            let mut lane = fresh();
            lane.take(&record(0, 3, 0)).unwrap();
            let error = lane.take(&record(1, position, previous)).and_then(|()| {
                assert_eq!(lane.ready(written(3, 600, 600)), 1, "the event before it");
                lane.take(&record(2, 600, 3))
            });
            let error = error.unwrap_err();
            let named = matches!(&error, SourceError::Foreign { place, .. } if place == "order-events/0 offset 1");
            assert!(named, "{error}");
        }
        // Behind everything that the relay has written, at a position that it has passed.
        let mut lane = fresh();
        lane.take(&record(0, 3, 0)).unwrap();
        lane.take(&record(1, 500, 3)).unwrap();
        let error = lane.check(written(1, 3, 600)).unwrap_err();
        assert!(matches!(&error, SourceError::Foreign { .. }), "{error}");
        // Beyond it: only the progress tells.
        let mut lane = fresh();
        lane.take(&record(0, 500, 0)).unwrap();
        lane.check(written(0, 0, 3)).unwrap();
        assert_eq!(lane.ready(written(0, 0, 3)), 0);
        let error = lane.cover(0, None).unwrap_err();
        assert!(matches!(&error, SourceError::Foreign { .. }), "{error}");
    }

    #[test]
    fn r11_what_is_known_after_a_rebuild_is_passed_also_where_it_cannot_be_read() {
        // Poison and a future position between known events, and directly before the first new one.
        let mut lane = rebuilt(5, 8);
        for record in [
            record(0, 3, 0),
            poison(1),
            record(2, 500, 3),
            record(3, 5, 3),
            record(4, 500, 5),
            poison(5),
            record(6, 7, 5),
            record(7, 8, 7),
        ] {
            lane.take(&record).unwrap();
        }
        let all = written(8, 8, 8);
        lane.check(all).unwrap();
        assert_eq!(positions(&mut lane, all), [7, 8]);
        // Behind all that the relay has written: passed once, with the checkpoint.
        let mut lane = rebuilt(5, 3);
        for record in [record(0, 5, 3), poison(1), record(2, 500, 1)] {
            lane.take(&record).unwrap();
        }
        lane.check(written(1, 5, 5)).unwrap();
        lane.cover(2, None).unwrap();
        assert_eq!((lane.is_empty(), lane.cursor()), (true, 3));
    }

    #[test]
    fn r11_a_foreign_record_that_was_passed_is_passed_again_after_a_restart() {
        // A model that was rebuilt from the log has passed offset 20, and its cursor lies behind it.
        let begin = Begin { offset: 20, search_until: 21, truncated: false, floor: 21 };
        let mut lane = Lane::new(TOPIC, 0, begin, mark(70));
        lane.take(&record(20, 500, 60)).unwrap();
        lane.take(&record(21, 71, 60)).unwrap();
        let written = written(22, 71, 71);
        lane.check(written).unwrap();
        assert_eq!((positions(&mut lane, written), lane.cursor()), (vec![71], 22));
    }

    #[test]
    fn r11_a_foreign_record_does_not_take_the_place_of_the_last_event() {
        // It names the same event before it as the relay's last event does, which is new to the reader.
        let mut lane = rebuilt(5, 2);
        for record in [record(0, 7, 5), record(1, 500, 5)] {
            lane.take(&record).unwrap();
        }
        let written = written(1, 7, 9);
        lane.check(written).unwrap();
        assert_eq!(lane.complete(written).position, Position::new(5), "the event at position 7 was not read");
        lane.cover(1, None).unwrap();
        let error = lane.check(written).unwrap_err();
        assert!(matches!(error, SourceError::Missing { .. }), "{error}");
    }

    #[test]
    fn r18_a_partition_that_passes_what_is_known_does_not_stand_still() {
        let mut lane = rebuilt(5, 4);
        assert!(!lane.passes());
        lane.take(&record(0, 3, 0)).unwrap();
        assert!(lane.passes() && !lane.passes());
        for record in [record(1, 5, 3), record(4, 6, 5)] {
            lane.take(&record).unwrap();
        }
        assert!(!lane.passes(), "what is new is handed on, and shows by that");
    }

    #[test]
    fn r11_poison_that_is_new_is_an_error_after_a_rebuild_too() {
        // The relay's own event at position 7 cannot be read.
        let mut lane = rebuilt(5, 4);
        lane.take(&record(0, 5, 3)).unwrap();
        lane.take(&poison(1)).unwrap();
        lane.take(&record(2, 8, 7)).unwrap();
        let error = lane.take(&record(3, 9, 8)).unwrap_err();
        let named = matches!(&error, SourceError::Damaged { place, .. } if place == "order-events/0 offset 1");
        assert!(named, "{error}");
        // The last one.
        let mut lane = rebuilt(5, 2);
        lane.take(&record(0, 5, 3)).unwrap();
        lane.take(&poison(1)).unwrap();
        let error = lane.check(written(2, 7, 7)).unwrap_err();
        assert!(matches!(&error, SourceError::Damaged { .. }), "{error}");
        // What comes later than the rebuild is not passed.
        let mut lane = rebuilt(5, 1);
        lane.take(&record(0, 5, 3)).unwrap();
        let error = lane.take(&poison(1)).unwrap_err();
        assert!(matches!(&error, SourceError::Damaged { .. }), "{error}");
    }
}
