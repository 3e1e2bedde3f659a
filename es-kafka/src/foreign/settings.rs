//! Whether the topics beside a topic keep what waits in them.

use std::{collections::HashSet, time::Duration};

use es_core::backend::{Finding, Severity, SourceError};
use rdkafka::{
    admin::AdminClient,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    KafkaTopic,
    forwarded::{dead_letter_topic, retry_topic},
};
use crate::{
    aside,
    client::{self, Quiet, unavailable},
    source::begin::PATIENCE,
    topic_settings::TopicSettings,
    topic_status::{Loss, TopicStatus, describe},
};

/// What was said already: it is said once.
pub(super) type Said = HashSet<String>;

/// Compares the topics to which `of` forwards with what is declared, and warns of what is no loss yet.
///
/// A client that may not see the settings is not refused.
///
/// # Errors
/// [`SourceError::Refused`] where records would be lost before they are handled.
pub(super) async fn check(of: &KafkaTopic, said: &mut Said) -> Result<(), SourceError> {
    let retries = of.delays.iter().enumerate().map(|(index, delay)| (retry_topic(&of.topic, index + 1), Some(*delay)));
    let kinds: Vec<_> = retries.chain([(dead_letter_topic(&of.topic), None)]).collect();
    let (observer, names) = (of.config.observer("topics"), kinds.iter().map(|(name, _)| name.clone()).collect());
    let asked = aside::done(move || find(&observer, names));
    let (brokers, mut found) = asked.await.map_err(SourceError::Unavailable)??;
    let admin: AdminClient<Quiet> = client::layered(&of.config.brokers, &[], &of.config.settings, &[])
        .create_with_context(Quiet)
        .map_err(unavailable)?;
    let none = TopicSettings::default();
    let is_readable = describe(&admin, |_| &none, &mut found).await.map_err(unavailable)?;
    if !is_readable && said.insert("unreadable".to_owned()) {
        tracing::warn!(
            topic = of.topic,
            "the brokers tell no settings of its retry and dead-letter topics, and they are not checked: is DescribeConfigs granted?"
        );
    }
    for topic in &found {
        let delay = kinds.iter().find(|(name, _)| *name == topic.topic).and_then(|(_, delay)| *delay);
        for Finding { severity, found, advice, .. } in findings(of, topic, delay, brokers) {
            let remedy = advice.unwrap_or_default();
            if severity == Severity::Problem {
                return Err(SourceError::Refused { remedy, source: found.into() });
            }
            if said.insert(found.clone()) {
                tracing::warn!(topic = topic.topic, remedy, "{found}");
            }
        }
    }
    Ok(())
}

/// How many brokers there are, and those of the topics that exist.
fn find(observer: &rdkafka::ClientConfig, names: Vec<String>) -> Result<(usize, Vec<TopicStatus>), SourceError> {
    let consumer: BaseConsumer<Quiet> = observer.create_with_context(Quiet).map_err(unavailable)?;
    let (mut brokers, mut topics) = (0, Vec::new());
    for name in names {
        let metadata = consumer.fetch_metadata(Some(&name), PATIENCE).map_err(unavailable)?;
        brokers = metadata.brokers().len();
        let found = metadata.topics().iter().find(|found| found.name() == name && !found.partitions().is_empty());
        topics.extend(found.map(|found| TopicStatus::new(name, Some(found))));
    }
    Ok((brokers, topics))
}

/// What loses records of `topic`, which wait for `delay` in it; `None`: it is the dead-letter topic.
fn findings(of: &KafkaTopic, topic: &TopicStatus, delay: Option<Duration>, brokers: usize) -> Vec<Finding> {
    let name = &topic.topic;
    let kept = delay.map_or(of.dead_letters_kept, |delay| Some(delay * 2));
    let declared = TopicSettings { retention: kept, ..TopicSettings::default() };
    let problem = |loss: Loss<'_>| match loss {
        Loss::Compacted { policy } => (
            format!("{name} has the cleanup.policy {policy:?}, which deletes records that wait"),
            "set its cleanup.policy to \"delete\"".to_owned(),
        ),
        Loss::Deletes { name: limit, limit: found, declared } => {
            let instead = declared.map_or_else(|| "-1".to_owned(), |least| format!("at least {least}, or to -1"));
            let (what, more) = match (delay, limit) {
                (Some(_), _) => ("records that wait", ""),
                (None, "retention.ms") => ("dead letters", "; or declare it with `keep_dead_letters`"),
                (None, _) => ("dead letters", ""),
            };
            (
                format!("{name} deletes {what} after a while, handled or not ({limit} is {found})"),
                format!("set its {limit} to {instead}{more}"),
            )
        }
        Loss::Unclean => (
            format!("{name} may be led by a broker that lacks records"),
            "set its unclean.leader.election.enable to false".to_owned(),
        ),
    };
    let problems = topic.losses(&declared).into_iter().map(problem);
    let problems = problems.map(|(found, advice)| Finding::problem("topic", found, advice));
    problems.chain(topic.weaknesses(brokers)).collect()
}
