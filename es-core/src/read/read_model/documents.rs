//! The port to documents, for queries.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    error::ReadModelError,
    fields::{FieldScan, FoundDocument, StoredDocument},
    generations::{Generation, GenerationSet},
    reader::Reader,
};
use crate::read::{cursor::Cursor, known_progress::KnownProgress};

/// Reads the documents of read models and the positions that they have reached: what queries need.
///
/// # Cancel safety
/// Dropping the future of any call changes nothing.
#[async_trait]
pub trait Documents: fmt::Debug + Send + Sync + 'static {
    /// The document under `key` in the generation that serves `projection` at this moment, with that
    /// generation; `None` where none serves.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn get(&self, projection: &str, key: &str) -> Result<Option<Served<Option<Bytes>>>, ReadModelError>;

    /// Documents of the serving generation whose keys lie in `range`, in byte order of the keys, with
    /// that generation; `None` where none serves. All are of one moment.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn scan(
        &self,
        projection: &str,
        range: KeyRange,
        limit: usize,
    ) -> Result<Option<Served<Vec<(String, Bytes)>>>, ReadModelError>;

    /// Documents of the serving generation that `scan` covers, in its order, with that generation; `None` where none serves. All
    /// are of one moment. What was found is `None` where the generation was folded without this field, or with one of another kind.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn find(
        &self,
        projection: &str,
        scan: &FieldScan,
        limit: usize,
    ) -> Result<Option<Served<Option<Vec<FoundDocument>>>>, ReadModelError>;

    /// How many documents `scan` covers; otherwise as [`find`](Self::find).
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn count(&self, projection: &str, scan: &FieldScan) -> Result<Option<Served<Option<u64>>>, ReadModelError>;

    /// The documents under the first of `keys` in the generation `reader`, in the order of `keys`: all of them, or as many
    /// as hold `budget` bytes together, including the one with which they reach it. No more than that is loaded into memory
    /// (R17).
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn load(&self, reader: &Reader, keys: &[String], budget: usize)
    -> Result<Vec<Option<Bytes>>, ReadModelError>;

    /// What is stored under each of `keys` in the generation `reader`, in the order of `keys`, all of one moment. It is for audits: the
    /// caller asks for few documents at a time.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn stored(&self, reader: &Reader, keys: &[String]) -> Result<Vec<StoredDocument>, ReadModelError>;

    /// The generations of `projection` and the position that each has reached, all at one moment: a promotion is seen as a
    /// whole or not at all.
    ///
    /// # Errors
    /// [`ReadModelError`].
    async fn generations(&self, projection: &str) -> Result<GenerationSet, ReadModelError>;

    /// The read models for which callers wait: the same one for all clones of the store. The store tells it after each
    /// [commit](super::Leases::commit) and promotion that a read model has [moved](KnownProgress::moved).
    fn known_progress(&self) -> &KnownProgress;
}

#[async_trait]
impl<T: Documents + ?Sized> Documents for Arc<T> {
    async fn get(&self, projection: &str, key: &str) -> Result<Option<Served<Option<Bytes>>>, ReadModelError> {
        (**self).get(projection, key).await
    }

    async fn scan(
        &self,
        projection: &str,
        range: KeyRange,
        limit: usize,
    ) -> Result<Option<Served<Vec<(String, Bytes)>>>, ReadModelError> {
        (**self).scan(projection, range, limit).await
    }

    async fn find(
        &self,
        projection: &str,
        scan: &FieldScan,
        limit: usize,
    ) -> Result<Option<Served<Option<Vec<FoundDocument>>>>, ReadModelError> {
        (**self).find(projection, scan, limit).await
    }

    async fn count(&self, projection: &str, scan: &FieldScan) -> Result<Option<Served<Option<u64>>>, ReadModelError> {
        (**self).count(projection, scan).await
    }

    async fn load(
        &self,
        reader: &Reader,
        keys: &[String],
        budget: usize,
    ) -> Result<Vec<Option<Bytes>>, ReadModelError> {
        (**self).load(reader, keys, budget).await
    }

    async fn stored(&self, reader: &Reader, keys: &[String]) -> Result<Vec<StoredDocument>, ReadModelError> {
        (**self).stored(reader, keys).await
    }

    async fn generations(&self, projection: &str) -> Result<GenerationSet, ReadModelError> {
        (**self).generations(projection).await
    }

    fn known_progress(&self) -> &KnownProgress {
        (**self).known_progress()
    }
}

/// What was read, and its generation, both at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served<T> {
    /// The generation that served it.
    pub generation: Generation,
    /// What was found in it.
    pub found: T,
}

/// A range of keys in byte order: those that start with `prefix` and come after `after`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// What the keys start with.
    pub prefix: String,
    /// The key after which the range starts: a cursor. It need not start with `prefix`.
    pub after: Option<String>,
    /// The first key that no longer belongs to the range.
    pub before: Option<String>,
    /// The only generation (the [id](Reader::id) of its reader) in which the range may be read: that of the page before.
    pub generation: Option<i64>,
}

impl KeyRange {
    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// The part of it after `key`.
    pub fn after(self, key: impl Into<String>) -> Self {
        Self { after: Some(key.into()), ..self }
    }

    /// The part of it before `key`.
    pub fn before(self, key: impl Into<String>) -> Self {
        Self { before: Some(key.into()), ..self }
    }

    /// The part of it after the page that returned `cursor`, in the same generation.
    pub fn resume(self, cursor: Cursor) -> Self {
        Self { after: Some(cursor.key), generation: Some(cursor.generation), ..self }
    }

    /// The least text that is greater than each of its keys; `None` if there is no such text.
    pub fn end(&self) -> Option<String> {
        match (end_of_prefix(&self.prefix), &self.before) {
            (Some(end), Some(before)) => Some(end.min(before.clone())),
            (end, before) => end.or_else(|| before.clone()),
        }
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
            && self.after.as_deref().is_none_or(|after| key > after)
            && self.before.as_deref().is_none_or(|before| key < before)
    }
}

/// The least text that is greater than each text that starts with `prefix`; `None` if there is no such text. UTF-8 has
/// the same order by bytes and by characters.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // A range of characters, not a sum: it leaves out the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_before_the_next_text_that_does_not_start_with_its_prefix() {
        let end = |prefix: &str| KeyRange::prefix(prefix).end();
        assert_eq!(end("order-"), Some("order.".into()));
        assert_eq!(end("a\u{D7FF}"), Some("a\u{E000}".into()));
        assert_eq!(end("a\u{10FFFF}"), Some("b".into()));
        assert_eq!(end("\u{10FFFF}"), None);
        assert_eq!(end(""), None);
        assert_eq!(KeyRange::prefix("b").before("bx").end(), Some("bx".into()));
        assert_eq!(KeyRange::prefix("b").before("d").end(), Some("c".into()));
        assert_eq!(KeyRange::default().before("d").end(), Some("d".into()));
    }
}
