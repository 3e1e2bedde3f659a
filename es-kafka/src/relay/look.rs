//! Whether the topics are still as a running relay has left them.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
    metadata::MetadataTopic,
};
use tokio::time::timeout;

use super::{create::TopicMaker, failure::Failure};
use crate::{
    aside,
    client::{self, Quiet},
    config::RelayConfig,
    progress::Progress,
    topics::Topics,
};

/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at the topics now and then.
///
/// An operator who adds partitions, changes a setting, or deletes a topic is to hear of it then, and not at the next event or
/// the next start.
#[derive(Debug)]
pub(super) struct Look {
    every: Duration,
    last: Instant,
}

impl Look {
    pub(super) fn new(config: &RelayConfig) -> Self {
        Self { every: config.check_topics_every, last: Instant::now() }
    }

    /// What `awaited` gives, or `None` when it is time to look.
    pub(super) async fn until_due<T>(&self, awaited: impl Future<Output = T>) -> Option<T> {
        timeout(self.every.saturating_sub(self.last.elapsed()), awaited).await.ok()
    }

    /// Looks if it is time.
    ///
    /// # Errors
    /// If a topic loses events now, or is not what `progress` tells. What that means is found out, and named, where a relay
    /// starts: [`Failure::Again`].
    pub(super) async fn look(
        &mut self,
        config: &RelayConfig,
        maker: &mut TopicMaker,
        progress: Option<&Progress>,
    ) -> Result<(), Failure> {
        if self.last.elapsed() < self.every {
            return Ok(());
        }
        self.last = Instant::now();
        match maker.check_again().await {
            Ok(()) => {}
            Err(failure @ Failure::Final(_)) => return Err(failure),
            // Brokers that do not answer now are asked again; what is published does not depend on it.
            Err(_) => return Ok(()),
        }
        let Some(progress) = progress.cloned() else { return Ok(()) };
        let client = client::consumer(&config.brokers, &config.transactional_id(), &config.settings);
        let progress_topic = Topics::new(&config.topic_prefix).progress();
        let asked = aside::done(move || is_changed(&client, &progress, &progress_topic));
        match asked.await.map_err(Failure::Transient)? {
            Ok(false) => Ok(()),
            Ok(true) => {
                tracing::warn!(
                    relay = config.name,
                    "topics have changed: the relay starts again, and looks what it is"
                );
                Err(Failure::Again)
            }
            Err(error) => {
                tracing::debug!(%error, "the topics cannot be looked at now");
                Ok(())
            }
        }
    }
}

/// Whether a topic has other partitions than when its first event was published, or a partition ends before its last event; or the
/// progress itself is gone.
fn is_changed(client: &ClientConfig, progress: &Progress, progress_topic: &str) -> KafkaResult<bool> {
    let mut client = client.clone();
    let consumer: BaseConsumer<Quiet> = client.set("isolation.level", "read_uncommitted").create_with_context(Quiet)?;
    let metadata = consumer.fetch_metadata(None, PATIENCE)?;
    let is_changed = |topic: &str, known: i32| {
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        found.map(MetadataTopic::partitions).unwrap_or_default().len() != usize::try_from(known).unwrap_or(0)
    };
    let mut topics = progress.partitions.iter();
    if is_changed(progress_topic, 1) || topics.any(|(topic, known)| is_changed(topic, *known)) {
        return Ok(true);
    }
    let mut ends = TopicPartitionList::new();
    ends.add_partition_offset(progress_topic, 0, Offset::End)?;
    for (topic, partition, _) in progress.offsets.iter() {
        ends.add_partition_offset(topic, partition, Offset::End)?;
    }
    let ends = consumer.offsets_for_times(ends, PATIENCE)?;
    Ok(ends.elements().iter().any(|end| {
        let known = match end.topic() {
            topic if topic == progress_topic => 1,
            topic => progress.offsets.next(topic, end.partition()),
        };
        matches!(end.offset(), Offset::Offset(found) if found < known)
    }))
}
