//! The port to the log, in memory.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{MemoryStore, State, log::index};
use crate::{
    event::RecordedEvent,
    limits::PAGE_BYTES,
    stream::{Position, StreamId, Version},
    tag::EventQuery,
    write::{
        append::{Append, IdempotencyKey, command_id, validate_together},
        store::{AppendError, Appended, CommandRecord, EventStore, ReadError},
    },
};

impl MemoryStore {
    async fn write(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        if !self.inline.is_empty() {
            return self.append_when_folded(appends).await;
        }
        let mut state = self.lock();
        let before = state.log.events.len();
        let appended = state.log.append(appends)?;
        self.appended(&state, before);
        Ok(appended)
    }

    /// Tells of what was appended to a log that had so many events `before`.
    pub(super) fn appended(&self, state: &State, before: usize) {
        self.head.raise(state.head());
        self.meter.committed(state.log.events.len() - before);
    }
}

/// As databases do it: a page ends with the event with which its payloads reach [`PAGE_BYTES`] (R17).
pub(super) fn page<'a>(events: impl Iterator<Item = &'a RecordedEvent>, limit: usize) -> Vec<RecordedEvent> {
    let mut bytes = 0;
    let fits = |event: &&RecordedEvent| {
        let fits = bytes < PAGE_BYTES;
        bytes += event.data.payload.len();
        fits
    };
    events.take(limit).take_while(fits).cloned().collect()
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let written = async {
            append.validate()?;
            self.write(vec![append]).await
        };
        self.meter.measure(written).await.map(|appended| appended[0])
    }

    async fn append_together(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let written = async {
            validate_together(&appends)?;
            self.write(appends).await
        };
        self.meter.measure(written).await
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
        Ok(page(positions.iter().skip(skipped).map(|position| &log.events[index(*position)]), limit))
    }

    async fn read_log(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, ReadError> {
        let skipped = usize::try_from(after.get()).unwrap_or(usize::MAX);
        Ok(page(self.lock().log.events.iter().skip(skipped), limit))
    }

    async fn read_matching(
        &self,
        query: &EventQuery,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        query.validate()?;
        Ok(page(self.lock().log.matching(query, after), limit))
    }

    async fn head(&self) -> Result<Position, ReadError> {
        Ok(Position::new(self.lock().log.events.len() as u64))
    }

    async fn wait_past(&self, after: Position) -> Result<(), ReadError> {
        self.head.past(after).await;
        Ok(())
    }

    async fn find_command(&self, stream: &StreamId, key: &IdempotencyKey) -> Result<Option<CommandRecord>, ReadError> {
        Ok(self.lock().log.commands.get(&command_id(stream, key)).copied())
    }

    async fn probe(&self) -> Result<Duration, ReadError> {
        let began = Instant::now();
        drop(self.lock());
        Ok(began.elapsed())
    }

    async fn now(&self) -> Result<DateTime<Utc>, ReadError> {
        Ok(self.lock().log.clock.now())
    }
}
