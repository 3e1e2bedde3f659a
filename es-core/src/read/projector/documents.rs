//! The documents that a part of a batch touches, from the stored bytes and back. They stay for the next part, as values.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    mem,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{
    encode, fields, fold,
    unique::{UniqueValues, Unsettled},
};
use crate::{
    codec,
    event::Recorded,
    read::{
        engine_error::{EngineError, Location},
        panics::{Panicked, caught},
        projection::Projection,
        read_model::FieldChange,
        worker::Handled,
    },
};

/// About how many bytes a document takes in memory beside its key and its content.
const ENTRY: usize = 256;

/// Documents by their keys.
pub(super) struct Documents<P: Projection> {
    drafts: HashMap<String, Draft<P::Document>>,
    /// About how many bytes they took when the part began, and what was added since.
    bytes: usize,
    /// How many bytes may stay for the next part.
    most: usize,
    /// Whether they were more.
    are_too_many: bool,
    /// Whether all that was folded in the last part is still there.
    has_all: bool,
    /// The keys of those that are folded.
    folded: Vec<String>,
    /// The bytes of the folded documents that were encoded, with their keys.
    pub(super) written: usize,
    /// The size of the largest document, as it was loaded or encoded.
    largest: usize,
    /// How many are folded and were never encoded.
    fresh: usize,
    unique: UniqueValues,
}

struct Draft<D> {
    /// The encoded document: of the store until it is read, and for the next commit while it is written.
    bytes: Option<Bytes>,
    /// With these bytes.
    fields: Vec<FieldChange>,
    document: Option<D>,
    is_read: bool,
    is_folded: bool,
    /// Whether the bytes are those of the document.
    is_written: bool,
    /// How many bytes it has in the store.
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
        Self {
            drafts: HashMap::new(),
            bytes: 0,
            most: 0,
            are_too_many: false,
            has_all: false,
            folded: Vec::new(),
            written: 0,
            largest: 0,
            fresh: 0,
            unique: UniqueValues::default(),
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Self { most: self.most, ..Self::new() };
    }

    /// A part begins, after which `most` bytes may stay in memory.
    pub(super) fn begin(&mut self, most: usize) {
        (self.most, self.written, self.has_all) = (most, 0, false);
    }

    /// Those of `keys` that are not there, each once, in their order.
    pub(super) fn missing<'k>(&self, keys: impl Iterator<Item = &'k String>) -> Vec<String> {
        let mut seen = HashSet::new();
        keys.filter(|key| !self.drafts.contains_key(*key) && seen.insert(key.as_str())).cloned().collect()
    }

    /// Adds what the store has under `key`.
    pub(super) fn add(&mut self, key: String, bytes: Option<Bytes>) {
        let loaded = bytes.as_ref().map_or(0, Bytes::len);
        self.bytes += ENTRY + key.len() + loaded;
        self.largest = self.largest.max(loaded);
        let (fields, document, is_read, is_folded, is_written) = (Vec::new(), None, false, false, false);
        let mut draft = Draft { bytes, fields, document, is_read, is_folded, is_written, loaded, written: 0 };
        if UniqueValues::are_declared::<P>() {
            self.learn(&key, &mut draft);
        }
        self.drafts.insert(key, draft);
    }

    /// Knows the values of unique fields in a document before the first event that touches it. What cannot be decoded fails then.
    fn learn(&mut self, key: &str, draft: &mut Draft<P::Document>) {
        let read = caught(|| {
            let document = draft.bytes.as_deref().map(codec::decode).transpose().ok()?;
            let values = UniqueValues::in_document::<P>(document.as_ref());
            Some((document, values))
        });
        if let Ok(Some((document, values))) = read {
            (draft.document, draft.is_read, draft.bytes) = (document, true, None);
            self.unique.learn(key, values);
        }
    }

    /// Checks the unique fields of the documents under `keys`, which have `event` now.
    ///
    /// # Errors
    /// The key of the document that failed.
    pub(super) fn settle(&mut self, keys: &[String], event: &Recorded<P::Event>) -> Result<(), Unsettled> {
        if !UniqueValues::are_declared::<P>() {
            return Ok(());
        }
        let mut documents = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(draft) = self.drafts.get(key) else { continue };
            let values = caught(|| {
                if draft.is_read {
                    UniqueValues::in_document::<P>(draft.document.as_ref())
                } else {
                    UniqueValues::in_changes(&draft.fields)
                }
            });
            let panicked = |_: Panicked| (key.clone(), Box::new(EngineError::Panicked { event: Location::of(event) }));
            documents.push((key.as_str(), values.map_err(panicked)?));
        }
        self.unique.settle(event, documents)
    }

    /// How many bytes the documents under `keys` have in the store.
    pub(super) fn loaded(&self, keys: &[String]) -> usize {
        keys.iter().filter_map(|key| self.drafts.get(key)).map(|draft| draft.loaded).sum()
    }

    /// Decodes the document under `key` for `event`; `false` when it was not loaded. No document of an event may be folded before
    /// all of them are decoded: an event is folded whole or not at all.
    pub(super) fn read(&mut self, key: &str, event: &Recorded<P::Event>) -> Result<bool, EngineError> {
        let Some(draft) = self.drafts.get_mut(key) else { return Ok(false) };
        draft.read(key, event)?;
        Ok(true)
    }

    /// Folds `event` into the document under `key`, which was loaded, in no more than `limit`. After a failure it may hold half of
    /// the event.
    pub(super) fn fold(
        &mut self,
        projection: &P,
        key: &str,
        event: &Recorded<P::Event>,
        limit: Duration,
    ) -> Result<(), EngineError> {
        let Some(draft) = self.drafts.get_mut(key) else { return Ok(()) };
        // It may have been encoded since.
        draft.read(key, event)?;
        draft.bytes = None;
        draft.is_written = false;
        if !mem::replace(&mut draft.is_folded, true) {
            self.fresh += 1;
            self.folded.push(key.to_owned());
        }
        let began = (limit < Duration::MAX).then(Instant::now);
        caught(|| fold(projection, key, &mut draft.document, event))
            .map_err(|Panicked| EngineError::Panicked { event: Location::of(event) })??;
        match began.map(|began| began.elapsed()).filter(|took| *took > limit) {
            Some(took) => Err(EngineError::TooSlow { event: Location::of(event), took, limit }),
            None => Ok(()),
        }
    }

    /// Encodes the folded documents. If all are too many to stay, it keeps only the bytes. A panic names `first`, the first event of
    /// the part.
    pub(super) fn write(&mut self, first: &Location) -> Result<(), EngineError> {
        self.are_too_many |= self.bytes + self.written > self.most;
        for key in &self.folded {
            let Some(draft) = self.drafts.get_mut(key).filter(|draft| !draft.is_written) else { continue };
            let document = draft.document.as_ref();
            let written = caught(|| -> Result<_, EngineError> {
                let encoded = document.map(|document| encode::<P>(key, document)).transpose()?;
                Ok((encoded, fields::<P>(key, document)?))
            });
            let written = written.map_err(|Panicked| EngineError::Panicked { event: first.clone() })?;
            (draft.bytes, draft.fields) = written?;
            draft.is_written = true;
            if self.are_too_many {
                (draft.document, draft.is_read) = (None, false);
            }
            self.written -= draft.written;
            let fields = draft.fields.iter().filter_map(|change| change.value.as_ref()).map(|value| value.text.len());
            draft.written = key.len() + draft.bytes.as_ref().map_or(0, Bytes::len) + fields.sum::<usize>();
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

    /// How many bytes there would be if each document that was never encoded were as large as the largest one.
    pub(super) fn expected(&self) -> usize {
        self.written.saturating_add(self.largest.saturating_mul(self.fresh))
    }

    /// Whether the documents of the last part stay, with all that it has folded.
    pub(super) fn has_all_that_was_folded(&self) -> bool {
        self.has_all
    }

    /// How many are folded.
    pub(super) fn folded(&self) -> usize {
        self.folded.len()
    }

    /// What is written of the folded documents, in the order of the keys, so that two commits lock rows in the same order. The
    /// documents stay, unless they are too many.
    pub(super) fn handled(&mut self, done: usize, failure: Option<EngineError>) -> Handled {
        let mut handled = Handled { done, failure, ..Handled::default() };
        let mut folded = mem::take(&mut self.folded);
        folded.sort_unstable();
        for key in folded {
            let Some(draft) = self.drafts.get_mut(&key) else { continue };
            self.unique.add_passed(&key, &mut draft.fields);
            handled.fields.append(&mut draft.fields);
            let bytes = draft.bytes.take();
            let before = mem::replace(&mut draft.loaded, bytes.as_ref().map_or(0, Bytes::len));
            self.bytes = self.bytes - before + draft.loaded;
            (draft.is_folded, draft.is_written, draft.written) = (false, false, 0);
            match bytes {
                Some(bytes) => handled.upserts.push((key, bytes)),
                None => handled.deletes.push(key),
            }
        }
        self.has_all = true;
        // Unique values are compared with those in memory: with all of a part, or with none of it.
        if self.are_too_many || self.bytes > self.most || UniqueValues::are_declared::<P>() {
            self.clear();
        }
        handled
    }
}
