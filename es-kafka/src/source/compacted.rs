//! Topics whose settings would lose events are refused before they are read.

use std::collections::HashSet;

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

/// The topics of a reader, each of which is looked at once: those that come later, and those to which the relay routes categories, are not
/// known before its progress tells of them.
pub(crate) struct Compacted {
    runtime: Handle,
    checked: HashSet<String>,
}

impl Compacted {
    /// `checked` were looked at already.
    pub(super) fn new(runtime: Handle, checked: Vec<String>) -> Self {
        Self { runtime, checked: checked.into_iter().collect() }
    }

    /// Looks at those that `progress` tells of for the first time. Not to be called by a task.
    ///
    /// # Errors
    /// When one would lose events.
    pub(crate) fn check(
        &mut self,
        config: &KafkaSourceConfig,
        topics: &Topics,
        progress: &Progress,
        categories: &Categories,
    ) -> Result<(), SourceError> {
        let is_new = |topic: &&String| !self.checked.contains(*topic) && topics.holds(topic, categories);
        let new: Vec<_> = progress.partitions.keys().filter(is_new).cloned().collect();
        if !new.is_empty() {
            self.runtime.block_on(check(config, &new))?;
            self.checked.extend(new);
        }
        Ok(())
    }
}
