//! Settings of topics that would lose events.

use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier},
    client::ClientContext,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

/// What is wrong with the settings of a topic of events, if anything is: compaction keeps one event of
/// a stream and deletes the others. Retention is a warning: what it deletes is missed by readers that
/// come later, and they say so.
///
/// A user that may not see the settings is not refused: a reader finds the gaps by itself.
pub(crate) async fn compacted<C: ClientContext>(
    admin: &AdminClient<C>,
    topics: &[String],
) -> KafkaResult<Option<(String, String)>> {
    if topics.is_empty() {
        return Ok(None);
    }
    let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let described = admin.describe_configs(&resources, &AdminOptions::new()).await?;
    for (topic, described) in topics.iter().zip(described) {
        let settings = match described {
            Ok(settings) => settings,
            // It was deleted in this moment, or the broker does not know it yet.
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => continue,
            Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                tracing::warn!(topic, "the settings of this topic may not be read, and are not checked");
                continue;
            }
            Err(code) => return Err(KafkaError::AdminOp(code)),
        };
        // A broker that has just learnt of the topic may tell none of its settings.
        let policy = value(&settings, "cleanup.policy").unwrap_or_default();
        if policy.split(',').any(|policy| policy.trim() == "compact") {
            return Ok(Some((topic.clone(), policy.to_owned())));
        }
        for limit in ["retention.ms", "retention.bytes"] {
            if let Some(found) = value(&settings, limit)
                && found != "-1"
            {
                tracing::warn!(
                    topic,
                    limit,
                    found,
                    "events are deleted after a while; a rebuild from Kafka misses them"
                );
            }
        }
    }
    Ok(None)
}

fn value<'a>(settings: &'a ConfigResource, name: &str) -> Option<&'a str> {
    settings.get(name).and_then(|entry| entry.value.as_deref())
}
