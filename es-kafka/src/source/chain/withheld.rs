//! An event whose payload cannot be had ends a chain, and holds back nothing before it.

use es_core::backend::SourceError;

use super::Chain;

impl Chain {
    /// Whether the payload of the next event cannot be had. What waits before it may be handed on; it is read again by the next reader.
    pub(crate) fn is_withheld(&self) -> bool {
        self.withheld
    }

    /// The event at `offset`, whose place is right, cannot be accepted. Where only its payload is missing it still names the one
    /// before it.
    pub(super) fn withhold(&mut self, offset: i64, error: SourceError) -> SourceError {
        if matches!(error, SourceError::Refused { .. } | SourceError::Unavailable(_)) {
            if let Some(vouched) = self.tip.take() {
                self.mark = vouched;
            }
            // No checkpoint may pass it.
            (self.withheld, self.next, self.uncovered_since) = (true, offset, None);
        }
        error
    }
}
