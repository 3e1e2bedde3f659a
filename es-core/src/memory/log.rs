//! The log in memory.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DurationRound, TimeDelta, Utc};
use uuid::Uuid;

use super::MemoryStore;
use crate::{
    append::{Append, IdempotencyKey, command_id},
    event::RecordedEvent,
    store::{AppendError, Appended, CommandRecord, Conflict, EventStore, ReadError},
    stream::{Position, StreamId, Version},
};

#[derive(Debug, Default)]
pub(super) struct Log {
    /// The event at position p is at index p - 1.
    events: Vec<RecordedEvent>,
    /// The positions of a stream's events, in order.
    streams: HashMap<StreamId, Vec<Position>>,
    commands: HashMap<Uuid, CommandRecord>,
}

impl Log {
    fn append(&mut self, append: Append) -> Result<Appended, AppendError> {
        let remembered = append.remembered();
        if let Some(known) = remembered.and_then(|remembered| self.commands.get(&remembered.id).copied()) {
            return known.repeat(remembered.expect("it was found by it").fingerprint);
        }
        let actual = self.version(&append.stream);
        if !append.expected.holds(actual) {
            let conflict = Conflict { expected: append.expected, actual };
            return self.repeated(&append).ok_or(AppendError::Conflict(conflict));
        }
        // Databases keep microseconds; so does the reference.
        let recorded_at = Utc::now().duration_trunc(TimeDelta::microseconds(1)).unwrap_or_default();
        let positions = self.streams.entry(append.stream.clone()).or_default();
        for new in append.events {
            let position = Position::new(self.events.len() as u64 + 1);
            positions.push(position);
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
        Ok(appended)
    }

    fn version(&self, stream: &StreamId) -> Version {
        Version::new(self.streams.get(stream).map_or(0, Vec::len) as u64)
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

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.validate()?;
        let mut state = self.lock();
        let appended = state.log.append(append)?;
        // Under the lock, so that the head never goes back.
        self.head.send_replace(Position::new(state.log.events.len() as u64));
        Ok(appended)
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
