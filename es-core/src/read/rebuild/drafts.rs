//! The documents of a generation that is being built, as values in memory.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use indexmap::IndexMap;

use crate::{
    codec,
    event::Recorded,
    read::{
        engine_error::EngineError,
        projection::Projection,
        projector::{encode, fields, fold, unique::UniqueValues},
        read_model::FieldChange,
    },
};

/// One of so many folds measures the size of its document. A prime number: an event mostly touches fewer documents, so the measured
/// folds are those of all of them in turn.
const MEASURED: u64 = 61;

/// Each of the first folds measures it.
const MEASURED_FIRST: u64 = 16;

/// About how many bytes an allocation takes beside its content.
const ALLOCATION: usize = 16;

/// About how many bytes the place of a document takes in the table of keys.
const PLACE: usize = 10;

/// About how many bytes a value of a unique field takes.
const ENTRY: usize = 64;

/// Documents by their keys, and about how many bytes they are when they are written.
pub(super) struct Drafts<P: Projection> {
    /// They can be put in order where they are, and take less memory than in a `HashMap`.
    by_key: IndexMap<String, Draft<P::Document>>,
    /// The sizes of those that are to be written, and how many they are.
    changed: usize,
    changed_documents: usize,
    /// The sizes of all.
    all: usize,
    folds: u64,
    /// The mean size of a document with its key, of those measured last.
    mean: usize,
    unique: UniqueValues,
}

struct Draft<D> {
    document: Option<D>,
    /// Whether it was folded since it was written.
    is_changed: bool,
    /// Its size with its key and its fields when it was loaded, measured or written last; of a new one, that of the others.
    size: usize,
    /// The size of its fields when they were told last.
    fields: usize,
}

/// What is written of a document.
pub(super) struct Written {
    pub(super) key: String,
    /// With key and fields.
    pub(super) bytes: usize,
    pub(super) fields: Vec<FieldChange>,
    pub(super) document: Option<Bytes>,
}

/// How many bytes are written of `fields`, each with the key of its document.
pub(super) fn field_bytes(fields: &[FieldChange]) -> usize {
    let text =
        |change: &FieldChange| change.value.iter().chain(&change.passed).map(|value| value.text.len()).sum::<usize>();
    fields.iter().map(|change| change.key.len() + text(change)).sum()
}

impl<P: Projection> Drafts<P> {
    pub(super) fn new() -> Self {
        let (by_key, unique) = (IndexMap::new(), UniqueValues::default());
        Self { by_key, changed: 0, changed_documents: 0, all: 0, folds: 0, mean: 0, unique }
    }

    /// Forgets all documents, but not how large they were.
    pub(super) fn forget(&mut self) {
        let Self { folds, mean, .. } = *self;
        *self = Self { folds, mean, ..Self::new() };
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// Adds what the store has under `key`, which is not there yet.
    pub(super) fn add(&mut self, key: String, stored: Option<&Bytes>) -> Result<(), EngineError> {
        let document = stored.map(|stored| codec::decode(stored)).transpose();
        let document = document.map_err(|reason| EngineError::Document { key: key.clone(), reason })?;
        // One that is not there yet will be as large as the others.
        let size = stored.map_or(self.mean, |stored| key.len() + stored.len());
        self.all += size;
        if UniqueValues::are_declared::<P>() {
            self.unique.learn(&key, UniqueValues::in_document::<P>(document.as_ref()));
        }
        self.by_key.insert(key, Draft { document, is_changed: false, size, fields: 0 });
        Ok(())
    }

    /// Folds `event` into the document under `key`. One that was not added does not exist.
    pub(super) fn fold(&mut self, projection: &P, key: &str, event: &Recorded<P::Event>) -> Result<(), EngineError> {
        let draft = if let Some(draft) = self.by_key.get_mut(key) {
            draft
        } else {
            self.all += self.mean;
            let draft = Draft { document: None, is_changed: false, size: self.mean, fields: 0 };
            self.by_key.entry(key.to_owned()).or_insert(draft)
        };
        fold(projection, key, &mut draft.document, event)?;
        if !std::mem::replace(&mut draft.is_changed, true) {
            self.changed += draft.size;
            self.changed_documents += 1;
        }
        self.folds += 1;
        if self.folds <= MEASURED_FIRST || self.folds.is_multiple_of(MEASURED) {
            let document = draft.document.as_ref();
            // If it cannot be written now, the next event may change that.
            let size = document.and_then(|document| encode::<P>(key, document).ok()).map_or(0, |bytes| bytes.len());
            draft.fields = fields::<P>(key, document).map_or(0, |fields| field_bytes(&fields));
            let measured = key.len() + size + draft.fields;
            self.all = self.all - draft.size + measured;
            self.changed = self.changed - draft.size + measured;
            draft.size = measured;
            self.mean = if self.folds == 1 { measured } else { (self.mean * 15 + measured) / 16 };
        }
        Ok(())
    }

    /// About how many bytes are to be written. Documents may have grown since each of them was measured, and the mean grows with them.
    pub(super) fn changed_bytes(&self) -> usize {
        self.changed.max(self.mean * self.changed_documents)
    }

    /// How many are to be written.
    pub(super) fn changed_documents(&self) -> usize {
        self.changed_documents
    }

    /// About how many bytes all of them are in memory.
    pub(super) fn bytes(&self) -> usize {
        let places = self.by_key.capacity() * (size_of::<(u64, String, Draft<P::Document>)>() + PLACE);
        let contents = self.all.max(self.mean * self.by_key.len());
        contents + places + self.by_key.len() * ALLOCATION + self.unique.len() * ENTRY
    }

    /// Puts them in the order of their keys, in which they are written: two commits lock rows in the same order.
    pub(super) fn sort(&mut self) {
        self.by_key.sort_unstable_keys();
    }

    pub(super) fn count(&self) -> usize {
        self.by_key.len()
    }

    /// Checks the unique fields of the documents under `keys`, which have `event` now.
    pub(super) fn settle(&mut self, keys: &[String], event: &Recorded<P::Event>) -> Result<(), EngineError> {
        if !UniqueValues::are_declared::<P>() {
            return Ok(());
        }
        let document = |key: &String| self.by_key.get(key).and_then(|draft| draft.document.as_ref());
        let documents = keys.iter().map(|key| (key.as_str(), UniqueValues::in_document::<P>(document(key)))).collect();
        self.unique.settle(event, documents).map_err(|(_, error)| *error)
    }

    /// What is written of the document in this place of the order, if it was folded since it was written: its key, its fields, and the
    /// document itself, or `None` if it is to be deleted.
    pub(super) fn write(&mut self, place: usize) -> Result<Option<Written>, EngineError> {
        let Some((key, draft)) = self.by_key.get_index_mut(place).filter(|(_, draft)| draft.is_changed) else {
            return Ok(None);
        };
        let mut fields = fields::<P>(key, draft.document.as_ref())?;
        self.unique.add_passed(key, &mut fields);
        let document = draft.document.as_ref().map(|document| encode::<P>(key, document)).transpose()?;
        draft.is_changed = false;
        self.changed_documents -= 1;
        self.changed -= draft.size;
        self.all -= draft.size;
        draft.fields = field_bytes(&fields);
        draft.size = key.len() + document.as_ref().map_or(0, Bytes::len) + draft.fields;
        self.all += draft.size;
        Ok(Some(Written { key: key.clone(), bytes: draft.size, fields, document }))
    }
}
