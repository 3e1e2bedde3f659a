//! How a reader reports what it has taken in, and the leases that it holds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, SharedString};

use super::{EVENT_DURATION, EVENTS_PROCESSED, LEASES_HELD, LEASES_LOST, LETTERS_ADDED};
use crate::event::RecordedEvent;

/// What one worker of a reader reports.
#[derive(Debug)]
pub(crate) struct ReaderMeter {
    consumer: SharedString,
    processed: HashMap<Arc<str>, Counter>,
    duration: Histogram,
    held: Gauge,
    lost: Counter,
}

/// A program has so many kinds of events at most. A log that was filled by other means may have more names; those have the label
/// [`OTHER`] together.
const MOST_EVENT_TYPES: usize = 1_000;

const OTHER: &str = "other";

impl ReaderMeter {
    pub(crate) fn of(consumer: &str) -> Self {
        let consumer = SharedString::from(consumer.to_owned());
        let label = || [consumer.clone()];
        Self {
            processed: HashMap::new(),
            duration: EVENT_DURATION.histogram(label()),
            held: LEASES_HELD.gauge(label()),
            lost: LEASES_LOST.counter(label()),
            consumer,
        }
    }

    /// `events` are committed, which `took` so long.
    pub(crate) fn processed(&mut self, events: &[RecordedEvent], took: Duration) {
        let Some(count) = u32::try_from(events.len()).ok().filter(|count| *count > 0) else { return };
        self.duration.record_many(took / count, events.len());
        for run in events.chunk_by(|one, next| one.data.name == next.data.name) {
            self.counter(&run[0].data.name).increment(run.len() as u64);
        }
    }

    fn counter(&mut self, name: &Arc<str>) -> &Counter {
        let name = if self.is_bounded(name) { name.clone() } else { OTHER.into() };
        let consumer = &self.consumer;
        self.processed
            .entry(name)
            .or_insert_with_key(|name| EVENTS_PROCESSED.counter([consumer.clone(), name.clone().into(), "ok".into()]))
    }

    fn is_bounded(&self, name: &Arc<str>) -> bool {
        self.processed.len() < MOST_EVENT_TYPES || self.processed.contains_key(name)
    }

    /// An attempt has ended at `event`.
    pub(crate) fn failed(&self, event: &RecordedEvent) {
        let name = if self.is_bounded(&event.data.name) { event.data.name.clone() } else { OTHER.into() };
        EVENTS_PROCESSED.counter([self.consumer.clone(), name.into(), "failed".into()]).increment(1);
    }

    /// So many dead letters were added.
    pub(crate) fn parked(&self, letters: usize) {
        if letters > 0 {
            LETTERS_ADDED.counter([self.consumer.clone()]).increment(letters as u64);
        }
    }

    /// A lease that this process holds from now on, until what is returned is dropped.
    pub(crate) fn holds(&self) -> HeldLease {
        self.held.increment(1.0);
        HeldLease(self.held.clone())
    }

    /// `leases` of them are lost to other workers.
    pub(crate) fn lost(&self, leases: usize) {
        self.lost.increment(leases as u64);
    }
}

/// A lease that this process holds.
#[derive(Debug)]
pub(crate) struct HeldLease(Gauge);

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
