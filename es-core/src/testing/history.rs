//! What has happened, in a test: events of any aggregates, with positions, times and metadata of the test's choice.

use std::{collections::HashMap, slice};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    error::with_causes,
    event::{Event, Metadata, NewEvent, RecordedEvent},
    stream::{Expected, Position, StreamId, Version},
    tag::Tag,
    write::append::{Append, InvalidAppend},
};

/// Events of any aggregates, in the order of the log.
///
/// Without other words positions and versions follow each other from 1, and the events happen on 1 January 2026 (UTC), one
/// second apart.
///
/// ```
/// use es_core::{Metadata, testing::{account::{AccountEvent, Ledger}, history, project}};
///
/// let history = history()
///     .event("a", AccountEvent::Deposited { amount: 5 })
///     .event("b", AccountEvent::Deposited { amount: 7 })
///     .position(41)
///     .at("2026-03-01T12:00:00Z".parse()?)
///     .metadata(Metadata { actor: Some("ada".into()), ..Metadata::default() })
///     .event("a", AccountEvent::Withdrawn { amount: 5 });
/// let documents = project(&Ledger::<2>::default(), &history)?;
/// assert_eq!(documents["all"].positions, [1, 41, 42]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Decisions over tags are tested with [`when`](Self::when), policies with [`when_reacting`](Self::when_reacting).
#[derive(Debug, Clone, Default)]
pub struct History {
    events: Vec<RecordedEvent>,
    /// The tags of each event, at the same index.
    tags: Vec<Vec<Tag>>,
    versions: HashMap<StreamId, Version>,
}

/// Nothing has happened yet: the beginning of a [`History`].
pub fn history() -> History {
    History::default()
}

impl History {
    /// Then `event` has happened to the aggregate `id`.
    ///
    /// # Panics
    /// When `id` cannot be part of a stream's name, or the log would not take the event.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "a test writes its events out")]
    pub fn event<E: Event>(mut self, id: &str, event: E) -> Self {
        // No closures: the panic is to name the line of the test.
        let stream = match StreamId::new(E::CATEGORY, id) {
            Ok(stream) => stream,
            Err(error) => panic!("the id {id:?}: {error}"),
        };
        for new in accepted([&event]) {
            self.push(stream.clone(), new);
        }
        self
    }

    /// The last event is at `position`; the next one follows it.
    ///
    /// # Panics
    /// When there is no event yet, or the event before it is not before that position.
    #[track_caller]
    pub fn position(mut self, position: u64) -> Self {
        let before = self.events.iter().rev().nth(1).map_or(Position::ZERO, |event| event.position);
        assert!(position > before.get(), "positions grow: the event before it is at {before}");
        self.last().position = Position::new(position);
        self
    }

    /// The store wrote the last event at `time`; the next one is written a second later.
    ///
    /// # Panics
    /// When there is no event yet.
    #[track_caller]
    pub fn at(mut self, time: DateTime<Utc>) -> Self {
        self.last().recorded_at = time;
        self
    }

    /// The last event has this metadata.
    ///
    /// # Panics
    /// When there is no event yet.
    #[track_caller]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.last().metadata = metadata;
        self
    }

    /// The last event has this id.
    ///
    /// # Panics
    /// When there is no event yet.
    #[track_caller]
    pub fn id(mut self, id: Uuid) -> Self {
        self.last().id = id;
        self
    }

    /// The events, as the log returns them.
    pub fn events(&self) -> &[RecordedEvent] {
        &self.events
    }

    /// The events, as the log returns them.
    pub fn iter(&self) -> slice::Iter<'_, RecordedEvent> {
        self.events.iter()
    }

    pub(super) fn into_events(self) -> Vec<RecordedEvent> {
        self.events
    }

    /// The events, each with its tags.
    pub(super) fn tagged(&self) -> impl Iterator<Item = (&RecordedEvent, &[Tag])> {
        self.events.iter().zip(self.tags.iter().map(Vec::as_slice))
    }

    /// How many events `stream` has.
    pub(super) fn version(&self, stream: &StreamId) -> Version {
        self.versions.get(stream).copied().unwrap_or_default()
    }

    pub(super) fn push(&mut self, stream: StreamId, new: NewEvent) {
        let version = self.versions.entry(stream.clone()).or_default();
        *version = version.next();
        let (position, recorded_at) = match self.events.last() {
            Some(last) => (last.position.next(), last.recorded_at + TimeDelta::seconds(1)),
            None => (Position::new(1), DateTime::from_timestamp(FIRST_AT, 0).unwrap_or_default()),
        };
        let NewEvent { data, metadata, tags, .. } = new;
        self.tags.push(tags);
        let id = Uuid::from_u128(u128::from(position.get()));
        let new = NewEvent { id, data, metadata, tags: Vec::new() };
        self.events.push(new.into_recorded(stream, *version, position, recorded_at));
    }

    #[track_caller]
    fn last(&mut self) -> &mut RecordedEvent {
        self.events.last_mut().unwrap_or_else(|| panic!("there is no event yet: begin with `.event(…)`"))
    }
}

impl<'a> IntoIterator for &'a History {
    type Item = &'a RecordedEvent;
    type IntoIter = slice::Iter<'a, RecordedEvent>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}

/// One second after the year 2026 has begun.
const FIRST_AT: i64 = 1_767_225_601;

/// `events` of the aggregates with the given ids as the log would return them, on 1 January 2026,
/// one second apart. A [`History`] holds events of several kinds of aggregates.
///
/// # Panics
/// When an id cannot be part of a stream's name, or the log would not take an event.
#[track_caller]
pub fn recorded<E: Event>(events: impl IntoIterator<Item = (&'static str, E)>) -> Vec<RecordedEvent> {
    let mut history = history();
    for (id, event) in events {
        history = history.event(id, event);
    }
    history.into_events()
}

/// `events` as the log would take them together.
///
/// # Panics
/// When it would not.
#[track_caller]
pub(super) fn accepted<'a, E: Event>(events: impl IntoIterator<Item = &'a E>) -> Vec<NewEvent> {
    let events: Result<Vec<_>, _> = events.into_iter().map(NewEvent::of).collect();
    let events = match events {
        Ok(events) => events,
        Err(error) => panic!("{}", with_causes(&error)),
    };
    let stream = StreamId::new(E::CATEGORY, "id").unwrap_or_else(|error| panic!("{error}"));
    let append = Append::new(stream, Expected::Any, events);
    match append.validate() {
        Ok(()) | Err(InvalidAppend::Empty) => append.events,
        Err(refusal) => panic!("the log refuses the events: {refusal}"),
    }
}

/// An event for people: `account-a: account.deposited v1 {"amount":5}`.
pub(super) fn described(event: &RecordedEvent) -> String {
    let payload = String::from_utf8_lossy(&event.data.payload);
    format!("{}: {} v{} {payload}", event.stream, event.data.name, event.data.schema_version)
}
