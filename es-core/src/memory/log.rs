//! The log in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DurationRound, TimeDelta, Utc};
use uuid::Uuid;

use super::MemoryStore;
use crate::{
    boundary::{EventQuery, Tag},
    event::RecordedEvent,
    stream::{Position, StreamId, Version},
    witness::Witness,
    write::{
        append::{Append, IdempotencyKey, command_id, validate_together},
        store::{AppendError, Appended, CommandRecord, EventStore, ReadError, Verdict},
    },
};

#[derive(Debug, Default)]
pub(super) struct Log {
    /// The event at position p is at index p - 1.
    events: Vec<RecordedEvent>,
    /// Its tags are at the same index.
    tags: Vec<Vec<Tag>>,
    /// The positions of a stream's events, in order.
    streams: HashMap<StreamId, Vec<Position>>,
    commands: HashMap<Uuid, CommandRecord>,
}

impl Log {
    /// All of `appends`, or none. None is written before every one has its verdict.
    fn append(&mut self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        match Verdict::of_all(appends.iter().map(|append| (append, self.judge(append))))? {
            Some(repeated) => Ok(repeated),
            None => Ok(appends.into_iter().map(|append| self.write(append)).collect()),
        }
    }

    fn judge(&self, append: &Append) -> Verdict {
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

    fn write(&mut self, append: Append) -> Appended {
        let remembered = append.remembered();
        // Databases keep microseconds; so does the reference.
        let recorded_at = Utc::now().duration_trunc(TimeDelta::microseconds(1)).unwrap_or_default();
        let positions = self.streams.entry(append.stream.clone()).or_default();
        for new in append.events {
            let position = Position::new(self.events.len() as u64 + 1);
            positions.push(position);
            self.tags.push(new.tags);
            self.events.push(RecordedEvent {
                position,
                stream: append.stream.clone(),
                version: Version::new(positions.len() as u64),
                id: new.id,
                recorded_at,
                metadata: new.metadata,
                data: new.data,
            });
        }
        let version = Version::new(positions.len() as u64);
        let appended = Appended { version, position: Position::new(self.events.len() as u64), repeated: false };
        if let Some(remembered) = remembered {
            let record = CommandRecord { fingerprint: remembered.fingerprint, appended };
            self.commands.insert(remembered.id, record);
        }
        appended
    }

    fn matching<'a>(&'a self, query: &'a EventQuery, after: Position) -> impl Iterator<Item = &'a RecordedEvent> {
        let skipped = usize::try_from(after.get()).unwrap_or(usize::MAX);
        let events = self.events.iter().zip(&self.tags).skip(skipped);
        events.filter(|(event, tags)| query.matches(&event.data.name, tags)).map(|(event, _)| event)
    }

    /// The first outcome of an append that comes again: the event behind the expected version is
    /// its first one.
    fn repeated(&self, append: &Append) -> Option<Appended> {
        let expected = append.expected.version()?.get();
        let positions = self.streams.get(&append.stream)?;
        let first = positions.get(usize::try_from(expected).ok()?)?;
        let same = self.events[index(*first)].id == append.events[0].id;
        let version = Version::new(expected + append.events.len() as u64);
        let position = Position::new(first.get() + append.events.len() as u64 - 1);
        same.then_some(Appended { version, position, repeated: true })
    }
}

fn index(position: Position) -> usize {
    usize::try_from(position.get() - 1).expect("a position in memory fits")
}

impl MemoryStore {
    fn write(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let mut state = self.lock();
        let appended = state.log.append(appends)?;
        // Under the lock, so that the head never goes back.
        self.head.send_replace(Position::new(state.log.events.len() as u64));
        Ok(appended)
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.validate()?;
        self.write(vec![append]).map(|appended| appended[0])
    }

    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        validate_together(&appends)?;
        self.write(appends)
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let log = &self.lock().log;
        let positions = log.streams.get(stream).map_or(&[][..], Vec::as_slice);
        let skipped = usize::try_from(after.get()).unwrap_or(usize::MAX);
        Ok(positions.iter().skip(skipped).take(limit).map(|position| log.events[index(*position)].clone()).collect())
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        let skipped = usize::try_from(after.get()).unwrap_or(usize::MAX);
        Ok(self.lock().log.events.iter().skip(skipped).take(limit).cloned().collect())
    }

    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        query.validate()?;
        Ok(self.lock().log.matching(query, after).take(limit).cloned().collect())
    }

    async fn head(&self) -> Result<Position, ReadError> {
        Ok(Position::new(self.lock().log.events.len() as u64))
    }

    async fn wait_past(&self, after: Position) -> Result<(), ReadError> {
        // The sender lives as long as `self`.
        let _ = self.head.subscribe().wait_for(|head| *head > after).await;
        Ok(())
    }

    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError> {
        Ok(self.lock().log.commands.get(&command_id(stream, key)).copied())
    }
}
