//! Read models that are folded with each append, in memory.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{MemoryStore, State, event_store::page, read_models::Stored};
use crate::{
    backoff::Backoff,
    read::{
        inline::{InlineBehind, InlineDue, InlineFailure, InlineFold, InlineState},
        read_model::{Changes, Generation, GenerationState},
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
    /// Writes `appends`, and folds the inline read models; all of it or nothing. While one of these lacks too many events, it waits for its
    /// projector.
    pub(super) async fn append_when_folded(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let (began, mut looks) = (Instant::now(), 0);
        loop {
            let behind = match self.append_and_fold(&mut self.lock(), &appends)? {
                Ok(appended) => return Ok(appended),
                Err(behind) => behind,
            };
            looks += 1;
            let pause = BACKOFF.pause(looks);
            if !behind.may_pass() || began.elapsed() + pause >= PATIENCE {
                return Err(behind.into());
            }
            sleep(pause).await;
        }
    }

    fn append_and_fold(
        &self,
        state: &mut State,
        appends: &[Append],
    ) -> Result<Result<Vec<Appended>, InlineBehind>, AppendError> {
        // What need not be written depends on no read model.
        if let Some(repeated) = state.log.judge_all(appends)? {
            return Ok(Ok(repeated));
        }
        let (head, events) = (state.head(), state.log.events.len());
        let due = match self.inline.due(self.serving(state), head).and_then(|due| self.catch_up(state, due, head)) {
            Ok(due) => due,
            Err(behind) => return Ok(Err(behind)),
        };
        let appended = state.log.write_all(appends.to_vec());
        if let Err(failure) = self.fold_own(state, due) {
            let commands = appends.iter().filter_map(Append::remembered).map(|known| known.id);
            state.log.take_back(events, commands);
            return Err(failure.into());
        }
        self.appended(state, events);
        Ok(Ok(appended))
    }

    /// Folds all events into the generation that is about to serve. If that cannot be done, its projector will see why.
    pub(super) fn fold_building(&self, state: &mut State, building: &Generation) {
        let Some(model) = self.inline.of(&building.reader.name, building.version) else { return };
        let found = state.read_models.readers.get(&building.reader.id);
        let Some(at) = found.and_then(|stored| inline_state(state, stored)) else { return };
        if !at.is_detached && at.checkpoint.is_some() && at.definition == model.definition() {
            let head = state.head();
            if let Err(behind) = self.catch_up(state, vec![(model, at)], head) {
                tracing::warn!(name = building.reader.name, ?behind, "the new generation was not folded to the end");
            }
        }
    }

    /// The generations that serve of the read models that this process has registered.
    fn serving(&self, state: &State) -> Vec<InlineState> {
        let serving = |name: &str| state.read_models.find(name, GenerationState::Serving);
        self.inline.names().into_iter().filter_map(serving).filter_map(|stored| inline_state(state, stored)).collect()
    }

    /// Folds the events up to `head` that are missing in `due`, and returns those that have them all. (It stands whatever becomes of an
    /// append: these events are in the log.)
    fn catch_up(&self, state: &mut State, due: Vec<InlineDue>, head: Position) -> Result<Vec<InlineDue>, InlineBehind> {
        let mut caught_up = Vec::with_capacity(due.len());
        for (model, mut at) in due {
            let missing = at.missing(model.name(), head)?;
            if missing > 0 {
                let reached = usize::try_from(at.reached().get()).unwrap_or(usize::MAX);
                let events = page(state.log.events[reached..].iter(), InlineState::page(missing));
                let Some(fold) = self.inline.begin_missing(&model, &at, &events, missing, head)? else { continue };
                match folded(state, &at, fold) {
                    Ok((fold, changes)) => self.commit(state, &at, changes, fold),
                    Err(failure) => {
                        self.inline.missing_failed(failure, &at, missing, head)?;
                        continue;
                    }
                }
                let stored = state.read_models.readers.get(&at.reader.id);
                let Some(moved) = stored.and_then(|stored| inline_state(state, stored)) else { continue };
                at = moved;
            }
            caught_up.push((model, at));
        }
        Ok(caught_up)
    }

    /// Folds the events of an append, which are all after the checkpoints of `due`. Nothing is written before all are folded.
    fn fold_own(&self, state: &mut State, due: Vec<InlineDue>) -> Result<(), InlineFailure> {
        let mut all = Vec::with_capacity(due.len());
        for (model, at) in due {
            let reached = usize::try_from(at.reached().get()).unwrap_or(usize::MAX);
            let fold = model.begin(&at, &state.log.events[reached..])?;
            let (fold, changes) = folded(state, &at, fold)?;
            all.push((at, changes, fold));
        }
        for (at, changes, fold) in all {
            self.commit(state, &at, changes, fold);
        }
        Ok(())
    }

    fn commit(&self, state: &mut State, at: &InlineState, changes: Changes, fold: Box<dyn InlineFold>) {
        let lease = at.lease();
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
}

/// Folds what `fold` has begun, for a generation that is `at` this state.
fn folded(
    state: &State,
    at: &InlineState,
    mut fold: Box<dyn InlineFold>,
) -> Result<(Box<dyn InlineFold>, Changes), InlineFailure> {
    let stored = state.read_models.readers.get(&at.reader.id).expect("it was found under the lock");
    let changes = fold.fold(load(stored, &*fold))?;
    match stored.fields.taken(&changes.fields) {
        Some(taken) => Err(fold.refused(taken)),
        None => Ok((fold, changes)),
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
