//! Topics whose settings would lose events are refused before they are read.

use es_core::backend::{Categories, SourceError};
use rdkafka::admin::AdminClient;
use tokio::runtime::Handle;

use crate::{
    client::{self, Quiet, unavailable},
    config::KafkaSourceConfig,
    progress::Progress,
    topic_settings::TopicSettings,
    topic_status::{TopicStatus, describe},
    topics::Topics,
};

/// Refuses topics whose settings would lose events.
pub(super) async fn check(config: &KafkaSourceConfig, topics: &[String]) -> Result<(), SourceError> {
    let admin: AdminClient<Quiet> =
        client::layered(&config.brokers, &[], &config.settings, &[]).create_with_context(Quiet).map_err(unavailable)?;
    let mut topics: Vec<_> = topics.iter().map(|topic| TopicStatus::new(topic, None)).collect();
    let declared = TopicSettings::default();
    // A reader that may not see them finds gaps by itself, and the relay looks too.
    describe(&admin, |_| &declared, &mut topics).await.map_err(unavailable)?;
    match topics.iter().find_map(|topic| Some((topic, topic.compaction()?))) {
        Some((topic, policy)) => {
            let reason =
                format!("its cleanup.policy {policy:?} deletes events: set it to \"delete\", with retention.ms -1");
            Err(SourceError::Unfit { place: topic.topic.clone(), reason })
        }
        None => Ok(()),
    }
}

/// The same for topics to which the relay routes categories: these are not known before its progress is. Not to be called by a task.
pub(crate) fn check_routed(
    config: &KafkaSourceConfig,
    topics: &Topics,
    progress: &Progress,
    categories: &Categories,
    runtime: &Handle,
) -> Result<(), SourceError> {
    let is_read = |topic: &&String| progress.partitions.contains_key(*topic) && topics.holds(topic, categories);
    let routed: Vec<_> = topics.targets().values().flatten().filter(is_read).cloned().collect();
    if routed.is_empty() { Ok(()) } else { runtime.block_on(check(config, &routed)) }
}
