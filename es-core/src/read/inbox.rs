//! The messages of another system that a reader has handled, while it handles more of them.

use std::{collections::HashSet, time::Duration};

use uuid::Uuid;

use super::foreign::Foreign;
use crate::{
    event::RecordedEvent,
    read::{
        read_model::{Inbox, Leases, ReadModelError, Reader},
        source::{EventSource, unreadable},
    },
};

/// What is known of the messages of one call, and what that adds.
#[derive(Clone)]
pub(crate) struct Open<'a> {
    source: &'a dyn EventSource,
    known: HashSet<Uuid>,
    handled: Vec<Uuid>,
    keep_for: Duration,
}

impl<'a> Open<'a> {
    /// Looks up `events`; `None`: the reader keeps no inbox.
    pub(crate) async fn of(
        foreign: Option<Foreign>,
        source: &'a dyn EventSource,
        leases: &dyn Leases,
        reader: &Reader,
        events: &[RecordedEvent],
    ) -> Result<Option<Self>, ReadModelError> {
        let Some(keep_for) = foreign.map(|foreign| foreign.keep_for).filter(|keep_for| !keep_for.is_zero()) else {
            return Ok(None);
        };
        let ids: Vec<_> = events.iter().map(|event| id(source, event)).collect();
        let known = leases.handled(reader, &ids).await?.into_iter().collect();
        Ok(Some(Self { source, known, handled: Vec::new(), keep_for }))
    }

    pub(crate) fn knows(&self, message: &RecordedEvent) -> bool {
        self.known.contains(&id(self.source, message))
    }

    /// It was handled.
    pub(crate) fn add(&mut self, message: &RecordedEvent) {
        let id = id(self.source, message);
        if self.known.insert(id) {
            self.handled.push(id);
        }
    }

    /// What the commit notes; `None`: nothing.
    pub(crate) fn into_changes(self) -> Option<Inbox> {
        let Self { handled, keep_for, .. } = self;
        (!handled.is_empty()).then_some(Inbox { handled, keep_for })
    }
}

/// What identifies `message`. One that its source could not read has the id of its place; read today, it has that which its producer
/// gave it, and repetitions have it too.
fn id(source: &dyn EventSource, message: &RecordedEvent) -> Uuid {
    if unreadable::is_unreadable(message) {
        source.read_again(message).map_or(message.id, |read| read.id)
    } else {
        message.id
    }
}
