//! What goes into one stream side by side, as a batch shows it to the statements.

use es_core::{Append, Expected, StreamId};
use uuid::Uuid;

use crate::write::{append::Prepared, request::Request};

/// Where the parts of an entry are, and its place in the batch.
pub(crate) struct Slot {
    /// Which appends: of which request, and which of its appends.
    pub(crate) members: Vec<(usize, usize)>,
    /// How many events they have.
    pub(crate) events: usize,
    pub(crate) wave: i32,
    /// Entries of one request are written together.
    pub(crate) group: i32,
}

/// An entry is written whole or not at all: it is one append, or several of which each builds on the one before it.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) slot: &'a Slot,
    pub(crate) requests: &'a [Request],
}

impl<'a> Entry<'a> {
    /// Its appends, in order.
    pub(crate) fn members(self) -> impl Iterator<Item = &'a Prepared> + Clone {
        self.slot.members.iter().map(move |(request, append)| &self.requests[*request].appends[*append])
    }

    /// The append with which it begins.
    fn first(self) -> &'a Append {
        let (request, append) = self.slot.members[0];
        &self.requests[request].appends[append].append
    }

    /// Where it goes.
    pub(crate) fn stream(self) -> &'a StreamId {
        &self.first().stream
    }

    /// What its stream must be like.
    pub(crate) fn expected(self) -> Expected {
        self.first().expected
    }

    /// How many events it has.
    pub(crate) fn events(self) -> usize {
        self.slot.events
    }

    /// Its first event.
    pub(crate) fn first_event(self) -> Uuid {
        self.first().events[0].id
    }

    /// Its last event.
    pub(crate) fn last_event(self) -> Uuid {
        let events = self.members().flat_map(|member| &member.append.events);
        events.last().map(|event| event.id).unwrap_or_default()
    }
}
