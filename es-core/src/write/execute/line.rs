//! The line in which the commands of this process on one aggregate are decided, one after the other.
//!
//! A command need not wait until the command before it is written. It is decided on the state that the other one leads to, and
//! its append expects the other's last event. So the appends of a contended aggregate are sent to the store together and share a
//! commit. If an event was never written, the store refuses the appends that were decided on it, and their commands are decided
//! again.

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
    /// Its weight in the cache.
    weight: AtomicU64,
}

/// What is known of an aggregate.
#[derive(Debug)]
pub(super) struct Tip<A> {
    /// The newest state that is known to be in the log.
    written: Option<Arc<Loaded<A>>>,
    /// The state after all events that were decided here and are not known to be written yet.
    decided: Option<Arc<Loaded<A>>>,
    /// Whether the log is known to have events after `written`.
    outrun: bool,
    era: Era,
}

/// Ends when a decision turns out to be wrong: then those that were built on it are wrong too.
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
    /// The state on which the next command is decided; `None` if it must be read first.
    pub(super) fn newest(&self) -> Option<Arc<Loaded<A>>> {
        self.decided.clone().or_else(|| self.written.clone().filter(|_| !self.outrun))
    }

    /// The newest state that is known to be in the log.
    pub(super) fn written(&self) -> Option<Arc<Loaded<A>>> {
        self.written.clone()
    }

    /// Records a state that was just read from the log.
    pub(super) fn has_read(&mut self, state: Arc<Loaded<A>>) {
        // The state with the pending events is newer than the log, unless they are written already.
        self.decided.take_if(|decided| decided.version <= state.version);
        self.written = Some(state);
        self.outrun = false;
    }

    pub(super) fn era(&self) -> Era {
        self.era
    }

    /// Records that the events up to `state` were sent to the store.
    pub(super) fn has_decided(&mut self, state: Arc<Loaded<A>>) {
        self.decided = Some(state);
    }

    /// Records that the events up to `state` are written.
    pub(super) fn has_written(&mut self, state: Arc<Loaded<A>>) {
        self.decided.take_if(|decided| Arc::ptr_eq(decided, &state));
        if self.written.as_ref().is_none_or(|written| written.version < state.version) {
            self.written = Some(state);
        }
    }

    /// Records that a decision of `era` was not written, or was not written as it was decided.
    pub(super) fn was_refuted(&mut self, era: Era) {
        if self.era == era {
            self.era = Era(era.0 + 1);
            self.decided = None;
            self.outrun = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Line, Loaded};
    use crate::{
        testing::account::{Account, AccountEvent},
        witness::Ending,
    };

    /// The state after so many events.
    fn after(events: u128) -> Arc<Loaded<Account>> {
        let mut state = Loaded::default();
        for event in 1..=events {
            state.apply(&AccountEvent::Deposited { amount: 1 }, Ending::sent(uuid::Uuid::from_u128(event)), 0);
        }
        Arc::new(state)
    }

    #[tokio::test]
    async fn a_command_is_decided_on_what_was_sent_until_a_newer_state_is_read() {
        let line = Line::<Account>::new();
        let mut tip = line.lock().await;
        let newest = |tip: &super::Tip<Account>| tip.newest().map(|state| state.version.get());
        tip.has_decided(after(2));
        tip.has_read(after(1));
        assert_eq!(newest(&tip), Some(2));
        let read = after(2);
        tip.has_read(read.clone());
        assert!(tip.newest().is_some_and(|newest| Arc::ptr_eq(&newest, &read)));
    }

    #[tokio::test]
    async fn what_is_refuted_twice_takes_nothing_back_that_was_decided_in_between() {
        let line = Line::<Account>::new();
        let mut tip = line.lock().await;
        let era = tip.era();
        tip.has_decided(after(2));
        tip.was_refuted(era);
        assert!(tip.newest().is_none());
        tip.has_read(after(3));
        tip.has_decided(after(4));
        tip.was_refuted(era);
        assert_eq!(tip.newest().map(|state| state.version.get()), Some(4));
    }
}
