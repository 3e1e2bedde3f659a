//! What a reader does otherwise whose events are messages of another system.

use std::{borrow::Cow, time::Duration};

use crate::{
    event::RecordedEvent,
    read::{
        engine_error::{EngineError, Location},
        read_model::Shard,
        source::{EventSource, unreadable},
    },
};

/// What a reader of another system's messages does with one of a type or version that it does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownTypes {
    /// It passes over the message.
    Ignore,
    /// It parks the message's key at once, whatever its [`FailurePolicy`](crate::FailurePolicy) says about other failures. With a
    /// policy that [forwards](crate::FailurePolicy::forward), the message goes to the dead letters of its source at once.
    Park,
    /// It stands by for newer code, and then fails as a [policy](crate::PolicyRunner::standby_limit) does.
    #[default]
    Stop,
}

/// For how long a reader knows the messages that it has handled, by default.
const INBOX: Duration = Duration::from_hours(7 * 24);

/// What is declared of a reader of another system's messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreign {
    pub(crate) unknown: UnknownTypes,
    /// For how long it knows the messages that it has handled.
    pub(crate) keep_for: Duration,
}

impl Default for Foreign {
    fn default() -> Self {
        Self { unknown: UnknownTypes::default(), keep_for: INBOX }
    }
}

/// Whether messages of unknown types are to be treated so.
pub(crate) fn treats(foreign: Option<Foreign>, unknown: UnknownTypes) -> bool {
    foreign.is_some_and(|foreign| foreign.unknown == unknown)
}

/// `event`, or what its source makes of it today if it could not read the record before: it is in the dead letters perhaps.
pub(crate) fn read<'a>(
    foreign: Option<Foreign>,
    source: &dyn EventSource,
    event: &'a RecordedEvent,
) -> Result<Cow<'a, RecordedEvent>, EngineError> {
    if foreign.is_none() || !unreadable::is_unreadable(event) {
        return Ok(Cow::Borrowed(event));
    }
    let read = source.read_again(event);
    read.map(Cow::Owned).map_err(|reason| EngineError::Unreadable { event: Location::of(event), reason })
}

/// Under what an event is parked whose key is `key`. The positions of foreign records grow in one shard only, and a key may be in
/// several.
pub(crate) fn parked_as<'a>(foreign: Option<Foreign>, shard: &Shard, key: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    let key = key.into();
    if foreign.is_some() { format!("{shard}/{key}").into() } else { key }
}
