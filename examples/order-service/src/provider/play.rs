//! The payment provider itself, as far as it is needed to try its consumer.

use evenfold::backend::BoxError;

use crate::cli::Parts;
#[cfg(feature = "kafka")]
use crate::kafka::Kafka;

/// Why the payment provider cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Kafka or the topic was not named.
    #[error(
        "name Kafka with --kafka or in --kafka-settings, and the topic of the payment provider with --payments-topic"
    )]
    NoTopic,
    /// This program was built without Kafka.
    #[error("this program was built without Kafka: build it with `--features kafka`")]
    WithoutKafka,
    /// The file with properties of the client.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    Settings(#[from] evenfold::kafka::UnusableSettings),
    /// Kafka cannot be reached, or refused the topic or a message.
    #[error("the topic {topic:?} cannot be written")]
    Kafka {
        /// The topic.
        topic: String,
        /// The reason of the Kafka client.
        #[source]
        cause: BoxError,
    },
}

/// Creates the topic that `parts` name if it is missing, and tells there that each of `orders` was paid.
///
/// # Errors
/// [`ProviderError`].
#[cfg(feature = "kafka")]
pub async fn play(parts: &Parts, orders: &[String]) -> Result<(), ProviderError> {
    let kafka = Kafka::of(parts)?.ok_or(ProviderError::NoTopic)?;
    let topic = parts.payments_topic.as_deref().ok_or(ProviderError::NoTopic)?;
    let failed = |cause: BoxError| ProviderError::Kafka { topic: topic.to_owned(), cause };
    client::create(&kafka, topic).await.map_err(failed)?;
    client::send(&kafka, topic, orders).await.map_err(failed)
}

/// Refuses, since this program was built without Kafka.
///
/// # Errors
/// [`ProviderError::WithoutKafka`].
#[cfg(not(feature = "kafka"))]
pub async fn play(_: &Parts, _: &[String]) -> Result<(), ProviderError> {
    Err(ProviderError::WithoutKafka)
}

#[cfg(feature = "kafka")]
mod client {
    use std::time::Duration;

    use evenfold::backend::BoxError;
    use rdkafka::{
        ClientConfig,
        admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
        client::DefaultClientContext,
        producer::{FutureProducer, FutureRecord},
        types::RDKafkaErrorCode,
    };
    use serde_json::json;
    use uuid::Uuid;

    use super::Kafka;

    /// The partitions of the topic if it is created here.
    const PARTITIONS: i32 = 3;

    /// How long Kafka may take.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn config(kafka: &Kafka) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka.brokers).set("message.timeout.ms", PATIENCE.as_millis().to_string());
        config.extend(kafka.settings.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        config
    }

    pub(super) async fn create(kafka: &Kafka, topic: &str) -> Result<(), BoxError> {
        let admin: AdminClient<DefaultClientContext> = config(kafka).create()?;
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        for created in admin.create_topics([&new], &options).await? {
            if let Err((_, code)) = created
                && code != RDKafkaErrorCode::TopicAlreadyExists
            {
                return Err(code.into());
            }
        }
        Ok(())
    }

    pub(super) async fn send(kafka: &Kafka, topic: &str, orders: &[String]) -> Result<(), BoxError> {
        let producer: FutureProducer = config(kafka).create()?;
        for order in orders {
            let event = format!("E-{}", Uuid::now_v7().simple());
            let message = json!({ "type": "captured", "eventId": event, "order": order }).to_string();
            let sent = producer.send(FutureRecord::to(topic).key(order).payload(&message), PATIENCE).await;
            sent.map_err(|(error, _)| error)?;
        }
        Ok(())
    }
}
