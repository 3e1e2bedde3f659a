//! What a worker does when a commit would give two documents the same value of a unique field: it finds the event.

use super::Worker;
use crate::{
    event::RecordedEvent,
    read::{
        engine_error::{EngineError, Location},
        failure::cause_of,
        read_model::{CommitError, Taken},
        source::Batch,
    },
};

impl Worker<'_> {
    /// The commit of the first `done` events of `batch` was refused. Half of them are committed next, and so on: the event that fails
    /// alone is the one that gave the value. It fails as if its fold had failed.
    pub(super) async fn refused(
        &mut self,
        batch: Batch,
        done: usize,
        taken: Taken,
    ) -> Result<Option<Batch>, EngineError> {
        let last = done.checked_sub(1).and_then(|last| batch.events.get(last));
        let event = last.map_or_else(
            || Location { position: batch.checkpoint.position, event: "an event up to the last one".to_owned() },
            |last: &RecordedEvent| Location::of(last),
        );
        let key = taken.key.clone();
        let failure = EngineError::NotUnique { event, taken };
        let Some(held) = self.held.get_mut(&batch.shard) else { return Ok(None) };
        // What the handler kept is lost.
        held.kept = None;
        if self.handler.failures().is_none() {
            return Err(failure);
        }
        if done > 1 {
            held.most = done / 2;
            return Ok(Some(batch));
        }
        // Only the holder of the lease decides.
        match self.store.confirm(&held.lease).await {
            Ok(()) => {}
            Err(CommitError::Fenced(_)) => {
                held.lease.hold().lose();
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        let cause = cause_of(&failure);
        // An event that is given up may fail for several keys, which are found one by one.
        let gives_up = held.attempts.parks().is_some() && held.attempts.parks() == last.map(|last| last.position);
        if !gives_up || held.refused.contains_key(&key) {
            self.failed(&batch.shard, batch.events.first(), failure).await?;
        }
        if let Some(held) = self.held.get_mut(&batch.shard)
            && held.attempts.parks().is_some()
        {
            held.refused.insert(key, cause);
        }
        Ok(Some(batch))
    }
}
