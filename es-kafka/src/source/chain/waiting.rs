//! What waits to be handed on.

use std::time::Duration;

use es_core::RecordedEvent;

use super::Chain;
use crate::weight::weight;

/// How long a poll waits for a record: with it, how late a progress may be noticed, which another consumer reads.
const POLL: Duration = Duration::from_millis(10);
/// The same while events wait for a progress that speaks of them.
const SOON: Duration = Duration::from_millis(1);

/// How long the next record of any of these is to be waited for.
pub(crate) fn patience<'a>(mut chains: impl Iterator<Item = &'a Chain>) -> Duration {
    if chains.any(|chain| !chain.is_empty()) { SOON } else { POLL }
}

impl Chain {
    /// Whether as much as `events` or `bytes` of memory waits, the last event apart: that one waits for the next.
    pub(crate) fn holds(&self, events: usize, bytes: usize) -> bool {
        let last = self.tip.and_then(|_| self.buffer.back()).map_or(0, |(_, event)| weight(event));
        let waiting = self.buffer.len() - usize::from(self.tip.is_some());
        waiting > 0 && (waiting >= events || self.bytes - last >= bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The first event that waits.
    pub(crate) fn front(&self) -> Option<&RecordedEvent> {
        self.buffer.front().map(|(_, event)| event)
    }

    pub(crate) fn pop(&mut self) -> Option<RecordedEvent> {
        let (_, event) = self.buffer.pop_front()?;
        self.bytes -= weight(&event);
        Some(event)
    }

    /// The offset after the last record that was passed on.
    pub(crate) fn cursor(&self) -> i64 {
        self.buffer.front().map_or(self.next, |(offset, _)| *offset).max(self.begin.floor)
    }
}
