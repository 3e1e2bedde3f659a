//! The offsets that records will have.

use crate::offsets::{Offsets, PerPartition};

/// How many transactions are made without a forecast after one that was wrong.
const CAUTIOUS: u32 = 100;

/// Lets a transaction's progress be sent together with its events, before brokers have told their offsets: one round less.
///
/// Where this producer wrote last, the marker of that transaction follows, and then the next record, unless another producer
/// writes there too. The relay compares the forecast with what brokers tell before it commits.
#[derive(Debug, Default)]
pub(crate) struct Forecast {
    /// The partitions that this producer has committed to.
    known: PerPartition<()>,
    cautious: u32,
}

impl Forecast {
    /// Begins one that continues after `told`, the offsets that brokers have told of.
    pub(crate) fn begin(&self, told: &Offsets) -> Option<Next<'_>> {
        (self.cautious == 0).then(|| Next { known: &self.known, told: told.clone(), offsets: told.clone() })
    }

    /// A transaction is committed that moved the offsets.
    pub(crate) fn committed(&mut self, before: &Offsets, after: &Offsets) {
        self.cautious = self.cautious.saturating_sub(1);
        for (topic, partition, next) in after.iter() {
            if before.get(topic, partition) != Some(next) {
                self.known.set(topic, partition, ());
            }
        }
    }

    /// Another producer has written.
    pub(crate) fn was_wrong(&mut self) {
        (self.known, self.cautious) = (PerPartition::default(), CAUTIOUS);
    }
}

/// The forecast of one transaction.
#[derive(Debug)]
pub(crate) struct Next<'a> {
    known: &'a PerPartition<()>,
    told: Offsets,
    /// After the records so far.
    pub(crate) offsets: Offsets,
}

impl Next<'_> {
    /// Counts one more record. `None` if nothing is known of its partition.
    pub(crate) fn counting(mut self, topic: &str, partition: i32) -> Option<Self> {
        self.known.get(topic, partition)?;
        let next = self.offsets.next(topic, partition);
        let is_first = next == self.told.next(topic, partition);
        self.offsets.set(topic, partition, next + 1 + i64::from(is_first));
        Some(self)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn r10_only_where_this_producer_wrote_last_offsets_are_foretold_after_its_marker() {
        let (mut forecast, nothing) = (Forecast::default(), Offsets::default());
        assert!(forecast.begin(&nothing).unwrap().counting("order-events", 0).is_none());
        let told = Offsets::one("order-events", 0, 7);
        forecast.committed(&nothing, &told);
        let next = forecast.begin(&told).unwrap();
        let next = next.counting("order-events", 0).unwrap().counting("order-events", 0).unwrap();
        // The marker has offset 7, the records have 8 and 9.
        assert_eq!(next.offsets, Offsets::one("order-events", 0, 10));
        assert!(next.counting("order-events", 1).is_none());
        forecast.was_wrong();
        assert!(forecast.begin(&told).is_none());
        (0..CAUTIOUS).for_each(|_| forecast.committed(&told, &told));
        assert!(forecast.begin(&told).unwrap().counting("order-events", 0).is_none());
    }
}
