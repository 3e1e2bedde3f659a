//! What the brokers report of the records of a transaction.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext},
};

use crate::{client, offsets::Offsets, refusal::Refusal};

/// The delivery opaque of the progress record; events have their index in the batch.
pub(crate) const PROGRESS: usize = usize::MAX;

/// What delivery reports have said about the open transaction.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    pub(crate) confirmed: usize,
    /// When it has said something first.
    pub(crate) answered: Option<Instant>,
    pub(crate) next: Offsets,
    pub(crate) failed: Option<(usize, KafkaError)>,
    /// The brokers' refusal of this client, which they tell on the side.
    pub(crate) denied: Option<KafkaError>,
    pub(crate) rewound: Option<Rewound>,
    /// Whether the relay may not write to a topic. Its records wait then, and no report comes.
    pub(crate) may_not_write: bool,
}

/// A partition that is shorter than what was published to it.
#[derive(Debug)]
pub(crate) struct Rewound {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) known: i64,
    pub(crate) found: i64,
}

impl Reports {
    fn confirm(&mut self, index: usize, topic: &str, partition: i32, offset: i64) {
        if offset < 0 {
            // Written at an offset that the client was not told, for example since the broker took it for a repetition.
            // The progress could not speak of it: the transaction is tried again.
            return self.fail(index, KafkaError::MessageProduction(RDKafkaErrorCode::Fail));
        }
        self.confirmed += 1;
        self.answered.get_or_insert_with(Instant::now);
        if index == PROGRESS {
            return;
        }
        let known = self.next.next(topic, partition);
        if offset < known {
            // The topic was deleted and created again, or the progress is another cluster's.
            let topic = topic.to_owned();
            self.rewound.get_or_insert(Rewound { topic, partition, known, found: offset });
        }
        self.next.advance(topic, partition, offset + 1);
    }

    fn fail(&mut self, index: usize, error: KafkaError) {
        if self.failed.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
            self.failed = Some((index, error));
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Deliveries(Mutex<Reports>);

impl Deliveries {
    /// A transaction begins. Returns the offsets that were told before.
    pub(crate) fn begin(&self) -> Offsets {
        let mut reports = self.reports();
        (reports.confirmed, reports.answered) = (0, None);
        reports.next.clone()
    }

    pub(crate) fn reports(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::log(level, facility, line);
        // The client says it nowhere else before the transaction is committed.
        if facility == "TXNERR" && line.contains("TOPIC_AUTHORIZATION_FAILED") {
            self.reports().may_not_write = true;
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::report(&error, reason);
        if !client::is_lost_in_handshake(reason) && Refusal::of(error.clone()).is_ok() {
            self.reports().denied = Some(error);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut reports = self.reports();
        match result {
            Ok(record) => reports.confirm(index, record.topic(), record.partition(), record.offset()),
            Err((error, _)) => reports.fail(index, error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r10_a_record_at_an_unknown_offset_is_a_failure_and_not_a_rewound_partition() {
        let mut reports = Reports::default();
        reports.confirm(0, "order-events", 0, 7);
        reports.confirm(1, "order-events", 0, -1001);
        assert!(reports.rewound.is_none() && matches!(reports.failed, Some((1, _))), "{reports:?}");
        assert_eq!((reports.confirmed, reports.next.next("order-events", 0)), (1, 8));
        reports.confirm(2, "order-events", 0, 3);
        assert!(matches!(reports.rewound, Some(Rewound { known: 8, found: 3, .. })), "{reports:?}");
    }
}
