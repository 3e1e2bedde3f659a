//! What waits to be handed on.

use es_core::RecordedEvent;

use super::Chain;
use crate::weight::weight;

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
