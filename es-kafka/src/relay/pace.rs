//! How much a relay reads at once.

use es_core::Position;

/// The first read, before the size of the events is known.
const FIRST: usize = 100;

/// How many events to read at once: the store's limit counts events, memory counts bytes (R17).
#[derive(Debug)]
pub(crate) struct Pace {
    pub(crate) limit: usize,
    most: usize,
    /// Up to here the limit does not grow: a batch was refused as too large.
    slow_until: Position,
}

impl Pace {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { limit: most.min(FIRST), most, slow_until: Position::ZERO }
    }

    pub(crate) fn adapt(&mut self, events: usize, bytes: usize, most_bytes: usize) {
        if bytes > most_bytes {
            self.limit = (events * most_bytes / bytes.max(1)).clamp(1, self.limit);
        } else if self.slow_until == Position::ZERO {
            self.limit = (self.limit * 2).min(self.most);
        }
    }

    pub(crate) fn slow_down(&mut self, limit: usize, until: Position) {
        self.limit = limit.max(1);
        self.slow_until = self.slow_until.max(until);
    }

    pub(crate) fn passed(&mut self, position: Position) {
        if position >= self.slow_until {
            self.slow_until = Position::ZERO;
        }
    }
}
