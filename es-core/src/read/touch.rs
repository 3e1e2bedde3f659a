//! What a reader does with one event, for each document that the event touches. A worker and all that folds again ask here, so
//! that they cannot disagree.

#[cfg(test)]
mod tests;

use std::ops::Deref;

use crate::{
    event::{EventData, Recorded, RecordedEvent},
    read::{
        engine_error::{EngineError, Location},
        panics::{Panicked, caught},
        projection::{EventOrder, Projection},
        projector::keys,
        read_model::{Exceptions, Treatment},
    },
};

/// An event, and what becomes of it.
pub(crate) struct Touch<'d, E> {
    /// `None` where the projection does not know the event, or where nothing of it is folded as the log has it.
    pub(crate) event: Option<Typed<'d, E>>,
    /// The documents that it is folded into.
    pub(crate) keys: Vec<String>,
    /// The documents into which it is folded with another payload.
    pub(crate) amended: Vec<(String, Typed<'d, E>)>,
    /// The documents that it waits for.
    pub(crate) waiting: Vec<String>,
}

/// An event with its content.
pub(crate) enum Typed<'d, E> {
    /// Decoded for one reader.
    Own(Recorded<E>),
    /// Decoded once for several.
    Shared(&'d Recorded<E>),
}

impl<E> Deref for Typed<'_, E> {
    type Target = Recorded<E>;

    fn deref(&self) -> &Recorded<E> {
        match self {
            Self::Own(event) => event,
            Self::Shared(event) => event,
        }
    }
}

impl<E> Touch<'_, E> {
    fn none() -> Self {
        Self { event: None, keys: Vec::new(), amended: Vec::new(), waiting: Vec::new() }
    }

    /// All keys that it touches and that are not left out.
    pub(crate) fn into_keys(self) -> impl Iterator<Item = String> {
        let amended = self.amended.into_iter().map(|(key, _)| key);
        self.keys.into_iter().chain(amended).chain(self.waiting)
    }

    /// Each document that is folded, with the event to fold.
    pub(crate) fn folds(&self) -> impl Iterator<Item = (&String, &Recorded<E>)> {
        let as_recorded = self.event.iter().flat_map(|event| self.keys.iter().map(move |key| (key, &**event)));
        as_recorded.chain(self.amended.iter().map(|(key, event)| (key, &**event)))
    }
}

/// What becomes of `event`, of which a reader does with each key what `treat` says. It is decoded if it is not `known` with its
/// content.
///
/// # Errors
/// [`EngineError`], when the event cannot be decoded or its keys are none. A panic of the application's code is one too.
pub(crate) fn touch<'a, 'd, P: Projection>(
    projection: &P,
    event: &RecordedEvent,
    known: Option<&'d Recorded<P::Event>>,
    treat: impl Fn(&str) -> Treatment<'a>,
) -> Result<Touch<'d, P::Event>, EngineError> {
    let mut touch = Touch::none();
    let decoded = |event: &RecordedEvent, known: Option<&'d Recorded<P::Event>>| -> Result<_, EngineError> {
        let read = || -> Result<_, EngineError> {
            let own = if known.is_none() { event.decode::<P::Event>()? } else { None };
            let Some(event) = own.map(Typed::Own).or(known.map(Typed::Shared)) else { return Ok(None) };
            let keys = keys(projection, &event)?;
            Ok(Some((event, keys)))
        };
        caught(read).unwrap_or_else(|Panicked| Err(EngineError::Panicked { event: Location::of(event) }))
    };
    // The payload that an operator has given names the key by itself, or else its letter could not have been handled.
    let amend = |key: &str, payload: &bytes::Bytes| -> Result<_, EngineError> {
        let data = EventData { payload: payload.clone(), ..event.data.clone() };
        let decoded = decoded(&RecordedEvent { data, ..event.clone() }, None)?;
        Ok(decoded.filter(|(_, keys)| keys.iter().any(|named| named == key)).map(|(event, _)| (key.to_owned(), event)))
    };
    if P::ORDER == EventOrder::PerStream {
        // The stream tells the key, also of an event that cannot be decoded.
        let key = event.stream.id();
        match treat(key) {
            Treatment::Handle => {}
            Treatment::LeaveOut => return Ok(touch),
            Treatment::Instead(payload) => {
                touch.amended.extend(amend(key, payload)?);
                return Ok(touch);
            }
            Treatment::Wait => {
                touch.waiting.push(key.to_owned());
                return Ok(touch);
            }
        }
    }
    let Some((recorded, keys)) = decoded(event, known)? else { return Ok(touch) };
    for key in keys {
        match treat(&key) {
            Treatment::Handle => touch.keys.push(key),
            Treatment::LeaveOut => {}
            Treatment::Instead(payload) => touch.amended.extend(amend(&key, payload)?),
            Treatment::Wait => touch.waiting.push(key),
        }
    }
    touch.event = Some(recorded);
    Ok(touch)
}

/// What a reader with these `exceptions` has done with `event`, or does with it.
///
/// # Errors
/// As [`touch`], except for an event that was passed over.
pub(crate) fn touch_with<P: Projection>(
    projection: &P,
    event: &RecordedEvent,
    exceptions: &Exceptions,
) -> Result<Touch<'static, P::Event>, EngineError> {
    match touch(projection, event, None, |key| exceptions.of(key, event.position)) {
        Err(_) if exceptions.is_passed_over(event.position) => Ok(Touch::none()),
        touched => touched,
    }
}
