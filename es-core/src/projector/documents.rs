//! The documents that a part of a batch touches, from the stored bytes and back.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{encode, fold};
use crate::{
    codec,
    error::{EngineError, Location},
    event::Recorded,
    panics::{Panicked, caught},
    projection::Projection,
    worker::Handled,
};

/// Documents by their keys; in their order they are written.
pub(super) struct Documents<P: Projection>(BTreeMap<String, Draft<P::Document>>);

struct Draft<D> {
    /// As the store has it, until it is read.
    stored: Option<Bytes>,
    /// Once it is read.
    document: Option<D>,
    is_read: bool,
    is_folded: bool,
}

impl<P: Projection> Documents<P> {
    /// What the store has under each key.
    pub(super) fn new(stored: impl IntoIterator<Item = (String, Option<Bytes>)>) -> Self {
        let draft = |stored| Draft { stored, document: None, is_read: false, is_folded: false };
        Self(stored.into_iter().map(|(key, stored)| (key, draft(stored))).collect())
    }

    /// Reads the document under `key` for `event`. As long as not all documents of an event are read, none of them
    /// may be folded: an event is folded whole or not at all.
    pub(super) fn read(&mut self, key: &str, event: &Recorded<P::Event>) -> Result<(), EngineError> {
        let Some(draft) = self.0.get_mut(key).filter(|draft| !draft.is_read) else { return Ok(()) };
        let read = caught(|| draft.stored.as_deref().map(codec::decode).transpose());
        draft.document = read
            .map_err(|Panicked| EngineError::Panicked { event: Location::of(event) })?
            .map_err(|reason| EngineError::Document { key: key.to_owned(), reason })?;
        draft.is_read = true;
        Ok(())
    }

    /// Folds `event` into the document under `key`. After a failure the document may hold half of it.
    pub(super) fn fold(&mut self, projection: &P, key: &str, event: &Recorded<P::Event>) -> Result<(), EngineError> {
        let Some(draft) = self.0.get_mut(key) else { return Ok(()) };
        draft.is_folded = true;
        caught(|| fold(projection, key, &mut draft.document, event))
            .map_err(|Panicked| EngineError::Panicked { event: Location::of(event) })?
    }

    /// Writes out what was folded. A panic names the event at `first`, with which the part begins.
    pub(super) fn write(self, first: &Location) -> Result<Handled, EngineError> {
        let mut handled = Handled::default();
        for (key, draft) in self.0.into_iter().filter(|(_, draft)| draft.is_folded) {
            match draft.document {
                Some(document) => {
                    let bytes = caught(|| encode::<P>(&key, &document))
                        .map_err(|Panicked| EngineError::Panicked { event: first.clone() })??;
                    handled.upserts.push((key, bytes));
                }
                None => handled.deletes.push(key),
            }
        }
        Ok(handled)
    }
}
