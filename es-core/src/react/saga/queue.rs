//! The instances that have something to do.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::stream::Version;

/// What was attempted at an action, in this order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attempts {
    /// How often it was attempted anew.
    pub(super) rounds: u32,
    /// How many attempts have failed since.
    pub(super) failed: u32,
}

/// What of an instance is due, beside the actions that were never attempted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// The least version at which to look at it; `None`: as it is now.
    pub(super) since: Option<Version>,
    /// Timers, each with the number of its setting.
    pub(super) timers: Vec<(String, u64)>,
    /// When these were noticed, by the clock of the store.
    pub(super) at: DateTime<Utc>,
    /// Actions, each with what was attempted.
    pub(super) actions: BTreeMap<u64, Attempts>,
}

/// The instances at which a performer is to look, in the order in which it was told of them, each once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    order: VecDeque<String>,
    due: HashMap<String, Due>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what is `due` of the instance `id`.
    pub(super) fn push(&self, id: &str, due: Due) {
        let mut state = self.state();
        if let Some(known) = state.due.get_mut(id) {
            let new: Vec<_> = due.timers.into_iter().filter(|timer| !known.timers.contains(timer)).collect();
            known.timers.extend(new);
            known.at = known.at.max(due.at);
            // What is to be looked at as it is now stays so.
            known.since = known.since.zip(due.since).map(|(one, other)| one.max(other));
            known.actions.extend(due.actions);
            return;
        }
        state.order.push_back(id.to_owned());
        state.due.insert(id.to_owned(), due);
        self.news.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.state().order.len()
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        *self.state() = State::default();
    }

    fn pop(&self) -> Option<(String, Due)> {
        let mut state = self.state();
        let id = state.order.pop_front()?;
        let due = state.due.remove(&id).unwrap_or_default();
        Some((id, due))
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn next(&self) -> (String, Due) {
        loop {
            if let Some(next) = self.pop() {
                return next;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_instance_waits_once_with_all_that_is_due() {
        let queue = Queue::default();
        let timer = |name: &str| Due { timers: vec![(name.to_owned(), 1)], ..Due::default() };
        queue.push("a", timer("one"));
        queue.push("b", Due::default());
        queue.push("a", timer("one"));
        queue.push("a", Due { actions: BTreeMap::from([(7, Attempts { rounds: 0, failed: 2 })]), ..timer("two") });
        assert_eq!(queue.len(), 2);
        let (id, due) = queue.next().await;
        let timers = ["one", "two"].map(|name| (name.to_owned(), 1)).to_vec();
        assert_eq!(
            (id.as_str(), due),
            ("a", Due { timers, actions: BTreeMap::from([(7, Attempts { rounds: 0, failed: 2 })]), ..Due::default() })
        );
        assert_eq!(queue.next().await.0, "b");
        assert!(queue.pop().is_none());
    }
}
