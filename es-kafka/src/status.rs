//! How a relay and its topics are.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use es_core::{EventStore, Position, backend::Finding};
use rdkafka::{
    ClientConfig,
    admin::AdminClient,
    consumer::{BaseConsumer, Consumer},
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    aside,
    client::{self, Quiet, told},
    config::RelayConfig,
    progress::{self, Written},
    reconcile::ReconcileError,
    topic_status::{TopicStatus, describe},
    topics::Topics,
};

/// Why the status of a relay is not known: as for a comparison.
pub type StatusError = ReconcileError;

/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far a relay has come, and whether its topics keep what it publishes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RelayStatus {
    /// The relay's name.
    pub relay: String,
    /// What excludes a second relay of this name and prefix.
    pub transactional_id: String,
    /// The position of the last published event.
    pub position: Position,
    /// The end of the log.
    pub head: Position,
    /// How many events are not published yet.
    pub lag_events: u64,
    /// The age of the first of these, in seconds; 0 if there is none.
    pub lag_seconds: f64,
    /// When the relay last wrote its progress.
    pub written_at: Option<DateTime<Utc>>,
    /// Which filling of the topics this is; `None` where the relay has not written anything yet.
    pub incarnation: Option<Uuid>,
    /// The topic of the progress, and those of events.
    pub topics: Vec<TopicStatus>,
    /// What is wrong, and what to do about it.
    pub findings: Vec<Finding>,
}

/// What the brokers say of all topics.
struct Asked {
    progress: Option<Written>,
    brokers: usize,
    topics: Vec<TopicStatus>,
}

impl RelayStatus {
    /// The status of the relay of this `config` on the log of `store`, whichever process runs it.
    ///
    /// # Errors
    /// [`StatusError`].
    ///
    /// # Panics
    /// Its future panics outside of a tokio runtime with time enabled.
    pub async fn of(store: &dyn EventStore, config: &RelayConfig) -> Result<Self, StatusError> {
        let asked = config.clone();
        let Asked { progress, brokers, mut topics } =
            aside::done(move || ask(&asked)).await.map_err(StatusError::Unavailable)??;
        let admin: AdminClient<Quiet> =
            client::layered(&config.brokers, &[], &config.settings, &[]).create_with_context(Quiet)?;
        let readable = describe(&admin, |topic| config.settings_of(topic), &mut topics).await?;
        // The head is read last, so the position is not greater than it.
        let head = store.head().await?;
        let (progress, written_at) = progress.unzip();
        let position = progress.as_ref().map(|progress| progress.position).unwrap_or_default();
        let next = if position < head { store.read_log(position, 1).await?.pop() } else { None };
        let waits = next.map_or(0.0, |event| (Utc::now() - event.recorded_at).as_seconds_f64().max(0.0));
        let names = Topics::new(&config.topic_prefix);
        let mut findings = Vec::new();
        if position > head {
            findings.push(Finding::problem(
                "relay",
                format!(
                    "position {position} is published, and the log ends at {head}: it lost its end, or is another log"
                ),
                "start the relay: its error says what to do",
            ));
        }
        if progress.is_none() {
            findings.push(Finding::warning(
                "relay",
                format!("there is no progress of the relay {:?} in {}", config.name, names.progress()),
                "start the relay; if it has published already, compare its name and the prefix of its topics",
            ));
        }
        for topic in &topics {
            findings.extend(topic.findings(topic.topic == names.progress(), brokers, config));
        }
        if !readable {
            findings.push(Finding::warning(
                "topics",
                "the brokers do not show this client the settings of the topics",
                "grant it DescribeConfigs on the topics",
            ));
        }
        Ok(Self {
            relay: config.name.clone(),
            transactional_id: config.transactional_id(),
            position,
            head,
            lag_events: head.get().saturating_sub(position.get()),
            lag_seconds: waits,
            written_at: written_at.flatten(),
            incarnation: progress.map(|progress| progress.incarnation),
            topics,
            findings,
        })
    }
}

fn ask(config: &RelayConfig) -> Result<Asked, StatusError> {
    let names = Topics::new(&config.topic_prefix);
    let client: ClientConfig = client::consumer(&config.brokers, &config.transactional_id(), &config.settings);
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet)?;
    let metadata = match consumer.fetch_metadata(None, PATIENCE) {
        Ok(metadata) => metadata,
        Err(error) => return Err(told(&consumer).unwrap_or(error).into()),
    };
    let progress = if metadata.topics().iter().any(|topic| topic.name() == names.progress()) {
        progress::read_last_record(&client, &names.progress(), &config.name, PATIENCE)?
    } else {
        client::exists(&consumer, &names.progress(), PATIENCE)?;
        None
    };
    // Where the relay publishes to, whatever this program declares.
    let targets = progress.as_ref().map(|(progress, _)| progress.targets.clone());
    let names = names.with_targets(targets.unwrap_or_default());
    let mut topics = BTreeMap::new();
    for topic in metadata.topics() {
        if topic.name() == names.progress() || names.category(topic.name()).is_some() {
            topics.insert(topic.name().to_owned(), TopicStatus::new(topic.name(), Some(topic)));
        }
    }
    let first = progress.as_ref().map(|(progress, _)| progress.partitions.clone()).unwrap_or_default();
    for (topic, first) in first {
        let status = topics.entry(topic).or_insert_with_key(|topic| TopicStatus::new(topic, None));
        status.first_partitions = Some(first);
    }
    Ok(Asked { brokers: metadata.brokers().len(), topics: topics.into_values().collect(), progress })
}
