//! The shards of a group: the partitions of the topics.

use std::time::Duration;

use es_core::backend::{Categories, Shard, SourceError, counted};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use crate::{
    client::unavailable,
    progress::Progress,
    topics::{Topics, shard},
};

/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One for each partition of the subscribed topics.
pub(crate) fn list<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topics: &Topics,
    categories: &Categories,
    progress: Option<&Progress>,
) -> Result<Vec<Shard>, SourceError> {
    let metadata = consumer.fetch_metadata(None, PATIENCE).map_err(unavailable)?;
    let subscribed: Vec<_> = metadata.topics().iter().filter(|topic| topics.holds(topic.name(), categories)).collect();
    for topic in &subscribed {
        let known = progress.and_then(|progress| progress.partitions.get(topic.name()));
        let found = topic.partitions().len();
        if let Some(known) = known.filter(|known| usize::try_from(**known) != Ok(found)) {
            return Err(SourceError::Unfit {
                place: topic.name().to_owned(),
                reason: format!(
                    "it has {}, and had {known} when its first event was published, so that streams lie \
                     in another one than their order needs; the relay's error says what to do",
                    counted(found, "partition")
                ),
            });
        }
    }
    let mut shards: Vec<_> = subscribed
        .iter()
        .flat_map(|topic| topic.partitions().iter().map(|partition| shard(topic.name(), partition.id())))
        .collect();
    shards.sort_unstable();
    Ok(shards)
}
