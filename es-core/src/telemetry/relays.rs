//! How a relay reports what it has published.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Histogram, SharedString};

use super::{RELAY_DURATION, RELAY_ERRORS, RELAY_EVENTS, kind};

/// What a relay reports.
#[derive(Debug)]
pub struct RelayMeter {
    relay: String,
    handles: OnceLock<Handles>,
}

#[derive(Debug)]
struct Handles {
    published: Counter,
    committed: Histogram,
    failed: Histogram,
}

impl RelayMeter {
    /// That of the relay `relay`.
    pub fn of(relay: &str) -> Self {
        Self { relay: relay.to_owned(), handles: OnceLock::new() }
    }

    fn label(&self) -> SharedString {
        self.relay.clone().into()
    }

    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| Handles {
            published: RELAY_EVENTS.counter([self.label()]),
            committed: RELAY_DURATION.histogram([self.label(), "committed".into()]),
            failed: RELAY_DURATION.histogram([self.label(), "failed".into()]),
        })
    }

    /// A transaction with so many events is committed, after it `took` so long.
    pub fn committed(&self, events: usize, took: Duration) {
        let Handles { published, committed, .. } = self.handles();
        published.increment(events as u64);
        committed.record(took);
    }

    /// A transaction has failed after so long.
    pub fn failed(&self, took: Duration) {
        self.handles().failed.record(took);
    }

    /// The relay has met an error.
    pub fn error(&self, is_transient: bool) {
        RELAY_ERRORS.counter([self.label(), kind(is_transient)]).increment(1);
    }
}
