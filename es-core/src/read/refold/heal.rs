//! Mending documents that are not the fold of the log.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Place, Refold, RefoldError,
    verify::{DOCUMENTS, Difference, Verified, drifted_in, is_same, progress, verify},
};
use crate::{
    inspect::{Inspect, ReaderSummary},
    read::{
        engine_error::EngineError,
        projection::Projection,
        projector::{self, Projector},
        read_model::{Act, Changes, Lease, ReadModelStore, Reader, Shard, Slice, StoredDocument, Takeover},
    },
};

/// How many documents are mended at most. A read model of which more are wrong is to be rebuilt.
const MOST: usize = 1_000;

/// How long the leases last if the process is killed.
const LEASE: Duration = Duration::from_secs(5);

/// About how many events are folded at most while a lease is held: those that the worker has handled since the last look.
const CLOSE: u64 = 1_000;

/// How often the fold beside the worker goes on. Each time it has to do only what the worker did meanwhile, which is less and less:
/// a fold in memory is faster than a worker.
const ROUNDS: usize = 20;

/// How long partitions may take to reach the same position, and how often that is looked for.
const LEVEL_WITHIN: Duration = Duration::from_secs(2);
const LEVEL_EVERY: Duration = Duration::from_millis(10);

/// Verifies, and then writes the documents that differ as they follow from the log, with a record of `act` for each of them in the
/// same commit.
///
/// The log is folded beside the workers, but for the last events before the checkpoint of a shard. For these it takes the lease of
/// the shard: its worker is fenced, and continues afterwards. So nothing moves between the last look at the log and a commit, and a
/// commit is refused if an operator has skipped an event meanwhile. Shards of the log are mended one after the other, so it does not
/// matter how far apart they are. Which keys a partition has is not known: then all leases are taken, at a moment at which all
/// partitions have reached the same position.
pub(crate) async fn heal<P: Projection>(
    projection: &P,
    place: Place<'_>,
    readers: &dyn Inspect,
    act: &Act,
    report: &mut (dyn FnMut(Difference) + Send),
) -> Result<Verified, RefoldError> {
    let (log, store) = (place.log, place.store);
    let mut keys = BTreeSet::new();
    let mut note = |difference: Difference| {
        // One more tells that there are too many.
        if keys.len() <= MOST {
            keys.insert(difference.key.clone());
        }
        report(difference);
    };
    let mut verified = verify(projection, place, &mut note).await?;
    if keys.len() > MOST {
        return Err(RefoldError::TooManyDiffer { most: MOST });
    }
    if keys.is_empty() {
        return Ok(verified);
    }
    let reader = verified.generation.reader.clone();
    let mut refold = Refold::new(projection, log, |key| keys.contains(key));
    refold.go_to(progress(store, &verified.generation).await?.reached, store, &reader).await?;
    let mending = Mending { store, readers, reader, keys: &keys, act };
    for (group, keys) in mending.groups().await? {
        // From where all shards are, since another one may be behind for as long as it takes.
        let mut refold = refold.aside(keys.clone(), &refold.exceptions);
        verified.mended += mending.mend_group(&group, keys, &mut refold).await?;
    }
    Ok(verified)
}

struct Mending<'a> {
    store: &'a dyn ReadModelStore,
    readers: &'a dyn Inspect,
    reader: Reader,
    keys: &'a BTreeSet<String>,
    act: &'a Act,
}

impl Mending<'_> {
    /// The shards whose documents are to be mended, those that must be mended together, and the keys of these documents.
    async fn groups(&self) -> Result<Vec<(Vec<Shard>, BTreeSet<String>)>, RefoldError> {
        let shards: Vec<_> = self.summary().await?.shards.into_iter().map(|found| found.shard).collect();
        if shards.iter().any(|shard| shard.slice() == Slice::ALL) {
            return Ok(vec![(shards, self.keys.clone())]);
        }
        let with_keys = |shard: Shard| {
            let keys = self.keys.iter().filter(|key| shard.slice().holds(key)).cloned().collect();
            (vec![shard], keys)
        };
        Ok(shards.into_iter().map(with_keys).filter(|(_, keys): &(_, BTreeSet<_>)| !keys.is_empty()).collect())
    }

    async fn summary(&self) -> Result<ReaderSummary, RefoldError> {
        let readers = self.readers.list_readers().await?;
        readers.into_iter().find(|found| found.reader == self.reader).ok_or(RefoldError::Replaced)
    }

    /// Mends the documents under `keys`, those of the shards in `group`, and returns how many were written.
    async fn mend_group<P: Projection>(
        &self,
        group: &[Shard],
        keys: BTreeSet<String>,
        refold: &mut Refold<'_, P>,
    ) -> Result<u64, RefoldError> {
        self.come_close(group, refold).await?;
        let (owner, mut leases) = (Uuid::now_v7(), Vec::with_capacity(group.len()));
        let mut mended = Ok(0);
        for shard in group {
            match self.store.acquire(&self.reader, shard, owner, Takeover::Always, LEASE).await {
                Ok(Some(lease)) => leases.push(lease),
                Ok(None) => mended = Err(RefoldError::Replaced),
                Err(error) => mended = Err(error.into()),
            }
        }
        if mended.is_ok() {
            mended = self.mend(&leases, keys, refold).await;
        }
        for lease in &leases {
            if let Err(error) = self.store.release(lease).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(shard = %lease.shard, error, "cannot release the lease; it will expire");
            }
        }
        mended
    }

    /// Folds up to where the workers of the shards in `group` are, or almost, while they go on.
    async fn come_close<P: Projection>(&self, group: &[Shard], refold: &mut Refold<'_, P>) -> Result<(), RefoldError> {
        let began = Instant::now();
        let mut rounds = 0;
        while rounds < ROUNDS {
            let shards = self.summary().await?.shards;
            let positions = || shards.iter().filter(|found| group.contains(&found.shard)).map(|found| found.position);
            let (Some(least), Some(greatest)) = (positions().min(), positions().max()) else {
                return Err(RefoldError::Replaced);
            };
            if least < greatest {
                if began.elapsed() >= LEVEL_WITHIN {
                    return Err(RefoldError::Uneven { least, greatest });
                }
                sleep(LEVEL_EVERY).await;
                continue;
            }
            if least.get().saturating_sub(refold.at.get()) <= CLOSE {
                return Ok(());
            }
            refold.go_to(least, self.store, &self.reader).await?;
            rounds += 1;
        }
        Err(RefoldError::TooFast)
    }

    /// Mends the documents under `keys`, those of the shards of `leases`.
    async fn mend<P: Projection>(
        &self,
        leases: &[Lease],
        mut keys: BTreeSet<String>,
        refold: &mut Refold<'_, P>,
    ) -> Result<u64, RefoldError> {
        let positions = || leases.iter().map(|lease| lease.checkpoint.position);
        let (Some(least), Some(greatest), Some(first)) = (positions().min(), positions().max(), leases.first()) else {
            return Ok(0);
        };
        if least < greatest {
            return Err(RefoldError::Uneven { least, greatest });
        }
        if least.get().saturating_sub(refold.at.get()) > 2 * CLOSE {
            return Err(RefoldError::TooFast);
        }
        refold.go_to(least, self.store, &self.reader).await?;
        keys.retain(|key| refold.is_settled(key) && !refold.ended.contains_key(key));
        self.mend_shard(refold, first, keys.into_iter().collect()).await
    }

    /// Mends the documents under `keys`, which belong to the shard of `lease`.
    async fn mend_shard<P: Projection>(
        &self,
        refold: &Refold<'_, P>,
        lease: &Lease,
        mut keys: Vec<String>,
    ) -> Result<u64, RefoldError> {
        let none = || Changes { checkpoint: lease.checkpoint.clone(), ..Changes::default() };
        let (mut changes, mut bytes, mut mended) = (none(), 0, 0);
        while !keys.is_empty() {
            let stored = self.load::<P>(&lease.reader, &keys).await?;
            for (key, stored) in keys.drain(..stored.len()).zip(stored) {
                let folded = refold.document(&key);
                if is_same::<P>(stored.document.as_deref(), folded) && drifted_in::<P>(&key, &stored)?.is_empty() {
                    continue;
                }
                changes.fields.extend(projector::fields::<P>(&key, folded)?);
                match refold.encoded(&key)? {
                    Some(document) => {
                        bytes += key.len() + document.len();
                        changes.upserts.push((key, document));
                    }
                    None => changes.deletes.push(key),
                }
                mended += 1;
            }
            let is_due = keys.is_empty() || bytes >= Projector::<P>::DEFAULT_DOCUMENT_BYTES;
            if is_due && !(changes.upserts.is_empty() && changes.deletes.is_empty()) {
                let changes = std::mem::replace(&mut changes, none());
                bytes = 0;
                let healed = Changes { healed_by: Some(self.act.clone()), ..changes };
                self.store.commit(lease, healed).await.map_err(EngineError::from)?;
            }
        }
        Ok(mended)
    }
    /// What is stored under the first of `keys`. Values of fields are read only where there are some.
    async fn load<P: Projection>(&self, reader: &Reader, keys: &[String]) -> Result<Vec<StoredDocument>, RefoldError> {
        if !P::FIELDS.is_empty() {
            return Ok(self.store.stored(reader, &keys[..keys.len().min(DOCUMENTS)]).await?);
        }
        let documents = self.store.load(reader, keys, Projector::<P>::DEFAULT_DOCUMENT_BYTES).await?;
        Ok(documents.into_iter().map(|document| StoredDocument { document, ..StoredDocument::default() }).collect())
    }
}
