//! What operators see of a dead-letter topic, and do with it.

mod acts;
pub(crate) mod depth;
mod error;
mod letter;
mod replay;
mod scan;

use es_core::Act;
use rdkafka::ClientConfig;

pub use self::{
    error::DeadLetterError,
    letter::{DeadRecord, DeadRecordFilter},
};
use crate::{
    client::{self, Settings},
    foreign::forwarded::dead_letter_topic,
};

/// The dead-letter topic `<topic>.dlq` of a topic that another system fills: records that a consumer could not handle and has
/// [forwarded](es_core::FailurePolicy::forward).
///
/// Records of a topic cannot be taken out one by one. So what was replayed or discarded is noted in a compacted topic beside it,
/// `<topic>.dlq.acts`, with who did it and why; a record that is noted there is listed no more. If it fails again, it comes back.
///
/// A record is one of a handler and of a place in the original topic: one that a crash has forwarded twice is listed once.
#[derive(Debug, Clone)]
pub struct DeadLetterTopic {
    brokers: String,
    /// The original topic.
    topic: String,
    settings: Settings,
}

/// Where a dead record is produced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayTo {
    /// To its handler alone, through the first retry topic, without a delay. A header whose name is not UTF-8 is left out, so that the
    /// handler can read the record.
    Handler,
    /// To the original topic, as it was: all its consumers get it. Those that have handled it pass over it, if their inbox knows it by
    /// its own id. One with a header whose name is not UTF-8 is refused ([`DeadLetterError::HeaderName`]).
    Topic,
}

impl DeadLetterTopic {
    /// The dead-letter topic of `topic` on the brokers at `host:port`, separated by commas.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), topic: topic.into(), settings: Settings::new() }
    }

    /// Further properties of librdkafka, for example for TLS and SASL.
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// The name of the original topic.
    pub fn original(&self) -> &str {
        &self.topic
    }

    /// The name of the dead-letter topic.
    pub fn name(&self) -> String {
        dead_letter_topic(&self.topic)
    }

    /// The records that wait for an operator, in the order in which they came, without their values. A topic that is not there holds
    /// none.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn list(&self, filter: &DeadRecordFilter) -> Result<Vec<DeadRecord>, DeadLetterError> {
        let mut open = scan::open(self).await?;
        open.retain(|record| filter.matches(record));
        Ok(open)
    }

    /// The record at this place of the dead-letter topic with all that it holds.
    ///
    /// # Errors
    /// [`DeadLetterError::Gone`] if there is none, among others.
    pub async fn show(&self, partition: i32, offset: i64) -> Result<DeadRecord, DeadLetterError> {
        scan::whole(self, partition, offset).await
    }

    /// Produces `records`, which [`list`](Self::list) has returned, and then notes that. A crash in between leaves them listed; a handler
    /// that gets one again passes over it.
    ///
    /// # Errors
    /// [`DeadLetterError`]. What was replayed before is noted.
    pub async fn replay(&self, records: &[DeadRecord], to: ReplayTo, act: &Act) -> Result<(), DeadLetterError> {
        replay::replay(self, records, to, act).await
    }

    /// Notes that `records`, which [`list`](Self::list) has returned, are never to be handled.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub async fn discard(&self, records: &[DeadRecord], act: &Act) -> Result<(), DeadLetterError> {
        replay::discard(self, records, act).await
    }

    /// A client that reads, and joins no group.
    fn reader(&self) -> ClientConfig {
        let mut client = client::consumer(&self.brokers, "es-dead-letters", &self.settings);
        client.set("enable.partition.eof", "true");
        client
    }
}
