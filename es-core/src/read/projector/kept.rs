//! The documents of the last commits: while a worker has its lease nothing else writes them, so they need not be loaded again.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::documents::Documents;
use crate::{
    read::{
        projection::Projection,
        read_model::Shard,
        worker::{Events, Handled},
    },
    stream::Position,
};

/// What is kept of each shard.
pub(super) struct KeptDocuments<P: Projection>(Mutex<HashMap<Shard, Kept<P>>>);

/// The documents of a shard as they are in the store.
pub(super) struct Kept<P: Projection> {
    reader: i64,
    fencing_token: i64,
    /// The last event that was handled. A worker that continues before it could not commit that.
    at: Position,
    /// Nothing was kept before.
    pub(super) is_new: bool,
    pub(super) documents: Documents<P>,
}

impl<P: Projection> KeptDocuments<P> {
    /// What is known for `events`; nothing that is older than their lease, or that was not committed. It is taken out: what is
    /// dropped in the middle of its work leaves nothing. All shards together keep about `most` bytes.
    pub(super) fn take(&self, events: &Events<'_>, most: usize) -> Kept<P> {
        let mut shards = self.shards();
        let kept = shards.remove(events.shard).filter(|kept| {
            kept.reader == events.lease.reader.id
                && kept.fencing_token == events.lease.fencing_token
                && kept.at <= events.after
                // The letters of one key are handled without a new position.
                && events.course.only.is_none()
        });
        let mut kept = kept.unwrap_or_else(|| Kept {
            reader: events.lease.reader.id,
            fencing_token: events.lease.fencing_token,
            at: events.after,
            is_new: true,
            documents: Documents::new(),
        });
        kept.documents.begin(most / (shards.len() + 1));
        kept
    }

    /// Keeps the documents with what `handled` is going to write.
    pub(super) fn put(&self, events: &Events<'_>, mut kept: Kept<P>, handled: &Handled) {
        if events.course.only.is_none() {
            kept.is_new = false;
            kept.at = handled.done.checked_sub(1).map_or(kept.at, |last| events.list[last].position);
            self.shards().insert(events.shard.clone(), kept);
        }
    }

    pub(super) fn forget(&self, shard: &Shard) {
        self.shards().remove(shard);
    }

    fn shards(&self) -> MutexGuard<'_, HashMap<Shard, Kept<P>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Projection> Default for KeptDocuments<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// It shows no documents.
impl<P: Projection> fmt::Debug for KeptDocuments<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptDocuments").finish_non_exhaustive()
    }
}
