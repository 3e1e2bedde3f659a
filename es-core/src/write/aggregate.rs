//! Decisions: what an application's aggregate is.

use serde::{Serialize, de::DeserializeOwned};

use crate::event::Event;

/// A consistency boundary: a state that is folded from its own events and decides on commands.
///
/// Both functions are pure and synchronous. They see no clock, no randomness and no I/O (what a
/// decision needs of these comes in with the command), so a decision can be made again, tested
/// without a database, and replayed as of any version.
///
/// The state must be serializable because it may be kept as a snapshot; a snapshot is a cache, so
/// nothing depends on its form. It must be comparable because a state that JSON does not give back as
/// it was is not kept.
pub trait Aggregate: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Increase it whenever the state's fields or the meaning of [`apply`](Self::apply) change: snapshots of
    /// other versions are ignored.
    const STATE_VERSION: u32 = 1;

    /// What it can be asked to do.
    type Command: Send + Sync;

    /// What has happened to it. Its category is the category of the aggregate's streams.
    type Event: Event;

    /// Why it may refuse a command.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Decides: the events that follow from `command` in the present state (none is a valid
    /// answer).
    ///
    /// # Errors
    /// The refusal, which reaches the caller untouched.
    fn handle(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// Folds: the state after `event`. A fact cannot be refused.
    fn apply(&mut self, event: &Self::Event);
}
