//! The messages of another system that a reader has handled, while it handles more of them.

use std::{collections::HashSet, time::Duration};

use uuid::Uuid;

use super::foreign::Foreign;
use crate::{
    event::RecordedEvent,
    read::read_model::{Inbox, Leases, ReadModelError, Reader},
};

/// What is known of the messages of one call, and what that adds.
#[derive(Clone)]
pub(crate) struct Open {
    known: HashSet<Uuid>,
    handled: Vec<Uuid>,
    keep_for: Duration,
}

impl Open {
    /// Looks up `events`; `None`: the reader keeps no inbox.
    pub(crate) async fn of(
        foreign: Option<Foreign>,
        leases: &dyn Leases,
        reader: &Reader,
        events: &[RecordedEvent],
    ) -> Result<Option<Self>, ReadModelError> {
        let Some(keep_for) = foreign.map(|foreign| foreign.keep_for).filter(|keep_for| !keep_for.is_zero()) else {
            return Ok(None);
        };
        let ids: Vec<_> = events.iter().map(|event| event.id).collect();
        let known = leases.handled(reader, &ids).await?.into_iter().collect();
        Ok(Some(Self { known, handled: Vec::new(), keep_for }))
    }

    pub(crate) fn knows(&self, message: &RecordedEvent) -> bool {
        self.known.contains(&message.id)
    }

    /// It was handled.
    pub(crate) fn add(&mut self, message: &RecordedEvent) {
        if self.known.insert(message.id) {
            self.handled.push(message.id);
        }
    }

    /// What the commit notes; `None`: nothing.
    pub(crate) fn into_changes(self) -> Option<Inbox> {
        let Self { handled, keep_for, .. } = self;
        (!handled.is_empty()).then_some(Inbox { handled, keep_for })
    }
}
