//! Batches of events, from the source into the tables.

use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{CommitTablesError, TableProjection, TableProjector, TableStore, TableWrite, WriteError};
use crate::{
    event::{Recorded, RecordedEvent},
    read::{
        engine_error::{EngineError, Location},
        failure::{FailureSettings, cause_of},
        foreign::{self, UnknownTypes},
        inbox::Open,
        panics::{Panicked, caught, caught_async},
        projector::is_key,
        read_model::{NewLetter, Reader, Shard},
        worker::{Events, HANDLE_FOR, Handled, Handler},
    },
};

#[async_trait]
impl<S: TableStore, P: TableProjection<S>> Handler for TableProjector<P, S> {
    async fn handle(&self, reader: &Reader, events: Events<'_>, stop: &CancellationToken) -> Handled {
        let inbox = match Open::of(self.foreign, &*self.source, &*self.store, reader, events.list).await {
            Ok(inbox) => inbox,
            Err(error) => return Handled { failure: Some(error.into()), ..Handled::default() },
        };
        let handled = match events.list.first() {
            Some(first) if events.course.gives_up == Some(first.position) => {
                self.give_up(first, &events, inbox, stop).await
            }
            _ => self.write(&events, inbox, stop).await,
        };
        self.report.handles(None);
        handled
    }

    fn failures(&self) -> Option<&FailureSettings> {
        Some(&self.failures)
    }

    fn failed(&self, failure: &EngineError) {
        self.report.failed(failure);
    }
}

/// An event, and what is parked if it cannot be written.
struct Read<E> {
    event: Recorded<E>,
    key: String,
}

/// What becomes of the first of some events.
struct Part<'a, E> {
    /// How many.
    done: usize,
    /// Those that are written.
    events: Vec<Recorded<E>>,
    /// Those that go to the dead letters.
    letters: Vec<NewLetter>,
    /// What is known of messages of another system, with those that are written.
    inbox: Option<Open<'a>>,
    /// Why it ends before the next event.
    failure: Option<EngineError>,
}

impl<S: TableStore, P: TableProjection<S>> TableProjector<P, S> {
    /// Writes the first of `events`: all of them, or, if that fails, half as many, until the event that cannot be written is alone.
    async fn write(&self, events: &Events<'_>, inbox: Option<Open<'_>>, stop: &CancellationToken) -> Handled {
        let mut most = events.list.len();
        loop {
            let part = self.part(events, inbox.clone(), most);
            if part.done == 0 {
                return Handled { failure: part.failure, ..Handled::default() };
            }
            most = part.done;
            // The worker learns which keys are parked.
            let letters = part.letters.clone();
            let Err(failure) = self.commit(part, events, stop).await else {
                return Handled { done: most, letters, is_committed: true, ..Handled::default() };
            };
            match failure {
                None => return Handled::default(),
                Some(failure) if most == 1 || !failure.is_of_event() => {
                    return Handled { failure: Some(failure), ..Handled::default() };
                }
                Some(_) => most /= 2,
            }
        }
    }

    /// Parks the key of `event`, if it still cannot be written.
    async fn give_up(
        &self,
        event: &RecordedEvent,
        events: &Events<'_>,
        inbox: Option<Open<'_>>,
        stop: &CancellationToken,
    ) -> Handled {
        let part = self.part(events, inbox, 1);
        let failure = match part.failure {
            Some(failure) => failure,
            None => match self.commit(part, events, stop).await {
                Ok(()) => return Handled { done: 1, is_committed: true, ..Handled::default() },
                Err(None) => return Handled::default(),
                Err(Some(failure)) => failure,
            },
        };
        if !failure.is_of_event() {
            return Handled { failure: Some(failure), ..Handled::default() };
        }
        let Some(key) = self.key_of(event, events.shard) else {
            let failure = EngineError::Unparkable { event: Location::of(event), reason: Box::new(failure) };
            return Handled { failure: Some(failure), ..Handled::default() };
        };
        if events.course.room == 0 {
            let failure = EngineError::TooManyLetters { event: Location::of(event), limit: self.failures.most_letters };
            return Handled { failure: Some(failure), ..Handled::default() };
        }
        let (cause, attempts) = (Some(cause_of(&failure)), events.course.attempts(event.position));
        let letters = vec![NewLetter { key, event: event.clone(), cause, attempts }];
        Handled { done: 1, letters, ..Handled::default() }
    }

    /// What becomes of the first `most` of `events`, up to the first one that cannot be read or has no room among the letters.
    fn part<'a>(&self, events: &Events<'_>, inbox: Option<Open<'a>>, most: usize) -> Part<'a, P::Event> {
        let mut part = Part { done: 0, events: Vec::with_capacity(most), letters: Vec::new(), inbox, failure: None };
        for raw in &events.list[..most] {
            let mut is_last = false;
            match self.read(raw, events.shard) {
                Ok(None) => {}
                Ok(Some(Read { key, .. })) if self.is_of_other_key(&key, raw, events) => {
                    part.failure = Some(EngineError::OtherKeys {
                        key: events.course.only.unwrap_or_default().to_owned(),
                        event: Location::of(raw),
                    });
                }
                Ok(Some(Read { key, .. })) if events.course.only.is_none() && events.course.parked.contains(&key) => {
                    if part.letters.len() == events.course.room {
                        let (event, limit) = (Location::of(raw), self.failures.most_letters);
                        part.failure = Some(EngineError::TooManyLetters { event, limit });
                    } else {
                        part.letters.push(NewLetter { key, event: raw.clone(), cause: None, attempts: 0 });
                    }
                }
                Ok(Some(_)) if part.inbox.as_ref().is_some_and(|inbox| inbox.knows(raw)) => {
                    tracing::debug!(name = P::NAME, %raw.stream, %raw.position, "its producer repeats a message");
                }
                Ok(Some(Read { event, .. })) => {
                    if let Some(inbox) = &mut part.inbox {
                        inbox.add(raw);
                    }
                    part.events.push(event);
                }
                Err(error) if self.parks_at_once(&error, events) => match self.key_of(raw, events.shard) {
                    Some(key) if part.letters.len() < events.course.room => {
                        // What follows of the key is handled when that is known.
                        is_last = true;
                        let (event, cause) = (raw.clone(), Some(cause_of(&error)));
                        part.letters.push(NewLetter { key, event, cause, attempts: 1 });
                    }
                    _ => {
                        let (event, limit) = (Location::of(raw), self.failures.most_letters);
                        part.failure = Some(EngineError::TooManyLetters { event, limit });
                    }
                },
                Err(error) => part.failure = Some(error),
            }
            if part.failure.is_some() {
                break;
            }
            part.done += 1;
            if is_last {
                break;
            }
        }
        part
    }

    /// The event and its key; `None` where the projection does not know it.
    fn read(&self, raw: &RecordedEvent, shard: &Shard) -> Result<Option<Read<P::Event>>, EngineError> {
        let raw = foreign::read(self.foreign, &*self.source, raw)?;
        let read = caught(|| {
            let decoded = match raw.decode::<P::Event>() {
                Err(error) if self.treats(UnknownTypes::Ignore) && error.reason.is_of_newer_code() => None,
                decoded => decoded?,
            };
            let Some(event) = decoded else { return Ok(None) };
            let key = self.projection.key(&event);
            if is_key(&key) {
                let key = foreign::parked_as(self.foreign, shard, key).into_owned();
                Ok(Some(Read { event, key }))
            } else {
                Err(EngineError::Key { key, event: Location::of(&raw) })
            }
        });
        read.unwrap_or_else(|Panicked| Err(EngineError::Panicked { event: Location::of(&raw) }))
    }

    /// What is parked when `event` fails; `None` where nothing can be.
    fn key_of(&self, event: &RecordedEvent, shard: &Shard) -> Option<String> {
        match self.read(event, shard) {
            Ok(Some(Read { key, .. })) => Some(key),
            _ if self.foreign.is_some() => {
                Some(foreign::parked_as(self.foreign, shard, event.stream.as_str()).into_owned())
            }
            _ => None,
        }
    }

    /// Whether the letters of another key are handled again. One of them may have been parked before it could be read.
    fn is_of_other_key(&self, key: &str, event: &RecordedEvent, events: &Events<'_>) -> bool {
        let Some(only) = events.course.only else { return false };
        let is_of_stream =
            || self.foreign.is_some() && foreign::parked_as(self.foreign, events.shard, event.stream.as_str()) == only;
        only != key && !is_of_stream()
    }

    fn treats(&self, unknown: UnknownTypes) -> bool {
        foreign::treats(self.foreign, unknown)
    }

    /// Whether `failure` parks the key at once: the first time, not when its letters are handled again.
    fn parks_at_once(&self, failure: &EngineError, events: &Events<'_>) -> bool {
        self.treats(UnknownTypes::Park) && failure.awaits_newer_code() && events.course.only.is_none()
    }

    /// Commits what becomes of `part` together with the checkpoint.
    ///
    /// # Errors
    /// Why not; `None` where the worker ends, or has to look again which messages were handled: it calls again for the rest.
    async fn commit(
        &self,
        part: Part<'_, P::Event>,
        events: &Events<'_>,
        stop: &CancellationToken,
    ) -> Result<(), Option<EngineError>> {
        if stop.is_cancelled() {
            return Err(None);
        }
        let mut changes = (events.changes)(part.done);
        changes.letters = part.letters;
        changes.inbox = part.inbox.and_then(Open::into_changes);
        let first = &events.list[0];
        if part.events.is_empty() {
            return self.store.commit(events.lease, changes).await.map_err(|error| Some(error.into()));
        }
        self.report.handles(Some(part.events[0].position));
        let (projection, limit) = (&self.projection, self.failures.time_limit);
        let write = Write { projection, events: &part.events, limit, stop };
        let failure = match self.store.commit_tables(events.lease, changes, &write).await {
            Ok(()) => return Ok(()),
            Err(CommitTablesError::Write(failure)) => failure,
            Err(CommitTablesError::Handled) => return Err(None),
            Err(CommitTablesError::Commit(error)) => return Err(Some(error.into())),
        };
        let event = Location::of(first);
        Err(match failure {
            WriteError::Failed(reason) => Some(EngineError::Unwritten { event, events: part.events.len(), reason }),
            WriteError::Panicked => Some(EngineError::Panicked { event }),
            WriteError::TooSlow(took) => Some(EngineError::TooSlow { event, took, limit: limit.min(took) }),
            WriteError::Stopped => None,
        })
    }
}

/// A call of the application's code.
struct Write<'a, P, E> {
    projection: &'a P,
    events: &'a [Recorded<E>],
    limit: Duration,
    stop: &'a CancellationToken,
}

#[async_trait]
impl<S: TableStore, P: TableProjection<S>> TableWrite<S> for Write<'_, P, P::Event> {
    async fn write(&self, tables: &mut S::Tables<'_>) -> Result<(), WriteError> {
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(HANDLE_FOR).await;
        };
        tokio::select! {
            biased;
            written = caught_async(self.projection.write(tables, self.events)) => {
                written.map_err(|Panicked| WriteError::Panicked)?.map_err(WriteError::Failed)
            }
            () = stopped => Err(WriteError::Stopped),
            () = tokio::time::sleep(self.limit) => Err(WriteError::TooSlow(self.limit)),
        }
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(self.limit).filter(|limit| *limit < Duration::MAX)
    }
}
