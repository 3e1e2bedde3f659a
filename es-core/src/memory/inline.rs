//! Read models that are folded with each append, in memory.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{MemoryStore, State, read_models::Stored};
use crate::{
    backoff::Backoff,
    read::{
        inline::{InlineDue, InlineFailure, InlineFold, InlineObstacle, InlineState},
        read_model::{Generation, GenerationState},
    },
    stream::Position,
    write::{
        append::Append,
        store::{AppendError, Appended},
    },
};

/// How long an append waits for projectors that have to catch up.
const PATIENCE: Duration = Duration::from_secs(10);

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));

impl MemoryStore {
    /// Returns when no inline read model lacks more events than an append folds.
    pub(super) async fn until_folded(&self) -> Result<(), AppendError> {
        let (began, mut looks) = (Instant::now(), 0);
        loop {
            let (due, head) = {
                let state = self.lock();
                let head = state.head();
                (self.inline.due(self.serving(&state), head)?, head)
            };
            let missing = due.iter().map(|(model, state)| state.missing(model.name(), head));
            let Err(behind) = missing.collect::<Result<Vec<_>, _>>() else { return Ok(()) };
            looks += 1;
            let pause = BACKOFF.pause(looks);
            if began.elapsed() + pause >= PATIENCE {
                return Err(behind.into());
            }
            sleep(pause).await;
        }
    }

    /// Writes `appends`, and folds the inline read models; all of it or nothing.
    pub(super) fn append_and_fold(
        &self,
        state: &mut State,
        appends: Vec<Append>,
    ) -> Result<Vec<Appended>, AppendError> {
        let (head, events) = (state.head(), state.log.events.len());
        let due = self.inline.due(self.serving(state), head)?;
        let commands: Vec<Uuid> = appends.iter().filter_map(Append::remembered).map(|known| known.id).collect();
        let appended = state.log.append(appends)?;
        if state.head() > head
            && let Err(obstacle) = self.fold(state, due, head)
        {
            state.log.take_back(events, commands.into_iter());
            return Err(match obstacle {
                InlineObstacle::Failed(failure) => failure.into(),
                InlineObstacle::Behind(behind) => behind.into(),
            });
        }
        Ok(appended)
    }

    /// Folds all events into the generation that is about to serve. If that cannot be done, its projector will see why.
    pub(super) fn fold_building(&self, state: &mut State, building: &Generation) {
        let Some(model) = self.inline.of(&building.reader.name, building.version) else { return };
        let found = state.read_models.readers.get(&building.reader.id);
        let Some(at) = found.and_then(|stored| inline_state(state, stored)) else { return };
        if !at.is_detached && at.definition == model.definition() {
            let head = state.head();
            if let Err(obstacle) = self.fold(state, vec![(model, at)], head) {
                tracing::warn!(name = building.reader.name, ?obstacle, "the new generation was not folded to the end");
            }
        }
    }

    /// The generations that serve of the read models that this process has registered.
    fn serving(&self, state: &State) -> Vec<InlineState> {
        let serving = |name: &str| state.read_models.find(name, GenerationState::Serving);
        self.inline.names().into_iter().filter_map(serving).filter_map(|stored| inline_state(state, stored)).collect()
    }

    /// Folds all events after the checkpoints of `due`; those after `head` are of the append. Nothing is written before all are folded.
    fn fold(&self, state: &mut State, due: Vec<InlineDue>, head: Position) -> Result<(), InlineObstacle> {
        let mut folded = Vec::with_capacity(due.len());
        for (model, at) in due {
            at.missing(model.name(), head).map_err(InlineObstacle::Behind)?;
            let reached = usize::try_from(at.reached().get()).unwrap_or(usize::MAX);
            let failed = |failure: InlineFailure| failure.into_obstacle(&at, head);
            let mut fold = model.begin(&at, &state.log.events[reached..]).map_err(failed)?;
            let Some(stored) = state.read_models.readers.get(&at.reader.id) else { continue };
            let documents = load(stored, &*fold);
            let changes = fold.fold(documents).map_err(failed)?;
            if let Some(taken) = stored.fields.taken(&changes.fields) {
                return Err(failed(fold.refused(taken)));
            }
            folded.push((at.lease(), changes, fold));
        }
        for (lease, changes, fold) in folded {
            state.read_models.commit(&lease, changes).expect("nothing has changed under the lock");
            // A worker that goes on from where the checkpoint was would fold into documents that it takes for older ones.
            if let Ok(shard) = state.read_models.leased(&lease)
                && shard.held.take().is_some()
            {
                shard.fencing_token += 1;
            }
            fold.committed();
            self.progress.moved(&lease.reader.name);
        }
        Ok(())
    }
}

/// The first documents that `fold` needs, up to the one with which they reach its budget.
fn load(stored: &Stored, fold: &dyn InlineFold) -> Vec<Option<Bytes>> {
    let mut bytes = 0;
    let documents = fold.missing().iter().map(|key| stored.documents.get(key).cloned());
    documents
        .take_while(|document| {
            let fits = bytes < fold.budget();
            bytes += document.as_ref().map_or(0, Bytes::len);
            fits
        })
        .collect()
}

fn inline_state(state: &State, stored: &Stored) -> Option<InlineState> {
    let shard = stored.shards.get(&InlineState::shard());
    let is_paused = state.read_models.pauses.contains_key(&stored.reader.name);
    Some(InlineState {
        reader: stored.reader.clone(),
        version: stored.copy.as_ref()?.version,
        definition: stored.definition.clone(),
        fencing_token: shard.map_or(0, |shard| shard.fencing_token),
        checkpoint: shard.map(|shard| shard.checkpoint.clone()),
        is_detached: is_paused || !stored.parked.is_empty(),
    })
}
