//! The line in which the commands of this process on one aggregate are decided, one behind the other.
//!
//! A command need not wait until the one before it is written: it is decided on the state that the other
//! brings about, and its append expects the other's last event. So the appends of a hot aggregate go to
//! the store side by side and into the log with one commit. What was decided on an event that never came
//! to be is refused by the store, since that event is not there, and decided again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Mutex, MutexGuard};

use super::load::Loaded;
use crate::write::aggregate::Aggregate;

#[derive(Debug)]
pub(super) struct Line<A> {
    tip: Mutex<Tip<A>>,
    /// What it counts in the cache.
    weight: AtomicU64,
}

/// What is known of an aggregate.
#[derive(Debug)]
pub(super) struct Tip<A> {
    /// The newest state that is known to be in the log.
    written: Option<Arc<Loaded<A>>>,
    /// The state after everything that was decided here and is still on its way.
    decided: Option<Arc<Loaded<A>>>,
    /// Whether the log is known to have gone on behind `written`.
    outrun: bool,
    era: Era,
}

/// Ends when a decision is refuted: then so are those that were built on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Era(u64);

impl<A: Aggregate> Line<A> {
    pub(super) fn new() -> Self {
        let tip = Tip { written: None, decided: None, outrun: false, era: Era(0) };
        Self { tip: Mutex::new(tip), weight: AtomicU64::new(0) }
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, Tip<A>> {
        self.tip.lock().await
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    pub(super) fn set_weight(&self, weight: u64) {
        self.weight.store(weight, Ordering::Relaxed);
    }
}

impl<A: Aggregate> Tip<A> {
    /// The state on which the next command is decided, unless it has to be read.
    pub(super) fn newest(&self) -> Option<Arc<Loaded<A>>> {
        self.decided.clone().or_else(|| self.written.clone().filter(|_| !self.outrun))
    }

    /// The newest state that is known to be in the log.
    pub(super) fn written(&self) -> Option<Arc<Loaded<A>>> {
        self.written.clone()
    }

    /// Takes note of what was read from the log now.
    pub(super) fn has_read(&mut self, state: Arc<Loaded<A>>) {
        // What is on its way is ahead of the log, unless it has arrived.
        self.decided.take_if(|decided| decided.version <= state.version);
        self.written = Some(state);
        self.outrun = false;
    }

    pub(super) fn era(&self) -> Era {
        self.era
    }

    /// Takes note that `state` is on its way.
    pub(super) fn has_decided(&mut self, state: Arc<Loaded<A>>) {
        self.decided = Some(state);
    }

    /// Takes note that `state` has arrived.
    pub(super) fn has_written(&mut self, state: Arc<Loaded<A>>) {
        self.decided.take_if(|decided| Arc::ptr_eq(decided, &state));
        if self.written.as_ref().is_none_or(|written| written.version < state.version) {
            self.written = Some(state);
        }
    }

    /// Takes note that a decision of `era` did not come to be, or not as it was decided.
    pub(super) fn was_refuted(&mut self, era: Era) {
        if self.era == era {
            self.era = Era(era.0 + 1);
            self.decided = None;
            self.outrun = true;
        }
    }
}
