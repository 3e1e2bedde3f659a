//! A projector whose read model is folded in the transaction of each append. It builds the generation and catches up, as any other;
//! then it rests, and the store folds with its code.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Projector, documents::Documents};
use crate::{
    event::RecordedEvent,
    read::{
        candidate::{Candidate, Subject},
        definition,
        engine_error::{EngineError, Location},
        inline::{InlineFailure, InlineFold, InlineModel, InlineState},
        projection::Projection,
        read_model::{Changeover, Changes, Checkpoint, Reader, Taken, Treatment},
        source::SourceError,
        touch::{Touch, touch},
        worker::Step,
        worker_state::WorkerState,
    },
    stream::Position,
    witness::Witness,
    write::store::EventStore,
};

/// How long the projector rests at least between two looks.
const LOOKS_AFTER: Duration = Duration::from_millis(250);

/// How long it rests at most: an operator may have paused the read model.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// What a projector has only for an inline read model.
pub(super) struct Inline<P: Projection> {
    /// The log of the store that folds.
    log: Option<Arc<dyn EventStore>>,
    kept: Mutex<Option<Kept<P>>>,
}

/// The documents after the last commit. They are those of the store as long as the checkpoint is where that commit has left it: the
/// position grows with each fold, the fencing token with each worker, and what a worker mends or redeems without a new position needs
/// a fencing token of its own.
struct Kept<P: Projection> {
    reader: i64,
    fencing_token: i64,
    checkpoint: Checkpoint,
    documents: Documents<P>,
}

impl<P: Projection> Projector<P> {
    /// The same for a read model that the store of `log` folds with each append.
    pub(crate) fn inline(mut self, log: Arc<dyn EventStore>) -> Self {
        self.inline.log = Some(log);
        self
    }

    /// The log of the store that folds its read model; `None` if its workers do.
    pub(crate) fn inline_log(&self) -> Option<&dyn EventStore> {
        self.inline.log.as_deref()
    }

    /// Whether it follows its source in several shards.
    pub(crate) fn is_sharded(&self) -> bool {
        self.shards > 1
    }

    /// Builds the generation, and catches up wherever events are missing. Otherwise it rests, without a lease: appends of processes in
    /// which the read model is registered leave nothing to do.
    pub(super) async fn attend(
        &self,
        log: &dyn EventStore,
        shutdown: &CancellationToken,
    ) -> Result<Option<()>, EngineError> {
        // The generation that is known to follow the log.
        let mut follows = None;
        loop {
            if let Some(pause) = self.store.paused(P::NAME).await? {
                return Err(EngineError::Paused(pause));
            }
            let candidate = &Candidate::find(&*self.store, &Subject::of::<P>()).await?;
            if !candidate.serves() && self.build(&*self.building_source(), candidate, shutdown, |_| {}).await?.is_none()
            {
                return Ok(None);
            }
            let reader = &candidate.generation.reader;
            if follows != Some(reader.id) {
                follows = self.follows_log(reader).await?.then_some(reader.id);
            }
            let head = log.head().await.map_err(SourceError::from)?;
            if self.is_behind(head).await? {
                match self.catch_up(candidate, shutdown).await {
                    Ok(None) => return Ok(None),
                    // An append, or another worker, has folded the same events.
                    Ok(Some(())) | Err(EngineError::Fenced(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            self.report.set(P::NAME, WorkerState::Working);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                rested = rest(log, head) => rested?,
            }
        }
    }

    /// Gives `reader` a checkpoint in the log, which appends need, where it was fed by another source or in several shards. `false` if
    /// another worker still feeds it so.
    async fn follows_log(&self, reader: &Reader) -> Result<bool, EngineError> {
        let shard = InlineState::shard();
        match self.store.ensure_shards(reader, std::slice::from_ref(&shard)).await? {
            Changeover::Ready => Ok(true),
            Changeover::Busy => Ok(false),
            Changeover::Uneven => Err(EngineError::OtherSource(shard.source)),
            Changeover::Parked => Err(EngineError::ParkedKeys(shard.source)),
        }
    }

    /// Whether the generation that serves lacks an event up to `head`, or a worker has to look after its parked keys.
    async fn is_behind(&self, head: Position) -> Result<bool, EngineError> {
        let serving = self.store.generations(P::NAME).await?.serving;
        if serving.is_some_and(|serving| serving.reached < head) {
            return Ok(true);
        }
        Ok(!self.store.parked_keys(P::NAME).await?.is_empty())
    }

    /// Folds up to the end of the log, unless another worker does.
    async fn catch_up(
        &self,
        candidate: &Candidate<'_>,
        shutdown: &CancellationToken,
    ) -> Result<Option<()>, EngineError> {
        let worker = self.worker(self, &*self.source, &candidate.generation.reader).await?;
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                candidate.after(step).await?;
                let is_over = step != Step::Worked;
                Ok(if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
        });
        steps.await
    }
}

/// Returns when another look is due: after a while, or when the log has gone on since `head`.
async fn rest(log: &dyn EventStore, head: Position) -> Result<(), EngineError> {
    tokio::time::sleep(LOOKS_AFTER).await;
    match tokio::time::timeout(LOOKS_EVERY, log.wait_past(head)).await {
        Ok(waited) => Ok(waited.map_err(SourceError::from)?),
        Err(_) => Ok(()),
    }
}

impl<P: Projection> InlineModel for Projector<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn version(&self) -> u32 {
        P::VERSION
    }

    fn definition(&self) -> String {
        definition::of_projection::<P>()
    }

    fn begin(
        self: Arc<Self>,
        at: &InlineState,
        events: &[RecordedEvent],
    ) -> Result<Box<dyn InlineFold>, InlineFailure> {
        let mut touching = Vec::with_capacity(events.len());
        for event in events {
            let touch = touch(&self.projection, event, None, |_| Treatment::Handle);
            touching.push(touch.map_err(|reason| failure::<P>(Some(event.position), reason))?);
        }
        let mut documents = self.inline.take(at);
        documents.begin(self.document_bytes);
        let missing = documents.missing(touching.iter().flat_map(|touch| &touch.keys));
        let first = events.first().map(Location::of);
        let after = events.last().map(|last| Checkpoint {
            position: last.position,
            witness: Some(Witness::of(last)),
            cursor: None,
        });
        let (reader, fencing_token) = (at.reader.id, at.fencing_token);
        let checkpoint = after.or_else(|| at.checkpoint.clone()).unwrap_or_default();
        let kept = Kept { reader, fencing_token, checkpoint, documents };
        Ok(Box::new(Folding { projector: self, touching, missing, first, kept }))
    }
}

fn failure<P: Projection>(position: Option<Position>, reason: EngineError) -> InlineFailure {
    InlineFailure { projection: P::NAME, position, reason: Box::new(reason) }
}

/// The fold of some events.
struct Folding<P: Projection> {
    projector: Arc<Projector<P>>,
    touching: Vec<Touch<'static, P::Event>>,
    missing: Vec<String>,
    /// The first event.
    first: Option<Location>,
    /// What is known after it.
    kept: Kept<P>,
}

impl<P: Projection> InlineFold for Folding<P> {
    fn missing(&self) -> &[String] {
        &self.missing
    }

    fn budget(&self) -> usize {
        self.projector.most_document_bytes()
    }

    fn fold(&mut self, stored: Vec<Option<Bytes>>) -> Result<Changes, InlineFailure> {
        let (limit, documents) = (self.budget(), &mut self.kept.documents);
        let checkpoint = self.kept.checkpoint.clone();
        let Some(first) = &self.first else { return Ok(Changes { checkpoint, ..Changes::default() }) };
        let bytes = stored.iter().flatten().map(Bytes::len).sum();
        if stored.len() < self.missing.len() || bytes > limit {
            let (event, documents) = (first.clone(), self.missing.len());
            return Err(failure::<P>(None, EngineError::TooLarge { event, documents, bytes, limit }));
        }
        for (key, document) in self.missing.drain(..).zip(stored) {
            documents.add(key, document);
        }
        let Projector { projection, failures, .. } = &*self.projector;
        for Touch { event, keys, .. } in &self.touching {
            let Some(event) = event else { continue };
            let failed = |reason| failure::<P>(Some(event.position), reason);
            for key in keys {
                documents.read(key, event).map_err(failed)?;
            }
            for key in keys {
                documents.fold(projection, key, event, failures.time_limit).map_err(failed)?;
            }
            documents.settle(keys, event).map_err(|(_, reason)| failed(*reason))?;
        }
        documents.write(first).map_err(|reason| failure::<P>(None, reason))?;
        if documents.written > limit {
            let (event, bytes) = (first.clone(), documents.written);
            let documents = documents.folded();
            return Err(failure::<P>(None, EngineError::TooLarge { event, documents, bytes, limit }));
        }
        let handled = documents.handled(self.touching.len(), None);
        let (upserts, deletes, fields) = (handled.upserts, handled.deletes, handled.fields);
        Ok(Changes { upserts, deletes, fields, checkpoint, ..Changes::default() })
    }

    fn refused(&self, taken: Taken) -> InlineFailure {
        let touches = |touch: &&Touch<'static, P::Event>| touch.keys.contains(&taken.key);
        let mut touching = self.touching.iter().rev().filter(touches).filter_map(|touch| touch.event.as_ref());
        let last = touching.next();
        // Each of several events may have given it the value.
        let position = last.filter(|_| touching.next().is_none()).map(|event| event.position);
        let event = last.map(|event| Location::of(&**event)).or_else(|| self.first.clone());
        let event = event.unwrap_or_else(|| Location { position: Position::ZERO, event: "no event".to_owned() });
        failure::<P>(position, EngineError::NotUnique { event, taken })
    }

    fn committed(self: Box<Self>) {
        let Self { projector, kept, .. } = *self;
        *projector.inline.kept() = Some(kept);
    }
}

impl<P: Projection> Inline<P> {
    /// The documents that are known for `at`. They are taken out: a fold that is not committed leaves nothing.
    fn take(&self, at: &InlineState) -> Documents<P> {
        let kept = self.kept().take().filter(|kept| {
            kept.reader == at.reader.id
                && kept.fencing_token == at.fencing_token
                && at.checkpoint.as_ref() == Some(&kept.checkpoint)
        });
        kept.map_or_else(Documents::new, |kept| kept.documents)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept<P>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Projection> Default for Inline<P> {
    fn default() -> Self {
        Self { log: None, kept: Mutex::default() }
    }
}

/// It shows no documents.
impl<P: Projection> fmt::Debug for Inline<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline").field("is_inline", &self.log.is_some()).finish_non_exhaustive()
    }
}
