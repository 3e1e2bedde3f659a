//! The log in memory.

use std::{collections::HashMap, mem};

use uuid::Uuid;

use super::clock::Clock;
use crate::{
    event::RecordedEvent,
    stream::{Position, StreamId, Version},
    tag::{EventQuery, Tag},
    witness::Witness,
    write::{
        append::Append,
        store::{AppendError, Appended, CommandRecord, Verdict},
    },
};

#[derive(Debug, Default)]
pub(super) struct Log {
    /// The event at position p is at index p - 1.
    pub(super) events: Vec<RecordedEvent>,
    /// Its tags are at the same index.
    pub(super) tags: Vec<Vec<Tag>>,
    /// The positions of a stream's events, in order.
    pub(super) streams: HashMap<StreamId, Vec<Position>>,
    pub(super) commands: HashMap<Uuid, CommandRecord>,
    pub(super) clock: Clock,
}

impl Log {
    /// All of `appends`, or none. None is written before every one has its verdict.
    pub(super) fn append(&mut self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        match self.judge_all(&appends)? {
            Some(repeated) => Ok(repeated),
            None => Ok(self.write_all(appends)),
        }
    }

    /// The first outcome of `appends` if they were written before; `None` if they can be written.
    pub(super) fn judge_all(&self, appends: &[Append]) -> Result<Option<Vec<Appended>>, AppendError> {
        Verdict::of_all(appends.iter().map(|append| (append, self.judge(append))))
    }

    pub(super) fn write_all(&mut self, appends: Vec<Append>) -> Vec<Appended> {
        appends.into_iter().map(|append| self.write(append)).collect()
    }

    pub(super) fn judge(&self, append: &Append) -> Verdict {
        if let Some(remembered) = append.remembered()
            && let Some(known) = self.commands.get(&remembered.id)
        {
            return known.repeat(remembered.fingerprint).map_or_else(Verdict::Refused, Verdict::Repeated);
        }
        let positions = self.streams.get(&append.stream).map_or(&[][..], Vec::as_slice);
        let actual = Version::new(positions.len() as u64);
        let last = positions.last().map(|last| Witness::of(&self.events[index(*last)]));
        if !append.expected.holds(actual, last) {
            let conflict = append.conflict(actual);
            return self.repeated(append).map_or_else(|| Verdict::Refused(conflict.into()), Verdict::Repeated);
        }
        let matched = append.condition_parts().filter_map(|part| self.matching(&part.query, part.after).next());
        match matched.map(|event| event.position).min() {
            Some(position) => Verdict::Refused(AppendError::ConditionFailed { position }),
            None => Verdict::Possible,
        }
    }

    pub(super) fn write(&mut self, append: Append) -> Appended {
        let remembered = append.remembered();
        let recorded_at = self.clock.now();
        let positions = self.streams.entry(append.stream.clone()).or_default();
        for mut new in append.events {
            let position = Position::new(self.events.len() as u64 + 1);
            positions.push(position);
            self.tags.push(mem::take(&mut new.tags));
            let version = Version::new(positions.len() as u64);
            self.events.push(new.into_recorded(append.stream.clone(), version, position, recorded_at));
        }
        let version = Version::new(positions.len() as u64);
        let appended = Appended { version, position: Position::new(self.events.len() as u64), repeated: false };
        if let Some(remembered) = remembered {
            let record = CommandRecord { fingerprint: remembered.fingerprint, appended };
            self.commands.insert(remembered.id, record);
        }
        appended
    }

    /// Takes back the events after the first `events`, and what was remembered of `commands`.
    pub(super) fn take_back(&mut self, events: usize, commands: impl Iterator<Item = Uuid>) {
        for event in self.events.drain(events..) {
            if let Some(positions) = self.streams.get_mut(&event.stream) {
                positions.pop();
            }
        }
        self.tags.truncate(events);
        self.streams.retain(|_, positions| !positions.is_empty());
        for command in commands {
            self.commands.remove(&command);
        }
    }

    pub(super) fn matching<'a>(
        &'a self,
        query: &'a EventQuery,
        after: Position,
    ) -> impl Iterator<Item = &'a RecordedEvent> {
        let skipped = usize::try_from(after.get()).unwrap_or(usize::MAX);
        let events = self.events.iter().zip(&self.tags).skip(skipped);
        events.filter(|(event, tags)| query.matches(&event.data.name, tags)).map(|(event, _)| event)
    }

    /// The first outcome of a repeated append: the event after the expected version has the id of its first event.
    pub(super) fn repeated(&self, append: &Append) -> Option<Appended> {
        let expected = append.expected.version()?.get();
        let positions = self.streams.get(&append.stream)?;
        let first = positions.get(usize::try_from(expected).ok()?)?;
        let same = self.events[index(*first)].id == append.events[0].id;
        let version = Version::new(expected + append.events.len() as u64);
        let position = Position::new(first.get() + append.events.len() as u64 - 1);
        same.then_some(Appended { version, position, repeated: true })
    }
}

pub(super) fn index(position: Position) -> usize {
    usize::try_from(position.get() - 1).expect("a position in memory fits")
}
