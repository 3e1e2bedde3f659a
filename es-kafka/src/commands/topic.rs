//! The topic of the commands to a service.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use es_core::{
    RecordedEvent,
    backend::{
        CommandAnswer, CommandMessage, CommandTopic, EventFeed, EventSource, FailedEvent, Forwarded, SourceError,
        Subscription,
    },
};
use rdkafka::{
    error::RDKafkaErrorCode as Code,
    producer::{FutureProducer, FutureRecord},
};

use super::{address::Address, answer, create::Place, envelope, producing};
use crate::{
    KafkaTopic,
    client::{Quiet, Settings, unavailable},
    foreign::forwarder::not_taken,
    refusal,
    topics::separated,
};

/// For how long the brokers keep commands. Their deadlines are seconds after they are sent.
const COMMANDS_KEPT: Duration = Duration::from_hours(7 * 24);

/// How long the brokers may take to accept an answer.
const DELIVERY: Duration = Duration::from_secs(10);

/// Of so many topics of answers is remembered that they are there.
const MOST_KNOWN: usize = 1_000;

/// The topic `<prefix><service>-commands`, in which other services send commands to this one, for
/// [`ServiceBuilder::commands`](es_core::ServiceBuilder::commands).
///
/// ```
/// use es_core::{ServiceBuilder, testing::account::Account};
/// use es_kafka::KafkaCommandTopic;
///
/// fn bank(builder: ServiceBuilder) -> ServiceBuilder {
///     let topic = KafkaCommandTopic::new("127.0.0.1:9092", "bank").topic_prefix("shop-");
///     builder.aggregate::<Account>().commands(topic, |owner, shared| owner.aggregate(shared.repository::<Account>()))
/// }
/// ```
///
/// It is created when the service starts, if it is missing, and so is its dead-letter topic, `<prefix><service>-commands.dlq`.
///
/// # What a command is
/// A `CloudEvent` in binary mode, of which only `ce_subject` must be there beside what every `CloudEvent` has: it names the stream of the
/// aggregate. The other headers are in `docs/commands.md`. So programs that are not written with Evenfold send commands too.
///
/// # Failures
/// What cannot be executed goes to the dead letters, and is answered with the reason if the record says to which topic. Answers go to topics
/// whose names end in `-replies`, and to no others. One that does not exist, or to which this client may not write, gets none: that is
/// logged, and the command counts as answered.
#[derive(Clone)]
pub struct KafkaCommandTopic {
    topic: KafkaTopic,
    place: Place,
    service: String,
    partitions: i32,
    answers: Arc<Answers>,
}

/// The producer of the answers, which is made with the first one.
#[derive(Default)]
struct Answers {
    producer: Mutex<Option<FutureProducer<Quiet>>>,
    /// The topics that are known to be there.
    known: Mutex<HashSet<String>>,
}

impl fmt::Debug for KafkaCommandTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaCommandTopic")
            .field("name", &self.topic.name())
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl KafkaCommandTopic {
    /// The commands to `service` on the brokers at `host:port`, separated by commas.
    pub fn new(brokers: impl Into<String>, service: impl Into<String>) -> Self {
        let (place, service) = (Place::new(brokers.into()), service.into());
        let topic = KafkaTopic::new(place.brokers.clone(), place.commands(&service));
        Self { topic, place: place.clone(), service, partitions: 3, answers: Arc::default() }.at(place)
    }

    /// It with another place. What is declared of the topic itself comes after this.
    fn at(self, place: Place) -> Self {
        let topic = KafkaTopic::new(place.brokers.clone(), place.commands(&self.service));
        let prefix = place.prefix.clone();
        let topic = topic.settings(place.settings.clone()).source(|source| source.group_prefix = prefix);
        let topic = topic.create_topics(place.creates_topics).replication(place.replication);
        let topic = topic.category("commands").keep_extensions();
        Self { topic, place, answers: Arc::default(), ..self }
    }

    /// What the names of topics, and of the consumer group, start with (nothing, unless set otherwise). It ends in `.` or `-`, or gets a dot.
    pub fn topic_prefix(self, prefix: impl Into<String>) -> Self {
        let place = Place { prefix: separated(prefix), ..self.place.clone() };
        self.at(place)
    }

    /// Further properties of librdkafka, for example for TLS and SASL.
    pub fn settings(self, settings: Settings) -> Self {
        let place = Place { settings, ..self.place.clone() };
        self.at(place)
    }

    /// Whether topics that are missing are created (they are by default).
    pub fn create_topics(self, creates_topics: bool) -> Self {
        let place = Place { creates_topics, ..self.place.clone() };
        self.at(place)
    }

    /// How many brokers hold each partition of the topics that are created; -1, the default, is that of the cluster.
    pub fn replication(self, brokers: i32) -> Self {
        let place = Place { replication: brokers, ..self.place.clone() };
        self.at(place)
    }

    /// How many partitions the topic gets if it is created (3 by default). The processes of the service share them.
    pub fn partitions(self, partitions: i32) -> Self {
        Self { partitions, ..self }
    }

    /// The topic as a source of records.
    pub fn topic(&self) -> &KafkaTopic {
        &self.topic
    }

    fn producer(&self) -> Result<FutureProducer<Quiet>, SourceError> {
        let mut producer = self.answers.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*producer {
            return Ok(producer.clone());
        }
        let made: FutureProducer<Quiet> =
            producing(&self.place, DELIVERY).create_with_context(Quiet).map_err(unavailable)?;
        Ok(producer.insert(made).clone())
    }

    /// Whether `topic` is there. To produce to it could create it otherwise.
    async fn is_there(&self, topic: &str) -> Result<bool, SourceError> {
        let known = || self.answers.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(topic) {
            return Ok(true);
        }
        match self.place.partitions(topic).await {
            Ok(Some(_)) => {}
            Ok(None) | Err(SourceError::Refused { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut known = known();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(topic.to_owned());
        Ok(true)
    }

    async fn send(&self, to: &Address, answer: &CommandAnswer) -> Result<(), SourceError> {
        let Address { topic, cause, .. } = to;
        if !self.is_there(topic).await? {
            tracing::warn!(topic, "an answer to a command has no topic: it does not exist, or may not be seen");
            return Ok(());
        }
        let (headers, value) = answer::written(answer, to, &self.service);
        // Answers about one aggregate stay in order.
        let key = to.subject.as_deref().unwrap_or(cause);
        let record = FutureRecord::to(topic).key(key).payload(&value).headers(headers);
        let producer = self.producer()?;
        let delivered = match producer.send_result(record) {
            Ok(sent) => sent.await.map_err(|error| SourceError::Unavailable(error.into()))?.map_err(|(error, _)| error),
            Err((error, _)) => Err(error),
        };
        let Err(error) = delivered else { return Ok(()) };
        // The next attempt looks again for what is there, with a producer that has met no error.
        self.answers.known.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
        self.answers.producer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_of_topic = matches!(
            refusal::code(&error),
            Some(
                Code::TopicAuthorizationFailed
                    | Code::MessageSizeTooLarge
                    | Code::InvalidMessageSize
                    | Code::InvalidRecord
            )
        );
        let error = not_taken(&producer, topic, error);
        if is_of_topic {
            // It is no reason to keep the commands of other services from being executed.
            tracing::error!(topic, error = &error as &dyn std::error::Error, "an answer to a command is not accepted");
            return Ok(());
        }
        Err(error)
    }
}

#[async_trait]
impl EventSource for KafkaCommandTopic {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        self.place.ensure(self.topic.name(), self.partitions, COMMANDS_KEPT).await?;
        self.topic.open(subscription).await
    }

    fn read_again(&self, event: &RecordedEvent) -> Result<RecordedEvent, String> {
        self.topic.read_again(event)
    }

    async fn forward(&self, failed: FailedEvent<'_>) -> Result<Forwarded, SourceError> {
        let (event, reason) = (failed.event, failed.cause.to_owned());
        let forwarded = self.topic.forward(failed).await?;
        // It is kept. That its sender cannot be told holds up no other command: without an answer it sends the command again.
        if let Err(error) = self.answer(event, &CommandAnswer::Failed { reason }).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the sender of a command was not told that it failed"
            );
        }
        Ok(forwarded)
    }
}

#[async_trait]
impl CommandTopic for KafkaCommandTopic {
    fn command(&self, message: &RecordedEvent) -> Result<CommandMessage, String> {
        envelope::read(message)
    }

    async fn answer(&self, message: &RecordedEvent, answer: &CommandAnswer) -> Result<(), SourceError> {
        match Address::of(message) {
            Some(to) => self.send(&to, answer).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use es_core::{
        EventData, Metadata, Position, StreamId, Version,
        backend::{Fingerprint, UNREADABLE},
    };
    use uuid::Uuid;

    use super::*;

    fn message(name: &str, payload: &str, extra: &[(&str, &str)]) -> RecordedEvent {
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RecordedEvent {
            position: Position::new(1),
            stream: StreamId::new("commands", "account-ada").unwrap(),
            version: Version::new(1),
            id: Uuid::from_u128(7),
            recorded_at: chrono::Utc::now(),
            metadata: Metadata { extra, ..Metadata::default() },
            data: EventData { name: name.into(), schema_version: 1, payload: payload.to_owned().into() },
        }
    }

    /// So that `dlq` of the owner's program finds what waits there, also where the service has wrapped it.
    #[test]
    fn the_dead_letters_of_commands_are_found_as_those_of_any_topic() {
        let topic = KafkaCommandTopic::new("127.0.0.1:9092", "bank").topic_prefix("shop");
        assert_eq!(KafkaTopic::of(&topic).unwrap().name(), "shop.bank-commands");
        let shared: Arc<dyn EventSource> = Arc::new(topic);
        assert_eq!(KafkaTopic::of(&*shared).unwrap().name(), "shop.bank-commands");
    }

    #[test]
    fn a_command_of_which_only_the_aggregate_is_named_is_one_of_its_own() {
        let command = envelope::read(&message("deposit", "7", &[("subject", "account-ada")])).unwrap();
        assert_eq!((command.stream.as_str(), command.deadline, command.if_version), ("account-ada", None, None));
        assert_eq!(command.key.key.as_str(), Uuid::from_u128(7).to_string());
        assert_eq!(command.key.fingerprint, Fingerprint::of(b"7"));
    }

    /// A deadline that cannot be read is none that may be passed over.
    #[test]
    fn r14_a_header_that_does_not_fit_is_named_and_not_repeated() {
        let names = ["commandid", "commandcontent", "deadline", "ifversion", "causationid", "metadata"];
        for name in names {
            let value = if name == "commandid" { "hunter2\n" } else { "hunter2" };
            let error = envelope::read(&message("deposit", "7", &[("subject", "account-ada"), (name, value)]));
            let error = error.unwrap_err();
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
        for subject in [&[][..], &[("subject", "hunter2")]] {
            let error = envelope::read(&message("deposit", "7", subject)).unwrap_err();
            assert!(error.contains("ce_subject") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_answer_goes_only_to_a_topic_for_answers() {
        let to = |topic: &str| Address::of(&message("deposit", "7", &[("id", "1"), ("replyto", topic)]));
        assert_eq!(to("shop-orders-replies").unwrap().cause, "1");
        for other in ["order-events", "-replies.dlq", "a b-replies", "ü-replies", &format!("{:250}-replies", "a")] {
            assert_eq!(to(other), None, "{other}");
        }
        assert_eq!(Address::of(&message("deposit", "7", &[("id", "1")])), None);
        assert_eq!(Address::of(&message(UNREADABLE, "{}", &[])), None);
    }
}
