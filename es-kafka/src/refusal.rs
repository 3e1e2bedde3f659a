//! Which errors of Kafka no waiting ends, and what does.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// An error that stays until an operator has changed something.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) remedy: String,
    pub(crate) source: KafkaError,
}

impl Refusal {
    /// Tells a permanent error from one that a new attempt may get past, which is given back.
    ///
    /// # Errors
    /// The error itself, where it is transient.
    pub(crate) fn of(error: KafkaError) -> Result<Self, KafkaError> {
        match remedy(&error) {
            Some(remedy) => Ok(Self { remedy, source: without_value(error) }),
            None => Err(error),
        }
    }
}

/// The code that Kafka or the client gave, for any request.
pub(crate) fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// Whether a topic or partition was asked for that the brokers do not know.
pub(crate) fn is_unknown_topic(error: &KafkaError) -> bool {
    matches!(code(error), Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition))
}

/// Whether there are fewer brokers than a new topic is to have replicas. Those that start, or that the controller has lost for a moment, do
/// not count.
pub(crate) fn lacks_brokers(error: &KafkaError) -> bool {
    code(error) == Some(Code::InvalidReplicationFactor)
}

/// What an operator must do; `None` where the error is transient.
fn remedy(error: &KafkaError) -> Option<String> {
    match error {
        KafkaError::ClientConfig(_, reason, property, value) => {
            Some(format!("correct the property {property:?} in `settings`: {}", without(reason.trim(), value)))
        }
        // The client checks its properties together when it is made, and says which do not fit.
        KafkaError::ClientCreation(_) | KafkaError::AdminOpCreation(_) | KafkaError::Nul(_) => {
            Some("correct `brokers` or `settings`: no client can be made from them".to_owned())
        }
        error => {
            let code = code(error)?;
            missing_right(error, code).or_else(|| of_code(code)).map(str::to_owned)
        }
    }
}

/// The right that the client lacks: the code alone says only on what.
fn missing_right(error: &KafkaError, code: Code) -> Option<&'static str> {
    let is_write =
        matches!(error, KafkaError::MessageProduction(_) | KafkaError::Transaction(_) | KafkaError::Flush(_));
    Some(match (code, error) {
        (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed, KafkaError::AdminOp(_)) => {
            "grant the relay Create on topics that start with `topic_prefix`, or create them by hand, with `create_topics` off"
        }
        (Code::TopicAuthorizationFailed, _) if is_write => {
            "grant the relay Write on topics that start with `topic_prefix`"
        }
        (Code::TopicAuthorizationFailed, _) => {
            "grant the client Read on the topic, or on all that start with `topic_prefix`"
        }
        _ => return None,
    })
}

/// Every code that stays until an operator acts. All others are transient: they concern connections, leaders,
/// coordinators, time, or a client that a new one replaces.
fn of_code(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::InvalidTransactionTimeout => {
            "lower `transaction.timeout.ms` in `settings`, or raise `transaction.max.timeout.ms` of the brokers"
        }
        Code::InvalidSessionTimeout => {
            "set `session.timeout.ms` in `settings` between the brokers' `group.min.session.timeout.ms` and \
             `group.max.session.timeout.ms`"
        }
        Code::InvalidTopic => {
            "choose another `topic_prefix`: a topic's name has at most 249 letters, digits, '.', '_' and '-'"
        }
        Code::InvalidPartitions => "choose a number of `partitions` that is at least 1",
        Code::InvalidReplicationFactor | Code::InvalidReplicaAssignment => {
            "choose a `replication` that the cluster has enough brokers for"
        }
        Code::InvalidConfig => "the brokers refuse a setting of the topic: create it by hand, with `create_topics` off",
        Code::PolicyViolation => "the cluster's policy refuses the topic: create it by hand, with `create_topics` off",
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            "raise `max.message.bytes` of the topic, and `message.max.bytes` in `settings`"
        }
        Code::InvalidRecord | Code::InvalidTimestamp | Code::UnsupportedForMessageFormat => {
            "the topic's settings refuse the records of a relay: compare `cleanup.policy` and `message.timestamp.*` \
             with those of a topic that a relay created"
        }
        Code::UnsupportedCompressionType => "choose another `compression.type` in `settings`",
        Code::GroupAuthorizationFailed => "grant the client Read on consumer groups that start with `group_prefix`",
        Code::ClusterAuthorizationFailed => {
            "grant the relay IdempotentWrite on the cluster, as Kafka before 3.0 asks for it"
        }
        Code::TransactionalIdAuthorizationFailed => {
            "grant the relay Write on the transactional id that starts with `topic_prefix`"
        }
        Code::SaslAuthenticationFailed | Code::Authentication => {
            "the brokers refuse the credentials: correct `sasl.*` in `settings`, or the account"
        }
        Code::SSL => {
            "the connection is not trusted: compare `ssl.ca.location` in `settings` with the authority that has signed the brokers' \
             certificates, see whether these have expired and name the host that is connected to, and whether this port speaks TLS"
        }
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
            "choose a `sasl.mechanism` in `settings` that the brokers have enabled"
        }
        Code::SecurityDisabled | Code::DelegationTokenAuthDisabled => {
            "the brokers have no such security feature enabled: correct `settings`"
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => "Kafka 2.5 or newer is needed, with transactions",
        Code::InvalidGroupId | Code::InconsistentGroupProtocol | Code::UnsupportedAssignor => {
            "other clients use this consumer group: choose another `group_prefix`"
        }
        Code::GroupMaxSizeReached => "raise `group.max.size` of the brokers, or run fewer readers",
        Code::InvalidRequiredAcks => "the brokers refuse `acks`: correct `settings`",
        _ => return None,
    })
}

/// The value of a refused property may be a password under a mistyped name.
fn without_value(error: KafkaError) -> KafkaError {
    match error {
        KafkaError::ClientConfig(outcome, reason, property, value) => {
            KafkaError::ClientConfig(outcome, without(&reason, &value), property, "(value left out)".to_owned())
        }
        error => error,
    }
}

/// The reasons of the client repeat some values, in quotes.
fn without(reason: &str, value: &str) -> String {
    reason.replace(&format!("\"{value}\""), "(value left out)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_must_mend_is_told_from_what_passes() {
        for permanent in [
            KafkaError::AdminOp(Code::InvalidTopic),
            KafkaError::Global(Code::InvalidTransactionTimeout),
            KafkaError::MessageConsumption(Code::GroupAuthorizationFailed),
            KafkaError::MessageProduction(Code::MessageSizeTooLarge),
            KafkaError::ClientCreation("`max.poll.interval.ms` must be >= `session.timeout.ms`".into()),
        ] {
            assert!(Refusal::of(permanent.clone()).is_ok(), "{permanent}");
        }
        for transient in [
            KafkaError::Global(Code::AllBrokersDown),
            KafkaError::Global(Code::BrokerTransportFailure),
            KafkaError::MetadataFetch(Code::OperationTimedOut),
            KafkaError::MessageProduction(Code::NotEnoughReplicas),
            KafkaError::OffsetFetch(Code::UnknownTopicOrPartition),
            KafkaError::Canceled,
        ] {
            assert!(Refusal::of(transient.clone()).is_err(), "{transient}");
        }
    }

    /// The reason that the client gives for the second repeats the value.
    #[test]
    fn r14_a_property_that_is_refused_is_named_and_its_value_is_not() {
        for property in ["sasl.pasword", "security.protocol", "sasl.jaas.config"] {
            let mut config = rdkafka::ClientConfig::new();
            config.set(property, "secret");
            let error = config.create::<rdkafka::consumer::BaseConsumer>().err().expect("it is refused");
            let refusal = Refusal::of(error).expect("it stays until the property is corrected");
            assert!(refusal.remedy.contains(property), "{}", refusal.remedy);
            let told = format!("{} {} {refusal:?}", refusal.remedy, refusal.source);
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
