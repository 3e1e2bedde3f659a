//! Aggregates, as applications write them.

use serde::{Serialize, de::DeserializeOwned};

use crate::event::Event;

/// A consistency boundary: a state that is folded from its own events and decides on commands.
///
/// Both functions are pure and synchronous. They use no clock, no randomness and no I/O: what a decision needs of these comes with
/// the command. So a decision can be repeated, tested without a database, and replayed as of any version.
///
/// The state must be serializable because it may be kept as a snapshot. A snapshot is a cache, so nothing depends on its form. The
/// state must be comparable because a state that would be read back as another one is not kept.
pub trait Aggregate: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Increase it whenever the state's fields or the meaning of [`apply`](Self::apply) change: snapshots of
    /// other versions are ignored.
    const STATE_VERSION: u32 = 1;

    /// Its commands.
    type Command: Send + Sync;

    /// Its events. Their category is the category of the aggregate's streams.
    type Event: Event;

    /// The reasons to refuse a command.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Decides: the events that follow from `command` in the present state (none is a valid
    /// answer).
    ///
    /// # Errors
    /// The refusal, which the caller gets unchanged.
    fn handle(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// Folds: the state after `event`. An event has happened and cannot be refused.
    fn apply(&mut self, event: &Self::Event);
}
