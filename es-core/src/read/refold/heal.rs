//! Mending documents that are not the fold of the log.

use std::{collections::BTreeSet, time::Duration};

use uuid::Uuid;

use super::{
    Place, Refold, RefoldError,
    verify::{Difference, Verified, is_same, progress, verify},
};
use crate::{
    inspect::{ReaderSummary, ShardSummary},
    read::{
        engine_error::EngineError,
        projection::Projection,
        projector::{self, Projector},
        read_model::{Act, Changes, Lease, ReadModelStore, Slice, Takeover},
    },
};

/// How many documents are mended at most. A read model of which more are wrong is to be rebuilt.
const MOST: usize = 1_000;

/// How long the leases last if the process is killed.
const LEASE: Duration = Duration::from_secs(5);

/// Verifies, and then writes the documents that differ as they follow from the log, with a record of `act` for each of them in the
/// same commit.
///
/// Most of the log is folded beside the projector. For the rest it takes the leases of all shards: the workers are fenced, and
/// continue afterwards. So nothing moves between the last look at the log and a commit, and a commit is refused if an operator has
/// skipped an event meanwhile.
pub(crate) async fn heal<P: Projection>(
    projection: &P,
    place: Place<'_>,
    summary: &ReaderSummary,
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
    let reader = &verified.generation.reader;
    if summary.reader != *reader {
        return Err(RefoldError::Replaced);
    }
    let mut refold = Refold::new(projection, log, |key| keys.contains(key));
    refold.go_to(progress(store, &verified.generation).await?.reached, store, reader).await?;
    let (owner, mut leases) = (Uuid::now_v7(), Vec::with_capacity(summary.shards.len()));
    let mut mended = Ok(0);
    for ShardSummary { shard, .. } in &summary.shards {
        match store.acquire(reader, shard, owner, Takeover::Always, LEASE).await {
            Ok(Some(lease)) => leases.push(lease),
            Ok(None) => mended = Err(RefoldError::Replaced),
            Err(error) => mended = Err(error.into()),
        }
    }
    if mended.is_ok() {
        refold.is_ahead = true;
        leases.sort_by_key(|lease| lease.checkpoint.position);
        let mending = Mending { store, leases: &leases, keys: &keys, act };
        mended = mending.mend(&mut refold).await;
    }
    for lease in &leases {
        if let Err(error) = store.release(lease).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(shard = %lease.shard, error, "cannot release the lease; it will expire");
        }
    }
    verified.mended = mended?;
    Ok(verified)
}

struct Mending<'a> {
    store: &'a dyn ReadModelStore,
    /// All of the generation, in the order of their positions.
    leases: &'a [Lease],
    keys: &'a BTreeSet<String>,
    act: &'a Act,
}

impl Mending<'_> {
    /// Mends the documents of each shard at its position, and returns how many were written.
    async fn mend<P: Projection>(&self, refold: &mut Refold<'_, P>) -> Result<u64, RefoldError> {
        let Some(first) = self.leases.first() else { return Ok(0) };
        let is_split = |lease: &Lease| lease.shard.slice() != Slice::ALL;
        // Where a source has partitions of its own, it is not known which keys are in which.
        let is_uneven = self.leases.iter().any(|lease| lease.checkpoint.position != first.checkpoint.position);
        if is_uneven && !self.leases.iter().all(is_split) {
            return Err(RefoldError::Uneven);
        }
        let leases = if is_split(first) { self.leases } else { &self.leases[..1] };
        let mut mended = 0;
        for lease in leases {
            refold.go_to(lease.checkpoint.position, self.store, &lease.reader).await?;
            let is_known = |key: &String| refold.is_settled(key) && !refold.ended.contains(key);
            let own = self.keys.iter().filter(|key| lease.shard.slice().holds(key) && is_known(key));
            mended += self.mend_shard(refold, lease, own.cloned().collect()).await?;
        }
        Ok(mended)
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
            let stored = self.store.load(&lease.reader, &keys, Projector::<P>::DEFAULT_DOCUMENT_BYTES).await?;
            for (key, stored) in keys.drain(..stored.len()).zip(stored) {
                let folded = refold.document(&key);
                if is_same::<P>(stored.as_deref(), folded) {
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
}
