//! How Kafka clients are set up.

use std::collections::BTreeMap;

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Further properties of librdkafka, for example for TLS and SASL (`security.protocol`, `ssl.…`, `sasl.…`), which are
/// compiled in but for GSSAPI.
///
/// They may tune, but not weaken: what exactly-once rests on is set after them.
pub type Settings = BTreeMap<String, String>;

/// Properties in three layers: defaults, the user's, and those on which correctness rests.
pub(crate) fn layered(
    brokers: &str,
    tuning: &[(&str, &str)],
    settings: &Settings,
    invariants: &[(&str, &str)],
) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("socket.keepalive.enable", "true").set("client.id", "es-kafka");
    for (name, value) in tuning {
        config.set(*name, *value);
    }
    for (name, value) in settings {
        config.set(name, value);
    }
    config.set("bootstrap.servers", brokers);
    for (name, value) in invariants {
        config.set(*name, *value);
    }
    config
}

pub(crate) fn consumer(brokers: &str, group: &str, settings: &Settings) -> ClientConfig {
    let tuning = [
        ("fetch.wait.max.ms", "100"),
        ("fetch.queue.backoff.ms", "50"),
        // The default of 64 MiB is per consumer (R17).
        ("queued.max.messages.kbytes", "16384"),
        // New topics and partitions are noticed within this time.
        ("topic.metadata.refresh.interval.ms", "2000"),
        ("session.timeout.ms", "45000"),
        ("heartbeat.interval.ms", "3000"),
        ("max.poll.interval.ms", "300000"),
    ];
    let invariants = [
        ("group.id", group),
        ("group.protocol", "classic"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("isolation.level", "read_committed"),
        // Checkpoints live with the read model; Kafka's offsets are for tooling at most.
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        // A truncated topic is an alarm, not a jump.
        ("auto.offset.reset", "error"),
        ("allow.auto.create.topics", "false"),
    ];
    layered(brokers, &tuning, settings, &invariants)
}

/// Client context of which only the log lines matter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// Errors that a client reports on the side. The ends of partitions and topics that are yet to come
/// are everyday life; the rest (connections, mostly) the client mends itself.
pub(crate) fn report(error: &KafkaError, reason: &str) {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::PartitionEOF) => {}
        Some(Code::UnknownTopicOrPartition) => tracing::debug!(%error, reason, "kafka client"),
        _ => tracing::warn!(%error, reason, "kafka client"),
    }
}

pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(facility, "{line}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::warn!(facility, "{line}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, "{line}"),
    }
}
