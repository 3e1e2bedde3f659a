//! The handler that builds a generation: documents stay in memory as values, and are written seldom.

#[cfg(test)]
mod limits;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::drafts::{Drafts, Written};
use crate::{
    event::{Recorded, RecordedEvent},
    limits::COMMIT_DOCUMENTS,
    read::{
        engine_error::{EngineError, Location},
        panics::{Panicked, caught},
        projection::Projection,
        projector::Projector,
        read_model::{Reader, Shard, Slice, Treatment},
        source::DecodedEvents,
        touch::{Typed, touch},
        worker::{Events, Handled, Handler},
    },
    stream::Position,
};

/// How long changes stay in memory at least, and at most: after a crash that work is repeated, and what was folded while the last write
/// was on its way.
const LEAST_UNWRITTEN: Duration = Duration::from_secs(5);
const MOST_UNWRITTEN: Duration = Duration::from_mins(1);

/// Between the two, folds have to take so long for each document that they have changed. To write one takes 4 us on Postgres, or some 8 in
/// a large table, so writes take an eighth of the time at most: keys may lie all over a large model, and then few documents change twice in
/// a few seconds.
const FOLDED_FOR_EACH: Duration = Duration::from_micros(60);

/// How many documents with fields are written at most: one statement writes them, and a row for each of their fields.
const MOST_WITH_FIELDS: usize = 50_000;

/// How many events are folded before other tasks of the runtime get a turn.
const TURN: usize = 500;

/// How many documents are encoded before that.
const ENCODED: usize = 500;

/// Builds a generation from the events of any number of shards.
///
/// It stops at whatever is not plain: an event that cannot be folded, parked keys, documents too large for memory. The projector's own
/// handler then continues from the last commit, and deals with it event by event.
pub(super) struct Builder<'a, P: Projection> {
    projector: &'a Projector<P>,
    shards: Mutex<HashMap<Shard, Kept<P>>>,
    has_given_up: AtomicBool,
}

/// What is kept of one shard.
struct Kept<P: Projection> {
    drafts: Drafts<P>,
    /// Whether the store has no documents but those that are kept.
    is_all: bool,
    written: Instant,
    /// How long folds have taken since then.
    folding: Duration,
    /// The last event that is folded.
    at: Position,
}

impl<P: Projection> Kept<P> {
    fn new(is_all: bool, at: Position) -> Self {
        Self { drafts: Drafts::new(), is_all, written: Instant::now(), folding: Duration::ZERO, at }
    }
}

impl<'a, P: Projection> Builder<'a, P> {
    pub(super) fn new(projector: &'a Projector<P>) -> Self {
        Self { projector, shards: Mutex::default(), has_given_up: AtomicBool::new(false) }
    }

    /// Whether it has stopped at something that the projector's own handler must deal with.
    pub(super) fn has_given_up(&self) -> bool {
        self.has_given_up.load(Ordering::Relaxed)
    }

    fn shards(&self) -> MutexGuard<'_, HashMap<Shard, Kept<P>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Folds as many of the events as fit into memory, and writes if it is time for that.
    async fn build(
        &self,
        reader: &Reader,
        events: Events<'_>,
        stop: &CancellationToken,
        kept: &mut Kept<P>,
    ) -> Result<Handled, EngineError> {
        let (mut done, decoded) = (0, events.decoded().await);
        for turn in events.list.chunks(TURN) {
            if stop.is_cancelled() || self.is_due(kept) {
                break;
            }
            let turn = Turn { events: turn, first: done, decoded: decoded.as_ref(), slice: events.course.slice };
            let began = Instant::now();
            self.fold(reader, &turn, kept).await?;
            kept.folding += began.elapsed();
            done += turn.events.len();
            tokio::task::yield_now().await;
        }
        let is_end = done == events.list.len() && events.keeps_nothing;
        if is_end || self.is_due(kept) {
            let last = done.checked_sub(1).map_or(events.after, |last| events.list[last].position);
            return Ok(Handled { done, ..self.write(kept, last).await? });
        }
        Ok(Handled { done, kept: true, ..Handled::default() })
    }

    /// Whether it is time to write: there is no more room, or the last write was long enough ago.
    fn is_due(&self, kept: &Kept<P>) -> bool {
        let Kept { drafts, written, folding, .. } = kept;
        let room = self.share(self.projector.most_document_bytes());
        let changed = drafts.changed_documents();
        let cost = FOLDED_FOR_EACH * u32::try_from(changed).unwrap_or(u32::MAX);
        drafts.bytes() >= room
            || drafts.changed_bytes() >= room / 2
            || written.elapsed() >= MOST_UNWRITTEN
            || (written.elapsed() >= LEAST_UNWRITTEN && *folding >= cost)
            || (changed >= MOST_WITH_FIELDS && !P::FIELDS.is_empty())
    }

    /// What one of the shards may have of `bytes`. The one that is handled is not among the others.
    fn share(&self, bytes: usize) -> usize {
        bytes / (self.shards().len() + 1)
    }

    async fn fold(&self, reader: &Reader, turn: &Turn<'_, P>, kept: &mut Kept<P>) -> Result<(), EngineError> {
        let Some(first) = turn.events.first() else { return Ok(()) };
        let panicked = |_: Panicked| EngineError::Panicked { event: Location::of(first) };
        let projection = &self.projector.projection;
        let folded = if kept.is_all {
            // None of them has to be loaded, so their keys need not be known beforehand.
            caught(|| {
                let mut touched = turn.touched(projection);
                touched.try_for_each(|touched| self.fold_touched(&touched?, kept))
            })
        } else {
            let touching = || turn.touched(projection).collect();
            let touching: Vec<Touched<'_, P::Event>> =
                caught::<Result<_, EngineError>>(touching).map_err(panicked)??;
            let named = touching.iter().flat_map(|(_, keys)| keys);
            let missing: BTreeSet<_> = named.filter(|key| !kept.drafts.has(key)).cloned().collect();
            self.load(reader, missing.into_iter().collect(), first, kept).await?;
            caught(|| touching.iter().try_for_each(|touched| self.fold_touched(touched, kept)))
        };
        folded.map_err(panicked)?
    }

    fn fold_touched(&self, (event, keys): &Touched<'_, P::Event>, kept: &mut Kept<P>) -> Result<(), EngineError> {
        // A fold that never returns is seen.
        self.projector.report.handles(Some(event.position));
        for key in keys {
            self.fold_one(key, event, kept)?;
        }
        kept.drafts.settle(keys, event)
    }

    fn fold_one(&self, key: &str, event: &Recorded<P::Event>, kept: &mut Kept<P>) -> Result<(), EngineError> {
        let limit = self.projector.failures.time_limit;
        let began = (limit < Duration::MAX).then(Instant::now);
        kept.drafts.fold(&self.projector.projection, key, event)?;
        match began.map(|began| began.elapsed()).filter(|took| *took > limit) {
            Some(took) => Err(EngineError::TooSlow { event: Location::of(event), took, limit }),
            None => Ok(()),
        }
    }

    async fn load(
        &self,
        reader: &Reader,
        keys: Vec<String>,
        first: &RecordedEvent,
        kept: &mut Kept<P>,
    ) -> Result<(), EngineError> {
        if keys.is_empty() {
            return Ok(());
        }
        let limit = self.projector.most_document_bytes();
        let stored = self.projector.store.load(reader, &keys, limit).await?;
        if stored.len() < keys.len() {
            let bytes = stored.iter().flatten().map(Bytes::len).sum();
            return Err(EngineError::TooLarge { event: Location::of(first), documents: keys.len(), bytes, limit });
        }
        let mut stored = keys.into_iter().zip(stored);
        let added = caught(|| stored.try_for_each(|(key, stored)| kept.drafts.add(key, stored.as_ref())));
        added.map_err(|Panicked| EngineError::Panicked { event: Location::of(first) })?
    }

    /// Encodes what has changed, up to the event at `last`, and forgets the documents if there are too many for memory.
    async fn write(&self, kept: &mut Kept<P>, last: Position) -> Result<Handled, EngineError> {
        let (mut handled, mut bytes) = (Handled::default(), 0);
        let limit = self.projector.most_document_bytes();
        kept.drafts.sort();
        for first in (0..kept.drafts.count()).step_by(ENCODED) {
            for place in first..first + ENCODED {
                let written = caught(|| kept.drafts.write(place));
                let written = written.map_err(|Panicked| EngineError::Panicked { event: up_to(last) })??;
                let Some(Written { key, bytes: more, fields, document }) = written else { continue };
                bytes += more;
                handled.fields.extend(fields);
                match document {
                    Some(document) => handled.upserts.push((key, document)),
                    None => handled.deletes.push(key),
                }
            }
            if bytes > limit {
                let event = up_to(last);
                let documents = handled.upserts.len() + handled.deletes.len();
                return Err(EngineError::TooLarge { event, documents, bytes, limit });
            }
            tokio::task::yield_now().await;
        }
        if kept.drafts.bytes() >= self.share(limit) {
            kept.drafts.forget();
            kept.is_all = false;
        } else {
            // A commit of more must not wait for folds between two of its statements.
            handled.goes_on = handled.upserts.len() <= COMMIT_DOCUMENTS;
        }
        (kept.written, kept.folding) = (Instant::now(), Duration::ZERO);
        Ok(handled)
    }
}

#[async_trait]
impl<P: Projection> Handler for Builder<'_, P> {
    async fn handle(&self, reader: &Reader, events: Events<'_>, stop: &CancellationToken) -> Handled {
        if !events.course.parked.is_empty() || events.course.only.is_some() {
            self.has_given_up.store(true, Ordering::Relaxed);
            // It is not reported: the projector's own handler continues.
            let failure = Some(EngineError::ParkedKeys(events.shard.source.clone()));
            return Handled { failure, ..Handled::default() };
        }
        // Taken out: if this future is dropped or fails, the next one starts from the last commit.
        let kept = self.shards().remove(events.shard);
        if events.is_ahead && kept.is_none() {
            return Handled::default();
        }
        let is_all = events.after == Position::ZERO;
        let mut kept = kept.unwrap_or_else(|| Kept::new(is_all, events.after));
        let built = self.build(reader, events, stop, &mut kept).await;
        self.projector.report.handles(None);
        match built {
            Ok(handled) => {
                kept.at = handled.done.checked_sub(1).map_or(kept.at, |last| events.list[last].position);
                let mut shards = self.shards();
                shards.insert(events.shard.clone(), kept);
                self.projector.report.built(shards.values().map(|kept| kept.at).min());
                handled
            }
            Err(error) => {
                self.has_given_up.store(!error.is_transient(), Ordering::Relaxed);
                Handled { failure: Some(error), ..Handled::default() }
            }
        }
    }

    fn forget(&self, shard: &Shard) {
        self.shards().remove(shard);
    }
}

/// One of the events up to `last`: it is not known which.
fn up_to(last: Position) -> Location {
    Location { position: last, event: "an event up to the last one".to_owned() }
}

/// Some events of a batch.
struct Turn<'d, P: Projection> {
    events: &'d [RecordedEvent],
    /// The number of the first one.
    first: usize,
    /// The contents of all.
    decoded: Option<&'d DecodedEvents<P::Event>>,
    slice: Slice,
}

/// An event and the keys of its documents.
type Touched<'d, E> = (Typed<'d, E>, Vec<String>);

impl<'d, P: Projection> Turn<'d, P> {
    /// The events that the projection knows, with their keys in the slice.
    fn touched(&self, projection: &P) -> impl Iterator<Item = Result<Touched<'d, P::Event>, EngineError>> {
        let treat = |key: &str| if self.slice.holds(key) { Treatment::Handle } else { Treatment::LeaveOut };
        let touched = move |(nth, event): (usize, &RecordedEvent)| {
            let known = self.decoded.and_then(|decoded| decoded.get(self.first + nth));
            let touch = touch(projection, event, known, treat)?;
            Ok(touch.event.map(|event| (event, touch.keys)))
        };
        self.events.iter().enumerate().filter_map(move |event| touched(event).transpose())
    }
}
