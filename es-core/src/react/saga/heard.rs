//! The events that a saga hears.

use std::{fmt, sync::Arc};

use crate::{
    event::{Categories, EventSet, Recorded, RecordedEvent},
    schema::Undecodable,
};

/// An event that a saga reacts to, with its bytes, which are kept in the stream of the instance. Clones share it.
pub struct Heard<E>(Arc<(RecordedEvent, Recorded<E>)>);

impl<E> Heard<E> {
    /// As it was recorded.
    pub fn recorded(&self) -> &RecordedEvent {
        &self.0.0
    }

    /// With its content.
    pub fn decoded(&self) -> &Recorded<E> {
        &self.0.1
    }
}

impl<E: EventSet> EventSet for Heard<E> {
    fn categories() -> Categories {
        E::categories()
    }

    fn from_recorded(event: &RecordedEvent) -> Result<Option<Self>, Undecodable> {
        let Some(content) = E::from_recorded(event)? else { return Ok(None) };
        Ok(Some(Self(Arc::new((event.clone(), event.with_data(content))))))
    }
}

impl<E> Clone for Heard<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E> fmt::Debug for Heard<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Heard").field(self.recorded()).finish()
    }
}
