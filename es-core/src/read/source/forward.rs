//! What a source gets of an event that its reader could not handle, and has to keep beside the others.

use crate::{event::RecordedEvent, read::read_model::Shard};

/// An event that its reader could not handle, for [`EventSource::forward`](super::EventSource::forward).
#[derive(Debug, Clone, Copy)]
pub struct FailedEvent<'a> {
    /// The name of the reader.
    pub reader: &'a str,
    /// The shard of the event.
    pub shard: &'a Shard,
    /// The event, as the source has delivered it.
    pub event: &'a RecordedEvent,
    /// Why it failed, with all causes.
    pub cause: &'a str,
    /// In one word, what kind of failure it is.
    pub class: &'static str,
    /// How often it was tried since the source has delivered it.
    pub attempts: u32,
    /// Whether no further attempt of this program can succeed: it is to be kept for operators.
    pub is_lasting: bool,
}

/// Where a source has put an event that was forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarded {
    /// It is delivered to its reader again, after a while. The text names the place.
    Retry(String),
    /// It waits for an operator. The text names the place.
    DeadLetter(String),
}
