//! The documents that were read last, with a limit in bytes.

use std::sync::Arc;

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle, PlaceholderGuard},
};
use serde::Serialize;

use super::merged::End;
use crate::{
    read::panics::caught,
    stream::{Position, Version},
};

/// How many bytes the cached documents may have.
pub(super) const BYTES: u64 = 64 * 1024 * 1024;

/// The bytes that a document takes in the cache beside itself and its key.
const OVERHEAD_BYTES: u64 = 256;

/// The number of parts of the cache, so that few callers wait for each other. A document that is larger than a part is not cached.
const PARTS: usize = 8;

/// A document, and which events it is the fold of.
#[derive(Debug, Clone)]
pub(super) struct Folded<D> {
    pub(super) document: Option<D>,
    /// How far each place of its events was read.
    pub(super) ends: Vec<Option<End>>,
    /// Of how many events it is the fold.
    pub(super) events: u64,
    /// The position of the last of these.
    pub(super) position: Position,
}

impl<D> Default for Folded<D> {
    fn default() -> Self {
        Self { document: None, ends: Vec::new(), events: 0, position: Position::ZERO }
    }
}

impl<D> Folded<D> {
    /// The version of its stream, if its events are those of one.
    pub(super) fn version(&self) -> Version {
        self.ends.first().copied().flatten().map_or(Version::ZERO, |end| end.version)
    }
}

#[derive(Debug)]
pub(super) struct Kept<D> {
    folded: Arc<Folded<D>>,
    /// The bytes of the document as JSON.
    bytes: usize,
}

impl<D> Clone for Kept<D> {
    fn clone(&self) -> Self {
        Self { folded: self.folded.clone(), bytes: self.bytes }
    }
}

impl<D: Serialize> Kept<D> {
    /// `None` where the document cannot be written as JSON: its size is not known, so it is not cached.
    fn of(folded: Folded<D>) -> Option<Self> {
        let bytes = caught(|| serde_json::to_vec(&folded.document).map(|text| text.len())).ok()?.ok()?;
        Some(Self { folded: Arc::new(folded), bytes })
    }
}

#[derive(Debug, Clone)]
pub(super) struct ByWeight;

impl<D> Weighter<String, Kept<D>> for ByWeight {
    fn weight(&self, key: &String, kept: &Kept<D>) -> u64 {
        (key.len() + kept.bytes) as u64 + OVERHEAD_BYTES
    }
}

pub(super) struct Documents<D>(Cache<String, Kept<D>, ByWeight>);

/// The place of a document that one caller folds, while the others wait for it.
pub(super) struct Vacancy<'a, D>(
    PlaceholderGuard<'a, String, Kept<D>, ByWeight, DefaultHashBuilder, DefaultLifecycle<String, Kept<D>>>,
);

impl<D: Serialize> Vacancy<'_, D> {
    pub(super) fn fill(self, folded: Folded<D>) {
        if let Some(kept) = Kept::of(folded) {
            // A document that is too large for the cache is no error.
            let _ = self.0.insert(kept);
        }
    }
}

impl<D: Serialize> Documents<D> {
    pub(super) fn new(bytes: u64) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(bytes / 1_024).unwrap_or(usize::MAX).max(1))
            .weight_capacity(bytes)
            .shards(PARTS)
            .build()
            .expect("both capacities are given");
        let (hash, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self(Cache::with_options(options, ByWeight, hash, lifecycle))
    }

    /// The cached document under `key`, or its place.
    pub(super) async fn get_or_place(&self, key: &str) -> Result<Arc<Folded<D>>, Vacancy<'_, D>> {
        self.0.get_value_or_guard_async(key).await.map(|kept| kept.folded).map_err(Vacancy)
    }

    pub(super) fn put(&self, key: &str, folded: Folded<D>) {
        if let Some(kept) = Kept::of(folded) {
            self.0.insert(key.to_owned(), kept);
        }
    }

    #[cfg(test)]
    pub(super) fn peek(&self, key: &str) -> Option<Arc<Folded<D>>> {
        self.0.peek(key).map(|kept| kept.folded)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.weight()
    }
}
