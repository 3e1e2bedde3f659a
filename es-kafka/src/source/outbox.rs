//! Between a consumer's thread and the async reader: a bounded queue, and the reader's answers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use es_core::{
    Position,
    backend::{Batch, Checkpoint, Delivery, Shard, SourceError},
};
use tokio::sync::Notify;

use super::watchdog::{Sight, Standing};

/// How many batches with events may wait for the reader, and how many without (R17). Each kind has
/// its own room, so that neither keeps the other out.
const CAPACITY: usize = 4;

/// What thread and reader share.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// For the thread: the reader has started a shard, made room, or gone.
    changed: Condvar,
    /// For the reader: there is something in the queue.
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Assignments and revocations: the reader hears of them before all batches, however long these take it,
    /// since the consumer's thread and the whole group wait for its answer.
    turns: VecDeque<Delivery>,
    queue: VecDeque<Delivery>,
    /// Shards that the reader has started and the thread has not taken notice of.
    starts: HashMap<Shard, Checkpoint>,
    shards: Vec<Shard>,
    stopped: bool,
    /// The thread ends by an error of its own: assignments no longer matter.
    fails: bool,
    ended: bool,
    failure: Option<SourceError>,
    /// Checkpoints that the reader has committed, or starts from, and the thread has not taken notice of.
    committed: HashMap<Shard, Checkpoint>,
    /// How far each started shard has come, and since when.
    standing: HashMap<Shard, (Position, Instant)>,
    /// When the queue was full last: what was not handed on before that does not speak against the clients.
    full: Option<Instant>,
    /// Since when the client has had no broker, as far as it has told.
    without_brokers: Option<Instant>,
}

impl State {
    fn stands(&mut self, shard: &Shard, position: Position) {
        self.without_brokers = None;
        self.standing.insert(shard.clone(), (position, Instant::now()));
    }

    fn has_room(&self, events: bool) -> bool {
        let alike =
            |delivery: &&Delivery| matches!(delivery, Delivery::Batch(batch) if batch.events.is_empty() != events);
        self.queue.iter().filter(alike).count() < CAPACITY
    }

    fn forget(&mut self, shards: &[Shard]) {
        self.queue.retain(|delivery| !matches!(delivery, Delivery::Batch(batch) if shards.contains(&batch.shard)));
        self.starts.retain(|shard, _| !shards.contains(shard));
        self.committed.retain(|shard, _| !shards.contains(shard));
    }
}

impl Outbox {
    pub(crate) fn new(shards: Vec<Shard>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { shards, ..State::default() }), ..Self::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the reader is gone.
    pub(crate) fn stopped(&self) -> bool {
        self.state().stopped
    }

    /// Whether one more batch may wait, with `events` or without.
    pub(crate) fn has_room(&self, events: bool) -> bool {
        self.state().has_room(events)
    }

    /// Waits until there is room for a batch with events, but no longer than `patience`.
    pub(crate) fn wait_for_room(&self, patience: Duration) {
        let full = |state: &mut State| !state.stopped && !state.has_room(true);
        drop(self.changed.wait_timeout_while(self.state(), patience, full));
    }

    /// Queues a batch, unless the reader has started the shard again in the meantime.
    pub(crate) fn push(&self, batch: Batch) {
        let mut state = self.state();
        if !state.stopped && !state.starts.contains_key(&batch.shard) {
            state.stands(&batch.shard, batch.checkpoint.position);
            let events = !batch.events.is_empty();
            state.queue.push_back(Delivery::Batch(batch));
            if !state.has_room(events) {
                state.full = Some(Instant::now());
            }
            self.news.notify_one();
        }
    }

    /// More of a shard was read, although nothing of it could be handed on: its clients are alive.
    pub(crate) fn reads(&self, shard: &Shard) {
        let mut state = self.state();
        if let Some((_, since)) = state.standing.get_mut(shard) {
            *since = Instant::now();
        }
    }

    /// The thread is about to end by an error, and its consumer leaves the group. The reader is not told that its shards are revoked:
    /// it takes what waits, commits it, and then gets the error. A shard that goes to another reader in the meantime is fenced.
    pub(crate) fn fails(&self) {
        self.state().fails = true;
    }

    pub(crate) fn assigned(&self, shards: Vec<Shard>) {
        let mut state = self.state();
        if state.fails {
            return;
        }
        state.without_brokers = None;
        state.turns.push_back(Delivery::Assigned(shards));
        self.news.notify_one();
    }

    /// The shards are another reader's: what waits of them is dropped.
    pub(crate) fn revoked(&self, shards: Vec<Shard>) {
        let mut state = self.state();
        if state.fails {
            return;
        }
        state.forget(&shards);
        state.standing.retain(|shard, _| !shards.contains(shard));
        state.turns.push_back(Delivery::Revoked(shards));
        self.news.notify_one();
    }

    pub(crate) fn shards(&self) -> Vec<Shard> {
        self.state().shards.clone()
    }

    pub(crate) fn set_shards(&self, shards: Vec<Shard>) {
        self.state().shards = shards;
    }

    /// Waits until the reader has started all of `shards`; `None` when it is gone, or the thread is about to end.
    pub(crate) fn wait_for_starts(&self, shards: &[Shard]) -> Option<Vec<Checkpoint>> {
        let waiting = |state: &mut State| {
            !state.stopped && !state.fails && shards.iter().any(|shard| !state.starts.contains_key(shard))
        };
        let mut state = self.changed.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
        shards.iter().map(|shard| state.starts.remove(shard)).collect()
    }

    /// Shards that the reader has started again.
    pub(crate) fn restarts(&self) -> HashMap<Shard, Checkpoint> {
        std::mem::take(&mut self.state().starts)
    }

    /// The reader has committed a checkpoint.
    pub(crate) fn committed(&self, shard: &Shard, checkpoint: &Checkpoint) {
        self.state().committed.insert(shard.clone(), checkpoint.clone());
    }

    /// What the reader has committed, or starts from, since the thread has asked last.
    pub(crate) fn take_committed(&self) -> HashMap<Shard, Checkpoint> {
        std::mem::take(&mut self.state().committed)
    }

    /// The client has no broker; if it finds one again, it does not say so.
    pub(crate) fn lost_brokers(&self) {
        self.state().without_brokers.get_or_insert_with(Instant::now);
    }

    /// What of the thread's work shows.
    pub(crate) fn sight(&self) -> Sight {
        let state = self.state();
        if !state.has_room(true) || !state.has_room(false) {
            return Sight::default();
        }
        let shards: Vec<_> = state
            .standing
            .iter()
            .map(|(shard, (position, since))| {
                let since = state.full.map_or(*since, |full| full.max(*since));
                Standing { shard: shard.clone(), position: *position, since }
            })
            .collect();
        let without_brokers = if state.standing.is_empty() { state.without_brokers } else { None };
        Sight { shards, without_brokers }
    }

    /// The thread has ended.
    pub(crate) fn end(&self, failure: Option<SourceError>) {
        let mut state = self.state();
        state.ended = true;
        state.failure = failure;
        self.news.notify_one();
    }

    /// What the reader takes next, if there is anything.
    ///
    /// # Errors
    /// The thread's failure, once everything before it is taken.
    pub(crate) fn pop(&self) -> Result<Option<Delivery>, SourceError> {
        let mut state = self.state();
        let full = !state.has_room(true) || !state.has_room(false);
        if let Some(turn) = state.turns.pop_front() {
            return Ok(Some(turn));
        }
        if let Some(delivery) = state.queue.pop_front() {
            if full {
                state.full = Some(Instant::now());
            }
            self.changed.notify_all();
            return Ok(Some(delivery));
        }
        if state.ended {
            let failure = state.failure.take();
            return Err(failure.unwrap_or_else(|| SourceError::Unavailable("the consumer has ended".into())));
        }
        Ok(None)
    }

    /// An assignment or a revocation, if there is any.
    pub(crate) fn pop_turn(&self) -> Option<Delivery> {
        self.state().turns.pop_front()
    }

    /// Returns when there may be something to take.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// The reader starts a shard after `checkpoint`.
    pub(crate) fn start(&self, shard: &Shard, checkpoint: &Checkpoint) {
        let mut state = self.state();
        state.forget(std::slice::from_ref(shard));
        state.starts.insert(shard.clone(), checkpoint.clone());
        state.committed.insert(shard.clone(), checkpoint.clone());
        state.stands(shard, checkpoint.position);
        self.changed.notify_all();
    }

    /// The reader is gone.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.queue.clear();
        self.changed.notify_all();
    }
}
