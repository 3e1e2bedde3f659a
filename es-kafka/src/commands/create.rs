//! Where the topics of commands and answers are, and how they are created.

use std::{
    fmt,
    time::{Duration, Instant},
};

use es_core::backend::SourceError;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode as Code,
};

use crate::{
    aside,
    client::{self, Quiet, Settings, told, unavailable},
    foreign::topics::{missing, partitions_of, uncreated},
    source::begin::PATIENCE,
    topic_settings::TopicSettings,
};

/// Brokers, and what the topics there are called.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) brokers: String,
    pub(super) prefix: String,
    pub(super) settings: Settings,
    pub(super) creates_topics: bool,
    pub(super) replication: i32,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.prefix, self.brokers)
    }
}

impl Place {
    pub(super) fn new(brokers: String) -> Self {
        let (prefix, settings) = (String::new(), Settings::new());
        Self { brokers, prefix, settings, creates_topics: true, replication: -1 }
    }

    /// The topic of the commands to `service`.
    pub(super) fn commands(&self, service: &str) -> String {
        format!("{}{service}-commands", self.prefix)
    }

    /// The topic of the answers to `service`.
    pub(super) fn replies(&self, service: &str) -> String {
        format!("{}{service}{REPLIES}", self.prefix)
    }

    /// A consumer that joins no group, though it has the name of one.
    pub(super) fn observer(&self, group: &str) -> ClientConfig {
        let mut client = client::consumer(&self.brokers, group, &self.settings);
        client.set("queued.max.messages.kbytes", "1024");
        client
    }

    /// How many partitions `topic` has; `None` if it is not there.
    pub(super) async fn partitions(&self, topic: &str) -> Result<Option<i32>, SourceError> {
        let (observer, topic) = (self.observer(topic), topic.to_owned());
        let asked = aside::done(move || {
            let consumer: BaseConsumer<Quiet> = observer.create_with_context(Quiet).map_err(unavailable)?;
            let found = partitions_of(consumer.client(), &topic);
            found.map_err(|error| told(&consumer).map_or(error, unavailable))
        });
        asked.await.map_err(SourceError::Unavailable)?
    }

    /// Creates `topic` if it is missing.
    pub(super) async fn ensure(&self, topic: &str, partitions: i32, kept: Duration) -> Result<(), SourceError> {
        if self.partitions(topic).await?.is_some() {
            return Ok(());
        }
        if !self.creates_topics {
            return Err(missing(topic, "it is not there, and `create_topics` is off".into()));
        }
        let config = client::layered(&self.brokers, &[], &self.settings, &[]);
        let admin: AdminClient<Quiet> = config.create_with_context(Quiet).map_err(unavailable)?;
        let settings = TopicSettings { retention: Some(kept), ..TopicSettings::default() }.wanted();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(self.replication));
        let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        for result in admin.create_topics([&new], &AdminOptions::new()).await.map_err(unavailable)? {
            match result {
                Ok(_) => tracing::info!(topic, partitions, "topic created"),
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(uncreated(topic, code)),
            }
        }
        // Not every broker knows a new topic at once.
        let deadline = Instant::now() + PATIENCE;
        while self.partitions(topic).await?.is_none() {
            if Instant::now() > deadline {
                return Err(SourceError::Unavailable(format!("{topic:?} was created, and is not known yet").into()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// How the topic of a service's answers ends. Answers go to no other topic, whatever a command names.
const REPLIES: &str = "-replies";

/// Whether answers may be written to `topic`.
pub(super) fn is_for_replies(topic: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    topic.len() <= 249 && topic.ends_with(REPLIES) && topic.bytes().all(plain)
}
