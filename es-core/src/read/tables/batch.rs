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
        panics::{Panicked, caught, caught_async},
        projector::is_key,
        read_model::{NewLetter, Reader},
        worker::{Events, HANDLE_FOR, Handled, Handler},
    },
};

#[async_trait]
impl<S: TableStore, P: TableProjection<S>> Handler for TableProjector<P, S> {
    async fn handle(&self, _: &Reader, events: Events<'_>, stop: &CancellationToken) -> Handled {
        let handled = match events.list.first() {
            Some(first) if events.course.gives_up == Some(first.position) => self.give_up(first, &events, stop).await,
            _ => self.write(&events, stop).await,
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
struct Part<E> {
    /// How many.
    done: usize,
    /// Those that are written.
    events: Vec<Recorded<E>>,
    /// Those that go to the dead letters.
    letters: Vec<NewLetter>,
    /// Why it ends before the next event.
    failure: Option<EngineError>,
}

impl<S: TableStore, P: TableProjection<S>> TableProjector<P, S> {
    /// Writes the first of `events`: all of them, or, if that fails, half as many, until the event that cannot be written is alone.
    async fn write(&self, events: &Events<'_>, stop: &CancellationToken) -> Handled {
        let mut most = events.list.len();
        loop {
            let part = self.part(events, most);
            if part.done == 0 {
                return Handled { failure: part.failure, ..Handled::default() };
            }
            most = part.done;
            let Err(failure) = self.commit(part, events, stop).await else {
                return Handled { done: most, is_committed: true, ..Handled::default() };
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
    async fn give_up(&self, event: &RecordedEvent, events: &Events<'_>, stop: &CancellationToken) -> Handled {
        let part = self.part(events, 1);
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
        let Ok(Some(Read { key, .. })) = self.read(event) else {
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
    fn part(&self, events: &Events<'_>, most: usize) -> Part<P::Event> {
        let mut part = Part { done: 0, events: Vec::with_capacity(most), letters: Vec::new(), failure: None };
        for raw in &events.list[..most] {
            match self.read(raw) {
                Ok(None) => {}
                Ok(Some(Read { key, .. })) if events.course.only.is_some_and(|only| *only != key) => {
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
                Ok(Some(Read { event, .. })) => part.events.push(event),
                Err(error) => part.failure = Some(error),
            }
            if part.failure.is_some() {
                break;
            }
            part.done += 1;
        }
        part
    }

    /// The event and its key; `None` where the projection does not know it.
    fn read(&self, raw: &RecordedEvent) -> Result<Option<Read<P::Event>>, EngineError> {
        let read = caught(|| {
            let Some(event) = raw.decode::<P::Event>()? else { return Ok(None) };
            let key = self.projection.key(&event);
            if is_key(&key) {
                Ok(Some(Read { event, key }))
            } else {
                Err(EngineError::Key { key, event: Location::of(raw) })
            }
        });
        read.unwrap_or_else(|Panicked| Err(EngineError::Panicked { event: Location::of(raw) }))
    }

    /// Commits what becomes of `part` together with the checkpoint.
    ///
    /// # Errors
    /// Why not; `None` where the worker ends.
    async fn commit(
        &self,
        part: Part<P::Event>,
        events: &Events<'_>,
        stop: &CancellationToken,
    ) -> Result<(), Option<EngineError>> {
        if stop.is_cancelled() {
            return Err(None);
        }
        let mut changes = (events.changes)(part.done);
        changes.letters = part.letters;
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
