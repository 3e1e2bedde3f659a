//! The documents that a part of a batch touches, from the stored bytes and back.

use std::collections::HashMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{encode, fold};
use crate::{
    codec,
    event::Recorded,
    read::{
        engine_error::{EngineError, Location},
        panics::{Panicked, caught},
        projection::Projection,
        worker::Handled,
    },
};

/// Documents by their keys.
pub(super) struct Documents<P: Projection> {
    drafts: HashMap<String, Draft<P::Document>>,
    /// What was written out of the folded ones, in bytes with their keys.
    pub(super) written: usize,
    /// The largest that is known, as it was loaded or written out.
    largest: usize,
    /// How many are folded and were never written out.
    fresh: usize,
}

struct Draft<D> {
    /// As the store has it or will have it, unless it is read.
    bytes: Option<Bytes>,
    document: Option<D>,
    is_read: bool,
    is_folded: bool,
    /// What the store has handed over of it, in bytes.
    loaded: usize,
    written: usize,
}

impl<D: DeserializeOwned> Draft<D> {
    fn read<E>(&mut self, key: &str, event: &Recorded<E>) -> Result<(), EngineError> {
        if !self.is_read {
            let read = caught(|| self.bytes.as_deref().map(codec::decode).transpose());
            self.document = read
                .map_err(|Panicked| EngineError::Panicked { event: Location::of(event) })?
                .map_err(|reason| EngineError::Document { key: key.to_owned(), reason })?;
            (self.is_read, self.bytes) = (true, None);
        }
        Ok(())
    }
}

impl<P: Projection> Documents<P> {
    pub(super) fn new() -> Self {
        Self { drafts: HashMap::new(), written: 0, largest: 0, fresh: 0 }
    }

    /// Adds what the store has under each key.
    pub(super) fn add(&mut self, stored: impl IntoIterator<Item = (String, Option<Bytes>)>) {
        for (key, bytes) in stored {
            let loaded = bytes.as_ref().map_or(0, Bytes::len);
            self.largest = self.largest.max(loaded);
            let draft = Draft { bytes, document: None, is_read: false, is_folded: false, loaded, written: 0 };
            self.drafts.insert(key, draft);
        }
    }

    /// What the store has handed over of the documents under `keys`, in bytes.
    pub(super) fn loaded(&self, keys: &[String]) -> usize {
        keys.iter().filter_map(|key| self.drafts.get(key)).map(|draft| draft.loaded).sum()
    }

    /// Reads the document under `key` for `event`; `false` when it was not loaded. As long as not all documents of an
    /// event are read, none of them may be folded: an event is folded whole or not at all.
    pub(super) fn read(&mut self, key: &str, event: &Recorded<P::Event>) -> Result<bool, EngineError> {
        let Some(draft) = self.drafts.get_mut(key) else { return Ok(false) };
        draft.read(key, event)?;
        Ok(true)
    }

    /// Folds `event` into the document under `key`, which was loaded. After a failure it may hold half of the event.
    pub(super) fn fold(&mut self, projection: &P, key: &str, event: &Recorded<P::Event>) -> Result<(), EngineError> {
        let Some(draft) = self.drafts.get_mut(key) else { return Ok(()) };
        // It may have been written out since.
        draft.read(key, event)?;
        self.fresh += usize::from(!draft.is_folded);
        draft.is_folded = true;
        caught(|| fold(projection, key, &mut draft.document, event))
            .map_err(|Panicked| EngineError::Panicked { event: Location::of(event) })?
    }

    /// Writes out what was folded, and keeps the bytes alone. A panic names `first`, the event with which the part
    /// begins.
    pub(super) fn write(&mut self, first: &Location) -> Result<(), EngineError> {
        for (key, draft) in self.drafts.iter_mut().filter(|(_, draft)| draft.is_folded && draft.is_read) {
            let document = draft.document.as_ref();
            let written = caught(|| document.map(|document| encode::<P>(key, document)).transpose())
                .map_err(|Panicked| EngineError::Panicked { event: first.clone() })??;
            (draft.bytes, draft.document, draft.is_read) = (written, None, false);
            self.written -= draft.written;
            draft.written = key.len() + draft.bytes.as_ref().map_or(0, Bytes::len);
            self.written += draft.written;
            self.largest = self.largest.max(draft.written);
        }
        self.fresh = 0;
        Ok(())
    }

    /// Whether the size of any document is known.
    pub(super) fn is_any_size_known(&self) -> bool {
        self.largest > 0
    }

    /// How many bytes there would be if each document that was never written out were as large as the largest.
    pub(super) fn expected(&self) -> usize {
        self.written.saturating_add(self.largest.saturating_mul(self.fresh))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.drafts.len()
    }

    /// What was folded and written out, in the order of the keys: two commits lock rows in the same order.
    pub(super) fn into_handled(self, done: usize, failure: Option<EngineError>) -> Handled {
        let mut handled = Handled { done, failure, ..Handled::default() };
        for (key, draft) in self.drafts.into_iter().filter(|(_, draft)| draft.is_folded) {
            match draft.bytes {
                Some(bytes) => handled.upserts.push((key, bytes)),
                None => handled.deletes.push(key),
            }
        }
        handled.upserts.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        handled.deletes.sort_unstable();
        handled
    }
}
